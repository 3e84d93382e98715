// SPDX-License-Identifier: Apache-2.0
//
// Between an httpd request and a transaction of the core: its end, its answers as responses, and
// what the core is told of a handler that failed.
#include "mod_mcs_apache/mod_mcs.h"

#include <apr_strings.h>
#include <http_core.h>
#include <http_protocol.h>
#include <mod_core.h>

#include <cstring>

namespace mcs::httpd {
namespace {

// Cookies of this server stand beside stored ones; several caches may tell their status.
bool may_stand_twice(const char* name) noexcept {
  return strcasecmp(name, "Set-Cookie") == 0 || strcasecmp(name, "Cache-Status") == 0;
}

void put_fields(request_rec* r, const mcs_response& reply) noexcept {
  apr_table_t* fields = apr_table_make(r->pool, static_cast<int>(reply.field_count) + 2);
  for (size_t i = 0; i < reply.field_count; ++i) {
    const auto& [name, value] = reply.fields[i];
    const char* field = apr_pstrmemdup(r->pool, name.data, name.size);
    const char* text = apr_pstrmemdup(r->pool, value.data, value.size);
    if (strcasecmp(field, "Content-Type") == 0) {
      ap_set_content_type(r, text);
    } else {
      apr_table_addn(fields, field, text);
    }
  }
  const apr_array_header_t* lines = apr_table_elts(r->headers_out);
  const auto* own = reinterpret_cast<const apr_table_entry_t*>(lines->elts);
  for (int i = 0; i < lines->nelts; ++i) {
    if (may_stand_twice(own[i].key) || apr_table_get(fields, own[i].key) == nullptr) {
      apr_table_addn(fields, own[i].key, own[i].val);
    }
  }
  r->headers_out = fields;
}

void note(request_rec* r, const char* name, const char* value) noexcept {
  apr_table_setn(r->notes, name, value);
  apr_table_setn(r->subprocess_env, name, value);
}

// What the core decided about ranges is not to be decided again.
void remove_range_filter(request_rec* r) noexcept {
  ap_filter_t* f = r->output_filters;
  while (f != nullptr && f->frec != ap_byterange_filter_handle) f = f->next;
  if (f != nullptr) ap_remove_output_filter(f);
}

mcs_verdict tell_status(Exchange& x, int status, mcs_response& reply) noexcept {
  CallGuard guard;
  if (status >= HTTP_INTERNAL_SERVER_ERROR) {
    const mcs_failure failure = status == HTTP_GATEWAY_TIME_OUT        ? MCS_FAILED_TIMEOUT
                                : status == HTTP_INTERNAL_SERVER_ERROR ? MCS_FAILED_INVALID
                                                                       : MCS_FAILED_CONNECT;
    return mcs_origin_failed(x.transaction, failure, &reply);
  }
  // httpd makes the response, with who knows what: others do not get it. A 304 is for the core.
  mcs_field field = {{"Cache-Control", 13}, {"no-store", 8}};
  if (status == HTTP_NOT_MODIFIED) {
    const char* etag = apr_table_get(x.r->headers_out, "ETag");
    field = {{"ETag", 4}, {etag, etag != nullptr ? strlen(etag) : 0}};
  }
  return mcs_origin_response(x.transaction, status, &field, field.value.size > 0 ? 1 : 0, &reply);
}

}  // namespace

void note_status(request_rec* r, mcs_cache_status status) noexcept {
  if (status != MCS_CACHE_NONE) note(r, "mcs-cache-status", mcs_cache_status_name(status));
  // While clients wait for a thread, connections that would be kept idle take theirs.
  mcs_process* process = joined();
  const auto kept_ms = static_cast<uint32_t>(apr_time_as_msec(r->server->keep_alive_timeout));
  if (process != nullptr && r->connection->master == nullptr && mcs_is_crowded(process, kept_ms)) {
    r->connection->keepalive = AP_CONN_CLOSE;
  }
}

void end_exchange(Exchange& x) noexcept {
  flush_as_usual(x.gentle);
  x.gentle = nullptr;
  if (x.transaction == nullptr) return;
  CallGuard guard;
  // After leaving there is nothing to give back, and nobody to give it to.
  if (joined() == x.process) mcs_end(x.transaction);
  x.transaction = nullptr;
  x.storing = false;
}

void set_head(request_rec* r, const mcs_response& reply) noexcept {
  r->status = reply.status;
  r->status_line = ap_get_status_line_ex(r->pool, reply.status);  // else odd ones become a 500
  r->content_encoding = nullptr;
  r->content_languages = nullptr;
  ap_set_content_type(r, nullptr);
  put_fields(r, reply);
  apr_table_unset(r->headers_out, "Content-Length");
  if (reply.body_length != MCS_UNKNOWN_LENGTH && reply.status != HTTP_NOT_MODIFIED) {
    ap_set_content_length(r, static_cast<apr_off_t>(reply.body_length));
  }
  if (reply.age >= 0) note(r, "mcs-cache-age", apr_off_t_toa(r->pool, reply.age));
  note_status(r, reply.cache_status);
  // Otherwise httpd replaces the Date that Age counts from.
  if (r->proxyreq == PROXYREQ_NONE) r->proxyreq = PROXYREQ_REVERSE;
  remove_range_filter(r);
}

apr_status_t send_reply(request_rec* r, ap_filter_t* next, mcs_process* process,
                        const mcs_response& reply) noexcept {
  set_head(r, reply);
  apr_bucket_brigade* brigade = apr_brigade_create(r->pool, r->connection->bucket_alloc);
  const bool* failed = append_body(r, brigade, process, reply);
  append_bucket(brigade, apr_bucket_eos_create(r->connection->bucket_alloc));
  apr_status_t status = ap_pass_brigade(next, brigade);
  apr_brigade_cleanup(brigade);
  return failed != nullptr && *failed ? APR_EGENERAL : status;
}

void discard_head(Exchange& x) noexcept {
  x.r->headers_out = apr_table_copy(x.r->pool, x.own_fields);
  x.r->err_headers_out = apr_table_copy(x.r->pool, x.own_error_fields);
  x.r->status = HTTP_OK;
  x.r->status_line = nullptr;
  x.r->no_cache = 0;
}

bool take_failure(Exchange& x, int status, mcs_response& reply) noexcept {
  reply = mcs_response{};
  const mcs_verdict verdict = tell_status(x, status, reply);
  x.again = verdict == MCS_RETRY;
  if (verdict == MCS_REPLACE || verdict == MCS_RETRY) {
    discard_head(x);
    return true;
  }
  note_status(x.r, reply.cache_status);
  end_exchange(x);
  return false;
}

}  // namespace mcs::httpd
