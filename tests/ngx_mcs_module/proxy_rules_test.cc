// SPDX-License-Identifier: Apache-2.0
// Stale responses, refreshes behind them, purging, and how the directives meet nginx's own.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>

#include "tests/ngx_mcs_module/proxy_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::HasSubstr;
using testing::Not;

class NginxProxyRulesTest : public NginxProxyTest {
 protected:
  // Stale from the start; the body is the number of the request.
  void on_numbered(const std::string& path, const std::string& cache_control) {
    origin_.on(path, [cache_control](OriginExchange& exchange) {
      exchange.answer(
          {200, {"Cache-Control: " + cache_control}, std::to_string(exchange.request().number)});
    });
  }
  HttpResponse purge(const std::string& path) {
    HttpRequest request;
    request.method = "PURGE";
    request.url = server_.url(path);
    return send(request);
  }
  // GETs until the body is `body`.
  bool wait_for_body(const std::string& url, const std::string& body) {
    return wait_until([&] { return get(url).body == body; }, std::chrono::seconds(10));
  }
};

TEST_F(NginxProxyRulesTest, RefreshBehindAStaleResponse) {
  Gate refresh;
  origin_.on("/a", [&](OriginExchange& exchange) {
    const OriginRequest& request = exchange.request();
    if (request.number > 1) {
      exchange.wait(refresh);
    }
    const char* freshness = request.number > 1 ? "max-age=600" : "max-age=0";
    exchange.answer({200,
                     {std::string("Cache-Control: stale-while-revalidate=600, ") + freshness},
                     std::to_string(request.number)});
  });
  start_proxy("proxy_set_header X-Scheme $scheme;");
  EXPECT_EQ(get("/a").cache_status(), "MISS");
  // Several on the same connection: none of them waits for the origin.
  EXPECT_EQ(get("/a", {"Range: bytes=0-0", "X-Own: yes"}).cache_status(), "STALE");
  for (int i = 0; i < 3; ++i) {
    const HttpResponse stale = get("/a");
    EXPECT_EQ(stale.cache_status(), "UPDATING");
    EXPECT_EQ(stale.body, "1");
    EXPECT_FALSE(stale.new_connection);
  }
  ASSERT_TRUE(origin_.wait_for_requests("/a", 2));
  refresh.open();
  ASSERT_TRUE(wait_for_body("/a", "2"));
  EXPECT_EQ(get("/a").cache_status(), "HIT");
  const auto requests = origin_.requests("/a");
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[1].method, "GET");
  EXPECT_EQ(requests[1].header("X-Own"), "yes");
  EXPECT_EQ(requests[1].header("X-Scheme"), "http");
  EXPECT_FALSE(requests[1].has_header("Range"));
}

TEST_F(NginxProxyRulesTest, RefreshOfWhatCameOverTls) {
  origin_.on("/a", [](OriginExchange& exchange) {
    const OriginRequest& request = exchange.request();
    const char* freshness = request.number % 2 == 0 ? "max-age=600" : "max-age=0";
    exchange.answer({200,
                     {std::string("Cache-Control: stale-while-revalidate=600, ") + freshness},
                     std::to_string(request.number)});
  });
  options().tls = true;
  options().http2 = true;
  options().access_log = true;
  start_proxy("proxy_set_header X-Scheme $scheme; allow 127.0.0.1; deny all;");
  for (const bool http2 : {false, true}) {
    HttpRequest request;
    request.url = server_.tls_url(http2 ? "/a?2" : "/a");
    request.http2 = http2;
    request.fresh_connection = true;
    EXPECT_EQ(send(request).cache_status(), "MISS");
    const std::string old = http2 ? "3" : "1";
    const HttpResponse stale = send(request);
    EXPECT_EQ(stale.http_version, http2 ? 20 : 11);
    EXPECT_EQ(stale.cache_status(), "STALE");
    EXPECT_EQ(stale.body, old);
    const std::string renewed = http2 ? "4" : "2";
    EXPECT_TRUE(
        wait_until([&] { return send(request).body == renewed; }, std::chrono::seconds(10)));
  }
  for (const OriginRequest& request : origin_.requests("/a")) {
    EXPECT_EQ(request.header("X-Scheme"), "https");
  }
  EXPECT_EQ(origin_.count("/a"), 4u);
}

