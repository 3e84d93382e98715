// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/repair.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "libglobalcache/cache/inspect.h"
#include "libglobalcache/runtime/global_mutex.h"

namespace mcs::cache {

using runtime::GlobalMutex;
using runtime::Instance;
using runtime::InstanceId;
using runtime::InstanceState;
using runtime::LockAnswer;
using runtime::MutexCell;
using runtime::StateWord;

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kAcqRel = std::memory_order_acq_rel;

constexpr std::size_t kGroupsAtOnce = 16;  // locked together; an instance has 32 records
constexpr auto kLookAround = std::chrono::milliseconds(50);
constexpr std::chrono::milliseconds kLeastPause{5000};
constexpr unsigned kPausePerWalk = 50;
constexpr std::chrono::milliseconds kPauseAfterHappening{1000};
constexpr unsigned kPausePerWalkAfterHappening = 20;
constexpr std::chrono::milliseconds kPauseWithEvidence{200};
constexpr unsigned kPausePerWalkWithEvidence = 4;

bool is_entry(EntryState state) {
  return state == EntryState::kFilling || state == EntryState::kSealed || state == EntryState::kRetired;
}

// Of something whose number of uses so far cannot be known any more: not one that is in use.
std::uint64_t unlikely_number(std::uint64_t word) {
  const std::uint64_t facts[] = {word, runtime::monotonic_ns()};
  return XXH3_64bits(facts, sizeof facts);
}

}  // namespace

Repairer::Repairer(GlobalCache& cache)
    : cache_(cache), memory_(cache.memory()), instance_(cache.instance()) {}

bool Repairer::is_dead_holder(std::uint64_t word) const {
  const InstanceId holder = OwnerLock::owner(word);
  return holder.valid() && holder.slot() < instance_.slot_count() && instance_.is_dead(holder) &&
         StateWord::incarnation(instance_.control(holder.slot()).state.load(kAcquire)) ==
             holder.incarnation() &&
         StateWord::state(instance_.control(holder.slot()).state.load(kAcquire)) !=
             InstanceState::kFree;
}

bool Repairer::lock(Instance::Op& op, std::uint32_t segment, OwnerLock& lock) const {
  return op.lock(lock, memory_.lock_ref(segment, lock)) == LockAnswer::kAcquired;
}

// What an entry still owns. False: there is no entry, or it changed all the time.
bool Repairer::entry_at(std::uint32_t segment, std::uint64_t index, Entry& entry) const {
  const Descriptor& d = memory_.descriptor(segment, index);
  for (unsigned attempt = 0; attempt < 16; ++attempt) {
    entry.word = d.state.load(kAcquire);
    if (!is_entry(EntryWord::state(entry.word))) return false;
    entry.link = memory_.link_to(segment, index, EntryWord::version(entry.word));
    entry.extents.clear();
    const SealedFields fields = load_sealed(d);
    const std::uint64_t total = std::min<std::uint64_t>(fields.extent_count, EntryWord::kMaxCursor);
    const std::uint64_t first = EntryWord::state(entry.word) == EntryState::kRetired
                                    ? EntryWord::cursor(entry.word)
                                    : 0;
    const auto take = [&](std::uint64_t value) {
      const Extent extent{value};
      if (extent.sound() && memory_.valid(extent)) entry.extents.push_back(extent);
    };
    for (std::uint64_t i = first; i < std::min<std::uint64_t>(total, 2); ++i) {
      take(fields.extents[i]);
    }
    // Blocks are freed with their last extent, so the first one left holds the cursor's extent.
    std::uint64_t number = first < 2 ? 2 : first - (first - 2) % kOverflowExtents;
    Link at{d.overflow.load(kAcquire)};
    for (std::uint64_t blocks = 0; !at.is_end() && blocks <= total / kOverflowExtents + 2; ++blocks) {
      const Overflow* block = memory_.resolve_overflow(at);
      if (block == nullptr) break;
      const std::uint64_t word = block->state.load(kAcquire);
      if (EntryWord::state(word) != EntryState::kOverflow || EntryWord::version(word) != at.version()) {
        break;
      }
      for (std::uint64_t i = 0; i < kOverflowExtents; ++i, ++number) {
        if (number >= first && number < total) take(block->extents[i].load(kRelaxed));
      }
      at = Link{block->next.load(kAcquire)};
    }
    std::atomic_thread_fence(kAcquire);
    if (d.state.load(kRelaxed) == entry.word) return true;
  }
  return false;
}

