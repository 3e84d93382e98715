// SPDX-License-Identifier: Apache-2.0
// GlobalStatistics: everything counted is in the sum once, whoever dies and whenever.
#include "libglobalcache/runtime/statistics.h"

#include <random>
#include <thread>
#include <vector>

#include "tests/libglobalcache/runtime/processes.h"
#include "tests/libglobalcache/test_liveness.h"

namespace mcs::runtime {
namespace {

constexpr unsigned kCell = 3;

std::uint64_t counted(const Instance& instance) {
  return GlobalStatistics(instance).sum().cells[kCell];
}

TEST(Latency, BucketsAreHalfPowersOfTwo) {
  EXPECT_EQ(latency_bucket(0), 0U);
  EXPECT_EQ(latency_bound_ns(0), 250U);
  EXPECT_EQ(latency_bound_ns(2), 500U);
  EXPECT_EQ(latency_bound_ns(20), 256000U);
  for (unsigned i = 0; i + 1 < kLatencyCells; ++i) {
    EXPECT_EQ(latency_bucket(latency_bound_ns(i) - 1), i);
    EXPECT_EQ(latency_bucket(latency_bound_ns(i)), i + 1);
  }
  EXPECT_EQ(latency_bucket(~0ULL), kLatencyCells - 1);
}

TEST(Latency, AFractionDoesNotExceed) {
  GlobalStatistics::Row row{ServerKind::kOther, 0, {}};
  EXPECT_EQ(row.latency_ns(0.99), 0U);
  row.cells[kFirstLatencyCell + 2] = 98;
  row.cells[kFirstLatencyCell + 9] = 1;
  row.cells[kFirstLatencyCell + kLatencyCells - 1] = 1;
  EXPECT_EQ(row.latency_ns(0.5), latency_bound_ns(2));
  EXPECT_EQ(row.latency_ns(0.98), latency_bound_ns(2));
  EXPECT_EQ(row.latency_ns(0.99), latency_bound_ns(9));
  EXPECT_EQ(row.latency_ns(1.0), latency_bound_ns(kLatencyCells - 1));
}

class StatisticsTest : public testing::Test {
 protected:
  StatisticsTest() {
    gsm::DomainSpec spec;
    spec.name = "statistics";
    spec.nodes = 2;
    spec.bytes_per_node = 16ULL << 20;
    domain_ = api::create_in_memory(spec, 8, 128);
    one_ = join("nginx/1");
  }
  std::unique_ptr<Instance> join(const char* server, std::uint32_t node = 0) {
    auto instance = Instance::join(*domain_, liveness_, {.node = node, .server = server});
    EXPECT_TRUE(instance) << instance.error().message;
    (*instance)->activate();
    return std::move(*instance);
  }
  LockRef totals_lock(std::uint32_t node = 0) {
    return LockRef::make(node, one_->geometry().totals + offsetof(StatTotals, lock));
  }

