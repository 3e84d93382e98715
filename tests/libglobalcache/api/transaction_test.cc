// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstring>

#include "libglobalcache/api/process.h"
#include "tests/libglobalcache/api/api_kit.h"

namespace mcs::api::testing {
namespace {

const OwnedFields kFresh = {{"Cache-Control", "max-age=100"}, {"ETag", "\"e\""}};

OwnedFields with_length(OwnedFields fields, std::size_t n) {
  fields.emplace_back("Content-Length", std::to_string(n));
  return fields;
}

std::string pattern(std::size_t n) {
  std::string text(n, '\0');
  for (std::size_t i = 0; i < n; ++i) text[i] = static_cast<char>('a' + (i * 31 + i / 251) % 26);
  return text;
}

class TransactionTest : public ::testing::Test {
 protected:
  TestDomain domain_;
  mcs_process* nginx_ = domain_.join("nginx/1.22.1", 0);
  mcs_process* httpd_ = domain_.join("Apache/2.4", 1);
  TestPolicy policy_;

  Reply ask(mcs_process* process, const Request& request, const Response& origin) {
    return testing::ask(process, policy_.get(), request, origin);
  }
  Reply cached(mcs_process* process, const Request& request = {}) {
    return testing::ask(process, policy_.get(), request,
                        [](const Request&) -> std::optional<Response> { return std::nullopt; });
  }
  std::uint64_t stat(mcs_process* process, unsigned cell) {
    return process->instance->own().stats[cell].load();
  }
};

TEST_F(TransactionTest, WhatOneServerFetchedTheOtherSends) {
  const Reply first = ask(nginx_, {}, {200, kFresh, "hello"});
  EXPECT_EQ(first.cache_status, MCS_CACHE_MISS);
  EXPECT_EQ(first.body, "hello");
  EXPECT_TRUE(first.stored);
  const Reply second = cached(httpd_);
  EXPECT_FALSE(second.asked_origin);
  EXPECT_EQ(second.cache_status, MCS_CACHE_HIT);
  EXPECT_EQ(second.status, 200);
  EXPECT_EQ(second.body, "hello");
  EXPECT_EQ(second.length, 5U);
  EXPECT_EQ(second.field("etag"), "\"e\"");
  EXPECT_EQ(second.field("age"), "0");
  EXPECT_FALSE(second.field("content-length"));
  EXPECT_FALSE(second.field("cache-status"));
  EXPECT_EQ(stat(httpd_, kHits), 1U);
  EXPECT_EQ(stat(httpd_, kCrossServerHits), 1U);
  EXPECT_EQ(stat(nginx_, kMisses), 1U);
}

TEST_F(TransactionTest, AgeGrowsAndTheEntryExpires) {
  ask(nginx_, {}, {200, kFresh, "hello"});
  advance_s(99);
  EXPECT_EQ(cached(httpd_).field("age"), "99");
  advance_s(2);
  const Reply third = ask(httpd_, {}, {200, kFresh, "newer"});
  EXPECT_EQ(third.cache_status, MCS_CACHE_EXPIRED);
  EXPECT_EQ(third.body, "newer");
  EXPECT_EQ(cached(nginx_).body, "newer");
}

TEST_F(TransactionTest, BodiesOfEverySizeComeBackAsTheyWere) {
  for (const std::size_t n : {0U, 1U, 16383U, 16384U, 16385U, 70000U, 300000U, 2000000U}) {
    for (const bool announced : {true, false}) {
      Request request;
      request.target = "/size/" + std::to_string(n) + (announced ? "/a" : "/u");
      Response response{200, announced ? with_length(kFresh, n) : kFresh, pattern(n)};
      response.chunk = 10000;
      const Reply first = ask(nginx_, request, response);
      EXPECT_TRUE(first.stored) << request.target;
      const Reply second = cached(httpd_, request);
      EXPECT_EQ(second.body.size(), n) << request.target;
      EXPECT_TRUE(second.body == response.body) << request.target;
      EXPECT_EQ(second.pinned, n > 16384) << request.target;
    }
  }
}

TEST_F(TransactionTest, WhatDidNotArriveCompletelyIsNotStored) {
  Response cut{200, kFresh, "half"};
  cut.cut_off = true;
  EXPECT_FALSE(ask(nginx_, {}, cut).stored);
  // The framing promised something else.
  EXPECT_FALSE(ask(nginx_, {}, {200, with_length(kFresh, 10), "half"}).stored);
  EXPECT_FALSE(ask(nginx_, {}, {200, with_length(kFresh, 2), "half"}).stored);
  EXPECT_TRUE(cached(httpd_).asked_origin);
}

TEST_F(TransactionTest, TooLargeIsPassedOnAndTooSmallAsWell) {
  policy_.set("max_object 1k");
  Response large{200, kFresh, pattern(5000)};
  large.chunk = 500;
  const Reply reply = ask(nginx_, {}, large);
  EXPECT_FALSE(reply.stored);
  EXPECT_TRUE(reply.body == large.body);
  EXPECT_TRUE(cached(httpd_).asked_origin);
  TestPolicy small{"min_object 100"};
  EXPECT_FALSE(testing::ask(nginx_, small.get(), {}, Response{200, kFresh, "tiny"}).stored);
}

TEST_F(TransactionTest, HeadIsAnsweredFromAStoredGet) {
  ask(nginx_, {}, {200, kFresh, "hello"});
  Request head;
  head.method = "HEAD";
  const Reply reply = cached(httpd_, head);
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, "");
  EXPECT_EQ(reply.length, 5U);
  // And nothing is stored from a HEAD that found nothing.
  head.target = "/other";
  EXPECT_FALSE(ask(nginx_, head, {200, with_length(kFresh, 5), ""}).stored);
  Request get;
  get.target = "/other";
  EXPECT_TRUE(cached(httpd_, get).asked_origin);
}

class RangeTest : public TransactionTest, public ::testing::WithParamInterface<std::size_t> {};

TEST_P(RangeTest, SingleRangesOfAStoredBody) {
  const std::size_t n = GetParam();
  const std::string body = pattern(n);
  ask(nginx_, {}, {200, with_length(kFresh, n), body});
  const std::string last = std::to_string(n - 1);
  const std::string all = "/" + std::to_string(n);
  const auto expect = [&](const std::string& range, std::size_t first, std::size_t count) {
    Request request;
    request.fields = {{"Range", range}};
    const Reply reply = cached(httpd_, request);
    EXPECT_EQ(reply.status, 206) << range;
    EXPECT_EQ(reply.field("content-range"), "bytes " + std::to_string(first) + "-" +
                                                std::to_string(first + count - 1) + all);
    EXPECT_EQ(reply.length, count) << range;
    EXPECT_TRUE(reply.body == body.substr(first, count)) << range;
  };
  expect("bytes=0-0", 0, 1);
  expect("bytes=5-9", 5, 5);
  expect("bytes=-3", n - 3, 3);
  expect("bytes=" + last + "-", n - 1, 1);
  expect("bytes=1-", 1, n - 1);
  Request beyond;
  beyond.fields = {{"Range", "bytes=" + std::to_string(n) + "-"}};
  const Reply reply = cached(httpd_, beyond);
  EXPECT_EQ(reply.status, 416);
  EXPECT_EQ(reply.field("content-range"), "bytes */" + std::to_string(n));
  EXPECT_EQ(reply.length, 0U);
  EXPECT_EQ(reply.body, "");
}

TEST_P(RangeTest, SeveralRangesBecomeMultipart) {
  const std::size_t n = GetParam();
  const std::string body = pattern(n);
  OwnedFields fields = with_length(kFresh, n);
  fields.emplace_back("Content-Type", "text/x-test");
  ask(nginx_, {}, {200, fields, body});
  Request request;
  request.fields = {{"Range", "bytes=0-1, 10-14, -2"}};
  const Reply reply = cached(httpd_, request);
  EXPECT_EQ(reply.status, 206);
  EXPECT_FALSE(reply.field("content-range"));
  const std::string type = reply.field("content-type").value_or("");
  const std::string_view prefix = "multipart/byteranges; boundary=";
  ASSERT_TRUE(type.starts_with(prefix)) << type;
  const std::string boundary = type.substr(prefix.size());
  const auto part = [&](std::size_t first, std::size_t count) {
    return "\r\n--" + boundary + "\r\nContent-Type: text/x-test\r\nContent-Range: bytes " +
           std::to_string(first) + "-" + std::to_string(first + count - 1) + "/" +
           std::to_string(n) + "\r\n\r\n" + body.substr(first, count);
  };
  EXPECT_EQ(reply.body,
            part(0, 2) + part(10, 5) + part(n - 2, 2) + "\r\n--" + boundary + "--\r\n");
  EXPECT_EQ(reply.length, reply.body.size());
}

INSTANTIATE_TEST_SUITE_P(Sizes, RangeTest, ::testing::Values(100, 16384, 500000));

TEST_F(TransactionTest, AMissWithARangeFetchesAllAndSendsThePart) {
  Request request;
  request.fields = {{"Range", "bytes=3-5"}, {"X", "y"}};
  Response response{200, with_length(kFresh, 10), "0123456789"};
  response.chunk = 4;
  std::optional<Request> seen;
  const Reply reply = testing::ask(nginx_, policy_.get(), request,
                                   [&](const Request& r) -> std::optional<Response> {
                                     seen = r;
                                     return response;
                                   });
  ASSERT_TRUE(seen);
  EXPECT_FALSE(joined(seen->fields, "range"));
  EXPECT_TRUE(joined(seen->fields, "x"));
  EXPECT_EQ(reply.status, 206);
  EXPECT_EQ(reply.body, "345");
  EXPECT_EQ(reply.length, 3U);
  EXPECT_TRUE(reply.stored);
  EXPECT_EQ(cached(httpd_).body, "0123456789");
}

TEST_F(TransactionTest, AMissWithAConditionStoresAllAndAnswersTheCondition) {
  Request request;
  request.fields = {{"If-None-Match", "\"e\""}};
  const Reply reply = ask(nginx_, request, {200, with_length(kFresh, 5), "hello"});
  EXPECT_EQ(reply.status, 304);
  EXPECT_EQ(reply.body, "");
  EXPECT_TRUE(reply.stored);
  EXPECT_EQ(cached(httpd_).body, "hello");
  EXPECT_EQ(cached(httpd_, request).status, 304);
  request.fields = {{"If-Match", "\"other\""}};
  EXPECT_EQ(cached(httpd_, request).status, 412);
}

TEST_F(TransactionTest, BypassAsksTheOriginAndStoresItsAnswer) {
  ask(nginx_, {}, {200, kFresh, "old"});
  Request request;
  request.flags = MCS_REQUEST_BYPASS;
  const Reply reply = ask(nginx_, request, {200, kFresh, "new"});
  EXPECT_EQ(reply.cache_status, MCS_CACHE_BYPASS);
  EXPECT_EQ(reply.body, "new");
  EXPECT_EQ(cached(httpd_).body, "new");
  request.flags = MCS_REQUEST_BYPASS | MCS_REQUEST_NO_STORE;
  EXPECT_EQ(ask(nginx_, request, {200, kFresh, "newer"}).body, "newer");
  EXPECT_EQ(cached(httpd_).body, "new");
}

TEST_F(TransactionTest, OnlyIfCachedNeverReachesTheOrigin) {
  Request request;
  request.fields = {{"Cache-Control", "only-if-cached"}};
  Reply reply = cached(nginx_, request);
  EXPECT_EQ(reply.status, 504);
  EXPECT_FALSE(reply.asked_origin);
  ask(nginx_, {}, {200, kFresh, "hello"});
  EXPECT_EQ(cached(nginx_, request).status, 200);
}

TEST_F(TransactionTest, AnUnsafeMethodInvalidates) {
  ask(nginx_, {}, {200, kFresh, "old"});
  Request other;
  other.target = "/elsewhere";
  ask(nginx_, other, {200, kFresh, "other"});
  Request post;
  post.method = "POST";
  post.fields = {{"Content-Length", "1"}};
  EXPECT_EQ(ask(httpd_, post, {500, {}, ""}).status, 500);
  EXPECT_EQ(cached(nginx_).body, "old");
  ask(httpd_, post, {303, {{"Location", "/elsewhere"}}, ""});
  EXPECT_TRUE(cached(nginx_).asked_origin);
  EXPECT_TRUE(cached(nginx_, other).asked_origin);
}

TEST_F(TransactionTest, MinUsesCountsOverAllServers) {
  policy_.set("min_uses 3");
  EXPECT_FALSE(ask(nginx_, {}, {200, kFresh, "1"}).stored);
  EXPECT_FALSE(ask(httpd_, {}, {200, kFresh, "2"}).stored);
  EXPECT_TRUE(ask(nginx_, {}, {200, kFresh, "3"}).stored);
  EXPECT_EQ(cached(httpd_).body, "3");
}

TEST_F(TransactionTest, VariantsLiveSideBySide) {
  const auto get = [&](mcs_process* process, const char* language, const char* body) {
    Request request;
    if (language != nullptr) request.fields = {{"X-Kind", language}};
    OwnedFields fields = kFresh;
    fields.emplace_back("Vary", "X-Kind");
    return ask(process, request, {200, fields, body});
  };
  EXPECT_EQ(get(nginx_, "a", "A").body, "A");
  EXPECT_EQ(get(httpd_, "b", "B").body, "B");
  EXPECT_EQ(get(nginx_, nullptr, "none").body, "none");
  EXPECT_EQ(get(httpd_, "a", "x").body, "A");
  EXPECT_EQ(get(nginx_, "b", "x").body, "B");
  EXPECT_EQ(get(httpd_, nullptr, "x").body, "none");
  // Another spec for the same key joins the first.
  Request request;
  request.fields = {{"X-Kind", "c"}, {"X-Other", "1"}};
  OwnedFields fields = kFresh;
  fields.emplace_back("Vary", "X-Other");
  EXPECT_EQ(ask(nginx_, request, {200, fields, "C"}).body, "C");
  EXPECT_EQ(cached(httpd_, request).body, "C");
  EXPECT_EQ(get(httpd_, "a", "x").body, "A");
}

TEST_F(TransactionTest, UncacheableIsRememberedSoThatNobodyWaits) {
  policy_.set("lock_timeout 10s");
  ask(nginx_, {}, {200, {{"Cache-Control", "private"}}, "mine"});
  Exchange slow(nginx_, policy_.get(), {});
  ASSERT_EQ(slow.begin(), MCS_FORWARD);
  // It has the lease, but nobody waits for it.
  int waiter = 0;
  Exchange other(httpd_, policy_.get(), {}, &waiter);
  EXPECT_EQ(other.begin(), MCS_FORWARD);
  EXPECT_EQ(other.response().fill, 0);
  // Until that is forgotten, or a response is storable after all.
  slow.close();
  other.close();
  EXPECT_TRUE(ask(nginx_, {}, {200, kFresh, "ours"}).stored);
  EXPECT_EQ(cached(httpd_).body, "ours");
}

TEST_F(TransactionTest, TheOriginsFailureIsBridgedByWhatIsStored) {
  policy_.set("stale_if_error 60");
  policy_.set("use_stale error timeout http_500");
  ask(nginx_, {}, {200, {{"Cache-Control", "max-age=1"}, {"ETag", "\"e\""}}, "old"});
  advance_s(5);
  Reply reply = cached(httpd_);
  EXPECT_TRUE(reply.asked_origin);
  EXPECT_EQ(reply.cache_status, MCS_CACHE_STALE);
  EXPECT_EQ(reply.body, "old");
  EXPECT_EQ(reply.field("age"), "5");
  reply = ask(nginx_, {}, {500, {}, "broken"});
  EXPECT_EQ(reply.cache_status, MCS_CACHE_STALE);
  EXPECT_EQ(reply.body, "old");
  reply = ask(nginx_, {}, {403, {}, "no"});
  EXPECT_EQ(reply.status, 403);
  advance_s(100);
  EXPECT_EQ(ask(nginx_, {}, {503, {}, "busy"}).status, 503);
}

TEST_F(TransactionTest, StaleWhileRevalidateAsksForOneRefresh) {
  const OwnedFields fields = {{"Cache-Control", "max-age=1, stale-while-revalidate=60"},
                              {"ETag", "\"e\""}};
  ask(nginx_, {}, {200, fields, "old"});
  advance_s(5);
  const Reply first = cached(httpd_);
  EXPECT_FALSE(first.asked_origin);
  EXPECT_EQ(first.cache_status, MCS_CACHE_STALE);
  EXPECT_TRUE(first.refresh);
  const Reply second = cached(httpd_);
  EXPECT_EQ(second.cache_status, MCS_CACHE_UPDATING);
  EXPECT_FALSE(second.refresh);
  // The internal request; while it runs nobody else is asked to.
  Request internal;
  internal.flags = MCS_REQUEST_REFRESH;
  Exchange refresh(httpd_, policy_.get(), internal);
  ASSERT_EQ(refresh.begin(), MCS_FORWARD);
  EXPECT_EQ(joined(refresh.forwarded().fields, "if-none-match"), "\"e\"");
  EXPECT_FALSE(cached(nginx_).refresh);
  Exchange again(nginx_, policy_.get(), internal);
  EXPECT_EQ(again.begin(), MCS_DECLINED);
  EXPECT_EQ(refresh.head(304, {{"ETag", "\"e\""}}), MCS_REPLACE);
  refresh.close();
  const Reply fresh = cached(nginx_);
  EXPECT_EQ(fresh.cache_status, MCS_CACHE_HIT);
  EXPECT_EQ(fresh.field("age"), "0");
  EXPECT_EQ(again.begin(), MCS_DECLINED);
}

TEST_F(TransactionTest, CacheStatusWhenSwitchedOn) {
  policy_.set("status_header on");
  EXPECT_EQ(ask(nginx_, {}, {200, kFresh, "x"}).field("cache-status"),
            "mcs; fwd=uri-miss; stored; key=\"http://site.example/a\"");
  advance_s(10);
  EXPECT_EQ(cached(httpd_).field("cache-status"),
            "mcs; hit; ttl=90; key=\"http://site.example/a\"");
}

TEST_F(TransactionTest, AKeyOfItsOwnTakesThePlaceOfTheTarget) {
  Request request;
  request.key = "user=1";
  ask(nginx_, request, {200, kFresh, "one"});
  request.target = "/b";
  EXPECT_EQ(cached(httpd_, request).body, "one");
  request.key = "user=2";
  EXPECT_TRUE(cached(httpd_, request).asked_origin);
  request.key.clear();
  EXPECT_TRUE(cached(httpd_, request).asked_origin);
  // Nor is it the home page of a site with that name.
  policy_.set("key_base user=1");
  request.target = "/";
  EXPECT_TRUE(cached(httpd_, request).asked_origin);
}

TEST_F(TransactionTest, DamagedBytesNeverReachAClient) {
  ask(nginx_, {}, {200, kFresh, pattern(1000)});
  // Every payload byte of the domain is turned over, as a wild write would.
  for (std::uint32_t node = 0; node < 2; ++node) {
    gsm::Segment& segment = nginx_->domain->segment(node);
    std::vector<std::byte> page(4096);
    for (std::uint64_t at = 0; at + page.size() <= segment.payload_bytes(); at += page.size()) {
      std::memcpy(page.data(), segment.payload() + at, page.size());
      for (std::byte& b : page) b ^= std::byte{0x55};
      ASSERT_TRUE(segment.write_payload(at, page));
    }
  }
  const Reply reply = ask(httpd_, {}, {200, kFresh, "good"});
  EXPECT_TRUE(reply.asked_origin);
  EXPECT_EQ(reply.body, "good");
  EXPECT_EQ(cached(nginx_).body, "good");
}

TEST_F(TransactionTest, FullMemoryIsNeverAnError) {
  const std::string body = pattern(200000);
  for (int i = 0; i < 600; ++i) {
    Request request;
    request.target = "/" + std::to_string(i);
    const Reply reply =
        ask(i % 2 == 0 ? nginx_ : httpd_, request, {200, with_length(kFresh, body.size()), body});
    ASSERT_EQ(reply.status, 200);
    ASSERT_TRUE(reply.body == body);
  }
}

}  // namespace
}  // namespace mcs::api::testing
