// SPDX-License-Identifier: Apache-2.0
// Shared state of the runtime room: instances, their operation records, their owners' locks.
//
// Per segment: [controls: one SlotControl per slot | slots: one Slot (page-aligned) per slot |
// events ring | statistics totals | views]. A slot number is global: node * slots_per_node + index.
//
//   word                 written by                     order, and what a kill leaves
//   SlotControl.state    joiner, owner, recoverer: CAS  the slot's liveness lock is taken before
//                                                       FREE -> JOINING and dropped by the kernel at
//                                                       death, so "not FREE and unlocked" is death
//                        agent: CAS                     ACTIVE -> EXPELLED; the expelled: back
//   SlotControl.recoverer  elected recoverer: CAS       0 or a dead instance -> me; redo is idempotent.
//                          heir of the slot: CAS        0 or a dead instance -> the slot's own
//                                                       instance, which is then its heir
//   SlotControl.joiner   joiner: CAS                    where nodes have kernels of their own, before
//                                                       FREE -> JOINING: a joiner's slot may still say
//                                                       of which node the owner before it was. Kept for
//                                                       its node if it dies between the two
//   Slot.*               owner only (the page is mapped read-only elsewhere), after its death the
//                        elected recoverer
//   OpRecord             one thread of the owner: arguments first, `lock` last, then the lock word
//                        itself; cleared after unlocking. So a held lock is always named by a
//                        record of its holder, and the record says how far the change came.
//   OwnerLock.word       CAS free -> held(me); store/CAS held(me) -> free
//
// Zero never grants anything: every free, empty or valid state of these words is not zero.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "gsm-emu/segment.h"

namespace mcs::runtime {

using Word = std::atomic<std::uint64_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 8);

/// Who: slot number + 1 in the low 16 bits, the slot's incarnation (32 bits) above. 0: nobody.
struct InstanceId {
  std::uint64_t value = 0;
  static InstanceId make(std::uint32_t slot, std::uint32_t incarnation) {
    return {(static_cast<std::uint64_t>(incarnation) << 16) | (slot + 1)};
  }
  bool valid() const { return (value & 0xffff) != 0; }
  std::uint32_t slot() const { return static_cast<std::uint32_t>(value & 0xffff) - 1; }
  std::uint32_t incarnation() const { return static_cast<std::uint32_t>(value >> 16); }
  friend bool operator==(InstanceId, InstanceId) = default;
};

enum class InstanceState : std::uint8_t {
  kInvalid = 0,  // lost or damaged memory
  kFree = 1,
  kJoining = 2,
  kActive = 3,
  kLeaving = 4,
  kDead = 5,      // being recovered
  kExpelled = 6,  // hung, and may not be killed: nobody waits for it; alive, or not yet recovered
};

/// [tag 8 | 0 16 | incarnation 32 | state 8]
struct StateWord {
  static constexpr std::uint64_t kTag = 0x5cULL << 56;
  static std::uint64_t make(InstanceState state, std::uint32_t incarnation) {
    return kTag | (static_cast<std::uint64_t>(incarnation) << 8) | static_cast<std::uint8_t>(state);
  }
  static InstanceState state(std::uint64_t w) {
    if ((w >> 56) != 0x5c || (w & 0xff) > 6) return InstanceState::kInvalid;
    return static_cast<InstanceState>(w & 0xff);
  }
  static std::uint32_t incarnation(std::uint64_t w) { return static_cast<std::uint32_t>(w >> 8); }
};

/// [incarnation 32 | node + 1: 32]. 0: nobody.
struct JoinerWord {
  static std::uint64_t make(std::uint32_t incarnation, std::uint32_t node) {
    return (static_cast<std::uint64_t>(incarnation) << 32) | (node + 1);
  }
  static std::uint32_t incarnation(std::uint64_t w) { return static_cast<std::uint32_t>(w >> 32); }
  static std::uint32_t node(std::uint64_t w) { return static_cast<std::uint32_t>(w) - 1; }
};

struct alignas(64) SlotControl {
  Word state;
  Word recoverer;    // InstanceId of who recovers this slot, 0 = nobody
  Word folded;       // incarnation whose statistics were folded in last
  Word blocked;      // times somebody had to wait for what this instance holds
  Word components;   // bit per component joined
  Word joiner;       // of which node the slot's next owner is: JoinerWord
  std::uint64_t unused[2];
};
static_assert(sizeof(SlotControl) == 64);

/// A lock that names its owner. [kind 8 | epoch 8 | owner 48]; kind 0xf1 free, 0x1d held.
class OwnerLock {
 public:
  static constexpr std::uint64_t kFreeKind = 0xf1ULL << 56;
  static constexpr std::uint64_t kHeldKind = 0x1dULL << 56;
  static constexpr std::uint64_t kOwnerMask = (1ULL << 48) - 1;

