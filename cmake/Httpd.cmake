# SPDX-License-Identifier: Apache-2.0
# Headers and rules for modules of the Apache httpd that Debian packages.
include_guard(GLOBAL)
include(McsModule)

find_program(MCS_APXS apxs)
find_program(MCS_APR_CONFIG apr-1-config)
find_program(MCS_APU_CONFIG apu-1-config)
if(NOT MCS_APXS OR NOT MCS_APR_CONFIG OR NOT MCS_APU_CONFIG)
  message(FATAL_ERROR "apxs, apr-1-config or apu-1-config is missing: run `./mcs deps`, or install "
                      "the Debian packages apache2-dev, libapr1-dev and libaprutil1-dev.")
endif()

function(mcs_query result)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE output OUTPUT_STRIP_TRAILING_WHITESPACE
                  COMMAND_ERROR_IS_FATAL ANY)
  set(${result} "${output}" PARENT_SCOPE)
endfunction()
mcs_query(httpd_include ${MCS_APXS} -q INCLUDEDIR)
mcs_query(apr_include ${MCS_APR_CONFIG} --includedir)
mcs_query(apu_include ${MCS_APU_CONFIG} --includedir)
mcs_query(apr_flags ${MCS_APR_CONFIG} --cppflags)
separate_arguments(apr_flags UNIX_COMMAND "${apr_flags}")

add_library(httpd_headers INTERFACE)
target_include_directories(httpd_headers SYSTEM INTERFACE
                           "${httpd_include}" "${apr_include}" "${apu_include}")
target_compile_options(httpd_headers INTERFACE ${apr_flags})

# mcs_add_httpd_module(<name> <symbol> <source or pattern>…)
# The module build/<preset>/modules/<name>.so, linked with mcs_core and installed in
# lib/apache2/modules. It exports its `module` structure <symbol>, and a ctest checks that it
# exports nothing else.
function(mcs_add_httpd_module name symbol)
  mcs_add_module(NAME ${name} GLOBS ${ARGN} LIBS httpd_headers mcs_core EXPORTS ${symbol}
                 DESTINATION lib/apache2/modules)
endfunction()
