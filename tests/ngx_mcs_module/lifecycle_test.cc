// SPDX-License-Identifier: Apache-2.0
// Starts, reloads, upgrades and ends: the cache stays warm, and the server works without it.
#include <sys/stat.h>

#include <csignal>

#include "loadtest/harness/net.h"
#include "loadtest/harness/proc_info.h"
#include "tests/ngx_mcs_module/nginx_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::HasSubstr;

constexpr size_t kLarge = 6'000'000;
constexpr std::chrono::seconds kLongEnough{20};

class NginxLifecycleTest : public NginxTest {
 protected:
  static void SetUpTestSuite() {
    write("a.txt", "hello\n");
    write("large.txt", text_of_size(kLarge));
    wait_until_trusted();
  }
  void expect_warm() { EXPECT_EQ(get("/a.txt").cache_status(), "HIT"); }
  // Until no worker of before is left: they serve their last connections by the old rules.
  void reload() {
    const auto before = server_.worker_pids();
    const auto reloaded = server_.reload();
    ASSERT_TRUE(reloaded) << reloaded.error().message;
    expect_gone(before);
  }
  static void expect_gone(const std::vector<pid_t>& pids) {
    for (const pid_t pid : pids) {
      EXPECT_TRUE(wait_until([&] { return kill(pid, 0) != 0; }, kLongEnough));
    }
  }
};

TEST_F(NginxLifecycleTest, ReloadKeepsTheCacheAndEndsTheOldWorkers) {
  options().workers = 2;
  start();
  get_hit("/a.txt");
  for (int i = 0; i < 3; ++i) {
    reload();
    expect_warm();
  }
}

TEST_F(NginxLifecycleTest, ReloadToOtherRules) {
  start();
  get_hit("/a.txt");
  options().mcs->cache = false;
  reload();
  EXPECT_EQ(get("/a.txt").cache_status(), "");
  options().mcs->cache = true;
  reload();
  expect_warm();
}

TEST_F(NginxLifecycleTest, ReloadLetsADownloadFinish) {
  const std::string large = text_of_size(kLarge);
  start();
  get_hit("/large.txt");
  auto connection = RawConnection::open(server_.port());
  ASSERT_TRUE(connection);
  connection->set_receive_buffer(16384);
  ASSERT_TRUE(connection->send("GET /large.txt HTTP/1.1\r\nHost: x\r\n\r\n"));
  const auto begin = connection->read_some(100);
  ASSERT_TRUE(begin);
  const auto old_workers = server_.worker_pids();
  ASSERT_TRUE(server_.reload());
  const auto rest = connection->read_to_close();
  ASSERT_TRUE(rest);
  EXPECT_TRUE((*begin + *rest).ends_with(large));
  expect_gone(old_workers);
}

TEST_F(NginxLifecycleTest, BinaryUpgradeKeepsTheCache) {
  start();
  get_hit("/a.txt");
  const auto upgraded = server_.upgrade_binary();
  ASSERT_TRUE(upgraded) << upgraded.error().message;
  expect_warm();
}

TEST_F(NginxLifecycleTest, StopAndStartKeepTheCache) {
  start();
  get_hit("/a.txt");
  ASSERT_TRUE(server_.stop());
  start();
  expect_warm();
  ASSERT_TRUE(server_.graceful_stop());
  start();
  expect_warm();
}

TEST_F(NginxLifecycleTest, EverybodyIsKilledAndTheCacheIsWarm) {
  options().workers = 2;
  start();
  get_hit("/a.txt");
  server_.kill_all();
  start();
  expect_warm();
}

TEST_F(NginxLifecycleTest, KilledWorkerIsReplaced) {
  expected_alert_ = "exited on signal 9";
  start();
  get_hit("/a.txt");
  const pid_t victim = server_.worker_pids().at(0);
  kill(victim, SIGKILL);
  EXPECT_TRUE(wait_until(
      [&] {
        const auto workers = server_.worker_pids();
        return workers.size() == 1 && workers[0] != victim;
      },
      kLongEnough));
  expect_warm();
}

