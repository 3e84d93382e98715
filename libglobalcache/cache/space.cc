// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/space.h"

#include <algorithm>
#include <bit>

namespace mcs::cache {

using runtime::DeadInstance;
using runtime::Instance;
using runtime::LockAnswer;
using runtime::OpRecord;

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr unsigned kGroupProbes = 24;        // groups looked at before "full" is answered
constexpr unsigned kGroupRun = 8;            // so many in a row, the rest far apart
constexpr unsigned kDescriptorProbes = 512;  // clock bytes, likewise
constexpr unsigned kDescriptorRun = 16;      // so many in a row, then far from there
constexpr unsigned kFreedTries = 4;          // of those we have freed, before others are looked at

struct Run {
  std::uint32_t first = 0;
  std::uint32_t length = 0;
};

// The first run of `wanted` free units, or else the longest one.
Run find_run(const Group& group, std::uint32_t wanted) {
  Run best;
  std::uint32_t at = 0;
  while (at < kGroupUnits) {
    const std::uint64_t word = group.bits[at / 64].load(kRelaxed) >> (at % 64);
    const auto used = static_cast<std::uint32_t>(std::countr_one(word));
    if (used != 0) {
      at += std::min(used, 64 - at % 64);
      continue;
    }
    Run run{at, 0};
    while (at < kGroupUnits) {
      const std::uint64_t rest = group.bits[at / 64].load(kRelaxed) >> (at % 64);
      const auto free = std::min<std::uint32_t>(
          static_cast<std::uint32_t>(std::countr_zero(rest)), 64 - at % 64);
      run.length += free;
      at += free;
      if (at % 64 != 0 || run.length >= wanted) break;
      if (at < kGroupUnits && (group.bits[at / 64].load(kRelaxed) & 1) != 0) break;
    }
    if (run.length > best.length) best = run;
    if (best.length >= wanted) break;
  }
  best.length = std::min(best.length, wanted);
  return best;
}

// Of whole pages.
Run find_pages(const Group& group, std::uint32_t wanted) {
  constexpr std::uint32_t kInWord = 64 / kPageUnits;
  Run best;
  Run run;
  for (std::uint32_t page = 0; page * kPageUnits < kGroupUnits && best.length < wanted; ++page) {
    const std::uint64_t word = group.bits[page / kInWord].load(kRelaxed);
    if ((word >> (page % kInWord * kPageUnits) & ((1U << kPageUnits) - 1)) != 0) {
      run.length = 0;
      continue;
    }
    if (run.length == 0) run.first = page * kPageUnits;
    run.length += kPageUnits;
    if (run.length > best.length) best = run;
  }
  return best;
}

// What is worth whole pages: kWholePages units and more.
constexpr std::uint32_t kWholePages = 64;
Run find_room(const Group& group, std::uint32_t wanted, bool whole_pages) {
  return whole_pages ? find_pages(group, (wanted + kPageUnits - 1) / kPageUnits * kPageUnits)
                     : find_run(group, wanted);
}

// Which record of its instance, counted from 1.
std::uint64_t claimer_of(const OpRecord& op, const runtime::Slot& slot) {
  return static_cast<std::uint64_t>(&op - slot.ops.data()) + 1;
}

// Far from `at`: steps of the golden section spread evenly over all of n places, however many are
// made, so that what is free is found though it lies together somewhere else.
std::uint64_t far_from(std::uint64_t at, std::uint64_t n) {
  return (at + static_cast<std::uint64_t>(static_cast<double>(n) * 0.6180339887498949)) % n;
}

void set_phase(OpRecord& op, Phase phase) { note(op.phase, static_cast<std::uint64_t>(phase)); }

}  // namespace

Space::Space(const Memory& memory, Instance& instance)
    : memory_(memory), loans_(memory), instance_(instance), cursors_(memory.nodes()) {
  // Processes start in different places, so that they seldom meet in one group.
  for (Cursor& cursor : cursors_) {
    const std::uint64_t spread = instance.id().value * 0x9e3779b97f4a7c15ULL;
    cursor.group.store((spread >> 32) % std::max<std::uint64_t>(1, memory.geometry().groups),
                       kRelaxed);
    cursor.descriptor.store((spread >> 16) % memory.geometry().descriptors, kRelaxed);
  }
}

