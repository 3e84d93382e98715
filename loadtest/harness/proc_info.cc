// SPDX-License-Identifier: Apache-2.0
#include "loadtest/harness/proc_info.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <string_view>

#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;

namespace {

std::optional<ProcStat> parse_stat(const std::string& file) {
  const auto text = read_file(file);
  if (!text) {
    return std::nullopt;
  }
  // "pid (comm) state ppid pgrp session …": comm may contain anything, so look for its last ')'.
  const size_t comm_end = text->rfind(')');
  ProcStat stat;
  unsigned long long start = 0;
  if (comm_end == std::string::npos || std::sscanf(text->c_str(), "%d", &stat.pid) != 1 ||
      std::sscanf(text->c_str() + comm_end + 1,
                  " %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                  &stat.state, &stat.parent, &stat.group, &stat.session, &start) != 5) {
    return std::nullopt;
  }
  stat.start_ticks = start;
  return stat;
}

template <class Predicate>
std::vector<pid_t> live_processes(Predicate predicate) {
  std::vector<pid_t> pids;
  for (const ProcStat& stat : all_processes()) {
    if (stat.state != 'Z' && stat.state != 'X' && predicate(stat)) {
      pids.push_back(stat.pid);
    }
  }
  return pids;
}

}  // namespace

std::optional<ProcStat> read_proc_stat(pid_t pid) {
  return parse_stat(fmt::format("/proc/{}/stat", pid));
}

std::vector<ProcStat> all_processes() {
  std::vector<ProcStat> processes;
  std::error_code error;
  for (fs::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.find_first_not_of("0123456789") == std::string::npos) {
      if (const auto stat = parse_stat(fmt::format("/proc/{}/stat", name))) {
        processes.push_back(*stat);
      }
    }
  }
  return processes;
}

std::vector<pid_t> children_of(pid_t parent) {
  return live_processes([&](const ProcStat& stat) { return stat.parent == parent; });
}

std::vector<pid_t> members_of_group(pid_t group) {
  return live_processes([&](const ProcStat& stat) { return stat.group == group; });
}

std::string command_line(pid_t pid) {
  std::string text = read_file(fmt::format("/proc/{}/cmdline", pid)).value_or("");
  while (!text.empty() && text.back() == '\0') {
    text.pop_back();
  }
  std::replace(text.begin(), text.end(), '\0', ' ');
  return text;
}

std::string executable_name(pid_t pid) {
  std::error_code error;
  const fs::path target = fs::read_symlink(fmt::format("/proc/{}/exe", pid), error);
  return error ? std::string() : target.filename().string();
}

std::optional<uint64_t> process_cpu_ns(pid_t pid) {
  clockid_t clock;
  timespec time = {};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) {
    return std::nullopt;
  }
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

std::optional<uint64_t> process_memory_bytes(pid_t pid, const std::string& field) {
  const auto text = read_file(fmt::format("/proc/{}/status", pid));
  if (!text) {
    return std::nullopt;
  }
  const size_t at = text->find("\n" + field + ":");
  if (at == std::string::npos) {
    return std::nullopt;
  }
  return std::strtoull(text->c_str() + at + field.size() + 2, nullptr, 10) * 1024;
}

bool all_threads_stopped(pid_t pid) {
  std::error_code error;
  bool any = false;
  const std::string directory = fmt::format("/proc/{}/task", pid);
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const auto stat = parse_stat((it->path() / "stat").string());
    if (stat && stat->state != 'Z' && stat->state != 'X') {
      if (stat->state != 'T' && stat->state != 't') {
        return false;
      }
      any = true;
    }
  }
  return any && !error;
}

}  // namespace mcs::loadtest