TEST_F(NginxLifecycleTest, SingleProcess) {
  options().main_extra = "master_process off;\n";
  options().workers = 0;
  start();
  EXPECT_EQ(get_hit("/a.txt").body, "hello\n");
}

TEST_F(NginxLifecycleTest, HelperProcessesStayOutside) {
  options().http_extra =
      "proxy_cache_path " + (server_.prefix() / "pc").string() + " keys_zone=z:1m;\n";
  start();
  get_hit("/a.txt");
  EXPECT_TRUE(wait_until(
      [&] {
        for (const pid_t pid : children_of(server_.master_pid())) {
          if (command_line(pid).find("cache manager") != std::string::npos) {
            return true;
          }
        }
        return false;
      },
      kLongEnough));
  for (const pid_t pid : children_of(server_.master_pid())) {
    if (command_line(pid).find("cache manager") != std::string::npos) {
      const auto maps = read_file("/proc/" + std::to_string(pid) + "/maps");
      ASSERT_TRUE(maps);
      EXPECT_THAT(*maps, testing::Not(HasSubstr(domain_directory().string())));
    }
  }
}

TEST_F(NginxLifecycleTest, DomainBelongsToTheWorkersUser) {
  start();
  for (const auto& entry : std::filesystem::recursive_directory_iterator(domain_directory())) {
    struct stat info = {};
    ASSERT_EQ(stat(entry.path().c_str(), &info), 0);
    struct stat worker = {};
    ASSERT_EQ(stat(("/proc/" + std::to_string(server_.worker_pids().at(0))).c_str(), &worker), 0);
    EXPECT_EQ(info.st_uid, worker.st_uid) << entry.path();
  }
}

TEST_F(NginxLifecycleTest, ServesWithoutTheCacheUntilTheDomainCanBeUsed) {
  const auto missing = domain_directory() / "later";
  options().mcs->domain_arguments = "dir=" + missing.string();
  start();
  const HttpResponse response = get("/a.txt");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "hello\n");
  EXPECT_EQ(response.cache_status(), "");
  EXPECT_TRUE(server_.wait_for_log("serving without the cache"));
  std::filesystem::create_directory(missing);
  std::filesystem::permissions(missing, std::filesystem::perms::all);
  EXPECT_TRUE(wait_until([&] { return get("/a.txt").cache_status() == "HIT"; }, kLongEnough));
}

TEST_F(NginxLifecycleTest, ExampleOfAStaticSite) {
  const char* directory = getenv("MCS_CONF_DIR");
  ASSERT_NE(directory, nullptr);
  auto example = read_file(std::filesystem::path(directory) / "static-site.conf");
  ASSERT_TRUE(example);
  // What a reader of the example would adapt to his machine.
  const auto replace = [&](const std::string& from, const std::string& to) {
    const size_t at = example->find(from);
    ASSERT_NE(at, std::string::npos) << from;
    example->replace(at, from.size(), to);
  };
  const int port = free_port();
  replace("listen 80;", "listen 127.0.0.1:" + std::to_string(port) + ";");
  replace("root /var/www/html;", "root " + root().string() + ";");
  replace("mcs_domain web size=256m;",
          "mcs_domain web size=64m dir=" + domain_directory().string() + ";");
  McsOptions mcs = *options().mcs;
  options().mcs.reset();
  options().main_extra = "load_module " + mcs.module.string() + ";\n";
  options().http_extra = *example;
  start();
  const std::string url = "http://127.0.0.1:" + std::to_string(port) + "/a.txt";
  EXPECT_EQ(get(url).header("X-Cache"), "MISS");
  EXPECT_EQ(get(url).header("X-Cache"), "HIT");
}

}  // namespace
}  // namespace mcs::loadtest
