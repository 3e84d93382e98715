// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "loadtest/harness/result.h"

namespace mcs::loadtest {

struct SpawnOptions {
  std::vector<std::string> environment;  // "NAME=value", added to this process's
  std::filesystem::path directory;       // working directory; empty: this one
  std::filesystem::path stdout_file;     // appended to; empty: inherited
  std::filesystem::path stderr_file;
  std::vector<int> cpus;  // allowed CPUs; empty: inherited
  std::vector<std::filesystem::path> cgroups;  // it begins as a member of these
};

// A program running in a session and process group of its own. The group is killed by the
// destructor, and when this process dies (see Guardian). Not thread-safe; movable.
class ChildProcess {
 public:
  // argv[0] is looked up in PATH. A program that cannot be executed is an error here, not later.
  static Result<ChildProcess> start(const std::vector<std::string>& argv,
                                    const SpawnOptions& options = {});
  ChildProcess() = default;
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  // 0 when nothing was started.
  pid_t pid() const { return pid_; }
  // Has not ended, as far as this process knows without waiting.
  bool running();
  // The wait status (see waitpid) once the program has ended; nullopt after `timeout`. The program
  // stays a zombie until this object ends, so that its process group keeps its number.
  std::optional<int> wait(std::chrono::milliseconds timeout);
  // To the program only; to it and all members of its group. No effect once it was waited for.
  void signal(int number);
  void signal_group(int number);
  // Lets it live on, also after this process.
  void release();

 private:
  friend struct Spawner;
  void reset();

  pid_t pid_ = 0;
  int pidfd_ = -1;
  std::optional<int> status_;
};

struct ProcessOptions : SpawnOptions {
  std::chrono::milliseconds timeout{60'000};  // then the whole group is killed
  std::string input;                          // becomes its standard input
};

struct ProcessResult {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;
  bool timed_out = false;
  std::string out;
  std::string err;

  bool ok() const { return exit_code == 0; }
  // "exit code 1: last line of its standard error", for messages.
  std::string describe() const;
};

// Runs a program to its end and captures what it writes. A program that ends badly is a result; an
// Error means that it could not be started. Does not wait for background processes that still hold
// the output pipes.
Result<ProcessResult> run_process(const std::vector<std::string>& argv,
                                  const ProcessOptions& options = {});

// Path of `program` in PATH or in /usr/local/sbin, /usr/sbin, /sbin; empty if it is not there.
std::string find_program(std::string_view program);

// Polls `condition` every few milliseconds until it is true; false after `timeout`. For states that
// other processes reach and announce nowhere.
bool wait_until(const std::function<bool()>& condition, std::chrono::milliseconds timeout);

// CLOCK_MONOTONIC in nanoseconds.
uint64_t monotonic_ns();

}  // namespace mcs::loadtest
