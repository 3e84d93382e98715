// SPDX-License-Identifier: Apache-2.0
// Many requests for one key: one goes to the origin, the others wait, follow, or take over.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "libglobalcache/api/process.h"
#include "libglobalcache/http/key.h"
#include "tests/libglobalcache/api/api_kit.h"

namespace mcs::api::testing {
namespace {

const OwnedFields kFresh = {{"Cache-Control", "max-age=100"}, {"ETag", "\"e\""}};

std::string pattern(std::size_t n) {
  std::string text(n, '\0');
  for (std::size_t i = 0; i < n; ++i) text[i] = static_cast<char>('a' + (i * 31 + i / 251) % 26);
  return text;
}

OwnedFields with_length(OwnedFields fields, std::size_t n) {
  fields.emplace_back("Content-Length", std::to_string(n));
  return fields;
}

/// Requests of one process that were woken.
struct Woken {
  std::set<void*> waiters;
  static void wake(void* context, void* waiter) {
    static_cast<Woken*>(context)->waiters.insert(waiter);
  }
};

class CollapsingTest : public ::testing::Test {
 protected:
  TestDomain domain_;
  Woken woken_;
  mcs_process* nginx_ = domain_.join("nginx/1.22.1", 0);
  mcs_process* httpd_ = domain_.join("Apache/2.4", 1, Woken::wake, &woken_);
  TestPolicy policy_{"lock_timeout 60s", "lock_age 60s"};
  int waiter_ = 0;

