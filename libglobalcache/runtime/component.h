// SPDX-License-Identifier: Apache-2.0
// Component: a global service made of instances in several processes and nodes, which recovers by
// itself. Write one by giving it a shared structure (up to kComponentData bytes), a repair function
// and, if it needs one, steps for events that concern everybody; docs/tutorial-component.md.
//
// Crash behaviour: an instance that dies inside with_lock leaves the mutex abandoned; the next one
// in runs `repair` on the shared structure before its own work. Members that died or left are
// reported to `on_gone` of every member at its next tick; shared structures that name instances check
// them with alive(), also those that were there before this process.
//
// Two kinds of change of membership:
//  - one process joins, leaves or dies: one CAS on its slot; nobody waits for anybody.
//  - a recovery event (initiate): the generation moves from g to g+1 in these phases
//      detect       CAS generation (g, running) -> (g+1, recovering); locks answer kRecoveryPending
//      elect        CAS coordinator 0 or dead -> me
//      synchronise  a step with `barrier` starts when every living member has acknowledged g+1,
//                   which it does at its next tick or lock, when none of its threads is inside
//                   with_lock, and when what a dead holder left was repaired
//      handle       the steps run in order; steps_done counts them, so that the next coordinator
//                   continues where a dead one stopped; every step is idempotent
//      resume       CAS generation (g+1, recovering) -> (g+1, running)
//    Readers that take no lock go on all the time. A coordinator that has to wait resigns, so that
//    the next tick of any member goes on. Members that do not acknowledge, and a coordinator that
//    does not come to an end, are reported in SlotControl.blocked: the agent ends those that are
//    stopped.
//
//   word            written by                          a kill leaves
//   identity        CAS free -> being made -> in use    being made by a dead maker: made again
//   generation      CAS                                 recovering without a coordinator: next one
//   coordinator     CAS 0 or dead -> me; me -> 0
//   steps_done      coordinator, after each step        the step runs again; names the generation too
//   data            holder of the mutex                 inconsistent: repaired by the next holder
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "libglobalcache/runtime/global_mutex.h"
#include "libglobalcache/runtime/instance.h"

namespace mcs::runtime {

/// One step of what everybody must agree on in a recovery event.
struct RecoveryStep {
  std::string name;
  bool barrier = false;  // wait until all living members have acknowledged the new generation
  // Idempotent; false: try again at the next tick. With a barrier it may change data(): nobody is
  // inside with_lock. It must not call with_lock, which answers when the event is over.
  std::function<bool()> run;
};

struct ComponentOptions {
  std::string name;            // at most 31 bytes; the same in all processes
  std::uint32_t version = 1;   // of the data structure: members of another version are refused
  std::function<void(std::span<std::byte>)> initialise;  // once, by whoever makes the component
  std::function<void(std::span<std::byte>)> repair;      // after a holder of the lock died
  std::function<void(InstanceId)> on_gone;               // a member died or left; idempotent
  std::vector<RecoveryStep> steps;                       // at most 255
};

/// Thread-safe, except that nobody may be inside any function when leave() is called.
class Component {
 public:
  /// Join the component of this name in the domain, making it if it does not exist. kExists: this
  /// instance is a member already. kIncompatible: other members have another version.
  static Result<std::unique_ptr<Component>> join(Instance& instance, ComponentOptions options);
  /// Leaves if that was not done.
  ~Component();
  Component(const Component&) = delete;
  Component& operator=(const Component&) = delete;

  /// The shared structure. Writing needs the lock; reading without it must tolerate change.
  std::span<std::byte> data() const;

  /// Run `work` with the component's mutex held, repaired if need be, in the current generation.
  /// False: the memory is lost, or the deadline has passed; `work` did not run.
  [[nodiscard]] bool with_lock(const std::function<void()>& work,
                               std::chrono::milliseconds limit = std::chrono::seconds(10));

  /// Whether the memory with the shared structure is lost: nothing can be done with this object any more.
  /// Join again, and the component begins anew on another segment.
  bool is_lost() const;
  std::uint32_t generation() const;
  bool recovering() const;
  std::uint32_t number() const { return number_; }
  /// The instances that are members now. Who was expelled acknowledges nothing, but is not gone.
  std::vector<InstanceId> members(bool with_expelled = false) const;
  /// Whether `id` is a member and its process lives.
  bool alive(InstanceId id) const;

  /// Start a recovery event; returns at once if one runs already. `cause` goes into the history.
  void initiate(const char* cause);
  /// Acknowledge generations, run recovery steps if elected, call on_gone, count the instance's
  /// heartbeat. Call regularly (ten times a second, say): others may wait for it.
  void tick();
  void leave();

 private:
  Component(Instance& instance, ComponentOptions options, std::uint32_t number, gsm::Segment& home);
  ComponentCell& cell() const;
  Result<void> make_or_adopt();
  bool enter(std::uint64_t& generation);
  void exit();
  void acknowledge();
  void acknowledge_locked();
  bool all_acknowledged(std::uint32_t generation) const;
  bool repair_abandoned();
  bool run_steps(std::uint32_t generation);
  void coordinate();
  void publish(std::uint32_t generation, std::uint64_t agreed_ns);
  void report_gone();
  MutexId mutex_id() const;

  Instance& instance_;
  ComponentOptions options_;
  std::uint32_t number_;
  gsm::Segment& home_;
  std::atomic<bool> joined_{false};
  // Private to the process, like all that follows: its threads are one member.
  std::mutex state_;
  unsigned inside_ = 0;                  // threads inside with_lock
  std::uint32_t initiated_ = 0;          // generation that this process started …
  std::string cause_;                    // … and why
  std::atomic<bool> coordinating_{false};
  std::atomic<bool> reporting_{false};
  std::vector<InstanceId> known_;        // members at the last tick; of whoever set reporting_
};

}  // namespace mcs::runtime
