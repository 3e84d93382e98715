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
    LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
    ENVIRONMENT "MCS_BUILD_DIR=${CMAKE_BINARY_DIR};${arg_ENVIRONMENT}")
  if(arg_RESOURCE_LOCK)
    set_tests_properties(${arg_NAME} PROPERTIES RESOURCE_LOCK "${arg_RESOURCE_LOCK}")
  endif()
  if(arg_SERIAL)
    set_tests_properties(${arg_NAME} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()

# The fuzz targets need clang, whatever compiles the rest; gcc has no libFuzzer.
set(MCS_FUZZ_SECONDS 8 CACHE STRING "How long each fuzz test runs, in seconds")
set(MCS_FUZZ_SEED 1 CACHE STRING "Seed of the fuzz tests; 0 draws one")
find_program(MCS_CLANGXX NAMES clang++ clang++-14 clang++-15 clang++-16 clang++-19)
set(fuzz_flags -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -O1 -g1
               -std=c++20 -Wall -Wextra)
if(MCS_CLANGXX AND NOT MCS_CORE_ONLY AND NOT DEFINED MCS_FUZZ)
  file(WRITE "${CMAKE_BINARY_DIR}/fuzz/try.cc"
       "extern \"C\" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }")
  execute_process(COMMAND "${MCS_CLANGXX}" -fsanitize=fuzzer,address,undefined try.cc -o try
                  WORKING_DIRECTORY "${CMAKE_BINARY_DIR}/fuzz" RESULT_VARIABLE result
                  OUTPUT_QUIET ERROR_QUIET)
  if(result EQUAL 0)
    set(MCS_FUZZ ON CACHE BOOL "Build the fuzz targets")
  else()
    message(STATUS "Fuzz targets are left out: ${MCS_CLANGXX} cannot link -fsanitize=fuzzer "
                   "(Debian package libclang-rt-14-dev)")
  endif()
endif()

# Compiles each .cc of `sources` with clang and the definitions of `definitions` (a generator
# expression), and stores the objects' paths in `result`.
function(mcs_fuzz_objects result name definitions)
  set(objects "")
  foreach(source IN LISTS ARGN)
    cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}" NORMALIZE)
    if(NOT source MATCHES "\\.cc$")
      continue()
    endif()
    file(RELATIVE_PATH relative "${CMAKE_SOURCE_DIR}" "${source}")
    string(REPLACE "/" "-" flat "${relative}")
    set(object "${CMAKE_BINARY_DIR}/fuzz/${name}/${flat}.o")
    add_custom_command(
      OUTPUT "${object}"
      COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} "${MCS_CLANGXX}" ${fuzz_flags}
              "$<$<BOOL:${definitions}>:-D$<JOIN:${definitions},;-D>>"
              -I "${CMAKE_SOURCE_DIR}" -MD -MF "${object}.d" -c "${source}" -o "${object}"
      DEPENDS "${source}" DEPFILE "${object}.d"
      COMMENT "Building fuzz object ${name}/${flat}" COMMAND_EXPAND_LISTS VERBATIM)
    list(APPEND objects "${object}")
  endforeach()
  set(${result} "${objects}" PARENT_SCOPE)
endfunction()

# mcs_add_fuzzer(NAME <name> SOURCES <file>… [LIBS <lib>…] [CORPUS <dir>] [SECONDS <n>]
#                [MAX_LEN <bytes>])
# A libFuzzer program (SOURCES define LLVMFuzzerTestOneInput) as a ctest labelled `fuzz`. LIBS are
# targets of this build whose sources are compiled again, instrumented: name each one that is
# needed, also indirectly. CORPUS holds seeds and is only read; what is found goes to
# build/<preset>/fuzz/<name>.
function(mcs_add_fuzzer)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;CORPUS;SECONDS;MAX_LEN" "SOURCES;LIBS")
  if(NOT arg_NAME OR NOT arg_SOURCES OR arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "mcs_add_fuzzer needs NAME and SOURCES; "
                        "not understood: '${arg_UNPARSED_ARGUMENTS}'")
  endif()
  if(NOT MCS_FUZZ OR MCS_CORE_ONLY)
    return()
  endif()
  set(libraries "")
  foreach(lib IN LISTS arg_LIBS)
    set(archive "${CMAKE_BINARY_DIR}/fuzz/lib${lib}.a")
    get_target_property(type ${lib} TYPE)
    if(type STREQUAL "INTERFACE_LIBRARY")
      continue()
    endif()
    if(NOT TARGET fuzz_${lib})
      get_target_property(lib_sources ${lib} SOURCES)
      get_target_property(lib_directory ${lib} SOURCE_DIR)
      list(TRANSFORM lib_sources PREPEND "${lib_directory}/" REGEX "^[^/]")
      mcs_fuzz_objects(objects ${lib} "$<TARGET_PROPERTY:${lib},COMPILE_DEFINITIONS>"
                       ${lib_sources})
      add_custom_command(OUTPUT "${archive}"
                         COMMAND "${CMAKE_COMMAND}" -E rm -f "${archive}"
                         COMMAND "${CMAKE_AR}" crs "${archive}" ${objects}
                         DEPENDS ${objects} VERBATIM)
      add_custom_target(fuzz_${lib} DEPENDS "${archive}")
    endif()
    list(APPEND libraries "${archive}")
  endforeach()
  set(program "${CMAKE_BINARY_DIR}/fuzz/${arg_NAME}")
  mcs_fuzz_objects(objects objects-${arg_NAME}
                   "$<TARGET_PROPERTY:mcs_header_libraries,INTERFACE_COMPILE_DEFINITIONS>"
                   ${arg_SOURCES})
  add_custom_command(
    OUTPUT "${program}"
    COMMAND "${MCS_CLANGXX}" -fsanitize=fuzzer,address,undefined ${objects}
            -Wl,--start-group ${libraries} -Wl,--end-group -pthread -lrt -o "${program}"
    DEPENDS ${objects} ${libraries} COMMENT "Linking fuzz target ${arg_NAME}" VERBATIM)
  add_custom_target(fuzz_program_${arg_NAME} ALL DEPENDS "${program}")
  foreach(lib IN LISTS arg_LIBS)
    if(TARGET fuzz_${lib})
      add_dependencies(fuzz_program_${arg_NAME} fuzz_${lib})
    endif()
  endforeach()

  if(NOT arg_SECONDS)
    set(arg_SECONDS "${MCS_FUZZ_SECONDS}")
  endif()
  if(NOT arg_MAX_LEN)
    set(arg_MAX_LEN 4096)
  endif()
  set(work "${CMAKE_BINARY_DIR}/fuzz/${arg_NAME}.corpus")
  file(MAKE_DIRECTORY "${work}")
  if(arg_CORPUS)
    cmake_path(ABSOLUTE_PATH arg_CORPUS BASE_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  math(EXPR timeout "${arg_SECONDS} + 60")
  add_test(NAME ${arg_NAME}
           COMMAND "${program}" -max_total_time=${arg_SECONDS} -seed=${MCS_FUZZ_SEED}
                   -max_len=${arg_MAX_LEN} -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
                   "-artifact_prefix=${CMAKE_BINARY_DIR}/fuzz/${arg_NAME}-" "${work}" ${arg_CORPUS})
  set_tests_properties(${arg_NAME} PROPERTIES LABELS fuzz TIMEOUT ${timeout})
endfunction()
