// SPDX-License-Identifier: Apache-2.0
// Two operations at once, in every order that matters and in random ones.
//
// The two actors change places only before accesses to words that one of them writes and the other
// uses. All schedules with at most two preemptions are tried (few bugs need more [Musuvathi and
// Qadeer, PLDI 2007]), then random ones, some of which kill one of the two on the way.
// Memory is sequentially consistent here; x86 delays stores, but not past a locked instruction.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tests/killpoints/scenario.h"

namespace mcs::killpoints {

/// Not from the actors' arena: for what they write about themselves.
template <typename T>
struct OutsideAllocator {
  using value_type = T;
  OutsideAllocator() = default;
  template <typename U>
  OutsideAllocator(const OutsideAllocator<U>&) {}
  T* allocate(std::size_t n) {
    auto* at = static_cast<T*>(std::malloc(n * sizeof(T)));
    if (at == nullptr) std::abort();
    return at;
  }
  void deallocate(T* at, std::size_t) { std::free(at); }
  friend bool operator==(OutsideAllocator, OutsideAllocator) { return true; }
};

struct ExploreOptions {
  std::uint64_t seed = 1;
  double seconds = 0;                // 0: no limit
  std::uint64_t schedules_per_pair = 400;  // sampled if there are more
  std::uint64_t random_per_pair = 100;
  bool exhaustive = false;           // all schedules with two preemptions
  std::string only_first;            // operation; empty: all
  std::string only_second;
  std::string only_state;
};

struct ExploreResult {
  std::uint64_t schedules = 0;
  std::uint64_t pairs = 0;  // of operations and a class of starting states
  std::uint64_t kills = 0;
  std::uint64_t violations = 0;
  std::uint64_t hangs = 0;
  std::uint64_t leaked_bytes = 0;
  double seconds = 0;
  std::vector<std::string> reports;
  std::map<std::string, std::uint64_t> kinds;
};

class Explorer {
 public:
  Explorer(World& world, ExploreOptions options);
  ExploreResult run();

  /// When to change places: each actor's next preemption is before this one of its accesses that
  /// matter (counted from 1 over the whole run); 0: none.
  struct Plan {
    unsigned first = 0;                 // which of the two starts
    std::vector<std::uint64_t> switches;  // alternately of the running actor, counted since it got on
    std::uint64_t kill_store = 0;       // of `killed`; 0: nobody dies
    unsigned killed = 0;
    bool random = false;                // instead of `switches`: change places with this chance
    std::uint64_t seed = 0;
  };

 private:
  struct Side {
    const Operation* operation = nullptr;
    unsigned member = 0;
    unsigned actor = 0;
    std::function<void()> body;
    bool done = false;
    bool started = false;
    bool dead = false;
    std::uint64_t stores = 0;
  };
  void run_pair(const StartState& start, const Operation& a, const Operation& b, bool one_process);
  /// Returns false if the plan's first switch was never reached.
  void schedule(const Plan& plan);
  void conclude();
  void find_conflicts();
  void report(const Plan& plan);
  bool time_is_up() const;
  static void on_access(const Access& access);

  World& world_;
  ExploreOptions options_;
  ExploreResult result_;
  std::mt19937_64 random_;
  std::chrono::steady_clock::time_point until_;
  const StartState* start_ = nullptr;
  bool one_process_ = false;
  Side sides_[2];
  World::Snapshot snapshot_;

  // While a schedule runs.
  enum class Mode { kTrace, kSchedule } mode_ = Mode::kTrace;
  // Word: bits read 1/2, written 4/8 by side.
  std::unordered_map<std::uintptr_t, unsigned, std::hash<std::uintptr_t>,
                     std::equal_to<std::uintptr_t>,
                     OutsideAllocator<std::pair<const std::uintptr_t, unsigned>>>
      trace_;
  std::unordered_set<std::uintptr_t> conflicts_;
  const Plan* plan_ = nullptr;
  std::mt19937_64 dice_;
  unsigned running_ = 0;
  std::size_t next_switch_ = 0;
  std::uint64_t since_switch_ = 0;
  std::array<std::uint64_t, 2> met_{};  // accesses that matter, per side
  static Explorer* current_;
};

}  // namespace mcs::killpoints
