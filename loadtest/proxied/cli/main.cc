// SPDX-License-Identifier: Apache-2.0
// mcs-proxied: nginx and httpd over one cache in front of one origin, and what happens to many
// clients at once.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "loadtest/harness/temp_dir.h"
#include "loadtest/proxied/herd.h"
#include "loadtest/proxied/purge_storm.h"
#include "loadtest/proxied/stale.h"

namespace {

using namespace mcs::loadtest;

int complain(const std::string& message) {
  std::fputs(fmt::format("mcs-proxied: {}\n", message).c_str(), stderr);
  return 2;
}

int save(const std::string& file, const nlohmann::json& json) {
  if (file.empty()) return 0;
  const auto saved = write_file(file, json.dump(2) + "\n");
  return saved ? 0 : complain(saved.error().message);
}

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

struct HerdCommand {
  HerdOptions options;
  int duration_ms = 2000;
  int rounds = 3;
  std::string json_file;
  std::string busy;

  void add(CLI::App& app);
  int run();
};

void HerdCommand::add(CLI::App& app) {
  app.add_option("--clients", options.clients, "over both servers, in turn")
      ->check(CLI::Range(2, 5000))
      ->capture_default_str();
  app.add_option("--httpd-threads", options.httpd_threads,
                 "of each of its two children; 0: enough for all clients to wait");
  app.add_option("--busy", busy, "McsCacheLockBusy: wait, pass or 503");
  app.add_option("--duration-ms", duration_ms, "how long the origin sends")
      ->check(CLI::Range(1, 60'000))
      ->capture_default_str();
  app.add_option("--rounds", rounds, "of each kind")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--json", json_file, "write the results to FILE");
}

int HerdCommand::run() {
  print(fmt::format(
      "{} clients over nginx and httpd ask for one missing object, which the origin sends in {} "
      "ms.\n"
      "Times in ms: from the origin's first byte to each client's first, and last to last.\n\n"
      "{:>6} {:>7} {:>7}  {:>6} {:>6} {:>6} {:>6}  {:>9} {:>9}  {:>9} {:>9}\n",
      options.clients, duration_ms, "KiB", "filler", "killed", "origin", "good", "victim", "failed",
      "first p50", "first max", "last p50", "last max"));
  options.duration = std::chrono::milliseconds(duration_ms);
  if (!busy.empty()) options.rules = {{"cache_lock_busy", busy}};
  nlohmann::json list = nlohmann::json::array();
  bool well = true;
  for (int round = 0; round < rounds; ++round) {
    for (const size_t kib : {64, 1024}) {
      for (const bool killed : {false, true}) {
        for (const int filler : {0, 1}) {
          options.body_bytes = kib << 10;
          options.kill_filler = killed;
          options.filler = filler;
          const auto report = run_herd(options);
          if (!report) return complain(report.error().message);
          const char* name = filler == 0 ? "nginx" : "httpd";
          print(fmt::format(
              "{:>6} {:>7} {:>7}  {:>6} {:>6} {:>6} {:>6}  {:>9.1f} {:>9.1f}  {:>9.1f} {:>9.1f}\n",
              kib, name, killed ? "yes" : "no", report->origin_requests, report->good,
              report->died_with_victim, report->failed, quantile(report->first_ms, 0.5),
              quantile(report->first_ms, 1), quantile(report->last_ms, 0.5),
              quantile(report->last_ms, 1)));
          for (const auto& line : report->failures) print("    " + line + "\n");
          for (const auto& line : report->trouble) print("    " + line + "\n");
          well = well && report->failed == 0 && report->trouble.empty() &&
                 report->origin_requests <= (killed ? 2u : 1u);
          list.push_back(report->json());
          list.back().update({{"kib", kib}, {"filler", name}, {"killed", killed}});
        }
      }
    }
  }
  const int saved =
      save(json_file, {{"clients", options.clients}, {"duration_ms", duration_ms}, {"runs", list}});
  return saved != 0 ? saved : well ? 0 : 1;
}

struct StaleCommand {
  StaleOptions options;
  int delay_ms = 3000;
  std::string json_file;

  void add(CLI::App& app);
  int run();
};

void StaleCommand::add(CLI::App& app) {
  app.add_option("--rate", options.rate, "requests per second, both servers together")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "of each kind in each round")->capture_default_str();
  app.add_option("--rounds", options.rounds)->check(CLI::Range(1, 100))->capture_default_str();
  app.add_option("--delay-ms", delay_ms, "how long the origin takes")->capture_default_str();
  app.add_option("--seed", options.seed)->capture_default_str();
  app.add_option("--json", json_file, "write the results to FILE");
}

int StaleCommand::run() {
  options.origin_delay = std::chrono::milliseconds(delay_ms);
  print(fmt::format(
      "{} requests/s on nginx and httpd together, in turn for an object that stays "
      "fresh and for one that is\nstale-while-revalidate and whose origin takes {} ms. "
      "Latency in ms, from when a request was due.\n\n{:>6} {:>9} {:>7} {:>9} {:>8} "
      "{:>8} {:>8} {:>7}\n",
      options.rate, delay_ms, "", "requests", "failed", "not HIT", "p50", "p99", "max", "origin"));
  bool well = true;
  const auto line = [](const char* name, const TargetReport& report, size_t origin) {
    const auto ms = [](uint64_t ns) { return static_cast<double>(ns) / 1e6; };
    print(fmt::format("{:>6} {:>9} {:>7} {:>9} {:>8.2f} {:>8.2f} {:>8.2f} {:>7}\n", name,
                      report.requests, report.failed(),
                      report.requests - report.count(CacheResult::kHit),
                      ms(report.latency.percentile(0.5)), ms(report.latency.percentile(0.99)),
                      ms(report.latency.max()), origin));
  };
  const auto report = run_stale(options, [&](const StaleRound& round) {
    line("fresh", round.fresh, 0);
    line("stale", round.stale, round.origin_requests);
    well = well && round.fresh.failed() + round.stale.failed() == 0 && round.origin_requests > 0 &&
           round.stale.latency.max() < static_cast<uint64_t>(delay_ms) * 1'000'000;
  });
  if (!report) return complain(report.error().message);
  for (const auto& text : report->trouble) print("    " + text + "\n");
  const int saved = save(json_file, report->json());
  return saved != 0 ? saved : well && report->trouble.empty() ? 0 : 1;
}

struct PurgesCommand {
  PurgeStormOptions options;
  std::string json_file;

  void add(CLI::App& app);
  int run();
};

void PurgesCommand::add(CLI::App& app) {
  app.add_option("--seconds", options.seconds)->capture_default_str();
  app.add_option("--purges", options.purges_per_second, "per second, both servers together")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app.add_option("--readers", options.readers, "clients that read")
      ->check(CLI::Range(1, 200))
      ->capture_default_str();
  app.add_option("--seed", options.seed)->capture_default_str();
  app.add_option("--json", json_file, "write the results to FILE");
}

int PurgesCommand::run() {
  const auto report = run_purge_storm(options);
  if (!report) return complain(report.error().message);
  print(fmt::format(
      "seed {}: {} requests ({} hits, {} to the origin) and {} purges in {} s: {} answers "
      "older than an acknowledged purge, {} wrong, {} failed\n",
      options.seed, report->requests, report->hits, report->origin_requests, report->purges,
      options.seconds, report->stale, report->wrong, report->failed));
  for (const auto& line : report->details) print("    " + line + "\n");
  for (const auto& line : report->trouble) print("    " + line + "\n");
  auto json = report->json();
  json.update({{"seed", options.seed}, {"seconds", options.seconds}});
  const int saved = save(json_file, json);
  return saved != 0 ? saved : report->well() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "nginx and httpd over one cache in front of one origin, and many clients.\n"
      "Exit status: 0 all went as it must; 1 it did not; 2 it could not be tried."};
  app.require_subcommand(1);
  HerdCommand herd;
  CLI::App* const herd_app =
      app.add_subcommand("herd", "Many ask for one missing object; also while who fetches it dies");
  herd.add(*herd_app);
  StaleCommand stale;
  CLI::App* const stale_app = app.add_subcommand(
      "stale", "What stale-while-revalidate costs clients while the origin takes its time");
  stale.add(*stale_app);
  PurgesCommand purges;
  CLI::App* const purges_app = app.add_subcommand(
      "purges", "Keys, prefixes, patterns and tags are purged while clients read");
  purges.add(*purges_app);
  CLI11_PARSE(app, argc, argv);
  try {
    return *herd_app ? herd.run() : *stale_app ? stale.run() : purges.run();
  } catch (const std::exception& error) {
    return complain(error.what());
  }
}
