// SPDX-License-Identifier: Apache-2.0
// One server process in one domain: what mcs_process stands for.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/api/shared_pins.h"
#include "libglobalcache/api/waiting.h"
#include "libglobalcache/api/wake.h"
#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/globalcache.h"
#include "libglobalcache/runtime/instance.h"
#include "libglobalcache/runtime/statistics.h"

namespace mcs::api {

/// Statistics cells of an instance; the order is part of the layout.
enum Stat : unsigned {
  kRequests = 0,
  kHits,
  kMisses,
  kExpired,
  kStale,
  kUpdating,
  kRevalidated,
  kBypass,
  kHitBytes,
  kMissBytes,
  kCrossServerHits,  // hits on entries that another kind of server filled
  kFills,
  kFillFailures,
  kWaits,
  kDamaged,
  kStatCount
};
const char* stat_name(unsigned cell);

}  // namespace mcs::api

namespace mcs::api {

/// What a process uses now, and all that it used before, which others of its threads may still be using:
/// an instance whose slot was lost is not deleted before the process leaves the domain.
template <typename T>
class Current {
 public:
  explicit operator bool() const { return get() != nullptr; }
  T* operator->() const { return get(); }
  T& operator*() const { return *get(); }
  T* get() const { return now_.load(std::memory_order_acquire); }
  Current& operator=(std::unique_ptr<T> next) {
    now_.store(next.get(), std::memory_order_release);
    all_.push_back(std::move(next));
    return *this;
  }

 private:
  std::atomic<T*> now_{nullptr};
  std::vector<std::unique_ptr<T>> all_;
};

}  // namespace mcs::api

/// The C API's handle. Members are used by the api room only.
struct mcs_process {
  mcs::api::DomainConfig config;
  mcs_callbacks callbacks{};
  std::unique_ptr<mcs::gsm::Domain> domain;
  std::unique_ptr<mcs::runtime::Liveness> liveness;
  mcs::api::Current<mcs::runtime::Instance> instance;
  std::unique_ptr<mcs::api::WakeSocket> wake;
  mcs::api::Current<mcs::cache::GlobalCache> cache;
  std::unique_ptr<mcs::api::SharedPins> pins;
  std::uint8_t server_kind = 0;  // hash of the server's name, to tell who filled an entry

  mcs::api::Waiting waiting;
  mcs::api::RefreshGate refreshes;
  // Wall clock in ms, which freshness is about; tests put their own in its place.
  std::int64_t (*wall_ms)() = mcs::runtime::wall_ms;

  // What this process has told the agent and read from the history.
  std::mutex tick_mutex;
  unsigned ticks = 0;
  std::uint64_t known_agent = 0;
  unsigned agent_starts = 0;  // since one was last seen
  std::uint64_t next_agent_start_ns = 0;
  /// The agent's heartbeat, since when it has stood still, and how often that was seen.
  struct AgentSeen {
    std::uint64_t agent = 0;
    std::uint64_t heartbeat = 0;
    std::uint64_t since_ns = 0;
    unsigned looks = 0;
  } agent_seen;
  std::uint64_t last_look_ns = 0;
  /// Of one node's ring of events: the next ticket to look at, and 1 + the one that was not ready
  /// at the last tick.
  struct EventsSeen {
    std::uint64_t next = 0;
    std::uint64_t unready = 0;
  };
  std::vector<EventsSeen> events_seen;
  std::string trouble;  // Memory::trouble(), as it was logged last

  /// Whether a body of this size is copied and verified before a byte of it leaves.
  bool copies(std::uint64_t bytes) const {
    return bytes <= mcs::cache::kCopyLimit || config.verify_always;
  }
  void log(int level, const std::string& line) const {
    if (callbacks.log != nullptr) callbacks.log(callbacks.context, level, line.c_str());
  }
  void count(unsigned cell, std::uint64_t n = 1) { instance->add_stat(cell, n); }
};

namespace mcs::api {

/// Measures every 16th call of a thread: reading the clock at every hit would cost a tenth of it.
class LatencySample {
 public:
  explicit LatencySample(mcs_process& process)
      : process_(process), start_ns_(++turn_ % 16 == 0 ? runtime::monotonic_ns() : 0) {}
  ~LatencySample() {
    if (start_ns_ == 0) return;
    process_.count(runtime::kFirstLatencyCell +
                   runtime::latency_bucket(runtime::monotonic_ns() - start_ns_));
  }
  LatencySample(const LatencySample&) = delete;
  LatencySample& operator=(const LatencySample&) = delete;

 private:
  static inline thread_local unsigned turn_ = 0;
  mcs_process& process_;
  std::uint64_t start_ns_;
};

}  // namespace mcs::api
