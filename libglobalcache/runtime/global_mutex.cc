// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/runtime/global_mutex.h"

#include <fmt/format.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

namespace mcs::runtime {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kAcqRel = std::memory_order_acq_rel;

constexpr std::uint64_t kInUse = 1;
constexpr std::uint64_t kPatienceNs = 1000000;  // per place in the queue
constexpr long kSleepNs = 1000000;
constexpr unsigned kSpins = 64;

std::uint64_t identity(std::uint32_t generation, std::uint64_t in_use) {
  return kMutexTag | (static_cast<std::uint64_t>(generation) << 8) | in_use;
}

std::uint32_t generation_of(std::uint64_t word) { return static_cast<std::uint32_t>(word >> 8); }

InstanceId waiter_id(std::uint64_t word) { return {word & OwnerLock::kOwnerMask}; }
std::uint16_t waiter_ticket(std::uint64_t word) { return static_cast<std::uint16_t>(word >> 48); }

}  // namespace

MutexCell* GlobalMutex::resolve(const Instance& instance, LockRef ref) {
  if (ref.segment() >= instance.domain().node_count()) return nullptr;
  const RuntimeGeometry& g = instance.geometry();
  const std::uint64_t first = g.mutexes + offsetof(MutexCell, owner);
  if (ref.offset() < first || (ref.offset() - first) % sizeof(MutexCell) != 0 ||
      (ref.offset() - first) / sizeof(MutexCell) >= kMutexes) {
    return nullptr;
  }
  return reinterpret_cast<MutexCell*>(instance.domain().segment(ref.segment()).metadata() +
                                      ref.offset() - offsetof(MutexCell, owner));
}

Result<MutexId> GlobalMutex::create(Instance& instance, std::uint32_t node) {
  gsm::Segment& segment = instance.domain().segment(node);
  auto* cells =
      reinterpret_cast<MutexCell*>(segment.metadata() + instance.geometry().mutexes);
  for (std::uint32_t slot = kMaxComponents; slot < kMutexes; ++slot) {
    std::uint64_t word = cells[slot].identity.load(kAcquire);
    if ((word >> 56) != (kMutexTag >> 56) || (word & 0xff) == kInUse) continue;
    // Whoever destroyed the one before may not have unlocked it yet, or may have died so.
    std::uint64_t owner = cells[slot].owner.load(kAcquire);
    if (OwnerLock::is_held(owner)) {
      const InstanceId holder = OwnerLock::owner(owner);
      if (!instance.is_dead(holder) || !abandon(cells[slot], holder)) continue;
      owner = cells[slot].owner.load(kAcquire);
    }
    if (!OwnerLock::is_free(owner) ||
        !cells[slot].owner.compare_exchange_strong(owner, OwnerLock::kFreeKind, kAcqRel)) {
      continue;
    }
    const std::uint32_t generation = generation_of(word) + 1;
    if (cells[slot].identity.compare_exchange_strong(word, identity(generation, kInUse), kAcqRel)) {
      return MutexId{node, segment.incarnation(), slot, generation};
    }
  }
  return fail(ErrorCode::kNoSpace,
              fmt::format("all {} mutexes of node {} are in use; destroy one",
                          kMutexes - kMaxComponents, node));
}

MutexId GlobalMutex::for_component(Instance& instance, std::uint32_t node,
                                   std::uint32_t component) {
  gsm::Segment& segment = instance.domain().segment(node);
  MutexCell& cell = reinterpret_cast<MutexCell*>(segment.metadata() +
                                                 instance.geometry().mutexes)[component];
  std::uint64_t word = cell.identity.load(kAcquire);
  if ((word & 0xff) != kInUse) {
    cell.identity.compare_exchange_strong(word, identity(generation_of(word) + 1, kInUse), kAcqRel);
    word = cell.identity.load(kAcquire);
  }
  return MutexId{node, segment.incarnation(), component, generation_of(word)};
}

