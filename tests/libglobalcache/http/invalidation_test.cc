// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/invalidation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mcs::http {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using List = std::vector<FieldView>;

// RFC 3986 5.4, within one origin
TEST(Resolve, FollowsTheRfcsExamples) {
  const RequestUri base = {"http", "a", "/b/c/d;p?q"};
  const struct {
    std::string_view reference;
    std::string_view target;  // empty: another origin or no reference
  } cases[] = {
      {"g", "/b/c/g"},       {"./g", "/b/c/g"},
      {"g/", "/b/c/g/"},     {"/g", "/g"},
      {"//g", ""},           {"?y", "/b/c/d;p?y"},
      {"g?y", "/b/c/g?y"},   {"#s", "/b/c/d;p?q"},
      {"g#s", "/b/c/g"},     {"g?y#s", "/b/c/g?y"},
      {";x", "/b/c/;x"},     {"", "/b/c/d;p?q"},
      {".", "/b/c/"},        {"./", "/b/c/"},
      {"..", "/b/"},         {"../", "/b/"},
      {"../g", "/b/g"},      {"../..", "/"},
      {"../../g", "/g"},     {"../../../g", "/g"},
      {"/./g", "/g"},        {"/../g", "/g"},
      {"g.", "/b/c/g."},     {"./g/.", "/b/c/g/"},
      {"g/../h", "/b/c/h"},  {"g?y/../x", "/b/c/g?y/../x"},
      {"http://a/x", "/x"},  {"HTTP://A:80/x", "/x"},
      {"//a/x", "/x"},       {"http://a", "/"},
      {"http://a?z", "/?z"}, {"https://a/x", ""},
      {"http://a:81/x", ""}, {"http://b/x", ""},
      {"http:g", ""},        {"mailto:x", ""},
      {"http://u@a/x", ""},  {" /g ", "/g"},
      {"/a\r\nb", ""},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(resolve_same_origin(base, c.reference).value_or(""), c.target) << c.reference;
  }
  const RequestUri absolute = {"https", "other", "http://a/b?c"};
  EXPECT_EQ(resolve_same_origin(absolute, "http://a/x").value_or(""), "/x");
  EXPECT_EQ(resolve_same_origin(absolute, "").value_or(""), "/b?c");
  EXPECT_FALSE(resolve_same_origin({"http", "a", "*"}, "/x"));
  // Two hosts that are none are not the same.
  EXPECT_FALSE(resolve_same_origin({"http", "u@a", "/"}, "http://u@a/x"));
}

TEST(SameResource, ComparesNormalised) {
  const RequestUri request = {"http", "h", "/a%7eb?c"};
  EXPECT_TRUE(is_same_resource(request, "/a~b?c"));
  EXPECT_TRUE(is_same_resource(request, "http://H/a~b?c"));
  EXPECT_TRUE(is_same_resource(request, ""));
  EXPECT_FALSE(is_same_resource(request, "/a~b"));
  EXPECT_FALSE(is_same_resource(request, "/a~b?d"));
  EXPECT_FALSE(is_same_resource(request, "/%zz"));
}

// RFC 9111 4.4
TEST(Invalidation, CoversTargetAndLocations) {
  const RequestUri request = {"http", "h", "/form?x=1"};
  const List fields = {{"Location", "created"}, {"Content-Location", "http://h/view"}};
  const auto targets = [&](std::string_view method, int status, const List& response) {
    const InvalidationTargets result =
        invalidation_targets(parse_method(method), request, status, response);
    return std::vector<std::string>(result.view().begin(), result.view().end());
  };
  for (const std::string_view method : {"POST", "PUT", "DELETE", "PATCH", "M-SEARCH"}) {
    EXPECT_THAT(targets(method, 200, {}), ElementsAre("/form?x=1")) << method;
    EXPECT_THAT(targets(method, 303, fields), ElementsAre("/form?x=1", "/created", "/view"))
        << method;
    for (const int error : {400, 404, 500, 503, 102}) {
      EXPECT_THAT(targets(method, error, fields), IsEmpty()) << method << error;
    }
  }
  for (const std::string_view method : {"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND"}) {
    EXPECT_THAT(targets(method, 200, fields), IsEmpty()) << method;
  }
  EXPECT_THAT(targets("POST", 201, {{"Location", "http://evil/x"}, {"Content-Location", "//e/"}}),
              ElementsAre("/form?x=1"));
  EXPECT_THAT(targets("POST", 201, {{"Location", "/form?x=1"}, {"Content-Location", "a"}}),
              ElementsAre("/form?x=1", "/a"));
}

}  // namespace
}  // namespace mcs::http
