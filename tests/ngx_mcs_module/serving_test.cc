// SPDX-License-Identifier: Apache-2.0
// Answers from the cache on their way through nginx's own phases and filters.
#include <algorithm>
#include <atomic>
#include <thread>

#include "loadtest/harness/net.h"
#include "tests/ngx_mcs_module/nginx_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr int kSlowReader =
    16384;  // receive buffer, bytes: the server has to wait for such a client
constexpr size_t kLarge = 3'000'000;  // sent from shared memory, in many writes
constexpr size_t kHuge = 6'000'000;   // more than the sockets between here and there hold

std::string gunzip(const std::string& packed) {
  ProcessOptions options;
  options.input = packed;
  const auto result = run_process({"gzip", "-dc"}, options);
  EXPECT_TRUE(result && result->ok());
  return result ? result->out : "";
}

class NginxServingTest : public NginxTest {
 protected:
  static void SetUpTestSuite() {
    write("a.txt", "hello world\n");
    write("a.txt.gz", "packed");
    write("empty.txt", "");
    write("large.txt", text_of_size(kLarge));
    write("huge.txt", text_of_size(kHuge));
    write("page.html",
          "<!--#include virtual=\"/a.txt\" -->|<!--#include virtual=\"/large.txt\" -->|"
          "<!--#include virtual=\"/empty.txt\" -->");
    write("index.html", "top\n");
    write("d/index.html", "inner\n");
    write("404.html", "nothing here\n");
    std::filesystem::create_symlink(root() / "a.txt", root() / "link.txt");
    wait_until_trusted();
  }

  const std::string large_ = text_of_size(kLarge);
};

TEST_F(NginxServingTest, ConditionsSwitchTheCacheOff) {
  options().server_extra = "mcs_cache_bypass $arg_bypass;\nmcs_cache_no_store $arg_dont;\n";
  start();
  EXPECT_EQ(get("/a.txt?dont=1").cache_status(), "BYPASS");
  EXPECT_EQ(get("/a.txt").cache_status(), "MISS");
  const HttpResponse response = get("/a.txt?bypass=1");
  EXPECT_EQ(response.cache_status(), "BYPASS");
  EXPECT_EQ(response.body, "hello world\n");
  EXPECT_EQ(get("/a.txt").cache_status(), "HIT");
}

TEST_F(NginxServingTest, HitLooksLikeNginxsOwnAnswer) {
  options().server_extra = "location /plain/ { alias " + root().string() + "/; }\n";
  start();
  const HttpResponse plain = get("/plain/a.txt");
  const HttpResponse hit = get_hit("/a.txt");
  EXPECT_EQ(hit.status, 200);
  EXPECT_EQ(hit.body, "hello world\n");
  for (const char* name : {"Content-Type", "Content-Length", "Last-Modified", "Accept-Ranges",
                           "Connection", "Server"}) {
    EXPECT_EQ(hit.header(name), plain.header(name)) << name;
  }
  EXPECT_THAT(hit.header("ETag"), StartsWith("\""));
}

TEST_F(NginxServingTest, LargeBodyOverEachKindOfConnection) {
  options().tls = true;
  options().http2 = true;
  start();
  EXPECT_EQ(get_hit("/large.txt").body, large_);
  HttpRequest request;
  request.url = server_.tls_url("/large.txt");
  EXPECT_EQ(send(request).body, large_);
  request.http2 = true;
  request.fresh_connection = true;
  const HttpResponse response = send(request);
  EXPECT_EQ(response.http_version, 20);
  EXPECT_EQ(response.body, large_);
}

TEST_F(NginxServingTest, HeadHasTheFieldsAndNoBody) {
  options().tls = true;
  start();
  for (const char* path : {"/a.txt", "/large.txt"}) {
    get_hit(path);
    for (const std::string& url : {server_.url(path), server_.tls_url(path)}) {
      HttpRequest request;
      request.method = "HEAD";
      request.url = url;
      const HttpResponse response = send(request);
      EXPECT_EQ(response.status, 200);
      EXPECT_EQ(response.cache_status(), "HIT");
      EXPECT_EQ(response.header("Content-Length"),
                std::to_string(std::filesystem::file_size(root() / (path + 1))));
      EXPECT_TRUE(response.body.empty());
    }
  }
}

