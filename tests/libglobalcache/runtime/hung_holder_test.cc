// SPDX-License-Identifier: Apache-2.0
// Real processes that are stopped while they hold something, and the agent that judges them: ends them,
// or expels those that it may not end.
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "libglobalcache/api/process.h"
#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/cache/verify.h"
#include "libglobalcache/runtime/agent.h"

namespace mcs {
namespace {

using cache::Begin;
using cache::GlobalCache;
using runtime::Instance;
using runtime::InstanceState;
using runtime::StateWord;

constexpr std::uint32_t kHangLimitMs = 300;
// The agent looks around ten times a second, so these are several hang limits.
constexpr unsigned kManyTicks = 15;
constexpr auto kLongEnough = std::chrono::seconds(60);
constexpr const char* kKey = "a key";

struct Member {
  std::unique_ptr<gsm::Domain> domain;
  std::unique_ptr<runtime::Liveness> liveness;
  std::unique_ptr<Instance> instance;
  std::unique_ptr<GlobalCache> cache;

  static Member join(const std::string& directory, const char* server) {
    Member m;
    m.domain = std::move(gsm::Domain::open(directory, "hung", cache::layout_hash()).value());
    m.liveness = std::move(runtime::KernelLiveness::open(m.domain->path()).value());
    m.instance = std::move(Instance::join(*m.domain, *m.liveness, {0, server}).value());
    m.cache = std::make_unique<GlobalCache>(*m.domain, *m.instance);
    m.instance->activate();
    return m;
  }
};

bool store(GlobalCache& cache, const char* key) {
  cache::Fill fill;
  if (cache.begin(cache.make_key(key), fill, {}, true) != Begin::kFilling) return false;
  const std::string text(3000, 'x');
  fill.set_head(std::as_bytes(std::span(text).first(10)), text.size());
  return fill.append(std::as_bytes(std::span(text))) == cache::Append::kOk && fill.commit(1);
}

bool is_there(GlobalCache& cache, const char* key) {
  cache::Hit hit;
  if (cache.find(cache.make_key(key), hit).found != cache::Found::kHit) return false;
  std::string body(hit.body_bytes(), '\0');
  EXPECT_TRUE(cache.read_verified(hit, body.data()));
  cache.release(hit);
  return true;
}

class HungHolderTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/mcs-hung-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    directory_ = name;
    gsm::DomainSpec spec;
    spec.name = "hung";
    spec.directory = directory_;
    spec.bytes_per_node = 16ULL << 20;
    ASSERT_TRUE(api::create(spec));
    ASSERT_EQ(::pipe(ready_), 0);
    ASSERT_EQ(::pipe(go_), 0);
  }
  void TearDown() override {
    stop_ = true;
    rounds_ = kUnlimited;
    if (thread_.joinable()) thread_.join();
    for (const pid_t pid : {child_, agent_}) {
      if (pid <= 0) continue;
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    for (const int fd : {ready_[0], ready_[1], go_[0], go_[1]}) ::close(fd);
    std::filesystem::remove_all(directory_);
  }

  // A process joins, makes itself known to the agent, takes something, and stops. When it goes on
  // `let_go` runs and it leaves.
  void start_child(const std::function<std::function<void()>(Member&)>& take) {
    child_ = ::fork();
    ASSERT_GE(child_, 0);
    if (child_ == 0) {
      Member m = Member::join(directory_, "stopped/1");
      while (!runtime::send_hello(m.domain->path(), 0, m.instance->id())) ::usleep(1000);
      const std::uint32_t slot = m.instance->slot_number();
      if (::write(ready_[1], &slot, sizeof slot) != sizeof slot) ::_exit(2);
      const std::function<void()> let_go = take(m);
      if (foreign_ && ::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(6);
      if (busy_) {
        for (pollfd go{go_[0], POLLIN, 0}; ::poll(&go, 1, 5) == 0;) m.instance->tick();
      } else {
        ::raise(SIGSTOP);
      }
      let_go();
      m.cache->leave();
      m.instance->leave();
      ::_exit(0);
    }
    start_agent();
    survivor_ = Member::join(directory_, "survivor/1");
    if (rounds_ == 0) {
      while (ticks_ == 0) std::this_thread::yield();
      ASSERT_EQ(::write(go_[1], "", 1), 1);
    }
    ASSERT_EQ(::read(ready_[0], &slot_, sizeof slot_), static_cast<ssize_t>(sizeof slot_));
    if (busy_) {
      if (traced_) {
        ASSERT_EQ(::ptrace(PTRACE_SEIZE, child_, nullptr, nullptr), 0);
      }
      return;
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child_, &status, WUNTRACED), child_);
    ASSERT_TRUE(WIFSTOPPED(status));
    if (traced_) {
      ASSERT_EQ(::ptrace(PTRACE_SEIZE, child_, nullptr, nullptr), 0);
      // The tracer is told that it is stopped; it stays so.
      ASSERT_EQ(::waitpid(child_, &status, __WALL), child_);
      ASSERT_TRUE(WIFSTOPPED(status));
    }
  }

  // From now on the child may not be killed: it is another user's, or, where only root could make it
  // that, it is traced.
  void protect_child() { (::geteuid() == 0 ? foreign_ : traced_) = true; }
  // Until it has gone on the agent is held up: it may kill whoever hangs and is not traced any more.
  void detach() {
    if (!traced_) return;
    rounds_ = 0;
    for (const unsigned before = ticks_; ticks_ == before;) std::this_thread::yield();
    ASSERT_EQ(::ptrace(PTRACE_DETACH, child_, nullptr, nullptr), 0);
  }

  // Capabilities are a thread's own.
  static void lose_the_right_to_kill() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2] = {};
    ASSERT_EQ(::syscall(SYS_capget, &header, data), 0);
    for (auto* set : {&data[0].effective, &data[0].permitted}) *set &= ~(1U << CAP_KILL);
    ASSERT_EQ(::syscall(SYS_capset, &header, data), 0);
  }

  // An agent in a pid namespace of its own, from which the child cannot be signalled; with `own_proc` it
  // cannot be seen either. False: that is not permitted here.
  bool start_agent_apart(bool own_proc) {
    int up[2];
    EXPECT_EQ(::pipe(up), 0);
    agent_ = ::fork();
    EXPECT_GE(agent_, 0);
    if (agent_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int spaces = CLONE_NEWPID | (own_proc ? CLONE_NEWNS : 0);
      if (::unshare(spaces) != 0) ::_exit(1);
      const pid_t first = ::fork();
      if (first != 0) {
        ::waitpid(first, nullptr, 0);
        ::_exit(1);
      }
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (own_proc && (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
                       ::mount("proc", "/proc", "proc", 0, nullptr) != 0)) {
        ::_exit(1);
      }
      if (::write(up[1], "", 1) != 1) ::_exit(1);
      Member m = Member::join(directory_, "mcs-agent");
      runtime::Agent agent(*m.instance, m.domain->path(), {kHangLimitMs, 600000},
                           [&] { m.cache->tick(); });
      agent.run(nullptr);
      ::_exit(0);
    }
    ::close(up[1]);
    char byte = 0;
    const bool permitted = ::read(up[0], &byte, 1) == 1;
    ::close(up[0]);
    return permitted;
  }

  void start_agent() {
    if (agent_ > 0) return;
    thread_ = std::thread([this] {
      lose_the_right_to_kill();
      Member m = Member::join(directory_, "mcs-agent");
      runtime::Agent::Options options{kHangLimitMs, 600000};
      options.watch = [this] { ++turns_; };
      runtime::Agent agent(*m.instance, m.domain->path(), options, [&] {
        m.cache->tick();
        ++ticks_;
        while (rounds_ == 0) std::this_thread::yield();
        if (rounds_ != kUnlimited) --rounds_;
      });
      agent.run(&stop_);
      m.cache->leave();
      m.instance->leave();
    });
  }

  // Asks for what the child holds until it is gone. False: it is still there after `ticks` rounds of
  // the agent (0: until it is gone).
  bool gone_while(const std::function<void()>& ask, unsigned ticks, int& status) {
    const unsigned until = ticks_ + ticks;
    const auto limit = std::chrono::steady_clock::now() + kLongEnough;
    while (std::chrono::steady_clock::now() < limit && (ticks == 0 || ticks_ < until)) {
      ask();
      if (::waitpid(child_, &status, WNOHANG) == child_) {
        child_ = -1;
        return true;
      }
      std::this_thread::yield();
    }
    return false;
  }

  void expect_killed_and_recovered(const std::function<void()>& ask) {
    int status = 0;
    ASSERT_TRUE(gone_while(ask, 0, status));
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
    wait_until_recovered();
    EXPECT_TRUE(store(*survivor_.cache, kKey));
    expect_clean();
  }

  void expect_clean() {
    survivor_.cache->tick();
    const cache::VerifyReport report = cache::verify(*survivor_.domain, *survivor_.liveness);
    EXPECT_TRUE(report.ok);
    for (const auto& problem : report.problems) {
      ADD_FAILURE() << problem.kind << " " << problem.where << ": " << problem.detail;
    }
  }

  // Asks for what the child holds until it is expelled; it must live then.
  void expect_expelled(const std::function<void()>& ask) {
    const auto limit = std::chrono::steady_clock::now() + kLongEnough;
    while (child_state() != InstanceState::kExpelled && std::chrono::steady_clock::now() < limit) {
      ask();
      std::this_thread::yield();
    }
    EXPECT_EQ(child_state(), InstanceState::kExpelled);
    siginfo_t ended{};
    EXPECT_EQ(::waitid(P_PID, static_cast<id_t>(child_), &ended, WEXITED | WNOHANG | WNOWAIT), 0);
    EXPECT_EQ(ended.si_pid, 0) << "signal or status " << ended.si_status;
  }
  void wait_until_recovered() {
    const auto limit = std::chrono::steady_clock::now() + kLongEnough;
    while (child_state() != InstanceState::kFree && std::chrono::steady_clock::now() < limit) {
      std::this_thread::yield();
    }
    EXPECT_EQ(child_state(), InstanceState::kFree);
  }
  void kill_child() {
    ::kill(child_, SIGKILL);
    ASSERT_EQ(::waitpid(child_, nullptr, 0), child_);
    child_ = -1;
    wait_until_recovered();
  }

  unsigned expulsions() const {
    unsigned n = 0;
    for (const runtime::Event& event : survivor_.instance->events(0).events) {
      const auto kind = static_cast<std::uint32_t>(runtime::EventKind::kExpelled);
      if (event.ready.load() != 0 && event.kind == kind) ++n;
    }
    return n;
  }

  InstanceState child_state() const {
    return StateWord::state(survivor_.instance->control(slot_).state.load());
  }

  void continue_child() {
    ::kill(child_, SIGCONT);
    int status = 0;
    ASSERT_EQ(::waitpid(child_, &status, 0), child_);
    child_ = -1;
    rounds_ = kUnlimited;
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }

  std::string directory_;
  Member survivor_;
  pid_t child_ = -1;
  pid_t agent_ = -1;  // keeps the namespaces of one that is apart
  std::uint32_t slot_ = 0;
  int ready_[2] = {-1, -1};
  int go_[2] = {-1, -1};  // to the child, once the agent is held up
  std::thread thread_;
  volatile bool stop_ = false;
  std::atomic<unsigned> ticks_{0};
  std::atomic<unsigned> turns_{0};  // of the agent; some of them have a tick
  static constexpr unsigned kUnlimited = ~0U;
  std::atomic<unsigned> rounds_{kUnlimited};  // that the agent may still begin; it is held up after each
  bool traced_ = false;
  bool foreign_ = false;
  bool busy_ = false;  // instead of being stopped
};

