// SPDX-License-Identifier: Apache-2.0
// The command mcsctl, on a domain that this process uses as an instance.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/api/process.h"
#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/http/key.h"
#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/process.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs {
namespace {

using loadtest::ProcessResult;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using testing::UnorderedElementsAre;

/// One instance of the domain.
struct Member {
  std::unique_ptr<gsm::Domain> domain;
  std::unique_ptr<runtime::Liveness> liveness;
  std::unique_ptr<runtime::Instance> instance;
  std::unique_ptr<cache::GlobalCache> cache;

  static Member join(const std::string& directory, std::uint32_t node) {
    Member m;
    auto domain = gsm::Domain::open(directory, "d", cache::layout_hash());
    if (!domain) throw std::runtime_error(domain.error().message);
    m.domain = std::move(*domain);
    auto liveness = runtime::KernelLiveness::open(m.domain->path());
    if (!liveness) throw std::runtime_error(liveness.error().message);
    m.liveness = std::move(*liveness);
    auto instance = runtime::Instance::join(*m.domain, *m.liveness, {node, "server/1"});
    if (!instance) throw std::runtime_error(instance.error().message);
    m.instance = std::move(*instance);
    m.cache = std::make_unique<cache::GlobalCache>(*m.domain, *m.instance);
    m.instance->activate();
    return m;
  }
  void leave() {
    cache->leave();
    instance->leave();
  }
  void fill(const std::string& key, std::size_t bytes) {
    cache::Fill fill;
    ASSERT_EQ(cache->begin(cache->make_key(key), fill), cache::Begin::kFilling);
    const std::string body(bytes, 'b');
    const std::string_view head = "head";
    fill.set_head(std::as_bytes(std::span(head)), bytes);
    ASSERT_EQ(fill.append(std::as_bytes(std::span(body))), cache::Append::kOk);
    ASSERT_TRUE(fill.commit(runtime::wall_ms()));
  }
};

std::string file_key(const std::string& base, const std::string& path) {
  std::string key;
  EXPECT_TRUE(http::build_static_key(base, path, key));
  return key;
}

std::string proxied_key(const std::string& host, const std::string& target) {
  std::string key;
  http::KeyRequest request;
  request.scheme = "http";
  request.host = host;
  request.target = target;
  EXPECT_TRUE(http::build_key(request, http::CachePolicy(), key));
  return key;
}

class McsctlTest : public testing::Test {
 protected:
  McsctlTest() : temp_("/dev/shm", "ctltest"), tool_(loadtest::tool_file("mcsctl")) {
    gsm::DomainSpec spec;
    spec.name = "d";
    spec.directory = directory();
    spec.nodes = 2;
    spec.bytes_per_node = 16 << 20;
    const auto made = api::create(spec);
    if (!made) throw std::runtime_error(made.error().message);
  }
  std::string directory() const { return temp_.path(); }

  ProcessResult run(std::vector<std::string> words) const {
    words.insert(words.begin(), tool_.string());
    words.insert(words.end(), {"--directory", directory()});
    const auto result = loadtest::run_process(words);
    EXPECT_TRUE(result) << result.error().message;
    return result ? *result : ProcessResult{};
  }
  json run_json(std::vector<std::string> words, int exit_code = 0) const {
    words.insert(words.end(), {"--json", "-"});
    const ProcessResult result = run(words);
    EXPECT_EQ(result.exit_code, exit_code) << result.err << result.out;
    json parsed = json::parse(result.out, nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << result.out;
    return parsed;
  }
  static void expect_error(const ProcessResult& result, const char* why) {
    EXPECT_EQ(result.exit_code, 2) << result.out;
    EXPECT_THAT(result.err, HasSubstr(why));
    EXPECT_THAT(result.err, StartsWith("mcsctl: "));
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  }
  std::vector<std::string> keys() const {
    std::vector<std::string> found;
    const json all = run_json({"keys", "d"});
    for (const json& entry : all["entries"]) found.push_back(entry["key"]);
    return found;
  }
  /// A process that joins, starts to fill an entry and is killed.
  pid_t let_a_member_die() const {
    int ready[2];
    EXPECT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      Member member = Member::join(directory(), 1);
      cache::Fill fill;
      if (member.cache->begin(member.cache->make_key("/open"), fill) != cache::Begin::kFilling ||
          ::write(ready[1], "r", 1) != 1) {
        ::_exit(1);
      }
      for (;;) ::pause();
    }
    ::close(ready[1]);
    char byte = 0;
    EXPECT_EQ(::read(ready[0], &byte, 1), 1);
    ::close(ready[0]);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    return child;
  }