TEST_F(NginxProxyRulesTest, StaleWhileTheOriginFails) {
  on_numbered("/a", "max-age=0, stale-if-error=600");
  on_numbered("/b", "max-age=0, stale-if-error=600");
  origin_.on("/50x.html", {200, {}, "an error page"});
  start_proxy("error_page 500 502 504 /50x.html; proxy_intercept_errors on;",
              "location = /50x.html { proxy_pass " + origin_.url() + "; }\n");
  EXPECT_EQ(get("/a").body, "1");
  EXPECT_EQ(get("/b").body, "1");
  origin_.on("/b", {500, {}, "broken"});
  const HttpResponse instead = get("/b");
  EXPECT_EQ(instead.status, 200);
  EXPECT_EQ(instead.cache_status(), "STALE");
  EXPECT_EQ(instead.body, "1");
  // What nothing stands in for.
  origin_.on("/c", {500, {}, "broken"});
  const HttpResponse broken = get("/c");
  EXPECT_EQ(broken.status, 500);
  EXPECT_EQ(broken.body, "an error page");
  origin_.down();
  const HttpResponse stale = get("/a");
  EXPECT_EQ(stale.status, 200);
  EXPECT_EQ(stale.cache_status(), "STALE");
  EXPECT_EQ(stale.body, "1");
  EXPECT_EQ(get("/d").status, 502);
  origin_.up();
  EXPECT_EQ(get("/a").body, "2");
}

TEST_F(NginxProxyRulesTest, StaleWhenTheOriginIsSilentOrTalksNonsense) {
  Gate never;
  on_numbered("/a", "max-age=0, stale-if-error=600");
  on_numbered("/b", "max-age=0, stale-if-error=600");
  on_numbered("/c", "max-age=0, stale-if-error=600");
  start_proxy("proxy_read_timeout 200ms;");
  EXPECT_EQ(get("/a").body, "1");
  EXPECT_EQ(get("/c").body, "1");
  EXPECT_EQ(get("/b").body, "1");
  origin_.on("/a", [&](OriginExchange& exchange) { exchange.wait(never); });
  origin_.on("/b", [](OriginExchange& exchange) { exchange.send_raw("HTTP/1.1 what\r\n\r\n"); });
  origin_.on("/c", [](OriginExchange& exchange) {
    exchange.send_raw("HTTP/1.1 200 OK\r\n: nothing\r\n\r\n");
  });
  for (const char* path : {"/a", "/b", "/c"}) {
    const HttpResponse stale = get(path);
    EXPECT_EQ(stale.status, 200) << path;
    EXPECT_EQ(stale.cache_status(), "STALE") << path;
    EXPECT_EQ(stale.body, "1") << path;
  }
}

TEST_F(NginxProxyRulesTest, ErrorPagesWithoutAnythingStored) {
  start_proxy("error_page 502 @other;",
              "location @other { return 200 \"in its place\"; }\n"
              "location /plain { " +
                  proxy_pass() + " }\n");
  origin_.down();
  const HttpResponse other = get("/a");
  EXPECT_EQ(other.status, 502);
  EXPECT_EQ(other.body, "in its place");
  const HttpResponse plain = get("/plain");
  EXPECT_EQ(plain.status, 502);
  EXPECT_THAT(plain.body, HasSubstr("Bad Gateway"));
  HttpRequest head;
  head.method = "HEAD";
  head.url = server_.url("/plain");
  EXPECT_EQ(send(head).status, 502);
  EXPECT_EQ(get("/plain").status, 502);  // nobody holds the key
}

// A page in their place is stored by nobody, so nobody waits for it.
TEST_F(NginxProxyRulesTest, ResponsesThatErrorPagesReplaceAreNotWaitedFor) {
  Gate gate;
  origin_.on("/a", [&](OriginExchange& exchange) {
    if (exchange.request().number > 1) exchange.wait(gate);
    exchange.answer({404, {}, "of the origin"});
  });
  start_proxy("error_page 404 @page; proxy_intercept_errors on; mcs_cache_valid 404 600s;\n"
              "mcs_cache_lock_timeout 60s;",
              "location @page { return 200 \"in its place\"; }\n");
  EXPECT_EQ(get("/a").body, "in its place");
  RawConnection second = open_get("/a");
  RawConnection third = open_get("/a");
  EXPECT_TRUE(origin_.wait_for_requests("/a", 3));
  gate.open();
  for (RawConnection* client : {&second, &third}) {
    const auto response = client->read_response();
    ASSERT_TRUE(response);
    EXPECT_EQ(response->body, "in its place");
  }
}