  /// Everything that has arrived for httpd_ by now; a wake comes before the call that caused it
  /// returns.
  bool was_woken(void* waiter) {
    mcs_dispatch(httpd_);
    return woken_.waiters.erase(waiter) != 0;
  }
};

TEST_F(CollapsingTest, AWaiterFollowsAsSoonAsTheHeadIsThere) {
  Exchange filler(nginx_, policy_.get(), {});
  ASSERT_EQ(filler.begin(), MCS_FORWARD);
  EXPECT_EQ(filler.response().fill, 1);
  Exchange follower(httpd_, policy_.get(), {}, &waiter_);
  ASSERT_EQ(follower.begin(), MCS_WAIT);
  EXPECT_GT(follower.response().wait_ms, 1000U);
  EXPECT_FALSE(was_woken(&waiter_));

  ASSERT_EQ(filler.head(200, with_length(kFresh, 10)), MCS_STORE);
  EXPECT_TRUE(was_woken(&waiter_));
  ASSERT_EQ(follower.resume(), MCS_FOLLOW);
  EXPECT_EQ(follower.reply().status, 200);
  EXPECT_EQ(follower.reply().length, 10U);
  EXPECT_EQ(follower.reply().field("etag"), "\"e\"");
  EXPECT_EQ(follower.read(), MCS_FOLLOW_WAIT);
  EXPECT_FALSE(was_woken(&waiter_));

  filler.body("01234");
  EXPECT_TRUE(was_woken(&waiter_));
  EXPECT_EQ(follower.read(), MCS_FOLLOW_WAIT);
  EXPECT_EQ(follower.reply().body, "01234");
  filler.body("56789");
  EXPECT_TRUE(was_woken(&waiter_));
  EXPECT_EQ(follower.read(), MCS_FOLLOW_WAIT);
  EXPECT_TRUE(filler.end());
  EXPECT_TRUE(was_woken(&waiter_));
  EXPECT_EQ(follower.read(), MCS_FOLLOW_END);
  EXPECT_EQ(follower.reply().body, "0123456789");
}

TEST_F(CollapsingTest, WhoComesLateFollowsFromTheBeginning) {
  const std::string body = pattern(300000);
  for (const bool announced : {true, false}) {
    Request request;
    request.target = announced ? "/a" : "/b";
    Exchange filler(nginx_, policy_.get(), request);
    ASSERT_EQ(filler.begin(), MCS_FORWARD);
    ASSERT_EQ(filler.head(200, announced ? with_length(kFresh, body.size()) : kFresh), MCS_STORE);
    filler.body(std::string_view(body).substr(0, 100000));
    Exchange follower(httpd_, policy_.get(), request, &waiter_);
    ASSERT_EQ(follower.begin(), MCS_FOLLOW);
    EXPECT_EQ(follower.reply().length, announced ? body.size() : MCS_UNKNOWN_LENGTH);
    EXPECT_EQ(follower.read(), MCS_FOLLOW_WAIT);
    EXPECT_EQ(follower.reply().body.size(), 100000U);
    for (std::size_t at = 100000; at < body.size(); at += 7777) {
      filler.body(std::string_view(body).substr(at, 7777));
      EXPECT_EQ(follower.read(1000), MCS_FOLLOW_WAIT);
    }
    EXPECT_TRUE(filler.end());
    EXPECT_EQ(follower.read(), MCS_FOLLOW_END);
    EXPECT_TRUE(follower.reply().body == body);
  }
}

TEST_F(CollapsingTest, FollowersAreNotDisturbedByAPurgeButNobodyJoinsThem) {
  Exchange filler(nginx_, policy_.get(), {});
  ASSERT_EQ(filler.begin(), MCS_FORWARD);
  ASSERT_EQ(filler.head(200, with_length(kFresh, 6)), MCS_STORE);
  filler.body("old");
  Exchange follower(httpd_, policy_.get(), {}, &waiter_);
  ASSERT_EQ(follower.begin(), MCS_FOLLOW);

  TestPolicy site;
  mcs_purge_request purge{};
  purge.kind = MCS_PURGE_PREFIX;
  purge.policy = site.get();
  const std::string host = "site.example";
  purge.host = {host.data(), host.size()};
  purge.pattern = {"/", 1};
  char error[200] = "";
  ASSERT_EQ(mcs_purge(httpd_, &purge, nullptr, error, sizeof error), MCS_OK) << error;

  // A request after the purge fetches for itself, and its response is stored.
  Exchange later(httpd_, policy_.get(), {}, &waiter_);
  ASSERT_EQ(later.begin(), MCS_FORWARD);
  EXPECT_EQ(later.response().fill, 1);
  filler.body("old");
  EXPECT_FALSE(filler.end());
  EXPECT_EQ(follower.read(), MCS_FOLLOW_END);
  EXPECT_EQ(follower.reply().body, "oldold");
  ASSERT_EQ(later.head(200, with_length(kFresh, 3)), MCS_STORE);
  later.body("new");
  EXPECT_TRUE(later.end());
  Exchange last(nginx_, policy_.get(), {});
  ASSERT_EQ(last.begin(), MCS_RESPONSE);
  EXPECT_EQ(last.reply().body, "new");
}

TEST_F(CollapsingTest, APurgeOfSomethingElseLeavesAFillAlone) {
  Exchange filler(nginx_, policy_.get(), {});
  ASSERT_EQ(filler.begin(), MCS_FORWARD);
  mcs_purge_request purge{};
  const std::string host = "site.example";
  purge.host = {host.data(), host.size()};
  for (const auto& [kind, pattern_text] :
       {std::pair{MCS_PURGE_KEY, "/b"}, std::pair{MCS_PURGE_PREFIX, "/b"},
        std::pair{MCS_PURGE_WILDCARD, "*b"}, std::pair{MCS_PURGE_TAG, "b"}}) {
    purge.kind = kind;
    purge.pattern = {pattern_text, std::char_traits<char>::length(pattern_text)};
    ASSERT_EQ(mcs_purge(httpd_, &purge, nullptr, nullptr, 0), MCS_OK);
  }
  OwnedFields fields = kFresh;
  fields.emplace_back("Surrogate-Key", "a c");
  ASSERT_EQ(filler.head(200, fields), MCS_STORE);
  filler.body("x");
  EXPECT_TRUE(filler.end());
}

TEST_F(CollapsingTest, EachKindOfPurgeMeetsAFillInFlight) {
  mcs_purge_request purge{};
  const std::string host = "site.example";
  purge.host = {host.data(), host.size()};
  for (const auto& [kind, pattern_text] :
       {std::pair{MCS_PURGE_KEY, "/a"}, std::pair{MCS_PURGE_PREFIX, "/a"},
        std::pair{MCS_PURGE_WILDCARD, "*a"}, std::pair{MCS_PURGE_TAG, "t"},
        std::pair{MCS_PURGE_ALL, ""}}) {
    for (const bool soft : {false, true}) {
      Exchange filler(nginx_, policy_.get(), {});
      ASSERT_EQ(filler.begin(), MCS_FORWARD);
      OwnedFields fields = kFresh;
      fields.emplace_back("Surrogate-Key", "s t u");
      ASSERT_EQ(filler.head(200, fields), MCS_STORE);
      filler.body("x");
      purge.kind = kind;
      purge.soft = soft ? 1 : 0;
      purge.pattern = {pattern_text, std::char_traits<char>::length(pattern_text)};
      ASSERT_EQ(mcs_purge(httpd_, &purge, nullptr, nullptr, 0), MCS_OK);
      EXPECT_FALSE(filler.end()) << kind;
    }
  }
}

TEST_F(CollapsingTest, UncacheableReleasesAllWaitersAtOnce) {
  Exchange filler(nginx_, policy_.get(), {});
  ASSERT_EQ(filler.begin(), MCS_FORWARD);
  int waiters[3] = {};
  std::vector<std::unique_ptr<Exchange>> waiting;
  for (int& waiter : waiters) {
    waiting.push_back(std::make_unique<Exchange>(httpd_, policy_.get(), Request{}, &waiter));
    ASSERT_EQ(waiting.back()->begin(), MCS_WAIT);
  }
  EXPECT_EQ(filler.head(200, {{"Cache-Control", "no-store"}}), MCS_PASS);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(i > 0 || was_woken(&waiters[0]));
    EXPECT_EQ(waiting[static_cast<std::size_t>(i)]->resume(), MCS_FORWARD);
  }
  EXPECT_EQ(woken_.waiters.size(), 2U);
}

TEST_F(CollapsingTest, AnAbortedFillGoesToTheNextWaiter) {
  auto filler = std::make_unique<Exchange>(nginx_, policy_.get(), Request{});
  ASSERT_EQ(filler->begin(), MCS_FORWARD);
  int second_waiter = 0;
  Exchange first(httpd_, policy_.get(), {}, &waiter_);
  Exchange second(httpd_, policy_.get(), {}, &second_waiter);
  ASSERT_EQ(first.begin(), MCS_WAIT);
  ASSERT_EQ(second.begin(), MCS_WAIT);
  filler.reset();
  EXPECT_TRUE(was_woken(&waiter_));
  ASSERT_EQ(first.resume(), MCS_FORWARD);
  EXPECT_EQ(first.response().fill, 1);
  ASSERT_EQ(second.resume(), MCS_WAIT);
}

TEST_F(CollapsingTest, ABrokenBodyIsContinuedFromAnotherFill) {
  const std::string body = pattern(50000);
  for (const char* etag : {"\"e\"", ""}) {
    for (const bool same : {true, false}) {
      Request request;
      request.target = fmt::format("/{}{}", etag, same);
      OwnedFields fields = with_length({{"Cache-Control", "max-age=9"}}, body.size());
      if (*etag != '\0') fields.emplace_back("ETag", etag);
      auto filler = std::make_unique<Exchange>(nginx_, policy_.get(), request);
      ASSERT_EQ(filler->begin(), MCS_FORWARD);
      ASSERT_EQ(filler->head(200, fields), MCS_STORE);
      filler->body(std::string_view(body).substr(0, 20000));
      Exchange follower(httpd_, policy_.get(), request, &waiter_);
      ASSERT_EQ(follower.begin(), MCS_FOLLOW);
      EXPECT_EQ(follower.read(), MCS_FOLLOW_WAIT);
      filler.reset();
      ASSERT_EQ(follower.read(), MCS_FOLLOW_BROKEN);
      // Nobody fills now: this process is asked to.
      ASSERT_EQ(follower.follow_retry(), MCS_WAIT);
      EXPECT_EQ(follower.response().refresh, 1);
      EXPECT_FALSE(was_woken(&waiter_));
      Request internal = request;
      internal.flags = MCS_REQUEST_REFRESH;
      Exchange again(httpd_, policy_.get(), internal);
      ASSERT_EQ(again.begin(), MCS_FORWARD);
      EXPECT_TRUE(was_woken(&waiter_));
      ASSERT_EQ(follower.follow_retry(), MCS_WAIT);
      EXPECT_EQ(follower.response().refresh, 0);
      ASSERT_EQ(again.head(200, fields), MCS_STORE);
      std::string next = body;
      if (!same) next[100] = '!';
      again.body(std::string_view(next).substr(0, 10000));
      ASSERT_EQ(follower.follow_retry(), MCS_WAIT);
      again.body(std::string_view(next).substr(10000));
      EXPECT_TRUE(again.end());
      if (same) {
        ASSERT_EQ(follower.follow_retry(), MCS_FOLLOW);
        EXPECT_EQ(follower.read(), MCS_FOLLOW_END);
        EXPECT_TRUE(follower.reply().body == body);
      } else {
        EXPECT_EQ(follower.follow_retry(), MCS_DECLINED);
      }
    }
  }
}

// Whoever asks for a refresh in vain tells those who wait for it that somebody else fills.
TEST_F(CollapsingTest, WhoWaitsForAnotherFillIsWokenWhenOneIsMet) {
  auto filler = std::make_unique<Exchange>(nginx_, policy_.get(), Request{});
  ASSERT_EQ(filler->begin(), MCS_FORWARD);
  ASSERT_EQ(filler->head(200, with_length(kFresh, 10)), MCS_STORE);
  filler->body("01234");
  Exchange follower(httpd_, policy_.get(), {}, &waiter_);
  ASSERT_EQ(follower.begin(), MCS_FOLLOW);
  EXPECT_EQ(follower.read(), MCS_FOLLOW_WAIT);
  filler.reset();
  ASSERT_EQ(follower.read(), MCS_FOLLOW_BROKEN);
  ASSERT_EQ(follower.follow_retry(), MCS_WAIT);
  Exchange next(nginx_, policy_.get(), {});
  ASSERT_EQ(next.begin(), MCS_FORWARD);
  EXPECT_FALSE(was_woken(&waiter_));
  Request internal;
  internal.flags = MCS_REQUEST_REFRESH;
  Exchange in_vain(httpd_, policy_.get(), internal);
  EXPECT_EQ(in_vain.begin(), MCS_DECLINED);
  EXPECT_TRUE(was_woken(&waiter_));
  EXPECT_EQ(follower.follow_retry(), MCS_WAIT);
  ASSERT_EQ(next.head(200, with_length(kFresh, 10)), MCS_STORE);
  next.body("0123456789");
  EXPECT_TRUE(next.end());
  ASSERT_EQ(follower.follow_retry(), MCS_FOLLOW);
  EXPECT_EQ(follower.read(), MCS_FOLLOW_END);
  EXPECT_EQ(follower.reply().body, "0123456789");
}

TEST_F(CollapsingTest, AFollowerGetsTheRangeItAskedFor) {
  Exchange filler(nginx_, policy_.get(), {});
  ASSERT_EQ(filler.begin(), MCS_FORWARD);
  ASSERT_EQ(filler.head(200, with_length(kFresh, 10)), MCS_STORE);
  filler.body("01234");
  Request request;
  request.fields = {{"Range", "bytes=4-6"}};
  Exchange follower(httpd_, policy_.get(), request, &waiter_);
  ASSERT_EQ(follower.begin(), MCS_FOLLOW);
  EXPECT_EQ(follower.reply().status, 206);
  EXPECT_EQ(follower.reply().length, 3U);
  EXPECT_EQ(follower.read(), MCS_FOLLOW_WAIT);
  filler.body("56789");
  EXPECT_EQ(follower.read(), MCS_FOLLOW_END);
  EXPECT_EQ(follower.reply().body, "456");
  // Conditions and HEAD need no body.
  request.fields = {{"If-None-Match", "\"e\""}};
  Exchange conditional(httpd_, policy_.get(), request, &waiter_);
  EXPECT_EQ(conditional.begin(), MCS_RESPONSE);
  EXPECT_EQ(conditional.reply().status, 304);
  request.method = "HEAD";
  request.fields.clear();
  Exchange head(httpd_, policy_.get(), request, &waiter_);
  EXPECT_EQ(head.begin(), MCS_RESPONSE);
  EXPECT_EQ(head.reply().length, 10U);
  // Several ranges wait for all of it.
  request.method = "GET";
  request.fields = {{"Range", "bytes=0-0,9-9"}};
  Exchange several(httpd_, policy_.get(), request, &waiter_);
  ASSERT_EQ(several.begin(), MCS_WAIT);
  EXPECT_TRUE(filler.end());
  EXPECT_EQ(several.resume(), MCS_RESPONSE);
  EXPECT_EQ(several.reply().status, 206);
}

TEST_F(CollapsingTest, OtherVariantsDoNotWaitLongerThanForTheHead) {
  Request request;
  request.fields = {{"X", "1"}};
  Exchange filler(nginx_, policy_.get(), request);
  ASSERT_EQ(filler.begin(), MCS_FORWARD);
  request.fields = {{"X", "2"}};
  Exchange other(httpd_, policy_.get(), request, &waiter_);
  ASSERT_EQ(other.begin(), MCS_WAIT);
  request.fields = {{"X", "1"}};
  int second_waiter = 0;
  Exchange same(httpd_, policy_.get(), request, &second_waiter);
  ASSERT_EQ(same.begin(), MCS_WAIT);
  OwnedFields fields = kFresh;
  fields.emplace_back("Vary", "X");
  ASSERT_EQ(filler.head(200, fields), MCS_STORE);
  ASSERT_EQ(other.resume(), MCS_FORWARD);
  EXPECT_EQ(other.response().fill, 1);
  EXPECT_EQ(same.resume(), MCS_FOLLOW);
  // Both are stored.
  filler.body("one");
  EXPECT_TRUE(filler.end());
  ASSERT_EQ(other.head(200, fields), MCS_STORE);
  other.body("two");
  EXPECT_TRUE(other.end());
  request.fields = {{"X", "2"}};
  EXPECT_EQ(ask(nginx_, policy_.get(), request, Response{500, {}, ""}).body, "two");
}

TEST_F(CollapsingTest, ASilentFillIsPassedOver) {
  policy_.set("lock_timeout 1ms");
  policy_.set("lock_age 1ms");
  Exchange silent(nginx_, policy_.get(), {});
  ASSERT_EQ(silent.begin(), MCS_FORWARD);
  Exchange waiter(httpd_, policy_.get(), {}, &waiter_);
  ASSERT_EQ(waiter.begin(), MCS_WAIT);
  const std::uint64_t until = runtime::monotonic_ns() + 2000000;
  while (runtime::monotonic_ns() < until) std::this_thread::yield();
  ASSERT_EQ(waiter.resume(MCS_REQUEST_LAST_TRY), MCS_FORWARD);
  EXPECT_EQ(waiter.response().fill, 1);
  ASSERT_EQ(waiter.head(200, kFresh), MCS_STORE);
  waiter.body("new");
  EXPECT_TRUE(waiter.end());
  // The silent one wakes up at last.
  ASSERT_EQ(silent.head(200, kFresh), MCS_STORE);
  silent.body("late");
  silent.end();
  EXPECT_EQ(ask(nginx_, policy_.get(), {}, Response{500, {}, ""}).body, "new");
}

TEST_F(CollapsingTest, TheWaitIsBounded) {
  policy_.set("lock_timeout 1ms");
  Exchange filler(nginx_, policy_.get(), {});
  ASSERT_EQ(filler.begin(), MCS_FORWARD);
  // A blocking caller.
  Exchange other(httpd_, policy_.get(), {});
  ASSERT_EQ(other.begin(), MCS_FORWARD);
  EXPECT_EQ(other.response().fill, 0);
  // Where many wait already.
  Request request;
  request.flags = MCS_REQUEST_NO_WAIT;
  policy_.set("lock_timeout 10s");
  int waiter = 0;
  Exchange patient(httpd_, policy_.get(), request, &waiter);
  EXPECT_EQ(patient.begin(), MCS_WAIT);
  policy_.set("lock_busy pass");
  Exchange hurried(httpd_, policy_.get(), request);
  EXPECT_EQ(hurried.begin(), MCS_FORWARD);
  policy_.set("lock_busy 503");
  Exchange refused(httpd_, policy_.get(), request);
  EXPECT_EQ(refused.begin(), MCS_RESPONSE);
  EXPECT_EQ(refused.reply().status, 503);
}

/// A thread of a server that asks, and blocks while others fill. Its outcome once it has ended.
struct BlockedThread {
  BlockedThread(mcs_process* process, const mcs_policy* policy)
      : exchange(process, policy, {}), thread([this] { outcome = exchange.begin(); }) {}
  ~BlockedThread() {
    if (thread.joinable()) thread.join();
  }
  Exchange exchange;
  mcs_outcome outcome = MCS_DECLINED;
  std::thread thread;
};

// How many of its requests wait, as other processes see it.
void expect_waiting(const mcs_process& process, std::uint64_t count) {
  const auto& area = cache::Pins::area(*process.instance, process.instance->slot_number());
  while (area.waiting.load() != count) std::this_thread::yield();
}

TEST_F(CollapsingTest, HalfOfTheThreadsWaitAndTheNextAsksTheOrigin) {
  Exchange filler(nginx_, policy_.get(), {});
  ASSERT_EQ(filler.begin(), MCS_FORWARD);
  mcs_set_capacity(httpd_, 5, 1);
  EXPECT_EQ(mcs_is_crowded(httpd_, 60000), 0);
  std::vector<std::unique_ptr<BlockedThread>> threads;
  for (std::uint64_t i = 1; i <= 2; ++i) {
    threads.push_back(std::make_unique<BlockedThread>(httpd_, policy_.get()));
    expect_waiting(*httpd_, i);
  }
  Exchange third(httpd_, policy_.get(), {});
  EXPECT_EQ(third.begin(), MCS_FORWARD);
  EXPECT_EQ(third.response().fill, 0);
  EXPECT_EQ(mcs_is_crowded(httpd_, 60000), 1);
  EXPECT_EQ(mcs_is_crowded(httpd_, 0), 0);
  // For one whose connection waits and no thread there is room where not half of them do.
  Exchange connection(httpd_, policy_.get(), {}, &waiter_);
  EXPECT_EQ(connection.begin(), MCS_WAIT);

  ASSERT_EQ(filler.head(200, kFresh), MCS_STORE);
  filler.body("a");
  ASSERT_TRUE(filler.end());
  for (const auto& thread : threads) {
    thread->thread.join();
    // Whoever looks before the end gets what there is.
    EXPECT_TRUE(thread->outcome == MCS_RESPONSE || thread->outcome == MCS_FOLLOW) << thread->outcome;
  }
  connection.close();
  EXPECT_EQ(cache::Pins::area(*httpd_->instance, httpd_->instance->slot_number()).waiting.load(), 0U);
}

TEST_F(CollapsingTest, OfProcessesWithOneThreadHalfWait) {
  Exchange filler(nginx_, policy_.get(), {});
  ASSERT_EQ(filler.begin(), MCS_FORWARD);
  std::vector<mcs_process*> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(domain_.join("prefork/2.4", 0));
    mcs_set_capacity(children.back(), 1, 4);
  }
  std::vector<std::unique_ptr<BlockedThread>> waiting;
  for (int i = 0; i < 2; ++i) {
    waiting.push_back(std::make_unique<BlockedThread>(children[static_cast<std::size_t>(i)],
                                                      policy_.get()));
    expect_waiting(*children[static_cast<std::size_t>(i)], 1);
  }
  Exchange third(children[2], policy_.get(), {});
  EXPECT_EQ(third.begin(), MCS_FORWARD);
  // The others are using theirs.
  const TestPolicy strict{"lock_timeout 60s", "lock_age 60s", "lock_busy 503"};
  Exchange fourth(children[3], strict.get(), {});
  EXPECT_EQ(fourth.begin(), MCS_RESPONSE);
  EXPECT_EQ(fourth.reply().status, 503);
  ASSERT_EQ(filler.head(200, kFresh), MCS_STORE);
  filler.body("a");
  ASSERT_TRUE(filler.end());
  waiting.clear();
}

