// SPDX-License-Identifier: Apache-2.0
#include "loadtest/harness/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <ctime>
#include <thread>
#include <utility>

#include "loadtest/harness/guardian.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

namespace {

struct StandardFds {
  int in = -1;
  int out = -1;
  int err = -1;
};

int open_log(const fs::path& file) {
  return file.empty() ? -1 : open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

void close_if_open(int fd) {
  if (fd >= 0) {
    close(fd);
  }
}

// Async-signal-safe.
bool join_all(const std::vector<std::string>& member_files) {
  for (const std::string& file : member_files) {
    const int fd = open(file.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1) {
      return false;
    }
    close(fd);
  }
  return true;
}

milliseconds left_until(std::chrono::steady_clock::time_point deadline) {
  const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
  return std::max(left, milliseconds(0));
}

}  // namespace

// The part of starting a program that both ChildProcess and run_process need.
struct Spawner {
  static Result<ChildProcess> spawn(const std::vector<std::string>& argv,
                                    const SpawnOptions& options, StandardFds fds) {
    const std::string program =
        argv[0].find('/') == std::string::npos ? find_program(argv[0]) : argv[0];
    if (program.empty()) {
      return fail("{} is not installed (not found in PATH)", argv[0]);
    }
    std::vector<char*> words;
    for (const std::string& word : argv) {
      words.push_back(const_cast<char*>(word.c_str()));
    }
    words.push_back(nullptr);
    std::vector<char*> environment;
    for (char** variable = environ; *variable != nullptr; ++variable) {
      environment.push_back(*variable);
    }
    for (const std::string& variable : options.environment) {
      environment.insert(environment.begin(), const_cast<char*>(variable.c_str()));
    }
    environment.push_back(nullptr);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    for (const int cpu : options.cpus) {
      CPU_SET(static_cast<size_t>(cpu), &cpus);
    }
    std::vector<std::string> member_files;
    for (const fs::path& cgroup : options.cgroups) {
      member_files.push_back(cgroup / "cgroup.procs");
    }
    int failure[2];
    if (pipe2(failure, O_CLOEXEC) != 0) {
      return fail("cannot make a pipe: {}", std::strerror(errno));
    }

    const pid_t pid = fork();
    if (pid == 0) {
      // Only async-signal-safe calls: other threads may have held any lock.
      sigset_t none;
      sigemptyset(&none);
      sigprocmask(SIG_SETMASK, &none, nullptr);
      for (const int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGQUIT}) {
        std::signal(number, SIG_DFL);
      }
      setsid();
      const bool ready = (fds.in < 0 || dup2(fds.in, 0) == 0) &&
                         (fds.out < 0 || dup2(fds.out, 1) == 1) &&
                         (fds.err < 0 || dup2(fds.err, 2) == 2) &&
                         (options.directory.empty() || chdir(options.directory.c_str()) == 0) &&
                         (options.cpus.empty() || sched_setaffinity(0, sizeof cpus, &cpus) == 0) &&
                         join_all(member_files);
      if (ready) {
        execve(program.c_str(), words.data(), environment.data());
      }
      const int error = errno;
      if (write(failure[1], &error, sizeof error) < 0) {
        _exit(126);
      }
      _exit(127);
    }
    const int fork_error = errno;
    close(failure[1]);
    if (pid < 0) {
      close(failure[0]);
      return fail("cannot fork: {}", std::strerror(fork_error));
    }
    int error = 0;
    ssize_t got;
    do {
      got = read(failure[0], &error, sizeof error);
    } while (got < 0 && errno == EINTR);
    close(failure[0]);
    if (got == static_cast<ssize_t>(sizeof error)) {
      waitpid(pid, nullptr, 0);
      return fail("cannot run {}: {}", program, std::strerror(error));
    }
    ChildProcess child;
    child.pid_ = pid;
    child.pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    Guardian::instance().add_group(pid);
    return child;
  }
};

Result<ChildProcess> ChildProcess::start(const std::vector<std::string>& argv,
                                         const SpawnOptions& options) {
  const StandardFds fds{open("/dev/null", O_RDONLY | O_CLOEXEC), open_log(options.stdout_file),
                        open_log(options.stderr_file)};
  auto child = Spawner::spawn(argv, options, fds);
  close_if_open(fds.in);
  close_if_open(fds.out);
  close_if_open(fds.err);
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)),
      pidfd_(std::exchange(other.pidfd_, -1)),
      status_(std::exchange(other.status_, std::nullopt)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this != &other) {
    reset();
    pid_ = std::exchange(other.pid_, 0);
    pidfd_ = std::exchange(other.pidfd_, -1);
    status_ = std::exchange(other.status_, std::nullopt);
  }
  return *this;
}

ChildProcess::~ChildProcess() { reset(); }