TEST_F(NginxProxyRulesTest, FallbackThatIsCachedUnderTheSameKey) {
  origin_.on("/a", {500, {}, "broken"});
  Origin other;
  other.on("/a", fresh("from the other"));
  start_proxy("error_page 500 = @other; proxy_intercept_errors on;",
              "location @other { proxy_pass " + other.url() + "; mcs_cache on;\n" +
                  "  add_header X-Mcs-Status $mcs_cache_status; }\n");
  const HttpResponse first = get("/a");
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.body, "from the other");
  EXPECT_EQ(first.cache_status(), "MISS");
  EXPECT_EQ(get("/a").cache_status(), "HIT");
}

TEST_F(NginxProxyRulesTest, InternalRedirectOfTheOrigin) {
  origin_.on("/a", {200, {"X-Accel-Redirect: /inside/b"}, ""});
  origin_.on("/inside/b", fresh("inside"));
  origin_.on("/denied", {200, {"X-Accel-Redirect: /forbidden/b"}, ""});
  origin_.on("/picture", {200, {"X-Accel-Redirect: /gif"}, ""});
  start_proxy(
      "",
      std::string("location = /gif { internal; empty_gif; mcs_cache on; mcs_cache_valid 9s; }\n") +
          "location /inside/ { internal; " + proxy_pass() + " }\n" +
          "location /forbidden/ { internal; deny all; error_page 403 =200 @nice; }\n"
          "location @nice { return 200 \"error page\"; }\n");
  EXPECT_EQ(get("/denied").body, "error page");
  EXPECT_EQ(get("/picture").header("Content-Type"), "image/gif");
  EXPECT_EQ(get("/picture").body.size(), 43u);
  EXPECT_EQ(get("/a").body, "inside");
  const HttpResponse again = get("/a");
  EXPECT_EQ(again.body, "inside");
  EXPECT_EQ(again.cache_status(), "HIT");
  EXPECT_EQ(origin_.count("/inside/b"), 1u);
}

TEST_F(NginxProxyRulesTest, SubrequestsAreCachedForThemselves) {
  const std::string large = text_of_size(300'000);
  origin_.on("/page", {200,
                       {"Content-Type: text/html", "Cache-Control: max-age=600"},
                       "<!--#include virtual=\"/part\" -->|<!--#include virtual=\"/large\" -->"});
  origin_.on("/part", fresh("part"));
  origin_.on("/large", fresh(large));
  start_proxy("ssi on;");
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(get("/page").body == "part|" + large) << i;
  }
  EXPECT_EQ(origin_.count(), 3u);
}

// Their locations may be closed to clients, who must not get what was made there.
TEST_F(NginxProxyRulesTest, SubrequestsHaveKeysThatNoClientCanName) {
  Origin inside;
  inside.on("/report", [](OriginExchange& exchange) {
    const size_t number = exchange.request().number;
    exchange.answer({200,
                     {number == 1 ? "Cache-Control: max-age=0, stale-while-revalidate=600"
                                  : "Cache-Control: max-age=600"},
                     fmt::format("secret {}", number)});
  });
  origin_.on("/page", {200,
                       {"Content-Type: text/html", "Cache-Control: max-age=600"},
                       "<!--#include virtual=\"/in/report\" -->"});
  origin_.on("/report", fresh("public"));
  start_proxy("ssi on;", "location /in/ { internal; rewrite ^/in(/.*) $1 break; mcs_cache on;\n"
                         "  proxy_pass " + inside.url() + "; }\n");
  EXPECT_EQ(get("/page").body, "secret 1");
  EXPECT_EQ(get("/report").body, "public");
  // Stale: nobody else can ask for it.
  EXPECT_EQ(get("/page").body, "secret 2");
  EXPECT_EQ(get("/page").body, "secret 2");
  EXPECT_EQ(get("/report").cache_status(), "HIT");
  EXPECT_EQ(inside.count(), 2u);
  EXPECT_EQ(origin_.count("/report"), 1u);
}

TEST_F(NginxProxyRulesTest, AccessIsCheckedBeforeEveryHit) {
  origin_.on("/a", fresh("secret"));
  origin_.on("/auth", [](OriginExchange& exchange) {
    exchange.answer({exchange.request().header("X-Pass") == "yes" ? 204 : 403, {}, ""});
  });
  start_proxy("auth_request /auth;",
              "location = /auth { internal; " + proxy_pass() + " mcs_cache_valid any 60s; }\n");
  EXPECT_EQ(get("/a", {"X-Pass: yes"}).body, "secret");
  EXPECT_EQ(get("/a", {"X-Pass: yes"}).cache_status(), "HIT");
  EXPECT_EQ(get("/a").status, 403);
}

