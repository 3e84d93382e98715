// SPDX-License-Identifier: Apache-2.0
//
// Local files through the cache: what httpd's default handler does, with the cache in the place of
// the file.
#include "mod_mcs_apache/mod_mcs.h"

#include <apr_strings.h>
#include <fcntl.h>
#include <http_core.h>
#include <http_protocol.h>
#include <http_request.h>
#include <unistd.h>

#include <cstring>
#include <utility>

namespace mcs::httpd {
namespace {

constexpr unsigned kContentMd5On = 1;  // core_dir_config::content_md5; httpd's name is private

bool is_for_the_cache(request_rec* r, const core_dir_config* core) noexcept {
  if (r->method_number != M_GET || r->finfo.filetype != APR_REG || r->filename == nullptr) {
    return false;
  }
  if (r->used_path_info != AP_REQ_ACCEPT_PATH_INFO && r->path_info != nullptr &&
      *r->path_info != '\0') {
    return false;
  }
  return core->content_md5 != kContentMd5On && !ap_request_has_body(r);
}

bool sends_etag(const core_dir_config* core) noexcept {
  return (((core->etag_bits & ~core->etag_remove) | core->etag_add) & ETAG_NONE) == 0;
}

// A file of r's pool around fd, which it takes over even on failure. apr_os_file_put would give
// one without a clean-up, which HTTP/2, where a file may outlive its request, could not pass on.
apr_file_t* adopt_file(request_rec* r, int fd, bool sendfile) noexcept {
  apr_file_t* file = nullptr;
  apr_os_file_t placeholder = -1;
  apr_int32_t flags = APR_READ | APR_BINARY | (sendfile ? APR_SENDFILE_ENABLED : 0);
  if (apr_file_open(&file, "/dev/null", flags, 0, r->pool) != APR_SUCCESS ||
      apr_os_file_get(&placeholder, file) != APR_SUCCESS || dup3(fd, placeholder, O_CLOEXEC) < 0) {
    ap_log_rerror(APLOG_MARK, APLOG_ERR, errno, r, "cannot pass on the open file %s", r->filename);
    file = nullptr;
  }
  close(fd);
  return file;
}

// RFC 9110, 13.2.2: a date is not looked at beside a tag. httpd looks at both.
int check_conditions(request_rec* r) noexcept {
  for (const auto& [tag, date] : {std::pair{"If-None-Match", "If-Modified-Since"},
                                  std::pair{"If-Match", "If-Unmodified-Since"}}) {
    if (apr_table_get(r->headers_in, tag) != nullptr) apr_table_unset(r->headers_in, date);
  }
  return ap_meets_conditions(r);
}

int send(request_rec* r, apr_bucket_brigade* brigade, const bool* body_failed) noexcept {
  conn_rec* c = r->connection;
  append_bucket(brigade, apr_bucket_eos_create(c->bucket_alloc));
  apr_status_t status = ap_pass_brigade(r->output_filters, brigade);
  apr_brigade_cleanup(brigade);
  if (body_failed != nullptr && *body_failed) return AP_FILTER_ERROR;  // no end of body may follow
  if (status == APR_SUCCESS || r->status != HTTP_OK || c->aborted) return OK;
  ap_log_rerror(APLOG_MARK, APLOG_DEBUG, status, r, "sending %s failed", r->filename);
  return AP_FILTER_ERROR;
}

}  // namespace

// The key's path: the file's path below the key base's document root. A file from elsewhere (Alias,
// UserDir, VirtualDocumentRoot, …) has its whole path after a second slash, which no path below a
// document root starts with, so that the two can never be taken for each other.
mcs_str file_key(request_rec* r, const KeyBase& key_base) noexcept {
  const size_t size = key_base.root != nullptr ? strlen(key_base.root) : 0;
  const char* path = r->filename + size;
  if (key_base.root == nullptr || strncmp(r->filename, key_base.root, size) != 0 || *path != '/') {
    path = apr_pstrcat(r->pool, "/", r->filename, nullptr);
  }
  return {path, strlen(path)};
}

int serve_static_file(request_rec* r) noexcept {
  const Site* site = site_of(r);
  if (site == nullptr) return DECLINED;
  auto* core = static_cast<core_dir_config*>(ap_get_core_module_config(r->per_dir_config));
  if (!is_for_the_cache(r, core)) return DECLINED;
  mcs_process* process = joined();
  if (process == nullptr) return DECLINED;
  for (const char* variable : {"no-cache", "mcs-cache-bypass", "mcs-cache-no-store"}) {
    if (apr_table_get(r->subprocess_env, variable) == nullptr) continue;
    note_status(r, MCS_CACHE_BYPASS);
    return DECLINED;
  }

  mcs_static_request request{};
  request.policy = site->files;
  request.path = file_key(r, *site->key_base);
  request.file = r->filename;
  request.head = r->header_only;
  request.alloc = allocate;
  request.alloc_context = response_pool(r);
  mcs_response response{};
  mcs_outcome outcome;
  {
    CallGuard guard;
    outcome = mcs_static_get(process, &request, &response);
  }
  note_status(r, response.cache_status);
  apr_table_setn(r->subprocess_env, "mcs-cache-key",
                 apr_pstrcat(r->pool, site->key_base->name, request.path.data, nullptr));
  if (outcome != MCS_RESPONSE && outcome != MCS_FILE) return DECLINED;

  const bool* body_failed = nullptr;
  apr_bucket_brigade* brigade = apr_brigade_create(r->pool, r->connection->bucket_alloc);
  if (outcome == MCS_FILE) {
    apr_file_t* file = adopt_file(r, response.file_fd, core->enable_sendfile == ENABLE_SENDFILE_ON);
    if (file == nullptr) return DECLINED;
    apr_bucket* bucket = apr_brigade_insert_file(
        brigade, file, 0, static_cast<apr_off_t>(response.body_length), r->pool);
    // The cache hands out what changes right now: mapped, a file cut short would be a SIGBUS.
    if (bucket != nullptr) apr_bucket_file_enable_mmap(bucket, 0);
  } else {
    body_failed = append_body(r, brigade, process, response);
  }

  if (response.last_modified >= 0) {
    ap_update_mtime(r, apr_time_from_sec(response.last_modified));
    ap_set_last_modified(r);
  }
  if (response.etag.size > 0 && sends_etag(core)) {
    apr_table_setn(r->headers_out, "ETag",
                   apr_pstrmemdup(r->pool, response.etag.data, response.etag.size));
  }
  if (response.cache_status_field.size > 0) {
    apr_table_mergen(r->headers_out, "Cache-Status",
                     apr_pstrmemdup(r->pool, response.cache_status_field.data,
                                    response.cache_status_field.size));
  }
  ap_set_accept_ranges(r);
  ap_set_content_length(r, static_cast<apr_off_t>(response.body_length));
  int condition = check_conditions(r);
  if (condition != OK) {
    r->status = condition;
    apr_brigade_cleanup(brigade);
  }
  return send(r, brigade, body_failed);
}

}  // namespace mcs::httpd
