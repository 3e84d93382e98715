// SPDX-License-Identifier: Apache-2.0
// Loans of space between nodes. A node that has no room of its own left takes what another one has free.
// An extent on one segment (the lender's) of an entry whose descriptor lies on another (the borrower's)
// is a loan: which loans there are follows from the entries, so that no death can leave one over. A
// borrower's segment that is lost gives its loans back with its entries, a lender's takes them along.
//
// The counts of LoanTable only say whether another loan may be made. An extent is counted before its bits
// are set and after they were cleared: a death in between leaves a count too high, so that less is lent
// than could be, until recount() has looked.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "libglobalcache/cache/memory.h"

namespace mcs::cache {

/// Any thread. In a domain of one node it counts nothing.
class Loans {
 public:
  explicit Loans(const Memory& memory) : memory_(memory) {}

  /// The other nodes' segments that may lend so many units to `node`, most free units first.
  std::span<const std::uint32_t> lenders(std::uint32_t node, std::uint64_t units,
                                         std::array<std::uint32_t, gsm::kMaxNodes>& out) const;
  /// Before `units` on `segment` are marked by a process of `node` for an entry whose descriptor lies on
  /// `home`. False: a loan that would leave the lender less than its reserve; nothing is counted then.
  bool take(std::uint32_t segment, std::uint32_t node, std::uint32_t home, std::uint64_t units) const;
  /// After they were cleared.
  void give_back(std::uint32_t segment, std::uint32_t home, std::uint64_t units) const;

  /// Units of each segment. That many stay free when it lends: what its own node needs next.
  std::uint64_t reserve() const { return capacity() / 16; }
  std::uint64_t capacity() const { return memory_.geometry().groups * kGroupUnits; }
  /// As counted: deaths may have left more than there is.
  std::uint64_t used(std::uint32_t segment) const;
  std::uint64_t free_units(std::uint32_t segment) const;
  std::uint64_t lendable(std::uint32_t segment) const {
    return free_units(segment) - std::min(free_units(segment), reserve());
  }
  /// Units of `lender` that entries of `borrower` take, about.
  std::uint64_t lent(std::uint32_t lender, std::uint32_t borrower) const;
  std::uint64_t lent(std::uint32_t lender) const;

  /// Correct a count after somebody has counted what it stands for: `before` is the count as it was
  /// when that began.
  static void correct(Word& count, std::uint64_t before, std::uint64_t counted);
  LoanTable& table(std::uint32_t segment) const { return memory_.state(segment).loans; }

 private:
  const Memory& memory_;
};

}  // namespace mcs::cache