bool Repairer::stale_pins() const {
  for (const std::uint64_t pin : View(memory_.domain()).pins()) {
    const Descriptor* d = memory_.resolve(Link{pin});
    if (d == nullptr) {
      if (memory_.is_former(Link{pin})) return true;
      continue;
    }
    const std::uint64_t word = d->state.load(kAcquire);
    if (!is_entry(EntryWord::state(word)) || EntryWord::version(word) != Link{pin}.version()) return true;
  }
  return false;
}

// A sealed entry whose fields, blocks, key and head are as they were sealed.
bool Repairer::passes(Link link) const {
  const auto entry = View(memory_.domain()).sealed(link.segment(), link.index());
  return entry && entry->link == link;
}

bool Repairer::mend_slot_header(std::uint32_t number) {
  const auto& g = instance_.geometry();
  const auto window = instance_.home_segment(number).writable_window(
      g.slots + number % g.slots_per_node * g.slot_bytes, g.slot_bytes);
  if (!window) return false;
  auto* slot = reinterpret_cast<runtime::Slot*>(window.data());
  slot->tag = runtime::kSlotTag;
  slot->number = number;
  return true;
}

bool Repairer::mend_slot_state(std::uint32_t number, std::uint64_t word) {
  // A living owner does it itself: it knows who it is.
  if (instance_.liveness().held(number)) return false;
  runtime::SlotControl& control = instance_.control(number);
  const InstanceId owner{instance_.slot(number).identity.load(kAcquire)};
  if (owner.valid() && owner.slot() == number) {
    const bool changed = control.state.compare_exchange_strong(
        word, StateWord::make(InstanceState::kActive, owner.incarnation()), kAcqRel);
    return instance_.recover(number, "damaged state") || changed;
  }
  const auto incarnation =
      static_cast<std::uint32_t>(control.folded.load(kAcquire) + 1 + unlikely_number(word) % 65536);
  return control.state.compare_exchange_strong(
      word, StateWord::make(InstanceState::kFree, incarnation), kAcqRel);
}

bool Repairer::mend_free_slot(std::uint32_t number, std::uint64_t word) {
  // Nobody joins in it meanwhile.
  if (!instance_.liveness().acquire(number)) return false;
  const auto& g = instance_.geometry();
  bool mended = false;
  if (instance_.control(number).state.load(kAcquire) == word) {
    const auto window = instance_.home_segment(number).writable_window(
        g.slots + number % g.slots_per_node * g.slot_bytes, g.slot_bytes);
    if (window) {
      auto* slot = reinterpret_cast<runtime::Slot*>(window.data());
      for (Word& mutex : slot->mutexes) mutex.store(0, kRelaxed);
      for (auto& op : slot->ops) op.lock.store(0, kRelaxed);
      auto* area = reinterpret_cast<Word*>(window.data() + sizeof(runtime::Slot));
      for (std::uint64_t i = 0; i < (g.slot_bytes - sizeof(runtime::Slot)) / sizeof(Word); ++i) {
        if (area[i].load(kRelaxed) != 0) area[i].store(0, kRelease);
      }
      slot->identity.store(0, kRelease);
      mended = true;
    }
  }
  instance_.liveness().release(number);
  return mended;
}

bool Repairer::mend_lock(const Flaw& flaw) {
  std::byte* base = memory_.domain().segment(flaw.segment).metadata();
  const auto& r = instance_.geometry();
  if (is_dead_holder(flaw.word)) {
    return instance_.recover(OwnerLock::owner(flaw.word).slot(), "lock found");
  }
  if (flaw.number >= r.mutexes && flaw.number < r.mutexes + runtime::kMutexes * sizeof(MutexCell)) {
    auto& word = *reinterpret_cast<Word*>(base + flaw.number);
    std::uint64_t seen = flaw.word;
    return word.compare_exchange_strong(
        seen, OwnerLock::kFreeKind | GlobalMutex::kInconsistent, kAcqRel);
  }
  auto& lock = *reinterpret_cast<OwnerLock*>(base + flaw.number);
  Instance::Op op(instance_);
  op.record().phase.store(static_cast<std::uint64_t>(Phase::kLocking), kRelaxed);
  if (!op.steal(lock, memory_.lock_ref(flaw.segment, lock), flaw.word)) return false;
  op.unlock();
  return true;
}

