// SPDX-License-Identifier: Apache-2.0
// Many clients, one missing response: who asks the origin, who waits, and who goes on when the one
// that asked is gone.
#include <csignal>

#include "tests/ngx_mcs_module/proxy_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::HasSubstr;

constexpr char kStatusPage[] = "location = /status { stub_status; }\n";
const std::string kFirst(20'000, 'a');
const std::string kRest(50'000, 'b');

class NginxProxyCollapseTest : public NginxProxyTest {
 protected:
  // A response whose first part is sent after `head_` and whose rest after `rest_`.
  void script(const std::string& path, OriginAnswer::Framing framing = OriginAnswer::kLength) {
    OriginAnswer answer = fresh(kFirst + kRest);
    answer.framing = framing;
    origin_.on(path, [this, answer](OriginExchange& exchange) {
      exchange.wait(head_);
      exchange.send_head(answer);
      exchange.send_body(kFirst);
      exchange.wait(rest_);
      exchange.send_body(kRest);
      exchange.end_body();
    });
  }

  // Requests that nginx has begun and not ended.
  static bool wait_for_requests(WebServer& server, int count) {
    return wait_until(
        [&] {
          HttpClient client;
          const auto page = client.get(server.url("/status"));
          const size_t writing = page ? page->body.find("Writing: ") : std::string::npos;
          return writing != std::string::npos &&
                 std::atoi(page->body.c_str() + writing + 9) == count + 1;
        },
        std::chrono::seconds(10));
  }

  static void expect_whole(RawConnection& connection, std::string_view status) {
    const auto response = connection.read_response();
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_EQ(response->status, 200);
    EXPECT_EQ(response->header("X-Mcs-Status"), status);
    EXPECT_TRUE(response->body == kFirst + kRest) << response->body.size();
  }

  Gate head_;
  Gate rest_;
};

TEST_F(NginxProxyCollapseTest, ManyClientsOneRequest) {
  constexpr int kClients = 30;
  script("/a");
  rest_.open();
  start_proxy("mcs_cache_lock_timeout 60s;", kStatusPage);
  std::vector<RawConnection> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(open_get("/a"));
  }
  ASSERT_TRUE(wait_for_requests(server_, kClients));
  head_.open();
  int misses = 0;
  for (RawConnection& client : clients) {
    const auto response = client.read_response();
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_TRUE(response->body == kFirst + kRest) << response->body.size();
    misses += response->header("X-Mcs-Status") == "MISS" ? 1 : 0;
  }
  EXPECT_EQ(misses, 1);
  EXPECT_EQ(origin_.count("/a"), 1u);
}

TEST_F(NginxProxyCollapseTest, ClientsReceiveWhatIsStillArriving) {
  script("/length", OriginAnswer::kLength);
  script("/chunked", OriginAnswer::kChunked);
  head_.open();
  // With proxy_buffering nginx sends nobody less than a buffer.
  start_proxy("proxy_http_version 1.1; proxy_buffering off;");
  for (const std::string path : {"/length", "/chunked"}) {
    RawConnection filler = open_get(path);
    read_until(filler, "aaaa");
    RawConnection follower = open_get(path);
    EXPECT_THAT(read_until(follower, "aaaa").substr(0, 500), HasSubstr("X-Mcs-Status: HIT"));
    rest_.admit();
    read_until(filler, "bbbb");
    read_until(follower, "bbbb");
    EXPECT_EQ(origin_.count(path), 1u);
    EXPECT_TRUE(get(path).body == kFirst + kRest);
  }
  EXPECT_EQ(origin_.count(), 2u);
}

TEST_F(NginxProxyCollapseTest, FollowerGetsTheWholeBodyAndAnEnd) {
  script("/a", OriginAnswer::kChunked);
  head_.open();
  start_proxy("proxy_http_version 1.1;", kStatusPage);
  RawConnection filler = open_get("/a");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 1));
  RawConnection follower = open_get("/a");
  ASSERT_TRUE(wait_for_requests(server_, 2));
  rest_.open();
  expect_whole(follower, "HIT");
  expect_whole(filler, "MISS");
}

TEST_F(NginxProxyCollapseTest, FillGoesOnWhenItsClientLeaves) {
  script("/early");
  script("/late");
  start_proxy("", kStatusPage);
  {
    RawConnection filler = open_get("/early");
    ASSERT_TRUE(origin_.wait_for_requests("/early", 1));
  }
  RawConnection waiter = open_get("/early");
  ASSERT_TRUE(wait_for_requests(server_, 2));
  head_.open();
  read_until(waiter, "aaaa");
  {
    RawConnection filler = open_get("/late");
    read_until(filler, "aaaa");
  }
  RawConnection follower = open_get("/late");
  read_until(follower, "aaaa");
  rest_.open();
  read_until(waiter, "bbbb");
  read_until(follower, "bbbb");
  ASSERT_TRUE(wait_for_requests(server_, 0));
  EXPECT_EQ(origin_.broken("/early"), 0u);
  EXPECT_EQ(origin_.broken("/late"), 0u);
  EXPECT_EQ(get("/early").cache_status(), "HIT");
  EXPECT_TRUE(get("/late").body == kFirst + kRest);
  EXPECT_EQ(origin_.count(), 2u);
}

