// SPDX-License-Identifier: Apache-2.0
// A 304 and a HEAD update what is stored; the body stays (docs/decisions/0020-freshening.md).
#include <gtest/gtest.h>

#include "libglobalcache/api/process.h"
#include "tests/libglobalcache/api/api_kit.h"

namespace mcs::api::testing {
namespace {

class FresheningTest : public ::testing::TestWithParam<std::size_t> {
 protected:
  TestDomain domain_;
  mcs_process* nginx_ = domain_.join("nginx/1.22.1", 0);
  mcs_process* httpd_ = domain_.join("Apache/2.4", 1);
  TestPolicy policy_;
  std::string body_ = std::string(GetParam(), 'x') + "end";

  Reply ask(mcs_process* process, const Response& origin, Request request = {}) {
    return testing::ask(process, policy_.get(), request, origin);
  }
  Reply cached(mcs_process* process) {
    return testing::ask(process, policy_.get(), {},
                        [](const Request&) -> std::optional<Response> { return std::nullopt; });
  }
  void store(OwnedFields more = {}) {
    OwnedFields fields = {{"Cache-Control", "max-age=10"}, {"ETag", "\"e\""}, {"X-A", "1"}};
    fields.insert(fields.end(), more.begin(), more.end());
    ASSERT_TRUE(ask(nginx_, {200, fields, body_}).stored);
  }
};

TEST_P(FresheningTest, A304BringsNewFieldsAndKeepsTheBody) {
  store();
  for (int round = 0; round < 3; ++round) {
    advance_s(20);
    const std::string value = std::to_string(round);
    const Reply reply =
        ask(round % 2 == 0 ? httpd_ : nginx_,
            {304, {{"ETag", "\"e\""}, {"X-A", value}, {"Cache-Control", "max-age=15"}}, ""});
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.cache_status, MCS_CACHE_REVALIDATED);
    EXPECT_TRUE(reply.body == body_);
    EXPECT_EQ(reply.field("x-a"), value);
    EXPECT_EQ(reply.field("age"), "0");
    advance_s(12);
    const Reply hit = cached(nginx_);
    EXPECT_FALSE(hit.asked_origin);
    EXPECT_EQ(hit.cache_status, MCS_CACHE_HIT);
    EXPECT_EQ(hit.field("x-a"), value);
    EXPECT_EQ(hit.field("age"), "12");
    EXPECT_TRUE(hit.body == body_);
  }
}

TEST_P(FresheningTest, TheClientsOwnConditionsAndRangesAreAnsweredFromIt) {
  store();
  advance_s(20);
  Request request;
  request.fields = {{"If-None-Match", "\"e\""}, {"If-Modified-Since", date_in(0)}};
  Exchange exchange(httpd_, policy_.get(), request);
  ASSERT_EQ(exchange.begin(), MCS_FORWARD);
  EXPECT_EQ(joined(exchange.forwarded().fields, "if-none-match"), "\"e\"");
  EXPECT_FALSE(joined(exchange.forwarded().fields, "if-modified-since"));
  ASSERT_EQ(exchange.head(304, {}), MCS_REPLACE);
  EXPECT_EQ(exchange.reply().status, 304);
  exchange.close();
  advance_s(20);
  request.fields = {{"Range", "bytes=-3"}};
  const Reply part = ask(nginx_, {304, {}, ""}, request);
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, "end");
}

TEST_P(FresheningTest, ABodyThatWasPurgedMeanwhileIsStillSentButNotStored) {
  store();
  advance_s(20);
  Exchange exchange(httpd_, policy_.get(), {});
  ASSERT_EQ(exchange.begin(), MCS_FORWARD);
  mcs_purge_request all{};
  all.kind = MCS_PURGE_ALL;
  std::uint64_t purged = 0;
  ASSERT_EQ(mcs_purge(nginx_, &all, &purged, nullptr, 0), MCS_OK);
  EXPECT_EQ(purged, 1U);
  ASSERT_EQ(exchange.head(304, {}), MCS_REPLACE);
  EXPECT_TRUE(exchange.reply().body == body_);
  exchange.close();
  EXPECT_TRUE(cached(nginx_).asked_origin);
}