  void format() { word_.store(kFreeKind, std::memory_order_relaxed); }
  std::uint64_t load() const { return word_.load(std::memory_order_acquire); }
  static bool is_free(std::uint64_t w) { return (w >> 56) == 0xf1; }
  static bool is_held(std::uint64_t w) { return (w >> 56) == 0x1d; }
  static InstanceId owner(std::uint64_t w) { return {is_held(w) ? w & kOwnerMask : 0}; }

  /// One CAS; false if held, lost (zero) or damaged.
  bool try_lock(InstanceId me) {
    std::uint64_t w = word_.load(std::memory_order_relaxed);
    return is_free(w) && word_.compare_exchange_strong(w, kHeldKind | next_epoch(w) | me.value,
                                                       std::memory_order_acquire,
                                                       std::memory_order_relaxed);
  }
  /// Only if `holder` holds it. A CAS, so that somebody expelled cannot unlock for another.
  bool unlock(InstanceId holder) {
    std::uint64_t w = word_.load(std::memory_order_relaxed);
    if (owner(w) != holder) return false;
    return word_.compare_exchange_strong(w, kFreeKind | (w & kEpochMask),
                                         std::memory_order_release, std::memory_order_relaxed);
  }
  /// After damage (neither free nor held by anybody known): take it over from exactly `seen`.
  bool steal(std::uint64_t seen, InstanceId me) {
    return word_.compare_exchange_strong(seen, kHeldKind | next_epoch(seen) | me.value,
                                         std::memory_order_acquire, std::memory_order_relaxed);
  }

 private:
  static constexpr std::uint64_t kEpochMask = 0xffULL << 48;
  static std::uint64_t next_epoch(std::uint64_t w) { return (w + (1ULL << 48)) & kEpochMask; }
  Word word_;
};
static_assert(sizeof(OwnerLock) == 8);

/// Names an OwnerLock: [1 | segment 7 | byte offset in the metadata 56]; 0 = none. Also used for the
/// owner word of a GlobalMutex, see global_mutex.h.
struct LockRef {
  std::uint64_t value = 0;
  static LockRef make(std::uint32_t segment, std::uint64_t offset) {
    return {(1ULL << 63) | (static_cast<std::uint64_t>(segment) << 56) | offset};
  }
  std::uint32_t segment() const { return static_cast<std::uint32_t>(value >> 56) & 0x7f; }
  std::uint64_t offset() const { return value & ((1ULL << 56) - 1); }
};

/// What one thread is doing under a lock: enough for a recoverer to finish or undo it.
struct alignas(64) OpRecord {
  Word lock;   // LockRef, written after the arguments and before the lock is tried
  Word phase;  // component's own
  Word a;
  Word b;
  Word c;
  Word d;
  std::uint64_t unused[2];
};
static_assert(sizeof(OpRecord) == 64);

inline constexpr std::uint32_t kOpRecords = 32;
inline constexpr std::uint32_t kHeldMutexes = 12;
inline constexpr std::uint32_t kMaxComponents = 8;
inline constexpr std::uint32_t kStatCells = 64;  // counters, then a histogram; statistics.h
inline constexpr std::uint32_t kServerKinds = 4;
inline constexpr std::uint32_t kSlotTag = 0x4d435334;

/// One instance's own page(s).
struct alignas(gsm::kPageSize) Slot {
  std::uint32_t tag;
  std::uint32_t number;
  Word heartbeat;
  std::uint32_t node;
  std::int32_t pid;            // in the pid namespace below
  std::uint64_t pid_namespace;  // inode number
  std::uint64_t started;       // field 22 of /proc/PID/stat, against pid reuse
  std::int64_t joined_ms;      // wall clock
  char server[48];
  std::array<Word, kHeldMutexes> mutexes;  // LockRef of a GlobalMutex held or being taken
  std::array<Word, kMaxComponents> acknowledged;  // component generation this instance works in
  std::array<Word, kStatCells> stats;
  std::array<OpRecord, kOpRecords> ops;
  Word identity;  // InstanceId while this slot has an owner: what its state word is mended by
  // the components' per-instance areas follow
};
static_assert(sizeof(Slot) == gsm::kPageSize);

/// Which server an instance belongs to, by the name it gave.
enum class ServerKind : std::uint8_t { kNginx = 0, kHttpd = 1, kOther = 2, kTool = 3 };
ServerKind server_kind(const char* server);

/// Totals of instances that are gone; see statistics.h for the folding protocol.
struct StatTotals {
  OwnerLock lock;
  Word active;  // 1 or 2: which copy counts
  using Cells = std::array<std::uint64_t, kStatCells>;
  struct Copy {
    std::uint64_t last_folded;  // InstanceId
    std::array<Cells, kServerKinds> kinds;
  };
  std::array<Copy, 2> copies;
};

