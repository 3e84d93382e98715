// SPDX-License-Identifier: Apache-2.0
// The ballot on views: one view per generation, whoever proposes and whatever is lost on the way.
#include "libglobalcache/runtime/view.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/layout.h"

namespace mcs::runtime {
namespace {

gsm::DomainSpec spec_of(std::uint32_t nodes) {
  gsm::DomainSpec spec;
  spec.name = "views";
  spec.nodes = nodes;
  spec.bytes_per_node = 16ULL << 20;
  return spec;
}

std::unique_ptr<gsm::Domain> in_memory(std::uint32_t nodes) {
  return api::create_in_memory(spec_of(nodes), 8 * nodes, 128);
}

View next(const View& view, std::uint16_t members) {
  return {view.generation + 1, members, view.segments};
}

TEST(View, IsOneWordThatNothingElseIs) {
  const View view{0xabcdef, 0x7, 0x5};
  EXPECT_EQ(View::from(view.word(), 3), view);
  EXPECT_FALSE(View::from(0, 16));
  EXPECT_FALSE(View::from(~0ULL, 16));
  EXPECT_FALSE(View::from(view.word(), 2)) << "a member that the domain does not have";
  EXPECT_FALSE(View::from(View{0, 1, 1}.word(), 1));
  EXPECT_FALSE(View::from(View{1, 0, 1}.word(), 1));
  EXPECT_FALSE(View::from(View{1, 1, 0}.word(), 1));
  for (unsigned i = 0; i < 64; ++i) {
    for (unsigned j = i; j < 64; ++j) {
      const std::uint64_t flipped = (view.word() ^ (1ULL << i)) ^ (i == j ? 0 : 1ULL << j);
      EXPECT_FALSE(View::from(flipped, 16)) << i << ' ' << j;
    }
  }
}

TEST(Views, ADomainBeginsWithAllNodes) {
  const auto domain = in_memory(3);
  Views views(*domain);
  EXPECT_EQ(views.mine().generation, 0U);
  EXPECT_EQ(views.current(), (View{1, 7, 7}));
  EXPECT_EQ(views.look(), (View{1, 7, 7}));
  for (std::uint32_t node = 0; node < 3; ++node) {
    EXPECT_EQ(views.area(node).view.word.load(), (View{1, 7, 7}.word()));
  }
}

TEST(Views, WhatOneProposesTheOthersSee) {
  const auto domain = in_memory(3);
  Views one(*domain);
  Views other(*domain);
  other.look();
  EXPECT_EQ(one.propose({2, 3, 7}).generation, 0U) << "who acts upon no view proposes none";
  const View want = next(one.look(), 3);
  EXPECT_EQ(one.propose(want), want);
  EXPECT_EQ(other.mine().generation, 1U);
  EXPECT_EQ(other.propose(next(other.mine(), 5)), want) << "too late";
  EXPECT_EQ(one.propose(want), want) << "again";
  EXPECT_EQ(one.mine().generation, 2U);
}

TEST(Views, WhatADeadProposerBeganIsCompleted) {
  const auto domain = in_memory(3);
  Views views(*domain);
  views.look();
  const View begun{2, 6, 7};
  views.area(0).view.word.store(begun.word());
  Views late(*domain);
  EXPECT_EQ(late.look(), begun);
  EXPECT_EQ(views.area(1).view.word.load(), begun.word());
  EXPECT_EQ(views.area(2).view.word.load(), begun.word());
  EXPECT_EQ(views.propose(next(views.mine(), 3)), begun);
}

TEST(Views, AViewThatVanishedWithItsSegmentBindsNobody) {
  const auto domain = in_memory(3);
  Views views(*domain);
  views.look();
  views.area(0).view.word.store(View{2, 6, 7}.word());
  domain->segment(0).mark_lost();
  EXPECT_EQ(views.look().generation, 1U);
  const View want{2, 3, 6};
  EXPECT_EQ(views.propose(want), want);
}

TEST(Views, WithoutSegmentsNothingIsDecided) {
  const auto domain = in_memory(2);
  Views views(*domain);
  views.look();
  domain->segment(0).mark_lost();
  domain->segment(1).mark_lost();
  EXPECT_EQ(views.propose({2, 1, 1}).generation, 1U);
  EXPECT_FALSE(views.current());
}

TEST(Views, ALostCopyGrantsNothingAndIsWrittenAgain) {
  const auto domain = in_memory(3);
  Views views(*domain);
  views.look();
  EXPECT_EQ(views.repair(), 0U);
  for (const std::uint64_t damage : {std::uint64_t{0}, View{9, 1, 1}.word() ^ 1}) {
    views.area(0).view.word.store(damage);
    EXPECT_EQ(views.current(), views.mine());
    EXPECT_EQ(views.repair(), 1U);
    EXPECT_EQ(views.area(0).view.word.load(), views.mine().word());
  }
  views.area(1).view.word.store(0);
  const View want = next(views.mine(), 3);
  EXPECT_EQ(views.propose(want), want);
  EXPECT_EQ(views.area(1).view.word.load(), want.word());
  // The only copies are lost: what a process remembers may be old.
  for (std::uint32_t node = 0; node < 3; ++node) views.area(node).view.word.store(0);
  EXPECT_EQ(views.repair(), 0U);
}

TEST(Views, AViewThatNobodyActedUponIsOverwritten) {
  const auto domain = in_memory(3);
  Views views(*domain);
  const View want = next(views.look(), 3);
  EXPECT_EQ(views.propose(want), want);
  for (const View& odd : {View{2, 5, 7}, View{1, 7, 7}}) {
    views.area(0).view.word.store(odd.word());
    const View before = views.mine();
    EXPECT_EQ(views.repair(), 1U);
    EXPECT_EQ(views.mine(), (View{before.generation + 1, 3, 7}));
    EXPECT_EQ(views.area(0).view.word.load(), views.mine().word());
    EXPECT_EQ(views.repair(), 0U);
  }
}

TEST(Views, ASegmentThatIsAdmittedGetsTheViewWhenItIsDecided) {
  const auto domain = in_memory(2);
  Views views(*domain);
  views.look();
  const View without{2, 3, 2};
  EXPECT_EQ(views.propose(without), without);
  views.area(0).view.word.store(0);  // as a new one has it
  EXPECT_EQ(views.repair(), 0U);
  EXPECT_EQ(views.area(0).view.word.load(), 0U) << "nobody admitted it";
  const View with{3, 3, 3};
  EXPECT_EQ(views.propose(with), with);
  EXPECT_EQ(views.area(0).view.word.load(), with.word());
}

TEST(Views, ALateSegmentHasNoViewToBeginWith) {
  const auto domain = in_memory(2);
  gsm::SegmentHeader header = domain->segment(1).header();
  header.incarnation = 2;
  const auto segment = gsm::Segment::in_memory(header);
  cache::format(*segment);
  const auto g = RuntimeGeometry::load(header.user);
  EXPECT_EQ(reinterpret_cast<const ViewArea*>(segment->metadata() + g.views)->view.word.load(), 0U);
}

// What everybody who acts upon a view of a generation must have in common.
class Ledger {
 public:
  void note(const View& view) {
    const std::lock_guard lock(mutex_);
    const auto [at, first] = decided_.emplace(view.generation, view);
    EXPECT_EQ(at->second, view) << "two views of generation " << view.generation;
  }
  std::size_t size() const { return decided_.size(); }

