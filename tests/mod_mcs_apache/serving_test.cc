// SPDX-License-Identifier: Apache-2.0
// Answers from the cache on their way through httpd's own hooks and filters.
#include <zlib.h>

#include "loadtest/harness/net.h"
#include "tests/mod_mcs_apache/httpd_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr size_t kLarge = 3'000'000;  // sent from shared memory, in many writes

std::string gunzip(const std::string& packed) {
  z_stream stream = {};
  EXPECT_EQ(inflateInit2(&stream, 16 + MAX_WBITS), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  std::string text;
  int result = Z_OK;
  while (result == Z_OK) {
    char buffer[65536];
    stream.next_out = reinterpret_cast<Bytef*>(buffer);
    stream.avail_out = sizeof(buffer);
    result = inflate(&stream, Z_NO_FLUSH);
    text.append(buffer, sizeof(buffer) - stream.avail_out);
  }
  inflateEnd(&stream);
  EXPECT_EQ(result, Z_STREAM_END);
  return text;
}

class HttpdServingTest : public HttpdTest {
 protected:
  HttpdServingTest() {
    for (unsigned i = 0; large_.size() < kLarge; ++i) large_ += "line " + std::to_string(i) + "\n";
    write("a.txt", "hello world\n");
    write("a.html", html_);
    write("large.html", large_);
  }
  HttpResponse get_url(const std::string& url, bool http2 = false) {
    HttpRequest request;
    request.url = url;
    request.http2 = http2;
    request.fresh_connection = true;
    return send(request);
  }
  std::string large_;
  const std::string html_ = std::string(2000, 'h') + "tml\n";
};

TEST_F(HttpdServingTest, HitLooksLikeHttpdsOwnAnswer) {
  options().modules = {"expires"};
  options().server_extra =
      "ExpiresActive On\nExpiresDefault \"access plus 1 hour\"\nHeader set X-Other yes\n"
      "Alias /plain/ " +
      root().string() + "/\n<Location /plain/>\n  McsCache Off\n</Location>\n";
  start();
  for (const char* name : {"a.txt", "a.html", "large.html"}) {
    const HttpResponse plain = get(std::string("/plain/") + name);
    const HttpResponse hit = get_hit(std::string("/") + name);
    EXPECT_TRUE(hit.body == plain.body);
    std::vector<std::string> names[2];
    for (const auto& [field, value] : plain.headers) names[0].push_back(field);
    for (const auto& [field, value] : hit.headers) {
      if (field != "Cache-Status") names[1].push_back(field);
    }
    EXPECT_THAT(names[1], testing::UnorderedElementsAreArray(names[0]));
    for (const char* field : {"Content-Type", "Content-Length", "Last-Modified", "Accept-Ranges",
                              "Cache-Control", "X-Other", "Connection", "Server"}) {
      EXPECT_EQ(hit.header(field), plain.header(field)) << field;
    }
  }
}

TEST_F(HttpdServingTest, LargeBodyOverEachKindOfConnection) {
  options().tls = true;
  options().http2 = true;
  options().server_extra = "Protocols h2c http/1.1\n";
  start();
  EXPECT_TRUE(get_hit("/large.html").body == large_);
  for (int i = 0; i < 3; ++i) {
    for (const bool http2 : {false, true}) {
      for (const std::string& url : {server_.url("/large.html"), server_.tls_url("/large.html")}) {
        const HttpResponse response = get_url(url, http2);
        EXPECT_EQ(response.http_version, http2 ? 20 : 11);
        EXPECT_TRUE(response.body == large_) << url;
      }
    }
  }
}

// The file itself is handed on, by a descriptor that HTTP/2 keeps beyond the request.
TEST_F(HttpdServingTest, FilesTooLargeForTheCacheOverEachKindOfConnection) {
  options().mcs->size = "16m";
  options().tls = true;
  options().http2 = true;
  options().server_extra = "Protocols h2c http/1.1\nEnableSendfile On\n";
  const std::string body = bytes_of_size(20 << 20);
  write("huge.bin", body);
  start();
  for (const bool http2 : {false, true}) {
    for (const std::string& url : {server_.url("/huge.bin"), server_.tls_url("/huge.bin")}) {
      const HttpResponse response = get_url(url, http2);
      EXPECT_EQ(response.status, 200);
      EXPECT_TRUE(response.body == body) << url << " " << http2;
    }
  }
  const HttpResponse part = get("/huge.bin", {"Range: bytes=15000000-15000099"});
  EXPECT_TRUE(part.body == body.substr(15'000'000, 100));
}

TEST_F(HttpdServingTest, DeflateFilter) {
  options().modules = {"filter", "deflate"};
  options().server_extra = "AddOutputFilterByType DEFLATE text/html\n";
  start();
  for (const auto& [path, text] :
       {std::pair<std::string, std::string>{"/a.html", html_}, {"/large.html", large_}}) {
    const std::string etag = get_hit(path).header("ETag");
    const HttpResponse packed = get(path, {"Accept-Encoding: gzip"});
    EXPECT_EQ(packed.cache_status(), "HIT");
    EXPECT_EQ(packed.header("Content-Encoding"), "gzip");
    EXPECT_THAT(packed.header("ETag"), Not(etag));
    EXPECT_TRUE(gunzip(packed.body) == text);
    EXPECT_TRUE(get(path).body == text);
  }
}

TEST_F(HttpdServingTest, FiltersThatReadOrChangeTheBody) {
  options().modules = {"env", "filter", "substitute", "ratelimit"};
  options().server_extra =
      "Alias /s/ " + root().string() + "/\nAlias /r/ " + root().string() +
      "/\n"
      "<Location /s/>\n  SetOutputFilter SUBSTITUTE\n  SubstituteMaxLineLength 10m\n"
      "  Substitute s/line/LINE/n\n</Location>\n"
      "<Location /r/>\n  SetOutputFilter RATE_LIMIT\n  SetEnv rate-limit 100000\n</Location>\n";
  start();
  get_hit("/large.html");
  std::string changed = large_;
  for (size_t at = 0; (at = changed.find("line", at)) != std::string::npos;) {
    changed.replace(at, 4, "LINE");
  }
  const HttpResponse response = get("/s/large.html");
  EXPECT_EQ(response.cache_status(), "HIT");
  EXPECT_TRUE(response.body == changed);
  EXPECT_TRUE(get("/r/large.html").body == large_);
  EXPECT_TRUE(get("/large.html").body == large_);
}

TEST_F(HttpdServingTest, ServerSideIncludes) {
  options().modules = {"include", "filter"};
  options().location_extra =
      "Options +Includes\nAddType text/html .shtml\nAddOutputFilter INCLUDES .shtml\n";
  write("page.shtml",
        "before <!--#include virtual=\"/a.txt\" --> and "
        "<!--#include virtual=\"/large.html\" --> after");
  start();
  get_hit("/a.txt");
  get_hit("/large.html");
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(get("/page.shtml").body == "before hello world\n and " + large_ + " after");
  }
}

