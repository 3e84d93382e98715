// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "loadtest/proxied/pair.h"

namespace mcs::loadtest {

struct HerdOptions {
  size_t clients = 500;  // over both servers, in turn
  size_t body_bytes = 64 << 10;
  // The origin sends its body in so many pieces, evenly over this time. 0: by what happened, not by
  // the clock. The first half when all have asked, the second when all have received something.
  std::chrono::milliseconds duration{2000};
  size_t pieces = 100;
  // 0: nginx, 1: httpd. Its first client asks before all others.
  int filler = 0;
  // The process that fills is killed when half of the body has been sent.
  bool kill_filler = false;
  std::chrono::milliseconds timeout{30'000};
  int httpd_threads = 0;  // of each of its two children; 0: enough for all clients to wait
  std::vector<McsDirective> rules;
};

struct HerdReport {
  size_t origin_requests = 0;
  size_t good = 0;              // received every byte, all of them right
  size_t died_with_victim = 0;  // failed, and the killed process held their connections
  size_t failed = 0;            // failed otherwise
  size_t began_early = 0;       // received something before the origin had sent all
  pid_t victim = 0;
  std::vector<std::string> failures;  // the first few
  std::vector<std::string> trouble;   // crashes in the servers' logs
  // Of the good ones, in ms: from the origin's first byte (or the client's request, if that came
  // later) to the client's first byte; from the origin's last byte to the client's.
  std::vector<double> first_ms;
  std::vector<double> last_ms;

  nlohmann::json json() const;
};

// A herd in front of a pair of its own.
Result<HerdReport> run_herd(const HerdOptions& options);

// Of the sorted values; 0 for none.
double quantile(std::vector<double> values, double fraction);

}  // namespace mcs::loadtest
