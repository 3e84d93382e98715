// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "libglobalcache/api/purge.h"
#include "libglobalcache/http/key.h"
#include "tests/libglobalcache/api/api_kit.h"

namespace mcs::api::testing {
namespace {

class PurgeTest : public ::testing::Test {
 protected:
  TestDomain domain_;
  mcs_process* nginx_ = domain_.join("nginx/1.22.1", 0);
  mcs_process* httpd_ = domain_.join("Apache/2.4", 1);
  TestPolicy policy_{"purge 127.0.0.0/8 ::1"};

  void store(const std::string& target, const char* tags = nullptr, OwnedFields request = {},
             const std::string& host = "site.example") {
    Request ask_for;
    ask_for.target = target;
    ask_for.fields = std::move(request);
    ask_for.host = host;
    OwnedFields fields = {{"Cache-Control", "max-age=100, stale-if-error=100"}, {"ETag", "\"e\""}};
    if (tags != nullptr) fields.emplace_back("Surrogate-Key", tags);
    if (!ask_for.fields.empty()) fields.emplace_back("Vary", ask_for.fields[0].first);
    ASSERT_TRUE(ask(nginx_, policy_.get(), ask_for, Response{200, fields, target}).stored);
  }
  /// Whether the target is served without asking the origin.
  bool is_stored(const std::string& target, OwnedFields request = {},
                 const std::string& host = "site.example") {
    Request ask_for;
    ask_for.target = target;
    ask_for.fields = std::move(request);
    ask_for.host = host;
    Exchange exchange(httpd_, policy_.get(), ask_for);
    return exchange.begin() == MCS_RESPONSE;
  }
  std::uint64_t purge(mcs_purge_kind kind, std::string_view pattern, bool soft = false,
                      std::string_view host = "site.example") {
    mcs_purge_request request{};
    request.kind = kind;
    request.soft = soft ? 1 : 0;
    request.host = {host.data(), host.size()};
    request.pattern = {pattern.data(), pattern.size()};
    std::uint64_t purged = 0;
    char error[200] = "";
    EXPECT_EQ(mcs_purge(httpd_, &request, &purged, error, sizeof error), MCS_OK) << error;
    return purged;
  }
};

// What a server made of a request is in its key, but not in what is purged.
TEST_F(PurgeTest, RewrittenRequestsAreMetByWhatWasReceived) {
  const std::vector<std::string> targets = {"/%00/index.html", "/%00/index.php", "/p.html%00/i.php?x",
                                            "/p.html%00/i.php%00a=b?x", "/p.html?x", "/p.html"};
  const auto all = [&] {
    for (const std::string& target : targets) {
      if (!is_stored(target)) store(target);
    }
  };
  const auto left = [&] {
    std::string stored;
    for (const std::string& target : targets) stored += is_stored(target) ? '+' : '-';
    return stored;
  };
  const auto purged = [&](const std::string& target) {
    Request request;
    request.method = "PURGE";
    request.target = target;
    return ask(nginx_, policy_.get(), request, Response{}).body;
  };
  all();
  EXPECT_EQ(left(), "++++++");
  EXPECT_EQ(purged("/"), "purged 2\n");
  EXPECT_EQ(left(), "--++++");
  EXPECT_EQ(purged("/p.html?x"), "purged 3\n");
  EXPECT_EQ(left(), "-----+");
  all();
  EXPECT_EQ(purged("/p.html%00/other.php?x"), "purged 3\n");  // as rewritten by whoever is asked
  all();
  EXPECT_EQ(purged("/*.html?x"), "purged 3\n");
  all();
  EXPECT_EQ(purge(MCS_PURGE_KEY, "/p.html?x"), 3U);
  all();
  ask(httpd_, policy_.get(), [] {
        Request post;
        post.method = "POST";
        post.target = "/new";
        return post;
      }(), Response{201, {{"Location", "/p.html?x"}}, ""});
  EXPECT_EQ(left(), "++---+");
}

// A fill of a rewritten request that is in flight is met as well, and whoever asks for another page of
// the same program does not wait for it.
TEST_F(PurgeTest, RewrittenRequestsInFlight) {
  Request one;
  one.target = "/p%00/one";
  Request other;
  other.target = "/p%00/other";
  Exchange filling(nginx_, policy_.get(), one);
  ASSERT_EQ(filling.begin(), MCS_FORWARD);
  EXPECT_TRUE(ask(httpd_, policy_.get(), other, Response{200, {{"Cache-Control", "max-age=9"}}, "o"}).stored);
  EXPECT_EQ(purge(MCS_PURGE_KEY, "/p"), 1U);
  filling.head(200, {{"Cache-Control", "max-age=9"}});
  filling.body("1");
  EXPECT_FALSE(filling.end());
}

// Servers on different ports may answer different things to the same Host.
TEST_F(PurgeTest, PortsHaveKeysOfTheirOwnAndAreTold) {
  const auto at = [](unsigned port, const std::string& method = "GET") {
    Request request;
    request.method = method;
    request.flags = MCS_REQUEST_PORT(port);
    return request;
  };
  const auto fill = [&](unsigned port) {
    return ask(nginx_, policy_.get(), at(port),
               Response{200, {{"Cache-Control", "max-age=100"}}, std::to_string(port)});
  };
  const auto body_at = [&](unsigned port) {
    const Reply reply = ask(httpd_, policy_.get(), at(port), Response{404, {}, "origin"});
    return reply.body;
  };
  EXPECT_TRUE(fill(80).stored);
  EXPECT_TRUE(fill(8080).stored);
  EXPECT_EQ(body_at(80), "80");
  EXPECT_EQ(body_at(8080), "8080");
  // Asked at one port: this port.
  EXPECT_EQ(ask(httpd_, policy_.get(), at(80, "PURGE"), Response{}).body, "purged 1\n");
  EXPECT_EQ(body_at(80), "origin");
  EXPECT_EQ(body_at(8080), "8080");
  // So does what makes a response invalid.
  ask(nginx_, policy_.get(), at(80, "POST"), Response{200, {}, "changed"});
  EXPECT_EQ(body_at(8080), "8080");
  ask(nginx_, policy_.get(), at(8080, "POST"), Response{200, {}, "changed"});
  EXPECT_EQ(body_at(8080), "origin");
  // Without a port: all of them.
  for (const mcs_purge_kind kind : {MCS_PURGE_KEY, MCS_PURGE_PREFIX, MCS_PURGE_WILDCARD}) {
    advance_s(10);  // what was not found is forgotten
    EXPECT_TRUE(fill(80).stored);
    EXPECT_TRUE(fill(8080).stored);
    EXPECT_GE(purge(kind, "/a"), 2U);
    EXPECT_EQ(body_at(80), "origin");
    EXPECT_EQ(body_at(8080), "origin");
  }
}

TEST_F(PurgeTest, AKeyWithAllItsVariants) {
  store("/a", nullptr, {{"X", "1"}});
  store("/a", nullptr, {{"X", "2"}});
  store("/a?q=1");
  store("/ab");
  EXPECT_GE(purge(MCS_PURGE_KEY, "/a"), 2U);
  EXPECT_FALSE(is_stored("/a", {{"X", "1"}}));
  EXPECT_FALSE(is_stored("/a", {{"X", "2"}}));
  EXPECT_TRUE(is_stored("/a?q=1"));
  EXPECT_TRUE(is_stored("/ab"));
  // The key is normalised as that of a request.
  EXPECT_EQ(purge(MCS_PURGE_KEY, "/%61b"), 1U);
  EXPECT_FALSE(is_stored("/ab"));
}

TEST_F(PurgeTest, PrefixesAndPatternsStayInTheirSite) {
  for (const char* target : {"/a/1", "/a/2?x", "/b/1"}) {
    store(target);
    store(target, nullptr, {}, "other.example");
  }
  EXPECT_EQ(purge(MCS_PURGE_PREFIX, "/a/"), 2U);
  EXPECT_FALSE(is_stored("/a/1"));
  EXPECT_FALSE(is_stored("/a/2?x"));
  EXPECT_TRUE(is_stored("/b/1"));
  EXPECT_TRUE(is_stored("/a/1", {}, "other.example"));
  EXPECT_EQ(purge(MCS_PURGE_WILDCARD, "/*1"), 1U);
  EXPECT_FALSE(is_stored("/b/1"));
  EXPECT_EQ(purge(MCS_PURGE_WILDCARD, "*?x", false, "other.example"), 1U);
  // Without a host: in every site.
  store("/a/1");
  EXPECT_EQ(purge(MCS_PURGE_PREFIX, "/a", false, ""), 2U);
}

TEST_F(PurgeTest, TagsAndEverything) {
  store("/a", "red green");
  store("/b", "green");
  store("/c", "greener");
  EXPECT_EQ(purge(MCS_PURGE_TAG, "red"), 1U);
  EXPECT_FALSE(is_stored("/a"));
  EXPECT_EQ(purge(MCS_PURGE_TAG, "green"), 1U);
  EXPECT_FALSE(is_stored("/b"));
  EXPECT_TRUE(is_stored("/c"));
  EXPECT_EQ(purge(MCS_PURGE_ALL, ""), 1U);
  EXPECT_FALSE(is_stored("/c"));
}

TEST_F(PurgeTest, ASoftPurgeMakesStale) {
  store("/a");
  EXPECT_EQ(purge(MCS_PURGE_KEY, "/a", true), 1U);
  Request request;
  request.target = "/a";
  // The origin is asked, with the validators; if it fails the old response may stand in.
  const Reply failed = ask(httpd_, policy_.get(), request, [](const Request& r) {
    EXPECT_EQ(joined(r.fields, "if-none-match"), "\"e\"");
    return std::nullopt;
  });
  EXPECT_TRUE(failed.asked_origin);
  EXPECT_EQ(failed.cache_status, MCS_CACHE_STALE);
  const Reply valid = ask(httpd_, policy_.get(), request, Response{304, {}, ""});
  EXPECT_EQ(valid.cache_status, MCS_CACHE_REVALIDATED);
  EXPECT_EQ(valid.body, "/a");
  EXPECT_TRUE(is_stored("/a"));
}

TEST_F(PurgeTest, ThePurgeMethod) {
  store("/a");
  store("/b/1");
  store("/b/2");
  store("/c", "red");
  Request request;
  request.method = "PURGE";
  request.target = "/a";
  request.client = "192.0.2.1";
  Reply reply = ask(httpd_, policy_.get(), request, Response{});
  EXPECT_EQ(reply.status, 403);
  EXPECT_TRUE(is_stored("/a"));
  request.client = "127.0.0.1";
  reply = ask(httpd_, policy_.get(), request, Response{});
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, "purged 1\n");
  EXPECT_FALSE(is_stored("/a"));
  request.target = "/b/*";
  EXPECT_EQ(ask(httpd_, policy_.get(), request, Response{}).body, "purged 2\n");
  request.target = "/";
  request.fields = {{"Surrogate-Key", "blue red"}};
  EXPECT_EQ(ask(httpd_, policy_.get(), request, Response{}).body, "purged 1\n");
  request.fields.clear();
  request.target = "/%zz";
  EXPECT_EQ(ask(httpd_, policy_.get(), request, Response{}).status, 400);
  // Where purging is off, the method is one like any other.
  TestPolicy off;
  Exchange exchange(httpd_, off.get(), request);
  EXPECT_EQ(exchange.begin(), MCS_FORWARD);
}

TEST_F(PurgeTest, ErrorsNameTheRemedy) {
  mcs_purge_request request{};
  char error[200] = "";
  request.kind = MCS_PURGE_KEY;
  request.pattern = {"/a", 2};
  EXPECT_EQ(mcs_purge(httpd_, &request, nullptr, error, sizeof error), MCS_ERROR);
  EXPECT_NE(std::string(error).find("host"), std::string::npos) << error;
  request.kind = MCS_PURGE_TAG;
  request.pattern = {};
  EXPECT_EQ(mcs_purge(httpd_, &request, nullptr, error, sizeof error), MCS_ERROR);
  EXPECT_NE(std::string(error).find("tag"), std::string::npos) << error;
}

// A pattern that the purger looks for and a fill compares itself with must mean the same, whatever
// follows the primary key.
TEST(PurgeMatcherTest, AgreesWithTheRulesForKeys) {
  http::CachePolicy policy;
  const auto key_of = [&](const char* host, const char* target) {
    std::string key;
    EXPECT_TRUE(http::build_key({{}, "http", host, target, http::Method::kGet}, policy, key));
    return key;
  };
  const auto pattern_of = [](std::string_view site, std::string_view text) {
    std::string pattern;
    for (int shift = 0; shift < 32; shift += 8) {
      pattern += static_cast<char>(site.size() >> shift & 0xff);
    }
    return pattern.append(site).append(text);
  };
  const std::string site = std::string(http::parse_key(key_of("a", "/"))->site);
  for (const char* host : {"a", "b"}) {
    for (const char* target : {"/", "/x", "/x?y", "/x/y", "/x%2Fy"}) {
      const std::string key = key_of(host, target);
      for (const char* pattern : {"*", "/x*", "*y", "/x", "/x?y", "", "/*/*"}) {
        for (const char* variant : {"", "vaccept", "m"}) {
          EXPECT_EQ(purge_meets(cache::PurgeKind::kWildcard, pattern_of(site, pattern),
                                key + variant, {}),
                    http::key_matches(key, site, pattern))
              << host << target << " " << pattern;
        }
      }
      for (const char* other : {"/", "/x", "/x?y", "/x/y"}) {
        EXPECT_EQ(purge_meets(cache::PurgeKind::kKey, key_of("a", other), key + "vx", {}),
                  key == key_of("a", other));
      }
    }
  }
}

}  // namespace
}  // namespace mcs::api::testing
