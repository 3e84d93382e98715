// SPDX-License-Identifier: Apache-2.0
// Which entries go when there is no room: S3-FIFO (J. Yang et al., SOSP 2023) over the descriptors
// where they lie. What was measured is in docs/decisions/0030-eviction.md.
//
// A new entry is on probation: named in a ring of arrivals, first in, first out, which may hold a tenth
// of the space. Whatever leaves the ring without having been used enough is evicted, and its hash
// remembered as a ghost for as long as about one cache's worth of others takes to follow. The rest, and
// new entries that are ghosts, belong to the main part, where a hand goes round and evicts what has not
// been used since it last came by. A hit adds 1 to the entry's clock byte unless that is at 3 already.
//
// Everything here is a hint. An arrival names index and version, so an old one names nothing; an entry
// on probation that no arrival names (its filler died in between) joins the main part when the hand
// meets it for the second time; the count of units on probation is set right whenever the ring has gone
// round or is empty.
#include <algorithm>
#include <optional>

#include "libglobalcache/cache/global_cache.h"

namespace mcs::cache {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;

constexpr std::uint64_t kProbationShare = 10;  // of the space, one part in so many
constexpr std::uint64_t kHandStep = 8;
constexpr std::uint64_t kLeastUnits = 32;
constexpr std::uint64_t kSiteStep = 64;  // descriptors
constexpr std::uint64_t kMuchOfQuota = 16;  // one part in so many
constexpr std::uint64_t kRecallStep = 16;  // descriptors
constexpr std::uint64_t kRecallMost = 2048;  // descriptors looked at in one go
constexpr std::uint64_t kWorthRecalling = 64;  // one part of the segment in so many
constexpr std::uint64_t kLeastBetweenRecounts = 500'000'000;  // ns
constexpr std::uint64_t kGhostTimes = 256;     // steps of a ghost's time per cache's worth of units
constexpr std::uint64_t kGhostLifetime = 230;  // in these steps

std::uint64_t units_of(const SealedFields& fields) {
  return (std::uint64_t{fields.key_bytes} + fields.head_bytes + fields.body_bytes + kUnitBytes - 1) /
         kUnitBytes;
}

std::uint32_t tag_of(std::uint64_t hash) { return static_cast<std::uint32_t>(hash & 0xffff) | 1; }

std::uint64_t ghost_time(const CacheGeometry& g, std::uint64_t units) {
  return units / std::max<std::uint64_t>(1, g.groups * kGroupUnits / kGhostTimes);
}

// Of what is on probation now.
std::uint64_t mean_units(const SegmentState& state) {
  const std::uint64_t waiting =
      state.arrivals_in.load(kRelaxed) - state.arrivals_out.load(kRelaxed);
  return waiting == 0 ? 0 : state.probation.load(kRelaxed) / waiting;
}

// How many uses pay for another stay of an entry: what is larger than others takes the place of many,
// and what is much larger has to prove itself again by coming back as a ghost. 4 is more than counted.
std::uint8_t uses_worth(std::uint64_t units, std::uint64_t mean) {
  if (mean == 0) return 1;
  return units > 8 * mean ? 4 : units > 2 * mean ? 3 : 2 * units > mean ? 2 : 1;
}

}  // namespace

void GlobalCache::touch(const Hit& hit) {
  if (remote_uses_.enabled() && hit.link.segment() != instance_.node()) {
    remote_uses_.count(hit.link, hit.hash2);
  }
  std::atomic<std::uint8_t>& clock = memory_.clock_of(hit.link);
  const std::uint8_t byte = clock.load(kRelaxed);
  if (ClockByte::uses(byte) < ClockByte::kMaxUses && (byte & ClockByte::kUsed) != 0) {
    clock.store(static_cast<std::uint8_t>(byte + 1), kRelaxed);
  }
}

bool GlobalCache::is_ghost(std::uint32_t segment, std::uint64_t hash) const {
  const std::uint64_t now =
      ghost_time(memory_.geometry(), memory_.state(segment).ghost_units.load(kRelaxed));
  for (const auto& word : memory_.ghosts(segment, hash).ghosts) {
    const std::uint32_t ghost = word.load(kRelaxed);
    if (ghost >> 16 == tag_of(hash) && ((now - ghost) & 0xffff) <= kGhostLifetime) return true;
  }
  return false;
}

