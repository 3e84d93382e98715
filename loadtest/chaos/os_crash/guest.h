// SPDX-License-Identifier: Apache-2.0
// One node: a QEMU guest with a kernel of its own, emulated instruction by instruction (TCG).
#pragma once

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "loadtest/chaos/os_crash/image.h"
#include "loadtest/harness/process.h"

namespace mcs::loadtest {

struct GuestOptions {
  Image image;
  std::filesystem::path memory;  // the file that all guests see as a device
  std::uint64_t memory_bytes = 0;
  std::filesystem::path consoles;  // directory for what guests print
  std::uint32_t node = 0;
  int nice = 10;
};

class Guest {
 public:
  explicit Guest(GuestOptions options);

  /// Switch on; what ran before is cut off.
  Result<void> start();
  /// As if the power failed.
  void cut() { qemu_ = {}; }
  /// The whole machine stands still, and goes on.
  void stop() { qemu_.signal(SIGSTOP); }
  void go_on() { qemu_.signal(SIGCONT); }
  bool running() { return qemu_.running(); }
  /// The kernel panics, and stays so; cut off if it does not.
  void panic();

  /// Run a command of the guest's shell, and wait for its output.
  Result<std::string> run(const std::string& command,
                          std::chrono::milliseconds timeout = std::chrono::milliseconds(120'000));
  /// Whether both servers answer.
  bool serves() const;

  int nginx_port() const { return nginx_port_; }
  int httpd_port() const { return httpd_port_; }
  /// What its consoles showed of processes that ended by a signal nobody sent.
  std::vector<std::string> crashes() const;
  std::string console_tail() const;

 private:
  std::filesystem::path console(unsigned boot) const;
  GuestOptions options_;
  int shell_port_;
  int nginx_port_;
  int httpd_port_;
  unsigned boots_ = 0;
  ChildProcess qemu_;
};

}  // namespace mcs::loadtest
