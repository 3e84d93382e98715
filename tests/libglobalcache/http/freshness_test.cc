// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/freshness.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mcs::http {
namespace {

// 2026-05-28 20:26:40, in the middle of a second.
constexpr std::int64_t kNow = 1780000000400;
constexpr std::int64_t kNowSecond = 1780000000000;

std::string date(std::int64_t offset_s) {
  const auto text = format_http_date(kNowSecond + offset_s * 1000);
  return {text.data(), text.size()};
}

// Field lines that own their text.
struct Lines {
  Lines(std::initializer_list<std::pair<std::string, std::string>> lines) : text(lines) {
    for (const auto& [name, value] : text) views.push_back({name, value});
  }
  Lines(const Lines& other) : text(other.text) {
    for (const auto& [name, value] : text) views.push_back({name, value});
  }
  std::vector<std::pair<std::string, std::string>> text;
  std::vector<FieldView> views;
};

StoredMeta meta_of(const Lines& lines, const CachePolicy& policy = {}, int status = 200,
                   std::int64_t delay_ms = 0) {
  std::string scratch;
  const ResponseInfo info = read_response(policy, status, lines.views, kNow, scratch);
  return make_stored_meta(policy, info, kNow - delay_ms, kNow);
}

Lifetime lifetime_of(const Lines& lines, const CachePolicy& policy = {}, int status = 200) {
  std::string scratch;
  const ResponseInfo info = read_response(policy, status, lines.views, kNow, scratch);
  return freshness_lifetime(policy, info, kNow);
}

// RFC 9111 4.2.1
TEST(Lifetime, ComesFromTheFirstThatIsThere) {
  using S = LifetimeSource;
  const struct {
    Lines lines;
    std::int64_t seconds;
    S source;
  } cases[] = {
      {{}, 0, S::kNone},
      {{{"Cache-Control", "max-age=3600"}}, 3600, S::kMaxAge},
      {{{"Cache-Control", "max-age=3600, s-maxage=1"}}, 1, S::kSMaxAge},
      {{{"Cache-Control", "max-age=0"}, {"Cache-Control", "s-maxage=3600"}, {"Expires", date(-10)}},
       3600,
       S::kSMaxAge},
      {{{"Cache-Control", "max-age=99999999999"}}, kMaxDeltaSeconds, S::kMaxAge},
      {{{"Cache-Control", "max-age=3600"}, {"Expires", date(-7200)}, {"Date", date(0)}},
       3600,
       S::kMaxAge},
      {{{"Cache-Control", "max-age=3600"}, {"Expires", "0"}}, 3600, S::kMaxAge},
      {{{"Cache-Control", "max-age=0"}, {"Expires", date(3600)}}, 0, S::kMaxAge},
      {{{"Cache-Control", "max-age=-1"}, {"Expires", date(3600)}}, 0, S::kMaxAge},
      {{{"Cache-Control", "s-maxage=x, max-age=5"}}, 0, S::kMaxAge},
      {{{"Expires", date(2592000)}, {"Date", date(0)}}, 2592000, S::kExpires},
      {{{"Expires", date(60)}}, 60, S::kExpires},
      {{{"Expires", date(10)}, {"Date", "foo"}}, 10, S::kExpires},
      {{{"Expires", date(0)}, {"Date", date(0)}}, 0, S::kExpires},
      {{{"Expires", date(300)}, {"Date", date(400)}}, 0, S::kExpires},
      {{{"Expires", "0"}, {"Date", date(0)}}, 0, S::kExpires},
      {{{"Expires", "-1"}, {"Last-Modified", date(-86400)}}, 0, S::kExpires},
      {{{"Expires", date(60)}, {"Expires", date(60)}}, 60, S::kExpires},
      {{{"Expires", date(60)}, {"Expires", date(90)}}, 0, S::kExpires},
      {{{"Cache-Control", "max-age=1"}, {"CDN-Cache-Control", "max-age=3600"}}, 3600, S::kMaxAge},
      {{{"CDN-Cache-Control", "max-age=0"}, {"Expires", date(60)}}, 0, S::kMaxAge},
      {{{"CDN-Cache-Control", "foo"}, {"Cache-Control", "max-age=9"}, {"Expires", date(60)}},
       0,
       S::kNone},
      {{{"CDN-Cache-Control", "max-age=\"1\""}, {"Cache-Control", "max-age=9"}}, 9, S::kMaxAge},
  };
  for (const auto& c : cases) {
    const Lifetime lifetime = lifetime_of(c.lines);
    std::string text;
    for (const auto& [name, value] : c.lines.text) text += name + ": " + value + "; ";
    EXPECT_EQ(lifetime.ms, c.seconds * 1000) << text;
    EXPECT_EQ(lifetime.source, c.source) << text;
  }
}

TEST(Lifetime, DifferentExpiresAreInvalidInAnyOrder) {
  EXPECT_EQ(lifetime_of({{"Expires", date(60)}, {"Expires", date(90)}, {"Expires", date(60)}}).ms,
            0);
  EXPECT_EQ(lifetime_of({{"Expires", "x"}, {"Expires", date(60)}}).ms, 0);
  EXPECT_EQ(lifetime_of({{"Expires", date(60)}, {"Expires", "x"}}).ms, 0);
}

// RFC 9111 4.2.2, RFC 9110 15.1
TEST(Heuristic, IsTenPercentOfTheTimeSinceLastModified) {
  for (const int status : {200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501}) {
    const Lifetime lifetime =
        lifetime_of({{"Last-Modified", date(-86400)}, {"Date", date(0)}}, {}, status);
    EXPECT_EQ(lifetime.ms, 8640000) << status;
    EXPECT_EQ(lifetime.source, LifetimeSource::kHeuristic) << status;
  }
  for (const int status : {201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599}) {
    EXPECT_EQ(lifetime_of({{"Last-Modified", date(-86400)}, {"Date", date(0)}}, {}, status).ms, 0)
        << status;
    EXPECT_EQ(
        lifetime_of({{"Last-Modified", date(-86400)}, {"Cache-Control", "public"}}, {}, status).ms,
        8640000)
        << status;
  }
}

TEST(Heuristic, NeedsAValidDateInThePast) {
  EXPECT_EQ(lifetime_of({{"Last-Modified", "foo"}}).ms, 0);
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(10)}}).ms, 0);
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(0)}, {"Date", date(0)}}).ms, 0);
  EXPECT_EQ(lifetime_of({{"ETag", "\"a\""}}).ms, 0);
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(-5)}}).ms, 0);
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(-30)}}).ms, 3000);
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(-100 * 365 * 86400LL)}}).ms, 86400000);  // the cap
}

