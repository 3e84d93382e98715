// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/field_filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mcs::http {
namespace {

using ::testing::ElementsAre;
using List = std::vector<FieldView>;

constexpr std::int64_t kNow = 784111777000;

// Names of the stored fields; a Date that was added shows its value.
std::vector<std::string> stored(List response, const CachePolicy& policy = {}) {
  const ResponseDirectives directives = parse_response_directives(response);
  std::array<char, 29> date;
  std::vector<FieldView> selected;
  select_stored_fields(policy, response, directives, kNow, date, selected);
  std::vector<std::string> names;
  for (const FieldView& field : selected) {
    names.emplace_back(field.name == "Date" ? field.value : field.name);
  }
  return names;
}

constexpr std::string_view kDate = "Sun, 06 Nov 1994 08:00:00 GMT";
constexpr std::string_view kAddedDate = "Sun, 06 Nov 1994 08:49:37 GMT";

// RFC 9111 3.1, RFC 9110 7.6.1
TEST(StoredFields, AreEndToEndOnes) {
  const struct {
    std::string_view name;
    bool stored;
  } cases[] = {
      {"Test-Header", true},
      {"X-Test-Header", true},
      {"Content-Foo", true},
      {"Cache-Control", true},
      {"Connection", false},
      {"Content-Encoding", true},
      {"Content-Length", false},  // made anew from the body
      {"Content-Location", true},
      {"Content-MD5", true},
      {"Content-Range", true},
      {"Content-Security-Policy", true},
      {"Content-Type", true},
      {"Clear-Site-Data", true},
      {"ETag", true},
      {"Expires", true},
      {"Keep-Alive", false},
      {"Proxy-Authenticate", false},
      {"Proxy-Authentication-Info", false},
      {"Proxy-Authorization", false},
      {"Proxy-Connection", false},
      {"Proxy-Status", true},
      {"Public-Key-Pins", true},
      {"Set-Cookie", true},
      {"Set-Cookie2", true},
      {"TE", false},
      {"Trailer", false},
      {"Transfer-Encoding", false},
      {"Upgrade", false},
      {"X-Frame-Options", true},
      {"X-XSS-Protection", true},
      {"Age", false},
      {"Cache-Status", true},
      {"Vary", true},
      {"", false},
      {"Bad Name", false},
  };
  for (const auto& c : cases) {
    const auto names = stored({{"Date", kDate}, {c.name, "x"}});
    EXPECT_EQ(names.size(), c.stored ? 2u : 1u) << c.name;
  }
}

TEST(StoredFields, OmitWhatConnectionNames) {
  EXPECT_THAT(stored({{"Connection", "a, B"},
                      {"A", "1"},
                      {"b", "2"},
                      {"C", "3"},
                      {"Date", kDate},
                      {"connection", "d"},
                      {"D", "4"}}),
              ElementsAre("C", kDate));
}

// RFC 9111 5.2.2.4, 5.2.2.7
TEST(StoredFields, OmitWhatDirectivesName) {
  EXPECT_THAT(stored({{"Cache-Control", "no-cache=\"a, b\""},
                      {"Cache-Control", "private=\"Set-Cookie\""},
                      {"a", "1"},
                      {"B", "2"},
                      {"c", "3"},
                      {"Set-Cookie", "x"},
                      {"Date", kDate}}),
              ElementsAre("Cache-Control", "Cache-Control", "c", kDate));
}

TEST(StoredFields, OmitWhatThePolicyStrips) {
  CachePolicy policy;
  policy.stripped_fields = {"x-secret"};
  policy.set_cookie = SetCookieRule::kStrip;
  EXPECT_THAT(stored({{"X-Secret", "1"}, {"Set-Cookie", "a"}, {"Y", "2"}, {"Date", kDate}}, policy),
              ElementsAre("Y", kDate));
}

// RFC 9110 6.6.1
TEST(StoredFields, HaveOneDate) {
  EXPECT_THAT(stored({{"A", "1"}}), ElementsAre("A", kAddedDate));
  EXPECT_THAT(stored({{"Date", "foo"}, {"A", "1"}}), ElementsAre("A", kAddedDate));
  EXPECT_THAT(stored({{"Date", "foo"}, {"Date", kDate}, {"Date", kAddedDate}}), ElementsAre(kDate));
}

TEST(StoredFields, OmitWhatCouldNotBeSent) {
  EXPECT_THAT(stored({{"A", "1\r\nEvil: 1"}, {"B", "2"}, {"Date", kDate}}),
              ElementsAre("B", kDate));
}

// RFC 9111 3.2
TEST(UpdatedFields, AreNotThoseOfTheBody) {
  for (const std::string_view name : {"Content-Length", "Content-Encoding", "Content-Range",
                                      "Transfer-Encoding", "Connection", "Age"}) {
    EXPECT_FALSE(may_update(field_id(name))) << name;
  }
  for (const std::string_view name :
       {"Content-Type", "ETag", "Cache-Control", "Set-Cookie", "Expires", "Vary", "Date", "X"}) {
    EXPECT_TRUE(may_update(field_id(name))) << name;
  }
}

TEST(MustBeCleaned, OnlyIfThereIsSomethingToLeaveOut) {
  EXPECT_FALSE(must_be_cleaned(200, List{{"Connection", "close"}, {"Keep-Alive", "timeout=5"}}));
  EXPECT_FALSE(must_be_cleaned(200, List{{"Connection", "keep-alive, X-Absent"}, {"X-A", "1"}}));
  EXPECT_FALSE(must_be_cleaned(200, List{{"Transfer-Encoding", "chunked"}}));
  EXPECT_TRUE(must_be_cleaned(200, List{{"X-A", "1"}, {"Connection", "close, x-a"}}));
  EXPECT_TRUE(must_be_cleaned(404, List{{"TE", "trailers"}}));
  EXPECT_TRUE(must_be_cleaned(200, List{{"Proxy-Connection", "close"}}));
  EXPECT_FALSE(must_be_cleaned(407, List{{"Proxy-Authenticate", "Basic"}}));
}

}  // namespace
}  // namespace mcs::http
