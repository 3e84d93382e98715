// SPDX-License-Identifier: Apache-2.0
// One instance: this process's place in a domain. Joining, leaving, locks that name their owner,
// and the recovery of instances that died. Protocol of the shared words: layout.h.
//
// Recovery of instance D by instance R (R is elected by one CAS on D's recoverer word, and replaced
// by the next one if it dies too; every step can be done again):
//   1. D's liveness lock is free, D's state is not FREE      -> R = recoverer, state = DEAD
//   2. for each of D's operation records whose lock D holds: the component finishes or undoes the
//      change, then the lock is released
//   3. the component takes over what else D held (fills, retired entries), clears D's ledger
//   4. D's statistics are folded into the totals, once
//   5. state = FREE, recoverer = 0, event published
//
// Somebody whom others wait for and who may not be killed is expelled; it may wake up at any time, so
// everything that it may still write to stays its own until its exit is certain or it lets go:
//   1. its state = EXPELLED, one CAS; what waits for a lock of its goes without
//   2. the component passes on its leases, each by one CAS on the word by which it would publish; done
//      again by every agent, so that a death in between leaves none behind
//   3. it comes back: no operation of its takes a lock, until its tick makes it ACTIVE again, which it
//      does when none of its threads holds one any more; what was passed on it finds in its own
//      records. Or it dies, and is recovered like any other.
// Model: docs/protocols/expulsion.pml.
//
// The instances of a node that is not in the view are expelled as well, and stay so until it is
// admitted again. Where nodes have kernels of their own nobody else declares them dead: the node's own
// processes recover them when it comes back.
//
// A joiner that finds no FREE slot may inherit a dead instance's: it takes the slot's liveness byte,
// becomes its recoverer under the dead one's own name, and does the same steps for the slot it is
// in. Until that is done everything is as if the dead instance had gone on, so that a kill in between
// leaves one dead instance again. Then one CAS makes it the next incarnation, JOINING.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gsm-emu/domain.h"
#include "gsm-emu/result.h"
#include "libglobalcache/runtime/layout.h"
#include "libglobalcache/runtime/liveness.h"
#include "libglobalcache/runtime/view.h"

namespace mcs::runtime {

class Instance;

/// A dead instance's slot, writable for the elected recoverer.
struct DeadInstance {
  InstanceId id;
  Slot* slot;  // followed by the component area
  std::byte* component_area() const { return reinterpret_cast<std::byte*>(slot) + sizeof(Slot); }
};

/// What a recovery found and gave back; goes into the event history.
struct RecoveryCounts {
  std::uint32_t locks = 0;
  std::uint32_t pins = 0;
  std::uint32_t fills = 0;
  std::uint32_t retired = 0;
};

/// What a component must do when an instance dies or leaves. Called on the recoverer's thread,
/// holding no lock. Every function may be cut short by a kill and called again: redo is idempotent.
class RecoverySteps {
 public:
  virtual ~RecoverySteps() = default;
  /// Finish or undo what `op` says; its lock is still held in the dead instance's name and is
  /// released by the caller afterwards.
  virtual void repair_operation(const DeadInstance& dead, OpRecord& op) = 0;
  /// Take over or free all the rest. False: not all of it can be done now (a lock is held by a
  /// stopped process); the recovery stays pending and is tried again.
  virtual bool take_over(const DeadInstance& dead, RecoveryCounts& counts) = 0;
  /// `expelled` may wake up at any time: pass on what others wait for where one CAS decides between
  /// it and us, and leave everything else alone. Called again and again. Returns how many it passed on.
  virtual std::uint32_t pass_on(InstanceId expelled) {
    (void)expelled;
    return 0;
  }
};

enum class LockAnswer {
  kAcquired,
  kBusy,     // held by a living instance for longer than the bound, or this one was expelled
  kLost      // the memory is gone or damaged
};

struct JoinOptions {
  std::uint32_t node = 0;
  std::string server;            // at most 47 bytes are kept
  std::uint32_t busy_spins = 4000;  // how often to look at a held lock before kBusy
  std::uint32_t serial = 0;      // how many instances this process had in the domain before
  // If no slot is free, take over that of a dead instance; set_steps() must follow.
  bool may_inherit = false;
};

class Instance {
 public:
  /// Take a free slot, the own node's first. kNoSpace: all slots are taken; the caller serves
  /// without the cache.
  static Result<std::unique_ptr<Instance>> join(gsm::Domain& domain, Liveness& liveness,
                                                const JoinOptions& options);
  /// Does not leave by itself: a destroyed instance that did not leave counts as dead.
  ~Instance();

