// SPDX-License-Identifier: Apache-2.0
// Local files: what nginx's own static module would send, from the cache.
#include <unistd.h>

#include "ngx_mcs_module/module.h"

namespace mcs::nginx {

// A request in MCS_WAIT: woken by the cache, or by its own timer.
struct Waiter {
  ngx_event_t event;
  ngx_http_request_t* request;
  bool waiting;
  bool last_try;
};

// A body in shared memory. It is unpinned when the request ends, however it ends.
struct PinnedBody {
  mcs_response response;
  uint64_t copied;    // bytes of it that went into buffer
  ngx_buf_t* buffer;  // private memory, for clients and filters that shared memory must not reach
};

namespace {

const ngx_str_t kEtag = text("ETag");
const ngx_str_t kCacheStatus = text("Cache-Status");
const ngx_str_t kLastModified = text("Last-Modified");

constexpr size_t kCopySize = 65536;
// A client that takes everything at once must not keep the worker from all others.
constexpr int kCopiesInTurn = 32;

void* allocate(void* pool, size_t size) noexcept {
  return ngx_palloc(static_cast<ngx_pool_t*>(pool), size);
}

// The path below the document root or alias, with its first slash; empty if there is no such path.
mcs_str key_path(const ngx_http_core_loc_conf_t* core, const ngx_str_t& path,
                 size_t root_size) noexcept {
  const auto* data = reinterpret_cast<const char*>(path.data);
  if (core->root_lengths != nullptr) {
    return {data, path.len};  // one location, many roots: only the whole path names the file
  }
  size_t begin = root_size;
  if (begin == path.len && core->exact_match) {
    while (begin > 0 && data[begin - 1] != '/') {  // an alias that is one file
      --begin;
    }
  }
  if (begin > 0 && data[begin - 1] == '/') {
    --begin;  // an alias that ends with a slash
  }
  return begin < path.len && data[begin] == '/' ? mcs_str{data + begin, path.len - begin}
                                                : mcs_str{};
}

ngx_table_elt_t* add_header(ngx_http_request_t* r, const ngx_str_t& name,
                            const mcs_str& value) noexcept {
  auto* field = static_cast<ngx_table_elt_t*>(ngx_list_push(&r->headers_out.headers));
  if (field != nullptr) {
    field->hash = 1;
    field->key = name;
    field->value = {value.size, reinterpret_cast<u_char*>(const_cast<char*>(value.data))};
  }
  return field;
}

ngx_int_t set_headers(ngx_http_request_t* r, const mcs_response& response) noexcept {
  const auto* core =
      static_cast<ngx_http_core_loc_conf_t*>(ngx_http_get_module_loc_conf(r, ngx_http_core_module));
  r->headers_out.status = static_cast<ngx_uint_t>(response.status);
  r->headers_out.content_length_n = static_cast<off_t>(response.body_length);
  r->headers_out.last_modified_time = response.last_modified;
  if (response.last_modified_field.size > 0) {
    r->headers_out.last_modified = add_header(r, kLastModified, response.last_modified_field);
    if (r->headers_out.last_modified == nullptr) {
      return NGX_ERROR;
    }
  }
  if (response.etag.size > 0 && core->etag) {
    r->headers_out.etag = add_header(r, kEtag, response.etag);
    if (r->headers_out.etag == nullptr) {
      return NGX_ERROR;
    }
  }
  if (response.cache_status_field.size > 0 &&
      add_header(r, kCacheStatus, response.cache_status_field) == nullptr) {
    return NGX_ERROR;
  }
  return ngx_http_set_content_type(r);
}

bool wants_body(const ngx_http_request_t* r) noexcept {
  return r->method != NGX_HTTP_HEAD && !r->header_only;
}

// What shared memory may not be handed to: TLS and filters that read or change the bytes.
bool must_copy(const ngx_http_request_t* r) noexcept {
  return r->connection->ssl != nullptr || r->main_filter_need_in_memory ||
         r->filter_need_in_memory || r->filter_need_temporary;
}

void release_pinned(void* data) noexcept {
  if (joined_process != nullptr) {
    mcs_response_release(joined_process, &static_cast<PinnedBody*>(data)->response);
  }
}

// The client is slow, or it was others' turn: go on when it can be written to again.
void await_client(ngx_http_request_t* r) noexcept {
  auto* core = static_cast<ngx_http_core_loc_conf_t*>(
      ngx_http_get_module_loc_conf(r->main, ngx_http_core_module));
  ngx_event_t* writing = r->connection->write;
  if (!writing->delayed) {
    ngx_add_timer(writing, core->send_timeout);
  }
  if (ngx_handle_write_event(writing, core->send_lowat) != NGX_OK) {
    ngx_http_finalize_request(r, NGX_ERROR);
  }
}

// Sends a pinned body through private memory, the next piece when the one before it is gone.
void copy_pinned(ngx_http_request_t* r) noexcept {
  PinnedBody& body = *request_context(r)->body;
  ngx_buf_t& buffer = *body.buffer;
  for (int turn = 0; turn < kCopiesInTurn; ++turn) {
    ngx_chain_t link = {&buffer, nullptr};
    ngx_chain_t* out = nullptr;
    if (buffer.pos == buffer.last) {
      u_char* const start = buffer.start;
      const size_t size = ngx_min(kCopySize, body.response.body_length - body.copied);
      if (!mcs_response_read(joined_process, &body.response, body.copied, start, size)) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "mcs: memory of the cache was lost while a response was sent from it");
        ngx_http_finalize_request(r, NGX_ERROR);
        return;
      }
      body.copied += size;
      buffer = {};
      buffer.start = buffer.pos = start;
      buffer.end = buffer.last = start + size;
      buffer.temporary = 1;
      buffer.flush = 1;
      buffer.last_buf = body.copied == body.response.body_length;
      buffer.last_in_chain = buffer.last_buf;
      out = &link;
    }
    const ngx_int_t rc = ngx_http_output_filter(r, out);
    if (rc == NGX_ERROR || body.copied == body.response.body_length) {
      ngx_http_finalize_request(r, rc);
      return;
    }
    if (buffer.pos != buffer.last) {
      await_client(r);
      return;
    }
  }
  ngx_post_event(r->connection->write, &ngx_posted_next_events);
  await_client(r);
}

