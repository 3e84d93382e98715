// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/sites.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "libglobalcache/cache/loans.h"

namespace mcs::cache {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr unsigned kAttempts = 8;

// Only what changed is stored: usually nothing, and the lines stay shared.
bool put(Word& word, std::uint64_t value) {
  if (word.load(kRelaxed) == value) return false;
  word.store(value, kRelaxed);
  return true;
}

}  // namespace

SiteTable& Sites::table() const {
  std::uint32_t segment = 0;
  while (segment + 1 < memory_.nodes() && memory_.lost(segment)) ++segment;
  return memory_.state(segment).sites;
}

std::uint64_t Sites::units_of(const Share& share) const {
  if (share.bytes != 0) return (share.bytes + kUnitBytes - 1) / kUnitBytes;
  return memory_.capacity_units() / 1000 * share.permille;
}

void Sites::note(SiteTable& table, std::uint32_t site, std::uint64_t id,
                 const SiteRules& rules) const {
  std::array<std::uint64_t, kSiteName / sizeof(Word)> name{};
  std::memcpy(name.data(), rules.name.data(), std::min<std::size_t>(rules.name.size(), kSiteName - 1));
  const std::uint64_t quota = units_of(rules.quota);
  const std::uint64_t reserve = units_of(rules.reserve);
  const auto write = [&](SiteTable& to) {
    bool changed = put(to.quota[site], quota);
    changed = put(to.reserve[site], reserve) || changed;
    for (std::size_t i = 0; i < name.size(); ++i) {
      changed = put(to.names[site][i], name[i]) || changed;
    }
    return changed;
  };
  put(table.unnamed[site], 0);
  if (!write(table)) return;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (memory_.lost(segment)) continue;
    SiteTable& other = memory_.state(segment).sites;
    put(other.ids[site], id);
    write(other);
  }
}

std::uint64_t Sites::id_of(std::string_view name) const {
  return XXH3_64bits_withSeed(name.data(), name.size(), seed_) | 1;
}

void Sites::keep(std::string_view name) const {
  SiteTable& sites = table();
  const std::uint64_t id = id_of(name);
  for (std::uint32_t site = 1; site < kSites; ++site) {
    const std::uint64_t known = sites.ids[site].load(std::memory_order_acquire);
    if (known == id) put(sites.unnamed[site], 0);
    if (known == id || known == 0) return;
  }
}

void Sites::age(SiteUnits& seen) const {
  for (std::uint32_t site = 1; site < kSites; ++site) {
    Word& unnamed = table().unnamed[site];
    std::uint64_t count = unnamed.load(kRelaxed);
    if (count == seen[site] && count < kWithdrawn) {
      unnamed.compare_exchange_strong(count, count + 1, kRelaxed);
    }
    seen[site] = unnamed.load(kRelaxed);
  }
}

std::uint64_t Sites::reserve(std::uint32_t site) const {
  const SiteTable& sites = table();
  return sites.unnamed[site].load(kRelaxed) >= kWithdrawn ? 0 : sites.reserve[site].load(kRelaxed);
}

std::uint32_t Sites::number_of(const SiteRules& rules) const {
  SiteTable& sites = table();
  const std::uint64_t id = id_of(rules.name);
  for (unsigned attempt = 0; attempt < kAttempts; ++attempt) {
    std::uint32_t place = 0;
    std::uint64_t old = 0;
    for (std::uint32_t site = 1; site < kSites; ++site) {
      const std::uint64_t known = sites.ids[site].load(std::memory_order_acquire);
      if (known == id) {
        note(sites, site, id, rules);
        return site;
      }
      if (known == 0 || (place == 0 && units(site) == 0)) {
        place = site;
        old = known;
      }
      if (known == 0) break;  // nobody comes after the first free number
    }
    if (place == 0) return 0;
    if (sites.ids[place].compare_exchange_strong(old, id, std::memory_order_acq_rel)) {
      note(sites, place, id, rules);
      return place;
    }
  }
  return 0;
}

SiteUnits Sites::reserves() const {
  SiteUnits reserves{};
  std::uint64_t sum = 0;
  const std::uint64_t most = memory_.capacity_units() / 4 * 3;
  for (std::uint32_t site = 1; site < kSites; ++site) {
    reserves[site] = std::min(reserve(site), memory_.capacity_units());
    sum += reserves[site];
  }
  if (sum <= most) return reserves;
  const double factor = static_cast<double>(most) / static_cast<double>(sum);
  for (std::uint64_t& units : reserves) {
    units = static_cast<std::uint64_t>(static_cast<double>(units) * factor);
  }
  return reserves;
}

SiteUnits Sites::counts() const {
  SiteUnits counts{};
  for (std::uint32_t site = 1; site < kSites; ++site) counts[site] = units(site);
  return counts;
}

void Sites::correct(const SiteUnits& before, const SiteUnits& counted) const {
  for (std::uint32_t site = 1; site < kSites; ++site) {
    Loans::correct(table().units[site], before[site], counted[site]);
  }
}

}  // namespace mcs::cache
