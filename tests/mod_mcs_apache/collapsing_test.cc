// SPDX-License-Identifier: Apache-2.0
// Many clients, one request to the origin: waiting, following, taking over, refreshing.
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <stdexcept>

#include "tests/mod_mcs_apache/proxy_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;
using namespace std::chrono_literals;

class CollapsingTest : public ProxyTest {
 protected:
  CollapsingTest() { options().modules.push_back("status"); }

  // Rules under which nobody gives up waiting.
  void start(const std::string& rules =
                 "McsCacheKeyBase site\nMcsCacheLockTimeout 60s\nMcsCacheLockMaxAge 60s\n",
             const std::string& extra = "") {
    options().server_extra = "ProxyPass /server-status !\n";
    ProxyTest::start(rules, extra +
                                "<Location /server-status>\n  SetHandler server-status\n"
                                "  McsCache Off\n  Require all granted\n</Location>\n");
  }

  static RawConnection ask(const WebServer& server, const std::string& path,
                           const std::string& fields = "") {
    auto connection = RawConnection::open(server.port(), 10s);
    EXPECT_TRUE(connection);
    EXPECT_TRUE(connection->send("GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1:" +
                                 std::to_string(server.port()) + "\r\n" + fields + "\r\n"));
    return std::move(*connection);
  }
  RawConnection ask(const std::string& path, const std::string& fields = "") {
    return ask(server_, path, fields);
  }
  std::vector<RawConnection> ask_often(size_t count, const std::string& path) {
    std::vector<RawConnection> all;
    for (size_t i = 0; i < count; ++i) all.push_back(ask(path));
    return all;
  }

  // Appends what arrives until `text` is part of it.
  static void read_until(RawConnection& connection, const std::string& text,
                         std::string& received) {
    while (received.find(text) == std::string::npos) {
      const auto more = connection.read_some();
      if (!more || more->empty()) {
        throw std::runtime_error("no \"" + text + "\" in " + received);
      }
      received += *more;
    }
  }

  // Returns when so many threads of the server have a request in their hands. Asks on a connection
  // of its own each time: the event MPM leaves a request on a kept one unanswered for as long as
  // the child has nothing else to do, if no thread was idle at the instant it came ("deferring
  // close").
  void wait_for_busy(const WebServer& server, size_t count) {
    const std::string line = "BusyWorkers: " + std::to_string(count + 1) + "\n";
    std::string last;
    const bool seen = wait_until(
        [&] {
          last = ServersTest::get(server, "/server-status?auto", {"Connection: close"}).body;
          return last.find(line) != std::string::npos;
        },
        20s);
    EXPECT_TRUE(seen) << last;
  }
  void wait_for_busy(size_t count) { wait_for_busy(server_, count); }

  Gate gate_;
  Gate end_;
};

// Head and first part at the gate, the rest at the end.
Origin::Script in_two_parts(OriginAnswer answer, Gate& gate, Gate& end, size_t first) {
  return [answer = std::move(answer), &gate, &end, first](OriginExchange& exchange) {
    if (!exchange.wait(gate)) return;
    exchange.send_head(answer);
    exchange.send_body(std::string_view(answer.body).substr(0, first));
    exchange.wait(end);
    exchange.send_body(std::string_view(answer.body).substr(first));
    exchange.end_body();
  };
}

TEST_F(CollapsingTest, AHerdIsOneRequestAndAllReceiveWhileTheBodyArrives) {
  OriginAnswer answer = fresh("first part" + std::string(1 << 20, 'z') + "last part");
  for (const auto framing : {OriginAnswer::kLength, OriginAnswer::kChunked}) {
    answer.framing = framing;
    origin_.on("/" + std::to_string(framing), in_two_parts(answer, gate_, end_, 10));
  }
  start();
  for (const char* path : {"/0", "/1"}) {
    std::vector<RawConnection> clients = ask_often(15, path);
    wait_for_busy(15);
    gate_.admit();
    std::vector<std::string> received(clients.size());
    for (size_t i = 0; i < clients.size(); ++i) {
      read_until(clients[i], "first part", received[i]);
      EXPECT_THAT(received[i], Not(HasSubstr("last part")));
    }
    // Who comes now follows from the beginning.
    clients.push_back(ask(path));
    received.emplace_back();
    read_until(clients.back(), "first part", received.back());
    end_.admit();
    for (size_t i = 0; i < clients.size(); ++i) {
      read_until(clients[i], "last part", received[i]);
      EXPECT_EQ(std::count(received[i].begin(), received[i].end(), 'z'), 1 << 20);
    }
    EXPECT_EQ(get(path).cache_status(), "HIT");
    EXPECT_EQ(origin_.count(path), 1u);
  }
}

