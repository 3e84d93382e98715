// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/latency.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>

#include "loadtest/bench/contenders.h"
#include "loadtest/bench/statistics.h"
#include "loadtest/client/drain_client.h"
#include "loadtest/client/load_client.h"
#include "loadtest/harness/proc_info.h"
#include "loadtest/harness/process.h"

namespace mcs::loadtest {

namespace {

constexpr int kServerCpu = 0;
constexpr int kClientCpu = 1;
// A client that is later than this with every hundredth request keeps requests waiting itself.
constexpr double kLateUs = 100;

struct LatencyCase {
  Contender* contender;
  size_t size;
  size_t file;                // in the set
  std::vector<double> peaks;  // requests per second, one per round
  double rate = 0;            // at which the latency is measured
  std::vector<double> p50, p99, p999;  // us, one per round
  std::vector<double> lateness;        // p99 of the client's own, us
  std::vector<double> server_busy;     // share of its CPU
  uint64_t late = 0;                   // due, but no connection was free until the end
};

uint64_t workers_cpu_ns(const WebServer& server) {
  uint64_t sum = 0;
  for (const pid_t pid : server.worker_pids()) sum += process_cpu_ns(pid).value_or(0);
  return sum;
}

}  // namespace

void LatencyBenchmark::add_options(CLI::App& app) {
  app.add_option("--rounds", rounds_, "Rounds; each measures every contender once")
      ->check(CLI::Range(1, 1000));
  app.add_option("--seconds", seconds_, "Of each measurement")->check(CLI::Range(1, 600));
  app.add_option("--connections", connections_, "Of the client")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--percent", percent_, "Of the peak rate")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--sizes", kib_, "Sizes of the body in KiB")
      ->delimiter(',')
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--server", server_, "Only this one's contenders")
      ->check(CLI::IsMember({"nginx", "httpd"}));
  app.add_flag("--realtime", realtime_,
               "Servers take precedence over everything else on the machine (SCHED_RR), the client "
               "over nearly everything (nice -20); root only");
}

