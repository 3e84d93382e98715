// SPDX-License-Identifier: Apache-2.0
// After a segment was lost: entries on the other segments go on being hits, and what the lost one held
// is given back. docs/decisions/0043-lost-segments.md; model: docs/protocols/rebuild.pml.
//
// Everybody who works in the new view sweeps all of it, each beginning somewhere else and leaving out
// the parts that SegmentState.swept says are done. Nothing is claimed, so a death costs only what the
// dead one had not finished. While that goes on, lookups do, and may miss.
//
//   chains    a bucket's chain that leads to nothing is cut there, under its lock
//   entries   what is being filled by one whose slot was on the lost segment is retired: it may have been
//             expelled, and could not know (Instance::expelled is looked at again before a commit). A
//             sealed entry with bytes on lost memory is retired; one that is in no chain is put into its
//             home's, under the bucket's lock, if it is sealed there and then: at the end, or if it is
//             not settled at the beginning, since it is newer than what it replaces
//   space     when the index is whole, and nobody is alive whose slot was on the lost segment: what
//             instances of that segment were filling, had retired, or had locked is taken over, and units
//             that are marked in use but belong to nothing are cleared
//
// Who seals or retires an entry looks afterwards whether the view has moved (Memory::moved). The view is
// in all segments before anybody sweeps for it, so either the sweep sees the entry's new state, or
// whoever made it sees the view: a sealed entry is linked by one of them, a retired one is linked by
// none or unlinked from where it was linked.
//
// Nothing that was replaced or purged comes back: both make entries RETIRED, wherever they are linked.
// A fill that commits before the index is whole looks for what it replaces at all entries with its hash,
// as a purge does, since the older one may be in no chain yet. One that meets lost memory before there is
// a view without it cannot know: it stays unsettled, and is settled with the space.
#include <algorithm>
#include <thread>
#include <unordered_map>
#include <unordered_set>

#include "libglobalcache/cache/global_cache.h"

namespace mcs::cache {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;

void raise(Word& word, std::uint64_t to) {
  std::uint64_t seen = word.load(kAcquire);
  while (seen < to && !word.compare_exchange_weak(seen, to, std::memory_order_acq_rel)) {
  }
}

struct Range {
  std::uint64_t first;
  std::uint64_t end;
};
Range part_of(std::uint64_t n, std::uint32_t part) {
  return {n * part / kSweepParts, n * (part + 1) / kSweepParts};
}

}  // namespace

Inside::Inside(GlobalCache& cache) : cache_(cache) {
  cache.inside_.fetch_add(1, std::memory_order_seq_cst);
  ok_ = !cache.left_.load(std::memory_order_seq_cst);
}

Inside::~Inside() { cache_.inside_.fetch_sub(1, std::memory_order_release); }

bool GlobalCache::retire_instance() {
  left_.store(true, std::memory_order_seq_cst);
  for (unsigned attempt = 0; attempt < 1000; ++attempt) {
    if (inside_.load(std::memory_order_seq_cst) == 0) return true;
    std::this_thread::yield();
  }
  return false;
}

void GlobalCache::look_after_memory() {
  memory_.look_after();
  const Inside inside(*this);
  if (!inside || is_homeless()) return;
  const std::unique_lock lock(rebuild_mutex_, std::try_to_lock);
  if (!lock.owns_lock() || memory_.out_of_reach()) return;
  carry_over();
  if (!index_is_whole()) rebuild();
  if (index_is_whole() && !space_is_settled()) settle_space();
}

// Where only members have come or gone nothing has to be done again. Who joins later cannot know that.
void GlobalCache::carry_over() {
  const std::uint32_t view = memory_.generation();
  const std::uint32_t since = memory_.same_since();
  if (carried_ == view) return;
  for (std::uint32_t segment = 0; since < view && segment < memory_.nodes(); ++segment) {
    if (memory_.lost(segment)) continue;
    SegmentState& state = memory_.state(segment);
    for (Word& swept : state.swept) {
      if (swept.load(kAcquire) >= since) raise(swept, view);
    }
    std::uint64_t settled = state.settled.load(kAcquire);
    const std::uint32_t done = Settled::generation(settled);
    if (done >= since && done < view) {
      state.settled.compare_exchange_strong(settled, Settled::in(settled, view),
                                            std::memory_order_acq_rel);
    }
  }
  carried_ = view;
}

