// SPDX-License-Identifier: Apache-2.0
// Which requests are one entry: virtual hosts, aliases, mass virtual hosting.
#include "tests/mod_mcs_apache/httpd_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::HasSubstr;
using testing::Not;

class HttpdKeysTest : public HttpdTest {
 protected:
  HttpdKeysTest() {
    options().mcs->key_base.clear();
    options().server_extra = "Header always set X-Key \"%{mcs-cache-key}e\"\n";
    for (const char* site : {"one", "two"}) write(std::string(site) + "/a.txt", site);
  }
  void add_host(const std::string& name, const std::string& directory, const std::string& lines) {
    options().server_extra += "<VirtualHost *:*>\n  ServerName " + name + "\n  DocumentRoot " +
                              (root() / directory).string() + "\n" + lines + "</VirtualHost>\n";
  }
  HttpResponse get_from(const std::string& host, const std::string& path) {
    return get(path, {"Host: " + host});
  }
};

TEST_F(HttpdKeysTest, HostsWithoutAKeyBaseShareNothing) {
  add_host("one.test", "one", "");
  add_host("two.test", "two", "");
  start();
  for (int round = 0; round < 2; ++round) {
    for (const char* site : {"one", "two"}) {
      const HttpResponse response = get_from(std::string(site) + ".test", "/a.txt");
      EXPECT_EQ(response.body, site);
      EXPECT_EQ(response.cache_status(), round == 0 ? "MISS" : "HIT");
    }
  }
  EXPECT_THAT(get_from("one.test", "/a.txt").header("X-Key"), HasSubstr("one.test"));
}

TEST_F(HttpdKeysTest, HostsOfOneKeyBaseShare) {
  add_host("one.test", "one", "  McsCacheKeyBase shared\n");
  add_host("www.one.test", "one", "  McsCacheKeyBase shared\n");
  start();
  EXPECT_EQ(get_from("one.test", "/a.txt").cache_status(), "MISS");
  EXPECT_EQ(get_from("www.one.test", "/a.txt").cache_status(), "HIT");
  EXPECT_EQ(get_from("one.test", "/a.txt").header("X-Key"), "shared/a.txt");
}

TEST_F(HttpdKeysTest, KeyBaseOutsideTheHostsMixesNothing) {
  options().server_extra += "McsCacheKeyBase everywhere\n";
  add_host("one.test", "one", "");
  add_host("two.test", "two", "");
  start();
  for (int round = 0; round < 2; ++round) {
    for (const char* site : {"one", "two"}) {
      const HttpResponse response = get_from(std::string(site) + ".test", "/a.txt");
      EXPECT_EQ(response.body, site);
      EXPECT_EQ(response.header("X-Key"), "everywhere/" + (root() / site / "a.txt").string());
    }
  }
  EXPECT_TRUE(server_.wait_for_log("McsCacheKeyBase everywhere is in effect for several"));
}

TEST_F(HttpdKeysTest, KeyBaseOutsideHostsOfOneRoot) {
  options().server_extra += "McsCacheKeyBase everywhere\n";
  add_host("one.test", "one", "");
  add_host("www.one.test", "one", "");
  start();
  EXPECT_EQ(get_from("one.test", "/a.txt").header("X-Key"), "everywhere/a.txt");
  EXPECT_EQ(get_from("www.one.test", "/a.txt").cache_status(), "HIT");
  EXPECT_THAT(server_.error_log(), Not(HasSubstr("several roots")));
}

TEST_F(HttpdKeysTest, AliasHasKeysOfItsOwn) {
  const TempDir alias("mcs-alias");
  write(alias.path() / "a.txt", "alias");
  options().location_extra = "McsCacheKeyBase site\n";
  write("a.txt", "root");
  options().locations = {{"/alias/", alias.path(), "McsCacheKeyBase aliased\n"}};
  options().server_extra += "Alias /other/ " + alias.path().string() + "/\n";
  start();
  EXPECT_EQ(get("/a.txt").header("X-Key"), "site/a.txt");
  EXPECT_EQ(get("/alias/a.txt").header("X-Key"), "aliased/a.txt");
  const HttpResponse other = get("/other/a.txt");
  EXPECT_EQ(other.body, "alias");
  EXPECT_EQ(other.cache_status(), "HIT");
}

TEST_F(HttpdKeysTest, AliasInTheSitesKeyBase) {
  const TempDir alias("mcs-alias");
  write(alias.path() / "a.txt", "alias");
  write("a.txt", "root");
  options().server_extra += "McsCacheKeyBase site\n";
  options().locations = {{"/alias/", alias.path(), ""}};
  start();
  EXPECT_EQ(get("/a.txt").header("X-Key"), "site/a.txt");
  EXPECT_EQ(get("/alias/a.txt").header("X-Key"), "site/" + (alias.path() / "a.txt").string());
  EXPECT_EQ(get_hit("/alias/a.txt").body, "alias");
}

TEST_F(HttpdKeysTest, MassVirtualHosting) {
  options().modules = {"vhost_alias"};
  options().server_extra += "UseCanonicalName Off\nVirtualDocumentRoot " + root().string() +
                            "/%1\nMcsCacheKeyBase mass\n";
  start();
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(get_from("one.test", "/a.txt").body, "one");
    EXPECT_EQ(get_from("two.test", "/a.txt").body, "two");
  }
  EXPECT_EQ(get_from("two.test", "/a.txt").cache_status(), "HIT");
}

TEST_F(HttpdKeysTest, RewrittenRequestsAreTheFilesEntry) {
  options().modules = {"rewrite"};
  options().server_extra += "RewriteEngine On\nRewriteRule ^/old/(.*)$ /one/$1\n";
  start();
  get("/one/a.txt");
  const HttpResponse response = get("/old/a.txt");
  EXPECT_EQ(response.body, "one");
  EXPECT_EQ(response.cache_status(), "HIT");
}

}  // namespace
}  // namespace mcs::loadtest