void GlobalCache::add_ghost(std::uint32_t segment, std::uint64_t hash, std::uint64_t units) {
  const std::uint64_t now = ghost_time(
      memory_.geometry(), memory_.state(segment).ghost_units.fetch_add(units, kRelaxed));
  auto& ghosts = memory_.ghosts(segment, hash).ghosts;
  std::size_t place = 0;
  std::uint64_t oldest = 0;
  for (std::size_t i = 0; i < ghosts.size(); ++i) {
    const std::uint32_t ghost = ghosts[i].load(kRelaxed);
    const bool free = ghost == 0 || ghost >> 16 == tag_of(hash);
    const std::uint64_t age = free ? 1U << 16 : (now - ghost) & 0xffff;
    if (age > oldest) {
      oldest = age;
      place = i;
    }
  }
  ghosts[place].store(tag_of(hash) << 16 | static_cast<std::uint32_t>(now & 0xffff), kRelaxed);
}

// A new entry: ours, and just sealed.
void GlobalCache::admit(Link link, const SealedFields& fields) {
  const std::uint32_t segment = link.segment();
  const std::uint64_t places = memory_.geometry().arrivals;
  SegmentState& state = memory_.state(segment);
  const std::uint64_t waiting =
      state.arrivals_in.load(kRelaxed) - state.arrivals_out.load(kRelaxed);
  const std::uint8_t site = ClockByte::site(fields.site);
  if (site != 0) memory_.set_clock_byte(segment, link.index(), ClockByte::kUsed | site);
  if (waiting >= places || is_ghost(segment, fields.hash)) return;
  memory_.set_clock_byte(segment, link.index(), ClockByte::kUsed | ClockByte::kProbation | site);
  const std::uint64_t units = units_of(fields);
  const std::uint64_t number = state.arrivals_in.fetch_add(1, kRelaxed);
  const Arrival arrival = Arrival::make(link, units);
  memory_.arrival(segment, number).store(arrival.value, kRelease);
  state.probation.fetch_add(arrival.units(), kRelaxed);  // as much as is taken off again
  if ((number + 1) % places != 0) return;
  std::uint64_t sum = 0;
  const std::uint64_t inside = std::min(number + 1 - state.arrivals_out.load(kRelaxed), places);
  for (std::uint64_t i = 0; i < inside; ++i) {
    sum += Arrival{memory_.arrival(segment, number - i).load(kRelaxed)}.units();
  }
  state.probation.store(sum, kRelaxed);
}

// What takes the place of a used entry need not prove itself again.
void GlobalCache::inherit_use(Link entry, Link replaced) const {
  const std::uint8_t byte = memory_.clock_byte(replaced.segment(), replaced.index());
  if (entry.value == 0 || (byte & ClockByte::kProbation) != 0) return;
  const int site = memory_.clock_byte(entry.segment(), entry.index()) & ClockByte::kSite;
  memory_.set_clock_byte(entry.segment(), entry.index(),
                         static_cast<std::uint8_t>(ClockByte::kUsed | site | ClockByte::uses(byte)));
}

bool GlobalCache::is_reserved(const SealedFields& fields, const SiteUnits* reserves) const {
  if (reserves == nullptr || fields.site >= kSites || (*reserves)[fields.site] == 0) return false;
  const std::uint64_t units = std::max<std::uint64_t>(1, units_of(fields));
  return sites_.units(fields.site) < (*reserves)[fields.site] + units;
}

// Returns units retired, 0: it cannot go now. `reserves`: not if its site needs it for its reserve.
std::uint64_t GlobalCache::evict(Link link, Descriptor& d, std::uint64_t word,
                                 const SiteUnits* reserves) {
  if ((EntryWord::flags(word) & EntryWord::kUnsettled) != 0) {
    settle(link, d);
    return 0;
  }
  const SealedFields fields = load_sealed(d);
  if (is_reserved(fields, reserves)) return 0;
  return retire_as(link, d, word) ? std::max<std::uint64_t>(1, units_of(fields)) : 0;
}