void GlobalMutex::destroy(Instance& instance, const MutexId& id) {
  GlobalMutex mutex(instance, id);
  MutexCell* cell = mutex.cell();
  if (cell == nullptr) return;
  std::uint64_t word = identity(id.generation, kInUse);
  cell->identity.compare_exchange_strong(word, identity(id.generation, 0), kAcqRel);
}

GlobalMutex::~GlobalMutex() {
  if (held_) unlock();
}

MutexCell* GlobalMutex::cell() const {
  if (id_.segment >= instance_.domain().node_count() || id_.slot >= kMutexes) return nullptr;
  gsm::Segment& segment = instance_.domain().segment(id_.segment);
  if (segment.incarnation() != id_.incarnation) return nullptr;
  return reinterpret_cast<MutexCell*>(segment.metadata() + instance_.geometry().mutexes) + id_.slot;
}

// Also if another segment has come in its place.
bool GlobalMutex::is_lost() const {
  if (id_.segment >= instance_.domain().node_count()) return false;
  const gsm::Segment& segment = instance_.domain().segment(id_.segment);
  return segment.lost() || segment.incarnation() > id_.incarnation;
}

std::optional<MutexAnswer> GlobalMutex::obstacle(const MutexCell& cell) const {
  const std::uint64_t word = cell.identity.load(kAcquire);
  if (is_lost()) return MutexAnswer::kMemoryLost;
  if (word != identity(id_.generation, kInUse)) return MutexAnswer::kInvalidId;
  const std::uint64_t owner = cell.owner.load(kAcquire);
  if (!OwnerLock::is_free(owner) && !OwnerLock::is_held(owner)) return MutexAnswer::kMemoryLost;
  if (instance_.expelled()) return MutexAnswer::kMembershipChanged;
  // It may still write to what the mutex protects, until it lets go or its exit is certain.
  const InstanceId holder = OwnerLock::owner(owner);
  if (holder.valid() && holder != instance_.id() && instance_.is_expelled(holder)) {
    instance_.report_blocking(holder);
    return MutexAnswer::kRecoveryPending;
  }
  if (watched_ != nullptr) {
    const std::uint64_t now = watched_->load(kAcquire);
    if ((now & 0xff) == 2) return MutexAnswer::kRecoveryPending;
    if (now != known_) return MutexAnswer::kMembershipChanged;
  }
  return std::nullopt;
}

// True: `answer` is final, and the mutex is held unless that says otherwise.
bool GlobalMutex::take(MutexCell& cell, MutexAnswer& answer) {
  std::uint64_t word = cell.owner.load(kRelaxed);
  if (!OwnerLock::is_free(word)) return false;
  const std::uint64_t flag = word & kInconsistent;
  if (!cell.owner.compare_exchange_strong(
          word, OwnerLock::kHeldKind | flag | instance_.id().value, kAcquire, kRelaxed)) {
    return false;
  }
  held_ = true;
  answer = flag != 0 ? MutexAnswer::kAcquiredAbandoned : MutexAnswer::kAcquired;
  // What was true before the CAS may have ended with the holder before us.
  if (const auto hindered = obstacle(cell)) {
    answer = *hindered;
    dequeue(cell);
    unlock();
  }
  return true;
}

bool GlobalMutex::abandon(MutexCell& cell, InstanceId dead) {
  std::uint64_t word = cell.owner.load(kAcquire);
  if (!OwnerLock::is_held(word) || OwnerLock::owner(word) != dead) return false;
  if (!cell.owner.compare_exchange_strong(word, OwnerLock::kFreeKind | kInconsistent, kAcqRel)) {
    return false;
  }
  wake_first(cell);
  return true;
}

// Free the mutex if its holder is dead. A living one that was waited for in vain is reported, so that
// the agent ends it if it is stopped.
void GlobalMutex::look_at_holder(MutexCell& cell, bool in_vain) {
  const std::uint64_t word = cell.owner.load(kAcquire);
  if (!OwnerLock::is_held(word)) return;
  const InstanceId holder = OwnerLock::owner(word);
  if (holder == instance_.id()) return;
  if (!instance_.is_dead(holder)) {
    if (in_vain) instance_.report_blocking(holder);
    return;
  }
  // Not only this mutex: everything the dead instance held is wanted by somebody.
  instance_.recover(holder.slot(), "mutex wait");
  abandon(cell, holder);
}

