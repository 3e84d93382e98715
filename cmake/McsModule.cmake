# SPDX-License-Identifier: Apache-2.0
# What modules of both servers need: they share one process with others' code, so nothing but what
# the server looks up may be visible, and nothing of theirs may be bound to somebody else's symbol.
include_guard(GLOBAL)
find_program(MCS_NM nm REQUIRED)

# mcs_write_version_script(<file> <symbol or pattern>…)
function(mcs_write_version_script file)
  list(JOIN ARGN "; " symbols)
  file(CONFIGURE OUTPUT "${file}" CONTENT "{ global: ${symbols}; local: *; };\n")
endfunction()

# mcs_add_module(NAME <name> GLOBS <pattern>… LIBS <lib>… EXPORTS <symbol>… DESTINATION <dir>)
# Nothing is built while no source matches.
function(mcs_add_module)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;DESTINATION" "GLOBS;LIBS;EXPORTS")
  file(GLOB sources CONFIGURE_DEPENDS ${arg_GLOBS})
  if(NOT sources)
    return()
  endif()
  set(map "${CMAKE_CURRENT_BINARY_DIR}/${arg_NAME}.map")
  mcs_write_version_script("${map}" ${arg_EXPORTS})
  add_library(${arg_NAME} MODULE ${sources})
  target_link_libraries(${arg_NAME} PRIVATE ${arg_LIBS})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # A unique symbol would keep the module mapped after httpd unloads it on a restart.
    target_compile_options(${arg_NAME} PRIVATE -fno-gnu-unique)
  endif()
  target_link_options(${arg_NAME} PRIVATE "-Wl,--version-script=${map}" -Wl,--exclude-libs,ALL
                      -Wl,-Bsymbolic)
  set_target_properties(${arg_NAME} PROPERTIES PREFIX "" LINK_DEPENDS "${map}"
                        LIBRARY_OUTPUT_DIRECTORY "${MCS_MODULE_OUTPUT_DIRECTORY}")
  install(TARGETS ${arg_NAME} LIBRARY DESTINATION "${arg_DESTINATION}")
  if(MCS_BUILD_TESTS)
    add_test(NAME ${arg_NAME}_exports
             COMMAND "${CMAKE_COMMAND}" "-DNM=${MCS_NM}" "-DMODULE=$<TARGET_FILE:${arg_NAME}>"
                     "-DEXPECTED=${arg_EXPORTS}" -P "${CMAKE_SOURCE_DIR}/cmake/CheckExports.cmake")
    set_tests_properties(${arg_NAME}_exports PROPERTIES LABELS unit TIMEOUT 20)
  endif()
endfunction()