TEST_F(HttpdServingTest, HandlersComeBeforeFiles) {
  options().modules = {"status", "actions", "asis"};
  options().server_extra =
      "ExtendedStatus On\n<Files *.status>\n  SetHandler server-status\n</Files>\n"
      "AddHandler send-as-is .asis\nAddType application/x-type-map .none\n";
  write("x.status", "the file");
  write("x.asis", "Status: 201 Made\nContent-Type: text/plain\n\nbody\n");
  start();
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(get("/x.status").body, HasSubstr("Server Status"));
    EXPECT_EQ(get("/x.asis").status, 201);
    EXPECT_EQ(get("/x.asis").body, "body\n");
  }
}

TEST_F(HttpdServingTest, ErrorDocumentKeepsTheStatus) {
  options().server_extra =
      "ErrorDocument 404 /a.txt\nErrorDocument 403 /large.html\n"
      "<Location /closed>\n  Require all denied\n</Location>\n";
  start();
  for (int i = 0; i < 3; ++i) {
    const HttpResponse missing = get("/missing", {"If-None-Match: *"});
    EXPECT_EQ(missing.status, 404);
    EXPECT_EQ(missing.body, "hello world\n");
    EXPECT_EQ(get("/closed").status, 403);
    EXPECT_TRUE(get("/closed").body == large_);
  }
}

TEST_F(HttpdServingTest, NegotiatedVariants) {
  options().modules = {"negotiation"};
  options().location_extra = "Options +MultiViews\n";
  options().main_extra = "AddLanguage en .en\nAddLanguage de .de\n";
  write("doc.html.en", "english");
  write("doc.html.de", "deutsch", kOld + 5);
  start();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(get("/doc.html", {"Accept-Language: en"}).body, "english");
    EXPECT_EQ(get("/doc.html", {"Accept-Language: de"}).body, "deutsch");
  }
  EXPECT_EQ(get("/doc.html", {"Accept-Language: de"}).cache_status(), "HIT");
  EXPECT_EQ(get("/doc.html.de").cache_status(), "HIT");
}

