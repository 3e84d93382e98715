// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/statistics.h"

#include <gtest/gtest.h>

#include <random>

namespace mcs::loadtest {
namespace {

TEST(Median, IsTheMiddleOne) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(median({7}), 7);
  EXPECT_EQ(median({9, 1, 5}), 5);
  EXPECT_EQ(median({9, 1, 5, 6}), 5.5);
}

TEST(Bootstrap, IntervalOfEqualValuesIsAPoint) {
  const Interval interval = bootstrap_median({3, 3, 3, 3}, 1);
  EXPECT_EQ(interval.value, 3);
  EXPECT_EQ(interval.low, 3);
  EXPECT_EQ(interval.high, 3);
  EXPECT_EQ(bootstrap_median({}, 1).value, 0);
}

TEST(Bootstrap, IntervalHoldsTheTrueMedianAsOftenAsItSays) {
  std::mt19937_64 random(11);
  std::lognormal_distribution<double> values(0, .2);
  int held = 0;
  constexpr int kTrials = 200;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> sample(15);
    for (double& value : sample) {
      value = values(random);
    }
    const Interval interval = bootstrap_median(sample, static_cast<uint64_t>(trial));
    EXPECT_LE(interval.low, interval.value);
    EXPECT_LE(interval.value, interval.high);
    held += interval.low <= 1 && 1 <= interval.high ? 1 : 0;
  }
  // The true median is 1. A small sample's interval is a little too narrow or too wide.
  EXPECT_GE(held, kTrials * 88 / 100);
}

TEST(Bootstrap, RatioComparesWithinARound) {
  // The machine is twice as slow in some rounds; the ratio does not see it.
  const Interval ratio = bootstrap_ratio({1, 2, 1, 2}, {2, 4, 2, 4}, 1);
  EXPECT_EQ(ratio.value, .5);
  EXPECT_EQ(ratio.low, .5);
  EXPECT_EQ(ratio.high, .5);
}

}  // namespace
}  // namespace mcs::loadtest