/// Stops the process in the middle of recovering another one.
class StoppingSteps final : public runtime::RecoverySteps {
 public:
  void repair_operation(const runtime::DeadInstance&, runtime::OpRecord&) override {
    ::raise(SIGSTOP);
  }
  bool take_over(const runtime::DeadInstance&, runtime::RecoveryCounts&) override { return true; }
};

std::function<void()> take_bucket(Member& m) {
  auto* lock = new cache::Index::Locked(m.cache->index(), m.cache->make_key(kKey).hash);
  if (lock->answer() != runtime::LockAnswer::kAcquired) ::_exit(3);
  return [lock] { delete lock; };
}

TEST_F(HungHolderTest, WhoHoldsABucketOthersNeedIsKilledAndRecovered) {
  start_child(take_bucket);
  expect_killed_and_recovered([&] { store(*survivor_.cache, kKey); });
}

// By somebody who comes once in several hang limits.
TEST_F(HungHolderTest, WhatItHoldsIsSeldomAskedForAndItIsKilledAllTheSame) {
  start_child(take_bucket);
  unsigned next = 0;
  expect_killed_and_recovered([&] {
    if (ticks_ < next) return;
    store(*survivor_.cache, kKey);
    next = ticks_ + 8;
  });
}

std::function<void()> take_group(Member& m) {
  cache::Hit hit;
  if (!store(*m.cache, kKey) ||
      m.cache->find(m.cache->make_key(kKey), hit).found != cache::Found::kHit) {
    ::_exit(3);
  }
  const cache::Extent extent = hit.extents[0];
  m.cache->release(hit);
  auto* op = new Instance::Op(*m.instance);
  op->record().phase.store(static_cast<std::uint64_t>(cache::Phase::kLocking));
  const cache::Memory& memory = m.cache->memory();
  cache::Group& group = memory.group(extent.segment(), extent.group());
  if (!op->try_lock(group.lock, memory.lock_ref(extent.segment(), group.lock))) ::_exit(4);
  return [op] { delete op; };
}

