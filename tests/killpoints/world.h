// SPDX-License-Identifier: Apache-2.0
// A small domain with a few members and a memory of what they stored: what operations are tried on,
// and what says whether the state after a death is right.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gsm-emu/domain.h"
#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/runtime/component.h"
#include "libglobalcache/runtime/instance.h"
#include "libglobalcache/runtime/view.h"
#include "tests/killpoints/actor.h"
#include "tests/killpoints/hooks.h"

namespace mcs::killpoints {

/// Who is alive is what the test says. Lies in the actors' arena, so it is rewound with them.
class FakeLiveness final : public runtime::Liveness {
 public:
  /// An actor's kernel knows of the locks of its own processes only.
  void set_kernel(unsigned actor, unsigned kernel) { kernels_[actor] = kernel; }
  bool acquire(std::uint32_t slot) override;
  void release(std::uint32_t slot) override;
  bool held(std::uint32_t slot) override;
  /// By anybody at all.
  bool held_anywhere(std::uint32_t slot) const;
  /// All that this actor holds.
  void release_all(unsigned actor);

 private:
  unsigned kernel() const;
  std::array<unsigned, kActors> kernels_{};
  std::array<std::array<unsigned, 64>, 4> holder_{};  // by kernel and slot: actor + 1; 0: nobody
};

struct WorldOptions {
  std::uint32_t nodes = 1;
  std::uint32_t instances = 8;
  std::uint64_t bytes_per_node = 576 * 1024;
  std::uint64_t bytes_per_entry = 1 << 20;  // as few descriptors as a plan gives
  bool separate_kernels = false;
};

inline constexpr unsigned kMembers = 12;
inline constexpr unsigned kKeys = 224;
// Keys below this one share a bucket.
inline constexpr unsigned kChainKeys = 16;
// The key that operations are about (in the long chain, unless the class says otherwise), and one
// that nobody has stored.
inline constexpr unsigned kTarget = 3;
inline constexpr unsigned kFresh = 7;

/// The words of shared memory by name, for reports and to seed bugs.
enum class WordKind {
  kOther, kSlotState, kRecoverer, kFolded, kControl, kSlot, kMutexRecord, kStats, kOpLock, kOpPhase,
  kOpArguments, kLedgerHigh, kWaiting, kFills, kLimbo, kLedger, kEvents, kTotalsLock, kTotals,
  kMutexes, kComponents, kViews, kSegmentState, kPurgeLog, kBucketHead, kBucketLock, kBucketHint, kClock, kState, kNext,
  kChecked, kProgress, kOverflow, kSealed, kGroupLock, kGroupBits, kPayload
};
const char* name_of(WordKind kind);

enum class Put { kStored, kOther, kBusy, kNoSpace, kFailed };

/// One process.
struct Member {
  runtime::Instance* instance = nullptr;
  cache::GlobalCache* cache = nullptr;
  bool alive = false;
};

/// Everything that changes; in the actors' arena. Never destroyed: the arena is emptied.
struct WorldState {
  std::unique_ptr<gsm::Domain> domain;
  FakeLiveness liveness;
  std::array<Member, kMembers> members;
  std::array<std::uint32_t, kMembers> home{};  // node
  // Bit v of these stands for version v of a key.
  std::array<std::uint32_t, kKeys> allowed{};    // a lookup may give it
  std::array<std::uint32_t, kKeys> begun{};      // its fill has begun
  std::array<std::uint32_t, kKeys> gone{};       // it was purged, its fill perhaps goes on
  std::array<std::uint32_t, kKeys> committed{};  // its commit answered yes
  std::array<std::uint32_t, 32> older{};         // version: those committed when its fill began
  std::array<std::uint32_t, kKeys> body_bytes{};
  std::array<cache::Fill, kMembers> fills;  // one per process
  std::array<cache::Hit, 256> hits;
  std::array<std::uint8_t, 256> hit_owner{};
  unsigned hit_count = 0;
  std::array<runtime::Component*, kMembers> components{};  // nullptr: not a member
  // Of kTarget, by version: those committed when its fill began. Once it was seen they are gone.
  std::array<std::uint32_t, 32> target_older{};
  // Extents that were given to sendfile, with 8 bytes of what the kernel may still hold of them.
  std::array<std::pair<cache::Extent, std::uint64_t>, 4> sent{};
  cache::Link waited;          // a fill that `waiter` waits for
  unsigned waiter = 0;
  std::uint64_t woken = 0;     // bit per slot that was sent a wake
  std::uint64_t counted = 0;  // what add_stat was told
  std::uint64_t counting = 0;  // an addition that may or may not have happened
  std::array<std::uint64_t, 8> views{};  // by generation: the one that somebody acted upon
  bool lossy = false;  // memory was lost: until the index is rebuilt a lookup may say so
};

class World {
 public:
  World();
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  /// A fresh domain, no members. Forgets everything.
  void create(const WorldOptions& options);
  WorldState& state() const { return *state_; }
  Member& member(unsigned m) const { return state_->members[m]; }