void continue_copying(ngx_http_request_t* r) noexcept {
  ngx_event_t* writing = r->connection->write;
  if (writing->timedout) {
    ngx_log_error(NGX_LOG_INFO, r->connection->log, NGX_ETIMEDOUT, "client timed out");
    r->connection->timedout = 1;
    ngx_http_finalize_request(r, NGX_HTTP_REQUEST_TIME_OUT);
  } else if (writing->delayed) {
    await_client(r);
  } else {
    copy_pinned(r);
  }
}

ngx_int_t start_copying(ngx_http_request_t* r, PinnedBody* body) noexcept {
  body->buffer = ngx_create_temp_buf(r->pool, ngx_min(kCopySize, body->response.body_length));
  if (body->buffer == nullptr) {
    return NGX_ERROR;
  }
  r->main->count++;
  r->read_event_handler =
      r->discard_body ? ngx_http_discarded_request_body_handler : ngx_http_test_reading;
  r->write_event_handler = continue_copying;
  copy_pinned(r);
  return NGX_DONE;
}

// Everything that must be given back is registered before anything is sent.
ngx_int_t keep_until_end(ngx_http_request_t* r, RequestContext* context, const ngx_str_t& path,
                         mcs_response* response) noexcept {
  if (response->file_fd >= 0) {
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(r->pool, sizeof(ngx_pool_cleanup_file_t));
    if (cleanup == nullptr) {
      close(response->file_fd);
      return NGX_ERROR;
    }
    cleanup->handler = ngx_pool_cleanup_file;
    auto* file = static_cast<ngx_pool_cleanup_file_t*>(cleanup->data);
    file->fd = response->file_fd;
    file->name = path.data;
    file->log = r->pool->log;
  }
  if (response->body_pinned) {
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(r->pool, sizeof(PinnedBody));
    if (cleanup == nullptr) {
      mcs_response_release(joined_process, response);
      return NGX_ERROR;
    }
    cleanup->handler = release_pinned;
    context->body = static_cast<PinnedBody*>(cleanup->data);
    *context->body = {*response, 0, nullptr};
  }
  return NGX_OK;
}

