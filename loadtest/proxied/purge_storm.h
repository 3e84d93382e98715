// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "loadtest/proxied/pair.h"

namespace mcs::loadtest {

struct PurgeStormOptions {
  double seconds = 30;
  double purges_per_second = 100;
  size_t groups = 4;      // the paths' prefixes
  size_t per_group = 15;  // paths in each; each also has a tag that goes across the prefixes
  size_t readers = 6;     // threads, each with a connection to either server
  size_t purgers = 3;
  std::chrono::milliseconds most_delay{20};  // of the origin, drawn for each answer
  uint64_t seed = 1;
};

struct PurgeStormReport {
  size_t requests = 0;
  size_t hits = 0;
  size_t origin_requests = 0;
  size_t purges = 0;
  size_t stale = 0;                  // answers older than an acknowledged purge that meets them
  size_t wrong = 0;                  // another path's answer, or damaged
  size_t failed = 0;                 // requests and purges
  std::vector<std::string> details;  // the first few of these
  std::vector<std::string> trouble;  // crashes in the servers' logs

  bool well() const { return stale + wrong + failed == 0 && trouble.empty(); }
  nlohmann::json json() const;
};

// Keys, prefixes, patterns and tags are purged through both servers while clients of both read.
// Every answer of the origin has a number from one ever growing counter. A request that was sent
// after a purge was acknowledged must not get a number given out before that purge was sent.
Result<PurgeStormReport> run_purge_storm(const PurgeStormOptions& options);

}  // namespace mcs::loadtest
