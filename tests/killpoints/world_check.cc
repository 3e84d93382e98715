// SPDX-License-Identifier: Apache-2.0
// What must hold of a domain's memory when everybody who died was recovered and nobody works.
#include <cstring>
#include <set>
#include <string>

#include "libglobalcache/runtime/global_mutex.h"
#include "libglobalcache/runtime/statistics.h"
#include "tests/killpoints/world.h"

namespace mcs::killpoints {

using cache::CacheArea;
using cache::CacheGeometry;
using cache::Descriptor;
using cache::EntryState;
using cache::EntryWord;
using cache::Extent;
using cache::Group;
using cache::Link;
using cache::Memory;
using cache::Overflow;
using cache::Pins;
using runtime::Instance;
using runtime::InstanceId;
using runtime::InstanceState;
using runtime::OwnerLock;
using runtime::Slot;
using runtime::StateWord;
using runtime::Word;

// Nothing here is an instant of anybody: loads need not be told of, which took more time than they did.
#define MCS_UNSEEN __attribute__((no_sanitize("thread")))

namespace {

MCS_UNSEEN bool all_zero(const Word* words, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    if (words[i].load() != 0) return false;
  }
  return true;
}

}  // namespace

MCS_UNSEEN void World::check_slots(bool pins_held) {
  const Member* living = nullptr;
  for (const Member& m : state_->members) {
    if (m.alive) living = &m;
  }
  if (living == nullptr) return;
  const Instance& look = *living->instance;
  const std::uint64_t ledger_words = living->cache->memory().geometry().ledger_words;
  for (std::uint32_t number = 0; number < look.slot_count(); ++number) {
    if (state_->domain->segment(number / look.geometry().slots_per_node).lost()) continue;
    const Member* owner = nullptr;
    for (const Member& m : state_->members) {
      if (m.alive && m.instance->slot_number() == number) owner = &m;
    }
    const std::uint64_t word = look.control(number).state.load();
    const InstanceState expected =
        owner == nullptr ? InstanceState::kFree : InstanceState::kActive;
    if (StateWord::state(word) != expected ||
        (owner != nullptr && StateWord::incarnation(word) != owner->instance->id().incarnation())) {
      violate("slot %u: state %d, expected %d", number, static_cast<int>(StateWord::state(word)),
              static_cast<int>(expected));
    }
    const std::uint64_t recoverer = look.control(number).recoverer.load();
    if (recoverer != 0 && !look.is_dead(InstanceId{recoverer})) {
      violate("slot %u: instance %#lx recovers it for ever", number, recoverer);
    }
    if (owner == nullptr && state_->liveness.held_anywhere(number)) {
      violate("slot %u: free, but its liveness lock is held", number);
    }
    const Slot& slot = look.slot(number);
    const CacheArea& area = Pins::area(look, number);
    for (const runtime::OpRecord& op : slot.ops) {
      if (op.lock.load() != 0) violate("slot %u: an operation record still names a lock", number);
    }
    if (!all_zero(slot.mutexes.data(), slot.mutexes.size())) {
      violate("slot %u: a record still names a mutex", number);
    }
    if (!all_zero(area.fills.data(), area.fills.size())) {
      violate("slot %u: a fill is still recorded", number);
    }
    if (!pins_held && !all_zero(area.limbo.data(), area.limbo.size())) {
      violate("slot %u: limbo is not empty", number);
    }
    if ((owner == nullptr || !pins_held) &&
        !all_zero(Pins::ledger(look, number), ledger_words)) {
      violate("slot %u: a pin is left", number);
    }
    if (owner != nullptr) continue;
    if (!all_zero(slot.stats.data(), slot.stats.size())) {
      violate("slot %u: statistics were not folded", number);
    }
    if (look.control(number).components.load() != 0) {
      violate("slot %u: still a member of a component", number);
    }
  }
  const std::uint64_t sum = runtime::GlobalStatistics(look).sum().cells[0];
  if (sum != state_->counted && sum != state_->counted + state_->counting) {
    violate("statistics say %lu, counted were %lu (+%lu)", sum, state_->counted, state_->counting);
  }
}

