// SPDX-License-Identifier: Apache-2.0
// Shares of the space: reserves, quotas, and what is counted.
#include <gmock/gmock.h>

#include "libglobalcache/cache/inspect.h"
#include "tests/libglobalcache/cache/cache_kit.h"

namespace mcs::cache {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

class SitesTest : public CacheTest {
 protected:
  SitesTest() : CacheTest(8 * kMiB) {}

  static bool put(const Member& m, const SiteRules* site, const std::string& key,
                  std::size_t bytes) {
    Key asked = m.cache->make_key(key);
    asked.site = site;
    Fill fill;
    return m.cache->begin(asked, fill, {}, true) == Begin::kFilling && write(fill, key, bytes);
  }
  static unsigned present(const Member& m, const std::string& prefix, unsigned count) {
    unsigned n = 0;
    for (unsigned i = 0; i < count; ++i) n += get(m, prefix + std::to_string(i)) ? 1 : 0;
    return n;
  }
  std::uint64_t used(const std::string& name) const { return usage(name).units * kUnitBytes; }
  SiteUsage usage(const std::string& name) const {
    for (const SiteUsage& site : View(*domain_).sites()) {
      if (site.name == name) return site;
    }
    return {};
  }
};

const SiteRules kQuiet{"quiet", {}, {kMiB, 0}};
const SiteRules kNoisy{"noisy", {}, {}};

TEST_F(SitesTest, ANoisySiteDoesNotTouchWhatOthersHaveReserved) {
  const Member m = join();
  for (unsigned i = 0; i < 100; ++i) ASSERT_TRUE(put(m, &kQuiet, "/q" + std::to_string(i), 9000));
  for (unsigned i = 0; i < 3000; ++i) EXPECT_TRUE(put(m, &kNoisy, "/n" + std::to_string(i), 9000));
  EXPECT_EQ(present(m, "/q", 100), 100U);
  EXPECT_GT(present(m, "/n", 3000), 200U);
  // So it is for what names no site.
  for (unsigned i = 0; i < 3000; ++i) EXPECT_TRUE(put(m, nullptr, "/o" + std::to_string(i), 9000));
  EXPECT_EQ(present(m, "/q", 100), 100U);
  expect_clean();
}

TEST_F(SitesTest, WithoutAReserveTheQuietOneWouldBeGone) {
  const Member m = join();
  const SiteRules open{"quiet", {}, {}};
  for (unsigned i = 0; i < 100; ++i) ASSERT_TRUE(put(m, &open, "/q" + std::to_string(i), 9000));
  for (unsigned i = 0; i < 3000; ++i) EXPECT_TRUE(put(m, &kNoisy, "/n" + std::to_string(i), 9000));
  EXPECT_LT(present(m, "/q", 100), 50U);
}

// Somebody counts, and no running configuration names the quiet one.
void count_often(const Member& m) {
  for (std::uint64_t i = 0; i <= kWithdrawn; ++i) m.cache->recount(true);
}

TEST_F(SitesTest, WhatNoRunningConfigurationNamesHasNothingReserved) {
  const Member m = join();
  for (unsigned i = 0; i < 100; ++i) ASSERT_TRUE(put(m, &kQuiet, "/q" + std::to_string(i), 9000));
  for (std::uint64_t i = 0; i < 3 * kWithdrawn; ++i) {
    m.cache->recount(true);
    m.cache->sites().keep("quiet");
    m.cache->sites().keep("unknown");
  }
  EXPECT_EQ(usage("quiet").reserve, kMiB / kUnitBytes);
  count_often(m);
  EXPECT_EQ(usage("quiet").reserve, 0U);
  for (unsigned i = 0; i < 3000; ++i) EXPECT_TRUE(put(m, &kNoisy, "/n" + std::to_string(i), 9000));
  EXPECT_LT(present(m, "/q", 100), 50U);
}

TEST_F(SitesTest, AReserveIsBackAsSoonAsItsSiteIsNamedAgain) {
  const Member m = join();
  for (unsigned i = 0; i < 100; ++i) ASSERT_TRUE(put(m, &kQuiet, "/q" + std::to_string(i), 9000));
  count_often(m);
  ASSERT_EQ(usage("quiet").reserve, 0U);
  m.cache->sites().keep("quiet");
  EXPECT_EQ(usage("quiet").reserve, kMiB / kUnitBytes);
  count_often(m);
  ASSERT_TRUE(put(m, &kQuiet, "/q0", 9000));
  EXPECT_EQ(usage("quiet").reserve, kMiB / kUnitBytes);
  for (unsigned i = 0; i < 3000; ++i) EXPECT_TRUE(put(m, &kNoisy, "/n" + std::to_string(i), 9000));
  EXPECT_EQ(present(m, "/q", 100), 100U);
}

// However many count, time passes once.
TEST_F(SitesTest, TwoWhoCountAgeASiteNoFaster) {
  const Member m = join();
  const Member other = join();
  ASSERT_TRUE(put(m, &kQuiet, "/q", 9000));
  for (std::uint64_t i = 0; i < kWithdrawn - 2; ++i) {
    m.cache->recount(true);
    other.cache->recount(true);
  }
  EXPECT_EQ(usage("quiet").reserve, kMiB / kUnitBytes);
}

TEST_F(SitesTest, BeyondItsReserveASiteIsEvictedLikeAnyOther) {
  const Member m = join();
  for (unsigned i = 0; i < 400; ++i) ASSERT_TRUE(put(m, &kQuiet, "/q" + std::to_string(i), 9000));
  for (unsigned i = 0; i < 3000; ++i) EXPECT_TRUE(put(m, &kNoisy, "/n" + std::to_string(i), 9000));
  EXPECT_GE(used("quiet"), kMiB);
  EXPECT_LT(used("quiet"), kMiB + 200'000);
}

TEST_F(SitesTest, ReservesOfTheWholeSpaceLeaveRoomForOthers) {
  const Member m = join();
  const SiteRules all{"all", {}, {0, 1000}};
  for (unsigned i = 0; i < 1500; ++i) EXPECT_TRUE(put(m, &all, "/a" + std::to_string(i), 9000)) << i;
  for (unsigned i = 0; i < 1500; ++i) EXPECT_TRUE(put(m, &kNoisy, "/n" + std::to_string(i), 9000));
  const std::uint64_t space = m.cache->memory().capacity_units() * kUnitBytes;
  EXPECT_GT(used("all"), space / 2);
  EXPECT_GT(used("noisy"), space / 8);
}

TEST_F(SitesTest, AboveItsQuotaASiteEvictsItsOwn) {
  const Member m = join();
  const SiteRules limited{"limited", {kMiB, 0}, {}};
  for (unsigned i = 0; i < 100; ++i) ASSERT_TRUE(put(m, nullptr, "/o" + std::to_string(i), 9000));
  for (unsigned i = 0; i < 1000; ++i) {
    ASSERT_TRUE(put(m, &limited, "/l" + std::to_string(i), 9000)) << i;
    ASSERT_LE(used("limited"), kMiB) << i;
    // What is used stays longest.
    EXPECT_TRUE(get(m, "/l0")) << i;
  }
  EXPECT_GT(used("limited"), kMiB - 100'000);
  EXPECT_EQ(present(m, "/o", 100), 100U);
  EXPECT_FALSE(put(m, &limited, "/huge", kMiB + 1));
  EXPECT_GT(present(m, "/l", 1000), 50U);
  expect_clean();
}

// Nobody can evict what is being filled: what does not fit beside it costs nothing.
TEST_F(SitesTest, AFillThatCannotFitBesideAnotherEvictsNothing) {
  const Member m = join();
  const SiteRules limited{"limited", {kMiB, 0}, {}};
  for (unsigned i = 0; i < 20; ++i) ASSERT_TRUE(put(m, &limited, "/l" + std::to_string(i), 9000));
  Key asked = m.cache->make_key("/long");
  asked.site = &limited;
  Fill fill;
  ASSERT_EQ(m.cache->begin(asked, fill, {}, true), Begin::kFilling);
  fill.set_head({}, 700'000);
  const std::string half = body_of("/long", 350'000);
  ASSERT_EQ(fill.append(std::as_bytes(std::span(half))), Append::kOk);
  EXPECT_FALSE(put(m, &limited, "/second", 500'000));
  EXPECT_EQ(present(m, "/l", 20), 20U);
  fill.abort();
  EXPECT_TRUE(put(m, &limited, "/second", 500'000));
  expect_clean();
}

TEST_F(SitesTest, WhatIsCountedIsWhatIsThere) {
  const Member m = join();
  const SiteRules site{"site", {}, {}};
  for (unsigned i = 0; i < 50; ++i) ASSERT_TRUE(put(m, &site, "/s" + std::to_string(i), 3000 * i));
  for (unsigned i = 0; i < 50; i += 2) ASSERT_TRUE(put(m, &site, "/s" + std::to_string(i), 100));
  m.cache->purge(PurgeKind::kKey, "/s1");
  {
    Key asked = m.cache->make_key("/aborted");
    asked.site = &site;
    Fill fill;
    ASSERT_EQ(m.cache->begin(asked, fill, {}, true), Begin::kFilling);
    fill.set_head({}, 200'000);
    const std::string half = body_of("/aborted", 100'000);
    ASSERT_EQ(fill.append(std::as_bytes(std::span(half))), Append::kOk);
    EXPECT_GT(used("site"), 100'000U);
  }
  const std::uint64_t counted = used("site");
  EXPECT_GT(counted, 1'000'000U);
  m.cache->recount(true);
  EXPECT_EQ(used("site"), counted);
  m.cache->purge(PurgeKind::kAll, {});
  EXPECT_EQ(used("site"), 0U);
}

TEST_F(SitesTest, WhatADeathLeavesWrongIsCountedAgain) {
  const Member m = join();
  ASSERT_TRUE(put(m, &kQuiet, "/q", 50'000));
  const std::uint64_t right = used("quiet");
  // As if it had died between a store and its count.
  m.cache->sites().add(1, 1'000'000);
  m.cache->recount(true);
  EXPECT_EQ(used("quiet"), right);
}

TEST_F(SitesTest, AFullTableGivesNumbersOfSitesWithoutEntriesAway) {
  const Member m = join();
  std::vector<SiteRules> sites;
  for (unsigned i = 0; i < kSites; ++i) sites.push_back({"s" + std::to_string(i), {}, {kMiB, 0}});
  for (unsigned i = 0; i + 1 < kSites; ++i) {
    EXPECT_EQ(m.cache->sites().number_of(sites[i]), i + 1);
    EXPECT_TRUE(i == 7 || put(m, &sites[i], "/" + sites[i].name, 100));
  }
  EXPECT_EQ(m.cache->sites().number_of(sites[3]), 4U);
  EXPECT_EQ(m.cache->sites().number_of(sites[kSites - 1]), 8U);
  EXPECT_EQ(usage(sites[kSites - 1].name).reserve, kMiB / kUnitBytes);
  ASSERT_TRUE(put(m, &sites[kSites - 1], "/last", 100));
  // Now all have entries: one more is not told apart, and stored all the same.
  EXPECT_EQ(m.cache->sites().number_of(sites[7]), 0U);
  EXPECT_TRUE(put(m, &sites[7], "/more", 100));
}

// Two nodes: what is on the first is all reserved.
class SitesOfTwoNodes : public SitesTest {
 protected:
  SitesOfTwoNodes() {
    gsm::DomainSpec spec;
    spec.name = "nodes";
    spec.nodes = 2;
    spec.bytes_per_node = 8 * kMiB;
    domain_ = api::create_in_memory(spec, 16, 128);
  }
};

TEST_F(SitesOfTwoNodes, WhatIsReservedKeepsItsUsesWhenOthersAreEvicted) {
  const Member m = join();
  // Too few to leave the ring of arrivals.
  for (unsigned i = 0; i < 60; ++i) ASSERT_TRUE(put(m, &kQuiet, "/q" + std::to_string(i), 9000));
  for (unsigned uses = 0; uses < 3; ++uses) ASSERT_EQ(present(m, "/q", 60), 60U);
  auto other = runtime::Instance::join(*domain_, liveness_, {.node = 1, .server = "server/2"});
  ASSERT_TRUE(other);
  const Member n{std::move(*other), nullptr};
  GlobalCache cache(*domain_, *n.instance);
  n.instance->activate();
  Fill fill;
  for (unsigned i = 0; i < 100; ++i) {
    const std::string key = "/n" + std::to_string(i);
    ASSERT_EQ(cache.begin(cache.make_key(key), fill, {}, true), Begin::kFilling);
    ASSERT_TRUE(write(fill, key, 9000));
  }
  const Memory& memory = m.cache->memory();
  const auto uses = [&] {
    std::vector<std::uint8_t> bytes;
    for (std::uint64_t i = 0; i < memory.geometry().descriptors; ++i) {
      const std::uint8_t byte = memory.clock_byte(0, i);
      if ((byte & ClockByte::kSite) == ClockByte::site(1)) bytes.push_back(byte);
    }
    return bytes;
  };
  const auto before = uses();
  ASSERT_EQ(before.size(), 60U);
  ASSERT_EQ(present(m, "/n", 100), 100U);
  for (unsigned i = 0; i < 20; ++i) EXPECT_TRUE(m.cache->evict_some(0, 1)) << i;
  EXPECT_EQ(uses(), before);
  EXPECT_EQ(present(m, "/q", 60), 60U);
  EXPECT_LT(present(m, "/n", 100), 100U);
}

TEST_F(SitesTest, LimitsAreThoseOfTheLastWhoStored) {
  const Member m = join();
  const SiteRules before{"s", {0, 100}, {}};
  const SiteRules after{"s", {kMiB, 0}, {4096, 0}};
  ASSERT_TRUE(put(m, &before, "/a", 100));
  EXPECT_EQ(usage("s").quota, m.cache->memory().capacity_units() / 1000 * 100);
  ASSERT_TRUE(put(m, &after, "/b", 100));
  EXPECT_EQ(usage("s").quota, kMiB / kUnitBytes);
  EXPECT_EQ(usage("s").reserve, 16U);
  EXPECT_EQ(usage("s").sealed, 2U);
}

}  // namespace
}  // namespace mcs::cache
