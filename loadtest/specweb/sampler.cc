// SPDX-License-Identifier: Apache-2.0
#include "loadtest/specweb/sampler.h"

#include <cmath>
#include <numeric>
#include <stdexcept>

namespace mcs::loadtest {

WeightedSampler::WeightedSampler(std::span<const double> weights) : columns_(weights.size()) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (weights.empty() || !(sum > 0)) {
    throw std::invalid_argument("a sampler needs at least one positive weight");
  }
  std::vector<double> scaled;
  std::vector<size_t> small;
  std::vector<size_t> large;
  for (size_t i = 0; i < weights.size(); ++i) {
    scaled.push_back(weights[i] / sum * static_cast<double>(weights.size()));
    (scaled[i] < 1 ? small : large).push_back(i);
  }
  while (!small.empty() && !large.empty()) {
    const size_t low = small.back();
    const size_t high = large.back();
    small.pop_back();
    columns_[low] = {scaled[low], high};
    scaled[high] -= 1 - scaled[low];
    if (scaled[high] < 1) {
      large.pop_back();
      small.push_back(high);
    }
  }
  // What is left differs from 1 by rounding only.
  for (const auto* rest : {&small, &large}) {
    for (const size_t i : *rest) {
      columns_[i] = {1, i};
    }
  }
}

size_t WeightedSampler::operator()(Random& random) const {
  const size_t column = std::uniform_int_distribution<size_t>(0, columns_.size() - 1)(random);
  const double coin = std::uniform_real_distribution<double>(0, 1)(random);
  return coin < columns_[column].keep ? column : columns_[column].alias;
}

std::vector<double> zipf_weights(size_t count, double alpha) {
  std::vector<double> weights;
  weights.reserve(count);
  for (size_t rank = 1; rank <= count; ++rank) {
    weights.push_back(std::pow(static_cast<double>(rank), -alpha));
  }
  return weights;
}

}  // namespace mcs::loadtest
