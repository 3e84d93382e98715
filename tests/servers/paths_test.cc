// SPDX-License-Identifier: Apache-2.0
// One key for one resource: however a path is spelled, and whatever the server makes of it, an
// answer from the cache is the file that the server itself would have sent.
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::AllOf;
using testing::Ge;
using testing::Lt;

class PathsTest : public ServerTest {
 protected:
  void SetUp() override {
    for (const char* name : {"plain.txt", "a b.txt", "a%b.txt", "a+b.txt", "q?x.txt", "s;c.txt",
                             "x%2Fy.txt", "dir/sub.txt", "dir/deep/er.txt", "\xc3\xbc.txt"}) {
      write(name, std::string("file ") + name);
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Servers, PathsTest, every_server(), server_name);

TEST_P(PathsTest, SpellingsOfOneFileAreOneEntry) {
  const WebServer& server = start(GetParam());
  const std::vector<std::pair<std::string, std::vector<std::string>>> spellings = {
      {"plain.txt",
       {"/plain.txt", "/%70lain.txt", "/plain%2Etxt", "/plain.txt?x=1", "//plain.txt",
        "/./plain.txt", "/dir/../plain.txt"}},
      {"a b.txt", {"/a%20b.txt", "/%61%20b.txt"}},
      {"a%b.txt", {"/a%25b.txt"}},
      {"a+b.txt", {"/a+b.txt", "/a%2Bb.txt", "/a%2bb.txt"}},
      {"q?x.txt", {"/q%3Fx.txt", "/q%3fx.txt"}},
      {"s;c.txt", {"/s;c.txt", "/s%3Bc.txt"}},
      {"x%2Fy.txt", {"/x%252Fy.txt"}},
      {"\xc3\xbc.txt", {"/%C3%BC.txt", "/%c3%bc.txt"}},
      {"dir/deep/er.txt", {"/dir/deep/er.txt", "/dir//deep///er.txt", "/dir/./deep/x/../er.txt"}},
  };
  for (const auto& [file, urls] : spellings) {
    bool first = true;
    for (const std::string& url : urls) {
      const HttpResponse response = get(server, url);
      EXPECT_EQ(response.status, 200) << url;
      EXPECT_EQ(response.body, "file " + file) << url;
      EXPECT_EQ(response.cache_status(), first ? "MISS" : "HIT") << url;
      first = false;
    }
  }
}

TEST_P(PathsTest, OtherSpellingsAreTheFileOrAnError) {
  const WebServer& server = start(GetParam());
  get_hit(server, "/dir/sub.txt");
  get_hit(server, "/x%252Fy.txt");
  for (const char* url : {"/dir%2Fsub.txt",
                          "/dir%2fsub.txt",
                          "/%2e%2e/dir/sub.txt",
                          "/../dir/sub.txt",
                          "/dir/%2e/sub.txt",
                          "/dir/sub.txt/",
                          "/dir/sub.txt/x",
                          "/dir/sub.txt%00",
                          "/dir/sub.txt%0a",
                          "/x%2Fy.txt",
                          "/dir\\sub.txt",
                          "/%",
                          "/%zz",
                          "/dir/sub.txt%20",
                          "/DIR/sub.txt",
                          "/dir/sub.tx",
                          "/dir/sub.txt.",
                          "/dir;/sub.txt",
                          "/%25",
                          "/dir/%2e%2e/%2e%2e/dir/sub.txt"}) {
    const HttpResponse response = get(server, url);
    if (response.status == 200) {
      EXPECT_EQ(response.body, "file dir/sub.txt") << url;
    } else {
      EXPECT_THAT(response.status, AllOf(Ge(300), Lt(500))) << url;
    }
  }
}

TEST_P(PathsTest, IndexOfADirectoryIsTheFilesEntry) {
  write("index.html", "index");
  write("dir/index.html", "index of dir");
  const WebServer& server = start(GetParam());
  EXPECT_EQ(get_hit(server, "/").body, "index");
  EXPECT_EQ(get_hit(server, "/dir/").body, "index of dir");
  EXPECT_EQ(get(server, "/index.html").cache_status(), "HIT");
  EXPECT_EQ(get(server, "/dir").status, 301);
}

TEST_P(PathsTest, PurgeOfADirectoryMeetsWhatItShows) {
  write("index.html", "index");
  ServerOptions options = default_options();
  options.mcs->cache_directives = {{"cache_purge", "on"}};
  const WebServer& server = start(GetParam(), options);
  get_hit(server, "/");
  get_hit(server, "/dir/sub.txt");
  HttpRequest purge;
  purge.method = "PURGE";
  purge.url = server.url("/");
  EXPECT_EQ(send(purge).body, "purged 1\n");
  EXPECT_EQ(get(server, "/").cache_status(), "MISS");
  EXPECT_EQ(get(server, "/dir/sub.txt").cache_status(), "HIT");
}

TEST_P(PathsTest, AliasesNeverMeetFilesOfTheRoot) {
  const TempDir one("mcs-alias");
  const TempDir two("mcs-alias");
  write("a.txt", "root");
  write("one/a.txt", "one below the root");
  write(one.path() / "a.txt", "alias one");
  write(two.path() / "a.txt", "alias two");
  write(std::filesystem::path(root().string().substr(1)) / "a.txt", "whole path below the root");
  ServerOptions options = default_options();
  options.locations = {{"/one/", one.path(), ""}, {"/two/", two.path(), ""}};
  const WebServer& server = start(GetParam(), options);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(get(server, "/a.txt").body, "root");
    EXPECT_EQ(get(server, "/one/a.txt").body, "alias one");
    EXPECT_EQ(get(server, "/two/a.txt").body, "alias two");
    EXPECT_EQ(get(server, root().string() + "/a.txt").body, "whole path below the root");
  }
}

TEST_P(PathsTest, SymbolicLinksAreEntriesOfTheirOwn) {
  std::filesystem::create_symlink("plain.txt", root() / "link.txt");
  const WebServer& server = start(GetParam());
  EXPECT_EQ(get_hit(server, "/link.txt").body, "file plain.txt");
  EXPECT_EQ(get_hit(server, "/plain.txt").body, "file plain.txt");
}

TEST_P(PathsTest, WhatIsNoReadableFileIsTheServersBusiness) {
  const WebServer& server = start(GetParam());
  change("secret.txt", "secret", kOld);
  std::filesystem::permissions(root() / "secret.txt", std::filesystem::perms::owner_read);
  EXPECT_EQ(get(server, "/secret.txt").status, 403);
  EXPECT_EQ(get(server, "/missing.txt").status, 404);
  EXPECT_EQ(get(server, "/plain.txt/more").status, 404);
  std::filesystem::create_symlink("nowhere", root() / "dangling.txt");
  EXPECT_THAT(get(server, "/dangling.txt").status, testing::AnyOf(403, 404));
}

}  // namespace
}  // namespace mcs::loadtest
