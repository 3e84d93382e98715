// SPDX-License-Identifier: Apache-2.0
// Shares of the space: how much the entries of one site may take (quota), and how much of it others'
// needs leave alone (reserve). See docs/decisions/0033-shares-of-the-space.md.
//
// A site has a number in the table of the first segment that answers, given by one CAS on `ids`. All
// the rest are hints: counts are changed by whoever attaches or retires, and counted again from the
// entries themselves, so a kill in between makes them wrong for about a second; names and limits are
// written again by the next fill that finds them different. A number whose site has no entries is
// given away when there is no other; at worst two sites then share one for a while.
//
// A reserve counts as long as a running configuration names its site. Every process stores 0 to
// `unnamed` of the sites that its own names (keep: every two seconds and at each fill), and whoever
// counts the entries adds 1 unless another has since it last looked (age). So what a removed or
// renamed site had reserved is everybody's after kWithdrawn counts, ten seconds at the least, and
// reserved again as soon as a configuration names it. Nothing is undone, so there is nothing that a
// kill could leave half done: a lost 1 or 0 comes with the next count or tick. While nobody runs
// nobody counts.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

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

/// `unnamed` from which on a site's reserve is not kept.
inline constexpr std::uint64_t kWithdrawn = 20;

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
  /// What the site has reserved; 0 also if no running configuration names it any more.
  std::uint64_t reserve(std::uint32_t site) const;
  /// A running configuration names it. Does nothing for one without a number.
  void keep(std::string_view name) const;
  /// One more count that nobody has named the sites in. `seen`: what this process saw at the last.
  void age(SiteUnits& seen) const;
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
  std::uint64_t id_of(std::string_view name) const;
  void note(SiteTable& table, std::uint32_t site, std::uint64_t id, const SiteRules& rules) const;

  const Memory& memory_;
  std::uint64_t seed_;
};

}  // namespace mcs::cache
