# SPDX-License-Identifier: MIT
#
# Tests inside a machine with VT-x (tests/vm). CTest starts one machine for all
# programs of one group and one row of tests/matrix.json; each case of a program
# is a CTest entry per row that looks up its own result. tests/README.md tells how.

include_guard()

set(DUNE_VM_DIR "${CMAKE_BINARY_DIR}/vm")
set(DUNE_VM_HARNESS "${PROJECT_SOURCE_DIR}/tests/vm/harness")

# dune_add_vm_test(NAME SOURCES file... [LIBS target...]
#     [STATIC]              a static executable at a fixed address
#     [STATIC_PIE]          a static executable at any address
#     [PLAIN]               no GoogleTest: exit status 0 passes, 77 skips
#     [GROUP name]          programs of a group share a machine (default: main)
#     [MACHINE arg...]      further arguments of `scripts/machine run` for the group
#     [ROWS regex]          only in the rows whose name matches
#     [TIMEOUT seconds]     for each case (default 60)
#     [PROGRAMS target...]  programs that the test starts; they lie beside it
#     [LABELS label...])
#
# A GoogleTest program needs no main(), and must not touch /dev/dune before its
# first test: the build lists its cases on the host, and each runs in a child
# of the program (tests/vm/runner/case_server.h).
function(dune_add_vm_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "STATIC;STATIC_PIE;PLAIN" "GROUP;ROWS;TIMEOUT"
                        "SOURCES;LIBS;MACHINE;PROGRAMS;LABELS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "dune_add_vm_test(${name}): unknown: ${arg_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT arg_GROUP)
    set(arg_GROUP main)
    if(arg_MACHINE)
      message(FATAL_ERROR "dune_add_vm_test(${name}): MACHINE needs a GROUP of its own")
    endif()
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 60)
  endif()

  if(NOT arg_PLAIN)
    list(APPEND arg_LIBS GTest::gtest dune_vm_test_main)
  endif()
  set(static "")
  if(arg_STATIC)
    set(static STATIC)
  elseif(arg_STATIC_PIE)
    set(static STATIC_PIE)
  endif()
  dune_add_vm_program(${name} ${static} SOURCES ${arg_SOURCES} LIBS ${arg_LIBS})
  if(arg_PROGRAMS)
    add_dependencies(${name} ${arg_PROGRAMS})
  endif()
  if(NOT arg_PLAIN)
    add_custom_command(TARGET ${name} POST_BUILD
      COMMAND "${DUNE_VM_HARNESS}/list-cases" $<TARGET_FILE:${name}> "${DUNE_VM_DIR}/cases/${name}"
      BYPRODUCTS "${DUNE_VM_DIR}/cases/${name}" VERBATIM)
  endif()

  dune_json_list(programs ${arg_PROGRAMS})
  dune_json_list(machine ${arg_MACHINE})
  dune_json_list(labels ${arg_LABELS})
  set(plain false)
  if(arg_PLAIN)
    set(plain true)
  endif()
  string(REPLACE "\\" "\\\\" rows "${arg_ROWS}")
  set_property(GLOBAL APPEND_STRING PROPERTY DUNE_VM_TESTS
    "{\"name\": \"${name}\", \"group\": \"${arg_GROUP}\", \"plain\": ${plain}, \
\"rows\": \"${rows}\", \"timeout\": ${arg_TIMEOUT}, \"programs\": ${programs}, \
\"machine\": ${machine}, \"labels\": ${labels}},\n")
endfunction()

# dune_add_vm_program(NAME [STATIC | STATIC_PIE] SOURCES file... [LIBS target...])
#
# A program for use inside the machine, for instance one that tests start.
function(dune_add_vm_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "STATIC;STATIC_PIE" "" "SOURCES;LIBS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "dune_add_vm_program(${name}): unknown: ${arg_UNPARSED_ARGUMENTS}")
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LIBS} dune_kernel_abi)
  # Most of a short program's life would be ld.so binding libstdc++.
  set(static "")
  if(arg_STATIC)
    set(static -static)
  elseif(arg_STATIC_PIE)
    set(static -static-pie)
  endif()
  if(static)
    # GoogleTest can report to a socket, and ld warns of getaddrinfo() in static programs.
    target_link_options(${name} PRIVATE ${static} -Wl,--no-warnings)
  else()
    target_link_options(${name} PRIVATE $<$<LINK_LANGUAGE:CXX>:-static-libstdc++>)
  endif()
  dune_stage_vm_program(${name})
  if(arg_STATIC_PIE)
    set_target_properties(${name} PROPERTIES BUILD_RPATH "")  # glibc asserts that there is none
  endif()
endfunction()

# A copy without debug information, for a quick way into the machine.
function(dune_stage_vm_program name)
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${DUNE_VM_DIR}/bin"
    BUILD_RPATH "$ORIGIN/../lib")
  add_custom_command(TARGET ${name} POST_BUILD
    COMMAND "${CMAKE_COMMAND}" -E make_directory "${DUNE_VM_DIR}/stage"
    COMMAND "${CMAKE_STRIP}" -o "${DUNE_VM_DIR}/stage/${name}" $<TARGET_FILE:${name}>
    BYPRODUCTS "${DUNE_VM_DIR}/stage/${name}" VERBATIM)
endfunction()

function(dune_json_list out)
  list(TRANSFORM ARGN REPLACE "(.+)" "\"\\1\"")
  list(JOIN ARGN ", " joined)
  set(${out} "[${joined}]" PARENT_SCOPE)
endfunction()

# Called once, when all tests are known: writes vm/tests.json for the harness, and
# makes ctest read the entries that the harness derives from it, from the matrix
# and from the lists of cases.
function(dune_finish_vm_tests)
  get_property(tests GLOBAL PROPERTY DUNE_VM_TESTS)
  string(REGEX REPLACE ",\n$" "\n" tests "${tests}")
  file(CONFIGURE OUTPUT "${DUNE_VM_DIR}/tests.json" CONTENT "[\n${tests}]\n" @ONLY)

  set(entries "${DUNE_VM_DIR}/ctest-entries.cmake")
  file(GLOB harness CONFIGURE_DEPENDS "${DUNE_VM_HARNESS}/*.py")
  get_property(names GLOBAL PROPERTY DUNE_VM_TESTS)
  string(REGEX MATCHALL "\"name\": \"[^\"]+\"" names "${names}")
  list(TRANSFORM names REPLACE "\"name\": \"([^\"]+)\"" "\\1")
  add_custom_command(OUTPUT "${entries}"
    COMMAND "${Python3_EXECUTABLE}" "${DUNE_VM_HARNESS}/entries.py" "${DUNE_VM_DIR}" "${entries}"
    DEPENDS ${names} ${harness} "${DUNE_VM_DIR}/tests.json" "${PROJECT_SOURCE_DIR}/tests/matrix.json"
    COMMENT "Listing the tests of the matrix" VERBATIM)
  add_custom_target(vm-test-entries ALL DEPENDS "${entries}")
  set_property(DIRECTORY "${PROJECT_SOURCE_DIR}" APPEND PROPERTY TEST_INCLUDE_FILES "${entries}")
endfunction()
