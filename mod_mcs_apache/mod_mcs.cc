// SPDX-License-Identifier: Apache-2.0
#include "mod_mcs_apache/mod_mcs.h"

#include <http_core.h>
#include <http_protocol.h>

namespace mcs::httpd {
namespace {

void register_hooks(apr_pool_t* pool) noexcept {
  // So that <Limit PURGE> and RegisteredMethods know it.
  ap_method_register(pool, "PURGE");
  register_config_hooks();
  register_process_hooks();
  register_body_filter();
  register_store_filter();
  register_refresh();
  // After access control, and before every handler whose response may be in the cache.
  ap_hook_handler(serve_response, nullptr, nullptr, APR_HOOK_REALLY_FIRST);
  // Directly before httpd's own handler for files, so that a request reaches the cache only after
  // access control and only if no other module (CGI, PHP, proxy, WebDAV, …) answers it.
  ap_hook_handler(serve_static_file, nullptr, nullptr, APR_HOOK_REALLY_LAST - 1);
}

}  // namespace
}  // namespace mcs::httpd

module_struct mcs_module = {STANDARD20_MODULE_STUFF,
                            mcs::httpd::create_dir_config,
                            mcs::httpd::merge_dir_config,
                            nullptr,
                            nullptr,
                            mcs::httpd::directives(),
                            mcs::httpd::register_hooks,
                            AP_MODULE_FLAG_NONE};
