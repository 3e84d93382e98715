// SPDX-License-Identifier: Apache-2.0
// Who suspects whom, and what comes of it, with a clock of the test's own.
#include "libglobalcache/runtime/node_watch.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <set>
#include <vector>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/layout.h"
#include "libglobalcache/runtime/instance.h"
#include "tests/gsm-emu/no_more_files.h"
#include "tests/libglobalcache/test_liveness.h"

namespace mcs::runtime {
namespace {

constexpr std::uint64_t kMs = 1000000;
constexpr std::uint32_t kTick = 50;
constexpr std::uint32_t kLimit = 1000;

gsm::DomainSpec watched_spec(std::uint32_t nodes) {
  gsm::DomainSpec spec;
  spec.name = "watch";
  spec.nodes = nodes;
  spec.bytes_per_node = 16ULL << 20;
  return spec;
}

class Cluster {
 public:
  explicit Cluster(std::uint32_t nodes)
      : domain_(api::create_in_memory(watched_spec(nodes), 8 * nodes, 128)) {
    for (std::uint32_t node = 0; node < nodes; ++node) add(node, *domain_);
  }
  void add(std::uint32_t node, gsm::Domain& domain, NodeWatch::Options options = {}) {
    if (options.limit_ms == NodeWatch::Options{}.limit_ms) options.limit_ms = kLimit;
    options.tick_ms = kTick;
    views_.push_back(std::make_unique<Views>(domain));
    agents_.push_back(std::make_unique<NodeWatch>(*views_.back(), domain, node, options));
  }
  Cluster() = default;
  // All that are not asleep tick, one after the other.
  void run(std::uint64_t ms) {
    for (const std::uint64_t end = now_ + ms * kMs; now_ < end; now_ += kTick * kMs) {
      for (std::size_t i = 0; i < agents_.size(); ++i) {
        if (asleep.contains(i)) continue;
        const NodeWatch::Change change = agents_[i]->tick(now_ + i * kMs);
        if (change && change.detected_ns != 0) causes.insert(change.cause);
      }
    }
  }
  // How long until node i's view has these members; -1: not within 20 s.
  int ms_until(std::size_t i, std::uint16_t members) {
    const std::uint64_t begin = now_;
    while (now_ - begin < 20000 * kMs) {
      run(kTick);
      if (views_[i]->mine().members == members) return static_cast<int>((now_ - begin) / kMs);
    }
    return -1;
  }
  View view(std::size_t i) const { return views_[i]->mine(); }
  NodeWatch& agent(std::size_t i) { return *agents_[i]; }
  Views& views(std::size_t i) { return *views_[i]; }
  gsm::Domain& domain() { return *domain_; }
  std::uint64_t now() const { return now_; }

  std::set<std::size_t> asleep;
  std::set<std::string> causes;

