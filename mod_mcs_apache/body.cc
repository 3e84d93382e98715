// SPDX-License-Identifier: Apache-2.0
//
// Bodies as buckets. Small ones are copies in the response's pool. Large ones stay in shared
// memory, pinned, and are sent from there; they are of one of two bucket types:
//
//   guarded  what every filter sees. Reading it makes a private copy of at most 64 KiB, as reading
//            a file bucket does, because memory that is lost may only be touched by the library.
//   direct   what httpd's core output filter sees: reading it gives the pinned memory itself, which
//            goes to writev(2) and nowhere else (a lost segment makes that fail, not crash).
//
// A filter of our own just above the core output filter turns guarded buckets into direct ones. On
// connections with TLS or HTTP/2 no guarded bucket gets that far. The same filter sees to it that
// nobody waits for a client who reads slowly while others wait for the same response.
#include "mod_mcs_apache/mod_mcs.h"

#include <apr_buckets.h>
#include <http_core.h>

#include <algorithm>
#include <new>

namespace mcs::httpd {
namespace {

constexpr apr_size_t kChunk = 64 * 1024;

ap_filter_rec_t* direct_filter_handle;

// Shared by all buckets of one body; bucket->start counts from the body's first byte, and a bucket
// never reaches over the end of the piece it was made for. In memory of the bucket allocator, since
// buckets may outlive the response's pool when a connection is torn down.
struct PinnedBody {
  apr_bucket_refcount refcount;  // must be first
  mcs_process* process;
  mcs_response response;
  apr_pool_t* pool;      // response.body lies in it; nullptr once released
  conn_rec* connection;  // valid while pool is not nullptr
  bool* failed;          // likewise
};

apr_status_t release(void* data) noexcept {
  auto* body = static_cast<PinnedBody*>(data);
  body->pool = nullptr;
  CallGuard guard;
  // After leaving there is nothing to give back, and nobody to give it to.
  if (joined() == body->process) mcs_response_release(body->process, &body->response);
  return APR_SUCCESS;
}

void destroy(void* data) noexcept {
  if (!apr_bucket_shared_destroy(data)) return;
  auto* body = static_cast<PinnedBody*>(data);
  if (body->pool != nullptr) {
    apr_pool_cleanup_kill(body->pool, body, release);
    release(body);
  }
  apr_bucket_free(body);
}

bool copy_out(PinnedBody* body, apr_off_t start, char* to, apr_size_t size) noexcept {
  CallGuard guard;
  return body->pool != nullptr && joined() == body->process &&
         mcs_response_read(body->process, &body->response, static_cast<uint64_t>(start), to, size);
}

apr_status_t read_guarded(apr_bucket* bucket, const char** data, apr_size_t* size,
                          apr_read_type_e) noexcept {
  auto* body = static_cast<PinnedBody*>(bucket->data);
  apr_size_t length =
      std::min(bucket->length, apr_bucket_alloc_aligned_floor(bucket->list, kChunk));
  char* copy = static_cast<char*>(apr_bucket_alloc(length, bucket->list));
  if (!copy_out(body, bucket->start, copy, length)) {
    apr_bucket_free(copy);
    *data = nullptr;
    *size = 0;
    if (body->pool != nullptr) {
      // The length is promised already: only a closed connection tells the client.
      *body->failed = true;
      body->connection->aborted = 1;
      body->connection->keepalive = AP_CONN_CLOSE;
      ap_log_cerror(APLOG_MARK, APLOG_ERR, 0, body->connection,
                    "connection closed: the memory of a cached body was lost while it was sent");
    }
    return APR_EGENERAL;
  }
  if (length < bucket->length) apr_bucket_shared_split(bucket, length);
  apr_bucket_heap_make(bucket, copy, length, apr_bucket_free);
  destroy(body);
  *data = copy;
  *size = length;
  return APR_SUCCESS;
}

apr_status_t read_direct(apr_bucket* bucket, const char** data, apr_size_t* size,
                         apr_read_type_e) noexcept {
  auto* body = static_cast<PinnedBody*>(bucket->data);
  if (body->pool == nullptr) return APR_EGENERAL;
  auto start = static_cast<size_t>(bucket->start);
  const iovec* piece = body->response.body;
  for (; start >= piece->iov_len; ++piece) start -= piece->iov_len;
  *data = static_cast<const char*>(piece->iov_base) + start;
  *size = bucket->length;
  return APR_SUCCESS;
}

const apr_bucket_type_t guarded_type = {"MCS",
                                        5,
                                        apr_bucket_type_t::APR_BUCKET_DATA,
                                        destroy,
                                        read_guarded,
                                        apr_bucket_setaside_noop,
                                        apr_bucket_shared_split,
                                        apr_bucket_shared_copy};
const apr_bucket_type_t direct_type = {"MCSD",
                                       5,
                                       apr_bucket_type_t::APR_BUCKET_DATA,
                                       destroy,
                                       read_direct,
                                       apr_bucket_setaside_noop,
                                       apr_bucket_shared_split,
                                       apr_bucket_shared_copy};

apr_status_t direct_filter(ap_filter_t* filter, apr_bucket_brigade* brigade) noexcept {
  ap_filter_t* next = filter->next;
  if (next == nullptr || next->frec != ap_core_output_filter_handle) {
    return ap_pass_brigade(next, brigade);
  }
  const bool gently = filter->ctx != nullptr;
  bool flush = false;
  for (apr_bucket* bucket = APR_BRIGADE_FIRST(brigade); bucket != APR_BRIGADE_SENTINEL(brigade);) {
    apr_bucket* following = APR_BUCKET_NEXT(bucket);
    if (bucket->type == &guarded_type) bucket->type = &direct_type;
    if (gently && APR_BUCKET_IS_FLUSH(bucket)) {
      flush = true;
      apr_bucket_delete(bucket);
    }
    bucket = following;
  }
  apr_status_t status = ap_pass_brigade(next, brigade);
  // Without a brigade httpd's filter writes what the socket takes at once.
  if (flush && status == APR_SUCCESS) status = next->frec->filter_func.out_func(next, nullptr);
  return status;
}

ap_filter_t* ensure_direct_filter(request_rec* r) noexcept {
  for (ap_filter_t* f = r->connection->output_filters; f != nullptr; f = f->next) {
    if (f->frec == direct_filter_handle) return f;
  }
  return ap_add_output_filter_handle(direct_filter_handle, nullptr, r, r->connection);
}

const bool* append_pinned(request_rec* r, apr_bucket_brigade* brigade, mcs_process* process,
                          const mcs_response& response) noexcept {
  apr_bucket_alloc_t* list = r->connection->bucket_alloc;
  apr_pool_t* pool = response_pool(r);
  auto* failed = static_cast<bool*>(apr_pcalloc(pool, sizeof(bool)));
  auto* body = new (apr_bucket_alloc(sizeof(PinnedBody), list))
      PinnedBody{{}, process, response, pool, r->connection, failed};
  apr_pool_cleanup_register(pool, body, release, apr_pool_cleanup_null);
  ensure_direct_filter(r);
  body->refcount.refcount = 1;  // this function's
  apr_off_t start = 0;
  for (size_t i = 0; i < response.body_count; ++i) {
    apr_size_t length = response.body[i].iov_len;
    if (length == 0) continue;
    auto* bucket = static_cast<apr_bucket*>(apr_bucket_alloc(sizeof(apr_bucket), list));
    APR_BUCKET_INIT(bucket);
    bucket->type = &guarded_type;
    bucket->free = apr_bucket_free;
    bucket->list = list;
    bucket->data = body;
    bucket->start = start;
    bucket->length = length;
    ++body->refcount.refcount;
    append_bucket(brigade, bucket);
    start += static_cast<apr_off_t>(length);
  }
  destroy(body);
  return failed;
}

}  // namespace

void register_body_filter() noexcept {
  direct_filter_handle = ap_register_output_filter(
      "MCS_DIRECT", direct_filter, nullptr, static_cast<ap_filter_type>(AP_FTYPE_NETWORK - 1));
}

void append_bucket(apr_bucket_brigade* brigade, apr_bucket* bucket) noexcept {
  APR_BRIGADE_INSERT_TAIL(brigade, bucket);
}

ap_filter_t* flush_gently(request_rec* r) noexcept {
  if (r->connection->master != nullptr) return nullptr;
  ap_filter_t* filter = ensure_direct_filter(r);
  filter->ctx = filter;
  return filter;
}

void flush_as_usual(ap_filter_t* filter) noexcept {
  if (filter != nullptr) filter->ctx = nullptr;
}

apr_pool_t* response_pool(request_rec* r) noexcept {
  while (r->main != nullptr) r = r->main;
  return r->pool;
}

const bool* append_body(request_rec* r, apr_bucket_brigade* brigade, mcs_process* process,
                        const mcs_response& response) noexcept {
  if (response.body_pinned) return append_pinned(r, brigade, process, response);
  apr_bucket_alloc_t* list = r->connection->bucket_alloc;
  for (size_t i = 0; i < response.body_count; ++i) {
    if (response.body[i].iov_len == 0) continue;
    // Immortal for httpd: the response's pool is destroyed behind the last byte of the response.
    append_bucket(brigade,
                  apr_bucket_immortal_create(static_cast<const char*>(response.body[i].iov_base),
                                             response.body[i].iov_len, list));
  }
  mcs_response unpinned = response;
  CallGuard guard;
  mcs_response_release(process, &unpinned);
  return nullptr;
}

}  // namespace mcs::httpd