TEST_F(CollapsingTest, OverHttp2AndTls) {
  options().tls = true;
  options().http2 = true;
  const std::string body = bytes_of_size(1 << 20);
  origin_.on("/a", in_two_parts(fresh(body), gate_, end_, 1000));
  start();
  const RawConnection filler = ask("/a");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 1));
  std::vector<std::future<HttpResponse>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::async(std::launch::async, [this, i] {
      HttpClient client;
      HttpRequest request;
      request.url = server_.tls_url("/a");
      request.http2 = i % 2 == 0;
      request.timeout = 30s;
      const auto response = client.send(request);
      return response ? *response : HttpResponse{};
    }));
  }
  gate_.admit();
  end_.admit();
  for (auto& client : clients) {
    const HttpResponse response = client.get();
    EXPECT_EQ(response.status, 200);
    EXPECT_TRUE(response.body == body);
  }
  EXPECT_EQ(origin_.count("/a"), 1u);
}

class MpmTest : public CollapsingTest, public testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Httpd, MpmTest, testing::Values("worker", "prefork"),
                         [](const auto& mpm) { return std::string(mpm.param); });

TEST_P(MpmTest, OneRequestForManyWhoFollow) {
  options().mpm = GetParam();
  if (options().mpm == "prefork") options().workers = 12;
  origin_.on("/a", in_two_parts(fresh("first part, last part"), gate_, end_, 11));
  start();
  std::vector<RawConnection> clients = ask_often(6, "/a");
  wait_for_busy(6);
  gate_.admit();
  std::vector<std::string> received(clients.size());
  for (size_t i = 0; i < clients.size(); ++i) read_until(clients[i], "first part", received[i]);
  end_.admit();
  for (size_t i = 0; i < clients.size(); ++i) read_until(clients[i], "last part", received[i]);
  EXPECT_EQ(origin_.count("/a"), 1u);
}

TEST_P(MpmTest, FollowersOfABrokenFillContinueFromTheNext) {
  options().mpm = GetParam();
  if (options().mpm == "prefork") options().workers = 6;
  const std::string body = bytes_of_size(1 << 20);
  origin_.on("/a", [&](OriginExchange& exchange) {
    const OriginAnswer answer = fresh(body, {"ETag: \"1\""});
    if (exchange.request().number > 1) return exchange.answer(answer);
    exchange.wait(gate_);
    exchange.send_head(answer);
    exchange.send_body(std::string_view(body).substr(0, 500'000));
    exchange.wait(end_);
    exchange.reset();
  });
  start();
  const RawConnection filler = ask("/a");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 1));
  std::vector<RawConnection> followers = ask_often(2, "/a");
  wait_for_busy(3);
  gate_.open();
  std::vector<std::string> received(followers.size());
  for (size_t i = 0; i < followers.size(); ++i) read_until(followers[i], "\r\n\r\n", received[i]);
  end_.open();
  for (size_t i = 0; i < followers.size(); ++i) {
    const size_t head = received[i].find("\r\n\r\n") + 4;
    while (received[i].size() < head + body.size()) {
      const auto more = followers[i].read_some();
      ASSERT_TRUE(more && !more->empty()) << received[i].size();
      received[i] += *more;
    }
    EXPECT_TRUE(received[i].substr(head) == body);
  }
  EXPECT_EQ(origin_.count("/a"), 2u);
}

TEST_F(CollapsingTest, OfChildrenWithOneThreadHalfWait) {
  options().mpm = "prefork";
  options().workers = options().max_processes = 10;
  origin_.on("/a", [&](OriginExchange& exchange) {
    exchange.wait(gate_);
    exchange.answer(fresh("a"));
  });
  start("McsCacheLockTimeout 60s\nMcsCacheLockMaxAge 60s\nMcsCacheLockBusy 503\n");
  RawConnection filler = ask("/a");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 1));
  std::vector<RawConnection> clients = ask_often(7, "/a");
  // The others have an answer at once.
  int ready = 0;
  EXPECT_TRUE(wait_until(
      [&] {
        std::vector<pollfd> answered;
        for (const RawConnection& client : clients) answered.push_back({client.fd(), POLLIN, 0});
        ready = poll(answered.data(), answered.size(), 0);
        return ready == 2;
      },
      10s))
      << ready;
  gate_.open();
  std::vector<int> answers;
  for (RawConnection& client : clients) {
    const auto response = client.read_response();
    ASSERT_TRUE(response) << response.error().message;
    answers.push_back(response->status);
  }
  EXPECT_EQ(std::count(answers.begin(), answers.end(), 503), 2);
  EXPECT_EQ(std::count(answers.begin(), answers.end(), 200), 5);
  EXPECT_EQ(filler.read_response()->body, "a");
  EXPECT_EQ(origin_.count("/a"), 1u);
}