std::uint64_t Space::count(const Descriptor& d) {
  SealedFields fields{};
  auto words = std::bit_cast<std::array<std::uint64_t, kSealedWords>>(fields);
  words[kCountWord] = d.sealed[kCountWord].load(kAcquire);
  return std::bit_cast<SealedFields>(words).extent_count;
}

void Space::set_count(Descriptor& d, std::uint64_t n) {
  SealedFields fields{};
  fields.extent_count = n & ((1U << 20) - 1);
  const auto words = std::bit_cast<std::array<std::uint64_t, kSealedWords>>(fields);
  d.sealed[kCountWord].store(words[kCountWord], kRelease);
}

void Space::mark(Group& group, Extent extent, bool used) {
  std::uint64_t at = extent.first() % kGroupUnits;
  std::uint64_t left = extent.units();
  while (left > 0) {
    const std::uint64_t in_word = std::min<std::uint64_t>(left, 64 - at % 64);
    const std::uint64_t mask = (in_word == 64 ? ~0ULL : (1ULL << in_word) - 1) << (at % 64);
    Word& word = group.bits[at / 64];
    const std::uint64_t old = word.load(kRelaxed);
    word.store(used ? old | mask : old & ~mask, kRelaxed);
    at += in_word;
    left -= in_word;
  }
}

Overflow* Space::block(const Descriptor& d, std::uint64_t number) const {
  Link link{d.overflow.load(kAcquire)};
  for (std::uint64_t i = 0;; ++i) {
    Overflow* overflow = memory_.resolve_overflow(link);
    if (overflow == nullptr) return nullptr;
    const std::uint64_t word = overflow->state.load(kAcquire);
    if (EntryWord::state(word) != EntryState::kOverflow ||
        EntryWord::version(word) != link.version()) {
      return nullptr;
    }
    if (i == number) return overflow;
    link = Link{overflow->next.load(kAcquire)};
  }
}

Link Space::claim_at(std::uint32_t segment, std::uint64_t index, EntryState state, Word& intent,
                     std::uint64_t claimer) {
  if (memory_.clock_byte(segment, index) != 0) return {};
  Descriptor& d = memory_.descriptor(segment, index);
  std::uint64_t word = d.state.load(kAcquire);
  if (EntryWord::state(word) != EntryState::kFree) {
    if (EntryWord::state(word) != EntryState::kInvalid) {
      memory_.set_clock_byte(segment, index, ClockByte::kUsed);
    }
    return {};
  }
  const Link link = memory_.link_to(segment, index, EntryWord::version(word) + 1);
  note(intent, link.value);
  if (d.state.compare_exchange_strong(
          word, EntryWord::make(link.version(), state, instance_.slot_number() + 1, claimer),
          std::memory_order_acq_rel)) {
    memory_.set_clock_byte(segment, index, ClockByte::kUsed);
    return link;
  }
  note(intent, 0);
  return {};
}

Link Space::claim_descriptor(std::uint32_t segment, EntryState state, Word& intent,
                             std::uint64_t claimer) {
  const CacheGeometry& g = memory_.geometry();
  Cursor& cursor = cursors_[segment];
  for (unsigned attempt = 0; attempt < kFreedTries; ++attempt) {
    const std::uint64_t freed = cursor.freed_descriptors.take();
    if (freed == Freed::kNone) break;
    const Link link = claim_at(segment, freed, state, intent, claimer);
    if (link.value != 0) return link;
  }
  std::uint64_t at = cursor.descriptor.load(kRelaxed);
  for (unsigned probe = 1; probe <= kDescriptorProbes;
       at = probe % kDescriptorRun == 0 ? far_from(at, g.descriptors) : (at + 1) % g.descriptors,
                ++probe) {
    const Link link = claim_at(segment, at, state, intent, claimer);
    if (link.value == 0) continue;
    cursor.descriptor.store((at + 1) % g.descriptors, kRelaxed);
    return link;
  }
  cursor.descriptor.store(at, kRelaxed);
  return {};
}

