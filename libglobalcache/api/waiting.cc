// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/api/waiting.h"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <vector>

#include "libglobalcache/api/process.h"
#include "libglobalcache/cache/pins.h"

namespace mcs::api {
namespace {

// The number that others look at before they send a wake here.
void publish_count(mcs_process& process) {
  auto& area = *reinterpret_cast<cache::CacheArea*>(process.instance->own_component_area());
  const Waiting& waiting = process.waiting;
  area.waiting.store(waiting.waiters.size() + std::max(waiting.blocked, waiting.places),
                     std::memory_order_seq_cst);
}

// Of this kind of server on this node, this one included.
std::uint32_t waiting_processes(const mcs_process& process) {
  const runtime::Instance& instance = *process.instance;
  const runtime::Slot& own = instance.slot(instance.slot_number());
  std::uint32_t count = 0;
  for (std::uint32_t number = 0; number < instance.slot_count(); ++number) {
    const runtime::Slot& slot = instance.slot(number);
    if (cache::Pins::area(instance, number).waiting.load(std::memory_order_seq_cst) != 0 &&
        slot.node == own.node && std::strncmp(slot.server, own.server, sizeof own.server) == 0) {
      ++count;
    }
  }
  return count;
}

std::uint32_t half(std::uint32_t all) { return std::max(1U, all / 2); }

void note_crowd(Waiting& waiting) {
  waiting.crowded_ns.store(runtime::monotonic_ns(), std::memory_order_relaxed);
}

bool has_moved(const mcs_process& process, cache::Link filling, std::uint64_t seen) {
  return seen == kUntilEnd ? !process.cache->still_filling(filling)
                           : process.cache->fill_progress(filling) != seen;
}

void wake_blocked(Waiting& waiting) {
  ++waiting.wakeups;
  waiting.woken.notify_all();
}

// Sleep until something has happened or `until_ns`. `lock` is held before and after.
void sleep_once(mcs_process& process, std::unique_lock<std::mutex>& lock, std::uint64_t now_ns,
                std::uint64_t until_ns) {
  Waiting& waiting = process.waiting;
  const std::uint64_t most_ms =
      std::min<std::uint64_t>((until_ns - now_ns) / 1000000 + 1, kBackstopMs);
  if (!waiting.polled && !waiting.dispatched.load(std::memory_order_acquire)) {
    waiting.polled = true;
    lock.unlock();
    pollfd descriptor{process.wake->fd(), POLLIN, 0};
    ::poll(&descriptor, 1, static_cast<int>(most_ms));
    process.wake->drain();
    lock.lock();
    waiting.polled = false;
    wake_blocked(waiting);
    return;
  }
  const std::uint64_t before = waiting.wakeups;
  waiting.woken.wait_for(lock, std::chrono::milliseconds(most_ms),
                         [&] { return waiting.wakeups != before; });
}

}  // namespace

bool take_place(mcs_process& process, const void* waiter) {
  Waiting& waiting = process.waiting;
  const std::lock_guard lock(waiting.mutex);
  if (waiter != nullptr) {
    return waiting.requests == 0 || waiting.waiters.size() < half(waiting.requests);
  }
  bool granted = waiting.requests == 0 || waiting.places < half(waiting.requests);
  if (granted) {
    ++waiting.places;
    publish_count(process);
    if (waiting.requests == 1 && waiting_processes(process) > half(waiting.processes)) {
      --waiting.places;
      publish_count(process);
      granted = false;
    }
  }
  if (!granted) note_crowd(waiting);
  return granted;
}

void leave_place(mcs_process& process) {
  const std::lock_guard lock(process.waiting.mutex);
  --process.waiting.places;
  publish_count(process);
}

bool register_waiter(mcs_process& process, void* waiter, cache::Link filling, std::uint64_t seen) {
  {
    const std::lock_guard lock(process.waiting.mutex);
    process.waiting.waiters[waiter] = {filling, seen};
    publish_count(process);
  }
  process.cache->announce_wait(filling);
  if (!has_moved(process, filling, seen)) return true;
  mcs_cancel_wait(&process, waiter);
  return false;
}

void publish_waiting(mcs_process& process) {
  const std::lock_guard lock(process.waiting.mutex);
  publish_count(process);
}

void wait_blocking(mcs_process& process, cache::Link filling, std::uint64_t seen,
                   std::uint64_t until_ns) {
  Waiting& waiting = process.waiting;
  std::unique_lock lock(waiting.mutex);
  ++waiting.blocked;
  publish_count(process);
  if (waiting.requests != 0 && waiting.blocked >= half(waiting.requests)) note_crowd(waiting);
  lock.unlock();
  process.cache->announce_wait(filling);
  lock.lock();
  while (!has_moved(process, filling, seen)) {
    const std::uint64_t now = runtime::monotonic_ns();
    if (now >= until_ns) break;
    sleep_once(process, lock, now, until_ns);
  }
  --waiting.blocked;
  publish_count(process);
  // Whoever slept behind this thread has to watch the descriptor now.
  wake_blocked(waiting);
}

bool RefreshGate::claim(std::uint64_t key_hash, std::uint64_t now_ns) {
  constexpr std::uint32_t kAgainMs = 1000;
  std::atomic<std::uint64_t>& word = recent_[key_hash % recent_.size()];
  const auto now_ms = static_cast<std::uint32_t>(now_ns / 1000000);
  const std::uint64_t name = key_hash & 0xffffffff00000000ULL;
  std::uint64_t seen = word.load(std::memory_order_relaxed);
  const bool same = (seen & 0xffffffff00000000ULL) == name;
  if (seen != 0 && same && now_ms - static_cast<std::uint32_t>(seen) < kAgainMs) return false;
  return word.compare_exchange_strong(seen, name | now_ms, std::memory_order_relaxed);
}

}  // namespace mcs::api

using namespace mcs;

extern "C" {

void mcs_set_capacity(mcs_process* process, uint32_t requests, uint32_t processes) {
  process->waiting.requests = requests;
  process->waiting.processes = processes;
}

int mcs_is_crowded(mcs_process* process, uint32_t within_ms) {
  const std::uint64_t at = process->waiting.crowded_ns.load(std::memory_order_relaxed);
  return at != 0 && runtime::monotonic_ns() - at < within_ms * 1000000ULL ? 1 : 0;
}

int mcs_wake_fd(mcs_process* process) {
  process->waiting.dispatched.store(true, std::memory_order_release);
  return process->wake->fd();
}

void mcs_dispatch(mcs_process* process) try {
  process->wake->drain();
  std::vector<void*> ready;
  {
    const std::lock_guard lock(process->waiting.mutex);
    auto& waiters = process->waiting.waiters;
    for (auto it = waiters.begin(); it != waiters.end();) {
      if (!api::has_moved(*process, it->second.filling, it->second.seen)) {
        ++it;
        continue;
      }
      ready.push_back(it->first);
      it = waiters.erase(it);
    }
    api::publish_count(*process);
    api::wake_blocked(process->waiting);
  }
  if (process->callbacks.wake == nullptr) return;
  for (void* waiter : ready) process->callbacks.wake(process->callbacks.context, waiter);
} catch (const std::exception&) {
  // Waiters have a backstop timer.
}

void mcs_cancel_wait(mcs_process* process, void* waiter) {
  const std::lock_guard lock(process->waiting.mutex);
  if (process->waiting.waiters.erase(waiter) != 0) api::publish_count(*process);
}

}  // extern "C"
