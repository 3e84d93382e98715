// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/cache_status.h"

#include <gtest/gtest.h>

#include <string>

#include "libglobalcache/http/structured_field.h"

namespace mcs::http {
namespace {

std::string render(const CacheStatus& status, std::string before = "") {
  append_cache_status(status, before);
  return before;
}

// RFC 9211 2
TEST(CacheStatus, IsRendered) {
  CacheStatus hit;
  hit.cache_name = "mcs";
  hit.hit = true;
  hit.ttl_s = 30;
  EXPECT_EQ(render(hit), "mcs; hit; ttl=30");
  hit.ttl_s = -412;
  EXPECT_EQ(render(hit, "OriginCache; hit; ttl=1100"),
            "OriginCache; hit; ttl=1100, mcs; hit; ttl=-412");

  CacheStatus miss;
  miss.cache_name = "edge 1";
  miss.forward = Forward::kUriMiss;
  miss.forward_status = 304;
  miss.stored = true;
  miss.collapsed = true;
  miss.key = "http://h/a?b=\"c\"";
  miss.detail = "no-store";
  EXPECT_EQ(render(miss),
            "\"edge 1\"; fwd=uri-miss; fwd-status=304; stored; collapsed; "
            "key=\"http://h/a?b=\\\"c\\\"\"; detail=\"no-store\"");
  EXPECT_EQ(render(CacheStatus()), "mcs");
}

TEST(CacheStatus, HitAndForwardExcludeEachOther) {
  CacheStatus both;
  both.hit = true;
  both.forward = Forward::kStale;
  both.stored = true;
  EXPECT_EQ(render(both), "mcs; hit");
}

TEST(CacheStatus, KnowsAllReasons) {
  for (int forward = 1; forward <= static_cast<int>(Forward::kPartial); ++forward) {
    EXPECT_TRUE(sf_is_token(forward_token(static_cast<Forward>(forward)))) << forward;
  }
}

TEST(CacheStatus, IsAlwaysAStructuredField) {
  CacheStatus status;
  status.cache_name = "1 \"x\"\n";
  status.hit = true;
  status.ttl_s = kForever;
  status.key = "\xff\\\r";
  const std::string text = render(status, "a, b;hit");
  SfListReader reader(text);
  SfMember member;
  int members = 0;
  SfStep step;
  while ((step = reader.next(member)) == SfStep::kMember) ++members;
  EXPECT_EQ(step, SfStep::kEnd) << text;
  EXPECT_EQ(members, 3);
}

}  // namespace
}  // namespace mcs::http