TEST_F(NginxProxyRulesTest, PurgeFromAllowedAddressesOnly) {
  on_numbered("/a", "max-age=600");
  on_numbered("/b", "max-age=600");
  start_proxy("mcs_cache_purge 127.0.0.1;", "location /b { " + proxy_pass() +
                                                " mcs_cache_purge 192.0.2.1; }\n" +
                                                "location /c { " + proxy_pass() + " }\n");
  get_hit("/a");
  EXPECT_EQ(purge("/a").status, 200);
  EXPECT_EQ(get("/a").body, "2");
  get_hit("/b");
  EXPECT_EQ(purge("/b").status, 403);
  EXPECT_EQ(get("/b").body, "1");
  // Without the directive the method is the origin's.
  origin_.on("/c", [](OriginExchange& exchange) {
    exchange.answer({200, {}, exchange.request().method});
  });
  EXPECT_EQ(purge("/c").body, "PURGE");
}

TEST_F(NginxProxyRulesTest, PurgeOnMeansThisMachine) {
  on_numbered("/a", "max-age=600");
  start_proxy("mcs_cache_purge on;");
  get_hit("/a");
  EXPECT_EQ(purge("/a").status, 200);
  EXPECT_EQ(get("/a").body, "2");
}

TEST_F(NginxProxyRulesTest, BypassNoStoreAndKey) {
  on_numbered("/a", "max-age=600");
  start_proxy(
      "mcs_cache_bypass $arg_bypass; mcs_cache_no_store $arg_dont;\n"
      "mcs_cache_key $uri-$arg_k;");
  EXPECT_EQ(get("/a?dont=1").cache_status(), "MISS");
  EXPECT_EQ(get("/a?k=1&x=1").body, "2");
  const HttpResponse hit = get("/a?k=1&x=2");
  EXPECT_EQ(hit.cache_status(), "HIT");
  EXPECT_EQ(hit.header("X-Mcs-Key"), "/a-1");
  const HttpResponse bypass = get("/a?k=1&bypass=1");
  EXPECT_EQ(bypass.cache_status(), "BYPASS");
  EXPECT_EQ(bypass.body, "3");
  EXPECT_EQ(get("/a?k=1").body, "3");
}

TEST_F(NginxProxyRulesTest, RulesOfTheCoreAsDirectives) {
  for (const char* path : {"/valid", "/uses", "/if"}) {
    origin_.on(path, {200, {}, path});
  }
  on_numbered("/status", "max-age=600");
  start_proxy("if ($arg_if) { mcs_cache_valid 200 60s; }",
              "location /valid { " + proxy_pass() + " mcs_cache_valid 200 10m; }\n" +
                  "location /uses { " + proxy_pass() +
                  " mcs_cache_valid 10m; mcs_cache_min_uses 3; }\n" + "location /status { " +
                  proxy_pass() + " mcs_cache_status_header on; }\n");
  get_hit("/valid");
  for (const char* expected : {"MISS", "MISS", "MISS", "HIT"}) {
    EXPECT_EQ(get("/uses").cache_status(), expected);
  }
  get_hit("/if?if=1");
  EXPECT_EQ(get("/if").cache_status(), "MISS");
  EXPECT_THAT(get("/status").header("Cache-Status"), HasSubstr("fwd=uri-miss"));
  EXPECT_THAT(get("/status").header("Cache-Status"), HasSubstr("hit"));
}

TEST_F(NginxProxyRulesTest, RewrittenRequestsHaveKeysOfTheirOwn) {
  origin_.on("/one", fresh("one"));
  origin_.on("/two", fresh("two"));
  start_proxy("if ($http_x_two) { rewrite ^ /two break; } rewrite ^ /one break;");
  EXPECT_EQ(get("/a").body, "one");
  EXPECT_EQ(get("/a", {"X-Two: yes"}).body, "two");
  EXPECT_EQ(get("/a").cache_status(), "HIT");
}