  /// The component's steps; set before activate(), constant afterwards. Gives back what the former
  /// owner of an inherited slot held; until then the instance may do nothing.
  void set_steps(RecoverySteps* steps);
  void activate();
  /// The components have already given back everything.
  void leave();

  InstanceId id() const { return id_; }
  std::uint32_t slot_number() const { return id_.slot(); }
  std::uint32_t node() const { return options_.node; }
  std::uint32_t serial() const { return options_.serial; }
  gsm::Domain& domain() const { return domain_; }
  Liveness& liveness() const { return liveness_; }
  const RuntimeGeometry& geometry() const { return geometry_; }
  std::uint32_t slot_count() const { return slot_count_; }

  SlotControl& control(std::uint32_t slot) const;
  /// Read-only view of any slot.
  const Slot& slot(std::uint32_t slot) const;
  const std::byte* component_area(std::uint32_t slot) const;
  gsm::Segment& home_segment(std::uint32_t slot) const;
  /// This instance's own slot, writable.
  Slot& own() const { return *own_; }
  std::byte* own_component_area() const {
    return reinterpret_cast<std::byte*>(own_) + sizeof(Slot);
  }

  /// One of this instance's operation records, for the calling thread until it is released.
  class Op {
   public:
    explicit Op(Instance& instance);
    ~Op();
    Op(const Op&) = delete;
    Op& operator=(const Op&) = delete;
    OpRecord& record() const { return *record_; }

    /// Take `lock`, waiting a bounded time; a dead holder is recovered on the way. The record's
    /// arguments must have been written before. At most one lock per Op, and a thread holds at
    /// most one OwnerLock, so that recovery (which takes locks) may run inside.
    [[nodiscard]] LockAnswer lock(OwnerLock& lock, LockRef ref);
    /// One try, never recovers anybody.
    [[nodiscard]] bool try_lock(OwnerLock& lock, LockRef ref);
    /// Take a lock whose word, `seen`, names nobody who could give it back: see repair.h.
    [[nodiscard]] bool steal(OwnerLock& lock, LockRef ref, std::uint64_t seen);
    void unlock();

   private:
    Instance& instance_;
    OpRecord* record_;
    unsigned index_;
    OwnerLock* held_ = nullptr;
  };

  OwnerLock* resolve_lock(LockRef ref) const;

  /// Name a GlobalMutex in the own slot before trying to take it; -1: too many at once.
  int claim_mutex_record(LockRef ref);
  void release_mutex_record(int record);

  /// The domain's view as this process knows it; look() at it before judging by it.
  Views& views() { return views_; }
  const Views& views() const { return views_; }
  /// Whether the process in a slot that is not FREE lives, as far as this process may judge: of those of
  /// a node with another kernel it may not, and takes them to live.
  bool lives(std::uint32_t slot) const {
    return (separate_kernels_ && node_of(slot) != options_.node) || liveness_.held(slot);
  }
  /// The node of whoever has the slot, or had it last.
  std::uint32_t node_of(std::uint32_t slot) const;
  /// Whether the instance `id` is certainly gone: its slot has moved on, or its lock is free.
  bool is_dead(InstanceId id) const;
  /// Whether `id` had its slot in another incarnation of the slot's segment.
  bool is_of_former_segment(InstanceId id) const;
  /// Somebody waits in vain for what `holder` should do. It is reported in SlotControl.blocked, or if
  /// it is dead, whoever has the duty to recover it; the agent ends whom it finds stopped.
  void report_blocking(InstanceId holder) const;
  /// This instance was expelled, and has not ticked since, or what its slot says cannot be read, as when
  /// that was lost: it must not begin anything.
  bool expelled() const {
    const std::uint64_t word = own_state_->load(std::memory_order_acquire);
    return (word ^ own_word_) > static_cast<std::uint8_t>(InstanceState::kExpelled) ||
           StateWord::state(word) == InstanceState::kExpelled;
  }
  /// Whether the segment with the own slot is lost, also if another one has come in its place.
  bool is_homeless() const { return home_->lost() || &home_segment(id_.slot()) != home_; }
  bool is_expelled(InstanceId id) const {
    return control(id.slot()).state.load(std::memory_order_seq_cst) ==
           StateWord::make(InstanceState::kExpelled, id.incarnation());
  }
  /// Take a living instance that others wait for, or whose node is not in the view, out of their way,
  /// without ending it. False: it is neither active nor joining any more.
  bool expel(InstanceId id, const char* cause);
  /// Of one that is expelled: what a dead agent has not come to, and what it has begun since.
  void pass_on(std::uint32_t slot);
  /// Expel whoever belongs to a node that is not in the view. Returns how many.
  unsigned expel_outsiders();
  /// Recover the instance in `slot` if it is dead. True: nothing is left to recover there. False also
  /// while another thread of this process is at it.
  /// `exited`: the incarnation whose exit the kernel reported, which outranks a liveness lock that a
  /// child it forked still holds; 0: none. It says nothing about whoever has taken the slot since.
  /// detected_ns: when the death was noticed, CLOCK_MONOTONIC; 0: now.
  bool recover(std::uint32_t slot, const char* cause, std::uint64_t detected_ns = 0,
               std::uint32_t exited = 0);
  /// Look at every slot; recover the dead. Returns how many were recovered.
  unsigned recover_all(const char* cause);

