// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace mcs::http {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Args = std::vector<std::string_view>;

// Sets one directive; "" or the error's message.
std::string set(CachePolicy& policy, std::string_view name, Args args) {
  const auto done = set_directive(policy, name, args);
  return done ? "" : done.error().message;
}

TEST(Times, AreReadLikeNginxDoes) {
  const struct {
    std::string_view text;
    std::optional<std::int64_t> ms;
  } cases[] = {
      {"0", 0},
      {"90", 90000},
      {"10s", 10000},
      {"10m", 600000},
      {"1h30m", 5400000},
      {"1d12h", 129600000},
      {"2w", 1209600000},
      {"1M", 2592000000},
      {"1y", 31536000000},
      {"500ms", 500},
      {"1s500ms", 1500},
      {"1m30", 90000},
      {"", std::nullopt},
      {"m", std::nullopt},
      {"10x", std::nullopt},
      {"-1", std::nullopt},
      {"1.5h", std::nullopt},
      {"30m1h", std::nullopt},
      {"1m1m", std::nullopt},
      {"10 m", std::nullopt},
      {"10M10M", std::nullopt},
      {"99999999999999999999", std::nullopt},
      {"1000y", std::nullopt},
  };
  for (const auto& c : cases) EXPECT_EQ(parse_time_ms(c.text), c.ms) << c.text;
}

TEST(Sizes, HaveUnits) {
  const struct {
    std::string_view text;
    std::optional<std::uint64_t> bytes;
  } cases[] = {
      {"0", 0},
      {"512", 512},
      {"10k", 10240},
      {"10K", 10240},
      {"10m", 10485760},
      {"1g", 1073741824},
      {"", std::nullopt},
      {"k", std::nullopt},
      {"1kb", std::nullopt},
      {"-1", std::nullopt},
      {"1.5m", std::nullopt},
      {"99999999999999999999g", std::nullopt},
      {"18446744073709551615g", std::nullopt},
  };
  for (const auto& c : cases) EXPECT_EQ(parse_size(c.text), c.bytes) << c.text;
}

TEST(Valid, AddsTimesPerStatus) {
  CachePolicy policy;
  EXPECT_EQ(set(policy, "valid", {"200", "302", "10m"}), "");
  EXPECT_EQ(set(policy, "valid", {"404", "1m"}), "");
  EXPECT_EQ(set(policy, "valid", {"404", "2m"}), "");
  EXPECT_EQ(set(policy, "valid", {"any", "5"}), "");
  EXPECT_EQ(configured_lifetime(policy, 200), 600);
  EXPECT_EQ(configured_lifetime(policy, 302), 600);
  EXPECT_EQ(configured_lifetime(policy, 404), 120);
  EXPECT_EQ(configured_lifetime(policy, 500), 5);

  CachePolicy short_form;
  EXPECT_EQ(set(short_form, "Valid", {"1h"}), "");
  for (const int status : {200, 301, 302}) EXPECT_EQ(configured_lifetime(short_form, status), 3600);
  EXPECT_EQ(configured_lifetime(short_form, 404), -1);
}

TEST(Negative, CoversErrorsUnlessListed) {
  CachePolicy policy;
  EXPECT_EQ(configured_lifetime(policy, 404), -1);
  EXPECT_EQ(set(policy, "negative", {"10s"}), "");
  EXPECT_EQ(configured_lifetime(policy, 404), 10);
  EXPECT_EQ(configured_lifetime(policy, 503), 10);
  for (const int status : {200, 301, 400, 403}) {
    EXPECT_EQ(configured_lifetime(policy, status), -1) << status;
  }
  EXPECT_EQ(set(policy, "valid", {"404", "1m"}), "");
  EXPECT_EQ(configured_lifetime(policy, 404), 60);
  EXPECT_EQ(set(policy, "Negative", {"20s", "410"}), "");
  EXPECT_EQ(configured_lifetime(policy, 503), -1);
  EXPECT_EQ(configured_lifetime(policy, 410), 20);
  EXPECT_EQ(set(policy, "negative", {"off"}), "");
  EXPECT_EQ(configured_lifetime(policy, 410), -1);
}