// As when a machine sleeps and wakes: the agent may look before anybody else has had a turn.
TEST_F(HungHolderTest, AnAgentThatWasAsleepItselfJudgesNobodyByIt) {
  rounds_ = 0;
  start_child(take_bucket);
  for (unsigned round = 0; round < 5; ++round) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(kHangLimitMs + 100);
    while (std::chrono::steady_clock::now() < until) store(*survivor_.cache, kKey);
    const unsigned before = ticks_;
    rounds_ = 1;
    while (ticks_ == before) std::this_thread::yield();
  }
  siginfo_t ended{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child_), &ended, WEXITED | WNOHANG | WNOWAIT), 0);
  ASSERT_EQ(ended.si_pid, 0) << "signal or status " << ended.si_status;
  rounds_ = kUnlimited;
  expect_killed_and_recovered([&] { store(*survivor_.cache, kKey); });
}

TEST_F(HungHolderTest, WhoHoldsAGroupOthersNeedIsKilledAndRecovered) {
  start_child(take_group);
  // Its space cannot be given back while the group is locked.
  EXPECT_EQ(survivor_.cache->purge(cache::PurgeKind::kKey, kKey), 1U);
  expect_killed_and_recovered([&] { survivor_.cache->tick(); });
}

TEST_F(HungHolderTest, WhoIsTracedWithAGroupLockedIsExpelledAndTheGroupStaysItsOwn) {
  traced_ = true;
  start_child(take_group);
  EXPECT_EQ(survivor_.cache->purge(cache::PurgeKind::kKey, kKey), 1U);
  expect_expelled([&] { survivor_.cache->tick(); });
  EXPECT_GT(survivor_.cache->space().used_units(0), 0U);
  EXPECT_TRUE(store(*survivor_.cache, "another key"));
  EXPECT_EQ(survivor_.cache->purge(cache::PurgeKind::kKey, "another key"), 1U);
  detach();
  continue_child();
  survivor_.cache->tick();
  EXPECT_EQ(survivor_.cache->space().used_units(0), 0U);
  expect_clean();
}

