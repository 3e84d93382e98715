// SPDX-License-Identifier: Apache-2.0
#include "loadtest/killer/worker_killer.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <numeric>

#include "loadtest/harness/proc_info.h"
#include "loadtest/harness/process.h"

namespace mcs::loadtest {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kStopTimeout{1000};
constexpr int kNoticeTimeoutMs = 1000;

class PidFd {
 public:
  explicit PidFd(pid_t pid) : fd_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))) {}
  ~PidFd() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }
  PidFd(const PidFd&) = delete;
  PidFd& operator=(const PidFd&) = delete;

  int get() const { return fd_; }
  bool send(int signal) const {
    return syscall(SYS_pidfd_send_signal, fd_, signal, nullptr, 0) == 0;
  }

 private:
  int fd_;
};

}  // namespace

WorkerKiller::WorkerKiller(std::vector<KillTarget> targets, uint64_t seed)
    : targets_(std::move(targets)), random_(seed) {}

WorkerKiller::~WorkerKiller() { stop(); }

Result<KillRecord> WorkerKiller::kill_one() {
  std::vector<size_t> order(targets_.size());
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random_);
  for (const size_t target : order) {
    const std::vector<pid_t> workers = targets_[target].workers();
    if (workers.empty()) {
      continue;
    }
    KillRecord record;
    record.target = static_cast<int>(target);
    record.pid = workers[std::uniform_int_distribution<size_t>(0, workers.size() - 1)(random_)];
    // Signals go through the pidfd: a worker that ended meanwhile cannot be confused with a new
    // process of its number.
    const PidFd victim(record.pid);
    if (victim.get() < 0 || !victim.send(SIGSTOP)) {
      return fail("worker {} of {} ended by itself", record.pid, targets_[target].name);
    }
    if (!wait_until([&] { return all_threads_stopped(record.pid); }, kStopTimeout)) {
      victim.send(SIGCONT);
      return fail("worker {} of {} did not stop within 1 s", record.pid, targets_[target].name);
    }
    record.stopped_ns = monotonic_ns();
    auto held = held_connections(record.pid, victim.get());
    if (!held) {
      victim.send(SIGCONT);
      return tl::unexpected(held.error());
    }
    record.held = std::move(*held);
    record.killed_ns = monotonic_ns();
    victim.send(SIGKILL);
    pollfd death{victim.get(), POLLIN, 0};
    if (poll(&death, 1, kNoticeTimeoutMs) == 1) {
      record.notice_ns = monotonic_ns();
    }
    return record;
  }
  return fail("no server has a worker");
}

void WorkerKiller::start(milliseconds interval) {
  stop();
  stopping_ = false;
  thread_ = std::thread([this, interval] { run(interval); });
}

void WorkerKiller::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void WorkerKiller::run(milliseconds interval) {
  auto next = std::chrono::steady_clock::now() + interval;
  std::unique_lock lock(mutex_);
  while (!wake_.wait_until(lock, next, [this] { return stopping_; })) {
    next += interval;
    lock.unlock();
    auto record = kill_one();
    lock.lock();
    if (record) {
      records_.push_back(std::move(*record));
      ++kills_;
    } else {
      last_error_ = record.error().message;
      ++missed_;
    }
  }
}

std::string WorkerKiller::last_error() const {
  const std::lock_guard lock(mutex_);
  return last_error_;
}

const KillRecord* find_killer(const std::vector<KillRecord>& records, int target,
                              uint16_t client_port, uint64_t opened_ns, uint64_t failed_ns) {
  for (const KillRecord& record : records) {
    if (record.target == target && opened_ns < record.stopped_ns && failed_ns > record.killed_ns &&
        std::any_of(record.held.begin(), record.held.end(),
                    [&](const HeldConnection& held) { return held.remote_port == client_port; })) {
      return &record;
    }
  }
  return nullptr;
}

}  // namespace mcs::loadtest