  TestLiveness liveness_;
  std::unique_ptr<gsm::Domain> domain_;
  std::unique_ptr<Instance> one_;
};

TEST_F(StatisticsTest, ARowPerServerAndNode) {
  auto httpd = join("httpd/2", 1);
  auto other = join("nginx/1", 1);
  one_->add_stat(kCell, 5);
  httpd->add_stat(kCell, 6);
  httpd->add_stat(0, 1);
  other->add_stat(kCell, 7);
  httpd->leave();
  const auto rows = GlobalStatistics(*one_).rows();
  ASSERT_EQ(rows.size(), 3U);
  const auto has = [&](ServerKind server, std::uint32_t node, std::uint64_t n) {
    return std::any_of(rows.begin(), rows.end(), [&](const GlobalStatistics::Row& row) {
      return row.server == server && row.node == node && row.cells[kCell] == n;
    });
  };
  EXPECT_TRUE(has(ServerKind::kNginx, 0, 5));
  EXPECT_TRUE(has(ServerKind::kHttpd, 1, 6));
  EXPECT_TRUE(has(ServerKind::kNginx, 1, 7));
  EXPECT_EQ(counted(*one_), 18U);
}

TEST_F(StatisticsTest, WhoLeavesAndWhoDiesIsFoldedOnce) {
  std::uint64_t expected = 0;
  for (int round = 0; round < 10; ++round) {
    auto next = join("httpd/2");
    EXPECT_EQ(next->slot(next->slot_number()).stats[kCell].load(), 0U);
    next->add_stat(kCell, 10);
    expected += 10;
    EXPECT_EQ(counted(*one_), expected);
    if (round % 2 == 0) {
      next->leave();
    } else {
      liveness_.release(next->slot_number());
      EXPECT_EQ(one_->recover_all("test"), 1U);
      EXPECT_EQ(one_->recover_all("again"), 0U);
      EXPECT_TRUE(one_->recover(next->slot_number(), "again"));
    }
    EXPECT_EQ(counted(*one_), expected);
  }
}

TEST_F(StatisticsTest, ThreadsLoseNothing) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        auto mine = join("httpd/2", static_cast<std::uint32_t>(t % 2));
        for (int n = 0; n < 100; ++n) {
          mine->add_stat(kCell, 1);
          one_->add_stat(kCell, 1);
        }
        mine->leave();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counted(*one_), 8000U);
}

TEST_F(StatisticsTest, WhoLeavesWhileTheTotalsAreLockedLosesNothing) {
  auto leaver = join("nginx/1");
  leaver->add_stat(kCell, 10);
  {
    Instance::Op op(*one_);
    OwnerLock& lock = one_->totals(0).lock;
    ASSERT_EQ(op.lock(lock, totals_lock()), LockAnswer::kAcquired);
    leaver->leave();
    EXPECT_EQ(counted(*one_), 10U);
  }
  auto next = join("nginx/1");
  ASSERT_EQ(next->slot_number(), leaver->slot_number());
  next->add_stat(kCell, 1);
  EXPECT_EQ(counted(*one_), 11U);
  next->leave();
  EXPECT_EQ(counted(*one_), 11U);
}

/// One who folds a dead instance's cells dies before the step of this number.
class FolderDiesTest : public StatisticsTest, public testing::WithParamInterface<int> {};

TEST_P(FolderDiesTest, TheNextOneFinishesIt) {
  const int dies_at = GetParam();
  auto earlier = join("httpd/2");
  earlier->add_stat(kCell, 1000);
  earlier->leave();
  auto folder = join("httpd/2");
  auto dead = join("httpd/2");
  folder->add_stat(kCell, 100);
  dead->add_stat(kCell, 10);
  one_->add_stat(kCell, 1);
  liveness_.release(dead->slot_number());

  // The steps of Instance::fold_statistics, as statistics.h has them.
  StatTotals& totals = one_->totals(0);
  SlotControl& control = one_->control(dead->slot_number());
  control.recoverer.store(folder->id().value);
  control.state.store(StateWord::make(InstanceState::kDead, dead->id().incarnation()));
  const std::uint64_t active = totals.active.load();
  StatTotals::Copy& from = totals.copies[(active - 1) & 1];
  StatTotals::Copy& to = totals.copies[active & 1];
  const auto kind = static_cast<std::size_t>(ServerKind::kHttpd);
  const std::vector<std::function<void()>> steps{
      [&] { folder->own().ops[0].lock.store(totals_lock().value); },
      [&] { ASSERT_TRUE(totals.lock.try_lock(folder->id())); },
      [&] {
        to.kinds = from.kinds;
        to.kinds[kind][0] = 12345;  // half done
      },
      [&] {
        to.kinds = from.kinds;
        to.kinds[kind][kCell] += 10;
        to.last_folded = dead->id().value;
      },
      [&] { totals.active.store(3 - active); },
      [&] { control.folded.store(dead->id().incarnation()); },
      [&] { ASSERT_TRUE(totals.lock.unlock(folder->id())); },
      [&] { folder->own().ops[0].lock.store(0); },
      [&] { dead->own().stats[kCell].store(0); }};
  ASSERT_LE(static_cast<std::size_t>(dies_at), steps.size());
  for (int i = 0; i < dies_at; ++i) steps[static_cast<std::size_t>(i)]();
  liveness_.release(folder->slot_number());

  for (int i = 0; i < 3; ++i) (void)one_->recover_all("test");
  EXPECT_EQ(counted(*one_), 1111U);
  EXPECT_EQ(GlobalStatistics(*one_).sum().cells[0], 0U);
  EXPECT_TRUE(OwnerLock::is_free(totals.lock.load()));
  for (const Instance* gone : {folder.get(), dead.get()}) {
    EXPECT_EQ(StateWord::state(one_->control(gone->slot_number()).state.load()),
              InstanceState::kFree);
    EXPECT_EQ(one_->control(gone->slot_number()).folded.load(), gone->id().incarnation());
    EXPECT_EQ(gone->own().stats[kCell].load(), 0U);
  }
  // The next ones in these slots count anew.
  join("httpd/2")->add_stat(kCell, 2);
  EXPECT_EQ(counted(*one_), 1113U);
}