// Those that receive what arrives wait for nobody's place, and whoever comes at the same time as others
// finds another one.
TEST_F(CollapsingTest, OfProcessesThatComeAtOnceHalfWaitWhileOthersFollow) {
  constexpr std::size_t kChildren = 8;
  const TestPolicy strict{"lock_timeout 60s", "lock_age 60s", "lock_busy 503"};
  std::vector<mcs_process*> children;
  for (std::size_t i = 0; i < kChildren + 4; ++i) {
    children.push_back(domain_.join("prefork/2.4", 0));
    mcs_set_capacity(children.back(), 1, kChildren);
  }
  Request arriving;
  arriving.target = "/arriving";
  Exchange slow(nginx_, policy_.get(), arriving);
  ASSERT_EQ(slow.begin(), MCS_FORWARD);
  ASSERT_EQ(slow.head(200, with_length(kFresh, 10)), MCS_STORE);
  slow.body("01234");
  std::vector<std::thread> followers;
  for (std::size_t i = kChildren; i < children.size(); ++i) {
    followers.emplace_back([&, i] {
      Exchange follower(children[i], strict.get(), arriving);
      EXPECT_EQ(follower.begin(), MCS_FOLLOW);
      EXPECT_EQ(follower.read(), MCS_FOLLOW_END);
    });
    expect_waiting(*children[i], 1);
  }
  for (int round = 0; round < 5; ++round) {
    Request wanted;
    wanted.target = "/wanted" + std::to_string(round);
    Exchange filler(nginx_, policy_.get(), wanted);
    ASSERT_EQ(filler.begin(), MCS_FORWARD);
    std::atomic<unsigned> refused{0};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < kChildren; ++i) {
      threads.emplace_back([&, i] {
        Exchange exchange(children[i], strict.get(), wanted);
        if (exchange.begin() == MCS_RESPONSE && exchange.reply().status == 503) ++refused;
      });
    }
    while (refused < kChildren / 2) std::this_thread::yield();
    ASSERT_EQ(filler.head(200, kFresh), MCS_STORE);
    filler.body("a");
    ASSERT_TRUE(filler.end());
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(refused, kChildren / 2);
  }
  slow.body("56789");
  EXPECT_TRUE(slow.end());
  for (std::thread& follower : followers) follower.join();
}