std::function<void()> take_group_of_many(Member& m) {
  for (const char* key : {"1", "2", "3", "4", "5"}) {
    if (!store(*m.cache, key)) ::_exit(5);
  }
  return take_group(m);
}

TEST_F(HungHolderTest, ManyThatCannotBeFreedKeepNothingElseFromIt) {
  traced_ = true;
  start_child(take_group_of_many);
  EXPECT_EQ(survivor_.cache->purge(cache::PurgeKind::kAll, {}), 6U);
  expect_expelled([&] { survivor_.cache->tick(); });
  const std::uint64_t stuck = survivor_.cache->space().used_units(0);
  EXPECT_TRUE(store(*survivor_.cache, "another key"));
  EXPECT_EQ(survivor_.cache->purge(cache::PurgeKind::kKey, "another key"), 1U);
  for (unsigned i = 0; i < 3; ++i) survivor_.cache->tick();
  EXPECT_EQ(survivor_.cache->space().used_units(0), stuck);
  detach();
  continue_child();
  for (unsigned i = 0; i < 3; ++i) survivor_.cache->tick();
  EXPECT_EQ(survivor_.cache->space().used_units(0), 0U);
  expect_clean();
}

// Nobody can fold the counters of whoever dies while the totals' lock is not to be had.
TEST_F(HungHolderTest, TheAgentDoesNotSpinWhileSomebodyCannotBeRecovered) {
  traced_ = true;
  pid_t victim = -1;
  start_child([](Member& m) -> std::function<void()> {
    auto* op = new Instance::Op(*m.instance);
    const auto ref = runtime::LockRef::make(
        0, m.instance->geometry().totals + offsetof(runtime::StatTotals, lock));
    if (!op->try_lock(m.instance->totals(0).lock, ref)) ::_exit(4);
    return [op] { delete op; };
  });
  std::uint32_t slot = 0;
  victim = ::fork();
  ASSERT_GE(victim, 0);
  if (victim == 0) {
    Member m = Member::join(directory_, "victim/1");
    while (!runtime::send_hello(m.domain->path(), 0, m.instance->id())) ::usleep(1000);
    slot = m.instance->slot_number();
    if (::write(ready_[1], &slot, sizeof slot) != sizeof slot) ::_exit(2);
    for (;;) ::pause();
  }
  ASSERT_EQ(::read(ready_[0], &slot, sizeof slot), static_cast<ssize_t>(sizeof slot));
  const auto state = [&] { return StateWord::state(survivor_.instance->control(slot).state.load()); };
  const unsigned known = ticks_ + 2;
  while (ticks_ < known) std::this_thread::yield();
  ::kill(victim, SIGKILL);
  ASSERT_EQ(::waitpid(victim, nullptr, 0), victim);
  expect_expelled([&] {
    survivor_.instance->report_blocking(runtime::InstanceId::make(
        slot_, StateWord::incarnation(survivor_.instance->control(slot_).state.load())));
  });
  const unsigned begin = ticks_ + 1;
  while (ticks_ < begin) std::this_thread::yield();
  const unsigned turns = turns_;
  while (ticks_ < begin + 10) std::this_thread::yield();
  // Five between two ticks, unless something happens.
  EXPECT_LT(turns_ - turns, 10U * 20);
  EXPECT_EQ(state(), InstanceState::kDead);
  detach();
  continue_child();
  const auto limit = std::chrono::steady_clock::now() + kLongEnough;
  while (state() != InstanceState::kFree && std::chrono::steady_clock::now() < limit) {
    std::this_thread::yield();
  }
  EXPECT_EQ(state(), InstanceState::kFree);
  expect_clean();
}

