// SPDX-License-Identifier: Apache-2.0
// Domains that cannot be used: the server says so, and serves without the cache.
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

#include "loadtest/harness/net.h"
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class DomainTest : public ServerTest {
 protected:
  void SetUp() override {
    write("small.txt", "small");
    write("large.bin", body_);
  }
  void expect_served(const WebServer& server) {
    for (int i = 0; i < 3; ++i) {
      const HttpResponse small = get(server, "/small.txt");
      EXPECT_EQ(small.status, 200);
      EXPECT_EQ(small.body, "small");
      EXPECT_THAT(small.cache_status(), Not("HIT"));
      EXPECT_TRUE(get(server, "/large.bin").body == body_);
    }
  }
  const std::string body_ = bytes_of_size(200'000);
};
INSTANTIATE_TEST_SUITE_P(Servers, DomainTest, every_server(), server_name);

TEST_P(DomainTest, DirectoryThatIsNotThere) {
  ServerOptions options = default_options();
  options.mcs->domain_arguments = "dir=" + (domain_directory() / "missing").string();
  WebServer& server = add(GetParam(), options);
  const auto check = server.check_config();
  ASSERT_TRUE(check);
  EXPECT_FALSE(check->ok());
  EXPECT_THAT(check->err, HasSubstr("missing"));
  start(server);
  expect_served(server);
  EXPECT_THAT(server.error_log(), HasSubstr("missing"));
}

TEST_P(DomainTest, TooLittleRoom) {
  ServerOptions options = default_options();
  options.mcs->size = "900g";
  WebServer& server = add(GetParam(), options);
  const auto check = server.check_config();
  ASSERT_TRUE(check);
  EXPECT_THAT(check->err, HasSubstr("size="));
  start(server);
  expect_served(server);
}

TEST_P(DomainTest, NoPermission) {
  if (geteuid() != 0) return;  // only root has workers of another user
  ServerOptions options = default_options();
  options.mcs->domain_arguments += " owner=root mode=0600";
  const WebServer& server = start(GetParam(), options);
  expect_served(server);
  EXPECT_TRUE(server.wait_for_log("ermission")) << server.error_log();
}

TEST_P(DomainTest, DomainThatCanBeUsedLater) {
  ServerOptions options = default_options();
  const std::filesystem::path directory = domain_directory() / "later";
  options.mcs->domain_arguments = "dir=" + directory.string();
  const WebServer& server = start(GetParam(), options);
  expect_served(server);
  std::filesystem::create_directory(directory);
  chmod(directory.c_str(), 0777);
  get_until(server, "/small.txt", [](const auto& r) { return r.cache_status() == "HIT"; });
}

TEST_P(DomainTest, CheckCreatesNothing) {
  WebServer& server = add(GetParam(), default_options());
  const auto check = server.check_config();
  ASSERT_TRUE(check);
  EXPECT_TRUE(check->ok()) << check->err;
  EXPECT_TRUE(std::filesystem::is_empty(domain_directory()));
}

TEST_P(DomainTest, OneErrorLineForEachMistake) {
  struct Mistake {
    std::string domain;
    std::string arguments;
    std::vector<McsDirective> rules;
    std::string said;
  };
  const std::vector<Mistake> mistakes = {
      {"no/name", "", {}, "no/name"},
      {"UPPER", "", {}, "UPPER"},
      {"test", "colour=red", {}, "colour"},
      {"test", "size=much", {}, "size"},
      {"test", "node=99", {}, "node"},
      {"test", "owner=nobody-of-that-name", {}, "nobody-of-that-name"},
      {"test", "mode=rw", {}, "mode"},
      {"test", "", {{"cache_valid", "soon"}}, "soon"},
  };
  for (const Mistake& mistake : mistakes) {
    ServerOptions options = default_options();
    options.mcs->domain = mistake.domain;
    options.mcs->domain_arguments += " " + mistake.arguments;
    options.mcs->cache_directives = mistake.rules;
    if (!mistake.rules.empty()) options.mcs->valid.clear();
    const auto check = add(GetParam(), options).check_config();
    ASSERT_TRUE(check);
    EXPECT_FALSE(check->ok()) << mistake.said;
    EXPECT_THAT(check->err, HasSubstr(mistake.said));
  }
}

// A lost segment: what was on its way out of it ends short, and never with other bytes.
TEST_P(DomainTest, MemoryThatIsLostWhileABodyIsSent) {
  expected_trouble_ = "sendfile() reported that \"memory of the cache\" was truncated";
  const std::string body = bytes_of_size(6'000'000);
  write("long.bin", body);
  const WebServer& server = start(GetParam());
  get_hit(server, "/long.bin");
  std::vector<RawConnection> readers;
  std::vector<std::string> received;
  for (int i = 0; i < 3; ++i) {
    readers.push_back(std::move(RawConnection::open(server.port()).value()));
    readers.back().set_receive_buffer(65536);
    ASSERT_TRUE(readers.back().send(
        "GET /long.bin HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    received.push_back(readers.back().read_some().value_or(""));
  }
  int lost = 0;
  for (const auto& file : std::filesystem::recursive_directory_iterator(domain_directory())) {
    if (file.path().filename().string().starts_with("segment.")) {
      std::filesystem::resize_file(file.path(), 0);
      ++lost;
    }
  }
  EXPECT_EQ(lost, 1);
  for (size_t i = 0; i < readers.size(); ++i) {
    for (;;) {
      const auto more = readers[i].read_some();
      if (!more || more->empty()) break;
      received[i] += *more;
    }
    const size_t begin = received[i].find("\r\n\r\n") + 4;
    EXPECT_TRUE(body.starts_with(std::string_view(received[i]).substr(begin)));
    EXPECT_LT(received[i].size() - begin, body.size()) << "the socket took it all at once";
  }
  expect_served(server);
  EXPECT_TRUE(get(server, "/long.bin").body == body);
}

// What a build with other structures left or uses is neither touched nor in the way.
TEST_P(DomainTest, AnotherLayoutLiesBeside) {
  namespace fs = std::filesystem;
  WebServer& server = start(GetParam());
  get_hit(server, "/small.txt");
  ASSERT_TRUE(server.stop());
  const fs::path ours = *fs::directory_iterator(domain_directory());
  const fs::path theirs = domain_directory() / "mcs-test.12345678";
  ASSERT_TRUE(ours.filename().string().starts_with("mcs-test.")) << ours;
  fs::rename(ours, theirs);
  const auto changed = fs::last_write_time(theirs / "segment.0.1");
  start(server);
  EXPECT_EQ(get(server, "/small.txt").cache_status(), "MISS");
  EXPECT_EQ(get(server, "/small.txt").cache_status(), "HIT");
  EXPECT_TRUE(fs::exists(ours));
  EXPECT_EQ(fs::last_write_time(theirs / "segment.0.1"), changed);
}

// Also when the only one who could have printed the line is the one who died.
TEST_P(DomainTest, OneLogLineForEachRecovery) {
  ServerOptions options = default_options();
  options.workers = 1;
  WebServer& server = start(GetParam(), options);
  get_hit(server, "/small.txt");
  const pid_t victim = server.worker_pids().at(0);
  ::kill(victim, SIGKILL);
  const std::string line = " pid " + std::to_string(victim) + " on node 0";
  EXPECT_TRUE(server.wait_for_log(line, std::chrono::seconds(20)));
  EXPECT_EQ(get(server, "/small.txt").cache_status(), "HIT");
  const std::string log = server.error_log();
  EXPECT_EQ(log.find(line, log.find(line) + 1), std::string::npos) << log;
}

TEST_P(DomainTest, OtherSizeIsUsedAsItIsAndSaid) {
  WebServer& server = start(GetParam());
  get_hit(server, "/small.txt");
  ASSERT_TRUE(server.stop());
  server.options().mcs->size = "128m";
  start(server);
  EXPECT_EQ(get(server, "/small.txt").cache_status(), "HIT");
  EXPECT_THAT(server.error_log(), HasSubstr("size"));
}

}  // namespace
}  // namespace mcs::loadtest
