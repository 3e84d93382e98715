// SPDX-License-Identifier: Apache-2.0
// Who may recover an instance, and that nobody who lives is taken for the dead one before it.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/runtime/instance.h"
#include "tests/libglobalcache/test_liveness.h"

namespace mcs::runtime {
namespace {

/// Steps that stop in the middle until they are let go on.
class SlowSteps final : public RecoverySteps {
 public:
  void repair_operation(const DeadInstance&, OpRecord&) override {}
  bool take_over(const DeadInstance&, RecoveryCounts&) override {
    std::unique_lock lock(mutex_);
    ++calls_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return released_; });
    return true;
  }
  void wait_until_called() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return calls_ > 0; });
  }
  void release() {
    const std::lock_guard lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }
  int calls() {
    const std::lock_guard lock(mutex_);
    return calls_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool released_ = false;
  int calls_ = 0;
};

class InstanceRecoveryTest : public testing::Test {
 protected:
  InstanceRecoveryTest() {
    gsm::DomainSpec spec;
    spec.name = "recovery";
    spec.bytes_per_node = 16ULL << 20;
    domain_ = api::create_in_memory(spec, 8, 128);
    survivor_ = join("survivor");
    survivor_->activate();
  }
  std::unique_ptr<Instance> join(const char* server) {
    auto instance = Instance::join(*domain_, liveness_, {0, server});
    EXPECT_TRUE(instance) << instance.error().message;
    return std::move(*instance);
  }
  InstanceState state(std::uint32_t slot) {
    return StateWord::state(survivor_->control(slot).state.load());
  }

  TestLiveness liveness_;
  std::unique_ptr<gsm::Domain> domain_;
  std::unique_ptr<Instance> survivor_;
};

// As in two days of prefork children that live for a sixth of a second.
TEST_F(InstanceRecoveryTest, AfterAMillionOwnersASlotStillBelongsToItsSegment) {
  const std::uint32_t slot = survivor_->slot_number() + 1;
  const std::uint32_t last = (1U << 20) - 1;
  survivor_->control(slot).state.store(StateWord::make(InstanceState::kFree, last));
  const auto next = join("next");
  ASSERT_EQ(next->slot_number(), slot);
  EXPECT_FALSE(survivor_->is_of_former_segment(next->id()));
  EXPECT_NE(next->id().incarnation(), 0U);
}

TEST_F(InstanceRecoveryTest, OneThreadOfAProcessAtATime) {
  SlowSteps steps;
  survivor_->set_steps(&steps);
  auto victim = join("victim");
  victim->activate();
  const std::uint32_t slot = victim->slot_number();
  liveness_.release(slot);
  bool first = false;
  std::thread thread([&] { first = survivor_->recover(slot, "first"); });
  steps.wait_until_called();
  std::atomic<bool> came_back{false};
  bool second = true;
  std::thread rival([&] {
    second = survivor_->recover(slot, "second");
    came_back = true;
  });
  while (!came_back && steps.calls() < 2) std::this_thread::yield();
  EXPECT_TRUE(came_back);
  steps.release();
  rival.join();
  thread.join();
  EXPECT_FALSE(second);
  EXPECT_TRUE(first);
  EXPECT_EQ(steps.calls(), 1);
  EXPECT_EQ(state(slot), InstanceState::kFree);
}

TEST_F(InstanceRecoveryTest, AnExitSaysNothingAboutTheNextOwnerOfTheSlot) {
  auto victim = join("victim");
  victim->activate();
  const std::uint32_t slot = victim->slot_number();
  const std::uint32_t incarnation = victim->id().incarnation();
  liveness_.release(slot);
  ASSERT_TRUE(survivor_->recover(slot, "liveness lock"));
  auto next = join("next");
  next->activate();
  ASSERT_EQ(next->slot_number(), slot);
  EXPECT_FALSE(survivor_->recover(slot, "exit", 0, incarnation));
  EXPECT_EQ(state(slot), InstanceState::kActive);
}

