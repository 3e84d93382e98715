// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/field.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mcs::http {
namespace {

std::vector<std::string> members(std::string_view value) {
  std::vector<std::string> result;
  ListReader reader(value);
  for (std::string_view member; reader.next(member);) result.emplace_back(member);
  return result;
}

TEST(FieldId, KnowsFieldsInAnyCase) {
  const struct {
    std::string_view name;
    FieldId id;
  } cases[] = {
      {"Age", FieldId::kAge},
      {"age", FieldId::kAge},
      {"AGE", FieldId::kAge},
      {"Cache-Control", FieldId::kCacheControl},
      {"CACHE-CONTROL", FieldId::kCacheControl},
      {"Content-Range", FieldId::kContentRange},
      {"ETag", FieldId::kEtag},
      {"If-Unmodified-Since", FieldId::kIfUnmodifiedSince},
      {"If-Modified-Since", FieldId::kIfModifiedSince},
      {"Set-Cookie", FieldId::kSetCookie},
      {"Set-Cookie2", FieldId::kSetCookie},
      {"TE", FieldId::kTe},
      {"Transfer-Encoding", FieldId::kTransferEncoding},
      {"Vary", FieldId::kVary},
      {"Proxy-Authenticate", FieldId::kProxy},
      {"proxy-connection", FieldId::kProxy},
      {"Proxy-Anything", FieldId::kProxy},
      {"Proxy-Status", FieldId::kOther},
      {"Proxy", FieldId::kOther},
      {"", FieldId::kOther},
      {"X-Age", FieldId::kOther},
      {"Cache_Control", FieldId::kOther},
      {"a-name-longer-than-every-known-one", FieldId::kOther},
  };
  for (const auto& c : cases) EXPECT_EQ(field_id(c.name), c.id) << c.name;
}

TEST(Method, IsCaseSensitiveAndUnknownIsUnsafe) {
  EXPECT_EQ(parse_method("GET"), Method::kGet);
  EXPECT_EQ(parse_method("HEAD"), Method::kHead);
  EXPECT_EQ(parse_method("POST"), Method::kPost);
  EXPECT_EQ(parse_method("OPTIONS"), Method::kOptions);
  EXPECT_EQ(parse_method("get"), Method::kUnsafeOther);
  EXPECT_EQ(parse_method(""), Method::kUnsafeOther);
  for (const std::string_view safe : {"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "SEARCH"}) {
    EXPECT_TRUE(is_safe(parse_method(safe))) << safe;
  }
  for (const std::string_view unsafe : {"POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "PURGE"}) {
    EXPECT_FALSE(is_safe(parse_method(unsafe))) << unsafe;
  }
}

TEST(ListReader, SplitsLists) {
  using List = std::vector<std::string>;
  const struct {
    std::string_view value;
    List members;
  } cases[] = {
      {"", {}},
      {",", {}},
      {" , ,\t,", {}},
      {"a", {"a"}},
      {"a,b", {"a", "b"}},
      {" a ,\tb , c", {"a", "b", "c"}},
      {"a,,b,", {"a", "b"}},
      {R"(a="x,y",b)", {R"(a="x,y")", "b"}},
      {R"(a="x\",y",b)", {R"(a="x\",y")", "b"}},
      {R"(a="x\\",b)", {R"(a="x\\")", "b"}},
      {R"("a,b" , "c")", {R"("a,b")", R"("c")"}},
      {R"(a="x,y)", {R"(a="x)", "y"}},
      {R"(foo", no-store)", {R"(foo")", "no-store"}},
      {R"(a="x\)", {R"(a="x\)"}},
  };
  for (const auto& c : cases) EXPECT_EQ(members(c.value), c.members) << c.value;
}

TEST(ListReader, TakesLinearTimeForHostileLines) {
  // Each quote is followed by escaped ones only; a reader that looks for the end of every one of
  // them would need 10^11 steps.
  std::string line = "\"";
  for (int i = 0; i < 300000; ++i) line += "\\\"";
  EXPECT_EQ(members(line).size(), 1u);
  line += ", no-store";
  EXPECT_EQ(members(line).back(), "no-store");
}

TEST(SplitDirective, SeparatesNameAndValue) {
  const struct {
    std::string_view member, name, value;
    bool has_value, quoted, malformed;
  } cases[] = {
      {"no-store", "no-store", "", false, false, false},
      {"max-age=10", "max-age", "10", true, false, false},
      {R"(max-age="10")", "max-age", "10", true, true, false},
      {"max-age =10", "max-age", "10", true, false, true},
      {"max-age= 10", "max-age", "10", true, false, true},
      {R"(private="a, b")", "private", "a, b", true, true, false},
      {R"(private="a" b)", "private", "a", true, true, true},
      {R"(private="a)", "private", R"("a)", true, false, true},
      {"a=b=c", "a", "b=c", true, false, false},
      {"a=", "a", "", true, false, false},
      {R"(a="")", "a", "", true, true, false},
      {"=x", "", "x", true, false, false},
  };
  for (const auto& c : cases) {
    const Directive d = split_directive(c.member);
    EXPECT_EQ(d.name, c.name) << c.member;
    EXPECT_EQ(d.value, c.value) << c.member;
    EXPECT_EQ(d.has_value, c.has_value) << c.member;
    EXPECT_EQ(d.quoted, c.quoted) << c.member;
    EXPECT_EQ(d.malformed, c.malformed) << c.member;
  }
}

TEST(Text, ComparesAndTrims) {
  EXPECT_EQ(trim(" \t a b \t"), "a b");
  EXPECT_EQ(trim("\n"), "\n");
  EXPECT_TRUE(equals_ignore_case("AbC-1", "aBc-1"));
  EXPECT_FALSE(equals_ignore_case("@", "`"));
  EXPECT_FALSE(equals_ignore_case("[", "{"));
  EXPECT_LT(compare_ignore_case("Abc", "abd"), 0);
  EXPECT_LT(compare_ignore_case("ab", "ABC"), 0);
  EXPECT_EQ(compare_ignore_case("AB", "ab"), 0);
  EXPECT_TRUE(is_token("Foo-1.2~x"));
  for (const std::string_view bad : {"", "a b", "a:b", "a\"", "\xc3\xa9", "a,b"}) {
    EXPECT_FALSE(is_token(bad)) << bad;
  }
}

TEST(SafeValue, FindsForbiddenBytesAtEveryPosition) {
  EXPECT_TRUE(is_safe_value(""));
  for (std::size_t length = 1; length < 40; ++length) {
    const std::string clean(length, '\x8d');
    EXPECT_TRUE(is_safe_value(clean));
    for (const char bad : {'\0', '\r', '\n'}) {
      for (std::size_t at = 0; at < length; ++at) {
        std::string value = clean;
        value[at] = bad;
        EXPECT_FALSE(is_safe_value(value)) << length << " " << at << " " << int{bad};
      }
    }
  }
}

TEST(Fields, AreFoundByName) {
  const std::vector<FieldView> fields = {
      {"Vary", "a"}, {"X", " 1 "}, {"vary", "b, Accept"}, {"x", "2"}};
  EXPECT_EQ(field_value(fields, "x"), "1");
  EXPECT_EQ(find_field(fields, "Y"), nullptr);
  EXPECT_TRUE(list_contains(fields, "Vary", "accept"));
  EXPECT_TRUE(list_contains(fields, "vary", "A"));
  EXPECT_FALSE(list_contains(fields, "vary", "acc"));
}

}  // namespace
}  // namespace mcs::http
