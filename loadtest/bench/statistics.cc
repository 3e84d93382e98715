// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/statistics.h"

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <random>

namespace mcs::loadtest {

namespace {

constexpr int kResamples = 10'000;

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) {
    return 0;
  }
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) {
    return *middle;
  }
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

Interval bootstrap_median(const std::vector<double>& values, uint64_t seed) {
  if (values.empty()) {
    return {};
  }
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<size_t> pick(0, values.size() - 1);
  std::vector<double> medians;
  std::vector<double> sample(values.size());
  for (int i = 0; i < kResamples; ++i) {
    for (double& value : sample) {
      value = values[pick(random)];
    }
    medians.push_back(median(sample));
  }
  std::sort(medians.begin(), medians.end());
  return {median(values), medians[kResamples * 25 / 1000], medians[kResamples * 975 / 1000 - 1]};
}

Interval bootstrap_ratio(const std::vector<double>& a, const std::vector<double>& b,
                         uint64_t seed) {
  assert(a.size() == b.size());
  std::vector<double> ratios;
  for (size_t i = 0; i < a.size(); ++i) {
    ratios.push_back(a[i] / b[i]);
  }
  return bootstrap_median(ratios, seed);
}

}  // namespace mcs::loadtest
