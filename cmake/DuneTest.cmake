# SPDX-License-Identifier: MIT
#
# Tests on the host (tests/unit). Each GoogleTest case is a CTest entry.

include_guard()
include(CTest)
include(GoogleTest)

# dune_add_unit_test(NAME SOURCES file... [LIBS target...])
#
# A GoogleTest program that runs on the host, without VT-x, as it is built.
function(dune_add_unit_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "dune_add_unit_test(${name}): unknown: ${arg_UNPARSED_ARGUMENTS}")
  endif()
  add_executable(${name} ${arg_SOURCES})
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests/unit")
  target_link_libraries(${name} PRIVATE ${arg_LIBS} dune_kernel_abi GTest::gtest GTest::gtest_main)
  gtest_discover_tests(${name} TEST_PREFIX "unit.${name}." NO_PRETTY_VALUES
                       PROPERTIES LABELS unit TIMEOUT 300 DISCOVERY_TIMEOUT 60)
endfunction()
