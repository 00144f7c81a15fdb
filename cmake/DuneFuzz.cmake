# SPDX-License-Identifier: MIT
#
# Fuzz targets: a file with LLVMFuzzerTestOneInput(). The preset `fuzz` (Clang)
# makes libFuzzer programs of them for `make fuzz`; every other preset makes
# unit tests that replay the corpus, so that what was found once stays found.

include_guard()

# dune_add_fuzz_target(NAME SOURCES file... [LIBS target...] CORPUS folder)
function(dune_add_fuzz_target name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "CORPUS" "SOURCES;LIBS")
  if(arg_UNPARSED_ARGUMENTS OR NOT arg_CORPUS)
    message(FATAL_ERROR "dune_add_fuzz_target(${name}): no CORPUS, or unknown: "
                        "${arg_UNPARSED_ARGUMENTS}")
  endif()
  get_filename_component(corpus "${arg_CORPUS}" ABSOLUTE)
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LIBS} dune_kernel_abi)

  if(DUNE_BUILD_FUZZERS)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    set_target_properties(${name} PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/fuzzers")
    file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/corpora")
    file(CREATE_LINK "${corpus}" "${CMAKE_BINARY_DIR}/corpora/${name}" SYMBOLIC)
    add_dependencies(fuzzers ${name})
  elseif(DUNE_BUILD_TESTS)
    target_sources(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests/fuzz/replay.cc")
    set_target_properties(${name} PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests/unit")
    add_test(NAME unit.fuzz.${name} COMMAND ${name} "${corpus}")
    set_tests_properties(unit.fuzz.${name} PROPERTIES LABELS unit TIMEOUT 300)
  endif()
endfunction()

add_custom_target(fuzzers)
