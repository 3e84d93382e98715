// SPDX-License-Identifier: Apache-2.0
// mcs-wild: processes that store where they should not, and bytes that change by themselves, while nginx
// and httpd serve checked traffic from the same memory.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <random>

#include "loadtest/chaos/wild/campaign.h"
#include "loadtest/chaos/wild/scribbler.h"
#include "loadtest/harness/temp_dir.h"

namespace {

using namespace mcs::loadtest;

int report_on(const CampaignOptions& options, const CampaignReport& report,
              const std::string& json_file) {
  const nlohmann::json json = report.json(options);
  fmt::print("seed {}: {} faults, {} stores ({} stopped by the page tables), {} checked requests, "
             "{} failed, {} wrong bodies, {} survivors crashed, {} hung, {} repairs, verify {}, {:.1f} s\n",
             options.seed, report.incidents, report.stores, report.faulted,
             json["served_requests"].get<std::uint64_t>(),
             json["failed_requests_on_survivors"].get<std::uint64_t>(),
             json["wrong_bodies"].get<std::uint64_t>(), report.crashes.size(), report.hangs.size(),
             report.repairs, json["verify"].get<std::string>(), report.seconds);
  for (const auto& line : report.crashes) fmt::print("  crash: {}\n", line);
  for (std::size_t i = 0; i < std::min<std::size_t>(10, report.failed_paths.size()); ++i) {
    fmt::print("  failed: {}\n", report.failed_paths[i]);
  }
  std::size_t shown = 0;
  for (const auto& problem : json["verify_problems"]) {
    if (++shown > 30) break;
    fmt::print("  {}\n", problem.is_object()
                             ? fmt::format("{}: {}: {}", problem.value("kind", ""),
                                           problem.value("where", ""), problem.value("detail", ""))
                             : problem.dump());
  }
  if (!json_file.empty() && !write_file(json_file, json.dump(2) + "\n")) {
    fmt::print(stderr, "cannot write {}: choose a writable file\n", json_file);
    return 2;
  }
  return report.incidents == 0 ? 2 : report.good() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Stray stores and damaged memory under checked traffic. The exit status is 0 if all of it "
               "was contained: no wrong body, nobody crashed or hung, verify clean afterwards."};
  CampaignOptions options;
  ScribblerOptions scribbler;
  bool damage = false;
  std::string json_file;
  options.seed = 0;
  bool wild = false;
  app.add_flag("--wild-writes", wild, "one process after the other runs wild (the default)");
  app.add_flag("--damage", damage, "spots are damaged from outside instead");
  app.add_option("--processes", options.processes, "that run wild")->capture_default_str();
  app.add_option("--stores", options.stores, "of each of them")->capture_default_str();
  app.add_option("--spots", options.spots, "that are damaged")->capture_default_str();
  app.add_option("--pause-ms", options.pause_ms, "between two faults")->capture_default_str();
  app.add_option("--files", options.files, "of the site")->capture_default_str();
  app.add_option("--memory", options.memory, "of each of two nodes")->capture_default_str();
  app.add_option("--only", options.only, "damage these regions only, for example --only descriptors");
  app.add_option("--seed", options.seed, "of what is damaged; 0 draws one");
  app.add_flag("--keep", options.keep, "leave the domain behind");
  app.add_option("--json", json_file, "write the results to this file");
  app.add_option("--be-wild", scribbler.domain, "be the process that runs wild in this domain")->group("");
  app.add_option("--node", scribbler.node)->group("");
  CLI11_PARSE(app, argc, argv);
  if (!scribbler.domain.empty()) {
    scribbler.stores = options.stores;
    scribbler.seed = options.seed;
    return be_wild(scribbler);
  }
  options.wild = !damage;
  if (options.seed == 0) options.seed = 1 + std::random_device{}() % 1000000;
  fmt::print("seed {}\n", options.seed);
  std::fflush(stdout);
  try {
    const auto report = run_campaign(options);
    if (!report) {
      fmt::print(stderr, "mcs-wild: {}\n", report.error().message);
      return 2;
    }
    return report_on(options, *report, json_file);
  } catch (const std::exception& error) {
    fmt::print(stderr, "mcs-wild: {}\n", error.what());
    return 2;
  }
}
