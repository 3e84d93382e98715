// SPDX-License-Identifier: Apache-2.0
// Two servers on one domain: what they share, and what they must not.
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

#include "loadtest/harness/proc_info.h"
#include "loadtest/harness/process.h"
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::Not;

using SharingTest = PairTest;
INSTANTIATE_TEST_SUITE_P(Servers, SharingTest, every_pair(), pair_name);

TEST_P(SharingTest, WhatOneFillsTheOtherHits) {
  const WebServer& filler = start(first());
  const WebServer& reader = start(second());
  for (const size_t size : {0u, 100u, 16384u, 500'000u}) {
    const std::string path = "/dir/" + std::to_string(size) + " x.bin";
    const std::string url = "/dir/" + std::to_string(size) + "%20x.bin";
    const std::string body = bytes_of_size(size);
    write(path.substr(1), body);
    const HttpResponse filled = get(filler, url);
    EXPECT_EQ(filled.cache_status(), "MISS");
    const HttpResponse hit = get(reader, url);
    EXPECT_EQ(hit.cache_status(), "HIT");
    EXPECT_TRUE(hit.body == body) << size;
    EXPECT_THAT(hit.header("ETag"), Not(""));
    EXPECT_EQ(hit.header("ETag"), filled.header("ETag"));
    EXPECT_EQ(hit.header("Last-Modified"), filled.header("Last-Modified"));
  }
}

TEST_P(SharingTest, IndexFilledByOneIsHitByTheOther) {
  write("index.html", "index");
  const WebServer& filler = start(first());
  const WebServer& reader = start(second());
  get(filler, "/");
  EXPECT_EQ(get(reader, "/").cache_status(), "HIT");
  EXPECT_EQ(get(reader, "/index.html").cache_status(), "HIT");
}

TEST_P(SharingTest, BothSeeAChange) {
  ServerOptions options = default_options();
  options.mcs->valid = "1s";
  const WebServer& one = start(first(), options);
  const WebServer& other = start(second(), options);
  write("a.txt", "before");
  EXPECT_EQ(get(one, "/a.txt").body, "before");
  EXPECT_EQ(get(other, "/a.txt").body, "before");
  replace("a.txt", "after", kOld + 10);
  get_until(one, "/a.txt", [](const auto& r) { return r.body == "after"; });
  get_until(other, "/a.txt", [](const auto& r) { return r.body == "after"; });
}

TEST_P(SharingTest, DeniedStaysDeniedWhenTheOtherHasFilled) {
  write("secret/a.txt", "secret");
  const WebServer& open = start(first());
  ServerOptions options = default_options();
  const bool nginx = second().kind == ServerKind::kNginx;
  options.server_extra =
      nginx ? "location /secret/ { mcs_cache on; mcs_cache_key_base site; deny all; }"
            : "<Location /secret/>\n  Require all denied\n</Location>\n";
  const WebServer& closed = start(second(), options);
  EXPECT_EQ(get_hit(open, "/secret/a.txt").body, "secret");
  for (const char* url : {"/secret/a.txt", "//secret/a.txt", "/secret/./a.txt",
                          "/x/../secret/a.txt", "/%73ecret/a.txt", "/secret//a.txt"}) {
    const HttpResponse response = get(closed, url);
    EXPECT_EQ(response.status, 403) << url;
    EXPECT_EQ(response.body.find("secret\n"), std::string::npos) << url;
  }
}

TEST_P(SharingTest, DifferentKeyBasesShareNothing) {
  const TempDir other_root("mcs-www");
  write("a.txt", "one");
  write(other_root.path() / "a.txt", "two");
  ServerOptions options = default_options();
  const WebServer& one = start(first(), options);
  options.document_root = other_root.path();
  options.mcs->key_base = "another";
  const WebServer& other = start(second(), options);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(get(one, "/a.txt").body, "one");
    EXPECT_EQ(get(other, "/a.txt").body, "two");
  }
}