TEST(Directives, SetTheirMembers) {
  CachePolicy p;
  EXPECT_EQ(set(p, "enable", {"off"}), "");
  EXPECT_FALSE(p.enabled);
  EXPECT_EQ(set(p, "key_base", {"https example.org"}), "");
  EXPECT_EQ(p.key_base, "https example.org");
  EXPECT_EQ(set(p, "query", {"sort", "ignore", "utm_*"}), "");
  EXPECT_TRUE(p.query_sort);
  EXPECT_TRUE(is_ignored_parameter(p, "utm_x"));
  EXPECT_FALSE(is_ignored_parameter(p, "UTM_x"));
  EXPECT_EQ(set(p, "query", {"keep"}), "");
  EXPECT_FALSE(p.query_sort);
  EXPECT_EQ(set(p, "IgnoreQueryString", {"On"}), "");
  EXPECT_EQ(p.query, QueryRule::kIgnoreAll);
  EXPECT_EQ(set(p, "methods", {"GET", "POST"}), "");
  EXPECT_TRUE(p.cache_post);
  EXPECT_EQ(set(p, "min_uses", {"3"}), "");
  EXPECT_EQ(p.min_uses, 3u);
  EXPECT_EQ(set(p, "MaxFileSize", {"1g"}), "");
  EXPECT_EQ(p.max_object, 1073741824u);
  EXPECT_EQ(set(p, "DefaultExpire", {"3600"}), "");
  EXPECT_EQ(p.default_expire, 3600);
  EXPECT_EQ(set(p, "max_expire", {"1d"}), "");
  EXPECT_EQ(p.max_expire, 86400);
  EXPECT_EQ(set(p, "max_expire", {"off"}), "");
  EXPECT_EQ(p.max_expire, 0);
  EXPECT_EQ(set(p, "heuristic", {"2.5", "1h"}), "");
  EXPECT_EQ(p.heuristic_permille, 25u);
  EXPECT_EQ(p.heuristic_max, 3600);
  EXPECT_EQ(set(p, "LastModifiedFactor", {"0.5"}), "");
  EXPECT_EQ(p.heuristic_permille, 500u);
  EXPECT_EQ(set(p, "LastModifiedFactor", {"1"}), "");
  EXPECT_EQ(p.heuristic_permille, 1000u);
  EXPECT_EQ(set(p, "heuristic", {"off"}), "");
  EXPECT_EQ(p.heuristic_permille, 0u);
  EXPECT_EQ(set(p, "ignore_headers", {"Cache-Control", "expires", "X-Accel-Expires"}), "");
  EXPECT_EQ(p.ignored, kIgnoreCacheControl | kIgnoreExpires);
  EXPECT_EQ(set(p, "ignore_headers", {"none"}), "");
  EXPECT_EQ(p.ignored, 0u);
  EXPECT_EQ(set(p, "IgnoreHeaders", {"Set-Cookie", "X-Foo"}), "");
  EXPECT_THAT(p.stripped_fields, ElementsAre("set-cookie", "x-foo"));
  EXPECT_EQ(set(p, "IgnoreHeaders", {"None"}), "");
  EXPECT_TRUE(p.stripped_fields.empty());
  EXPECT_EQ(set(p, "set_cookie", {"strip"}), "");
  EXPECT_EQ(p.set_cookie, SetCookieRule::kStrip);
  EXPECT_EQ(set(p, "targeted", {"My-CC", "CDN-Cache-Control"}), "");
  EXPECT_THAT(p.targeted, ElementsAre("my-cc", "cdn-cache-control"));
  EXPECT_EQ(set(p, "targeted", {"off"}), "");
  EXPECT_TRUE(p.targeted.empty());
  EXPECT_EQ(set(p, "use_stale", {"error", "updating", "http_503"}), "");
  EXPECT_EQ(p.use_stale, kStaleOnError | kStaleOnUpdating | kStaleOn503);
  EXPECT_EQ(set(p, "StaleOnError", {"off"}), "");
  EXPECT_EQ(p.use_stale, kStaleOnUpdating);
  EXPECT_EQ(set(p, "use_stale", {"off"}), "");
  EXPECT_EQ(p.use_stale, 0u);
  EXPECT_EQ(set(p, "stale_while_revalidate", {"30s"}), "");
  EXPECT_EQ(p.stale_while_revalidate, 30);
  EXPECT_EQ(set(p, "lock_timeout", {"250ms"}), "");
  EXPECT_EQ(p.lock_timeout_ms, 250);
  EXPECT_EQ(set(p, "lock_busy", {"Pass"}), "");
  EXPECT_EQ(p.lock_busy, LockBusy::kPass);
  EXPECT_EQ(set(p, "query", {"Sort", "Ignore", "a"}), "");
  EXPECT_EQ(set(p, "query", {"keep"}), "");
  EXPECT_EQ(set(p, "lock_busy", {"503"}), "");
  EXPECT_EQ(p.lock_busy, LockBusy::k503);
  EXPECT_EQ(set(p, "status_header", {"edge 1"}), "");
  EXPECT_TRUE(p.send_cache_status);
  EXPECT_EQ(p.cache_status_name, "edge 1");
  EXPECT_EQ(set(p, "StatusHeader", {"off"}), "");
  EXPECT_FALSE(p.send_cache_status);
  EXPECT_EQ(set(p, "ignore_cache_control", {"on"}), "");
  EXPECT_TRUE(p.ignore_cache_control);
}

