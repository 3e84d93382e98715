// SPDX-License-Identifier: Apache-2.0
// Proxied responses: what is stored and served again, and how it passes nginx's filters.
#include <cstdio>
#include <ctime>

#include "tests/ngx_mcs_module/proxy_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// The fields of a response that has to be revalidated at each use.
const std::vector<std::string> kStale = {"Cache-Control: max-age=0, must-revalidate",
                                         "Content-Type: text/plain", "ETag: \"one\""};

class NginxProxyResponsesTest : public NginxProxyTest {
 protected:
  void on_revalidated(const std::string& path, const OriginAnswer& answer) {
    origin_.on(path, [answer](OriginExchange& exchange) { exchange.answer_or_304(answer); });
  }
  HttpResponse head(const std::string& path) {
    HttpRequest request;
    request.method = "HEAD";
    request.url = server_.url(path);
    return send(request);
  }
  const std::string large_ = text_of_size(3'000'000);
};

TEST_F(NginxProxyResponsesTest, MissIsStoredAndServedAgain) {
  const std::string date = http_date(std::time(nullptr) - 7);
  origin_.on("/a", {200,
                    {"Cache-Control: max-age=600", "Content-Type: text/plain; charset=utf-8",
                     "ETag: \"one\"", "X-Own: yes", "Date: " + date},
                    "from the origin"});
  start_proxy();
  const HttpResponse miss = get("/a?x=1");
  EXPECT_EQ(miss.status, 200);
  EXPECT_EQ(miss.cache_status(), "MISS");
  EXPECT_EQ(miss.body, "from the origin");
  EXPECT_EQ(miss.header("X-Mcs-Age"), "");
  EXPECT_THAT(miss.header("X-Mcs-Key"), HasSubstr("/a?x=1"));
  const HttpResponse hit = get("/a?x=1");
  EXPECT_EQ(hit.status, 200);
  EXPECT_EQ(hit.cache_status(), "HIT");
  EXPECT_EQ(hit.body, "from the origin");
  EXPECT_EQ(hit.header("Content-Type"), "text/plain; charset=utf-8");
  EXPECT_EQ(hit.header("ETag"), "\"one\"");
  EXPECT_EQ(hit.header("X-Own"), "yes");
  EXPECT_EQ(hit.header("Content-Length"), "15");
  EXPECT_EQ(hit.header("Date"), date);
  EXPECT_GE(std::atoi(hit.header("Age").c_str()), 7);
  EXPECT_EQ(hit.header("X-Mcs-Age"), hit.header("Age"));
  EXPECT_EQ(get("/a?x=2").cache_status(), "MISS");
  EXPECT_EQ(origin_.count("/a"), 2u);
}

TEST_F(NginxProxyResponsesTest, RevalidationKeepsTheBody) {
  on_revalidated("/a", {200, kStale, "the body"});
  start_proxy("proxy_http_version 1.1; proxy_set_header Connection \"\";");
  EXPECT_EQ(get("/a").cache_status(), "MISS");
  for (int i = 0; i < 3; ++i) {
    const HttpResponse again = get("/a");
    EXPECT_EQ(again.status, 200);
    EXPECT_EQ(again.cache_status(), "REVALIDATED");
    EXPECT_EQ(again.body, "the body");
  }
  const HttpResponse unchanged = get("/a", {"If-None-Match: \"one\""});
  EXPECT_EQ(unchanged.status, 304);
  EXPECT_EQ(unchanged.body, "");
  EXPECT_EQ(get("/a", {"If-None-Match: \"other\""}).status, 200);
  const auto requests = origin_.requests("/a");
  ASSERT_EQ(requests.size(), 6u);
  EXPECT_FALSE(requests[0].has_header("If-None-Match"));
  for (size_t i = 1; i < requests.size(); ++i) {
    EXPECT_EQ(requests[i].header("If-None-Match"), "\"one\"") << i;
  }
}

TEST_F(NginxProxyResponsesTest, LargeBodyIsRevalidatedToo) {
  on_revalidated("/a", {200, kStale, large_});
  options().tls = true;
  start_proxy();
  EXPECT_TRUE(get("/a").body == large_);
  const HttpResponse again = get("/a");
  EXPECT_EQ(again.cache_status(), "REVALIDATED");
  EXPECT_TRUE(again.body == large_);
  EXPECT_TRUE(get(server_.tls_url("/a")).body == large_);  // another scheme, another key
  const HttpResponse tls = get(server_.tls_url("/a"));
  EXPECT_EQ(tls.cache_status(), "REVALIDATED");
  EXPECT_TRUE(tls.body == large_);
}