TEST_F(CollapsingTest, ProcessesWithOneThreadAreCrowdedWhenHalfOfThemWait) {
  Exchange filler(nginx_, policy_.get(), {});
  ASSERT_EQ(filler.begin(), MCS_FORWARD);
  std::vector<mcs_process*> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(domain_.join("prefork/2.4", 0));
    mcs_set_capacity(children.back(), 1, 4);
  }
  BlockedThread first(children[0], policy_.get());
  expect_waiting(*children[0], 1);
  EXPECT_EQ(mcs_is_crowded(children[2], 60000), 0);
  BlockedThread second(children[1], policy_.get());
  expect_waiting(*children[1], 1);
  EXPECT_EQ(mcs_is_crowded(children[3], 60000), 1);
  ASSERT_EQ(filler.head(200, kFresh), MCS_STORE);
  filler.body("a");
  ASSERT_TRUE(filler.end());
}

TEST_F(CollapsingTest, OfConnectionsHalfWaitIfThatIsConfigured) {
  std::unique_ptr<Exchange> filler;
  const auto fill = [&](mcs_process* process) {
    filler = std::make_unique<Exchange>(process, policy_.get(), Request{});
    return filler->begin();
  };
  ASSERT_EQ(fill(nginx_), MCS_FORWARD);
  mcs_set_capacity(httpd_, 4, 1);
  std::vector<int> names(9);
  std::vector<std::unique_ptr<Exchange>> waiting;
  const auto next = [&](const Request& request = {}) {
    waiting.push_back(
        std::make_unique<Exchange>(httpd_, policy_.get(), request, &names[waiting.size()]));
    return waiting.back()->begin();
  };
  EXPECT_EQ(next(), MCS_WAIT);
  EXPECT_EQ(next(), MCS_WAIT);
  EXPECT_EQ(next(), MCS_WAIT);
  // Those who follow are not counted either.
  Request arriving;
  arriving.target = "/arriving";
  Exchange slow(nginx_, policy_.get(), arriving);
  ASSERT_EQ(slow.begin(), MCS_FORWARD);
  ASSERT_EQ(slow.head(200, with_length(kFresh, 10)), MCS_STORE);
  slow.body("01234");
  EXPECT_EQ(next(arriving), MCS_FOLLOW);
  EXPECT_EQ(waiting.back()->read(), MCS_FOLLOW_WAIT);
  policy_.set("lock_busy 503");
  EXPECT_EQ(next(), MCS_WAIT);
  EXPECT_EQ(next(), MCS_WAIT);
  EXPECT_EQ(next(), MCS_RESPONSE);
  // Who has a place keeps it when it is woken, until it has an answer.
  filler.reset();
  mcs_dispatch(httpd_);
  EXPECT_EQ(fill(nginx_), MCS_FORWARD);
  EXPECT_EQ(next(), MCS_RESPONSE);
  EXPECT_EQ(waiting.back()->reply().status, 503);
  EXPECT_EQ(waiting[4]->resume(), MCS_WAIT);
  EXPECT_EQ(waiting[5]->resume(), MCS_WAIT);
  waiting[5].reset();
  EXPECT_EQ(next(), MCS_WAIT);
}