// The child stops while it recovers another process, which died with the bucket locked.
class HungRecovererTest : public HungHolderTest {
 protected:
  void start_recoverer() {
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t holder = ::fork();
    ASSERT_GE(holder, 0);
    if (holder == 0) {
      Member m = Member::join(directory_, "holder/1");
      take_bucket(m);
      const std::uint32_t slot = m.instance->slot_number();
      if (::write(ready[1], &slot, sizeof slot) != sizeof slot) ::_exit(2);
      for (;;) ::pause();
    }
    ASSERT_EQ(::read(ready[0], &holder_slot_, sizeof holder_slot_),
              static_cast<ssize_t>(sizeof holder_slot_));
    // The agent does not look until the recoverer has begun.
    rounds_ = 0;
    start_child([&](Member& m) -> std::function<void()> {
      StoppingSteps steps;
      m.instance->set_steps(&steps);
      char byte = 0;
      if (::read(go_[0], &byte, 1) != 1) ::_exit(3);
      ::kill(holder, SIGKILL);
      while (m.liveness->held(holder_slot_)) ::usleep(100);
      m.instance->recover_all("test");
      if (!traced_) ::_exit(5);  // it was to stop before, for good
      m.instance->set_steps(m.cache.get());
      m.cache->leave();
      m.instance->leave();
      ::_exit(0);
    });
    ASSERT_EQ(::waitpid(holder, nullptr, 0), holder);
    ::close(ready[0]);
    ::close(ready[1]);
    rounds_ = kUnlimited;
  }
  InstanceState holder_state() const {
    return StateWord::state(survivor_.instance->control(holder_slot_).state.load());
  }
  std::uint32_t holder_slot_ = 0;
};

TEST_F(HungRecovererTest, IsKilledAndBothAreRecovered) {
  start_recoverer();
  expect_killed_and_recovered([&] { store(*survivor_.cache, kKey); });
  EXPECT_EQ(holder_state(), InstanceState::kFree);
}