TEST_F(NginxProxyResponsesTest, NewRepresentationReplacesTheOldOne) {
  origin_.on("/a", [](OriginExchange& exchange) {
    exchange.answer(
        {200,
         {"Cache-Control: max-age=0", fmt::format("ETag: \"{}\"", exchange.request().number)},
         std::to_string(exchange.request().number)});
  });
  start_proxy();
  EXPECT_EQ(get("/a").body, "1");
  EXPECT_EQ(get("/a").body, "2");
  EXPECT_EQ(get("/a").cache_status(), "EXPIRED");
  EXPECT_EQ(origin_.requests("/a").back().header("If-None-Match"), "\"2\"");
}

TEST_F(NginxProxyResponsesTest, A304ForSomethingElseIsFetchedAgain) {
  origin_.on("/a", [](OriginExchange& exchange) {
    const OriginRequest& request = exchange.request();
    if (request.has_header("If-None-Match")) {
      exchange.answer({304, {"ETag: \"other\""}, ""});
    } else {
      exchange.answer({200, kStale, std::to_string(request.number)});
    }
  });
  start_proxy();
  EXPECT_EQ(get("/a").body, "1");
  const HttpResponse again = get("/a");
  EXPECT_EQ(again.status, 200);
  EXPECT_EQ(again.body, "3");
  EXPECT_FALSE(origin_.requests("/a")[2].has_header("If-None-Match"));
}

TEST_F(NginxProxyResponsesTest, ClientsConditionsAndRangesDoNotReachTheOrigin) {
  origin_.on("/a", fresh("0123456789"));
  origin_.on("/tagged", {200, {"Cache-Control: max-age=600", "ETag: \"one\""}, "0123456789"});
  start_proxy();
  const HttpResponse part = get("/a", {"Range: bytes=2-4"});
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, "234");
  EXPECT_EQ(part.header("Content-Range"), "bytes 2-4/10");
  EXPECT_EQ(part.header("Content-Length"), "3");
  EXPECT_FALSE(origin_.requests("/a")[0].has_header("Range"));
  const HttpResponse whole = get("/a");
  EXPECT_EQ(whole.cache_status(), "HIT");
  EXPECT_EQ(whole.body, "0123456789");
  const HttpResponse unchanged = get("/tagged", {"If-None-Match: \"one\""});
  EXPECT_EQ(unchanged.status, 304);
  EXPECT_EQ(get("/tagged").cache_status(), "HIT");
  EXPECT_EQ(get("/tagged").body, "0123456789");
}

TEST_F(NginxProxyResponsesTest, RangesHeadAndConditionsOnHits) {
  origin_.on("/a", {200, {"Cache-Control: max-age=600", "ETag: \"one\""}, large_});
  start_proxy();
  get_hit("/a");
  const HttpResponse part = get("/a", {"Range: bytes=1000000-1999999"});
  EXPECT_EQ(part.status, 206);
  EXPECT_TRUE(part.body == large_.substr(1'000'000, 1'000'000));
  EXPECT_EQ(get("/a", {"Range: bytes=-5"}).body, large_.substr(large_.size() - 5));
  const HttpResponse several = get("/a", {"Range: bytes=0-1,10-11"});
  EXPECT_EQ(several.status, 206);
  EXPECT_THAT(several.header("Content-Type"), StartsWith("multipart/byteranges"));
  EXPECT_EQ(get("/a", {"Range: bytes=9000000-"}).status, 416);
  EXPECT_EQ(get("/a", {"Range: bytes=0-1", "If-Range: \"two\""}).status, 200);
  // More ranges than the core answers: nginx's own filter must not either.
  std::string many = "Range: bytes=0-1";
  for (int i = 1; i < 20; ++i) {
    many += fmt::format(",{0}00-{0}01", i);
  }
  EXPECT_EQ(get("/a", {many}).status, 200);
  EXPECT_EQ(get("/a", {"If-None-Match: \"one\""}).status, 304);
  EXPECT_EQ(get("/a", {"If-Match: \"two\""}).status, 412);
  const HttpResponse headers = head("/a");
  EXPECT_EQ(headers.status, 200);
  EXPECT_EQ(headers.cache_status(), "HIT");
  EXPECT_EQ(headers.header("Content-Length"), std::to_string(large_.size()));
  EXPECT_EQ(origin_.count("/a"), 1u);
}