/// A GlobalMutex; protocol in global_mutex.h.
inline constexpr std::uint32_t kMutexWaiters = 32;
inline constexpr std::uint32_t kMutexes = 64;  // per segment
inline constexpr std::uint64_t kMutexTag = 0x6dULL << 56;
struct alignas(64) MutexCell {
  Word identity;  // [tag 8 | generation 32 | in use 8]
  Word owner;     // [kind 8 | flags 8 | InstanceId 48]
  Word tickets;   // next ticket
  Word wakeups;   // counts unlocks; its low half is what local waiters may sleep on
  std::uint64_t unused[4];
  std::array<Word, kMutexWaiters> waiters;  // [ticket 16 | InstanceId 48], 0 = empty
};
static_assert(sizeof(MutexCell) == 320);

/// A component; protocol in component.h.
inline constexpr std::uint32_t kComponentData = 4096 - 128;
inline constexpr std::uint64_t kComponentTag = 0xc0ULL << 56;
struct alignas(64) ComponentCell {
  Word identity;     // [tag 8 | version 32 | state 8: 0 free, 1 being made, 2 in use]
  Word maker;        // InstanceId of who is making it
  Word generation;   // [generation 32 | running 1 or recovering 2: 8]
  Word coordinator;  // InstanceId of who runs the repair steps, 0 = nobody
  Word steps_done;   // of the generation being recovered
  Word mutex;        // slot and generation of its GlobalMutex
  char name[32];
  std::uint64_t unused[6];
  std::array<std::byte, kComponentData> data;
};
static_assert(sizeof(ComponentCell) == 4096);

enum class EventKind : std::uint32_t {
  kNone = 0,
  kInstanceRecovered = 1,
  kSegmentLost = 2,
  kDamageRepaired = 3,
  kExpelled = 4,
  kComponentRecovered = 5,
  kViewChanged = 6,
};

/// History of recovery events. Slot i of the ring belongs to whoever drew ticket i (fetch_add);
/// `ready` is stored last, so a reader takes only events whose ready equals their ticket + 1.
struct alignas(64) Event {
  Word ready;
  std::uint32_t kind;
  std::int32_t pid;
  std::uint64_t instance;
  std::uint64_t recoverer;
  std::int64_t wall_ms;
  std::uint64_t detected_ns;  // CLOCK_MONOTONIC of the recoverer's kernel
  std::uint64_t agreed_ns;
  std::uint64_t repaired_ns;
  std::uint64_t resumed_ns;
  std::uint32_t node;
  std::uint32_t locks;
  std::uint32_t pins;
  std::uint32_t fills;
  std::uint32_t retired;
  std::uint32_t logged;  // an instance that prints it sets this first (atomic_ref)
  char server[48];
  char cause[32];
  std::uint64_t sum;  // XXH3 of it all but `ready`, `logged` and itself; an event that fails it is none
};
static_assert(sizeof(Event) == 192);
std::uint64_t event_sum(const Event& event);
inline constexpr std::uint32_t kEvents = 256;

struct EventRing {
  Word next;
  Word agent;  // InstanceId of the agent of this segment's node, stored when it has begun to listen
  std::uint64_t unused[6];
  std::array<Event, kEvents> events;
};

/// What the nodes agree on, and how they come to it; see view.h and docs/protocols/agreement.md.
/// The hints, by node: written to every segment that answers, read from the first one that does.
struct ViewArea {
  struct alignas(64) Line {
    Word word;
  };
  Line view;
  std::array<Line, gsm::kMaxNodes> heartbeat;
  std::array<Line, gsm::kMaxNodes> accused;
  std::array<Line, gsm::kMaxNodes> challenge;
  std::array<Line, gsm::kMaxNodes> asks;
  Line announced;  // generation whose event is in the history
};
static_assert(sizeof(ViewArea) == (2 + 4 * gsm::kMaxNodes) * 64);

/// Where things are in a segment. Stored in SegmentHeader::user[0..15].
struct RuntimeGeometry {
  std::uint64_t slots_per_node = 0;
  std::uint64_t slot_bytes = 0;
  std::uint64_t controls = 0;  // byte offsets from the segment's start
  std::uint64_t slots = 0;
  std::uint64_t events = 0;
  std::uint64_t totals = 0;
  std::uint64_t mutexes = 0;
  std::uint64_t components = 0;
  std::uint64_t views = 0;
  std::uint64_t end = 0;

  static RuntimeGeometry plan(std::uint64_t slots_per_node, std::uint64_t component_bytes);
  void store(std::uint64_t* user) const;
  static RuntimeGeometry load(const std::uint64_t* user);
};

inline constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t to) {
  return (value + to - 1) / to * to;
}

/// Initialise the runtime's part of a new segment. The first view, with all nodes and segments, goes
/// into the segments that a domain begins with; one that came later has none until it is admitted.
void format(gsm::Segment& segment, const RuntimeGeometry& geometry);

}  // namespace mcs::runtime
