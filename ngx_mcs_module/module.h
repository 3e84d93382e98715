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

inline ngx_str_t as_str(const mcs_str& s) noexcept {
  return {s.size, reinterpret_cast<u_char*>(const_cast<char*>(s.data))};
}

inline mcs_str as_str(const ngx_str_t& s) noexcept {
  return {reinterpret_cast<const char*>(s.data), s.len};
}

inline bool same_name(const ngx_str_t& a, const ngx_str_t& b) noexcept {
  return a.len == b.len &&
         (ngx_memcmp(a.data, b.data, a.len) == 0 || ngx_strncasecmp(a.data, b.data, a.len) == 0);
}

template <size_t size>
bool is_one_of(const ngx_str_t& name, const ngx_str_t (&names)[size]) noexcept {
  for (const ngx_str_t& known : names) {
    if (same_name(known, name)) return true;
  }
  return false;
}

// Request fields that ask for less than the whole response, or speak of the request's content.
inline const ngx_str_t kOfMainOnly[] = {
    text("Range"),          text("If-Range"),          text("If-Match"),
    text("If-None-Match"),  text("If-Modified-Since"), text("If-Unmodified-Since"),
    text("Content-Length"), text("Transfer-Encoding")};

struct MainConf {
  mcs_domain_options domain;  // name == nullptr: no mcs_domain directive
  // Of the first server{} that uses a key base named in http{}: its root, and itself.
  ngx_str_t shared_root;
  const void* shared_server;
};

// One http{}, server{}, location or if block.
struct LocationConf {
  ngx_flag_t enabled;
  mcs_policy* policy;       // the rules as configured: for responses of a content handler
  mcs_policy* file_policy;  // for local files: the same with full_key_base; nullptr: off
  ngx_http_complex_value_t* key;
  ngx_array_t* bypass;    // of conditions; nullptr: none
  ngx_array_t* no_store;  // likewise
  ngx_str_t root;         // document root or alias, as configured, without its last slash
  // A key base names the files below one root. It is inherited together with the root it was named
  // for, so that a location with another root never answers with that root's files.
  ngx_str_t key_base;  // as named by mcs_cache_key_base here or above; empty: nowhere
  ngx_str_t key_base_root;
  bool key_base_in_http;    // named in http{}: for the root of the first server that uses it
  ngx_str_t full_key_base;  // of local files; empty while the cache is off
  bool whole_path;          // they do not lie below the root of their key base
  uint32_t place;           // tells blocks apart, the same in all nodes and after a reload
};

// What the module remembers of one request in one location. It is also the waiter's name.
struct RequestContext {
  ngx_http_request_t* request;
  mcs_cache_status status;
  int64_t age;                // of the stored response, seconds; negative: not from the cache
  mcs_str key_path;           // local files
  bool last_try;              // local files: it has waited for long enough
  struct Waiter* waiter;      // nullptr until the request had to wait
  struct Sending* sending;    // nullptr unless the body is sent piece by piece
  struct Exchange* exchange;  // nullptr for local files
};

inline LocationConf* location_conf(ngx_http_request_t* r) noexcept {
  return static_cast<LocationConf*>(ngx_http_get_module_loc_conf(r, ngx_http_mcs_module));
}

inline const ngx_http_core_loc_conf_t* core_conf(const ngx_http_request_t* r) noexcept {
  return static_cast<ngx_http_core_loc_conf_t*>(
      ngx_http_get_module_loc_conf(r, ngx_http_core_module));
}

// Made at the first call in a location. nullptr: no memory.
RequestContext* make_context(ngx_http_request_t* r) noexcept;

inline RequestContext* request_context(ngx_http_request_t* r) noexcept {
  return static_cast<RequestContext*>(ngx_http_get_module_ctx(r, ngx_http_mcs_module));
}

// The domain this worker has joined; nullptr: none, so requests are served without the cache.
extern mcs_process* joined_process;