 private:
  std::unique_ptr<gsm::Domain> domain_;
  std::vector<std::unique_ptr<Views>> views_;
  std::vector<std::unique_ptr<NodeWatch>> agents_;
  std::uint64_t now_ = 1000 * kMs;
};

TEST(NodeWatch, WhoBeatsStays) {
  for (const std::uint32_t nodes : {1U, 2U, 3U, 4U}) {
    Cluster cluster(nodes);
    cluster.run(60000);
    EXPECT_EQ(cluster.view(0).generation, 1U);
    EXPECT_EQ(cluster.agent(0).doubt(), 1U);
  }
}

TEST(NodeWatch, OfThreeTwoExpelTheSilentOne) {
  Cluster cluster(3);
  cluster.run(3000);
  cluster.asleep = {1};
  const int ms = cluster.ms_until(0, 5);
  EXPECT_GE(ms, static_cast<int>(kLimit) - 100);
  EXPECT_LE(ms, static_cast<int>(kLimit) + 200);
  cluster.run(100);
  EXPECT_EQ(cluster.view(2), (View{2, 5, 7}));
  EXPECT_EQ(cluster.causes, std::set<std::string>{"heartbeat, two voices"});
}

TEST(NodeWatch, OfTwoTheOtherOneChallengesFirst) {
  Cluster cluster(2);
  cluster.run(3000);
  cluster.asleep = {0};
  const int ms = cluster.ms_until(1, 2);
  EXPECT_GE(ms, static_cast<int>(kLimit + kLimit / 2) - 100);
  EXPECT_LE(ms, static_cast<int>(kLimit + kLimit / 2) + 250);
  EXPECT_EQ(cluster.causes, std::set<std::string>{"heartbeat, no answer"});
}

TEST(NodeWatch, OfFourTwoFallSilentAtOnce) {
  Cluster cluster(4);
  cluster.run(3000);
  cluster.asleep = {0, 3};
  EXPECT_LE(cluster.ms_until(1, 6), 1300);
  cluster.run(100);
  EXPECT_EQ(cluster.view(2), cluster.view(1));
}

TEST(NodeWatch, WhoWakesUpFindsItselfExpelledAndIsAdmitted) {
  Cluster cluster(3);
  cluster.run(3000);
  cluster.asleep = {1};
  ASSERT_GT(cluster.ms_until(0, 5), 0);
  cluster.run(3000);
  cluster.asleep = {};
  cluster.run(kTick);
  EXPECT_FALSE(cluster.agent(1).is_member()) << "its first tick says so";
  EXPECT_LE(cluster.ms_until(1, 7), 300);
  EXPECT_TRUE(cluster.causes.contains("it asked to be admitted"));
  cluster.run(10000);
  EXPECT_EQ(cluster.view(0), (View{3, 7, 7}));
}

TEST(NodeWatch, WhoWasAsleepItselfHasNoOpinion) {
  for (const std::uint32_t nodes : {2U, 3U}) {
    Cluster cluster(nodes);
    cluster.run(3000);
    for (std::size_t i = 0; i < nodes; ++i) cluster.asleep.insert(i);
    cluster.run(8000);  // all at once, as on a machine that was suspended
    cluster.asleep = {};
    cluster.run(10000);
    EXPECT_EQ(cluster.view(0).generation, 1U);
  }
}

TEST(NodeWatch, OneVoiceExpelsNobodyWhoAnswers) {
  Cluster cluster(3);
  cluster.run(3000);
  for (int i = 0; i < 200; ++i) {
    for (std::uint32_t segment = 0; segment < 3; ++segment) {
      cluster.views(0).area(segment).accused[0].word.store((1ULL << 32) | (6U << 16));
    }
    cluster.run(kTick);
  }
  EXPECT_EQ(cluster.view(1).generation, 1U);
}

TEST(NodeWatch, WhoIsImpatientAloneExpelsNobody) {
  Cluster cluster;
  const auto domain = api::create_in_memory(watched_spec(3), 24, 128);
  NodeWatch::Options impatient;
  impatient.limit_ms = 300;
  cluster.add(0, *domain, impatient);
  cluster.add(1, *domain);
  cluster.add(2, *domain);
  cluster.run(3000);
  cluster.asleep = {2};
  cluster.run(600);
  cluster.asleep = {};
  cluster.run(3000);
  EXPECT_EQ(cluster.view(0).generation, 1U);
  EXPECT_EQ(cluster.agent(0).doubt(), 2U) << "it did accuse";
}

TEST(NodeWatch, AFalseAlarmMakesTheNextOneLater) {
  Cluster cluster(2);
  cluster.run(3000);
  cluster.asleep = {1};
  cluster.run(kLimit + 200);  // accused and challenged
  cluster.asleep = {};
  cluster.run(2000);
  EXPECT_EQ(cluster.view(0).generation, 1U);
  EXPECT_EQ(cluster.agent(0).doubt(), 2U);
  cluster.asleep = {1};
  EXPECT_GE(cluster.ms_until(0, 1), static_cast<int>(3 * kLimit) - 100);
}

TEST(NodeWatch, CertainEvidenceNeedsNoPatience) {
  Cluster cluster;
  const auto domain = api::create_in_memory(watched_spec(2), 16, 128);
  bool gone = false;
  NodeWatch::Options options;
  options.certainly_gone = [&](std::uint32_t node) { return gone && node == 1; };
  cluster.add(0, *domain, options);
  cluster.add(1, *domain);
  cluster.run(3000);
  cluster.asleep = {1};
  gone = true;
  EXPECT_LE(cluster.ms_until(0, 1), 200);
  EXPECT_EQ(cluster.causes, std::set<std::string>{"all its processes have ended"});
}

TEST(NodeWatch, WhoLeftInPeaceIsNotJudged) {
  Cluster cluster(3);
  cluster.run(3000);
  cluster.agent(2).rest();
  cluster.asleep = {2};
  cluster.run(20000);
  EXPECT_EQ(cluster.view(0).generation, 1U);
  // Of the two that are left one falls silent, and the third cannot be asked.
  cluster.asleep = {1, 2};
  EXPECT_GT(cluster.ms_until(0, 5), static_cast<int>(kLimit));
}

TEST(NodeWatch, ALostSegmentLeavesTheView) {
  Cluster cluster(3);
  cluster.run(3000);
  cluster.domain().segment(0).mark_lost();
  cluster.run(400);
  EXPECT_EQ(cluster.view(0), (View{2, 7, 6}));
  EXPECT_EQ(cluster.view(2), cluster.view(0));
  // The one that all read hints from is gone; all goes on in the next.
  cluster.run(10000);
  cluster.asleep = {1};
  EXPECT_GT(cluster.ms_until(0, 5), 0);
}

TEST(NodeWatch, OnOneKernelWhoMeetsALossFirstDoesNotLeave) {
  gsm::DomainSpec spec = watched_spec(3);
  char name[] = "/dev/shm/mcs-watch-test-XXXXXX";
  ASSERT_NE(::mkdtemp(name), nullptr);
  spec.directory = name;
  {
    Cluster cluster;
    NodeWatch::Options options;
    options.certainly_gone = [](std::uint32_t) { return false; };
    std::vector<std::unique_ptr<gsm::Domain>> domains;
    domains.push_back(std::move(api::create(spec).value()));
    domains.push_back(std::move(cache::open(name, spec.name).value()));
    domains.push_back(std::move(cache::open(name, spec.name).value()));
    for (std::uint32_t node = 0; node < 3; ++node) cluster.add(node, *domains[node], options);
    cluster.run(3000);
    domains[1]->segment(0).mark_lost();
    cluster.run(1000);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_FALSE(cluster.agent(i).cut_off()) << i;
      EXPECT_EQ(cluster.view(i), (View{2, 7, 6})) << i;
      EXPECT_TRUE(domains[i]->segment(0).lost()) << "all read the same hints";
    }
    cluster.run(10000);
    EXPECT_EQ(cluster.view(0).generation, 2U);
  }
  std::filesystem::remove_all(name);
}

// It came back, and one of three cannot open it: no evidence against the memory, nor against its node.
TEST(NodeWatch, WhoCannotOpenASegmentDoesNotVoteItOut) {
  for (const bool one_kernel : {false, true}) {
    SCOPED_TRACE(one_kernel);
    gsm::DomainSpec spec = watched_spec(3);
    char name[] = "/dev/shm/mcs-watch-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    spec.directory = name;
    {
      Cluster cluster;
      NodeWatch::Options options;
      if (one_kernel) options.certainly_gone = [](std::uint32_t) { return false; };
      std::vector<std::unique_ptr<gsm::Domain>> domains;
      domains.push_back(std::move(api::create(spec).value()));
      domains.push_back(std::move(cache::open(name, spec.name).value()));
      domains.push_back(std::move(cache::open(name, spec.name).value()));
      for (std::uint32_t node = 0; node < 3; ++node) cluster.add(node, *domains[node], options);
      cluster.run(3000);
      ASSERT_EQ(::truncate((domains[0]->path() + "/segment.2.1").c_str(), 0), 0);
      for (auto& domain : domains) domain->segment(2).answers();
      cluster.run(1000);
      ASSERT_EQ(cluster.view(0), (View{2, 7, 3}));
      ASSERT_TRUE(domains[0]->restore(2, cache::format, true));
      cluster.views(0).propose({3, 7, 7});
      cluster.asleep = {1};
      cluster.run(kTick);
      {
        const gsm::NoMoreFiles none;
        cluster.asleep = {};
        cluster.run(3000);
        EXPECT_EQ(cluster.view(1), (View{3, 7, 7}));
        EXPECT_FALSE(cluster.agent(1).cut_off());
        EXPECT_EQ(domains[1]->segment(2).incarnation(), 1U);
      }
      cluster.run(kTick);
      EXPECT_EQ(domains[1]->segment(2).incarnation(), 2U);
      EXPECT_EQ(cluster.view(0).generation, 3U);
    }
    std::filesystem::remove_all(name);
  }
}

TEST(NodeWatch, HintsShortenWhatSilenceMustProve) {
  std::uint64_t failed = 0;
  NodeWatch::Options options;
  options.hints = [&](std::uint32_t node) { return node == 1 ? ++failed : 0; };
  for (const std::uint32_t nodes : {2U, 3U}) {
    SCOPED_TRACE(nodes);
    Cluster cluster;
    const auto domain = api::create_in_memory(watched_spec(nodes), 8 * nodes, 128);
    for (std::uint32_t node = 0; node < nodes; ++node) cluster.add(node, *domain, options);
    // However much is wrong with a node that beats, and one that stands still for a moment.
    for (int i = 0; i < 10; ++i) {
      cluster.asleep = {};
      cluster.run(1000);
      cluster.asleep = {1};
      cluster.run(kLimit / 2 - 100);
    }
    EXPECT_EQ(cluster.view(0).generation, 1U);
    EXPECT_EQ(cluster.agent(0).doubt(), 1U) << "nor was it accused";
    cluster.asleep = {};
    cluster.run(1000);
    cluster.asleep = {1};
    const int limit = static_cast<int>(nodes == 2 ? kLimit : kLimit / 2);  // asked for half a limit
    const int ms = cluster.ms_until(0, nodes == 2 ? 1 : 5);
    EXPECT_GE(ms, limit - 100);
    EXPECT_LE(ms, limit + 250);
  }
}

TEST(NodeWatch, OldHintsShortenNothing) {
  std::uint64_t failed = 0;
  NodeWatch::Options options;
  options.hints = [&](std::uint32_t) { return failed; };
  Cluster cluster;
  const auto domain = api::create_in_memory(watched_spec(3), 24, 128);
  for (std::uint32_t node = 0; node < 3; ++node) cluster.add(node, *domain, options);
  cluster.run(1000);
  failed = 7;
  cluster.run(1000);
  cluster.asleep = {1};
  EXPECT_GE(cluster.ms_until(0, 5), static_cast<int>(kLimit) - 100);
}

TEST(NodeWatch, WhoseProcessesGetOnWithoutItsAgentStays) {
  for (const std::uint32_t nodes : {2U, 3U}) {
    Cluster cluster;
    const auto domain = api::create_in_memory(watched_spec(nodes), 8 * nodes, 128);
    std::uint64_t signs = 7;
    bool get_on = true;
    NodeWatch::Options options;
    options.certainly_gone = [](std::uint32_t) { return false; };
    options.signs = [&](std::uint32_t) { return get_on ? ++signs : signs; };
    for (std::uint32_t node = 0; node < nodes; ++node) cluster.add(node, *domain, options);
    cluster.run(3000);
    cluster.asleep = {1};
    cluster.run(20000);
    EXPECT_EQ(cluster.view(0).generation, 1U);
    get_on = false;
    const int ms = cluster.ms_until(0, nodes == 2 ? 1 : 5);
    EXPECT_GE(ms, static_cast<int>(kLimit) - 100);
    EXPECT_LE(ms, static_cast<int>(2 * kLimit));
  }
}

TEST(NodeWatch, WhoReturnsToACertainlyEmptyDomainDoesNotWait) {
  Cluster cluster;
  const auto domain = api::create_in_memory(watched_spec(3), 24, 128);
  std::set<std::uint32_t> gone;
  NodeWatch::Options options;
  options.certainly_gone = [&](std::uint32_t node) { return gone.contains(node); };
  for (std::uint32_t node = 0; node < 3; ++node) cluster.add(node, *domain, options);
  cluster.run(3000);
  cluster.asleep = {1};
  gone = {1};
  ASSERT_GT(cluster.ms_until(0, 5), 0);
  // Node 2 has no agent any more, but may live.
  cluster.run(200);
  cluster.agent(2).rest();
  cluster.asleep = {0, 2};
  gone = {0};
  EXPECT_GE(cluster.ms_until(1, 6), static_cast<int>(kLimit) - 100) << "node 2 is not left out";
  cluster.asleep = {0, 1};
  gone = {0, 1};
  cluster.run(300);
  ASSERT_EQ(cluster.view(2).members, 4);
  cluster.asleep = {0, 2};
  gone = {0, 2};
  EXPECT_LE(cluster.ms_until(1, 2), 200);
}

TEST(NodeWatch, TheLastOneAdmitsItself) {
  Cluster cluster(2);
  cluster.run(3000);
  cluster.asleep = {1};
  ASSERT_GT(cluster.ms_until(0, 1), 0);
  cluster.asleep = {0};
  EXPECT_GE(cluster.ms_until(1, 2), static_cast<int>(kLimit) - 100);
  EXPECT_TRUE(cluster.causes.contains("nobody else is left"));
  cluster.asleep = {};
  EXPECT_GT(cluster.ms_until(0, 3), 0);
}

TEST(NodeWatch, WhoAloneDoesNotReachASegmentLeaves) {
  gsm::DomainSpec spec = watched_spec(3);
  char name[] = "/dev/shm/mcs-watch-test-XXXXXX";
  ASSERT_NE(::mkdtemp(name), nullptr);
  spec.directory = name;
  {
    Cluster cluster;
    std::vector<std::unique_ptr<gsm::Domain>> domains;
    domains.push_back(std::move(api::create(spec).value()));
    domains.push_back(std::move(cache::open(name, spec.name).value()));
    domains.push_back(std::move(cache::open(name, spec.name).value()));
    for (std::uint32_t node = 0; node < 3; ++node) cluster.add(node, *domains[node]);
    cluster.run(3000);
    domains[1]->segment(2).mark_lost();
    cluster.run(1000);
    EXPECT_TRUE(cluster.agent(1).cut_off());
    EXPECT_EQ(cluster.view(0), (View{2, 5, 7}));
    EXPECT_EQ(cluster.view(1), cluster.view(0));
  }
  std::filesystem::remove_all(name);
}

class OutsiderTest : public testing::Test {
 protected:
  void begin(bool separate_kernels) {
    gsm::DomainSpec spec = watched_spec(2);
    spec.separate_kernels = separate_kernels;
    domain_ = api::create_in_memory(spec, 16, 128);
    insider_ = join(0);
    outsider_ = join(1);
    insider_->views().look();
  }
  std::unique_ptr<Instance> join(std::uint32_t node) {
    auto joined = Instance::join(*domain_, liveness_, {.node = node, .server = "test/1"});
    (*joined)->activate();
    return std::move(*joined);
  }
  void decide(std::uint16_t members) {
    const View now = insider_->views().look();
    ASSERT_EQ(insider_->views().propose({now.generation + 1, members, 3}).members, members);
  }
  InstanceState state(const Instance& instance) {
    return StateWord::state(insider_->control(instance.slot_number()).state.load());
  }

