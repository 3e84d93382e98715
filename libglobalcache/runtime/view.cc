// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/runtime/view.h"

namespace mcs::runtime {
namespace {

// Each restart of a ballot means that a later view was found: others get on. Somebody who writes
// nonsense for ever must not keep us here.
constexpr unsigned kMostSteps = 4096;

// CRC-8/AUTOSAR: all changes of up to three bits are found.
std::uint8_t checksum(std::uint64_t low56) {
  std::uint8_t crc = 0xff;
  for (int byte = 6; byte >= 0; --byte) {
    crc = static_cast<std::uint8_t>(crc ^ (low56 >> (8 * byte)));
    for (int bit = 0; bit < 8; ++bit) {
      crc = static_cast<std::uint8_t>((crc << 1) ^ ((crc & 0x80) != 0 ? 0x2f : 0));
    }
  }
  return static_cast<std::uint8_t>(crc ^ 0xff);
}

std::uint16_t all_of(std::uint32_t nodes) { return static_cast<std::uint16_t>((1U << nodes) - 1); }

}  // namespace

std::uint64_t View::word() const {
  const std::uint64_t low = (static_cast<std::uint64_t>(generation & 0xffffff) << 32) |
                            (static_cast<std::uint64_t>(members) << 16) | segments;
  return (static_cast<std::uint64_t>(checksum(low)) << 56) | low;
}

std::optional<View> View::from(std::uint64_t word, std::uint32_t nodes) {
  const std::uint64_t low = word & ((1ULL << 56) - 1);
  if (static_cast<std::uint8_t>(word >> 56) != checksum(low)) return std::nullopt;
  const View view{static_cast<std::uint32_t>(low >> 32), static_cast<std::uint16_t>(low >> 16),
                  static_cast<std::uint16_t>(low)};
  if (view.generation == 0 || view.members == 0 || view.segments == 0 ||
      ((view.members | view.segments) & ~all_of(nodes)) != 0) {
    return std::nullopt;
  }
  return view;
}

View View::first(std::uint32_t nodes) { return {1, all_of(nodes), all_of(nodes)}; }

Views::Views(gsm::Domain& domain)
    : domain_(domain),
      nodes_(domain.node_count()),
      at_(RuntimeGeometry::load(domain.header().user).views) {}

ViewArea& Views::area(std::uint32_t node) const {
  return *reinterpret_cast<ViewArea*>(domain_.segment(node).metadata() + at_);
}

// Whether the segment is lost is asked after the access, which may be what finds it out.
std::optional<View> Views::read(std::uint32_t node) const {
  const std::uint64_t word = area(node).view.word.load(std::memory_order_acquire);
  if (domain_.segment(node).lost()) return std::nullopt;
  return View::from(word, nodes_);
}

std::optional<View> Views::current() const {
  std::optional<View> latest;
  for (std::uint32_t node = 0; node < nodes_; ++node) {
    const std::optional<View> view = read(node);
    if (view && (!latest || view->generation > latest->generation)) latest = view;
  }
  return latest;
}

// False: no segment answers. The same order for everybody, whatever node he is on: whoever is first in
// the first segment that answers makes the others carry his view on.
bool Views::ballot(View& want) {
  bool any = false;
  unsigned steps = 0;
  for (std::uint32_t node = 0; node < nodes_;) {
    if (++steps > kMostSteps) return false;
    Word& word = area(node).view.word;
    std::uint64_t seen = word.load(std::memory_order_acquire);
    const bool lost = domain_.segment(node).lost();
    const std::optional<View> there = lost ? std::nullopt : View::from(seen, nodes_);
    if (!there) {
      ++node;
      continue;
    }
    if (there->generation > want.generation) {
      want = *there;
      any = false;
      node = 0;
      continue;
    }
    if (there->generation == want.generation) {
      want = *there;
    } else if (!word.compare_exchange_strong(seen, want.word(), std::memory_order_acq_rel)) {
      continue;  // by whom, and to what?
    }
    // Written into what the fault handler has put in the place of lost memory, it is nowhere.
    any = any || !domain_.segment(node).lost();
    ++node;
  }
  return any;
}

// Where the decided view's segments have none: a new segment, or a damaged copy.
void Views::spread(const View& decided) {
  for (std::uint32_t node = 0; node < nodes_; ++node) {
    if (!decided.has_segment(node)) continue;
    Word& word = area(node).view.word;
    std::uint64_t seen = word.load(std::memory_order_acquire);
    if (domain_.segment(node).lost() || View::from(seen, nodes_)) continue;
    word.compare_exchange_strong(seen, decided.word(), std::memory_order_acq_rel);
  }
}

// Its segments are mapped as they are now before anybody works in it: one that came back takes part in
// the next ballot at once, in the same order for everybody.
View Views::act_upon(const View& decided) {
  if (mine().generation < decided.generation) {
    for (std::uint32_t node = 0; node < nodes_; ++node) {
      if (decided.has_segment(node)) domain_.renew(node);
    }
  }
  std::uint64_t now = mine_.load(std::memory_order_acquire);
  while (unpack(now).generation < decided.generation) {
    if (mine_.compare_exchange_weak(now, pack(decided), std::memory_order_acq_rel)) return decided;
  }
  return unpack(now);
}

View Views::look() {
  const std::optional<View> latest = current();
  if (!latest || latest->generation <= mine().generation) return mine();
  View want = *latest;
  if (!ballot(want)) return mine();
  spread(want);
  return act_upon(want);
}

View Views::propose(const View& wanted) {
  const View before = mine();
  if (before.generation == 0 || wanted.generation != before.generation + 1 ||
      !View::from(wanted.word(), nodes_)) {
    return before;
  }
  View want = wanted;
  if (!ballot(want)) return before;
  spread(want);
  return act_upon(want);
}

// Only beside a good copy of the same view: who alone holds an old view must not make it the domain's.
unsigned Views::repair() {
  const View decided = mine();
  if (decided.generation == 0) return 0;
  bool beside = false;
  bool divided = false;
  unsigned wrong = 0;
  for (std::uint32_t node = 0; node < nodes_; ++node) {
    const std::optional<View> there = read(node);
    if (there && there->generation > decided.generation) return 0;  // for look()
    if (there && *there == decided) {
      beside = true;
    } else if (decided.has_segment(node) && !domain_.segment(node).lost()) {
      divided = divided || there;
      ++wrong;
    }
  }
  if (wrong == 0 || !beside) return 0;
  spread(decided);
  // Somebody whose ballot missed a segment left a view there that nobody acted upon; a copy that was
  // written again may have become old meanwhile. No store to it but that of another ballot.
  if (divided) propose({decided.generation + 1, decided.members, decided.segments});
  return wrong;
}

}  // namespace mcs::runtime
