// SPDX-License-Identifier: Apache-2.0
// Start, graceful restart, restart, stop, and children that come, go and die.
#include <signal.h>

#include <atomic>
#include <thread>

#include "loadtest/harness/net.h"
#include "tests/mod_mcs_apache/httpd_fixture.h"

namespace mcs::loadtest {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

class HttpdLifecycleTest : public HttpdTest, public testing::WithParamInterface<std::string> {
 protected:
  HttpdLifecycleTest() {
    options().mpm = GetParam();
    options().workers = 3;
    write("a.txt", "hello");
    write("large.bin", large_);
  }
  const std::string large_ = bytes_of_size(1'000'000);
};
INSTANTIATE_TEST_SUITE_P(Mpms, HttpdLifecycleTest, testing::Values("event", "worker", "prefork"),
                         [](const auto& mpm) { return mpm.param; });

TEST_P(HttpdLifecycleTest, RestartsUnderLoadKeepTheCache) {
  start();
  get_hit("/a.txt");
  get_hit("/large.bin");
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, answered{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&, i] {
      HttpClient client;
      while (!stop) {
        HttpRequest request;
        request.url = server_.url(i % 2 ? "/a.txt" : "/large.bin");
        request.fresh_connection = true;
        request.headers = {"Connection: close"};
        const auto response = client.send(request);
        const bool right = response && response->status == 200 &&
                           response->body == (i % 2 ? std::string("hello") : large_);
        wrong += !right;
        answered += right;
      }
    });
  }
  for (int i = 0; i < 3; ++i) {
    const auto reloaded = server_.reload();
    EXPECT_TRUE(reloaded) << reloaded.error().message;
    const int before = answered;
    EXPECT_TRUE(wait_until([&] { return answered > before + 20; }, seconds(20)));
  }
  stop = true;
  for (auto& client : clients) client.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(get("/a.txt").cache_status(), "HIT");
  // HUP ends requests in flight, so nobody asks meanwhile.
  const auto restarted = server_.restart();
  EXPECT_TRUE(restarted) << restarted.error().message;
  EXPECT_EQ(get("/a.txt").cache_status(), "HIT");
}

TEST_P(HttpdLifecycleTest, ReloadToOtherRules) {
  start();
  get_hit("/a.txt");
  options().mcs->key_base = "other";
  ASSERT_TRUE(server_.reload());
  get_until(server_, "/a.txt", [](const auto& r) { return r.cache_status() == "MISS"; });
  options().mcs->cache = false;
  ASSERT_TRUE(server_.reload());
  get_until(server_, "/a.txt", [](const auto& r) { return r.cache_status() == "(null)"; });
}

TEST_P(HttpdLifecycleTest, KilledChildrenAreReplaced) {
  start();
  get_hit("/a.txt");
  for (int round = 0; round < 5; ++round) {
    for (const pid_t pid : server_.worker_pids()) kill(pid, SIGKILL);
    const auto answers = [&] {
      HttpRequest request;
      request.url = server_.url("/large.bin");
      request.fresh_connection = true;
      request.headers = {"Connection: close"};
      const auto response = client_.send(request);
      return response && response->status == 200 && response->body == large_;
    };
    EXPECT_TRUE(wait_until(answers, seconds(20)));
  }
  EXPECT_EQ(get("/a.txt").cache_status(), "HIT");
}

TEST_P(HttpdLifecycleTest, ParentNeverJoinsAndChildrenLeaveQuickly) {
  start();
  get_hit("/large.bin");
  const std::string maps =
      read_file("/proc/" + std::to_string(server_.master_pid()) + "/maps").value_or("");
  EXPECT_THAT(maps, HasSubstr("mod_mcs_apache.so"));
  EXPECT_THAT(maps, Not(HasSubstr(domain_directory().string())));
  const auto stopped = server_.stop();
  EXPECT_TRUE(stopped) << stopped.error().message;
  EXPECT_THAT(server_.error_log(), Not(HasSubstr("did not exit")));
}

TEST_P(HttpdLifecycleTest, StopWhileClientsReadSlowly) {
  options().mcs->size = "128m";
  write("slow.bin", bytes_of_size(10 << 20));
  start();
  get_hit("/slow.bin");
  std::vector<RawConnection> slow;
  for (int i = 0; i < 3; ++i) {
    slow.push_back(std::move(RawConnection::open(server_.port()).value()));
    slow.back().set_receive_buffer(4096);
    ASSERT_TRUE(slow.back().send("GET /slow.bin HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    ASSERT_TRUE(slow.back().read_some(100));
  }
  const auto stopped = server_.stop();
  EXPECT_TRUE(stopped) << stopped.error().message;
  start();
  EXPECT_EQ(get("/slow.bin").cache_status(), "HIT");
}

TEST_P(HttpdLifecycleTest, ChildrenThatEndAfterAFewConnections) {
  options().max_connections_per_child = 5;
  start();
  for (int i = 0; i < 200; ++i) {
    HttpRequest request;
    request.url = server_.url(i % 2 ? "/a.txt" : "/large.bin");
    request.fresh_connection = true;
    request.headers = {"Connection: close"};
    const HttpResponse response = send(request);
    EXPECT_EQ(response.status, 200);
    EXPECT_TRUE(response.body == (i % 2 ? std::string("hello") : large_));
  }
}

TEST_P(HttpdLifecycleTest, SwitchedOffLeavesNothingBehind) {
  start();
  get_hit("/a.txt");
  options().main_extra = "LoadModule mcs_module " + options().mcs->module.string() + "\n";
  options().mcs.reset();
  ASSERT_TRUE(server_.reload());
  EXPECT_EQ(get("/a.txt").body, "hello");
}

}  // namespace
}  // namespace mcs::loadtest
