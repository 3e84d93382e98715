// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/runtime/global_mutex.h"

#include <fmt/format.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ctime>

namespace mcs::runtime {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kAcqRel = std::memory_order_acq_rel;

constexpr std::uint64_t kInUse = 1;
constexpr std::uint64_t kPatienceNs = 1000000;  // per place in the queue
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

std::optional<MutexAnswer> GlobalMutex::obstacle(const MutexCell& cell) const {
  const std::uint64_t word = cell.identity.load(kAcquire);
  if (instance_.domain().segment(id_.segment).lost()) return MutexAnswer::kMemoryLost;
  if (word != identity(id_.generation, kInUse)) return MutexAnswer::kInvalidId;
  if (watched_ != nullptr) {
    const std::uint64_t now = watched_->load(kAcquire);
    if ((now & 0xff) == 2) return MutexAnswer::kRecoveryPending;
    if (now != known_) return MutexAnswer::kMembershipChanged;
  }
  return std::nullopt;
}

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
  return true;
}

bool GlobalMutex::abandon(MutexCell& cell, InstanceId dead) {
  std::uint64_t word = cell.owner.load(kAcquire);
  if (!OwnerLock::is_held(word) || OwnerLock::owner(word) != dead) return false;
  return cell.owner.compare_exchange_strong(word, OwnerLock::kFreeKind | kInconsistent, kAcqRel);
}

void GlobalMutex::free_if_holder_is_dead(MutexCell& cell) {
  const std::uint64_t word = cell.owner.load(kAcquire);
  if (!OwnerLock::is_held(word)) return;
  const InstanceId holder = OwnerLock::owner(word);
  if (holder == instance_.id() || !instance_.is_dead(holder)) return;
  // Not only this mutex: everything the dead instance held is wanted by somebody.
  instance_.recover(holder.slot(), "mutex wait");
  abandon(cell, holder);
}

bool GlobalMutex::enqueue(MutexCell& cell) {
  if (waiter_ >= 0) return true;
  ticket_ = cell.tickets.fetch_add(1, kAcqRel) & 0xffff;
  const std::uint64_t mine = (ticket_ << 48) | instance_.id().value;
  for (std::uint32_t i = 0; i < kMutexWaiters; ++i) {
    std::uint64_t empty = 0;
    if (cell.waiters[i].compare_exchange_strong(empty, mine, kAcqRel)) {
      waiter_ = static_cast<int>(i);
      return true;
    }
  }
  return false;
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

void GlobalMutex::wait_a_little(MutexCell& cell, unsigned attempt) const {
  if (attempt < kSpins) {
    __builtin_ia32_pause();
    return;
  }
  if (attempt < 2 * kSpins) {
    ::sched_yield();
    return;
  }
  // Help of the local kernel: woken at the next unlock if it happens on this node, else after 1 ms.
  const auto seen = static_cast<std::uint32_t>(cell.wakeups.load(kAcquire));
  if (OwnerLock::is_free(cell.owner.load(kAcquire))) return;
  const timespec limit{0, 1000000};
  if (::syscall(SYS_futex, &cell.wakeups, FUTEX_WAIT, seen, &limit, nullptr, 0) != 0 &&
      errno == EFAULT) {
    ::nanosleep(&limit, nullptr);
  }
}

MutexAnswer GlobalMutex::lock(std::optional<std::chrono::steady_clock::time_point> deadline) {
  MutexCell* at = cell();
  if (at == nullptr) return MutexAnswer::kInvalidId;
  MutexCell& mutex = *at;
  if (const auto answer = obstacle(mutex)) return *answer;
  record_ = instance_.claim_mutex_record(
      LockRef::make(id_.segment, instance_.geometry().mutexes + id_.slot * sizeof(MutexCell) +
                                     offsetof(MutexCell, owner)));
  if (record_ < 0) return MutexAnswer::kTooMany;
  MutexAnswer answer = MutexAnswer::kTimeout;
  std::uint64_t free_since = 0;
  for (unsigned attempt = 0;; ++attempt) {
    if (const auto hindered = obstacle(mutex)) {
      answer = *hindered;
      break;
    }
    if (OwnerLock::is_free(mutex.owner.load(kAcquire))) {
      // The first in the queue takes it at once; the others only when the first does not.
      const std::uint64_t now = monotonic_ns();
      if (free_since == 0) free_since = now;
      const unsigned place = place_in_queue(mutex, now - free_since > kPatienceNs / 4);
      if (place == 0 || now - free_since > place * kPatienceNs) {
        if (take(mutex, answer)) break;
      } else {
        ::sched_yield();
        continue;
      }
    } else {
      free_since = 0;
      if (attempt % kSpins == kSpins - 1) free_if_holder_is_dead(mutex);
    }
    if (attempt == kSpins / 2) enqueue(mutex);
    if (deadline && std::chrono::steady_clock::now() >= *deadline) break;
    wait_a_little(mutex, attempt);
  }
  if (waiter_ >= 0) {
    std::uint64_t mine = (ticket_ << 48) | instance_.id().value;
    mutex.waiters[static_cast<std::size_t>(waiter_)].compare_exchange_strong(mine, 0, kAcqRel);
    waiter_ = -1;
  }
  if (!held_) {
    instance_.release_mutex_record(record_);
    record_ = -1;
  }
  return answer;
}

MutexAnswer GlobalMutex::try_lock() {
  MutexCell* at = cell();
  if (at == nullptr) return MutexAnswer::kInvalidId;
  if (const auto answer = obstacle(*at)) return *answer;
  record_ = instance_.claim_mutex_record(
      LockRef::make(id_.segment, instance_.geometry().mutexes + id_.slot * sizeof(MutexCell) +
                                     offsetof(MutexCell, owner)));
  if (record_ < 0) return MutexAnswer::kTooMany;
  MutexAnswer answer = MutexAnswer::kTimeout;
  free_if_holder_is_dead(*at);
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
      at->owner.compare_exchange_strong(word, OwnerLock::kFreeKind | (word & kInconsistent),
                                        kRelease, kRelaxed);
    }
    at->wakeups.fetch_add(1, kRelease);
    ::syscall(SYS_futex, &at->wakeups, FUTEX_WAKE, 1 << 20, nullptr, nullptr, 0);
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