TEST_F(HungRecovererTest, IsExpelledIfTracedAndNobodyWaitsForIt) {
  traced_ = true;
  start_recoverer();
  expect_expelled([&] { store(*survivor_.cache, kKey); });
  EXPECT_FALSE(store(*survivor_.cache, kKey));
  EXPECT_TRUE(store(*survivor_.cache, "another key"));
  EXPECT_EQ(holder_state(), InstanceState::kDead);
  detach();
  continue_child();
  const auto limit = std::chrono::steady_clock::now() + kLongEnough;
  while (holder_state() != InstanceState::kFree && std::chrono::steady_clock::now() < limit) {
    std::this_thread::yield();
  }
  EXPECT_EQ(holder_state(), InstanceState::kFree);
  EXPECT_TRUE(store(*survivor_.cache, kKey));
  expect_clean();
}

// In the middle of a purge, with the entry that it looks at pinned.
bool stop_in_matcher(cache::PurgeKind, std::string_view, std::string_view,
                     std::span<const std::byte>) {
  ::raise(SIGSTOP);
  return true;
}

class HungPurgerTest : public HungHolderTest, public testing::WithParamInterface<bool> {};

TEST_P(HungPurgerTest, IsLeftAloneAndHindersNobody) {
  traced_ = GetParam();
  start_child([](Member& m) -> std::function<void()> {
    if (!store(*m.cache, kKey)) ::_exit(3);
    m.cache->set_purge_matcher(stop_in_matcher);
    m.cache->purge(cache::PurgeKind::kKey, kKey);
    m.cache->leave();
    m.instance->leave();
    ::_exit(0);
  });
  int status = 0;
  unsigned round = 0;
  EXPECT_FALSE(gone_while(
      [&] {
        if (++round % 64 != 0) return;
        EXPECT_EQ(survivor_.cache->purge(cache::PurgeKind::kKey, kKey), 1U);
        EXPECT_TRUE(store(*survivor_.cache, kKey));
        EXPECT_TRUE(is_there(*survivor_.cache, kKey));
      },
      kManyTicks, status));
  EXPECT_EQ(child_state(), InstanceState::kActive);
  detach();
  continue_child();
  // What was stored since is not what it was to purge.
  EXPECT_TRUE(round < 64 || is_there(*survivor_.cache, kKey));
  expect_clean();
}

INSTANTIATE_TEST_SUITE_P(Stopped, HungPurgerTest, testing::Bool(), [](const auto& traced) {
  return traced.param ? std::string("Traced") : std::string("Untraced");
});

std::function<void()> take_fill(Member& m) {
  auto* fill = new cache::Fill;
  if (m.cache->begin(m.cache->make_key(kKey), *fill) != Begin::kFilling) ::_exit(3);
  return [fill] { delete fill; };
}

TEST_F(HungHolderTest, WhoHoldsAFillOthersWaitForIsKilledAndItsLeasePassedOn) {
  start_child(take_fill);
  expect_killed_and_recovered([&] {
    cache::Hit hit;
    const auto found = survivor_.cache->find(survivor_.cache->make_key(kKey), hit);
    if (found.filling.value != 0) survivor_.cache->announce_wait(found.filling);
  });
}

TEST_F(HungHolderTest, WhoIsStoppedAndNotNeededIsLeftAlone) {
  start_child(take_fill);
  int status = 0;
  EXPECT_FALSE(gone_while([] {}, kManyTicks, status));
  EXPECT_EQ(child_state(), InstanceState::kActive);
  continue_child();
  expect_clean();
}

void ask_for_the_fill(Member& m) {
  cache::Hit hit;
  const auto found = m.cache->find(m.cache->make_key(kKey), hit);
  if (found.found == cache::Found::kHit) m.cache->release(hit);
  if (found.filling.value != 0) m.cache->announce_wait(found.filling);
}

TEST_F(HungHolderTest, WhoIsTracedIsExpelledAndItsLockStaysItsOwn) {
  traced_ = true;
  start_child(take_bucket);
  expect_expelled([&] { store(*survivor_.cache, kKey); });
  // Only what is in this bucket cannot be stored, and nobody waits for it.
  EXPECT_FALSE(store(*survivor_.cache, kKey));
  EXPECT_TRUE(store(*survivor_.cache, "another key"));
  EXPECT_TRUE(is_there(*survivor_.cache, "another key"));
  detach();
  continue_child();
  EXPECT_TRUE(store(*survivor_.cache, kKey));
  expect_clean();
}