bool GlobalMutex::enqueue(MutexCell& cell) {
  if (waiter_ >= 0) return true;
  if (std::none_of(cell.waiters.begin(), cell.waiters.end(),
                   [](const Word& place) { return place.load(kRelaxed) == 0; })) {
    return false;
  }
  ticket_ = cell.tickets.fetch_add(1, kAcqRel) & 0xffff;
  const std::uint64_t mine = (ticket_ << 48) | instance_.id().value;
  for (std::uint32_t i = 0; i < kMutexWaiters; ++i) {
    std::uint64_t empty = 0;
    if (cell.waiters[i].compare_exchange_strong(empty, mine)) {
      waiter_ = static_cast<int>(i);
      return true;
    }
  }
  return false;
}

void GlobalMutex::dequeue(MutexCell& cell) {
  if (waiter_ < 0) return;
  std::uint64_t mine = (ticket_ << 48) | instance_.id().value;
  cell.waiters[static_cast<std::size_t>(waiter_)].compare_exchange_strong(mine, 0, kAcqRel);
  waiter_ = -1;
}

// Whoever sleeps has a place in the queue, or there was none left.
void GlobalMutex::wake_first(MutexCell& cell) {
  cell.wakeups.fetch_add(1);
  int first = -1;
  std::uint16_t its_ticket = 0;
  for (std::uint32_t i = 0; i < kMutexWaiters; ++i) {
    const std::uint64_t word = cell.waiters[i].load();
    if (word == 0) continue;
    const std::uint16_t ticket = waiter_ticket(word);
    if (first < 0 || static_cast<std::int16_t>(its_ticket - ticket) > 0) {
      first = static_cast<int>(i);
      its_ticket = ticket;
    }
  }
  if (first < 0) return;
  ::syscall(SYS_futex, &cell.wakeups, FUTEX_WAKE_BITSET, 1 << 20, nullptr, nullptr, 1U << first);
}

// How many waiters came before us; `clear_dead` makes sure that they live (a system call each).
unsigned GlobalMutex::place_in_queue(MutexCell& cell, bool clear_dead) {
  unsigned place = 0;
  for (std::uint32_t i = 0; i < kMutexWaiters; ++i) {
    std::uint64_t word = cell.waiters[i].load(kAcquire);
    if (word == 0 || static_cast<int>(i) == waiter_) continue;
    const bool earlier = static_cast<std::int16_t>(
                             static_cast<std::uint16_t>(ticket_) - waiter_ticket(word)) > 0;
    if (waiter_ >= 0 && !earlier) continue;
    if (clear_dead && waiter_id(word) != instance_.id() && instance_.is_dead(waiter_id(word))) {
      cell.waiters[i].compare_exchange_strong(word, 0, kAcqRel);
      continue;
    }
    ++place;
  }
  return place;
}

void GlobalMutex::wait_a_little(MutexCell& cell, unsigned attempt, bool first) const {
  if (attempt < kSpins) {
    __builtin_ia32_pause();
    return;
  }
  if (attempt < 2 * kSpins) {
    ::sched_yield();
    return;
  }
  // Help of the local kernel: woken at the unlock if that happens on this node, else after 1 ms.
  const auto seen = static_cast<std::uint32_t>(cell.wakeups.load());
  if (first && OwnerLock::is_free(cell.owner.load())) return;
  timespec limit{};
  ::clock_gettime(CLOCK_MONOTONIC, &limit);  // FUTEX_WAIT_BITSET takes a point in time
  limit.tv_nsec += kSleepNs;
  if (limit.tv_nsec >= 1000000000) {
    limit.tv_nsec -= 1000000000;
    ++limit.tv_sec;
  }
  const std::uint32_t mask = waiter_ >= 0 ? 1U << waiter_ : FUTEX_BITSET_MATCH_ANY;
  if (::syscall(SYS_futex, &cell.wakeups, FUTEX_WAIT_BITSET, seen, &limit, nullptr, mask) != 0 &&
      errno == EFAULT) {
    const timespec pause{0, kSleepNs};
    ::nanosleep(&pause, nullptr);
  }
}