bool GlobalCache::index_is_whole() const {
  const std::uint32_t view = memory_.generation();
  const std::uint32_t since = memory_.same_since();
  if (whole_.load(kAcquire) >= since) return true;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (!memory_.has_segment(segment)) continue;
    for (const Word& swept : memory_.state(segment).swept) {
      if (swept.load(kAcquire) < since) return false;
    }
  }
  whole_.store(view, std::memory_order_release);
  return true;
}

bool GlobalCache::rebuild() {
  const std::uint32_t view = memory_.generation();
  const std::uint32_t since = memory_.same_since();
  const std::uint32_t begin = instance_.slot_number() * 0x9e3779b9U >> 16;
  bool whole = true;
  // All chains first: what is behind a cut is then seen to be in none.
  for (const bool entries : {false, true}) {
    for (std::uint32_t n = 0; n < memory_.nodes(); ++n) {
      const std::uint32_t segment = (instance_.node() + n) % memory_.nodes();
      if (memory_.lost(segment)) continue;
      for (std::uint32_t i = 0; i < kSweepParts; ++i) {
        const std::uint32_t part = (begin + i) % kSweepParts;
        Word& swept = memory_.state(segment).swept[part];
        if (swept.load(kAcquire) >= since) continue;
        if (!entries) {
          whole = sweep_chains(segment, part) && whole;
          continue;
        }
        if (!whole) return false;
        const bool done = sweep_entries(segment, part);
        // What was looked at may have been another view's.
        if (memory_.moved() || memory_.generation() != view) return false;
        if (done) raise(swept, view);
        whole = whole && done;
      }
    }
  }
  return whole;
}

bool GlobalCache::sweep_chains(std::uint32_t segment, std::uint32_t part) {
  bool done = true;
  const std::uint64_t buckets = memory_.geometry().buckets;
  for (auto [number, end] = part_of(buckets, part); number < end; ++number) {
    if (!index_.is_broken(segment, number)) continue;
    release_orphaned(memory_.bucket_at(segment, number).lock);
    Index::Locked bucket(index_, segment, Index::Numbered{number});
    if (bucket.answer() == runtime::LockAnswer::kAcquired) {
      bucket.mend();
    } else {
      done = false;
    }
  }
  return done;
}

bool GlobalCache::sweep_entries(std::uint32_t segment, std::uint32_t part) {
  bool done = true;
  const std::uint64_t descriptors = memory_.geometry().descriptors;
  for (auto [index, end] = part_of(descriptors, part); index < end; ++index) {
    Descriptor& d = memory_.descriptor(segment, index);
    const std::uint64_t word = d.state.load(std::memory_order_seq_cst);
    if (EntryWord::state(word) == EntryState::kFilling) {
      // Nobody can tell whether its filler was expelled: its slot says nothing any more.
      const Link link = memory_.link_to(segment, index, EntryWord::version(word));
      const std::uint32_t owner = EntryWord::owner_plus_one(word);
      if (has_lost_owner(owner, link)) retire_filling(link, d, owner);
      continue;
    }
    if (EntryWord::state(word) == EntryState::kRetired) {
      wake_if_was_filling(memory_.link_to(segment, index, EntryWord::version(word)), d, word);
    }
    if (EntryWord::state(word) != EntryState::kSealed) continue;
    done = sweep_entry(memory_.link_to(segment, index, EntryWord::version(word)), d) && done;
  }
  return done;
}

