// SPDX-License-Identifier: Apache-2.0
// A cache that is full, and what is handed on when somebody dies in it.
#include <gmock/gmock.h>

#include <functional>
#include <utility>
#include <vector>

#include "tests/libglobalcache/cache/cache_kit.h"

namespace mcs::cache {
namespace {

class EvictionTest : public CacheTest {
 protected:
  EvictionTest() : CacheTest(4ULL << 20) {}
};

std::string key_of(unsigned i) { return "/object/" + std::to_string(i); }

TEST_F(EvictionTest, AFullCacheGoesOnStoring) {
  const Member m = join();
  unsigned stored = 0;
  for (unsigned i = 0; i < 1000; ++i) {
    bool ok = false;
    EXPECT_EQ(put(m, key_of(i), 9000, &ok), Begin::kFilling);
    EXPECT_TRUE(ok) << i;
    EXPECT_TRUE(get(m, key_of(i))) << i;
    stored += ok ? 1 : 0;
  }
  unsigned left = 0;
  for (unsigned i = 0; i < 1000; ++i) left += get(m, key_of(i)) ? 1 : 0;
  EXPECT_LT(left, stored);
  // Evicting makes room for what is coming, and no more.
  EXPECT_GT(left * 9000, (4U << 20) / 2);
  expect_clean();
}

TEST_F(EvictionTest, WhatIsReadStaysLongest) {
  const Member m = join();
  for (unsigned i = 0; i < 1000; ++i) {
    put(m, key_of(i), 9000);
    for (unsigned popular = 0; popular < 20 && i % 8 == 7; ++popular) get(m, key_of(popular));
  }
  for (unsigned popular = 0; popular < 20; ++popular) EXPECT_TRUE(get(m, key_of(popular)));
}

TEST_F(EvictionTest, WhatIsPinnedKeepsItsBytes) {
  const Member reader = join();
  const Member writer = join();
  std::vector<Hit> hits(30);
  for (unsigned i = 0; i < hits.size(); ++i) {
    put(writer, key_of(i), 9000);
    ASSERT_EQ(reader.cache->find(reader.cache->make_key(key_of(i)), hits[i]).found, Found::kHit);
  }
  for (unsigned i = 100; i < 1000; ++i) put(writer, key_of(i), 9000);
  for (unsigned i = 0; i < hits.size(); ++i) {
    expect_right(reader, key_of(i), hits[i]);
    reader.cache->release(hits[i]);
  }
  writer.cache->tick();
  expect_clean();
}

// One extent that shares a page with others would keep the whole from being sent from its pages.
TEST_F(EvictionTest, LargeBodiesLieInWholePagesToTheirEnds) {
  const Member m = join();
  put(m, "/small", 1000);
  for (const std::size_t bytes : {kGroupBytes + 2000, 3 * kGroupBytes - 5000}) {
    const std::string key = key_of(static_cast<unsigned>(bytes));
    put(m, key, bytes);
    Hit hit;
    ASSERT_EQ(m.cache->find(m.cache->make_key(key), hit).found, Found::kHit);
    EXPECT_GT(hit.extents.size(), 1U);
    for (const Extent extent : hit.extents)
      EXPECT_TRUE(extent.whole_pages()) << bytes << " " << extent.first() << "+" << extent.units();
    expect_right(m, key, hit);
    m.cache->release(hit);
  }
  expect_clean();
}

TEST_F(EvictionTest, ABodyLargerThanTheCacheIsRefusedAndLeavesNothing) {
  const Member m = join();
  bool ok = true;
  put(m, "/large", 8 << 20, &ok);
  EXPECT_FALSE(ok);
  EXPECT_FALSE(get(m, "/large"));
  expect_clean();
  put(m, "/small", 1000, &ok);
  EXPECT_TRUE(ok);
}

TEST_F(EvictionTest, TheFillOfADeadProcessPassesToTheNextWaiter) {
  std::vector<std::uint32_t> woken;
  const Member survivor = join([&](std::uint32_t slot) { woken.push_back(slot); });
  const Member waiter = join();
  const Member filler = join();
  // Not destroyed: its process is killed.
  static Fill* kept;
  kept = new Fill;
  ASSERT_EQ(filler.cache->begin(filler.cache->make_key("/k"), *kept), Begin::kFilling);
  EXPECT_EQ(put(waiter, "/k", 100), Begin::kOther);
  Hit hit;
  const FindResult found = waiter.cache->find(waiter.cache->make_key("/k"), hit);
  ASSERT_NE(found.filling.value, 0U);
  waiter.cache->announce_wait(found.filling);
  const_cast<Word&>(Pins::area(*waiter.instance, waiter.slot()).waiting).store(1);
  kill(filler);
  EXPECT_EQ(survivor.instance->recover_all("test"), 1U);
  EXPECT_FALSE(woken.empty());
  EXPECT_THAT(woken, testing::Each(waiter.slot()));
  EXPECT_FALSE(waiter.cache->still_filling(found.filling));
  bool ok = false;
  put(waiter, "/k", 100, &ok);
  EXPECT_TRUE(ok);
  EXPECT_TRUE(get(survivor, "/k"));
}

// The counters are hints that any process may write: whatever they say, what is stored can be evicted.
TEST_F(EvictionTest, DamagedCountsOfArrivalsStopNobody) {
  const Member m = join();
  unsigned next = 0;
  const auto fill_up = [&] {
    for (unsigned i = 0; i < 500; ++i, ++next) {
      bool ok = false;
      put(m, key_of(next), 9000, &ok);
      ASSERT_TRUE(ok) << next;
      ASSERT_TRUE(get(m, key_of(next))) << next;
    }
  };
  fill_up();
  SegmentState& state = m.cache->memory().state(0);
  const std::uint64_t places = m.cache->memory().geometry().arrivals;
  // Out of range, and so that the next one to arrive comes around to the end of the numbers.
  const std::uint64_t in = state.arrivals_in.load();
  const std::pair<std::uint64_t, std::uint64_t> damages[] = {
      {in, in + 1000}, {in, in + (1ULL << 63)}, {~0ULL, in}, {~0ULL - places / 2, ~0ULL}, {0, ~0ULL}};
  for (const auto& [arrivals_in, arrivals_out] : damages) {
    SCOPED_TRACE(std::to_string(arrivals_in) + " " + std::to_string(arrivals_out));
    state.arrivals_in.store(arrivals_in);
    state.arrivals_out.store(arrivals_out);
    state.probation.store(~0ULL);
    fill_up();
    if (HasFatalFailure()) return;
  }
  expect_clean();
}

// Whoever frees does not wait for one lock again and again.
TEST_F(EvictionTest, OneStoppedLockHolderIsWaitedForAFewTimesOnly) {
  const Member stopped = join();
  const Member m = join();
  constexpr unsigned kEntries = 40;
  for (unsigned i = 0; i < kEntries; ++i) ASSERT_EQ(put(m, key_of(i), 9000), Begin::kFilling);
  // All groups, so that each entry is in one of them.
  const Memory& memory = m.cache->memory();
  std::vector<std::unique_ptr<runtime::Instance::Op>> held;
  for (std::uint64_t g = 0; g < memory.geometry().groups && held.size() < 30; ++g) {
    held.push_back(std::make_unique<runtime::Instance::Op>(*stopped.instance));
    Group& group = memory.group(0, g);
    ASSERT_TRUE(held.back()->try_lock(group.lock, memory.lock_ref(0, group.lock)));
  }
  const auto blocked = [&] { return m.instance->control(stopped.slot()).blocked.load(); };
  EXPECT_EQ(m.cache->purge(PurgeKind::kAll, {}), kEntries);
  const std::uint64_t of_one_pass = blocked();
  EXPECT_GT(of_one_pass, 0U);
  EXPECT_LE(of_one_pass, 4U);
  m.cache->tick();
  EXPECT_LE(blocked(), 2 * of_one_pass);
  held.clear();
  m.cache->tick();
  EXPECT_EQ(m.cache->space().used_units(0), 0U);
  expect_clean();
}

// A fill for which there is no room because a stopped process holds the locks of all space: what it has
// retired once is not tried again at every step of the hand.
TEST_F(EvictionTest, WhatCannotBeFreedIsTriedOncePerEntry) {
  Member m;
  auto joined = runtime::Instance::join(*domain_, liveness_, {.server = "server/1", .busy_spins = 8});
  ASSERT_TRUE(joined);
  m.instance = std::move(*joined);
  m.cache = std::make_unique<GlobalCache>(*domain_, *m.instance, nullptr);
  m.instance->activate();
  constexpr unsigned kEntries = 20;
  for (unsigned i = 0; i < kEntries; ++i) ASSERT_EQ(put(m, key_of(i), 9000), Begin::kFilling);
  const Member stopped[] = {join(), join()};
  const Memory& memory = m.cache->memory();
  std::vector<std::unique_ptr<runtime::Instance::Op>> held;
  for (std::uint64_t g = 0; g < memory.geometry().groups; ++g) {
    held.push_back(std::make_unique<runtime::Instance::Op>(*stopped[g % 2].instance));
    Group& group = memory.group(0, g);
    ASSERT_TRUE(held.back()->try_lock(group.lock, memory.lock_ref(0, group.lock))) << g;
  }
  bool ok = true;
  put(m, "/new", 9000, &ok);
  EXPECT_FALSE(ok);
  std::uint64_t waits = 0;
  for (const Member& holder : stopped) {
    waits += m.instance->control(holder.slot()).blocked.load();
  }
  EXPECT_GT(waits, 0U);
  // A few for each entry, and a few for each place that the fill looked for.
  EXPECT_LE(waits, 10 * kEntries + 4 * memory.geometry().groups);
  held.clear();
  m.cache->tick();
  put(m, "/new", 9000, &ok);
  EXPECT_TRUE(ok);
  expect_clean();
}

// It had begun to write its record when it was stopped, and goes on when another one has the place.
TEST_F(EvictionTest, APurgerThatWasStoppedCannotHideThePurgeOfAnother) {
  const Member m = join();
  const auto purge_is_met = [&](const std::function<void(PurgeRecord&)>& damage) {
    Fill fill;
    EXPECT_EQ(m.cache->begin(m.cache->make_key("/purged"), fill, {}, true), Begin::kFilling);
    PurgeLog& log = m.cache->memory().purge_log(0);
    const std::uint64_t sequence = log.next.load();
    m.cache->purge(PurgeKind::kKey, "/purged");
    damage(log.records[sequence % kPurgeRecords]);
    return !write(fill, "/purged", 100);
  };
  EXPECT_TRUE(purge_is_met([](PurgeRecord&) {}));
  EXPECT_FALSE(get(m, "/purged"));
  PurgeRecord late{};
  std::memcpy(reinterpret_cast<char*>(late.pattern.data()), "/other", 6);
  late.kind_and_length = (6ULL << 32) | static_cast<std::uint64_t>(PurgeKind::kKey);
  EXPECT_TRUE(purge_is_met([&](PurgeRecord& record) { record.pattern[0] = late.pattern[0].load(); }));
  EXPECT_TRUE(purge_is_met([&](PurgeRecord& record) {
    record.kind_and_length = late.kind_and_length.load();
    record.pattern[0] = late.pattern[0].load();
  }));
  EXPECT_TRUE(purge_is_met([](PurgeRecord& record) { record.sequence = 0; }));
  EXPECT_TRUE(purge_is_met([](PurgeRecord& record) { record.sum = 0; }));
  EXPECT_FALSE(get(m, "/purged"));
  expect_clean();
}

// When every slot belongs to the dead, the next one to come is heir to one of them.
class InheritTest : public CacheTest {
 protected:
  InheritTest() : CacheTest(16ULL << 20, 8) {}
};

TEST_F(InheritTest, TheFirstToComeTakesOverASlotAndEverythingInIt) {
  static auto* const dead_ones = new std::vector<Member>;  // their destructors never run
  static auto* const fills = new std::vector<Fill*>;
  std::vector<Member>& dead = *dead_ones;
  std::uint32_t slots = 8;
  for (std::uint32_t i = 0; i < slots; ++i) {
    dead.push_back(join());
    slots = dead.back().instance->slot_count();
    const Member& m = dead.back();
    put(m, key_of(i), 5000);
    Hit hit;
    ASSERT_EQ(m.cache->find(m.cache->make_key(key_of(i)), hit).found, Found::kHit);
    m.cache->purge(PurgeKind::kKey, key_of(i));  // pinned: it stays retired
    m.instance->add_stat(0, 1);
    fills->push_back(new Fill);
    ASSERT_EQ(m.cache->begin(m.cache->make_key("/filling/" + std::to_string(i)), *fills->back()),
              Begin::kFilling);
  }
  runtime::JoinOptions heir_options;
  heir_options.may_inherit = true;
  EXPECT_FALSE(runtime::Instance::join(*domain_, liveness_, heir_options));
  for (const Member& m : dead) kill(m);
  EXPECT_FALSE(runtime::Instance::join(*domain_, liveness_, {}));
  const Member heir = join();
  EXPECT_EQ(heir.instance->recover_all("test"), slots - 1);
  heir.cache->tick();
  for (std::uint32_t i = 0; i < slots; ++i) {
    EXPECT_EQ(put(heir, "/filling/" + std::to_string(i), 100), Begin::kFilling);
    EXPECT_TRUE(get(heir, "/filling/" + std::to_string(i)));
  }
  expect_clean();
}

}  // namespace
}  // namespace mcs::cache