  TestLiveness liveness_;
  std::unique_ptr<gsm::Domain> domain_;
  std::unique_ptr<Instance> insider_;
  std::unique_ptr<Instance> outsider_;
};

TEST_F(OutsiderTest, StayExpelledUntilTheirNodeIsAdmitted) {
  begin(false);
  decide(1);
  EXPECT_EQ(insider_->expel_outsiders(), 1U);
  EXPECT_TRUE(outsider_->expelled());
  outsider_->tick();
  EXPECT_TRUE(outsider_->expelled()) << "it looks at the view before it comes back";
  const auto late = join(1);
  EXPECT_EQ(state(*late), InstanceState::kExpelled) << "whoever joins there does not become active";
  EXPECT_EQ(insider_->expel_outsiders(), 0U);
  decide(3);
  outsider_->tick();
  late->tick();
  EXPECT_EQ(state(*outsider_), InstanceState::kActive);
  EXPECT_EQ(state(*late), InstanceState::kActive);
  EXPECT_EQ(insider_->expel_outsiders(), 0U);
}

TEST_F(OutsiderTest, WhoIsAboutToBecomeActiveDoesNot) {
  begin(false);
  auto joining = Instance::join(*domain_, liveness_, {.node = 1, .server = "test/1"});
  decide(1);
  EXPECT_EQ(insider_->expel_outsiders(), 2U);
  (*joining)->activate();
  EXPECT_EQ(state(**joining), InstanceState::kExpelled);
}

TEST_F(OutsiderTest, WhoseWordsTellAWrongNodeIsJudgedWhenTheyAreMended) {
  begin(false);
  auto joining = Instance::join(*domain_, liveness_, {.node = 1, .server = "test/1"});
  (*joining)->own().identity.store(0);  // has not introduced itself
  outsider_->own().node = 0xdeadbeef;
  decide(1);
  EXPECT_EQ(insider_->expel_outsiders(), 0U);
  outsider_->tick();
  EXPECT_EQ(outsider_->own().node, 1U);
  EXPECT_EQ(insider_->expel_outsiders(), 1U);
  EXPECT_EQ(state(*outsider_), InstanceState::kExpelled);
  (*joining)->activate();
  EXPECT_EQ(state(**joining), InstanceState::kExpelled) << "it looks for itself";
}

TEST_F(OutsiderTest, OtherKernelsProcessesAreJudgedByTheirOwnNodeOnly) {
  begin(true);
  const std::uint32_t slot = outsider_->slot_number();
  liveness_.release(slot);
  EXPECT_FALSE(insider_->is_dead(outsider_->id()));
  EXPECT_FALSE(insider_->recover(slot, "test"));
  EXPECT_EQ(insider_->recover_all("test"), 0U);
  decide(1);
  EXPECT_EQ(insider_->expel_outsiders(), 1U);
  EXPECT_EQ(insider_->recover_all("test"), 0U) << "what it held stays its own";
  // As agents do, before they become active.
  auto rebooted = Instance::join(*domain_, liveness_, {.node = 1, .server = "test/1"});
  EXPECT_EQ((*rebooted)->recover_all("agent started"), 1U);
  EXPECT_EQ(state(*outsider_), InstanceState::kFree);
}

TEST_F(OutsiderTest, OneKernelTellsOfAllItsProcesses) {
  begin(false);
  liveness_.release(outsider_->slot_number());
  EXPECT_TRUE(insider_->is_dead(outsider_->id()));
  EXPECT_EQ(insider_->recover_all("test"), 1U);
}

}  // namespace
}  // namespace mcs::runtime