TEST_F(HungHolderTest, WhoMayNotBeKilledIsExpelledAndItsFillPassedOn) {
  protect_child();
  start_child([](Member& m) -> std::function<void()> {
    auto* fill = new cache::Fill;
    const std::string text(90000, 'y');
    if (m.cache->begin(m.cache->make_key(kKey), *fill) != Begin::kFilling) ::_exit(3);
    fill->set_head(std::as_bytes(std::span(text).first(10)), text.size());
    if (fill->append(std::as_bytes(std::span(text).first(70000))) != cache::Append::kOk) ::_exit(3);
    return [&m, fill, text] {
      // It goes on as if nothing had happened, and nothing of it is seen.
      if (!m.instance->expelled()) ::_exit(10);
      const auto rest = std::as_bytes(std::span(text).subspan(70000));
      if (fill->append(rest) == cache::Append::kOk && fill->commit(1)) ::_exit(11);
      cache::Fill another;
      if (m.cache->begin(m.cache->make_key("its other key"), another) != Begin::kBusy) ::_exit(12);
      if (!is_there(*m.cache, kKey)) ::_exit(13);
      m.instance->tick();
      if (m.instance->expelled() || !store(*m.cache, "its other key")) ::_exit(14);
    };
  });
  expect_expelled([&] { ask_for_the_fill(survivor_); });
  EXPECT_TRUE(store(*survivor_.cache, kKey));
  EXPECT_TRUE(is_there(*survivor_.cache, kKey));
  expect_clean();
  detach();
  continue_child();
  EXPECT_TRUE(is_there(*survivor_.cache, kKey));
  EXPECT_TRUE(is_there(*survivor_.cache, "its other key"));
  expect_clean();
}

class ExpelledHolderTest : public HungHolderTest, public testing::WithParamInterface<bool> {};

TEST_P(ExpelledHolderTest, WhatItHoldsIsGivenBackWhenItsExitIsCertain) {
  if (GetParam()) {
    traced_ = true;
  } else {
    protect_child();
  }
  start_child([](Member& m) -> std::function<void()> {
    cache::Hit hit;
    auto* fill = new cache::Fill;
    const std::string text(90000, 'y');
    if (!store(*m.cache, "pinned") ||
        m.cache->find(m.cache->make_key("pinned"), hit).found != cache::Found::kHit ||
        m.cache->begin(m.cache->make_key(kKey), *fill) != Begin::kFilling) {
      ::_exit(3);
    }
    fill->set_head(std::as_bytes(std::span(text).first(10)), text.size());
    if (fill->append(std::as_bytes(std::span(text))) != cache::Append::kOk) ::_exit(3);
    return [] { ::_exit(4); };
  });
  expect_expelled([&] { ask_for_the_fill(survivor_); });
  EXPECT_EQ(survivor_.cache->purge(cache::PurgeKind::kAll, {}), 1U);
  survivor_.cache->tick();
  // Neither what it pinned nor what it was filling: it may be reading and writing there.
  EXPECT_GE(survivor_.cache->space().used_units(0), (90000U + 3000U) / cache::kUnitBytes);
  expect_clean();
  kill_child();
  survivor_.cache->tick();
  EXPECT_EQ(survivor_.cache->space().used_units(0), 0U);
  EXPECT_TRUE(store(*survivor_.cache, kKey));
  expect_clean();
}

INSTANTIATE_TEST_SUITE_P(NotKilled, ExpelledHolderTest, testing::Bool(), [](const auto& traced) {
  return traced.param ? std::string("Traced") : std::string("Protected");
});

// One thread hangs with a lock held while the process goes on counting its heartbeat.
TEST_F(HungHolderTest, WhoseThreadHoldsALockTooLongIsKilledAndRecovered) {
  busy_ = true;
  start_child(take_bucket);
  expect_killed_and_recovered([&] { store(*survivor_.cache, kKey); });
}