// The oldest arrival leaves the ring.
std::uint64_t GlobalCache::evict_arrival(std::uint32_t segment, const SiteUnits* reserves) {
  SegmentState& state = memory_.state(segment);
  std::uint64_t number = state.arrivals_out.load(kRelaxed);
  do {
    // The difference, since a damaged count may come around to 0.
    if (static_cast<std::int64_t>(state.arrivals_in.load(kRelaxed) - number) <= 0) return 0;
  } while (!state.arrivals_out.compare_exchange_weak(number, number + 1, kRelaxed));
  const Arrival arrival{memory_.arrival(segment, number).load(kAcquire)};
  std::uint64_t probation = state.probation.load(kRelaxed);
  while (!state.probation.compare_exchange_weak(
      probation, probation - std::min(probation, arrival.units()), kRelaxed)) {
  }
  if (arrival.index() >= memory_.geometry().descriptors) return 0;
  Descriptor& d = memory_.descriptor(segment, arrival.index());
  const std::uint64_t word = d.state.load(kAcquire);
  const std::uint8_t byte = memory_.clock_byte(segment, arrival.index());
  if ((byte & ClockByte::kProbation) == 0 || EntryWord::version(word) != arrival.version() ||
      EntryWord::state(word) != EntryState::kSealed) {
    return 0;
  }
  const std::uint64_t mean = mean_units(state);
  if (ClockByte::uses(byte) >= uses_worth(arrival.units(), mean)) {
    memory_.set_clock_byte(segment, arrival.index(),
                           static_cast<std::uint8_t>(ClockByte::kUsed | (byte & ClockByte::kSite)));
    return 0;
  }
  const std::uint64_t hash = d.sealed[0].load(kRelaxed);
  const std::uint64_t units =
      evict(memory_.link_to(segment, arrival.index(), arrival.version()), d, word, reserves);
  if (units != 0) add_ghost(segment, hash, units);
  return units;
}

// The hand moves on. `others`: set if it has met an entry that no reserve keeps.
std::uint64_t GlobalCache::evict_at_hand(std::uint32_t segment, const SiteUnits* reserves,
                                         bool& others) {
  const std::uint64_t descriptors = memory_.geometry().descriptors;
  const std::uint64_t first =
      memory_.state(segment).clock_hand.fetch_add(kHandStep, kRelaxed) % descriptors;
  const std::uint64_t mean = mean_units(memory_.state(segment));
  std::uint64_t retired = 0;
  for (std::uint64_t i = first; i < std::min(first + kHandStep, descriptors); ++i) {
    const std::uint8_t byte = memory_.clock_byte(segment, i);
    if (byte == 0) continue;
    Descriptor& d = memory_.descriptor(segment, i);
    const std::uint64_t word = d.state.load(kAcquire);
    const EntryState entry_state = EntryWord::state(word);
    if (entry_state == EntryState::kFree) memory_.set_clock_byte(segment, i, 0);
    if (entry_state != EntryState::kSealed) continue;
    // Its uses stay: they decide when it is not reserved any more.
    if (reserves != nullptr && (EntryWord::flags(word) & EntryWord::kUnsettled) == 0 &&
        is_reserved(load_sealed(d), reserves)) {
      continue;
    }
    others = true;
    if ((byte & ClockByte::kProbation) != 0) {
      const int next = (byte & ClockByte::kPassed) == 0
                           ? byte | ClockByte::kPassed
                           : byte & ~(ClockByte::kPassed | ClockByte::kProbation);
      memory_.set_clock_byte(segment, i, static_cast<std::uint8_t>(next));
    } else if (const auto worth = uses_worth(units_of(load_sealed(d)), mean);
               ClockByte::uses(byte) >= worth) {
      memory_.set_clock_byte(segment, i, static_cast<std::uint8_t>(byte - worth));
    } else {
      retired += evict(memory_.link_to(segment, i, EntryWord::version(word)), d, word, reserves);
    }
  }
  return retired;
}

