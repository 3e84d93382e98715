// SPDX-License-Identifier: Apache-2.0
#include "loadtest/client/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace mcs::loadtest {

namespace {

constexpr unsigned kSubBits = 7;
constexpr uint64_t kSub = 1u << kSubBits;

// Values below kSub have a bucket each; above, the leading kSubBits + 1 bits choose it.
size_t bucket_of(uint64_t value) {
  if (value < kSub) {
    return value;
  }
  const unsigned shift = 63 - static_cast<unsigned>(std::countl_zero(value)) - kSubBits;
  return (shift << kSubBits) + (value >> shift);
}

uint64_t last_value_of(size_t bucket) {
  if (bucket < 2 * kSub) {
    return bucket;
  }
  const uint64_t shift = (bucket >> kSubBits) - 1;
  const uint64_t leading = (bucket & (kSub - 1)) + kSub;
  return ((leading + 1) << shift) - 1;
}

}  // namespace

void Histogram::add(uint64_t ns) {
  const size_t bucket = bucket_of(ns);
  if (bucket >= buckets_.size()) {
    buckets_.resize(bucket + 1);
  }
  ++buckets_[bucket];
  ++count_;
  max_ = std::max(max_, ns);
  sum_ += static_cast<double>(ns);
}

void Histogram::merge(const Histogram& other) {
  buckets_.resize(std::max(buckets_.size(), other.buckets_.size()));
  for (size_t i = 0; i < other.buckets_.size(); ++i) {
    buckets_[i] += other.buckets_[i];
  }
  count_ += other.count_;
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

double Histogram::mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

uint64_t Histogram::percentile(double quantile) const {
  const auto wanted = std::max<uint64_t>(
      1, static_cast<uint64_t>(std::ceil(quantile * static_cast<double>(count_))));
  uint64_t seen = 0;
  for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    seen += buckets_[bucket];
    if (seen >= wanted) {
      return std::min(last_value_of(bucket), max_);
    }
  }
  return max_;
}

}  // namespace mcs::loadtest