TEST(Heuristic, FollowsThePolicy) {
  CachePolicy policy;
  policy.heuristic_permille = 500;
  policy.heuristic_max = 100;
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(-60)}}, policy).ms, 30000);
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(-6000)}}, policy).ms, 100000);
  policy.min_expire = 50;
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(-60)}}, policy).ms, 50000);
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(60)}}, policy).ms, 0);
  policy.heuristic_permille = 0;
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(-6000)}}, policy).ms, 0);
  policy.default_expire = 70;
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(-6000)}}, policy).ms, 0);
  EXPECT_EQ(lifetime_of({}, policy).ms, 70000);
  EXPECT_EQ(lifetime_of({}, policy, 500).ms, 0);
  EXPECT_EQ(lifetime_of({}, policy).source, LifetimeSource::kDefault);
  policy.heuristic_permille = 500;
  policy.ignored = kIgnoreLastModified;
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(-6000)}}, policy).ms, 0);
}

TEST(ConfiguredLifetime, StandsBehindTheResponsesOwn) {
  CachePolicy policy;
  policy.valid = {{200, 600}, {500, 5}};
  EXPECT_EQ(lifetime_of({}, policy).ms, 600000);
  EXPECT_EQ(lifetime_of({{"Last-Modified", date(-86400)}}, policy).ms, 600000);
  EXPECT_EQ(lifetime_of({{"Cache-Control", "max-age=1"}}, policy).ms, 1000);
  EXPECT_EQ(lifetime_of({}, policy, 500).ms, 5000);
  policy.ignored = kIgnoreCacheControl | kIgnoreExpires;
  EXPECT_EQ(lifetime_of({{"Cache-Control", "max-age=1"}, {"Expires", date(5)}}, policy).ms, 600000);
  policy.max_expire = 60;
  EXPECT_EQ(lifetime_of({}, policy).ms, 60000);
  policy.ignored = 0;
  EXPECT_EQ(lifetime_of({{"Cache-Control", "max-age=3600"}}, policy).ms, 60000);
}

