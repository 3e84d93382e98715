// SPDX-License-Identifier: Apache-2.0
// Whole exchanges through a toy cache: what a client and an origin see when all rules work
// together. The cases cover what public conformance suites for HTTP caches ask of shared caches.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libglobalcache/http/date.h"
#include "tests/libglobalcache/http/toy_cache.h"

namespace mcs::http::testing {
namespace {

constexpr std::int64_t kStart = 1780000000250;

enum class Seen : std::uint8_t {
  kAny,
  kCached,         // the origin was not asked
  kNotCached,      // the origin was asked, and its answer came back
  kEtagValidated,  // the origin was asked with If-None-Match
  kDateValidated,  // the origin was asked with If-Modified-Since
  kNotReached,     // the origin broke off, and the client got an error
};

// One request of the client, and how the origin would answer it. In field values "@-60" stands for
// the date 60 s before the origin (or for requests: the first request) is asked.
struct Step {
  OwnedFields request = {};
  OwnedFields response = {};
  Seen seen = Seen::kAny;
  std::int64_t wait_s = 0;  // after the step
  std::string method = "GET";
  std::string target = "/a";
  int status = 200;
  int expect_status = 0;  // 0: the origin's
  OwnedFields expect = {};
  std::vector<std::string> missing = {};
  std::string body = "0123456789A";
  std::optional<std::string> expect_body = std::nullopt;
  bool disconnect = false;
};

struct Case {
  std::string_view name;
  std::vector<Step> steps;
};

std::string with_dates(const std::string& value, std::int64_t now_ms) {
  if (value.empty() || value[0] != '@') return value;
  const auto text = format_http_date(now_ms + std::stoll(value.substr(1)) * 1000);
  return {text.data(), text.size()};
}

OwnedFields with_dates(OwnedFields fields, std::int64_t now_ms) {
  for (auto& [name, value] : fields) value = with_dates(value, now_ms);
  return fields;
}

void run(const Case& c, const CachePolicy& policy = {}) {
  SCOPED_TRACE(c.name);
  std::int64_t now = kStart;
  const Step* step = nullptr;
  std::optional<Request> at_origin;
  ToyCache cache(policy, [&](const Request& request) -> std::optional<Response> {
    at_origin = request;
    if (step->disconnect) return std::nullopt;
    Response response{step->status, with_dates(step->response, now), step->body};
    const auto conditional = joined(request.fields, "if-none-match");
    const auto since = joined(request.fields, "if-modified-since");
    if ((conditional && step->seen == Seen::kEtagValidated) ||
        (since && step->seen == Seen::kDateValidated)) {
      response.status = 304;
      response.body.clear();
    }
    return response;
  });
  for (std::size_t i = 0; i < c.steps.size(); ++i) {
    step = &c.steps[i];
    SCOPED_TRACE("step " + std::to_string(i + 1));
    at_origin.reset();
    Request request{step->method, step->target, with_dates(step->request, kStart)};
    request.fields.emplace_back("Host", "h");
    const Answer answer = cache.handle(request, now);
    switch (step->seen) {
      case Seen::kAny:
        break;
      case Seen::kCached:
        EXPECT_FALSE(at_origin) << answer.cache_status;
        break;
      case Seen::kNotCached:
        EXPECT_TRUE(at_origin) << answer.cache_status;
        break;
      case Seen::kEtagValidated:
        EXPECT_TRUE(at_origin && joined(at_origin->fields, "if-none-match"));
        break;
      case Seen::kDateValidated:
        EXPECT_TRUE(at_origin && joined(at_origin->fields, "if-modified-since"));
        break;
      case Seen::kNotReached:
        EXPECT_TRUE(at_origin);
        EXPECT_GE(answer.response.status, 500);
        break;
    }
    if (step->expect_status != 0) {
      EXPECT_EQ(answer.response.status, step->expect_status) << answer.cache_status;
    } else if (step->seen != Seen::kNotReached) {
      EXPECT_EQ(answer.response.status, step->status) << answer.cache_status;
    }
    if (step->expect_body) {
      EXPECT_EQ(answer.response.body, *step->expect_body);
    }
    for (const auto& [name, value] : step->expect) {
      EXPECT_EQ(joined(answer.response.fields, name).value_or("-"), with_dates(value, kStart))
          << name;
    }
    for (const std::string& name : step->missing) {
      EXPECT_FALSE(joined(answer.response.fields, name)) << name;
    }
    now += step->wait_s * 1000;
  }
}

std::string_view name_of(const OwnedFields& fields) {
  return fields.empty() ? "no field" : std::string_view(fields[0].second);
}

// The usual shape: a response, a pause, and whether the second request is answered from the cache.
void expect_second(std::string_view name, OwnedFields response, Seen seen, int status = 200,
                   std::int64_t wait_s = 3) {
  Step first;
  first.response = response;
  first.wait_s = wait_s;
  first.status = status;
  Step second = first;
  second.seen = seen;
  run({name, {first, second}});
}

TEST(Exchanges, CacheControlFreshness) {
  const struct {
    OwnedFields response;
    Seen seen;
  } cases[] = {
      {{}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=3600"}}, Seen::kCached},
      {{{"Cache-Control", "max-age=2"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=0"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=2147483648"}}, Seen::kCached},
      {{{"Cache-Control", "max-age=99999999999"}}, Seen::kCached},
      {{{"Date", "@0"}, {"Cache-Control", "max-age=3600"}, {"Age", "7200"}}, Seen::kNotCached},
      {{{"Date", "@-7200"}, {"Cache-Control", "max-age=3600"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=3600"}, {"Expires", "@-7200"}, {"Date", "@0"}}, Seen::kCached},
      {{{"Cache-Control", "max-age=3600"}, {"Expires", "0"}, {"Date", "@0"}}, Seen::kCached},
      {{{"Expires", "@3600"}, {"Cache-Control", "max-age=0"}, {"Date", "@0"}}, Seen::kNotCached},
      {{{"Cache-Control", "foobar, max-age=3600"}}, Seen::kCached},
      {{{"Cache-Control", "MaX-aGe=3600"}}, Seen::kCached},
      {{{"Cache-Control", "max-age=-3600"}}, Seen::kNotCached},
      {{{"Cache-Control", "s-maxage=3600"}}, Seen::kCached},
      {{{"Cache-Control", "max-age=3600, s-maxage=1"}}, Seen::kNotCached},
      {{{"Cache-Control", "s-maxage=1, max-age=3600"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=3600"}, {"Cache-Control", "s-maxage=1"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=1, s-maxage=3600"}}, Seen::kCached},
      {{{"Expires", "@-10"}, {"Cache-Control", "max-age=0, s-maxage=3600"}}, Seen::kCached},
      {{{"Cache-Control", "max-age=\"3600\""}}, Seen::kCached},
      {{{"Cache-Control", "max-age='3600'"}}, Seen::kNotCached},
      {{{"Cache-Control", "extension=\"max-age=3600\", max-age=1"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=1, extension=\"max-age=3600\""}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=003600"}}, Seen::kCached},
      {{{"Cache-Control", "max-age=3600.5"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age =3600"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age= 3600"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=1800, max-age=1"}}, Seen::kCached},
      {{{"Cache-Control", "max-age=1"}, {"Cache-Control", "max-age=1800"}}, Seen::kNotCached},
  };
  for (const auto& c : cases) expect_second(name_of(c.response), c.response, c.seen);
}

TEST(Exchanges, Age) {
  const struct {
    std::vector<std::string> ages;
    Seen seen;
  } cases[] = {
      {{"abc"}, Seen::kCached},           {{"-7200"}, Seen::kCached},
      {{"7200.0"}, Seen::kCached},        {{"2147483647"}, Seen::kNotCached},
      {{"2147483649"}, Seen::kNotCached}, {{"7200, 0"}, Seen::kNotCached},
      {{"0, 7200"}, Seen::kCached},       {{"7200", "0"}, Seen::kNotCached},
      {{"0", "7200"}, Seen::kCached},     {{"0, 0"}, Seen::kCached},
      {{"0", "0"}, Seen::kCached},        {{"3000", "3000"}, Seen::kCached},
  };
  for (const auto& c : cases) {
    OwnedFields response = {{"Date", "@0"}, {"Cache-Control", "max-age=3600"}};
    for (const std::string& age : c.ages) response.emplace_back("Age", age);
    expect_second(c.ages[0], response, c.seen);
  }
}

TEST(Exchanges, Expires) {
  const struct {
    OwnedFields response;
    Seen seen;
  } cases[] = {
      {{{"Expires", "@2592000"}, {"Date", "@0"}}, Seen::kCached},
      {{{"Expires", "@-2592000"}, {"Date", "@0"}}, Seen::kNotCached},
      {{{"Expires", "@0"}, {"Date", "@0"}}, Seen::kNotCached},
      {{{"Expires", "@300"}, {"Date", "@400"}}, Seen::kNotCached},
      {{{"Expires", "0"}, {"Date", "@0"}}, Seen::kNotCached},
      {{{"Expires", "@10"}, {"Date", "foo"}}, Seen::kCached},
      {{{"Expires", "@10"}, {"Date", "@-10"}, {"Age", "25"}}, Seen::kNotCached},
      {{{"Expires", "@20"}, {"Date", "@10"}, {"Age", "15"}}, Seen::kNotCached},
      {{{"Expires", "Tue, 19 Jan 2038 14:14:08 GMT"}, {"Date", "@0"}}, Seen::kCached},
      {{{"Expires", "Sun, 21 Nov 2286 04:46:39 GMT"}, {"Date", "@0"}}, Seen::kCached},
      {{{"Expires", "Thursday, 18-Aug-50 02:01:18 GMT"}, {"Date", "@0"}}, Seen::kCached},
      {{{"Expires", "Thu Aug  8 02:01:18 2050"}, {"Date", "@0"}}, Seen::kCached},
      {{{"Expires", "THU, 18 AUG 2050 02:01:18 gMT"}, {"Date", "@0"}}, Seen::kCached},
      {{{"Expires", "Thu, 18 Aug 2050 02:01:18 UTC"}, {"Date", "@0"}}, Seen::kNotCached},
      {{{"Expires", "Thu, 18 Aug 2050 02:01:18 AEST"}, {"Date", "@0"}}, Seen::kNotCached},
      {{{"Expires", "Thu, 18 Aug 50 02:01:18 GMT"}, {"Date", "@0"}}, Seen::kNotCached},
      {{{"Expires", "Thu 18 Aug 2050 02:01:18 GMT"}, {"Date", "@0"}}, Seen::kNotCached},
      {{{"Expires", "Thu, 18  Aug  2050 02:01:18 GMT"}, {"Date", "@0"}}, Seen::kNotCached},
      {{{"Expires", "Thu, 18-Aug-2050 02:01:18 GMT"}, {"Date", "@0"}}, Seen::kNotCached},
      {{{"Expires", "Thu, 18 Aug 2050 02.01.18 GMT"}, {"Date", "@0"}}, Seen::kNotCached},
      {{{"Expires", "Thu, 18 Aug 2050 2:01:18 GMT"}, {"Date", "@0"}}, Seen::kNotCached},
      {{{"Expires", "Thu, 18 Aug 2050 02:01:18 GMT"}, {"Expires", "Thu, 18 Aug 2050 02:01:19 GMT"}},
       Seen::kNotCached},
  };
  for (const auto& c : cases) expect_second(name_of(c.response), c.response, c.seen, 200, 0);
}

TEST(Exchanges, StatusCodes) {
  for (const int status :
       {200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599}) {
    const std::string name = std::to_string(status);
    expect_second(name, {{"Cache-Control", "max-age=100000"}, {"Date", "@0"}}, Seen::kCached,
                  status);
    expect_second(name, {{"Expires", "@-5000"}, {"Last-Modified", "@-100000"}, {"Date", "@0"}},
                  Seen::kNotCached, status);
  }
  const OwnedFields modified = {{"Last-Modified", "@-86400"}, {"Date", "@0"}};
  OwnedFields is_public = modified;
  is_public.emplace_back("Cache-Control", "public");
  for (const int status : {200, 203, 204, 404, 405, 410, 414, 501}) {
    expect_second(std::to_string(status), modified, Seen::kCached, status);
  }
  for (const int status : {201, 202, 403, 502, 503, 504, 599}) {
    expect_second(std::to_string(status), modified, Seen::kNotCached, status);
    expect_second(std::to_string(status), is_public, Seen::kCached, status);
  }
  const OwnedFields understand = {{"Cache-Control", "max-age=3600, no-store, must-understand"}};
  expect_second("must-understand", understand, Seen::kNotCached, 599);
  expect_second("must-understand", understand, Seen::kCached, 200);
}

TEST(Exchanges, ResponseDirectives) {
  expect_second("private", {{"Cache-Control", "private, max-age=3600"}}, Seen::kNotCached);
  expect_second("no-store", {{"Cache-Control", "No-StOrE"}}, Seen::kNotCached);
  const OwnedFields expires = {{"Expires", "@10000"}, {"Date", "@0"}};
  for (const std::string directive : {"max-age=10000, no-store", "max-age=10000, No-CaChE"}) {
    OwnedFields response = expires;
    response.emplace_back("Cache-Control", directive);
    expect_second(directive, response, Seen::kNotCached);
  }
  expect_second("no-cache", {{"Cache-Control", "max-age=10000, no-cache"}, {"ETag", "\"a\""}},
                Seen::kEtagValidated);
  expect_second("must-revalidate", {{"Cache-Control", "max-age=9, must-revalidate"}},
                Seen::kCached);
  expect_second("must-revalidate",
                {{"Cache-Control", "max-age=2, must-revalidate"}, {"ETag", "\"a\""}},
                Seen::kEtagValidated);
  run({"no-cache with field names",
       {{.response = {{"Cache-Control", "no-cache=\"a, b\""},
                      {"A", "1"},
                      {"B", "2"},
                      {"C", "3"},
                      {"Cache-Control", "max-age=3600"}}},
        {.seen = Seen::kCached, .expect = {{"C", "3"}}, .missing = {"A", "B"}}}});
}

TEST(Exchanges, TargetedFields) {
  const struct {
    OwnedFields response;
    Seen seen;
  } cases[] = {
      {{{"CDN-Cache-Control", "max-age=3600"}}, Seen::kCached},
      {{{"CDN-Cache-Control", "max-age=99999999999"}}, Seen::kCached},
      {{{"CDN-Cache-Control", "max-age=3600"}, {"Age", "7200"}}, Seen::kNotCached},
      {{{"CDN-Cache-Control", "max-age =100"}, {"Cache-Control", "max-age=1"}}, Seen::kNotCached},
      {{{"CDN-Cache-Control", "max-age=0"}}, Seen::kNotCached},
      {{{"CDN-Cache-Control", "foobar, max-age=3600"}}, Seen::kCached},
      {{{"CDN-Cache-Control", "max-age=3600"}, {"Expires", "@-10000"}}, Seen::kCached},
      {{{"CDN-Cache-Control", "max-age=3600"}, {"Expires", "0"}}, Seen::kCached},
      {{{"CDN-Cache-Control", "max-age=0"}, {"Expires", "@10000"}}, Seen::kNotCached},
      {{{"CDN-Cache-Control", "max-age=3600"}, {"Cache-Control", "max-age=1"}}, Seen::kCached},
      {{{"CDN-Cache-Control", "max-age=1"}, {"Cache-Control", "max-age=3600"}}, Seen::kNotCached},
      {{{"CDN-Cache-Control", "private"}, {"Cache-Control", "max-age=10000"}}, Seen::kNotCached},
      {{{"CDN-Cache-Control", "no-cache"}, {"Cache-Control", "max-age=10000"}}, Seen::kNotCached},
      {{{"CDN-Cache-Control", "no-store"}, {"Cache-Control", "max-age=10000"}}, Seen::kNotCached},
      {{{"CDN-Cache-Control", "max-age=10000"}, {"Cache-Control", "no-store"}}, Seen::kCached},
      {{{"CDN-Cache-Control", "max-age=10000, &&&&&"}, {"Cache-Control", "no-store"}},
       Seen::kNotCached},
      {{{"CDN-Cache-Control", "max-age=\"10000\""}, {"Cache-Control", "no-store"}},
       Seen::kNotCached},
  };
  for (const auto& c : cases) expect_second(name_of(c.response), c.response, c.seen);
}

TEST(Exchanges, RequestDirectives) {
  const struct {
    OwnedFields response;
    OwnedFields request;
    Seen seen;
  } cases[] = {
      {{{"Expires", "@100000"}}, {{"Cache-Control", "max-age=0"}}, Seen::kNotCached},
      {{{"Expires", "@100000"}}, {{"Cache-Control", "max-age=1"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=3600"}, {"Age", "1800"}},
       {{"Cache-Control", "max-age=600"}},
       Seen::kNotCached},
      {{{"Cache-Control", "max-age=1"}, {"ETag", "\"a\""}},
       {{"Cache-Control", "max-stale=1000"}},
       Seen::kCached},
      {{{"Cache-Control", "max-age=1500"}},
       {{"Cache-Control", "min-fresh=2000"}},
       Seen::kNotCached},
      {{{"Cache-Control", "max-age=1500"}, {"Age", "1000"}},
       {{"Cache-Control", "min-fresh=1000"}},
       Seen::kNotCached},
      {{{"Cache-Control", "max-age=3600"}}, {{"Cache-Control", "no-cache"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=3600"}, {"Last-Modified", "@-10000"}},
       {{"Cache-Control", "no-cache"}},
       Seen::kDateValidated},
      {{{"Cache-Control", "max-age=3600"}, {"ETag", "unquoted"}},
       {{"Cache-Control", "no-cache"}},
       Seen::kEtagValidated},
      {{{"Cache-Control", "max-age=3600"}}, {{"Cache-Control", "no-store"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=3600"}}, {{"Pragma", "no-cache"}}, Seen::kNotCached},
      {{{"Cache-Control", "max-age=3600"}}, {{"Pragma", "unrecognised"}}, Seen::kCached},
      {{{"Cache-Control", "max-age=3600"}, {"Pragma", "no-cache"}}, {}, Seen::kCached},
      {{{"Last-Modified", "@-10000"}, {"Pragma", "no-cache"}}, {}, Seen::kCached},
      {{{"Cache-Control", "max-age=3600"}}, {{"Cookie", "a=b"}}, Seen::kCached},
      {{{"Cache-Control", "max-age=3600"}, {"Set-Cookie", "a=b"}}, {}, Seen::kCached},
  };
  for (const auto& c : cases) {
    run({name_of(c.request),
         {{.response = c.response, .wait_s = 3}, {.request = c.request, .seen = c.seen}}});
  }
  run({"only-if-cached",
       {{.request = {{"Cache-Control", "only-if-cached"}},
         .seen = Seen::kCached,
         .expect_status = 504}}});
}

TEST(Exchanges, ServingStale) {
  const struct {
    std::string cache_control;
    int status;  // 0: the origin breaks off
    Seen seen;
    int expect_status;
  } cases[] = {
      {"max-age=2, stale-if-error=60", 0, Seen::kAny, 200},
      {"max-age=2, stale-if-error=60", 503, Seen::kAny, 200},
      {"max-age=2, stale-if-error=60", 404, Seen::kNotCached, 404},
      {"max-age=2, must-revalidate", 0, Seen::kNotReached, 502},
      {"max-age=2, proxy-revalidate", 0, Seen::kNotReached, 502},
      {"max-age=2, no-cache", 0, Seen::kNotReached, 502},
      {"max-age=2, s-maxage=2", 0, Seen::kNotReached, 502},
      {"max-age=1, stale-while-revalidate=3600", 0, Seen::kCached, 200},
  };
  for (const auto& c : cases) {
    run({c.cache_control,
         {{.response = {{"Cache-Control", c.cache_control}, {"ETag", "\"a\""}}, .wait_s = 3},
          {.seen = c.seen,
           .status = c.status,
           .expect_status = c.expect_status,
           .disconnect = c.status == 0}}});
  }
  // The default policy serves stale for a broken connection, but not for a 503.
  run({"broken",
       {{.response = {{"Cache-Control", "max-age=2"}}, .wait_s = 3},
        {.expect_status = 200, .disconnect = true}}});
  run({"503",
       {{.response = {{"Cache-Control", "max-age=2"}}, .wait_s = 3},
        {.seen = Seen::kNotCached, .status = 503}}});
  run({"stale-while-revalidate ends",
       {{.response = {{"Cache-Control", "max-age=1, stale-while-revalidate=4"}, {"ETag", "\"a\""}},
         .wait_s = 3},
        {.seen = Seen::kCached, .wait_s = 3},
        {.seen = Seen::kEtagValidated}}});
}

TEST(Exchanges, Vary) {
  using F = OwnedFields;
  const struct {
    std::string vary;
    F first, second;
    Seen seen;
  } cases[] = {
      {"Foo", {{"Foo", "1"}}, {{"Foo", "1"}}, Seen::kCached},
      {"Foo", {{"Foo", "1"}}, {{"Foo", "2"}}, Seen::kNotCached},
      {"Foo", {}, {{"Foo", "1"}}, Seen::kNotCached},
      {"Foo", {{"Foo", "1"}}, {}, Seen::kNotCached},
      {"Foo", {{"Foo", "1"}, {"Other", "2"}}, {{"Foo", "1"}, {"Other", "3"}}, Seen::kCached},
      {"Foo, Bar", {{"Foo", "1"}, {"Bar", "a"}}, {{"Foo", "1"}, {"Bar", "a"}}, Seen::kCached},
      {"Foo, Bar", {{"Foo", "1"}, {"Bar", "a"}}, {{"Foo", "2"}, {"Bar", "a"}}, Seen::kNotCached},
      {"Foo, Bar, Baz", {{"Foo", "1"}, {"Baz", "7"}}, {{"Foo", "1"}, {"Baz", "7"}}, Seen::kCached},
      {"Foo, Bar, Baz",
       {{"Foo", "1"}, {"Bar", "abc4"}, {"Baz", "7"}},
       {{"Foo", "1"}, {"Baz", "7"}, {"Bar", "abc"}},
       Seen::kNotCached},
      {"*", {{"Foo", "1"}}, {{"Foo", "1"}}, Seen::kNotCached},
      {", *", {{"Foo", "1"}}, {{"Foo", "1"}}, Seen::kNotCached},
      {"*, Foo", {{"Foo", "1"}}, {{"Foo", "1"}}, Seen::kNotCached},
      {"Foo, *", {{"Foo", "1"}}, {{"Foo", "1"}}, Seen::kNotCached},
      {"Foo", {{"Foo", "1, 2"}}, {{"Foo", "1"}, {"Foo", "2"}}, Seen::kCached},
      {"Foo", {{"Foo", "1,2"}}, {{"Foo", " 1, 2 "}}, Seen::kCached},
      {"Accept-Language",
       {{"Accept-Language", "en, de"}},
       {{"Accept-Language", "De ,  eN"}},
       Seen::kCached},
      {"Accept-Language",
       {{"Accept-Language", "en, de"}},
       {{"Accept-Language", "fr;q=0.5, de;q=1.0"}},
       Seen::kCached},
  };
  for (const auto& c : cases) {
    const F response = {
        {"Cache-Control", "max-age=5000"}, {"Vary", c.vary}, {"Content-Language", "de"}};
    run({c.vary,
         {{.request = c.first, .response = response},
          {.request = c.second, .response = response, .seen = c.seen}}});
  }
  const F response = {{"Cache-Control", "max-age=5000"}, {"Vary", "Foo"}};
  run({"two variants",
       {{.request = {{"Foo", "1"}}, .response = response, .body = "one"},
        {.request = {{"Foo", "2"}}, .response = response, .seen = Seen::kNotCached, .body = "two"},
        {.request = {{"Foo", "1"}}, .seen = Seen::kCached, .expect_body = "one"},
        {.request = {{"Foo", "2"}}, .seen = Seen::kCached, .expect_body = "two"}}});
  run({"the selecting field goes to the origin on validation",
       {{.request = {{"Abc", "1"}},
         .response = {{"Expires", "@1"}, {"ETag", "\"a\""}, {"Vary", "Abc"}},
         .wait_s = 3},
        {.request = {{"Abc", "1"}}, .seen = Seen::kEtagValidated}}});
}

TEST(Exchanges, ConditionalRequests) {
  const OwnedFields tagged = {
      {"Cache-Control", "max-age=100000"}, {"ETag", "\"abcdef\""}, {"Last-Modified", "@-5000"}};
  const OwnedFields weak = {{"Cache-Control", "max-age=100000"}, {"ETag", "W/\"abcdef\""}};
  const OwnedFields dated = {{"Cache-Control", "max-age=100000"}, {"Last-Modified", "@-3000"}};
  const struct {
    OwnedFields response, request;
    int status;
  } cases[] = {
      {tagged, {{"If-None-Match", "\"abcdef\""}}, 304},
      {tagged, {{"If-None-Match", "\"1234\", \"abcdef\", \"5678\""}}, 304},
      {tagged, {{"If-None-Match", "\"1234\""}}, 200},
      {tagged, {{"If-None-Match", "\"abcdef\""}, {"If-Modified-Since", "@-1"}}, 304},
      {tagged, {{"If-None-Match", "\"x\""}, {"If-Modified-Since", "@-1"}}, 200},
      {weak, {{"If-None-Match", "W/\"abcdef\""}}, 304},
      {dated, {{"If-Modified-Since", "@-3000"}}, 304},
      {dated, {{"If-Modified-Since", "@-2000"}}, 304},
      {dated, {{"If-Modified-Since", "@-4000"}}, 200},
      {{{"Cache-Control", "max-age=100000"}}, {{"If-Modified-Since", "@5"}}, 304},
      {tagged, {{"If-Match", "\"x\""}}, 412},
  };
  for (const auto& c : cases) {
    run({name_of(c.request),
         {{.response = c.response, .wait_s = 1},
          {.request = c.request, .seen = Seen::kCached, .expect_status = c.status}}});
  }
  run({"304 carries the ETag",
       {{.response = tagged},
        {.request = {{"If-None-Match", "\"abcdef\""}},
         .expect_status = 304,
         .expect = {{"ETag", "\"abcdef\""}},
         .missing = {"Content-Type"},
         .expect_body = ""}}});
  run({"a stale response is validated, then the client's condition counts",
       {{.response = {{"Cache-Control", "max-age=2"}, {"Last-Modified", "@-3000"}}, .wait_s = 3},
        {.request = {{"If-Modified-Since", "@-3000"}},
         .seen = Seen::kDateValidated,
         .expect_status = 304}}});
  run({"the fill ignores the client's condition",
       {{.request = {{"If-None-Match", "\"abcdef\""}}, .response = tagged, .expect_status = 304},
        {.seen = Seen::kCached, .expect_body = "0123456789A"}}});
}

TEST(Exchanges, NotModifiedUpdates) {
  run({"fields of the 304 replace, others stay, the body stays",
       {{.response = {{"Cache-Control", "max-age=2"},
                      {"ETag", "\"a\""},
                      {"Kept", "1"},
                      {"Test", "old"},
                      {"Content-Encoding", "x"}},
         .wait_s = 3},
        {.response = {{"Cache-Control", "max-age=3600"},
                      {"ETag", "\"a\""},
                      {"Test", "new"},
                      {"Content-Encoding", "y"},
                      {"Content-Length", "99"}},
         .seen = Seen::kEtagValidated,
         .wait_s = 10,
         .expect = {{"Test", "new"}, {"Kept", "1"}, {"Content-Encoding", "x"}},
         .expect_body = "0123456789A"},
        {.seen = Seen::kCached,
         .expect = {
             {"Test", "new"}, {"Kept", "1"}, {"Cache-Control", "max-age=3600"}, {"Age", "10"}}}}});
  run({"a 304 for another representation is not used",
       {{.response = {{"Cache-Control", "max-age=2"}, {"ETag", "\"a\""}}, .wait_s = 3},
        {.response = {{"Cache-Control", "max-age=2"}, {"ETag", "\"b\""}},
         .seen = Seen::kNotCached,
         .body = "new",
         .expect_body = "new"}}});
}

TEST(Exchanges, Head) {
  const OwnedFields first = {{"Cache-Control", "max-age=2"}, {"Kept", "1"}, {"Test", "1"}};
  run({"a fresh GET answers HEAD",
       {{.response = {{"Cache-Control", "max-age=60"}}},
        {.seen = Seen::kCached, .method = "HEAD", .expect_body = ""}}});
  run({"HEAD freshens",
       {{.response = first, .wait_s = 3},
        {.response = {{"Test", "2"}, {"Cache-Control", "max-age=1000"}},
         .seen = Seen::kNotCached,
         .method = "HEAD"},
        {.seen = Seen::kCached, .expect = {{"Test", "2"}, {"Kept", "1"}}}}});
  run({"HEAD reveals a change",
       {{.response = {{"Cache-Control", "max-age=2"}, {"ETag", "\"a\""}}, .wait_s = 3},
        {.response = {{"ETag", "\"b\""}, {"Cache-Control", "max-age=99"}}, .method = "HEAD"},
        {.seen = Seen::kEtagValidated}}});
}

TEST(Exchanges, Invalidation) {
  const OwnedFields fresh = {{"Cache-Control", "max-age=100000"}};
  for (const std::string method : {"POST", "PUT", "DELETE", "M-SEARCH"}) {
    run({method, {{.response = fresh}, {.method = method}, {.seen = Seen::kNotCached}}});
    run({method,
         {{.response = fresh}, {.method = method, .status = 500}, {.seen = Seen::kCached}}});
    for (const std::string field : {"Location", "Content-Location"}) {
      run({method + " " + field,
           {{.response = fresh, .target = "/other"},
            {.response = {{field, "other"}}, .method = method},
            {.seen = Seen::kNotCached, .target = "/other"}}});
      run({method + " foreign " + field,
           {{.response = fresh, .target = "/other"},
            {.response = {{field, "http://x/other"}}, .method = method},
            {.seen = Seen::kCached, .target = "/other"}}});
    }
  }
  run({"a POST may fill GET",
       {{.response = {{"Expires", "@1000"}, {"Content-Location", "/a"}},
         .method = "POST",
         .body = "posted"},
        {.seen = Seen::kCached, .expect_body = "posted"}}});
}

TEST(Exchanges, Authorization) {
  const OwnedFields authorized = {{"Authorization", "x"}};
  const struct {
    std::string cache_control;
    Seen seen;
  } cases[] = {
      {"max-age=3600", Seen::kNotCached},
      {"max-age=3600, public", Seen::kCached},
      {"max-age=3600, must-revalidate", Seen::kCached},
      {"s-maxage=3600", Seen::kCached},
  };
  for (const auto& c : cases) {
    const OwnedFields response = {{"Cache-Control", c.cache_control}};
    run({c.cache_control,
         {{.request = authorized, .response = response}, {.response = response, .seen = c.seen}}});
  }
}

TEST(Exchanges, Ranges) {
  const OwnedFields fresh = {{"Cache-Control", "max-age=3600"}, {"A", "1"}, {"ETag", "\"a\""}};
  const struct {
    OwnedFields request;
    int status;
    std::string body;
  } cases[] = {
      {{{"Range", "bytes=0-1"}}, 206, "01"},
      {{{"Range", "bytes=1-"}}, 206, "123456789A"},
      {{{"Range", "bytes=-1"}}, 206, "A"},
      {{{"Range", "bytes=11-"}}, 416, ""},
      {{{"Range", "lines=1-"}}, 200, "0123456789A"},
      {{{"Range", "bytes=0-1"}, {"If-Range", "\"a\""}}, 206, "01"},
      {{{"Range", "bytes=0-1"}, {"If-Range", "\"b\""}}, 200, "0123456789A"},
      {{{"Range", "bytes=0-1"}, {"If-None-Match", "\"a\""}}, 304, ""},
  };
  for (const auto& c : cases) {
    run({c.request.back().second,
         {{.response = fresh},
          {.request = c.request,
           .seen = Seen::kCached,
           .expect_status = c.status,
           .expect_body = c.body}}});
    run({"on a miss: " + c.request.back().second,
         {{.request = c.request,
           .response = fresh,
           .expect_status = c.status,
           .expect_body = c.body},
          {.seen = Seen::kCached, .expect_body = "0123456789A"}}});
  }
}

TEST(Exchanges, AgeAndDateAreSentRight) {
  run({"Age",
       {{.response = {{"Expires", "@100000"}, {"Date", "@0"}}, .wait_s = 3},
        {.seen = Seen::kCached,
         .expect = {{"Age", "3"}, {"Date", "@0"}, {"Expires", "@100000"}}}}});
  run({"Age of a cache before us",
       {{.response = {{"Cache-Control", "max-age=600"}, {"Date", "@0"}, {"Age", "30"}},
         .wait_s = 3},
        {.seen = Seen::kCached, .expect = {{"Age", "33"}}}}});
}

TEST(Exchanges, KeysAndPoisoning) {
  const OwnedFields fresh = {{"Cache-Control", "max-age=3600"}};
  run({"queries differ",
       {{.response = fresh, .target = "/a?x=1"},
        {.seen = Seen::kNotCached, .target = "/a?x=2"},
        {.seen = Seen::kCached, .target = "/a?x=1"}}});
  run({"an unkeyed field that changes the response",
       {{.request = {{"X-Forwarded-Host", "evil"}}, .response = fresh},
        {.seen = Seen::kNotCached}}});
  run({"a GET with content",
       {{.request = {{"Content-Length", "5"}}, .response = fresh}, {.seen = Seen::kNotCached}}});
  run({"conflicting lengths",
       {{.response = {{"Cache-Control", "max-age=60"},
                      {"Content-Length", "1"},
                      {"Content-Length", "2"}}},
        {.seen = Seen::kNotCached}}});
  run({"absolute form",
       {{.response = fresh, .target = "http://h/a"}, {.seen = Seen::kCached, .target = "/a"}}});
  run({"a bad target",
       {{.response = fresh, .target = "/%zz"}, {.seen = Seen::kNotCached, .target = "/%zz"}}});
}

}  // namespace
}  // namespace mcs::http::testing
