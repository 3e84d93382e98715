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
#include <vector>

#include "libglobalcache/cache/layout.h"
#include "libglobalcache/globalcache.h"

namespace mcs::api {

inline constexpr std::uint32_t kBackstopMs = 100;
/// Instead of a progress that was seen: wait until the fill has ended.
inline constexpr std::uint64_t kUntilEnd = ~0ULL - 1;

/// What a request waits for.
struct Awaited {
  cache::Link filling;     // that this fill gets further than
  std::uint64_t seen = 0;  // GlobalCache::fill_progress when it looked, or kUntilEnd
  // Or, where there is no fill: that this begins to differ from `seen`. Of fills_begun.
  const std::atomic<std::uint64_t>* begun = nullptr;
};

/// State of waiting; the functions below work on it.
struct Waiting {
  struct Waiter : Awaited {
    bool has_place = false;  // until it is woken
  };
  std::mutex mutex;
  std::condition_variable woken;
  std::unordered_map<void*, Waiter> waiters;
  std::uint32_t blocked = 0;  // threads in wait_blocking
  std::uint64_t wakeups = 0;
  bool polled = false;         // one of the blocked threads watches the descriptor
  std::atomic<bool> dispatched{false};  // somebody else does

  // Counters, by hash of the key, of fills that this process began or met while it wanted to.
  std::array<std::atomic<std::uint64_t>, 64> begun{};
  std::atomic<std::uint32_t> wait_for_begun{0};  // requests that do

  // Of mcs_set_capacity; 0: not told, no limit.
  std::uint32_t requests = 0;
  std::uint32_t processes = 0;
  std::uint32_t places = 0;  // of requests that take_place let wait
  std::atomic<std::uint64_t> crowded_ns{0};  // when half of the threads were last seen waiting

  // Processes of one request share the places of their server: each is a byte of the domain's
  // `live` file, which the kernel gives back when its holder dies.
  std::uint32_t server_bytes = 0;  // the first byte of this server's
  std::vector<std::uint32_t> held_places;
  std::uint32_t own_byte = 0;  // held while a request of this process waits or follows
  std::atomic<std::uint64_t> looked_ns{0};  // when the others were last looked at
};

/// A place among the requests that wait. False: half of the requests that this process (or, of one
/// request, its server) can have do.
bool take_place(mcs_process& process);
void leave_place(mcs_process& process);

/// The counter that note_begun changes for this key.
const std::atomic<std::uint64_t>& fills_begun(mcs_process& process, std::uint64_t key_hash);
/// This process has begun a fill of the key, or wanted to and met another's: wakes who waits for one.
void note_begun(mcs_process& process, std::uint64_t key_hash);

/// Register a waiter: callbacks.wake is called for it once what it waits for has happened. False: it
/// has already; look again at once. has_place: it has taken one, which is given back by then.
bool register_waiter(mcs_process& process, void* waiter, const Awaited& awaited,
                     bool has_place = false);

/// Say in shared memory how many wait here: after the instance has changed.
void publish_waiting(mcs_process& process);

/// The same without a waiter handle: returns when it is so, or at `until_ns` (CLOCK_MONOTONIC).
void wait_blocking(mcs_process& process, const Awaited& awaited, std::uint64_t until_ns);

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
