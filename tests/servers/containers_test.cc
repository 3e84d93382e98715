// SPDX-License-Identifier: Apache-2.0
// Servers in containers of their own (pid and mount namespaces) on one domain.
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/proc_info.h"
#include "loadtest/harness/process.h"
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {
namespace {

class ContainersTest : public PairTest {
 protected:
  // A server that has its namespaces, and the process outside that keeps them.
  struct Container {
    WebServer* server;
    ChildProcess keeper;
  };
  Container start_contained(const ServerType& type) {
    WebServer& server = add(type, default_options());
    const auto checked = server.check_config();
    EXPECT_TRUE(checked && checked->ok());
    std::vector<std::string> words = {"unshare", "--mount",      "--pid",
                                      "--fork",  "--kill-child", "--mount-proc"};
    for (std::string& word : server.foreground_command()) words.push_back(std::move(word));
    SpawnOptions options;
    options.stderr_file = server.prefix() / "error.log";
    auto keeper = ChildProcess::start(words, options);
    EXPECT_TRUE(keeper) << keeper.error().message;
    EXPECT_TRUE(wait_until([&] { return client_.get(server.url("/a.txt")).has_value(); },
                           std::chrono::seconds(20)))
        << server.error_log();
    return {&server, keeper ? std::move(*keeper) : ChildProcess()};
  }
  // Root in a container or a changed root may not make such namespaces.
  static bool permitted() {
    const auto tried =
        run_process({"unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"});
    return tried && tried->ok();
  }
  // With its first process a pid namespace ends, and everything in it.
  static void end(Container& container) {
    for (const pid_t first : children_of(container.keeper.pid())) ::kill(first, SIGKILL);
    EXPECT_TRUE(container.keeper.wait(std::chrono::seconds(20)));
  }
};
INSTANTIATE_TEST_SUITE_P(Servers, ContainersTest, every_pair(), pair_name);

TEST_P(ContainersTest, ShareOneDomainAndSurviveEachOther) {
  if (!permitted()) {
    std::puts("notice: no namespaces are permitted here, so nothing was tested");
    return;
  }
  const std::string body = bytes_of_size(200'000);
  write("a.txt", "hello");
  write("large.bin", body);
  Container one = start_contained(first());
  Container other = start_contained(second());
  get_hit(*one.server, "/a.txt");
  get_hit(*one.server, "/large.bin");
  EXPECT_EQ(get(*other.server, "/a.txt").cache_status(), "HIT");

  end(one);
  const HttpResponse large = get(*other.server, "/large.bin");
  EXPECT_EQ(large.cache_status(), "HIT");
  EXPECT_TRUE(large.body == body);

  // Whoever is left recovers those who died where their processes cannot be seen.
  const auto verified = [&] {
    const auto result =
        run_process({tool_file("mcsctl").string(), "verify", "test", "--directory",
                     domain_directory().string(), "--no-recovery"});
    return result && result->exit_code == 0;
  };
  EXPECT_TRUE(wait_until(verified, std::chrono::seconds(20)));
  Container again = start_contained(first());
  EXPECT_EQ(get(*again.server, "/a.txt").cache_status(), "HIT");
}

}  // namespace
}  // namespace mcs::loadtest