LockRef GlobalMutex::lock_ref() const {
  return LockRef::make(id_.segment, instance_.geometry().mutexes + id_.slot * sizeof(MutexCell) +
                                        offsetof(MutexCell, owner));
}

MutexAnswer GlobalMutex::lock(std::optional<std::chrono::steady_clock::time_point> deadline) {
  MutexCell* at = cell();
  if (at == nullptr) return is_lost() ? MutexAnswer::kMemoryLost : MutexAnswer::kInvalidId;
  MutexCell& mutex = *at;
  if (const auto answer = obstacle(mutex)) return *answer;
  record_ = instance_.claim_mutex_record(lock_ref());
  if (record_ < 0) return MutexAnswer::kTooMany;
  MutexAnswer answer = MutexAnswer::kTimeout;
  std::uint64_t free_since = 0;
  std::uint64_t free_at = 0;  // `wakeups` then
  for (unsigned attempt = 0;; ++attempt) {
    if (const auto hindered = obstacle(mutex)) {
      answer = *hindered;
      break;
    }
    bool first = true;
    if (OwnerLock::is_free(mutex.owner.load(kAcquire))) {
      // The first in the queue takes it at once; the others only when the first does not.
      const std::uint64_t now = monotonic_ns();
      const std::uint64_t unlocks = mutex.wakeups.load(kAcquire);
      if (free_since == 0 || free_at != unlocks) free_since = now;
      free_at = unlocks;
      const unsigned place = place_in_queue(mutex, now - free_since > kPatienceNs / 4);
      first = place == 0;
      if ((first || now - free_since > place * kPatienceNs) && take(mutex, answer)) break;
    } else {
      free_since = 0;
      if (attempt % kSpins == kSpins - 1) look_at_holder(mutex, attempt > 2 * kSpins);
    }
    if (attempt >= kSpins / 2 && attempt % (kSpins / 4) == 0) enqueue(mutex);
    if (deadline && std::chrono::steady_clock::now() >= *deadline) {
      look_at_holder(mutex, true);
      break;
    }
    wait_a_little(mutex, attempt, first);
  }
  dequeue(mutex);
  if (!held_) {
    instance_.release_mutex_record(record_);
    record_ = -1;
  }
  return answer;
}

MutexAnswer GlobalMutex::try_lock() {
  MutexCell* at = cell();
  if (at == nullptr) return is_lost() ? MutexAnswer::kMemoryLost : MutexAnswer::kInvalidId;
  if (const auto answer = obstacle(*at)) return *answer;
  record_ = instance_.claim_mutex_record(lock_ref());
  if (record_ < 0) return MutexAnswer::kTooMany;
  MutexAnswer answer = MutexAnswer::kTimeout;
  look_at_holder(*at, true);
  if (take(*at, answer)) return answer;
  instance_.release_mutex_record(record_);
  record_ = -1;
  return answer;
}

void GlobalMutex::unlock() {
  MutexCell* at = cell();
  held_ = false;
  if (at != nullptr) {
    std::uint64_t word = at->owner.load(kRelaxed);
    if (OwnerLock::owner(word) == instance_.id()) {
      at->owner.compare_exchange_strong(word, OwnerLock::kFreeKind | (word & kInconsistent));
    }
    wake_first(*at);
  }
  instance_.release_mutex_record(record_);
  record_ = -1;
}

void GlobalMutex::mark_consistent() {
  MutexCell* at = cell();
  if (at == nullptr || !held_) return;
  std::uint64_t word = OwnerLock::kHeldKind | kInconsistent | instance_.id().value;
  at->owner.compare_exchange_strong(word, OwnerLock::kHeldKind | instance_.id().value, kAcqRel);
}

}  // namespace mcs::runtime
