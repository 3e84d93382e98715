// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/memory.h"

#include <xxhash.h>

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

Memory::Memory(gsm::Domain& domain)
    : domain_(domain), g_(CacheGeometry::load(domain.header().user + 16)) {
  for (std::uint32_t node = 0; node < domain.node_count(); ++node) {
    bases_.push_back(domain.segment(node).metadata());
    payloads_.push_back(domain.segment(node).payload());
    incarnations_.push_back(domain.segment(node).incarnation());
  }
}

std::uint32_t Memory::home_of(std::uint64_t hash) const {
  const auto n = static_cast<std::uint32_t>(bases_.size());
  if (n == 1) return 0;
  std::uint32_t best = 0;
  std::uint64_t best_weight = 0;
  for (std::uint32_t segment = 0; segment < n; ++segment) {
    if (lost(segment)) continue;
    // Weights from the high bits; the bucket within the segment uses the low ones.
    std::uint64_t weight = (hash >> 20) ^ (0x9e3779b97f4a7c15ULL * (segment + 1));
    weight = (weight ^ (weight >> 31)) * 0xbf58476d1ce4e5b9ULL;
    weight ^= weight >> 29;
    if (weight >= best_weight) {
      best_weight = weight;
      best = segment;
    }
  }
  return best;
}

}  // namespace mcs::cache
