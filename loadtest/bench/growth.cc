// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/growth.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "loadtest/bench/internal/crowd.h"
#include "loadtest/bench/statistics.h"
#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/process.h"

namespace mcs::loadtest {

namespace {

constexpr int kOperations = 2000;

struct Figure {
  const char* name;
  std::vector<double> us;
};

double us_since(uint64_t begin) { return static_cast<double>(monotonic_ns() - begin) / 1e3; }

bool store(cache::GlobalCache& cache, const std::string& key) {
  static const std::vector<std::byte> body(64);
  cache::Fill fill;
  if (cache.begin(cache.make_key(key), fill) != cache::Begin::kFilling) return false;
  fill.set_head({}, body.size());
  return fill.append(body) == cache::Append::kOk && fill.commit(runtime::wall_ms());
}

// Stores until something is evicted.
void fill_up(cache::GlobalCache& cache, uint64_t& next) {
  const auto& state = cache.memory().state(0);
  while (state.clock_hand.load() == 0 && state.arrivals_out.load() == 0) {
    store(cache, fmt::format("filler {}", next++));
  }
}

Result<double> tool_us(const std::vector<std::string>& argv) {
  const uint64_t begin = monotonic_ns();
  const auto ran = run_process(argv);
  if (!ran) return tl::unexpected(ran.error());
  if (!ran->ok()) return fail("{}: {}", argv[0], ran->describe());
  return us_since(begin);
}

// Bytes of metadata that grow with the number of descriptors, per descriptor.
double metadata_per_entry(const cache::CacheGeometry& g) {
  return static_cast<double>(g.groups_at - g.buckets_at) / static_cast<double>(g.descriptors);
}

Result<std::vector<Figure>> measure(Crowd& crowd, int rounds, uint64_t& next) {
  std::vector<Figure> figures = {{"attach", {}}, {"+ join", {}}, {"leave", {}},  {"hit", {}},
                                 {"tick", {}},   {"evict", {}},  {"status", {}}, {"verify", {}}};
  const std::filesystem::path path = crowd.survivor().domain_path();
  const std::string directory = path.parent_path();
  const std::string tool = tool_file("mcsctl");
  cache::GlobalCache& cache = crowd.survivor().cache();
  fill_up(cache, next);
  cache::Hit hit;
  for (int round = 0; round < rounds; ++round) {
    uint64_t begin = monotonic_ns();
    auto domain = gsm::Domain::open(directory, "bench", cache::layout_hash());
    if (!domain) return fail("{}", domain.error().message);
    figures[0].us.push_back(us_since(begin));

    begin = monotonic_ns();
    auto member = Member::join(directory);
    if (!member) return tl::unexpected(member.error());
    figures[1].us.push_back(us_since(begin));  // attaching included
    begin = monotonic_ns();
    (*member)->leave();
    figures[2].us.push_back(us_since(begin));

    uint64_t found = 0;
    begin = monotonic_ns();
    for (int i = 0; i < kOperations; ++i) {
      const std::string key = fmt::format("filler {}", next - 1 - static_cast<uint64_t>(i) % 100);
      if (cache.find(cache.make_key(key), hit).found == cache::Found::kHit) {
        ++found;
        cache.release(hit);
      }
    }
    figures[3].us.push_back(us_since(begin) / kOperations);
    if (found < kOperations / 2) return fail("what was just stored is not there");

    begin = monotonic_ns();
    for (int i = 0; i < 100; ++i) {
      cache.tick();
      crowd.survivor().instance().tick();
    }
    figures[4].us.push_back(us_since(begin) / 100);

    begin = monotonic_ns();
    for (int i = 0; i < kOperations; ++i) store(cache, fmt::format("filler {}", next++));
    figures[5].us.push_back(us_since(begin) / kOperations);

    const auto status = tool_us({tool, "status", "bench", "--directory", directory});
    if (!status) return tl::unexpected(status.error());
    figures[6].us.push_back(*status);
    const auto verify = tool_us({tool, "verify", "bench", "--directory", directory, "--no-bodies"});
    if (!verify) return tl::unexpected(verify.error());
    figures[7].us.push_back(*verify);
  }
  return figures;
}

}  // namespace

void GrowthBenchmark::add_options(CLI::App& app) {
  app.add_option("--entries", entries_, "Of the cache, each in a domain of its own")
      ->delimiter(',')
      ->check(CLI::Range(1'000, 10'000'000))
      ->capture_default_str();
  app.add_option("--instances", instances_, "Processes that have joined, by rising numbers")
      ->delimiter(',')
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--rounds", rounds_, "Of which the medians are shown")->check(CLI::Range(1, 1000));
}

Result<nlohmann::json> GrowthBenchmark::run(const std::atomic<bool>& interrupted) {
  const int rounds = rounds_ > 0 ? rounds_ : quick ? 3 : 9;
  nlohmann::json list = nlohmann::json::array();
  std::fputs(
      fmt::format("{:>9} {:>9} {:>10}   microseconds, medians of {} rounds\n{:>9} {:>9} {:>10}", "",
                  "", "metadata", rounds, "entries", "instances", "B/entry")
          .c_str(),
      stdout);
  bool first = true;
  for (const uint64_t entries : entries_) {
    CrowdOptions options;
    options.entries = entries;
    options.most_pins = 64;
    auto crowd = Crowd::gather(options);
    if (!crowd) return tl::unexpected(crowd.error());
    const cache::CacheGeometry& geometry = (*crowd)->survivor().cache().memory().geometry();
    uint32_t there = 1;
    uint64_t next = 0;
    // In this process, but each with a slot, a ledger and a liveness lock of its own.
    std::vector<std::unique_ptr<Member>> others;
    for (const uint32_t instances : instances_) {
      for (; there < instances; ++there) {
        auto member =
            Member::join(std::filesystem::path((*crowd)->survivor().domain_path()).parent_path());
        if (!member) return tl::unexpected(member.error());
        others.push_back(std::move(*member));
      }
      const auto figures = measure(**crowd, rounds, next);
      if (!figures) return tl::unexpected(figures.error());
      if (interrupted) return fail("interrupted");
      if (std::exchange(first, false)) {
        for (const Figure& figure : *figures) {
          std::fputs(fmt::format(" {:>9}", figure.name).c_str(), stdout);
        }
        std::fputs("\n", stdout);
      }
      nlohmann::json entry = {{"entries", entries},
                              {"instances", there},
                              {"metadata_bytes_per_entry", metadata_per_entry(geometry)}};
      std::string line =
          fmt::format("{:>9} {:>9} {:>10.1f}", entries, there, metadata_per_entry(geometry));
      for (const Figure& figure : *figures) {
        const Interval us = bootstrap_median(figure.us, seed);
        entry[figure.name] = {{"us", us.value}, {"us_interval", {us.low, us.high}}};
        line += fmt::format(" {:>9.{}f}", us.value, us.value < 100 ? 2 : 0);
      }
      std::fputs((line + "\n").c_str(), stdout);
      std::fflush(stdout);
      list.push_back(entry);
    }
    for (const auto& other : others) other->leave();
  }
  return nlohmann::json{{"cases", list}, {"round_count", rounds}, {"quick", quick}};
}

}  // namespace mcs::loadtest