bool Space::attach(OpRecord& op, Link entry, Descriptor& d, Extent extent) {
  const std::uint64_t n = count(d);
  if (n >= EntryWord::kMaxCursor) return false;
  if (n < 2) {
    d.sealed[kExtentWord + n].store(extent.value, kRelaxed);
    set_count(d, n + 1);
    return true;
  }
  const std::uint64_t number = (n - 2) / kOverflowExtents;
  const std::uint64_t position = (n - 2) % kOverflowExtents;
  Overflow* overflow = nullptr;
  if (position == 0) {
    const Link link = claim_descriptor(entry.segment(), EntryState::kOverflow, op.c,
                                       claimer_of(op, instance_.own()));
    if (link.value == 0) return false;
    overflow = memory_.resolve_overflow(link);
    if (overflow == nullptr) return false;  // its segment has just left the view
    overflow->next.store(Link::kEnd, kRelaxed);
    for (Word& word : overflow->extents) word.store(0, kRelaxed);
    Word* last = &d.overflow;
    if (number > 0) {
      Overflow* previous = block(d, number - 1);
      if (previous == nullptr) return false;
      last = &previous->next;
    }
    last->store(link.value, kRelease);
  } else {
    overflow = block(d, number);
    if (overflow == nullptr) return false;
  }
  overflow->extents[position].store(extent.value, kRelaxed);
  set_count(d, n + 1);
  return true;
}

SpaceAnswer Space::grow_in(std::uint32_t segment, std::uint64_t number, Link entry, Descriptor& d,
                           std::uint64_t units, std::uint64_t min_units, bool whole_pages,
                           Extent& got) {
  Group& group = memory_.group(segment, number);
  const auto wanted = static_cast<std::uint32_t>(std::min<std::uint64_t>(units, kGroupUnits));
  // Looked at before locking: most probes of a full cache end here.
  if (find_room(group, wanted, whole_pages).length < min_units) return SpaceAnswer::kFull;
  Instance::Op op(instance_);
  OpRecord& record = op.record();
  set_phase(record, Phase::kLocking);
  if (!op.try_lock(group.lock, memory_.lock_ref(segment, group.lock))) {
    const std::uint64_t word = group.lock.load();
    if (OwnerLock::is_held(word)) {
      const InstanceId holder = OwnerLock::owner(word);
      if (!instance_.is_dead(holder) || !instance_.recover(holder.slot(), "lock wait")) {
        instance_.report_blocking(holder);
      }
    }
    return SpaceAnswer::kBusy;
  }
  const Run run = find_room(group, wanted, whole_pages);
  if (run.length < min_units || run.length == 0 ||
      !loans_.take(segment, instance_.node(), entry.segment(), run.length)) {
    op.unlock();
    return SpaceAnswer::kFull;
  }
  got = Extent::make(segment, number * kGroupUnits + run.first, run.length,
                     memory_.incarnation(segment));
  record.a.store(got.value, kRelaxed);
  record.b.store(entry.value, kRelaxed);
  record.c.store(0, kRelaxed);
  set_phase(record, Phase::kMarking);
  mark(group, got, true);
  const bool attached = attach(record, entry, d, got);
  if (!attached) mark(group, got, false);
  set_phase(record, Phase::kDone);
  op.unlock();
  if (!attached) loans_.give_back(segment, entry.segment(), got.units());
  return attached ? SpaceAnswer::kOk : SpaceAnswer::kNoDescriptor;
}

