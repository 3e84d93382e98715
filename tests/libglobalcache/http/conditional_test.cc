// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/conditional.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "libglobalcache/http/date.h"

namespace mcs::http {
namespace {

using List = std::vector<FieldView>;
using P = Precondition;

constexpr std::int64_t kNow = 1780000000000;
constexpr std::string_view kEarlier = "Sun, 06 Nov 1994 08:49:36 GMT";
constexpr std::string_view kSame = "Sun, 06 Nov 1994 08:49:37 GMT";
constexpr std::string_view kSame850 = "Sunday, 06-Nov-94 08:49:37 GMT";
constexpr std::string_view kLater = "Sun, 06 Nov 1994 08:49:38 GMT";
constexpr std::int64_t kModified = 784111777000;

// RFC 9110 13.1, 13.2.2
TEST(Preconditions, AreEvaluatedInOrder) {
  const struct {
    List request;
    std::string_view etag;
    P result;
  } cases[] = {
      {{}, "\"a\"", P::kProceed},
      // If-None-Match
      {{{"If-None-Match", "\"a\""}}, "\"a\"", P::kNotModified},
      {{{"If-None-Match", "\"b\""}}, "\"a\"", P::kProceed},
      {{{"If-None-Match", "W/\"a\""}}, "\"a\"", P::kNotModified},
      {{{"If-None-Match", "\"a\""}}, "W/\"a\"", P::kNotModified},
      {{{"If-None-Match", "\"1\", \"2\", \"a\""}}, "\"a\"", P::kNotModified},
      {{{"If-None-Match", "\"1\""}, {"If-None-Match", "\"a\""}}, "\"a\"", P::kNotModified},
      {{{"If-None-Match", "*"}}, "\"a\"", P::kNotModified},
      {{{"If-None-Match", "*"}}, "", P::kNotModified},
      {{{"If-None-Match", "\"a\""}}, "", P::kProceed},
      {{{"If-None-Match", ""}}, "\"a\"", P::kProceed},
      {{{"If-None-Match", "\"abcdef\xc3\xbc\""}}, "\"abcdef\xc3\xbc\"", P::kNotModified},
      {{{"If-None-Match", "abcdef"}}, "abcdef", P::kNotModified},
      {{{"If-None-Match", "w/\"a\""}}, "w/\"a\"", P::kNotModified},
      {{{"If-None-Match", "abcdef"}}, "\"abcdef\"", P::kProceed},
      // If-Modified-Since
      {{{"If-Modified-Since", kSame}}, "", P::kNotModified},
      {{{"If-Modified-Since", kSame850}}, "", P::kNotModified},
      {{{"If-Modified-Since", kLater}}, "", P::kNotModified},
      {{{"If-Modified-Since", kEarlier}}, "", P::kProceed},
      {{{"If-Modified-Since", "foo"}}, "", P::kProceed},
      {{{"if-modified-since", kSame}}, "", P::kNotModified},
      // If-None-Match beats If-Modified-Since
      {{{"If-None-Match", "\"a\""}, {"If-Modified-Since", kEarlier}}, "\"a\"", P::kNotModified},
      {{{"If-Modified-Since", kLater}, {"If-None-Match", "\"b\""}}, "\"a\"", P::kProceed},
      // If-Match
      {{{"If-Match", "\"a\""}}, "\"a\"", P::kProceed},
      {{{"If-Match", "\"b\""}}, "\"a\"", P::kFailed},
      {{{"If-Match", "W/\"a\""}}, "W/\"a\"", P::kFailed},
      {{{"If-Match", "*"}}, "", P::kProceed},
      {{{"If-Match", "\"b\", \"a\""}}, "\"a\"", P::kProceed},
      {{{"If-Match", "\"b\""}, {"If-None-Match", "\"a\""}}, "\"a\"", P::kFailed},
      {{{"If-Match", "\"a\""}, {"If-None-Match", "\"a\""}}, "\"a\"", P::kNotModified},
      // If-Unmodified-Since, unless there is If-Match
      {{{"If-Unmodified-Since", kSame}}, "", P::kProceed},
      {{{"If-Unmodified-Since", kLater}}, "", P::kProceed},
      {{{"If-Unmodified-Since", kEarlier}}, "", P::kFailed},
      {{{"If-Unmodified-Since", "foo"}}, "", P::kProceed},
      {{{"If-Unmodified-Since", kEarlier}, {"If-Match", "\"a\""}}, "\"a\"", P::kProceed},
  };
  for (const auto& c : cases) {
    std::string text;
    for (const FieldView& f : c.request) text += std::string(f.name) + ": " + std::string(f.value);
    const Validators validators{c.etag, kModified, kModified + 5000};
    EXPECT_EQ(evaluate_preconditions(Method::kGet, c.request, 200, validators, kNow), c.result)
        << text << " | " << c.etag;
    EXPECT_EQ(evaluate_preconditions(Method::kHead, c.request, 204, validators, kNow), c.result)
        << text << " | " << c.etag;
    // RFC 9110 13.2.1: no precondition turns an error into anything.
    for (const int status : {301, 404, 410, 500}) {
      EXPECT_EQ(evaluate_preconditions(Method::kGet, c.request, status, validators, kNow),
                P::kProceed);
    }
  }
}

TEST(Preconditions, WithoutLastModifiedDateStandsIn) {
  const Validators validators{"", kNoTime, kModified};
  const auto evaluate = [&](std::string_view since) {
    const List request = {{"If-Modified-Since", since}};
    return evaluate_preconditions(Method::kGet, request, 200, validators, kNow);
  };
  EXPECT_EQ(evaluate(kLater), P::kNotModified);
  EXPECT_EQ(evaluate(kEarlier), P::kProceed);
  const List unmodified = {{"If-Unmodified-Since", kEarlier}};
  EXPECT_EQ(evaluate_preconditions(Method::kGet, unmodified, 200, validators, kNow), P::kProceed);
}

TEST(Preconditions, OfUnsafeMethods) {
  const Validators validators{"\"a\"", kModified, kModified};
  const List none_match = {{"If-None-Match", "\"a\""}};
  EXPECT_EQ(evaluate_preconditions(Method::kPut, none_match, 200, validators, kNow), P::kFailed);
  const List since = {{"If-Modified-Since", kLater}};
  EXPECT_EQ(evaluate_preconditions(Method::kPost, since, 200, validators, kNow), P::kProceed);
}

// RFC 9110 13.1.5, 8.8.2.2
TEST(IfRange, NeedsAnExactStrongValidator) {
  const struct {
    std::string_view if_range;
    std::string_view etag;
    std::int64_t date_ms;
    bool applies;
  } cases[] = {
      {"\"a\"", "\"a\"", kModified, true},
      {"\"b\"", "\"a\"", kModified, false},
      {"W/\"a\"", "W/\"a\"", kModified, false},
      {"\"a\"", "W/\"a\"", kModified, false},
      {"\"a\"", "", kModified, false},
      {kSame, "", kModified + 1000, true},
      {kSame850, "", kModified + 1000, true},
      {kSame, "", kModified, false},
      {kSame, "", kNoTime, false},
      {kLater, "", kModified + 60000, false},
      {kEarlier, "", kModified + 60000, false},
      {"foo", "", kModified + 60000, false},
      {"", "", kModified + 60000, false},
  };
  for (const auto& c : cases) {
    const List request = {{"If-Range", c.if_range}};
    EXPECT_EQ(range_applies(request, {c.etag, kModified, c.date_ms}, kNow), c.applies)
        << c.if_range << " | " << c.etag;
  }
  EXPECT_TRUE(range_applies({}, {"", kNoTime, kNoTime}, kNow));
  const List dated = {{"If-Range", kSame}};
  EXPECT_FALSE(range_applies(dated, {"", kNoTime, kModified}, kNow));
}

TEST(FillFields, AskForTheWholeResponse) {
  for (const std::string_view name : {"Range", "If-Range", "If-Match", "If-None-Match",
                                      "If-Modified-Since", "If-Unmodified-Since"}) {
    EXPECT_TRUE(is_stripped_on_fill(field_id(name))) << name;
  }
  for (const std::string_view name : {"Accept", "Cookie", "Cache-Control", "Host"}) {
    EXPECT_FALSE(is_stripped_on_fill(field_id(name))) << name;
  }
}

TEST(NotModifiedFields, CarryNoDescriptionOfContent) {
  for (const std::string_view name : {"Cache-Control", "Content-Location", "Date", "ETag",
                                      "Expires", "Vary", "Last-Modified", "Set-Cookie", "X-A"}) {
    EXPECT_TRUE(is_sent_with_304(field_id(name))) << name;
  }
  for (const std::string_view name : {"Content-Type", "Content-Encoding", "Content-Language",
                                      "Content-Length", "Content-Range"}) {
    EXPECT_FALSE(is_sent_with_304(field_id(name))) << name;
  }
}

}  // namespace
}  // namespace mcs::http
