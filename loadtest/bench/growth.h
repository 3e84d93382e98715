// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loadtest/bench/benchmark.h"

namespace mcs::loadtest {

// What depends on how many entries and instances there are, and what must not.
class GrowthBenchmark : public Benchmark {
 public:
  std::string name() const override { return "growth"; }
  std::string description() const override {
    return "Time to attach, join, tick, evict, show the status and verify, against the number of "
           "entries and of instances; and the memory that an entry takes beside its bytes";
  }
  void add_options(CLI::App& app) override;
  Result<nlohmann::json> run(const std::atomic<bool>& interrupted) override;

 private:
  std::vector<uint64_t> entries_ = {10'000, 100'000, 1'000'000};
  std::vector<uint32_t> instances_ = {1, 16, 96};
  int rounds_ = 0;  // 0: 3 when quick, else 9
};

}  // namespace mcs::loadtest
