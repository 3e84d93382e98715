// SPDX-License-Identifier: Apache-2.0
//
// Background refresh: a copy of the client's request on a connection that leads nowhere, served by
// a thread of its own; in a child with a single thread, after the client's connection has been
// closed. docs/decisions/0021-httpd-refresh.md
#include "mod_mcs_apache/mod_mcs.h"

#include <apr_strings.h>
#include <http_core.h>
#include <http_protocol.h>
#include <http_request.h>
#include <http_ssl.h>
#include <http_vhost.h>
#include <mod_core.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>

namespace mcs::httpd {
namespace {

// In one child at the same time. One that finds no room is asked for again by a later request.
constexpr int kMostRefreshes = 16;
// More than the event MPM keeps for a connection.
constexpr apr_size_t kMpmState = 1024;

ap_filter_rec_t* discard_filter_handle;
ap_filter_rec_t* nothing_filter_handle;

// No member has a destructor: exit() may run while a refresh does.
struct Running {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
  std::atomic<int> count{0};
} running;

// In a pool of its own, with everything it needs of the client's request.
struct Refresh {
  apr_pool_t* pool;
  conn_rec* connection;
  const char* target;
  apr_table_t* fields;
  char* useragent_ip;
  apr_sockaddr_t* useragent_addr;
  bool tls;
};

const Refresh* refresh_of(const conn_rec* c) noexcept {
  return static_cast<const Refresh*>(ap_get_module_config(c->conn_config, &mcs_module));
}

conn_rec* copy_connection(const conn_rec* from, apr_pool_t* pool) noexcept {
  auto* c = static_cast<conn_rec*>(apr_pcalloc(pool, sizeof(conn_rec)));
  c->pool = pool;
  c->base_server = from->base_server;
  c->vhost_lookup_data = from->vhost_lookup_data;
  apr_sockaddr_info_copy(&c->local_addr, from->local_addr, pool);
  apr_sockaddr_info_copy(&c->client_addr, from->client_addr, pool);
  c->client_ip = apr_pstrdup(pool, from->client_ip);
  c->local_ip = apr_pstrdup(pool, from->local_ip);
  c->id = from->id;
  c->conn_config = ap_create_conn_config(pool);
  c->notes = apr_table_make(pool, 2);
  // The event MPM notes there which server's timeouts hold, and expects it on every connection.
  if (module* mpm = ap_find_linked_module("event.c"); mpm != nullptr) {
    ap_set_module_config(c->conn_config, mpm, apr_pcalloc(pool, kMpmState));
  }
  c->bucket_alloc = apr_bucket_alloc_create(pool);
  c->keepalive = AP_CONN_CLOSE;
  return c;
}

Refresh* copy_request(const request_rec* r) noexcept {
  apr_allocator_t* allocator = nullptr;
  apr_pool_t* pool = nullptr;
  if (apr_allocator_create(&allocator) != APR_SUCCESS) return nullptr;
  if (apr_pool_create_ex(&pool, nullptr, nullptr, allocator) != APR_SUCCESS) {
    apr_allocator_destroy(allocator);
    return nullptr;
  }
  apr_allocator_owner_set(allocator, pool);
  auto* refresh = static_cast<Refresh*>(apr_pcalloc(pool, sizeof(Refresh)));
  refresh->pool = pool;
  refresh->connection = copy_connection(r->connection, pool);
  const mcs_request& request = exchange_of(r)->request;
  refresh->target = apr_pstrmemdup(pool, request.target.data, request.target.size);
  refresh->fields = apr_table_clone(pool, r->headers_in);
  refresh->useragent_ip = apr_pstrdup(pool, r->useragent_ip);
  if (r->useragent_addr != nullptr) {
    apr_sockaddr_info_copy(&refresh->useragent_addr, r->useragent_addr, pool);
  }
  refresh->tls = ap_ssl_conn_is_ssl(r->connection) != 0;
  ap_set_module_config(refresh->connection->conn_config, &mcs_module, refresh);
  return refresh;
}

// What ap_read_request does for a request that comes over a socket.
request_rec* create_request(const Refresh& refresh) noexcept {
  conn_rec* c = refresh.connection;
  request_rec* r = ap_create_request(c);
  r->request_time = apr_time_now();
  r->the_request = apr_pstrcat(r->pool, "GET ", refresh.target, " HTTP/1.1", nullptr);
  r->method = "GET";
  r->method_number = M_GET;
  r->protocol = const_cast<char*>("HTTP/1.1");
  r->proto_num = HTTP_VERSION(1, 1);
  r->headers_in = refresh.fields;
  ap_parse_uri(r, refresh.target);
  ap_update_vhost_from_headers(r);
  r->per_dir_config = r->server->lookup_defaults;
  ap_add_input_filter_handle(ap_http_input_filter_handle, nullptr, r, c);
  if (refresh.tls) apr_table_setn(r->subprocess_env, "HTTPS", "on");
  return r;
}

void run(Refresh* refresh) noexcept {
  conn_rec* c = refresh->connection;
  ap_add_output_filter_handle(discard_filter_handle, nullptr, nullptr, c);
  ap_add_input_filter_handle(nothing_filter_handle, nullptr, nullptr, c);
  request_rec* r = create_request(*refresh);
  int status = r->status == HTTP_OK ? ap_run_post_read_request(r) : r->status;
  r->useragent_ip = refresh->useragent_ip;
  r->useragent_addr = refresh->useragent_addr;
  if (status == OK || status == DECLINED) status = ap_process_request_internal(r);
  if (status == OK) status = ap_invoke_handler(r);
  if (status == OK) ap_finalize_request_protocol(r);
  apr_pool_destroy(refresh->pool);
}

apr_status_t run_after_the_connection(void* data) noexcept {
  auto* refresh = static_cast<Refresh*>(data);
  if (joined() != nullptr) {
    run(refresh);
  } else {
    apr_pool_destroy(refresh->pool);
  }
  return APR_SUCCESS;
}

void change_count(int by) noexcept {
  pthread_mutex_lock(&running.mutex);
  running.count += by;
  pthread_cond_broadcast(&running.changed);
  pthread_mutex_unlock(&running.mutex);
}

void* run_in_thread(void* refresh) noexcept {
  run(static_cast<Refresh*>(refresh));
  change_count(-1);
  return nullptr;
}

apr_status_t discard(ap_filter_t*, apr_bucket_brigade* brigade) noexcept {
  apr_brigade_cleanup(brigade);
  return APR_SUCCESS;
}

apr_status_t read_nothing(ap_filter_t*, apr_bucket_brigade*, ap_input_mode_t, apr_read_type_e,
                          apr_off_t) noexcept {
  return APR_EOF;
}

// What mod_ssl says of the client's connection holds for the copy.
bool is_tls(const conn_rec* c) noexcept {
  const Refresh* refresh = refresh_of(c);
  return refresh != nullptr && refresh->tls;
}

apr_status_t await_all(void*) noexcept {
  pthread_mutex_lock(&running.mutex);
  while (running.count > 0) pthread_cond_wait(&running.changed, &running.mutex);
  pthread_mutex_unlock(&running.mutex);
  return APR_SUCCESS;
}

// Clean-ups run in reverse order: this one before those of the modules that refreshes use.
void init_child(apr_pool_t* pool, server_rec*) noexcept {
  if (is_threaded()) apr_pool_pre_cleanup_register(pool, nullptr, await_all);
}

int is_ssl(conn_rec* c) noexcept { return is_tls(c) ? OK : DECLINED; }

const char* scheme(const request_rec* r) noexcept {
  return is_tls(r->connection) ? "https" : nullptr;
}

apr_port_t port(const request_rec* r) noexcept {
  return is_tls(r->connection) ? DEFAULT_HTTPS_PORT : 0;
}

}  // namespace

bool is_refresh(const request_rec* r) noexcept { return refresh_of(r->connection) != nullptr; }

void start_refresh(request_rec* r, bool awaited) noexcept {
  // What a POST was answered with cannot be had again without its body.
  if (is_refresh(r) || r->method_number != M_GET) return;
  Refresh* refresh = copy_request(r);
  if (refresh == nullptr) return;
  if (!is_threaded()) {
    if (awaited) return run(refresh);
    r->connection->keepalive = AP_CONN_CLOSE;
    apr_pool_cleanup_register(r->connection->pool, refresh, run_after_the_connection,
                              apr_pool_cleanup_null);
    return;
  }
  change_count(1);
  const int error = running.count > kMostRefreshes ? EAGAIN : start_thread(run_in_thread, refresh);
  if (error == 0) return;
  ap_log_rerror(APLOG_MARK, APLOG_INFO, error, r, "no thread for a background refresh");
  apr_pool_destroy(refresh->pool);
  change_count(-1);
}

void register_refresh() noexcept {
  discard_filter_handle =
      ap_register_output_filter("MCS_DISCARD", discard, nullptr, AP_FTYPE_NETWORK);
  nothing_filter_handle =
      ap_register_input_filter("MCS_NOTHING", read_nothing, nullptr, AP_FTYPE_NETWORK);
  ap_hook_child_init(init_child, nullptr, nullptr, APR_HOOK_REALLY_LAST);
  ap_hook_ssl_conn_is_ssl(is_ssl, nullptr, nullptr, APR_HOOK_FIRST);
  ap_hook_http_scheme(scheme, nullptr, nullptr, APR_HOOK_FIRST);
  ap_hook_default_port(port, nullptr, nullptr, APR_HOOK_FIRST);
}

}  // namespace mcs::httpd
