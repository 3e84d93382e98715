// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mcs::loadtest {

// What /proc tells about other processes. A process that ends meanwhile is left out or nullopt.

struct ProcStat {
  pid_t pid = 0;
  char state = '?';  // R S D T Z …, see proc(5)
  pid_t parent = 0;
  pid_t group = 0;
  pid_t session = 0;
  uint64_t start_ticks = 0;  // distinguishes a reused pid
};

std::optional<ProcStat> read_proc_stat(pid_t pid);
std::vector<ProcStat> all_processes();
// Zombies are left out of both.
std::vector<pid_t> children_of(pid_t parent);
std::vector<pid_t> members_of_group(pid_t group);

// The command line with blanks between the words; for servers that set it, their process title.
std::string command_line(pid_t pid);
// Name of the executable without its directory; empty when it cannot be read.
std::string executable_name(pid_t pid);

// CPU time of all threads, those that ended included, in nanoseconds.
std::optional<uint64_t> process_cpu_ns(pid_t pid);
// A line of /proc/PID/status given in kB, for example "VmPTE" (page tables) or "VmRSS", in bytes.
std::optional<uint64_t> process_memory_bytes(pid_t pid, const std::string& field);

// Every thread is stopped by SIGSTOP (state T).
bool all_threads_stopped(pid_t pid);

}  // namespace mcs::loadtest
