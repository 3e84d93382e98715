// SPDX-License-Identifier: Apache-2.0
// Each kind of damage is made by hand in a domain in private memory; verify must name it, and must
// say nothing about a domain that is merely busy.
#include "libglobalcache/cache/verify.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>
#include <xxhash.h>

#include <atomic>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/cache/inspect.h"
#include "libglobalcache/cache/repair.h"
#include "tests/libglobalcache/test_liveness.h"

namespace mcs::cache {
namespace {

using runtime::Instance;
using runtime::InstanceId;
using runtime::InstanceState;
using runtime::StateWord;
using testing::Contains;
using testing::Field;
using testing::HasSubstr;

struct Member {
  std::unique_ptr<Instance> instance;
  std::unique_ptr<GlobalCache> cache;
  std::uint32_t slot() const { return instance->slot_number(); }
};

// What belonged to a process that was killed: its destructors never run.
template <typename T>
T* keep(T* object) {
  static auto* const kept = new std::vector<void*>;
  kept->push_back(object);
  return object;
}

class VerifyTest : public testing::Test {
 protected:
  explicit VerifyTest(std::uint32_t nodes = 2) {
    gsm::DomainSpec spec;
    spec.name = "verify";
    spec.nodes = nodes;
    spec.bytes_per_node = 16ULL << 20;
    domain_ = api::create_in_memory(spec, 16 * nodes, 128);
    a_ = join(0, "nginx/1");
    b_ = join(nodes - 1, "httpd/2");
  }

  Member join(std::uint32_t node, const char* server) {
    Member member;
    auto instance = Instance::join(*domain_, liveness_, {node, server});
    EXPECT_TRUE(instance) << instance.error().message;
    member.instance = std::move(*instance);
    member.cache = std::make_unique<GlobalCache>(*domain_, *member.instance);
    member.instance->activate();
    return member;
  }

  /// The process ends without leaving; what it held stays named in its slot.
  void kill(Member& member) { liveness_.release(member.slot()); }

  static std::string body_of(std::string_view key, std::size_t bytes) {
    std::string body;
    while (body.size() < bytes) {
      body.append(key).append(std::to_string(body.size())).append(100, ';');
    }
    body.resize(bytes);
    return body;
  }

  static Link fill(Member& member, const Key& key, std::size_t bytes, std::size_t step = 70000) {
    Fill fill;
    if (member.cache->begin(key, fill, {}, true) != Begin::kFilling) return {};
    const std::string body = body_of(key.primary, bytes);
    const std::string_view head = "head";
    fill.set_head(std::as_bytes(std::span(head)), bytes);
    for (std::size_t at = 0; at < bytes; at += step) {
      const auto part = std::as_bytes(std::span(body).subspan(at, std::min(step, bytes - at)));
      if (fill.append(part) != Append::kOk) return {};
    }
    const Link link = fill.link();
    return fill.commit(1) ? link : Link{};
  }
  Link fill(Member& member, const std::string& key, std::size_t bytes) {
    return fill(member, member.cache->make_key(key), bytes);
  }

  Descriptor& descriptor(Link link) { return *memory().resolve(link); }
  const Memory& memory() const { return a_.cache->memory(); }
  Bucket& bucket_of(Link link) {
    const std::uint64_t hash = descriptor(link).sealed[0].load();
    return memory().bucket(memory().home_of(hash), hash);
  }
  CacheArea& area(Member& member) {
    return *reinterpret_cast<CacheArea*>(member.instance->own_component_area());
  }
  Word* ledger(Member& member) {
    return reinterpret_cast<Word*>(member.instance->own_component_area() + sizeof(CacheArea));
  }
  void reseal(Link link, const SealedFields& changed) {
    SealedFields fields = changed;
    Descriptor& d = descriptor(link);
    fields.meta_sum = meta_sum(fields, d.overflow.load(), link.version());
    store_sealed(d, fields);
  }