// Local files have the same places, and come from the disk where there is none.
TEST_F(CollapsingTest, OfConnectionsThatWaitForAFileHalfDo) {
  char name[] = "/tmp/mcs-file-XXXXXX";
  const int fd = ::mkstemp(name);
  ASSERT_GE(fd, 0);
  mcs_set_capacity(httpd_, 2, 1);
  std::string key;
  ASSERT_TRUE(http::build_static_key("site", "/f", key));
  cache::Fill fill;
  const auto begin = [&] { return nginx_->cache->begin(nginx_->cache->make_key(key), fill, {}, true); };
  ASSERT_EQ(begin(), cache::Begin::kFilling);
  std::vector<int> names(4);
  const auto get = [&](int& waiter) {
    mcs_static_request request{};
    request.policy = policy_.get();
    request.path = {"/f", 2};
    request.file = name;
    request.waiter = &waiter;
    std::vector<std::unique_ptr<std::byte[]>> memory;
    request.alloc = [](void* kept, std::size_t n) -> void* {
      auto& all = *static_cast<std::vector<std::unique_ptr<std::byte[]>>*>(kept);
      return all.emplace_back(new std::byte[n]).get();
    };
    request.alloc_context = &memory;
    mcs_response response;
    const mcs_outcome outcome = mcs_static_get(httpd_, &request, &response);
    if (response.file_fd >= 0) ::close(response.file_fd);
    return outcome;
  };
  policy_.set("key_base site");
  EXPECT_EQ(get(names[0]), MCS_WAIT);
  EXPECT_EQ(get(names[1]), MCS_WAIT);
  policy_.set("lock_busy pass");
  EXPECT_EQ(get(names[2]), MCS_WAIT);
  EXPECT_EQ(get(names[3]), MCS_FILE);
  mcs_cancel_wait(httpd_, &names[2]);
  EXPECT_EQ(get(names[3]), MCS_WAIT);
  fill.abort();
  EXPECT_TRUE(was_woken(&names[3]));
  ASSERT_EQ(begin(), cache::Begin::kFilling);
  EXPECT_EQ(get(names[2]), MCS_WAIT);
  mcs_cancel_wait(httpd_, &names[2]);
  ::close(fd);
  ::unlink(name);
}