TEST_F(NginxServingTest, HeadFirstThenGet) {
  start();
  HttpRequest request;
  request.method = "HEAD";
  request.url = server_.url("/a.txt");
  EXPECT_EQ(send(request).header("Content-Length"), "12");
  EXPECT_EQ(get("/a.txt").body, "hello world\n");
}

TEST_F(NginxServingTest, EmptyFile) {
  start();
  for (int i = 0; i < 3; ++i) {
    const HttpResponse response = get("/empty.txt");
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.header("Content-Length"), "0");
  }
}

TEST_F(NginxServingTest, ConditionalRequests) {
  start();
  const HttpResponse hit = get_hit("/a.txt");
  const std::string etag = hit.header("ETag");
  const std::string date = hit.header("Last-Modified");
  HttpResponse response = get("/a.txt", {"If-None-Match: " + etag});
  EXPECT_EQ(response.status, 304);
  EXPECT_TRUE(response.body.empty());
  EXPECT_EQ(response.header("ETag"), etag);
  EXPECT_EQ(get("/a.txt", {"If-None-Match: \"other\""}).status, 200);
  EXPECT_EQ(get("/a.txt", {"If-Modified-Since: " + date}).status, 304);
  EXPECT_EQ(get("/a.txt", {"If-Match: \"other\""}).status, 412);
  EXPECT_EQ(get("/a.txt", {"If-Match: " + etag}).status, 200);
  // A large one: what was pinned for a body that is not sent must be given back.
  const std::string large_etag = get_hit("/large.txt").header("ETag");
  EXPECT_EQ(get("/large.txt", {"If-None-Match: " + large_etag}).status, 304);
}

TEST_F(NginxServingTest, EtagOff) {
  options().location_extra = "etag off;\n";
  start();
  EXPECT_FALSE(get_hit("/a.txt").has_header("ETag"));
}

TEST_F(NginxServingTest, Ranges) {
  options().tls = true;
  start();
  get_hit("/large.txt");
  const std::string etag = get("/large.txt").header("ETag");
  for (const std::string& url : {server_.url("/large.txt"), server_.tls_url("/large.txt")}) {
    HttpResponse response = get(url, {"Range: bytes=1000000-1000009"});
    EXPECT_EQ(response.status, 206);
    EXPECT_EQ(response.body, large_.substr(1'000'000, 10));
    EXPECT_EQ(response.header("Content-Range"), "bytes 1000000-1000009/3000000");
    EXPECT_EQ(get(url, {"Range: bytes=-7"}).body, large_.substr(kLarge - 7));
    EXPECT_EQ(get(url, {"Range: bytes=2999990-"}).body, large_.substr(2'999'990));
    EXPECT_EQ(get(url, {"Range: bytes=0-2999999"}).body, large_);
    EXPECT_EQ(get(url, {"Range: bytes=3000000-"}).status, 416);
    EXPECT_EQ(get(url, {"Range: bytes=0-1", "If-Range: \"other\""}).body, large_);
    EXPECT_EQ(get(url, {"Range: bytes=0-1", "If-Range: " + etag}).body, large_.substr(0, 2));
  }
}

