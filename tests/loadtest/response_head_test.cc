// SPDX-License-Identifier: Apache-2.0
#include "loadtest/client/response_head.h"

#include <gtest/gtest.h>

namespace mcs::loadtest {
namespace {

TEST(ResponseHead, ReadsWhatAClientNeeds) {
  const auto head = parse_head(
      "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH: 42 \r\nETag: \"a\"\r\n"
      "Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT\r\nX-Mcs-Status: HIT\r\n\r\n");
  ASSERT_TRUE(head);
  EXPECT_EQ(head->status, 200);
  EXPECT_EQ(head->content_length, 42u);
  EXPECT_FALSE(head->chunked);
  EXPECT_TRUE(head->keep_alive);
  EXPECT_EQ(head->etag, "\"a\"");
  EXPECT_EQ(head->last_modified, "Sat, 01 Jan 2000 00:00:00 GMT");
  EXPECT_EQ(cache_result(*head), CacheResult::kHit);
}

TEST(ResponseHead, KnowsWhenTheConnectionEnds) {
  EXPECT_FALSE(parse_head("HTTP/1.0 200 OK\r\n\r\n")->keep_alive);
  EXPECT_TRUE(parse_head("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n")->keep_alive);
  EXPECT_FALSE(parse_head("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")->keep_alive);
  EXPECT_TRUE(parse_head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")->chunked);
}

TEST(ResponseHead, RefusesWhatIsNone) {
  EXPECT_FALSE(parse_head("ICY 200 OK\r\n\r\n"));
  EXPECT_FALSE(parse_head("HTTP/1.1 2x0 OK\r\n\r\n"));
  EXPECT_FALSE(parse_head("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"));
  EXPECT_FALSE(parse_head("HTTP/1.1 200 OK\r\nContent-Length: 4x\r\n\r\n"));
  EXPECT_FALSE(parse_head("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n"));
}

TEST(ResponseHead, FindsItsEnd) {
  EXPECT_EQ(head_length("HTTP/1.1 200 OK\r\nA: b\r\n"), 0u);
  EXPECT_EQ(head_length("HTTP/1.1 200 OK\r\n\r\nbody\r\n\r\n"), 19u);
}

TEST(CacheResult, ComesFromEitherField) {
  const auto result = [](const char* field) {
    return cache_result(*parse_head(std::string("HTTP/1.1 200 OK\r\n") + field + "\r\n\r\n"));
  };
  EXPECT_EQ(result("X-Mcs-Status: UPDATING"), CacheResult::kUpdating);
  EXPECT_EQ(result("X-Mcs-Status: (null)"), CacheResult::kNone);
  EXPECT_EQ(result("Cache-Status: mcs; hit; ttl=3"), CacheResult::kHit);
  EXPECT_EQ(result("Cache-Status: mcs; fwd=uri-miss; stored"), CacheResult::kMiss);
  EXPECT_EQ(result("Cache-Status: mcs; fwd=stale"), CacheResult::kExpired);
  EXPECT_EQ(result("Cache-Status: mcs; fwd=bypass"), CacheResult::kBypass);
  EXPECT_EQ(result("Cache-Status: origin; hit, mcs; fwd=miss"), CacheResult::kMiss);
  EXPECT_EQ(result("Other: x"), CacheResult::kNone);
}

}  // namespace
}  // namespace mcs::loadtest
