// SPDX-License-Identifier: Apache-2.0
// Proxied responses: stored, answered from the cache, checked again, replaced.
#include "tests/mod_mcs_apache/proxy_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST_F(ProxyTest, MissThenHit) {
  origin_.on("/a", fresh("hello", {"ETag: \"1\"", "X-Own: x", "Date: " + http_date(time(nullptr))}));
  start();
  const HttpResponse miss = get("/a");
  EXPECT_EQ(miss.status, 200);
  EXPECT_EQ(miss.body, "hello");
  EXPECT_EQ(miss.cache_status(), "MISS");
  EXPECT_THAT(miss.header("Cache-Status"), AllOf(HasSubstr("fwd=uri-miss"), HasSubstr("stored")));
  const HttpResponse hit = get("/a");
  EXPECT_EQ(hit.cache_status(), "HIT");
  EXPECT_EQ(hit.body, "hello");
  EXPECT_THAT(hit.header("Cache-Status"), HasSubstr("hit"));
  EXPECT_TRUE(hit.has_header("Age"));
  for (const char* field : {"ETag", "X-Own", "Date", "Content-Type", "Content-Length"}) {
    EXPECT_EQ(hit.header(field), miss.header(field)) << field;
  }
  EXPECT_EQ(origin_.count(), 1u);
}

}  // namespace
}  // namespace mcs::loadtest