// More of them than the ledger of a small domain has places.
TEST_F(CollapsingTest, ACrowdNeedsOnePinOfItsProcess) {
  constexpr std::size_t kCrowd = 700;
  ASSERT_LT(httpd_->cache->memory().geometry().ledger_words, kCrowd);
  const std::string body = pattern(100000);
  std::vector<int> waiters(kCrowd);
  std::vector<std::unique_ptr<Exchange>> crowd;
  const auto gather = [&] {
    crowd.clear();
    for (int& waiter : waiters) {
      crowd.push_back(std::make_unique<Exchange>(httpd_, policy_.get(), Request{}, &waiter));
    }
  };

  // What is stored is stale, so that those who wait have something to hold.
  testing::ask(nginx_, policy_.get(), {}, Response{200, kFresh, pattern(50000)});
  advance_s(200);
  gather();
  Exchange filler(nginx_, policy_.get(), {});
  ASSERT_EQ(filler.begin(), MCS_FORWARD);
  for (const auto& one : crowd) ASSERT_EQ(one->begin(), MCS_WAIT);
  EXPECT_EQ(httpd_->cache->pins().held(), 0U);

  ASSERT_EQ(filler.head(200, with_length(kFresh, body.size())), MCS_STORE);
  filler.body(body.substr(0, 40000));
  for (const auto& one : crowd) {
    ASSERT_EQ(one->resume(), MCS_FOLLOW);
    ASSERT_EQ(one->read(), MCS_FOLLOW_WAIT);
  }
  EXPECT_EQ(httpd_->cache->pins().held(), 1U);
  filler.body(body.substr(40000));
  filler.end();
  for (const auto& one : crowd) {
    ASSERT_EQ(one->read(), MCS_FOLLOW_END);
    ASSERT_TRUE(one->reply().body == body);
  }
  EXPECT_EQ(httpd_->cache->pins().held(), 1U);

  // Likewise those who are sent the same large body at the same time.
  gather();
  EXPECT_EQ(httpd_->cache->pins().held(), 0U);
  for (const auto& one : crowd) {
    ASSERT_EQ(one->begin(), MCS_RESPONSE);
    ASSERT_TRUE(one->reply().pinned);
  }
  EXPECT_EQ(httpd_->cache->pins().held(), 1U);
  crowd.erase(crowd.begin(), crowd.begin() + kCrowd / 2);
  EXPECT_EQ(httpd_->cache->pins().held(), 1U);
  crowd.clear();
  EXPECT_EQ(httpd_->cache->pins().held(), 0U);
}

