# SPDX-License-Identifier: Apache-2.0
# Headers and rules for dynamic modules of the nginx that Debian packages.
#
# Package nginx-dev ships sources and configure flags, but not the headers that configure writes.
# They are made once per nginx version and flag set, below the build directory.
include_guard(GLOBAL)
include(McsModule)

set(MCS_NGINX_SOURCE /usr/share/nginx/src CACHE PATH "nginx sources as packaged by nginx-dev")
if(NOT EXISTS "${MCS_NGINX_SOURCE}/conf_flags")
  message(FATAL_ERROR "No nginx sources in ${MCS_NGINX_SOURCE}: run `./mcs deps`, or install the "
                      "Debian package nginx-dev.")
endif()

file(STRINGS "${MCS_NGINX_SOURCE}/src/core/nginx.h" nginx_version_line
     REGEX "define NGINX_VERSION ")
string(REGEX REPLACE ".*\"(.*)\".*" "\\1" MCS_NGINX_VERSION "${nginx_version_line}")
file(MD5 "${MCS_NGINX_SOURCE}/conf_flags" nginx_flags_hash)
string(SUBSTRING "${nginx_flags_hash}" 0 8 nginx_flags_hash)
set(nginx_objs "${CMAKE_BINARY_DIR}/nginx-${MCS_NGINX_VERSION}-${nginx_flags_hash}")

if(NOT EXISTS "${nginx_objs}/configured")
  message(STATUS "Configuring nginx ${MCS_NGINX_VERSION} headers")
  file(REMOVE_RECURSE "${nginx_objs}")
  # --with-compat, which makes module and server interchangeable, is among Debian's flags.
  execute_process(
    COMMAND bash -c ". ./conf_flags && ./configure \"\${NGX_CONF_FLAGS[@]}\" \
                     --with-cc-opt=-fPIC \"--builddir=$1\"" bash "${nginx_objs}"
    WORKING_DIRECTORY "${MCS_NGINX_SOURCE}"
    RESULT_VARIABLE nginx_result OUTPUT_VARIABLE nginx_output ERROR_VARIABLE nginx_output)
  if(nginx_result OR NOT EXISTS "${nginx_objs}/ngx_auto_config.h")
    message(FATAL_ERROR "nginx's configure failed:\n${nginx_output}")
  endif()
  file(TOUCH "${nginx_objs}/configured")
endif()

add_library(nginx_headers INTERFACE)
set(nginx_rooms core event event/modules os/unix http http/modules http/v2)
list(TRANSFORM nginx_rooms PREPEND "${MCS_NGINX_SOURCE}/src/")
target_include_directories(nginx_headers SYSTEM INTERFACE "${nginx_objs}" ${nginx_rooms})

# mcs_add_nginx_module(<name> <source or pattern>…)
# The dynamic module build/<preset>/modules/<name>.so, linked with mcs_core and installed in
# lib/nginx/modules. It exports ngx_modules, ngx_module_names and ngx_module_order, which its
# source defines extern "C" with default visibility. A ctest checks that it exports only these.
function(mcs_add_nginx_module name)
  mcs_add_module(NAME ${name} GLOBS ${ARGN} LIBS nginx_headers mcs_core
                 EXPORTS ngx_modules ngx_module_names ngx_module_order
                 DESTINATION lib/nginx/modules)
endfunction()