// One program makes all pages, and sees what was asked for.
TEST_F(NginxProxyRulesTest, PagesOfAFrontControllerAreApart) {
  origin_.on("*", [](OriginExchange& exchange) {
    const OriginRequest& request = exchange.request();
    exchange.answer(fresh(fmt::format("{} {}", request.target, request.number)));
  });
  origin_.on("/site/stale", [](OriginExchange& exchange) {
    const size_t number = exchange.request().number;
    exchange.answer({200,
                     {number == 1 ? "Cache-Control: max-age=0, stale-while-revalidate=600"
                                  : "Cache-Control: max-age=600"},
                     std::to_string(number)});
  });
  start_proxy("", "location /site/ { try_files $uri /index.php?$args; }\n"
                  "location /bare/ { rewrite ^ /index.php last; }\n"
                  "location = /index.php {\n" +
                      fmt::format("proxy_pass http://127.0.0.1:{}$request_uri;", origin_.port()) +
                      "mcs_cache on; mcs_cache_key_base site; mcs_cache_purge on;\n"
                      "add_header X-Mcs-Status $mcs_cache_status always; }\n");
  for (const std::string path : {"/site/a", "/site/b", "/bare/a", "/bare/b"}) {
    EXPECT_EQ(get_hit(path).body, path + " 1");
    EXPECT_EQ(get_hit(path + "?x=1").body, path + "?x=1 2");
    EXPECT_EQ(get_hit(path + "?x=2").body, path + "?x=2 3");
  }
  HttpRequest purge;
  purge.method = "PURGE";
  purge.url = server_.url("/site/b?x=1");
  EXPECT_EQ(send(purge).body, "purged 1\n");
  EXPECT_EQ(get("/site/b?x=1").body, "/site/b?x=1 4");
  purge.url = server_.url("/site/*");
  EXPECT_EQ(send(purge).body, "purged 6\n");
  EXPECT_EQ(get("/bare/a").cache_status(), "HIT");
  HttpRequest post;
  post.method = "POST";
  post.url = server_.url("/bare/a");
  post.body = "x";
  send(post);
  EXPECT_EQ(get("/bare/a").cache_status(), "MISS");

  EXPECT_EQ(get("/site/stale").body, "1");
  EXPECT_EQ(get("/site/stale").cache_status(), "STALE");
  EXPECT_TRUE(wait_until([&] { return get("/site/stale").body == "2"; }, std::chrono::seconds(10)));
}

// What a purge of a target meets is all that this target shows.
TEST_F(NginxProxyRulesTest, PurgeOfADirectoryMeetsWhatItsIndexShows) {
  origin_.on("*", [](OriginExchange& exchange) {
    exchange.answer(fresh(fmt::format("page {}", exchange.request().number)));
  });
  write("index.php", "");
  write("dir/index.html", "file");
  write("dir/other.html", "other");
  write("dir/below/a.html", "below");
  wait_until_trusted();
  start_proxy("", "location /app/ { alias " + root().string() +
                      "/; index index.php; mcs_cache on; mcs_cache_key_base site; mcs_cache_purge on; }\n"
                      "location /dir/ { root " + root().string() +
                      "; mcs_cache on; mcs_cache_key_base files; mcs_cache_purge on; mcs_cache_valid 600s;\n"
                      "  add_header X-Mcs-Status $mcs_cache_status; }\n"
                      "location ~ [.]php$ { mcs_cache_key_base site;" + proxy_pass() + " }\n");
  EXPECT_EQ(get_hit("/app/?x").body, "page 1");
  EXPECT_EQ(get_hit("/app/").body, "page 2");
  EXPECT_EQ(purge("/app/").body, "purged 1\n");
  EXPECT_EQ(get("/app/?x").cache_status(), "HIT");
  EXPECT_EQ(get("/app/").body, "page 3");
  for (const char* path : {"/dir/", "/dir/other.html", "/dir/below/a.html"}) get_hit(path);
  purge("/dir/");
  EXPECT_EQ(get("/dir/").cache_status(), "MISS");
  EXPECT_EQ(get("/dir/below/a.html").cache_status(), "HIT");
}

