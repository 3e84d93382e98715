// SPDX-License-Identifier: Apache-2.0
// What the cache does when an instance died or leaves. Each step first writes the recoverer's own
// record, then moves the entry with one CAS, then clears the dead instance's record: a kill in
// between leaves an entry named by both, and the CAS decides whose it is.
#include <algorithm>
#include <set>

#include "libglobalcache/cache/global_cache.h"

namespace mcs::cache {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kAcqRel = std::memory_order_acq_rel;
constexpr auto kRelease = std::memory_order_release;

bool is_orphan(std::uint64_t word) {
  return EntryWord::state(word) == EntryState::kRetired && EntryWord::owner_plus_one(word) == 0;
}

}  // namespace

using runtime::DeadInstance;
using runtime::OpRecord;
using runtime::RecoveryCounts;

void GlobalCache::repair_operation(const DeadInstance& dead, OpRecord& op) {
  space_.repair(dead, op);
}

bool GlobalCache::take_over(const DeadInstance& dead, RecoveryCounts& counts) {
  if (dead.id.slot() == instance_.slot_number()) keep_inherited_limbo(counts);
  auto& area = *reinterpret_cast<CacheArea*>(dead.component_area());
  auto* ledger = reinterpret_cast<Word*>(dead.component_area() + sizeof(CacheArea));
  const std::uint32_t their_owner = dead.id.slot() + 1;

  area.waiting.store(0, kRelaxed);
  // All of it: the high mark may be wrong.
  for (std::uint64_t i = 0; i < memory_.geometry().ledger_words; ++i) {
    const std::uint64_t pin = ledger[i].load(kRelaxed);
    if (pin == 0) continue;
    ledger[i].store(0, kRelease);
    if (pin != Link::kEnd) ++counts.pins;
  }
  area.ledger_high.store(0, kRelease);

  for (Word& record : area.fills) {
    const Link link{record.load(kAcquire)};
    if (link.value == 0) continue;
    Descriptor* d = memory_.resolve(link);
    if (d != nullptr) {
      bool woken = false;
      const std::uint64_t word = d->state.load(kAcquire);
      if (EntryWord::version(word) == link.version()) {
        if (EntryWord::state(word) == EntryState::kFilling &&
            EntryWord::owner_plus_one(word) == their_owner) {
          woken = retire_filling(link, *d, their_owner);
          ++counts.fills;
        } else if (EntryWord::state(word) == EntryState::kSealed) {
          settle(link, *d);
        }
        // Retired in its name if it was expelled before it died and the fill passed on, be it now.
        if (!woken && !in_limbo(link)) adopt_retired(link, *d, their_owner, counts);
        const std::uint64_t left = d->state.load(kAcquire);
        if (EntryWord::version(left) == link.version() && is_orphan(left)) count_orphan(link);
      }
      // Who ended the fill, it or a recoverer, may have died before doing so.
      if (!woken) wake_waiters(link, *d);
    }
    record.store(0, kRelease);
  }

  const Link orphan{area.orphaning.load(kAcquire)};
  if (const Descriptor* d = orphan.value == 0 ? nullptr : memory_.resolve(orphan); d != nullptr) {
    const std::uint64_t word = d->state.load(kAcquire);
    if (EntryWord::version(word) == orphan.version() && is_orphan(word)) count_orphan(orphan);
  }
  area.orphaning.store(0, kRelease);

  const bool inherited = dead.id.slot() == instance_.slot_number();
  for (Word& record : area.limbo) {
    const Link link{record.load(kAcquire)};
    if (link.value == 0 || inherited) continue;
    Descriptor* d = memory_.resolve(link);
    if (d != nullptr) {
      adopt_retired(link, *d, their_owner, counts);
      // It, or a recoverer of it, died before it could say so.
      const std::uint64_t word = d->state.load(kAcquire);
      if (EntryWord::version(word) == link.version() && is_orphan(word)) count_orphan(link);
    }
    record.store(0, kRelease);
  }
  reclaim();
  return true;
}

// A retired entry that a dead instance still had to free.
void GlobalCache::adopt_retired(Link link, Descriptor& d, std::uint32_t their_owner,
                                RecoveryCounts& counts) {
  std::uint64_t word = d.state.load(kAcquire);
  while (EntryWord::version(word) == link.version() &&
         EntryWord::state(word) == EntryState::kRetired &&
         EntryWord::owner_plus_one(word) == their_owner) {
    wake_if_was_filling(link, d, word);
    const int place = claim_limbo(link);
    const std::uint32_t new_owner = place >= 0 ? instance_.slot_number() + 1 : 0;
    if (d.state.compare_exchange_strong(
            word,
            EntryWord::make(link.version(), EntryState::kRetired, new_owner,
                            EntryWord::cursor(word), EntryWord::flags(word)),
            std::memory_order_acq_rel)) {
      keep_limbo(place);
      ++counts.retired;
      return;
    }
    drop_limbo(place);
  }
}

// Whether we have it already, having inherited the slot.
bool GlobalCache::in_limbo(Link link) const {
  return std::any_of(area_.limbo.begin(), area_.limbo.end(),
                     [&](const Word& record) { return record.load(kAcquire) == link.value; });
}

