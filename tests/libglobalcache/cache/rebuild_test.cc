// SPDX-License-Identifier: Apache-2.0
// A segment is lost: what the others hold goes on being found, and what it held is given back.
#include <cstring>

#include "tests/libglobalcache/cache/cache_kit.h"

namespace mcs::cache {
namespace {

class RebuildTest : public CacheTest {
 protected:
  RebuildTest() {
    gsm::DomainSpec spec;
    spec.name = "rebuild";
    spec.nodes = 2;
    spec.bytes_per_node = 4ULL << 20;
    domain_ = api::create_in_memory(spec, 16, 128);
  }
  Member join_on(std::uint32_t node) {
    Member member;
    auto instance = runtime::Instance::join(*domain_, liveness_, {.node = node, .server = "server/1"});
    EXPECT_TRUE(instance) << instance.error().message;
    member.instance = std::move(*instance);
    member.cache = std::make_unique<GlobalCache>(*domain_, *member.instance);
    member.instance->activate();
    return member;
  }
  void lose(std::uint32_t node) {
    gsm::Segment& segment = domain_->segment(node);
    std::memset(segment.metadata(), 0, segment.header().size);
    segment.mark_lost();
  }
  static std::string key_of(const char* who, int i) { return who + std::to_string(i) + "."; }
  static int found(const Member& member, const char* who, int n) {
    int hits = 0;
    for (int i = 0; i < n; ++i) hits += get(member, key_of(who, i)) ? 1 : 0;
    return hits;
  }
  void expect_whole() {
    VerifyOptions options;
    options.lost_is_wrong = false;
    const VerifyReport report = verify(*domain_, liveness_, options);
    for (const Problem& problem : report.problems) {
      ADD_FAILURE() << problem.kind << " " << problem.where << ": " << problem.detail;
    }
    EXPECT_EQ(report.leaked_bytes, 0U);
  }
};

TEST_F(RebuildTest, EntriesOnTheOtherSegmentStayHits) {
  for (const std::uint32_t lost : {1U, 0U}) {
    SCOPED_TRACE(lost);
    gsm::DomainSpec spec;
    spec.name = "rebuild";
    spec.nodes = 2;
    spec.bytes_per_node = 4ULL << 20;
    domain_ = api::create_in_memory(spec, 16, 128);
    const Member stays = join_on(1 - lost);
    const Member goes = join_on(lost);
    constexpr int kEntries = 300;
    for (int i = 0; i < kEntries; ++i) {
      put(stays, key_of("stays", i), 500);
      put(goes, key_of("goes", i), 500);
    }
    EXPECT_EQ(found(stays, "goes", kEntries), kEntries);
    lose(lost);
    EXPECT_FALSE(stays.cache->is_homeless());
    stays.cache->tick();
    goes.cache->tick();
    EXPECT_TRUE(stays.cache->index_is_whole());
    EXPECT_EQ(found(stays, "stays", kEntries), kEntries);
    EXPECT_EQ(found(stays, "goes", kEntries), 0);
    // It lives, but its slot does not: until it has joined anew nothing is freed.
    EXPECT_TRUE(goes.cache->is_homeless());
    for (int i = 0; i < 50; ++i) put(stays, key_of("stays", i), 600);
    EXPECT_EQ(stays.cache->reclaim(true), 0U);
    EXPECT_TRUE(goes.cache->retire_instance());
    kill(goes);
    EXPECT_NE(stays.cache->reclaim(true), 0U);
    stays.cache->tick();
    for (int i = 0; i < kEntries; ++i) put(stays, key_of("goes", i), 700);
    EXPECT_EQ(found(stays, "stays", kEntries) + found(stays, "goes", kEntries), 2 * kEntries);
    expect_whole();
    kill(stays);
  }
}

// Entries whose bytes lie on both segments: they go with either, and so does their space.
TEST_F(RebuildTest, WhatLayOnBothIsGivenBack) {
  for (const std::uint32_t lost : {1U, 0U}) {
    SCOPED_TRACE(lost);
    gsm::DomainSpec spec;
    spec.name = "rebuild";
    spec.nodes = 2;
    spec.bytes_per_node = 4ULL << 20;
    domain_ = api::create_in_memory(spec, 16, 128);
    const Member on_0 = join_on(0);
    const Member on_1 = join_on(1);
    put(on_0, "small", 3000);
    bool stored = false;
    put(on_0, "large", 5'000'000, &stored);
    ASSERT_TRUE(stored);
    ASSERT_NE(on_0.cache->space().used_units(1), 0U) << "it fits on one segment";
    const std::uint64_t used = on_0.cache->space().used_units(lost == 0 ? 1 : 0);
    lose(lost);
    const Member& stays = lost == 0 ? on_1 : on_0;
    kill(lost == 0 ? on_0 : on_1);
    for (int i = 0; i < 3; ++i) stays.cache->tick();
    EXPECT_FALSE(get(stays, "large"));
    EXPECT_EQ(get(stays, "small"), lost == 1);
    EXPECT_LT(stays.cache->space().used_units(lost == 0 ? 1 : 0), used);
    expect_whole();
    kill(stays);
  }
}

// Whether it was expelled nobody can write down any more: it counts as expelled, and what it had begun is
// everybody's to take away.
TEST_F(RebuildTest, WhoseSlotIsLostPublishesNothing) {
  std::vector<Member> on_0;
  const std::uint32_t per_node = 8;
  for (std::uint32_t i = 0; i < per_node; ++i) on_0.push_back(join_on(0));
  const Member goes = join_on(0);
  ASSERT_EQ(goes.instance->slot_number() / per_node, 1U) << "its slot should be on the other segment";
  Fill fills[2];
  const std::vector<std::byte> body(3000);
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(goes.cache->begin(goes.cache->make_key(key_of("key", i)), fills[i]), Begin::kFilling);
    fills[i].set_head(std::span(body).first(20), body.size());
    ASSERT_EQ(fills[i].append(body), Append::kOk);
  }
  ASSERT_EQ(fills[0].link().segment(), 0U);
  lose(1);
  // One is about to be sealed before anybody has looked, the other one after that.
  EXPECT_FALSE(fills[0].commit(1));
  on_0[0].cache->tick();
  EXPECT_FALSE(on_0[0].cache->still_filling(fills[1].link()));
  EXPECT_FALSE(fills[1].commit(1));
  Fill another;
  EXPECT_EQ(goes.cache->begin(goes.cache->make_key("another"), another), Begin::kBusy);
  EXPECT_EQ(found(on_0[0], "key", 2), 0);
  kill(goes);
  for (int i = 0; i < 3; ++i) on_0[0].cache->tick();
  expect_whole();
  for (const Member& member : on_0) kill(member);
}

// Who fills a key while its older entry is in no chain replaces it all the same.
TEST_F(RebuildTest, NothingThatWasReplacedComesBack) {
  const Member stays = join_on(0);
  const Member goes = join_on(1);
  constexpr int kEntries = 200;
  for (int i = 0; i < kEntries; ++i) put(stays, key_of("key", i), 500);
  lose(1);
  kill(goes);
  // The view without it, but nothing is swept yet.
  const_cast<Memory&>(stays.cache->memory()).look_after();
  EXPECT_FALSE(stays.cache->index_is_whole());
  for (int i = 0; i < kEntries; i += 2) put(stays, key_of("key", i), 900);
  for (int i = 1; i < kEntries; i += 4) stays.cache->purge(PurgeKind::kKey, key_of("key", i));
  stays.cache->tick();
  EXPECT_TRUE(stays.cache->index_is_whole());
  for (int i = 0; i < kEntries; ++i) {
    Hit hit;
    const bool there =
        stays.cache->find(stays.cache->make_key(key_of("key", i)), hit).found == Found::kHit;
    EXPECT_EQ(there, i % 4 != 1) << i;
    if (!there) continue;
    EXPECT_EQ(hit.body_bytes(), i % 2 == 0 ? 900U : 500U) << i;
    stays.cache->release(hit);
  }
  expect_whole();
}

}  // namespace
}  // namespace mcs::cache
