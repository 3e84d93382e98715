// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/runtime/statistics.h"

#include <algorithm>
#include <cmath>

namespace mcs::runtime {

std::uint64_t latency_bound_ns(unsigned bucket) {
  return static_cast<std::uint64_t>(250.0 * std::exp2(bucket / 2.0));
}

unsigned latency_bucket(std::uint64_t ns) {
  static const auto bounds = [] {
    std::array<std::uint64_t, kLatencyCells> b{};
    for (unsigned i = 0; i < kLatencyCells; ++i) b[i] = latency_bound_ns(i);
    return b;
  }();
  const auto at = std::upper_bound(bounds.begin(), bounds.end(), ns);
  return std::min<unsigned>(static_cast<unsigned>(at - bounds.begin()), kLatencyCells - 1);
}

std::uint64_t GlobalStatistics::Row::latency_ns(double fraction) const {
  std::uint64_t total = 0;
  for (unsigned i = 0; i < kLatencyCells; ++i) total += cells[kFirstLatencyCell + i];
  if (total == 0) return 0;
  std::uint64_t seen = 0;
  for (unsigned i = 0; i < kLatencyCells; ++i) {
    seen += cells[kFirstLatencyCell + i];
    if (static_cast<double>(seen) >= fraction * static_cast<double>(total)) {
      return latency_bound_ns(i);
    }
  }
  return latency_bound_ns(kLatencyCells - 1);
}

std::vector<GlobalStatistics::Row> GlobalStatistics::rows() const {
  const std::uint32_t nodes = instance_.domain().node_count();
  std::vector<Row> table(std::size_t{nodes} * kServerKinds);
  for (std::uint32_t node = 0; node < nodes; ++node) {
    const StatTotals& totals = instance_.totals(node);
    const std::uint64_t active = totals.active.load(std::memory_order_acquire);
    for (unsigned kind = 0; kind < kServerKinds; ++kind) {
      Row& row = table[node * kServerKinds + kind];
      row.server = static_cast<ServerKind>(kind);
      row.node = node;
      row.cells = totals.copies[(active - 1) & 1].kinds[kind];
    }
  }
  for (std::uint32_t number = 0; number < instance_.slot_count(); ++number) {
    const std::uint64_t word = instance_.control(number).state.load(std::memory_order_acquire);
    const InstanceState state = StateWord::state(word);
    if (state == InstanceState::kInvalid) continue;
    // Also of a free slot: whoever left without getting the totals' lock left its cells to the next
    // owner of the slot.
    if (instance_.control(number).folded.load(std::memory_order_acquire) ==
        StateWord::incarnation(word)) {
      continue;
    }
    const Slot& slot = instance_.slot(number);
    const auto home = static_cast<std::uint32_t>(number / instance_.geometry().slots_per_node);
    Row& row = table[home * kServerKinds + static_cast<unsigned>(server_kind(slot.server))];
    for (unsigned i = 0; i < kStatCells; ++i) {
      row.cells[i] += slot.stats[i].load(std::memory_order_relaxed);
    }
  }
  std::erase_if(table, [](const Row& row) {
    return std::all_of(row.cells.begin(), row.cells.end(), [](std::uint64_t n) { return n == 0; });
  });
  return table;
}

GlobalStatistics::Row GlobalStatistics::sum() const {
  Row all{ServerKind::kOther, 0, {}};
  for (const Row& row : rows()) {
    for (unsigned i = 0; i < kStatCells; ++i) all.cells[i] += row.cells[i];
  }
  return all;
}

}  // namespace mcs::runtime
