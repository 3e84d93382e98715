// SPDX-License-Identifier: Apache-2.0
// Requests of one process that wait for fills, woken by events, and the gate that keeps several of
// them from asking for the same background refresh.
//
// A process either has somebody who watches mcs_wake_fd and calls mcs_dispatch (event-driven
// servers), or its blocked threads watch the descriptor themselves: one of them at a time, which
// wakes the others. Every wait ends by itself after kBackstopMs, so a lost wake costs time only.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "libglobalcache/cache/layout.h"
#include "libglobalcache/globalcache.h"

namespace mcs::api {

inline constexpr std::uint32_t kBackstopMs = 100;
/// Instead of a progress that was seen: wait until the fill has ended.
inline constexpr std::uint64_t kUntilEnd = ~0ULL - 1;

/// State of waiting; the functions below work on it.
struct Waiting {
  struct Waiter {
    cache::Link filling;
    std::uint64_t seen = 0;  // GlobalCache::fill_progress when it looked, or kUntilEnd
  };
  std::mutex mutex;
  std::condition_variable woken;
  std::unordered_map<void*, Waiter> waiters;
  std::uint32_t blocked = 0;  // threads in wait_blocking
  std::uint64_t wakeups = 0;
  bool polled = false;         // one of the blocked threads watches the descriptor
  std::atomic<bool> dispatched{false};  // somebody else does

  // Of mcs_set_capacity; 0: not told, no limit.
  std::uint32_t requests = 0;
  std::uint32_t processes = 0;
  std::uint32_t places = 0;  // threads that take_place let wait
  std::atomic<std::uint64_t> crowded_ns{0};  // when half of the threads were last seen waiting
};

/// A place among the requests that wait: for this thread, or for `waiter`, which registering gives it.
/// False: half of the requests that this process (or, of one thread, its server) can have do.
bool take_place(mcs_process& process, const void* waiter);
/// Of this thread.
void leave_place(mcs_process& process);

/// Register a waiter: callbacks.wake is called for it once the fill's progress is not `seen` any
/// more. False: it is not already; look again at once.
bool register_waiter(mcs_process& process, void* waiter, cache::Link filling, std::uint64_t seen);

/// Say in shared memory how many wait here: after the instance has changed.
void publish_waiting(mcs_process& process);

/// The same without a waiter handle: returns when it is so, or at `until_ns` (CLOCK_MONOTONIC).
void wait_blocking(mcs_process& process, cache::Link filling, std::uint64_t seen,
                   std::uint64_t until_ns);

/// Which keys this process has asked a background refresh for a moment ago.
class RefreshGate {
 public:
  /// True for the first caller within a second.
  bool claim(std::uint64_t key_hash, std::uint64_t now_ns);

 private:
  // [high bits of the hash 32 | milliseconds 32]; a collision costs a refresh that is not needed.
  std::array<std::atomic<std::uint64_t>, 64> recent_{};
};

}  // namespace mcs::api
