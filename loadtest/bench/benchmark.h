// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "loadtest/harness/result.h"

namespace mcs::loadtest {

// One subcommand of mcs-bench. To add one: derive a class, and name it in all_benchmarks().
class Benchmark {
 public:
  virtual ~Benchmark() = default;
  virtual std::string name() const = 0;
  virtual std::string description() const = 0;
  // Its own options; --quick, --json and --seed are there already.
  virtual void add_options(CLI::App&) {}
  // Measures, prints a table, and returns what --json writes. Ends early, with an Error, when
  // `interrupted` becomes true.
  virtual Result<nlohmann::json> run(const std::atomic<bool>& interrupted) = 0;

  bool quick = false;  // fewer and shorter rounds, for a first look
  uint64_t seed = 1;   // of orders and of resampling
};

std::vector<std::unique_ptr<Benchmark>> all_benchmarks();

}  // namespace mcs::loadtest
