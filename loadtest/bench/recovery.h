// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loadtest/bench/benchmark.h"

namespace mcs::loadtest {

// How long it takes from SIGKILL until all that the dead held is free, and what those who live notice
// of it, against the number of entries, of pins held and of simultaneous deaths.
class RecoveryBenchmark : public Benchmark {
 public:
  std::string name() const override { return "recovery"; }
  std::string description() const override {
    return "time from SIGKILL to fully recovered, and the survivors' lookup latency meanwhile";
  }
  void add_options(CLI::App& app) override;
  Result<nlohmann::json> run(const std::atomic<bool>& interrupted) override;

 private:
  std::vector<uint64_t> entries_;  // empty: 10^4, 10^5, 10^6, and 10^7 unless quick
  std::vector<uint32_t> pins_ = {0, 64, 4096};
  std::vector<uint32_t> deaths_ = {1, 8, 32};
  int rounds_ = 0;  // 0: 5 when quick, else 200
  bool mixed_ = false;
  bool huge_pages_ = false;
  bool survivor_ = true;
  uint32_t ballast_ = 0;
  std::string svg_;
};

}  // namespace mcs::loadtest
