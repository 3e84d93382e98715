// SPDX-License-Identifier: Apache-2.0
// The same operations that are interleaved and killed elsewhere, by threads: ThreadSanitizer sees
// one process only. Two processes' instances, two threads each.
#include <fmt/format.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "tests/libglobalcache/cache/cache_kit.h"

namespace mcs::cache {
namespace {

class ConcurrencyTest : public CacheTest {
 protected:
  ConcurrencyTest() : CacheTest(2ULL << 20) {}
};

constexpr unsigned kKeys = 24;
std::string key_of(unsigned i) { return "/object/" + std::to_string(i); }
// Sizes of one, some and many extents.
std::size_t size_of(unsigned i) { return i % 3 == 0 ? 200 : i % 3 == 1 ? 7000 : 90000; }

TEST_F(ConcurrencyTest, NobodySeesAnythingWrong) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  fmt::print("seed {}\n", seed);
  const Member members[] = {join(), join()};
  std::atomic<unsigned> hits{0};
  std::atomic<unsigned> stored{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + t);
      const Member& m = members[t % 2];
      for (unsigned n = 0; n < 1500; ++n) {
        const unsigned k = random() % kKeys;
        switch (random() % 16) {
          case 0:
            m.cache->purge(PurgeKind::kKey, key_of(k));
            break;
          case 1:
            m.cache->evict_some(0, 1 + random() % 300);
            break;
          case 2:
            m.instance->tick();
            m.cache->tick();
            break;
          case 3: {
            Fill fill;
            if (m.cache->begin(m.cache->make_key(key_of(k)), fill) == Begin::kFilling) fill.abort();
            break;
          }
          case 4: {
            Hit hit;
            const FindResult found = m.cache->find(m.cache->make_key(key_of(k)), hit);
            if (found.filling.value != 0) m.cache->pass_over(found.filling);
            if (found.found == Found::kHit) m.cache->release(hit);
            break;
          }
          case 5:
          case 6:
          case 7: {
            bool ok = false;
            put(m, key_of(k), size_of(k), &ok);
            stored += ok ? 1 : 0;
            break;
          }
          default:
            hits += get(m, key_of(k)) ? 1 : 0;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(hits, 0U);
  EXPECT_GT(stored, 0U);
  for (const Member& m : members) m.cache->tick();
  expect_clean();
}

TEST_F(ConcurrencyTest, SurvivorsWorkWhileTheDeadAreRecovered) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  fmt::print("seed {}\n", seed);
  const Member survivors[] = {join(), join()};
  static auto* const dead_ones = new std::vector<Member>;  // their destructors never run
  static auto* const fills = new std::vector<Fill*>;
  std::vector<Member>& dead = *dead_ones;
  for (unsigned i = 0; i < 6; ++i) {
    dead.push_back(join());
    const Member& m = dead.back();
    put(m, key_of(i), size_of(i));
    Hit hit;
    m.cache->find(m.cache->make_key(key_of(i)), hit);
    fills->push_back(new Fill);
    ASSERT_EQ(m.cache->begin(m.cache->make_key(key_of(100 + i)), *fills->back()), Begin::kFilling);
  }
  for (const Member& m : dead) kill(m);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + t);
      const Member& m = survivors[t % 2];
      for (unsigned n = 0; n < 300; ++n) {
        if (n == 10 + 20 * t) m.instance->recover_all("test");
        const unsigned k = random() % 2 == 0 ? random() % 6 : 100 + random() % 6;
        if (random() % 3 == 0) {
          put(m, key_of(k), size_of(k));
        } else {
          get(m, key_of(k));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Member& m : survivors) {
    m.instance->recover_all("test");
    m.cache->tick();
  }
  for (unsigned i = 0; i < 6; ++i) {
    EXPECT_EQ(put(survivors[0], key_of(100 + i), 100), Begin::kFilling);
    EXPECT_TRUE(get(survivors[1], key_of(100 + i)));
  }
  expect_clean();
}

}  // namespace
}  // namespace mcs::cache
