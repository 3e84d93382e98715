// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/reuse.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mcs::http {
namespace {

using V = Reuse;

constexpr std::int64_t kStart = 1780000000000;

// A response that arrived at kStart with this Cache-Control.
StoredMeta stored(std::string_view cache_control, const CachePolicy& policy = {},
                  std::string_view age = "") {
  std::vector<FieldView> fields = {{"Cache-Control", cache_control}};
  if (!age.empty()) fields.push_back({"Age", age});
  std::string scratch;
  const ResponseInfo info = read_response(policy, 200, fields, kStart, scratch);
  return make_stored_meta(policy, info, kStart, kStart);
}

ReuseDecision evaluate(const StoredMeta& meta, std::int64_t after_s,
                       std::string_view request_cache_control = "", const CachePolicy& policy = {},
                       bool marked_stale = false) {
  std::vector<FieldView> request = {{"Host", "h"}, {"Accept", "*/*"}};
  if (!request_cache_control.empty()) {
    request.push_back({"Cache-Control", request_cache_control});
  }
  return evaluate_reuse(policy, Method::kGet, Fields(request), meta, kStart + after_s * 1000,
                        marked_stale);
}

// RFC 9111 4.2, 5.2.1
TEST(Reuse, FollowsFreshnessAndRequestDirectives) {
  const struct {
    std::string_view response;
    std::int64_t after_s;
    std::string_view request;
    V verdict;
    Forward forward;
  } cases[] = {
      {"max-age=60", 0, "", V::kHit, Forward::kNone},
      {"max-age=60", 59, "", V::kHit, Forward::kNone},
      {"max-age=60", 60, "", V::kRevalidate, Forward::kStale},
      {"max-age=60, no-cache", 0, "", V::kRevalidate, Forward::kStale},
      {"max-age=60, no-cache=\"x\"", 0, "", V::kHit, Forward::kNone},
      {"max-age=60, must-revalidate", 59, "", V::kHit, Forward::kNone},
      {"max-age=60, must-revalidate", 60, "", V::kRevalidate, Forward::kStale},
      // max-age
      {"max-age=60", 3, "max-age=0", V::kRevalidate, Forward::kRequest},
      {"max-age=60", 0, "max-age=0", V::kRevalidate, Forward::kRequest},
      {"max-age=60", 3, "max-age=1", V::kRevalidate, Forward::kRequest},
      {"max-age=60", 3, "max-age=3", V::kHit, Forward::kNone},
      {"max-age=60", 3, "max-age=9999999999", V::kHit, Forward::kNone},
      {"max-age=60", 3, "max-age=x", V::kRevalidate, Forward::kRequest},
      // min-fresh
      {"max-age=60", 10, "min-fresh=50", V::kHit, Forward::kNone},
      {"max-age=60", 10, "min-fresh=51", V::kRevalidate, Forward::kRequest},
      {"max-age=60", 10, "min-fresh=x", V::kHit, Forward::kNone},
      // max-stale
      {"max-age=1", 3, "max-stale=1000", V::kHitStale, Forward::kNone},
      {"max-age=1", 3, "max-stale", V::kHitStale, Forward::kNone},
      {"max-age=1", 3, "max-stale=1", V::kRevalidate, Forward::kStale},
      {"max-age=1", 3, "max-stale=2", V::kHitStale, Forward::kNone},
      {"max-age=1", 3, "max-stale=x", V::kRevalidate, Forward::kStale},
      {"max-age=1, must-revalidate", 3, "max-stale", V::kRevalidate, Forward::kStale},
      {"max-age=1, proxy-revalidate", 3, "max-stale", V::kRevalidate, Forward::kStale},
      {"max-age=1, no-cache", 3, "max-stale", V::kRevalidate, Forward::kStale},
      {"s-maxage=1", 3, "max-stale", V::kRevalidate, Forward::kStale},
      {"max-age=1", 3, "max-stale, max-age=2", V::kRevalidate, Forward::kStale},
      {"max-age=1", 3, "max-stale, max-age=5", V::kHitStale, Forward::kNone},
      {"max-age=1", 3, "max-stale, min-fresh=1", V::kRevalidate, Forward::kStale},
      // no-cache, no-store
      {"max-age=60", 3, "no-cache", V::kRevalidate, Forward::kRequest},
      {"max-age=60", 3, "no-store", V::kMiss, Forward::kRequest},
      {"max-age=60", 3, "unknown", V::kHit, Forward::kNone},
      // only-if-cached
      {"max-age=60", 3, "only-if-cached", V::kHit, Forward::kNone},
      {"max-age=1", 3, "only-if-cached", V::kGatewayTimeout, Forward::kStale},
      {"max-age=1", 3, "only-if-cached, max-stale", V::kHitStale, Forward::kNone},
      {"max-age=60", 3, "only-if-cached, no-cache", V::kGatewayTimeout, Forward::kRequest},
      {"max-age=60", 3, "only-if-cached, no-store", V::kHit, Forward::kNone},
      {"max-age=60", 3, "only-if-cached, max-age=1", V::kGatewayTimeout, Forward::kRequest},
      // RFC 8246: a reload of what cannot change
      {"max-age=60, immutable", 3, "max-age=0", V::kHit, Forward::kNone},
      {"max-age=60, immutable", 3, "no-cache", V::kRevalidate, Forward::kRequest},
      {"max-age=60, immutable", 3, "max-age=1", V::kRevalidate, Forward::kRequest},
      {"max-age=1, immutable", 3, "max-age=0", V::kRevalidate, Forward::kStale},
      {"max-age=1, immutable", 3, "", V::kRevalidate, Forward::kStale},
      // RFC 5861 3
      {"max-age=1, stale-while-revalidate=4", 4, "", V::kHitStale, Forward::kNone},
      {"max-age=1, stale-while-revalidate=4", 5, "", V::kRevalidate, Forward::kStale},
      {"max-age=1, stale-while-revalidate=4, must-revalidate", 4, "", V::kRevalidate,
       Forward::kStale},
      {"s-maxage=1, stale-while-revalidate=4", 4, "", V::kHitStale, Forward::kNone},
      {"max-age=1, stale-while-revalidate=4", 4, "max-age=9", V::kRevalidate, Forward::kStale},
      {"max-age=1, stale-while-revalidate=4", 4, "only-if-cached", V::kHitStale, Forward::kNone},
      {"max-age=1, stale-if-error=60", 4, "", V::kRevalidate, Forward::kStale},
  };
  for (const auto& c : cases) {
    const ReuseDecision d = evaluate(stored(c.response), c.after_s, c.request);
    EXPECT_EQ(d.verdict, c.verdict) << c.response << " after " << c.after_s << " | " << c.request;
    EXPECT_EQ(d.forward, c.forward) << c.response << " after " << c.after_s << " | " << c.request;
  }
}

TEST(Reuse, TellsAgeAndRemainingLifetime) {
  const StoredMeta meta = stored("max-age=60", {}, "10");
  ReuseDecision d = evaluate(meta, 5);
  EXPECT_EQ(d.age_s, 15);
  EXPECT_EQ(d.ttl_s, 45);
  d = evaluate(meta, 55);
  EXPECT_EQ(d.age_s, 65);
  EXPECT_EQ(d.ttl_s, -5);
}

TEST(Reuse, RefreshesInTheBackgroundOnlyForStaleWhileRevalidate) {
  EXPECT_TRUE(evaluate(stored("max-age=1, stale-while-revalidate=9"), 4).refresh_in_background);
  EXPECT_TRUE(evaluate(stored("max-age=1, stale-while-revalidate=9"), 4, "max-stale")
                  .refresh_in_background);
  EXPECT_FALSE(evaluate(stored("max-age=1"), 4, "max-stale").refresh_in_background);
  EXPECT_FALSE(evaluate(stored("max-age=60"), 4).refresh_in_background);
}

TEST(Reuse, FollowsUseStaleUpdating) {
  CachePolicy policy;
  policy.use_stale = kStaleOnUpdating;
  ReuseDecision d = evaluate(stored("max-age=1"), 100, "", policy);
  EXPECT_EQ(d.verdict, V::kHitStale);
  EXPECT_TRUE(d.refresh_in_background);
  policy.background_update = false;
  d = evaluate(stored("max-age=1"), 100, "", policy);
  EXPECT_EQ(d.verdict, V::kRevalidate);
  EXPECT_TRUE(d.may_be_stale_while_updating);
  for (const std::string_view forbidden :
       {"max-age=1, must-revalidate", "max-age=1, no-cache", "s-maxage=1"}) {
    d = evaluate(stored(forbidden), 100, "", policy);
    EXPECT_EQ(d.verdict, V::kRevalidate) << forbidden;
    EXPECT_FALSE(d.may_be_stale_while_updating) << forbidden;
  }
  policy.max_stale = 98;
  EXPECT_FALSE(evaluate(stored("max-age=1"), 100, "", policy).may_be_stale_while_updating);
  policy.max_stale = 99;
  EXPECT_TRUE(evaluate(stored("max-age=1"), 100, "", policy).may_be_stale_while_updating);
}

TEST(Reuse, CanBeDeafToRequests) {
  CachePolicy policy;
  policy.ignore_cache_control = true;
  for (const std::string_view request :
       {"no-cache", "no-store", "max-age=0", "min-fresh=100", "only-if-cached"}) {
    EXPECT_EQ(evaluate(stored("max-age=60"), 3, request, policy).verdict, V::kHit) << request;
    EXPECT_TRUE(evaluate(stored("max-age=60"), 3, request, policy).store_response) << request;
  }
  EXPECT_EQ(evaluate(stored("max-age=1"), 3, "max-stale", policy).verdict, V::kRevalidate);
  const RequestDirectives only_if_cached =
      parse_request_directives(std::vector<FieldView>{{"Cache-Control", "only-if-cached"}});
  EXPECT_EQ(evaluate_absent(policy, Method::kGet, only_if_cached).verdict, V::kMiss);
}

TEST(Reuse, NeedsGetOrHead) {
  const StoredMeta meta = stored("max-age=60");
  const std::vector<FieldView> none;
  EXPECT_EQ(evaluate_reuse(CachePolicy(), Method::kHead, Fields(none), meta, kStart).verdict,
            V::kHit);
  for (const Method method : {Method::kPost, Method::kPut, Method::kOptions}) {
    const ReuseDecision d = evaluate_reuse(CachePolicy(), method, Fields(none), meta, kStart);
    EXPECT_EQ(d.verdict, V::kMiss);
    EXPECT_EQ(d.forward, Forward::kMethod);
  }
}

TEST(Reuse, MarkedStaleIsStaleSinceNow) {
  EXPECT_EQ(evaluate(stored("max-age=60"), 3, "", {}, true).verdict, V::kRevalidate);
  EXPECT_EQ(evaluate(stored("max-age=60"), 3, "max-stale=1", {}, true).verdict, V::kHitStale);
  const StoredMeta swr = stored("max-age=60, stale-while-revalidate=5");
  EXPECT_EQ(evaluate(swr, 3, "", {}, true).verdict, V::kHitStale);
  EXPECT_TRUE(evaluate(swr, 3, "", {}, true).refresh_in_background);
  EXPECT_EQ(evaluate(swr, 66, "", {}, true).verdict, V::kRevalidate);
}

TEST(Reuse, AnswersWithoutAnythingStored) {
  const auto absent = [](std::string_view cache_control, Method method = Method::kGet) {
    const std::vector<FieldView> request = {{"Cache-Control", cache_control}};
    return evaluate_absent(CachePolicy(), method, parse_request_directives(request));
  };
  EXPECT_EQ(absent("x").verdict, V::kMiss);
  EXPECT_EQ(absent("x").forward, Forward::kUriMiss);
  EXPECT_EQ(absent("only-if-cached").verdict, V::kGatewayTimeout);
  EXPECT_EQ(absent("only-if-cached", Method::kPost).verdict, V::kMiss);
  EXPECT_EQ(absent("x", Method::kPost).forward, Forward::kMethod);
  EXPECT_FALSE(absent("no-store").store_response);
}

// RFC 9111 4.2.4, RFC 5861 4
TEST(ServeStale, OnFailures) {
  const struct {
    std::string_view response;
    std::int64_t after_s;
    std::string_view request;
    StaleOn failure;
    bool allowed;
  } cases[] = {
      {"max-age=2", 3, "", kStaleOnError, true},
      {"max-age=2", 3, "", kStaleOnTimeout, true},
      {"max-age=2", 3, "", kStaleOn503, false},
      {"max-age=2", 3, "", kStaleOn404, false},
      {"max-age=2, stale-if-error=60", 61, "", kStaleOn503, true},
      {"max-age=2, stale-if-error=60", 61, "", kStaleOn500, true},
      {"max-age=2, stale-if-error=60", 61, "", kStaleOn404, false},
      {"max-age=2, stale-if-error=60", 62, "", kStaleOn503, false},
      {"max-age=2, must-revalidate", 3, "", kStaleOnError, false},
      {"max-age=2, must-revalidate, stale-if-error=60", 3, "", kStaleOnError, false},
      {"max-age=2, proxy-revalidate", 3, "", kStaleOnError, false},
      {"max-age=2, no-cache", 3, "", kStaleOnError, false},
      {"max-age=2, s-maxage=2", 3, "", kStaleOnError, false},
      {"s-maxage=2, stale-if-error=9", 3, "", kStaleOnError, true},
      {"s-maxage=2, stale-if-error=9", 30, "", kStaleOnError, false},
      {"max-age=2", 3, "no-cache", kStaleOnError, false},
      {"max-age=2", 3, "no-store", kStaleOnError, false},
      {"max-age=2", 3, "stale-if-error=60", kStaleOn503, true},
      {"max-age=2", 99, "stale-if-error=60", kStaleOn503, false},
      {"s-maxage=2", 3, "stale-if-error=60", kStaleOn503, false},
  };
  for (const auto& c : cases) {
    const std::vector<FieldView> request = {{"Cache-Control", c.request}};
    EXPECT_EQ(may_serve_stale(CachePolicy(), parse_request_directives(request), stored(c.response),
                              kStart + c.after_s * 1000, c.failure),
              c.allowed)
        << c.response << " after " << c.after_s << " | " << c.request << " | " << c.failure;
  }
  CachePolicy policy;
  policy.use_stale = kStaleOn404 | kStaleOnError;
  policy.max_stale = 10;
  EXPECT_TRUE(may_serve_stale(policy, {}, stored("max-age=2"), kStart + 12000, kStaleOn404));
  EXPECT_FALSE(may_serve_stale(policy, {}, stored("max-age=2"), kStart + 13000, kStaleOn404));
  EXPECT_FALSE(may_serve_stale(policy, {}, stored("max-age=2"), kStart + 3000, kStaleOnTimeout));
}

TEST(ServeStale, KnowsWhichStatusesAreFailures) {
  EXPECT_EQ(failure_of_status(503), kStaleOn503);
  EXPECT_EQ(failure_of_status(429), kStaleOn429);
  for (const int status : {200, 304, 301, 400, 410, 501, 505}) {
    EXPECT_EQ(failure_of_status(status), 0u) << status;
  }
}

TEST(Reuse, ToleratesAnyStoredBytes) {
  StoredMeta meta;
  for (const std::int64_t extreme : {kNoTime, kNoTime + 1, std::int64_t{0}, kForever}) {
    meta.base_ms = meta.fresh_until_ms = meta.response_time_ms = extreme;
    meta.stale_while_revalidate_until_ms = meta.stale_if_error_until_ms = extreme / 2;
    meta.flags = ~0u;
    for (const std::int64_t now : {kNoTime, std::int64_t{0}, kForever}) {
      for (const bool marked : {false, true}) {
        RequestDirectives directives;
        directives.any = true;
        directives.max_stale = directives.min_fresh = directives.max_age = kMaxDeltaSeconds;
        evaluate_reuse(CachePolicy(), Method::kGet, directives, meta, now, marked);
        may_serve_stale(CachePolicy(), directives, meta, now, kStaleOnError);
      }
    }
  }
}

}  // namespace
}  // namespace mcs::http
