// SPDX-License-Identifier: Apache-2.0
// GlobalMutex: a mutual exclusion between instances of any process and node that survives its
// holder. One CAS takes it and names the owner.
//
// Crash behaviour: if the holder dies, whoever recovers it (or the next one that wants the mutex)
// frees the owner word and sets kInconsistent; the next lock() answers kAcquiredAbandoned, and goes
// on doing so until a holder says mark_consistent(). A waiter that dies is skipped and its place
// cleared. Nobody waits for a dead process.
//
//   word       written by                       order, and what a kill leaves
//   owner      CAS free -> held(me)              after the holder's own record (Slot.mutexes) names it
//              CAS held(me) -> free              then the record is cleared
//              CAS held(dead) -> free|flag       its recoverer, or the next one in the queue
//   waiters[i] CAS 0 -> (ticket, me); me -> 0    a dead waiter's word is cleared by any other waiter
//   tickets    fetch_add by a waiter             a ticket that is never used is skipped
//   wakeups    fetch_add after each unlock       a waiter sleeps 1 ms at most
//
// Identity and generation are looked at again once the owner word is taken: what was destroyed, or
// moved on to the next generation, while the mutex changed hands is given back.
//
// Fairness: waiters are served in the order of their tickets. Whoever is not first tries only after
// the mutex has been free without a break for 1 ms times its place in the queue, so that a stopped
// first waiter delays the others but never blocks them. A living holder that was waited for in vain is
// reported in SlotControl.blocked, and the agent ends it if it is stopped.
//
// A GlobalMutex protects data in its own segment only.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "libglobalcache/runtime/instance.h"

namespace mcs::runtime {

/// Names a mutex for good: another one in the same slot has another generation.
struct MutexId {
  std::uint32_t segment = 0;
  std::uint64_t incarnation = 0;  // of the segment
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;
};

enum class MutexAnswer {
  kAcquired,
  kAcquiredAbandoned,   // acquired; a holder died: repair before use, then mark_consistent()
  kInvalidId,           // destroyed, recycled, or never made
  kMemoryLost,          // its segment does not answer any more, or its owner word is damaged
  kMembershipChanged,   // the component is in another generation than the caller: refresh, again; or
                        // the caller's instance was expelled: tick, again
  kRecoveryPending,     // let go of what you hold, acknowledge the new generation, again; also while
                        // its holder is expelled, and may or may not come back
  kTimeout,             // the deadline passed (or try_lock found it held)
  kTooMany              // this process holds or waits for too many mutexes already
};

class GlobalMutex {
 public:
  /// Make a mutex in the segment of `node`. kNoSpace: all slots are in use.
  static Result<MutexId> create(Instance& instance, std::uint32_t node);
  /// The mutex that is reserved for a component: made, or adopted from a maker that died.
  static MutexId for_component(Instance& instance, std::uint32_t node, std::uint32_t component);
  /// Later locks answer kInvalidId. Must be held by the caller's handle. Crash: either it exists or
  /// it does not.
  static void destroy(Instance& instance, const MutexId& id);

  GlobalMutex(Instance& instance, const MutexId& id) : instance_(instance), id_(id) {}
  /// Unlocks if held.
  ~GlobalMutex();
  GlobalMutex(const GlobalMutex&) = delete;
  GlobalMutex& operator=(const GlobalMutex&) = delete;

  /// If set, lock() answers kMembershipChanged when *current differs from `known`, and
  /// kRecoveryPending while it says that a recovery runs (layout of ComponentCell.generation).
  void watch(const Word* current, std::uint64_t known) {
    watched_ = current;
    known_ = known;
  }

  /// Wait until acquired or `deadline` has passed. One handle, one thread at a time.
  [[nodiscard]] MutexAnswer lock(
      std::optional<std::chrono::steady_clock::time_point> deadline = std::nullopt);
  [[nodiscard]] MutexAnswer try_lock();
  /// Without mark_consistent after kAcquiredAbandoned the duty to repair passes on.
  void unlock();
  void mark_consistent();

  bool held() const { return held_; }
  const MutexId& id() const { return id_; }

  static constexpr std::uint64_t kInconsistent = 1ULL << 48;
  /// Free a mutex that `dead` held, marked abandoned. For recoverers.
  static bool abandon(MutexCell& cell, InstanceId dead);
  static MutexCell* resolve(const Instance& instance, LockRef ref);

 private:
  MutexCell* cell() const;
  bool is_lost() const;
  std::optional<MutexAnswer> obstacle(const MutexCell& cell) const;
  bool take(MutexCell& cell, MutexAnswer& answer);
  void look_at_holder(MutexCell& cell, bool in_vain);
  LockRef lock_ref() const;
  bool enqueue(MutexCell& cell);
  void dequeue(MutexCell& cell);
  static void wake_first(MutexCell& cell);
  unsigned place_in_queue(MutexCell& cell, bool clear_dead);
  void wait_a_little(MutexCell& cell, unsigned attempt, bool first) const;

  Instance& instance_;
  MutexId id_;
  const Word* watched_ = nullptr;
  std::uint64_t known_ = 0;
  bool held_ = false;
  int record_ = -1;
  int waiter_ = -1;
  std::uint64_t ticket_ = 0;
};

}  // namespace mcs::runtime