  loadtest::TempDir temp_;
  std::filesystem::path tool_;
};

TEST_F(McsctlTest, BadInputGetsOneClearLine) {
  expect_error(run({"status", "none"}), "gsm-emu up none");
  expect_error(run({"status", "Bad Name"}), "not allowed");
  expect_error(run({"status"}), "name is required");
  expect_error(run({"dance", "d"}), "dance");
  expect_error(run({"purge", "d"}), "--help");
  expect_error(run({"purge", "d", "--all", "--prefix", "/"}), "--help");
  expect_error(run({"purge", "d", "--prefix", "no%xx"}), "encoded");
  expect_error(run({"status", "d", "--json", directory() + "/no/such/place"}), "--json");
}

TEST_F(McsctlTest, HelpIsNoError) {
  const ProcessResult help = run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* command : {"status", "verify", "keys", "purge", "events"}) {
    EXPECT_THAT(help.out, HasSubstr(command));
    EXPECT_EQ(run({command, "--help"}).exit_code, 0);
  }
}

TEST_F(McsctlTest, ADomainOfAnotherBuildIsNamed) {
  gsm::DomainSpec spec;
  spec.name = "old";
  spec.directory = directory();
  spec.bytes_per_node = 1 << 20;
  spec.layout_hash = cache::layout_hash() + 1;
  gsm::Geometry geometry;
  geometry.meta_bytes = 8192;
  ASSERT_TRUE(gsm::Domain::create(spec, geometry, [](gsm::Segment&) {}));
  expect_error(run({"verify", "old"}), "another layout");
}

TEST_F(McsctlTest, WhoMayNotReadIsTold) {
  const std::string path = gsm::Domain::path_of(directory(), "d", cache::layout_hash());
  const bool root = ::geteuid() == 0;
  if (!root) ::chmod(path.c_str(), 0);
  const int program = ::open(tool_.c_str(), O_RDONLY | O_CLOEXEC);
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], 2);
    if (root && (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0)) {
      ::_exit(99);
    }
    const std::string where = directory();
    const char* argv[] = {"mcsctl", "status", "d", "--directory", where.c_str(), nullptr};
    ::fexecve(program, const_cast<char**>(argv), environ);
    ::_exit(98);
  }
  ::close(ends[1]);
  ::close(program);
  char buffer[1024];
  const ssize_t n = ::read(ends[0], buffer, sizeof buffer);
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  ::chmod(path.c_str(), 0700);
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_THAT(std::string(buffer, static_cast<std::size_t>(std::max<ssize_t>(n, 0))),
              HasSubstr("run as the domain's owner"));
}

TEST_F(McsctlTest, StatusTellsWhatSitesTake) {
  Member member = Member::join(directory(), 1);
  EXPECT_EQ(run_json({"status", "d"})["sites"].size(), 0U);
  const cache::SiteRules rules{"shop", {1 << 20, 0}, {512 << 10, 0}};
  member.cache->sites().add(member.cache->sites().number_of(rules), 40);
  const json status = run_json({"status", "d"});
  ASSERT_EQ(status["sites"].size(), 1U);
  EXPECT_EQ(status["sites"][0],
            json({{"site", "shop"}, {"used_bytes", 10240}, {"quota_bytes", 1 << 20},
                  {"reserve_bytes", 512 << 10}, {"sealed", 0}}));
}

TEST_F(McsctlTest, StatusTellsWhoUsesWhat) {
  Member member = Member::join(directory(), 1);
  for (int i = 0; i < 3; ++i) member.fill(file_key("site", fmt::format("/{}", i)), 5000);
  cache::Hit hit;
  ASSERT_EQ(member.cache->find(member.cache->make_key(file_key("site", "/1")), hit).found,
            cache::Found::kHit);
  member.instance->add_stat(api::kHits, 7);
  member.instance->add_stat(api::kCrossServerHits, 3);
  const json status = run_json({"status", "d"});
  EXPECT_EQ(status["domain"], "d");
  EXPECT_EQ(status["nodes"], 2);
  EXPECT_EQ(status["layout"], fmt::format("{:016x}", cache::layout_hash()));
  EXPECT_EQ(status["entries"]["sealed"], 3);
  EXPECT_EQ(status["statistics"]["hits"], 7);
  EXPECT_EQ(status["statistics"]["cross_server_hits"], 3);
  EXPECT_EQ(status["recoveries"], 0);
  ASSERT_EQ(status["segments"].size(), 2U);
  EXPECT_EQ(status["segments"][1]["entries"]["sealed"], 3);
  EXPECT_EQ(status["segments"][1]["used_bytes"], 3 * 5120);
  EXPECT_EQ(status["segments"][0]["agent"], false);
  ASSERT_EQ(status["instances"].size(), 1U);
  const json& instance = status["instances"][0];
  EXPECT_EQ(instance["pid"], ::getpid());
  EXPECT_EQ(instance["server"], "server/1");
  EXPECT_EQ(instance["node"], 1);
  EXPECT_EQ(instance["state"], "active");
  EXPECT_EQ(instance["alive"], true);
  EXPECT_EQ(instance["pins"], 1);
  const std::string text = run({"status", "d"}).out;
  EXPECT_THAT(text, HasSubstr("server/1"));
  member.cache->release(hit);
  member.leave();
  EXPECT_EQ(run_json({"status", "d"})["statistics"]["hits"], 7);
  EXPECT_TRUE(run_json({"status", "d"})["instances"].empty());
}