TEST_F(HttpdServingTest, FileEtagNone) {
  options().server_extra = "FileETag None\n";
  start();
  const HttpResponse hit = get_hit("/a.txt");
  EXPECT_FALSE(hit.has_header("ETag"));
  EXPECT_EQ(get("/a.txt", {"If-Modified-Since: " + hit.header("Last-Modified")}).status, 304);
}

TEST_F(HttpdServingTest, AcceptPathInfo) {
  options().server_extra = "<Location /a.txt>\n  AcceptPathInfo On\n</Location>\n";
  start();
  EXPECT_EQ(get_hit("/a.txt/more").body, "hello world\n");
  EXPECT_EQ(get("/a.html/more").status, 404);
}

TEST_F(HttpdServingTest, EnvironmentSwitchesTheCacheOff) {
  options().modules = {"env", "setenvif"};
  const auto variables = {"no-cache", "mcs-cache-bypass", "mcs-cache-no-store"};
  for (const std::string variable : variables) {
    options().server_extra += "SetEnvIf X-Set ^" + variable + "$ " + variable + "\n";
  }
  start();
  get_hit("/a.txt");
  for (const char* variable : variables) {
    const HttpResponse response = get("/a.txt", {std::string("X-Set: ") + variable});
    EXPECT_EQ(response.cache_status(), "BYPASS") << variable;
    EXPECT_EQ(response.body, "hello world\n");
    EXPECT_EQ(get("/a.txt").cache_status(), "HIT");
  }
}

TEST_F(HttpdServingTest, StatusInTheAccessLog) {
  options().server_extra =
      "CustomLog access_log \"%{mcs-cache-status}e %{mcs-cache-status}n %s "
      "%{mcs-cache-key}e\"\n";
  start();
  get_hit("/a.txt");
  const auto log = [&] { return read_file(server_.prefix() / "access_log").value_or(""); };
  EXPECT_TRUE(
      wait_until([&] { return log().find("HIT HIT 200 site/a.txt\n") != std::string::npos; },
                 std::chrono::seconds(10)));
  EXPECT_THAT(log(), HasSubstr("MISS MISS 200 site/a.txt\n"));
}

// More slow readers of large bodies than threads: they must not occupy them.
TEST_F(HttpdServingTest, SlowReadersOccupyNoThread) {
  options().workers = 1;
  options().max_processes = 1;
  options().threads_per_child = 4;
  options().server_extra = "FlushMaxThreshold 65535\n";  // httpd's default, which the module raises
  options().mcs->size = "128m";
  const std::string body = bytes_of_size(10 << 20);
  write("slow.bin", body);
  start();
  get_hit("/slow.bin");
  std::vector<RawConnection> slow;
  std::vector<std::string> received;
  for (int i = 0; i < 8; ++i) {
    slow.push_back(std::move(RawConnection::open(server_.port()).value()));
    ASSERT_TRUE(slow.back().send("GET /slow.bin HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    received.push_back(slow.back().read_some(100).value_or(""));
    ASSERT_NE(received.back(), "");
  }
  EXPECT_EQ(get("/a.txt").body, "hello world\n");
  for (size_t i = 0; i < slow.size(); ++i) {
    const auto size = [&] { return received[i].find("\r\n\r\n") + 4 + body.size(); };
    while (received[i].find("\r\n\r\n") == std::string::npos || received[i].size() < size()) {
      const auto more = slow[i].read_some();
      ASSERT_TRUE(more && !more->empty()) << received[i].size();
      received[i] += *more;
    }
    EXPECT_TRUE(received[i].ends_with(body));
  }
  EXPECT_EQ(get("/a.txt").body, "hello world\n");
}

TEST_F(HttpdServingTest, RequestWithABodyAndSeveralOnOneConnection) {
  start();
  get_hit("/a.txt");
  auto connection = RawConnection::open(server_.port());
  ASSERT_TRUE(connection);
  ASSERT_TRUE(
      connection->send("GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345"
                       "GET /a.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "3\r\nabc\r\n0\r\n\r\n"
                       "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"));
  for (int i = 0; i < 3; ++i) {
    const auto response = connection->read_response();
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_EQ(response->body, "hello world\n");
  }
}

TEST_F(HttpdServingTest, Http10AndHttp09Clients) {
  start();
  get_hit("/large.html");
  for (const char* request : {"GET /large.html HTTP/1.0\r\n\r\n", "GET /large.html\r\n"}) {
    auto connection = RawConnection::open(server_.port());
    ASSERT_TRUE(connection);
    ASSERT_TRUE(connection->send(request));
    const auto bytes = connection->read_to_close();
    ASSERT_TRUE(bytes);
    EXPECT_TRUE(bytes->ends_with(large_));
  }
}

}  // namespace
}  // namespace mcs::loadtest
