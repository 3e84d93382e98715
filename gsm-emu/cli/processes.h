// SPDX-License-Identifier: Apache-2.0
// The processes of a node: those that `exec` started, found by records in the domain's directory,
// and those that joined the domain as instances of that node, found by their slots.
//
//   DOMAIN/exec.<node>.<pid>   "pid pid_namespace started isolated command": the init of the
//   command
//                              (isolated: of a pid namespace of its own), written before the
//                              command starts and removed by the init when its last process has
//                              ended
//
// A process is only signalled through a pidfd whose pid namespace and start time were compared, so
// a pid that was given to somebody else since is left alone.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gsm-emu/cli/command.h"

namespace mcs::emu {

/// Inode of the pid namespace of `pid` (0: this process); 0 if it cannot be told.
std::uint64_t pid_namespace(pid_t pid = 0);

struct ProcStat {
  char state = '?';
  pid_t parent = 0;
  std::uint64_t started = 0;  // clock ticks since boot
};
std::optional<ProcStat> read_stat(pid_t pid);

/// A command started by `exec`.
struct ExecRecord {
  std::uint32_t node = 0;
  pid_t pid = 0;  // of its init, in the namespace below
  std::uint64_t pid_namespace = 0;
  std::uint64_t started = 0;
  bool isolated = false;
  std::string command;
  std::string path;  // of the record

  bool reachable() const;  // the pid means something here
  bool running() const;    // reachable, and still the process it was
};
Result<void> write_record(const ExecRecord& record);
/// All records of a domain (of one node if given). Those of commands that are gone are removed.
std::vector<ExecRecord> read_records(const std::string& domain_path,
                                     std::optional<std::uint32_t> node = std::nullopt);

/// Instances that live, as far as anybody without a slot can tell.
struct LiveInstance {
  std::uint32_t slot = 0;
  std::uint32_t node = 0;
  std::string server;
  pid_t pid = 0;
  std::uint64_t pid_namespace = 0;
  std::uint64_t started = 0;
  bool agent() const { return server == "mcs-agent"; }
};
Result<std::vector<LiveInstance>> live_instances(const Common& common);

/// Everything of one node that can be reached from here.
class NodeProcesses {
 public:
  NodeProcesses() = default;
  ~NodeProcesses();
  NodeProcesses(const NodeProcesses&) = delete;
  NodeProcesses& operator=(const NodeProcesses&) = delete;

  void add(const std::vector<ExecRecord>& records);
  void add(const std::vector<LiveInstance>& instances);

  /// SIGKILL to all, and to what they start meanwhile, until nothing is left. Bounded: 10 s.
  bool kill();
  /// SIGSTOP or SIGCONT to all and their descendants, until all of them have it. Bounded: 10 s.
  bool stop();
  void resume();
  /// SIGTERM, then SIGKILL to those that do not end within `grace_ms`.
  void terminate(int grace_ms);

  const std::vector<pid_t>& met() const { return met_; }
  const std::vector<LiveInstance>& unreachable() const { return unreachable_; }

 private:
  struct Target {
    pid_t pid = 0;
    std::uint64_t started = 0;
    int pidfd = -1;
    bool init = false;  // of a pid namespace: its end is the end of all in it
  };
  bool has(pid_t pid, std::uint64_t started) const;
  bool add_process(pid_t pid, std::uint64_t started, bool init);
  bool add_descendants();
  void signal_all(int number);
  bool all_ended(int timeout_ms);

  std::vector<Target> targets_;
  std::vector<pid_t> met_;
  std::vector<std::uint64_t> namespaces_;  // of the inits
  std::vector<LiveInstance> unreachable_;
};

}  // namespace mcs::emu
