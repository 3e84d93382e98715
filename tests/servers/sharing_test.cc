// SPDX-License-Identifier: Apache-2.0
// Two servers on one domain: what they share, and what they must not.
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "loadtest/harness/build_paths.h"
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

// The memory of node 1, on which the second server runs, is lost and comes back, twice; then node 0's.
TEST_P(SharingTest, MemoryIsLostAndComesBack) {
  const auto options_of = [this](int node) {
    ServerOptions options = default_options();
    options.mcs->domain_arguments += " nodes=2 node=" + std::to_string(node);
    options.workers = 1;
    return options;
  };
  constexpr int kFiles = 60;
  const auto name = [](int i) { return "/lost/" + std::to_string(i) + ".bin"; };
  const auto body = [](int i) {
    return bytes_of_size(i % 7 == 0 ? 100'000U : 300U * static_cast<unsigned>(i), 3);
  };
  for (int i = 0; i < kFiles; ++i) write(name(i).substr(1), body(i));
  const WebServer& here = start(first(), options_of(0));
  const WebServer& there = start(second(), options_of(1));
  const auto workers = [&] {
    auto pids = here.worker_pids();
    const auto more = there.worker_pids();
    pids.insert(pids.end(), more.begin(), more.end());
    return pids;
  };
  const auto living = workers();
  const auto tool = [&](std::vector<std::string> words) {
    words[0] = tool_file(words[0]).string();
    words.insert(words.end(), {"--directory", domain_directory().string()});
    const auto ran = run_process(words);
    ASSERT_TRUE(ran) << ran.error().message;
    EXPECT_TRUE(ran->ok()) << ran->describe();
  };
  const auto hits_of = [&](int node) {
    int hits = 0;
    for (int i = node; i < kFiles; i += 2) {
      for (const WebServer* server : {&here, &there}) {
        const HttpResponse got = get(*server, name(i));
        EXPECT_TRUE(got.body == body(i)) << name(i) << " " << got.status;
        if (got.cache_status() == "HIT") ++hits;
      }
    }
    return hits;
  };
  // A server stores on its own node's segment: even numbers on node 0, odd ones on node 1.
  for (int i = 0; i < kFiles; ++i) get_hit(i % 2 == 0 ? here : there, name(i));
  EXPECT_EQ(hits_of(0), kFiles);
  EXPECT_EQ(hits_of(1), kFiles);

  for (const int lost : {1, 1, 0}) {
    SCOPED_TRACE(lost);
    const std::string node = std::to_string(lost);
    tool({"gsm-emu", "lose", "test", node});
    const int kept = 1 - lost;
    // As soon as the index is whole, all that lies on the other segment is a hit for both.
    const auto whole_without = [&] {
      const auto ran = run_process({tool_file("mcsctl").string(), "status", "test", "--directory",
                                    domain_directory().string(), "--json", "-"});
      const auto said = nlohmann::json::parse(ran ? ran->out : "", nullptr, false);
      return said.is_object() && said["view"]["segments"] == nlohmann::json::array({kept}) &&
             said["view"]["index_is_whole"] == true;
    };
    ASSERT_TRUE(wait_until(whole_without, std::chrono::seconds(10)));
    // Each process has heard of it at its next tick, if no request of its has told it before.
    EXPECT_TRUE(wait_until([&] { return hits_of(kept) == kFiles; }, std::chrono::seconds(10)));
    tool({"gsm-emu", "restore", "test", node});
    for (int i = 0; i < kFiles; ++i) {
      const WebServer& its = i % 2 == 0 ? here : there;
      get_until(its, name(i), [](const auto& r) { return r.cache_status() == "HIT"; });
    }
    EXPECT_EQ(hits_of(0) + hits_of(1), 2 * kFiles);
    tool({"mcsctl", "verify", "test"});
  }
  const auto now = workers();
  for (const pid_t pid : living) EXPECT_THAT(now, testing::Contains(pid));
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

// Of the workers that run as default_options() says.
std::pair<uid_t, gid_t> own_user() {
  const passwd* user = getpwnam("www-data");
  return geteuid() == 0 && user != nullptr ? std::pair(user->pw_uid, user->pw_gid)
                                           : std::pair(geteuid(), getegid());
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
  write("closed.txt", "for the first only");
  const auto closed = root() / "closed.txt";
  struct stat info = {};
  ASSERT_EQ(stat(closed.c_str(), &info), 0);
  if ((info.st_mode & 0777) != 0600) {  // otherwise kept from the test of another pair
    ASSERT_EQ(chown(closed.c_str(), own_user().first, own_user().second), 0);
    ASSERT_EQ(chmod(closed.c_str(), 0600), 0);
  }
  write("a.txt", "hello, either of you");  // old enough only when the other is
  write("b.txt", "hello");
  get(one, "/a.txt");
  EXPECT_EQ(get(other, "/a.txt").cache_status(), "HIT");
  get(other, "/b.txt");
  EXPECT_EQ(get(one, "/b.txt").cache_status(), "HIT");
  // But not what only one of them may read.
  EXPECT_EQ(get_hit(one, "/closed.txt").body, "for the first only");
  EXPECT_EQ(get(other, "/closed.txt").status, geteuid() == 0 ? 403 : 200);
}

// In both they have the whole path in their key.
TEST_P(SharingTest, FilesBelowAnAlias) {
  const TempDir alias("mcs-alias");
  write(alias.path() / "a.txt", "hello");
  ServerOptions options = default_options();
  options.mcs->key_base.clear();
  options.locations = {{"/alias/", alias.path(), ""}};
  const auto named = [&](const ServerType& type) {
    options.server_extra = type.kind == ServerKind::kNginx ? "mcs_cache_key_base site;\n"
                                                           : "McsCacheKeyBase site\n";
    return options;
  };
  const WebServer& filler = start(first(), named(first()));
  const WebServer& reader = start(second(), named(second()));
  EXPECT_EQ(get_hit(filler, "/alias/a.txt").body, "hello");
  EXPECT_EQ(get(reader, "/alias/a.txt").cache_status(), "HIT");
}

}  // namespace
}  // namespace mcs::loadtest
