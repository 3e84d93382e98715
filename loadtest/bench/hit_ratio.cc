// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/hit_ratio.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "libglobalcache/cache/layout.h"
#include "loadtest/bench/plot.h"
#include "loadtest/harness/temp_dir.h"
#include "loadtest/sim/policy.h"
#include "loadtest/sim/workload.h"

namespace mcs::loadtest {

namespace {

struct Ratios {
  double objects = 0;  // percent
  double bytes = 0;
};

Result<Ratios> replay(Policy& policy, const Workload& workload,
                      const std::atomic<bool>& interrupted) {
  uint64_t hits = 0;
  uint64_t hit_units = 0;
  uint64_t units = 0;
  for (const uint32_t object : workload.requests) {
    const uint64_t size = workload.sizes[object];
    units += size;
    if (policy.access(object)) {
      ++hits;
      hit_units += size;
    }
    if (interrupted) return fail("interrupted");
  }
  return Ratios{100.0 * static_cast<double>(hits) / static_cast<double>(workload.requests.size()),
                100.0 * static_cast<double>(hit_units) / static_cast<double>(units)};
}

}  // namespace

void HitRatioBenchmark::add_options(CLI::App& app) {
  app.add_option("--requests", requests_, "Length of each stream")
      ->check(CLI::Range(10'000, 100'000'000));
  app.add_option("--workloads", workloads_,
                 fmt::format("Of: {}", fmt::join(workload_names(), ", ")))
      ->delimiter(',')
      ->check(CLI::IsMember(workload_names()));
  app.add_option("--percents", percents_, "Sizes of the cache in percent of all that is asked for")
      ->delimiter(',')
      ->check(CLI::Range(.01, 100.))
      ->capture_default_str();
  app.add_option("--plots", plots_, "Write an SVG picture per stream into this directory");
}

Result<nlohmann::json> HitRatioBenchmark::run(const std::atomic<bool>& interrupted) {
  const uint64_t requests = requests_ > 0 ? requests_ : quick ? 200'000 : 1'000'000;
  const auto names = workloads_.empty() ? workload_names() : workloads_;
  std::vector<std::string> policies = reference_names();
  policies.push_back("mcs");
  nlohmann::json list = nlohmann::json::array();
  std::fputs("Percent of the requests (of the bytes) that were hits\n", stdout);
  for (const std::string& name : names) {
    const Workload workload = make_workload(name, requests, seed);
    const uint64_t footprint = workload.footprint();
    std::fputs(fmt::format("\n{}: {} requests, {} objects, {} MiB\n{:>7}", name, requests,
                           workload.sizes.size(), footprint * cache::kUnitBytes >> 20, "size %")
                   .c_str(),
               stdout);
    for (const std::string& policy : policies)
      std::fputs(fmt::format(" {:>15}", policy).c_str(), stdout);
    std::fputs("   mcs - best, - LRU\n", stdout);
    Plot plot;
    plot.title = fmt::format("Hits per request, {}", name);
    plot.x_label = "cache size, % of the footprint";
    plot.y_label = "% of requests";
    for (const std::string& policy : policies) plot.lines.push_back({policy, {}});
    for (const double percent : percents_) {
      const double wanted = static_cast<double>(footprint) * percent / 100;
      const auto groups = std::max<uint64_t>(
          2, static_cast<uint64_t>(wanted / static_cast<double>(cache::kGroupUnits) + .5));
      PolicyOptions options;
      options.capacity = groups * cache::kGroupUnits;
      // As the servers' default.
      options.largest = options.capacity / 8;
      options.sizes = workload.sizes;
      nlohmann::json entry = {{"workload", name},
                              {"requests", requests},
                              {"percent", percent},
                              {"bytes", options.capacity * cache::kUnitBytes}};
      std::string line = fmt::format("{:>7g}", percent);
      double best = 0;
      double lru = 0;
      double ours = 0;
      for (size_t i = 0; i < policies.size(); ++i) {
        const auto policy =
            policies[i] == "mcs" ? make_real(options) : make_reference(policies[i], options);
        const auto ratios = replay(*policy, workload, interrupted);
        if (!ratios) return tl::unexpected(ratios.error());
        entry["objects"][policies[i]] = ratios->objects;
        entry["bytes_hit"][policies[i]] = ratios->bytes;
        line += fmt::format(" {:>6.2f} ({:>6.2f})", ratios->objects, ratios->bytes);
        plot.lines[i].points.emplace_back(percent, ratios->objects);
        if (policies[i] == "lru") lru = ratios->objects;
        if (policies[i] == "mcs") {
          ours = ratios->objects;
        } else {
          best = std::max(best, ratios->objects);
        }
      }
      std::fputs(fmt::format("{}   {:+.2f} {:+.2f}\n", line, ours - best, ours - lru).c_str(),
                 stdout);
      std::fflush(stdout);
      list.push_back(entry);
    }
    if (!plots_.empty()) {
      const auto file = std::filesystem::path(plots_) / fmt::format("hit-ratio-{}.svg", name);
      if (auto written = write_file(file, plot.svg()); !written) {
        return tl::unexpected(written.error());
      }
    }
  }
  return nlohmann::json{{"cases", list}, {"seed", seed}, {"quick", quick}};
}

}  // namespace mcs::loadtest
