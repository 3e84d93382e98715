// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/validation.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace mcs::http {
namespace {

using List = std::vector<FieldView>;

constexpr std::int64_t kNow = 1780000000000;
constexpr std::string_view kDate1 = "Wed, 01 Jan 2020 00:00:00 GMT";
constexpr std::string_view kDate1Rfc850 = "Wednesday, 01-Jan-20 00:00:00 GMT";
constexpr std::string_view kDate2 = "Thu, 02 Jan 2020 00:00:00 GMT";

// A stored response with these fields.
class Stored {
 public:
  explicit Stored(const List& fields, int status = 200) : bytes_(header_block_size(fields), '\0') {
    write_header_block(status, fields, bytes_);
  }
  HeaderBlock block() const { return HeaderBlock::parse(bytes_).value(); }

 private:
  std::string bytes_;
};

std::string value(const Freshened& freshened, std::string_view name) {
  std::string all;
  for (const FieldView& field : freshened.fields) {
    if (!equals_ignore_case(field.name, name)) continue;
    if (!all.empty()) all += " | ";
    all += field.value;
  }
  return all;
}

// The result's fields point into the stored block, so both live together.
struct Updated {
  explicit Updated(const List& stored) : old(stored) {}
  Stored old;
  Freshened result;
};

std::unique_ptr<Updated> update(const List& stored, const List& fields,
                                const CachePolicy& policy = {}) {
  auto updated = std::make_unique<Updated>(stored);
  freshen(policy, updated->old.block(), StoredMeta(), fields, kNow, kNow, updated->result);
  return updated;
}

// RFC 9111 4.3.1
TEST(ValidationFields, AreWhatTheOriginSent) {
  const auto names = [](const List& fields, const CachePolicy& policy = {}) {
    const Stored stored(fields);
    const ValidationFields result = validation_fields(policy, stored.block());
    std::string text;
    for (const FieldView& field : result.view()) {
      text += std::string(field.name) + ": " + std::string(field.value) + "; ";
    }
    return text;
  };
  EXPECT_EQ(names({{"ETag", "\"a\""}}), "If-None-Match: \"a\"; ");
  EXPECT_EQ(names({{"etag", "W/\"a\""}, {"Last-Modified", kDate1}}),
            "If-None-Match: W/\"a\"; If-Modified-Since: " + std::string(kDate1) + "; ");
  EXPECT_EQ(names({{"ETag", "unquoted"}}), "If-None-Match: unquoted; ");
  EXPECT_EQ(names({{"Last-Modified", "nonsense"}}), "If-Modified-Since: nonsense; ");
  EXPECT_EQ(names({{"X", "1"}}), "");
  CachePolicy policy;
  policy.revalidate = false;
  EXPECT_EQ(names({{"ETag", "\"a\""}}, policy), "");
}

// RFC 9111 4.3.4
TEST(NotModified, MustSpeakOfTheStoredResponse) {
  const struct {
    List stored, not_modified;
    NotModified result;
  } cases[] = {
      {{{"ETag", "\"a\""}}, {{"ETag", "\"a\""}}, NotModified::kFreshen},
      {{{"ETag", "\"a\""}}, {{"ETag", "\"b\""}}, NotModified::kMismatch},
      {{{"ETag", "\"a\""}}, {{"ETag", "W/\"a\""}}, NotModified::kFreshen},
      {{{"ETag", "\"a\""}}, {{"ETag", "W/\"b\""}}, NotModified::kMismatch},
      {{{"ETag", "W/\"a\""}}, {{"ETag", "\"a\""}}, NotModified::kFreshen},
      {{{"ETag", "\"a\""}}, {}, NotModified::kFreshen},
      {{{"ETag", "a"}}, {{"ETag", "a"}}, NotModified::kFreshen},
      {{{"Last-Modified", kDate1}}, {{"ETag", "\"a\""}}, NotModified::kMismatch},
      {{{"Last-Modified", kDate1}}, {{"ETag", "W/\"a\""}}, NotModified::kFreshen},
      {{{"Last-Modified", kDate1}}, {{"Last-Modified", kDate1}}, NotModified::kFreshen},
      {{{"Last-Modified", kDate1}}, {{"Last-Modified", kDate1Rfc850}}, NotModified::kFreshen},
      {{{"Last-Modified", kDate1}}, {{"Last-Modified", kDate2}}, NotModified::kMismatch},
      {{{"Last-Modified", kDate1}, {"ETag", "\"a\""}},
       {{"Last-Modified", kDate2}, {"ETag", "\"a\""}},
       NotModified::kFreshen},
      {{{"Last-Modified", kDate1}}, {}, NotModified::kFreshen},
  };
  for (const auto& c : cases) {
    const Stored stored(c.stored);
    EXPECT_EQ(match_not_modified(stored.block(), c.not_modified), c.result)
        << c.stored[0].value << " | " << (c.not_modified.empty() ? "" : c.not_modified[0].value);
  }
}

// RFC 9111 3.2
TEST(Freshen, ReplacesWhatMayBeReplaced) {
  const struct {
    std::string_view name;
    bool updated;
  } cases[] = {
      {"Test-Header", true},
      {"X-Test-Header", true},
      {"Content-Foo", true},
      {"X-Content-Foo", true},
      {"Content-Location", true},
      {"Content-MD5", true},
      {"Content-Security-Policy", true},
      {"Content-Type", true},
      {"Clear-Site-Data", true},
      {"Public-Key-Pins", true},
      {"Set-Cookie", true},
      {"Set-Cookie2", true},
      {"X-Frame-Options", true},
      {"X-XSS-Protection", true},
      {"Content-Encoding", false},
      {"Content-Range", false},
  };
  for (const auto& c : cases) {
    const auto updated = update({{"Cache-Control", "max-age=2"}, {c.name, "old"}},
                                {{"Cache-Control", "max-age=3600"}, {c.name, "new"}});
    EXPECT_EQ(value(updated->result, c.name), c.updated ? "new" : "old") << c.name;
    EXPECT_EQ(value(updated->result, "cache-control"), "max-age=3600");
    EXPECT_EQ(updated->result.meta.fresh_until_ms, kNow + 3600000);
  }
}

TEST(Freshen, KeepsWhatTheUpdateOmitsAndDropsWhatIsNeverStored) {
  const auto updated =
      update({{"ETag", "\"a\""}, {"Test", "1"}, {"Multi", "1"}, {"Multi", "2"}, {"Named", "old"}},
             {{"multi", "3"},
              {"Content-Length", "99"},
              {"Age", "7"},
              {"Connection", "named, close"},
              {"named", "new"},
              {"Transfer-Encoding", "chunked"},
              {"Cache-Control", "max-age=60, no-cache=\"test\""},
              {"Bad", "a\r\nb"}});
  EXPECT_EQ(value(updated->result, "etag"), "\"a\"");
  EXPECT_EQ(value(updated->result, "multi"), "3");
  EXPECT_EQ(value(updated->result, "named"), "old");
  EXPECT_EQ(value(updated->result, "test"), "");
  for (const std::string_view gone :
       {"Content-Length", "Age", "Connection", "Transfer-Encoding", "Bad"}) {
    EXPECT_EQ(value(updated->result, gone), "") << gone;
  }
  EXPECT_EQ(updated->result.meta.fresh_until_ms, kNow + 53000);  // the update's Age counts
  EXPECT_EQ(age_to_send(updated->result.meta, kNow), 7);
}

TEST(Freshen, DateIsOfTheUpdate) {
  auto updated = update({{"Date", kDate1}, {"Cache-Control", "max-age=60"}}, {{"X", "1"}});
  EXPECT_EQ(value(updated->result, "date"), "Thu, 28 May 2026 20:26:40 GMT");
  EXPECT_TRUE(is_fresh(updated->result.meta, kNow + 59000));
  updated = update({{"Date", kDate1}}, {{"Date", "foo"}, {"Date", kDate2}, {"Date", kDate1}});
  EXPECT_EQ(value(updated->result, "date"), kDate2);
  updated = update({{"Date", kDate1}, {"Cache-Control", "max-age=60"}}, {{"Date", kDate2}});
  EXPECT_FALSE(is_fresh(updated->result.meta, kNow));
}

TEST(Freshen, NoticesChangesOfVaryAndStorability) {
  EXPECT_FALSE(update({{"Vary", "a, B"}}, {{"Vary", "b,A"}})->result.vary_changed);
  EXPECT_TRUE(update({{"Vary", "a"}}, {{"Vary", "a, b"}})->result.vary_changed);
  EXPECT_TRUE(update({{"X", "a"}}, {{"Vary", "a"}})->result.vary_changed);
  EXPECT_TRUE(update({{"Vary", "a"}}, {{"Vary", "*"}})->result.vary_changed);
  EXPECT_FALSE(update({{"Vary", "a"}}, {{"X", "1"}})->result.vary_changed);
  EXPECT_TRUE(update({{"X", "1"}}, {{"Cache-Control", "max-age=1"}})->result.storable);
  EXPECT_FALSE(update({{"X", "1"}}, {{"Cache-Control", "no-store"}})->result.storable);
  EXPECT_FALSE(update({{"X", "1"}}, {{"Cache-Control", "private"}})->result.storable);
  EXPECT_FALSE(update({{"Cache-Control", "private"}}, {{"X", "1"}})->result.storable);
}

TEST(Freshen, KeepsTheRangeOfAPartialResponse) {
  const Stored stored({{"Content-Range", "bytes 0-4/10"}, {"ETag", "\"a\""}}, 206);
  StoredMeta meta;
  meta.flags = kMetaPartial;
  meta.range_last = 4;
  meta.complete_length = 10;
  Freshened result;
  const List fields = {{"Content-Range", "bytes 0-9/10"}, {"Cache-Control", "max-age=5"}};
  freshen(CachePolicy(), stored.block(), meta, fields, kNow, kNow, result);
  EXPECT_EQ(value(result, "content-range"), "bytes 0-4/10");
  EXPECT_EQ(result.meta.range_last, 4u);
  EXPECT_EQ(result.meta.status, 206);
}

// RFC 9111 4.3.5
TEST(HeadResponse, UpdatesOrInvalidates) {
  const List old = {{"ETag", "\"a\""}, {"Last-Modified", kDate1}};
  const struct {
    int status;
    List head;
    HeadUpdate result;
  } cases[] = {
      {200, {}, HeadUpdate::kFreshen},
      {200,
       {{"ETag", "\"a\""}, {"Last-Modified", kDate1}, {"Content-Length", "5"}},
       HeadUpdate::kFreshen},
      {200, {{"ETag", "\"b\""}}, HeadUpdate::kInvalidate},
      {200, {{"Last-Modified", kDate2}}, HeadUpdate::kInvalidate},
      {200, {{"Content-Length", "6"}}, HeadUpdate::kInvalidate},
      {200, {{"Content-Length", "x"}}, HeadUpdate::kInvalidate},
      {404, {}, HeadUpdate::kInvalidate},
      {410, {}, HeadUpdate::kInvalidate},
      {304, {}, HeadUpdate::kIgnore},
      {500, {}, HeadUpdate::kIgnore},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(match_head(Stored(old).block(), 5, c.status, c.head), c.result) << c.status;
  }
  EXPECT_EQ(match_head(Stored(old, 404).block(), 5, 200, {}), HeadUpdate::kIgnore);
  const List new_tag = {{"ETag", "\"a\""}};
  EXPECT_EQ(match_head(Stored(List{{"X", "1"}}).block(), 5, 200, new_tag), HeadUpdate::kInvalidate);
}

}  // namespace
}  // namespace mcs::http
