// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/cache_control.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "libglobalcache/http/date.h"

namespace mcs::http {
namespace {

ResponseDirectives response(std::vector<std::string_view> lines) {
  std::vector<FieldView> fields;
  for (const std::string_view line : lines) fields.push_back({"Cache-Control", line});
  return parse_response_directives(fields);
}

RequestDirectives request(std::vector<FieldView> fields) {
  return parse_request_directives(fields);
}

// RFC 9111 5.2.2, 4.2.1
TEST(ResponseCacheControl, ReadsMaxAge) {
  const struct {
    std::string_view line;
    std::int64_t max_age;
    bool invalid;
  } cases[] = {
      {"max-age=3600", 3600, false},
      {"MaX-aGe=3600", 3600, false},
      {"foobar, max-age=3600", 3600, false},
      {"max-age=\"3600\"", 3600, false},
      {"max-age=003600", 3600, false},
      {"max-age=2147483649", kMaxDeltaSeconds, false},
      {"max-age=0", 0, false},
      {"extension=\"max-age=3600\", max-age=1", 1, false},
      {"max-age=1, extension=\"max-age=3600\"", 1, false},
      {"max-age=\"1\", extension=\"max-age=3600\"", 1, false},
      {"extension=\"max-age=3600\"", kAbsent, false},
      {"max-age=1800, max-age=1", 1800, false},  // the first counts
      {"max-age=1, max-age=1800", 1, false},
      {"max-age=x, max-age=1800", 0, true},
      {"max-age='3600'", 0, true},
      {"max-age=-3600", 0, true},
      {"max-age=3600.0", 0, true},
      {"max-age=3600.5", 0, true},
      {"max-age=a3600", 0, true},
      {"max-age=3600a", 0, true},
      {"max-age =3600", 0, true},
      {"max-age= 3600", 0, true},
      {"max-age", 0, true},
      {"max-age=", 0, true},
      {"max-age=\"3600", 0, true},
      {"max-age=\"3600\"x", 0, true},
      {"max-ages=3600", kAbsent, false},
      {"xmax-age=3600", kAbsent, false},
      {"", kAbsent, false},
  };
  for (const auto& c : cases) {
    const ResponseDirectives d = response({c.line});
    EXPECT_EQ(d.max_age, c.max_age) << c.line;
    EXPECT_EQ(d.invalid_freshness, c.invalid) << c.line;
  }
}

TEST(ResponseCacheControl, ReadsFlagsInAnyCaseAndPlace) {
  const ResponseDirectives d = response(
      {"Public, no-STORE ,must-revalidate", "proxy-revalidate;x, must-understand,IMMUTABLE=1",
       "s-maxage=5, stale-while-revalidate=9, stale-while-revalidate=7, stale-if-error=\"8\""});
  EXPECT_TRUE(d.is_public);
  EXPECT_TRUE(d.no_store);
  EXPECT_TRUE(d.must_revalidate);
  EXPECT_FALSE(d.proxy_revalidate);  // "proxy-revalidate;x" is another name
  EXPECT_TRUE(d.must_understand);
  EXPECT_TRUE(d.immutable);
  EXPECT_FALSE(d.is_private);
  EXPECT_FALSE(d.no_cache);
  EXPECT_EQ(d.s_maxage, 5);
  EXPECT_EQ(d.stale_while_revalidate, 7);
  EXPECT_EQ(d.stale_if_error, 8);
}

TEST(ResponseCacheControl, BrokenValuesStillRestrict) {
  EXPECT_TRUE(response({"no-store =1"}).no_store);
  EXPECT_TRUE(response({"no-store=\"x"}).no_store);
  EXPECT_TRUE(response({"x=\"y, no-store"}).no_store);
  EXPECT_TRUE(response({"foo\", no-store"}).no_store);
  EXPECT_TRUE(response({"private =\"a\""}).is_private);
  EXPECT_TRUE(response({"no-cache=\"a"}).no_cache);
  EXPECT_EQ(response({"stale-if-error=x"}).stale_if_error, kAbsent);
  EXPECT_FALSE(response({"no store"}).no_store);
  EXPECT_FALSE(response({"x=\"no-store\""}).no_store);
}

// RFC 9111 5.2.2.4, 5.2.2.7
TEST(ResponseCacheControl, ReadsFieldNames) {
  const ResponseDirectives d =
      response({"no-cache=\"a, B\", private=set-cookie", "no-cache=\"c\""});
  EXPECT_FALSE(d.no_cache);
  EXPECT_FALSE(d.is_private);
  EXPECT_TRUE(d.no_cache_fields.contains("A"));
  EXPECT_TRUE(d.no_cache_fields.contains("b"));
  EXPECT_TRUE(d.no_cache_fields.contains("c"));
  EXPECT_FALSE(d.no_cache_fields.contains("set-cookie"));
  EXPECT_TRUE(d.private_fields.contains("Set-Cookie"));

  EXPECT_TRUE(response({"no-cache=\"a\", no-cache"}).no_cache);
  EXPECT_TRUE(response({"no-cache=\"\""}).no_cache);
  EXPECT_TRUE(response({"private=\" \""}).is_private);
  EXPECT_TRUE(response({"private=\"a\",private=\"b\",private=\"c\",private=\"d\",private=\"e\""})
                  .is_private);
}

// RFC 9111 5.2.1, 5.4
TEST(RequestCacheControl, ReadsDirectives) {
  const RequestDirectives none = request({{"Accept", "*/*"}, {"Pragma", "foo"}});
  EXPECT_FALSE(none.any);
  const RequestDirectives d =
      request({{"cache-control", "no-store, MAX-AGE=10, max-age=5, min-fresh=1, min-fresh=3"},
               {"Cache-Control", "max-stale=7, max-stale, only-if-cached, stale-if-error=4"}});
  EXPECT_TRUE(d.any);
  EXPECT_TRUE(d.no_store);
  EXPECT_TRUE(d.only_if_cached);
  EXPECT_FALSE(d.no_cache);
  EXPECT_EQ(d.max_age, 5);
  EXPECT_EQ(d.min_fresh, 3);
  EXPECT_EQ(d.max_stale, 7);
  EXPECT_EQ(d.stale_if_error, 4);
  EXPECT_EQ(request({{"Cache-Control", "max-stale"}}).max_stale, kMaxDeltaSeconds);
  EXPECT_EQ(request({{"Cache-Control", "max-stale=x"}}).max_stale, kAbsent);
  EXPECT_EQ(request({{"Cache-Control", "max-age=x"}}).max_age, 0);
  EXPECT_EQ(request({{"Cache-Control", "min-fresh=x"}}).min_fresh, kAbsent);
  EXPECT_FALSE(request({{"Cache-Control", "nothing-to-see-here"}}).any);
}

TEST(RequestPragma, CountsOnlyWithoutCacheControl) {
  EXPECT_TRUE(request({{"Pragma", "no-cache"}}).no_cache);
  EXPECT_TRUE(request({{"PRAGMA", "x, No-Cache"}}).no_cache);
  EXPECT_FALSE(request({{"Pragma", "no-cache"}, {"Cache-Control", "max-stale"}}).no_cache);
  EXPECT_FALSE(request({{"Cache-Control", "x"}, {"Pragma", "no-cache"}}).no_cache);
  EXPECT_FALSE(request({{"Pragma", "unrecognised-extension"}}).any);
}

// RFC 9213 2.1
TEST(TargetedField, IsADictionaryOrNothing) {
  const auto parse = [](std::vector<FieldView> fields, ResponseDirectives& d) {
    static std::string buffer;
    return parse_targeted_field(fields, "CDN-Cache-Control", buffer, d);
  };
  ResponseDirectives d;
  EXPECT_TRUE(parse({{"cdn-cache-control", "max-age=3600, foobar, s-maxage=2;x"}}, d));
  EXPECT_EQ(d.max_age, 3600);
  EXPECT_EQ(d.s_maxage, 2);
  EXPECT_TRUE(parse({{"CDN-Cache-Control", "max-age=1"}, {"CDN-Cache-Control", "no-store"}}, d));
  EXPECT_TRUE(d.no_store);
  EXPECT_TRUE(parse({{"CDN-Cache-Control", "max-age=1, max-age=5"}}, d));
  EXPECT_EQ(d.max_age, 5);  // dictionaries: the last
  EXPECT_TRUE(parse({{"CDN-Cache-Control", "max-age=99999999999"}}, d));
  EXPECT_EQ(d.max_age, kMaxDeltaSeconds);
  EXPECT_TRUE(parse({{"CDN-Cache-Control", "private=\"a, b\", no-cache=?0, no-store=?0"}}, d));
  EXPECT_FALSE(d.is_private);
  EXPECT_FALSE(d.no_cache);
  EXPECT_FALSE(d.no_store);
  EXPECT_TRUE(d.private_fields.contains("b"));
  EXPECT_TRUE(parse({{"CDN-Cache-Control", "private"}}, d));
  EXPECT_TRUE(d.is_private);
  EXPECT_TRUE(parse({{"CDN-Cache-Control", "foo"}}, d));

  for (const std::string_view broken :
       {"", " ", "max-age=10000, &&&&&", "max-age=\"10000\"", "max-age", "max-age=1.5",
        "max-age=-1", "no-store=1", "no-store=\"x\"", "MaX-aGe=3600", "max-age =100",
        "max-age= 100", "private=(a b)", "max-age=1,", "no-cache=5"}) {
    d = ResponseDirectives();
    EXPECT_FALSE(parse({{"CDN-Cache-Control", broken}}, d)) << broken;
    EXPECT_FALSE(d.has_freshness() || d.no_store || d.is_private) << broken;
  }
  EXPECT_FALSE(parse({{"Cache-Control", "max-age=1"}}, d));
}

}  // namespace
}  // namespace mcs::http
