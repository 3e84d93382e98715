// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loadtest/harness/server.h"

namespace mcs::loadtest {

struct NginxOptions : ServerOptions {
  int worker_connections = 4096;
  std::string events_extra;
};

class NginxServer : public WebServer {
 public:
  explicit NginxServer(NginxOptions options);

  NginxOptions& options() override { return options_; }
  const NginxOptions& options() const override { return options_; }

  Result<void> reload() override;
  // Starts a new binary (and so a replaced module) beside the old one with USR2, then lets the old
  // one finish with QUIT. Returns when the old master has gone.
  Result<void> upgrade_binary();
  std::vector<pid_t> worker_pids() const override;
  std::vector<std::string> foreground_command() const override;

 protected:
  std::string config_text() const override;
  // As a daemon: with its starter as its parent it refuses USR2 and WINCH.
  Result<pid_t> launch() override;
  std::vector<std::string> start_command() const override;
  std::vector<std::string> check_command() const override;
  int graceful_stop_signal() const override;
  size_t expected_workers() const override;

 private:
  std::filesystem::path pid_file() const { return prefix() / "nginx.pid"; }
  pid_t pid_in_file() const;

  NginxOptions options_;
};

}  // namespace mcs::loadtest
