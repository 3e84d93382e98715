// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/header_block.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace mcs::http {
namespace {

using namespace std::string_literals;
using List = std::vector<FieldView>;

std::string write(int status, const List& fields) {
  std::string bytes(header_block_size(fields), '\0');
  return write_header_block(status, fields, bytes) ? bytes : "";
}

TEST(HeaderBlock, GivesBackWhatWasWritten) {
  const List fields = {
      {"Content-Type", " text/html "}, {"X", ""}, {"x", "2"}, {"Set-Cookie", "a=b"}};
  const std::string bytes = write(404, fields);
  const std::string longer = bytes + "trailing bytes";
  const auto block = HeaderBlock::parse(longer);
  ASSERT_TRUE(block);
  EXPECT_EQ(block->status(), 404);
  EXPECT_EQ(block->field_count(), 4u);
  EXPECT_EQ(block->bytes(), bytes);
  EXPECT_EQ(block->value("content-type"), "text/html");
  EXPECT_EQ(block->value("X"), "");
  EXPECT_EQ(block->value("missing"), "");
  List copy;
  block->copy_to(copy);
  ASSERT_EQ(copy.size(), 4u);
  EXPECT_EQ(copy[2].name, "x");
  EXPECT_EQ(copy[2].value, "2");
  // Zero-copy: the views point into the bytes.
  const FieldView first = *block->begin();
  EXPECT_EQ(first.name.data(), block->bytes().data() + 18);

  EXPECT_TRUE(HeaderBlock::parse(write(200, {})));
}

TEST(HeaderBlock, HasLimits) {
  EXPECT_EQ(header_block_size(List(kMaxBlockFields + 1, FieldView{"a", "b"})), 0u);
  const std::string long_name(65536, 'a');
  EXPECT_EQ(header_block_size(List{{long_name, ""}}), 0u);
  const std::string long_value(kMaxBlockSize, 'a');
  EXPECT_EQ(header_block_size(List{{"a", long_value}}), 0u);
  const List one = {{"a", "b"}};
  std::string wrong_size(header_block_size(one) - 1, '\0');
  EXPECT_FALSE(write_header_block(200, one, wrong_size));
  EXPECT_EQ(write(99, one), "");
  EXPECT_EQ(write(1000, one), "");
}

TEST(HeaderBlock, RefusesHostileBytes) {
  const std::string good = write(200, {{"Name", "value"}, {"B", "2"}});
  ASSERT_TRUE(HeaderBlock::parse(good));
  for (std::size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(HeaderBlock::parse(std::string_view(good).substr(0, length))) << length;
  }
  const auto with = [&](std::size_t at, const std::string& bytes) {
    std::string changed = good;
    changed.replace(at, bytes.size(), bytes);
    return changed;
  };
  EXPECT_FALSE(HeaderBlock::parse(with(0, "X"))) << "magic";
  EXPECT_FALSE(HeaderBlock::parse(with(4, "\x10\x00"s))) << "status";
  EXPECT_FALSE(HeaderBlock::parse(with(6, "\x01\x00"s))) << "fewer fields";
  EXPECT_FALSE(HeaderBlock::parse(with(6, "\x03\x00"s))) << "more fields";
  EXPECT_FALSE(HeaderBlock::parse(with(6, "\xff\xff"s))) << "too many fields";
  EXPECT_FALSE(HeaderBlock::parse(with(8, "\xff\xff\xff\xff"s))) << "huge block";
  EXPECT_FALSE(HeaderBlock::parse(with(8, "\x00\x00\x00\x00"s))) << "empty block";
  EXPECT_FALSE(HeaderBlock::parse(with(12, "\xff\xff"s))) << "name beyond the block";
  EXPECT_FALSE(HeaderBlock::parse(with(12, "\x00\x00"s))) << "empty name";
  EXPECT_FALSE(HeaderBlock::parse(with(14, "\xff\xff\xff\xff"s))) << "value beyond the block";
  EXPECT_FALSE(HeaderBlock::parse(with(18, "Na:e"))) << "no token";
  EXPECT_FALSE(HeaderBlock::parse(with(22, "va\r\nx"))) << "header injection";
  EXPECT_FALSE(HeaderBlock::parse(with(22, "va\0ue"s))) << "NUL";
}

TEST(HeaderBlock, SurvivesRandomDamage) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::string good =
      write(200, {{"Content-Type", "text/html"}, {"Vary", "a, b"}, {"ETag", "\"x\""}, {"C", ""}});
  std::size_t accepted = 0;
  for (int i = 0; i < 50000; ++i) {
    std::string bytes = good;
    for (unsigned int n = random() % 3; n > 0; --n) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const auto block = HeaderBlock::parse(bytes);
    if (!block) continue;
    ++accepted;
    std::size_t count = 0;
    for (const FieldView field : *block) {
      ASSERT_TRUE(is_token(field.name) && is_safe_value(field.value));
      ++count;
    }
    ASSERT_EQ(count, block->field_count());
  }
  EXPECT_GT(accepted, 0u);
}

}  // namespace
}  // namespace mcs::http
