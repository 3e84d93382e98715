// SPDX-License-Identifier: Apache-2.0
// Two servers on one domain, in front of one origin: a response is fetched once for both.
#include <fmt/format.h>

#include <tuple>

#include "loadtest/harness/net.h"
#include "loadtest/harness/origin.h"
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {
namespace {

class ProxiedPairTest : public PairTest {
 protected:
  static std::string load_proxy_modules() {
    std::string text;
    for (const char* module : {"proxy", "proxy_http", "filter", "deflate", "brotli"}) {
      text += fmt::format("LoadModule {0}_module /usr/lib/apache2/modules/mod_{0}.so\n", module);
    }
    return text;
  }

  WebServer& start_proxy(const ServerType& type, const std::string& key_base = "site") {
    ServerOptions options = default_options();
    options.root_location = false;
    options.mcs->key_base.clear();
    options.tls = options.http2 = compress_;
    if (type.kind == ServerKind::kNginx) {
      options.server_extra = "location / { proxy_pass " + origin_.url() +
                             "; mcs_cache on; mcs_cache_key_base " + key_base +
                             "; mcs_cache_purge on;\n" +
                             "  proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;\n"
                             "  proxy_set_header Connection $http_connection;\n" +
                             (compress_ ? "  gzip on; gzip_types *; gzip_proxied any;\n" : "") +
                             "  add_header X-Mcs-Status $mcs_cache_status always; }\n";
    } else {
      options.main_extra = load_proxy_modules();
      options.server_extra = "ProxyPass / " + origin_.url("/") +
                             " upgrade=websocket\n<Location \"/\">\n  McsCache On\n  McsCacheKeyBase " + key_base +
                             "\n  McsCachePurge on\n" +
                             (compress_ ? "  SetOutputFilter BROTLI_COMPRESS;DEFLATE\n" : "") +
                             "</Location>\n";
    }
    return start(type, options);
  }

  // Below /quiet/ a site with a reserve, below /noisy/ one with a quota.
  WebServer& start_sites(const ServerType& type) {
    ServerOptions options = default_options();
    options.root_location = false;
    options.mcs->key_base.clear();
    const bool nginx = type.kind == ServerKind::kNginx;
    if (nginx) {
      options.server_extra = "add_header X-Mcs-Status $mcs_cache_status always;\n";
    } else {
      options.main_extra = load_proxy_modules();
    }
    for (const auto& [site, rule, share] :
         {std::tuple("quiet", nginx ? "reserve" : "Reserve", "10%"), {"noisy", nginx ? "quota" : "Quota", "20m"}}) {
      const std::string url = origin_.url(fmt::format("/{}/", site));
      options.server_extra +=
          nginx ? fmt::format("location /{0}/ {{ proxy_pass {1}; mcs_cache on; mcs_cache_max_object 5m; "
                              "mcs_cache_key_base {0}; mcs_cache_{2} {3}; }}\n", site, url, rule, share)
                : fmt::format("ProxyPass /{0}/ {1}\n<Location /{0}/>\n  McsCache On\n  McsCacheMaxFileSize 5m\n"
                              "  McsCacheKeyBase {0}\n  McsCache{2} {3}\n</Location>\n", site, url, rule, share);
    }
    return start(type, options);
  }

  // Over TLS, with HTTP/2 where the server has it.
  HttpResponse get_coded(const WebServer& server, const std::string& path,
                         const std::string& coding) {
    HttpRequest request;
    request.url = server.tls_url(path);
    request.http2 = true;
    request.coding = coding;
    return send(request);
  }

  RawConnection open_get(const WebServer& server, const std::string& path) {
    auto connection = RawConnection::open(server.port());
    EXPECT_TRUE(connection && connection->send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n"));
    return std::move(*connection);
  }

  static OriginAnswer fresh(const std::string& body) {
    return {200,
            {"Cache-Control: max-age=600", "Content-Type: text/plain; charset=utf-8",
             "ETag: \"one\"", "X-Own: yes"},
            body};
  }

  Origin origin_;
  bool compress_ = false;
};
INSTANTIATE_TEST_SUITE_P(Servers, ProxiedPairTest, every_pair(), pair_name);

TEST_P(ProxiedPairTest, WhatOneFetchesTheOtherHits) {
  const WebServer& filler = start_proxy(first());
  const WebServer& reader = start_proxy(second());
  for (const size_t size : {0u, 100u, 16384u, 500'000u}) {
    // Two ways to write one target.
    const std::string path = "/dir/" + std::to_string(size);
    const std::string body = bytes_of_size(size);
    origin_.on(path, fresh(body));
    EXPECT_EQ(get(filler, path + "?a=%7E1").cache_status(), "MISS");
    const HttpResponse hit = get(reader, path + "?a=~1");
    EXPECT_EQ(hit.status, 200);
    EXPECT_EQ(hit.cache_status(), "HIT");
    EXPECT_TRUE(hit.body == body) << size;
    EXPECT_EQ(hit.header("Content-Type"), "text/plain; charset=utf-8");
    EXPECT_EQ(hit.header("ETag"), "\"one\"");
    EXPECT_EQ(hit.header("X-Own"), "yes");
    EXPECT_EQ(get(reader, path + "?a=~1", {"If-None-Match: \"one\""}).status, 304);
    EXPECT_EQ(origin_.count(path), 1u);
  }
}

TEST_P(ProxiedPairTest, OneRequestForClientsOfBoth) {
  Gate rest;
  const std::string begin(40'000, 'a');
  const std::string end(40'000, 'b');
  origin_.on("/a", [&](OriginExchange& exchange) {
    exchange.send_head(fresh(begin + end));
    exchange.send_body(begin);
    exchange.wait(rest);
    exchange.send_body(end);
  });
  RawConnection filler = open_get(start_proxy(first()), "/a");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 1));
  RawConnection follower = open_get(start_proxy(second()), "/a");
  const auto some = follower.read_some(64);
  ASSERT_TRUE(some && some->starts_with("HTTP/1.1 200"));
  rest.open();
  const auto whole = filler.read_response();
  ASSERT_TRUE(whole) << whole.error().message;
  EXPECT_TRUE(whole->body == begin + end);
  EXPECT_EQ(origin_.count("/a"), 1u);
}

TEST_P(ProxiedPairTest, PurgeOfOneMeetsBoth) {
  origin_.on("/a", [](OriginExchange& exchange) {
    exchange.answer(fresh(std::to_string(exchange.request().number)));
  });
  const WebServer& one = start_proxy(first());
  const WebServer& other = start_proxy(second());
  EXPECT_EQ(get(one, "/a").body, "1");
  EXPECT_EQ(get(other, "/a").cache_status(), "HIT");
  HttpRequest purge;
  purge.method = "PURGE";
  purge.url = other.url("/a");
  EXPECT_EQ(send(purge).status, 200);
  EXPECT_EQ(get(one, "/a").body, "2");
  EXPECT_EQ(get(other, "/a").body, "2");
}

// A tunnel passes untouched, also beside a stored response of the same target, and is waited for by nobody.
TEST_P(ProxiedPairTest, WebSocketsPassBesideStoredResponses) {
  origin_.on("/a", [](OriginExchange& exchange) {
    if (!exchange.request().has_header("Upgrade")) return exchange.answer(fresh("page"));
    exchange.send_raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      "Sec-WebSocket-Accept: x\r\nCache-Control: max-age=600\r\n\r\n\x81\x05hello");
  });
  const WebServer& one = start_proxy(first());
  for (const bool stored : {false, true}) {
    for (int i = 0; i < 2; ++i) {
      auto connection = RawConnection::open(one.port());
      ASSERT_TRUE(connection);
      ASSERT_TRUE(connection->send("GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
                                   "Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: x\r\n"
                                   "Sec-WebSocket-Version: 13\r\n\r\n"));
      const auto all = connection->read_to_close();
      ASSERT_TRUE(all) << all.error().message;
      EXPECT_TRUE(all->starts_with("HTTP/1.1 101 ")) << *all;
      EXPECT_TRUE(all->ends_with("\r\n\r\n\x81\x05hello")) << *all;
    }
    EXPECT_EQ(get(one, "/a").cache_status(), stored ? "HIT" : "MISS");
  }
  EXPECT_EQ(origin_.count("/a"), 5u);
}

TEST_P(ProxiedPairTest, AnotherKeyBaseSharesNothing) {
  origin_.on("/a", fresh("a"));
  const WebServer& one = start_proxy(first());
  const WebServer& other = start_proxy(second(), "another");
  get(one, "/a");
  EXPECT_EQ(get(other, "/a").cache_status(), "MISS");
}

TEST_P(ProxiedPairTest, ANoisySiteLeavesTheReserveOfAnotherAlone) {
  const WebServer& one = start_sites(first());
  const WebServer& other = start_sites(second());
  constexpr int kQuiet = 40;
  constexpr int kNoisy = 100;  // more than the domain's 64 MiB
  const auto path = [](const char* site, int i) { return fmt::format("/{}/{}", site, i); };
  const std::string quiet(100'000, 'q');
  const std::string noisy(1'000'000, 'n');
  for (int i = 0; i < kQuiet; ++i) {
    origin_.on(path("quiet", i), fresh(quiet));
    get(i % 2 == 0 ? one : other, path("quiet", i));
  }
  for (int i = 0; i < kNoisy; ++i) {
    origin_.on(path("noisy", i), fresh(noisy));
    EXPECT_TRUE(get(i % 2 == 0 ? one : other, path("noisy", i)).body == noisy);
  }
  for (int i = 0; i < kQuiet; ++i) {
    const HttpResponse hit = get(i % 2 == 0 ? other : one, path("quiet", i));
    EXPECT_EQ(hit.cache_status(), "HIT") << i;
    EXPECT_TRUE(hit.body == quiet) << i;
  }
  unsigned left = 0;
  for (int i = 0; i < kNoisy; ++i) {
    left += get(one, path("noisy", i), {"Cache-Control: only-if-cached"}).status == 200 ? 1 : 0;
  }
  EXPECT_LE(left, 20u);  // the quota
  EXPECT_GE(left, 15u);
}

TEST_P(ProxiedPairTest, StoredAsItCameAndEncodedForEachClient) {
  compress_ = true;
  const WebServer& filler = start_proxy(first());
  const WebServer& reader = start_proxy(second());
  for (const size_t size : {5'000u, 300'000u}) {
    const std::string path = "/" + std::to_string(size);
    const std::string body(size, 'a');
    origin_.on(path, fresh(body));
    const HttpResponse miss = get_coded(filler, path, "gzip");
    EXPECT_EQ(miss.header("Content-Encoding"), "gzip");
    EXPECT_TRUE(miss.body == body);
    for (const auto& [server, type] : {std::pair(&filler, first()), std::pair(&reader, second())}) {
      for (const std::string coding : {"br", "", "gzip"}) {
        const HttpResponse hit = get_coded(*server, path, coding);
        EXPECT_EQ(hit.cache_status(), "HIT") << server->name() << coding;
        // nginx has no brotli of its own.
        const bool encoded = coding != "br" || type.kind == ServerKind::kHttpd;
        EXPECT_EQ(hit.header("Content-Encoding"), encoded ? coding : "") << server->name();
        EXPECT_TRUE(hit.body == body) << server->name() << coding << hit.body.size();
      }
    }
    EXPECT_EQ(origin_.count(path), 1u);
  }
}

TEST_P(ProxiedPairTest, VariantsThatTheOriginEncodes) {
  compress_ = true;
  const std::string packed = bytes_of_size(50'000);
  const std::string plain(50'000, 'a');
  origin_.on("/a", [&](OriginExchange& exchange) {
    OriginAnswer answer = fresh(plain);
    answer.headers = {"Cache-Control: max-age=600", "Content-Type: text/plain",
                      "Vary: Accept-Encoding"};
    if (exchange.request().header("Accept-Encoding") == "gzip") {
      answer.headers.push_back("Content-Encoding: gzip");
      answer.body = packed;
    }
    exchange.answer(answer);
  });
  const WebServer& one = start_proxy(first());
  const WebServer& other = start_proxy(second());
  for (const WebServer* server : {&one, &other}) {
    for (int i = 0; i < 2; ++i) {
      const HttpResponse raw = get(*server, "/a", {"Accept-Encoding: gzip"});
      EXPECT_EQ(raw.header("Content-Encoding"), "gzip") << server->name();
      EXPECT_TRUE(raw.body == packed) << server->name();
      EXPECT_THAT(raw.header("Vary"), testing::HasSubstr("Accept-Encoding"));
      const HttpResponse identity = get_coded(*server, "/a", "");
      EXPECT_EQ(identity.header("Content-Encoding"), "") << server->name();
      EXPECT_TRUE(identity.body == plain) << server->name();
    }
  }
  EXPECT_EQ(origin_.count("/a"), 2u);
}

}  // namespace
}  // namespace mcs::loadtest
