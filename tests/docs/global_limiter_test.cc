// SPDX-License-Identifier: Apache-2.0
// The tutorial's service with real processes and real kills.
#include "docs/examples/global_limiter.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/layout.h"
#include "libglobalcache/runtime/liveness.h"

namespace {

using mcs::examples::GlobalLimiter;

struct Member {
  std::unique_ptr<mcs::gsm::Domain> domain;
  std::unique_ptr<mcs::runtime::KernelLiveness> liveness;
  std::unique_ptr<mcs::runtime::Instance> instance;
  std::unique_ptr<GlobalLimiter> limiter;

  explicit Member(const std::string& name, std::uint32_t limit) {
    domain = std::move(
        mcs::gsm::Domain::open("/dev/shm", name, mcs::cache::layout_hash()).value());
    liveness = std::move(mcs::runtime::KernelLiveness::open(domain->path()).value());
    instance = std::move(mcs::runtime::Instance::join(*domain, *liveness, {}).value());
    instance->activate();
    limiter = std::move(GlobalLimiter::join(*instance, limit).value());
  }
};

class GlobalLimiterTest : public testing::Test {
 protected:
  void SetUp() override {
    mcs::gsm::DomainSpec spec;
    spec.name = name_ = "limiter-" + std::to_string(::getpid());
    spec.bytes_per_node = 16 << 20;
    ASSERT_TRUE(mcs::api::create(spec));
  }
  void TearDown() override {
    const auto gone = mcs::gsm::Domain::destroy(
        mcs::gsm::Domain::path_of("/dev/shm", name_, mcs::cache::layout_hash()));
    EXPECT_TRUE(gone);
  }

  // A process that acquires `times` and then stays until it is killed.
  pid_t holder(std::uint32_t limit, int times) {
    int ready[2];
    EXPECT_EQ(::pipe(ready), 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
      Member me(name_, limit);
      char got = 0;
      for (int i = 0; i < times; ++i) got = static_cast<char>(got + me.limiter->try_acquire());
      if (::write(ready[1], &got, 1) != 1) ::_exit(1);
      for (;;) ::pause();
    }
    char got = -1;
    EXPECT_EQ(::read(ready[0], &got, 1), 1);
    EXPECT_EQ(got, times);
    ::close(ready[0]);
    ::close(ready[1]);
    return pid;
  }

  std::string name_;
};

TEST_F(GlobalLimiterTest, LimitHoldsAcrossProcessesAndAKilledHolderGivesItsPlacesBack) {
  const pid_t first = holder(3, 2);
  Member me(name_, 3);
  EXPECT_TRUE(me.limiter->try_acquire());
  EXPECT_FALSE(me.limiter->try_acquire());
  ASSERT_EQ(::kill(first, SIGKILL), 0);
  ASSERT_EQ(::waitpid(first, nullptr, 0), first);
  EXPECT_TRUE(me.limiter->try_acquire());
  EXPECT_TRUE(me.limiter->try_acquire());
  EXPECT_FALSE(me.limiter->try_acquire());
  me.limiter->release();
  EXPECT_EQ(me.limiter->in_use(), 2U);
}

TEST_F(GlobalLimiterTest, AKillInsideTheLockIsRepairedByTheNext) {
  Member me(name_, 4);
  for (int round = 0; round < 50; ++round) {
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
      Member other(name_, 4);
      if (::write(ready[1], "r", 1) != 1) ::_exit(1);
      for (;;) {
        if (other.limiter->try_acquire()) other.limiter->release();
      }
    }
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    for (int i = 0; i < round; ++i) {
      if (me.limiter->try_acquire()) me.limiter->release();
    }
    ASSERT_EQ(::kill(pid, SIGKILL), 0);
    ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
    ASSERT_TRUE(me.limiter->try_acquire());
    EXPECT_EQ(me.limiter->in_use(), 1U);
    me.limiter->release();
    ::close(ready[0]);
    ::close(ready[1]);
  }
}

}  // namespace