// Its leases: whoever waits for them fills instead. The space stays its own, also the record that names
// it: it may be in the middle of writing there.
std::uint32_t GlobalCache::pass_on(InstanceId expelled) {
  const std::uint32_t owner = expelled.slot() + 1;
  std::uint32_t passed = 0;
  for (const Word& record : Pins::area(instance_, expelled.slot()).fills) {
    const Link link{record.load(kAcquire)};
    Descriptor* d = link.value == 0 ? nullptr : memory_.resolve(link);
    if (d == nullptr) continue;
    std::uint64_t word = d->state.load(kAcquire);
    while (EntryWord::state(word) == EntryState::kFilling &&
           EntryWord::version(word) == link.version() && EntryWord::owner_plus_one(word) == owner) {
      // Not if it has come back, or another one has its slot.
      if (!instance_.is_expelled(expelled)) return passed;
      if (d->state.compare_exchange_weak(
              word, EntryWord::make(link.version(), EntryState::kRetired, owner))) {
        ++passed;
        break;
      }
    }
    // Also for one that an agent passed on which died before it came to this.
    if (EntryWord::version(word) == link.version()) wake_waiters(link, *d);
  }
  return passed;
}

// In an inherited slot what is retired stays where it is: the slot that its owner is named by has
// become ours.
void GlobalCache::keep_inherited_limbo(RecoveryCounts& counts) {
  std::set<std::uint64_t> seen;  // two threads may have been about to retire one entry
  for (std::uint32_t place = 0; place < kLimbo; ++place) {
    const Link link{area_.limbo[place].load(kAcquire)};
    if (link.value == 0) continue;
    const Descriptor* d = memory_.resolve(link);
    const std::uint64_t word = d == nullptr ? 0 : d->state.load(kAcquire);
    if (EntryWord::state(word) == EntryState::kRetired &&
        EntryWord::version(word) == link.version() &&
        EntryWord::owner_plus_one(word) == instance_.slot_number() + 1 &&
        seen.insert(link.value).second) {
      limbo_used_.take(place);
      limbo_links_[place].store(link.value, kRelaxed);
      limbo_ready_.take(place);
      ++counts.retired;
    } else {
      area_.limbo[place].store(0, kRelease);
    }
  }
}

void GlobalCache::leave() {
  for (Word& record : area_.fills) {
    const Link link{record.load(kAcquire)};
    Descriptor* d = link.value == 0 ? nullptr : memory_.resolve(link);
    if (d != nullptr) retire_filling(link, *d, instance_.slot_number() + 1);
    record.store(0, kRelease);
  }
  reclaim(true);
  for (Word& record : area_.limbo) {
    const Link link{record.load(kAcquire)};
    if (link.value == 0) continue;
    Descriptor* d = memory_.resolve(link);
    if (d != nullptr) {
      std::uint64_t word = d->state.load(kAcquire);
      if (EntryWord::version(word) == link.version() &&
          EntryWord::state(word) == EntryState::kRetired &&
          EntryWord::owner_plus_one(word) == instance_.slot_number() + 1) {
        // Somebody still reads it: whoever ticks next adopts it.
        if (d->state.compare_exchange_strong(
                word,
                EntryWord::make(link.version(), EntryState::kRetired, 0, EntryWord::cursor(word),
                                EntryWord::flags(word)),
                std::memory_order_acq_rel)) {
          count_orphan(link);
        }
      }
    }
    record.store(0, kRelease);
  }
  auto* ledger = reinterpret_cast<Word*>(instance_.own_component_area() + sizeof(CacheArea));
  for (std::uint64_t i = 0; i < memory_.geometry().ledger_words; ++i) {
    if (ledger[i].load(kRelaxed) != 0) ledger[i].store(0, kRelease);
  }
  area_.ledger_high.store(0, kRelease);
  area_.waiting.store(0, kRelaxed);
}

void GlobalCache::adopt_orphans(std::uint32_t segment) {
  Word& orphans = memory_.state(segment).orphans;
  std::uint64_t seen = orphans.load(kAcquire);
  if (seen == 0) return;
  for (std::uint64_t i = 0; i < memory_.geometry().descriptors; ++i) {
    Descriptor& d = memory_.descriptor(segment, i);
    std::uint64_t word = d.state.load(kAcquire);
    // Again when only a flag has changed: who made it an orphan may just be unlinking it.
    while (is_orphan(word)) {
      const Link link = memory_.link_to(segment, i, EntryWord::version(word));
      wake_if_was_filling(link, d, word);
      const int place = claim_limbo(link);
      if (place < 0) return;
      if (d.state.compare_exchange_strong(
              word,
              EntryWord::make(EntryWord::version(word), EntryState::kRetired,
                              instance_.slot_number() + 1, EntryWord::cursor(word),
                              EntryWord::flags(word)),
              kAcqRel)) {
        keep_limbo(place);
        break;
      }
      drop_limbo(place);
    }
  }
  orphans.compare_exchange_strong(seen, 0, kAcqRel);
}

}  // namespace mcs::cache
