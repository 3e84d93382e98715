// SPDX-License-Identifier: Apache-2.0
//
// What the source files of mod_mcs share. The module only translates: httpd's configuration,
// request and buckets to the C API and back. What is stored, fresh or sent is decided behind it.
#pragma once

#include <httpd.h>
// httpd.h must come first: the others rely on it.
#include <ap_expr.h>
#include <http_config.h>
#include <http_log.h>
#include <util_filter.h>

#include "libglobalcache/globalcache.h"

// The ring macros of APR find a ring's sentinel with casts that clang warns about.
#pragma GCC diagnostic ignored "-Wcast-qual"

extern "C" __attribute__((visibility("default"))) module_struct mcs_module;
// As APLOG_USE_MODULE, which would declare mcs_module with this build's hidden visibility.
[[maybe_unused]] static int* const aplog_module_index = &mcs_module.module_index;

namespace mcs::httpd {

// ------------------------------------------------------------------ config.cc

struct Rules;  // the McsCache… rules of one context, constant once the configuration is read

// Per-directory configuration.
struct DirConfig {
  int enabled = -1;        // McsCache: 1 on, 0 off, -1 not set
  Rules* rules = nullptr;  // nullptr: no rule set here
};

const command_rec* directives() noexcept;
void* create_dir_config(apr_pool_t* pool, char* directory) noexcept;
// Also runs once per request and section that sets rules: it allocates only what it must.
void* merge_dir_config(apr_pool_t* pool, void* parent, void* child) noexcept;
void register_config_hooks() noexcept;

// A key base belongs to one directory: the DocumentRoot of the virtual host it was set in, or the
// <Directory> it was set for if that lies elsewhere. So a key names one file, however many hosts,
// aliases and user directories the key base is in effect for.
struct KeyBase {
  const char* name;
  const server_rec* home;      // where it was set
  const char* directory;       // of the <Directory> section it was set in; nullptr: in none
  const char* root = nullptr;  // without a slash at its end; nullptr: every key has the whole path
  KeyBase* next = nullptr;
};

// What holds for all requests of one context.
struct Site {
  mcs_policy* files;
  mcs_policy* responses;              // without a default key base: scheme, host and port take its place
  const KeyBase* key_base = nullptr;  // the one in files
  const ap_expr_info_t* key = nullptr;  // McsCacheKey
};

// The site of this request, or nullptr if the cache is off for it.
const Site* site_of(const request_rec* r) noexcept;
// nullptr without McsDomain. Lives as long as the configuration.
const mcs_domain_options* configured_domain() noexcept;

// ------------------------------------------------------------------ process.cc

void register_process_hooks() noexcept;

// This child's membership of the domain; nullptr while it has none: serve without the cache.
mcs_process* joined() noexcept;

// Not so in children with one thread (prefork).
bool is_threaded() noexcept;
// A detached thread. 0, or the error number.
int start_thread(void* (*run)(void*), void* argument) noexcept;

// To be held around every call that takes an mcs_process. A prefork child that gets SIGTERM runs
// its clean-up inside the signal handler: if that interrupted such a call, leaving would use
// structures in mid-change, so the child ends without a word instead, as if it had crashed.
class CallGuard {
 public:
  CallGuard() noexcept;
  ~CallGuard();
  CallGuard(const CallGuard&) = delete;
  CallGuard& operator=(const CallGuard&) = delete;
};

// ------------------------------------------------------------------ body.cc

void register_body_filter() noexcept;

// Appends the response's body to brigade and takes over the response: it is released when the last
// bucket is destroyed, or at the latest with response_pool(r). Returns a flag, in memory of that
// pool, that becomes true if shared memory was lost while the body was read; nullptr if it cannot.
const bool* append_body(request_rec* r, apr_bucket_brigade* brigade, mcs_process* process,
                        const mcs_response& response) noexcept;

void append_bucket(apr_bucket_brigade* brigade, apr_bucket* bucket) noexcept;

// From here to flush_as_usual, a flush on the connection writes what the socket takes and does not
// wait for the client. nullptr if the connection is none of sockets (HTTP/2 has its own buffers).
ap_filter_t* flush_gently(request_rec* r) noexcept;
void flush_as_usual(ap_filter_t* filter) noexcept;

// The pool that lives until the client has all of the response, also in a subrequest.
apr_pool_t* response_pool(request_rec* r) noexcept;

// ------------------------------------------------------------------ static_files.cc

int serve_static_file(request_rec* r) noexcept;
// The path in the key of the file that the request is mapped to.
mcs_str file_key(request_rec* r, const KeyBase& key_base) noexcept;

// ------------------------------------------------------------------ exchange.cc

// A request whose response comes from another handler: what it asked the core, and how far the
// handler's answer has got. In the pool of the request.
struct Exchange {
  request_rec* r = nullptr;  // follows internal redirects
  mcs_process* process = nullptr;
  mcs_request request{};
  mcs_transaction* transaction = nullptr;  // nullptr once it is over
  apr_table_t* received = nullptr;         // the request's fields before the core's edits
  ap_filter_t* gentle = nullptr;           // while the response is stored: from flush_gently
  // What this server had set for the response before any handler ran: kept out of the cache, and
  // sent with whatever takes the place of the handler's response.
  apr_table_t* own_fields = nullptr;
  apr_table_t* own_error_fields = nullptr;
  bool running = false;    // the handler runs
  bool answered = false;   // its response has begun
  bool again = false;      // it must run again
  bool dropping = false;   // what it sends is not for the client
  bool rewritten = false;  // the core chooses what the client gets of its body
  bool storing = false;
  bool broken = false;       // its body broke off
  bool client_left = false;  // it goes on for the cache
};

// This thread runs the handler of an exchange.
inline thread_local bool fetching = false;

Exchange* exchange_of(const request_rec* r) noexcept;
void end_exchange(Exchange& x) noexcept;

void note_status(request_rec* r, mcs_cache_status status) noexcept;

// Makes the reply's status and fields those of the response. Fields that are set already stay if
// the reply has none of their name.
void set_head(request_rec* r, const mcs_response& reply) noexcept;
// The reply, head and body, into the filters that come after the cache; releases it.
apr_status_t send_reply(request_rec* r, ap_filter_t* next, mcs_process* process,
                        const mcs_response& reply) noexcept;
// The response that the handler has begun with is not the one that is sent.
void discard_head(Exchange& x) noexcept;

// A handler gave up with this status and sent nothing. true: reply is what is sent instead, or
// (x.again) the handler must run again.
bool take_failure(Exchange& x, int status, mcs_response& reply) noexcept;

// ------------------------------------------------------------------ responses.cc

int serve_response(request_rec* r) noexcept;
// For the core: memory of the pool `pool`.
void* allocate(void* pool, size_t size) noexcept;

// ------------------------------------------------------------------ store.cc

// Sees the handler's response before DEFLATE and the like, behind the filters that make content.
void register_store_filter() noexcept;
void add_store_filter(Exchange& x) noexcept;

// ------------------------------------------------------------------ refresh.cc

void register_refresh() noexcept;
// Fetches what the request asked for again, for nobody but the cache, and without delaying the
// connection it came over unless its response is `awaited` (docs/decisions/0021-httpd-refresh.md).
void start_refresh(request_rec* r, bool awaited) noexcept;
bool is_refresh(const request_rec* r) noexcept;

}  // namespace mcs::httpd
