// SPDX-License-Identifier: Apache-2.0
#include "loadtest/client/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace mcs::loadtest {
namespace {

TEST(Histogram, IsExactForSmallValues) {
  Histogram histogram;
  for (uint64_t value = 1; value <= 100; ++value) {
    histogram.add(value);
  }
  EXPECT_EQ(histogram.count(), 100u);
  EXPECT_EQ(histogram.percentile(.5), 50u);
  EXPECT_EQ(histogram.percentile(.99), 99u);
  EXPECT_EQ(histogram.percentile(1), 100u);
  EXPECT_EQ(histogram.max(), 100u);
  EXPECT_DOUBLE_EQ(histogram.mean(), 50.5);
}

TEST(Histogram, IsEmptyAtFirst) {
  const Histogram histogram;
  EXPECT_EQ(histogram.percentile(.5), 0u);
  EXPECT_EQ(histogram.mean(), 0);
}

TEST(Histogram, PercentilesOfRandomValuesAreWithinOnePercent) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> values(12, 3);
  std::vector<uint64_t> all;
  Histogram one;
  Histogram two;
  for (int i = 0; i < 50'000; ++i) {
    const auto value = static_cast<uint64_t>(values(random));
    all.push_back(value);
    (i % 2 == 0 ? one : two).add(value);
  }
  one.merge(two);
  std::sort(all.begin(), all.end());
  EXPECT_EQ(one.count(), all.size());
  EXPECT_EQ(one.max(), all.back());
  for (const double quantile : {.01, .5, .9, .99, .999, 1.0}) {
    const auto rank = static_cast<size_t>(std::ceil(quantile * static_cast<double>(all.size())));
    const auto exact = static_cast<double>(all[rank - 1]);
    EXPECT_GE(static_cast<double>(one.percentile(quantile)), exact);
    EXPECT_LE(static_cast<double>(one.percentile(quantile)), exact * 1.01 + 1);
  }
}

TEST(Histogram, TakesTheLargestValue) {
  Histogram histogram;
  histogram.add(UINT64_MAX);
  histogram.add(0);
  EXPECT_EQ(histogram.percentile(1), UINT64_MAX);
  EXPECT_EQ(histogram.percentile(.5), 0u);
}

}  // namespace
}  // namespace mcs::loadtest
