# SPDX-License-Identifier: MIT
#
# What every target of the project is built with, and where it lands:
# <build>/bin for programs, <build>/lib for libraries.

include_guard()
include(GNUInstallDirs)

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
# bin/ finds ../lib wherever both are copied to, as they are into a machine.
set(CMAKE_BUILD_RPATH_USE_ORIGIN ON)
set(CMAKE_INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()

add_compile_options(-Wall -Wextra)
if(DUNE_WARNINGS_ARE_ERRORS)
  add_compile_options(-Werror)
endif()
if(DUNE_SANITIZE)
  add_compile_options(-fsanitize=${DUNE_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${DUNE_SANITIZE})
endif()

# The kernel ABI header kern/dune.h, for `#include <dune.h>`-free use as "kern/dune.h".
add_library(dune_kernel_abi INTERFACE)
target_include_directories(dune_kernel_abi INTERFACE
                           "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>")

# dune_add_parts(PATTERN...): adds each matching folder that holds a CMakeLists.txt.
function(dune_add_parts)
  foreach(pattern IN LISTS ARGN)
    file(GLOB lists CONFIGURE_DEPENDS RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}"
         "${CMAKE_CURRENT_SOURCE_DIR}/${pattern}/CMakeLists.txt")
    foreach(list IN LISTS lists)
      get_filename_component(part "${list}" DIRECTORY)
      add_subdirectory("${part}")
    endforeach()
  endforeach()
endfunction()