// It goes on ticking, and would be expelled each time that it came back.
TEST_F(HungHolderTest, WhoseThreadHangsAndMayNotBeKilledIsExpelledOnce) {
  busy_ = true;
  protect_child();
  start_child([](Member& m) -> std::function<void()> {
    const std::function<void()> unlock = take_bucket(m);
    return [&m, unlock] {
      if (!m.instance->expelled()) ::_exit(10);
      unlock();
      m.instance->tick();
      if (m.instance->expelled() || !store(*m.cache, kKey)) ::_exit(11);
    };
  });
  const auto ask = [&] { store(*survivor_.cache, kKey); };
  expect_expelled(ask);
  const auto heartbeat = [&] { return survivor_.instance->slot(slot_).heartbeat.load(); };
  const std::uint64_t before = heartbeat();
  for (const unsigned until = ticks_ + kManyTicks; ticks_ < until; std::this_thread::yield()) {
    ask();
    EXPECT_EQ(child_state(), InstanceState::kExpelled);
  }
  EXPECT_GT(heartbeat(), before);
  EXPECT_EQ(expulsions(), 1U);
  detach();
  ASSERT_EQ(::write(go_[1], "", 1), 1);
  continue_child();
  EXPECT_TRUE(is_there(*survivor_.cache, kKey));
  expect_clean();
}

TEST_F(HungHolderTest, WhoHangsWhileItLeavesIsKilledAndRecovered) {
  start_child([](Member& m) -> std::function<void()> {
    const std::function<void()> unlock = take_bucket(m);
    m.instance->control(m.instance->slot_number())
        .state.store(StateWord::make(InstanceState::kLeaving, m.instance->id().incarnation()));
    return unlock;
  });
  expect_killed_and_recovered([&] { store(*survivor_.cache, kKey); });
}

class OtherNamespaceTest : public HungHolderTest, public testing::WithParamInterface<bool> {};

TEST_P(OtherNamespaceTest, WhoCannotBeSignalledIsExpelledAndRecoveredWhenItEnds) {
  if (!start_agent_apart(GetParam())) {
    std::puts("notice: no namespaces are permitted here, so nothing was tested");
    return;
  }
  start_child(take_bucket);
  expect_expelled([&] { store(*survivor_.cache, kKey); });
  EXPECT_TRUE(store(*survivor_.cache, "another key"));
  EXPECT_EQ(expulsions(), 1U);
  kill_child();
  EXPECT_TRUE(store(*survivor_.cache, kKey));
  expect_clean();
}

INSTANTIATE_TEST_SUITE_P(Proc, OtherNamespaceTest, testing::Bool(), [](const auto& own) {
  return own.param ? std::string("Own") : std::string("Shared");
});

TEST_F(HungHolderTest, WhoFillsForLongIsNotHung) {
  busy_ = true;
  start_child(take_fill);
  int status = 0;
  EXPECT_FALSE(gone_while([&] { ask_for_the_fill(survivor_); }, kManyTicks, status));
  EXPECT_EQ(child_state(), InstanceState::kActive);
  kill_child();
  expect_clean();
}

// Nobody else would come: its place is taken, and nobody waits for anything that it holds.
TEST(StoppedAgentTest, IsReplacedByThoseItWorksFor) {
  char directory[] = "/tmp/mcs-hung-XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  mcs_domain_options options{};
  options.name = "hung";
  options.directory = directory;
  options.size = 16U << 20;
  options.server = "server/1";
  options.hang_limit_ms = kHangLimitMs;
  char error[256] = "";
  mcs_process* process = mcs_join(&options, nullptr, error, sizeof error);
  ASSERT_NE(process, nullptr) << error;
  const Instance& me = *process->instance;
  const auto agent = [&]() -> pid_t {
    const runtime::InstanceId id{me.events(0).agent.load()};
    return !id.valid() || me.is_dead(id) ? 0 : me.slot(id.slot()).pid;
  };
  const auto limit = std::chrono::steady_clock::now() + kLongEnough;
  const auto tick_until = [&](const std::function<bool()>& done) {
    for (; !done() && std::chrono::steady_clock::now() < limit; ::usleep(5000)) mcs_tick(process);
    return done();
  };
  EXPECT_TRUE(tick_until([&] { return agent() != 0; })) << "is mcs-agent built?";
  const pid_t stopped = agent();
  if (stopped > 1) {
    EXPECT_EQ(::kill(stopped, SIGSTOP), 0);
    EXPECT_TRUE(tick_until([&] { return agent() != 0 && agent() != stopped; }));
  }
  mcs_leave(process);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace mcs