  VerifyReport check() {
    VerifyOptions options;
    options.rechecks = 2;
    options.interval = std::chrono::milliseconds(0);
    options.dead_grace = std::chrono::milliseconds(0);
    return verify(*domain_, liveness_, options);
  }
  void expect_clean() {
    const VerifyReport report = check();
    EXPECT_TRUE(report.ok) << describe(report);
    EXPECT_EQ(report.leaked_bytes, 0U);
  }
  static std::string describe(const VerifyReport& report) {
    std::string text;
    for (const Problem& p : report.problems) {
      text += fmt::format("{}: {}: {}\n", p.kind, p.where, p.detail);
    }
    return text;
  }
  /// The report names the kind of damage, with `detail` in its sentence.
  void expect_problem(const char* kind, const char* detail = "", const char* where = "") {
    const VerifyReport report = check();
    EXPECT_FALSE(report.ok);
    EXPECT_THAT(report.problems, Contains(testing::AllOf(Field(&Problem::kind, kind),
                                                         Field(&Problem::detail, HasSubstr(detail)),
                                                         Field(&Problem::where, HasSubstr(where)))))
        << describe(report);
  }

  /// Whatever a test has damaged is mended by those who live, and then nothing is wrong.
  void TearDown() override {
    Member mender = join(0, "mender");
    if (!mender.instance) return;
    Repairer repairer(*mender.cache);
    VerifyOptions options;
    options.rechecks = 1;
    options.interval = options.dead_grace = {};
    for (int round = 0; round < 6; ++round) {
      for (Member* member : {&a_, &b_}) {
        if (!member->instance || !liveness_.held(member->slot())) continue;
        member->instance->tick();
        member->cache->tick();
      }
      mender.instance->recover_all("mending");
      repairer.run(options);
      mender.cache->tick();
    }
    options.lost_is_wrong = false;
    const VerifyReport report = verify(*domain_, liveness_, options);
    EXPECT_TRUE(report.ok) << describe(report);
    EXPECT_EQ(report.leaked_bytes, 0U);
    mender.cache->leave();
    mender.instance->leave();
  }