TEST_F(NginxServingTest, SeveralRanges) {
  start();
  get_hit("/a.txt");
  const HttpResponse response = get("/a.txt", {"Range: bytes=0-4,6-10"});
  EXPECT_EQ(response.status, 206);
  EXPECT_THAT(response.header("Content-Type"), StartsWith("multipart/byteranges"));
  EXPECT_THAT(response.body, HasSubstr("\r\n\r\nhello\r\n"));
  EXPECT_THAT(response.body, HasSubstr("\r\n\r\nworld\r\n"));
  // nginx may answer with the whole body instead, but never with anything else.
  const HttpResponse large = get("/large.txt", {"Range: bytes=5-9,2999990-2999999"});
  if (large.status == 206) {
    EXPECT_THAT(large.body, HasSubstr("\r\n\r\n" + large_.substr(5, 5) + "\r\n"));
    EXPECT_THAT(large.body, HasSubstr("\r\n\r\n" + large_.substr(2'999'990) + "\r\n"));
  } else {
    EXPECT_EQ(large.body, large_);
  }
}

TEST_F(NginxServingTest, GzipFilter) {
  options().tls = true;
  options().location_extra = "gzip on; gzip_types *; gzip_min_length 1; gzip_vary on;\n";
  start();
  get_hit("/large.txt");
  for (const std::string& url :
       {server_.url("/a.txt"), server_.url("/large.txt"), server_.tls_url("/large.txt")}) {
    const HttpResponse response = get(url, {"Accept-Encoding: gzip"});
    EXPECT_EQ(response.header("Content-Encoding"), "gzip");
    EXPECT_THAT(response.header("ETag"), StartsWith("W/\""));
    EXPECT_TRUE(gunzip(response.body) == (url.ends_with("/a.txt") ? "hello world\n" : large_));
  }
  EXPECT_FALSE(get("/a.txt").has_header("Content-Encoding"));
}

TEST_F(NginxServingTest, GzipStaticComesFirst) {
  options().location_extra = "gzip_static on;\n";
  start();
  const HttpResponse packed = get("/a.txt", {"Accept-Encoding: gzip"});
  EXPECT_EQ(packed.header("Content-Encoding"), "gzip");
  EXPECT_EQ(packed.body, "packed");
  EXPECT_EQ(get_hit("/a.txt").body, "hello world\n");
}

TEST_F(NginxServingTest, FiltersThatReadOrChangeTheBody) {
  options().server_extra =
      "location /sub/ { alias " + root().string() +
      "/; mcs_cache on; mcs_cache_key_base site;\n"
      "  sub_filter_types *; sub_filter AB <ab>; sub_filter_once off; }\n"
      "location /charset/ { alias " +
      root().string() +
      "/; mcs_cache on;\n"
      "  mcs_cache_key_base site; charset koi8-r; source_charset windows-1251;\n"
      "  charset_types *; override_charset on; }\n";
  options().http_extra = "charset_map windows-1251 koi8-r { 41 61; }\n";
  start();
  get_hit("/large.txt");
  std::string expected;
  for (size_t i = 0; i < large_.size(); ++i) {
    if (large_.compare(i, 2, "AB") == 0) {
      expected += "<ab>";
      ++i;
    } else {
      expected += large_[i];
    }
  }
  EXPECT_TRUE(get("/sub/large.txt").body == expected);
  expected = large_;
  std::replace(expected.begin(), expected.end(), 'A', 'a');
  EXPECT_TRUE(get("/charset/large.txt").body == expected);
}

TEST_F(NginxServingTest, ServerSideIncludes) {
  options().location_extra = "ssi on;\n";
  start();
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(get("/page.html").body == "hello world\n|" + large_ + "|");
  }
}

TEST_F(NginxServingTest, SlowReaderGetsEveryByte) {
  options().tls = true;
  start();
  get_hit("/huge.txt");
  auto connection = RawConnection::open(server_.port());
  ASSERT_TRUE(connection);
  connection->set_receive_buffer(kSlowReader);
  ASSERT_TRUE(
      connection->send("GET /huge.txt HTTP/1.1\r\nHost: x\r\n\r\n"
                       "GET /large.txt HTTP/1.1\r\nHost: x\r\n\r\n"));
  // While it does not read, others are served.
  EXPECT_EQ(get_hit("/a.txt").body, "hello world\n");
  const auto first = connection->read_response();
  ASSERT_TRUE(first);
  EXPECT_TRUE(first->body == text_of_size(kHuge));
  const auto second = connection->read_response();
  ASSERT_TRUE(second);
  EXPECT_TRUE(second->body == large_);
}