TEST_P(SharingTest, WithoutKeyBasesNothingIsShared) {
  const TempDir other_root("mcs-www");
  write("a.txt", "one");
  write(other_root.path() / "a.txt", "two");
  ServerOptions options = default_options();
  options.mcs->key_base.clear();
  const WebServer& one = start(first(), options);
  const WebServer& same = start(second(), options);
  options.document_root = other_root.path();
  const WebServer& other = start(second(), options);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(get(one, "/a.txt").body, "one");
    EXPECT_EQ(get(other, "/a.txt").body, "two");
    EXPECT_EQ(get(same, "/a.txt").cache_status(), round == 0 ? "MISS" : "HIT");
  }
}

TEST_P(SharingTest, CacheStaysWarmWhenBothStopAndStart) {
  WebServer& one = start(first());
  WebServer& other = start(second());
  const std::string body = bytes_of_size(300'000);
  write("small.txt", "small");
  write("large.bin", body);
  get(one, "/small.txt");
  get(other, "/large.bin");
  ASSERT_TRUE(one.stop());
  ASSERT_TRUE(other.stop());
  start(other);
  start(one);
  for (const WebServer* server : {&one, &other}) {
    EXPECT_EQ(get(*server, "/small.txt").cache_status(), "HIT");
    const HttpResponse response = get(*server, "/large.bin");
    EXPECT_EQ(response.cache_status(), "HIT");
    EXPECT_TRUE(response.body == body);
  }
}

// Workers, masters and the recovery agent at once.
TEST_P(SharingTest, CacheStaysWarmWhenAllAreKilled) {
  WebServer& one = start(first());
  WebServer& other = start(second());
  const std::string large = bytes_of_size(200'000);
  write("a.txt", "hello");
  write("large.bin", large);
  get_hit(one, "/a.txt");
  get_hit(other, "/large.bin");
  const auto agents = [&] {
    std::vector<pid_t> pids;
    for (const auto& stat : all_processes()) {
      const std::string line = command_line(stat.pid);
      if (stat.state != 'Z' && line.find("mcs-agent") != std::string::npos &&
          line.find(domain_directory().string()) != std::string::npos) {
        pids.push_back(stat.pid);
      }
    }
    return pids;
  };
  ASSERT_TRUE(wait_until([&] { return agents().size() == 1; }, std::chrono::seconds(20)));
  const std::vector<pid_t> killed = agents();
  for (const pid_t pid : killed) ::kill(pid, SIGKILL);
  one.kill_all();
  other.kill_all();
  start(one);
  EXPECT_EQ(get(one, "/large.bin").cache_status(), "HIT");
  EXPECT_TRUE(get(one, "/large.bin").body == large);
  start(other);
  EXPECT_EQ(get(other, "/a.txt").cache_status(), "HIT");
  EXPECT_TRUE(wait_until([&] { return agents().size() == 1; }, std::chrono::seconds(20)));
  EXPECT_NE(agents(), killed);
}

TEST_P(SharingTest, OneIsKilledWhileTheOtherServes) {
  const WebServer& one = start(first());
  WebServer& other = start(second());
  const std::string body = bytes_of_size(200'000);
  for (int i = 0; i < 40; ++i) write(std::to_string(i), body);
  for (int i = 0; i < 20; ++i) {
    get(other, "/" + std::to_string(i));
  }
  other.kill_all();
  for (int i = 0; i < 40; ++i) {
    const HttpResponse response = get(one, "/" + std::to_string(i));
    EXPECT_EQ(response.status, 200);
    EXPECT_TRUE(response.body == body);
  }
}

// Distinct users share by the domain's group.
TEST_P(SharingTest, ServersUnderDistinctUsers) {
  ServerOptions options = default_options();
  options.mcs->domain_arguments += " owner=www-data group=www-data mode=0660";
  const WebServer& one = start(first(), options);
  options.user = "backup";
  options.main_extra =
      second().kind == ServerKind::kNginx ? "user backup www-data;\n" : "Group www-data\n";
  if (geteuid() == 0 && second().kind == ServerKind::kNginx) {
    options.user.clear();  // said in main_extra, with its group
  }
  if (geteuid() != 0) options.main_extra.clear();
  const WebServer& other = start(second(), options);
  write("a.txt", "hello");
  write("b.txt", "hello");
  get(one, "/a.txt");
  EXPECT_EQ(get(other, "/a.txt").cache_status(), "HIT");
  get(other, "/b.txt");
  EXPECT_EQ(get(one, "/b.txt").cache_status(), "HIT");
}

}  // namespace
}  // namespace mcs::loadtest