TEST_F(CollapsingTest, ManyThreadsAndOneRequestToTheOrigin) {
  constexpr int kThreads = 24;
  const std::string body = pattern(200000);
  std::atomic<int> asked{0};
  std::atomic<int> right{0};
  // The origin answers once everybody else waits.
  const Origin origin = [&](const Request&) -> std::optional<Response> {
    ++asked;
    const auto blocked = [](mcs_process* process) {
      const std::lock_guard lock(process->waiting.mutex);
      return process->waiting.blocked;
    };
    while (blocked(nginx_) + blocked(httpd_) < kThreads - 1) std::this_thread::yield();
    Response response{200, kFresh, body};
    response.chunk = 5000;
    return response;
  };
  mcs_process* second = domain_.join("Apache/2.4", 1);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      Exchange exchange(i % 2 == 0 ? nginx_ : httpd_, policy_.get(), {});
      if (exchange.run(origin).body == body) ++right;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(right, kThreads);
  domain_.leave(second);
}

TEST_F(CollapsingTest, AKilledFillersWorkIsTakenOver) {
  const std::string body = pattern(40000);
  const OwnedFields fields = with_length(kFresh, body.size());
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    mcs_process* process = domain_.join("nginx/1.22.1", 0);
    Exchange filler(process, policy_.get(), {});
    if (filler.begin() != MCS_FORWARD || filler.head(200, fields) != MCS_STORE) ::_exit(1);
    filler.body(std::string_view(body).substr(0, 10000));
    if (::write(ready[1], "x", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  ASSERT_GT(child, 0);
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  Exchange follower(httpd_, policy_.get(), {}, &waiter_);
  ASSERT_EQ(follower.begin(), MCS_FOLLOW);
  EXPECT_EQ(follower.read(), MCS_FOLLOW_WAIT);
  EXPECT_EQ(follower.reply().body.size(), 10000U);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  // Whoever looks first recovers it: the agent, if there is one, or this.
  httpd_->instance->recover_all("test");
  mcs_follow answer = MCS_FOLLOW_WAIT;
  while (answer == MCS_FOLLOW_WAIT) answer = follower.read();
  ASSERT_EQ(answer, MCS_FOLLOW_BROKEN);
  ASSERT_EQ(follower.follow_retry(), MCS_WAIT);
  ASSERT_EQ(follower.response().refresh, 1);
  Request internal;
  internal.flags = MCS_REQUEST_REFRESH;
  Exchange again(httpd_, policy_.get(), internal);
  ASSERT_EQ(again.begin(), MCS_FORWARD);
  ASSERT_EQ(again.head(200, fields), MCS_STORE);
  again.body(body);
  EXPECT_TRUE(again.end());
  ASSERT_EQ(follower.follow_retry(), MCS_FOLLOW);
  EXPECT_EQ(follower.read(), MCS_FOLLOW_END);
  EXPECT_TRUE(follower.reply().body == body);
  ::close(ready[0]);
  ::close(ready[1]);
}

}  // namespace
}  // namespace mcs::api::testing
