// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace mcs::loadtest {

// Counts of durations in nanoseconds in log-linear buckets: 128 per power of two, so a percentile
// is exact to 1 %. Not thread-safe; merge() those of several threads.
class Histogram {
 public:
  void add(uint64_t ns);
  void merge(const Histogram& other);

  uint64_t count() const { return count_; }
  uint64_t max() const { return max_; }
  double mean() const;
  // The smallest recorded bucket that at least fraction `quantile` of the values do not exceed
  // (its upper end, never above max()); 0 when empty.
  uint64_t percentile(double quantile) const;

 private:
  std::vector<uint64_t> buckets_;
  uint64_t count_ = 0;
  uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace mcs::loadtest