TEST(TargetedFields, TheFirstValidOneCounts) {
  CachePolicy policy;
  policy.targeted = {"my-cc", "cdn-cache-control"};
  EXPECT_EQ(lifetime_of({{"CDN-Cache-Control", "max-age=1"}, {"My-CC", "max-age=2"}}, policy).ms,
            2000);
  EXPECT_EQ(lifetime_of({{"CDN-Cache-Control", "max-age=1"}, {"My-CC", "MAX"}}, policy).ms, 1000);
  policy.ignored = kIgnoreTargeted;
  EXPECT_EQ(lifetime_of({{"My-CC", "max-age=2"}, {"Cache-Control", "max-age=3"}}, policy).ms, 3000);
  policy.ignored = 0;
  policy.targeted.clear();
  EXPECT_EQ(lifetime_of({{"CDN-Cache-Control", "max-age=2"}}, policy).ms, 0);
}

// RFC 9111 4.2.3, 5.1
TEST(InitialAge, TakesTheLargerOfDateAndAge) {
  const struct {
    Lines lines;
    std::int64_t delay_ms;
    std::int64_t age_ms;
  } cases[] = {
      {{}, 0, 0},
      {{}, 700, 700},
      {{{"Date", date(0)}}, 0, 0},
      {{{"Date", date(-10)}}, 0, 10000},
      {{{"Date", date(-10)}, {"Age", "25"}}, 0, 25000},
      {{{"Date", date(-40)}, {"Age", "25"}}, 500, 40000},
      {{{"Age", "25"}}, 500, 25500},
      {{{"Date", date(10)}, {"Age", "15"}}, 0, 15000},
      {{{"Date", date(3600)}}, 0, 0},
      {{{"Date", "foo"}}, 0, 0},
      {{{"Date", "foo"}, {"Date", date(-5)}}, 0, 5000},
      {{{"Age", "abc"}}, 0, 0},
      {{{"Age", "-7200"}}, 0, 0},
      {{{"Age", "7200.0"}}, 0, 0},
      {{{"Age", "7200;foo=bar"}}, 0, 0},
      {{{"Age", "7200, 0"}}, 0, 7200000},
      {{{"Age", "0, 7200"}}, 0, 0},
      {{{"Age", "7200"}, {"Age", "0"}}, 0, 7200000},
      {{{"Age", "0"}, {"Age", "7200"}}, 0, 0},
      {{{"Age", "3600"}, {"Age", "3600"}}, 0, 3600000},
      {{{"Age", "2147483648"}}, 0, 2147483648000},
      {{{"Age", "99999999999999999999"}}, 0, 2147483648000},
      {{{"Date", "Thu, 01 Jan 1970 00:00:00 GMT"}}, 0, kNowSecond},
  };
  for (const auto& c : cases) {
    const StoredMeta meta = meta_of(c.lines, {}, 200, c.delay_ms);
    std::string text;
    for (const auto& [name, value] : c.lines.text) text += name + ": " + value + "; ";
    EXPECT_EQ(kNow - meta.base_ms, c.age_ms) << text;
    EXPECT_EQ(age_to_send(meta, kNow), c.age_ms / 1000) << text;
    EXPECT_EQ(age_to_send(meta, kNow + 3000), std::min((c.age_ms + 3000) / 1000, kMaxDeltaSeconds))
        << text;
  }
}

TEST(InitialAge, ToleratesClocksThatRunBackwards) {
  const StoredMeta meta = meta_of({{"Age", "30"}, {"Cache-Control", "max-age=60"}});
  EXPECT_EQ(age_to_send(meta, kNow - 3600000), 30);
  EXPECT_TRUE(is_fresh(meta, kNow - 3600000));
  // The request seems to have been sent after its response came.
  EXPECT_EQ(kNow - meta_of({}, {}, 200, -5000).base_ms, 0);
}