// worker.cc: module hooks.
ngx_int_t prepare_domain(ngx_cycle_t* cycle) noexcept;
ngx_int_t start_worker(ngx_cycle_t* cycle) noexcept;
void stop_worker(ngx_cycle_t* cycle) noexcept;

// module.cc: adds a handler that is asked before all others of its phase.
ngx_int_t add_handler(ngx_conf_t* cf, ngx_http_phases phase, ngx_http_handler_pt handler) noexcept;

// static.cc: local files.
ngx_int_t add_static_handler(ngx_conf_t* cf) noexcept;
// A PURGE: if `response` allows it, what it says is replaced.
ngx_int_t purge_file(ngx_http_request_t* r, mcs_response* response) noexcept;

// proxied.cc: what content handlers (proxy_pass, ...) answer.
ngx_int_t add_proxied_handler(ngx_conf_t* cf) noexcept;
const mcs_request& proxied_request(const RequestContext* context) noexcept;

// refresh.cc: requests of nobody, which renew what is stale.
struct Refresh {
  int peer;  // the other end of its socket pair
  bool tls;  // whether the request it was made from came over TLS
};
ngx_int_t add_refresh_handler(ngx_conf_t* cf) noexcept;
void start_refresh(ngx_http_request_t* r, const mcs_request& request) noexcept;
// nullptr: the connection is a client's.
Refresh* refresh_of(const ngx_connection_t* c) noexcept;

// waiting.cc: requests that others' fills wake.
using Resume = void (*)(ngx_http_request_t* r, RequestContext* context, bool timed_out);
// Until wake_waiter or `limit` ms (0: none), whichever comes first; then `resume` is called once.
ngx_int_t begin_waiting(RequestContext* context, ngx_msec_t limit, Resume resume) noexcept;
void wake_waiter(void* unused, void* context) noexcept;

// headers.cc: between nginx's header lists and the core's fields.
void* allocate(void* pool, size_t size) noexcept;
ngx_int_t read_request_fields(ngx_http_request_t* r, mcs_request* request) noexcept;
struct RequestEdits {
  ngx_list_t original;  // r->headers_in.headers
  bool active;
};
// The core's edits, for the content handler and until restore_request.
ngx_int_t edit_request(ngx_http_request_t* r, const mcs_response& edits,
                       RequestEdits* made) noexcept;
void restore_request(ngx_http_request_t* r, RequestEdits* made) noexcept;
// What the content handler answered, for the core, with room for one more. u: its upstream, or nullptr.
ngx_int_t read_response_fields(ngx_http_request_t* r, const ngx_http_upstream_t* u,
                               mcs_field** fields, size_t* count) noexcept;
ngx_int_t add_fields(ngx_http_request_t* r, const mcs_response& response) noexcept;
// Status, fields and length in place of what headers_out holds.
ngx_int_t set_response(ngx_http_request_t* r, const mcs_response& response) noexcept;

// sending.cc: bodies from the cache.
// Before anything is sent: takes over what must be given back at the request's end, and drops the
// request's body. On anything but NGX_OK the handler returns it.
ngx_int_t begin_sending(ngx_http_request_t* r, const ngx_str_t& path,
                        mcs_response* response) noexcept;
// The header that was set, and the body.
ngx_int_t send_all(ngx_http_request_t* r, const ngx_str_t& path,
                   const mcs_response& response) noexcept;
// The body alone.
ngx_int_t send_body(ngx_http_request_t* r, const ngx_str_t& path,
                    const mcs_response& response) noexcept;
// The body of a fill that is still arriving, after its header was sent.
ngx_int_t send_following(ngx_http_request_t* r, RequestContext* context,
                         mcs_transaction* transaction) noexcept;

// variables.cc
void set_value(ngx_http_variable_value_t* value, const ngx_str_t& text) noexcept;
ngx_int_t add_variables(ngx_conf_t* cf) noexcept;

}  // namespace mcs::nginx
