// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loadtest/bench/benchmark.h"

namespace mcs::loadtest {

// How long hits take at 70 % of what each server can do, ours beside what one would use instead. The
// peak is what this client sees: of the fastest servers it is the client that comes to its end first,
// and at 70 % of that its own CPU is what the 99th percentile tells of.
class LatencyBenchmark : public Benchmark {
 public:
  std::string name() const override { return "latency"; }
  std::string description() const override {
    return "Latency of hits at a share of each server's own peak rate, by an open-loop client that "
           "compares every body: our modules beside nginx, Varnish and httpd";
  }
  void add_options(CLI::App& app) override;
  Result<nlohmann::json> run(const std::atomic<bool>& interrupted) override;

 private:
  int rounds_ = 0;   // 0: 3 when quick, else 9
  int seconds_ = 1;
  int connections_ = 32;
  int percent_ = 70;
  std::vector<size_t> kib_ = {1, 16};
  bool realtime_ = false;
  std::string server_;  // empty: both
};

}  // namespace mcs::loadtest
