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
#              [DEPENDS <target>…] [COST <seconds>] [SERIAL])
# A GoogleTest program (main and gmock come with it) as one ctest entry of the same name.
# TIMEOUT defaults to 120 s; what has a COST starts before what has less; SERIAL keeps other tests
# from running beside it; DEPENDS are built first. In a MCS_CORE_ONLY build only tests labelled
# `unit` exist.
function(mcs_add_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "SERIAL" "NAME;TIMEOUT;COST"
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
  if(NOT arg_COST)
    set(arg_COST 0)
  endif()
  add_executable(${arg_NAME} ${arg_SOURCES})
  set_target_properties(${arg_NAME} PROPERTIES
                        RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  target_link_libraries(${arg_NAME} PRIVATE ${arg_LIBS} GTest::gmock GTest::gtest_main)
  # What is tested is optimised; the tests themselves are compiled twice as fast without.
  target_compile_options(${arg_NAME} PRIVATE -O0)
  mcs_compile_together(${arg_NAME})
  if(arg_DEPENDS)
    add_dependencies(${arg_NAME} ${arg_DEPENDS})
  endif()
  add_test(NAME ${arg_NAME}
           COMMAND ${arg_NAME} "--gtest_output=xml:${CMAKE_BINARY_DIR}/gtest/${arg_NAME}.xml"
                   ${arg_ARGS})
  set_tests_properties(${arg_NAME} PROPERTIES
    LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} COST ${arg_COST}
    ENVIRONMENT "MCS_BUILD_DIR=${CMAKE_BINARY_DIR};${arg_ENVIRONMENT}")
  if(arg_RESOURCE_LOCK)
    set_tests_properties(${arg_NAME} PROPERTIES RESOURCE_LOCK "${arg_RESOURCE_LOCK}")
  endif()
  if(arg_SERIAL)
    set_tests_properties(${arg_NAME} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()

set(MCS_FUZZ_SECONDS 8 CACHE STRING "How long each fuzz test runs, in seconds")
set(MCS_FUZZ_SEED 1 CACHE STRING "Seed of the fuzz tests; 0 draws one")

# mcs_add_fuzzer(NAME <name> SOURCES <file>… [LIBS <lib>…] [CORPUS <dir>] [SECONDS <n>]
#                [MAX_LEN <bytes>])
# A libFuzzer program (SOURCES define LLVMFuzzerTestOneInput) as a ctest labelled `fuzz`, where the
# core is instrumented for it: in the asan preset, which clang compiles, since gcc has no libFuzzer.
# CORPUS holds seeds and is only read; what is found goes to build/<preset>/fuzz/<name>.
function(mcs_add_fuzzer)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;CORPUS;SECONDS;MAX_LEN" "SOURCES;LIBS")
  if(NOT arg_NAME OR NOT arg_SOURCES OR arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "mcs_add_fuzzer needs NAME and SOURCES; "
                        "not understood: '${arg_UNPARSED_ARGUMENTS}'")
  endif()
  if(NOT MCS_SANITIZE MATCHES "fuzzer")
    return()
  endif()
  set(directory "${CMAKE_BINARY_DIR}/fuzz")
  add_executable(${arg_NAME} ${arg_SOURCES})
  set_target_properties(${arg_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${directory}")
  target_link_libraries(${arg_NAME} PRIVATE ${arg_LIBS})
  target_link_options(${arg_NAME} PRIVATE -fsanitize=fuzzer)
  if(NOT arg_SECONDS)
    set(arg_SECONDS "${MCS_FUZZ_SECONDS}")
  endif()
  if(NOT arg_MAX_LEN)
    set(arg_MAX_LEN 4096)
  endif()
  set(work "${directory}/${arg_NAME}.corpus")
  file(MAKE_DIRECTORY "${work}")
  if(arg_CORPUS)
    cmake_path(ABSOLUTE_PATH arg_CORPUS BASE_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  math(EXPR timeout "${arg_SECONDS} + 60")
  add_test(NAME ${arg_NAME}
           COMMAND ${arg_NAME} -max_total_time=${arg_SECONDS} -seed=${MCS_FUZZ_SEED}
                   -max_len=${arg_MAX_LEN} -timeout=10 -rss_limit_mb=2048 -entropic=0
                   -print_final_stats=1
                   "-artifact_prefix=${directory}/${arg_NAME}-" "${work}" ${arg_CORPUS})
  set_tests_properties(${arg_NAME} PROPERTIES LABELS fuzz TIMEOUT ${timeout})
endfunction()
