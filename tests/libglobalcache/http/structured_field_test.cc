// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/structured_field.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mcs::http {
namespace {

// Renders what a reader gives: canonical values, "!" if the field is broken.
std::string render_parameters(const SfParameters& parameters) {
  std::string out;
  SfParameterReader reader(parameters);
  std::string_view key;
  SfBareItem value;
  while (reader.next(key, value) == SfStep::kMember) {
    out += ';';
    out += key;
    if (value.type == SfType::kBoolean && value.integer == 1) continue;
    out += '=';
    sf_serialize(value, out);
  }
  return out;
}

std::string render_member(const SfMember& member) {
  std::string out;
  if (!member.is_inner_list) {
    sf_serialize(member.item, out);
    return out + render_parameters(member.parameters);
  }
  out += '(';
  SfInnerListReader reader(member.inner);
  SfMember inner;
  bool first = true;
  while (reader.next(inner) == SfStep::kMember) {
    if (!first) out += ' ';
    first = false;
    out += render_member(inner);
  }
  return out + ")" + render_parameters(member.parameters);
}

std::string item(std::string_view field) {
  SfMember member;
  return sf_parse_item(field, member) ? render_member(member) : "!";
}

template <typename Reader>
std::string collection(std::string_view field) {
  std::string out;
  Reader reader(field);
  SfMember member;
  for (;;) {
    const SfStep step = reader.next(member);
    if (step == SfStep::kError) return "!";
    if (step == SfStep::kEnd) return out;
    if (!out.empty()) out += ", ";
    if (!member.key.empty()) {
      out += member.key;
      out += '=';
    }
    out += render_member(member);
  }
}

struct Case {
  std::string_view field;
  std::string_view canonical;
};

// RFC 9651 3.3 and 4.2.3
TEST(SfItem, ReadsAllTypes) {
  const Case cases[] = {
      {"42", "42"},
      {"  42  ", "42"},
      {"-0", "0"},
      {"-17", "-17"},
      {"007", "7"},
      {"999999999999999", "999999999999999"},
      {"1234567890123456", "!"},
      {"4.5", "4.5"},
      {"-1.250", "-1.25"},
      {"1.0", "1.0"},
      {"0.001", "0.001"},
      {"123456789012.345", "123456789012.345"},
      {"1234567890123.4", "!"},
      {"1.", "!"},
      {"1.2345", "!"},
      {".5", "!"},
      {"-", "!"},
      {"--1", "!"},
      {"+1", "!"},
      {"1 2", "!"},
      {"42\t", "!"},
      {"\"\"", "\"\""},
      {R"("a \"b\" \\")", R"("a \"b\" \\")"},
      {R"("a\n")", "!"},
      {"\"a", "!"},
      {"\"a\\", "!"},
      {"\"\xc3\xa9\"", "!"},
      {"\"\t\"", "!"},
      {"foo123/456:x", "foo123/456:x"},
      {"*a", "*a"},
      {"a*b!", "a*b!"},
      {"(a", "!"},
      {"&&&", "!"},
      {":aGVsbG8=:", ":aGVsbG8=:"},
      {":aGVsbG8:", ":aGVsbG8=:"},
      {"::", "::"},
      {":aGVsbG8", "!"},
      {":a:", "!"},
      {":ab=c:", "!"},
      {":a%b=:", "!"},
      {"?1", "?1"},
      {"?0", "?0"},
      {"?2", "!"},
      {"?", "!"},
      {"@1659578233", "@1659578233"},
      {"@-1", "@-1"},
      {"@1.5", "!"},
      {"@", "!"},
      {R"(%"This is %c3%bc")", R"(%"This is %c3%bc")"},
      {R"(%"%C3%bc")", "!"},
      {R"(%"%c3")", "!"},
      {R"(%"%ed%a0%80")", "!"},     // a surrogate
      {R"(%"%c0%80")", "!"},        // overlong
      {R"(%"%f4%90%80%80")", "!"},  // beyond U+10FFFF
      {R"(%"%f0%9f%98%80")", R"(%"%f0%9f%98%80")"},
      {R"(%"a)", "!"},
      {"%a", "!"},
      {"", "!"},
      {"a;b", "a;b"},
      {"a;b=?1; c=2", "a;b;c=2"},
      {"a ;b", "!"},
      {"a;", "!"},
      {"a;B", "!"},
      {"a;b=", "!"},
      {"a; *k=\"x\"", "a;*k=\"x\""},
      {"a, b", "!"},
  };
  for (const Case& c : cases) EXPECT_EQ(item(c.field), c.canonical) << c.field;
}

// RFC 9651 4.2.1
TEST(SfList, ReadsMembersAndInnerLists) {
  const Case cases[] = {
      {"", ""},
      {"   ", ""},
      {"a", "a"},
      {"a, b;x=1 ,\tc", "a, b;x=1, c"},
      {"a,b\t", "a, b"},
      {"a,", "!"},
      {",a", "!"},
      {"a,,b", "!"},
      {"a b", "!"},
      {"()", "()"},
      {"( )", "()"},
      {"(a  b);q=1, c", "(a b);q=1, c"},
      {"(\"x\";p 1.5)", "(\"x\";p 1.5)"},
      {"(a", "!"},
      {"(a,b)", "!"},
      {"(a\"b\")", "!"},
      {"((a))", "!"},
  };
  for (const Case& c : cases) EXPECT_EQ(collection<SfListReader>(c.field), c.canonical) << c.field;
}

// RFC 9651 4.2.2
TEST(SfDictionary, ReadsMembers) {
  const Case cases[] = {
      {"", ""},
      {"max-age=3600, foobar", "max-age=3600, foobar=?1"},
      {"a;x=1, b=?0", "a=?1;x=1, b=?0"},
      {"a=(1 2);y", "a=(1 2);y"},
      {"a=1,a=2", "a=1, a=2"},
      {"max-age =100", "!"},
      {"max-age= 100", "!"},
      {"MaX-aGe=3600", "!"},
      {"max-age=10000, &&&&&", "!"},
      {"a=1;", "!"},
      {"a=,b", "!"},
      {"1a=1", "!"},
      {"*a=1", "*a=1"},
      {"a=1 b=2", "!"},
      {"a=1,", "!"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(collection<SfDictionaryReader>(c.field), c.canonical) << c.field;
  }
}

TEST(SfDecode, GivesWhatTextStandsFor) {
  const Case cases[] = {
      {R"("a\"\\b")", R"(a"\b)"},
      {"tok/en", "tok/en"},
      {":aGVsbG8=:", "hello"},
      {":aGVsbG8:", "hello"},
      {"::", ""},
      {":/+8=:", "\xff\xef"},
      {R"(%"%c3%bc%22")", "\xc3\xbc\""},
  };
  for (const Case& c : cases) {
    SfMember member;
    ASSERT_TRUE(sf_parse_item(c.field, member)) << c.field;
    std::string out;
    EXPECT_TRUE(sf_decode(member.item, out)) << c.field;
    EXPECT_EQ(out, c.canonical) << c.field;
  }
  std::string out;
  EXPECT_FALSE(sf_decode(SfBareItem{SfType::kInteger, 1, {}}, out));
}

TEST(SfString, EscapesAndEncodes) {
  std::string out;
  sf_append_string("a\"b\\c\xc3\xa9\n", out);
  EXPECT_EQ(out, R"("a\"b\\c%C3%A9%0A")");
  SfMember member;
  EXPECT_TRUE(sf_parse_item(out, member));
  EXPECT_TRUE(sf_is_token("mcs-1/x:y"));
  EXPECT_FALSE(sf_is_token("1a"));
  EXPECT_FALSE(sf_is_token("a b"));
  EXPECT_FALSE(sf_is_token(""));
}

TEST(JoinFieldLines, JoinsSeveralLines) {
  const std::vector<FieldView> fields = {{"A", "1"}, {"B", "x"}, {"a", "2"}, {"C", "y"}};
  std::string buffer;
  int lines = 0;
  EXPECT_EQ(join_field_lines(fields, "a", buffer, lines), "1, 2");
  EXPECT_EQ(lines, 2);
  EXPECT_EQ(join_field_lines(fields, "b", buffer, lines), "x");
  EXPECT_EQ(lines, 1);
  EXPECT_EQ(join_field_lines(fields, "d", buffer, lines), "");
  EXPECT_EQ(lines, 0);
}

}  // namespace
}  // namespace mcs::http