MCS_UNSEEN void World::check_locks() {
  const gsm::Domain& domain = *state_->domain;
  const auto g = CacheGeometry::load(domain.header().user + 16);
  const auto r = runtime::RuntimeGeometry::load(domain.header().user);
  for (std::uint32_t node = 0; node < domain.node_count(); ++node) {
    if (domain.segment(node).lost()) continue;
    const std::byte* base = domain.segment(node).metadata();
    const auto* buckets = reinterpret_cast<const cache::Bucket*>(base + g.buckets_at);
    for (std::uint64_t i = 0; i < g.buckets; ++i) {
      if (!OwnerLock::is_free(buckets[i].lock.load())) violate("bucket %lu: still locked", i);
    }
    const auto* groups = reinterpret_cast<const Group*>(base + g.groups_at);
    for (std::uint64_t i = 0; i < g.groups; ++i) {
      if (!OwnerLock::is_free(groups[i].lock.load())) violate("group %lu: still locked", i);
    }
    const auto* totals = reinterpret_cast<const runtime::StatTotals*>(base + r.totals);
    if (!OwnerLock::is_free(totals->lock.load())) violate("statistics: still locked");
    const auto* mutexes = reinterpret_cast<const runtime::MutexCell*>(base + r.mutexes);
    for (std::uint32_t i = 0; i < runtime::kMutexes; ++i) {
      if (!OwnerLock::is_free(mutexes[i].owner.load())) violate("mutex %u: still held", i);
      for (const Word& waiter : mutexes[i].waiters) {
        if (waiter.load() == 0) continue;
        bool alive = false;
        for (const Member& m : state_->members) {
          alive = alive ||
                  (m.alive && m.instance->id().value == (waiter.load() & OwnerLock::kOwnerMask));
        }
        if (alive) violate("mutex %u: a living instance is left in the queue", i);
      }
    }
  }
}

namespace {

struct EntryCheck {
  explicit EntryCheck(const Memory& m) : memory(m) {
    const CacheGeometry& g = memory.geometry();
    visits.assign(memory.nodes(), std::vector<unsigned>(g.descriptors, 0));
    blocks.assign(memory.nodes(), std::vector<unsigned>(g.descriptors, 0));
    bits.assign(memory.nodes(), std::vector<std::uint8_t>(g.groups * cache::kGroupUnits, 0));
  }
  const Memory& memory;
  std::vector<std::vector<unsigned>> visits;  // of chains
  cache::SiteUnits of_sites{};                // of sealed entries
  std::vector<std::vector<unsigned>> blocks;  // overflow blocks reached
  std::vector<std::vector<std::uint8_t>> bits;
  std::set<std::uint64_t> pinned;
  std::set<std::string> keys;
};

}  // namespace