  std::unique_ptr<gsm::Domain> domain_;
  TestLiveness liveness_;
  Member a_;
  Member b_;
};

TEST_F(VerifyTest, EmptyDomainIsClean) { expect_clean(); }

TEST_F(VerifyTest, CountsWhatIsThere) {
  for (int i = 0; i < 50; ++i) ASSERT_NE(fill(a_, fmt::format("/a/{}", i), 3000).value, 0U);
  for (int i = 0; i < 20; ++i) ASSERT_NE(fill(b_, fmt::format("/b/{}", i), 300000).value, 0U);
  Fill open;
  ASSERT_EQ(a_.cache->begin(a_.cache->make_key("/open"), open), Begin::kFilling);
  Hit hit;
  ASSERT_EQ(b_.cache->find(b_.cache->make_key("/a/7"), hit).found, Found::kHit);
  ASSERT_TRUE(a_.cache->retire(hit.link));
  const VerifyReport report = check();
  EXPECT_TRUE(report.ok) << describe(report);
  EXPECT_EQ(report.entries, 71U);
  EXPECT_EQ(report.sealed, 69U);
  EXPECT_EQ(report.filling, 1U);
  EXPECT_EQ(report.retired, 1U);
  EXPECT_EQ(report.pins, 1U);
  EXPECT_EQ(report.checked_bodies, 69U);
  EXPECT_EQ(report.instances, 2U);
  EXPECT_EQ(report.units_used, a_.cache->space().used_units(0) + a_.cache->space().used_units(1));
  EXPECT_EQ(report.units_total, memory().capacity_units());
  EXPECT_EQ(report.walks, 1U);
  b_.cache->release(hit);
}

TEST_F(VerifyTest, LeavingAndRecoveringLeavesNothing) {
  Member c = join(0, "nginx/3");
  Fill open;
  ASSERT_EQ(c.cache->begin(c.cache->make_key("/open"), open), Begin::kFilling);
  Hit hit;
  ASSERT_NE(fill(c, "/x", 1000).value, 0U);
  ASSERT_EQ(c.cache->find(c.cache->make_key("/x"), hit).found, Found::kHit);
  kill(c);
  expect_problem("dead-instance", "nobody has recovered it");
  EXPECT_TRUE(a_.instance->recover(c.slot(), "test"));
  expect_clean();
  // Its own objects must not act any more.
  keep(new Fill(std::move(open)));
  b_.cache->leave();
  b_.instance->leave();
  expect_clean();
}

// ---- space

TEST_F(VerifyTest, NamesLeakedSpace) {
  ASSERT_NE(fill(a_, "/x", 5000).value, 0U);
  memory().group(1, 3).bits[6].fetch_or(0xffULL << 20);
  const VerifyReport report = check();
  EXPECT_EQ(report.leaked_bytes, 8 * kUnitBytes);
  expect_problem("leaked-space", "nobody owns it", "node 1 group 3 units 404-411");
}

TEST_F(VerifyTest, NamesSpaceThatIsNotMarked) {
  const Link link = fill(a_, "/x", 5000);
  const Extent extent{descriptor(link).sealed[kExtentWord].load()};
  memory().group(extent.segment(), extent.group()).bits[extent.first() % kGroupUnits / 64] = 0;
  expect_problem("space-not-marked", "sealed");
}

TEST_F(VerifyTest, NamesSpaceOwnedTwice) {
  const Link one = fill(a_, "/one", 5000);
  const Link other = fill(a_, "/two", 5000);
  SealedFields fields = load_sealed(descriptor(other));
  fields.extents = load_sealed(descriptor(one)).extents;
  reseal(other, fields);
  expect_problem("space-owned-twice", " and ");
  expect_problem("leaked-space");
  expect_problem("entry-damaged", "its key and head fail");
}

TEST_F(VerifyTest, KnowsSpaceInAnOperationInProgress) {
  Group& group = memory().group(0, 2);
  const Link entry = fill(a_, "/x", 100);
  const Extent extent = Extent::make(0, 2 * kGroupUnits + 5, 4);
  {
    Instance::Op op(*a_.instance);
    op.record().phase = static_cast<std::uint64_t>(Phase::kLocking);
    ASSERT_TRUE(op.try_lock(group.lock, memory().lock_ref(0, group.lock)));
    op.record().a = extent.value;
    op.record().b = entry.value;
    op.record().c = 0;
    op.record().phase = static_cast<std::uint64_t>(Phase::kMarking);
    group.bits[0].fetch_or(0xfULL << 5);
    const VerifyReport report = check();
    EXPECT_TRUE(report.ok) << describe(report);
    EXPECT_EQ(report.locks_held, 1U);
    op.record().phase = static_cast<std::uint64_t>(Phase::kDone);
  }
  expect_problem("leaked-space");
}

TEST_F(VerifyTest, KnowsAnEntryThatIsBeingFreed) {
  const Link link = fill(a_, "/x", 5000);
  Descriptor& d = descriptor(link);
  const Extent extent{d.sealed[kExtentWord].load()};
  Hit hit;
  ASSERT_EQ(b_.cache->find(b_.cache->make_key("/x"), hit).found, Found::kHit);
  ASSERT_TRUE(a_.cache->retire(link));
  b_.cache->release(hit);
  Group& group = memory().group(extent.segment(), extent.group());
  Instance::Op op(*a_.instance);
  op.record().a = extent.value;
  op.record().b = link.value;
  op.record().c = 0;
  op.record().d = 0;
  ASSERT_TRUE(op.try_lock(group.lock, memory().lock_ref(extent.segment(), group.lock)));
  op.record().phase = static_cast<std::uint64_t>(Phase::kClearing);
  group.bits[extent.first() % kGroupUnits / 64] = 0;
  expect_clean();
}

// ---- chains

TEST_F(VerifyTest, NamesABrokenChain) {
  const Link link = fill(a_, "/x", 100);
  bucket_of(link).head = 0x1234;
  expect_problem("chain-broken", "0x1234");
  expect_problem("entry-unreachable", "not in the chain");
}

TEST_F(VerifyTest, NamesAnUnreachableEntry) {
  const Link link = fill(a_, "/x", 100);
  bucket_of(link).head = Link::kEnd;
  expect_problem("entry-unreachable");
}

TEST_F(VerifyTest, NamesALinkToAFreedEntry) {
  const Link link = fill(a_, "/x", 100);
  Bucket& bucket = bucket_of(link);
  ASSERT_TRUE(a_.cache->retire(link));
  ASSERT_GT(a_.cache->reclaim(), 0U);
  expect_clean();
  bucket.head = link.value;
  expect_problem("chain-stale", "free");
}

TEST_F(VerifyTest, NamesALoop) {
  const Link link = fill(a_, "/x", 100);
  descriptor(link).next = link.value;
  expect_problem("chain-loop");
}

TEST_F(VerifyTest, NamesAnEntryInAForeignChain) {
  const Link link = fill(a_, "/x", 100);
  const std::uint64_t hash = descriptor(link).sealed[0].load();
  memory().bucket(memory().home_of(hash), hash + (1U << 31)).head = link.value;
  expect_problem("chain-foreign");
}

TEST_F(VerifyTest, NamesAnUnlinkedEntryThatIsStillLinked) {
  const Link link = fill(a_, "/x", 100);
  Hit hit;
  ASSERT_EQ(b_.cache->find(b_.cache->make_key("/x"), hit).found, Found::kHit);
  Bucket& bucket = bucket_of(link);
  ASSERT_TRUE(a_.cache->retire(link));
  expect_clean();
  bucket.head = link.value;
  expect_problem("chain-unlinked");
}

TEST_F(VerifyTest, NamesTwoEntriesOfOneKey) {
  const Key x = a_.cache->make_key("/key/x");
  Key y = a_.cache->make_key("/key/y");
  y.hash = x.hash;
  ASSERT_NE(fill(a_, x, 100).value, 0U);
  const Link second = fill(a_, y, 100);
  ASSERT_NE(second.value, 0U);
  expect_clean();
  SealedFields fields = load_sealed(descriptor(second));
  const Extent extent{fields.extents[0]};
  const std::string head = "/key/xhead";
  ASSERT_TRUE(domain_->segment(extent.segment())
                  .write_payload(extent.first() * kUnitBytes, std::as_bytes(std::span(head))));
  fields.head_sum = static_cast<std::uint32_t>(XXH3_64bits(head.data(), head.size()));
  reseal(second, fields);
  expect_problem("entry-duplicate", "same key");
}

// ---- entries

TEST_F(VerifyTest, NamesADamagedDescriptor) {
  const Link link = fill(a_, "/x", 100);
  descriptor(link).state = 0;
  expect_problem("descriptor-damaged", "0x0");
  expect_problem("leaked-space");
}

TEST_F(VerifyTest, NamesDamagedFields) {
  const Link link = fill(a_, "/x", 100);
  descriptor(link).sealed[1].fetch_xor(1ULL << 40);
  expect_problem("entry-damaged", "fields fail their checksum");
}

TEST_F(VerifyTest, NamesADamagedHead) {
  const Link link = fill(a_, "/x", 100);
  const Extent extent{descriptor(link).sealed[kExtentWord].load()};
  ASSERT_TRUE(
      domain_->segment(extent.segment())
          .write_payload(extent.first() * kUnitBytes + 1, std::as_bytes(std::span("!", 1))));
  expect_problem("entry-damaged", "key and head fail");
}

TEST_F(VerifyTest, NamesADamagedBodyOnlyIfAsked) {
  const Link link = fill(b_, "/x", 90000);
  const Extent extent{descriptor(link).sealed[kExtentWord].load()};
  ASSERT_TRUE(
      domain_->segment(extent.segment())
          .write_payload(extent.first() * kUnitBytes + 50000, std::as_bytes(std::span("!", 1))));
  expect_problem("entry-damaged", "body fails its checksum");
  VerifyOptions options;
  options.bodies = false;
  EXPECT_TRUE(verify(*domain_, liveness_, options).ok);
}

TEST_F(VerifyTest, NamesAnEntryThatClaimsMoreThanItHas) {
  const Link link = fill(a_, "/x", 100);
  SealedFields fields = load_sealed(descriptor(link));
  fields.body_bytes = 1000000;
  reseal(link, fields);
  expect_problem("entry-damaged", "it has room for");
}

TEST_F(VerifyTest, NamesAFillWithoutItsFiller) {
  Fill open;
  ASSERT_EQ(a_.cache->begin(a_.cache->make_key("/open"), open), Begin::kFilling);
  expect_clean();
  for (Word& word : area(a_).fills) word = 0;
  expect_problem("fill-orphaned", "does not know of it");
  descriptor(open.link()).state = EntryWord::make(open.link().version(), EntryState::kFilling, 0);
  expect_problem("fill-orphaned", "by nobody");
}

TEST_F(VerifyTest, NamesARetiredEntryWithoutItsOwner) {
  const Link link = fill(a_, "/x", 100);
  Hit hit;
  ASSERT_EQ(b_.cache->find(b_.cache->make_key("/x"), hit).found, Found::kHit);
  ASSERT_TRUE(a_.cache->retire(link));
  expect_clean();
  for (Word& word : area(a_).limbo) word = 0;
  expect_problem("retired-orphaned", "does not know of it");
  const std::uint64_t orphan =
      EntryWord::make(link.version(), EntryState::kRetired, 0, 0, EntryWord::kUnlinked);
  descriptor(link).state = orphan;
  expect_problem("retired-orphaned", "nobody looks for it");
  memory().state(link.segment()).orphans = 1;
  expect_clean();
}

// ---- instances

TEST_F(VerifyTest, NamesADamagedPin) {
  area(a_).ledger_high = 2;
  ledger(a_)[1] = 0xdeadbeef;
  expect_problem("pin-damaged", "0xdeadbeef", "nginx/1");
}

TEST_F(VerifyTest, NamesAPinThatReclaimWouldNotSee) {
  const Link link = fill(a_, "/x", 100);
  ledger(b_)[5] = link.value;
  area(b_).ledger_high = 5;
  expect_problem("pin-unseen", "", "httpd/2");
  area(b_).ledger_high = 6;
  expect_clean();
  area(b_).ledger_high = 1000000;
  expect_problem("ledger-damaged");
}

TEST_F(VerifyTest, NamesWhatAFreeSlotStillHolds) {
  const Link link = fill(a_, "/x", 100);
  ledger(b_)[0] = link.value;
  b_.instance->leave();
  expect_problem("free-slot", "pins");
  ledger(b_)[0] = 0;
  area(b_).fills[9] = link.value;
  expect_problem("free-slot", "fills");
  area(b_).fills[9] = 0;
  b_.instance->own().ops[3].lock = 5;
  expect_problem("free-slot", "operations");
}

TEST_F(VerifyTest, NamesDamagedSlots) {
  b_.instance->own().number = 77;
  expect_problem("slot-damaged", "not its own");
  b_.instance->own().number = b_.slot();
  area(b_).limbo[0] = 0x55;
  expect_problem("slot-damaged", "names no entry");
  area(b_).limbo[0] = 0;
  b_.instance->own().ops[0].lock = 77;
  expect_problem("slot-damaged", "no lock");
  b_.instance->own().ops[0].lock = 0;
  b_.instance->control(b_.slot()).state = 3;
  expect_problem("slot-damaged", "state word");
}

TEST_F(VerifyTest, NamesDamagedAndOrphanedLocks) {
  Word& lock = reinterpret_cast<Word&>(memory().group(0, 1).lock);
  const std::uint64_t free = lock;
  lock = 0;
  expect_problem("lock-damaged", "neither free nor held", "node 0 group 1");
  lock = OwnerLock::kHeldKind | InstanceId::make(9999, 1).value;
  expect_problem("lock-damaged", "nobody who can exist");
  lock = OwnerLock::kHeldKind | b_.instance->id().value;
  expect_problem("lock-orphaned", "does not know of it");
  lock = OwnerLock::kHeldKind | InstanceId::make(b_.slot(), 77).value;
  expect_problem("lock-orphaned", "not alive");
  lock = free;
  Bucket& bucket = memory().bucket_at(1, 3);
  reinterpret_cast<Word&>(bucket.lock) = 5;
  expect_problem("lock-damaged", "", "node 1 bucket 3");
  bucket.lock.format();
  reinterpret_cast<Word&>(a_.instance->totals(1).lock) = 5;
  expect_problem("lock-damaged", "", "node 1 statistics 0");
}

TEST_F(VerifyTest, NamesTheLockOfADeadInstance) {
  Member c = join(1, "nginx/3");
  Bucket& bucket = memory().bucket_at(1, 3);
  keep(new Instance::Op(*c.instance));
  auto* op = keep(new Instance::Op(*c.instance));
  ASSERT_TRUE(op->try_lock(bucket.lock, memory().lock_ref(1, bucket.lock)));
  expect_clean();
  kill(c);
  expect_problem("lock-orphaned", "not alive", "bucket 3");
  ASSERT_TRUE(a_.instance->recover(c.slot(), "test"));
  expect_clean();
}

TEST_F(VerifyTest, NamesDamagedHeaders) {
  a_.instance->totals(0).active = 7;
  expect_problem("statistics");
  a_.instance->totals(0).active = 1;
  domain_->segment(1).metadata()[40] ^= std::byte{1};
  expect_problem("segment-header", "", "node 1");
  domain_->segment(1).metadata()[40] ^= std::byte{1};
  expect_clean();
  domain_->segment(1).mark_lost();
  expect_problem("segment-lost", "", "node 1");
}

// ---- overflow

class VerifyOverflowTest : public VerifyTest {
 protected:
  VerifyOverflowTest() : VerifyTest(1) {}