class BusyTest : public CollapsingTest, public testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Httpd, BusyTest, testing::Values("/wait", "/pass", "/503", "/default"));

TEST_P(BusyTest, WhoHasNoPlaceToWaitWaitsAsksTheOriginOrIsRefused) {
  options().workers = 1;
  options().max_processes = 1;
  options().threads_per_child = 8;
  origin_.on("*", [&](OriginExchange& exchange) {
    exchange.wait(gate_);
    exchange.answer(fresh("a"));
  });
  start("McsCacheLockTimeout 60s\nMcsCacheLockMaxAge 60s\n",
        "<Location /wait>\n  McsCacheLockBusy wait\n</Location>\n"
        "<Location /503>\n  McsCacheLockBusy 503\n</Location>\n"
        "<Location /pass>\n  McsCacheLockBusy pass\n</Location>\n");
  const std::string path = GetParam();
  std::vector<RawConnection> clients;
  clients.push_back(ask(path));
  EXPECT_TRUE(origin_.wait_for_requests(path, 1));
  // Of five, four find a place to wait; which ones, depends on the order their threads run in.
  for (RawConnection& client : ask_often(5, path)) clients.push_back(std::move(client));
  if (path == "/wait") {
    wait_for_busy(6);
    EXPECT_EQ(origin_.count(path), 1u);
    gate_.admit();
  } else if (path != "/503") {
    EXPECT_TRUE(origin_.wait_for_requests(path, 2));
    gate_.admit(2);
  } else {
    std::vector<pollfd> answered;
    for (const RawConnection& client : clients) answered.push_back({client.fd(), POLLIN, 0});
    ASSERT_EQ(poll(answered.data(), answered.size(), 10'000), 1);
    const auto refused =
        std::find_if(answered.begin(), answered.end(), [](const pollfd& p) { return p.revents; }) -
        answered.begin();
    const auto response = clients[static_cast<size_t>(refused)].read_response();
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_EQ(response->status, 503);
    EXPECT_EQ(origin_.count(path), 1u);
    clients.erase(clients.begin() + refused);
    gate_.admit();
  }
  for (RawConnection& client : clients) {
    const auto response = client.read_response();
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_EQ(response->body, "a");
  }
}

TEST_F(CollapsingTest, WaitingEndsAfterTheLockTimeout) {
  origin_.on("/a", [&](OriginExchange& exchange) {
    if (exchange.request().number == 1) exchange.wait(gate_);
    exchange.answer(fresh("a"));
  });
  start("McsCacheLockTimeout 100ms\nMcsCacheLockMaxAge 60s\n");
  const RawConnection filler = ask("/a");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 1));
  EXPECT_EQ(get("/a").body, "a");
  EXPECT_EQ(origin_.count("/a"), 2u);
  gate_.open();
}

TEST_F(CollapsingTest, UncacheableReleasesAll) {
  origin_.on("/a", [&](OriginExchange& exchange) {
    if (exchange.request().number == 1) exchange.wait(gate_);
    exchange.answer({200, {"Cache-Control: no-store"}, std::to_string(exchange.request().number)});
  });
  start();
  std::vector<RawConnection> clients = ask_often(10, "/a");
  wait_for_busy(10);
  EXPECT_TRUE(origin_.wait_for_requests("/a", 1));
  gate_.open();
  std::vector<std::string> bodies;
  for (RawConnection& client : clients) bodies.push_back(client.read_response()->body);
  std::sort(bodies.begin(), bodies.end());
  EXPECT_EQ(std::unique(bodies.begin(), bodies.end()), bodies.end());
  EXPECT_EQ(origin_.count("/a"), 10u);
}

