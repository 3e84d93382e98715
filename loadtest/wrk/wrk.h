// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "loadtest/harness/process.h"
#include "loadtest/harness/result.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {

struct WrkOptions {
  std::string url;
  int threads = 1;
  int connections = 16;
  int seconds = 10;
  int timeout_s = 10;                  // slower answers count as errors
  std::string script = "fixed.lua";    // one of the scripts in loadtest/wrk
  std::vector<std::string> arguments;  // "name=value", see the script
  std::vector<std::string> headers;    // "Name: value"
  std::vector<int> cpus;
};

struct WrkResult {
  uint64_t requests = 0;
  uint64_t bytes = 0;
  double seconds = 0;
  uint64_t connect_errors = 0;
  uint64_t read_errors = 0;
  uint64_t write_errors = 0;
  uint64_t bad_status = 0;
  uint64_t timeouts = 0;
  double p50_us = 0;
  double p99_us = 0;
  double p999_us = 0;

  double rps() const { return seconds > 0 ? static_cast<double>(requests) / seconds : 0; }
  uint64_t errors() const {
    return connect_errors + read_errors + write_errors + bad_status + timeouts;
  }
};

// One run of wrk in the background.
class WrkRun {
 public:
  static Result<std::unique_ptr<WrkRun>> start(const WrkOptions& options);
  // Ends it early; it reports what it did until then.
  void interrupt();
  // Waits for its end.
  Result<WrkResult> finish();

 private:
  WrkRun() = default;

  TempDir directory_{"mcs-wrk"};
  ChildProcess process_;
  std::chrono::milliseconds limit_{0};
};

Result<WrkResult> run_wrk(const WrkOptions& options);

}  // namespace mcs::loadtest
