// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>

#include "loadtest/bench/benchmark.h"
#include "loadtest/bench/internal/cluster.h"

namespace mcs::loadtest {

// Throughput against the number of nodes, each with a slow disk and little memory: one cache shared
// by all, a cache in each, and the kernel's page cache.
class ScalingBenchmark : public Benchmark {
 public:
  std::string name() const override { return "scaling"; }
  std::string description() const override {
    return "throughput of 1 to 8 emulated nodes with slow disks: one cache shared by all, a cache "
           "in "
           "each, and nginx with the kernel's page cache";
  }
  void add_options(CLI::App& app) override;
  Result<nlohmann::json> run(const std::atomic<bool>& interrupted) override;

 private:
  // One row of the table and its rounds.
  struct Row {
    ClusterCase which;
    std::vector<ClusterResult> rounds;
  };

  void set_defaults();
  std::vector<ClusterCase> cases() const;
  nlohmann::json settings_json() const;
  Result<void> add_earlier(std::vector<Row>& rows) const;
  // Everything that can be wrong before a measurement takes its time.
  Result<CgroupMounts> check_machine() const;
  // One result more in each of cases()' rows, the first ones, for each round.
  Result<void> measure(std::vector<Row>& rows, const CgroupMounts& mounts,
                       const std::atomic<bool>& interrupted) const;
  void print_settings() const;
  Result<nlohmann::json> check_penalties() const;
  Result<void> plot(const std::vector<Row>& rows) const;

  std::vector<int> nodes_;  // empty: 1, 2, 4, 8; quick without 4
  std::vector<std::string> contenders_ = {"shared", "per-node", "page-cache"};
  std::vector<double> penalties_ = {1, 3, 12};
  std::vector<std::string> servers_;  // empty: nginx, httpd, mixed; quick: nginx
  double load_ = 150;
  uint64_t cache_mib_ = 16;
  uint64_t process_mib_ = 10;
  uint32_t reads_ = 20;
  double cpu_share_ = 20;
  int connections_ = 16;
  int warm_requests_ = 0;
  int rounds_ = -1;
  double seconds_ = 0;
  std::string directory_ = "/var/tmp";
  std::string svg_;
  std::vector<std::string> earlier_;
};

}  // namespace mcs::loadtest
