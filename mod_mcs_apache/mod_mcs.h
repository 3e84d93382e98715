// SPDX-License-Identifier: Apache-2.0
//
// What the source files of mod_mcs share. The module only translates: httpd's configuration,
// request and buckets to the C API and back. What is stored, fresh or sent is decided behind it.
#pragma once

#include <httpd.h>
// httpd.h must come first: the others rely on it.
#include <http_config.h>
#include <http_log.h>
#include <util_filter.h>

#include "libglobalcache/globalcache.h"

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

extern const command_rec directives[];
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
  mcs_policy* policy;
  const KeyBase* key_base;  // the one in policy
};

// The site of this request, or nullptr if the cache is off for it.
const Site* site_of(const request_rec* r) noexcept;
// nullptr without McsDomain. Lives as long as the configuration.
const mcs_domain_options* configured_domain() noexcept;

// ------------------------------------------------------------------ process.cc

void register_process_hooks() noexcept;

// This child's membership of the domain; nullptr while it has none: serve without the cache.
mcs_process* joined() noexcept;

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

// The pool that lives until the client has all of the response, also in a subrequest.
apr_pool_t* response_pool(request_rec* r) noexcept;

// ------------------------------------------------------------------ static_files.cc

int serve_static_file(request_rec* r) noexcept;

}  // namespace mcs::httpd
