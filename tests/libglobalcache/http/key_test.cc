// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/key.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "libglobalcache/http/uri.h"

namespace mcs::http {
namespace {

using namespace std::string_literals;

std::string key_of(std::string_view target, const CachePolicy& policy = {},
                   std::string_view host = "h", std::string_view scheme = "http",
                   Method method = Method::kGet) {
  std::string key;
  const auto built = build_key({{}, scheme, host, target, method}, policy, key);
  return built ? key : "error: " + std::string(describe(built.error()));
}

KeyError error_of(KeyRequest request) {
  std::string key;
  const auto built = build_key(request, CachePolicy(), key);
  EXPECT_FALSE(built) << request.target;
  return built ? KeyError::kTooLong : built.error();
}

TEST(Key, IsTheSameForTheSameResource) {
  const struct {
    std::string_view a, b;
  } same[] = {
      {"/a", "/%61"},           {"/a%2fb", "/a%2Fb"},       {"/a?x=%7e", "/a?x=~"},
      {"http://h/a?b", "/a?b"}, {"HTTP://H:80/a", "/a"},    {"http://h", "/"},
      {"http://h?x", "/?x"},    {"http://h.:80/%2e", "/."},
  };
  for (const auto& c : same) EXPECT_EQ(key_of(c.a), key_of(c.b)) << c.a << " " << c.b;
  EXPECT_EQ(key_of("/a", {}, "H:80"), key_of("/a", {}, "h"));
  EXPECT_EQ(key_of("/a", {}, "h:443", "https"), key_of("/a", {}, "h", "HTTPS"));
  EXPECT_EQ(key_of("/a", {}, "h", "http", Method::kHead), key_of("/a"));
  // The absolute form wins over Host (RFC 9112 3.2.2).
  EXPECT_EQ(key_of("http://other/a"), key_of("/a", {}, "other"));
  // But not over the connection, which leads to the same origin.
  EXPECT_EQ(key_of("https://h/a"), key_of("/a"));
}

TEST(Key, OfWhatWasReceived) {
  EXPECT_EQ(received_key(key_of("/a%00/b%00c=d?x")), key_of("/a?x"));
  EXPECT_EQ(received_key(key_of("/a%00/b")), key_of("/a"));
  for (const std::string_view as_it_is : {"/a", "/a?x=%00", "/", "/a%2500b"}) {
    EXPECT_EQ(received_key(key_of(as_it_is)), "") << as_it_is;
  }
  std::string file;
  ASSERT_TRUE(build_static_key("base", "/a%00b", file));
  EXPECT_EQ(received_key(file), "");
  const std::string rewritten = key_of("/a.html%00/index.php?q");
  const std::string site(parse_key(rewritten)->site);
  EXPECT_TRUE(key_matches(rewritten, site, "*.html?q"));
  EXPECT_TRUE(key_matches(rewritten, site, "/a*"));
  EXPECT_FALSE(key_matches(rewritten, site, "*index.php?q"));
}

TEST(Key, DiffersForDifferentResources) {
  const std::string_view targets[] = {"/",          "//",       "/a",
                                      "/a/",        "//a",      "/A",
                                      "/a?",        "/a??",     "/a?b",
                                      "/a%3Fb",     "/a%2Fb",   "/a/b",
                                      "/a//b",      "/%2e/",    "/..",
                                      "/a;b",       "/a%3Bb",   "/a%20b",
                                      "/a+b",       "/a?b=c&d", "/a?d&b=c",
                                      "/a%00",      "/%25",     "/%2525",
                                      "/a?%26",     "/a?&",     "http://other/a"};
  std::map<std::string, std::string_view> keys;
  for (const std::string_view target : targets) {
    const std::string key = key_of(target);
    EXPECT_EQ(key.find("error"), std::string::npos) << target << " " << key;
    const auto [old, is_new] = keys.emplace(key, target);
    EXPECT_TRUE(is_new) << target << " has the key of " << old->second;
  }
  EXPECT_NE(key_of("/a", {}, "h", "https"), key_of("/a"));
  EXPECT_NE(key_of("/a", {}, "h:8080"), key_of("/a"));
  EXPECT_NE(key_of("/a", {}, "h", "http", Method::kPost), key_of("/a"));
}

TEST(Key, RefusesWhatItCannotKeepApart) {
  EXPECT_EQ(error_of({{}, "http", "h", "*", Method::kGet}), KeyError::kBadTarget);
  EXPECT_EQ(error_of({{}, "http", "h", "", Method::kGet}), KeyError::kBadTarget);
  EXPECT_EQ(error_of({{}, "http", "h", "a/b", Method::kGet}), KeyError::kBadTarget);
  EXPECT_EQ(error_of({{}, "http", "h", "h:80", Method::kGet}), KeyError::kBadTarget);
  EXPECT_EQ(error_of({{}, "http", "h", "ftp://h/a", Method::kGet}), KeyError::kBadTarget);
  EXPECT_EQ(error_of({{}, "http", "h", "/a#b", Method::kGet}), KeyError::kBadEncoding);
  EXPECT_EQ(error_of({{}, "http", "h", "http://h/a#b", Method::kGet}), KeyError::kBadEncoding);
  EXPECT_EQ(error_of({{}, "http", "h", "/%zz", Method::kGet}), KeyError::kBadEncoding);
  EXPECT_EQ(error_of({{}, "http", "h", "/a?%", Method::kGet}), KeyError::kBadEncoding);
  EXPECT_EQ(error_of({{}, "http", "h", "/a b", Method::kGet}), KeyError::kBadEncoding);
  EXPECT_EQ(error_of({{}, "http", "h", "/a\r\nb", Method::kGet}), KeyError::kBadEncoding);
  EXPECT_EQ(error_of({{}, "http", "a b", "/a", Method::kGet}), KeyError::kBadHost);
  EXPECT_EQ(error_of({{}, "http", "u@h", "/a", Method::kGet}), KeyError::kBadHost);
  EXPECT_EQ(error_of({{}, "http", "", "/a", Method::kGet}), KeyError::kNoSite);
  EXPECT_EQ(error_of({"b", "http", "", "/a", Method::kPut}), KeyError::kBadMethod);
  const std::string longest = "/" + std::string(kMaxKeySize, 'a');
  EXPECT_EQ(error_of({{}, "http", "h", longest, Method::kGet}), KeyError::kTooLong);
}

TEST(Key, HasABaseOrAHost) {
  CachePolicy policy;
  policy.key_base = "site";
  EXPECT_EQ(key_of("/a", policy, "h1"), key_of("/a", policy, ""));
  std::string key;
  ASSERT_TRUE(build_key({"other", "http", "h", "/a", Method::kGet}, policy, key));
  EXPECT_NE(key, key_of("/a", policy));
  EXPECT_EQ(parse_key(key)->base, "other");
  // A key of its own is no site's, whatever its name.
  policy.key_base = "other";
  EXPECT_NE(key, key_of("/a", policy));
  EXPECT_NE(parse_key(key)->site, parse_key(key_of("/a", policy))->site);
  EXPECT_EQ(display_key(key), "other/a");
  EXPECT_EQ(parse_key(key_of("/a?b", {}, "H"))->host, "http://h");
}

TEST(Key, FollowsTheQueryRules) {
  const auto policy = [](std::vector<std::string_view> args) {
    CachePolicy p;
    EXPECT_TRUE(set_directive(p, "query", args));
    return p;
  };
  const CachePolicy none = policy({"ignore"});
  EXPECT_EQ(key_of("/a?b", none), key_of("/a", none));
  const CachePolicy listed = policy({"ignore", "utm_*", "fbclid"});
  EXPECT_EQ(key_of("/a?utm_source=x&b=1&fbclid=2", listed), key_of("/a?b=1", listed));
  EXPECT_EQ(key_of("/a?utm%5Fx=1", listed), key_of("/a", listed));
  EXPECT_EQ(key_of("/a?fbclid", listed), key_of("/a", listed));
  EXPECT_NE(key_of("/a?fbclid2=1", listed), key_of("/a", listed));
  EXPECT_NE(key_of("/a?b=1&c=2", listed), key_of("/a?c=2&b=1", listed));
  const CachePolicy sorted = policy({"sort"});
  EXPECT_EQ(key_of("/a?c=2&b=1", sorted), key_of("/a?b=1&c=2", sorted));
  EXPECT_NE(key_of("/a?b=2&b=1", sorted), key_of("/a?b=1&b=2", sorted));
  const CachePolicy both = policy({"sort", "ignore", "x"});
  EXPECT_EQ(key_of("/a?c=2&x=9&b=1", both), key_of("/a?b=1&c=2", both));
}

TEST(StaticKey, IsByteExact) {
  std::string a;
  std::string b;
  ASSERT_TRUE(build_static_key("base", "/a%2Fb?c#d \xff", a));
  EXPECT_EQ(parse_key(a)->path, "/a%2Fb?c#d \xff");
  EXPECT_TRUE(parse_key(a)->is_static);
  ASSERT_TRUE(build_static_key("base", "/%61", b));
  ASSERT_TRUE(build_static_key("base", "/a", a));
  EXPECT_NE(a, b);
  ASSERT_TRUE(build_static_key("base/a", "/b", a));
  ASSERT_TRUE(build_static_key("base", "/a/b", b));
  EXPECT_NE(a, b);
  CachePolicy policy;
  policy.key_base = "base";
  EXPECT_NE(key_of("/a/b", policy), b);
  EXPECT_FALSE(build_static_key("base", "a", a));
  EXPECT_FALSE(build_static_key("base", "/a\0b"s, a));
  EXPECT_FALSE(build_static_key("base", std::string(kMaxKeySize, '/'), a));
}

TEST(ParseKey, RefusesWhatIsNoKey) {
  const std::string key = key_of("/a?b");
  ASSERT_TRUE(parse_key(key));
  for (std::size_t length = 0; length < key.size(); ++length) {
    EXPECT_FALSE(parse_key(std::string_view(key).substr(0, length))) << length;
  }
  EXPECT_FALSE(parse_key(key + "x"));
  std::string huge = key;
  huge[1] = huge[2] = huge[3] = huge[4] = '\xff';
  EXPECT_FALSE(parse_key(huge));
  EXPECT_EQ(display_key(huge), "");
}

TEST(KeyMatches, ComparesSiteAndPattern) {
  const std::string key = key_of("/img/a.png?v=1");
  const std::string_view site = parse_key(key)->site;
  EXPECT_EQ(display_key(key), "http://h/img/a.png?v=1");
  EXPECT_TRUE(key_matches(key, site, "/img/*"));
  EXPECT_TRUE(key_matches(key, site, "*.png*"));
  EXPECT_TRUE(key_matches(key, site, "/img/a.png?v=1"));
  EXPECT_FALSE(key_matches(key, site, "/img/a.png"));
  const std::string other = key_of("/img/a.png?v=1", {}, "other");
  EXPECT_FALSE(key_matches(other, site, "*"));
}

TEST(BuildKey, HoldsTheServersPortUnlessThereIsABaseOrARuleAgainstIt) {
  const auto key_at = [](std::uint16_t port, const CachePolicy& policy = {}) {
    std::string key;
    KeyRequest request{{}, "http", "h", "/a", Method::kGet, port};
    EXPECT_TRUE(build_key(request, policy, key));
    return key;
  };
  EXPECT_NE(key_at(80), key_at(8080));
  EXPECT_NE(key_at(80), key_at(0));
  EXPECT_EQ(display_key(key_at(8080)), "http://h/a");
  CachePolicy named;
  named.key_base = "site";
  EXPECT_EQ(key_at(80, named), key_at(8080, named));
  CachePolicy any;
  any.key_port = false;
  EXPECT_EQ(key_at(80, any), key_at(8080, any));
  EXPECT_EQ(key_at(80, any), key_at(0));
}

TEST(IsOfSite, AHostWithoutAPortIsItsSiteAtAnyPort) {
  const auto key_of_host = [](std::string_view host, std::uint16_t port, std::string_view base) {
    std::string key;
    KeyRequest request{base, "http", host, "/a", Method::kGet, port};
    EXPECT_TRUE(build_key(request, {}, key));
    return key;
  };
  const auto is_of = [&](const std::string& key, const std::string& site_of) {
    return is_of_site(*parse_key(key), parse_key(site_of)->site);
  };
  const std::string plain = key_of_host("h", 0, {});
  const std::string at_80 = key_of_host("h", 80, {});
  const std::string at_8080 = key_of_host("h", 8080, {});
  EXPECT_TRUE(is_of(at_80, plain));
  EXPECT_TRUE(is_of(at_8080, plain));
  EXPECT_TRUE(is_of(plain, plain));
  EXPECT_TRUE(is_of(at_80, at_80));
  EXPECT_FALSE(is_of(at_8080, at_80));
  EXPECT_FALSE(is_of(plain, at_80));
  EXPECT_FALSE(is_of(key_of_host("h.example", 80, {}), plain));
  EXPECT_FALSE(is_of(key_of_host("h", 80, "site"), plain));
  EXPECT_FALSE(is_of(plain, key_of_host("h", 80, "site")));
}

// The property the cache stands on: two requests have the same key exactly if an independent,
// slower normaliser takes them for the same.
class Oracle {
 public:
  static std::string normal_form(const std::string& scheme, const std::string& host,
                                 const std::string& target) {
    std::string result = lower(scheme) + "|";
    std::string name = lower(host);
    const std::string port = lower(scheme) == "http" ? ":80" : ":443";
    if (name.size() > port.size() && name.ends_with(port)) name.resize(name.size() - port.size());
    result += name + "|";
    for (std::size_t i = 0; i < target.size(); ++i) {
      if (target[i] != '%') {
        // Written as a number, so that what stands for itself and what was encoded stay apart.
        result += "c" + std::to_string(static_cast<unsigned char>(target[i])) + ",";
        continue;
      }
      const int byte = std::stoi(target.substr(i + 1, 2), nullptr, 16);
      const bool unreserved =
          byte < 128 &&
          (std::isalnum(byte) != 0 ||
           std::string_view("-._~").find(static_cast<char>(byte)) != std::string_view::npos);
      result += (unreserved ? "c" : "e") + std::to_string(byte) + ",";
      i += 2;
    }
    return result;
  }