SpaceAnswer Space::grow(Link entry, Descriptor& d, std::uint64_t units, std::uint64_t min_units,
                        bool local, Extent& got) {
  const std::uint64_t groups = memory_.geometry().groups;
  if (groups == 0) return SpaceAnswer::kFull;
  if (memory_.resolve(entry) == nullptr) return SpaceAnswer::kLost;
  // What follows whole pages in one entry gets whole pages too: the body is sent from its pages
  // only if all of it lies so.
  const Extent begin{count(d) > 0 ? d.sealed[kExtentWord].load(kRelaxed) : 0};
  const bool large = units >= kWholePages || (begin.units() >= kWholePages && begin.whole_pages());
  bool busy = false;
  const auto look = [&](std::uint32_t segment, std::uint64_t most, bool whole_pages) {
    if (whole_pages) most = most / kPageUnits * kPageUnits;
    if (most < min_units) return SpaceAnswer::kFull;
    Cursor& cursor = cursors_[segment];
    const auto attempt = [&](std::uint64_t group) {
      const SpaceAnswer answer =
          grow_in(segment, group, entry, d, std::min(units, most), min_units, whole_pages, got);
      busy = busy || answer == SpaceAnswer::kBusy;
      return answer;
    };
    for (auto& freed : cursor.freed) {
      const std::uint64_t group = freed.load(kRelaxed);
      if (group == 0) continue;
      const SpaceAnswer answer = attempt(group - 1);
      if (answer == SpaceAnswer::kOk || answer == SpaceAnswer::kNoDescriptor) return answer;
      // It may still have room for what needs no whole pages.
      std::uint64_t expected = group;
      if (!whole_pages) freed.compare_exchange_strong(expected, 0, kRelaxed);
    }
    std::uint64_t group = cursor.group.load(kRelaxed) % groups;
    for (unsigned probe = 0; probe < std::min<std::uint64_t>(kGroupProbes, groups); ++probe) {
      const SpaceAnswer answer = attempt(group);
      if (answer == SpaceAnswer::kOk || answer == SpaceAnswer::kNoDescriptor) {
        cursor.group.store(group, kRelaxed);
        return answer;
      }
      group = probe + 1 < kGroupRun ? (group + 1) % groups : far_from(group, groups);
    }
    cursor.group.store(group, kRelaxed);
    return SpaceAnswer::kFull;
  };
  const auto look_in = [&](std::uint32_t segment, std::uint64_t most) {
    if (memory_.lost(segment)) return SpaceAnswer::kFull;
    const SpaceAnswer answer = large ? look(segment, most, true) : SpaceAnswer::kFull;
    return answer == SpaceAnswer::kFull ? look(segment, most, false) : answer;
  };
  // Local memory first.
  SpaceAnswer answer = look_in(instance_.node(), kGroupUnits);
  if (answer == SpaceAnswer::kFull && !local && memory_.nodes() > 1) {
    std::array<std::uint32_t, gsm::kMaxNodes> others;
    for (const std::uint32_t lender : loans_.lenders(instance_.node(), min_units, others)) {
      answer = look_in(lender, memory_.lost(instance_.node()) ? kGroupUnits : loans_.lendable(lender));
      if (answer != SpaceAnswer::kFull) break;
    }
  }
  return answer == SpaceAnswer::kFull && busy ? SpaceAnswer::kBusy : answer;
}

void Space::free_block(Link block, std::uint64_t word) {
  Descriptor* at = memory_.resolve(block);
  if (at == nullptr) return;
  Descriptor& d = *at;
  d.overflow.store(Link::kEnd, kRelaxed);
  d.sealed[kCountWord].store(0, kRelaxed);
  if (d.state.compare_exchange_strong(word, EntryWord::make(block.version(), EntryState::kFree, 0),
                                      std::memory_order_acq_rel)) {
    memory_.set_clock_byte(block.segment(), block.index(), 0);
    cursors_[block.segment()].freed_descriptors.add(block.index());
  }
}

void Space::free_orphaned_block(Link block) {
  const Overflow* overflow = memory_.resolve_overflow(block);
  if (overflow == nullptr) return;
  const std::uint64_t word = overflow->state.load(kAcquire);
  if (EntryWord::state(word) != EntryState::kOverflow || EntryWord::version(word) != block.version()) {
    return;
  }
  free_block(block, word);
}

void Space::pass_freed_block(Link entry, Descriptor& d) const {
  std::uint64_t word = d.state.load(kAcquire);
  const std::uint64_t total = count(d);
  const std::uint64_t number = EntryWord::cursor(word);
  if (EntryWord::version(word) != entry.version() || number < 2 || number >= total) return;
  const std::uint64_t expected = (total - 3) / kOverflowExtents - (number - 2) / kOverflowExtents + 1;
  std::uint64_t there = 0;
  while (there < expected && block(d, there) != nullptr) ++there;
  if (there + 1 != expected) return;
  d.state.compare_exchange_strong(
      word, EntryWord::make(entry.version(), EntryState::kRetired, EntryWord::owner_plus_one(word),
                            number + 1, EntryWord::flags(word)),
      std::memory_order_acq_rel);
}

std::uint64_t Space::keep_owned(std::uint32_t segment, std::uint64_t group, std::uint64_t word,
                                std::uint64_t marked, std::uint64_t owned) {
  for (std::uint64_t unit = 0; unit < 64; unit += kPageUnits) {
    const std::uint64_t page = ((1ULL << kPageUnits) - 1) << unit;
    if ((marked & ~owned & page) == 0) continue;
    // The kernel may still have it to send.
    if ((owned & page) == 0 &&
        !memory_.domain().segment(segment).renew_payload(
            (group * kGroupUnits + word * 64 + unit) * kUnitBytes, kPageUnits * kUnitBytes)) {
      continue;
    }
    marked &= ~page | owned;
  }
  return marked;
}