bool Repairer::mend_mutex(const Flaw& flaw) {
  const auto& r = instance_.geometry();
  std::byte* base = memory_.domain().segment(flaw.segment).metadata();
  auto& cell = reinterpret_cast<MutexCell*>(base + r.mutexes)[flaw.number];
  std::uint64_t word = flaw.word;
  std::uint64_t generation = unlikely_number(word) & 0xffffffff;
  std::uint64_t in_use = 0;
  if (flaw.number < runtime::kMaxComponents) {
    const auto& component =
        reinterpret_cast<const runtime::ComponentCell*>(base + r.components)[flaw.number];
    const std::uint64_t named = component.mutex.load(kAcquire);
    if ((component.identity.load(kAcquire) & 0xff) != 0 && (named & 0xffffffff) == flaw.number) {
      generation = named >> 32;
      in_use = 1;
    }
  }
  return cell.identity.compare_exchange_strong(word, runtime::kMutexTag | generation << 8 | in_use,
                                               kAcqRel);
}

bool Repairer::mend_descriptor(const Flaw& flaw) {
  const std::uint64_t place = memory_.link_to(flaw.segment, flaw.number, 0).value >> 30;
  for (const std::uint64_t pin : View(memory_.domain()).pins()) {
    if (pin >> 30 == place) return false;
  }
  Descriptor& d = memory_.descriptor(flaw.segment, flaw.number);
  d.overflow.store(Link::kEnd, kRelaxed);
  d.sealed[kCountWord].store(0, kRelaxed);
  std::uint64_t word = flaw.word;
  if (!d.state.compare_exchange_strong(
          word, EntryWord::make(unlikely_number(word), EntryState::kFree, 0), kAcqRel)) {
    return false;
  }
  memory_.set_clock_byte(flaw.segment, flaw.number, 0);
  return true;
}

bool Repairer::mend_entry(Link link) {
  Descriptor* d = memory_.resolve(link);
  if (d == nullptr) return false;
  const std::uint64_t word = d->state.load(kAcquire);
  // What is being filled is its filler's, and what is retired is freed without being believed.
  if (EntryWord::state(word) != EntryState::kSealed || EntryWord::version(word) != link.version()) {
    return false;
  }
  return cache_.retire(link) || cache_.retire_as_orphan(link, *d);
}

bool Repairer::mend_orphan(Link link, bool filling) {
  Descriptor* d = memory_.resolve(link);
  if (d == nullptr) return false;
  std::uint64_t word = d->state.load(kAcquire);
  const EntryState state = filling ? EntryState::kFilling : EntryState::kRetired;
  if (EntryWord::state(word) != state || EntryWord::version(word) != link.version()) return false;
  const std::uint32_t owner = EntryWord::owner_plus_one(word);
  if (owner != 0 && owner <= instance_.slot_count()) {
    // A dead one that is about to be recovered.
    const std::uint64_t theirs = instance_.control(owner - 1).state.load(kAcquire);
    if (StateWord::state(theirs) != InstanceState::kFree && !instance_.liveness().held(owner - 1)) {
      return instance_.recover(owner - 1, "orphan found");
    }
  }
  const std::uint64_t orphan =
      filling ? EntryWord::make(link.version(), EntryState::kRetired, 0)
              : EntryWord::make(link.version(), EntryState::kRetired, 0, EntryWord::cursor(word),
                                EntryWord::flags(word));
  if (orphan != word && !d->state.compare_exchange_strong(word, orphan)) return false;
  cache_.count_orphan(link);
  if (filling) {
    cache_.unlink(link, *d);
    cache_.wake_waiters(link, *d);
  }
  return true;
}

bool Repairer::mend_overflow(Link link) {
  const Overflow* block = memory_.resolve_overflow(link);
  if (block == nullptr) return false;
  const std::uint64_t word = block->state.load(kAcquire);
  if (EntryWord::state(word) != EntryState::kOverflow || EntryWord::version(word) != link.version()) {
    return false;
  }
  cache_.space().free_block(link, word);
  return true;
}

bool Repairer::mend_duplicate(Link link) {
  Descriptor* d = memory_.resolve(link);
  return d != nullptr && (cache_.retire_settled(link, *d) || cache_.retire_as_orphan(link, *d));
}

