// SPDX-License-Identifier: Apache-2.0
// A segment is lost: what the others hold goes on being found, and what it held is given back.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "tests/gsm-emu/no_more_files.h"
#include "tests/libglobalcache/cache/cache_kit.h"

namespace mcs::cache {
namespace {

class RebuildTest : public CacheTest {
 protected:
  RebuildTest() { make_anew(); }
  static gsm::DomainSpec spec() {
    gsm::DomainSpec spec;
    spec.name = "rebuild";
    spec.nodes = 2;
    spec.bytes_per_node = 4ULL << 20;
    return spec;
  }
  void make_anew() { domain_ = api::create_in_memory(spec(), 16, 128); }
  Member join_on(std::uint32_t node) { return join_on(node, *domain_); }
  Member join_on(std::uint32_t node, gsm::Domain& domain) {
    Member member;
    auto instance = runtime::Instance::join(domain, liveness_, {.node = node, .server = "server/1"});
    EXPECT_TRUE(instance) << instance.error().message;
    member.instance = std::move(*instance);
    member.cache = std::make_unique<GlobalCache>(domain, *member.instance);
    member.instance->activate();
    return member;
  }
  static std::string key_of(const char* who, int i) { return who + std::to_string(i) + "."; }
  static int found(const Member& member, const char* who, int n) {
    int hits = 0;
    for (int i = 0; i < n; ++i) hits += get(member, key_of(who, i)) ? 1 : 0;
    return hits;
  }
};

TEST_F(RebuildTest, EntriesOnTheOtherSegmentStayHits) {
  for (const std::uint32_t lost : {1U, 0U}) {
    SCOPED_TRACE(lost);
    make_anew();
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
    make_anew();
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

// A view with the same segments: what is in no chain, which a sweep would find, stays there.
TEST_F(RebuildTest, MembersComeAndGoWithoutASweep) {
  const Member stays = join_on(0);
  const Member goes = join_on(1);
  put(stays, "key", 500);
  put(stays, "other", 500);
  const Key key = stays.cache->make_key("key");
  const Memory& memory = stays.cache->memory();
  memory.bucket(memory.home_of(key.hash), key.hash).head.store(Link::kEnd);
  ASSERT_FALSE(get(stays, "key"));
  runtime::Views views(*domain_);
  views.look();
  for (std::uint32_t generation = 2; generation < 6; ++generation) {
    const std::uint16_t members = generation % 2 == 0 ? 1 : 3;
    ASSERT_EQ(views.propose({generation, members, 3}).members, members);
    const_cast<Memory&>(memory).adopt();
    EXPECT_EQ(memory.generation(), generation);
    EXPECT_TRUE(stays.cache->index_is_whole()) << "a commit would look at all entries";
    stays.cache->tick();
    EXPECT_FALSE(get(stays, "key"));
  }
  // Who joins knows of one view only.
  const Member joins = join_on(1);
  EXPECT_TRUE(joins.cache->index_is_whole());
  joins.cache->tick();
  EXPECT_FALSE(get(joins, "key"));
  EXPECT_TRUE(get(joins, "other"));
  // Who did not see the others' views passes over them.
  kill(joins);
  kill(goes);
  ASSERT_EQ(stays.cache->instance().recover_all("test"), 2U);
  lose(1);
  stays.cache->tick();
  EXPECT_TRUE(stays.cache->index_is_whole());
  EXPECT_TRUE(get(stays, "key")) << "memory was lost: now there was a sweep";
}

// Of a node with a kernel of its own nobody but that kernel knows who has ended.
TEST_F(RebuildTest, WhoOnlyItsOwnKernelKnowsOfIsWaitedFor) {
  gsm::DomainSpec separate = spec();
  separate.separate_kernels = true;
  domain_ = api::create_in_memory(separate, 16, 128);
  const Member stays = join_on(0);
  const Member goes = join_on(1);
  put(stays, "key", 500);
  Hit hit;
  ASSERT_EQ(goes.cache->find(goes.cache->make_key("key"), hit).found, Found::kHit);
  lose(1);
  stays.cache->tick();
  ASSERT_FALSE(stays.cache->memory().has_segment(1));
  const std::uint32_t generation = stays.cache->memory().generation();
  runtime::Views views(*domain_);
  views.look();
  ASSERT_EQ(views.propose({generation + 1, 1, 1}).members, 1);
  // Its bytes are free in the emulation, which is no evidence.
  kill(goes);
  EXPECT_FALSE(stays.cache->pins().has_left(goes.slot()));
  put(stays, "key", 600);
  for (int i = 0; i < 3; ++i) stays.cache->tick();
  EXPECT_EQ(stays.cache->reclaim(true), 0U) << "it may still be sending the former one";
  ASSERT_EQ(views.propose({generation + 2, 3, 1}).members, 3);
  EXPECT_TRUE(stays.cache->pins().has_left(goes.slot()));
  EXPECT_NE(stays.cache->reclaim(true), 0U);
  for (int i = 0; i < 3; ++i) stays.cache->tick();
  expect_whole();
  kill(stays);
}

// A segment came back, and one process has no file descriptor left for it.
TEST_F(RebuildTest, WhoCannotMapASegmentStoresNothingAndVotesForNothing) {
  char directory[] = "/dev/shm/mcs-rebuild-test-XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  gsm::DomainSpec on_files = spec();
  on_files.directory = directory;
  {
    const auto for_one = std::move(api::create(on_files).value());
    const auto for_poor = std::move(open(directory, "rebuild").value());
    domain_ = std::move(open(directory, "rebuild").value());
    const Member one = join_on(0, *for_one);
    const Member poor = join_on(0, *for_poor);
    constexpr int kEntries = 40;
    for (int i = 0; i < kEntries; ++i) put(one, key_of("key", i), 500);
    Fill fill;
    ASSERT_EQ(poor.cache->begin(poor.cache->make_key("begun."), fill), Begin::kFilling);
    ASSERT_EQ(::truncate((domain_->path() + "/segment.1.1").c_str(), 0), 0);
    one.cache->tick();
    poor.cache->tick();
    runtime::Views views(*domain_);
    ASSERT_EQ(views.look().segments, 1);
    ASSERT_TRUE(domain_->restore(1, format, true));
    const runtime::View with{views.mine().generation + 1, 3, 3};
    ASSERT_EQ(views.propose(with), with);
    one.cache->tick();
    {
      const gsm::NoMoreFiles none;
      for (int i = 0; i < 3; ++i) poor.cache->tick();
      EXPECT_EQ(views.look(), with) << "it is nobody else's trouble";
      // No matcher: to look at its type UBSan needs a descriptor.
      EXPECT_NE(poor.cache->memory().trouble().find("Too many open files"), std::string::npos);
      EXPECT_EQ(found(poor, "key", kEntries), kEntries);
      EXPECT_EQ(put(poor, "new.", 500), Begin::kBusy);
      EXPECT_FALSE(write(fill, "begun.", 500));
      EXPECT_FALSE(get(one, "begun."));
      // What it takes away is away, and is not freed before it knows that nobody put it back.
      poor.cache->purge(PurgeKind::kKey, key_of("key", 0));
      EXPECT_FALSE(get(one, key_of("key", 0)));
      // One that joins now, too.
      const Member later = join_on(0, *for_poor);
      EXPECT_EQ(put(later, "later.", 500), Begin::kBusy);
      EXPECT_EQ(later.cache->memory().trouble(), poor.cache->memory().trouble());
      kill(later);
    }
    poor.cache->tick();
    EXPECT_EQ(poor.cache->memory().trouble(), "");
    EXPECT_EQ(poor.cache->memory().generation(), one.cache->memory().generation());
    EXPECT_EQ(put(poor, "new.", 500), Begin::kFilling);
    EXPECT_TRUE(get(one, "new."));
    one.cache->instance().recover_all("test");
    for (int i = 0; i < 3; ++i) {
      one.cache->tick();
      poor.cache->tick();
    }
    expect_clean();
    kill(one);
    kill(poor);
  }
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace mcs::cache