TEST_F(McsctlTest, VerifyTellsSoundFromDamaged) {
  Member member = Member::join(directory(), 0);
  member.fill("/x", 50000);
  const json sound = run_json({"verify", "d"});
  EXPECT_EQ(sound["ok"], true);
  EXPECT_EQ(sound["leaked_bytes"], 0);
  EXPECT_EQ(sound["sealed"], 1);
  EXPECT_EQ(sound["checked_bodies"], 1);
  EXPECT_TRUE(sound["problems"].empty());
  EXPECT_THAT(run({"verify", "d"}).out, HasSubstr("is sound"));
  EXPECT_EQ(run_json({"verify", "d", "--no-bodies"})["checked_bodies"], 0);

  member.cache->memory().group(1, 2).bits[0] = 1;
  const json damaged = run_json({"verify", "d"}, 1);
  EXPECT_EQ(damaged["ok"], false);
  EXPECT_EQ(damaged["leaked_bytes"], 256);
  ASSERT_EQ(damaged["problems"].size(), 1U);
  EXPECT_EQ(damaged["problems"][0]["kind"], "leaked-space");
  EXPECT_EQ(damaged["problems"][0]["where"], "node 1 group 2 units 0-0");
  const ProcessResult text = run({"verify", "d"});
  EXPECT_EQ(text.exit_code, 1);
  EXPECT_THAT(text.out, HasSubstr("NOT SOUND"));
  // The result goes to a file and the words stay on standard output.
  const std::string file = directory() + "/result.json";
  EXPECT_EQ(run({"verify", "d", "--json", file}).exit_code, 1);
  EXPECT_EQ(json::parse(loadtest::read_file(file).value_or(""))["leaked_bytes"], 256);
  member.leave();
}

TEST_F(McsctlTest, VerifyRecoversWhenNobodyIsLeftToDoIt) {
  const pid_t dead = let_a_member_die();
  const json before = run_json({"verify", "d", "--no-recovery", "--rechecks", "0"}, 1);
  EXPECT_EQ(before["filling"], 1);
  std::vector<std::string> kinds;
  for (const json& problem : before["problems"]) kinds.push_back(problem["kind"]);
  EXPECT_THAT(kinds, UnorderedElementsAre("dead-instance", "fill-orphaned"));
  const json after = run_json({"verify", "d"});
  EXPECT_EQ(after["recovered_first"], 1);
  EXPECT_EQ(after["instances"], 0);
  EXPECT_EQ(after["entries"], 0);

  const json events = run_json({"events", "d"});
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0]["kind"], "instance-recovered");
  EXPECT_EQ(events[0]["pid"], dead);
  EXPECT_EQ(events[0]["server"], "server/1");
  EXPECT_EQ(events[0]["node"], 1);
  EXPECT_EQ(events[0]["fills"], 1);
  EXPECT_EQ(events[0]["cause"], "mcsctl verify");
  EXPECT_GT(events[0]["duration_us"], 0);
  EXPECT_GE(events[0]["resumed_us"], events[0]["repaired_us"]);
  EXPECT_GE(events[0]["repaired_us"], events[0]["agreed_us"]);
  EXPECT_GT(events[0]["wall_ms"], 0);
  EXPECT_EQ(run_json({"status", "d"})["recoveries"], 1);
  EXPECT_THAT(run({"events", "d"}).out, HasSubstr(fmt::format("pid {}", dead)));
}

TEST_F(McsctlTest, VerifyLeavesRecoveryToTheLiving) {
  Member member = Member::join(directory(), 0);
  let_a_member_die();
  const json report = run_json({"verify", "d", "--rechecks", "1"}, 1);
  EXPECT_EQ(report["recovered_first"], 0);
  EXPECT_EQ(member.instance->recover_all("test"), 1U);
  EXPECT_EQ(run_json({"verify", "d"})["ok"], true);
  member.leave();
}

