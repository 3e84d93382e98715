// SPDX-License-Identifier: Apache-2.0
// Responses of content handlers (proxy_pass, fastcgi_pass, ...), from the cache or into it.
//
// The location's own handler is wrapped once access was granted. What it sends is met by a header
// and a body filter that run before all others. Where something else is to be sent instead, the
// header filter returns kElsewhere, a status that nobody knows: the handler then finalizes its
// exchange with the origin, nginx makes a special response without a body, and that passes the same
// two filters again, which put the right one in its place.
#include "ngx_mcs_module/module.h"

namespace mcs::nginx {

enum class Stage {
  kIdle,       // the filters have nothing to do
  kForwarded,  // the content handler is at work
  kBody,       // its header was sent on, its body goes to the core
  kReplaced,   // `reply` is to be sent in its place
  kReply,      // reply's header was sent
  kRetry,      // the content handler has to start again
  kRefused,    // nginx's own error response, held back to see whether `reply` can stand in
};

struct Exchange {
  RequestContext* context;
  ngx_http_handler_pt handler;  // the location's own
  Stage stage;
  mcs_request request;
  mcs_transaction* transaction;
  mcs_response reply;
  RequestEdits edits;
  const Refresh* refresh;  // the request is nobody's
  ngx_int_t refused;       // kRefused: nginx's status
  bool error_page;         // r->error_page as it was before it was held back
  // Likewise the status of an error page that this location serves, and the client's HTTP version:
  // nginx takes nonsense for HTTP/0.9.
  ngx_uint_t err_status;
  ngx_uint_t http_version;
  // The handler's exchange with an origin; nullptr: it has none. Another handler, before an
  // internal redirect, may have left one behind.
  ngx_http_upstream_t* upstream;
  const ngx_http_upstream_t* old_upstream;
  ngx_int_t (*process_header)(ngx_http_request_t* r);
  ngx_int_t (*reinit_request)(ngx_http_request_t* r);
  ngx_int_t (*pipe_init)(void* r);
  ngx_event_pipe_input_filter_pt pipe_filter;
  bool piped;  // the body goes to the core as it arrives, not as it is sent
  bool storing;
  bool windowed;  // only a part of the body goes to the client
  bool silent;    // none of it does
  bool gone;      // there is no client (any more)
};

namespace {

constexpr ngx_int_t kElsewhere = 1000;
constexpr size_t kReadSize = 65536;

ngx_http_output_header_filter_pt next_header_filter;
ngx_http_output_body_filter_pt next_body_filter;

ngx_int_t act(ngx_http_request_t* r, Exchange* x, mcs_outcome outcome,
              mcs_response* response) noexcept;

Exchange* exchange_of(const ngx_http_request_t* r) noexcept {
  const RequestContext* context = request_context(const_cast<ngx_http_request_t*>(r));
  return context == nullptr ? nullptr : context->exchange;
}

void end_transaction(Exchange* x) noexcept {
  mcs_transaction* transaction = x->transaction;
  x->transaction = nullptr;
  x->storing = false;
  mcs_end(transaction);
}

void end_exchange(void* data) noexcept {
  auto* x = static_cast<Exchange*>(data);
  if (joined_process != nullptr) end_transaction(x);
}

// An internal redirect forgets the context, but not what it began.
ngx_int_t end_abandoned(ngx_http_request_t* r) noexcept {
  for (ngx_http_cleanup_t* c = r->internal ? r->main->cleanup : nullptr; c != nullptr;
       c = c->next) {
    auto* x = static_cast<Exchange*>(c->data);
    if (c->handler != end_exchange || x->context->request != r) continue;
    if (x->stage == Stage::kForwarded) r->error_page = x->error_page;
    x->stage = Stage::kIdle;
    restore_request(r, &x->edits);
    end_exchange(x);
  }
  return NGX_DECLINED;
}

// A PURGE of a local file has no handler of its own.
ngx_int_t decline(ngx_http_request_t* /*r*/) noexcept { return NGX_DECLINED; }

// A handler that was asked before has handed the request on: X-Accel-Redirect, a script.
bool handed_on(ngx_http_request_t* r) noexcept {
  if (r->upstream != nullptr) return true;
  for (const ngx_http_cleanup_t* c = r->main->cleanup; c != nullptr; c = c->next) {
    const auto* x = static_cast<Exchange*>(c->data);
    if (c->handler == end_exchange && x->context->request == r && x != exchange_of(r) &&
        x->request.target.data != nullptr && x->handler != decline) {
      return true;
    }
  }
  return false;
}

// As received, and with what rewriting or an internal redirect made of it, or which of several handlers
// was chosen by an `if`, an error or another handler: that one must be asked again. A subrequest was
// not received, and its location may be closed to all others. Patterns to purge are for what was received.
mcs_str target_of(ngx_http_request_t* r) noexcept {
  const auto* core = core_conf(r);
  // An `if` has the name of its location, but not its flags.
  const bool named = core->name.len > 0 && core->name.data[0] == '@';
  const bool chosen = r != r->main || (core->noname && core->handler != nullptr) || handed_on(r) ||
                      (named && (r->error_page || core->recursive_error_pages));
  const ngx_str_t path = r == r->main ? r->unparsed_uri : ngx_str_t{0, nullptr};
  const bool pattern = r->method == NGX_HTTP_UNKNOWN && memchr(path.data, '*', path.len) != nullptr;
  if (path.len > 0 && ((r->valid_unparsed_uri && !chosen) || pattern)) return as_str(path);
  return mcs_rewritten_target(as_str(path), as_str(r->uri), as_str(r->args),
                              chosen ? as_str(core->name) : mcs_str{}, location_conf(r)->place,
                              allocate, r->pool);
}

// The host of an absolute target overrides the Host field (RFC 9112 3.2.2).
mcs_str host_of(const ngx_http_request_t* r) noexcept {
  if (r->host_start != nullptr && r->host_end != nullptr) {
    const u_char* end = r->port_end != nullptr ? r->port_end : r->host_end;
    return {reinterpret_cast<const char*>(r->host_start), static_cast<size_t>(end - r->host_start)};
  }
  const ngx_table_elt_t* host = r->headers_in.host;
  return host == nullptr ? mcs_str{} : as_str(host->value);
}

ngx_int_t read_request(ngx_http_request_t* r, Exchange* x) noexcept {
  const LocationConf* conf = location_conf(r);
  mcs_request& request = x->request;
  request.policy = conf->policy;
  request.method = as_str(r->method_name);
  const bool tls = x->refresh != nullptr ? x->refresh->tls : r->connection->ssl != nullptr;
  request.scheme = as_str(tls ? text("https") : text("http"));
  request.host = host_of(r);
  request.target = target_of(r);
  if (request.target.data == nullptr || read_request_fields(r, &request) != NGX_OK) {
    return NGX_ERROR;
  }
  if (conf->key != nullptr) {
    ngx_str_t key;
    if (ngx_http_complex_value(r, conf->key, &key) != NGX_OK) return NGX_ERROR;
    request.key = as_str(key);
  }
  request.client_address = as_str(r->connection->addr_text);
  request.flags = MCS_REQUEST_PORT(ngx_inet_get_port(r->connection->local_sockaddr));
  if (x->refresh != nullptr) request.flags |= MCS_REQUEST_REFRESH;
  if (ngx_http_test_predicates(r, conf->bypass) != NGX_OK) request.flags |= MCS_REQUEST_BYPASS;
  if (ngx_http_test_predicates(r, conf->no_store) != NGX_OK) request.flags |= MCS_REQUEST_NO_STORE;
  request.waiter = x->context;
  request.alloc = allocate;
  request.alloc_context = r->pool;
  return NGX_OK;
}

// The core's answer is no longer wanted: the request goes to the origin by itself.
ngx_int_t serve_without_cache(ngx_http_request_t* r, Exchange* x) noexcept {
  end_transaction(x);
  x->stage = Stage::kIdle;
  x->context->status = MCS_CACHE_BYPASS;
  return x->handler(r);
}

ngx_int_t send_response(ngx_http_request_t* r, Exchange* x, mcs_response* response) noexcept {
  x->stage = Stage::kIdle;
  const ngx_int_t begun = begin_sending(r, r->uri, response);
  if (begun != NGX_OK) return begun;
  if (set_response(r, *response) != NGX_OK) return NGX_HTTP_INTERNAL_SERVER_ERROR;
  return send_all(r, r->uri, *response);
}

ngx_int_t follow(ngx_http_request_t* r, Exchange* x, const mcs_response& response) noexcept {
  if (r != r->main) return serve_without_cache(r, x);
  const ngx_int_t begun = ngx_http_discard_request_body(r);
  if (begun != NGX_OK) return begun;
  if (set_response(r, response) != NGX_OK) return NGX_HTTP_INTERNAL_SERVER_ERROR;
  x->stage = Stage::kIdle;
  const ngx_int_t rc = ngx_http_send_header(r);
  if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) return rc;
  return send_following(r, x->context, x->transaction);
}

void pass_interim(void* request, const char* data, size_t size) noexcept {
  auto* r = static_cast<ngx_http_request_t*>(request);
  const Exchange* x = exchange_of(r);
  ngx_connection_t* c = r->connection;
  if (r != r->main || r->stream != nullptr || x->refresh != nullptr ||
      x->http_version < NGX_HTTP_VERSION_11 || c->error) {
    return;
  }
  // What does not go out now must go before all others, also as TLS has encrypted it already.
  ngx_buf_t* b = ngx_create_temp_buf(r->pool, size);
  if (b == nullptr) return;
  b->last = ngx_cpymem(b->last, data, size);
  b->flush = 1;
  ngx_chain_t link = {b, nullptr};
  (void)ngx_http_write_filter(r, &link);
}

// nginx takes an interim response for the final one.
ngx_int_t skip_interim(ngx_http_request_t* r) noexcept {
  ngx_http_upstream_t* u = r->upstream;
  auto size = static_cast<size_t>(u->buffer.last - u->buffer.pos);
  const int more =
      mcs_take_interim(reinterpret_cast<char*>(u->buffer.pos), &size, pass_interim, r);
  u->buffer.last = u->buffer.pos + size;
  if (more) return NGX_AGAIN;
  u->process_header = exchange_of(r)->process_header;
  return u->process_header(r);
}

void watch_interim(ngx_http_upstream_t* u, Exchange* x) noexcept {
  // FastCGI, gRPC and memcached leave it as it is for the next upstream.
  if (u->process_header != skip_interim) x->process_header = u->process_header;
  u->process_header = skip_interim;
}

// Another upstream is asked instead.
ngx_int_t reinit(ngx_http_request_t* r) noexcept {
  Exchange* x = exchange_of(r);
  const ngx_int_t rc = x->reinit_request(r);
  watch_interim(r->upstream, x);
  return rc;
}

ngx_int_t forward(ngx_http_request_t* r, Exchange* x, const mcs_response& edits) noexcept {
  if (edit_request(r, edits, &x->edits) != NGX_OK) return NGX_HTTP_INTERNAL_SERVER_ERROR;
  x->stage = Stage::kForwarded;
  // An error page must not come before what is stored.
  x->error_page = r->error_page;
  x->err_status = r->err_status;
  x->http_version = r->http_version;
  x->old_upstream = r->upstream;
  r->error_page = 1;
  const ngx_int_t rc = x->handler(r);
  ngx_http_upstream_t* u = r->upstream;
  if (rc != NGX_DONE || exchange_of(r) != x || x->stage != Stage::kForwarded || u == nullptr ||
      u->cleanup == nullptr) {
    return rc;
  }
  if (u != x->old_upstream && r->cache == nullptr) {
    watch_interim(u, x);
    x->reinit_request = u->reinit_request;
    u->reinit_request = reinit;
  }
  if (edits.fill) {
    // Others may wait for this response: it is fetched even if this client leaves.
    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_request_empty_handler;
  }
  return rc;
}

void resume(ngx_http_request_t* r, RequestContext* context, bool timed_out) noexcept {
  Exchange* x = context->exchange;
  r->read_event_handler = ngx_http_block_reading;
  mcs_response response;
  const mcs_outcome outcome =
      mcs_resume(x->transaction,
                 timed_out ? x->request.flags | MCS_REQUEST_LAST_TRY : x->request.flags, &response);
  ngx_http_finalize_request(r, act(r, x, outcome, &response));
}

// No client could ask for what a subrequest has shown: it waits for the renewal itself.
ngx_int_t renew(ngx_http_request_t* r, Exchange* x, mcs_response* response) noexcept {
  mcs_response_release(joined_process, response);
  x->request.flags |= MCS_REQUEST_REFRESH;
  return act(r, x, mcs_begin(joined_process, &x->request, &x->transaction, response), response);
}

ngx_int_t act(ngx_http_request_t* r, Exchange* x, mcs_outcome outcome,
              mcs_response* response) noexcept {
  RequestContext* context = x->context;
  context->status = response->cache_status;
  context->age = response->age;
  if (outcome == MCS_RESPONSE || outcome == MCS_DECLINED) end_transaction(x);
  if (outcome == MCS_RESPONSE) {
    if (x->handler == decline && purge_file(r, response) != NGX_OK) return NGX_ERROR;
    if (response->refresh && r != r->main) return renew(r, x, response);
    if (response->refresh) start_refresh(r, x->request);
    return send_response(r, x, response);
  }
  if (outcome == MCS_WAIT) {
    if (begin_waiting(context, response->wait_ms, resume) != NGX_OK) return NGX_ERROR;
    r->write_event_handler = ngx_http_request_empty_handler;
    r->main->count++;
    return NGX_DONE;
  }
  if (outcome == MCS_FOLLOW) return follow(r, x, *response);
  if (outcome == MCS_FORWARD && x->handler != decline) return forward(r, x, *response);
  return x->refresh != nullptr ? NGX_HTTP_CLOSE : serve_without_cache(r, x);
}

ngx_int_t proxied_handler(ngx_http_request_t* r) noexcept {
  Exchange* x = exchange_of(r);
  if (read_request(r, x) != NGX_OK) return NGX_HTTP_INTERNAL_SERVER_ERROR;
  mcs_response response;
  const mcs_outcome outcome = mcs_begin(joined_process, &x->request, &x->transaction, &response);
  return act(r, x, outcome, &response);
}

// Takes the place of the location's handler once access was granted.
ngx_int_t wrap_handler(ngx_http_request_t* r) noexcept {
  // Requests that want no body are made by others' modules to ask for something (auth_request).
  const LocationConf* conf = location_conf(r);
  const bool purges_file = r->content_handler == nullptr && conf->file_policy != nullptr &&
                           same_name(r->method_name, text("PURGE"));
  if ((r->content_handler == nullptr && !purges_file) || r->content_handler == proxied_handler ||
      !conf->enabled || joined_process == nullptr || r->post_action ||
      (r != r->main && r->header_only)) {
    return NGX_DECLINED;
  }
  RequestContext* context = make_context(r);
  ngx_http_cleanup_t* cleanup =
      context == nullptr ? nullptr : ngx_http_cleanup_add(r, sizeof(Exchange));
  if (cleanup == nullptr) return NGX_HTTP_INTERNAL_SERVER_ERROR;
  auto* x = static_cast<Exchange*>(cleanup->data);
  ngx_memzero(x, sizeof(Exchange));
  x->context = context;
  x->handler = purges_file ? decline : r->content_handler;
  x->refresh = refresh_of(r->connection);
  cleanup->handler = end_exchange;
  context->exchange = x;
  r->content_handler = proxied_handler;
  return NGX_DECLINED;
}

ngx_int_t send_reply_header(ngx_http_request_t* r, Exchange* x) noexcept {
  x->stage = Stage::kReply;
  mcs_response& reply = x->reply;
  if (begin_sending(r, r->uri, &reply) != NGX_OK || set_response(r, reply) != NGX_OK) {
    return NGX_ERROR;
  }
  return next_header_filter(r);
}

// `reply` is sent in the place of what the handler is about to send.
ngx_int_t replace(Exchange* x) noexcept {
  if (x->refresh != nullptr) {
    mcs_response_release(joined_process, &x->reply);
    return NGX_HTTP_CLOSE;
  }
  x->context->status = x->reply.cache_status;
  x->context->age = x->reply.age;
  x->stage = Stage::kReplaced;
  return kElsewhere;
}

mcs_verdict tell_response(ngx_http_request_t* r, Exchange* x, ngx_uint_t status,
                          bool error_page = false) noexcept {
  mcs_field* fields;
  size_t count;
  if (read_response_fields(r, x->upstream, &fields, &count) != NGX_OK) return MCS_PASS;
  if (error_page) fields[count++] = {as_str(text("Cache-Control")), as_str(text("no-store"))};
  const auto code = static_cast<int>(status);
  const mcs_verdict verdict = mcs_origin_response(x->transaction, code, fields, count, &x->reply);
  x->context->status = x->reply.cache_status;
  return verdict;
}

// The handler gave no response: nginx is about to send its own.
ngx_int_t on_failure(ngx_http_request_t* r, Exchange* x) noexcept {
  const ngx_http_upstream_t* u = x->upstream;
  const ngx_uint_t status = r->err_status;
  mcs_verdict verdict = MCS_PASS;
  if (u != nullptr && u->headers_in.status_n == status) {
    // proxy_intercept_errors: the status is the origin's, the body will be another's.
    verdict = tell_response(r, x, status, true);
  } else if (u != nullptr &&
             (status == NGX_HTTP_BAD_GATEWAY || status == NGX_HTTP_GATEWAY_TIME_OUT)) {
    const bool began = u->state != nullptr && u->state->bytes_received > 0;
    const mcs_failure failure = status == NGX_HTTP_GATEWAY_TIME_OUT ? MCS_FAILED_TIMEOUT
                                : began                             ? MCS_FAILED_INVALID
                                                                    : MCS_FAILED_CONNECT;
    verdict = mcs_origin_failed(x->transaction, failure, &x->reply);
  }
  x->stage = verdict == MCS_RETRY ? Stage::kRetry : Stage::kRefused;
  if (verdict == MCS_RETRY) return NGX_OK;
  end_transaction(x);
  if (verdict == MCS_REPLACE && replace(x) == kElsewhere) return send_reply_header(r, x);
  x->refused = static_cast<ngx_int_t>(status);
  return x->refresh != nullptr ? NGX_ERROR : NGX_OK;
}

// The body of a buffered response as it comes from the origin: how fast this client takes it does
// not matter to others.
ngx_int_t read_pipe(ngx_event_pipe_t* pipe, ngx_buf_t* raw) noexcept {
  Exchange* x = exchange_of(static_cast<ngx_http_request_t*>(pipe->input_ctx));
  ngx_chain_t** end = pipe->in == nullptr ? &pipe->in : pipe->last_in;
  const ngx_int_t rc = x->pipe_filter(pipe, raw);
  for (ngx_chain_t* added = *end; added != nullptr && x->storing; added = added->next) {
    const ngx_buf_t* b = added->buf;
    const auto size = static_cast<size_t>(b->last - b->pos);
    x->storing = mcs_origin_body(x->transaction, b->pos, size, nullptr) != 0;
  }
  return rc;
}

ngx_int_t init_pipe(void* request) noexcept {
  auto* r = static_cast<ngx_http_request_t*>(request);
  Exchange* x = exchange_of(r);
  const ngx_int_t rc = x->pipe_init(r);
  x->pipe_filter = r->upstream->pipe->input_filter;
  r->upstream->pipe->input_filter = read_pipe;
  return rc;
}

void tap_pipe(ngx_http_request_t* r, Exchange* x) noexcept {
  ngx_http_upstream_t* u = x->upstream;
  if (u == nullptr || !u->buffering || u->pipe == nullptr || u->pipe->input_ctx != r ||
      u->input_filter_init == nullptr || u->input_filter_ctx != r) {
    return;
  }
  x->pipe_init = u->input_filter_init;
  u->input_filter_init = init_pipe;
  x->piped = true;
}

// The origin's fields and status, or what the core made of them, go on to the client.
ngx_int_t send_origin_header(ngx_http_request_t* r, Exchange* x) noexcept {
  const mcs_response& reply = x->reply;
  const bool origin_has_body = r->headers_out.status != NGX_HTTP_NO_CONTENT &&
                               r->headers_out.status != NGX_HTTP_NOT_MODIFIED;
  x->windowed = reply.status != 0 && static_cast<ngx_uint_t>(reply.status) != r->headers_out.status;
  if ((reply.status != 0 ? set_response(r, reply) : add_fields(r, reply)) != NGX_OK) return NGX_ERROR;
  r->disable_not_modified = 1;
  r->allow_ranges = 0;
  x->stage = Stage::kBody;
  x->gone = x->refresh != nullptr;
  ngx_int_t rc = x->gone ? NGX_OK : next_header_filter(r);
  if (!x->storing || r->method == NGX_HTTP_HEAD) return rc;
  if (rc == NGX_ERROR) {
    x->gone = true;
    rc = NGX_OK;
  }
  r->read_event_handler = ngx_http_block_reading;
  if (!x->windowed) tap_pipe(r, x);
  if (!origin_has_body) {
    mcs_origin_end(x->transaction, 1);
    end_transaction(x);
  } else if (r->header_only) {
    // A 304 or the like for the client, but the body is wanted all the same.
    r->header_only = 0;
    x->silent = true;
  }
  return rc;
}

// What the origin sent is no HTTP.
ngx_int_t on_nonsense(ngx_http_request_t* r, Exchange* x) noexcept {
  const mcs_verdict verdict = mcs_origin_failed(x->transaction, MCS_FAILED_INVALID, &x->reply);
  end_transaction(x);
  x->stage = Stage::kIdle;
  if (verdict != MCS_REPLACE) return x->refresh != nullptr ? NGX_ERROR : next_header_filter(r);
  r->http_version = x->http_version;
  return replace(x);
}

ngx_int_t on_response(ngx_http_request_t* r, Exchange* x) noexcept {
  const mcs_verdict verdict = tell_response(r, x, r->headers_out.status);
  x->storing = verdict == MCS_STORE;
  if (verdict != MCS_REPLACE && verdict != MCS_RETRY) return send_origin_header(r, x);
  ngx_http_upstream_t* u = x->upstream;
  if (u != nullptr && r->headers_out.status == NGX_HTTP_NOT_MODIFIED &&
      u->buffer.pos == u->buffer.last) {
    // There is no body whose end must be seen first.
    u->keepalive = !u->headers_in.connection_close;
  }
  x->stage = Stage::kRetry;
  if (verdict == MCS_RETRY) return kElsewhere;
  end_transaction(x);
  return replace(x);
}

ngx_int_t header_filter(ngx_http_request_t* r) noexcept {
  Exchange* x = exchange_of(r);
  if (x != nullptr && x->stage == Stage::kReplaced) return send_reply_header(r, x);
  if (x != nullptr && x->stage == Stage::kRetry) return NGX_OK;
  if (x == nullptr || x->stage != Stage::kForwarded) return next_header_filter(r);
  r->error_page = x->error_page;
  restore_request(r, &x->edits);
  if (r->headers_out.status == NGX_HTTP_SWITCHING_PROTOCOLS) {
    end_transaction(x);
    x->stage = Stage::kIdle;
    return next_header_filter(r);
  }
  // An upstream that is finalized before it sent a header has none to send.
  x->upstream = r->upstream != x->old_upstream ? r->upstream : nullptr;
  const bool own =
      x->upstream != nullptr ? x->upstream->cleanup == nullptr : r->err_status != x->err_status;
  if (own) return on_failure(r, x);
  return r->http_version == x->http_version ? on_response(r, x) : on_nonsense(r, x);
}

// The core's part of one buffer. False: its file cannot be read.
bool feed(ngx_http_request_t* r, Exchange* x, const ngx_buf_t* b, mcs_slice* send) noexcept {
  if (ngx_buf_in_memory(b)) {
    x->storing =
        mcs_origin_body(x->transaction, b->pos, static_cast<size_t>(b->last - b->pos), send) != 0;
    return true;
  }
  auto* piece = static_cast<u_char*>(ngx_palloc(r->pool, kReadSize));
  if (piece == nullptr) return false;
  *send = {0, 0};
  bool ok = true;
  for (off_t at = b->file_pos; ok && at < b->file_last;) {
    const auto size =
        static_cast<size_t>(ngx_min(static_cast<off_t>(kReadSize), b->file_last - at));
    ok = ngx_read_file(b->file, piece, size, at) == static_cast<ssize_t>(size);
    if (ok) {
      mcs_slice part;
      x->storing = mcs_origin_body(x->transaction, piece, size, &part) != 0;
      if (send->count == 0) send->first = static_cast<size_t>(at - b->file_pos) + part.first;
      send->count += part.count;
      at += static_cast<off_t>(size);
    }
  }
  ngx_pfree(r->pool, piece);
  return ok;
}

void cut(ngx_buf_t* b, const mcs_slice& part) noexcept {
  if (ngx_buf_in_memory(b)) {
    b->pos += part.first;
    b->last = b->pos + part.count;
  }
  if (b->in_file) {
    b->file_pos += static_cast<off_t>(part.first);
    b->file_last = b->file_pos + static_cast<off_t>(part.count);
  }
}

// Sends those buffers that are not empty; the links are only borrowed by filters.
ngx_int_t send_rest(ngx_http_request_t* r, const ngx_chain_t* in) noexcept {
  ngx_chain_t* out = nullptr;
  ngx_chain_t** end = &out;
  for (; in != nullptr; in = in->next) {
    ngx_buf_t* b = in->buf;
    if (ngx_buf_size(b) == 0 && !ngx_buf_special(b)) continue;
    *end = ngx_alloc_chain_link(r->pool);
    if (*end == nullptr) return NGX_ERROR;
    **end = {b, nullptr};
    end = &(*end)->next;
  }
  const ngx_int_t rc = next_body_filter(r, out);
  while (out != nullptr) {
    ngx_chain_t* link = out;
    out = out->next;
    ngx_free_chain(r->pool, link);
  }
  return rc;
}

// The handler's body on its way to the client.
ngx_int_t on_body(ngx_http_request_t* r, Exchange* x, ngx_chain_t* in) noexcept {
  bool last = false;
  for (ngx_chain_t* link = in; link != nullptr; link = link->next) {
    ngx_buf_t* b = link->buf;
    last = last || b->last_buf || (r != r->main && b->last_in_chain);
    if (ngx_buf_size(b) == 0 || x->piped || (!x->storing && !x->windowed)) continue;
    mcs_slice send;
    if (!feed(r, x, b, &send)) return NGX_ERROR;
    if (x->windowed) cut(b, send);
  }
  // An upstream that is finalized before the end has broken off.
  const bool over = last || (x->upstream != nullptr && x->upstream->cleanup == nullptr);
  const bool was_storing = x->storing;
  if (over && x->transaction != nullptr) {
    mcs_origin_end(x->transaction, last);
    end_transaction(x);
  }
  ngx_int_t rc = NGX_OK;
  if (!x->silent && !x->gone) {
    rc = x->windowed ? send_rest(r, in) : next_body_filter(r, in);
    if (rc != NGX_ERROR) return rc;
    x->gone = true;
  }
  if (x->gone && !was_storing) return NGX_ERROR;
  for (; in != nullptr; in = in->next)
    cut(in->buf, {static_cast<size_t>(ngx_buf_size(in->buf)), 0});
  return over ? rc : NGX_OK;
}

ngx_int_t body_filter(ngx_http_request_t* r, ngx_chain_t* in) noexcept {
  Exchange* x = exchange_of(r);
  const Stage stage = x == nullptr ? Stage::kIdle : x->stage;
  if (stage == Stage::kBody) return on_body(r, x, in);
  if (stage < Stage::kReply) return next_body_filter(r, in);
  x->stage = Stage::kIdle;
  if (stage == Stage::kReply) return send_body(r, r->uri, x->reply);
  if (stage == Stage::kRefused) return ngx_http_special_response_handler(r, x->refused);
  ngx_http_clean_header(r);
  r->err_status = 0;
  mcs_response response;
  const mcs_outcome outcome = mcs_retry(x->transaction, &response);
  return act(r, x, outcome, &response);
}

}  // namespace

const mcs_request& proxied_request(const RequestContext* context) noexcept {
  return context->exchange->request;
}

ngx_int_t add_proxied_handler(ngx_conf_t* cf) noexcept {
  if (add_handler(cf, NGX_HTTP_REWRITE_PHASE, end_abandoned) != NGX_OK ||
      add_handler(cf, NGX_HTTP_PRECONTENT_PHASE, wrap_handler) != NGX_OK) {
    return NGX_ERROR;
  }
  next_header_filter = ngx_http_top_header_filter;
  ngx_http_top_header_filter = header_filter;
  next_body_filter = ngx_http_top_body_filter;
  ngx_http_top_body_filter = body_filter;
  return NGX_OK;
}

}  // namespace mcs::nginx
