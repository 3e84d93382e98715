// SPDX-License-Identifier: Apache-2.0
// Proxied responses: what is stored and served again, and how it passes nginx's filters.
#include "tests/ngx_mcs_module/proxy_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;

TEST_F(NginxProxyTest, MissIsStoredAndServedAgain) {
  const std::string date = http_date(std::time(nullptr) - 7);
  origin_.on("/a", {200,
                    {"Cache-Control: max-age=600", "Content-Type: text/plain; charset=utf-8",
                     "ETag: \"one\"", "X-Own: yes", "Date: " + date},
                    "from the origin"});
  start_proxy();
  const HttpResponse miss = get("/a?x=1");
  EXPECT_EQ(miss.status, 200);
  EXPECT_EQ(miss.cache_status(), "MISS");
  EXPECT_EQ(miss.body, "from the origin");
  EXPECT_EQ(miss.header("X-Mcs-Age"), "");
  EXPECT_THAT(miss.header("X-Mcs-Key"), HasSubstr("/a?x=1"));
  const HttpResponse hit = get("/a?x=1");
  EXPECT_EQ(hit.status, 200);
  EXPECT_EQ(hit.cache_status(), "HIT");
  EXPECT_EQ(hit.body, "from the origin");
  EXPECT_EQ(hit.header("Content-Type"), "text/plain; charset=utf-8");
  EXPECT_EQ(hit.header("ETag"), "\"one\"");
  EXPECT_EQ(hit.header("X-Own"), "yes");
  EXPECT_EQ(hit.header("Content-Length"), "15");
  EXPECT_EQ(hit.header("Date"), date);
  EXPECT_GE(std::atoi(hit.header("Age").c_str()), 7);
  EXPECT_EQ(hit.header("X-Mcs-Age"), hit.header("Age"));
  EXPECT_EQ(origin_.count("/a"), 1u);
}

}  // namespace
}  // namespace mcs::loadtest
