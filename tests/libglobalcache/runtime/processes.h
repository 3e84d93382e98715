// SPDX-License-Identifier: Apache-2.0
// Real domains, and instances in processes that can be killed at a point that the test knows.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <thread>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/layout.h"
#include "libglobalcache/runtime/agent.h"
#include "libglobalcache/runtime/instance.h"
#include "libglobalcache/runtime/liveness.h"

namespace mcs::runtime {

/// One process's place in a domain of files. Does not leave by itself.
struct Place {
  std::unique_ptr<gsm::Domain> domain;
  std::unique_ptr<KernelLiveness> liveness;
  std::unique_ptr<Instance> instance;

  explicit Place(const std::string& name, const std::string& server = "test") {
    domain = std::move(gsm::Domain::open("/dev/shm", name, cache::layout_hash()).value());
    liveness = std::move(KernelLiveness::open(domain->path()).value());
    instance = std::move(Instance::join(*domain, *liveness, {.server = server}).value());
    instance->activate();
  }
};

/// Both directions of a conversation between a test and its child, a byte at a time.
class Channel {
 public:
  Channel() {
    if (::pipe(up_) != 0 || ::pipe(down_) != 0) throw std::bad_alloc();
  }
  ~Channel() {
    for (const int fd : {up_[0], up_[1], down_[0], down_[1]}) ::close(fd);
  }
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // The child's side. It ends when its parent does.
  void say(char byte) {
    if (::write(up_[1], &byte, 1) != 1) ::_exit(3);
  }
  char hear() {
    char byte = 0;
    if (::read(down_[0], &byte, 1) != 1) ::_exit(3);
    return byte;
  }
  void only_child() {
    ::close(up_[0]);
    ::close(down_[1]);
    up_[0] = down_[1] = -1;
  }
  // The parent's side.
  void only_parent() {
    ::close(up_[1]);
    ::close(down_[0]);
    up_[1] = down_[0] = -1;
  }
  void tell(char byte) { EXPECT_EQ(::write(down_[1], &byte, 1), 1); }
  char listen() {
    char byte = 0;
    return ::read(up_[0], &byte, 1) == 1 ? byte : '\0';
  }

 private:
  int up_[2];
  int down_[2];
};

/// A process that runs `body` and then waits until it is killed.
class Child {
 public:
  explicit Child(const std::function<void(Channel&)>& body) : channel_(new Channel) {
    pid_ = ::fork();
    if (pid_ == 0) {
      channel_->only_child();
      body(*channel_);
      for (;;) (void)channel_->hear();
    }
    channel_->only_parent();
  }
  Child(Child&&) noexcept = default;
  ~Child() {
    if (channel_ != nullptr) end();
  }

  void tell(char byte) { channel_->tell(byte); }
  char listen() { return channel_->listen(); }
  pid_t pid() const { return pid_; }
  void stop() {
    ASSERT_EQ(::kill(pid_, SIGSTOP), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(pid_, &status, WUNTRACED), pid_);
    ASSERT_TRUE(WIFSTOPPED(status));
  }
  /// SIGKILL, and wait until the process is gone.
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
  }
  /// Wait until somebody else has killed it. Its signal; 0 if it ended otherwise.
  int wait_for_kill() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }

 private:
  std::unique_ptr<Channel> channel_;
  pid_t pid_ = -1;
};

/// Memory that a test and the children that it forks later share.
template <typename T>
class SharedMemory {
 public:
  SharedMemory() {
    void* memory =
        ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    value_ = new (memory) T{};
  }
  ~SharedMemory() { ::munmap(value_, sizeof(T)); }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  T* operator->() const { return value_; }
  T& operator*() const { return *value_; }

 private:
  T* value_;
};

/// The agent of node 0, in a thread. Fork before it starts.
class RunningAgent {
 public:
  explicit RunningAgent(Place& place, std::uint32_t hang_limit_ms)
      : agent_(*place.instance, place.domain->path(),
               {.hang_limit_ms = hang_limit_ms, .linger_ms = 60000},
               [this] { stop_ = finish_; }),
        thread_([this] { EXPECT_TRUE(agent_.run(&stop_)); }) {
    while (place.instance->events(0).agent.load() != place.instance->id().value) {
      std::this_thread::yield();
    }
  }
  ~RunningAgent() {
    finish_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> finish_{false};
  volatile bool stop_ = false;  // of the agent's thread
  Agent agent_;
  std::thread thread_;
};

/// A test with a domain of files.
class ProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    static int count = 0;
    gsm::DomainSpec spec;
    spec.name = name_ = "rt-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
    spec.bytes_per_node = 16 << 20;
    const auto made = api::create(spec);
    ASSERT_TRUE(made) << made.error().message;
  }
  void TearDown() override {
    EXPECT_TRUE(gsm::Domain::destroy(
        gsm::Domain::path_of("/dev/shm", name_, cache::layout_hash())));
  }
  static InstanceState state(const Instance& observer, std::uint32_t slot) {
    return StateWord::state(observer.control(slot).state.load());
  }

  std::string name_;
};

}  // namespace mcs::runtime
