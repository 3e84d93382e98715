// SPDX-License-Identifier: Apache-2.0
// The life of a server process in the domain: the master prepares it, workers join, tick and leave.
#include <grp.h>
#include <unistd.h>

#include "ngx_mcs_module/module.h"

namespace mcs::nginx {

mcs_process* joined_process = nullptr;

namespace {

constexpr ngx_msec_t kTickInterval = 250;
constexpr ngx_msec_t kJoinInterval = 3000;
constexpr size_t kErrorSize = 512;

ngx_event_t tick;
ngx_connection_t tick_owner;  // debug logging looks for a descriptor behind an event's data
ngx_msec_t last_join;
bool join_failed;

MainConf* main_conf(ngx_cycle_t* cycle) noexcept {
  auto* conf =
      static_cast<MainConf*>(ngx_http_cycle_get_module_main_conf(cycle, ngx_http_mcs_module));
  return conf != nullptr && conf->domain.name != nullptr ? conf : nullptr;
}

void write_log(void* /*context*/, int level, const char* line) noexcept {
  constexpr ngx_uint_t kLevels[] = {NGX_LOG_ERR, NGX_LOG_WARN, NGX_LOG_NOTICE, NGX_LOG_INFO};
  const ngx_uint_t nginx_level = kLevels[ngx_max(0, ngx_min(level, 3))];
  ngx_log_error(nginx_level, ngx_cycle->log, 0, "mcs: %s", line);
}

void dispatch(ngx_event_t* /*event*/) noexcept {
  if (joined_process != nullptr) mcs_dispatch(joined_process);
}

void join() noexcept {
  auto* cycle = const_cast<ngx_cycle_t*>(ngx_cycle);
  const MainConf* conf = main_conf(cycle);
  if (conf == nullptr) return;
  last_join = ngx_current_msec;
  const mcs_callbacks callbacks = {nullptr, write_log, wake_waiter};
  char error[kErrorSize];
  mcs_process* process = mcs_join(&conf->domain, &callbacks, error, sizeof(error));
  if (process == nullptr) {
    if (!join_failed) {
      ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                    "mcs: serving without the cache, trying again every %M s: %s",
                    kJoinInterval / 1000, error);
    }
    join_failed = true;
    return;
  }
  mcs_set_capacity(process, static_cast<uint32_t>(cycle->connection_n), 1);
  // A channel, like the one to the master: it keeps no worker from exiting.
  const int wake_fd = mcs_wake_fd(process);
  if (wake_fd < 0 || ngx_add_channel_event(cycle, wake_fd, NGX_READ_EVENT, dispatch) != NGX_OK) {
    ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                  "mcs: requests that wait for another's fill wait longer than they need: their "
                  "wake descriptor cannot be watched, is worker_connections too low?");
  }
  if (join_failed) {
    ngx_log_error(NGX_LOG_NOTICE, cycle->log, 0, "mcs: joined domain \"%s\" at last",
                  conf->domain.name);
    join_failed = false;
  }
  joined_process = process;
}

void on_tick(ngx_event_t* event) noexcept {
  if (joined_process != nullptr) {
    mcs_tick(joined_process);
    // A wake that was lost costs its waiter no more than this.
    mcs_dispatch(joined_process);
  } else if (!ngx_exiting && ngx_current_msec - last_join >= kJoinInterval) {
    join();
  }
  ngx_add_timer(event, kTickInterval);
}

}  // namespace

ngx_int_t prepare_domain(ngx_cycle_t* cycle) noexcept {
  MainConf* conf = main_conf(cycle);
  if (conf == nullptr || ngx_test_config) return NGX_OK;
  // Workers give up root's rights, so what root creates must belong to them.
  if (geteuid() == 0 && conf->domain.owner == nullptr) {
    auto* core = reinterpret_cast<ngx_core_conf_t*>(ngx_get_conf(cycle->conf_ctx, ngx_core_module));
    conf->domain.owner = core->username;
    const group* workers = conf->domain.group == nullptr ? getgrgid(core->group) : nullptr;
    if (workers != nullptr) {
      ngx_str_t name = {ngx_strlen(workers->gr_name) + 1,
                        reinterpret_cast<u_char*>(workers->gr_name)};
      conf->domain.group = reinterpret_cast<char*>(ngx_pstrdup(cycle->pool, &name));
    }
  }
  char error[kErrorSize];
  const mcs_status prepared = mcs_domain_prepare(&conf->domain, error, sizeof(error));
  if (prepared == MCS_WARNING) ngx_log_error(NGX_LOG_WARN, cycle->log, 0, "mcs: %s", error);
  if (prepared == MCS_ERROR) {
    ngx_log_error(NGX_LOG_ERR, cycle->log, 0, "mcs: serving without the cache: %s", error);
  }
  return NGX_OK;
}

ngx_int_t start_worker(ngx_cycle_t* cycle) noexcept {
  // Cache managers and loaders run this hook as well, but serve nobody.
  if (main_conf(cycle) == nullptr ||
      (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)) {
    return NGX_OK;
  }
  join();
  tick_owner.fd = -1;
  tick.handler = on_tick;
  tick.data = &tick_owner;
  tick.log = cycle->log;
  tick.cancelable = 1;
  ngx_add_timer(&tick, kTickInterval);
  return NGX_OK;
}

void stop_worker(ngx_cycle_t* /*cycle*/) noexcept {
  mcs_process* process = joined_process;
  joined_process = nullptr;
  mcs_leave(process);
}

}  // namespace mcs::nginx