// Nobody knows whose bytes they are: what claims them goes, and clears nothing.
unsigned Repairer::mend_shared(const std::vector<Extent>& extents) {
  unsigned mended = 0;
  Entry entry;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    for (std::uint64_t i = 0; i < memory_.geometry().descriptors && !memory_.lost(segment); ++i) {
      if (!entry_at(segment, i, entry) || EntryWord::state(entry.word) != EntryState::kSealed) continue;
      const bool claims = std::any_of(entry.extents.begin(), entry.extents.end(), [&](Extent theirs) {
        return std::any_of(extents.begin(), extents.end(), [&](Extent e) {
          return theirs.segment() == e.segment() && theirs.first() < e.first() + e.units() &&
                 e.first() < theirs.first() + theirs.units();
        });
      });
      if (!claims) continue;
      Descriptor& d = memory_.descriptor(segment, i);
      d.sealed[kSumsWord].fetch_xor(1ULL << 63);
      if (mend_entry(entry.link)) ++mended;
    }
  }
  return mended;
}

bool Repairer::mend_chain(Place place, const std::vector<Link>& candidates) {
  Bucket& bucket = memory_.bucket_at(place.segment, place.number);
  Instance::Op op(instance_);
  op.record().phase.store(static_cast<std::uint64_t>(Phase::kChain), kRelaxed);
  if (!lock(op, place.segment, bucket.lock)) return false;
  std::vector<Link> chain;
  std::set<std::uint64_t> seen;
  const auto keep = [&](Link link, bool also_filling) {
    const Descriptor* d = memory_.resolve(link);
    if (d == nullptr || seen.count(link.value) != 0) return false;
    const std::uint64_t word = d->state.load(kAcquire);
    const EntryState state = EntryWord::state(word);
    const std::uint64_t hash = d->sealed[0].load(kAcquire);
    if (EntryWord::version(word) != link.version() || memory_.home_of(hash) != place.segment ||
        memory_.bucket_number(hash) != place.number) {
      return false;
    }
    if (state == EntryState::kSealed || (also_filling && state == EntryState::kFilling)) {
      chain.push_back(link);
      seen.insert(link.value);
      return true;
    }
    return state == EntryState::kRetired;
  };
  // As far as it goes; then what else belongs here.
  Link at{bucket.head.load(kAcquire)};
  for (std::uint64_t steps = 0; !at.is_end() && steps < Index::kMaxChain; ++steps) {
    if (!keep(at, true)) break;
    at = Link{memory_.resolve(at)->next.load(kAcquire)};
  }
  for (const Link link : candidates) keep(link, false);
  // From the last to the first, so that nobody who walks meanwhile goes in a circle.
  std::uint64_t next = Link::kEnd;
  for (auto it = chain.rbegin(); it != chain.rend(); ++it) {
    memory_.resolve(*it)->next.store(next, kRelease);
    next = it->value;
  }
  bucket.head.store(next, kRelease);
  op.unlock();
  return true;
}

unsigned Repairer::mend_chains(const std::set<Place>& buckets) {
  if (buckets.empty()) return 0;
  std::map<Place, std::vector<Link>> candidates;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    for (std::uint64_t i = 0; i < memory_.geometry().descriptors && !memory_.lost(segment); ++i) {
      const Descriptor& d = memory_.descriptor(segment, i);
      const std::uint64_t word = d.state.load(kAcquire);
      if (EntryWord::state(word) != EntryState::kSealed) continue;
      const std::uint64_t hash = d.sealed[0].load(kAcquire);
      const Place place{memory_.home_of(hash), memory_.bucket_number(hash)};
      if (buckets.count(place) == 0) continue;
      const Link link = memory_.link_to(segment, i, EntryWord::version(word));
      if (passes(link)) candidates[place].push_back(link);
    }
  }
  unsigned mended = 0;
  for (const Place& place : buckets) mended += mend_chain(place, candidates[place]) ? 1 : 0;
  return mended;
}

