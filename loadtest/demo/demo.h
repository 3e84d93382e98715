// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "loadtest/client/load_client.h"
#include "loadtest/harness/result.h"
#include "loadtest/killer/worker_killer.h"
#include "loadtest/wrk/wrk.h"

namespace mcs::loadtest {

struct DemoOptions {
  int seconds = 60;
  int kill_interval_ms = 200;
  int at_once = 1;  // more: up to so many each time, at random times, of so many more workers
  double load = 20;
  int connections = 16;  // of the checking client and of wrk, per server each
  uint64_t seed = 1;
  bool keep = false;
  bool verbose = false;
};

// What was measured, before any judgement.
struct DemoRun {
  LoadReport client;
  std::vector<std::string> failed_paths;  // of client.failures
  struct Wrk {
    std::string server;
    WrkResult result;
  };
  std::vector<Wrk> wrk;
  std::vector<std::string> servers;  // names, indexed as the targets of client and kills
  std::vector<KillRecord> kills;
  uint64_t missed_kills = 0;
  std::string last_missed;
  nlohmann::json status;
  nlohmann::json verify;
  std::vector<nlohmann::json> events;    // each one once
  std::vector<std::string> left_behind;  // processes and memory that should have gone
  std::string instructions;              // with options.keep: what to try, and how to stop it
  bool interrupted = false;
};

// Builds the site and the domain, starts both servers, loads them while workers are killed, and
// takes everything down again unless options.keep. Progress goes to standard output. An Error means
// that there is no result.
Result<DemoRun> run_demo(const DemoOptions& options, const std::atomic<bool>& interrupted);

// What the run means.
struct DemoVerdict {
  uint64_t failed_requests = 0;
  uint64_t failed_not_on_killed_connection = 0;
  uint64_t wrong_bodies = 0;
  uint64_t cross_server_hits = 0;
  uint64_t leaked_bytes = 0;
  bool verify_ok = false;
  // wrk does not say which connection failed, so its errors are only compared with the number of
  // its connections that victims held.
  uint64_t wrk_errors = 0;
  uint64_t wrk_errors_unexplained = 0;
  std::vector<double> recovery_ms;        // kernel's notice of the death to the end of the recovery
  std::vector<double> kill_to_notice_ms;  // SIGKILL to the kernel's notice
  std::vector<std::string> unexplained;   // one line per failure no kill accounts for

  bool good(const DemoRun& run) const;
};

DemoVerdict judge(const DemoRun& run);

nlohmann::json to_json(const DemoOptions& options, const DemoRun& run, const DemoVerdict& verdict);
void print_table(const DemoOptions& options, const DemoRun& run, const DemoVerdict& verdict);

}  // namespace mcs::loadtest