bool GlobalCache::evict_some(std::uint32_t segment, std::uint64_t units) {
  if (memory_.lost(segment)) return false;
  if (!sites_.any()) return evict_until(segment, units, nullptr);
  const SiteUnits reserves = sites_.reserves();
  for (std::uint32_t n = 0; n < memory_.nodes(); ++n) {
    const std::uint32_t other = (segment + n) % memory_.nodes();
    if (memory_.lost(other)) continue;
    // Where all is reserved each miss would look at everything again.
    const std::uint64_t began = runtime::monotonic_ns();
    if (began < nothing_until_ns_[other].load(kRelaxed)) continue;
    bool nothing = false;
    if (evict_until(other, units, &reserves, &nothing)) return true;
    const std::uint64_t ended = runtime::monotonic_ns();
    if (nothing) nothing_until_ns_[other].store(ended + 20 * (ended - began), kRelaxed);
  }
  // Nobody has more than its reserve: somebody has to go.
  return evict_until(segment, units, nullptr);
}

bool GlobalCache::evict_until(std::uint32_t segment, std::uint64_t units,
                              const SiteUnits* reserves, bool* nothing) {
  const CacheGeometry& g = memory_.geometry();
  SegmentState& state = memory_.state(segment);
  const std::uint64_t most = g.groups * kGroupUnits / kProbationShare;
  // Reading everybody's ledger is what costs: once for several entries.
  units = std::max(units, std::min(kLeastUnits, g.groups * kGroupUnits / 64));
  std::uint64_t retired = 0;
  // So many turns of the hand take everybody off probation and bring every counter to zero.
  const std::uint64_t turn = g.descriptors / kHandStep + 1;
  const std::uint64_t max_steps = g.arrivals + 6 * turn;
  // Other processes move the same hand: one turn of our own steps may miss some.
  const std::uint64_t max_fruitless = 2 * turn;
  std::uint64_t fruitless = 0;
  std::uint64_t seen = ~0ULL;
  for (std::uint64_t step = 0; step < max_steps && fruitless < max_fruitless; ++step) {
    const std::uint64_t arrived = state.arrivals_in.load(kRelaxed);
    std::uint64_t waiting = arrived - state.arrivals_out.load(kRelaxed);
    // More than all who admit at once could have added: damaged.
    if (waiting > 2 * g.arrivals + 65536) {
      state.arrivals_out.store(arrived, kRelaxed);
      waiting = 0;
    }
    // What a death has left there, or damage.
    if (waiting == 0 && state.probation.load(kRelaxed) != 0) state.probation.store(0, kRelaxed);
    const bool crowded =
        state.probation.load(kRelaxed) > most || waiting > g.arrivals - g.arrivals / 8;
    if (waiting != 0 && crowded) {
      retired += evict_arrival(segment, reserves);
    } else {
      bool others = false;
      retired += evict_at_hand(segment, reserves, others);
      fruitless = others || reserves == nullptr ? 0 : fruitless + 1;
    }
    // Reads all ledgers, and waits for locks that a stopped process holds: not for the same entries
    // again, which slow readers may keep for long.
    if (retired != seen && (retired >= units || limbo_used_.count() > kLimbo / 2)) {
      seen = retired;
      // What somebody still reads does not help: go on until something was really freed.
      if (reclaim(true) > 0) return true;
      if (limbo_used_.count() >= kLimbo - 16) return false;
    }
  }
  if (nothing != nullptr) *nothing = retired == 0;
  return reclaim(true) > 0 || retired != 0;
}

// What fills of the site take: nobody can evict that.
std::uint64_t GlobalCache::filling_units(std::uint32_t site) const {
  const std::uint8_t bits = ClockByte::site(site);
  std::uint64_t units = 0;
  std::vector<Extent> extents;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (memory_.lost(segment)) continue;
    for (std::uint64_t i = 0; i < memory_.geometry().descriptors; ++i) {
      if ((memory_.clock_byte(segment, i) & ClockByte::kSite) != bits) continue;
      const Descriptor& d = memory_.descriptor(segment, i);
      if (EntryWord::state(d.state.load(kAcquire)) != EntryState::kFilling || site_of(d) != site ||
          !space_.extents(load_sealed(d), d.overflow.load(kAcquire), false, extents)) {
        continue;
      }
      for (const Extent& extent : extents) units += extent.units();
    }
  }
  return units;
}

