# SPDX-License-Identifier: Apache-2.0
# Targets whose sources are globbed, so that a new file in a room needs no CMake change.

# mcs_add_static_library(NAME <name> GLOBS <pattern>… [LIBS <lib>…])
# A static, position independent library; LIBS are public. Without a source it is an INTERFACE
# library of the same name, so that dependents still configure.
function(mcs_add_static_library)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME" "GLOBS;LIBS")
  file(GLOB sources CONFIGURE_DEPENDS ${arg_GLOBS})
  if(sources)
    add_library(${arg_NAME} STATIC ${sources})
    target_link_libraries(${arg_NAME} PUBLIC ${arg_LIBS})
  else()
    add_library(${arg_NAME} INTERFACE)
    target_link_libraries(${arg_NAME} INTERFACE ${arg_LIBS})
  endif()
endfunction()

# mcs_add_program(NAME <name> GLOBS <pattern>… [LIBS <lib>…] [DESTINATION <install dir>])
# A program in build/<preset>/bin, installed in DESTINATION (default bin; NONE: not installed).
# Nothing is built while no source matches.
function(mcs_add_program)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;DESTINATION" "GLOBS;LIBS")
  file(GLOB sources CONFIGURE_DEPENDS ${arg_GLOBS})
  if(NOT sources)
    return()
  endif()
  add_executable(${arg_NAME} ${sources})
  target_link_libraries(${arg_NAME} PRIVATE ${arg_LIBS})
  # What is here reads a command line and prints; optimising CLI11 and JSON would take a fifth of the
  # build's time.
  target_compile_options(${arg_NAME} PRIVATE -O0)
  if(NOT arg_DESTINATION)
    set(arg_DESTINATION "${CMAKE_INSTALL_BINDIR}")
  endif()
  if(NOT arg_DESTINATION STREQUAL "NONE")
    install(TARGETS ${arg_NAME} RUNTIME DESTINATION "${arg_DESTINATION}")
  endif()
endfunction()

# Header-only libraries that every room may include. fmt and xxHash are compiled in, so that a
# module loaded by a web server needs no further shared library at run time.
add_library(mcs_header_libraries INTERFACE)
target_compile_definitions(mcs_header_libraries INTERFACE FMT_HEADER_ONLY=1 XXH_INLINE_ALL=1)