TEST_F(NginxServingTest, LimitedRate) {
  options().tls = true;
  options().location_extra = "limit_rate 8m;\n";
  start();
  EXPECT_TRUE(get_hit("/large.txt").body == large_);
  EXPECT_TRUE(get(server_.tls_url("/large.txt")).body == large_);
}

TEST_F(NginxServingTest, ClientThatLeavesInTheMiddle) {
  options().tls = true;
  start();
  get_hit("/large.txt");
  for (int i = 0; i < 20; ++i) {
    auto connection = RawConnection::open(server_.port());
    ASSERT_TRUE(connection);
    connection->set_receive_buffer(kSlowReader);
    ASSERT_TRUE(connection->send("GET /large.txt HTTP/1.1\r\nHost: x\r\n\r\n"));
    ASSERT_TRUE(connection->read_some(100));
  }
  EXPECT_TRUE(get("/large.txt").body == large_);
}

TEST_F(NginxServingTest, TryFilesIndexAndRedirects) {
  options().server_extra =
      "error_page 404 /404.html;\n"
      "location /try/ { try_files /nothing $uri /a.txt; mcs_cache on; mcs_cache_key_base site; }\n"
      "location /named/ { try_files $uri @fallback; }\n"
      "location @fallback { rewrite ^ /a.txt break; mcs_cache on; mcs_cache_key_base site; }\n"
      "location = /404.html { internal; mcs_cache on; mcs_cache_key_base site;\n"
      "  add_header X-Mcs-Status $mcs_cache_status always; }\n";
  start();
  EXPECT_EQ(get_hit("/").body, "top\n");
  EXPECT_EQ(get_hit("/d/").body, "inner\n");
  EXPECT_EQ(get("/d").status, 301);
  EXPECT_EQ(get("/try/x").body, "hello world\n");
  EXPECT_EQ(get("/named/x").body, "hello world\n");
  for (int i = 0; i < 2; ++i) {
    const HttpResponse missing = get("/not/there");
    EXPECT_EQ(missing.status, 404);
    EXPECT_EQ(missing.body, "nothing here\n");
    EXPECT_EQ(missing.cache_status(), i == 0 ? "MISS" : "HIT");
  }
  EXPECT_EQ(get("/404.html").status, 404);
}

TEST_F(NginxServingTest, ContentHandlersAreLeftAlone) {
  options().port = free_port();
  options().server_extra =
      "location /p/ { mcs_cache on; proxy_pass http://127.0.0.1:" + std::to_string(options().port) +
      "/; }\n"
      "location = /gif { mcs_cache on; empty_gif; }\n"
      "location /ret { mcs_cache on; return 200 returned; }\n";
  start();
  get_hit("/a.txt");
  EXPECT_EQ(get("/p/a.txt").cache_status(), "HIT");
  EXPECT_EQ(get("/gif").header("Content-Type"), "image/gif");
  EXPECT_EQ(get("/ret").body, "returned");
}

TEST_F(NginxServingTest, OtherMethods) {
  start();
  get_hit("/a.txt");
  HttpRequest request;
  request.url = server_.url("/a.txt");
  request.method = "POST";
  request.body = "x=1";
  EXPECT_EQ(send(request).status, 405);
  request.method = "GET";  // with a body, which must not become the next request
  EXPECT_EQ(send(request).body, "hello world\n");
  EXPECT_EQ(get("/a.txt").body, "hello world\n");
}

TEST_F(NginxServingTest, SymbolicLinksThatAreDisabledStayDisabled) {
  options().server_extra = "location /strict/ { alias " + root().string() +
                           "/; mcs_cache on; mcs_cache_key_base site; disable_symlinks on; }\n";
  start();
  EXPECT_EQ(get_hit("/link.txt").body, "hello world\n");
  EXPECT_EQ(get("/strict/link.txt").status, 403);
  EXPECT_EQ(get("/strict/a.txt").body, "hello world\n");
}