Result<nlohmann::json> LatencyBenchmark::run(const std::atomic<bool>& interrupted) {
  const int rounds = rounds_ > 0 ? rounds_ : (quick ? 3 : 9);
  if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
    return fail("this needs two CPUs: one for the server, one for the load");
  }
  if (realtime_) {
    const sched_param priority{10};
    if (sched_setscheduler(0, SCHED_RR, &priority) != 0) {
      return fail("--realtime is not permitted: {}; run it as root", std::strerror(errno));
    }
  }
  std::vector<size_t> sizes;
  for (const size_t kib : kib_) sizes.push_back(kib * 1024);
  auto contenders = HitContenders::start(sizes, kServerCpu, true, server_);
  if (!contenders) return tl::unexpected(contenders.error());
  FileSet files;
  if (auto added = files.add_directory((*contenders)->root(), "/"); !added) {
    return tl::unexpected(added.error());
  }
  // The client's threads inherit it.
  if (realtime_) {
    // A realtime process that is always busy is stopped for 50 ms of each second (sched(7)), and
    // this one spins.
    const sched_param none{0};
    sched_setscheduler(0, SCHED_OTHER, &none);
    setpriority(PRIO_PROCESS, 0, -20);
  }
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(kClientCpu, &cpus);
  if (sched_setaffinity(0, sizeof cpus, &cpus) != 0) {
    return fail("cannot run on CPU {} alone: {}", kClientCpu, std::strerror(errno));
  }

  std::vector<LatencyCase> cases;
  for (const size_t size : sizes) {
    for (Contender& contender : (*contenders)->all()) {
      if (std::find(contender.sizes.begin(), contender.sizes.end(), size) ==
          contender.sizes.end()) {
        continue;
      }
      size_t file = 0;
      while (files[file].url_path != HitContenders::path_of(size)) ++file;
      cases.push_back({&contender, size, file, {}, 0, {}, {}, {}, {}, {}, 0});
    }
  }
  if (auto warm = (*contenders)->wait_for_hits(); !warm) return tl::unexpected(warm.error());

  const auto load = [&](const LatencyCase& one, double rate) -> Result<LoadReport> {
    const auto stream = uniform_stream(one.file, 1);
    LoadOptions options;
    LoadTarget target;
    target.name = one.contender->name;
    target.port = one.contender->server->port();
    options.targets = {target};
    options.files = &files;
    options.stream = stream.get();
    options.connections = connections_;
    options.rate = rate;
    options.spins = true;
    options.seconds = seconds_;
    options.seed = seed;
    LiveCounters live;
    LoadReport report = run_load(options, interrupted, live);
    const TargetReport total = report.total();
    if (total.failed() > 0 || total.requests == 0) {
      return fail("{} at {} bytes: {} of {} requests failed{}", one.contender->name, one.size,
                  total.failed(), total.requests,
                  report.failures.empty() ? "" : ": " + report.failures.front().detail);
    }
    return report;
  };

  std::mt19937_64 random(seed);
  std::vector<size_t> order(cases.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  // First what each can do, by a client that needs less CPU than any server (one that compares
  // bodies would find its own peak); then how long it takes at a share of that.
  for (int round = 0; round < 3; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t i : order) {
      DrainOptions drain;
      drain.port = cases[i].contender->server->port();
      drain.path = HitContenders::path_of(cases[i].size);
      drain.size = cases[i].size;
      drain.connections = connections_;
      drain.seconds = seconds_;
      const auto drained = run_drain(drain);
      if (!drained) return fail("{}: {}", cases[i].contender->name, drained.error().message);
      cases[i].peaks.push_back(static_cast<double>(drained->requests) / drained->seconds);
      if (interrupted) return fail("interrupted");
    }
  }
  for (LatencyCase& one : cases) one.rate = median(one.peaks) * percent_ / 100;
  for (int round = 0; round < rounds; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t i : order) {
      const uint64_t server_before = workers_cpu_ns(*cases[i].contender->server);
      const auto report = load(cases[i], cases[i].rate);
      if (!report) return tl::unexpected(report.error());
      const double wall = report->seconds * 1e9;
      cases[i].server_busy.push_back(
          static_cast<double>(workers_cpu_ns(*cases[i].contender->server) - server_before) / wall);
      cases[i].lateness.push_back(static_cast<double>(report->total().lateness.percentile(.99)) /
                                  1e3);
      const Histogram latency = report->total().latency;
      cases[i].p50.push_back(static_cast<double>(latency.percentile(.5)) / 1e3);
      cases[i].p99.push_back(static_cast<double>(latency.percentile(.99)) / 1e3);
      cases[i].p999.push_back(static_cast<double>(latency.percentile(.999)) / 1e3);
      cases[i].late += report->not_sent;
      if (interrupted) return fail("interrupted in round {}", round + 1);
    }
  }

  nlohmann::json list = nlohmann::json::array();
  std::fputs(fmt::format("\n{:<18} {:>7} {:>9} {:>9} {:>8} {:>8} {:>17} {:>8} {:>6} {:>7} {:>8}\n",
                         "contender", "bytes", "peak/s", "rate/s", "p50 us", "p99 us",
                         "95 % interval", "p99.9", "unsent", "server", "lateness")
                 .c_str(),
             stdout);
  for (const LatencyCase& one : cases) {
    const Interval p99 = bootstrap_median(one.p99, seed);
    std::fputs(fmt::format("{:<18} {:>7} {:>9.0f} {:>9.0f} {:>8.0f} {:>8.0f} {:>8.0f} {:>8.0f} "
                           "{:>8.0f} {:>6} {:>7.2f} {:>8.0f}\n",
                           one.contender->name, one.size, median(one.peaks), one.rate,
                           median(one.p50), p99.value, p99.low, p99.high, median(one.p999),
                           one.late, median(one.server_busy), median(one.lateness))
                   .c_str(),
               stdout);
    list.push_back({{"name", one.contender->name},
                    {"size", one.size},
                    {"peak_rps", median(one.peaks)},
                    {"rate_rps", one.rate},
                    {"p50_us", median(one.p50)},
                    {"p99_us", p99.value},
                    {"p99_us_interval", {p99.low, p99.high}},
                    {"p999_us", median(one.p999)},
                    {"not_sent", one.late},
                    {"server_busy", median(one.server_busy)},
                    {"client_lateness_p99_us", median(one.lateness)},
                    {"rounds", {{"peak_rps", one.peaks}, {"p99_us", one.p99}}}});
  }
  if (std::any_of(cases.begin(), cases.end(),
                  [](const LatencyCase& one) { return median(one.lateness) > kLateUs; })) {
    std::fputs(fmt::format("Where the client was later than {:.0f} us, latencies are the client's: "
                           "run again with a lower --percent.\n",
                           kLateUs)
                   .c_str(),
               stdout);
  }
  return nlohmann::json{{"cases", list},     {"round_count", rounds}, {"seconds", seconds_},
                        {"percent", percent_}, {"seed", seed},        {"connections", connections_},
                        {"realtime", realtime_}};
}

}  // namespace mcs::loadtest
