// SPDX-License-Identifier: Apache-2.0
// Parts of what is too large to be stored as a whole.
#include <gtest/gtest.h>

#include "libglobalcache/api/process.h"
#include "tests/libglobalcache/api/api_kit.h"

namespace mcs::api::testing {
namespace {

constexpr std::size_t kWhole = 500000;
constexpr std::size_t kLargest = 300000;

std::string bytes_of(std::size_t first, std::size_t last) {
  std::string text;
  for (std::size_t i = first; i <= last; ++i) {
    text += static_cast<char>('a' + (i * 31 + i / 251) % 26);
  }
  return text;
}

std::string range_text(std::size_t first, std::size_t last) {
  return std::to_string(first) + "-" + std::to_string(last);
}

class PartialTest : public ::testing::Test {
 protected:
  TestDomain domain_;
  mcs_process* nginx_ = domain_.join("nginx/1.22.1", 0);
  mcs_process* httpd_ = domain_.join("Apache/2.4", 1);
  TestPolicy policy_{"max_object " + std::to_string(kLargest)};
  std::string tag_ = "\"a\"";
  std::optional<std::string> range_asked_;
  bool cut_off_ = false;
  OwnedFields more_;  // in responses

  // Answers ranges, and says how long the whole is.
  std::optional<Response> origin(const Request& request) {
    OwnedFields fields = {{"Cache-Control", "max-age=1000"}, {"ETag", tag_}};
    fields.insert(fields.end(), more_.begin(), more_.end());
    const auto range = joined(request.fields, "range");
    range_asked_ = range;
    Response response;
    response.chunk = 7000;
    if (!range) {
      fields.emplace_back("Content-Length", std::to_string(kWhole));
      response.fields = fields;
      response.body = bytes_of(0, kWhole - 1);
      return response;
    }
    const std::size_t first = std::stoul(range->substr(6));
    const std::size_t last = std::stoul(range->substr(range->find('-') + 1));
    fields.emplace_back("Content-Range",
                        "bytes " + range_text(first, last) + "/" + std::to_string(kWhole));
    response.status = 206;
    response.fields = fields;
    response.body = bytes_of(first, last);
    response.cut_off = cut_off_;
    if (cut_off_) response.body.resize(response.body.size() / 2);
    return response;
  }
  Reply whole(mcs_process* process) {
    return ask(process, policy_.get(), {}, [this](const Request& r) { return origin(r); });
  }
  Reply part(mcs_process* process, std::size_t first, std::size_t last) {
    Request request;
    request.fields = {{"Range", "bytes=" + range_text(first, last)}};
    return ask(process, policy_.get(), request, [this](const Request& r) { return origin(r); });
  }
  // Whether these bytes come back without the origin.
  ::testing::AssertionResult has(mcs_process* process, std::size_t first, std::size_t last) {
    const Reply reply = part(process, first, last);
    if (reply.asked_origin) return ::testing::AssertionFailure() << "the origin was asked";
    if (reply.status != 206) return ::testing::AssertionFailure() << "status " << reply.status;
    if (reply.body != bytes_of(first, last)) return ::testing::AssertionFailure() << "other bytes";
    return ::testing::AssertionSuccess();
  }
  // Learn that the whole is too large.
  void refuse_whole() { ASSERT_FALSE(whole(nginx_).stored); }
};

TEST_F(PartialTest, PartsOfWhatIsTooLargeAreServedToBothServers) {
  refuse_whole();
  EXPECT_TRUE(part(nginx_, 1000, 200999).stored);
  EXPECT_TRUE(has(httpd_, 1000, 200999));
  EXPECT_TRUE(has(nginx_, 100000, 100009));
  EXPECT_TRUE(has(httpd_, 200999, 200999));
  EXPECT_TRUE(part(httpd_, 999, 1000).asked_origin);
}

TEST_F(PartialTest, APurgeMeetsPartsThatTheOriginWasAskedForBefore) {
  refuse_whole();
  Request request;
  request.fields = {{"Range", "bytes=1000-200999"}};
  Exchange exchange(nginx_, policy_.get(), request);
  ASSERT_EQ(exchange.begin(), MCS_FORWARD);
  const auto answer = origin(exchange.forwarded());
  mcs_purge_request all{};
  all.kind = MCS_PURGE_ALL;
  ASSERT_EQ(mcs_purge(httpd_, &all, nullptr, nullptr, 0), MCS_OK);
  exchange.head(answer->status, answer->fields);
  exchange.body(answer->body);
  exchange.end();
  exchange.close();
  EXPECT_FALSE(has(httpd_, 1000, 200999));
}

TEST_F(PartialTest, IsRememberedToBeTooLargeLongerThanTheMarker) {
  refuse_whole();
  part(nginx_, 0, 99999);
  advance_s(60);
  // Not the whole of it for each part that is not there.
  const Reply reply = part(httpd_, 400000, 400099);
  EXPECT_EQ(reply.status, 206);
  EXPECT_EQ(reply.body, bytes_of(400000, 400099));
  EXPECT_EQ(range_asked_, "bytes=400000-400099");
}

TEST_F(PartialTest, PartsThatTouchGrowTogetherUpToTheLargestObject) {
  refuse_whole();
  part(nginx_, 100000, 199999);
  part(httpd_, 200000, 249999);
  EXPECT_TRUE(has(nginx_, 100000, 249999));
  part(nginx_, 50000, 120000);
  EXPECT_TRUE(has(httpd_, 50000, 249999));
  // Together they would be too large: the newer one stays.
  part(httpd_, 240000, 400000);
  EXPECT_TRUE(has(nginx_, 240000, 400000));
  EXPECT_TRUE(part(nginx_, 50000, 50001).asked_origin);
}

// RFC 9111 3.4; an answer to If-Range may leave out what its client has (RFC 9110 15.3.7).
TEST_F(PartialTest, FieldsThatALaterPartDoesNotRepeatHoldOn) {
  refuse_whole();
  more_ = {{"Content-Language", "de"}, {"Surrogate-Key", "t"}};
  part(nginx_, 0, 99999);
  more_.clear();
  part(httpd_, 100000, 199999);
  EXPECT_TRUE(has(nginx_, 0, 199999));
  EXPECT_EQ(part(nginx_, 150000, 150001).field("content-language"), "de");
}

TEST_F(PartialTest, APartThatWasAskedForConditionallyIsNotStoredAlone) {
  refuse_whole();
  Request request;
  request.fields = {{"Range", "bytes=0-99"}, {"If-Range", tag_}};
  EXPECT_FALSE(
      ask(httpd_, policy_.get(), request, [this](const Request& r) { return origin(r); }).stored);
  EXPECT_TRUE(part(nginx_, 0, 99).asked_origin);
}

TEST_F(PartialTest, APartInsideTheStoredOneKeepsWhatIsAroundIt) {
  refuse_whole();
  part(nginx_, 0, 99999);
  Request request;
  request.fields = {{"Range", "bytes=40000-59999"}, {"Cache-Control", "no-cache"}};
  const Reply again =
      ask(httpd_, policy_.get(), request, [this](const Request& r) { return origin(r); });
  EXPECT_TRUE(again.asked_origin);
  EXPECT_TRUE(has(nginx_, 0, 99999));
}

TEST_F(PartialTest, WhatBreaksOffLeavesTheOldPart) {
  refuse_whole();
  part(nginx_, 0, 99999);
  cut_off_ = true;
  part(httpd_, 100000, 199999);
  cut_off_ = false;
  EXPECT_TRUE(has(nginx_, 0, 99999));
  EXPECT_TRUE(part(nginx_, 100000, 100001).asked_origin);
}

TEST_F(PartialTest, AProcessThatLeavesInTheMiddleLeavesTheOldPart) {
  refuse_whole();
  part(nginx_, 0, 99999);
  Request request;
  request.fields = {{"Range", "bytes=100000-199999"}};
  {
    Exchange exchange(httpd_, policy_.get(), request);
    ASSERT_EQ(exchange.begin(), MCS_FORWARD);
    ASSERT_EQ(exchange.head(206, {{"Cache-Control", "max-age=1000"},
                                  {"ETag", tag_},
                                  {"Content-Range", "bytes 100000-199999/500000"}}),
              MCS_STORE);
    exchange.body(bytes_of(100000, 149999));
    EXPECT_TRUE(has(nginx_, 0, 99999));
  }
  EXPECT_TRUE(has(nginx_, 0, 99999));
  EXPECT_EQ(httpd_->cache->pins().held(), 0U);
}

TEST_F(PartialTest, AnotherRepresentationReplacesThePart) {
  refuse_whole();
  part(nginx_, 0, 99999);
  tag_ = "\"b\"";
  part(nginx_, 100000, 199999);
  EXPECT_TRUE(has(httpd_, 100000, 199999));
  EXPECT_TRUE(part(httpd_, 0, 1).asked_origin);
}

TEST_F(PartialTest, NothingIsStoredWithoutThatRule) {
  policy_.set("partial off");
  refuse_whole();
  EXPECT_FALSE(part(nginx_, 0, 999).stored);
  EXPECT_TRUE(part(nginx_, 0, 999).asked_origin);
}

}  // namespace
}  // namespace mcs::api::testing
