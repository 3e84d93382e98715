// SPDX-License-Identifier: Apache-2.0
// What the module's source files share: its configuration, and the worker's place in the domain.
#pragma once

extern "C" {
#include <ngx_config.h>
// ngx_config.h comes first in every nginx source.
#include <ngx_channel.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>
}

#include "libglobalcache/globalcache.h"

extern "C" ngx_module_t ngx_http_mcs_module;

namespace mcs::nginx {

// ngx_string() for C++: nginx never writes to what a constant string points to.
template <size_t size>
ngx_str_t text(const char (&literal)[size]) noexcept {
  return {size - 1, reinterpret_cast<u_char*>(const_cast<char*>(literal))};
}

struct MainConf {
  mcs_domain_options domain;  // name == nullptr: no mcs_domain directive
  ngx_str_t shared_root;      // root of the first server that uses a key base named in http{}
};

// One http{}, server{}, location or if block.
struct LocationConf {
  ngx_flag_t enabled;
  mcs_policy* policy;
  ngx_str_t root;  // document root or alias, as configured, without its last slash
  // A key base names the files below one root. It is inherited together with the root it was named
  // for, so that a location with another root never answers with that root's files.
  ngx_str_t key_base;  // as named by mcs_cache_key_base here or above; empty: nowhere
  ngx_str_t key_base_root;
  bool key_base_in_http;    // named in http{}: for the root of the first server that uses it
  ngx_str_t full_key_base;  // what the policy was given; empty while the cache is off
};

// What the module remembers of one request.
struct RequestContext {
  mcs_cache_status status;
  mcs_str key_path;
  struct Waiter* waiter;    // nullptr until the request had to wait
  struct PinnedBody* body;  // nullptr unless the body lies in shared memory
};

inline LocationConf* location_conf(ngx_http_request_t* r) noexcept {
  return static_cast<LocationConf*>(ngx_http_get_module_loc_conf(r, ngx_http_mcs_module));
}

inline RequestContext* request_context(ngx_http_request_t* r) noexcept {
  return static_cast<RequestContext*>(ngx_http_get_module_ctx(r, ngx_http_mcs_module));
}

// The domain this worker has joined; nullptr: none, so requests are served without the cache.
extern mcs_process* joined_process;

// worker.cc: module hooks.
ngx_int_t prepare_domain(ngx_cycle_t* cycle) noexcept;
ngx_int_t start_worker(ngx_cycle_t* cycle) noexcept;
void stop_worker(ngx_cycle_t* cycle) noexcept;

// static.cc: local files.
ngx_int_t add_static_handler(ngx_conf_t* cf) noexcept;
// A request that was told to wait may ask the cache again.
void wake_request(ngx_http_request_t* r) noexcept;

// variables.cc: $mcs_cache_status and $mcs_cache_key.
ngx_int_t add_variables(ngx_conf_t* cf) noexcept;

}  // namespace mcs::nginx
