// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/date.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace mcs::http {
namespace {

constexpr std::int64_t kNow = 1780000000000;  // 2026-05-28

std::string format(std::int64_t ms) {
  const auto text = format_http_date(ms);
  return {text.data(), text.size()};
}

// RFC 9110 5.6.7
TEST(HttpDate, ReadsTheThreeForms) {
  constexpr std::int64_t kExample = 784111777000;
  for (const std::string_view text :
       {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994", "SUN, 06 nov 1994 08:49:37 gMT",
        "  Sun, 06 Nov 1994 08:49:37 GMT\t", "Mon, 06 Nov 1994 08:49:37 GMT"}) {
    EXPECT_EQ(parse_http_date(text, kNow), kExample) << text;
  }
}

TEST(HttpDate, ReadsFarDates) {
  const struct {
    std::string_view text;
    std::int64_t seconds;
  } cases[] = {
      {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
      {"Wed, 31 Dec 1969 23:59:59 GMT", -1},
      {"Tue, 19 Jan 2038 14:14:08 GMT", 2147523248},
      {"Sun, 21 Nov 2286 04:46:39 GMT", 10000039599},
      {"Thu, 18 Aug 2050 02:01:18 GMT", 2544400878},
      {"Thursday, 18-Aug-50 02:01:18 GMT", 2544400878},
      {"Thu Aug  8 02:01:18 2050", 2543536878},
      {"Tue, 29 Feb 2000 00:00:00 GMT", 951782400},
      {"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800},  // leap second
      {"Sat, 01 Jan 0000 00:00:00 GMT", -62167219200},
      {"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(parse_http_date(c.text, kNow), c.seconds * 1000) << c.text;
  }
}

TEST(HttpDate, SettlesTheCenturyOfTwoDigits) {
  const auto year = [](std::string_view text, std::int64_t now) {
    return format(parse_http_date(text, now).value()).substr(12, 4);
  };
  EXPECT_EQ(year("Sunday, 06-Nov-76 08:49:37 GMT", kNow), "2076");
  EXPECT_EQ(year("Sunday, 06-Nov-77 08:49:37 GMT", kNow), "1977");
  EXPECT_EQ(year("Sunday, 06-Nov-26 08:49:37 GMT", kNow), "2026");
  EXPECT_EQ(year("Sunday, 06-Nov-00 08:49:37 GMT", kNow), "2000");
  constexpr std::int64_t kYear2080 = 3471292800000;
  EXPECT_EQ(year("Sunday, 06-Nov-10 08:49:37 GMT", kYear2080), "2110");
  EXPECT_EQ(year("Sunday, 06-Nov-31 08:49:37 GMT", kYear2080), "2031");
}

TEST(HttpDate, RefusesEverythingElse) {
  for (const std::string_view text : {"",
                                      "0",
                                      "-1",
                                      "foo",
                                      "Sun",
                                      "Thu,",
                                      "1994-11-06T08:49:37Z",
                                      "Thu, 18 Aug 2050 02:01:18 UTC",
                                      "Thu, 18 Aug 2050 02:01:18 AEST",
                                      "Thu, 18 Aug 2050 02:01:18 +0000",
                                      "Thu, 18 Aug 2050 02:01:18",
                                      "Thu, 18 Aug 50 02:01:18 GMT",
                                      "Thu 18 Aug 2050 02:01:18 GMT",
                                      "Thu, 18  Aug  2050 02:01:18 GMT",
                                      "Thu, 18-Aug-2050 02:01:18 GMT",
                                      "Thu, 18 Aug 2050 02.01.18 GMT",
                                      "Thu, 18 Aug 2050 2:01:18 GMT",
                                      "Thu, 8 Aug 2050 02:01:18 GMT",
                                      "Thu, 32 Aug 2050 02:01:18 GMT",
                                      "Thu, 00 Aug 2050 02:01:18 GMT",
                                      "Wed, 29 Feb 2001 00:00:00 GMT",
                                      "Mon, 29 Feb 2100 00:00:00 GMT",
                                      "Wed, 31 Apr 2001 00:00:00 GMT",
                                      "Thu, 18 Aug 2050 24:00:00 GMT",
                                      "Thu, 18 Aug 2050 02:60:18 GMT",
                                      "Thu, 18 Aug 2050 02:01:61 GMT",
                                      "Thu, 18 Aux 2050 02:01:18 GMT",
                                      "Xxx, 18 Aug 2050 02:01:18 GMT",
                                      "Thu, 18 Aug 2050 02:01:18 GMT x",
                                      "Thu, 18 Aug 2050 02:01:18 GMT, x",
                                      "Thursday, 18 Aug 2050 02:01:18 GMT",
                                      "Thu, 18-Aug-50 02:01:18 GMT",
                                      "Thu Aug 8 02:01:18 2050",
                                      "Thu Aug  8 02:01:18 50",
                                      "Thu, -1 Aug 2050 02:01:18 GMT"}) {
    EXPECT_EQ(parse_http_date(text, kNow), std::nullopt) << text;
  }
}

TEST(HttpDate, FormatsWhatItReads) {
  EXPECT_EQ(format(784111777000), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(format(0), "Thu, 01 Jan 1970 00:00:00 GMT");
  EXPECT_EQ(format(-1), "Wed, 31 Dec 1969 23:59:59 GMT");
  EXPECT_EQ(format(kForever), "Fri, 31 Dec 9999 23:59:59 GMT");
  EXPECT_EQ(format(kNoTime), "Sat, 01 Jan 0000 00:00:00 GMT");
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<std::int64_t> seconds(-62167219200, 253402300799);
  for (int i = 0; i < 20000; ++i) {
    const std::int64_t ms = seconds(random) * 1000;
    ASSERT_EQ(parse_http_date(format(ms), kNow), ms) << format(ms);
  }
}

// RFC 9111 1.2.2
TEST(DeltaSeconds, AcceptsDigitsOnlyAndSaturates) {
  const struct {
    std::string_view text;
    std::optional<std::int64_t> value;
  } cases[] = {
      {"0", 0},
      {"3600", 3600},
      {"003600", 3600},
      {"2147483647", 2147483647},
      {"2147483648", 2147483648},
      {"2147483649", 2147483648},
      {"99999999999", 2147483648},
      {"99999999999999999999999999999999", 2147483648},
      {"", std::nullopt},
      {"-1", std::nullopt},
      {"+1", std::nullopt},
      {"1.0", std::nullopt},
      {"3600.5", std::nullopt},
      {"a3600", std::nullopt},
      {"3600a", std::nullopt},
      {" 1", std::nullopt},
      {"'3600'", std::nullopt},
      {"0x10", std::nullopt},
  };
  for (const auto& c : cases) EXPECT_EQ(parse_delta_seconds(c.text), c.value) << c.text;
}

TEST(Decimal, RefusesWhatDoesNotFit) {
  EXPECT_EQ(parse_decimal("18446744073709551615"), 18446744073709551615u);
  EXPECT_EQ(parse_decimal("18446744073709551616"), std::nullopt);
  EXPECT_EQ(parse_decimal("99999999999999999999"), std::nullopt);
  EXPECT_EQ(parse_decimal(""), std::nullopt);
  EXPECT_EQ(parse_decimal("1 "), std::nullopt);
}

TEST(Saturating, NeverWraps) {
  EXPECT_EQ(saturating_add(kForever, 1), kForever);
  EXPECT_EQ(saturating_add(kNoTime, -1), kNoTime + 1);
  EXPECT_EQ(saturating_sub(kForever, -1), kForever);
  EXPECT_EQ(saturating_sub(0, kNoTime), kForever);
  EXPECT_EQ(saturating_sub(-2, kForever), kNoTime + 1);
  EXPECT_EQ(saturating_add(2, 3), 5);
}

}  // namespace
}  // namespace mcs::http