 private:
  std::mutex mutex_;
  std::map<std::uint32_t, View> decided_;
};

TEST(Views, ProposersAtTheSameTimeAgree) {
  constexpr unsigned kRounds = 3000;
  const auto domain = in_memory(4);
  Ledger ledger;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Views views(*domain);
      std::mt19937 random(t);
      ledger.note(views.look());
      while (views.mine().generation < kRounds) {
        const auto members = static_cast<std::uint16_t>(1 + random() % 15);
        ledger.note(random() % 3 == 0 ? views.look()
                                      : views.propose(next(views.mine(), members)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(ledger.size(), 2U);
}

TEST(Views, LosingSegmentsInTheMiddleOfBallotsDividesNobody) {
  for (unsigned round = 0; round < 60; ++round) {
    const auto domain = in_memory(4);
    Ledger ledger;
    std::atomic<std::uint32_t> reached{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        Views views(*domain);
        std::mt19937 random(round * 3 + t);
        ledger.note(views.look());
        while (views.mine().generation < 200) {
          const auto members = static_cast<std::uint16_t>(1 + random() % 15);
          ledger.note(views.propose(next(views.mine(), members)));
          reached.store(views.mine().generation);
        }
      });
    }
    // Never the last one.
    for (const unsigned lost : {round % 4, (round + 1 + round / 4 % 3) % 4, (round + 3) % 4}) {
      const std::uint32_t then = reached.load() + 10;
      while (reached.load() < then && reached.load() < 190) std::this_thread::yield();
      unsigned left = 0;
      for (std::uint32_t node = 0; node < 4; ++node) left += domain->segment(node).lost() ? 0U : 1U;
      if (left > 1) domain->segment(lost).mark_lost();
    }
    for (std::thread& thread : threads) thread.join();
    Views late(*domain);
    ledger.note(late.look());
    EXPECT_GE(late.mine().generation, 200U) << "round " << round;
  }
}

TEST(Views, ATruncatedSegmentIsLeftOut) {
  gsm::DomainSpec spec = spec_of(3);
  char name[] = "/dev/shm/mcs-view-test-XXXXXX";
  ASSERT_NE(::mkdtemp(name), nullptr);
  spec.directory = name;
  {
    const auto domain = std::move(api::create(spec).value());
    Views views(*domain);
    views.look();
    ASSERT_EQ(::truncate((domain->path() + "/segment.0.1").c_str(), 0), 0);
    const View want{2, 6, 6};
    EXPECT_EQ(views.propose(want), want);
    EXPECT_TRUE(domain->segment(0).lost());
    EXPECT_EQ(views.repair(), 0U);
    EXPECT_EQ(views.area(2).view.word.load(), want.word());
  }
  std::filesystem::remove_all(name);
}

}  // namespace
}  // namespace mcs::runtime
