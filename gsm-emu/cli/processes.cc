// SPDX-License-Identifier: Apache-2.0
#include "gsm-emu/cli/processes.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "libglobalcache/cache/inspect.h"
#include "libglobalcache/cache/layout.h"

namespace mcs::emu {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::seconds(10);

bool send(int pidfd, int number) {
  return ::syscall(SYS_pidfd_send_signal, pidfd, number, nullptr, 0) == 0;
}

// The numbers among the names in a directory of /proc: processes, or threads of one.
std::vector<pid_t> numbers_in(const std::string& directory) {
  std::vector<pid_t> pids;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") == std::string::npos) {
      pids.push_back(static_cast<pid_t>(std::stol(name)));
    }
  }
  return pids;
}

std::optional<ProcStat> read_stat_file(const std::string& path);

// Whether no thread of the process can run.
bool is_stopped(pid_t pid) {
  const std::vector<pid_t> threads = numbers_in(fmt::format("/proc/{}/task", pid));
  return std::all_of(threads.begin(), threads.end(), [&](pid_t thread) {
    const auto stat = read_stat_file(fmt::format("/proc/{}/task/{}/stat", pid, thread));
    return !stat || std::strchr("TtZX", stat->state) != nullptr;
  });
}

}  // namespace

std::uint64_t pid_namespace(pid_t pid) {
  const std::string path = pid == 0 ? "/proc/self/ns/pid" : fmt::format("/proc/{}/ns/pid", pid);
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? info.st_ino : 0;
}

namespace {

std::optional<ProcStat> read_stat_file(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  // The name in parentheses may hold anything; after it come fields 3, 4, … 22.
  const std::size_t end = line.rfind(')');
  if (end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(end + 1));
  ProcStat stat;
  std::string skipped;
  fields >> stat.state >> stat.parent;
  for (int field = 5; field < 22; ++field) fields >> skipped;
  fields >> stat.started;
  if (!fields) return std::nullopt;
  return stat;
}

}  // namespace

std::optional<ProcStat> read_stat(pid_t pid) {
  return read_stat_file(fmt::format("/proc/{}/stat", pid));
}

bool ExecRecord::reachable() const { return pid_namespace == emu::pid_namespace(); }

bool ExecRecord::running() const {
  const auto stat = read_stat(pid);
  return reachable() && stat && stat->started == started && stat->state != 'Z' &&
         stat->state != 'X';
}

Result<void> write_record(const ExecRecord& record) {
  std::ofstream file(record.path);
  file << record.pid << ' ' << record.pid_namespace << ' ' << record.started << ' '
       << (record.isolated ? 1 : 0) << ' ' << record.command << '\n';
  file.close();
  if (file) return {};
  return fail(ErrorCode::kPermission, fmt::format("cannot write {}: {}; run as the domain's owner",
                                                  record.path, std::strerror(errno)));
}

std::vector<ExecRecord> read_records(const std::string& domain_path,
                                     std::optional<std::uint32_t> node) {
  std::vector<ExecRecord> records;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(domain_path, ignored)) {
    ExecRecord record;
    int pid = 0;
    const std::string name = entry.path().filename();
    if (std::sscanf(name.c_str(), "exec.%u.%d", &record.node, &pid) != 2) continue;
    if (node && record.node != *node) continue;
    record.path = entry.path();
    std::ifstream file(record.path);
    int isolated = 0;
    file >> record.pid >> record.pid_namespace >> record.started >> isolated;
    if (!file) continue;  // being written
    record.isolated = isolated != 0;
    file.get();
    std::getline(file, record.command);
    if (record.reachable() && !record.running()) {
      ::unlink(record.path.c_str());
      continue;
    }
    records.push_back(std::move(record));
  }
  std::sort(records.begin(), records.end(),
            [](const auto& a, const auto& b) { return a.path < b.path; });
  return records;
}

Result<std::vector<LiveInstance>> live_instances(const Common& common) {
  auto domain = cache::open(common.directory, common.name);
  if (!domain) return tl::unexpected(domain.error());
  auto liveness = runtime::KernelLiveness::open((*domain)->path());
  if (!liveness) return tl::unexpected(liveness.error());
  std::vector<LiveInstance> found;
  for (const cache::InstanceInfo& info : cache::View(**domain).instances(**liveness)) {
    if (!info.alive) continue;
    found.push_back(
        {info.id.slot(), info.node, info.server, info.pid, info.pid_namespace, info.started});
  }
  return found;
}

