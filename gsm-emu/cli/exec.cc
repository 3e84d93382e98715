// SPDX-License-Identifier: Apache-2.0
// A command as a process of a node.
//
// gsm-emu exec (P) starts an init (I), which starts the command (C):
//   P  writes the record that crash and freeze look for, lets I go on, waits for C's exit status
//   I  is process 1 of a pid namespace of its own with its own /proc, or where that is not
//   permitted
//      the subreaper of what C starts; passes signals on to C, tells P how C ended, and stays until
//      its last process has ended, so that a daemon may outlive the command that started it
//   C  keeps the terminal, standard streams and process group of the caller
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "gsm-emu/cli/command.h"
#include "gsm-emu/cli/processes.h"

namespace mcs::emu {
namespace {

constexpr int kNotFound = 127;  // as shells answer
constexpr int kNotExecutable = 126;
constexpr int kCrashed = 128 + SIGKILL;
constexpr std::array kForwarded = {SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};

volatile sig_atomic_t forward_to = 0;
extern "C" void forward(int number) {
  if (forward_to > 0) ::kill(forward_to, number);
}

void forward_signals(bool terminal_too) {
  struct sigaction action {};
  action.sa_handler = forward;
  action.sa_flags = SA_RESTART;
  for (const int number : kForwarded) {
    const bool from_terminal = number == SIGINT || number == SIGQUIT || number == SIGWINCH;
    // The terminal sends these to the command itself, which is in our process group.
    action.sa_handler = from_terminal && !terminal_too ? SIG_IGN : forward;
    ::sigaction(number, &action, nullptr);
  }
}

void write_all(int fd, const void* data, std::size_t n) {
  const char* at = static_cast<const char*>(data);
  while (n > 0) {
    const ssize_t done = ::write(fd, at, n);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return;
    at += done;
    n -= static_cast<std::size_t>(done);
  }
}

bool read_all(int fd, void* data, std::size_t n) {
  char* at = static_cast<char*>(data);
  while (n > 0) {
    const ssize_t done = ::read(fd, at, n);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    at += done;
    n -= static_cast<std::size_t>(done);
  }
  return true;
}

[[noreturn]] void run_command(const std::vector<std::string>& command, const sigset_t& mask) {
  for (const int number : kForwarded) ::signal(number, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  const int error = errno;
  std::fprintf(stderr, "gsm-emu: cannot run %s: %s\n", argv[0], std::strerror(error));
  ::_exit(error == ENOENT ? kNotFound : kNotExecutable);
}

// I. Never returns.
[[noreturn]] void run_init(const std::vector<std::string>& command, bool isolated, int go,
                           int report, const sigset_t& mask) {
  char record_path[1024];
  if (!read_all(go, record_path, sizeof record_path)) ::_exit(kFailed);
  ::close(go);
  if (isolated) {
    // Without them the node works too, but its /proc shows everybody's processes.
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) {
      std::fprintf(stderr, "gsm-emu: notice: the node keeps this system's /proc: %s\n",
                   std::strerror(errno));
    }
  } else {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  }
  forward_signals(true);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(report);
    run_command(command, mask);
  }
  if (child < 0) ::_exit(kFailed);
  forward_to = child;
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  // Whoever reads the command's output must see its end, also if a daemon stays behind.
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int stream : {0, 1, 2}) ::dup2(null, stream);
  ::setsid();
  for (;;) {
    int status = 0;
    const pid_t ended = ::waitpid(-1, &status, 0);
    if (ended < 0 && errno == EINTR) continue;
    if (ended < 0) break;
    if (ended == child) {
      forward_to = 0;
      write_all(report, &status, sizeof status);
      ::close(report);
    }
  }
  ::unlink(record_path);
  ::_exit(0);
}

}  // namespace

int exec(const Common& common, std::uint32_t node, const std::vector<std::string>& command) {
  const auto domain = find_domain(common);
  if (!domain) return fail_with(domain.error());
  if (const auto file = segment_file(*domain, node); !file) return fail_with(file.error());

  ::setenv("MCS_NODE", fmt::format("{}", node).c_str(), 1);
  ::setenv("MCS_DOMAIN", common.name.c_str(), 1);
  int go[2];
  int report[2];
  if (::pipe2(go, O_CLOEXEC) != 0 || ::pipe2(report, O_CLOEXEC) != 0) {
    return fail_with(
        {ErrorCode::kSystem, fmt::format("cannot make a pipe: {}", std::strerror(errno))});
  }
  const std::uint64_t here = pid_namespace();
  const bool isolated = ::unshare(CLONE_NEWPID) == 0;
  if (!isolated) {
    std::fprintf(stderr,
                 "gsm-emu: notice: no pid namespace of its own for node %u (%s); the command is "
                 "tracked by its descendants instead\n",
                 node, std::strerror(errno));
  }
  // Signals wait until the init has somebody to pass them to.
  sigset_t all;
  sigset_t mask;
  sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, &mask);
  const pid_t init = ::fork();
  if (init < 0) {
    return fail_with({ErrorCode::kSystem, fmt::format("cannot fork: {}", std::strerror(errno))});
  }
  if (init == 0) {
    ::close(go[1]);
    ::close(report[0]);
    run_init(command, isolated, go[0], report[1], mask);
  }
  ::close(go[0]);
  ::close(report[1]);
  ExecRecord record;
  record.node = node;
  record.pid = init;
  record.pid_namespace = here;
  record.started = read_stat(init).value_or(ProcStat{}).started;
  record.isolated = isolated;
  record.path = fmt::format("{}/exec.{}.{}", domain->path, node, init);
  for (const std::string& word : command) {
    record.command += (record.command.empty() ? "" : " ") + word;
  }
  // One line, so that the record can be read back.
  std::replace_if(
      record.command.begin(), record.command.end(), [](unsigned char c) { return c < ' '; }, ' ');
  const auto written = write_record(record);
  char path[1024] = {};
  if (!written || record.path.size() >= sizeof path) {
    ::close(go[1]);  // the init ends without having started anything
    ::waitpid(init, nullptr, 0);
    return written ? fail_with({ErrorCode::kInvalidArgument, "the domain's path is too long"})
                   : fail_with(written.error());
  }
  forward_to = init;
  forward_signals(false);
  std::memcpy(path, record.path.c_str(), record.path.size());
  write_all(go[1], path, sizeof path);
  ::close(go[1]);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);

  int status = 0;
  if (!read_all(report[0], &status, sizeof status)) {
    ::waitpid(init, nullptr, WNOHANG);
    std::fprintf(stderr, "gsm-emu: node %u crashed\n", node);
    return kCrashed;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace mcs::emu
