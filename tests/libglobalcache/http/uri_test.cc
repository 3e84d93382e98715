// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/uri.h"

#include <gtest/gtest.h>

#include <string>

namespace mcs::http {
namespace {

TEST(SplitUri, FindsTheParts) {
  const UriParts p = split_uri("HTTP://h:80/a/b?c?d#e");
  EXPECT_EQ(p.scheme, "HTTP");
  EXPECT_EQ(p.authority, "h:80");
  EXPECT_EQ(p.path, "/a/b");
  EXPECT_EQ(p.query, "c?d");
  EXPECT_TRUE(p.has_fragment);
  EXPECT_FALSE(split_uri("/a:b").has_scheme);
  EXPECT_FALSE(split_uri("1a:b").has_scheme);
  EXPECT_EQ(split_uri("//h").authority, "h");
  EXPECT_FALSE(split_uri("//h").has_query);
  EXPECT_TRUE(split_uri("a?").has_query);
  EXPECT_EQ(split_uri("mailto:x").path, "x");
}

// RFC 3986 5.2.4, 5.4
TEST(DotSegments, AreRemoved) {
  const struct {
    std::string_view path, result;
  } cases[] = {
      {"/a/b/c/./../../g", "/a/g"},
      {"mid/content=5/../6", "mid/6"},
      {"/../../../g", "/g"},
      {"/./g", "/g"},
      {"/g.", "/g."},
      {"/..g", "/..g"},
      {"/b/c/..", "/b/"},
      {"/b/c/.", "/b/c/"},
      {"/a//../b", "/a/b"},
      {".", ""},
      {"..", ""},
      {"../a", "a"},
      {"", ""},
      {"/", "/"},
  };
  for (const auto& c : cases) {
    std::string out = "x/";  // what is there already stays
    append_without_dot_segments(c.path, out);
    EXPECT_EQ(out, "x/" + std::string(c.result)) << c.path;
  }
}

// RFC 3986 6.2.2
TEST(Normalise, DecodesUnreservedOnly) {
  const struct {
    std::string_view text, result;
  } cases[] = {
      {"/a%41%7e%2D%2e%5F", "/aA~-._"},
      {"/%2f%2F", "/%2F%2F"},
      {"/%3a%3A%25%20%c3%a9", "/%3A%3A%25%20%C3%A9"},
      {"//a///b", "//a///b"},
      {"/a+b&c=d;e", "/a+b&c=d;e"},
      {"/\xc3\xa9", "/\xc3\xa9"},
      {"/%2541", "/%2541"},
  };
  for (const auto& c : cases) {
    std::string out = "<";
    EXPECT_TRUE(append_normalised(c.text, out)) << c.text;
    EXPECT_EQ(out, "<" + std::string(c.result)) << c.text;
  }
  for (const std::string_view bad :
       {"/%", "/%4", "/%zz", "/%4g", "/a b", "/a\tb", "/#", "/\x7f", "/%2%35", "/a%"}) {
    std::string out = "<";
    EXPECT_FALSE(append_normalised(bad, out)) << bad;
    EXPECT_EQ(out, "<") << bad;
  }
}

TEST(NormaliseAuthority, LowersAndDropsDefaults) {
  const struct {
    std::string_view scheme, authority, result;
  } cases[] = {
      {"http", "Example.ORG", "example.org"},
      {"http", "example.org:80", "example.org"},
      {"https", "example.org:443", "example.org"},
      {"HTTPS", "example.org:0443", "example.org"},
      {"https", "example.org:80", "example.org:80"},
      {"http", "example.org:08080", "example.org:8080"},
      {"http", "example.org:", "example.org"},
      {"http", "example.org.", "example.org"},
      {"http", "example.org.:81", "example.org:81"},
      {"http", "[2001:DB8::1]:80", "[2001:db8::1]"},
      {"http", "[::1]:8080", "[::1]:8080"},
      {"http", "127.0.0.1", "127.0.0.1"},
      {"http", "a_b", "a_b"},
  };
  for (const auto& c : cases) {
    std::string out;
    EXPECT_TRUE(append_normalised_authority(c.scheme, c.authority, out)) << c.authority;
    EXPECT_EQ(out, c.result) << c.authority;
  }
  for (const std::string_view bad :
       {"", ":80", "a b", "user@host", "a/b", "a:b", "a:99999", "[::1", "::1", "[x]", ".", "..",
        "a..", "a..b", ".a", "a:80:80", "h\xc3\xa9", "a%41", "[::1]x"}) {
    std::string out = "<";
    EXPECT_FALSE(append_normalised_authority("http", bad, out)) << bad;
    EXPECT_EQ(out, "<") << bad;
  }
}

TEST(Glob, Matches) {
  const struct {
    std::string_view pattern, text;
    bool matches;
  } cases[] = {
      {"", "", true},           {"*", "", true},       {"*", "/a", true},
      {"/a", "/a", true},       {"/a", "/ab", false},  {"/a*", "/ab", true},
      {"/a*", "/a", true},      {"*b", "/a/b", true},  {"*b", "/bc", false},
      {"/*/c", "/a/b/c", true}, {"/*/c", "/c", false}, {"a*b*c", "aXbYbZc", true},
      {"a**c", "abc", true},    {"a*b", "ab*", false}, {"**", "x", true},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(matches_glob(c.pattern, c.text), c.matches) << c.pattern << " " << c.text;
  }
}

TEST(Uri, EscapedTextsStayDifferent) {
  const auto escaped = [](std::string_view text) {
    std::string out;
    append_escaped(text, out);
    return out;
  };
  EXPECT_EQ(escaped("/a-b_c.d~e/f;g=h,i"), "/a-b_c.d~e/f;g=h,i");
  EXPECT_EQ(escaped("a?b#c d%e\xc3"), "a%3Fb%23c%20d%25e%C3");
  std::string normalised;
  EXPECT_TRUE(append_normalised(escaped("a?b c%41\n\"<>"), normalised));
  EXPECT_EQ(normalised, escaped("a?b c%41\n\"<>"));
}

}  // namespace
}  // namespace mcs::http
