// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/etag.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mcs::http {
namespace {

// RFC 9110 8.8.3.2, its table and more
TEST(Etag, Compares) {
  const struct {
    std::string_view a, b;
    bool strong, weak;
  } cases[] = {
      {R"(W/"1")", R"(W/"1")", false, true},
      {R"(W/"1")", R"(W/"2")", false, false},
      {R"(W/"1")", R"("1")", false, true},
      {R"("1")", R"("1")", true, true},
      {R"("1")", R"("2")", false, false},
      {R"("")", R"("")", true, true},
      {"\"\xc3\xbc\"", "\"\xc3\xbc\"", true, true},
      {R"("a\")", R"("a\")", true, true},
      {R"("a,b")", R"("a,b")", true, true},
      {"abc", "abc", false, true},
      {"abc", R"("abc")", false, false},
      {R"(w/"1")", R"(w/"1")", false, true},
      {R"(w/"1")", R"("1")", false, false},
      {R"(W\"1")", R"(W\"1")", false, true},
      {R"(W"1")", R"("1")", false, false},
      {R"("a b")", R"("a b")", false, true},
      {"", "", false, false},
      {"W/", "W/", false, true},
      {"\"", "\"", false, true},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(strong_match(c.a, c.b), c.strong) << c.a << " " << c.b;
    EXPECT_EQ(weak_match(c.a, c.b), c.weak) << c.a << " " << c.b;
    EXPECT_EQ(weak_match(c.b, c.a), c.weak) << c.a << " " << c.b;
  }
}

TEST(EtagList, ReadsTags) {
  using List = std::vector<std::string>;
  const struct {
    std::string_view line;
    List tags;
  } cases[] = {
      {"", {}},
      {"*", {"*"}},
      {R"("a")", {R"("a")"}},
      {R"("a", W/"b","c")", {R"("a")", R"(W/"b")", R"("c")"}},
      {R"( ,"a,b" ,)", {R"("a,b")"}},
      {R"("a\", "b")", {R"("a\")", R"("b")"}},
      {"abc, def", {"abc", "def"}},
      {R"("a"x, "b")", {R"("a"x)", R"("b")"}},
      {R"("a, b)", {R"("a)", "b"}},
      {R"(w/"a", "b")", {R"(w/"a")", R"("b")"}},
      {"W/", {"W/"}},
  };
  for (const auto& c : cases) {
    List tags;
    EtagListReader reader(c.line);
    for (std::string_view tag; reader.next(tag);) tags.emplace_back(tag);
    EXPECT_EQ(tags, c.tags) << c.line;
  }
}

TEST(StaticEtag, IsStrongAndDependsOnTimeAndSize) {
  EXPECT_EQ(make_static_etag(0, 0).view(), R"("0-0")");
  EXPECT_EQ(make_static_etag(0x17a1b2c3d4e5f607, 4096).view(), R"("17a1b2c3d4e5f607-1000")");
  EXPECT_EQ(make_static_etag(-1, ~std::uint64_t{0}).view(),
            R"("ffffffffffffffff-ffffffffffffffff")");
  EXPECT_TRUE(is_strong_etag(make_static_etag(1, 2).view()));
  EXPECT_NE(make_static_etag(1, 0x23).view(), make_static_etag(0x12, 3).view());
}

}  // namespace
}  // namespace mcs::http