bool Space::set_bits(std::uint32_t segment, std::uint64_t number, std::uint64_t lock, bool orphaned,
                     const std::array<std::uint64_t, kGroupWords>& bits,
                     const std::array<std::uint64_t, kGroupWords>& owned) {
  Group& group = memory_.group(segment, number);
  if (!orphaned && !OwnerLock::is_free(lock)) return false;
  const auto same = [&] {
    for (std::uint32_t w = 0; w < kGroupWords; ++w) {
      if (group.bits[w].load(kAcquire) != bits[w]) return false;
    }
    return true;
  };
  Instance::Op op(instance_);
  OpRecord& record = op.record();
  record.a.store(Extent::make(segment, number * kGroupUnits, 1, memory_.incarnation(segment)).value, kRelaxed);
  record.b.store(0, kRelaxed);
  // What an orphan's lock says of the bits is gone when it is stolen: not even a death right then may leave
  // them as they are.
  set_phase(record, orphaned ? Phase::kSetting : Phase::kLocking);
  const runtime::LockRef ref = memory_.lock_ref(segment, group.lock);
  if (orphaned ? !op.steal(group.lock, ref, lock) : !op.try_lock(group.lock, ref)) return false;
  // What was nobody's still is, if the lock stood still since: its word counts how often it was taken.
  constexpr std::uint64_t kEpochs = 0xffULL << 48;
  const bool still = (group.lock.load() & kEpochs) == ((lock + (1ULL << 48)) & kEpochs) && same();
  if (still) {
    set_phase(record, Phase::kSetting);
    for (std::uint32_t w = 0; w < kGroupWords; ++w) {
      const std::uint64_t marked = orphaned ? bits[w] | owned[w] : bits[w];
      group.bits[w].store(keep_owned(segment, number, w, marked, owned[w]), kRelaxed);
    }
  }
  set_phase(record, Phase::kDone);
  op.unlock();
  if (still) hint_group(segment, number);
  return still;
}

void Space::clear(OpRecord& op, Descriptor& d) {
  const Extent extent{op.a.load(kRelaxed)};
  const Link entry{op.b.load(kRelaxed)};
  const Link overflow_link{op.c.load(kRelaxed)};
  const std::uint64_t number = op.d.load(kRelaxed);
  if (memory_.valid(extent)) mark(memory_.group(extent.segment(), extent.group()), extent, false);
  if (overflow_link.value != 0) {
    Overflow* overflow = memory_.resolve_overflow(overflow_link);
    if (overflow != nullptr) {
      const std::uint64_t next = overflow->next.load(kAcquire);
      std::uint64_t seen = overflow_link.value;
      std::uint64_t word = overflow->state.load(kAcquire);
      if (EntryWord::state(word) == EntryState::kOverflow &&
          EntryWord::version(word) == overflow_link.version()) {
        d.overflow.compare_exchange_strong(seen, next, std::memory_order_acq_rel);
        free_block(overflow_link, word);
      }
    }
  }
  std::uint64_t word = d.state.load(kAcquire);
  if (EntryWord::state(word) == EntryState::kRetired &&
      EntryWord::version(word) == entry.version() && EntryWord::cursor(word) == number) {
    d.state.compare_exchange_strong(
        word, EntryWord::make(entry.version(), EntryState::kRetired, EntryWord::owner_plus_one(word),
                              number + 1, EntryWord::flags(word)),
        std::memory_order_acq_rel);
  }
}

// Whether its extents may be believed. If not, its space stays marked until somebody has looked who
// owns what (repair.h).
bool Space::may_clear(Link entry, const Descriptor& d, std::uint64_t word) const {
  if ((EntryWord::flags(word) & EntryWord::kWasSealed) == 0 || EntryWord::cursor(word) != 0) {
    return true;
  }
  const SealedWords words = load_words(d);
  return std::bit_cast<SealedFields>(words).meta_sum ==
         meta_sum(words, d.overflow.load(kAcquire), entry.version());
}