// One buffer for each piece of the body; nullptr: no memory.
ngx_chain_t* make_chain(ngx_http_request_t* r, const ngx_str_t& path,
                        const mcs_response& response) noexcept {
  const size_t count = response.file_fd < 0 && response.body_count > 1 ? response.body_count : 1;
  auto* buffers = static_cast<ngx_buf_t*>(
      ngx_pcalloc(r->pool, count * (sizeof(ngx_buf_t) + sizeof(ngx_chain_t))));
  if (buffers == nullptr) {
    return nullptr;
  }
  auto* links = reinterpret_cast<ngx_chain_t*>(buffers + count);
  for (size_t i = 0; i < count; ++i) {
    links[i] = {&buffers[i], i + 1 < count ? &links[i + 1] : nullptr};
    if (response.file_fd < 0 && response.body_length > 0) {
      const iovec& piece = response.body[i];
      buffers[i].pos = static_cast<u_char*>(piece.iov_base);
      buffers[i].last = buffers[i].pos + piece.iov_len;
      buffers[i].memory = 1;
    }
  }
  buffers[count - 1].last_buf = r == r->main;
  buffers[count - 1].last_in_chain = 1;
  if (response.file_fd >= 0) {
    auto* file = static_cast<ngx_file_t*>(ngx_pcalloc(r->pool, sizeof(ngx_file_t)));
    if (file == nullptr) {
      return nullptr;
    }
    file->fd = response.file_fd;
    file->name = path;
    file->log = r->connection->log;
    buffers->file = file;
    buffers->file_last = static_cast<off_t>(response.body_length);
    buffers->in_file = response.body_length > 0;
  }
  return links;
}

