// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/api/waiting.h"

#include <poll.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <vector>

#include "libglobalcache/api/process.h"
#include "libglobalcache/cache/pins.h"

namespace mcs::api {
namespace {

// Of a server's bytes: places from the first on, then one for each process that waits or follows.
constexpr std::uint32_t kMostPlaces = 0x8000;
// How often a process of one request looks at how many others wait.
constexpr std::uint64_t kLookNs = 50'000'000;

// The number that others look at before they send a wake here.
void publish_count(mcs_process& process) {
  auto& area = *reinterpret_cast<cache::CacheArea*>(process.instance->own_component_area());
  const Waiting& waiting = process.waiting;
  area.waiting.store(waiting.waiters.size() + waiting.blocked, std::memory_order_seq_cst);
}

std::uint32_t half(std::uint32_t all) { return std::max(1U, all / 2); }

// Processes of one request: whose server's they are. The same for all children of one parent.
std::uint32_t server_bytes() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return runtime::held_bytes(static_cast<std::uint32_t>(
      XXH3_64bits_withSeed(name, sizeof name, static_cast<XXH64_hash_t>(::getppid()))));
}

void note_crowd(Waiting& waiting) {
  waiting.crowded_ns.store(runtime::monotonic_ns(), std::memory_order_relaxed);
}

// Processes of one request: whether half of their server's wait or follow.
void look_at_others(mcs_process& process) {
  Waiting& waiting = process.waiting;
  const std::uint64_t now = runtime::monotonic_ns();
  std::uint64_t looked = waiting.looked_ns.load(std::memory_order_relaxed);
  if (looked != 0 && now - looked < kLookNs) return;
  if (!waiting.looked_ns.compare_exchange_strong(looked, now, std::memory_order_relaxed)) return;
  const std::uint32_t first = waiting.server_bytes + kMostPlaces;
  const std::uint32_t most = half(waiting.processes);
  if (process.liveness->count_held(first, first + kMostPlaces - 1, most) >= most) {
    note_crowd(waiting);
  }
}

// The functions of places are called with the mutex held.
bool try_take_place(mcs_process& process) {
  Waiting& waiting = process.waiting;
  if (waiting.requests == 1) {
    // One after the other: whoever comes at the same time finds another one.
    const std::uint32_t most = std::min(half(waiting.processes), kMostPlaces);
    std::uint32_t place = 0;
    while (place < most && !process.liveness->acquire(waiting.server_bytes + place)) ++place;
    if (place == most) return false;
    waiting.held_places.push_back(waiting.server_bytes + place);
  } else if (waiting.requests != 0 && waiting.places >= half(waiting.requests)) {
    return false;
  }
  ++waiting.places;
  return true;
}

void give_place_back(mcs_process& process) {
  Waiting& waiting = process.waiting;
  --waiting.places;
  if (waiting.held_places.empty()) return;
  process.liveness->release(waiting.held_places.back());
  waiting.held_places.pop_back();
}

// A waiter is gone from the list.
void forget(mcs_process& process, const Waiting::Waiter& waiter) {
  if (waiter.has_place) give_place_back(process);
  if (waiter.begun != nullptr) process.waiting.wait_for_begun.fetch_sub(1);
}

bool has_happened(const mcs_process& process, const Awaited& awaited) {
  if (awaited.begun != nullptr) return awaited.begun->load() != awaited.seen;
  return awaited.seen == kUntilEnd ? !process.cache->still_filling(awaited.filling)
                                   : process.cache->fill_progress(awaited.filling) != awaited.seen;
}

void announce(mcs_process& process, const Awaited& awaited) {
  if (awaited.begun == nullptr) process.cache->announce_wait(awaited.filling);
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

bool take_place(mcs_process& process) {
  const std::lock_guard lock(process.waiting.mutex);
  if (try_take_place(process)) return true;
  note_crowd(process.waiting);
  return false;
}

void leave_place(mcs_process& process) {
  const std::lock_guard lock(process.waiting.mutex);
  give_place_back(process);
}

const std::atomic<std::uint64_t>& fills_begun(mcs_process& process, std::uint64_t key_hash) {
  return process.waiting.begun[key_hash % process.waiting.begun.size()];
}

void note_begun(mcs_process& process, std::uint64_t key_hash) {
  Waiting& waiting = process.waiting;
  waiting.begun[key_hash % waiting.begun.size()].fetch_add(1);
  if (waiting.wait_for_begun.load() == 0) return;
  WakeSocket::send(process.wake->fd(), WakeSocket::path_for(process.domain->path(),
                                                            process.instance->slot_number()));
}

bool register_waiter(mcs_process& process, void* waiter, const Awaited& awaited, bool has_place) {
  {
    const std::lock_guard lock(process.waiting.mutex);
    process.waiting.waiters[waiter] = {awaited, has_place};
    if (awaited.begun != nullptr) process.waiting.wait_for_begun.fetch_add(1);
    publish_count(process);
  }
  announce(process, awaited);
  if (!has_happened(process, awaited)) return true;
  mcs_cancel_wait(&process, waiter);
  return false;
}

void publish_waiting(mcs_process& process) {
  const std::lock_guard lock(process.waiting.mutex);
  publish_count(process);
}

void wait_blocking(mcs_process& process, const Awaited& awaited, std::uint64_t until_ns) {
  Waiting& waiting = process.waiting;
  std::unique_lock lock(waiting.mutex);
  ++waiting.blocked;
  publish_count(process);
  const bool alone = waiting.requests == 1;
  if (alone && waiting.blocked == 1) {
    waiting.own_byte =
        waiting.server_bytes + kMostPlaces + process.instance->slot_number() % kMostPlaces;
    process.liveness->acquire(waiting.own_byte);
  }
  if (!alone && waiting.requests != 0 && waiting.blocked >= half(waiting.requests)) {
    note_crowd(waiting);
  }
  if (awaited.begun != nullptr) waiting.wait_for_begun.fetch_add(1);
  lock.unlock();
  if (alone) look_at_others(process);
  announce(process, awaited);
  lock.lock();
  while (!has_happened(process, awaited)) {
    const std::uint64_t now = runtime::monotonic_ns();
    if (now >= until_ns) break;
    sleep_once(process, lock, now, until_ns);
  }
  if (awaited.begun != nullptr) waiting.wait_for_begun.fetch_sub(1);
  --waiting.blocked;
  if (alone && waiting.blocked == 0) process.liveness->release(waiting.own_byte);
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
  process->waiting.server_bytes = api::server_bytes();
}

int mcs_is_crowded(mcs_process* process, uint32_t within_ms) {
  if (process->waiting.requests == 1) api::look_at_others(*process);
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
      if (!api::has_happened(*process, it->second)) {
        ++it;
        continue;
      }
      ready.push_back(it->first);
      api::forget(*process, it->second);
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
  const auto found = process->waiting.waiters.find(waiter);
  if (found == process->waiting.waiters.end()) return;
  api::forget(*process, found->second);
  process->waiting.waiters.erase(found);
  api::publish_count(*process);
}

}  // extern "C"
