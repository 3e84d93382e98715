// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/storability.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mcs::http {
namespace {

using List = std::vector<FieldView>;
using R = StoreReason;

constexpr std::int64_t kNow = 1780000000000;

Exchange exchange(int status, const List& response, const List& request = {},
                  Method method = Method::kGet) {
  Exchange e;
  e.method = method;
  e.uri = {"http", "h", "/a"};
  e.request = request;
  e.status = status;
  e.response = response;
  e.request_time_ms = kNow;
  e.response_time_ms = kNow;
  return e;
}

std::string text(const List& fields) {
  std::string result;
  for (const FieldView& field : fields) {
    result += field.name;
    result += ": ";
    result += field.value;
    result += "; ";
  }
  return result;
}

// RFC 9111 3
TEST(Store, NeedsSomethingThatMakesItCacheable) {
  const struct {
    int status;
    List response;
    R reason;
    bool hit_for_miss;
  } cases[] = {
      {200, {}, R::kNotFresh, true},
      {200, {{"Cache-Control", "max-age=60"}}, R::kStore, false},
      {200, {{"Cache-Control", "s-maxage=60"}}, R::kStore, false},
      {200, {{"Cache-Control", "max-age=0"}}, R::kNotFresh, true},
      {200, {{"Cache-Control", "max-age=0"}, {"ETag", "\"a\""}}, R::kStore, false},
      {200, {{"Cache-Control", "max-age=0, stale-while-revalidate=9"}}, R::kStore, false},
      {200,
       {{"Cache-Control", "max-age=0, stale-if-error=9, must-revalidate"}},
       R::kNotFresh,
       true},
      {200, {{"Cache-Control", "max-age=60"}, {"Age", "61"}}, R::kNotFresh, true},
      {200, {{"ETag", "\"a\""}}, R::kStore, false},
      {200, {{"Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT"}}, R::kStore, false},
      {200, {{"Expires", "Fri, 01 Jan 2038 00:00:00 GMT"}}, R::kStore, false},
      {200, {{"Expires", "0"}}, R::kNotFresh, true},
      {200, {{"Cache-Control", "no-cache"}}, R::kNotFresh, true},
      {200, {{"Cache-Control", "max-age=60, no-cache"}}, R::kNotFresh, true},
      {200, {{"Cache-Control", "max-age=60, no-cache"}, {"ETag", "\"a\""}}, R::kStore, false},
      {200, {{"Cache-Control", "max-age=60, no-cache=\"x\""}}, R::kStore, false},
      {201, {{"ETag", "\"a\""}}, R::kNotCacheable, true},
      {201, {{"Cache-Control", "max-age=60"}}, R::kStore, false},
      {302, {{"Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT"}}, R::kNotCacheable, true},
      {404, {{"Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT"}}, R::kStore, false},
      {404, {}, R::kNotFresh, true},
      {500, {}, R::kNotCacheable, false},
      {503, {{"Cache-Control", "max-age=60"}}, R::kStore, false},
      {299, {{"Cache-Control", "max-age=60"}}, R::kStore, false},
      {499, {{"Cache-Control", "max-age=60"}}, R::kStore, false},
      {599, {{"Cache-Control", "max-age=60"}}, R::kStore, false},
      {599, {{"ETag", "\"a\""}, {"Cache-Control", "public"}}, R::kStore, false},
      {100, {{"Cache-Control", "max-age=60"}}, R::kStatus, false},
      {103, {{"Cache-Control", "max-age=60"}}, R::kStatus, false},
      {304, {{"Cache-Control", "max-age=60"}}, R::kStatus, false},
      {407, {{"Cache-Control", "max-age=60"}}, R::kStatus, false},
      {412, {{"Cache-Control", "max-age=60"}}, R::kStatus, false},
      {416, {{"Cache-Control", "max-age=60"}}, R::kStatus, false},
      {600, {{"Cache-Control", "max-age=60"}}, R::kStatus, false},
  };
  for (const auto& c : cases) {
    const StoreDecision d = decide_store(CachePolicy(), exchange(c.status, c.response));
    EXPECT_EQ(d.reason, c.reason) << c.status << " " << text(c.response);
    EXPECT_EQ(d.hit_for_miss, c.hit_for_miss) << c.status << " " << text(c.response);
    if (d.store()) {
      EXPECT_EQ(d.meta.status, c.status);
    }
  }
}

// RFC 9111 5.2.2
TEST(Store, ObeysResponseDirectives) {
  const struct {
    int status;
    std::string_view cache_control;
    R reason;
  } cases[] = {
      {200, "max-age=60, no-store", R::kNoStore},
      {200, "max-age=60, No-StOrE", R::kNoStore},
      {200, "max-age=60, private", R::kPrivate},
      {200, "max-age=60, private=\"x\"", R::kStore},
      {200, "max-age=60, no-store, must-understand", R::kStore},
      {599, "max-age=60, no-store, must-understand", R::kMustUnderstand},
      {599, "max-age=60, must-understand", R::kMustUnderstand},
      {503, "max-age=60, must-understand", R::kStore},
      {200, "max-age=60, private, must-understand", R::kPrivate},
      {200, "max-age=60, foo", R::kStore},
  };
  for (const auto& c : cases) {
    const List response = {{"Cache-Control", c.cache_control}};
    EXPECT_EQ(decide_store(CachePolicy(), exchange(c.status, response)).reason, c.reason)
        << c.status << " " << c.cache_control;
  }
  CachePolicy disobedient;
  disobedient.store_private = disobedient.store_no_store = true;
  const List response = {{"Cache-Control", "max-age=60, private, no-store"}};
  EXPECT_TRUE(decide_store(disobedient, exchange(200, response)).store());
  CachePolicy ignoring;
  ignoring.ignored = kIgnoreCacheControl;
  ignoring.valid = {{200, 5}};
  EXPECT_TRUE(decide_store(ignoring, exchange(200, response)).store());
}

// RFC 9213 2.2
TEST(Store, PrefersTargetedFields) {
  const struct {
    List response;
    R reason;
  } cases[] = {
      {{{"Cache-Control", "no-store"}, {"CDN-Cache-Control", "max-age=60"}}, R::kStore},
      {{{"Cache-Control", "max-age=60"}, {"CDN-Cache-Control", "no-store"}}, R::kNoStore},
      {{{"Cache-Control", "max-age=60"}, {"CDN-Cache-Control", "private"}}, R::kPrivate},
      {{{"Cache-Control", "max-age=60"}, {"CDN-Cache-Control", "no-cache"}}, R::kNotFresh},
      {{{"Cache-Control", "no-store"}, {"CDN-Cache-Control", "max-age=10000, &&&&&"}}, R::kNoStore},
      {{{"Cache-Control", "no-store"}, {"CDN-Cache-Control", "max-age=\"10000\""}}, R::kNoStore},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(decide_store(CachePolicy(), exchange(200, c.response)).reason, c.reason)
        << text(c.response);
  }
}

// RFC 9111 3.5, 5.2.1.5
TEST(Store, ObeysTheRequest) {
  const struct {
    List request;
    std::string_view cache_control;
    R reason;
  } cases[] = {
      {{{"Authorization", "x"}}, "max-age=60", R::kAuthorization},
      {{{"Authorization", "x"}}, "max-age=60, public", R::kStore},
      {{{"Authorization", "x"}}, "max-age=60, must-revalidate", R::kStore},
      {{{"Authorization", "x"}}, "s-maxage=60", R::kStore},
      {{{"Authorization", "x"}}, "max-age=60, proxy-revalidate", R::kAuthorization},
      {{{"Cookie", "a=b"}}, "max-age=60", R::kStore},
      {{{"Cache-Control", "no-store"}}, "max-age=60", R::kRequestNoStore},
      {{{"Cache-Control", "no-cache"}}, "max-age=60", R::kStore},
      {{{"Cache-Control", "no-store"}}, "max-age=60, private", R::kPrivate},
      {{{"X-Forwarded-Host", "evil"}}, "max-age=60", R::kMessage},
      {{{"Content-Length", "1"}}, "max-age=60", R::kMessage},
  };
  for (const auto& c : cases) {
    const List response = {{"Cache-Control", c.cache_control}};
    const StoreDecision d = decide_store(CachePolicy(), exchange(200, response, c.request));
    EXPECT_EQ(d.reason, c.reason) << text(c.request) << c.cache_control;
    if (c.reason != R::kPrivate) {
      EXPECT_FALSE(d.hit_for_miss) << text(c.request);
    }
  }
  CachePolicy deaf;
  deaf.ignore_cache_control = true;
  const List response = {{"Cache-Control", "max-age=60"}};
  const List request = {{"Cache-Control", "no-store"}};
  EXPECT_TRUE(decide_store(deaf, exchange(200, response, request)).store());
}

TEST(Store, KnowsVaryAndSetCookie) {
  const auto reason = [](const List& response, CachePolicy policy = {}) {
    return decide_store(policy, exchange(200, response)).reason;
  };
  const FieldView fresh{"Cache-Control", "max-age=60"};
  const FieldView modified{"Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT"};
  const FieldView cookie{"Set-Cookie", "a=b"};
  EXPECT_EQ(reason({fresh, {"Vary", "Foo"}}), R::kStore);
  EXPECT_EQ(reason({fresh, {"Vary", "*"}}), R::kVary);
  EXPECT_EQ(reason({fresh, {"Vary", ""}, {"Vary", "a, *"}}), R::kVary);
  EXPECT_EQ(reason({fresh, {"Vary", "a b"}}), R::kVary);
  CachePolicy policy;
  policy.ignored = kIgnoreVary;
  EXPECT_EQ(reason({fresh, {"Vary", "*"}}, policy), R::kStore);

  EXPECT_EQ(reason({fresh, cookie}), R::kStore);
  EXPECT_EQ(reason({modified, cookie}), R::kSetCookie);
  EXPECT_EQ(reason({modified, cookie, {"Cache-Control", "public"}}), R::kStore);
  policy = CachePolicy();
  policy.set_cookie = SetCookieRule::kNever;
  EXPECT_EQ(reason({fresh, cookie}, policy), R::kSetCookie);
  policy.set_cookie = SetCookieRule::kAlways;
  EXPECT_EQ(reason({modified, cookie}, policy), R::kStore);
  policy.set_cookie = SetCookieRule::kStrip;
  EXPECT_EQ(reason({modified, cookie}, policy), R::kStore);
  policy.set_cookie = SetCookieRule::kNever;
  policy.ignored = kIgnoreSetCookie;
  EXPECT_EQ(reason({fresh, cookie}, policy), R::kStore);
}

TEST(Store, ConfiguredTimesMakeStatusesCacheable) {
  CachePolicy policy;
  policy.valid = {{302, 60}, {404, 0}};
  policy.negative = 5;
  EXPECT_TRUE(decide_store(policy, exchange(302, {})).store());
  EXPECT_TRUE(decide_store(policy, exchange(503, {})).store());
  EXPECT_FALSE(decide_store(policy, exchange(404, {})).store());
  EXPECT_FALSE(decide_store(policy, exchange(200, {})).store());
  EXPECT_NE(decide_store(policy, exchange(302, {})).meta.flags & kMetaConfigured, 0u);
  policy.enabled = false;
  EXPECT_EQ(decide_store(policy, exchange(302, {})).reason, R::kDisabled);
}

TEST(Store, LimitsSizes) {
  CachePolicy policy;
  policy.min_object = 10;
  policy.max_object = 20;
  const auto reason = [&](std::string_view length) {
    const List response = {{"Cache-Control", "max-age=60"}, {"Content-Length", length}};
    return decide_store(policy, exchange(200, response)).reason;
  };
  EXPECT_EQ(reason("9"), R::kSize);
  EXPECT_EQ(reason("10"), R::kStore);
  EXPECT_EQ(reason("20"), R::kStore);
  EXPECT_EQ(reason("21"), R::kSize);
  const List unknown = {{"Cache-Control", "max-age=60"}};
  EXPECT_TRUE(decide_store(policy, exchange(200, unknown)).store());
}

// RFC 9112 6.3, RFC 9110 5.5
TEST(Store, RefusesAmbiguousMessages) {
  const List conflicting = {
      {"Cache-Control", "max-age=60"}, {"Content-Length", "5"}, {"Content-Length", "6"}};
  const StoreDecision d = decide_store(CachePolicy(), exchange(200, conflicting));
  EXPECT_EQ(d.reason, R::kMessage);
  EXPECT_EQ(d.flaw, MessageFlaw::kConflictingLength);
  EXPECT_TRUE(d.hit_for_miss);
}

// RFC 9111 3.3
TEST(Store, PartialResponsesNeedAStrongValidator) {
  const FieldView fresh{"Cache-Control", "max-age=60"};
  const FieldView etag{"ETag", "\"a\""};
  const FieldView range{"Content-Range", "bytes 0-4/10"};
  const struct {
    List response;
    bool range_sent;
    R reason;
  } cases[] = {
      {{fresh, etag, range}, true, R::kStore},
      {{fresh, etag, range, {"Content-Length", "5"}}, true, R::kStore},
      {{fresh, etag, range, {"Content-Length", "6"}}, true, R::kPartial},
      {{fresh, etag, range}, false, R::kPartial},
      {{fresh, range}, true, R::kPartial},
      {{fresh, {"ETag", "W/\"a\""}, range}, true, R::kPartial},
      {{fresh, {"ETag", "a"}, range}, true, R::kPartial},
      {{fresh, etag}, true, R::kPartial},
      {{fresh, etag, {"Content-Range", "bytes 0-4/*"}}, true, R::kPartial},
      {{fresh, etag, {"Content-Range", "bytes */10"}}, true, R::kPartial},
      {{fresh, etag, {"Content-Range", "items 0-4/10"}}, true, R::kPartial},
      {{fresh, etag, {"Content-Type", "multipart/byteranges; boundary=x"}}, true, R::kPartial},
  };
  for (const auto& c : cases) {
    Exchange e = exchange(206, c.response);
    e.range_sent = c.range_sent;
    EXPECT_EQ(decide_store(CachePolicy(), e).reason, c.reason) << text(c.response);
    CachePolicy none;
    none.partial = false;
    EXPECT_EQ(decide_store(none, e).reason, R::kPartial);
  }
  // A Content-Range outside of 206 means nothing.
  const List whole = {fresh, {"Content-Range", "garbage"}};
  EXPECT_TRUE(decide_store(CachePolicy(), exchange(200, whole)).store());
}

// RFC 9110 9.3.3, 9.3.2
TEST(Store, MethodsOtherThanGet) {
  const FieldView fresh{"Cache-Control", "max-age=60"};
  const auto decide = [&](Method method, const List& response, CachePolicy policy = {}) {
    return decide_store(policy, exchange(200, response, {}, method));
  };
  EXPECT_EQ(decide(Method::kHead, {fresh}).reason, R::kMethod);
  EXPECT_EQ(decide(Method::kPut, {fresh}).reason, R::kMethod);
  EXPECT_EQ(decide(Method::kOptions, {fresh}).reason, R::kMethod);
  EXPECT_EQ(decide(Method::kPost, {fresh}).reason, R::kMethod);
  EXPECT_TRUE(decide(Method::kPost, {fresh, {"Content-Location", "/a"}}).as_get);
  EXPECT_TRUE(decide(Method::kPost, {fresh, {"Content-Location", "/a"}}).store());
  EXPECT_TRUE(decide(Method::kPost, {fresh, {"Content-Location", "http://H:80/%61"}}).store());
  EXPECT_EQ(decide(Method::kPost, {fresh, {"Content-Location", "/b"}}).reason, R::kMethod);
  EXPECT_EQ(decide(Method::kPost, {{"ETag", "\"x\""}, {"Content-Location", "/a"}}).reason,
            R::kMethod);
  CachePolicy policy;
  policy.post_content_location = false;
  EXPECT_EQ(decide(Method::kPost, {fresh, {"Content-Location", "/a"}}, policy).reason, R::kMethod);
  policy.cache_post = true;
  EXPECT_TRUE(decide(Method::kPost, {fresh}, policy).store());
  EXPECT_FALSE(decide(Method::kPost, {fresh}, policy).as_get);
  EXPECT_FALSE(decide(Method::kPost, {{"ETag", "\"x\""}}, policy).store());
}

TEST(StoreReason, HasAName) {
  for (int reason = 1; reason <= static_cast<int>(R::kSize); ++reason) {
    EXPECT_FALSE(describe(static_cast<R>(reason)).empty()) << reason;
  }
}

}  // namespace
}  // namespace mcs::http
