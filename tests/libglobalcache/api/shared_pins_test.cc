// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/api/shared_pins.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

#include "libglobalcache/api/process.h"
#include "tests/libglobalcache/api/api_kit.h"

namespace mcs::api::testing {
namespace {

class SharedPinsTest : public ::testing::Test {
 protected:
  TestDomain domain_{1};
  mcs_process* process_ = domain_.join("nginx/1.22.1");
  cache::Pins& pins_ = process_->cache->pins();
  SharedPins shared_{pins_, static_cast<std::uint32_t>(
                                process_->cache->memory().geometry().ledger_words)};

  int share(std::uint64_t entry) {
    const cache::Link link = link_of(entry);
    return shared_.share(link, pins_.pin(link));
  }
  static cache::Link link_of(std::uint64_t entry) {
    cache::Link link;
    link.value = 1 + entry;
    return link;
  }
};

TEST_F(SharedPinsTest, OneWordForAllUsersOfAnEntry) {
  const int first = share(1);
  EXPECT_EQ(share(1), first);
  EXPECT_NE(share(2), first);
  EXPECT_EQ(pins_.held(), 2U);
  shared_.give_back(first);
  EXPECT_EQ(pins_.held(), 2U);
  shared_.give_back(first);
  EXPECT_EQ(pins_.held(), 1U);
}

TEST_F(SharedPinsTest, PinsThatWereNeverSharedAreGivenBackAsTheyAre) {
  const int own = pins_.pin(link_of(7));
  const int shared = share(7);
  EXPECT_NE(own, shared);
  shared_.give_back(own);
  EXPECT_EQ(pins_.held(), 1U);
  shared_.give_back(shared);
  shared_.give_back(-1);
  EXPECT_EQ(pins_.held(), 0U);
}

TEST_F(SharedPinsTest, ThreadsShareAndGiveBackAtRandom) {
  constexpr int kThreads = 8;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::vector<int> held;
      for (int i = 0; i < 20000; ++i) {
        if (held.size() < 8 && random() % 2 == 0) {
          held.push_back(share(random() % 4));
        } else if (!held.empty()) {
          shared_.give_back(held.back());
          held.pop_back();
        }
      }
      for (const int pin : held) shared_.give_back(pin);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pins_.held(), 0U);
}

}  // namespace
}  // namespace mcs::api::testing