TEST(Directives, SayWhatIsWrongInOneLine) {
  const struct {
    std::string_view name;
    Args args;
    std::string_view message;
  } cases[] = {
      {"vallid", {"1m"}, "vallid: no such caching rule; docs/directives.md lists them"},
      {"valid", {}, "valid: wrong number of arguments (0); write: [status ...|any] time"},
      {"valid",
       {"200", "10x"},
       "valid: \"10x\" is no time; write seconds or units, such as 90, 10m or 1d12h"},
      {"Valid", {"99", "1m"}, "Valid: \"99\" is no status code; write one from 200 to 599"},
      {"valid", {"600", "1m"}, "\"600\" is no status code"},
      {"enable", {"yes"}, "enable: \"yes\" is neither on nor off; write one of them"},
      {"min_uses", {"x"}, "min_uses: \"x\" is no number from 0 to 1000000"},
      {"MaxFileSize", {"1t"}, "MaxFileSize: \"1t\" is no size; write bytes or units"},
      {"methods", {"PUT"}, "responses to PUT cannot be cached; choose from GET, HEAD and POST"},
      {"use_stale", {"errors"}, "\"errors\" is unknown; known are: off, error, timeout"},
      {"use_stale", {"off", "error"}, "\"off\" cannot stand together with others"},
      {"ignore_headers", {"Foo"}, "\"Foo\" is unknown; known are: none, Cache-Control"},
      {"IgnoreHeaders", {"Foo:"}, "\"Foo:\" is no field name"},
      {"query", {"drop"}, "\"drop\" is unknown; write keep, ignore [name ...] or sort"},
      {"set_cookie", {"maybe"}, "write explicit, never, always or strip"},
      {"heuristic", {"101"}, "\"101\" is no percentage from 0 to 100"},
      {"heuristic", {"100.1"}, "\"100.1\" is no percentage from 0 to 100"},
      {"LastModifiedFactor", {"2"}, "\"2\" is no factor from 0 to 1"},
      {"LastModifiedFactor", {""}, "\"\" is no factor from 0 to 1"},
      {"lock_busy", {"go"}, "write wait, pass or 503"},
      {"purge", {"localhost"}, "\"localhost\" is no address; write for example 127.0.0.1"},
      {"purge", {"10.0.0.0/33"}, "\"10.0.0.0/33\" needs a prefix length from 0 to 32"},
      {"key_base", {""}, "the key base is empty"},
      {"status_header", {"a\nb"}, "write on, off, or the name of this cache"},
  };
  for (const auto& c : cases) {
    CachePolicy policy;
    const std::string message = set(policy, c.name, c.args);
    EXPECT_THAT(message, HasSubstr(std::string(c.message))) << c.name;
    EXPECT_EQ(message.find('\n'), std::string::npos) << c.name;
    EXPECT_EQ(policy.set_rules, 0u) << c.name;
  }
}

TEST(Directives, AFailedOneChangesNothing) {
  CachePolicy policy;
  EXPECT_EQ(set(policy, "valid", {"404", "1m"}), "");
  EXPECT_NE(set(policy, "valid", {"200", "abc", "1m"}), "");
  EXPECT_EQ(policy.valid.size(), 1u);
  EXPECT_NE(set(policy, "heuristic", {"x", "1h"}), "");
  EXPECT_EQ(policy.heuristic_max, 86400);
}

