# SPDX-License-Identifier: MIT
#
# dune_add_library: the shared and the static form of one library from one
# compilation, with soname, symbol versions, headers, pkg-config file and
# CMake package.

include_guard()
include(CMakePackageConfigHelpers)

# dune_add_library(NAME
#     SOURCES file...             C++, C and assembly sources
#     [PUBLIC_INCLUDE dir]        its content is installed below include/
#     [VERSION_SCRIPT file]       symbol versions of the shared library
#     [LIBS target...]            needed by the sources only
#     [PUBLIC_LIBS target...])    needed by users too
#
# Makes NAME (shared), NAME_static and NAME_objects; users in the tree link
# dune::NAME or dune::NAME_static. Tests of internal symbols, which the version
# script hides, link NAME_static.
function(dune_add_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "PUBLIC_INCLUDE;VERSION_SCRIPT"
                        "SOURCES;LIBS;PUBLIC_LIBS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "dune_add_library(${name}): unknown: ${arg_UNPARSED_ARGUMENTS}")
  endif()

  add_library(${name}_objects OBJECT ${arg_SOURCES})
  target_link_libraries(${name}_objects PRIVATE dune_kernel_abi ${arg_LIBS}
                        PUBLIC ${arg_PUBLIC_LIBS})
  add_library(${name} SHARED)
  add_library(${name}_static STATIC)
  set_target_properties(${name} PROPERTIES
    VERSION "${PROJECT_VERSION}" SOVERSION "${PROJECT_VERSION_MAJOR}" LINKER_LANGUAGE CXX)
  set_target_properties(${name}_static PROPERTIES OUTPUT_NAME ${name} LINKER_LANGUAGE CXX)
  target_link_options(${name} PRIVATE -Wl,-z,defs)
  foreach(lib IN ITEMS ${name} ${name}_static)
    target_sources(${lib} PRIVATE $<TARGET_OBJECTS:${name}_objects>)
    target_link_libraries(${lib} PRIVATE $<BUILD_INTERFACE:${arg_LIBS}>
                          PUBLIC ${arg_PUBLIC_LIBS})
    add_library(dune::${lib} ALIAS ${lib})
  endforeach()

  if(arg_PUBLIC_INCLUDE)
    get_filename_component(include "${arg_PUBLIC_INCLUDE}" ABSOLUTE)
    foreach(lib IN ITEMS ${name}_objects ${name} ${name}_static)
      target_include_directories(${lib} PUBLIC
        "$<BUILD_INTERFACE:${include}>" "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
    endforeach()
    install(DIRECTORY "${include}/" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
            FILES_MATCHING PATTERN "*.h")
  endif()

  if(arg_VERSION_SCRIPT)
    get_filename_component(script "${arg_VERSION_SCRIPT}" ABSOLUTE)
    target_link_options(${name} PRIVATE "LINKER:--version-script=${script}")
    set_property(TARGET ${name} APPEND PROPERTY LINK_DEPENDS "${script}")
  endif()

  dune_install_library(${name})
endfunction()

# Installs both forms with the CMake package (find_package(dune)) and the
# pkg-config file of the same name.
function(dune_install_library name)
  install(TARGETS ${name} ${name}_static EXPORT ${name}-targets)
  set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/${name}")
  install(EXPORT ${name}-targets NAMESPACE dune:: DESTINATION "${package_dir}")

  configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/package-config.cmake.in"
    "${CMAKE_CURRENT_BINARY_DIR}/${name}-config.cmake" INSTALL_DESTINATION "${package_dir}")
  write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/${name}-config-version.cmake"
    COMPATIBILITY SameMinorVersion)
  install(FILES "${CMAKE_CURRENT_BINARY_DIR}/${name}-config.cmake"
                "${CMAKE_CURRENT_BINARY_DIR}/${name}-config-version.cmake"
          DESTINATION "${package_dir}")

  file(RELATIVE_PATH pc_to_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
  string(REGEX REPLACE "/$" "" pc_to_prefix "${pc_to_prefix}")
  configure_file("${PROJECT_SOURCE_DIR}/cmake/package.pc.in"
    "${CMAKE_CURRENT_BINARY_DIR}/lib${name}.pc" @ONLY)
  install(FILES "${CMAKE_CURRENT_BINARY_DIR}/lib${name}.pc"
          DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endfunction()