ngx_int_t send_response(ngx_http_request_t* r, RequestContext* context, const ngx_str_t& path,
                        mcs_response* response) noexcept {
  if (response->body_pinned && r != r->main) {
    // The parent decides when a subrequest's body is sent and through which filters.
    mcs_response_release(joined_process, response);
    context->status = MCS_CACHE_BYPASS;
    return NGX_DECLINED;
  }
  if (keep_until_end(r, context, path, response) != NGX_OK) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const ngx_int_t discarded = ngx_http_discard_request_body(r);
  if (discarded != NGX_OK) {
    return discarded;
  }
  r->connection->log->action = const_cast<char*>("sending response to client");
  if (set_headers(r, *response) != NGX_OK) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (r != r->main && response->body_length == 0) {
    return ngx_http_send_header(r);
  }
  r->allow_ranges = 1;
  // nginx cuts several ranges out of one buffer only.
  r->single_range = response->body_count > 1 || (response->body_pinned && must_copy(r));
  ngx_chain_t* body = nullptr;
  if (wants_body(r) && (body = make_chain(r, path, *response)) == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const ngx_int_t rc = ngx_http_send_header(r);
  if (rc == NGX_ERROR || rc > NGX_OK || r->header_only || body == nullptr) {
    return rc;
  }
  if (response->body_pinned && must_copy(r)) {
    return start_copying(r, context->body);
  }
  return ngx_http_output_filter(r, body);
}

void on_wake(ngx_event_t* event) noexcept {
  auto* waiter = static_cast<Waiter*>(event->data);
  ngx_http_request_t* r = waiter->request;
  ngx_connection_t* c = r->connection;
  if (event->timedout) {
    event->timedout = 0;
    waiter->last_try = true;
    mcs_cancel_wait(joined_process, r);
  }
  if (event->timer_set) {
    ngx_del_timer(event);
  }
  if (event->posted) {
    ngx_delete_posted_event(event);
  }
  waiter->waiting = false;
  ngx_http_set_log_request(c->log, r);
  r->read_event_handler = ngx_http_block_reading;
  r->write_event_handler = ngx_http_core_run_phases;
  ngx_http_core_run_phases(r);
  ngx_http_run_posted_requests(c);
}

void stop_waiting(void* data) noexcept {
  auto* waiter = static_cast<Waiter*>(data);
  if (!waiter->waiting) {
    return;
  }
  waiter->waiting = false;
  mcs_cancel_wait(joined_process, waiter->request);
  if (waiter->event.timer_set) {
    ngx_del_timer(&waiter->event);
  }
  if (waiter->event.posted) {
    ngx_delete_posted_event(&waiter->event);
  }
}

ngx_int_t wait_for_cache(ngx_http_request_t* r, RequestContext* context,
                         ngx_msec_t limit) noexcept {
  Waiter* waiter = context->waiter;
  if (waiter == nullptr) {
    waiter = static_cast<Waiter*>(ngx_pcalloc(r->pool, sizeof(Waiter)));
    ngx_http_cleanup_t* cleanup = ngx_http_cleanup_add(r, 0);
    if (waiter == nullptr || cleanup == nullptr) {
      mcs_cancel_wait(joined_process, r);
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    cleanup->handler = stop_waiting;
    cleanup->data = waiter;
    waiter->request = r;
    waiter->event.handler = on_wake;
    waiter->event.data = waiter;
    waiter->event.log = r->connection->log;
    context->waiter = waiter;
  }
  waiter->waiting = true;
  ngx_add_timer(&waiter->event, limit);

  // Until then nothing but the end of the connection matters.
  ngx_event_t* reading = r->connection->read;
  r->read_event_handler = ngx_http_test_reading;
  r->write_event_handler = ngx_http_request_empty_handler;
  r->main->count++;
  if (reading->ready) {
    ngx_post_event(reading, &ngx_posted_events);
  } else if (ngx_handle_read_event(reading, 0) != NGX_OK) {
    ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
  }
  return NGX_DONE;
}

ngx_int_t static_handler(ngx_http_request_t* r) noexcept {
  const LocationConf* conf = location_conf(r);
  auto* core =
      static_cast<ngx_http_core_loc_conf_t*>(ngx_http_get_module_loc_conf(r, ngx_http_core_module));
  if (!conf->enabled || joined_process == nullptr ||
      !(r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) || r->uri.data[r->uri.len - 1] == '/' ||
      r->post_action || core->disable_symlinks != NGX_DISABLE_SYMLINKS_OFF) {
    return NGX_DECLINED;
  }

  RequestContext* context = request_context(r);
  if (context == nullptr) {
    context = static_cast<RequestContext*>(ngx_pcalloc(r->pool, sizeof(RequestContext)));
    if (context == nullptr) {
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    ngx_http_set_ctx(r, context, ngx_http_mcs_module);
  }

  ngx_str_t path;
  size_t root_size;
  const u_char* end = ngx_http_map_uri_to_path(r, &path, &root_size, 0);
  if (end == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  path.len = static_cast<size_t>(end - path.data);
  context->key_path = key_path(core, path, root_size);
  if (context->key_path.size == 0) {
    return NGX_DECLINED;
  }

  mcs_static_request request = {};
  request.policy = conf->policy;
  request.path = context->key_path;
  request.file = reinterpret_cast<const char*>(path.data);
  request.head = !wants_body(r);
  request.last_try = context->waiter != nullptr && context->waiter->last_try;
  request.waiter = r;
  request.alloc = allocate;
  request.alloc_context = r->pool;
  mcs_response response;
  const mcs_outcome outcome = mcs_static_get(joined_process, &request, &response);
  if (outcome == MCS_WAIT) {
    return wait_for_cache(r, context, response.wait_ms);
  }
  if (outcome == MCS_DECLINED) {
    return NGX_DECLINED;
  }
  context->status = response.cache_status;
  return send_response(r, context, path, &response);
}

}  // namespace

void wake_request(ngx_http_request_t* r) noexcept {
  // Not at once: the cache is in the middle of telling all who wait.
  Waiter* waiter = request_context(r)->waiter;
  if (waiter->waiting) {
    ngx_post_event(&waiter->event, &ngx_posted_events);
  }
}

// The handler takes its turn in the content phase just before the static module, which is the
// first in the list and the last to be asked: access rules, try_files, index and gzip_static have
// had theirs, and locations with a content handler (proxy_pass, ...) never come here.
ngx_int_t add_static_handler(ngx_conf_t* cf) noexcept {
  auto* core = static_cast<ngx_http_core_main_conf_t*>(
      ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  ngx_array_t& handlers = core->phases[NGX_HTTP_CONTENT_PHASE].handlers;
  if (ngx_array_push(&handlers) == nullptr) {
    return NGX_ERROR;
  }
  auto* first = static_cast<ngx_http_handler_pt*>(handlers.elts);
  for (ngx_uint_t i = handlers.nelts - 1; i > 1; --i) {
    first[i] = first[i - 1];
  }
  first[handlers.nelts > 1 ? 1 : 0] = static_handler;
  return NGX_OK;
}

}  // namespace mcs::nginx