TEST_F(NginxServingTest, RulesInsideIf) {
  options().location_extra = "if ($arg_raw) { mcs_cache off; }\n";
  start();
  get_hit("/a.txt");
  const HttpResponse response = get("/a.txt?raw=1");
  EXPECT_EQ(response.body, "hello world\n");
  EXPECT_EQ(response.cache_status(), "");
}

TEST_F(NginxServingTest, FilesBeyondTheLargestComeFromTheDisk) {
  options().mcs->cache_directives = {{"cache_max_object", "1m"}};
  options().tls = true;
  start();
  for (const std::string& url : {server_.url("/large.txt"), server_.tls_url("/large.txt")}) {
    for (int i = 0; i < 2; ++i) {
      const HttpResponse response = get(url);
      EXPECT_EQ(response.cache_status(), "MISS");
      EXPECT_TRUE(response.body == large_);
    }
    EXPECT_EQ(get(url, {"Range: bytes=5-8"}).body, large_.substr(5, 4));
  }
}

TEST_F(NginxServingTest, CacheStatusFieldWhenSwitchedOn) {
  options().mcs->cache_directives = {{"cache_status_header", "on"}};
  options().server_extra = "location /quiet/ { alias " + root().string() +
                           "/; mcs_cache on; mcs_cache_key_base site; }\n";
  start();
  EXPECT_THAT(get_hit("/a.txt").header("Cache-Status"), HasSubstr("hit"));
  EXPECT_FALSE(get("/quiet/a.txt").has_header("Cache-Status"));
}

TEST_F(NginxServingTest, StatusInTheAccessLog) {
  options().http_extra = "log_format mcs '$uri $mcs_cache_status';\n";
  options().location_extra = "access_log " + (server_.prefix() / "mcs.log").string() + " mcs;\n";
  start();
  get_hit("/a.txt");
  // nginx writes the line after the response has been sent.
  const auto log = [&] { return read_file(server_.prefix() / "mcs.log").value_or(""); };
  wait_until([&] { return log().find("HIT\n") != std::string::npos; }, std::chrono::seconds(20));
  EXPECT_EQ(log(), "/a.txt MISS\n/a.txt HIT\n");
}

TEST_F(NginxServingTest, ManyClientsAskAtOnceForWhatIsNotThereYet) {
  options().workers = 2;
  start();
  constexpr int kClients = 16;
  std::vector<std::thread> clients;
  std::atomic<int> right = 0;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&] {
      HttpClient client;
      const auto response = client.get(server_.url("/large.txt"));
      right += response && response->body == large_;
    });
  }
  for (std::thread& client : clients) {
    client.join();
  }
  EXPECT_EQ(right, kClients);
}

TEST_F(NginxServingTest, PurgeOfAFile) {
  options().mcs->cache_directives = {{"cache_purge", "on"}};
  options().server_extra = "location /closed/ { alias " + root().string() +
                           "/; mcs_cache on; mcs_cache_purge 192.0.2.1; }\n"
                           "location /other/ { alias " +
                           root().string() + "/; mcs_cache on; }\n";
  start();
  get_hit("/a.txt");
  const auto purge = [this](const std::string& path) {
    HttpRequest request;
    request.method = "PURGE";
    request.url = server_.url(path);
    return send(request);
  };
  const HttpResponse purged = purge("/a.txt");
  EXPECT_EQ(purged.status, 200);
  EXPECT_EQ(purged.body, "purged 1\n");
  EXPECT_EQ(get("/a.txt").cache_status(), "MISS");
  EXPECT_EQ(purge("/nothing.txt").body, "purged 0\n");
  EXPECT_EQ(purge("/closed/a.txt").status, 403);
  EXPECT_EQ(purge("/other/a.txt").status, 405);
}

}  // namespace
}  // namespace mcs::loadtest
