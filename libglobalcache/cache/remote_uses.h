// SPDX-License-Identifier: Apache-2.0
// Which entries on other nodes' memory a process keeps reading.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "libglobalcache/cache/layout.h"

namespace mcs::cache {

/// Private to a process. Any thread. Hints: a count may be lost, never invented.
class RemoteUses {
 public:
  /// An entry is worth bringing near after so many reads by one process since it was last moved: what
  /// moving costs is then a small part of what the reads have cost, also if another node moves it back
  /// each time (D. Black, D. Sleator, Competitive Algorithms for Replication and Migration Problems,
  /// 1989).
  static constexpr std::uint32_t kWorth = 32;

  struct Entry {
    Link link;
    std::uint64_t hash2 = 0;
  };

  explicit RemoteUses(bool enabled) : places_(enabled ? kPlaces : 0) {}
  bool enabled() const { return !places_.empty(); }

  void count(Link link, std::uint64_t hash2) {
    Place& place = places_[(link.value * 0x9e3779b97f4a7c15ULL) >> 54];
    if (place.link.load(kRelaxed) != link.value) {
      place.uses.store(1, kRelaxed);
      place.hash2.store(hash2, kRelaxed);
      place.link.store(link.value, kRelaxed);
    } else if (place.uses.fetch_add(1, kRelaxed) + 1 == kWorth) {
      ready_.store(true, kRelaxed);
    }
  }

  /// Entries that have become worth it, at most `most`; each is counted anew from 0.
  std::vector<Entry> take(std::size_t most) {
    std::vector<Entry> found;
    if (!enabled() || !ready_.exchange(false, kRelaxed)) return found;
    for (std::size_t i = 0; i < kPlaces; ++i) {
      Place& place = places_[(first_ + i) % kPlaces];
      if (place.uses.load(kRelaxed) < kWorth) continue;
      if (found.size() == most) {
        first_ = (first_ + i) % kPlaces;
        ready_.store(true, kRelaxed);
        break;
      }
      found.push_back({Link{place.link.load(kRelaxed)}, place.hash2.load(kRelaxed)});
      place.uses.store(0, kRelaxed);
    }
    return found;
  }

 private:
  static constexpr auto kRelaxed = std::memory_order_relaxed;
  static constexpr std::size_t kPlaces = 1024;
  struct Place {
    std::atomic<std::uint64_t> link{0};
    std::atomic<std::uint64_t> hash2{0};
    std::atomic<std::uint32_t> uses{0};
  };
  std::vector<Place> places_;
  std::atomic<bool> ready_{false};
  std::size_t first_ = 0;  // of take(): one thread at a time
};

}  // namespace mcs::cache
