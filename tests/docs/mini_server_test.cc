// SPDX-License-Identifier: Apache-2.0
// A third server, which knows only what is installed: globalcache.h, its library and its pkg-config
// file, shares the cache with nginx and httpd. Built as docs/examples/mini_server.c says.
#include <csignal>
#include <cstdlib>

#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/net.h"
#include "loadtest/harness/process.h"
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {
namespace {

class MiniServerTest : public ServersTest {
 protected:
  static ProcessResult must(const std::vector<std::string>& words) {
    const auto result = run_process(words);
    EXPECT_TRUE(result && result->ok()) << (result ? result->describe() : result.error().message);
    return result ? *result : ProcessResult{};
  }
};

TEST_F(MiniServerTest, ThreeServersServeOneCopy) {
  const TempDir prefix("installed");
  const std::string where = prefix.path().string();
  must({"cmake", "--install", std::getenv("MCS_BUILD_DIR"), "--prefix", where});
  const std::string program = where + "/mini_server";
  must({"sh", "-c",
        "set -e; export PKG_CONFIG_PATH=$(dirname $(find " + where +
            " -name globalcache.pc)); pkg-config --atleast-version=0.1 globalcache; "
            "cc -std=gnu11 -Wall -Wextra -Werror -O2 " MCS_EXAMPLES
            "/mini_server.c -o " +
            program +
            " $(pkg-config --cflags --libs globalcache libmicrohttpd) "
            "-Wl,-rpath,$(pkg-config --variable=libdir globalcache)"});

  const std::string large = bytes_of_size(300'000);
  write("a.txt", "from nginx");
  write("b.txt", "from httpd");
  write("large.bin", large);
  // The first to start makes the domain, for its workers' user.
  const WebServer& nginx = start(kNginxType);
  const WebServer& httpd = start(kEventType);
  const int port = free_port();
  auto mini = ChildProcess::start({program, root().string(), "test", "site", std::to_string(port),
                                   domain_directory().string()});
  ASSERT_TRUE(mini);
  const std::string base = "http://127.0.0.1:" + std::to_string(port);
  HttpClient client;
  ASSERT_TRUE(wait_until([&] { return client.get(base + "/nothing").has_value(); },
                         std::chrono::seconds(20)));
  const auto ask = [&](const std::string& path, std::vector<std::string> headers = {}) {
    const auto answer = client.get(base + path, std::move(headers));
    EXPECT_TRUE(answer) << answer.error().message;
    return answer.value_or(HttpResponse{});
  };
  get_hit(nginx, "/a.txt");
  get_hit(httpd, "/b.txt");
  EXPECT_EQ(ask("/a.txt").cache_status(), "HIT");
  EXPECT_EQ(ask("/a.txt").body, "from nginx");
  EXPECT_EQ(ask("/b.txt").cache_status(), "HIT");
  EXPECT_EQ(ask("/large.bin").cache_status(), "MISS");
  EXPECT_TRUE(ask("/large.bin").body == large);
  for (const WebServer* server : {&nginx, &httpd}) {
    const HttpResponse answer = get(*server, "/large.bin");
    EXPECT_EQ(answer.cache_status(), "HIT");
    EXPECT_TRUE(answer.body == large);
    EXPECT_EQ(answer.header("ETag"), ask("/large.bin").header("ETag"));
  }
  const std::string tag = ask("/a.txt").header("ETag");
  EXPECT_EQ(ask("/a.txt", {"If-None-Match: " + tag}).status, 304);
  EXPECT_EQ(ask("/../a.txt").status, 404);
  EXPECT_EQ(ask("/missing").status, 404);

  // Killed, it leaves nothing behind that the others would have to wait for.
  mini->signal(SIGKILL);
  ASSERT_TRUE(mini->wait(std::chrono::seconds(20)));
  EXPECT_EQ(get(nginx, "/large.bin").cache_status(), "HIT");
  EXPECT_TRUE(wait_until(
      [&] {
        const auto result = run_process({tool_file("mcsctl").string(), "verify", "test",
                                         "--directory", domain_directory().string()});
        return result && result->ok();
      },
      std::chrono::seconds(20)));
}

}  // namespace
}  // namespace mcs::loadtest