TEST_F(CollapsingTest, AnErrorOfTheOriginReleasesAll) {
  origin_.on("/a", [&](OriginExchange& exchange) {
    if (exchange.request().number > 1) return exchange.answer(fresh("good"));
    exchange.wait(gate_);
    exchange.reset();
  });
  start();
  RawConnection filler = ask("/a");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 1));
  std::vector<RawConnection> clients = ask_often(5, "/a");
  wait_for_busy(6);
  gate_.open();
  EXPECT_EQ(filler.read_response()->status, 502);
  for (RawConnection& client : clients) EXPECT_EQ(client.read_response()->body, "good");
  EXPECT_EQ(origin_.count("/a"), 2u);
}

TEST_F(CollapsingTest, AClientThatLeavesDoesNotEndTheFill) {
  const std::string body = bytes_of_size(2 << 20);
  origin_.on("*", in_two_parts(fresh(body), gate_, end_, 1000));
  start();
  for (const bool followed : {true, false}) {
    const std::string path = followed ? "/a" : "/b";
    auto filler = std::make_unique<RawConnection>(ask(path));
    ASSERT_TRUE(origin_.wait_for_requests(path, 1));
    std::future<HttpResponse> follower;
    if (followed) follower = get_elsewhere(path);
    gate_.admit();
    std::string received;
    read_until(*filler, "\r\n\r\n", received);
    const linger reset = {1, 0};
    setsockopt(filler->fd(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    filler.reset();
    end_.admit();
    if (followed) {
      EXPECT_TRUE(follower.get().body == body);
    }
    const HttpResponse hit = get_until(server_, path, [](const HttpResponse& response) {
      return response.cache_status() == "HIT";
    });
    EXPECT_TRUE(hit.body == body);
    EXPECT_EQ(origin_.count(path), 1u);
  }
}

// The filler's own client reads nothing; the others must not wait for it.
TEST_F(CollapsingTest, ASlowClientDoesNotHoldUpTheOthers) {
  options().mcs->size = "256m";
  const std::string body = bytes_of_size(14 << 20);
  constexpr size_t kFirst = 10 << 20;  // more than sockets buffer
  origin_.on("/a", in_two_parts(fresh(body), gate_, end_, kFirst));
  start();
  RawConnection filler = ask("/a");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 1));
  RawConnection follower = ask("/a");
  wait_for_busy(2);
  gate_.open();
  std::string received;
  const auto read_up_to = [&](size_t size) {
    while (received.size() < size) {
      const auto more = follower.read_some();
      ASSERT_TRUE(more && !more->empty()) << received.size();
      received += *more;
    }
  };
  read_up_to(kFirst);
  end_.open();
  read_up_to(received.find("\r\n\r\n") + 4 + body.size());
  EXPECT_TRUE(received.ends_with(body));
  const auto slow = filler.read_response();
  ASSERT_TRUE(slow);
  EXPECT_TRUE(slow->body == body);
  EXPECT_EQ(origin_.count("/a"), 1u);
}

TEST_F(CollapsingTest, FollowersOfWhatCannotBeContinuedAreCutOff) {
  origin_.on("/a", [&](OriginExchange& exchange) {
    OriginAnswer answer = fresh(std::to_string(exchange.request().number) + "23456789");
    answer.framing = OriginAnswer::kChunked;
    if (exchange.request().number > 1) return exchange.answer(answer);
    exchange.wait(gate_);
    exchange.send_head(answer);
    exchange.send_body("123");
    exchange.wait(end_);
    exchange.reset();
  });
  start();
  const RawConnection filler = ask("/a");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 1));
  RawConnection follower = ask("/a");
  wait_for_busy(2);
  gate_.open();
  std::string received;
  read_until(follower, "123", received);
  end_.open();
  const auto rest = follower.read_to_close();
  EXPECT_THAT(received + rest.value_or(""), Not(HasSubstr("\r\n0\r\n")));
}