TEST_F(NginxProxyRulesTest, HandlersThatAConditionChoosesHaveKeysOfTheirOwn) {
  Origin beta;
  Origin gamma;
  Origin delta;
  Origin epsilon;
  delta.on("/a", fresh("delta"));
  epsilon.on("/a", fresh("epsilon"));
  origin_.on("/a", fresh("alpha"));
  beta.on("/a", fresh("beta"));
  gamma.on("/a", fresh("gamma"));
  const auto pass = [](const Origin& origin) { return "proxy_pass " + origin.url() + ";"; };
  start_proxy("if ($http_x_beta) { " + pass(beta) + " }\n"
              "if ($http_x_gamma) { return 418; }\n"
              "if ($http_x_note) { set $noted 1; }\n"
              "set $c $http_x_delta; if ($c) { " + pass(delta) + " }\n"
              "set $c $http_x_epsilon; if ($c) { " + pass(epsilon) + " }\n"
              "error_page 418 = @gamma; mcs_cache_purge on;",
              "location @gamma { " + pass(gamma) +
                  " mcs_cache on; add_header X-Mcs-Status $mcs_cache_status; }\n");
  for (int round = 0; round < 2; ++round) {
    const std::string status = round == 0 ? "MISS" : "HIT";
    for (const auto& [field, body] : {std::pair("X-None: 1", "alpha"), {"X-Beta: 1", "beta"},
                                      {"X-Gamma: 1", "gamma"}, {"X-Delta: 1", "delta"},
                                      {"X-Epsilon: 1", "epsilon"}}) {
      const HttpResponse response = get("/a", {field});
      EXPECT_EQ(response.body, body);
      EXPECT_EQ(response.cache_status(), status) << field;
    }
  }
  EXPECT_EQ(get("/a", {"X-Note: 1"}).cache_status(), "HIT");  // the same handler
  EXPECT_EQ(purge("/a").body, "purged 5\n");
}

// What it is allowed to see is for the first handler to say, each time.
TEST_F(NginxProxyRulesTest, HandlersThatAreAskedFirstAreAskedAgain) {
  Origin files;
  origin_.on("/named", {200, {"X-Accel-Redirect: @files"}, ""});
  origin_.on("/same", {200, {"X-Accel-Redirect: /same"}, ""});
  files.on("/named", fresh("secret"));
  files.on("/same", fresh("secret"));
  const std::string pass = "proxy_pass " + files.url() +
                           "; mcs_cache on; add_header X-Mcs-Status $mcs_cache_status;";
  start_proxy("mcs_cache_purge on; rewrite ^/from$ /same break;",
              "location @files { if ($http_x_note) { set $noted 1; } " + pass + " }\n"
              "location = /same { internal; " + pass + " }\n"
              "location /try { try_files /nothing @tried; mcs_cache on; }\n"
              "location @tried { if ($http_x_note) { set $noted 1; }" + proxy_pass() + " }\n");
  for (const char* path : {"/named", "/from"}) {
    for (size_t asked = 1; asked < 4; ++asked) {
      const HttpResponse response = get(path);
      EXPECT_EQ(response.body, "secret");
      EXPECT_EQ(response.cache_status(), asked == 1 ? "MISS" : "HIT");
      EXPECT_EQ(origin_.count(path == std::string("/from") ? "/same" : path), asked);
    }
  }
  EXPECT_EQ(get("/named", {"X-Note: 1"}).body, "secret");
  EXPECT_EQ(get("/named").cache_status(), "HIT");
  EXPECT_EQ(origin_.count("/named"), 5u);
  EXPECT_EQ(files.count("/named"), 2u);
  EXPECT_EQ(purge("/named").body, "purged 2\n");
  EXPECT_EQ(get("/named").cache_status(), "MISS");
  origin_.on("/try", fresh("tried"));
  EXPECT_EQ(get("/try").body, "tried");
  EXPECT_EQ(get("/try", {"X-Note: 1"}).cache_status(), "HIT");
  EXPECT_EQ(origin_.count("/try"), 1u);
}

// Not where it stands, but its condition is what tells an `if` from others.
TEST_F(NginxProxyRulesTest, ConditionsAreToldApartWhereverTheyStand) {
  Origin beta;
  Origin gamma;
  beta.on("/a", fresh("beta"));
  gamma.on("/a", fresh("gamma"));
  origin_.on("/a", fresh("again"));
  const auto condition = [](const std::string& field, const Origin& origin) {
    return "if ($http_x_" + field + ") { proxy_pass " + origin.url() + "; }";
  };
  const std::string lines = condition("beta", beta) + condition("gamma", gamma) +
                            condition("again", origin_);
  const auto expect = [&](const char* status) {
    for (const char* name : {"beta", "gamma", "again"}) {
      const HttpResponse response = get("/a", {fmt::format("X-{}: 1", name)});
      EXPECT_EQ(response.body, name);
      EXPECT_EQ(response.cache_status(), status) << name;
    }
  };
  start_proxy(lines);
  expect("MISS");
  expect("HIT");
  std::string& all = options().server_extra;
  all.replace(all.find(lines), lines.size(),
              "# more\n\n" + condition("gamma", gamma) + "\n" + condition("again", origin_) + "\n" +
                  condition("beta", beta));
  const auto before = server_.worker_pids();
  ASSERT_TRUE(server_.reload());
  for (const pid_t pid : before) {
    EXPECT_TRUE(wait_until([&] { return kill(pid, 0) != 0; }, std::chrono::seconds(10)));
  }
  expect("HIT");
}