bool GlobalCache::sweep_entry(Link link, Descriptor& d) {
  const SealedFields fields = load_sealed(d);
  const std::uint64_t overflow = d.overflow.load(kAcquire);
  std::vector<Extent> extents;
  const bool sound = fields.meta_sum == meta_sum(fields, overflow, link.version()) &&
                     space_.extents(fields, overflow, true, extents);
  if (!sound) {
    const std::uint64_t word = d.state.load(std::memory_order_seq_cst);
    if (EntryWord::state(word) != EntryState::kSealed ||
        EntryWord::version(word) != link.version()) {
      return true;
    }
    return retire_settled(link, d) || retire_as_orphan(link, d);
  }
  if (index_.is_linked(fields.hash, link)) return true;
  return link_again(link, d, fields.hash);
}

bool GlobalCache::link_again(Link link, Descriptor& d, std::uint64_t hash) {
  const std::uint32_t home = memory_.home_of(hash);
  release_orphaned(memory_.bucket(home, hash).lock);
  Index::Locked bucket(index_, hash);
  if (bucket.answer() != runtime::LockAnswer::kAcquired) return false;
  const std::uint64_t word = d.state.load(std::memory_order_seq_cst);
  if (EntryWord::state(word) == EntryState::kSealed && EntryWord::version(word) == link.version()) {
    // Of two with one key the unsettled one is the newer.
    if ((EntryWord::flags(word) & EntryWord::kUnsettled) == 0) {
      bucket.link_last(link, d);
    } else if (bucket.mend(link)) {
      bucket.link_first(link, d);
    }
  }
  return true;
}

// Of those whose slot is, or was, on a segment that the view does not have any more.
bool GlobalCache::is_gone(InstanceId id) const {
  if (!id.valid() || id.slot() >= instance_.slot_count() || id == instance_.id()) return false;
  const auto home =
      static_cast<std::uint32_t>(id.slot() / instance_.geometry().slots_per_node);
  if (memory_.has_segment(home)) {
    if (memory_.incarnation(home) == 1 || !instance_.is_of_former_segment(id)) {
      return false;
    }
    const std::uint64_t word = instance_.control(id.slot()).state.load(kAcquire);
    if (runtime::StateWord::incarnation(word) == id.incarnation()) return false;
  }
  return pins_.has_left(id.slot());
}

bool GlobalCache::has_lost_owner(std::uint32_t owner_plus_one, Link link) const {
  if (owner_plus_one == 0 || owner_plus_one > instance_.slot_count()) return false;
  const std::uint32_t slot = owner_plus_one - 1;
  const auto home = static_cast<std::uint32_t>(slot / instance_.geometry().slots_per_node);
  if (!memory_.has_segment(home)) return true;
  if (memory_.incarnation(home) == 1) return false;
  // Its slot may have another owner, who then knows of what it holds.
  const CacheArea& area = Pins::area(instance_, slot);
  const auto names = [&](const auto& words) {
    return std::any_of(words.begin(), words.end(),
                       [&](const Word& word) { return word.load(kAcquire) == link.value; });
  };
  return !names(area.fills) && !names(area.limbo);
}

bool GlobalCache::is_gone(std::uint32_t owner_plus_one, Link link) const {
  return has_lost_owner(owner_plus_one, link) && pins_.has_left(owner_plus_one - 1);
}

void GlobalCache::release_orphaned(const OwnerLock& lock) {
  const InstanceId holder = OwnerLock::owner(lock.load());
  // A bucket's: each change under it is one store.
  if (holder.valid() && is_gone(holder)) const_cast<OwnerLock&>(lock).unlock(holder);
}