  /// Fills the memory up, then leaves free runs of 20 units between entries of 16.
  void fragment() {
    std::vector<Link> links;
    const auto sealed = [&] {
      return View(*domain_).usage(0).by_state[static_cast<unsigned>(EntryState::kSealed)];
    };
    const std::uint64_t before = sealed();
    do {
      const std::size_t n = links.size();
      links.push_back(fill(a_, fmt::format("/filler/{}", n), n % 2 == 0 ? 5000 : 4000));
    } while (links.size() % 64 != 0 || sealed() == before + links.size());
    for (std::size_t i = 0; i < links.size(); i += 2) {
      a_.cache->retire(links[i]);
      if (i % 100 == 0) a_.cache->reclaim();
    }
    a_.cache->reclaim();
  }
  /// An entry whose extents do not fit into its descriptor.
  Link fill_in_pieces() {
    fragment();
    return fill(a_, "/pieces", 150000);
  }
};

TEST_F(VerifyOverflowTest, NamesDamagedOverflowBlocks) {
  const Link link = fill_in_pieces();
  ASSERT_NE(link.value, 0U);
  ASSERT_GT(load_sealed(descriptor(link)).extent_count, 2U);
  VerifyReport report = check();
  ASSERT_TRUE(report.ok) << describe(report);
  ASSERT_GT(report.overflow, 0U);
  Overflow& block = *memory().resolve_overflow(Link{descriptor(link).overflow.load()});
  const std::uint64_t extent = block.extents[0];
  block.extents[0] = 0;
  expect_problem("entry-damaged", "an extent (0x0) is none");
  block.extents[0] = extent;
  expect_clean();
  block.sum.fetch_xor(1);
  expect_problem("entry-damaged", "overflow blocks fail");
  block.sum.fetch_xor(1);
  block.state.fetch_xor(1ULL << 42);
  expect_problem("entry-damaged", "stale");
  expect_problem("overflow-orphaned");
}

TEST_F(VerifyOverflowTest, NamesAnOverflowBlockThatNobodyNames) {
  Word intent{0};
  const Link block = a_.cache->space().claim_descriptor(0, EntryState::kOverflow, intent);
  ASSERT_NE(block.value, 0U);
  expect_problem("overflow-orphaned", "no entry and no operation");
}

TEST_F(VerifyOverflowTest, FreedOverflowBlocksServeAsEntriesAgain) {
  for (int round = 0; round < 3; ++round) {
    const Link link = fill_in_pieces();
    ASSERT_NE(link.value, 0U);
    ASSERT_GT(load_sealed(descriptor(link)).extent_count, 11U);
    a_.cache->retire(link);
    a_.cache->reclaim();
    expect_clean();
    // Every descriptor, also one that was a block, becomes an entry and is given back.
    for (std::uint64_t i = 0; i < memory().geometry().descriptors / 2; ++i) {
      fill(a_, fmt::format("/again/{}/{}", round, i), 300);
    }
    expect_clean();
    a_.cache->purge(PurgeKind::kAll, "", false);
    for (int i = 0; i < 200 && a_.cache->reclaim() > 0; ++i) {
    }
    expect_clean();
  }
}

// ---- beside others

TEST_F(VerifyTest, SaysNothingAboutADomainThatIsBusy) {
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> fills{0};
  std::atomic<unsigned> seed{1};
  const auto work = [&](Member& member) {
    std::mt19937 random(seed.fetch_add(1));
    while (!stop) {
      const std::string key = fmt::format("/{}", random() % 400);
      Hit hit;
      const Key k = member.cache->make_key(key);
      if (member.cache->find(k, hit).found == Found::kHit) {
        if (random() % 8 == 0) member.cache->retire(hit.link);
        member.cache->release(hit);
      } else if (fill(member, k, random() % 3 == 0 ? random() % 500000 : random() % 9000).value !=
                 0) {
        ++fills;
      }
      if (random() % 64 == 0) member.cache->tick();
    }
  };
  std::vector<std::thread> threads;
  for (Member* member : {&a_, &a_, &b_}) threads.emplace_back([&, member] { work(*member); });
  while (fills == 0) std::this_thread::yield();
  Member reader = join(0, "mcs-test");
  VerifyOptions options;
  options.pins = &reader.cache->pins();
  for (int i = 0; i < 10; ++i) {
    const VerifyReport report = verify(*domain_, liveness_, options);
    EXPECT_TRUE(report.ok) << describe(report);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(fills.load(), 0U);
  options.pins = nullptr;
  const VerifyReport report = verify(*domain_, liveness_, options);
  EXPECT_TRUE(report.ok) << describe(report);
  EXPECT_EQ(report.pins, 0U);
  EXPECT_EQ(report.locks_held, 0U);
}

}  // namespace
}  // namespace mcs::cache
