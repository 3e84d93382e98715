// SPDX-License-Identifier: Apache-2.0
//
// A child's membership of the domain: joined when the child starts, kept alive by a thread, left
// when the child ends. The parent never joins; nothing here survives into it or into a fork.
#include "mod_mcs_apache/mod_mcs.h"

#include <ap_mpm.h>
#include <apr_strings.h>
#include <dlfcn.h>
#include <http_main.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <ctime>

namespace mcs::httpd {
namespace {

constexpr long kTickMs = 250;
constexpr long kLeaveMs = 1000;  // a child's end is not delayed longer than this
constexpr int kRetryTicks = 8;   // between attempts to join

// No member has a destructor: exit() may run while the thread does.
struct Membership {
  std::atomic<mcs_process*> process{nullptr};
  std::atomic<bool> in_call{false};  // only kept if the MPM is not threaded
  bool threaded = true;
  sem_t stop;     // posted by the child's clean-up
  sem_t stopped;  // posted by the thread when it has left
} membership;

void log_line(void*, int level, const char* line) noexcept {
  constexpr int kLevels[] = {APLOG_ERR, APLOG_WARNING, APLOG_NOTICE, APLOG_INFO};
  int index = level < 0 ? 0 : level > 3 ? 3 : level;
  ap_log_error(APLOG_MARK, kLevels[index], 0, ap_server_conf, "%s", line);
}

bool wait_for(sem_t* semaphore, long milliseconds) noexcept {
  timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += milliseconds * 1'000'000;
  until.tv_sec += until.tv_nsec / 1'000'000'000;
  until.tv_nsec %= 1'000'000'000;
  int result;
  do {
    result = sem_clockwait(semaphore, CLOCK_MONOTONIC, &until);
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

void join(bool first) noexcept {
  static const mcs_callbacks kCallbacks = {nullptr, log_line, nullptr};
  char error[512] = "";
  mcs_process* process = mcs_join(configured_domain(), &kCallbacks, error, sizeof error);
  if (process != nullptr) {
    int threads = 1, children = 1;
    ap_mpm_query(AP_MPMQ_MAX_THREADS, &threads);
    ap_mpm_query(AP_MPMQ_MAX_DAEMONS, &children);
    mcs_set_capacity(process, threads > 1 ? threads : 1, children > 1 ? children : 1);
    membership.process.store(process, std::memory_order_release);
    if (!first) {
      ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, ap_server_conf,
                   "joined cache domain %s; serving with the cache from now on",
                   configured_domain()->name);
    }
  } else if (first) {
    ap_log_error(APLOG_MARK, APLOG_ERR, 0, ap_server_conf,
                 "serving without the cache, and trying again: %s", error);
  }
}

void* tick_thread(void*) noexcept {
  int ticks = 0;
  while (!wait_for(&membership.stop, kTickMs)) {
    mcs_process* process = membership.process.load(std::memory_order_acquire);
    if (process != nullptr) {
      mcs_tick(process);
    } else if (++ticks % kRetryTicks == 0) {
      join(false);
    }
  }
  // Worker threads have ended by now. Only in a prefork child can the process be in use: by the
  // call that the signal interrupted.
  mcs_process* process = membership.process.exchange(nullptr);
  if (!membership.in_call.load()) mcs_leave(process);
  sem_post(&membership.stopped);
  return nullptr;
}

// May run inside a signal handler (prefork), so all it does is to ask the thread to leave.
apr_status_t leave(void*) noexcept {
  sem_post(&membership.stop);
  wait_for(&membership.stopped, kLeaveMs);
  return APR_SUCCESS;
}

void init_child(apr_pool_t* pool, server_rec*) noexcept {
  if (configured_domain() == nullptr) return;
  int threaded = AP_MPMQ_NOT_SUPPORTED;
  ap_mpm_query(AP_MPMQ_IS_THREADED, &threaded);
  membership.threaded = threaded != AP_MPMQ_NOT_SUPPORTED;
  // A thread that has said that it ends has yet to return: this code must outlive the unloading of
  // modules at the child's end.
  Dl_info self{};
  if (dladdr(&membership, &self) != 0) dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  sem_init(&membership.stop, 0, 0);
  sem_init(&membership.stopped, 0, 0);
  join(true);

  const int error = start_thread(tick_thread, nullptr);
  if (error != 0) {
    ap_log_error(APLOG_MARK, APLOG_ERR, error, ap_server_conf,
                 "serving without the cache: no thread for its heartbeat");
    mcs_leave(membership.process.exchange(nullptr));
    return;
  }
  // Before the pools of open connections are destroyed: their pins need not be given back one by
  // one. Registered first of all modules, so that threads of others (HTTP/2) have ended by then.
  apr_pool_pre_cleanup_register(pool, nullptr, leave);
}

}  // namespace

mcs_process* joined() noexcept { return membership.process.load(std::memory_order_acquire); }

int start_thread(void* (*run)(void*), void* argument) noexcept {
  // httpd's signals are for its own threads.
  sigset_t all, before;
  sigfillset(&all);
  sigdelset(&all, SIGBUS);
  sigdelset(&all, SIGSEGV);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error = pthread_create(&thread, nullptr, run, argument);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error == 0) pthread_detach(thread);
  return error;
}

bool is_threaded() noexcept { return membership.threaded; }

CallGuard::CallGuard() noexcept {
  if (!membership.threaded) membership.in_call.store(true);
}

CallGuard::~CallGuard() {
  if (!membership.threaded) membership.in_call.store(false);
}

void register_process_hooks() noexcept {
  ap_hook_child_init(init_child, nullptr, nullptr, APR_HOOK_REALLY_FIRST);
}

}  // namespace mcs::httpd
