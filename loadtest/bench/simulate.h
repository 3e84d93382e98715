// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loadtest/bench/benchmark.h"

namespace mcs::loadtest {

// The cache's own placement and eviction over the memory of up to 1024 nodes, without servers and
// disks.
class SimulateBenchmark : public Benchmark {
 public:
  std::string name() const override { return "simulate"; }
  std::string description() const override {
    return "hit ratio, share of remote memory, and what joining, ticking and recovering cost, with "
           "1 to "
           "1024 simulated nodes";
  }
  void add_options(CLI::App& app) override;
  Result<nlohmann::json> run(const std::atomic<bool>& interrupted) override;

 private:
  std::vector<uint32_t> nodes_;  // empty: 1 to 1024; quick: to 64
  double load_per_node_ = 20;
  uint64_t cache_mib_ = 16;
  uint32_t shrink_ = 8;
  uint64_t requests_ = 0;
  std::string validate_;
  std::string svg_;
};

}  // namespace mcs::loadtest
