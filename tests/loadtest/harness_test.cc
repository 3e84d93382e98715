// SPDX-License-Identifier: Apache-2.0
// The harness against the stock servers: what it starts answers, is found and goes away.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "loadtest/harness/guardian.h"
#include "loadtest/harness/http_client.h"
#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/net.h"
#include "loadtest/harness/nginx_server.h"
#include "loadtest/harness/proc_info.h"
#include "loadtest/harness/process.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

TEST(RunProcess, CapturesOutputAndExitCode) {
  ProcessOptions options;
  options.input = "question";
  options.environment = {"MCS_TEST_VARIABLE=42"};
  const auto result =
      run_process({"sh", "-c", "cat; echo $MCS_TEST_VARIABLE; echo oops >&2; exit 3"}, options);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->out, "question42\n");
  EXPECT_EQ(result->err, "oops\n");
  EXPECT_EQ(result->exit_code, 3);
  EXPECT_EQ(result->describe(), "exit code 3: oops");
}

TEST(RunProcess, CapturesMoreThanAPipeHolds) {
  const auto result = run_process({"sh", "-c", "head -c 3000000 /dev/zero; echo done >&2"});
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->out.size(), 3'000'000u);
  EXPECT_EQ(result->err, "done\n");
}

TEST(RunProcess, KillsTheWholeGroupAtItsTimeout) {
  ProcessOptions options;
  options.timeout = milliseconds(2'000);
  const auto result = run_process({"sh", "-c", "sleep 1000 & echo $!; wait"}, options);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_TRUE(result->timed_out);
  const pid_t grandchild = std::stoi(result->out);
  EXPECT_TRUE(wait_until(
      [&] {
        const auto stat = read_proc_stat(grandchild);
        return !stat || stat->state == 'Z';
      },
      milliseconds(60'000)));
}

TEST(RunProcess, NamesAMissingProgram) {
  const auto result = run_process({"no-such-program-of-mcs"});
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("no-such-program-of-mcs"), std::string::npos);
}

TEST(RunProcess, DoesNotWaitForABackgroundProcessThatHoldsTheOutput) {
  const auto result = run_process({"sh", "-c", "setsid sleep 5 & echo started"});
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->out, "started\n");
  EXPECT_FALSE(result->timed_out);
}

TEST(Guardian, CleansUpAfterAKilledProcess) {
  const TempDir outside;
  const fs::path doomed = outside.path() / "doomed";
  const fs::path marker = outside.path() / "marker";
  fs::create_directories(doomed / "below");
  int registered[2];
  ASSERT_EQ(pipe(registered), 0);
  const pid_t child = fork();
  if (child == 0) {
    const pid_t group = fork();
    if (group == 0) {
      setpgid(0, 0);
      for (;;) {
        pause();
      }
    }
    setpgid(group, group);
    Guardian guardian;
    guardian.add_group(group);
    guardian.add_path(doomed);
    guardian.add_path(outside.path() / "kept");
    guardian.remove_path(outside.path() / "kept");
    guardian.add_command({"touch", marker.string()});
    if (write(registered[1], &group, sizeof group) > 0) {
      pause();
    }
    _exit(1);
  }
  fs::create_directories(outside.path() / "kept");
  pid_t group = 0;
  ASSERT_EQ(read(registered[0], &group, sizeof group), static_cast<ssize_t>(sizeof group));
  close(registered[0]);
  close(registered[1]);
  EXPECT_TRUE(read_proc_stat(group));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(
      wait_until([&] { return !fs::exists(doomed) && fs::exists(marker); }, milliseconds(60'000)));
  EXPECT_TRUE(wait_until(
      [&] {
        const auto stat = read_proc_stat(group);
        return !stat || stat->state == 'Z';
      },
      milliseconds(60'000)));
  EXPECT_TRUE(fs::exists(outside.path() / "kept"));
}

TEST(ProcInfo, SeesAStoppedProcessAndItsCpuTime) {
  auto child = ChildProcess::start({"sh", "-c", "while :; do :; done"});
  ASSERT_TRUE(child) << child.error().message;
  EXPECT_TRUE(wait_until([&] { return process_cpu_ns(child->pid()).value_or(0) > 1'000'000; },
                         milliseconds(60'000)));
  EXPECT_FALSE(all_threads_stopped(child->pid()));
  child->signal(SIGSTOP);
  EXPECT_TRUE(wait_until([&] { return all_threads_stopped(child->pid()); }, milliseconds(60'000)));
  EXPECT_EQ(members_of_group(child->pid()), std::vector<pid_t>{child->pid()});
  EXPECT_GT(process_memory_bytes(child->pid(), "VmPTE").value_or(0), 0u);
}

class ServerTest : public testing::TestWithParam<ServerKind> {
 protected:
  ServerTest() {
    EXPECT_TRUE(write_file(root_.path() / "hello.txt", "hello"));
    EXPECT_TRUE(write_file(other_.path() / "deep" / "other.txt", "other"));
    options_.document_root = root_.path();
    options_.locations.push_back({"/other/", other_.path(), ""});
  }

  TempDir root_;
  TempDir other_;
  ServerOptions options_;
  HttpClient client_;
};

TEST_P(ServerTest, ServesFilesAndStopsCompletely) {
  const auto server = make_server(GetParam(), options_);
  const auto started = server->start();
  ASSERT_TRUE(started) << started.error().message;
  const auto hello = client_.get(server->url("/hello.txt"));
  ASSERT_TRUE(hello) << hello.error().message;
  EXPECT_EQ(hello->status, 200);
  EXPECT_EQ(hello->body, "hello");
  EXPECT_EQ(hello->header("content-type"), "text/plain");
  EXPECT_EQ(client_.get(server->url("/other/deep/other.txt"))->body, "other");
  EXPECT_EQ(client_.get(server->url("/none"))->status, 404);
  EXPECT_EQ(server->worker_pids().size(), 2u);
  const auto pids = server->all_pids();
  EXPECT_GE(pids.size(), 3u);
  const auto stopped = server->stop();
  EXPECT_TRUE(stopped) << stopped.error().message;
  EXPECT_FALSE(server->running());
  EXPECT_FALSE(can_connect(server->port()));
}

TEST_P(ServerTest, StopsWithItsObject) {
  int port = 0;
  std::vector<pid_t> pids;
  {
    const auto server = make_server(GetParam(), options_);
    ASSERT_TRUE(server->start());
    port = server->port();
    pids = server->all_pids();
  }
  EXPECT_FALSE(can_connect(port));
  for (const pid_t pid : pids) {
    const auto stat = read_proc_stat(pid);
    EXPECT_TRUE(!stat || stat->state == 'Z') << pid;
  }
}

TEST_P(ServerTest, ReloadsWithNewWorkersAndNewConfiguration) {
  options_.root_location = false;
  const auto server = make_server(GetParam(), options_);
  ASSERT_TRUE(server->start());
  const auto before = server->worker_pids();
  ASSERT_TRUE(write_file(other_.path() / "new.txt", "new"));
  server->options().locations.push_back({"/again/", other_.path(), ""});
  const auto reloaded = server->reload();
  ASSERT_TRUE(reloaded) << reloaded.error().message;
  // Old workers may still accept a connection while they shut down.
  EXPECT_TRUE(wait_until(
      [&] {
        HttpRequest request;
        request.url = server->url("/again/new.txt");
        request.fresh_connection = true;
        const auto answer = client_.send(request);
        return answer && answer->body == "new";
      },
      milliseconds(60'000)));
  server->options().main_extra = "nonsense;\n";
  EXPECT_FALSE(server->reload());
  EXPECT_TRUE(server->running());
  server->options().main_extra.clear();
  EXPECT_TRUE(server->graceful_stop());
}

TEST_P(ServerTest, StartsAgainOnTheSamePortAfterEverythingWasKilled) {
  const auto server = make_server(GetParam(), options_);
  ASSERT_TRUE(server->start());
  const int port = server->port();
  server->kill_all();
  EXPECT_FALSE(server->running());
  EXPECT_TRUE(server->all_pids().empty());
  const auto started = server->start();
  ASSERT_TRUE(started) << started.error().message;
  EXPECT_EQ(server->port(), port);
  EXPECT_EQ(client_.get(server->url("/hello.txt"))->body, "hello");
}

TEST_P(ServerTest, ServesHttp2OverTls) {
  options_.tls = true;
  options_.http2 = true;
  const auto server = make_server(GetParam(), options_);
  const auto started = server->start();
  ASSERT_TRUE(started) << started.error().message;
  HttpRequest request;
  request.url = server->tls_url("/hello.txt");
  request.http2 = true;
  const auto hello = client_.send(request);
  ASSERT_TRUE(hello) << hello.error().message;
  EXPECT_EQ(hello->body, "hello");
  EXPECT_EQ(hello->http_version, 20);
  EXPECT_TRUE(hello->new_connection);
  EXPECT_FALSE(client_.send(request)->new_connection);
}

TEST_P(ServerTest, QuotesTheLogWhenItCannotStart) {
  options_.main_extra = "nonsense;\n";
  const auto server = make_server(GetParam(), options_);
  const auto checked = server->check_config();
  ASSERT_TRUE(checked);
  EXPECT_NE(checked->exit_code, 0);
  const auto started = server->start();
  ASSERT_FALSE(started);
  EXPECT_NE(started.error().message.find("nonsense"), std::string::npos) << started.error().message;
}

TEST_P(ServerTest, AnswersByteExactRequests) {
  const auto server = make_server(GetParam(), options_);
  ASSERT_TRUE(server->start());
  auto connection = RawConnection::open(server->port());
  ASSERT_TRUE(connection);
  ASSERT_TRUE(
      connection->send("GET /hello.txt HTTP/1.1\r\nHost: x\r\n\r\n"
                       "HEAD /hello.txt HTTP/1.1\r\nHost: x\r\n\r\n"
                       "GET /hello.txt HTTP/1.0\r\nRange: bytes=1-2\r\n\r\n"));
  const auto first = connection->read_response();
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(first->body, "hello");
  const auto second = connection->read_response(true);
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(second->header("content-length"), "5");
  EXPECT_EQ(second->body, "");
  const auto third = connection->read_response();
  ASSERT_TRUE(third) << third.error().message;
  EXPECT_EQ(third->status, 206);
  EXPECT_EQ(third->body, "el");
  EXPECT_EQ(connection->read_to_close().value_or("error"), "");
}

INSTANTIATE_TEST_SUITE_P(Servers, ServerTest,
                         testing::Values(ServerKind::kNginx, ServerKind::kHttpd),
                         [](const auto& param) {
                           return param.param == ServerKind::kNginx ? "nginx" : "httpd";
                         });

TEST(NginxServer, UpgradesItsBinary) {
  const TempDir root;
  ASSERT_TRUE(write_file(root.path() / "hello.txt", "hello"));
  NginxOptions options;
  options.document_root = root.path();
  NginxServer server(options);
  ASSERT_TRUE(server.start());
  const pid_t before = server.master_pid();
  const auto upgraded = server.upgrade_binary();
  ASSERT_TRUE(upgraded) << upgraded.error().message;
  EXPECT_NE(server.master_pid(), before);
  HttpClient client;
  EXPECT_EQ(client.get(server.url("/hello.txt"))->body, "hello");
  EXPECT_TRUE(server.stop());
  EXPECT_FALSE(can_connect(server.port()));
}

class HttpdMpmTest : public testing::TestWithParam<std::string> {};

TEST_P(HttpdMpmTest, Serves) {
  const TempDir root;
  ASSERT_TRUE(write_file(root.path() / "hello.txt", "hello"));
  HttpdOptions options;
  options.document_root = root.path();
  options.mpm = GetParam();
  options.workers = 3;
  HttpdServer server(options);
  const auto started = server.start();
  ASSERT_TRUE(started) << started.error().message;
  HttpClient client;
  EXPECT_EQ(client.get(server.url("/hello.txt"))->body, "hello");
  EXPECT_EQ(server.worker_pids().size(), 3u);
  // A killed child is replaced.
  const pid_t victim = server.worker_pids().front();
  kill(victim, SIGKILL);
  EXPECT_TRUE(wait_until(
      [&] {
        const auto now = server.worker_pids();
        return now.size() >= 3 && std::find(now.begin(), now.end(), victim) == now.end();
      },
      milliseconds(60'000)));
}

INSTANTIATE_TEST_SUITE_P(Mpm, HttpdMpmTest, testing::Values("event", "worker", "prefork"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace mcs::loadtest
