// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace mcs::loadtest {

struct Interval {
  double value = 0;  // the median
  double low = 0;
  double high = 0;
};

double median(std::vector<double> values);

// Median with its 95 % interval by the bootstrap (percentile method, 10,000 resamples; B. Efron,
// Annals of Statistics 7(1), 1979). The same seed gives the same interval. Empty input gives zeros.
Interval bootstrap_median(const std::vector<double>& values, uint64_t seed);

// Of a[i] / b[i]: the two values of one round saw the same machine, so rounds are resampled, not
// values.
Interval bootstrap_ratio(const std::vector<double>& a, const std::vector<double>& b, uint64_t seed);

}  // namespace mcs::loadtest
