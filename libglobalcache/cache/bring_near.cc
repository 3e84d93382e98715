// SPDX-License-Identifier: Apache-2.0
// Entries move towards the node that reads them. A move is a fill of the same key whose bytes come from
// the entry itself, so that whoever looks meanwhile finds the old one or waits for the new one, and a
// purge meets it like any fill:
//   pin the entry, note its word -> begin the fill, if it is still the key's only one -> copy, compare
//   with the checksums -> seal the copy -> retire the entry by a CAS from the noted word -> unpin
// What was noted in the entry's word meanwhile (a newer head elsewhere, a soft purge) makes the CAS fail,
// and the copy goes. Whoever recovers a process that dies between the two lets the copy count.
#include "libglobalcache/cache/global_cache.h"

namespace mcs::cache {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;

// What is larger is streamed, so that its latency counts less, and would hold a worker up.
constexpr std::uint64_t kLargestMoved = 1 << 20;  // bytes
constexpr std::size_t kMovedAtOnce = 64;

}  // namespace

std::uint32_t GlobalCache::bring_near(std::uint64_t bytes) {
  std::uint32_t moved = 0;
  for (const RemoteUses::Entry& entry : remote_uses_.take(kMovedAtOnce)) {
    if (bytes == 0) break;
    if (bring_here(entry.link, entry.hash2, bytes)) ++moved;
  }
  return moved;
}

bool GlobalCache::bring_here(Link link, std::uint64_t hash2, std::uint64_t& bytes) {
  Descriptor* d = memory_.resolve(link);
  if (d == nullptr || link.segment() == instance_.node()) return false;
  Hit hit;
  hit.pin = pins_.pin(link);
  if (hit.pin < 0) return false;
  bool moved = false;
  const PurgeMarks asked = purge_marks();
  const std::uint64_t word = d->state.load(std::memory_order_seq_cst);
  hit.fields = load_sealed(*d);
  hit.overflow = d->overflow.load(kAcquire);
  const bool plain = EntryWord::state(word) == EntryState::kSealed &&
                     EntryWord::version(word) == link.version() &&
                     (EntryWord::flags(word) & ~EntryWord::kSent) == 0;
  if (plain && hit.fields.body_bytes <= kLargestMoved &&
      hit.fields.meta_sum == meta_sum(hit.fields, hit.overflow, link.version()) &&
      space_.extents(hit.fields, hit.overflow, true, hit.extents) &&
      read_head(hit.fields, hit.extents, hit.copy)) {
    const std::size_t key_bytes = hit.fields.key_bytes;
    const Key key{{reinterpret_cast<const char*>(hit.copy.data()), key_bytes},
                  {},
                  hit.fields.hash,
                  hash2,
                  nullptr,
                  &asked};
    Fill fill;
    std::vector<std::byte> body(hit.fields.body_bytes);
    if (begin_for(key, hit.fields.site, fill, link, false) == Begin::kFilling &&
        fill.link().segment() == instance_.node() && read_verified(hit, body.data())) {
      fill.moved_ = link;
      fill.moved_word_ = word;
      fill.set_head(std::span(hit.copy).subspan(key_bytes), body.size());
      moved = fill.append(body) == Append::kOk &&
              fill.commit(static_cast<std::int64_t>(d->checked.load(kRelaxed)));
    }
    bytes -= std::min<std::uint64_t>(bytes, body.size() + kUnitBytes);
  }
  pins_.unpin(hit.pin);
  return moved;
}

// False: the entry has changed, and it is the copy that is gone.
bool GlobalCache::replace_moved(Link copy, Descriptor& d, Link moved, std::uint64_t word) {
  inherit_use(copy, moved);
  Descriptor* from = memory_.resolve(moved);
  // Lost meanwhile: the copy is all there is.
  if (from == nullptr || retire_as(moved, *from, word)) return true;
  // Not settled: what it would replace stays.
  for (std::uint64_t seen = d.state.load(kAcquire);
       EntryWord::state(seen) == EntryState::kSealed && EntryWord::version(seen) == copy.version();
       seen = d.state.load(kAcquire)) {
    if (retire_as(copy, d, seen)) break;
    if (d.state.load(kAcquire) == seen) {
      retire_as_orphan(copy, d);
      break;
    }
  }
  return false;
}

}  // namespace mcs::cache
