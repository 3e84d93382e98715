# SPDX-License-Identifier: Apache-2.0
# Targets whose sources are globbed, so that a new file in a room needs no CMake change.

option(MCS_TOGETHER "Compile several sources of tests and tools at once" OFF)

# mcs_compile_together(<target> [ALONE <source>…])
# Built from nothing, tests and tools take half the time if headers are read once for eight sources;
# who changes one source at a time is better off without MCS_TOGETHER. ALONE: sources that use a name
# which another of the target's sources uses for something else.
function(mcs_compile_together target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "ALONE")
  if(MCS_TOGETHER)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
    set_source_files_properties(${arg_ALONE} TARGET_DIRECTORY ${target}
                                PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
endfunction()

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
  mcs_compile_together(${arg_NAME})
  if(NOT arg_DESTINATION)
    set(arg_DESTINATION "${CMAKE_INSTALL_BINDIR}")
  endif()
  if(NOT arg_DESTINATION STREQUAL "NONE")
    install(TARGETS ${arg_NAME} RUNTIME DESTINATION "${arg_DESTINATION}")
  endif()
endfunction()

# Libraries that every room may include. fmt and xxHash are compiled in, so that a module loaded by a
# web server needs no further shared library at run time: fmt once, since instantiating it in each
# source would take half of the build's time.
add_library(mcs_fmt STATIC "${CMAKE_CURRENT_LIST_DIR}/fmt.cc")
add_library(mcs_header_libraries INTERFACE)
target_compile_definitions(mcs_header_libraries INTERFACE XXH_INLINE_ALL=1)
target_link_libraries(mcs_header_libraries INTERFACE mcs_fmt)
