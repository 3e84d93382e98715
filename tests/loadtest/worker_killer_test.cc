// SPDX-License-Identifier: Apache-2.0
#include "loadtest/killer/worker_killer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "loadtest/client/load_client.h"
#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/net.h"
#include "loadtest/harness/nginx_server.h"
#include "loadtest/harness/proc_info.h"

namespace mcs::loadtest {
namespace {

using std::chrono::milliseconds;

KillRecord record_with(int target, uint64_t stopped, uint64_t killed, uint16_t client_port) {
  KillRecord record;
  record.target = target;
  record.stopped_ns = stopped;
  record.killed_ns = killed;
  record.held = {{80, 1}, {80, client_port}};
  return record;
}

TEST(FindKiller, NeedsTheVictimToHaveHeldThisConnection) {
  const std::vector<KillRecord> records = {record_with(0, 100, 110, 5000),
                                           record_with(1, 200, 210, 6000)};
  EXPECT_EQ(find_killer(records, 1, 6000, 50, 300), &records[1]);
  EXPECT_EQ(find_killer(records, 0, 6000, 50, 300), nullptr) << "another server's victim";
  EXPECT_EQ(find_killer(records, 1, 6001, 50, 300), nullptr) << "another connection";
  EXPECT_EQ(find_killer(records, 1, 6000, 205, 300), nullptr)
      << "a later connection with the same port";
  EXPECT_EQ(find_killer(records, 1, 6000, 50, 205), nullptr) << "failed before the kill";
}

class KillerTest : public testing::TestWithParam<ServerKind> {
 protected:
  KillerTest() {
    EXPECT_TRUE(write_file(root_.path() / "file", std::string(20'000, 'f')));
    ServerOptions options;
    options.document_root = root_.path();
    options.workers = 3;
    server_ = make_server(GetParam(), options);
  }

  KillTarget target() {
    return {std::string(server_->name()), [this] { return server_->worker_pids(); }};
  }

  TempDir root_;
  std::unique_ptr<WebServer> server_;
};

TEST_P(KillerTest, KnowsWhichConnectionsTheVictimHeld) {
  ASSERT_TRUE(server_->start());
  // Connections that were answered are accepted, each by some worker.
  std::vector<RawConnection> connections;
  std::set<uint16_t> ports;
  for (int i = 0; i < 12; ++i) {
    auto connection = RawConnection::open(server_->port());
    ASSERT_TRUE(connection) << connection.error().message;
    ASSERT_TRUE(connection->send("GET /file HTTP/1.1\r\nHost: x\r\n\r\n"));
    ASSERT_TRUE(connection->read_response());
    ports.insert(connection->local_port());
    connections.push_back(std::move(*connection));
  }
  const std::vector<pid_t> before = server_->worker_pids();
  WorkerKiller killer({target()}, 1);
  const auto record = killer.kill_one();
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_NE(std::find(before.begin(), before.end(), record->pid), before.end());
  EXPECT_LE(record->stopped_ns, record->killed_ns);
  EXPECT_LE(record->killed_ns, record->notice_ns);
  const auto stat = read_proc_stat(record->pid);
  EXPECT_TRUE(!stat || stat->state == 'Z');

  // Exactly the connections it held are dead now.
  std::set<uint16_t> held;
  for (const HeldConnection& connection : record->held) {
    EXPECT_EQ(connection.local_port, server_->port());
    EXPECT_TRUE(ports.count(connection.remote_port));
    held.insert(connection.remote_port);
  }
  for (RawConnection& connection : connections) {
    const bool alive = connection.send("GET /file HTTP/1.1\r\nHost: x\r\n\r\n") &&
                       connection.read_response().has_value();
    EXPECT_NE(alive, held.count(connection.local_port()) != 0) << connection.local_port();
  }
}

TEST_P(KillerTest, ExplainsEveryFailureUnderLoad) {
  ASSERT_TRUE(server_->start());
  FileSet files;
  ASSERT_TRUE(files.add_directory(root_.path(), "/"));
  const auto stream = uniform_stream(0, files.size());
  LoadOptions options;
  options.targets = {{"server", "127.0.0.1", server_->port(), "", ""}};
  options.files = &files;
  options.stream = stream.get();
  options.connections = 6;
  options.etag = EtagScope::kOff;  // the stock httpd's are weak while the file is new
  std::atomic<bool> stop{false};
  LiveCounters live;
  LoadReport report;
  std::thread client([&] { report = run_load(options, stop, live); });
  constexpr uint64_t kKills = 8;
  WorkerKiller killer({target()}, 2);
  killer.start(milliseconds(50), 2);
  const bool enough = wait_until([&] { return killer.kills() >= kKills; }, milliseconds(60'000));
  killer.stop();
  // Those that were in flight at the last kill have failed, and the server has recovered.
  const uint64_t requests = live.requests;
  const bool going_on =
      wait_until([&] { return live.requests > requests + 100; }, milliseconds(60'000));
  stop = true;
  client.join();
  EXPECT_TRUE(enough) << killer.last_error();
  EXPECT_TRUE(going_on);
  EXPECT_GE(killer.records().size(), kKills);
  for (const FailureRecord& failure : report.failures) {
    ASSERT_TRUE(failure.failure == Failure::kConnectionLost ||
                failure.failure == Failure::kShortBody)
        << name_of(failure.failure) << " " << failure.detail;
    EXPECT_NE(
        find_killer(killer.records(), 0, failure.local_port, failure.opened_ns, failure.failed_ns),
        nullptr)
        << failure.local_port << " " << failure.detail;
  }
}

TEST_P(KillerTest, SaysWhenThereIsNobodyToKill) {
  WorkerKiller killer({{"none", [] { return std::vector<pid_t>(); }}}, 3);
  EXPECT_FALSE(killer.kill_one());
}

INSTANTIATE_TEST_SUITE_P(Servers, KillerTest,
                         testing::Values(ServerKind::kNginx, ServerKind::kHttpd),
                         [](const auto& param) {
                           return param.param == ServerKind::kNginx ? "nginx" : "httpd";
                         });

}  // namespace
}  // namespace mcs::loadtest
