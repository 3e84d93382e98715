// SPDX-License-Identifier: Apache-2.0
#include "loadtest/chaos/wild/regions.h"

#include <algorithm>

#include "libglobalcache/cache/layout.h"

namespace mcs::loadtest {

std::vector<Region> regions_of(const gsm::SegmentHeader& header) {
  const auto r = runtime::RuntimeGeometry::load(header.user);
  const auto c = cache::CacheGeometry::load(header.user + 16);
  return {{"header", 0, sizeof(gsm::SegmentHeader)},
          {"controls", r.controls, r.slots_per_node * sizeof(runtime::SlotControl)},
          {"totals", r.totals, sizeof(runtime::StatTotals)},
          {"events", r.events, sizeof(runtime::EventRing)},
          {"mutexes", r.mutexes, runtime::kMutexes * sizeof(runtime::MutexCell)},
          {"components", r.components, runtime::kMaxComponents * sizeof(runtime::ComponentCell)},
          {"slots", r.slots, r.slots_per_node * r.slot_bytes},
          {"state", c.state_at, sizeof(cache::SegmentState)},
          {"purge log", c.purge_log_at, sizeof(cache::PurgeLog)},
          {"buckets", c.buckets_at, c.buckets * sizeof(cache::Bucket)},
          {"clock", c.clock_at, c.descriptors},
          {"arrivals", c.arrivals_at, c.arrivals * sizeof(cache::Word)},
          {"ghosts", c.ghosts_at, c.ghost_sets * sizeof(cache::GhostSet)},
          {"descriptors", c.descriptors_at, c.descriptors * sizeof(cache::Descriptor)},
          {"groups", c.groups_at, c.groups * sizeof(cache::Group)},
          {"payload", header.meta_bytes, header.size - header.meta_bytes}};
}

std::vector<std::byte> stray_bytes(std::mt19937_64& random, const std::vector<std::byte>& current,
                                   const std::vector<std::byte>& other) {
  std::vector<std::byte> bytes = current;
  switch (random() % 6) {
    case 0:  // one bit
      bytes[random() % bytes.size()] ^= std::byte{1} << (random() % 8);
      return bytes;
    case 1:
      std::fill(bytes.begin(), bytes.end(), std::byte{0});
      return bytes;
    case 2:
      std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
      return bytes;
    case 3:  // what is right somewhere else
      std::copy_n(other.begin(), std::min(other.size(), bytes.size()), bytes.begin());
      return bytes;
    default:
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
      return bytes;
  }
}

std::uint64_t stray_size(std::mt19937_64& random) {
  switch (random() % 8) {
    case 0:
      return 1 + random() % 4;
    case 1:
      return 16 + random() % 112;
    case 2:
      return random() % 8 == 0 ? 256 + random() % 3840 : 8;
    default:
      return 8;
  }
}

}  // namespace mcs::loadtest