// Other entries of the key, wherever they are. False: one is still there.
bool GlobalCache::retire_everywhere(Link kept, std::uint64_t hash, std::string_view whole_key) {
  bool all = true;
  std::string key;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (memory_.lost(segment)) continue;
    for (std::uint64_t i = 0; i < memory_.geometry().descriptors; ++i) {
      Descriptor& d = memory_.descriptor(segment, i);
      if (d.sealed[0].load(kRelaxed) != hash) continue;
      const std::uint64_t word = d.state.load(std::memory_order_seq_cst);
      const Link link = memory_.link_to(segment, i, EntryWord::version(word));
      if (EntryWord::state(word) != EntryState::kSealed || link == kept) continue;
      if (read_key(link, d, key) != KeyRead::kRead || key != whole_key) continue;
      inherit_use(kept, link);
      if (!retire_settled(link, d) && !retire_as_orphan(link, d)) {
        const std::uint64_t now = d.state.load(kAcquire);
        all = all && (EntryWord::state(now) != EntryState::kSealed ||
                      EntryWord::version(now) != link.version());
      }
    }
  }
  return all;
}

bool GlobalCache::space_is_settled() const {
  const std::uint32_t since = memory_.same_since();
  bool settled = true;
  bool came_back = false;  // or went
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    const bool has = memory_.has_segment(segment);
    came_back = came_back || !has || memory_.incarnation(segment) > 1;
    settled = settled &&
              (!has || Settled::generation(memory_.state(segment).settled.load(kAcquire)) >= since);
  }
  return settled || !came_back;
}