// Makes room for so many more units of a site by evicting its own: a clock of its own over the
// descriptors of all nodes, by the bits of the clock bytes that say of which sites an entry may be.
// False: its quota is too small for them.
bool GlobalCache::keep_quota(std::uint32_t site, std::uint64_t units) {
  const std::uint64_t quota = sites_.quota(site);
  const auto fits = [&] { return sites_.units(site) + units <= quota; };
  if (quota == 0 || fits()) return true;
  if (units > quota) return false;
  // What cannot fit evicts less than it wants: nothing that would be missed, unless it wants much.
  if (units > quota / kMuchOfQuota && filling_units(site) + units > quota) return false;
  const std::uint64_t descriptors = memory_.geometry().descriptors;
  const std::uint64_t steps = (descriptors + kSiteStep - 1) / kSiteStep * memory_.nodes();
  const std::uint8_t bits = ClockByte::site(site);
  std::uint64_t evicted = 0;
  std::uint64_t seen = ~0ULL;
  std::uint64_t fruitless = 0;  // steps
  // So many turns bring every counter to zero.
  for (std::uint64_t turn = 0;
       turn < steps * (ClockByte::kMaxUses + 1) && fruitless <= steps && !fits(); ++turn) {
    ++fruitless;
    const std::uint64_t step = sites_.hand(site).fetch_add(1, kRelaxed) % steps;
    const auto segment = static_cast<std::uint32_t>(step % memory_.nodes());
    if (memory_.lost(segment)) continue;
    const std::uint64_t first = step / memory_.nodes() * kSiteStep;
    for (std::uint64_t i = first; i < std::min(first + kSiteStep, descriptors); ++i) {
      const std::uint8_t byte = memory_.clock_byte(segment, i);
      if ((byte & ClockByte::kSite) != bits) continue;
      Descriptor& d = memory_.descriptor(segment, i);
      const std::uint64_t word = d.state.load(kAcquire);
      if (EntryWord::state(word) != EntryState::kSealed || site_of(d) != site) continue;
      if (ClockByte::uses(byte) > 0) {
        memory_.set_clock_byte(segment, i, static_cast<std::uint8_t>(byte - 1));
        fruitless = 0;
      } else if (!fits()) {
        const std::uint64_t gone =
            evict(memory_.link_to(segment, i, EntryWord::version(word)), d, word, nullptr);
        evicted += gone;
        if (gone != 0 || (EntryWord::flags(word) & EntryWord::kUnsettled) != 0) fruitless = 0;
      }
    }
    if (evicted != seen && limbo_used_.count() > kLimbo / 2) {
      seen = evicted;
      reclaim(true);
    }
  }
  reclaim(true);
  return fits();
}

// Free what our node has lent and nobody has used of late: a clock over the descriptors of the segment
// that has borrowed most, for what lies here. Small loans are left to the borrower's own evictions: to
// look for them would cost more than they give. False: nothing was found in this part of its turn.
bool GlobalCache::recall(std::uint64_t units) {
  const std::uint32_t lender = instance_.node();
  const Loans& loans = space_.loans();
  std::uint32_t borrower = lender;
  std::uint64_t most = 0;
  for (std::uint32_t n = 0; n < memory_.nodes(); ++n) {
    const std::uint64_t lent = n == lender || memory_.lost(n) ? 0 : loans.lent(lender, n);
    if (lent > most) {
      most = lent;
      borrower = n;
    }
  }
  if (most < loans.capacity() / kWorthRecalling + 1) return false;
  const std::optional<SiteUnits> reserves =
      sites_.any() ? std::optional(sites_.reserves()) : std::nullopt;
  const std::uint64_t descriptors = memory_.geometry().descriptors;
  std::uint64_t retired = 0;
  std::uint64_t at = 0;
  std::vector<Extent> extents;
  for (std::uint64_t n = 0; n < kRecallMost && (n % kRecallStep != 0 || retired < units); ++n) {
    if (n % kRecallStep == 0) at = loans.table(lender).hand.fetch_add(kRecallStep, kRelaxed);
    const std::uint64_t i = at++ % descriptors;
    const std::uint8_t byte = memory_.clock_byte(borrower, i);
    if (byte == 0) continue;
    Descriptor& d = memory_.descriptor(borrower, i);
    const std::uint64_t word = d.state.load(kAcquire);
    if (EntryWord::state(word) != EntryState::kSealed ||
        !space_.extents(load_sealed(d), d.overflow.load(kAcquire), false, extents)) {
      continue;
    }
    std::uint64_t here = 0;
    for (const Extent& extent : extents) here += extent.segment() == lender ? extent.units() : 0;
    if (here == 0) continue;
    if (ClockByte::uses(byte) > 0) {
      memory_.set_clock_byte(borrower, i, static_cast<std::uint8_t>(byte - 1));
    } else if (evict(memory_.link_to(borrower, i, EntryWord::version(word)), d, word,
                     reserves ? &*reserves : nullptr) != 0) {
      retired += here;
    }
  }
  return retired != 0 && reclaim(true) != 0;
}