TEST(Age, ToleratesGarbage) {
  StoredMeta meta;
  meta.base_ms = kNoTime;
  meta.response_time_ms = kForever;
  EXPECT_EQ(age_to_send(meta, kForever), kMaxDeltaSeconds);
  meta.base_ms = kForever;
  meta.response_time_ms = kNoTime;
  EXPECT_EQ(age_to_send(meta, kNoTime), 0);
}

TEST(StoredMeta, HoldsWhatHitsNeed) {
  const StoredMeta meta =
      meta_of({{"Cache-Control", "max-age=60, stale-while-revalidate=10, stale-if-error=20"},
               {"ETag", "\"a\""},
               {"Last-Modified", date(-100)},
               {"Vary", "Foo"},
               {"Age", "5"}});
  EXPECT_EQ(meta.status, 200);
  EXPECT_EQ(meta.fresh_until_ms, kNow + 55000);
  EXPECT_EQ(meta.stale_while_revalidate_until_ms, kNow + 65000);
  EXPECT_EQ(meta.stale_if_error_until_ms, kNow + 75000);
  EXPECT_EQ(meta.last_modified_ms, kNowSecond - 100000);
  EXPECT_EQ(meta.date_ms, kNowSecond);
  EXPECT_EQ(meta.flags, kMetaHasEtag | kMetaHasLastModified | kMetaHasVary | kMetaAgeWasSent |
                            kMetaSwr | kMetaSie);
  EXPECT_TRUE(is_fresh(meta, kNow + 54999));
  EXPECT_FALSE(is_fresh(meta, kNow + 55000));

  const struct {
    std::string_view cache_control;
    std::uint32_t flags;
  } cases[] = {
      {"no-cache", kMetaAlwaysRevalidate | kMetaNeverStale},
      {"no-cache=\"x\"", 0},
      {"must-revalidate", kMetaNeverStale},
      {"proxy-revalidate", kMetaNeverStale},
      {"s-maxage=1", kMetaExplicitStaleOnly},
      {"s-maxage=1, stale-while-revalidate=1", kMetaExplicitStaleOnly | kMetaSwr},
      {"immutable", kMetaImmutable},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(meta_of({{"Cache-Control", std::string(c.cache_control)}}).flags, c.flags)
        << c.cache_control;
  }
}

TEST(StoredMeta, TakesStaleTimesFromThePolicy) {
  CachePolicy policy;
  policy.stale_while_revalidate = 7;
  policy.stale_if_error = 8;
  StoredMeta meta = meta_of({{"Cache-Control", "max-age=1"}}, policy);
  EXPECT_EQ(meta.stale_while_revalidate_until_ms - meta.fresh_until_ms, 7000);
  EXPECT_EQ(meta.stale_if_error_until_ms - meta.fresh_until_ms, 8000);
  meta = meta_of({{"Cache-Control", "max-age=1, stale-while-revalidate=0"}}, policy);
  EXPECT_EQ(meta.stale_while_revalidate_until_ms, meta.fresh_until_ms);
  EXPECT_EQ(meta.flags & kMetaSwr, 0u);
  meta = meta_of({{"Cache-Control", "s-maxage=1"}}, policy);
  EXPECT_EQ(meta.stale_if_error_until_ms, meta.fresh_until_ms);
}

TEST(StoredMeta, RemembersTheRangeOf206) {
  const StoredMeta meta = meta_of({{"Content-Range", "bytes 4-9/10"}}, {}, 206);
  EXPECT_NE(meta.flags & kMetaPartial, 0u);
  EXPECT_EQ(meta.range_first, 4u);
  EXPECT_EQ(meta.range_last, 9u);
  EXPECT_EQ(meta.complete_length, 10u);
  EXPECT_EQ(meta_of({{"Content-Range", "bytes 4-9/10"}}).flags & kMetaPartial, 0u);
}

}  // namespace
}  // namespace mcs::http