bool Space::free_entry(Link entry, Descriptor& d) {
  const std::uint64_t total = count(d);
  const auto forget_space = [&] {
    memory_.state(entry.segment()).damage.fetch_add(1, kRelaxed);
    d.overflow.store(Link::kEnd, kRelease);
  };
  for (;;) {
    const std::uint64_t word = d.state.load(kAcquire);
    if (EntryWord::state(word) != EntryState::kRetired ||
        EntryWord::version(word) != entry.version()) {
      return true;
    }
    const std::uint64_t number = EntryWord::cursor(word);
    if (number >= total) break;
    if (!may_clear(entry, d, word)) {
      forget_space();
      break;
    }
    Extent extent;
    std::uint64_t overflow_link = 0;
    if (number < 2) {
      extent = Extent{d.sealed[kExtentWord + number].load(kRelaxed)};
    } else {
      // Blocks are freed with their last extent, so the current one is always the first.
      overflow_link = d.overflow.load(kAcquire);
      const Overflow* overflow = block(d, 0);
      if (overflow == nullptr) {
        // Freed, perhaps, by one that died before it could say so, and left no record.
        pass_freed_block(entry, d);
        if (EntryWord::cursor(d.state.load(kAcquire)) != number) continue;
        forget_space();
        break;
      }
      const std::uint64_t position = (number - 2) % kOverflowExtents;
      extent = Extent{overflow->extents[position].load(kRelaxed)};
      if (position + 1 < kOverflowExtents && number + 1 < total) overflow_link = 0;
    }
    const bool former = extent.sound() && memory_.is_former(extent);
    if (!former && (!memory_.valid(extent) || !extent.sound())) {
      forget_space();
      break;
    }
    if (!former && (EntryWord::flags(word) & EntryWord::kWasSent) != 0 && extent.whole_pages() &&
        !memory_.segment(extent.segment(), extent.incarnation())
             .renew_payload(extent.first() * kUnitBytes, extent.bytes())) {
      return false;
    }
    Instance::Op op(instance_);
    OpRecord& record = op.record();
    set_phase(record, Phase::kLocking);
    record.a.store(extent.value, kRelaxed);
    record.b.store(entry.value, kRelaxed);
    record.c.store(overflow_link, kRelaxed);
    record.d.store(number, kRelaxed);
    if (former) {
      // Its units are gone with their segment; only the entry has to move on.
      clear(record, d);
      continue;
    }
    Group& group = memory_.group(extent.segment(), extent.group());
    if (op.lock(group.lock, memory_.lock_ref(extent.segment(), group.lock)) !=
        LockAnswer::kAcquired) {
      return false;
    }
    set_phase(record, Phase::kClearing);
    clear(record, d);
    set_phase(record, Phase::kDone);
    op.unlock();
    loans_.give_back(extent.segment(), entry.segment(), extent.units());
    hint_group(extent.segment(), extent.group());
  }
  // A block that was attached for an extent that never came is freed by the same rule.
  d.sealed[kCountWord].store(0, kRelease);
  std::uint64_t word = d.state.load(kAcquire);
  if (EntryWord::state(word) == EntryState::kRetired &&
      EntryWord::version(word) == entry.version()) {
    for (Link link{d.overflow.load(kAcquire)}; !link.is_end();) {
      Overflow* overflow = memory_.resolve_overflow(link);
      if (overflow == nullptr) break;
      std::uint64_t block_word = overflow->state.load(kAcquire);
      if (EntryWord::state(block_word) != EntryState::kOverflow ||
          EntryWord::version(block_word) != link.version()) {
        break;
      }
      const Link next{overflow->next.load(kAcquire)};
      free_block(link, block_word);
      link = next;
    }
    d.overflow.store(Link::kEnd, kRelease);
    d.state.compare_exchange_strong(word, EntryWord::make(entry.version(), EntryState::kFree, 0),
                                    std::memory_order_acq_rel);
    memory_.set_clock_byte(entry.segment(), entry.index(), 0);
    cursors_[entry.segment()].freed_descriptors.add(entry.index());
  }
  return true;
}