 private:
  static std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), to_lower);
    return text;
  }
};

TEST(Key, AgreesWithAnOracleOnRandomTargets) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto pick = [&](auto& from) { return from[random() % std::size(from)]; };
  const std::string_view atoms[] = {"a",   "A",   "%61", "%41", "/",   "%2f",  "%2F", ".",
                                    "%2e", "?",   "%3f", "%3F", "&",   "%26",  "=",   "%",
                                    "%25", "%7e", "~",   "%c3", "%C3", "\xc3", "+",   "%20"};
  const std::string hosts[] = {"h", "H", "h:80", "h:443", "hh"};
  const std::string schemes[] = {"http", "https", "HTTP"};
  std::map<std::string, std::string> key_to_form;
  std::map<std::string, std::string> form_to_key;
  int keys = 0;
  for (int i = 0; i < 60000; ++i) {
    std::string target = "/";
    for (unsigned int n = random() % 4; n > 0; --n) target += pick(atoms);
    const std::string scheme = pick(schemes);
    const std::string host = pick(hosts);
    const std::string key = key_of(target, {}, host, scheme);
    if (key.starts_with("error")) continue;
    ++keys;
    const std::string form = Oracle::normal_form(scheme, host, target);
    const auto by_key = key_to_form.emplace(key, form).first;
    const auto by_form = form_to_key.emplace(form, key).first;
    ASSERT_EQ(by_key->second, form) << target << ": different resources, same key";
    ASSERT_EQ(by_form->second, key) << target << ": same resource, different keys";
  }
  EXPECT_GT(keys, 10000);
}

TEST(Key, NeverConfusesItsParts) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::string_view atoms[] = {"P", "S", "G", "q", "-", "\0", "\1", "/", "a", "?"};
  std::map<std::string, std::string> seen;
  for (int i = 0; i < 20000; ++i) {
    const auto text = [&] {
      std::string result;
      for (unsigned int n = random() % 4; n > 0; --n) result += atoms[random() % std::size(atoms)];
      return result;
    };
    const std::string base = "b" + text();
    const std::string target = "/" + text();
    const bool is_static = random() % 2 == 0;
    std::string key;
    if (is_static ? !build_static_key(base, target, key)
                  : !build_key({base, "http", "h", target, Method::kGet}, CachePolicy(), key)) {
      continue;
    }
    const auto parts = parse_key(key);
    ASSERT_TRUE(parts);
    ASSERT_EQ(parts->base, base);
    std::string back(parts->path);
    if (parts->has_query) back += "?" + std::string(parts->query);
    ASSERT_EQ(back, target);
    const std::string identity = (is_static ? "S " : "P ") + base + " " + target;
    ASSERT_EQ(seen.emplace(key, identity).first->second, identity);
  }
}

}  // namespace
}  // namespace mcs::http