TEST_P(FresheningTest, SoIsOneThatWasValidatedBesideAnother) {
  store();
  advance_s(20);
  Exchange first(nginx_, policy_.get(), {});
  ASSERT_EQ(first.begin(), MCS_FORWARD);
  Request reload;
  reload.fields = {{"Cache-Control", "no-cache"}};
  Exchange second(httpd_, policy_.get(), reload);
  ASSERT_EQ(second.begin(), MCS_FORWARD);
  first.close();
  mcs_purge_request all{};
  all.kind = MCS_PURGE_ALL;
  ASSERT_EQ(mcs_purge(nginx_, &all, nullptr, nullptr, 0), MCS_OK);
  ASSERT_EQ(second.head(304, {}), MCS_REPLACE);
  EXPECT_TRUE(second.reply().body == body_);
  second.close();
  EXPECT_TRUE(cached(nginx_).asked_origin);
}

TEST_P(FresheningTest, A304ForSomethingElseIsAskedAgain) {
  store();
  advance_s(20);
  int asked = 0;
  const Reply reply = testing::ask(httpd_, policy_.get(), {}, [&](const Request& request) {
    if (++asked == 1) return std::optional<Response>({304, {{"ETag", "\"other\""}}, ""});
    EXPECT_FALSE(joined(request.fields, "if-none-match"));
    return std::optional<Response>({200, {{"Cache-Control", "max-age=10"}}, "new"});
  });
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, "new");
  EXPECT_EQ(cached(nginx_).body, "new");
}

TEST_P(FresheningTest, AHeadResponseFreshensOrInvalidates) {
  store();
  advance_s(20);
  Request head;
  head.method = "HEAD";
  const std::string length = std::to_string(body_.size());
  Reply reply = ask(httpd_, {200, {{"ETag", "\"e\""}, {"Content-Length", length},
                                   {"Cache-Control", "max-age=30"}, {"X-A", "2"}}, ""}, head);
  EXPECT_EQ(reply.status, 200);
  Reply hit = cached(nginx_);
  EXPECT_EQ(hit.cache_status, MCS_CACHE_HIT);
  EXPECT_EQ(hit.field("x-a"), "2");
  EXPECT_TRUE(hit.body == body_);
  // The representation has changed: what is stored must not be used unasked.
  head.fields = {{"Cache-Control", "no-cache"}};
  ask(nginx_, {200, {{"ETag", "\"f\""}}, ""}, head);
  EXPECT_TRUE(cached(httpd_).asked_origin);
}

TEST_P(FresheningTest, WhenTheUpdateForbidsStoringNothingStays) {
  store();
  advance_s(20);
  const Reply reply =
      ask(httpd_, {304, {{"ETag", "\"e\""}, {"Cache-Control", "no-store"}}, ""});
  EXPECT_EQ(reply.status, 200);
  EXPECT_TRUE(reply.body == body_);
  Request only_cached;
  only_cached.fields = {{"Cache-Control", "only-if-cached, max-stale"}};
  EXPECT_EQ(ask(nginx_, {}, only_cached).status, 504);
}

TEST_P(FresheningTest, WhoDoesNotFillMayValidateAllTheSame) {
  store();
  advance_s(20);
  policy_.set("lock_timeout 1ms");
  Exchange filler(nginx_, policy_.get(), {});
  ASSERT_EQ(filler.begin(), MCS_FORWARD);
  Exchange other(httpd_, policy_.get(), {});
  ASSERT_EQ(other.begin(), MCS_FORWARD);
  EXPECT_EQ(other.response().fill, 0);
  EXPECT_EQ(joined(other.forwarded().fields, "if-none-match"), "\"e\"");
  EXPECT_EQ(other.head(304, {}), MCS_REPLACE);
  EXPECT_TRUE(other.reply().body == body_);
  EXPECT_EQ(filler.head(304, {}), MCS_REPLACE);
}

INSTANTIATE_TEST_SUITE_P(Sizes, FresheningTest, ::testing::Values(10, 100000, 400000));

}  // namespace
}  // namespace mcs::api::testing
