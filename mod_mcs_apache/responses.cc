// SPDX-License-Identifier: Apache-2.0
//
// Responses of other handlers (proxy, CGI, PHP, …) through the cache. This handler comes before all
// others. On a miss it runs them itself, so that it sees how they fail and can run them again; what
// they send passes the filter in store.cc.
#include "mod_mcs_apache/mod_mcs.h"

#include <apr_strings.h>
#include <http_core.h>
#include <http_protocol.h>
#include <http_request.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace mcs::httpd {
namespace {

constexpr size_t kFollowPiece = 64 * 1024;

mcs_str view(const char* text) noexcept {
  return text != nullptr ? mcs_str{text, strlen(text)} : mcs_str{};
}

bool starts_with(const char* text, const char* prefix) noexcept {
  return strncasecmp(text, prefix, strlen(prefix)) == 0;
}

// httpd takes the content type for the handler's name where none is set: such requests reach its
// own handler for files, before which the cache has one too (static_files.cc). PHP's handler is
// traditionally named by a type.
bool is_for_default_handler(const request_rec* r) noexcept {
  return r->proxyreq == PROXYREQ_NONE &&
         (r->handler == nullptr || *r->handler == '\0' ||
          strcmp(r->handler, "default-handler") == 0 ||
          (strchr(r->handler, '/') != nullptr && !starts_with(r->handler, "proxy:") &&
           !starts_with(r->handler, "application/x-httpd-")));
}

bool is_for_the_cache(const request_rec* r) noexcept {
  // Parts of pages, pages about errors, and the traffic of a forward proxy are not.
  if (r->main != nullptr || r->status != HTTP_OK || r->proxyreq == PROXYREQ_PROXY) return false;
  if (r->method_number == M_TRACE || r->method_number == M_CONNECT) return false;
  return !is_for_default_handler(r) || strcmp(r->method, "PURGE") == 0;
}

// The target byte for byte: r->unparsed_uri has lost slashes at its beginning.
mcs_str received_target(const request_rec* r) noexcept {
  while (r->prev != nullptr) r = r->prev;
  const char* line = r->the_request;
  const char* start = line != nullptr ? strchr(line, ' ') : nullptr;
  if (start == nullptr) return {};
  ++start;
  const char* end = r->assbackwards ? nullptr : strrchr(start, ' ');
  return end != nullptr ? mcs_str{start, static_cast<size_t>(end - start)} : view(start);
}

bool is_set(const request_rec* r, const char* variable) noexcept {
  return apr_table_get(r->subprocess_env, variable) != nullptr;
}

unsigned flags_of(const request_rec* r) noexcept {
  unsigned flags = is_refresh(r) ? MCS_REQUEST_REFRESH : 0;
  if (is_set(r, "no-cache")) flags |= MCS_REQUEST_BYPASS | MCS_REQUEST_NO_STORE;
  if (is_set(r, "mcs-cache-bypass")) flags |= MCS_REQUEST_BYPASS;
  if (is_set(r, "mcs-cache-no-store")) flags |= MCS_REQUEST_NO_STORE;
  return flags;
}

mcs_str own_key(request_rec* r, const Site& site) noexcept {
  if (site.key == nullptr) return {};
  const char* error = nullptr;
  const char* key = ap_expr_str_exec(r, site.key, &error);
  if (error == nullptr) return view(key);
  ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "McsCacheKey: %s", error);
  return {};
}

void describe(request_rec* r, const Site& site, mcs_request& request) noexcept {
  request.policy = site.responses;
  request.method = view(r->method);
  request.scheme = view(ap_http_scheme(r));
  request.host = view(apr_table_get(r->headers_in, "Host"));
  request.target = received_target(r);
  request.key = own_key(r, site);
  request.client_address = view(r->useragent_ip);
  const apr_array_header_t* lines = apr_table_elts(r->headers_in);
  const auto* entries = reinterpret_cast<const apr_table_entry_t*>(lines->elts);
  auto* fields = static_cast<mcs_field*>(
      apr_palloc(r->pool, static_cast<apr_size_t>(lines->nelts) * sizeof(mcs_field)));
  for (int i = 0; i < lines->nelts; ++i) fields[i] = {view(entries[i].key), view(entries[i].val)};
  request.fields = fields;
  request.field_count = static_cast<size_t>(lines->nelts);
  request.flags = flags_of(r) | MCS_REQUEST_PORT(r->connection->local_addr->port);
  request.alloc = allocate;
  request.alloc_context = r->pool;
}

void note_key(request_rec* r, const mcs_request& request) noexcept {
  char key[512];
  const size_t size = std::min(mcs_request_key(&request, key, sizeof key), sizeof key);
  if (size > 0) {
    apr_table_setn(r->subprocess_env, "mcs-cache-key", apr_pstrmemdup(r->pool, key, size));
  }
}

