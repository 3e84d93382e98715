// SPDX-License-Identifier: Apache-2.0
// GlobalStatistics: counters and latencies of all instances, per server and node, that lose nothing
// and count nothing twice when an instance dies.
//
// Each instance adds to cells in its own slot. When it leaves or is recovered its cells are folded
// into the totals of its slot's segment, exactly once: under the totals' lock the copy that does not
// count is made (old copy + cells, last_folded = the instance), then one store of `active` makes it
// count, then the slot's `folded` word says so, then the lock is released. A kill before `active`
// leaves the old copy; a kill after it leaves a lock whose recoverer finishes `folded` from
// last_folded before releasing it.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "libglobalcache/runtime/instance.h"

namespace mcs::runtime {

/// Cells below are counters (the component says which); from here on a latency histogram.
inline constexpr unsigned kLatencyCells = 24;
inline constexpr unsigned kFirstLatencyCell = kStatCells - kLatencyCells;

/// Bucket i holds latencies below 2^(i/2) * 250 ns; the last one everything above (about 0.7 s).
unsigned latency_bucket(std::uint64_t ns);
/// Upper bound of a bucket in ns.
std::uint64_t latency_bound_ns(unsigned bucket);

class GlobalStatistics {
 public:
  explicit GlobalStatistics(const Instance& instance) : instance_(instance) {}

  struct Row {
    ServerKind server;
    std::uint32_t node;
    std::array<std::uint64_t, kStatCells> cells;
    /// The smallest bucket bound that at least `fraction` of the latencies do not exceed, ns; 0 if
    /// there are none.
    std::uint64_t latency_ns(double fraction) const;
  };
  /// One row per server and node that has counted anything. Living instances go on counting
  /// meanwhile; one that is folded during the call may be missing or counted twice in this answer.
  std::vector<Row> rows() const;
  /// All rows together.
  Row sum() const;

 private:
  const Instance& instance_;
};

}  // namespace mcs::runtime
