// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "loadtest/bench/benchmark.h"

namespace mcs::loadtest {

// Server CPU per request and requests per second of a hit, ours beside what one would use instead.
class HitBenchmark : public Benchmark {
 public:
  std::string name() const override { return "hit"; }
  std::string description() const override {
    return "CPU per request and requests/s of a hit: our modules beside nginx's return, static "
           "files and proxy_cache, and httpd's static files and mod_cache_disk";
  }
  void add_options(CLI::App& app) override;
  Result<nlohmann::json> run(const std::atomic<bool>& interrupted) override;

 private:
  int rounds_ = 0;   // 0: 3 when quick, else 11
  int seconds_ = 0;  // 0: 1 when quick, else 2
  int connections_ = 32;
  std::vector<size_t> kib_ = {1, 16, 100};
  bool realtime_ = false;
  bool varnish_ = false;
  std::string server_;  // empty: both
  std::vector<std::string> only_;  // names of contenders; empty: all
};

}  // namespace mcs::loadtest