apr_status_t clean_up(void* exchange) noexcept {
  end_exchange(*static_cast<Exchange*>(exchange));
  return APR_SUCCESS;
}

Exchange* create_exchange(request_rec* r, const Site& site, mcs_process* process) noexcept {
  auto* x = new (apr_palloc(r->pool, sizeof(Exchange))) Exchange;
  x->r = r;
  x->process = process;
  describe(r, site, x->request);
  ap_set_module_config(r->request_config, &mcs_module, x);
  apr_pool_cleanup_register(r->pool, x, clean_up, apr_pool_cleanup_null);
  return x;
}

ap_filter_t* filters_after_the_cache(const request_rec* r) noexcept {
  ap_filter_t* f = r->output_filters;
  while (f->frec->ftype < AP_FTYPE_CONTENT_SET) f = f->next;
  return f;
}

int result_of(const request_rec* r, apr_status_t status) noexcept {
  return status == APR_SUCCESS || r->connection->aborted ? OK : AP_FILTER_ERROR;
}

int send(Exchange& x, ap_filter_t* next, const mcs_response& reply) noexcept {
  return result_of(x.r, send_reply(x.r, next, x.process, reply));
}

int answer(Exchange& x, mcs_response& reply) noexcept {
  request_rec* r = x.r;
  // One that the core made itself; httpd has pages for these.
  if (reply.age < 0 && reply.status >= HTTP_BAD_REQUEST && reply.body_length == 0) {
    set_head(r, reply);
    r->err_headers_out = apr_table_overlay(r->pool, r->err_headers_out, r->headers_out);
    apr_table_unset(r->err_headers_out, "Content-Length");
    const int status = r->status;
    r->status = HTTP_OK;
    return status;
  }
  return send(x, filters_after_the_cache(r), reply);
}

// ------------------------------------------------------------------ from another's fill

mcs_outcome retry_following(Exchange& x) noexcept {
  for (;;) {
    mcs_response response{};
    mcs_outcome outcome;
    {
      CallGuard guard;
      outcome = mcs_follow_retry(x.transaction, &response);
    }
    if (outcome != MCS_WAIT) return outcome;
    if (response.refresh) start_refresh(x.r, true);
  }
}

int follow(Exchange& x, mcs_response& reply) noexcept {
  request_rec* r = x.r;
  conn_rec* c = r->connection;
  set_head(r, reply);
  ap_filter_t* next = filters_after_the_cache(r);
  apr_bucket_brigade* brigade = apr_brigade_create(r->pool, c->bucket_alloc);
  // Those who ask for it late have the head at once.
  append_bucket(brigade, apr_bucket_flush_create(c->bucket_alloc));
  for (bool ends = false; !ends;) {
    apr_status_t status = ap_pass_brigade(next, brigade);
    apr_brigade_cleanup(brigade);
    if (status != APR_SUCCESS || c->aborted) return result_of(r, status);
    auto* piece = static_cast<char*>(apr_bucket_alloc(kFollowPiece, c->bucket_alloc));
    size_t got = 0;
    mcs_follow state;
    {
      CallGuard guard;
      state = mcs_follow_read(x.transaction, piece, kFollowPiece, &got);
    }
    if (got > 0) {
      append_bucket(brigade, apr_bucket_heap_create(piece, got, apr_bucket_free, c->bucket_alloc));
      append_bucket(brigade, apr_bucket_flush_create(c->bucket_alloc));
    } else {
      apr_bucket_free(piece);
    }
    if (state == MCS_FOLLOW_END) {
      ends = true;
    } else if (state == MCS_FOLLOW_BROKEN && retry_following(x) != MCS_FOLLOW) {
      // As mod_proxy tells it: no regular end for the client.
      c->keepalive = AP_CONN_CLOSE;
      append_bucket(brigade,
                    ap_bucket_error_create(HTTP_BAD_GATEWAY, nullptr, c->pool, c->bucket_alloc));
      ends = true;
    }
  }
  end_exchange(x);
  append_bucket(brigade, apr_bucket_eos_create(c->bucket_alloc));
  return result_of(r, ap_pass_brigade(next, brigade));
}

// ------------------------------------------------------------------ from the origin

void apply_edits(Exchange& x, const mcs_response& edits) noexcept {
  request_rec* r = x.r;
  r->headers_in = x.received;
  if (edits.remove_count + edits.add_count == 0) return;
  r->headers_in = apr_table_copy(r->pool, x.received);
  for (size_t i = 0; i < edits.remove_count; ++i) {
    const mcs_str& name = edits.remove_fields[i];
    apr_table_unset(r->headers_in, apr_pstrmemdup(r->pool, name.data, name.size));
  }
  for (size_t i = 0; i < edits.add_count; ++i) {
    const mcs_field& field = edits.add_fields[i];
    apr_table_setn(r->headers_in, apr_pstrmemdup(r->pool, field.name.data, field.name.size),
                   apr_pstrmemdup(r->pool, field.value.data, field.value.size));
  }
}

