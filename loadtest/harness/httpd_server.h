// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loadtest/harness/server.h"

namespace mcs::loadtest {

struct HttpdOptions : ServerOptions {
  std::string mpm = "event";   // event, worker or prefork
  int threads_per_child = 32;  // not for prefork
  int max_processes = 16;      // ServerLimit; MaxRequestWorkers follows from it
  // MinSpare and MaxSpare, counted in children. The default keeps the number of children at
  // `workers` or above and never ends an idle one.
  int min_spare_processes = 0;  // 0: as `workers`
  int max_spare_processes = 0;  // 0: as max_processes
  int max_connections_per_child = 0;
  std::vector<std::string> modules;  // further ones, for example "cache" for mod_cache.so
};

class HttpdServer : public WebServer {
 public:
  explicit HttpdServer(HttpdOptions options);

  HttpdOptions& options() override { return options_; }
  const HttpdOptions& options() const override { return options_; }

  Result<void> reload() override;
  // HUP: ends requests in flight and starts again in the same parent.
  Result<void> restart();
  std::vector<pid_t> worker_pids() const override;

 protected:
  std::string config_text() const override;
  std::vector<std::string> start_command() const override;
  std::vector<std::string> check_command() const override;
  int graceful_stop_signal() const override;
  size_t expected_workers() const override;

 private:
  std::vector<std::string> command() const;
  std::string process_limits() const;
  Result<void> restart_with(int signal);

  HttpdOptions options_;
};

}  // namespace mcs::loadtest
