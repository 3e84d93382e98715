// SPDX-License-Identifier: Apache-2.0
// Requests of nobody: what a client would send again to renew a stale response, put into the
// listener's handler through one end of a socket pair. They pass all of the server's phases like
// any other, and unlike a background subrequest they keep no client's connection busy.
#include <sys/socket.h>
#include <unistd.h>

#include "ngx_mcs_module/module.h"

namespace mcs::nginx {
namespace {

ngx_int_t scheme_variable = NGX_ERROR;
ngx_int_t https_variable = NGX_ERROR;

void close_peer(void* data) noexcept { close(static_cast<Refresh*>(data)->peer); }

bool write_request(ngx_http_request_t* r, mcs_request request, int to) noexcept {
  request.target = as_str(r->unparsed_uri);  // to be rewritten again
  const size_t size = mcs_refresh_request(&request, nullptr, 0);
  auto* bytes = static_cast<char*>(ngx_palloc(r->pool, size));
  if (bytes == nullptr) return false;
  mcs_refresh_request(&request, bytes, size);
  const bool written = write(to, bytes, size) == static_cast<ssize_t>(size);
  ngx_pfree(r->pool, bytes);
  return written;
}

sockaddr* copy_address(ngx_pool_t* pool, const sockaddr* address, socklen_t size) noexcept {
  ngx_str_t bytes = {size, reinterpret_cast<u_char*>(const_cast<sockaddr*>(address))};
  return reinterpret_cast<sockaddr*>(ngx_pstrdup(pool, &bytes));
}

// Looks like a connection that `from`'s client has opened. False: no memory.
bool dress(ngx_connection_t* c, const ngx_connection_t* from) noexcept {
  c->pool = ngx_create_pool(from->listening->pool_size, ngx_cycle->log);
  if (c->pool == nullptr) return false;
  c->type = SOCK_STREAM;
  c->listening = from->listening;
  c->sockaddr = copy_address(c->pool, from->sockaddr, from->socklen);
  c->socklen = from->socklen;
  c->local_sockaddr = copy_address(c->pool, from->local_sockaddr, from->local_socklen);
  c->local_socklen = from->local_socklen;
  c->addr_text.data = ngx_pstrdup(c->pool, const_cast<ngx_str_t*>(&from->addr_text));
  c->addr_text.len = from->addr_text.len;
  c->log = static_cast<ngx_log_t*>(ngx_palloc(c->pool, sizeof(ngx_log_t)));
  if (c->sockaddr == nullptr || c->local_sockaddr == nullptr || c->addr_text.data == nullptr ||
      c->log == nullptr) {
    return false;
  }
  *c->log = from->listening->log;
  c->pool->log = c->log;
  c->recv = ngx_recv;
  c->send = ngx_send;
  c->recv_chain = ngx_recv_chain;
  c->send_chain = ngx_send_chain;
  c->log_error = NGX_ERROR_INFO;
  c->tcp_nodelay = NGX_TCP_NODELAY_DISABLED;
  c->tcp_nopush = NGX_TCP_NOPUSH_DISABLED;
  c->read->log = c->write->log = c->log;
  c->write->ready = 1;
  c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
  c->start_time = ngx_current_msec;
  return true;
}

// The listener's handler, as if it spoke neither TLS nor HTTP/2 nor the PROXY protocol.
void accept_plain(ngx_connection_t* c, ngx_http_addr_conf_t* address) noexcept {
  const ngx_http_addr_conf_t kept = *address;
  address->ssl = 0;
  address->http2 = 0;
  address->proxy_protocol = 0;
  c->listening->handler(c);
  *address = kept;
}

// A refresh is nobody's visit, and its origin must not notice that its TLS was left out.
ngx_int_t on_request(ngx_http_request_t* r) noexcept {
  const Refresh* refresh = refresh_of(r->connection);
  if (refresh != nullptr) {
    r->logged = 1;
    if (refresh->tls) {
      set_value(&r->variables[scheme_variable], text("https"));
      set_value(&r->variables[https_variable], text("on"));
    }
  }
  return NGX_DECLINED;
}

}  // namespace

Refresh* refresh_of(const ngx_connection_t* c) noexcept {
  for (ngx_pool_cleanup_t* cleanup = c->pool->cleanup; cleanup != nullptr;
       cleanup = cleanup->next) {
    if (cleanup->handler == close_peer) return static_cast<Refresh*>(cleanup->data);
  }
  return nullptr;
}

void start_refresh(ngx_http_request_t* r, const mcs_request& request) noexcept {
  ngx_connection_t* from = r->connection;
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
    ngx_log_error(NGX_LOG_WARN, from->log, ngx_errno,
                  "mcs: a stale response stays stale: no socket to renew it through");
    return;
  }
  ngx_connection_t* c = ngx_get_connection(pair[0], from->log);
  if (c == nullptr) {
    close(pair[0]);
    close(pair[1]);
    return;
  }
  ngx_pool_cleanup_t* cleanup = nullptr;
  if (dress(c, from) && write_request(r, request, pair[1])) {
    cleanup = ngx_pool_cleanup_add(c->pool, sizeof(Refresh));
  }
  if (cleanup == nullptr) {
    ngx_pool_t* pool = c->pool;
    ngx_close_connection(c);
    if (pool != nullptr) ngx_destroy_pool(pool);
    close(pair[1]);
    return;
  }
  auto* refresh = static_cast<Refresh*>(cleanup->data);
  const Refresh* outer = refresh_of(from);
  refresh->peer = pair[1];
  refresh->tls = outer != nullptr ? outer->tls : from->ssl != nullptr;
  cleanup->handler = close_peer;
#if (NGX_STAT_STUB)
  (void)ngx_atomic_fetch_add(ngx_stat_active, 1);
#endif
  accept_plain(c, r->http_connection->addr_conf);
}

ngx_int_t add_refresh_handler(ngx_conf_t* cf) noexcept {
  ngx_str_t scheme = text("scheme");
  ngx_str_t https = text("https");
  scheme_variable = ngx_http_get_variable_index(cf, &scheme);
  https_variable = ngx_http_get_variable_index(cf, &https);
  if (scheme_variable == NGX_ERROR || https_variable == NGX_ERROR) return NGX_ERROR;
  return add_handler(cf, NGX_HTTP_POST_READ_PHASE, on_request);
}

}  // namespace mcs::nginx
