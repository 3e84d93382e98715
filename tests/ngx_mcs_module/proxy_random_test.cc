// SPDX-License-Identifier: Apache-2.0
// Clients and an origin that do what they like, in an order drawn anew at each run: whatever
// reaches a client as a whole response is right, and no worker crashes or leaks.
#include <atomic>
#include <csignal>
#include <iostream>
#include <mutex>
#include <random>

#include "tests/ngx_mcs_module/proxy_fixture.h"

namespace mcs::loadtest {
namespace {

constexpr size_t kPaths = 6;
constexpr int kClients = 8;
constexpr int kRequestsOfEach = 150;

class NginxProxyRandomTest : public NginxProxyTest {
 protected:
  NginxProxyRandomTest() : seed_(std::random_device{}()), random_(seed_) {
    std::cout << "seed " << seed_ << '\n';
    constexpr size_t kSizes[kPaths] = {0, 200, 9'000, 70'000, 400'000, 1'500'000};
    for (size_t i = 0; i < kPaths; ++i) {
      bodies_.push_back(text_of_size(kSizes[i], static_cast<unsigned>(i)));
    }
  }

  unsigned below(unsigned n) {
    const std::lock_guard lock(mutex_);
    return static_cast<unsigned>(random_() % n);
  }

  void answer(size_t path, OriginExchange& exchange) {
    static const char* const kFreshness[] = {"max-age=600", "max-age=0",
                                             "max-age=0, stale-while-revalidate=9", "no-store",
                                             "max-age=0, stale-if-error=9"};
    OriginAnswer answer = {200,
                           {std::string("Cache-Control: ") + kFreshness[below(5)],
                            "Content-Type: text/plain", fmt::format("ETag: \"{}\"", path)},
                           bodies_[path]};
    answer.framing = static_cast<OriginAnswer::Framing>(below(3));
    switch (below(8)) {
      case 0:
        exchange.reset();
        break;
      case 1:
        exchange.answer({500, {}, "broken"});
        break;
      case 2:
        // Cut: a body that ends with the connection could not be told from a whole one.
        if (answer.framing == OriginAnswer::kClose) {
          answer.framing = OriginAnswer::kLength;
        }
        exchange.send_head(answer);
        exchange.send_body(answer.body.substr(0, answer.body.size() / 2));
        exchange.reset();
        break;
      case 3:
        exchange.send_head(answer);
        for (size_t at = 0; at < answer.body.size(); at += 50'000) {
          exchange.send_body(std::string_view(answer.body).substr(at, 50'000));
          std::this_thread::yield();
        }
        exchange.end_body();
        break;
      default:
        exchange.answer_or_304(answer);
    }
  }

  void check(size_t path, const HttpRequest& request, const HttpResponse& response) {
    const std::string& body = bodies_[path];
    switch (response.status) {
      case 200:
        EXPECT_TRUE(response.body == (request.method == "HEAD" ? "" : body))
            << request.url << ": " << response.body.size();
        break;
      case 206:
        EXPECT_TRUE(response.body == body.substr(50, 100)) << request.url;
        break;
      case 304:
        EXPECT_EQ(response.body, "");
        break;
      case 416:
      case 500:
      case 502:
        break;
      default:
        ADD_FAILURE() << request.url << ": " << response.status;
    }
  }

  void leave_early(const std::string& path) {
    auto connection = RawConnection::open(server_.port());
    if (connection && connection->send(fmt::format("GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n"
                                                   "Connection: close\r\n\r\n",
                                                   path, server_.port()))) {
      for (unsigned reads = below(3); reads > 0; --reads) {
        (void)connection->read_some(4096);
      }
    }
  }

  // A client that may be cut off: by the origin, or because its worker was killed.
  void visit() {
    HttpClient client;
    for (int i = 0; i < kRequestsOfEach; ++i) {
      const size_t path = below(kPaths);
      const std::string target = "/" + std::to_string(path);
      HttpRequest request;
      request.url = below(3) == 0 ? server_.tls_url(target) : server_.url(target);
      switch (below(8)) {
        case 0:
          leave_early(target);
          continue;
        case 1:
          request.method = "HEAD";
          break;
        case 2:
          request.headers = {"Range: bytes=50-149"};
          break;
        case 3:
          request.headers = {fmt::format("If-None-Match: \"{}\"", path)};
          break;
        case 4:
          request.headers = {"Cache-Control: no-cache"};
          break;
        default:
          break;
      }
      if (const auto response = client.send(request)) {
        check(path, request, *response);
        ++answered_;
      }
    }
  }

  void run() {
    for (size_t path = 0; path < kPaths; ++path) {
      origin_.on("/" + std::to_string(path),
                 [this, path](OriginExchange& exchange) { answer(path, exchange); });
    }
    options().workers = 2;
    options().tls = true;
    options().log_level = "warn";
    start_proxy("proxy_http_version 1.1; proxy_set_header Connection \"\";");
    std::vector<std::thread> clients;
    for (int i = 0; i < kClients; ++i) {
      clients.emplace_back([this] { visit(); });
    }
    while (killing_ && answered_ < kClients * kRequestsOfEach / 3) {
      const size_t before = answered_;
      const auto workers = server_.worker_pids();
      if (!workers.empty()) {
        kill(workers[below(static_cast<unsigned>(workers.size()))], SIGKILL);
      }
      (void)wait_until([&] { return answered_ > before + 20; }, std::chrono::seconds(20));
    }
    for (std::thread& client : clients) {
      client.join();
    }
    EXPECT_GT(answered_, static_cast<size_t>(kClients));
  }

  const unsigned seed_;
  std::mt19937 random_;
  std::mutex mutex_;
  std::vector<std::string> bodies_;
  std::atomic<size_t> answered_{0};
  bool killing_ = false;
};

TEST_F(NginxProxyRandomTest, EveryWholeResponseIsRight) { run(); }

TEST_F(NginxProxyRandomTest, AlsoWhileWorkersAreKilled) {
  killing_ = true;
  expected_alert_ = "exited on signal 9";
  run();
}

}  // namespace
}  // namespace mcs::loadtest
