// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "loadtest/client/load_client.h"
#include "loadtest/harness/result.h"

namespace mcs::loadtest {

struct StaleOptions {
  double rate = 2000;  // requests per second, both servers together
  double seconds = 8;  // of each kind in each round
  int rounds = 3;
  int connections = 16;  // of each server
  size_t body_bytes = 4096;
  std::chrono::milliseconds origin_delay{3000};
  uint64_t seed = 1;
};

struct StaleRound {
  // Requests of an open loop; latency counts from when each was due.
  TargetReport fresh;
  TargetReport stale;
  size_t origin_requests = 0;  // while `stale` was asked for
};

struct StaleReport {
  std::vector<StaleRound> rounds;
  std::vector<std::string> trouble;  // crashes in the servers' logs

  nlohmann::json json() const;
};

// In each round first an object that stays fresh, then one with a second of freshness and
// stale-while-revalidate, whose origin takes its time: the same load on both servers. Each round in
// `progress` as it is done.
Result<StaleReport> run_stale(const StaleOptions& options,
                              const std::function<void(const StaleRound&)>& progress);

}  // namespace mcs::loadtest
