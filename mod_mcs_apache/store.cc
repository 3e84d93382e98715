// SPDX-License-Identifier: Apache-2.0
//
// The filter through which a handler's response passes on its way to the client: its head and body
// go to the core, and the core may put something else in its place.
#include "mod_mcs_apache/mod_mcs.h"

#include <apr_strings.h>
#include <http_connection.h>
#include <http_core.h>
#include <http_protocol.h>

#include <cstring>

namespace mcs::httpd {
namespace {

// So much of a body is handed on at a time.
constexpr apr_size_t kPiece = 128 * 1024;

ap_filter_rec_t* store_filter_handle;
ap_filter_rec_t* date_filter_handle;

bool has_line(const apr_table_t* table, const char* name, const char* value) noexcept {
  const apr_array_header_t* lines = apr_table_elts(table);
  const auto* entries = reinterpret_cast<const apr_table_entry_t*>(lines->elts);
  for (int i = 0; i < lines->nelts; ++i) {
    if (strcasecmp(entries[i].key, name) == 0 && strcmp(entries[i].val, value) == 0) return true;
  }
  return false;
}

// The handler's fields as they stand in httpd: in two tables and some members.
struct FieldList {
  const request_rec* r;
  mcs_field* fields;
  size_t count = 0;

  bool has(const char* name) const noexcept {
    return apr_table_get(r->headers_out, name) != nullptr ||
           apr_table_get(r->err_headers_out, name) != nullptr;
  }
  void add(const char* name, const char* value) noexcept {
    fields[count++] = {{name, strlen(name)}, {value, strlen(value)}};
  }
  void add_table(const apr_table_t* table, const apr_table_t* own) noexcept {
    const apr_array_header_t* lines = apr_table_elts(table);
    const auto* entries = reinterpret_cast<const apr_table_entry_t*>(lines->elts);
    for (int i = 0; i < lines->nelts; ++i) {
      if (!has_line(own, entries[i].key, entries[i].val)) add(entries[i].key, entries[i].val);
    }
  }
};

FieldList list_fields(const Exchange& x, apr_bucket_brigade* brigade) noexcept {
  request_rec* r = x.r;
  const int most =
      apr_table_elts(r->headers_out)->nelts + apr_table_elts(r->err_headers_out)->nelts + 4;
  FieldList list{r, static_cast<mcs_field*>(
                        apr_palloc(r->pool, static_cast<apr_size_t>(most) * sizeof(mcs_field)))};
  list.add_table(r->headers_out, x.own_fields);
  list.add_table(r->err_headers_out, x.own_error_fields);
  if (!list.has("Content-Type") && r->content_type != nullptr) {
    list.add("Content-Type", ap_make_content_type(r, r->content_type));
  }
  if (!list.has("Content-Encoding") && r->content_encoding != nullptr) {
    list.add("Content-Encoding", r->content_encoding);
  }
  if (!list.has("Content-Language") && r->content_languages != nullptr &&
      r->content_languages->nelts > 0) {
    list.add("Content-Language", apr_array_pstrcat(r->pool, r->content_languages, ','));
  }
  apr_off_t length = -1;
  if (!list.has("Content-Length") && !r->header_only && !AP_STATUS_IS_HEADER_ONLY(r->status) &&
      APR_BUCKET_IS_EOS(APR_BRIGADE_LAST(brigade)) &&
      apr_brigade_length(brigade, 0, &length) == APR_SUCCESS && length >= 0) {
    list.add("Content-Length", apr_off_t_toa(r->pool, length));
  }
  return list;
}

// What the core adds to a response that is sent as the handler made it.
void add_fields(request_rec* r, const mcs_response& reply) noexcept {
  for (size_t i = 0; i < reply.field_count; ++i) {
    const mcs_field& field = reply.fields[i];
    apr_table_mergen(r->headers_out, apr_pstrmemdup(r->pool, field.name.data, field.name.size),
                     apr_pstrmemdup(r->pool, field.value.data, field.value.size));
  }
}

void take_head(Exchange& x, ap_filter_t* f, apr_bucket_brigade* brigade) noexcept {
  request_rec* r = x.r;
  x.answered = true;
  // Not the response, or one that a module wants nobody to keep.
  if (ap_is_HTTP_INFO(r->status) || r->no_cache) {
    end_exchange(x);
    return;
  }
  const FieldList list = list_fields(x, brigade);
  mcs_response reply{};
  mcs_verdict verdict;
  {
    CallGuard guard;
    verdict = mcs_origin_response(x.transaction, r->status, list.fields, list.count, &reply);
  }
  switch (verdict) {
    case MCS_RETRY:
      discard_head(x);
      x.dropping = true;
      if (x.running) {
        x.again = true;
        return;
      }
      break;
    case MCS_REPLACE:
      discard_head(x);
      x.dropping = true;
      break;
    case MCS_PASS:
    case MCS_STORE:
      x.storing = verdict == MCS_STORE;
      if (x.storing) x.gentle = flush_gently(r);
      x.rewritten = reply.status != 0;
      if (x.rewritten) {
        discard_head(x);
        set_head(r, reply);
      } else {
        add_fields(r, reply);
        note_status(r, reply.cache_status);
        if (!x.storing) end_exchange(x);
      }
      return;
  }
  send_reply(r, f->next, x.process, reply);
  end_exchange(x);
}

// A handler may give up in its output as well: an error bucket before the first byte.
bool begins_with_error(Exchange& x, ap_filter_t* f, apr_bucket_brigade* brigade) noexcept {
  for (apr_bucket* b = APR_BRIGADE_FIRST(brigade); b != APR_BRIGADE_SENTINEL(brigade);
       b = APR_BUCKET_NEXT(b)) {
    if (!APR_BUCKET_IS_METADATA(b)) return false;
    if (!AP_BUCKET_IS_ERROR(b)) continue;
    x.answered = true;
    mcs_response reply;
    if (!take_failure(x, static_cast<ap_bucket_error*>(b->data)->status, reply)) return true;
    x.dropping = true;
    if (!x.again) send_reply(x.r, f->next, x.process, reply);
    return true;
  }
  return false;
}

void finish(Exchange& x, bool complete) noexcept {
  if (x.transaction == nullptr) return;
  if (x.storing) {
    CallGuard guard;
    mcs_origin_end(x.transaction, complete && !x.broken ? 1 : 0);
  }
  end_exchange(x);
}

apr_status_t hand_on(Exchange& x, ap_filter_t* f, apr_bucket_brigade* out) noexcept {
  conn_rec* c = f->r->connection;
  if (x.client_left) {
    apr_brigade_cleanup(out);
    if (x.storing || x.transaction == nullptr) return APR_SUCCESS;
    c->aborted = 1;
    return APR_ECONNABORTED;
  }
  if (APR_BRIGADE_EMPTY(out)) return APR_SUCCESS;
  apr_status_t status = ap_pass_brigade(f->next, out);
  apr_brigade_cleanup(out);
  if (!x.storing || !c->aborted) return status;
  // Others may be waiting for the rest, so the handler is not to see that its client has left.
  x.client_left = true;
  c->aborted = 0;
  return APR_SUCCESS;
}

// Tells the core of a piece of the body, and leaves of it what the client gets.
void take_piece(Exchange& x, apr_bucket* bucket, const char* data, apr_size_t size,
                apr_bucket_brigade* out) noexcept {
  mcs_slice send{0, size};
  if (x.transaction != nullptr) {
    CallGuard guard;
    x.storing = mcs_origin_body(x.transaction, data, size, x.rewritten ? &send : nullptr) != 0;
  }
  if (send.count == 0) {
    apr_bucket_delete(bucket);
    return;
  }
  if (send.first > 0) {
    apr_bucket_split(bucket, send.first);
    apr_bucket* before = bucket;
    bucket = APR_BUCKET_NEXT(bucket);
    apr_bucket_delete(before);
  }
  if (send.count < bucket->length) {
    apr_bucket_split(bucket, send.count);
    apr_bucket_delete(APR_BUCKET_NEXT(bucket));
  }
  APR_BUCKET_REMOVE(bucket);
  append_bucket(out, bucket);
}

apr_status_t take_body(Exchange& x, ap_filter_t* f, apr_bucket_brigade* brigade) noexcept {
  conn_rec* c = f->r->connection;
  apr_bucket_brigade* out = apr_brigade_create(f->r->pool, c->bucket_alloc);
  apr_read_type_e mode = APR_NONBLOCK_READ;
  apr_size_t gathered = 0;
  apr_status_t status = APR_SUCCESS;
  while (status == APR_SUCCESS && !APR_BRIGADE_EMPTY(brigade)) {
    apr_bucket* bucket = APR_BRIGADE_FIRST(brigade);
    if (APR_BUCKET_IS_METADATA(bucket)) {
      const bool flush = APR_BUCKET_IS_FLUSH(bucket);
      if (AP_BUCKET_IS_ERROR(bucket)) x.broken = true;
      // In the cache before the client knows that it is complete.
      if (APR_BUCKET_IS_EOS(bucket)) finish(x, true);
      APR_BUCKET_REMOVE(bucket);
      append_bucket(out, bucket);
      if (flush) status = hand_on(x, f, out);
      continue;
    }
    const char* data = nullptr;
    apr_size_t size = 0;
    status = apr_bucket_read(bucket, &data, &size, mode);
    if (APR_STATUS_IS_EAGAIN(status) && mode == APR_NONBLOCK_READ) {
      append_bucket(out, apr_bucket_flush_create(c->bucket_alloc));
      status = hand_on(x, f, out);
      mode = APR_BLOCK_READ;
      continue;
    }
    if (status != APR_SUCCESS) {
      finish(x, false);
      break;
    }
    mode = APR_NONBLOCK_READ;
    take_piece(x, bucket, data, size, out);
    gathered += size;
    if (gathered >= kPiece) {
      status = hand_on(x, f, out);
      gathered = 0;
    }
  }
  const apr_status_t last = hand_on(x, f, out);
  return status != APR_SUCCESS ? status : last;
}

apr_status_t store_filter(ap_filter_t* f, apr_bucket_brigade* brigade) noexcept {
  auto& x = *static_cast<Exchange*>(f->ctx);
  if (APR_BRIGADE_EMPTY(brigade)) return APR_SUCCESS;
  if (!x.answered && x.transaction != nullptr && !begins_with_error(x, f, brigade)) {
    take_head(x, f, brigade);
  }
  if (x.dropping) {
    apr_brigade_cleanup(brigade);
    return APR_SUCCESS;
  }
  if (x.transaction == nullptr && !x.client_left) {
    ap_remove_output_filter(f);
    return ap_pass_brigade(f->next, brigade);
  }
  return take_body(x, f, brigade);
}

// mod_proxy reads dates in many forms and passes them on in the right one, so that of a nonsense that
// stands for "stale" (RFC 9111 5.3) nothing would be left. This one it leaves as it is.
apr_status_t keep_nonsense(ap_filter_t* f, apr_bucket_brigade* brigade, ap_input_mode_t mode,
                           apr_read_type_e block, apr_off_t size) noexcept {
  const apr_status_t status = ap_get_brigade(f->next, brigade, mode, block, size);
  if (status != APR_SUCCESS || mode != AP_MODE_GETLINE || !fetching) return status;
  char line[64];
  apr_size_t n = sizeof line;
  if (apr_brigade_flatten(brigade, line, &n) == APR_SUCCESS && mcs_is_invalid_expires(line, n)) {
    apr_brigade_cleanup(brigade);
    append_bucket(brigade, apr_bucket_immortal_create("Expires: 0\r\n", 12, f->c->bucket_alloc));
  }
  return status;
}

int watch_origin(conn_rec* c, void*) noexcept {
  if (c->outgoing) ap_add_input_filter_handle(date_filter_handle, nullptr, nullptr, c);
  return OK;
}

}  // namespace

void register_store_filter() noexcept {
  date_filter_handle =
      ap_register_input_filter("MCS_DATES", keep_nonsense, nullptr, AP_FTYPE_CONNECTION);
  ap_hook_pre_connection(watch_origin, nullptr, nullptr, APR_HOOK_MIDDLE);
  store_filter_handle = ap_register_output_filter(
      "MCS_STORE", store_filter, nullptr, static_cast<ap_filter_type>(AP_FTYPE_CONTENT_SET - 1));
}

void add_store_filter(Exchange& x) noexcept {
  ap_add_output_filter_handle(store_filter_handle, &x, x.r, x.r->connection);
}

}  // namespace mcs::httpd