TEST(Directives, AreListedOnce) {
  std::set<std::string_view> names;
  for (const DirectiveInfo& info : policy_directives()) {
    EXPECT_TRUE(names.insert(info.nginx_name).second) << info.nginx_name;
    EXPECT_TRUE(names.insert(info.httpd_name).second) << info.httpd_name;
    EXPECT_FALSE(info.syntax.empty());
    EXPECT_FALSE(info.help.empty());
    EXPECT_LE(info.min_args, info.max_args);
  }
  EXPECT_GE(names.size(), 72u);
}

TEST(Inherit, TakesWhatTheChildDidNotSet) {
  CachePolicy parent;
  EXPECT_EQ(set(parent, "valid", {"404", "1m"}), "");
  EXPECT_EQ(set(parent, "key_base", {"p"}), "");
  EXPECT_EQ(set(parent, "use_stale", {"updating"}), "");
  EXPECT_EQ(set(parent, "query", {"sort"}), "");
  CachePolicy child;
  EXPECT_EQ(set(child, "valid", {"200", "1h"}), "");
  EXPECT_EQ(set(child, "StaleOnError", {"on"}), "");
  inherit_policy(child, parent);
  EXPECT_EQ(child.key_base, "p");
  EXPECT_TRUE(child.query_sort);
  EXPECT_EQ(configured_lifetime(child, 404), -1);
  EXPECT_EQ(configured_lifetime(child, 200), 3600);
  EXPECT_EQ(child.use_stale & kStaleOnUpdating, 0u);  // the child spoke of use_stale itself
  EXPECT_NE(child.use_stale & kStaleOn503, 0u);

  CachePolicy grandchild;
  inherit_policy(grandchild, child);
  EXPECT_EQ(grandchild.key_base, "p");
  EXPECT_EQ(configured_lifetime(grandchild, 200), 3600);
}

TEST(Site, IsToldApartWhenAShareIsGivenOrTakenBack) {
  CachePolicy policy;
  EXPECT_EQ(site_name(policy), "");
  EXPECT_EQ(set(policy, "key_base", {"shop"}), "");
  EXPECT_EQ(site_name(policy), "");
  CachePolicy with = policy;
  EXPECT_EQ(set(with, "reserve", {"50%"}), "");
  EXPECT_EQ(site_name(with), "shop");
  // Whoever stores then notes that there is none any more.
  for (const char* directive : {"reserve", "quota"}) {
    CachePolicy off = policy;
    EXPECT_EQ(set(off, directive, {directive[0] == 'q' ? "Off" : "off"}), "");
    EXPECT_EQ(site_name(off), "shop") << directive;
  }
}

TEST(Purge, IsLimitedToAddresses) {
  CachePolicy policy;
  EXPECT_FALSE(purge_allowed(policy, "127.0.0.1"));
  EXPECT_EQ(set(policy, "purge", {"127.0.0.1", "10.1.0.0/15", "2001:db8::/33"}), "");
  const struct {
    std::string_view address;
    bool allowed;
  } cases[] = {
      {"127.0.0.1", true},
      {"127.0.0.2", false},
      {"10.0.255.255", true},
      {"10.1.2.3", true},
      {"10.2.0.0", false},
      {"2001:db8::1", true},
      {"2001:db8:8000::", false},
      {"2001:db8:7fff::", true},
      {"::1", false},
      {"", false},
      {"localhost", false},
      {"::ffff:127.0.0.1", true},
      {"::FFFF:10.0.255.255", true},
      {"::ffff:10.2.0.0", false},
      {"::ffff:127.0.0", false},
      {"::ffff:7f00:1", false},
  };
  for (const auto& c : cases) EXPECT_EQ(purge_allowed(policy, c.address), c.allowed) << c.address;
  EXPECT_EQ(set(policy, "purge", {"0.0.0.0/0"}), "");
  EXPECT_TRUE(purge_allowed(policy, "8.8.8.8"));
  EXPECT_FALSE(purge_allowed(policy, "::1"));
  EXPECT_EQ(set(policy, "purge", {"on"}), "");
  EXPECT_TRUE(purge_allowed(policy, "127.0.0.1"));
  EXPECT_TRUE(purge_allowed(policy, "::1"));
  EXPECT_FALSE(purge_allowed(policy, "127.0.0.2"));
  EXPECT_EQ(set(policy, "purge", {"off"}), "");
  EXPECT_FALSE(purge_allowed(policy, "8.8.8.8"));
}

}  // namespace
}  // namespace mcs::http
