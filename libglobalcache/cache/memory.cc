// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/memory.h"

#include <xxhash.h>

#include <algorithm>

namespace mcs::cache {

std::uint64_t overflow_sum(const Overflow& overflow) {
  if constexpr (!kChecked) return 1;
  std::array<std::uint64_t, kOverflowExtents + 1> words;
  words[0] = overflow.next.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < kOverflowExtents; ++i) {
    words[i + 1] = overflow.extents[i].load(std::memory_order_relaxed);
  }
  return XXH3_64bits(words.data(), sizeof words);
}

namespace {

// For the numbers that no node of the domain has; nothing resolves there.
alignas(64) std::byte nothing[64];

std::uint64_t weight(std::uint64_t part, std::uint32_t segment) {
  std::uint64_t w = part ^ (0x9e3779b97f4a7c15ULL * (segment + 1));
  w = (w ^ (w >> 31)) * 0xbf58476d1ce4e5b9ULL;
  return (w ^ (w >> 29)) * 0x94d049bb133111ebULL;
}

}  // namespace

Memory::Memory(gsm::Domain& domain)
    : domain_(domain),
      g_(CacheGeometry::load(domain.header().user + 16)),
      nodes_(domain.node_count()),
      views_(domain) {
  auto none = std::make_unique<Place>();
  none->base = nothing;
  none->payload = nothing;
  for (auto& place : places_) place.store(none.get(), std::memory_order_relaxed);
  all_.push_back(std::move(none));
  runtime::View view = views_.look();
  if (view.generation == 0) {
    // Nobody can tell. Every segment is worth a look; those that are lost say so when they are used.
    view = runtime::View::first(nodes_);
    view.generation = 0;
  }
  const std::lock_guard lock(mutex_);
  const bool reached = reaches_all(view);
  use(view);
  // Nothing is a later view than none.
  if (!reached) word_.store(0, std::memory_order_seq_cst);
}

bool Memory::moved() const {
  const std::uint64_t word = word_.load(std::memory_order_seq_cst);
  for (std::uint32_t node = 0; node < nodes_; ++node) {
    const Place& place = at(node);
    if (!place.member || place.view->load(std::memory_order_seq_cst) == word) continue;
    if (!place.segment->lost()) return true;
  }
  return false;
}

bool Memory::adopt() {
  const std::lock_guard lock(mutex_);
  const std::uint64_t before = word_.load(std::memory_order_relaxed);
  const runtime::View view = views_.look();
  return view.generation != 0 && view.word() != before && reaches_all(view) && use(view);
}

std::string Memory::trouble() const {
  for (std::uint32_t node = 0; out_of_reach() && node < nodes_; ++node) {
    if (std::string why = domain_.out_of_reach(node); !why.empty()) return why;
  }
  return "";
}

// Where keys live follows from the incarnations of all segments, so a view is acted upon as a whole.
bool Memory::reaches_all(const runtime::View& view) {
  bool all = true;
  for (std::uint32_t node = 0; node < nodes_; ++node) {
    if (!view.has_segment(node)) continue;
    domain_.renew(node);
    all = all && !domain_.is_out_of_reach(node);
  }
  out_of_reach_.store(!all, std::memory_order_release);
  return all;
}

bool Memory::look_after() {
  {
    const std::lock_guard lock(mutex_);
    runtime::View view = views_.look();
    // One that is mapped as this view has it can only be replaced in a later one.
    const bool adopted = view.word() == word_.load(std::memory_order_relaxed);
    std::uint16_t answering = 0;
    for (std::uint32_t node = 0; node < nodes_; ++node) {
      if (!view.has_segment(node)) continue;
      gsm::Segment& segment = domain_.segment(node);
      // One that came back since this process looked last is not the one that is lost here.
      if (segment.answers() || (domain_.renew(node) && domain_.segment(node).answers()) ||
          (!adopted && domain_.is_out_of_reach(node))) {
        answering = static_cast<std::uint16_t>(answering | 1U << node);
      }
    }
    // Whatever comes back when nothing is left brings a view of its own.
    for (std::uint32_t node = 0; answering == 0 && node < nodes_; ++node) domain_.renew(node);
    if (view.generation != 0 && answering != view.segments && answering != 0) {
      view.segments = answering;
      ++view.generation;
      views_.propose(view);
    }
  }
  return adopt();
}

bool Memory::use(const runtime::View& view) {
  bool same = word_.load(std::memory_order_relaxed) != 0;
  for (std::uint32_t node = 0; node < nodes_; ++node) {
    const bool member = view.has_segment(node);
    gsm::Segment& segment = domain_.segment(node);
    const Place& had = at(node);
    if (had.segment == &segment && had.member == member) continue;
    auto place = std::make_unique<Place>();
    place->base = segment.metadata();
    place->payload = segment.payload();
    place->segment = &segment;
    place->incarnation = segment.incarnation();
    place->descriptors = reinterpret_cast<Descriptor*>(place->base + g_.descriptors_at);
    place->buckets = reinterpret_cast<Bucket*>(place->base + g_.buckets_at);
    place->clock = reinterpret_cast<std::atomic<std::uint8_t>*>(place->base + g_.clock_at);
    if (member) {
      place->link_fixed = Link::make(node, segment.incarnation(), 0, 0).value;
      place->extent_fixed = Extent::make(node, 0, 1, segment.incarnation()).value & kExtentFixed;
    }
    place->member = member;
    place->view = &views_.area(node).view.word;
    places_[node].store(place.get(), std::memory_order_release);
    all_.push_back(std::move(place));
    same = false;
  }
  if (!same) same_since_.store(view.generation, std::memory_order_release);
  find_homes();
  word_.store(view.word(), std::memory_order_seq_cst);
  return true;
}

gsm::Segment& Memory::former(std::uint32_t segment, std::uint64_t link_incarnation) const {
  const std::lock_guard lock(mutex_);
  for (const auto& place : all_) {
    if (place->segment != nullptr && place->segment->node() == segment &&
        (place->incarnation & 0x3f) == link_incarnation) {
      return *place->segment;
    }
  }
  // Never mapped here. Whatever is read there fails its checksum.
  return domain_.segment(segment);
}

// Rendezvous hashing: losing one segment moves only what it had.
void Memory::find_homes() {
  std::uint64_t first = ~0ULL;
  for (std::uint32_t node = 0; node < nodes_; ++node) {
    if (at(node).member) first = std::min(first, at(node).incarnation);
  }
  for (std::size_t part = 0; part < homes_.size(); ++part) {
    std::uint32_t best = 0;
    std::uint64_t most = 0;
    for (std::uint32_t node = 0; node < nodes_; ++node) {
      if (!at(node).member || at(node).incarnation != first || weight(part, node) < most) continue;
      best = node;
      most = weight(part, node);
    }
    homes_[part].store(static_cast<std::uint8_t>(best), std::memory_order_relaxed);
  }
}

}  // namespace mcs::cache