  /// Run as process `m`, to the end, without counting. Not finished: a violation.
  void as(unsigned m, const std::function<void()>& body);

  // Inside an actor.
  /// On the node of state().home, or another one, which that is then.
  bool join(unsigned m, std::optional<std::uint32_t> node = {});
  Put put(unsigned m, unsigned key, unsigned version, bool insist = true);
  /// In steps: 0 begin, 1 head, 2 body, 3 commit; kStored if the step succeeded.
  Put put_begin(unsigned m, unsigned key, unsigned version, cache::Fill& fill, bool insist = true);
  Put put_body(unsigned key, unsigned version, cache::Fill& fill);
  Put put_commit(unsigned key, unsigned version, cache::Fill& fill);
  /// The version found, -1: none. A wrong answer is a violation.
  int get(unsigned m, unsigned key);
  /// Leaves the hit pinned in state().hits.
  bool pin(unsigned m, unsigned key);
  /// Mark a stored entry as one that is sent from its pages. False: it is not there.
  bool send(unsigned m, unsigned key);
  /// A pinned hit still reads as it should; then released.
  void unpin(unsigned index);
  std::uint64_t purge_key(unsigned m, unsigned key);
  std::uint64_t purge_all(unsigned m);
  void count(unsigned m, std::uint64_t n);
  /// A small component beside the cache: two words that its lock keeps equal, and two steps.
  bool join_component(unsigned m);
  /// Whether the lock was had and the work done.
  bool work_in_component(unsigned m);
  /// If anybody uses it: whatever was left half done comes to its end, and `m` can use it.
  void settle_component(unsigned m);
  cache::Key key(unsigned m, unsigned key) const;
  /// Somebody acts upon this view; all who act upon one of its generation act upon the same.
  void note_view(const runtime::View& view);
  /// As an agent does: what waits for the expelled is told to go on.
  void pass_on(unsigned m);
  /// Register as a process that waits for what `fill` fills, as requests do.
  void wait_for(unsigned m, const cache::Fill& fill);
  /// Whoever waits for a fill that is over was woken.
  void check_woken();
  /// Grows whenever somebody looks for something to evict.
  std::uint64_t eviction_steps() const;

  /// Outside of actors: a node's memory is gone, and with it the processes whose slots it had.
  void lose_segment(std::uint32_t node);
  /// The process is gone, as the kernel would say.
  void declare_dead(unsigned m);

  WordKind classify(const void* address) const;
  std::string describe(const void* address) const;

  /// Everything recovered and idle: every living member's ticks have run. Checks all of the domain's
  /// memory; `held_pins`: entries that living members still hold pinned, retired ones included.
  void check_idle(bool pins_held);
  std::uint64_t leaked_bytes() const { return leaked_; }

  /// Save everything; restore() comes back to it, in microseconds.
  struct Snapshot {
    ActorMemory actors;
    std::vector<std::vector<unsigned char>> segments;
    WorldState* state = nullptr;
    std::uint64_t clock = 0;
  };
  void save(Snapshot& snapshot);
  /// From any other snapshot or world.
  void load(const Snapshot& snapshot);
  /// From what happened since load(snapshot) or the last restore.
  void restore(const Snapshot& snapshot);
  /// Where actors have come to since then; go_back() undoes only what they did after it.
  struct Instant {
    ActorMemory actors;
    std::size_t undo = 0;
    std::uint64_t stores = 0;
    std::uint64_t steps = 0;
    std::uint64_t clock = 0;
  };
  void save(Instant& instant) const;
  void go_back(const Instant& instant);
  /// The first byte that differs from the snapshot, nullptr: none.
  const void* difference(const Snapshot& snapshot) const;

  /// The first violation since clear_violation(); empty: none.
  const char* violation() const { return violation_; }
  bool violated() const { return violation_[0] != '\0'; }
  void clear_violation() {
    violation_[0] = '\0';
    leaked_ = 0;
  }
  void violate(const char* format, ...) __attribute__((format(printf, 2, 3)));

  /// Something that must outlive a suspended actor that runs it.
  const std::function<void()>& keep(std::function<void()> body) {
    kept_.push_back(std::move(body));
    return kept_.back();
  }

  /// Somebody else works at the same time: operations need not succeed, only do nothing wrong.
  bool crowded = false;

  const std::string& key_name(unsigned key) const { return names_[key]; }

 private:
  void make_names();
  bool right_content(const cache::GlobalCache& cache, const cache::Hit& hit, unsigned key,
                     unsigned& version);
  void check_slots(bool pins_held);
  void check_locks();
  void check_views();
  void check_entries(bool pins_held);
  void check_sent();
  std::uint64_t sample(cache::Extent extent) const;
  void attach_ranges();

  WorldState* state_ = nullptr;
  std::array<std::string, kKeys> names_;
  std::deque<std::function<void()>> kept_;
  char violation_[600] = {};  // not on the heap: actors write it
  std::uint64_t leaked_ = 0;
};

}  // namespace mcs::killpoints
