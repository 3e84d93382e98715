// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "loadtest/demo/demo.h"

namespace mcs::loadtest {
namespace {

constexpr uint64_t kMs = 1'000'000;

// A run in which one worker of each server was killed and each took one request with it.
DemoRun good_run() {
  DemoRun run;
  run.servers = {"nginx", "httpd"};
  for (int target = 0; target < 2; ++target) {
    KillRecord kill;
    kill.pid = 100 + target;
    kill.target = target;
    kill.stopped_ns = 1000 * kMs;
    kill.killed_ns = 1001 * kMs;
    kill.notice_ns = 1003 * kMs;
    kill.held = {{80, 5000}, {80, 5001}};
    run.kills.push_back(kill);
    run.events.push_back({{"kind", "instance-recovered"},
                          {"pid", kill.pid},
                          {"detected_monotonic_ns", 1004 * kMs},
                          {"duration_us", 500.5}});
    TargetReport report;
    report.name = run.servers[static_cast<size_t>(target)];
    report.requests = 100;
    report.cache[0] = 90;
    report.failures[static_cast<size_t>(Failure::kConnectionLost)] = 1;
    run.client.targets.push_back(report);
    run.client.failures.push_back(
        {Failure::kConnectionLost, target, 0, 5000, 500 * kMs, 999 * kMs, 1002 * kMs, 0, "reset"});
    run.failed_paths.emplace_back("/x");
    run.wrk.push_back({report.name, WrkResult{}});
    run.wrk.back().result.read_errors = 1;
  }
  run.client.seconds = 10;
  run.status = {{"statistics", {{"cross_server_hits", 7}}}};
  run.verify = {{"ok", true}, {"problems", nlohmann::json::array()}, {"leaked_bytes", 0}};
  return run;
}

TEST(Verdict, AcceptsFailuresOnTheVictimsConnections) {
  const DemoRun run = good_run();
  const DemoVerdict verdict = judge(run);
  EXPECT_TRUE(verdict.good(run));
  EXPECT_EQ(verdict.failed_requests, 2u);
  EXPECT_EQ(verdict.failed_not_on_killed_connection, 0u);
  EXPECT_EQ(verdict.cross_server_hits, 7u);
  EXPECT_EQ(verdict.wrk_errors, 2u);
  EXPECT_EQ(verdict.wrk_errors_unexplained, 0u);
  ASSERT_EQ(verdict.recovery_ms.size(), 2u);
  EXPECT_DOUBLE_EQ(verdict.recovery_ms[0], 1.5005);
  EXPECT_DOUBLE_EQ(verdict.kill_to_notice_ms[0], 2.0);
}

TEST(Verdict, RefusesFailuresOnOtherConnections) {
  DemoRun run = good_run();
  run.client.failures[0].local_port = 4999;
  const DemoVerdict verdict = judge(run);
  EXPECT_FALSE(verdict.good(run));
  EXPECT_EQ(verdict.failed_not_on_killed_connection, 1u);
  ASSERT_EQ(verdict.unexplained.size(), 1u);
  EXPECT_EQ(verdict.unexplained[0], "nginx /x connection_lost: reset");
}

TEST(Verdict, NothingExcusesAWrongAnswer) {
  for (const Failure failure : {Failure::kWrongBody, Failure::kBadStatus, Failure::kBadHeader,
                                Failure::kTimeout, Failure::kConnect}) {
    DemoRun run = good_run();
    run.client.failures[1].failure = failure;
    auto& counts = run.client.targets[1].failures;
    counts = {};
    counts[static_cast<size_t>(failure)] = 1;
    const DemoVerdict verdict = judge(run);
    EXPECT_FALSE(verdict.good(run)) << name_of(failure);
    EXPECT_EQ(verdict.failed_not_on_killed_connection, 1u);
    EXPECT_EQ(verdict.wrong_bodies, failure == Failure::kWrongBody ? 1u : 0u);
  }
}

TEST(Verdict, FailuresWithoutARecordAreUnexplained) {
  DemoRun run = good_run();
  run.client.targets[0].failures[static_cast<size_t>(Failure::kShortBody)] = 5;
  EXPECT_EQ(judge(run).failed_not_on_killed_connection, 5u);
}

TEST(Verdict, RefusesLeaksDamageLeftoversAndIdleKillers) {
  const auto good = [](const DemoRun& run) { return judge(run).good(run); };
  DemoRun run = good_run();
  run.verify["leaked_bytes"] = 64;
  EXPECT_FALSE(good(run));
  run = good_run();
  run.verify = {{"ok", false}, {"problems", {"chain 7 is damaged"}}};
  EXPECT_FALSE(good(run));
  run = good_run();
  run.left_behind = {"/dev/shm/x"};
  EXPECT_FALSE(good(run));
  run = good_run();
  run.kills.clear();
  run.client.failures.clear();
  run.client.targets.clear();
  EXPECT_FALSE(good(run));
}

TEST(Verdict, BoundsTheErrorsOfWrkByTheConnectionsItLost) {
  DemoRun run = good_run();
  // Victims held 4 connections, 2 of them the checking client's.
  run.wrk[0].result.read_errors = 2;
  EXPECT_EQ(judge(run).wrk_errors_unexplained, 1u);
  run = good_run();
  run.wrk[0].result.bad_status = 1;
  EXPECT_EQ(judge(run).wrk_errors_unexplained, 1u);
  EXPECT_FALSE(judge(run).good(run));
}

TEST(Verdict, WritesTheFieldsOthersReadFrom) {
  const DemoRun run = good_run();
  const nlohmann::json json = to_json(DemoOptions{}, run, judge(run));
  EXPECT_EQ(json.at("requests"), 200);
  EXPECT_EQ(json.at("hits"), 180);
  EXPECT_EQ(json.at("cross_server_hits"), 7);
  EXPECT_EQ(json.at("kills"), 2);
  EXPECT_EQ(json.at("failed_requests"), 2);
  EXPECT_EQ(json.at("failed_not_on_killed_connection"), 0);
  EXPECT_EQ(json.at("wrong_bodies"), 0);
  EXPECT_EQ(json.at("recoveries"), 2);
  EXPECT_DOUBLE_EQ(json.at("recovery_ms").at("p50"), 1.5005);
  EXPECT_DOUBLE_EQ(json.at("recovery_ms").at("p99"), 1.5005);
  EXPECT_DOUBLE_EQ(json.at("recovery_ms").at("max"), 1.5005);
  EXPECT_EQ(json.at("leaked_bytes"), 0);
  EXPECT_EQ(json.at("verify"), "clean");
}

}  // namespace
}  // namespace mcs::loadtest
