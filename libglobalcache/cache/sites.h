// SPDX-License-Identifier: Apache-2.0
// Shares of the space: how much the entries of one site may take (quota), and how much of it others'
// needs leave alone (reserve). See docs/decisions/0033-shares-of-the-space.md.
//
// A site has a number in the table of the first segment that answers, given by one CAS on `ids`. All
// the rest are hints: counts are changed by whoever attaches or retires, and counted again from the
// entries themselves, so a kill in between makes them wrong for about a second; names and limits are
// written again by the next fill that finds them different. A number whose site has no entries is
// given away when there is no other; at worst two sites then share one for a while.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "libglobalcache/cache/memory.h"

namespace mcs::cache {

/// Of the whole space. Both 0: none.
struct Share {
  std::uint64_t bytes = 0;
  std::uint32_t permille = 0;
};

/// Whose space a fill takes. Constant while anybody uses it.
struct SiteRules {
  std::string name;
  Share quota;
  Share reserve;
};

/// Units of each site, by number.
using SiteUnits = std::array<std::uint64_t, kSites>;

/// Any thread.
class Sites {
 public:
  Sites(const Memory& memory, std::uint64_t seed) : memory_(memory), seed_(seed) {}

  /// Its number, which it gets if it has none; notes its limits. 0: too many sites have entries, so
  /// it is not told apart.
  std::uint32_t number_of(const SiteRules& rules) const;
  /// Whether any site has a number.
  bool any() const { return table().ids[1].load(std::memory_order_relaxed) != 0; }

  void add(std::uint32_t site, std::uint64_t units) const {
    if (site != 0) table().units[site].fetch_add(units, std::memory_order_relaxed);
  }
  void remove(std::uint32_t site, std::uint64_t units) const {
    if (site != 0) table().units[site].fetch_sub(units, std::memory_order_relaxed);
  }
  std::uint64_t units(std::uint32_t site) const {
    const auto n = static_cast<std::int64_t>(table().units[site].load(std::memory_order_relaxed));
    return n > 0 ? static_cast<std::uint64_t>(n) : 0;
  }
  /// 0: it may take any number.
  std::uint64_t quota(std::uint32_t site) const {
    return table().quota[site].load(std::memory_order_relaxed);
  }
  Word& hand(std::uint32_t site) const { return table().hands[site]; }
  /// The units that each site keeps when others need room. Together at most three quarters of the
  /// space: reserves that exceed that are all reduced by the same factor.
  SiteUnits reserves() const;
  /// All counts, before and after somebody counted the entries; corrects those that were wrong.
  SiteUnits counts() const;
  void correct(const SiteUnits& before, const SiteUnits& counted) const;

  /// Of the space that there is.
  std::uint64_t units_of(const Share& share) const;

 private:
  SiteTable& table() const;
  void note(SiteTable& table, std::uint32_t site, std::uint64_t id, const SiteRules& rules) const;

  const Memory& memory_;
  std::uint64_t seed_;
};

}  // namespace mcs::cache
