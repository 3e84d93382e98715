// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/vary.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mcs::http {
namespace {

using List = std::vector<FieldView>;

std::string spec_of(std::vector<std::string_view> lines) {
  List fields = {{"Cache-Control", "max-age=1"}};
  for (const std::string_view line : lines) fields.push_back({"Vary", line});
  std::string spec;
  return append_vary_spec(fields, spec) ? spec : "*";
}

std::string key(std::string_view spec, const List& request) {
  std::string result;
  append_variant_key(spec, request, result);
  return result;
}

// RFC 9110 12.5.5, RFC 9111 4.1
TEST(VarySpec, IsNormalised) {
  const struct {
    std::vector<std::string_view> lines;
    std::string_view spec;
  } cases[] = {
      {{}, ""},
      {{""}, ""},
      {{"Foo"}, "foo"},
      {{"Foo, Bar,Baz"}, "bar,baz,foo"},
      {{"foo", "Bar"}, "bar,foo"},
      {{"foo, FOO ,Foo"}, "foo"},
      {{" ,Foo,, "}, "foo"},
      {{"*"}, "*"},
      {{"*, *"}, "*"},
      {{"*", "*"}, "*"},
      {{", *"}, "*"},
      {{"", "*"}, "*"},
      {{"*, Foo"}, "*"},
      {{"Foo, *"}, "*"},
      {{"Foo", "Bar, *, Baz"}, "*"},
      {{"Foo Bar"}, "*"},
      {{"\"Foo\""}, "*"},
      {{"Accept-Encoding;q=1"}, "*"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(spec_of(c.lines), c.spec) << (c.lines.empty() ? "" : c.lines[0]);
  }
  std::string many = "a0";
  for (int i = 1; i < 40; ++i) many += ", a" + std::to_string(i);
  EXPECT_EQ(spec_of({many}), "*");
}

TEST(VariantKey, MatchesWhatMeansTheSame) {
  const struct {
    std::string_view spec;
    List a, b;
    bool same;
  } cases[] = {
      {"foo", {{"Foo", "1"}}, {{"foo", "1"}}, true},
      {"foo", {{"Foo", "1"}}, {{"Foo", "2"}}, false},
      {"foo", {{"Foo", "1"}}, {}, false},
      {"foo", {{"Foo", ""}}, {}, false},
      {"foo", {}, {}, true},
      {"foo", {{"Foo", "1"}, {"Other", "2"}}, {{"Foo", "1"}, {"Other", "3"}}, true},
      {"bar,foo", {{"Foo", "1"}, {"Bar", "a"}}, {{"Bar", "a"}, {"Foo", "1"}}, true},
      {"bar,foo", {{"Foo", "1"}, {"Bar", "a"}}, {{"Foo", "1"}}, false},
      {"bar,foo", {{"Foo", "1"}}, {{"Bar", "1"}}, false},
      {"bar,foo", {{"Bar", "ab"}, {"Foo", "c"}}, {{"Bar", "a"}, {"Foo", "bc"}}, false},
      // RFC 9111 4.1: combining lines, whitespace
      {"foo", {{"Foo", "1, 2"}}, {{"Foo", "1"}, {"Foo", "2"}}, true},
      {"foo", {{"Foo", "1,2"}}, {{"Foo", " 1, 2 "}}, true},
      {"foo", {{"Foo", "1,2"}}, {{"Foo", "2,1"}}, false},
      {"foo", {{"Foo", "A"}}, {{"Foo", "a"}}, false},
      {"foo", {{"Foo", "\"a, b\""}}, {{"Foo", "\"a,b\""}}, false},
      // Fields that are no lists keep their inner form
      {"user-agent", {{"User-Agent", "x (a, b)"}}, {{"User-Agent", "x (a,b)"}}, false},
      {"user-agent", {{"User-Agent", " x "}}, {{"User-Agent", "x"}}, true},
      {"cookie", {{"Cookie", "a=1; b=2"}}, {{"Cookie", "a=1"}, {"Cookie", "b=2"}}, true},
      // Accept-Encoding
      {"accept-encoding",
       {{"Accept-Encoding", "gzip, br"}},
       {{"Accept-Encoding", "BR,GZip"}},
       true},
      {"accept-encoding", {{"Accept-Encoding", "gzip;q=1.0"}}, {{"Accept-Encoding", "gzip"}}, true},
      {"accept-encoding",
       {{"Accept-Encoding", "gzip ; q=0.5"}},
       {{"Accept-Encoding", "gzip;Q=0.500"}},
       true},
      {"accept-encoding", {{"Accept-Encoding", "gzip;q=0"}}, {{"Accept-Encoding", "gzip"}}, false},
      {"accept-encoding", {{"Accept-Encoding", "gzip, gzip"}}, {{"Accept-Encoding", "gzip"}}, true},
      {"accept-encoding", {{"Accept-Encoding", "gzip"}}, {}, false},
      {"accept-encoding", {{"Accept-Encoding", "gzip;q=x"}}, {{"Accept-Encoding", "gzip"}}, true},
      // Accept-Language
      {"accept-language", {{"Accept-Language", "en, de"}}, {{"Accept-Language", "de, en"}}, true},
      {"accept-language", {{"Accept-Language", "en, de"}}, {{"Accept-Language", "eN, De"}}, true},
      {"accept-language",
       {{"Accept-Language", "en, de"}},
       {{"Accept-Language", " en ,   de"}},
       true},
      {"accept-language",
       {{"Accept-Language", "en, de;q=0.5"}},
       {{"Accept-Language", "de;q=0.5"}, {"Accept-Language", "en"}},
       true},
      {"accept-language",
       {{"Accept-Language", "en;q=0.5, de"}},
       {{"Accept-Language", "en, de;q=0.5"}},
       false},
      {"accept-language", {{"Accept-Language", "en-GB"}}, {{"Accept-Language", "en"}}, false},
      // Accept
      {"accept", {{"Accept", "text/HTML ; q=0.5, */*"}}, {{"Accept", "text/html;q=0.5,*/*"}}, true},
      {"accept", {{"Accept", "text/html"}}, {{"Accept", "text/plain"}}, false},
      {"accept", {{"Accept", "a/b;c=\"X y\""}}, {{"Accept", "A/B; C=\"X y\""}}, true},
      {"accept", {{"Accept", "a/b;c=\"X y\""}}, {{"Accept", "a/b;c=\"x y\""}}, false},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(key(c.spec, c.a) == key(c.spec, c.b), c.same)
        << c.spec << ": " << (c.a.empty() ? "-" : c.a[0].value) << " | "
        << (c.b.empty() ? "-" : c.b[0].value);
  }
  EXPECT_EQ(key("", {{"Foo", "1"}}), "");
}

TEST(VariantKey, ToleratesEndlessLists) {
  std::string many;
  for (int i = 0; i < 100; ++i) many += "A" + std::to_string(i) + ", ";
  std::string more_space = many;
  more_space.insert(0, "  ");
  EXPECT_EQ(key("accept-encoding", {{"Accept-Encoding", many}}),
            key("accept-encoding", {{"Accept-Encoding", more_space}}));
}

// RFC 9110 12.5.4
TEST(PreferredLanguage, IsTheOnlyOneWithTheHighestWeight) {
  const struct {
    std::string_view accept;
    std::string_view language;
  } cases[] = {
      {"fr;q=0.5, de;q=1.0", "de"},
      {"de", "de"},
      {"DE-at", "de-at"},
      {"en, de", ""},
      {"en, EN", "en"},
      {"*", ""},
      {"*, de;q=0.5", ""},
      {"de;q=0", ""},
      {"", ""},
      {"en;q=0.9, de;q=0.8", "en"},
  };
  for (const auto& c : cases) {
    std::string tag;
    const List request = {{"Accept-Language", c.accept}};
    EXPECT_EQ(append_preferred_language(request, tag), !c.language.empty()) << c.accept;
    EXPECT_EQ(tag, c.language) << c.accept;
  }
  const List german = {{"Accept-Language", "fr;q=0.5, de"}};
  EXPECT_TRUE(prefers_stored_language(german, " DE "));
  EXPECT_FALSE(prefers_stored_language(german, "de, fr"));
  EXPECT_FALSE(prefers_stored_language(german, "fr"));
  EXPECT_FALSE(prefers_stored_language(german, ""));
  EXPECT_FALSE(prefers_stored_language({}, ""));
}

}  // namespace
}  // namespace mcs::http
