// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/range.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace mcs::http {
namespace {

// "0-4 7-9", "whole" or "416".
std::string ranges(std::string_view value, std::uint64_t length, std::uint32_t max_ranges = 16) {
  const RangeSet set = parse_range(value, length, max_ranges);
  if (set.result == RangeResult::kWhole) return "whole";
  if (set.result == RangeResult::kUnsatisfiable) return "416";
  std::string text;
  for (const ByteRange& range : set.view()) {
    if (!text.empty()) text += ' ';
    text += std::to_string(range.first) + "-" + std::to_string(range.last);
  }
  return text;
}

// RFC 9110 14.1.2, 14.2
TEST(Range, IsReadAndCutToTheLength) {
  const struct {
    std::string_view value;
    std::uint64_t length;
    std::string_view result;
  } cases[] = {
      {"bytes=0-1", 11, "0-1"},
      {"bytes=1-", 11, "1-10"},
      {"bytes=-1", 11, "10-10"},
      {"bytes=-5", 10, "5-9"},
      {"bytes=-500", 10, "0-9"},
      {"bytes=0-", 10, "0-9"},
      {"bytes=0-999999", 10, "0-9"},
      {"bytes=9-9", 10, "9-9"},
      {"bytes=10-", 10, "416"},
      {"bytes=10-20", 10, "416"},
      {"bytes=-0", 10, "416"},
      {"bytes=0-", 0, "416"},
      {"bytes=-5", 0, "416"},
      {"bytes=0-0,10-", 10, "0-0"},
      {"bytes=99999999999999999999999-", 10, "416"},
      {"bytes=0-99999999999999999999999", 10, "0-9"},
      {"bytes=-99999999999999999999999", 10, "0-9"},
      {"BYTES=0-1", 10, "0-1"},
      {" bytes=0-1 ", 10, "0-1"},
      {"bytes=0-1 , 4-5", 10, "0-1 4-5"},
      {"bytes=,0-1,,4-5,", 10, "0-1 4-5"},
      {"bytes=4-5,0-1", 10, "4-5 0-1"},
      {"bytes=0-4,2-6", 10, "0-6"},
      {"bytes=0-1,2-3", 10, "0-3"},
      {"bytes=8-9,0-1,1-7", 10, "0-9"},
      {"bytes=8-9,0-1,3-7", 10, "3-9 0-1"},
      {"bytes=0-1,8-9,3-7", 10, "0-1 3-9"},
      {"bytes=0-9,0-9,0-9", 10, "0-9"},
      {"bytes=5-2", 10, "whole"},
      {"bytes=0-1,5-2", 10, "whole"},
      {"bytes=a-b", 10, "whole"},
      {"bytes=1", 10, "whole"},
      {"bytes=-", 10, "whole"},
      {"bytes=--1", 10, "whole"},
      {"bytes=1-2-3", 10, "whole"},
      {"bytes=0 - 1", 10, "whole"},
      {"bytes=", 10, "whole"},
      {"bytes=,", 10, "whole"},
      {"bytes 0-1", 10, "whole"},
      {"bytes = 0-1", 10, "whole"},
      {"items=0-1", 10, "whole"},
      {"", 10, "whole"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(ranges(c.value, c.length), c.result) << c.value << " of " << c.length;
  }
}

TEST(Range, IsLimited) {
  std::string many = "bytes=0-0";
  for (int i = 1; i < 100; ++i) many += "," + std::to_string(2 * i) + "-" + std::to_string(2 * i);
  EXPECT_EQ(ranges(many, 1000), "whole");
  EXPECT_EQ(ranges("bytes=0-0,2-2", 10, 1), "whole");
  EXPECT_EQ(ranges("bytes=0-0,2-2", 10, 2), "0-0 2-2");
  EXPECT_EQ(ranges("bytes=0-0", 10, 0), "whole");
  EXPECT_EQ(ranges(many, 1000, 1000), "whole");
}

TEST(Range, NeverCarriesAByteTwice) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int i = 0; i < 20000; ++i) {
    constexpr std::uint64_t kLength = 24;
    std::string value = "bytes=";
    std::vector<bool> wanted(kLength);
    bool satisfiable = false;
    for (unsigned int n = 1 + random() % 6; n > 0; --n) {
      const std::uint64_t first = random() % 28;
      const std::uint64_t last = first + random() % 8;
      value += std::to_string(first) + "-" + std::to_string(last) + ",";
      satisfiable |= first < kLength;
      for (std::uint64_t at = first; at <= last && at < kLength; ++at) wanted[at] = true;
    }
    const RangeSet set = parse_range(value, kLength);
    ASSERT_EQ(set.result, satisfiable ? RangeResult::kPartial : RangeResult::kUnsatisfiable)
        << value;
    std::vector<bool> given(kLength);
    for (const ByteRange& range : set.view()) {
      ASSERT_LE(range.first, range.last);
      for (std::uint64_t at = range.first; at <= range.last; ++at) {
        ASSERT_FALSE(given.at(at)) << value;
        given[at] = true;
      }
    }
    ASSERT_EQ(given, wanted) << value;
  }
}

