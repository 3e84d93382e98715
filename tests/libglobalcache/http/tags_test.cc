// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/tags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mcs::http {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> tags(std::vector<FieldView> fields) {
  std::vector<std::string> result;
  TagReader reader(fields);
  for (std::string_view tag; reader.next(tag);) result.emplace_back(tag);
  return result;
}

TEST(Tags, AreWordsOfThreeFields) {
  EXPECT_THAT(tags({{"A", "x"}}), IsEmpty());
  EXPECT_THAT(tags({{"Surrogate-Key", ""}, {"xkey", " ,\t"}}), IsEmpty());
  EXPECT_THAT(tags({{"surrogate-key", "a  B\tc"}, {"X", "no"}, {"XKEY", "d"}, {"xkey", "e, f"}}),
              ElementsAre("a", "B", "c", "d", "e", "f"));
  EXPECT_THAT(tags({{"Cache-Tag", "one,two , one"}}), ElementsAre("one", "two", "one"));
}

TEST(Tags, AreLimited) {
  std::string many;
  for (std::size_t i = 0; i < kMaxTags; ++i) many += "t ";
  std::vector<FieldView> fields = {{"xkey", many}};
  TagReader exact(fields);
  std::string_view tag;
  std::size_t count = 0;
  while (exact.next(tag)) ++count;
  EXPECT_EQ(count, kMaxTags);
  EXPECT_FALSE(exact.overflowed());
  fields.push_back({"Surrogate-Key", "one-more"});
  TagReader over(fields);
  while (over.next(tag)) {
  }
  EXPECT_TRUE(over.overflowed());
}

}  // namespace
}  // namespace mcs::http
