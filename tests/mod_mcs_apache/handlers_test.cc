// SPDX-License-Identifier: Apache-2.0
// Responses that httpd's own handlers make: programs, status pages, redirects within the server.
#include <sys/stat.h>

#include "loadtest/harness/net.h"
#include "tests/mod_mcs_apache/httpd_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class HandlersTest : public HttpdTest {
 protected:
  HandlersTest() {
    options().modules = {"cgid", "actions", "rewrite", "env"};
    options().mcs->valid.clear();
    options().main_extra = "ScriptSock " + server_.prefix().string() + "/cgisock\n";
    options().location_extra =
        "Options +ExecCGI +FollowSymLinks\nAddHandler cgi-script .cgi\nMcsCacheStatusHeader On\n";
  }
  // Each run of the script adds a line to the file NAME.runs.
  void script(const std::string& name, const std::string& text) const {
    const auto path = root() / name;
    const std::string runs = (domain_directory() / name).string() + ".runs";
    ASSERT_TRUE(write_file(path, "#!/bin/sh\necho run >> " + runs + "\n" + text));
    chmod(path.c_str(), 0755);
  }
  size_t runs(const std::string& name) const {
    const std::string text = read_file(domain_directory() / (name + ".runs")).value_or("");
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  }
  void start() {
    chmod(domain_directory().c_str(), 0777);
    HttpdTest::start();
  }
};

TEST_F(HandlersTest, ProgramsAreStoredIfTheySaySo) {
  script("fresh.cgi",
         "echo 'Cache-Control: max-age=600'\necho 'Content-Type: text/plain'\n"
         "echo 'X-Own: x'\necho\necho \"$QUERY_STRING\"\n");
  script("silent.cgi", "echo 'Content-Type: text/plain'\necho\necho hello\n");
  start();
  const HttpResponse miss = get("/fresh.cgi?a");
  EXPECT_EQ(miss.cache_status(), "MISS");
  const HttpResponse hit = get("/fresh.cgi?a");
  EXPECT_EQ(hit.cache_status(), "HIT");
  EXPECT_EQ(hit.body, "a\n");
  EXPECT_EQ(hit.header("Content-Type"), "text/plain");
  EXPECT_EQ(hit.header("X-Own"), "x");
  EXPECT_EQ(hit.header("Content-Length"), "2");
  EXPECT_TRUE(hit.has_header("Date"));
  EXPECT_EQ(get("/fresh.cgi?b").body, "b\n");
  EXPECT_EQ(runs("fresh.cgi"), 2u);
  EXPECT_EQ(client_.head(server_.url("/fresh.cgi?a"))->header("Content-Length"), "2");
  EXPECT_EQ(get("/fresh.cgi?a", {"Range: bytes=0-0"}).status, 206);
  for (int i = 0; i < 2; ++i) EXPECT_THAT(get("/silent.cgi").cache_status(), Not("HIT"));
  EXPECT_EQ(runs("silent.cgi"), 2u);
}

// Age counts from the Date that was stored.
TEST_F(HandlersTest, TheDateOfAHitIsThatOfTheResponse) {
  const std::string date = "Sat, 01 Jan 2022 00:00:00 GMT";
  script("a.cgi", "echo 'Cache-Control: max-age=999999999'\necho 'Date: " + date + "'\necho\n");
  start();
  get("/a.cgi");
  const HttpResponse hit = get("/a.cgi");
  EXPECT_EQ(hit.cache_status(), "HIT");
  EXPECT_EQ(hit.header("Date"), date);
  EXPECT_GT(std::stol("0" + hit.header("Age")), 100'000'000);
}