unsigned Repairer::mend_groups(const std::set<Place>& groups, bool in_doubt) {
  unsigned mended = 0;
  for (auto next = groups.begin(); next != groups.end();) {
    // Nobody takes or gives space of these groups while all entries are asked what they own there.
    std::map<Place, std::array<std::uint64_t, kGroupWords>> owned;
    std::vector<std::unique_ptr<Instance::Op>> ops;
    for (; next != groups.end() && ops.size() < kGroupsAtOnce; ++next) {
      auto op = std::make_unique<Instance::Op>(instance_);
      op->record().phase.store(static_cast<std::uint64_t>(Phase::kLocking), kRelaxed);
      Group& group = memory_.group(next->segment, next->number);
      if (!op->try_lock(group.lock, memory_.lock_ref(next->segment, group.lock))) continue;
      owned[*next] = {};
      ops.push_back(std::move(op));
    }
    if (owned.empty()) continue;
    Entry entry;
    for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
      for (std::uint64_t i = 0; i < memory_.geometry().descriptors && !memory_.lost(segment); ++i) {
        if (!entry_at(segment, i, entry)) continue;
        // Whoever frees it may have unchained the block of the cursor's extent already: then what is
        // left was numbered wrongly.
        if (const std::uint64_t cursor = EntryWord::cursor(entry.word);
            EntryWord::state(entry.word) == EntryState::kRetired && cursor >= 2 &&
            (cursor - 2) % kOverflowExtents == kOverflowExtents - 1) {
          in_doubt = true;
        }
        for (const Extent extent : entry.extents) {
          const auto it = owned.find({extent.segment(), extent.group()});
          if (it == owned.end()) continue;
          for (std::uint64_t unit = 0; unit < extent.units(); ++unit) {
            const std::uint64_t at = extent.first() % kGroupUnits + unit;
            it->second[at / 64] |= 1ULL << (at % 64);
          }
        }
      }
    }
    for (const auto& [place, bits] : owned) {
      Group& group = memory_.group(place.segment, place.number);
      for (std::uint32_t i = 0; i < kGroupWords; ++i) {
        std::uint64_t now = group.bits[i].load(kRelaxed) | bits[i];
        if (!in_doubt) now = cache_.space().keep_owned(place.segment, place.number, i, now, bits[i]);
        group.bits[i].store(now, kRelaxed);
      }
      ++mended;
    }
    for (auto& op : ops) op->unlock();
  }
  return mended;
}

bool Repairer::mend(const Flaw& flaw) {
  switch (flaw.what) {
    case Flaw::What::kHeader:
      return memory_.domain().segment(flaw.segment).restore_header();
    case Flaw::What::kTotals: {
      Word& active = instance_.totals(flaw.segment).active;
      std::uint64_t seen = active.load(kAcquire);
      return seen != 1 && seen != 2 && active.compare_exchange_strong(seen, 1, kAcqRel);
    }
    case Flaw::What::kSlotHeader:
      return mend_slot_header(static_cast<std::uint32_t>(flaw.number));
    case Flaw::What::kSlotState:
      return mend_slot_state(static_cast<std::uint32_t>(flaw.number), flaw.word);
    case Flaw::What::kFreeSlot:
      return mend_free_slot(static_cast<std::uint32_t>(flaw.number), flaw.word);
    case Flaw::What::kLock:
      return mend_lock(flaw);
    case Flaw::What::kMutex:
      return mend_mutex(flaw);
    case Flaw::What::kDescriptor:
      return mend_descriptor(flaw);
    case Flaw::What::kEntry:
      return mend_entry(Link{flaw.word});
    case Flaw::What::kFill:
    case Flaw::What::kRetired:
      return mend_orphan(Link{flaw.word}, flaw.what == Flaw::What::kFill);
    case Flaw::What::kOverflow:
      return mend_overflow(Link{flaw.word});
    case Flaw::What::kDuplicate:
      return mend_duplicate(Link{flaw.word});
    default:
      return false;
  }
}