TEST_F(NginxProxyResponsesTest, HeadIsPassedOnAndStoresNothing) {
  origin_.on("/a", fresh("body"));
  start_proxy();
  const HttpResponse headers = head("/a");
  EXPECT_EQ(headers.status, 200);
  EXPECT_EQ(headers.cache_status(), "MISS");
  EXPECT_EQ(headers.header("Content-Length"), "4");
  EXPECT_EQ(origin_.requests("/a")[0].method, "HEAD");
  EXPECT_EQ(get("/a").cache_status(), "MISS");
  EXPECT_EQ(head("/a").cache_status(), "HIT");
  EXPECT_EQ(origin_.count("/a"), 2u);
}

TEST_F(NginxProxyResponsesTest, EachFramingOfTheOrigin) {
  for (const auto& [path, framing] :
       {std::pair("/length", OriginAnswer::kLength), std::pair("/chunked", OriginAnswer::kChunked),
        std::pair("/close", OriginAnswer::kClose)}) {
    for (const size_t size : {size_t{0}, size_t{1}, size_t{20'000}, large_.size()}) {
      OriginAnswer answer = fresh(large_.substr(0, size));
      answer.framing = framing;
      origin_.on(path + std::to_string(size), answer);
    }
  }
  start_proxy("proxy_http_version 1.1;");
  for (const std::string path : {"/length", "/chunked", "/close"}) {
    for (const size_t size : {size_t{0}, size_t{1}, size_t{20'000}, large_.size()}) {
      const std::string url = path + std::to_string(size);
      EXPECT_TRUE(get(url).body == large_.substr(0, size)) << url;
      const HttpResponse hit = get(url);
      EXPECT_EQ(hit.cache_status(), "HIT") << url;
      EXPECT_EQ(hit.header("Content-Length"), std::to_string(size)) << url;
      EXPECT_TRUE(hit.body == large_.substr(0, size)) << url;
    }
  }
}

TEST_F(NginxProxyResponsesTest, SlowClientsGetEveryByteAndStoreEveryByte) {
  const std::string huge = text_of_size(6'000'000);
  origin_.on("/file", fresh(huge));
  origin_.on("/memory", fresh(huge));
  start_proxy("proxy_buffers 4 8k;",
              "location /memory { " + proxy_pass() + " proxy_max_temp_file_size 0; }\n");
  for (const std::string path : {"/file", "/memory"}) {
    RawConnection slow = open_get(path);
    slow.set_receive_buffer(65536);
    ASSERT_TRUE(origin_.wait_for_requests(path, 1));
    const auto response = slow.read_response();
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_TRUE(response->body == huge) << path;
    const HttpResponse hit = get(path);
    EXPECT_EQ(hit.cache_status(), "HIT");
    EXPECT_TRUE(hit.body == huge) << path;
  }
}

TEST_F(NginxProxyResponsesTest, TlsAndHttp2) {
  origin_.on("/a", fresh(large_));
  on_revalidated("/stale", {200, kStale, "the body"});
  options().tls = true;
  options().http2 = true;
  start_proxy("mcs_cache_purge on;");
  for (const bool http2 : {false, true}) {
    for (const char* expected : {"MISS", "HIT", "HIT"}) {
      HttpRequest request;
      request.url = server_.tls_url(http2 ? "/a?2" : "/a");
      request.http2 = http2;
      request.fresh_connection = true;
      const HttpResponse response = send(request);
      EXPECT_EQ(response.http_version, http2 ? 20 : 11);
      EXPECT_EQ(response.cache_status(), expected);
      EXPECT_TRUE(response.body == large_);
    }
    for (const int status : {200, 200, 304}) {
      HttpRequest request;
      request.url = server_.tls_url(http2 ? "/stale?2" : "/stale");
      request.http2 = http2;
      request.fresh_connection = true;
      if (status == 304) {
        request.headers = {"If-None-Match: \"one\""};
      }
      const HttpResponse response = send(request);
      EXPECT_EQ(response.status, status);
      EXPECT_EQ(response.body, status == 304 ? "" : "the body");
    }
  }
  HttpRequest missed;
  missed.url = server_.tls_url("/tagged");
  missed.http2 = true;
  missed.fresh_connection = true;
  missed.headers = {"If-None-Match: \"one\""};
  origin_.on("/tagged", {200, {"Cache-Control: max-age=600", "ETag: \"one\""}, large_});
  EXPECT_EQ(send(missed).status, 304);
  missed.headers.clear();
  EXPECT_EQ(send(missed).cache_status(), "HIT");
  missed.method = "PURGE";
  EXPECT_EQ(send(missed).body, "purged 1\n");
  missed.method = "GET";
  EXPECT_EQ(send(missed).cache_status(), "MISS");
}

TEST_F(NginxProxyResponsesTest, GzipOnHits) {
  origin_.on("/a", {200,
                    {"Cache-Control: max-age=600", "Content-Type: text/plain; charset=utf-8",
                     "ETag: \"one\""},
                    large_});
  start_proxy("gzip on; gzip_types text/plain; gzip_min_length 1; gzip_proxied any;");
  for (const char* expected : {"MISS", "HIT"}) {
    const HttpResponse packed = get("/a", {"Accept-Encoding: gzip"});
    EXPECT_EQ(packed.cache_status(), expected);
    EXPECT_EQ(packed.header("Content-Encoding"), "gzip");
    EXPECT_EQ(packed.header("ETag"), "W/\"one\"");
    ProcessOptions unpack;
    unpack.input = packed.body;
    const auto plain = run_process({"gzip", "-dc"}, unpack);
    ASSERT_TRUE(plain && plain->ok());
    EXPECT_TRUE(plain->out == large_);
  }
  EXPECT_TRUE(get("/a").body == large_);
  EXPECT_EQ(origin_.count("/a"), 1u);
}

TEST_F(NginxProxyResponsesTest, VariantsOfOneResource) {
  origin_.on("/a", [](OriginExchange& exchange) {
    OriginAnswer answer = fresh("for " + exchange.request().header("X-Kind"));
    answer.headers.push_back("Vary: X-Kind");
    exchange.answer(answer);
  });
  start_proxy();
  for (const char* expected : {"MISS", "HIT"}) {
    for (const std::string kind : {"one", "two"}) {
      const HttpResponse response = get("/a", {"X-Kind: " + kind});
      EXPECT_EQ(response.cache_status(), expected);
      EXPECT_EQ(response.body, "for " + kind);
    }
  }
  EXPECT_EQ(origin_.count("/a"), 2u);
}

TEST_F(NginxProxyResponsesTest, WhatIsNotStored) {
  OriginAnswer cookie = fresh("mine");
  cookie.headers = {"Set-Cookie: id=1", "Last-Modified: " + http_date(1'600'000'000)};
  origin_.on("/cookie", cookie);
  origin_.on("/no-store", {200, {"Cache-Control: no-store, max-age=60"}, "a"});
  origin_.on("/silent", {200, {}, "a"});
  origin_.on("/a", fresh("a"));
  start_proxy();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(get("/cookie").cache_status(), "MISS");
    EXPECT_EQ(get("/no-store").cache_status(), "MISS");
    EXPECT_EQ(get("/silent").cache_status(), "MISS");
    EXPECT_EQ(get("/a?secret", {"Authorization: Basic Zm9vOmJhcg=="}).cache_status(), "MISS");
  }
  get_hit("/a");
  EXPECT_EQ(get("/a", {"Cache-Control: no-store"}).body, "a");
  EXPECT_EQ(get("/a", {"Cache-Control: only-if-cached"}).cache_status(), "HIT");
  EXPECT_EQ(get("/b", {"Cache-Control: only-if-cached"}).status, 504);
}

TEST_F(NginxProxyResponsesTest, UnsafeMethodsInvalidate) {
  origin_.on("/a", fresh("a"));
  start_proxy();
  get_hit("/a");
  HttpRequest post;
  post.method = "POST";
  post.url = server_.url("/a");
  post.body = "x=1";
  EXPECT_EQ(send(post).status, 200);
  EXPECT_EQ(origin_.requests("/a").back().body, "x=1");
  EXPECT_NE(get("/a").cache_status(), "HIT");
}

TEST_F(NginxProxyResponsesTest, InterimResponseOfASecondUpstream) {
  Origin broken;
  broken.on("/a", {503, {}, "broken"});
  const std::string hint = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
  origin_.on("/a", [&](OriginExchange& exchange) {
    exchange.send_raw(hint + "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 4\r\n\r\nlast");
  });
  options().http_extra += fmt::format("upstream two {{ server 127.0.0.1:{}; server 127.0.0.1:{} backup; }}\n",
                                      broken.port(), origin_.port());
  start_proxy("", "location = /a { proxy_pass http://two; proxy_http_version 1.1; mcs_cache on;\n"
                  "  proxy_next_upstream http_503; add_header X-Mcs-Status $mcs_cache_status; }\n");
  RawConnection connection = open_get("/a");
  const auto first = connection.read_response();
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(first->status, 103);
  const auto last = connection.read_response();
  ASSERT_TRUE(last) << last.error().message;
  EXPECT_EQ(last->status, 200);
  EXPECT_EQ(last->body, "last");
  EXPECT_EQ(broken.count("/a"), 1u);
  const HttpResponse hit = get("/a");
  EXPECT_EQ(hit.cache_status(), "HIT");
  EXPECT_EQ(hit.body, "last");
}

// The socket takes only a part of them, or nothing: the rest goes out before all that follows, and over TLS
// as it was encrypted.
TEST_F(NginxProxyResponsesTest, InterimResponsesForAClientThatReadsLate) {
  constexpr int kHints = 400;
  const std::string filling(1000, 'f');
  const std::string body = text_of_size(100'000);
  Gate sent;
  origin_.on("/a", [&](OriginExchange& exchange) {
    for (int i = 0; i < kHints; ++i) {
      exchange.send_raw(fmt::format("HTTP/1.1 103 Early Hints\r\nX-N: {}{}\r\n\r\n", i, filling));
    }
    exchange.send_raw(fmt::format("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n",
                                  body.size()));
    sent.admit();
    exchange.send_raw(body);
  });
  origin_.on("/sent", [&](OriginExchange& exchange) {
    exchange.wait(sent);
    exchange.answer({200, {}, ""});
  });
  options().tls = true;
  const int plain = free_port();
  const int tls = free_port();
  start_proxy("proxy_http_version 1.1;", fmt::format("listen 127.0.0.1:{} sndbuf=4k;\n"
                                                     "listen 127.0.0.1:{} ssl sndbuf=4k;\n", plain, tls));
  const std::string ask = "GET /a HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n";
  for (const std::string& client :
       {fmt::format("exec 3<>/dev/tcp/127.0.0.1/{}; printf '{}' >&3; cat <&3", plain, ask),
        fmt::format("printf '{}' | openssl s_client -quiet -connect 127.0.0.1:{} 2>/dev/null", ask, tls)}) {
    // Nobody reads the pipe until the origin has sent all interim responses.
    FILE* pipe = popen(("bash -c \"" + client + "\"").c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    get("/sent");
    std::string got(4 << 20, '\0');
    got.resize(fread(got.data(), 1, got.size(), pipe));
    pclose(pipe);
    size_t at = 0;
    for (int i = 0; i < kHints; ++i) {
      const std::string hint = fmt::format("HTTP/1.1 103 Early Hints\r\nX-N: {}{}\r\n\r\n", i, filling);
      ASSERT_EQ(got.substr(at, hint.size()), hint) << client << i;
      at += hint.size();
    }
    EXPECT_EQ(got.substr(at, 15), "HTTP/1.1 200 OK") << client;
    EXPECT_TRUE(got.ends_with(body)) << client;
  }
}

TEST_F(NginxProxyResponsesTest, StatusesWithoutBody) {
  origin_.on("/204", {204, {"Cache-Control: max-age=60"}, ""});
  origin_.on("/301", {301, {"Location: /204"}, "moved"});
  origin_.on("/404", {404, {"Cache-Control: max-age=60"}, "none"});
  start_proxy();
  for (const char* expected : {"MISS", "HIT"}) {
    for (const int status : {204, 301, 404}) {
      const HttpResponse response = get("/" + std::to_string(status));
      EXPECT_EQ(response.status, status);
      if (status != 301) {
        EXPECT_EQ(response.cache_status(), expected) << status;
      }
    }
  }
}

}  // namespace
}  // namespace mcs::loadtest
