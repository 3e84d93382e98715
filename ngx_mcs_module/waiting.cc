// SPDX-License-Identifier: Apache-2.0
// Requests that wait for another's fill, of this process or not, without holding the worker up.
#include "ngx_mcs_module/module.h"

namespace mcs::nginx {

struct Waiter {
  ngx_event_t event;
  RequestContext* context;
  Resume resume;
  bool waiting;
};

namespace {

void leave(Waiter* waiter) noexcept {
  waiter->waiting = false;
  if (waiter->event.timer_set) ngx_del_timer(&waiter->event);
  if (waiter->event.posted) {
    ngx_delete_posted_event(&waiter->event);
  }
}

void on_wake(ngx_event_t* event) noexcept {
  auto* waiter = static_cast<Waiter*>(event->data);
  ngx_http_request_t* r = waiter->context->request;
  ngx_connection_t* c = r->connection;
  const bool timed_out = event->timedout;
  if (timed_out) {
    event->timedout = 0;
    mcs_cancel_wait(joined_process, waiter->context);
  }
  leave(waiter);
  ngx_http_set_log_request(c->log, r);
  waiter->resume(r, waiter->context, timed_out);
  ngx_http_run_posted_requests(c);
}

void stop_waiting(void* data) noexcept {
  auto* waiter = static_cast<Waiter*>(data);
  if (waiter->waiting) {
    leave(waiter);
    mcs_cancel_wait(joined_process, waiter->context);
  }
}

}  // namespace

ngx_int_t begin_waiting(RequestContext* context, ngx_msec_t limit, Resume resume) noexcept {
  ngx_http_request_t* r = context->request;
  Waiter* waiter = context->waiter;
  if (waiter == nullptr) {
    waiter = static_cast<Waiter*>(ngx_pcalloc(r->pool, sizeof(Waiter)));
    ngx_http_cleanup_t* cleanup = ngx_http_cleanup_add(r, 0);
    if (waiter == nullptr || cleanup == nullptr) {
      mcs_cancel_wait(joined_process, context);
      return NGX_ERROR;
    }
    cleanup->handler = stop_waiting;
    cleanup->data = waiter;
    waiter->context = context;
    waiter->event.handler = on_wake;
    waiter->event.data = waiter;
    waiter->event.log = r->connection->log;
    context->waiter = waiter;
  }
  waiter->resume = resume;
  waiter->waiting = true;
  if (limit > 0) ngx_add_timer(&waiter->event, limit);

  // Until then nothing but the end of the connection matters.
  ngx_event_t* reading = r->connection->read;
  r->read_event_handler = ngx_http_test_reading;
  if (reading->ready) {
    ngx_post_event(reading, &ngx_posted_events);
    return NGX_OK;
  }
  if (ngx_handle_read_event(reading, 0) != NGX_OK) {
    stop_waiting(waiter);
    return NGX_ERROR;
  }
  return NGX_OK;
}

void wake_waiter(void* /*unused*/, void* context) noexcept {
  // Not at once: the cache is in the middle of telling all who wait.
  Waiter* waiter = static_cast<RequestContext*>(context)->waiter;
  if (waiter != nullptr && waiter->waiting) {
    ngx_post_event(&waiter->event, &ngx_posted_events);
  }
}

}  // namespace mcs::nginx