void ChildProcess::reset() {
  if (pid_ != 0) {
    // Members of the group may outlive the leader. Its number is still its own: wait() leaves it a
    // zombie.
    kill(-pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    Guardian::instance().remove_group(pid_);
  }
  close_if_open(std::exchange(pidfd_, -1));
  pid_ = 0;
  status_.reset();
}

bool ChildProcess::running() { return pid_ != 0 && !wait(milliseconds(0)); }

std::optional<int> ChildProcess::wait(milliseconds timeout) {
  if (pid_ == 0 || status_) {
    return status_;
  }
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    pollfd event{pidfd_, POLLIN, 0};
    const int ready = poll(&event, 1, static_cast<int>(left_until(deadline).count()));
    if (ready < 0 && errno == EINTR) {
      continue;
    }
    siginfo_t end = {};
    if (waitid(P_PID, static_cast<id_t>(pid_), &end, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        end.si_pid == pid_) {
      status_ =
          end.si_code == CLD_EXITED ? W_EXITCODE(end.si_status, 0) : W_EXITCODE(0, end.si_status);
      return status_;
    }
    if (left_until(deadline) == milliseconds(0)) {
      return std::nullopt;
    }
  }
}

void ChildProcess::release() {
  if (pid_ != 0) {
    Guardian::instance().remove_group(pid_);
  }
  close_if_open(std::exchange(pidfd_, -1));
  pid_ = 0;
  status_.reset();
}

void ChildProcess::signal(int number) {
  if (pid_ != 0 && !status_) {
    kill(pid_, number);
  }
}

void ChildProcess::signal_group(int number) {
  if (pid_ != 0) {
    kill(-pid_, number);
  }
}

std::string ProcessResult::describe() const {
  std::string text = timed_out     ? "timed out"
                     : signal != 0 ? fmt::format("ended by signal {}", signal)
                                   : fmt::format("exit code {}", exit_code);
  std::string_view last = err.empty() ? out : err;
  while (!last.empty() && (last.back() == '\n' || last.back() == '\r')) {
    last.remove_suffix(1);
  }
  if (const size_t line = last.rfind('\n'); line != std::string_view::npos) {
    last.remove_prefix(line + 1);
  }
  return last.empty() ? text : fmt::format("{}: {}", text, last);
}

Result<ProcessResult> run_process(const std::vector<std::string>& argv,
                                  const ProcessOptions& options) {
  int in[2] = {-1, -1};
  int out[2] = {-1, -1};
  int err[2] = {-1, -1};
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) {
    return fail("cannot make a pipe: {}", std::strerror(errno));
  }
  auto child = Spawner::spawn(argv, options, {in[0], out[1], err[1]});
  close(in[0]);
  close(out[1]);
  close(err[1]);
  if (!child) {
    close(in[1]);
    close(out[0]);
    close(err[0]);
    return tl::unexpected(child.error());
  }

  ProcessResult result;
  const auto deadline = std::chrono::steady_clock::now() + options.timeout;
  size_t written = 0;
  fcntl(in[1], F_SETFL, O_NONBLOCK);
  fcntl(out[0], F_SETFL, O_NONBLOCK);
  fcntl(err[0], F_SETFL, O_NONBLOCK);
  const auto close_input = [&] { close_if_open(std::exchange(in[1], -1)); };
  const auto drain = [](int& fd, std::string& text) {
    char buffer[16384];
    while (fd >= 0) {
      const ssize_t got = read(fd, buffer, sizeof buffer);
      if (got > 0) {
        text.append(buffer, static_cast<size_t>(got));
      } else if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
      } else {
        close_if_open(std::exchange(fd, -1));
      }
    }
  };
  if (options.input.empty()) {
    close_input();
  }
  // A broken pipe while writing the input must not end this process.
  struct sigaction ignore = {};
  struct sigaction before = {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &before);
  std::optional<int> status;
  while (!status) {
    status = child->wait(milliseconds(0));
    pollfd events[3] = {{in[1], POLLOUT, 0}, {out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
    if (!status && std::chrono::steady_clock::now() >= deadline) {
      result.timed_out = true;
      child->signal_group(SIGKILL);
      status = child->wait(milliseconds(10'000));
    } else if (!status) {
      // The program's end closes the pipes or is seen within 20 ms.
      poll(events, 3, 20);
    }
    if (in[1] >= 0) {
      const ssize_t n =
          write(in[1], options.input.data() + written, options.input.size() - written);
      written += n > 0 ? static_cast<size_t>(n) : 0;
      if (written == options.input.size() || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        close_input();
      }
    }
    drain(out[0], result.out);
    drain(err[0], result.err);
  }
  sigaction(SIGPIPE, &before, nullptr);
  close_input();
  close_if_open(out[0]);
  close_if_open(err[0]);
  if (WIFEXITED(*status)) {
    result.exit_code = WEXITSTATUS(*status);
  } else {
    result.signal = WTERMSIG(*status);
  }
  return result;
}

std::string find_program(std::string_view program) {
  const char* path = std::getenv("PATH");
  std::string directories = path != nullptr ? path : "/usr/bin:/bin";
  directories += ":/usr/local/sbin:/usr/sbin:/sbin";
  for (std::string_view rest = directories; !rest.empty();) {
    const size_t end = std::min(rest.find(':'), rest.size());
    const std::string file = fmt::format("{}/{}", rest.substr(0, end), program);
    if (end > 0 && access(file.c_str(), X_OK) == 0) {
      return file;
    }
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return {};
}

bool wait_until(const std::function<bool()>& condition, milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= deadline) {
      return false;
    }
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

uint64_t monotonic_ns() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace mcs::loadtest
