# SPDX-License-Identifier: Apache-2.0
# Tests and fuzz targets. ctest entries write what they found case by case to
# build/<preset>/gtest/<name>.xml, which `./mcs test` counts.
if(NOT MCS_BUILD_TESTS)
  function(mcs_add_test)
  endfunction()
  function(mcs_add_fuzzer)
  endfunction()
  return()
endif()

find_package(GTest REQUIRED)

# mcs_add_test(NAME <name> SOURCES <file>… [LIBS <lib>…] LABELS unit|server|models|killpoints|long…
#              [ARGS <arg>…] [ENVIRONMENT VAR=value…] [TIMEOUT <seconds>] [RESOURCE_LOCK <name>…]
#              [DEPENDS <target>…] [SERIAL])
# A GoogleTest program (main and gmock come with it) as one ctest entry of the same name.
# TIMEOUT defaults to 120 s; SERIAL keeps other tests from running beside it; DEPENDS are built
# first. In a MCS_CORE_ONLY build only tests labelled `unit` exist.
function(mcs_add_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "SERIAL" "NAME;TIMEOUT"
                        "SOURCES;LIBS;LABELS;ARGS;ENVIRONMENT;RESOURCE_LOCK;DEPENDS")
  if(NOT arg_NAME OR NOT arg_SOURCES OR NOT arg_LABELS OR arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "mcs_add_test needs NAME, SOURCES and LABELS; "
                        "not understood: '${arg_UNPARSED_ARGUMENTS}'")
  endif()
  if(MCS_CORE_ONLY AND NOT "unit" IN_LIST arg_LABELS)
    return()
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_executable(${arg_NAME} ${arg_SOURCES})
  set_target_properties(${arg_NAME} PROPERTIES
                        RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  target_link_libraries(${arg_NAME} PRIVATE ${arg_LIBS} GTest::gmock GTest::gtest_main)
  if(arg_DEPENDS)
    add_dependencies(${arg_NAME} ${arg_DEPENDS})
  endif()
  add_test(NAME ${arg_NAME}
           COMMAND ${arg_NAME} "--gtest_output=xml:${CMAKE_BINARY_DIR}/gtest/${arg_NAME}.xml"
                   ${arg_ARGS})
  set_tests_properties(${arg_NAME} PROPERTIES
    LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
    ENVIRONMENT "MCS_BUILD_DIR=${CMAKE_BINARY_DIR};${arg_ENVIRONMENT}")
  if(arg_RESOURCE_LOCK)
    set_tests_properties(${arg_NAME} PROPERTIES RESOURCE_LOCK "${arg_RESOURCE_LOCK}")
  endif()
  if(arg_SERIAL)
    set_tests_properties(${arg_NAME} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()

function(mcs_add_fuzzer)
endfunction()