// Two servers on one domain: the one that fills is killed.
TEST_F(CollapsingTest, WhoeverWaitsForAKilledChildTakesOver) {
  const std::string body = bytes_of_size(1 << 20);
  origin_.on("*", [&](OriginExchange& exchange) {
    const OriginAnswer answer = fresh(body, {"ETag: \"1\""});
    if (exchange.request().number > 1) return exchange.answer(answer);
    if (exchange.request().path() == "/late") {
      exchange.send_head(answer);
      exchange.send_body(std::string_view(body).substr(0, 500'000));
    }
    exchange.wait(gate_);
  });
  start();
  auto& other = dynamic_cast<HttpdServer&>(add(kEventType, server_.options()));
  other.options().modules = options().modules;
  ServersTest::start(other);
  for (const char* path : {"/early", "/late"}) {
    const RawConnection filler = ask(path);
    ASSERT_TRUE(origin_.wait_for_requests(path, 1));
    std::vector<RawConnection> clients;
    for (int i = 0; i < 3; ++i) clients.push_back(ask(other, path));
    wait_for_busy(other, 3);
    for (const pid_t pid : server_.worker_pids()) kill(pid, SIGKILL);
    for (RawConnection& client : clients) {
      const auto response = client.read_response();
      ASSERT_TRUE(response) << path;
      EXPECT_TRUE(response->body == body) << path << " " << response->body.size();
    }
    EXPECT_EQ(origin_.count(path), 2u);
    ASSERT_TRUE(wait_until([&] { return can_connect(server_.port()); }, 10s));
  }
}

class RefreshTest : public CollapsingTest {
 protected:
  // The second request waits at the gate.
  void serve_stale(const std::string& path) {
    origin_.on(path, [this](OriginExchange& exchange) {
      const size_t number = exchange.request().number;
      if (number == 2) exchange.wait(gate_);
      exchange.answer({200,
                       {number == 1 ? "Cache-Control: max-age=0, stale-while-revalidate=600"
                                    : "Cache-Control: max-age=600",
                        "Vary: X-Who"},
                       std::to_string(number) + exchange.request().header("X-Who")});
    });
  }
  // No request waits, and the next ones on the same connection least of all.
  void expect_refreshed_behind(const std::function<HttpResponse()>& ask_once,
                               const std::string& path) {
    SCOPED_TRACE(path);
    EXPECT_EQ(ask_once().body, "1me");
    const HttpResponse stale = ask_once();
    EXPECT_EQ(stale.cache_status(), "STALE");
    EXPECT_EQ(stale.body, "1me");
    for (int i = 0; i < 3; ++i) {
      EXPECT_THAT(ask_once().cache_status(), AnyOf("STALE", "UPDATING"));
    }
    EXPECT_TRUE(origin_.wait_for_requests(path, 2));
    gate_.admit();
    EXPECT_TRUE(wait_until([&] { return ask_once().body == "2me"; }, 10s));
    EXPECT_EQ(ask_once().cache_status(), "HIT");
    EXPECT_EQ(origin_.count(path), 2u);
  }
};

TEST_F(RefreshTest, EachKindOfConnection) {
  options().tls = true;
  options().http2 = true;
  start("RequestHeader add X-Seen yes\n",
        "<Location /https>\n  Require expr \"%{HTTPS} == 'on' && %{HTTP:X-Who} == 'me'\"\n"
        "</Location>\n");
  struct Kind {
    const char* path;
    bool tls;
    bool http2;
  };
  for (const Kind& kind :
       {Kind{"/plain", false, false}, Kind{"/https", true, false}, Kind{"/https2", true, true}}) {
    serve_stale(kind.path);
    expect_refreshed_behind(
        [&] {
          HttpRequest request;
          request.url = kind.tls ? server_.tls_url(kind.path) : server_.url(kind.path);
          request.http2 = kind.http2;
          request.headers = {"X-Who: me"};
          return send(request);
        },
        kind.path);
    const OriginRequest refresh = origin_.requests(kind.path)[1];
    EXPECT_EQ(refresh.method, "GET");
    EXPECT_EQ(refresh.header("X-Seen"), "yes");
  }
}

TEST_F(RefreshTest, ChildrenWithOneThread) {
  options().mpm = "prefork";
  options().workers = 8;
  serve_stale("/a");
  start();
  expect_refreshed_behind([&] { return get("/a", {"X-Who: me"}); }, "/a");
}

TEST_F(RefreshTest, AChildThatEndsFinishesIt) {
  serve_stale("/a");
  start();
  get("/a", {"X-Who: me"});
  EXPECT_EQ(get("/a", {"X-Who: me"}).cache_status(), "STALE");
  ASSERT_TRUE(origin_.wait_for_requests("/a", 2));
  ASSERT_TRUE(server_.reload());
  gate_.open();
  const HttpResponse response =
      get_until(server_, "/a?x", [](const HttpResponse&) { return true; });
  EXPECT_TRUE(wait_until([&] { return get("/a", {"X-Who: me"}).body == "2me"; }, 10s));
  EXPECT_EQ(origin_.count("/a"), 2u + 1u) << response.status;
}

}  // namespace
}  // namespace mcs::loadtest