void GlobalCache::recount(bool at_once) {
  const std::uint32_t nodes = memory_.nodes();
  const std::uint64_t began = runtime::monotonic_ns();
  if ((began < next_recount_ns_ && !at_once) || (!sites_.any() && nodes == 1)) return;
  const Loans& loans = space_.loans();
  const SiteUnits before = sites_.counts();
  SiteUnits counted{};
  using Lent = std::array<std::array<std::uint64_t, gsm::kMaxNodes>, gsm::kMaxNodes>;
  Lent lent_before{};
  Lent lent{};
  bool any_lent = false;
  for (std::uint32_t lender = 0; lender < nodes && nodes > 1; ++lender) {
    if (memory_.lost(lender)) continue;
    const std::uint64_t used_before = loans.used(lender);
    Loans::correct(loans.table(lender).used, used_before, space_.used_units(lender));
    for (std::uint32_t n = 0; n < nodes; ++n) {
      lent_before[lender][n] = loans.lent(lender, n);
      any_lent = any_lent || lent_before[lender][n] != 0;
    }
  }
  std::vector<Extent> extents;
  for (std::uint32_t segment = 0; segment < nodes && (any_lent || sites_.any()); ++segment) {
    if (memory_.lost(segment)) continue;
    for (std::uint64_t i = 0; i < memory_.geometry().descriptors; ++i) {
      const std::uint8_t byte = memory_.clock_byte(segment, i);
      if (byte == 0) continue;
      const Descriptor& d = memory_.descriptor(segment, i);
      const std::uint64_t word = d.state.load(kAcquire);
      const EntryState entry_state = EntryWord::state(word);
      const std::uint32_t site = site_of(d);
      const bool of_site = site != 0 && site < kSites && entry_state != EntryState::kRetired;
      if ((entry_state != EntryState::kFilling && entry_state != EntryState::kSealed &&
           entry_state != EntryState::kRetired) ||
          !(of_site || any_lent) ||
          !space_.extents(load_sealed(d), d.overflow.load(kAcquire), false, extents)) {
        continue;
      }
      for (const Extent& extent : extents) {
        if (of_site) counted[site] += extent.units();
        lent[extent.segment()][segment] += extent.units();
      }
      // Whoever takes a lost byte for a free one forgets the site.
      if (const std::uint8_t bits = ClockByte::site(site);
          of_site && entry_state == EntryState::kSealed && (byte & ClockByte::kSite) != bits) {
        memory_.set_clock_byte(segment, i,
                               static_cast<std::uint8_t>((byte & ~ClockByte::kSite) | bits));
      }
    }
  }
  if (sites_.any()) {
    sites_.correct(before, counted);
    sites_.age(sites_seen_);
  }
  for (std::uint32_t lender = 0; lender < nodes && any_lent; ++lender) {
    if (memory_.lost(lender)) continue;
    for (std::uint32_t n = 0; n < nodes; ++n) {
      if (n == lender) continue;
      Loans::correct(loans.table(lender).lent[n], lent_before[lender][n], lent[lender][n]);
    }
  }
  const std::uint64_t ended = runtime::monotonic_ns();
  next_recount_ns_ = ended + std::max(kLeastBetweenRecounts, 20 * (ended - began));
}

}  // namespace mcs::cache
