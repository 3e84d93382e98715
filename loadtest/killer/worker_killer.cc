// SPDX-License-Identifier: Apache-2.0
#include "loadtest/killer/worker_killer.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <iterator>
#include <memory>
#include <numeric>
#include <utility>

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

Result<std::vector<KillRecord>> WorkerKiller::kill_several(size_t most) {
  std::vector<std::pair<size_t, pid_t>> workers;
  for (size_t target = 0; target < targets_.size(); ++target) {
    for (const pid_t pid : targets_[target].workers()) {
      workers.emplace_back(target, pid);
    }
  }
  std::shuffle(workers.begin(), workers.end(), random_);
  workers.resize(std::min(workers.size(), most));
  struct Victim {
    std::unique_ptr<PidFd> process;
    KillRecord record;
  };
  std::vector<Victim> victims;
  for (const auto& [target, pid] : workers) {
    Victim victim{std::make_unique<PidFd>(pid), {}};
    victim.record.target = static_cast<int>(target);
    victim.record.pid = pid;
    if (victim.process->get() >= 0 && victim.process->send(SIGSTOP)) {
      victims.push_back(std::move(victim));
    }
  }
  // All of them stand still before anybody looks at what they hold.
  std::erase_if(victims, [](Victim& victim) {
    if (!wait_until([&] { return all_threads_stopped(victim.record.pid); }, kStopTimeout)) {
      victim.process->send(SIGCONT);
      return true;
    }
    victim.record.stopped_ns = monotonic_ns();
    auto held = held_connections(victim.record.pid, victim.process->get());
    if (!held) {
      victim.process->send(SIGCONT);
      return true;
    }
    victim.record.held = std::move(*held);
    return false;
  });
  if (victims.empty()) {
    return fail("no server has a worker that could be stopped");
  }
  for (Victim& victim : victims) {
    victim.record.killed_ns = monotonic_ns();
    victim.process->send(SIGKILL);
  }
  std::vector<KillRecord> records;
  for (Victim& victim : victims) {
    pollfd death{victim.process->get(), POLLIN, 0};
    if (poll(&death, 1, kNoticeTimeoutMs) == 1) {
      victim.record.notice_ns = monotonic_ns();
    }
    records.push_back(std::move(victim.record));
  }
  return records;
}

void WorkerKiller::start(milliseconds interval, size_t at_once) {
  stop();
  stopping_ = false;
  thread_ = std::thread([this, interval, at_once] { run(interval, at_once); });
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

void WorkerKiller::run(milliseconds interval, size_t at_once) {
  const auto pause = [&] {
    return at_once == 1 ? interval
                        : milliseconds(std::uniform_int_distribution<milliseconds::rep>(
                              1, 2 * interval.count())(random_));
  };
  auto next = std::chrono::steady_clock::now() + pause();
  std::unique_lock lock(mutex_);
  while (!wake_.wait_until(lock, next, [this] { return stopping_; })) {
    next += pause();
    lock.unlock();
    std::vector<KillRecord> killed;
    std::string error;
    if (at_once == 1) {
      if (auto record = kill_one()) {
        killed.push_back(std::move(*record));
      } else {
        error = record.error().message;
      }
    } else if (auto several = kill_several(
                   std::uniform_int_distribution<size_t>(1, at_once)(random_))) {
      killed = std::move(*several);
    } else {
      error = several.error().message;
    }
    lock.lock();
    if (killed.empty()) {
      last_error_ = error;
      ++missed_;
    }
    kills_ += killed.size();
    std::move(killed.begin(), killed.end(), std::back_inserter(records_));
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
