// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/runtime/component.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "libglobalcache/api/domain.h"
#include "tests/libglobalcache/test_liveness.h"

namespace mcs::runtime {
namespace {

class ComponentTest : public testing::Test {
 protected:
  ComponentTest() {
    gsm::DomainSpec spec;
    spec.name = "component";
    spec.bytes_per_node = 16ULL << 20;
    domain_ = api::create_in_memory(spec, 16, 128);
    for (auto& instance : instances_) {
      auto joined = Instance::join(*domain_, liveness_, {0, "server/1"});
      EXPECT_TRUE(joined) << joined.error().message;
      instance = std::move(*joined);
      instance->activate();
    }
  }
  ~ComponentTest() override {
    // In the order in which processes end: a component before its instance.
    for (auto& component : components_) component.reset();
  }

  /// Member m, with these steps, each of which is told who runs it.
  using Step = std::function<bool(unsigned m)>;
  void join(unsigned m, Step before, Step with_barrier) {
    ComponentOptions options;
    options.name = "counter";
    options.initialise = [](std::span<std::byte> data) { data[0] = std::byte{1}; };
    options.repair = [this](std::span<std::byte>) { ++repairs_; };
    options.on_gone = [this, m](InstanceId id) { gone_[m].push_back(id.value); };
    options.steps = {{"before", false, [before, m] { return before(m); }},
                     {"with barrier", true, [with_barrier, m] { return with_barrier(m); }}};
    auto joined = Component::join(*instances_[m], std::move(options));
    ASSERT_TRUE(joined) << joined.error().message;
    components_[m] = std::move(*joined);
  }
  void kill(unsigned m) { liveness_.release(instances_[m]->slot_number()); }

  static constexpr unsigned kRounds = 20;
  TestLiveness liveness_;
  std::unique_ptr<gsm::Domain> domain_;
  std::array<std::unique_ptr<Instance>, 3> instances_;
  std::array<std::unique_ptr<Component>, 3> components_;
  std::array<std::vector<std::uint64_t>, 3> gone_;
  int repairs_ = 0;
};

TEST_F(ComponentTest, StepsRunOnceAndABarrierWaitsForEverybody) {
  std::array<bool, 3> ticked{};
  int before = 0;
  int behind = 0;
  for (unsigned m = 0; m < 3; ++m) {
    join(m, [&](unsigned) { return ++before > 0; },
         [&](unsigned) {
           EXPECT_TRUE(ticked[0] && ticked[1] && ticked[2]);
           return ++behind > 0;
         });
  }
  EXPECT_EQ(components_[0]->generation(), 1U);
  components_[0]->initiate("test");
  components_[1]->initiate("another at the same time");
  EXPECT_TRUE(components_[2]->recovering());
  for (unsigned round = 0; round < kRounds && components_[0]->recovering(); ++round) {
    for (unsigned m = 0; m < 3; ++m) {
      // The last member comes late.
      if (m == 2 && round < 3) continue;
      ticked[m] = true;
      components_[m]->tick();
    }
    if (round < 3) {
      EXPECT_EQ(behind, 0);
    }
  }
  EXPECT_FALSE(components_[0]->recovering());
  EXPECT_EQ(components_[0]->generation(), 2U);
  EXPECT_EQ(before, 1);
  EXPECT_EQ(behind, 1);
  for (const auto& component : components_) {
    bool worked = false;
    EXPECT_TRUE(component->with_lock([&] { worked = true; }));
    EXPECT_TRUE(worked);
  }
}

TEST_F(ComponentTest, AnotherOneGoesOnWhenTheCoordinatorDies) {
  std::vector<unsigned> before;
  std::vector<unsigned> behind;
  for (unsigned m = 0; m < 3; ++m) {
    join(m,
         [&](unsigned by) {
           before.push_back(by);
           return by != 0;  // the first one is in the middle of it when it is killed
         },
         [&](unsigned by) {
           behind.push_back(by);
           return true;
         });
  }
  components_[0]->initiate("test");
  components_[0]->tick();
  ASSERT_EQ(before, std::vector<unsigned>{0});
  kill(0);
  for (unsigned round = 0; round < kRounds && components_[1]->recovering(); ++round) {
    components_[1]->tick();
    components_[2]->tick();
  }
  EXPECT_FALSE(components_[1]->recovering());
  EXPECT_EQ(before.size(), 2U);  // again, by somebody who lives
  EXPECT_NE(before.back(), 0U);
  ASSERT_EQ(behind.size(), 1U);
  EXPECT_NE(behind[0], 0U);
}

TEST_F(ComponentTest, TheNextHolderRepairsWhatADeadOneLeft) {
  const auto nothing = [](unsigned) { return true; };
  for (unsigned m = 0; m < 3; ++m) join(m, nothing, nothing);
  EXPECT_EQ(components_[0]->data()[0], std::byte{1});
  const std::uint32_t number = components_[0]->number();
  // Its process is killed inside: it never unlocks.
  static auto* const dead = new GlobalMutex(*instances_[0],
                                     GlobalMutex::for_component(*instances_[0], 0, number));
  ASSERT_EQ(dead->lock(), MutexAnswer::kAcquired);
  kill(0);
  int worked = 0;
  EXPECT_TRUE(components_[1]->with_lock([&] { ++worked; }));
  EXPECT_TRUE(components_[2]->with_lock([&] { ++worked; }));
  EXPECT_EQ(worked, 2);
  EXPECT_EQ(repairs_, 1);
}

TEST_F(ComponentTest, MembersLearnWhoIsGone) {
  const auto nothing = [](unsigned) { return true; };
  for (unsigned m = 0; m < 3; ++m) join(m, nothing, nothing);
  for (auto& component : components_) component->tick();
  EXPECT_EQ(components_[1]->members().size(), 3U);
  const std::uint64_t dead = instances_[0]->id().value;
  kill(0);
  EXPECT_FALSE(components_[1]->alive(instances_[0]->id()));
  EXPECT_EQ(instances_[1]->recover_all("test"), 1U);
  components_[1]->tick();
  components_[2]->tick();
  EXPECT_EQ(gone_[1], std::vector<std::uint64_t>{dead});
  EXPECT_EQ(gone_[2], std::vector<std::uint64_t>{dead});
  components_[1]->tick();
  EXPECT_EQ(gone_[1].size(), 1U);
}

}  // namespace
}  // namespace mcs::runtime
