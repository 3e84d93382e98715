// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace mcs::loadtest {

using Random = std::mt19937_64;

// Draws an index with a probability proportional to its weight, in constant time (Walker's alias
// method, built as M. Vose, IEEE TSE 17(9), 1991, does). Immutable, so threads may share it.
class WeightedSampler {
 public:
  explicit WeightedSampler(std::span<const double> weights);
  size_t operator()(Random& random) const;
  size_t size() const { return columns_.size(); }

 private:
  struct Column {
    double keep;   // probability of the column's own index
    size_t alias;  // drawn otherwise
  };
  std::vector<Column> columns_;
};

// Weight of rank r (0 first) is 1 / (r + 1)^alpha.
std::vector<double> zipf_weights(size_t count, double alpha);

}  // namespace mcs::loadtest