TEST_F(NginxProxyCollapseTest, ClientThatReadsNothingHoldsNobodyUp) {
  const std::string huge = text_of_size(20'000'000);  // more than sockets hold
  const OriginAnswer answer = fresh(huge + kRest);
  origin_.on("/a", [&](OriginExchange& exchange) {
    exchange.send_head(answer);
    exchange.send_body(huge);
    exchange.wait(rest_);
    exchange.send_body(kRest);
  });
  options().mcs->size = "256m";
  start_proxy();
  RawConnection stuck = open_get("/a");
  stuck.set_receive_buffer(4096);
  ASSERT_TRUE(origin_.wait_for_requests("/a", 1));
  RawConnection follower = open_get("/a");
  // All but what nginx keeps in buffers until they are full.
  for (size_t got = 0; got < huge.size() - 100'000;) {
    const auto some = follower.read_some();
    ASSERT_TRUE(some && !some->empty()) << "stopped after " << got;
    got += some->size();
  }
  rest_.open();
  EXPECT_TRUE(get("/a").body == answer.body);
  EXPECT_EQ(origin_.count("/a"), 1u);
}

// A second nginx, on the same domain.
class NginxProxyPairTest : public NginxProxyCollapseTest {
 protected:
  void start_both(const std::string& location_lines) {
    start_proxy(location_lines + "mcs_cache_key_base site;", kStatusPage);
    second_ = std::make_unique<NginxServer>(options());
    const auto started = second_->start();
    ASSERT_TRUE(started) << started.error().message;
    expected_alert_ = "exited on signal 9";
  }
  RawConnection open_second(const std::string& path) {
    auto connection = RawConnection::open(second_->port());
    EXPECT_TRUE(connection &&
                connection->send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    return std::move(*connection);
  }

  std::unique_ptr<NginxServer> second_;
};

TEST_F(NginxProxyPairTest, WaiterTakesOverFromAKilledWorker) {
  script("/a");
  start_both("mcs_cache_lock_timeout 60s;");
  RawConnection filler = open_get("/a");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 1));
  RawConnection waiter = open_second("/a");
  ASSERT_TRUE(wait_for_requests(*second_, 1));
  kill(server_.worker_pids().at(0), SIGKILL);
  ASSERT_TRUE(origin_.wait_for_requests("/a", 2));
  head_.open();
  rest_.open();
  expect_whole(waiter, "MISS");
  EXPECT_EQ(origin_.count("/a"), 2u);
}

TEST_F(NginxProxyPairTest, FollowerGoesOnWhereAKilledWorkerStopped) {
  script("/a");
  head_.open();
  start_both("mcs_cache_lock_timeout 60s;");
  RawConnection filler = open_get("/a");
  read_until(filler, "aaaa");
  RawConnection follower = open_second("/a");
  ASSERT_TRUE(wait_for_requests(*second_, 1));
  kill(server_.worker_pids().at(0), SIGKILL);
  // A refresh of the survivor asks again.
  ASSERT_TRUE(origin_.wait_for_requests("/a", 2));
  rest_.open();
  expect_whole(follower, "HIT");
  EXPECT_EQ(origin_.count("/a"), 2u);
}

TEST_F(NginxProxyCollapseTest, WhatMayNotBeStoredHoldsNobodyUp) {
  constexpr int kClients = 8;
  origin_.on("/private", [this](OriginExchange& exchange) {
    exchange.wait(head_);
    exchange.answer({200, {"Cache-Control: private, max-age=60"}, kRest});
  });
  start_proxy("mcs_cache_lock_timeout 60s;", kStatusPage);
  std::vector<RawConnection> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(open_get("/private"));
  }
  ASSERT_TRUE(wait_for_requests(server_, kClients));
  ASSERT_TRUE(origin_.wait_for_requests("/private", 1));
  EXPECT_EQ(origin_.count("/private"), 1u);
  head_.open();
  for (RawConnection& client : clients) {
    const auto response = client.read_response();
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_TRUE(response->body == kRest);
  }
  EXPECT_EQ(origin_.count("/private"), kClients);
}

TEST_F(NginxProxyCollapseTest, WaitEndsAtTheLockTimeout) {
  script("/a");
  start_proxy("mcs_cache_lock_timeout 100ms;");
  RawConnection filler = open_get("/a");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 1));
  RawConnection waiter = open_get("/a");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 2));
  head_.open();
  rest_.open();
  expect_whole(waiter, "MISS");
  expect_whole(filler, "MISS");
}

TEST_F(NginxProxyCollapseTest, TruncatedResponseIsNotStored) {
  const auto cut = [](OriginAnswer::Framing framing) {
    return [framing](OriginExchange& exchange) {
      OriginAnswer answer = fresh(kFirst + kRest);
      answer.framing = framing;
      if (exchange.request().number > 1) {
        exchange.answer(answer);
        return;
      }
      exchange.send_head(answer);
      exchange.send_body(kFirst);
      exchange.reset();
    };
  };
  origin_.on("/length", cut(OriginAnswer::kLength));
  origin_.on("/chunked", cut(OriginAnswer::kChunked));
  start_proxy("proxy_http_version 1.1;");
  for (const std::string path : {"/length", "/chunked"}) {
    RawConnection client = open_get(path);
    EXPECT_FALSE(client.read_response());
    const HttpResponse again = get(path);
    EXPECT_EQ(again.cache_status(), "MISS");
    EXPECT_TRUE(again.body == kFirst + kRest);
  }
}

TEST_F(NginxProxyCollapseTest, InternalRedirectHoldsNobodyUp) {
  origin_.on("/a", {200, {"X-Accel-Redirect: /inside/b", "Cache-Control: max-age=60"}, ""});
  origin_.on("/inside/b", [this](OriginExchange& exchange) { exchange.wait(rest_); });
  start_proxy("mcs_cache_lock_timeout 60s;",
              "location /inside/ { internal; " + proxy_pass() + " }\n");
  RawConnection first = open_get("/a");
  ASSERT_TRUE(origin_.wait_for_requests("/inside/b", 1));
  RawConnection second = open_get("/a");
  EXPECT_TRUE(origin_.wait_for_requests("/a", 2));
}

}  // namespace
}  // namespace mcs::loadtest
