// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loadtest/bench/benchmark.h"

namespace mcs::loadtest {

// Nanoseconds of the core's operations, beside the core without what makes it recoverable, LMDB, a
// Boost.Interprocess map, memcached, and two dependent loads.
class CoreBenchmark : public Benchmark {
 public:
  std::string name() const override { return "core"; }
  std::string description() const override {
    return "Time of get, put and eviction in the core, against the core without ledgers, intents "
           "and checksums, LMDB, a Boost.Interprocess map and memcached";
  }
  void add_options(CLI::App& app) override;
  Result<nlohmann::json> run(const std::atomic<bool>& interrupted) override;

 private:
  int rounds_ = 0;   // 0: 5 when quick, else 15
  int millis_ = 40;  // of each measurement
  std::vector<uint64_t> entries_ = {1'000, 10'000, 100'000, 1'000'000};
  std::vector<int> processes_ = {1, 2, 4, 8};
  uint64_t crowded_entries_ = 100'000;
  std::vector<std::string> only_;
  std::vector<std::string> stores_;
  bool realtime_ = false;
};

}  // namespace mcs::loadtest
