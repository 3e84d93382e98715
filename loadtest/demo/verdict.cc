// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "loadtest/client/report_json.h"
#include "loadtest/demo/demo.h"

namespace mcs::loadtest {

namespace {

double percentile(std::vector<double> values, double quantile) {
  if (values.empty()) {
    return 0;
  }
  std::sort(values.begin(), values.end());
  const auto rank =
      static_cast<size_t>(std::max(1.0, std::ceil(quantile * static_cast<double>(values.size()))));
  return values[rank - 1];
}

nlohmann::json summary(const std::vector<double>& values) {
  return {{"p50", percentile(values, .5)},
          {"p99", percentile(values, .99)},
          {"max", percentile(values, 1)}};
}

uint64_t number(const nlohmann::json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_number() ? it->get<uint64_t>() : 0;
}

// The kill an event reports: of this pid, the last one before the death was detected.
const KillRecord* kill_of(const nlohmann::json& event, const std::vector<KillRecord>& kills) {
  const KillRecord* found = nullptr;
  for (const KillRecord& kill : kills) {
    if (static_cast<uint64_t>(kill.pid) == number(event, "pid") &&
        kill.killed_ns <= number(event, "detected_monotonic_ns")) {
      found = &kill;
    }
  }
  return found;
}

}  // namespace

DemoVerdict judge(const DemoRun& run) {
  DemoVerdict verdict;
  const TargetReport total = run.client.total();
  verdict.failed_requests = total.failed();
  verdict.wrong_bodies = total.count(Failure::kWrongBody);
  uint64_t explained = 0;
  for (size_t i = 0; i < run.client.failures.size(); ++i) {
    const FailureRecord& record = run.client.failures[i];
    // A lost connection may be the victim's; a wrong answer is nobody's right.
    const bool lost =
        record.failure == Failure::kConnectionLost || record.failure == Failure::kShortBody;
    if (lost && find_killer(run.kills, record.target, record.local_port, record.opened_ns,
                            record.failed_ns) != nullptr) {
      ++explained;
    } else {
      verdict.unexplained.push_back(
          fmt::format("{} {} {}: {}", run.servers[static_cast<size_t>(record.target)],
                      run.failed_paths[i], name_of(record.failure), record.detail));
    }
  }
  verdict.failed_not_on_killed_connection = verdict.failed_requests - explained;

  uint64_t held = 0;
  for (const KillRecord& kill : run.kills) {
    held += kill.held.size();
  }
  uint64_t broken = 0;
  for (const DemoRun::Wrk& wrk : run.wrk) {
    verdict.wrk_errors += wrk.result.errors();
    verdict.wrk_errors_unexplained +=
        wrk.result.connect_errors + wrk.result.bad_status + wrk.result.timeouts;
    broken += wrk.result.read_errors + wrk.result.write_errors;
  }
  const uint64_t held_by_wrk = held - std::min(held, explained);
  verdict.wrk_errors_unexplained += broken - std::min(broken, held_by_wrk);

  for (const auto& event : run.events) {
    const KillRecord* const kill = kill_of(event, run.kills);
    if (kill == nullptr) {
      continue;
    }
    const uint64_t detected = number(event, "detected_monotonic_ns");
    const uint64_t recovered =
        detected + static_cast<uint64_t>(event.value("duration_us", 0.0) * 1000);
    // The observer in the killer may be scheduled later than the one that recovers.
    const uint64_t notice = kill->notice_ns == 0 ? detected : std::min(kill->notice_ns, detected);
    verdict.recovery_ms.push_back(static_cast<double>(recovered - notice) / 1e6);
    verdict.kill_to_notice_ms.push_back(static_cast<double>(notice - kill->killed_ns) / 1e6);
  }

  const auto statistics = run.status.find("statistics");
  if (statistics != run.status.end() && statistics->is_object()) {
    verdict.cross_server_hits = number(*statistics, "cross_server_hits");
  }
  verdict.leaked_bytes = number(run.verify, "leaked_bytes");
  verdict.verify_ok = run.verify.value("ok", false);
  return verdict;
}

bool DemoVerdict::good(const DemoRun& run) const {
  return wrong_bodies == 0 && failed_not_on_killed_connection == 0 && leaked_bytes == 0 &&
         verify_ok && !run.kills.empty() && wrk_errors_unexplained == 0 && run.left_behind.empty();
}

nlohmann::json to_json(const DemoOptions& options, const DemoRun& run, const DemoVerdict& verdict) {
  const TargetReport total = run.client.total();
  std::map<std::string, uint64_t> kills_by_server;
  for (const std::string& server : run.servers) {
    kills_by_server[server] = 0;
  }
  for (const KillRecord& kill : run.kills) {
    ++kills_by_server[run.servers[static_cast<size_t>(kill.target)]];
  }
  nlohmann::json servers = nlohmann::json::array();
  for (const TargetReport& target : run.client.targets) {
    servers.push_back(to_json(target, run.client.seconds));
  }
  nlohmann::json wrk = nlohmann::json::array();
  for (const DemoRun::Wrk& one : run.wrk) {
    wrk.push_back({{"server", one.server},
                   {"requests", one.result.requests},
                   {"rps", one.result.rps()},
                   {"bytes", one.result.bytes},
                   {"errors", one.result.errors()},
                   {"p50_us", one.result.p50_us},
                   {"p99_us", one.result.p99_us}});
  }
  const auto problems = run.verify.value("problems", nlohmann::json::array());
  return {{"requests", total.requests},
          {"hits", total.count(CacheResult::kHit)},
          {"cross_server_hits", verdict.cross_server_hits},
          {"kills", run.kills.size()},
          {"failed_requests", verdict.failed_requests},
          {"failed_not_on_killed_connection", verdict.failed_not_on_killed_connection},
          {"wrong_bodies", verdict.wrong_bodies},
          {"recoveries", run.events.size()},
          {"recovery_ms", summary(verdict.recovery_ms)},
          {"kill_to_notice_ms", summary(verdict.kill_to_notice_ms)},
          {"leaked_bytes", verdict.leaked_bytes},
          {"verify", verdict.verify_ok ? nlohmann::json("clean") : nlohmann::json("damaged")},
          {"verify_problems", problems},
          {"ok", verdict.good(run)},
          {"seconds", run.client.seconds},
          {"seed", options.seed},
          {"at_once", options.at_once},
          {"interrupted", run.interrupted},
          {"kills_by_server", kills_by_server},
          {"missed_kills", run.missed_kills},
          {"unexplained_failures", verdict.unexplained},
          {"servers", servers},
          {"latency_ms", latency_json(total.latency)},
          {"wrk", wrk},
          {"wrk_errors_unexplained", verdict.wrk_errors_unexplained},
          {"left_behind", run.left_behind},
          {"status", run.status}};
}

void print_table(const DemoOptions& options, const DemoRun& run, const DemoVerdict& verdict) {
  const auto line = [](const std::string& name, const std::string& value) {
    std::fputs(fmt::format("  {:<38} {}\n", name, value).c_str(), stdout);
  };
  const TargetReport total = run.client.total();
  std::fputs(
      fmt::format("\n  {:<10} {:>10} {:>8} {:>7} {:>7} {:>8} {:>8} {:>9} {:>10}\n", "server",
                  "checked", "req/s", "hit %", "kills", "p50 ms", "p99 ms", "failed", "wrk req/s")
          .c_str(),
      stdout);
  for (size_t i = 0; i < run.client.targets.size(); ++i) {
    const TargetReport& target = run.client.targets[i];
    const auto kills =
        std::count_if(run.kills.begin(), run.kills.end(),
                      [&](const KillRecord& kill) { return kill.target == static_cast<int>(i); });
    std::fputs(
        fmt::format(
            "  {:<10} {:>10} {:>8.0f} {:>7.1f} {:>7} {:>8.2f} {:>8.2f} {:>9} {:>10.0f}\n",
            target.name, target.requests, static_cast<double>(target.requests) / run.client.seconds,
            target.requests == 0 ? 0
                                 : 100.0 * static_cast<double>(target.count(CacheResult::kHit)) /
                                       static_cast<double>(target.requests),
            kills, static_cast<double>(target.latency.percentile(.5)) / 1e6,
            static_cast<double>(target.latency.percentile(.99)) / 1e6, target.failed(),
            i < run.wrk.size() ? run.wrk[i].result.rps() : 0.0)
            .c_str(),
        stdout);
  }
  std::fputs("\n", stdout);
  const auto times = [](const std::vector<double>& values) {
    return fmt::format("p50 {:.2f}  p99 {:.2f}  max {:.2f} ms", percentile(values, .5),
                       percentile(values, .99), percentile(values, 1));
  };
  line("requests, every body compared", std::to_string(total.requests));
  line("hits", std::to_string(total.count(CacheResult::kHit)));
  line("hits on what the other server filled", std::to_string(verdict.cross_server_hits));
  line("workers killed", std::to_string(run.kills.size()));
  if (run.missed_kills > 0) {
    line("kills missed", fmt::format("{} (last: {})", run.missed_kills, run.last_missed));
  }
  line("failed requests", std::to_string(verdict.failed_requests));
  line("… not on a killed worker's connection",
       std::to_string(verdict.failed_not_on_killed_connection));
  line("wrong bodies", std::to_string(verdict.wrong_bodies));
  line("recoveries", std::to_string(run.events.size()));
  line("kernel's notice to recovered", times(verdict.recovery_ms));
  line("kill to kernel's notice", times(verdict.kill_to_notice_ms));
  line("leaked bytes", std::to_string(verdict.leaked_bytes));
  line("verify", verdict.verify_ok ? "clean" : "damaged");
  for (const auto& problem : run.verify.value("problems", nlohmann::json::array())) {
    line("", problem.is_object()
                 ? fmt::format("{}: {}: {}", problem.value("kind", ""), problem.value("where", ""),
                               problem.value("detail", ""))
                 : problem.dump());
  }
  if (verdict.wrk_errors > 0) {
    line("wrk's errors (unexplained)",
         fmt::format("{} ({})", verdict.wrk_errors, verdict.wrk_errors_unexplained));
  }
  for (const std::string& left : run.left_behind) {
    line("left behind", left);
  }
  const size_t shown = options.verbose ? verdict.unexplained.size()
                                       : std::min<size_t>(5, verdict.unexplained.size());
  for (size_t i = 0; i < shown; ++i) {
    line("unexplained", verdict.unexplained[i]);
  }
  if (shown < verdict.unexplained.size()) {
    line("", fmt::format("… and {} more (--verbose)", verdict.unexplained.size() - shown));
  }
  std::fputs(run.interrupted     ? "\nInterrupted.\n"
             : verdict.good(run) ? "\nAll as it must be.\n"
                                 : "\nNOT as it must be.\n",
             stdout);
  std::fputs(run.instructions.c_str(), stdout);
}

}  // namespace mcs::loadtest
