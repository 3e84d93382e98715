// SPDX-License-Identifier: Apache-2.0
// Space that nodes lend each other, and entries that move towards their readers.
#include <gmock/gmock.h>

#include <thread>

#include "libglobalcache/cache/inspect.h"
#include "tests/libglobalcache/cache/cache_kit.h"

namespace mcs::cache {
namespace {

constexpr std::size_t kBody = 9000;

class LoansTest : public CacheTest {
 protected:
  explicit LoansTest(std::uint32_t nodes = 3, std::uint32_t penalty = 100)
      : CacheTest(8ULL << 20, 16, nodes, penalty) {}

  const Loans& loans(const Member& m) const { return m.cache->space().loans(); }
  std::uint64_t really_free(const Member& m, std::uint32_t node) const {
    return loans(m).capacity() - m.cache->space().used_units(node);
  }
  std::uint64_t lent(std::uint32_t lender, std::uint32_t borrower) const {
    for (const Loan& loan : View(*domain_).loans()) {
      if (loan.lender == lender && loan.borrower == borrower) return loan.units;
    }
    return 0;
  }
  // Puts until a body lies, or a part of it, where `until` says.
  template <typename Until>
  void put_until(const Member& m, const std::string& prefix, Until&& until) {
    for (unsigned i = 0; i < 5000 && !until(); ++i) {
      ASSERT_EQ(put(m, prefix + std::to_string(i), kBody), Begin::kFilling);
    }
    ASSERT_TRUE(until());
  }
  void expect_counts_right(const Member& m) {
    for (std::uint32_t n = 0; n < m.cache->memory().nodes(); ++n) {
      EXPECT_EQ(loans(m).free_units(n), really_free(m, n)) << n;
      for (std::uint32_t b = 0; b < m.cache->memory().nodes(); ++b) {
        EXPECT_EQ(loans(m).lent(n, b), lent(n, b)) << n << " to " << b;
      }
    }
  }
};

TEST_F(LoansTest, LocalFirstThenWhoHasMostAndNeverItsReserve) {
  const Member a = join();
  const Member b = join({}, 1);
  // Node 1 has used some of its own, so node 2 has most.
  for (unsigned i = 0; i < 200; ++i) ASSERT_EQ(put(b, "/b" + std::to_string(i), kBody), Begin::kFilling);
  EXPECT_EQ(loans(b).lent(0) + loans(b).lent(2), 0U);
  put_until(a, "/a", [&] { return loans(a).lent(1) + loans(a).lent(2) != 0; });
  EXPECT_LT(really_free(a, 0), loans(a).capacity() / 20);
  EXPECT_EQ(lent(1, 0), 0U);
  EXPECT_GT(lent(2, 0), 0U);
  put_until(a, "/a2-", [&] { return lent(1, 0) != 0; });
  // Until nobody lends any more: from then on it evicts its own.
  for (unsigned i = 0; i < 3000; ++i) {
    ASSERT_EQ(put(a, "/more" + std::to_string(i), kBody), Begin::kFilling);
    ASSERT_GE(really_free(a, 1), loans(a).reserve());
    ASSERT_GE(really_free(a, 2), loans(a).reserve());
  }
  EXPECT_GT(lent(1, 0) + lent(2, 0), loans(a).capacity());
  expect_counts_right(a);
  expect_clean();
}

TEST_F(LoansTest, TheLendersOwnNeedsComeFirst) {
  const Member a = join();
  const Member b = join({}, 1);
  std::array<std::uint32_t, gsm::kMaxNodes> lenders;
  put_until(a, "/a", [&] { return loans(a).lenders(0, 4, lenders).empty(); });
  const std::uint64_t before = lent(1, 0);
  ASSERT_GT(before, loans(a).capacity() / 2);
  // What was lent comes back as it is needed, and what node 1 stores then is its own.
  for (unsigned i = 0; i < 600; ++i) ASSERT_EQ(put(b, "/b" + std::to_string(i), kBody), Begin::kFilling);
  EXPECT_LT(lent(1, 0), before / 2);
  EXPECT_GT(loans(b).capacity() - really_free(b, 1), loans(b).capacity() * 8 / 10);
  expect_clean();
}

TEST_F(LoansTest, WhatADeathLeavesCountedIsSetRight) {
  const Member a = join();
  put_until(a, "/a", [&] { return lent(1, 0) + lent(2, 0) > loans(a).capacity() / 4; });
  LoanTable& table = loans(a).table(2);
  table.used.fetch_add(1000);
  table.lent[0].fetch_add(500);
  loans(a).table(1).used.fetch_sub(700);
  a.cache->recount(true);
  expect_counts_right(a);
}

TEST_F(LoansTest, ManyAtOnceStayAboveTheReserve) {
  const std::vector<Member> members = [&] {
    std::vector<Member> all;
    for (unsigned i = 0; i < 4; ++i) all.push_back(join());
    return all;
  }();
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 1000; ++i) {
        put(members[t], "/" + std::to_string(t) + "-" + std::to_string(i), kBody);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // What found no place in a full limbo is adopted first.
  for (const Member& m : members) m.cache->tick();
  for (const std::uint32_t n : {1U, 2U}) {
    EXPECT_GE(really_free(members[0], n), loans(members[0]).reserve());
  }
  expect_counts_right(members[0]);
  expect_clean();
}

TEST_F(LoansTest, ALendersLossTakesWhatItLentAlong) {
  const Member a = join();
  const Member b = join({}, 1);
  put_until(a, "/a", [&] { return lent(1, 0) > loans(a).capacity() / 4; });
  ASSERT_EQ(put(a, "/small", 100), Begin::kFilling);
  kill(b);
  lose(1);
  for (int i = 0; i < 3; ++i) a.cache->tick();
  EXPECT_EQ(lent(1, 0), 0U);
  EXPECT_TRUE(get(a, "/small"));
  expect_whole();
  // What lay on it in part is free where the rest was.
  const std::uint64_t third = lent(2, 0);
  a.cache->recount(true);
  EXPECT_EQ(loans(a).free_units(2), really_free(a, 2));
  EXPECT_EQ(loans(a).lent(2, 0), third);
  for (unsigned i = 0; i < 2000; ++i) {
    ASSERT_EQ(put(a, "/again" + std::to_string(i), kBody), Begin::kFilling);
  }
  EXPECT_EQ(lent(1, 0), 0U);
  expect_whole();
  kill(a);
}

TEST_F(LoansTest, ABorrowersLossGivesBackWhatItHad) {
  const Member a = join();
  const Member b = join({}, 1);
  for (unsigned i = 0; i < 50; ++i) ASSERT_EQ(put(b, "/b" + std::to_string(i), kBody), Begin::kFilling);
  const std::uint64_t own = b.cache->space().used_units(1);
  put_until(a, "/a", [&] { return lent(1, 0) > loans(a).capacity() / 4; });
  kill(a);
  lose(0);
  for (int i = 0; i < 3; ++i) b.cache->tick();
  EXPECT_EQ(lent(1, 0) + lent(2, 0), 0U);
  EXPECT_EQ(b.cache->space().used_units(1), own);
  EXPECT_EQ(b.cache->space().used_units(2), 0U);
  for (unsigned i = 0; i < 50; ++i) EXPECT_TRUE(get(b, "/b" + std::to_string(i))) << i;
  // The counts follow.
  b.cache->recount(true);
  for (const std::uint32_t n : {1U, 2U}) {
    EXPECT_EQ(loans(b).free_units(n), really_free(b, n));
    EXPECT_EQ(loans(b).lent(n, 0), 0U);
  }
  expect_whole();
  kill(b);
}

TEST_F(LoansTest, WhatIsStillSentOfALostBorrowersEntryIsNotGivenBack) {
  const Member a = join();
  const Member b = join({}, 1);
  put_until(a, "/a", [&] { return lent(1, 0) > loans(a).capacity() / 4; });
  Hit hit;
  for (unsigned i = 0; hit.extents.empty() || hit.extents[0].segment() != 1; ++i) {
    ASSERT_LT(i, 100'000U);
    if (!hit.extents.empty()) b.cache->release(hit);
    hit = {};
    if (b.cache->find(b.cache->make_key("/a" + std::to_string(i)), hit).found != Found::kHit) hit = {};
  }
  ASSERT_EQ(hit.link.segment(), 0U);
  kill(a);
  lose(0);
  for (int i = 0; i < 3; ++i) b.cache->tick();
  const Extent sent = hit.extents[0];
  const auto is_marked = [&] {
    const std::uint64_t unit = sent.first() % kGroupUnits;
    return (b.cache->memory().group(1, sent.group()).bits[unit / 64].load() >> (unit % 64) & 1) != 0;
  };
  EXPECT_TRUE(is_marked());
  b.cache->release(hit);
  for (int i = 0; i < 3; ++i) b.cache->tick();
  EXPECT_FALSE(is_marked());
  expect_whole();
  kill(b);
}

class NearTest : public LoansTest {
 protected:
  NearTest() : LoansTest(2, 1200) {}

  std::uint32_t segment_of(const Member& m, const std::string& key) {
    Hit hit;
    if (m.cache->find(m.cache->make_key(key), hit).found != Found::kHit) return 99;
    const std::uint32_t segment = hit.link.segment();
    const bool together = std::all_of(hit.extents.begin(), hit.extents.end(),
                                      [&](Extent e) { return e.segment() == segment; });
    m.cache->release(hit);
    return together ? segment : 98;
  }
  static void read_often(const Member& m, const std::string& key) {
    for (unsigned i = 0; i < RemoteUses::kWorth; ++i) ASSERT_TRUE(get(m, key));
  }
};

TEST_F(NearTest, WhatIsReadFromFarMovesToItsReader) {
  const Member a = join();
  const Member b = join({}, 1);
  ASSERT_EQ(put(b, "/small", 100), Begin::kFilling);
  ASSERT_EQ(put(b, "/large", 300'000), Begin::kFilling);
  ASSERT_EQ(put(b, "/other", 5000), Begin::kFilling);
  ASSERT_TRUE(get(a, "/other"));
  EXPECT_EQ(a.cache->bring_near(), 0U);
  read_often(a, "/small");
  read_often(a, "/large");
  EXPECT_EQ(a.cache->bring_near(), 2U);
  EXPECT_EQ(segment_of(a, "/small"), 0U);
  EXPECT_EQ(segment_of(a, "/large"), 0U);
  EXPECT_EQ(segment_of(a, "/other"), 1U);
  EXPECT_TRUE(get(b, "/small"));
  EXPECT_TRUE(get(b, "/large"));
  // Its own node reads it no more often than another.
  read_often(a, "/small");
  EXPECT_EQ(a.cache->bring_near(), 0U);
  b.cache->reclaim(true);
  a.cache->reclaim(true);
  expect_clean();
}

TEST_F(NearTest, WhatChangesMeanwhileIsNotBroughtBack) {
  const Member a = join();
  const Member b = join({}, 1);
  for (const char* key : {"/purged", "/replaced", "/soft", "/filling"}) {
    ASSERT_EQ(put(b, key, 5000), Begin::kFilling);
    read_often(a, key);
  }
  Hit hit;
  ASSERT_EQ(b.cache->find(b.cache->make_key("/soft"), hit).found, Found::kHit);
  ASSERT_TRUE(b.cache->set_flag(hit.link, EntryWord::kSoftPurged));
  b.cache->release(hit);
  b.cache->purge(PurgeKind::kKey, "/purged");
  ASSERT_EQ(put(b, "/replaced", 6000), Begin::kFilling);
  Fill fill;
  const Key filling = b.cache->make_key("/filling");
  ASSERT_EQ(b.cache->find(filling, hit).found, Found::kHit);
  ASSERT_EQ(b.cache->begin(filling, fill, hit.link), Begin::kFilling);
  b.cache->release(hit);
  EXPECT_EQ(a.cache->bring_near(), 0U);
  EXPECT_FALSE(get(a, "/purged"));
  ASSERT_EQ(a.cache->find(a.cache->make_key("/replaced"), hit).found, Found::kHit);
  EXPECT_EQ(hit.body_bytes(), 6000U);
  a.cache->release(hit);
  EXPECT_EQ(segment_of(a, "/soft"), 1U);
  fill.abort();
  expect_clean();
}

TEST_F(NearTest, AFullNodeEvictsForWhatItReads) {
  const Member a = join();
  const Member b = join({}, 1);
  put_until(a, "/a", [&] { return lent(1, 0) != 0; });
  ASSERT_EQ(put(b, "/hot", 20'000), Begin::kFilling);
  read_often(a, "/hot");
  EXPECT_EQ(a.cache->bring_near(), 1U);
  EXPECT_EQ(segment_of(a, "/hot"), 0U);
  expect_clean();
}

class CheapTest : public LoansTest {
 protected:
  CheapTest() : LoansTest(2, 100) {}
};

TEST_F(CheapTest, NothingMovesWhereAllMemoryIsEquallyNear) {
  const Member a = join();
  const Member b = join({}, 1);
  ASSERT_EQ(put(b, "/x", 100), Begin::kFilling);
  for (unsigned i = 0; i < 100; ++i) ASSERT_TRUE(get(a, "/x"));
  EXPECT_EQ(a.cache->bring_near(), 0U);
}

}  // namespace
}  // namespace mcs::cache