// RFC 9110 14.4
TEST(ContentRange, IsReadAndWritten) {
  const auto parse = [](std::string_view value) -> std::string {
    const auto range = parse_content_range(value);
    if (!range) return "!";
    const std::string complete =
        range->complete_length ? std::to_string(*range->complete_length) : "*";
    if (!range->satisfied) return "*/" + complete;
    return std::to_string(range->range.first) + "-" + std::to_string(range->range.last) + "/" +
           complete;
  };
  const struct {
    std::string_view value, result;
  } cases[] = {
      {"bytes 0-4/10", "0-4/10"},
      {"Bytes 9-9/10", "9-9/10"},
      {"bytes 0-4/*", "0-4/*"},
      {"bytes */10", "*/10"},
      {"bytes */*", "!"},
      {"bytes 0-10/10", "!"},
      {"bytes 5-4/10", "!"},
      {"bytes 0-4", "!"},
      {"bytes=0-4/10", "!"},
      {"items 0-4/10", "!"},
      {"bytes -4/10", "!"},
      {"bytes 0-/10", "!"},
      {"bytes a-b/c", "!"},
      {"", "!"},
      {"bytes ", "!"},
      {"bytes 0-4/99999999999999999999", "!"},
      {"bytes 0-18446744073709551615/*", "!"},
      {"bytes  0-4/10", "0-4/10"},
  };
  for (const auto& c : cases) EXPECT_EQ(parse(c.value), c.result) << c.value;
  std::string text;
  append_content_range({4, 9}, 10, text);
  EXPECT_EQ(text, "bytes 4-9/10");
  text.clear();
  append_unsatisfied_range(10, text);
  EXPECT_EQ(text, "bytes */10");
}

// RFC 9110 14.6
TEST(Multipart, FramesItsParts) {
  const std::vector<ByteRange> parts = {{0, 1}, {4, 9}};
  const Multipart multipart(parts, 10, "text/plain", 0x0123456789abcdef);
  EXPECT_EQ(multipart.content_type(), "multipart/byteranges; boundary=fedcba9876543210");
  EXPECT_EQ(multipart.part_header(1),
            "\r\n--fedcba9876543210\r\nContent-Type: text/plain\r\n"
            "Content-Range: bytes 4-9/10\r\n\r\n");
  EXPECT_EQ(multipart.trailer(), "\r\n--fedcba9876543210--\r\n");
  EXPECT_EQ(multipart.content_length(), multipart.part_header(0).size() + 2 +
                                            multipart.part_header(1).size() + 6 +
                                            multipart.trailer().size());
  EXPECT_EQ(Multipart(parts, 10, "", 1).part_header(0).find("Content-Type"), std::string::npos);
}

// RFC 9111 3.4
TEST(Coverage, AgreesWithABitmap) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 2000; ++round) {
    constexpr std::uint64_t kLength = 64;
    ByteCoverage coverage;
    std::vector<bool> held(kLength);
    for (int step = 0; step < 8; ++step) {
      const std::uint64_t first = random() % kLength;
      const std::uint64_t last = std::min<std::uint64_t>(kLength - 1, first + random() % 9);
      ASSERT_TRUE(coverage.add({first, last}));
      for (std::uint64_t at = first; at <= last; ++at) held[at] = true;
      for (std::size_t i = 1; i < coverage.pieces().size(); ++i) {
        ASSERT_GT(coverage.pieces()[i].first, coverage.pieces()[i - 1].last + 1);
      }
      const std::uint64_t from = random() % kLength;
      const std::uint64_t to = from + random() % (kLength - from);
      std::uint64_t gap = from;
      while (gap <= to && held[gap]) ++gap;
      const auto found = coverage.first_gap({from, to});
      ASSERT_EQ(coverage.covers({from, to}), gap > to);
      ASSERT_EQ(found.has_value(), gap <= to);
      if (found) {
        ASSERT_EQ(found->first, gap);
        for (std::uint64_t at = gap; at <= found->last; ++at) ASSERT_FALSE(held[at]);
        ASSERT_TRUE(found->last == to || held[found->last + 1]);
      }
    }
  }
}

TEST(Coverage, IsBounded) {
  ByteCoverage coverage;
  for (std::uint64_t i = 0; i < ByteCoverage::kMaxPieces; ++i) {
    EXPECT_TRUE(coverage.add({3 * i, 3 * i}));
  }
  EXPECT_FALSE(coverage.add({100000, 100001}));
  EXPECT_EQ(coverage.pieces().size(), ByteCoverage::kMaxPieces);
  EXPECT_TRUE(coverage.add({1, 2}));
  EXPECT_EQ(coverage.pieces().size(), ByteCoverage::kMaxPieces - 1);
  EXPECT_TRUE(coverage.add({0, ~std::uint64_t{0} - 1}));
  EXPECT_EQ(coverage.pieces().size(), 1u);
}

TEST(Combining, NeedsTheSameStrongTagAndLength) {
  EXPECT_TRUE(may_combine("\"a\"", 10, "\"a\"", 10));
  EXPECT_FALSE(may_combine("\"a\"", 10, "\"b\"", 10));
  EXPECT_FALSE(may_combine("\"a\"", 10, "\"a\"", 11));
  EXPECT_FALSE(may_combine("W/\"a\"", 10, "W/\"a\"", 10));
  EXPECT_FALSE(may_combine("", 10, "", 10));
}

}  // namespace
}  // namespace mcs::http