TEST_F(InstanceRecoveryTest, AnExitOutranksALockThatAForkedChildStillHolds) {
  auto victim = join("victim");
  victim->activate();
  const std::uint32_t slot = victim->slot_number();
  EXPECT_FALSE(survivor_->recover(slot, "liveness lock"));
  EXPECT_TRUE(survivor_->recover(slot, "exit", 0, victim->id().incarnation()));
  EXPECT_EQ(state(slot), InstanceState::kFree);
}

TEST_F(InstanceRecoveryTest, WhatAComponentHoldsWaitsForSomebodyWhoKnowsTheComponent) {
  auto victim = join("victim");
  victim->activate();
  const std::uint32_t slot = victim->slot_number();
  auto* held = reinterpret_cast<Word*>(victim->own_component_area());
  held->store(1);
  liveness_.release(slot);
  EXPECT_FALSE(survivor_->recover(slot, "without steps"));
  EXPECT_EQ(state(slot), InstanceState::kDead);
  SlowSteps steps;
  steps.release();
  survivor_->set_steps(&steps);
  EXPECT_TRUE(survivor_->recover(slot, "with steps"));
  EXPECT_EQ(steps.calls(), 1);
  EXPECT_EQ(state(slot), InstanceState::kFree);
}

TEST_F(InstanceRecoveryTest, NobodyInheritsFromTheLivingOrFromWhomSomebodyRecovers) {
  std::vector<std::unique_ptr<Instance>> others;
  for (std::uint32_t i = 1; i < survivor_->slot_count(); ++i) {
    others.push_back(join("other"));
    others.back()->activate();
  }
  JoinOptions heir;
  heir.may_inherit = true;
  EXPECT_FALSE(Instance::join(*domain_, liveness_, heir));
  const std::uint32_t slot = others.back()->slot_number();
  const InstanceId dead = others.back()->id();
  survivor_->control(slot).recoverer.store(survivor_->id().value);
  liveness_.release(slot);
  EXPECT_FALSE(Instance::join(*domain_, liveness_, heir));
  EXPECT_FALSE(liveness_.held(slot));
  survivor_->control(slot).recoverer.store(0);
  auto joined = Instance::join(*domain_, liveness_, heir);
  ASSERT_TRUE(joined);
  EXPECT_EQ((*joined)->id(), dead);  // until what it held was given back
  EXPECT_FALSE(survivor_->recover(slot, "its heir lives"));
  SlowSteps steps;
  steps.release();
  (*joined)->set_steps(&steps);
  EXPECT_EQ((*joined)->slot_number(), slot);
  EXPECT_EQ((*joined)->id().incarnation(), dead.incarnation() + 1);
  (*joined)->activate();
  EXPECT_EQ(state(slot), InstanceState::kActive);
}

// All the slots that a domain has by default.
TEST(ManyInstancesTest, AThousandAndTwentyFourAndNoMore) {
  gsm::DomainSpec spec;
  spec.name = "many";
  spec.bytes_per_node = 256ULL << 20;
  const auto domain = api::create_in_memory(spec, 1024, 0);
  TestLiveness liveness;
  std::vector<std::unique_ptr<Instance>> all;
  for (unsigned i = 0; i < 1024; ++i) {
    auto instance = Instance::join(*domain, liveness, {0, "server"});
    ASSERT_TRUE(instance) << i << ": " << instance.error().message;
    (*instance)->activate();
    all.push_back(std::move(*instance));
  }
  const auto refused = Instance::join(*domain, liveness, {0, "server"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kNoSpace);
  for (unsigned i = 1; i < 1024; i += 2) liveness.release(all[i]->slot_number());
  EXPECT_EQ(all[0]->recover_all("test"), 512U);
  for (unsigned i = 1; i < 1024; i += 2) {
    all[i] = std::move(Instance::join(*domain, liveness, {0, "server"}).value());
    all[i]->activate();
  }
  EXPECT_FALSE(Instance::join(*domain, liveness, {0, "server"}));
  for (const auto& instance : all) instance->leave();
  EXPECT_TRUE(Instance::join(*domain, liveness, {0, "server"}));
}

}  // namespace
}  // namespace mcs::runtime
