// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/hit.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>

#include "loadtest/bench/contenders.h"
#include "loadtest/bench/statistics.h"
#include "loadtest/client/drain_client.h"
#include "loadtest/harness/proc_info.h"
#include "loadtest/wrk/wrk.h"

namespace mcs::loadtest {

namespace {

// From here on wrk needs more CPU than the servers.
constexpr size_t kDrained = 64 * 1024;

// One contender at one size: what is measured in turn.
struct Case {
  Contender* contender;
  size_t size;
  std::vector<std::string> fields;
  std::vector<double> cpu_us;  // per request, one per round
  std::vector<double> rps;
  std::vector<double> busy;  // share of its CPU that the server used
  uint64_t requests = 0;     // of all rounds
};

uint64_t workers_cpu_ns(const WebServer& server) {
  uint64_t sum = 0;
  for (const pid_t pid : server.worker_pids()) {
    sum += process_cpu_ns(pid).value_or(0);
  }
  return sum;
}

// Memory of the workers that nobody shares.
uint64_t workers_private_bytes(const WebServer& server) {
  uint64_t sum = 0;
  for (const pid_t pid : server.worker_pids()) {
    sum += process_memory_bytes(pid, "RssAnon").value_or(0);
  }
  return sum;
}

Result<DrainResult> use_wrk(const Case& one, int client_cpu, int seconds, int connections) {
  WrkOptions wrk;
  wrk.url = one.contender->server->url(HitContenders::path_of(one.size));
  wrk.seconds = seconds;
  wrk.connections = connections;
  wrk.cpus = {client_cpu};
  const auto result = run_wrk(wrk);
  if (!result) return tl::unexpected(result.error());
  // wrk compares no bodies, but the bytes must be there.
  if (result->errors() > 0 || result->bytes < result->requests * one.size) {
    return fail("wrk saw {} errors and {} bytes in {} requests", result->errors(), result->bytes,
                result->requests);
  }
  return DrainResult{result->requests, result->seconds};
}

Result<DrainResult> drain(const Case& one, int client_cpu, int seconds, int connections) {
  DrainOptions options;
  options.port = one.contender->server->port();
  options.path = HitContenders::path_of(one.size);
  options.size = one.size;
  options.connections = connections;
  options.seconds = seconds;
  options.cpus = {client_cpu};
  return run_drain(options);
}

Result<void> measure(Case& one, int client_cpu, int seconds, int connections) {
  const WebServer& server = *one.contender->server;
  const auto workers = server.worker_pids();
  const uint64_t before = workers_cpu_ns(server);
  const auto result = one.size < kDrained ? use_wrk(one, client_cpu, seconds, connections)
                                          : drain(one, client_cpu, seconds, connections);
  const uint64_t after = workers_cpu_ns(server);
  if (!result) {
    return fail("{} at {} bytes: {}", one.contender->name, one.size, result.error().message);
  }
  if (server.worker_pids() != workers) {
    return fail("{}: a worker ended during the measurement", one.contender->name);
  }
  if (result->requests == 0) {
    return fail("{} at {} bytes answered nothing", one.contender->name, one.size);
  }
  one.requests += result->requests;
  one.cpu_us.push_back(static_cast<double>(after - before) / 1e3 /
                       static_cast<double>(result->requests));
  one.rps.push_back(static_cast<double>(result->requests) / result->seconds);
  one.busy.push_back(static_cast<double>(after - before) / 1e9 / result->seconds);
  return {};
}

// Replaces the line before, on a terminal only.
void show_progress(const std::string& line) {
  if (isatty(STDERR_FILENO) != 0) {
    std::fputs(("\r\033[K" + line).c_str(), stderr);
  }
}

nlohmann::json interval_json(const Interval& interval) {
  return nlohmann::json::array({interval.low, interval.high});
}

nlohmann::json report(const std::vector<Case>& cases, uint64_t seed) {
  nlohmann::json list = nlohmann::json::array();
  std::fputs(
      fmt::format("\n{:<18} {:>7} {:>8} {:>17} {:>9} {:>5}   {}\n", "contender", "bytes", "cpu us",
                  "95 % interval", "req/s", "busy", "ours / peer (CPU per request)")
          .c_str(),
      stdout);
  for (const Case& one : cases) {
    const Interval cpu = bootstrap_median(one.cpu_us, seed);
    nlohmann::json ratios = nlohmann::json::object();
    nlohmann::json ratio_intervals = nlohmann::json::object();
    std::string ratio_text;
    for (const Case& peer : cases) {
      if (!one.contender->ours || peer.contender->ours || peer.size != one.size ||
          peer.contender->family != one.contender->family) {
        continue;
      }
      const Interval ratio = bootstrap_ratio(one.cpu_us, peer.cpu_us, seed);
      ratios[peer.contender->name] = ratio.value;
      ratio_intervals[peer.contender->name] = interval_json(ratio);
      ratio_text += fmt::format("{} {:.2f} [{:.2f} {:.2f}]  ", peer.contender->name, ratio.value,
                                ratio.low, ratio.high);
    }
    std::fputs(fmt::format("{:<18} {:>7} {:>8.2f} {:>8.2f} {:>8.2f} {:>9.0f} {:>5.2f}   {}\n",
                           one.contender->name, one.size, cpu.value, cpu.low, cpu.high,
                           median(one.rps), median(one.busy), ratio_text)
                   .c_str(),
               stdout);
    list.push_back({{"name", one.contender->name},
                    {"size", one.size},
                    {"cpu_us", cpu.value},
                    {"cpu_us_interval", interval_json(cpu)},
                    {"rps", median(one.rps)},
                    {"busy", median(one.busy)},
                    {"ratio_to", ratios},
                    {"ratio_to_interval", ratio_intervals},
                    {"fields", one.fields},
                    {"rounds", {{"cpu_us", one.cpu_us}, {"rps", one.rps}}}});
  }
  std::fputs("ours compares bodies up to 16 KiB with their checksum at every hit (verify=small); "
             "…-always those of all sizes (verify=always)\n",
             stdout);
  return {{"cases", list}};
}

}  // namespace

void HitBenchmark::add_options(CLI::App& app) {
  app.add_option("--rounds", rounds_, "Rounds; each measures every contender once")
      ->check(CLI::Range(1, 1000));
  app.add_option("--seconds", seconds_, "Of each measurement")->check(CLI::Range(1, 600));
  app.add_option("--connections", connections_, "Of wrk")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--sizes", kib_, "Sizes of the body in KiB; the first one also for `return`")
      ->delimiter(',')
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_flag("--varnish", varnish_, "Varnish too");
  app.add_option("--server", server_, "Only this one's contenders")
      ->check(CLI::IsMember({"nginx", "httpd"}));
  app.add_option("--only", only_, "Only these contenders, by their names in the table")
      ->delimiter(',');
  app.add_flag("--realtime", realtime_,
               "Servers and client take precedence over everything else on the machine (SCHED_RR; "
               "root only)");
}

Result<nlohmann::json> HitBenchmark::run(const std::atomic<bool>& interrupted) {
  const int rounds = rounds_ > 0 ? rounds_ : (quick ? 3 : 11);
  const int seconds = seconds_ > 0 ? seconds_ : (quick ? 1 : 2);
  const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  if (cpus < 2) {
    return fail("this needs two CPUs: one for the server, one for the load");
  }
  constexpr int kServerCpu = 0;
  constexpr int kClientCpu = 1;
  if (realtime_) {
    // Inherited by all that is started from here.
    const sched_param priority{10};
    if (sched_setscheduler(0, SCHED_RR, &priority) != 0) {
      return fail("--realtime is not permitted: {}; run it as root", std::strerror(errno));
    }
  }
  std::vector<size_t> sizes;
  for (const size_t kib : kib_) {
    sizes.push_back(kib * 1024);
  }
  auto contenders = HitContenders::start(sizes, kServerCpu, varnish_, server_);
  if (!contenders) {
    return tl::unexpected(contenders.error());
  }
  std::vector<Case> cases;
  for (const size_t size : sizes) {
    for (Contender& contender : (*contenders)->all()) {
      if (std::find(contender.sizes.begin(), contender.sizes.end(), size) !=
              contender.sizes.end() &&
          (only_.empty() ||
           std::find(only_.begin(), only_.end(), contender.name) != only_.end())) {
        const auto fields = (*contenders)->field_names(contender, size);
        if (!fields) {
          return tl::unexpected(fields.error());
        }
        cases.push_back({&contender, size, *fields, {}, {}, {}, 0});
      }
    }
  }

  if (auto warm = (*contenders)->wait_for_hits(); !warm) {
    return tl::unexpected(warm.error());
  }

  std::mt19937_64 random(seed);
  std::vector<size_t> order(cases.size());
  for (size_t i = 0; i < order.size(); ++i) {
    order[i] = i;
  }
  const auto hits_before = (*contenders)->domain_hits();
  if (!hits_before) {
    return tl::unexpected(hits_before.error());
  }
  uint64_t our_requests = 0;
  // Of each of our servers, after it has answered for the first time in the measurement.
  std::map<const Contender*, uint64_t> memory_before;
  for (int round = 1; round <= rounds; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t i : order) {
      show_progress(fmt::format("round {}/{}: {} at {} bytes", round, rounds,
                                cases[i].contender->name, cases[i].size));
      if (auto measured = measure(cases[i], kClientCpu, seconds, connections_); !measured) {
        return tl::unexpected(measured.error());
      }
      if (cases[i].contender->ours) {
        our_requests += static_cast<uint64_t>(cases[i].rps.back() * seconds);
        memory_before.emplace(cases[i].contender,
                              workers_private_bytes(*cases[i].contender->server));
      }
      if (interrupted) {
        return fail("interrupted in round {}", round);
      }
    }
  }
  show_progress("");
  const auto hits_after = (*contenders)->domain_hits();
  if (!hits_after) {
    return tl::unexpected(hits_after.error());
  }
  if (static_cast<double>(*hits_after - *hits_before) < .98 * static_cast<double>(our_requests)) {
    return fail("only {} of {} measured requests to our modules were hits",
                *hits_after - *hits_before, our_requests);
  }
  if (auto checked = (*contenders)->check(); !checked) {
    return fail("after the measurement: {}", checked.error().message);
  }
  nlohmann::json json = report(cases, seed);
  for (const auto& [contender, before] : memory_before) {
    uint64_t requests = 0;
    for (const Case& one : cases) requests += one.contender == contender ? one.requests : 0;
    const uint64_t now = workers_private_bytes(*contender->server);
    std::fputs(fmt::format("{}: {} requests; private memory of its workers {} KiB after the first "
                           "measurement, {} KiB after the last\n",
                           contender->name, requests, before >> 10, now >> 10)
                   .c_str(),
               stdout);
    json["private_memory"].push_back({{"name", contender->name},
                                      {"requests", requests},
                                      {"bytes_before", before},
                                      {"bytes_after", now}});
  }
  json["round_count"] = rounds;
  json["seconds"] = seconds;
  json["connections"] = connections_;
  json["seed"] = seed;
  json["quick"] = quick;
  json["realtime"] = realtime_;
  return json;
}

}  // namespace mcs::loadtest