// Rewritten arguments may have a "?" in them, which does not begin the query.
TEST_F(NginxProxyRulesTest, ArgumentsThatARewriteMadeAreNoQuery) {
  origin_.on("/i", [](OriginExchange& exchange) { exchange.answer(fresh(exchange.request().target)); });
  start_proxy("if ($args = one?two) { rewrite ^ /i?x=a? break; } rewrite ^ /i?x=a?one? break;");
  EXPECT_EQ(get("/p?one?two").body, "/i?x=a");
  EXPECT_EQ(get("/p?two").body, "/i?x=a?one");
}

TEST_F(NginxProxyRulesTest, HostsAndSchemesAreApart) {
  origin_.on("/a", [](OriginExchange& exchange) {
    exchange.answer(fresh(exchange.request().header("X-Host")));
  });
  start_proxy("proxy_set_header X-Host $http_host;");
  EXPECT_EQ(get("/a", {"Host: one.test"}).body, "one.test");
  EXPECT_EQ(get("/a", {"Host: two.test"}).body, "two.test");
  EXPECT_EQ(get("/a", {"Host: ONE.test"}).cache_status(), "HIT");
}

TEST_F(NginxProxyRulesTest, KeyBaseOfHttpWouldMixServers) {
  options().http_extra = "mcs_cache_key_base all;\n";
  options().server_extra =
      "location / {\n" + proxy_pass() + "}\n}\n" +
      fmt::format("server {{ listen 127.0.0.1:{};\n location / {{\n", free_port()) + proxy_pass() +
      "}\n";
  const auto checked = server_.check_config();
  ASSERT_TRUE(checked);
  EXPECT_THAT(*checked, output_has("would mix the responses"));
}

TEST_F(NginxProxyRulesTest, HandlersWithoutAnOrigin) {
  start_proxy("", "location = /status { stub_status; mcs_cache on; }\n");
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(get("/status").body, HasSubstr("Active connections"));
  }
}

TEST_F(NginxProxyRulesTest, AccessLogTellsWhatClientsGot) {
  origin_.on("/a", [](OriginExchange& exchange) {
    exchange.answer_or_304(
        {200,
         {"Cache-Control: max-age=0, stale-while-revalidate=600, stale-if-error=600",
          "ETag: \"one\""},
         "a"});
  });
  origin_.on("/b", [](OriginExchange& exchange) {
    exchange.answer_or_304({200, {"Cache-Control: no-cache", "ETag: \"one\""}, "b"});
  });
  options().access_log = true;
  start_proxy();
  EXPECT_EQ(get("/a").cache_status(), "MISS");
  EXPECT_EQ(get("/a").cache_status(), "STALE");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 2));
  EXPECT_EQ(get("/b").cache_status(), "MISS");
  EXPECT_EQ(get("/b").cache_status(), "REVALIDATED");
  ASSERT_TRUE(server_.stop());
  const std::string log = read_file(server_.prefix() / "access.log").value_or("");
  const std::string line = "GET /a HTTP/1.1";
  const size_t second = log.find(line, log.find(line) + 1);
  EXPECT_NE(second, std::string::npos) << log;
  EXPECT_EQ(log.find(line, second + 1), std::string::npos) << log;  // none of the refresh
  EXPECT_THAT(log, Not(HasSubstr(" 1000 ")));
  EXPECT_THAT(log, HasSubstr("\"GET /b HTTP/1.1\" 200 1 "));
}