INSTANTIATE_TEST_SUITE_P(BeforeStep, FolderDiesTest, testing::Range(0, 10));

class StatisticsProcessTest : public ProcessTest {};

// Recoverers are killed at any time, also while they fold; the sum is what was counted.
TEST_F(StatisticsProcessTest, KilledProcessesAndKilledFoldersLoseNothing) {
  const unsigned seed = std::random_device{}();
  std::mt19937 random(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  Place me(name_);
  constexpr int kRounds = 40;
  constexpr int kDead = 16;
  int in_the_middle = 0;
  std::uint64_t expected = 0;
  for (int round = 0; round < kRounds; ++round) {
    // Several instances of one process, so that recovering them takes a while.
    Child first([&](Channel& channel) {
      Place place(name_, "nginx/1");
      std::vector<std::unique_ptr<Instance>> all;
      for (int i = 0; i < kDead; ++i) {
        all.push_back(std::move(
            Instance::join(*place.domain, *place.liveness, {.server = "nginx/1"}).value()));
        all.back()->activate();
        all.back()->add_stat(kCell, 10);
      }
      channel.say('c');
      (void)channel.hear();
    });
    ASSERT_EQ(first.listen(), 'c');
    Child folder([&](Channel& channel) {
      Place place(name_, "httpd/2");
      place.instance->add_stat(kCell, 1);
      channel.say('c');
      (void)channel.hear();
      channel.say('f');
      place.instance->recover_all("child");
    });
    ASSERT_EQ(folder.listen(), 'c');
    expected += 10 * kDead + 1;
    EXPECT_EQ(counted(*me.instance), expected);
    first.end();
    folder.tell('g');
    ASSERT_EQ(folder.listen(), 'f');
    // Sooner or later in its work; what happens then depends on the scheduler, the outcome must not.
    volatile unsigned waste = 0;
    for (unsigned n = random() % 60000; n > 0; --n) waste = waste + 1;
    folder.end();
    for (std::uint32_t slot = 0; slot < me.instance->slot_count(); ++slot) {
      if (me.instance->control(slot).recoverer.load() != 0) ++in_the_middle;
    }
    for (int i = 0; i < 2; ++i) me.instance->recover_all("test");
    ASSERT_EQ(counted(*me.instance), expected);
  }
  RecordProperty("folders_killed_in_the_middle", in_the_middle);
  for (std::uint32_t slot = 0; slot < me.instance->slot_count(); ++slot) {
    if (slot == me.instance->slot_number()) continue;
    ASSERT_EQ(state(*me.instance, slot), InstanceState::kFree);
  }
}

}  // namespace
}  // namespace mcs::runtime