RepairReport Repairer::run(const VerifyOptions& options) {
  RepairReport report;
  // While the index is rebuilt entries are in no chain that are about to be linked.
  const std::uint32_t view = memory_.generation();
  const auto is_settled = [&] {
    return cache_.index_is_whole() && memory_.generation() == view && !memory_.moved();
  };
  if (!is_settled()) return report;
  const std::uint64_t begin = runtime::monotonic_ns();
  const VerifyReport found = verify(memory_.domain(), instance_.liveness(), options);
  report.walk_ms = static_cast<double>(runtime::monotonic_ns() - begin) / 1e6;
  if (!is_settled()) return report;
  report.found = static_cast<unsigned>(found.problem_count);
  if (found.ok) return report;
  // Somebody alive may work under a name that was on a lost segment: it knows what it holds, and only
  // when it has let go of that is the rest nobody's (GlobalCache::settle_space).
  bool former_owners = false;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    former_owners = former_owners || !cache_.pins().has_no_former_owners(segment);
  }

  std::map<std::string, unsigned> mended;
  std::set<Place> buckets;
  std::set<Place> groups;
  std::vector<Extent> shared;
  bool in_doubt = found.problem_count > found.problems.size() || former_owners;
  std::vector<Problem> problems = found.problems;
  std::stable_sort(problems.begin(), problems.end(),
                   [](const Problem& a, const Problem& b) { return a.flaw.what < b.flaw.what; });
  for (const Problem& problem : problems) {
    const Flaw& flaw = problem.flaw;
    switch (flaw.what) {
      case Flaw::What::kChain:
        buckets.insert({flaw.segment, flaw.number});
        break;
      case Flaw::What::kShared:
        shared.push_back(Extent{flaw.word});
        in_doubt = true;
        [[fallthrough]];
      case Flaw::What::kLeaked:
      case Flaw::What::kMissing:
        groups.insert({flaw.segment, flaw.number});
        break;
      case Flaw::What::kOutside:
        break;
      case Flaw::What::kLock:
      case Flaw::What::kFill:
      case Flaw::What::kRetired:
      case Flaw::What::kOverflow:
        if (former_owners) break;
        [[fallthrough]];
      default:
        in_doubt = true;
        if (mend(flaw)) ++mended[problem.kind];
    }
  }
  if (!shared.empty()) mended["space-owned-twice"] += mend_shared(shared);
  if (!buckets.empty()) mended["chain"] += mend_chains(buckets);
  for (const Problem& problem : problems) {
    if (problem.flaw.what != Flaw::What::kOutside ||
        buckets.count({problem.flaw.segment, problem.flaw.number}) != 0) {
      continue;
    }
    if (mend_entry(Link{problem.flaw.word})) ++mended[problem.kind];
  }
  if (!groups.empty()) mended["space"] += mend_groups(groups, in_doubt || stale_pins());
  for (const auto& [kind, count] : mended) {
    if (count == 0) continue;
    report.mended += count;
    instance_.report_mended(kind.c_str(), begin, count);
  }
  cache_.tick();
  return report;
}

RepairReport Repairer::run_until_clean(const VerifyOptions& options, unsigned rounds) {
  RepairReport all;
  for (unsigned round = 0; round < rounds; ++round) {
    const RepairReport one = run(options);
    all.found = one.found;
    all.mended += one.mended;
    all.walk_ms = one.walk_ms;
    if (one.found == 0) break;
  }
  return all;
}

std::uint64_t Repairer::evidence() const {
  std::uint64_t sum = 0;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    sum += memory_.state(segment).damage.load(kRelaxed);
  }
  return sum;
}

std::uint64_t Repairer::happenings() const {
  std::uint64_t sum = 0;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    sum += instance_.events(segment).next.load(kRelaxed);
  }
  return sum;
}

void Repairer::watch(const std::atomic<bool>& stop) {
  using Clock = std::chrono::steady_clock;
  VerifyOptions options;
  options.rechecks = 2;
  options.interval = std::chrono::milliseconds(20);
  options.dead_grace = std::chrono::milliseconds(500);
  options.lost_is_wrong = false;
  options.max_problems = 20000;
  std::uint64_t evident = evidence();
  std::uint64_t happened = happenings();
  bool left = false;
  std::chrono::microseconds walk{0};
  auto last = Clock::now();
  while (!stop.load(kAcquire)) {
    std::this_thread::sleep_for(kLookAround);
    const bool urgent = left || evidence() != evident;
    const auto pause = urgent ? std::max<Clock::duration>(kPauseWithEvidence,
                                                          kPausePerWalkWithEvidence * walk)
                       : happenings() != happened
                           ? std::max<Clock::duration>(kPauseAfterHappening,
                                                       kPausePerWalkAfterHappening * walk)
                           : std::max<Clock::duration>(kLeastPause, kPausePerWalk * walk);
    cache_.recount();
    if (Clock::now() - last < pause) continue;
    evident = evidence();
    happened = happenings();
    const RepairReport report = run(options);
    left = report.found != 0;
    walk = std::chrono::microseconds(static_cast<std::int64_t>(report.walk_ms * 1000));
    last = Clock::now();
  }
}

}  // namespace mcs::cache