  /// Count the heartbeat alone, in work that takes long: this instance does not hang.
  void beat() { own_->heartbeat.fetch_add(1, std::memory_order_relaxed); }
  /// Count the heartbeat; come back if this instance was expelled, holds no lock, and its node is in the
  /// view; put right what is wrong in the words that are this instance's own.
  void tick();

  EventRing& events(std::uint32_t node) const;
  /// Append to the history of the own slot's segment.
  void publish_event(Event&& fields);
  /// Damage was found (`since_ns`, CLOCK_MONOTONIC; 0: now) and mended, `count` times.
  void report_mended(const char* what, std::uint64_t since_ns = 0, std::uint32_t count = 1);

  void add_stat(unsigned cell, std::uint64_t n) {
    own_->stats[cell].fetch_add(n, std::memory_order_relaxed);
  }
  StatTotals& totals(std::uint32_t node) const;

 private:
  Instance(gsm::Domain& domain, Liveness& liveness, JoinOptions options);
  void become(InstanceId id);
  bool is_outsider() const;
  bool take(std::uint32_t slot);
  bool reserve(SlotControl& control, std::uint64_t free, std::uint32_t incarnation) const;
  bool inherit(std::uint32_t slot);
  void introduce();
  void mend_own_words();
  static void clean_slot(Slot& slot, std::uint32_t number);
  bool holds_nothing(const DeadInstance& dead) const;
  bool holds_a_lock() const;
  /// Whether `holder` is expelled, or is dead and whoever has to recover it is.
  bool waits_for_the_expelled(InstanceId holder) const;
  void forget_components(const DeadInstance& dead);
  void fill_event(Event& event, const DeadInstance& dead, const RecoveryCounts& counts,
                  const char* cause, std::uint64_t detected_ns, std::uint64_t agreed_ns) const;
  void repair_locks(const DeadInstance& dead, RecoveryCounts& counts);
  bool fold_statistics(const DeadInstance& dead);
  bool may_be_folded(InstanceId id) const;

  gsm::Domain& domain_;
  Liveness& liveness_;
  JoinOptions options_;
  Views views_;
  bool separate_kernels_;
  RuntimeGeometry geometry_;
  std::uint32_t slot_count_;
  InstanceId id_;
  const Word* own_state_ = nullptr;
  std::uint64_t own_word_ = 0;  // what it says, but for the state
  const gsm::Segment* home_ = nullptr;
  gsm::Segment::Window own_window_;
  Slot* own_ = nullptr;
  RecoverySteps* steps_ = nullptr;
  bool inheriting_ = false;
  std::atomic<bool> active_{false};
  std::atomic<std::uint32_t> free_ops_{~0U};  // private to the process
  std::vector<std::atomic<bool>> recovering_;  // by slot; likewise
  std::atomic<std::uint32_t> free_mutex_records_{(1U << kHeldMutexes) - 1};
};

/// Slot.started of the process that has this number here; 0: unknown.
std::uint64_t process_start_time(int pid);

/// CLOCK_MONOTONIC in ns; CLOCK_REALTIME_COARSE in ms, which is behind by a timer tick at most, as
/// files' times are, and costs a hit a quarter of the exact clock.
std::uint64_t monotonic_ns();
std::int64_t wall_ms();

}  // namespace mcs::runtime