TEST_F(McsctlTest, KeysAreReadable) {
  Member member = Member::join(directory(), 0);
  member.fill(file_key("site", "/a/one.html"), 100);
  member.fill(file_key("site", "/a/two.html"), 200000);
  member.fill(proxied_key("example.org", "/b?q=1"), 300);
  member.fill("not\x01 a key", 10);
  cache::Hit hit;
  ASSERT_EQ(member.cache->find(member.cache->make_key(file_key("site", "/a/one.html")), hit).found,
            cache::Found::kHit);
  const json all = run_json({"keys", "d"});
  EXPECT_EQ(all["matched"], 4);
  const json& entries = all["entries"];
  ASSERT_EQ(entries.size(), 4U);
  EXPECT_EQ(entries[0]["key"], "http://example.org/b?q=1");
  EXPECT_EQ(entries[1]["key"], "not\\x01 a key");
  EXPECT_EQ(entries[2]["key"], "site/a/one.html");
  EXPECT_EQ(entries[2]["bytes"], 100);
  EXPECT_EQ(entries[2]["pins"], 1);
  EXPECT_EQ(entries[2]["extents"], 1);
  EXPECT_THAT(entries[2]["nodes"], ElementsAre(0));
  EXPECT_GE(entries[2]["age_ms"], 0);
  EXPECT_EQ(entries[3]["pins"], 0);
  EXPECT_GT(entries[3]["extents"], 1);
  const json some = run_json({"keys", "d", "--prefix", "site/", "--limit", "1"});
  EXPECT_EQ(some["matched"], 2);
  EXPECT_EQ(some["entries"].size(), 1U);
  EXPECT_THAT(run({"keys", "d"}).out, HasSubstr("site/a/two.html"));
  member.cache->release(hit);
  member.leave();
}

TEST_F(McsctlTest, PurgeRemovesWhatWasAskedFor) {
  Member member = Member::join(directory(), 0);
  const auto fill_all = [&] {
    for (const char* path : {"/a/1", "/a/2", "/b/1"}) {
      for (const char* base : {"", "site"}) {
        cache::Hit hit;
        const std::string key = file_key(base, path);
        if (member.cache->find(member.cache->make_key(key), hit).found == cache::Found::kHit) {
          member.cache->release(hit);
        } else {
          member.fill(key, 1000);
        }
      }
    }
    cache::Hit hit;
    const std::string key = proxied_key("h", "/a/1");
    if (member.cache->find(member.cache->make_key(key), hit).found == cache::Found::kHit) {
      member.cache->release(hit);
    } else {
      member.fill(key, 1000);
    }
  };
  const auto purged = [&](std::vector<std::string> words) {
    fill_all();
    words.insert(words.begin(), {"purge", "d"});
    const std::uint64_t n = run_json(words)["purged"];
    EXPECT_EQ(keys().size(), 7 - n) << testing::PrintToString(words);
    return n;
  };
  fill_all();
  EXPECT_THAT(keys(), ElementsAre("/a/1", "/a/2", "/b/1", "http://h/a/1", "site/a/1", "site/a/2",
                                  "site/b/1"));
  EXPECT_EQ(purged({"--key", "site/a/1"}), 1U);
  EXPECT_EQ(purged({"--key", "none"}), 0U);
  EXPECT_EQ(purged({"--base", "site", "--path", "/a/2"}), 1U);
  EXPECT_EQ(purged({"--path", "/a/2"}), 1U);
  expect_error(run({"purge", "d", "--path", "/a/2"}), "--base or --host");
  EXPECT_EQ(purged({"--host", "h", "--path", "/a/1"}), 1U);
  EXPECT_EQ(purged({"--base", "site", "--prefix", "/a/"}), 2U);
  EXPECT_EQ(purged({"--prefix", "/a/"}), 5U);
  EXPECT_EQ(purged({"--base", "site", "--wildcard", "/*/1"}), 2U);
  EXPECT_EQ(purged({"--wildcard", "/*/1"}), 5U);
  EXPECT_EQ(purged({"--all"}), 7U);
  // Nothing of the tool is left, and what it retired is given back.
  const json report = run_json({"verify", "d"});
  EXPECT_EQ(report["instances"], 1);
  EXPECT_EQ(report["entries"], 0);
  EXPECT_EQ(report["units_used"], 0);
  member.leave();
}

TEST_F(McsctlTest, ASoftPurgeMarksStale) {
  Member member = Member::join(directory(), 0);
  member.fill(file_key("", "/x"), 100);
  EXPECT_EQ(run_json({"purge", "d", "--path", "/x", "--soft"})["purged"], 1);
  const json entries = run_json({"keys", "d"})["entries"];
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0]["state"], "stale");
  member.leave();
}

}  // namespace
}  // namespace mcs
