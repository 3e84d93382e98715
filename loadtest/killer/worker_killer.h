// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "loadtest/harness/result.h"
#include "loadtest/killer/held_connections.h"
#include "loadtest/specweb/sampler.h"

namespace mcs::loadtest {

// Who may be killed. `workers` is called from the killer's thread.
struct KillTarget {
  std::string name;
  std::function<std::vector<pid_t>()> workers;
};

struct KillRecord {
  pid_t pid = 0;
  int target = 0;
  // CLOCK_MONOTONIC. notice_ns: when the kernel made the pidfd readable, so the earliest moment
  // another process could know; 0 when that took longer than a second.
  uint64_t stopped_ns = 0;
  uint64_t killed_ns = 0;
  uint64_t notice_ns = 0;
  std::vector<HeldConnection> held;
};

// Kills random workers: stops the victim (SIGSTOP), waits until all its threads stand still, reads
// which connections it holds, kills it (SIGKILL). So a client's failure can be told apart from one
// that the death of another process must not have caused.
class WorkerKiller {
 public:
  WorkerKiller(std::vector<KillTarget> targets, uint64_t seed);
  ~WorkerKiller();
  WorkerKiller(const WorkerKiller&) = delete;
  WorkerKiller& operator=(const WorkerKiller&) = delete;

  // One kill now: a random target, then a random worker of it. An Error when there is no worker or
  // its sockets cannot be read (then it goes on unharmed).
  Result<KillRecord> kill_one();
  // Up to `most` random workers of all targets at the same time. An Error when there is none.
  Result<std::vector<KillRecord>> kill_several(size_t most);

  // Kills every `interval` in a thread of its own until stop(). A tick without a victim is counted,
  // not made up for. With `at_once` above 1 a random number up to that each time, and after a random
  // time of `interval` in the mean.
  void start(std::chrono::milliseconds interval, size_t at_once = 1);
  void stop();

  // Kills so far; readable while the thread runs.
  uint64_t kills() const { return kills_; }
  uint64_t missed() const { return missed_; }
  // The last reason for a missed tick.
  std::string last_error() const;
  // After stop().
  const std::vector<KillRecord>& records() const { return records_; }

 private:
  void run(std::chrono::milliseconds interval, size_t at_once);

  std::vector<KillTarget> targets_;
  Random random_;
  std::vector<KillRecord> records_;
  std::atomic<uint64_t> kills_{0};
  std::atomic<uint64_t> missed_{0};
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::string last_error_;
  std::thread thread_;
};

// The kill that took this client connection with it, or nullptr: the victim belonged to `target`
// and held the connection, which was opened before the victim stood still and failed after it.
const KillRecord* find_killer(const std::vector<KillRecord>& records, int target,
                              uint16_t client_port, uint64_t opened_ns, uint64_t failed_ns);

}  // namespace mcs::loadtest
