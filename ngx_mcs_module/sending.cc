// SPDX-License-Identifier: Apache-2.0
// Bodies from the cache: as they lie in memory or in the memory's files, or while they arrive.
#include <unistd.h>

#include "ngx_mcs_module/module.h"

namespace mcs::nginx {

// A body that is still arriving.
struct Sending {
  mcs_transaction* following;
  bool ended;         // buffer holds the last of it
  ngx_buf_t* buffer;  // private memory
};

namespace {

constexpr size_t kFollowSize = 32768;
// A client that takes everything at once must not keep the worker from all others.
constexpr int kPiecesInTurn = 32;

enum class Piece { kThere, kLater, kBroken };

void send_pieces(ngx_http_request_t* r) noexcept;

void release_pinned(void* data) noexcept {
  if (joined_process == nullptr) return;
  mcs_response_release(joined_process, static_cast<mcs_response*>(data));
}

// The client is slow, or it was others' turn: go on when it can be written to again.
void await_client(ngx_http_request_t* r) noexcept {
  const auto* core = core_conf(r->main);
  ngx_event_t* writing = r->connection->write;
  if (!writing->delayed) ngx_add_timer(writing, core->send_timeout);
  if (ngx_handle_write_event(writing, core->send_lowat) != NGX_OK) {
    ngx_http_finalize_request(r, NGX_ERROR);
  }
}

void fill_buffer(ngx_buf_t& buffer, size_t size, bool last) noexcept {
  u_char* const start = buffer.start;
  u_char* const end = buffer.end;
  buffer = {};
  buffer.start = buffer.pos = start;
  buffer.end = end;
  buffer.last = start + size;
  buffer.temporary = size > 0;
  buffer.flush = 1;
  buffer.last_buf = last;
  buffer.last_in_chain = last;
}

void on_progress(ngx_http_request_t* r, RequestContext* /*context*/, bool /*timed_out*/) noexcept {
  send_pieces(r);
}

// The fill that was followed is gone: another one of the same body, by whomever, will do.
Piece look_for_another(ngx_http_request_t* r, Sending& sending) noexcept {
  mcs_response response;
  switch (mcs_follow_retry(sending.following, &response)) {
    case MCS_FOLLOW:
      return Piece::kThere;
    case MCS_WAIT:
      if (response.refresh) start_refresh(r, proxied_request(request_context(r)));
      return begin_waiting(request_context(r), response.wait_ms, on_progress) == NGX_OK
                 ? Piece::kLater
                 : Piece::kBroken;
    default:
      ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                    "mcs: the response that others were receiving as well broke off");
      return Piece::kBroken;
  }
}

Piece read_following(ngx_http_request_t* r, Sending& sending) noexcept {
  ngx_buf_t& buffer = *sending.buffer;
  for (;;) {
    size_t got = 0;
    switch (mcs_follow_read(sending.following, buffer.start,
                            static_cast<size_t>(buffer.end - buffer.start), &got)) {
      case MCS_FOLLOW_DATA:
        fill_buffer(buffer, got, false);
        return Piece::kThere;
      case MCS_FOLLOW_END:
        sending.ended = true;
        fill_buffer(buffer, 0, true);
        return Piece::kThere;
      case MCS_FOLLOW_WAIT:
        return begin_waiting(request_context(r), 0, on_progress) == NGX_OK ? Piece::kLater
                                                                           : Piece::kBroken;
      case MCS_FOLLOW_BROKEN: {
        const Piece other = look_for_another(r, sending);
        if (other != Piece::kThere) return other;
      }
    }
  }
}

// Nothing to send at present, but perhaps something that was not taken yet.
void await_fill(ngx_http_request_t* r) noexcept {
  ngx_event_t* writing = r->connection->write;
  if (ngx_http_output_filter(r, nullptr) == NGX_ERROR) {
    ngx_http_finalize_request(r, NGX_ERROR);
  } else if (r->buffered || r->connection->buffered) {
    await_client(r);
  } else if (writing->timer_set && !writing->delayed) {
    ngx_del_timer(writing);
  }
}

// Sends the next piece when the one before it is gone.
void send_pieces(ngx_http_request_t* r) noexcept {
  Sending& sending = *request_context(r)->sending;
  ngx_buf_t& buffer = *sending.buffer;
  for (int turn = 0; turn < kPiecesInTurn; ++turn) {
    ngx_chain_t link = {&buffer, nullptr};
    ngx_chain_t* out = nullptr;
    if (buffer.pos == buffer.last && !sending.ended) {
      switch (read_following(r, sending)) {
        case Piece::kThere:
          out = &link;
          break;
        case Piece::kLater:
          await_fill(r);
          return;
        case Piece::kBroken:
          ngx_http_finalize_request(r, NGX_ERROR);
          return;
      }
    }
    const ngx_int_t rc = ngx_http_output_filter(r, out);
    if (rc == NGX_ERROR || sending.ended) {
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

void continue_sending(ngx_http_request_t* r) noexcept {
  ngx_event_t* writing = r->connection->write;
  if (writing->timedout) {
    ngx_log_error(NGX_LOG_INFO, r->connection->log, NGX_ETIMEDOUT, "client timed out");
    r->connection->timedout = 1;
    ngx_http_finalize_request(r, NGX_HTTP_REQUEST_TIME_OUT);
  } else if (writing->delayed) {
    await_client(r);
  } else {
    send_pieces(r);
  }
}

// Filters and TLS read or change the bytes, which nginx reads from the file for them, as it does for
// a parent that decides itself when a subrequest's body is sent.
bool must_copy(const ngx_http_request_t* r) noexcept {
  return r->connection->ssl != nullptr || r->main_filter_need_in_memory ||
         r->filter_need_in_memory || r->filter_need_temporary || r != r->main;
}

// The header waits in the socket for a body that comes from a file: one packet less, for which
// tcp_nopush takes four calls.
ngx_chain_t* send_together(ngx_connection_t* c, ngx_chain_t* in, off_t limit) noexcept {
  const off_t size = in != nullptr ? in->buf->last - in->buf->pos : 0;
  if (c->write->ready && size > 0 && !in->buf->in_file && in->next != nullptr &&
      in->next->buf->in_file && (limit == 0 || limit > size)) {
    const ssize_t sent = send(c->fd, in->buf->pos, static_cast<size_t>(size), MSG_MORE);
    if (sent > 0) {  // what fails here fails below as well
      c->sent += sent;
      in = ngx_chain_update_sent(in, sent);
    }
  }
  return ngx_send_chain(c, in, limit);
}

// One buffer for each piece of the body; nullptr: no memory.
ngx_chain_t* make_chain(ngx_http_request_t* r, const ngx_str_t& path,
                        const mcs_response& response) noexcept {
  const bool is_file = response.file_fd >= 0;
  const bool in_files = is_file || response.body_pinned;
  const size_t count = !is_file && response.body_count > 1 ? response.body_count : 1;
  auto* buffers = static_cast<ngx_buf_t*>(ngx_pcalloc(
      r->pool, count * (sizeof(ngx_buf_t) + sizeof(ngx_chain_t) +
                        (in_files ? sizeof(ngx_file_t) + sizeof(mcs_place) : 0))));
  if (buffers == nullptr) return nullptr;
  auto* links = reinterpret_cast<ngx_chain_t*>(buffers + count);
  auto* files = reinterpret_cast<ngx_file_t*>(links + count);
  auto* places = reinterpret_cast<mcs_place*>(files + count);
  const bool copies = must_copy(r);
  if (is_file) {
    *places = {response.file_fd, 1, 0};
  } else if (in_files) {
    // Or nginx might send from the file what it has read for a filter that left it as it was.
    if (copies) r->connection->sendfile = 0;
    mcs_response_places(joined_process, &response, r->connection->sendfile, places);
    ngx_connection_t* c = r->connection;
    if (!copies && c->send_chain == ngx_send_chain) c->send_chain = send_together;
  }
  for (size_t i = 0; i < count; ++i) {
    ngx_buf_t& buffer = buffers[i];
    links[i] = {&buffer, i + 1 < count ? &links[i + 1] : nullptr};
    if (response.body_length == 0 || (!is_file && response.body == nullptr)) break;
    if (in_files && places[i].fd >= 0 && (copies || places[i].may_send)) {
      files[i].fd = places[i].fd;
      files[i].name = is_file ? path : ngx_str_t ngx_string("memory of the cache");
      files[i].log = r->connection->log;
      buffer.file = &files[i];
      buffer.file_pos = static_cast<off_t>(places[i].offset);
      buffer.file_last = buffer.file_pos + static_cast<off_t>(is_file ? response.body_length
                                                                     : response.body[i].iov_len);
      buffer.in_file = 1;
    } else {
      buffer.pos = static_cast<u_char*>(response.body[i].iov_base);
      buffer.last = buffer.pos + response.body[i].iov_len;
      buffer.memory = 1;
    }
  }
  buffers[count - 1].last_buf = r == r->main;
  buffers[count - 1].last_in_chain = 1;
  buffers[count - 1].sync = r != r->main && response.body_length == 0;
  return links;
}

}  // namespace

ngx_int_t begin_sending(ngx_http_request_t* r, const ngx_str_t& path,
                        mcs_response* response) noexcept {
  if (response->file_fd >= 0) {
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(r->pool, sizeof(ngx_pool_cleanup_file_t));
    if (cleanup == nullptr) {
      close(response->file_fd);
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    cleanup->handler = ngx_pool_cleanup_file;
    *static_cast<ngx_pool_cleanup_file_t*>(cleanup->data) = {response->file_fd, path.data,
                                                             r->pool->log};
  }
  if (response->body_pinned) {
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(r->pool, sizeof(mcs_response));
    if (cleanup == nullptr) {
      mcs_response_release(joined_process, response);
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    cleanup->handler = release_pinned;
    *static_cast<mcs_response*>(cleanup->data) = *response;
  }
  r->connection->log->action = const_cast<char*>("sending response to client");
  return ngx_http_discard_request_body(r);
}

ngx_int_t send_body(ngx_http_request_t* r, const ngx_str_t& path,
                    const mcs_response& response) noexcept {
  ngx_chain_t* body = make_chain(r, path, response);
  return body == nullptr ? NGX_ERROR : ngx_http_output_filter(r, body);
}

ngx_int_t send_all(ngx_http_request_t* r, const ngx_str_t& path,
                   const mcs_response& response) noexcept {
  const ngx_int_t rc = ngx_http_send_header(r);
  if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) return rc;
  return send_body(r, path, response);
}

ngx_int_t send_following(ngx_http_request_t* r, RequestContext* context,
                         mcs_transaction* transaction) noexcept {
  context->sending = static_cast<Sending*>(ngx_pcalloc(r->pool, sizeof(Sending)));
  if (context->sending == nullptr) return NGX_ERROR;
  context->sending->following = transaction;
  context->sending->buffer = ngx_create_temp_buf(r->pool, kFollowSize);
  if (context->sending->buffer == nullptr) return NGX_ERROR;
  r->main->count++;
  r->read_event_handler =
      r->discard_body ? ngx_http_discarded_request_body_handler : ngx_http_test_reading;
  r->write_event_handler = continue_sending;
  send_pieces(r);
  return NGX_DONE;
}

}  // namespace mcs::nginx
