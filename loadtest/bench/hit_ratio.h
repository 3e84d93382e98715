// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loadtest/bench/benchmark.h"

namespace mcs::loadtest {

// Which part of the requests, and of the bytes, the cache answers, beside reference models of other
// policies on the same streams.
class HitRatioBenchmark : public Benchmark {
 public:
  std::string name() const override { return "hit-ratio"; }
  std::string description() const override {
    return "Object and byte hit ratios of the cache and of LRU, SIEVE, S3-FIFO and W-TinyLFU models "
           "on request streams, at several sizes";
  }
  void add_options(CLI::App& app) override;
  Result<nlohmann::json> run(const std::atomic<bool>& interrupted) override;

 private:
  uint64_t requests_ = 0;  // 0: 200,000 when quick, else 1,000,000
  std::vector<std::string> workloads_;
  std::vector<double> percents_ = {.1, 1, 2, 5, 10, 25};
  std::string plots_;
};

}  // namespace mcs::loadtest