MCS_UNSEEN void World::check_entries(bool pins_held) {
  const Member* living = nullptr;
  for (const Member& m : state_->members) {
    if (m.alive) living = &m;
  }
  if (living == nullptr) return;
  const cache::GlobalCache& cache = *living->cache;
  const Memory& memory = cache.memory();
  const CacheGeometry& g = memory.geometry();
  EntryCheck check(memory);
  if (!cache.index_is_whole()) violate("the index was not rebuilt");
  for (const Member& m : state_->members) {
    if (!m.alive) continue;
    const Word* words = Pins::ledger(*m.instance, m.instance->slot_number());
    for (std::uint64_t i = 0; i < g.ledger_words; ++i) {
      if (words[i].load() != 0) check.pinned.insert(words[i].load());
    }
  }

  for (std::uint32_t segment = 0; segment < memory.nodes(); ++segment) {
    if (memory.lost(segment)) continue;
    for (std::uint64_t b = 0; b < g.buckets; ++b) {
      Link link{memory.bucket_at(segment, b).head.load()};
      for (std::uint64_t steps = 0; !link.is_end(); ++steps) {
        const Descriptor* d = memory.resolve(link);
        if (d == nullptr || steps > g.descriptors * memory.nodes()) {
          violate("bucket %lu: bad link %#lx or a cycle", b, link.value);
          break;
        }
        const std::uint64_t word = d->state.load();
        if (EntryWord::version(word) != link.version()) {
          violate("bucket %lu: entry %lu has version %lu, the link %lu", b, link.index(),
                  EntryWord::version(word), link.version());
          break;
        }
        if (EntryWord::state(word) != EntryState::kSealed) {
          violate("bucket %lu: entry %lu in the chain has state %d", b, link.index(),
                  static_cast<int>(EntryWord::state(word)));
        }
        const std::uint64_t hash = d->sealed[0].load();
        if (memory.bucket_number(hash) != b || memory.home_of(hash) != segment) {
          violate("bucket %lu: entry %lu belongs to another bucket", b, link.index());
        }
        ++check.visits[link.segment()][link.index()];
        link = Link{d->next.load()};
      }
    }
  }

  for (std::uint32_t segment = 0; segment < memory.nodes(); ++segment) {
    if (memory.lost(segment)) continue;
    for (std::uint64_t i = 0; i < g.descriptors; ++i) {
      const Descriptor& d = memory.descriptor(segment, i);
      const std::uint64_t word = d.state.load();
      const EntryState state = EntryWord::state(word);
      const Link link = memory.link_to(segment, i, EntryWord::version(word));
      const unsigned visits = check.visits[segment][i];
      const cache::SealedFields fields = cache::load_sealed(d);
      switch (state) {
        case EntryState::kFree:
          if (fields.extent_count != 0 || d.overflow.load() != Link::kEnd) {
            violate("entry %lu: free but names %lu extents, overflow %#lx", i,
                    static_cast<unsigned long>(fields.extent_count), d.overflow.load());
          }
          continue;
        case EntryState::kOverflow:
          continue;
        case EntryState::kSealed:
          if ((EntryWord::flags(word) & EntryWord::kUnsettled) != 0) {
            violate("entry %lu: sealed, and what it replaces was never looked for", i);
          }
          if (visits != 1) violate("entry %lu: sealed and in %u chains", i, visits);
          break;
        case EntryState::kRetired:
          if (!pins_held || !check.pinned.contains(link.value)) {
            violate("entry %lu: retired, unpinned, never freed (owner slot+1 %u)", i,
                    EntryWord::owner_plus_one(word));
          }
          break;
        default:
          violate("entry %lu: state %d, owner slot+1 %u", i, static_cast<int>(state),
                  EntryWord::owner_plus_one(word));
          continue;
      }
      std::vector<Extent> extents;
      const bool sealed = state == EntryState::kSealed;
      if (!const_cast<cache::GlobalCache&>(cache).space().extents(fields, d.overflow.load(), sealed, extents)) {
        violate("entry %lu: its extents cannot be read", i);
        continue;
      }
      const std::uint64_t first = EntryWord::cursor(word);
      for (std::uint64_t e = first; e < extents.size(); ++e) {
        for (std::uint64_t u = 0; u < extents[e].units(); ++u) {
          std::uint8_t& bit = check.bits[extents[e].segment()][extents[e].first() + u];
          if (bit != 0) violate("entry %lu: shares unit %lu", i, extents[e].first() + u);
          bit = 1;
        }
        if (sealed) check.of_sites[cache::site_of(d)] += extents[e].units();
      }
      for (Link block{d.overflow.load()}; !block.is_end();) {
        const Overflow* overflow = memory.resolve_overflow(block);
        if (overflow == nullptr) break;
        ++check.blocks[block.segment()][block.index()];
        block = Link{overflow->next.load()};
      }
      if (!sealed) continue;
      if (fields.meta_sum != cache::meta_sum(fields, d.overflow.load(), link.version())) {
        violate("entry %lu: its checksum fails", i);
      }
      std::vector<std::byte> head;
      if (!cache.read_head(fields, extents, head)) {
        violate("entry %lu: its head fails", i);
        continue;
      }
      const std::string key(reinterpret_cast<const char*>(head.data()), fields.key_bytes);
      if (!check.keys.insert(key).second) violate("key %s: two sealed entries", key.c_str());
    }
    if (memory.state(segment).damage.load() != 0) violate("segment %u: damage was found", segment);
    if (!pins_held && memory.state(segment).orphans.load() != 0) {
      violate("segment %u: orphans are announced but there are none", segment);
    }
  }

  auto& counting = const_cast<cache::GlobalCache&>(cache);
  counting.recount(true);
  const cache::Loans& loans = counting.space().loans();
  for (std::uint32_t n = 0; n < cache.memory().nodes() && cache.memory().nodes() > 1; ++n) {
    const std::uint64_t used = counting.space().used_units(n);
    if (!cache.memory().lost(n) && loans.free_units(n) != loans.capacity() - used) {
      violate("node %u: %lu units counted as free, %lu are", n, loans.free_units(n),
              loans.capacity() - used);
    }
  }
  check.of_sites[0] = 0;
  if (const auto now = counting.sites().counts(); now != check.of_sites) {
    violate("site 1: %lu units counted, its entries take %lu", now[1], check.of_sites[1]);
  }
  for (std::uint32_t segment = 0; segment < memory.nodes(); ++segment) {
    if (memory.lost(segment)) continue;
    for (std::uint64_t i = 0; i < g.descriptors; ++i) {
      const std::uint64_t word = memory.descriptor(segment, i).state.load();
      const bool block = EntryWord::state(word) == EntryState::kOverflow;
      if (check.blocks[segment][i] != (block ? 1U : 0U)) {
        if (block) leaked_ += sizeof(Descriptor);
        violate("descriptor %lu: %s, reached from %u entries", i,
                block ? "an overflow block" : "no overflow block", check.blocks[segment][i]);
      }
    }
    for (std::uint64_t unit = 0; unit < g.groups * cache::kGroupUnits; ++unit) {
      const Group& group = memory.group(segment, unit / cache::kGroupUnits);
      const std::uint64_t at = unit % cache::kGroupUnits;
      const bool used = (group.bits[at / 64].load() >> (at % 64) & 1) != 0;
      if (used == (check.bits[segment][unit] != 0)) continue;
      if (used) leaked_ += cache::kUnitBytes;
      violate("segment %u unit %lu: %s", segment, unit,
              used ? "in use, but no entry's" : "an entry's, but free");
    }
  }
}

void World::check_views() {
  runtime::Views views(*state_->domain);
  note_view(views.look());
  for (std::uint32_t node = 0; node < views.nodes(); ++node) {
    if (!views.mine().has_segment(node)) continue;
    if (views.area(node).view.word.load() != views.mine().word()) {
      violate("segment %u has not the view", node);
    }
  }
}

// Pages that the kernel may still hold are never those that are free to be written again.
void World::check_sent() {
  for (const auto& [extent, bytes] : state_->sent) {
    if (extent.value == 0 || sample(extent) != bytes) continue;
    cache::Memory memory(*state_->domain);
    const Group& group = memory.group(extent.segment(), extent.group());
    const std::uint64_t at = extent.first() % cache::kGroupUnits;
    if ((group.bits[at / 64].load() >> (at % 64) & 1) == 0) {
      violate("unit %lu: free, but it has the pages that were sent", extent.first());
    }
  }
}

void World::check_idle(bool pins_held) {
  check_slots(pins_held);
  check_views();
  check_locks();
  check_entries(pins_held);
  check_sent();
}

}  // namespace mcs::killpoints
