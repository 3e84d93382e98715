// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/simulate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "loadtest/bench/plot.h"
#include "loadtest/harness/temp_dir.h"
#include "loadtest/sim/nodes.h"
#include "loadtest/specweb/specweb.h"

namespace mcs::loadtest {

namespace {

constexpr uint64_t kHead = 180;  // key and stored header of a static file, about
constexpr uint32_t kPins = 64;   // that the dead held

struct Figures {
  double hit_percent = 0;
  double remote_percent = 0;  // of the hits
  double units_per_node = 0;
  double join_us = 0;
  double tick_us = 0;
  double recovery_us = 0;
};

struct Setup {
  uint32_t nodes = 1;
  uint64_t bytes_per_node = 0;
  uint32_t shrink = 1;  // sizes are divided by it
  uint64_t warm = 0;    // requests that are not counted
  uint64_t requests = 0;
};

std::vector<uint32_t> sizes_of(const SpecwebSet& set, uint32_t shrink) {
  std::vector<uint32_t> sizes(set.size());
  for (size_t file = 0; file < sizes.size(); ++file) {
    const uint64_t bytes = (set.file_size(file) + kHead) / shrink;
    sizes[file] = static_cast<uint32_t>(
        std::max<uint64_t>(1, (bytes + cache::kUnitBytes - 1) / cache::kUnitBytes));
  }
  return sizes;
}

Result<Figures> simulate(const SpecwebSet& set, const Setup& setup, uint64_t seed,
                         const std::atomic<bool>& interrupted) {
  const auto sizes = sizes_of(set, setup.shrink);
  SimulatedNodesOptions options;
  options.nodes = setup.nodes;
  options.bytes_per_node = setup.bytes_per_node;
  options.sizes = sizes;
  options.mean_bytes = std::max<uint64_t>(384, 2048 / setup.shrink);
  SimulatedNodes nodes(options);
  const SpecwebSampler sampler(set.directories());
  Random random(seed);
  uint64_t hits = 0;
  double remote = 0;
  for (uint64_t i = 0; i < setup.warm + setup.requests; ++i) {
    if (i % 4096 == 0 && interrupted) return fail("interrupted");
    const auto node = static_cast<uint32_t>(random() % setup.nodes);
    const auto answer = nodes.access(node, static_cast<uint32_t>(sampler(random)));
    if (i >= setup.warm && answer.hit) {
      ++hits;
      remote += answer.remote;
    }
  }
  Figures figures;
  const auto all = static_cast<double>(hits);
  figures.hit_percent = 100 * all / static_cast<double>(setup.requests);
  figures.remote_percent = hits > 0 ? 100 * remote / all : 0;
  figures.units_per_node = static_cast<double>(nodes.capacity()) / setup.nodes;
  figures.join_us = nodes.join_us();
  figures.tick_us = nodes.tick_us();
  if (setup.nodes > 1) figures.recovery_us = nodes.recovery_us(kPins);
  return figures;
}

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

// Beside what `bench scaling` measured on real servers.
Result<nlohmann::json> validate(const std::string& file, bool quick, uint64_t seed,
                                const std::atomic<bool>& interrupted) {
  const auto contents = read_file(file);
  if (!contents) return tl::unexpected(contents.error());
  nlohmann::json list = nlohmann::json::array();
  try {
    const auto measured = nlohmann::json::parse(*contents);
    const auto& settings = measured.at("settings");
    const SpecwebSet set(settings.at("specweb99_load").get<double>(), 1);
    print(fmt::format("Hits, % of the requests, beside {}\n{:>6} {:>9} {:>8} {:>9} {:>7}\n", file,
                      "nodes", "cache", "servers", "simulated", "apart"));
    for (const auto& row : measured.at("rows")) {
      const std::string contender = row.at("contender");
      if (contender == "page-cache" || row.at("rounds").empty()) continue;
      double servers = 0;
      for (const auto& round : row.at("rounds")) {
        servers +=
            round.at("hit_percent").get<double>() / static_cast<double>(row.at("rounds").size());
      }
      Setup setup;
      setup.nodes = contender == "shared" ? row.at("nodes").get<uint32_t>() : 1;
      setup.bytes_per_node = settings.at("cache_mib").get<uint64_t>() << 20;
      // As warm as the servers were, or the two are not comparable. Of nodes with caches of their
      // own, only one.
      setup.warm = measured.at("warm_requests").get<uint64_t>() * setup.nodes;
      setup.requests = (quick ? 10'000ULL : 50'000ULL) * setup.nodes;
      const auto figures = simulate(set, setup, seed, interrupted);
      if (!figures) return tl::unexpected(figures.error());
      print(fmt::format("{:>6} {:>9} {:>8.2f} {:>9.2f} {:>+7.2f}  {} {}x\n",
                        row.at("nodes").get<int>(), contender, servers, figures->hit_percent,
                        figures->hit_percent - servers, row.at("servers").get<std::string>(),
                        row.at("penalty").get<double>()));
      list.push_back({{"nodes", row.at("nodes")},
                      {"contender", contender},
                      {"servers", row.at("servers")},
                      {"penalty", row.at("penalty")},
                      {"measured_hit_percent", servers},
                      {"simulated_hit_percent", figures->hit_percent}});
    }
  } catch (const nlohmann::json::exception& error) {
    return fail("{} is not a result of `bench scaling`: {}", file, error.what());
  }
  return list;
}

}  // namespace

void SimulateBenchmark::add_options(CLI::App& app) {
  app.add_option("--nodes", nodes_, "Numbers of nodes")->delimiter(',')->check(CLI::Range(1, 1024));
  app.add_option("--load-per-node", load_per_node_,
                 "The SPECweb99 file set grows with the load, and the load with the nodes")
      ->check(CLI::Range(.1, 1000.))
      ->capture_default_str();
  app.add_option("--cache", cache_mib_, "MiB of each node's segment")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--shrink", shrink_, "Divide all sizes by this, so that 1024 nodes fit in memory")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--requests", requests_, "At least so many are counted")
      ->check(CLI::Range(1000, 1'000'000'000));
  app.add_option("--validate", validate_,
                 "Simulate the rows of this result of `bench scaling`, and compare")
      ->check(CLI::ExistingFile);
  app.add_option("--svg", svg_, "Write a plot of the hit ratios to FILE");
}

Result<nlohmann::json> SimulateBenchmark::run(const std::atomic<bool>& interrupted) {
  if (!validate_.empty()) {
    const auto compared = validate(validate_, quick, seed, interrupted);
    if (!compared) return tl::unexpected(compared.error());
    return nlohmann::json{{"validation", *compared}, {"seed", seed}, {"quick", quick}};
  }
  if (nodes_.empty()) {
    nodes_ = quick ? std::vector<uint32_t>{1, 2, 4, 8, 16, 64}
                   : std::vector<uint32_t>{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
  }
  if (requests_ == 0) requests_ = quick ? 100'000 : 300'000;
  print(fmt::format(
      "SPECweb99 at load {:g} per node, {} MiB each, all sizes divided by {}\n"
      "{:>6} {:>8} {:>9} {:>19} {:>9} {:>9} {:>9} {:>11}\n"
      "{:>6} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>11}\n",
      load_per_node_, cache_mib_, shrink_, "", "", "KiB for", "hits %", "remote", "join", "tick",
      "recovery", "nodes", "files", "each", "shared", "per node", "% of hits", "us", "us", "us"));
  nlohmann::json list = nlohmann::json::array();
  Plot plot;
  plot.title = "SPECweb99, file set and memory grow with the nodes (simulated)";
  plot.x_label = "nodes";
  plot.y_label = "hits, % of requests";
  plot.lines = {{"one cache shared by all", {}}, {"a cache in each", {}}};
  for (const uint32_t nodes : nodes_) {
    const SpecwebSet set(load_per_node_ * nodes, 1);
    Setup setup;
    setup.nodes = nodes;
    setup.shrink = shrink_;
    setup.bytes_per_node = (cache_mib_ << 20) / shrink_;
    setup.requests = std::max<uint64_t>(requests_, set.size() * (quick ? 4 : 8));
    setup.warm = setup.requests;
    const auto shared = simulate(set, setup, seed, interrupted);
    if (!shared) return tl::unexpected(shared.error());
    setup.nodes = 1;
    setup.requests = setup.warm = requests_;
    const auto alone = simulate(set, setup, seed, interrupted);
    if (!alone) return tl::unexpected(alone.error());
    print(
        fmt::format("{:>6} {:>8} {:>9.0f} {:>9.2f} {:>9.2f} {:>9.1f} {:>9.1f} {:>9.1f} {:>11.1f}\n",
                    nodes, set.size(), shared->units_per_node * cache::kUnitBytes / 1024,
                    shared->hit_percent, alone->hit_percent, shared->remote_percent,
                    shared->join_us, shared->tick_us, shared->recovery_us));
    plot.lines[0].points.emplace_back(nodes, shared->hit_percent);
    plot.lines[1].points.emplace_back(nodes, alone->hit_percent);
    list.push_back({{"nodes", nodes},
                    {"files", set.size()},
                    {"shared_hit_percent", shared->hit_percent},
                    {"per_node_hit_percent", alone->hit_percent},
                    {"remote_percent_of_hits", shared->remote_percent},
                    {"bytes_per_node", shared->units_per_node * cache::kUnitBytes},
                    {"join_us", shared->join_us},
                    {"tick_us", shared->tick_us},
                    {"recovery_us", shared->recovery_us},
                    {"pins_of_the_dead", kPins}});
  }
  if (!svg_.empty()) {
    if (auto written = write_file(svg_, plot.svg()); !written) {
      return tl::unexpected(written.error());
    }
  }
  return nlohmann::json{{"nodes", list},
                        {"load_per_node", load_per_node_},
                        {"cache_mib", cache_mib_},
                        {"shrink", shrink_},
                        {"seed", seed},
                        {"quick", quick}};
}

}  // namespace mcs::loadtest
