// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loadtest/harness/server.h"

namespace mcs::loadtest {

// Debian's Varnish in front of another server, storing in memory (malloc).
class VarnishServer final : public WebServer {
 public:
  // `backend`: the port of its origin on 127.0.0.1, needed for the first answers only. `logs`: each
  // request to its log in shared memory, as it comes.
  VarnishServer(ServerOptions options, int backend, bool logs)
      : WebServer("varnish"), options_(std::move(options)), backend_(backend), logs_(logs) {}

  ServerOptions& options() override { return options_; }
  const ServerOptions& options() const override { return options_; }
  Result<void> reload() override { return fail("varnish is not reloaded here"); }
  std::vector<pid_t> worker_pids() const override;

 protected:
  std::string config_text() const override;
  std::vector<std::string> start_command() const override;
  std::vector<std::string> check_command() const override;
  int graceful_stop_signal() const override;
  size_t expected_workers() const override { return 1; }

 private:
  ServerOptions options_;
  int backend_;
  bool logs_;
};

}  // namespace mcs::loadtest