// Once per view, by whoever comes first. Cut short by a kill it is done again.
void GlobalCache::settle_space() {
  const std::uint32_t view = memory_.generation();
  std::array<std::uint64_t, gsm::kMaxNodes> settled{};
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (!memory_.lost(segment)) settled[segment] = memory_.state(segment).settled.load(kAcquire);
  }
  // Somebody may still write under a name that was on the lost segment.
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (!pins_.has_no_former_owners(segment)) return;
  }
  if (pins_.any_former()) return;

  struct Seen {
    std::uint64_t lock;
    std::array<std::uint64_t, kGroupWords> bits;
    std::array<std::uint64_t, kGroupWords> owned{};
  };
  const CacheGeometry& g = memory_.geometry();
  std::vector<std::vector<Seen>> groups(memory_.nodes());
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (memory_.lost(segment)) continue;
    groups[segment].resize(g.groups);
    for (std::uint64_t i = 0; i < g.groups; ++i) {
      const Group& group = memory_.group(segment, i);
      Seen& seen = groups[segment][i];
      seen.lock = group.lock.load();
      for (std::uint32_t w = 0; w < kGroupWords; ++w) {
        seen.bits[w] = group.bits[w].load(kAcquire);
      }
    }
  }
  const auto own = [&](std::uint64_t value) {
    const Extent extent{value};
    if (!memory_.valid(extent) || groups[extent.segment()].empty()) return;
    auto& owned = groups[extent.segment()][extent.group()].owned;
    for (std::uint64_t unit = extent.first() % kGroupUnits, n = extent.units(); n > 0; --n, ++unit) {
      owned[unit / 64] |= 1ULL << (unit % 64);
    }
  };

  std::unordered_set<std::uint64_t> blocks;
  std::vector<Link> loose;
  runtime::RecoveryCounts counts;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    for (std::uint64_t i = 0; i < g.descriptors && !memory_.lost(segment); ++i) {
      Descriptor& d = memory_.descriptor(segment, i);
      std::uint64_t word = d.state.load(std::memory_order_seq_cst);
      const Link link = memory_.link_to(segment, i, EntryWord::version(word));
      const std::uint32_t owner = EntryWord::owner_plus_one(word);
      EntryState state = EntryWord::state(word);
      if (state == EntryState::kOverflow && is_gone(owner, link)) loose.push_back(link);
      if (state == EntryState::kFree || state == EntryState::kInvalid ||
          state == EntryState::kOverflow) {
        continue;
      }
      if (state == EntryState::kFilling && is_gone(owner, link)) {
        retire_filling(link, d, owner);
      } else if (state == EntryState::kRetired && is_gone(owner, link)) {
        space_.pass_freed_block(link, d);
        adopt_retired(link, d, owner, counts);
      } else if (state == EntryState::kSealed &&
                 (EntryWord::flags(word) & EntryWord::kUnsettled) != 0) {
        settle(link, d);
      }
      word = d.state.load(std::memory_order_seq_cst);
      state = EntryWord::state(word);
      const SealedFields fields = load_sealed(d);
      const std::uint64_t total = std::min<std::uint64_t>(fields.extent_count, EntryWord::kMaxCursor);
      const std::uint64_t first = state == EntryState::kRetired ? EntryWord::cursor(word) : 0;
      for (std::uint64_t e = first; e < std::min<std::uint64_t>(total, 2); ++e) own(fields.extents[e]);
      // Of a block that is being freed all is taken for owned: nothing but that it waits for later.
      Link at{d.overflow.load(kAcquire)};
      for (std::uint64_t n = 0; !at.is_end() && n <= total / kOverflowExtents + 2; ++n) {
        const Overflow* block = memory_.resolve_overflow(at);
        if (block == nullptr) break;
        const std::uint64_t block_word = block->state.load(kAcquire);
        if (EntryWord::state(block_word) != EntryState::kOverflow ||
            EntryWord::version(block_word) != at.version()) {
          break;
        }
        blocks.insert(at.value);
        for (const Word& extent : block->extents) own(extent.load(kRelaxed));
        at = Link{block->next.load(kAcquire)};
      }
    }
  }

  if (pins_.any_former()) return;  // by one that worked in the former view still

  bool complete = true;
  // Not if it was undone since: then there is more that is nobody's than what was left.
  const bool again = loose_of_ == view && loose_settled_ == settled;
  decltype(loose_) left;
  // One of a fill that goes on may have been claimed when its entry had been looked at: what is loose in
  // two passes is.
  decltype(loose_blocks_) left_blocks;
  for (const Link link : loose) {
    if (blocks.count(link.value) != 0) continue;
    if (again && loose_blocks_.count(link.value) != 0) {
      space_.free_orphaned_block(link);
    } else {
      left_blocks.insert(link.value);
      complete = false;
    }
  }
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    for (std::uint64_t i = 0; i < groups[segment].size(); ++i) {
      const Seen& seen = groups[segment][i];
      const InstanceId holder = OwnerLock::owner(seen.lock);
      const bool orphaned = holder.valid() && is_gone(holder);
      if (!orphaned && !OwnerLock::is_free(seen.lock)) {
        // Whoever has it may die in it.
        std::array<std::uint64_t, kGroupWords> all{};
        all.fill(~0ULL);
        left.emplace(std::pair{segment, i}, all);
        complete = false;
        continue;
      }
      bool differs = orphaned;
      std::array<std::uint64_t, kGroupWords> nobodys{};
      const auto before = loose_.find({segment, i});
      // Beside running servers there is always something that looks like it for a moment.
      if (again && !orphaned && before == loose_.end()) continue;
      for (std::uint32_t w = 0; w < kGroupWords; ++w) {
        nobodys[w] = seen.bits[w] & ~seen.owned[w];
        if (again && !orphaned) nobodys[w] &= before->second[w];
        differs = differs || nobodys[w] != 0;
      }
      if (!differs) continue;
      auto right = seen.owned;
      for (std::uint32_t w = 0; w < kGroupWords; ++w) {
        right[w] |= seen.bits[w] & ~nobodys[w];
      }
      if (space_.set_bits(segment, i, seen.lock, orphaned, seen.bits, right)) continue;
      left.emplace(std::pair{segment, i}, nobodys);
      complete = false;
    }
  }
  loose_ = std::move(left);
  loose_blocks_ = std::move(left_blocks);
  loose_of_ = view;
  loose_settled_ = settled;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (memory_.lost(segment)) continue;
    for (std::uint64_t i = 0; i < g.buckets; ++i) {
      release_orphaned(memory_.bucket_at(segment, i).lock);
    }
  }
  if (!complete || memory_.moved() || memory_.generation() != view) return;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (memory_.lost(segment)) continue;
    memory_.state(segment).settled.compare_exchange_strong(
        settled[segment], Settled::in(settled[segment], view), std::memory_order_acq_rel);
  }
}

}  // namespace mcs::cache