// Reads what comes first on each connection, sends what the test makes of it and closes.
class PlainServer {
 public:
  explicit PlainServer(std::function<std::string()> answer)
      : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 16), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    thread_ = std::thread([this, answer = std::move(answer)] {
      for (;;) {
        const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd < 0) {
          return;
        }
        char request[65536];
        (void)recv(fd, request, sizeof request, 0);
        const std::string bytes = answer();
        EXPECT_EQ(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(bytes.size()));
        close(fd);
      }
    });
  }
  ~PlainServer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }

  int port = 0;

 private:
  int listener_;
  std::thread thread_;
};

TEST_F(NginxProxyRulesTest, ScgiLikeProxies) {
  PlainServer scgi([number = 0]() mutable {
    return "Status: 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=600\r\n\r\n" +
           std::to_string(number++) + std::string(30'000, '.');
  });
  start_proxy("", fmt::format("location /scgi {{ scgi_pass 127.0.0.1:{};\n", scgi.port) +
                      "  scgi_param REQUEST_METHOD $request_method; mcs_cache on;\n"
                      "  add_header X-Mcs-Status $mcs_cache_status; }\n");
  const HttpResponse hit = get_hit("/scgi");
  EXPECT_EQ(hit.body, "0" + std::string(30'000, '.'));
  EXPECT_EQ(hit.header("Status"), "");
}

// Unlike HTTP, these protocols' handlers go on to the next upstream as they are.
TEST_F(NginxProxyRulesTest, NextUpstreamAfterOneThatClosed) {
  PlainServer closes([] { return std::string(); });
  PlainServer answers([] { return std::string("VALUE /memory 0 5\r\nhello\r\nEND\r\n"); });
  options().http_extra = fmt::format(
      "upstream memory {{ server 127.0.0.1:{}; server 127.0.0.1:{} backup; }}\n", closes.port,
      answers.port);
  start_proxy("", "location /memory { set $memcached_key $uri; memcached_pass memory;\n"
                  "  mcs_cache on; mcs_cache_valid 600s;\n"
                  "  add_header X-Mcs-Status $mcs_cache_status; }\n");
  EXPECT_EQ(get_hit("/memory").body, "hello");
}

TEST_F(NginxProxyRulesTest, UsefulWithoutTheDomain) {
  on_numbered("/a", "max-age=600");
  options().mcs->domain_arguments = "dir=/nonexistent";
  start_proxy();
  EXPECT_EQ(get("/a").body, "1");
  EXPECT_EQ(get("/a").body, "2");
  EXPECT_EQ(get("/a").cache_status(), "");
}

TEST_F(NginxProxyRulesTest, ExampleOfAReverseProxy) {
  const char* directory = getenv("MCS_CONF_DIR");
  ASSERT_NE(directory, nullptr);
  auto example = read_file(std::filesystem::path(directory) / "reverse-proxy.conf");
  ASSERT_TRUE(example);
  // What a reader of the example would adapt to his machine.
  const auto replace = [&](const std::string& from, const std::string& to) {
    const size_t at = example->find(from);
    ASSERT_NE(at, std::string::npos) << from;
    example->replace(at, from.size(), to);
  };
  const std::string address = "127.0.0.1:" + std::to_string(free_port());
  replace("listen 80;", "listen " + address + ";");
  replace("server 127.0.0.1:8080;", "server 127.0.0.1:" + std::to_string(origin_.port()) + ";");
  replace("mcs_domain web size=256m;",
          "mcs_domain web size=64m dir=" + domain_directory().string() + ";");
  const McsOptions mcs = *options().mcs;
  options().mcs.reset();
  options().main_extra = "load_module " + mcs.module.string() + ";\n";
  options().http_extra = *example;
  start();
  const std::string url = "http://" + address;
  on_numbered("/page", "max-age=600");
  EXPECT_EQ(get(url + "/page?utm_source=a&x=1").header("X-Cache"), "MISS");
  const HttpResponse hit = get(url + "/page?x=1&utm_source=b");
  EXPECT_EQ(hit.header("X-Cache"), "HIT");
  EXPECT_THAT(hit.header("Cache-Status"), HasSubstr("hit"));
  EXPECT_EQ(get(url + "/page?x=1", {"Cookie: session=1"}).header("X-Cache"), "BYPASS");
  HttpRequest purge;
  purge.method = "PURGE";
  purge.url = url + "/page?x=1";
  EXPECT_EQ(send(purge).status, 200);
  EXPECT_EQ(get(url + "/page?x=1").body, "3");
  origin_.down();
  EXPECT_EQ(get(url + "/other").status, 502);
}

}  // namespace
}  // namespace mcs::loadtest
