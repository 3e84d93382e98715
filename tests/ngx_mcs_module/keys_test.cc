// SPDX-License-Identifier: Apache-2.0
// One key for one file: roots, aliases and variables never make two files share an entry.
#include "loadtest/harness/net.h"
#include "tests/ngx_mcs_module/nginx_fixture.h"

namespace mcs::loadtest {
namespace {

class NginxKeysTest : public NginxTest {
 protected:
  static void SetUpTestSuite() {
    write("a.txt", "root a\n");
    write("d/b.txt", "b\n");
    write("same.txt", "same\n");
    write("one.test/x.txt", "one\n");
    write("two.test/x.txt", "two\n");
    write(other() / "a.txt", "other a\n");
    write(other() / "b.txt", "other b\n");
    write(other() / "same.txt", "same\n");
    write(other() / "sub/a.txt", "other sub a\n");
    write(other() / "suba.txt", "glued\n");
    write(root() / other().relative_path() / "a.txt", "inner\n");
    wait_until_trusted();
  }

  NginxKeysTest() : second_port_(free_port()) {
    options().mcs->status_header = false;
    set_location_lines("");
    options().http_extra =
        "mcs_cache on; mcs_cache_valid 600s;\n"
        "add_header X-Key $mcs_cache_key always;\n"
        "add_header X-Mcs-Status $mcs_cache_status always;\n";
  }
  void add_second_server(const std::string& lines) {
    options().http_extra += "server { listen 127.0.0.1:" + std::to_string(second_port_) +
                            "; root " + other().string() + ";\n" + lines + "}\n";
  }
  std::string second_url(const std::string& path) const {
    return "http://127.0.0.1:" + std::to_string(second_port_) + path;
  }
  std::string key(const std::string& path) { return get(path).header("X-Key"); }

  int second_port_;
};

TEST_F(NginxKeysTest, NamedKeyBaseAndPathBelowTheRoot) {
  options().server_extra = "mcs_cache_key_base site;\n";
  start();
  EXPECT_EQ(key("/a.txt"), "site/a.txt");
  EXPECT_EQ(key("/d/b.txt?x=1"), "site/d/b.txt");
  EXPECT_EQ(key("/d/%62.txt"), "site/d/b.txt");
  EXPECT_EQ(key("/d/../a.txt"), "site/a.txt");
  EXPECT_EQ(key("//d//b.txt"), "site/d/b.txt");
}

TEST_F(NginxKeysTest, RequestsThatNeverReachTheCacheHaveNeitherKeyNorStatus) {
  options().server_extra = "location = /r { return 200 x; }\n";
  start();
  const HttpResponse response = get("/r");
  EXPECT_EQ(response.status, 200);
  EXPECT_FALSE(response.has_header("X-Key"));
  EXPECT_FALSE(response.has_header("X-Mcs-Status"));
}

TEST_F(NginxKeysTest, ServersWithoutANameShareNothing) {
  add_second_server("");
  start();
  EXPECT_EQ(get_hit("/a.txt").body, "root a\n");
  EXPECT_EQ(get_hit(second_url("/a.txt")).body, "other a\n");
}

TEST_F(NginxKeysTest, ServersOfOneNameShare) {
  options().server_extra = "mcs_cache_key_base site;\n";
  add_second_server("mcs_cache_key_base site;\n");
  start();
  EXPECT_EQ(get("/same.txt").cache_status(), "MISS");
  EXPECT_EQ(get(second_url("/same.txt")).cache_status(), "HIT");
}

TEST_F(NginxKeysTest, AliasBelowANamedServerHasEntriesOfItsOwn) {
  options().server_extra =
      "mcs_cache_key_base site;\n"
      "location /i/ { alias " +
      other().string() +
      "/; }\n"
      "location /j { alias " +
      other().string() + "; }\n";
  start();
  EXPECT_EQ(get_hit("/a.txt").body, "root a\n");
  EXPECT_EQ(get_hit("/i/a.txt").body, "other a\n");
  // The same directory by another name is the same file.
  EXPECT_EQ(get("/j/a.txt").cache_status(), "HIT");
  EXPECT_EQ(key("/i/a.txt"), "site/" + other().string() + "/a.txt");
}

TEST_F(NginxKeysTest, DoubleSlashesNameNoOtherRoot) {
  options().server_extra =
      "mcs_cache_key_base site; merge_slashes off;\n"
      "location /i/ { alias " + other().string() + "/; }\n";
  start();
  EXPECT_EQ(get("/" + other().string() + "/a.txt").body, "inner\n");
  EXPECT_EQ(get_hit("/i/a.txt").body, "other a\n");
  EXPECT_EQ(get("/" + other().string() + "/a.txt").body, "inner\n");
}

TEST_F(NginxKeysTest, AliasOfTheServersRootIsTheServersFiles) {
  options().server_extra =
      "mcs_cache_key_base site;\n"
      "location /same/ { alias " +
      root().string() + "/; }\n";
  start();
  EXPECT_EQ(key("/same/a.txt"), "site/a.txt");
}

TEST_F(NginxKeysTest, AliasNamedForAnotherSiteSharesItsEntries) {
  add_second_server("mcs_cache_key_base second;\n");
  options().server_extra =
      "location /i/ { alias " + other().string() + "/; mcs_cache_key_base second; }\n";
  start();
  EXPECT_EQ(get(second_url("/a.txt")).cache_status(), "MISS");
  EXPECT_EQ(get("/i/a.txt").cache_status(), "HIT");
}

TEST_F(NginxKeysTest, AliasOfOneFile) {
  options().server_extra = "location = /fav { alias " + (other() / "a.txt").string() + "; }\n";
  start();
  EXPECT_EQ(get_hit("/fav").body, "other a\n");
}

TEST_F(NginxKeysTest, AliasThatGluesNamesTogetherIsNotCached) {
  // /ia.txt becomes <other>/suba.txt: a file beside the alias, not below it.
  options().server_extra = "location /i { alias " + other().string() + "/sub; }\n";
  start();
  EXPECT_EQ(get_hit("/i/a.txt").body, "other sub a\n");
  const HttpResponse response = get("/ia.txt");
  EXPECT_EQ(response.body, "glued\n");
  EXPECT_EQ(response.cache_status(), "");
}

TEST_F(NginxKeysTest, VariableRootKeepsHostsApart) {
  options().server_extra =
      "mcs_cache_key_base site;\n"
      "location = /x.txt { root " +
      root().string() + "/$host; }\n";
  start();
  EXPECT_EQ(get_hit("/x.txt", {"Host: one.test"}).body, "one\n");
  EXPECT_EQ(get_hit("/x.txt", {"Host: two.test"}).body, "two\n");
}

TEST_F(NginxKeysTest, RegularExpressionAlias) {
  options().server_extra = "location ~ ^/re/(.*)$ { alias " + other().string() + "/$1; }\n";
  start();
  EXPECT_EQ(get_hit("/re/a.txt").body, "other a\n");
  EXPECT_EQ(get_hit("/re/b.txt").body, "other b\n");
}

}  // namespace
}  // namespace mcs::loadtest