void Space::repair(const DeadInstance& dead, OpRecord& op) {
  const Extent extent{op.a.load(kRelaxed)};
  const Link entry{op.b.load(kRelaxed)};
  const auto phase = static_cast<Phase>(op.phase.load(kAcquire));
  if (phase == Phase::kSetting && memory_.valid(extent)) {
    for (Word& word : memory_.group(extent.segment(), extent.group()).bits) word.store(~0ULL, kRelaxed);
    Word& settled = memory_.state(extent.segment()).settled;
    std::uint64_t seen = settled.load(kAcquire);
    while (!settled.compare_exchange_weak(seen, Settled::undone(seen), std::memory_order_acq_rel)) {
    }
  }
  if (phase != Phase::kMarking && phase != Phase::kClearing) return;
  Descriptor* d = memory_.resolve(entry);
  // The lock that is held must be the one of the extent's group, else this is not what happened.
  if (d == nullptr || !memory_.valid(extent) || !extent.sound() ||
      op.lock.load(kRelaxed) !=
          memory_.lock_ref(extent.segment(), memory_.group(extent.segment(), extent.group()).lock)
              .value) {
    return;
  }
  if (phase == Phase::kClearing) {
    clear(op, *d);
    return;
  }
  const std::uint64_t n = count(*d);
  const Link overflow_link{op.c.load(kAcquire)};
  if (overflow_link.value != 0) {
    // A block that was claimed: is it in the entry's chain?
    bool reachable = false;
    Link link{d->overflow.load(kAcquire)};
    for (std::uint64_t i = 0; i <= n && !link.is_end(); ++i) {
      if (link == overflow_link) reachable = true;
      const Overflow* overflow = memory_.resolve_overflow(link);
      if (overflow == nullptr || reachable) break;
      link = Link{overflow->next.load(kAcquire)};
    }
    // The record may name a block that another thread of the dead process was faster to claim.
    const std::uint64_t claimed =
        EntryWord::make(overflow_link.version(), EntryState::kOverflow, dead.id.slot() + 1,
                        claimer_of(op, *dead.slot));
    const Overflow* overflow = memory_.resolve_overflow(overflow_link);
    if (!reachable && overflow != nullptr && overflow->state.load(kAcquire) == claimed) {
      free_block(overflow_link, claimed);
    }
  }
  Extent last;
  if (n == 1 || n == 2) {
    last = Extent{d->sealed[kExtentWord + n - 1].load(kRelaxed)};
  } else if (n > 2) {
    const Overflow* overflow = block(*d, (n - 3) / kOverflowExtents);
    if (overflow != nullptr) {
      last = Extent{overflow->extents[(n - 3) % kOverflowExtents].load(kRelaxed)};
    }
  }
  if (last != extent) mark(memory_.group(extent.segment(), extent.group()), extent, false);
}

bool Space::all_extents(const SealedFields& fields, std::uint64_t overflow_link,
                        bool check_sums, std::vector<Extent>& out) const {
  out.clear();
  const std::uint64_t total = fields.extent_count;
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(total, 2); ++i) {
    out.push_back(Extent{fields.extents[i]});
  }
  Link link{overflow_link};
  while (out.size() < total) {
    const Overflow* overflow = memory_.resolve_overflow(link);
    if (overflow == nullptr) return false;
    const std::uint64_t word = overflow->state.load(kAcquire);
    if (EntryWord::state(word) != EntryState::kOverflow ||
        EntryWord::version(word) != link.version()) {
      return false;
    }
    if (check_sums && overflow->sum.load(kRelaxed) != overflow_sum(*overflow)) return false;
    for (std::uint32_t i = 0; i < kOverflowExtents && out.size() < total; ++i) {
      out.push_back(Extent{overflow->extents[i].load(kRelaxed)});
    }
    link = Link{overflow->next.load(kAcquire)};
  }
  return std::all_of(out.begin(), out.end(), [&](Extent e) { return memory_.valid(e); });
}

void Space::hint_group(std::uint32_t segment, std::uint64_t group) {
  Cursor& cursor = cursors_[segment];
  for (const auto& freed : cursor.freed) {
    if (freed.load(kRelaxed) == group + 1) return;
  }
  const std::uint32_t at = cursor.next_freed.fetch_add(1, kRelaxed) % cursor.freed.size();
  cursor.freed[at].store(group + 1, kRelaxed);
}

std::uint64_t Space::used_units(std::uint32_t segment) const {
  std::uint64_t used = 0;
  for (std::uint64_t g = 0; g < memory_.geometry().groups; ++g) {
    for (const Word& word : memory_.group(segment, g).bits) {
      used += static_cast<std::uint64_t>(std::popcount(word.load(kRelaxed)));
    }
  }
  return used;
}

}  // namespace mcs::cache