NodeProcesses::~NodeProcesses() {
  for (const Target& target : targets_) ::close(target.pidfd);
}

bool NodeProcesses::has(pid_t pid, std::uint64_t started) const {
  return std::any_of(targets_.begin(), targets_.end(), [&](const Target& target) {
    return target.pid == pid && target.started == started;
  });
}

bool NodeProcesses::add_process(pid_t pid, std::uint64_t started, bool init) {
  if (pid == ::getpid() || pid <= 0) return false;
  if (has(pid, started)) return false;
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) return false;
  // Compared after the pidfd was opened: it names that process for good.
  const auto stat = read_stat(pid);
  if (!stat || stat->started != started) {
    ::close(pidfd);
    return false;
  }
  targets_.push_back({pid, started, pidfd, init});
  met_.push_back(pid);
  if (init) namespaces_.push_back(pid_namespace(pid));
  return true;
}

void NodeProcesses::add(const std::vector<ExecRecord>& records) {
  for (const ExecRecord& record : records) {
    if (record.running()) add_process(record.pid, record.started, record.isolated);
  }
}

void NodeProcesses::add(const std::vector<LiveInstance>& instances) {
  const std::uint64_t here = pid_namespace();
  for (const LiveInstance& instance : instances) {
    if (instance.pid_namespace == here) {
      // Its liveness lock is held, so if this is not the process it is a child it forked.
      if (!has(instance.pid, instance.started) &&
          !add_process(instance.pid, instance.started, false)) {
        unreachable_.push_back(instance);
      }
    } else if (std::find(namespaces_.begin(), namespaces_.end(), instance.pid_namespace) ==
               namespaces_.end()) {
      unreachable_.push_back(instance);
    }
  }
}

// Children of what we have, and theirs. False: there was nothing new.
bool NodeProcesses::add_descendants() {
  std::map<pid_t, ProcStat> stats;
  for (const pid_t pid : numbers_in("/proc")) {
    if (const auto stat = read_stat(pid)) stats[pid] = *stat;
  }
  bool any = false;
  for (bool more = true; more;) {
    more = false;
    for (const auto& [pid, stat] : stats) {
      const auto is = [&](pid_t wanted) {
        return std::any_of(targets_.begin(), targets_.end(),
                           [&](const Target& target) { return target.pid == wanted; });
      };
      if (!is(stat.parent) || is(pid) || stat.state == 'Z') continue;
      more = add_process(pid, stat.started, false) || more;
      any = any || more;
    }
  }
  return any;
}

void NodeProcesses::signal_all(int number) {
  for (const Target& target : targets_) send(target.pidfd, number);
}

bool NodeProcesses::all_ended(int timeout_ms) {
  const auto until = Clock::now() + std::chrono::milliseconds(timeout_ms);
  for (const Target& target : targets_) {
    pollfd ended{target.pidfd, POLLIN, 0};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    if (::poll(&ended, 1, static_cast<int>(std::max<std::int64_t>(0, left))) != 1) return false;
  }
  return true;
}

bool NodeProcesses::kill() {
  // Inits first: the kernel ends everything in their namespaces at once.
  for (const Target& target : targets_) {
    if (target.init) send(target.pidfd, SIGKILL);
  }
  // The others must not start anything while we look for what they started.
  signal_all(SIGSTOP);
  while (add_descendants()) signal_all(SIGSTOP);
  signal_all(SIGKILL);
  return all_ended(static_cast<int>(std::chrono::milliseconds(kPatience).count()));
}

bool NodeProcesses::stop() {
  const auto until = Clock::now() + kPatience;
  while (Clock::now() < until) {
    signal_all(SIGSTOP);
    const bool more = add_descendants();
    const bool stopped = std::all_of(targets_.begin(), targets_.end(), [](const Target& target) {
      const auto stat = read_stat(target.pid);
      return !stat || stat->started != target.started || is_stopped(target.pid);
    });
    if (!more && stopped) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

void NodeProcesses::resume() {
  while (add_descendants()) {
  }
  signal_all(SIGCONT);
}

void NodeProcesses::terminate(int grace_ms) {
  signal_all(SIGTERM);
  signal_all(SIGCONT);
  if (all_ended(grace_ms)) return;
  signal_all(SIGKILL);
  all_ended(grace_ms);
}

}  // namespace mcs::emu