bool is_response_status(int result) noexcept {
  return result >= HTTP_MULTIPLE_CHOICES && ap_is_HTTP_VALID_RESPONSE(result);
}

int forward(Exchange& x, mcs_response& reply) noexcept {
  request_rec* r = x.r;
  note_status(r, reply.cache_status);
  x.received = r->headers_in;
  x.own_fields = apr_table_copy(r->pool, r->headers_out);
  x.own_error_fields = apr_table_copy(r->pool, r->err_headers_out);
  ap_filter_t* next = filters_after_the_cache(r);
  add_store_filter(x);
  mcs_outcome outcome = MCS_FORWARD;
  // The second time is without validators, and its answer final.
  for (int tries = 0; tries < 2 && outcome == MCS_FORWARD; ++tries) {
    apply_edits(x, reply);
    x.running = fetching = true;
    const int result = ap_run_handler(r);
    x.running = fetching = false;
    if (x.client_left) {
      r->connection->aborted = 1;
      r->connection->keepalive = AP_CONN_CLOSE;
    }
    if (!x.answered && x.transaction != nullptr && is_response_status(result)) {
      if (take_failure(x, result, reply) && !x.again) {
        r->headers_in = x.received;
        return send(x, next, reply);
      }
    }
    if (!x.again) {
      if (result == DECLINED) end_exchange(x);
      // A handler may leave its end to httpd; until then the edits hold.
      if (x.transaction == nullptr) r->headers_in = x.received;
      return result;
    }
    x.again = x.answered = x.dropping = false;
    x.r = r;  // that a redirect within the server was for, and will be again
    discard_head(x);
    r->eos_sent = 0;
    reply = mcs_response{};
    CallGuard guard;
    outcome = mcs_retry(x.transaction, &reply);
  }
  r->headers_in = x.received;
  switch (outcome) {
    case MCS_RESPONSE:
      return send(x, next, reply);
    case MCS_FOLLOW:
      return follow(x, reply);
    default:
      return HTTP_BAD_GATEWAY;
  }
}

// The request was redirected by the handler that an exchange runs: its response is that of the new one,
// unless the cache leaves that alone or has files for it. Then it goes on as the client sent it, and
// nobody waits for a response.
bool adopt(request_rec* r, bool wanted) noexcept {
  for (const request_rec* prev = r->prev; prev != nullptr; prev = prev->prev) {
    Exchange* x = exchange_of(prev);
    if (x == nullptr || !x->running) continue;
    if (x->transaction == nullptr || x->answered) return true;
    if (wanted) {
      x->r = r;
      ap_set_module_config(r->request_config, &mcs_module, x);
      add_store_filter(*x);
      return true;
    }
    // A program has had the body.
    const bool has_body = apr_table_get(r->headers_in, "Content-Length") != nullptr;
    if (!has_body) apr_table_unset(x->received, "Content-Length");
    r->headers_in = x->received;
    mcs_response unused{};
    take_failure(*x, HTTP_OK, unused);
    return true;
  }
  return false;
}

}  // namespace

void* allocate(void* pool, size_t size) noexcept {
  return apr_palloc(static_cast<apr_pool_t*>(pool), size);
}

Exchange* exchange_of(const request_rec* r) noexcept {
  return static_cast<Exchange*>(ap_get_module_config(r->request_config, &mcs_module));
}

int serve_response(request_rec* r) noexcept {
  const Site* site = site_of(r);
  mcs_process* process = joined();
  if (exchange_of(r) != nullptr || process == nullptr) return DECLINED;
  const bool wanted = site != nullptr && is_for_the_cache(r);
  if (adopt(r, wanted) || !wanted) return DECLINED;
  Exchange& x = *create_exchange(r, *site, process);
  note_key(r, x.request);
  mcs_response reply{};
  mcs_outcome outcome;
  {
    CallGuard guard;
    outcome = mcs_begin(process, &x.request, &x.transaction, &reply);
  }
  switch (outcome) {
    case MCS_RESPONSE:
      if (reply.refresh) start_refresh(r, false);
      if (is_for_default_handler(r) && r->filename != nullptr) {
        CallGuard guard;
        mcs_purge_file(process, site->files, file_key(r, *site->key_base), allocate, r->pool, &reply);
      }
      return answer(x, reply);
    case MCS_FOLLOW:
      return follow(x, reply);
    case MCS_FORWARD:
      return forward(x, reply);
    default:
      end_exchange(x);
      // Somebody else refreshes it.
      return is_refresh(r) ? OK : DECLINED;
  }
}

}  // namespace mcs::httpd