TEST_F(HandlersTest, OutputIsPassedOnAsItComes) {
  const std::string go = (domain_directory() / "go").string();
  ASSERT_EQ(mkfifo(go.c_str(), 0666), 0);
  chmod(go.c_str(), 0666);
  script("slow.cgi",
         "echo 'Cache-Control: max-age=600'\necho\necho first\nread x < " + go + "\necho last\n");
  start();
  auto connection = RawConnection::open(server_.port());
  ASSERT_TRUE(connection->send("GET /slow.cgi HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  std::string received;
  while (received.find("first") == std::string::npos) {
    const auto more = connection->read_some();
    ASSERT_TRUE(more && !more->empty());
    received += *more;
  }
  EXPECT_THAT(received, Not(HasSubstr("last")));
  ASSERT_TRUE(write_file(go, "go\n"));
  while (received.find("last") == std::string::npos) {
    const auto more = connection->read_some();
    ASSERT_TRUE(more && !more->empty());
    received += *more;
  }
}

TEST_F(HandlersTest, RedirectsWithinTheServer) {
  write("index.html", "index");
  script("page.cgi",
         "echo 'Cache-Control: max-age=600'\necho 'Content-Type: text/plain'\necho\n"
         "echo \"page $REQUEST_URI\"\n");
  script("moved.cgi", "echo 'Location: /page.cgi?from=moved'\necho\n");
  options().server_extra =
      "RewriteEngine On\nRewriteRule ^/nice/(.*)$ /page.cgi?$1 [PT]\n"
      "<Directory " +
      root().string() + ">\n  DirectoryIndex index.html page.cgi\n</Directory>\n";
  write("sub/note.txt", "x");
  script("sub/page.cgi", "echo 'Cache-Control: max-age=600'\necho\necho \"sub $REQUEST_URI\"\n");
  std::filesystem::create_directories(domain_directory() / "sub");
  chmod((domain_directory() / "sub").c_str(), 0777);
  start();
  for (const auto& [path, body] : {std::pair<std::string, std::string>{"/nice/a", "page /nice/a\n"},
                                   {"/moved.cgi", "page /moved.cgi\n"},
                                   {"/sub/", "sub /sub/\n"}}) {
    for (int i = 0; i < 3; ++i) {
      const HttpResponse response = get(path);
      EXPECT_EQ(response.status, 200) << path;
      EXPECT_EQ(response.body, body) << path;
      EXPECT_EQ(response.cache_status(), i == 0 ? "MISS" : "HIT") << path;
    }
  }
  EXPECT_EQ(runs("page.cgi"), 2u);
  EXPECT_EQ(get("/").body, "index");
}

// They are served as if they had been asked for: with ranges and conditions, and one beside the other.
TEST_F(HandlersTest, RedirectsToFiles) {
  change("note.txt", "0123456789", kOld);
  script("moved.cgi", "echo 'Location: /note.txt'\necho\n");
  script("off.cgi", "echo 'Location: /off/note.txt'\necho\n");
  change("off/note.txt", "0123456789", kOld);
  options().server_extra = "<Location /off/>\n  McsCache Off\n</Location>\n";
  start();
  for (const std::string path : {"/moved.cgi", "/off.cgi"}) {
    EXPECT_EQ(get(path + "?1", {"Range: bytes=2-3"}).body, "23");
    const HttpResponse whole = get(path + "?2");
    EXPECT_EQ(whole.body, "0123456789");
    EXPECT_EQ(get(path + "?3", {"If-None-Match: " + whole.header("ETag")}).status, 304);
    EXPECT_EQ(get(path + "?2").body, "0123456789");
  }
}

TEST_F(HandlersTest, A304ThatFitsNothingBehindARedirect) {
  script("moved.cgi", "echo 'Location: /page.cgi'\necho\n");
  script("page.cgi",
         "echo 'Cache-Control: max-age=0'\n"
         "if [ -n \"$HTTP_IF_NONE_MATCH\" ]; then echo 'Status: 304'; echo 'ETag: \"2\"'; echo; exit; fi\n"
         "echo 'ETag: \"1\"'\necho\necho body\n");
  start();
  for (int i = 0; i < 3; ++i) {
    const HttpResponse response = get("/moved.cgi");
    EXPECT_EQ(response.status, 200) << i;
    EXPECT_EQ(response.body, "body\n") << i;
  }
  EXPECT_EQ(runs("page.cgi"), 5u);
}

TEST_F(HandlersTest, PagesAboutErrors) {
  script("error.cgi",
         "echo 'Cache-Control: max-age=600'\necho 'Content-Type: text/plain'\necho\n"
         "echo \"sorry $REDIRECT_STATUS\"\n");
  script("gone.cgi",
         "echo 'Status: 410 Gone'\necho 'Cache-Control: max-age=600'\necho\necho gone\n");
  options().server_extra = "ErrorDocument 404 /error.cgi\n";
  start();
  for (int i = 0; i < 3; ++i) {
    const HttpResponse response = get("/missing");
    EXPECT_EQ(response.status, 404);
    EXPECT_EQ(response.body, "sorry 404\n");
    const HttpResponse gone = get("/gone.cgi");
    EXPECT_EQ(gone.status, 410);
    EXPECT_EQ(gone.body, "gone\n");
  }
  EXPECT_EQ(get("/error.cgi").body, "sorry \n");
  EXPECT_EQ(runs("error.cgi"), 4u);
  EXPECT_EQ(runs("gone.cgi"), 1u);
}

TEST_F(HandlersTest, StaleWhenAProgramFails) {
  script("a.cgi", "if [ -e " + (domain_directory() / "broken").string() +
                      " ]; then exit 1; fi\n"
                      "echo 'Cache-Control: max-age=0, stale-if-error=600'\n"
                      "echo 'Last-Modified: Sat, 01 Jan 2022 00:00:00 GMT'\necho\necho good\n");
  options().mcs->cache_directives = {{"cache_stale_on_error", "On"}};
  expected_trouble_ = "End of script output";
  start();
  EXPECT_EQ(get("/a.cgi").body, "good\n");
  ASSERT_TRUE(write_file(domain_directory() / "broken", ""));
  const HttpResponse response = get("/a.cgi");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "good\n");
  EXPECT_EQ(response.cache_status(), "STALE");
}

// A program may find that what it was asked for with the stored validators has not changed.
TEST_F(HandlersTest, ValidationByAProgram) {
  script("a.cgi",
         "if [ \"$HTTP_IF_NONE_MATCH\" = '\"1\"' ]; then echo 'Status: 304'; fi\n"
         "echo 'Cache-Control: max-age=0'\necho 'ETag: \"1\"'\necho 'Content-Type: text/plain'\n"
         "echo\n[ -n \"$HTTP_IF_NONE_MATCH\" ] || echo body\n");
  start();
  EXPECT_EQ(get("/a.cgi").body, "body\n");
  for (int i = 0; i < 2; ++i) {
    const HttpResponse response = get("/a.cgi");
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, "body\n");
    EXPECT_EQ(response.cache_status(), "REVALIDATED");
  }
  EXPECT_EQ(runs("a.cgi"), 3u);
}

}  // namespace
}  // namespace mcs::loadtest
