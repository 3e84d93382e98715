// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/scaling.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <random>
#include <set>

#include "loadtest/bench/internal/pointer_chase.h"
#include "loadtest/bench/plot.h"
#include "loadtest/bench/statistics.h"
#include "loadtest/harness/build_paths.h"

namespace mcs::loadtest {

namespace {

// Above it the processors, not the disks, begin to decide.
constexpr double kMostCpuPercent = 70;

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

using Rounds = std::vector<ClusterResult>;
using Value = std::function<double(const ClusterResult&)>;

std::vector<double> values(const Rounds& rounds, const Value& value) {
  std::vector<double> all;
  for (const ClusterResult& round : rounds) all.push_back(value(round));
  return all;
}

double middle(const Rounds& rounds, const Value& value) { return median(values(rounds, value)); }

double rps(const ClusterResult& round) { return round.rps; }

// Of the rounds' throughputs; a round is compared with the round of its number.
Interval ratio(const Rounds& a, const Rounds& b) {
  std::vector<double> all;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) all.push_back(a[i].rps / b[i].rps);
  if (all.empty()) return {};
  const auto [low, high] = std::minmax_element(all.begin(), all.end());
  return {median(all), *low, *high};
}

std::string text(const Interval& interval) {
  return interval.value == 0
             ? "-"
             : fmt::format("{:.2f} [{:.2f} {:.2f}]", interval.value, interval.low, interval.high);
}

std::string kind(const ClusterCase& which) {
  return which.caching == Caching::kShared    ? "shared"
         : which.caching == Caching::kPerNode ? "per-node"
                                              : "page-cache";
}

using nlohmann::json;

json to_json(const ClusterResult& r) {
  json statuses = json::object();
  for (size_t i = 0; i < kCacheResults; ++i) {
    if (r.statuses[i] != 0)
      statuses[std::string(name_of(static_cast<CacheResult>(i)))] = r.statuses[i];
  }
  return {{"statuses", statuses},
          {"rps", r.rps},
          {"megabytes_per_second", r.megabytes_per_second},
          {"hit_percent", r.hit_percent},
          {"reads_per_second_and_node", r.reads_per_second},
          {"reads_per_request", r.reads_per_request},
          {"disk_percent", r.disk_percent},
          {"cpu_percent", r.cpu_percent},
          {"cpu_most_percent", r.cpu_most_percent},
          {"machine_cpu_percent", r.machine_cpu_percent},
          {"p50_ms", r.p50_ms},
          {"p90_ms", r.p90_ms},
          {"p99_ms", r.p99_ms},
          {"process_mib", r.process_mib},
          {"requests", r.requests},
          {"failed", r.failed},
          {"remote_line_ns", r.remote_line_ns}};
}

ClusterResult result_from(const json& j) {
  ClusterResult r;
  r.rps = j.at("rps");
  r.megabytes_per_second = j.at("megabytes_per_second");
  r.hit_percent = j.at("hit_percent");
  r.reads_per_second = j.at("reads_per_second_and_node");
  r.reads_per_request = j.at("reads_per_request");
  r.disk_percent = j.at("disk_percent");
  r.cpu_percent = j.at("cpu_percent");
  r.cpu_most_percent = j.at("cpu_most_percent");
  r.machine_cpu_percent = j.at("machine_cpu_percent");
  r.p50_ms = j.at("p50_ms");
  r.p90_ms = j.at("p90_ms");
  r.p99_ms = j.at("p99_ms");
  r.process_mib = j.at("process_mib");
  r.requests = j.at("requests");
  r.failed = j.at("failed");
  r.remote_line_ns = j.at("remote_line_ns");
  for (size_t i = 0; i < kCacheResults && j.contains("statuses"); ++i) {
    r.statuses[i] =
        j.at("statuses").value(std::string(name_of(static_cast<CacheResult>(i))), uint64_t{0});
  }
  return r;
}

bool same(const ClusterCase& a, const ClusterCase& b) {
  return a.caching == b.caching && a.nodes == b.nodes && a.penalty == b.penalty &&
         a.servers == b.servers;
}

}  // namespace

void ScalingBenchmark::add_options(CLI::App& app) {
  app.add_option("--nodes", nodes_, "Numbers of nodes")->delimiter(',')->check(CLI::Range(1, 16));
  app.add_option("--contenders", contenders_, "Of: shared, per-node, page-cache")
      ->delimiter(',')
      ->check(CLI::IsMember({"shared", "per-node", "page-cache"}));
  app.add_option("--penalties", penalties_,
                 "How many times as long another node's memory takes (shared)")
      ->delimiter(',')
      ->check(CLI::Range(1., 1000.))
      ->capture_default_str();
  app.add_option("--servers", servers_, "Of: nginx, httpd, mixed")
      ->delimiter(',')
      ->check(CLI::IsMember({"nginx", "httpd", "mixed"}));
  app.add_option("--load", load_, "Size of the SPECweb99 file set, as its load")
      ->check(CLI::Range(0., 10'000.))
      ->capture_default_str();
  app.add_option("--cache", cache_mib_, "MiB of each node's segment")
      ->check(CLI::Range(16, 65536))
      ->capture_default_str();
  app.add_option("--process-memory", process_mib_,
                 "MiB of each node beside the cache, for processes and the files they read")
      ->check(CLI::Range(4, 65536))
      ->capture_default_str();
  app.add_option(
         "--iops", reads_,
         "Reads per second of each node's disk, a multiple of 10 (the kernel counts tenths of "
         "a second)")
      ->check(CLI::Range(10, 1'000'000))
      ->capture_default_str();
  app.add_option("--cpu-share", cpu_share_, "Percent of one processor for each node")
      ->check(CLI::Range(1., 10'000.))
      ->capture_default_str();
  app.add_option("--connections", connections_, "Connections to each node, each asks at once again")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--warm", warm_requests_, "Requests to each node before the limits apply")
      ->check(CLI::Range(1, 10'000'000));
  app.add_option("--rounds", rounds_, "Rounds of each row; 0: only show what --with has")
      ->check(CLI::Range(0, 100));
  app.add_option("--seconds", seconds_,
                 "Length of each measurement; with 1 and 2 nodes half as much again")
      ->check(CLI::Range(1., 3600.));
  app.add_option("--directory", directory_, "Where the files are written; on a disk")
      ->capture_default_str()
      ->check(CLI::ExistingDirectory);
  app.add_option("--svg", svg_, "Write a plot to FILE");
  app.add_option("--with", earlier_, "Add the rounds of these JSON files, of the same settings");
}

void ScalingBenchmark::set_defaults() {
  if (nodes_.empty()) nodes_ = quick ? std::vector{1, 2, 8} : std::vector{1, 2, 4, 8};
  if (servers_.empty()) {
    servers_ = quick ? std::vector<std::string>{"nginx"}
                     : std::vector<std::string>{"nginx", "httpd", "mixed"};
  }
  if (warm_requests_ == 0) warm_requests_ = quick ? 5000 : 10'000;
  if (rounds_ < 0) rounds_ = quick ? 1 : 3;
  if (seconds_ == 0) seconds_ = quick ? 7 : 12;
}

// The other servers, and in a quick run what is only for comparison, are measured where it tells
// most.
std::vector<ClusterCase> ScalingBenchmark::cases() const {
  const int most = *std::max_element(nodes_.begin(), nodes_.end());
  const auto wants = [&](const char* contender) {
    return std::find(contenders_.begin(), contenders_.end(), contender) != contenders_.end();
  };
  std::vector<ClusterCase> all;
  for (const int nodes : nodes_) {
    const bool end = nodes == 1 || nodes == most;
    for (const std::string& servers : servers_) {
      const bool first = servers == servers_.front();
      if (servers == "mixed" && nodes == 1) continue;
      for (const double penalty : penalties_) {
        const bool wanted = penalty == penalties_.front() || (first && (!quick || nodes == 2));
        if (wants("shared") && nodes > 1 && wanted) {
          all.push_back({Caching::kShared, nodes, penalty, servers});
        }
      }
      // With one node it is the base that everything is compared with.
      if (nodes == 1 ? wants("shared") || wants("per-node")
                     : wants("per-node") && (!quick || end)) {
        all.push_back({Caching::kPerNode, nodes, 1, servers});
      }
      if (wants("page-cache") && first && (!quick || end)) {
        all.push_back({Caching::kPageCache, nodes, 1, "nginx"});
      }
    }
  }
  return all;
}

json ScalingBenchmark::settings_json() const {
  return {{"specweb99_load", load_},         {"cache_mib", cache_mib_},
          {"process_mib", process_mib_},     {"reads_per_second", reads_},
          {"cpu_share_percent", cpu_share_}, {"connections_per_node", connections_}};
}

void ScalingBenchmark::print_settings() const {
  const SpecwebSet set(load_, seed);
  print(fmt::format(
      "SPECweb99 file set: {} files, {} MiB; a copy for each node, on the disk of {}\n"
      "each node: {} MiB cache + {} MiB for processes (page cache: {} MiB for both), {} reads/s, "
      "{:g} % of a processor; {} connections that ask at once again; every body is compared\n",
      set.size(), set.total_bytes() >> 20, directory_, cache_mib_, process_mib_,
      cache_mib_ + process_mib_, reads_, cpu_share_, connections_));
}

Result<json> ScalingBenchmark::check_penalties() const {
  json all = json::array();
  std::set<double> penalties(penalties_.begin(), penalties_.end());
  for (const double penalty : penalties) {
    if (penalty == 1) continue;
    const auto chase = chase_pointers(penalty);
    if (!chase) return tl::unexpected(chase.error());
    print(
        fmt::format("pointer chase, penalty {:g}x: own memory {:.0f} ns, another node's {:.0f} ns: "
                    "{:.1f}x\n",
                    penalty, chase->local_ns, chase->remote_ns, chase->ratio()));
    all.push_back({{"penalty", penalty},
                   {"local_ns", chase->local_ns},
                   {"remote_ns", chase->remote_ns},
                   {"ratio", chase->ratio()}});
  }
  return all;
}

Result<void> ScalingBenchmark::add_earlier(std::vector<Row>& rows) const {
  for (const std::string& file : earlier_) {
    const auto contents = read_file(file);
    if (!contents) return tl::unexpected(contents.error());
    try {
      const json earlier = json::parse(*contents);
      if (earlier.at("settings") != settings_json()) {
        return fail("{} was measured with other settings: {}", file, earlier.at("settings").dump());
      }
      for (const json& entry : earlier.at("rows")) {
        const std::string contender = entry.at("contender");
        ClusterCase which{contender == "shared"     ? Caching::kShared
                          : contender == "per-node" ? Caching::kPerNode
                                                    : Caching::kPageCache,
                          entry.at("nodes"), entry.at("penalty"), entry.at("servers")};
        auto row = std::find_if(rows.begin(), rows.end(),
                                [&](const Row& known) { return same(known.which, which); });
        if (row == rows.end()) row = rows.insert(rows.end(), Row{which, {}});
        for (const json& round : entry.at("rounds")) row->rounds.push_back(result_from(round));
      }
    } catch (const json::exception& error) {
      return fail("{} is not a result of `bench scaling`: {}", file, error.what());
    }
  }
  return {};
}

Result<void> ScalingBenchmark::plot(const std::vector<Row>& rows) const {
  Plot plot;
  plot.title = "SPECweb99, disk-limited: throughput against one node";
  plot.x_label = "nodes";
  plot.y_label = "times the requests/s of one node";
  plot.x_ticks = {1, 2, 4, 8};
  const auto base = std::find_if(rows.begin(), rows.end(), [](const Row& row) {
    return row.which.nodes == 1 && row.which.caching == Caching::kPerNode &&
           row.which.servers == "nginx";
  });
  if (base == rows.end()) return fail("a plot needs the row of one node with nginx");
  std::map<std::string, std::map<double, double>> lines;
  for (const Row& row : rows) {
    const std::string name =
        row.which.name() + (row.which.servers == "nginx" ? "" : ", " + row.which.servers);
    lines[name][row.which.nodes] = middle(row.rounds, rps) / middle(base->rounds, rps);
  }
  for (auto& [name, points] : lines) {
    if (name.starts_with("shared")) points[1] = 1;
    plot.lines.push_back({name, {points.begin(), points.end()}});
  }
  return write_file(svg_, plot.svg());
}

Result<CgroupMounts> ScalingBenchmark::check_machine() const {
  if (geteuid() != 0) {
    return fail("only root can put nodes into control groups; run it with sudo");
  }
  for (const char* module : {"ngx_mcs_module.so", "mod_mcs_apache.so"}) {
    if (module_file(module).empty()) {
      return fail("the module {} is not built: cmake --build build/release", module);
    }
  }
  if (const auto disk = disk_of(directory_); !disk) return tl::unexpected(disk.error());
  return find_cgroups(read_file("/proc/self/mounts").value_or(""));
}

Result<void> ScalingBenchmark::measure(std::vector<Row>& rows, const CgroupMounts& mounts,
                                       const std::atomic<bool>& interrupted) const {
  const SpecwebSet set(load_, 1);
  FileSet files;
  files.add_specweb(set, "/");
  const auto stream = specweb_stream(0, set.directories());
  const auto copies = NodeFiles::write(
      directory_, set, *std::max_element(nodes_.begin(), nodes_.end()), interrupted);
  if (!copies) return tl::unexpected(copies.error());

  ClusterSettings settings;
  settings.cache_bytes = cache_mib_ << 20;
  settings.process_bytes = process_mib_ << 20;
  settings.limits.cpu = cpu_share_ / 100;
  settings.limits.reads = reads_;
  settings.connections = connections_;
  settings.warm_requests = warm_requests_;
  settings.settle_seconds = 1.5;
  std::vector<size_t> order(cases().size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::mt19937_64 random(seed);
  for (int round = 0; round < rounds_; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t i : order) {
      if (interrupted) return fail("interrupted");
      Row& row = rows[i];
      if (isatty(STDERR_FILENO)) {
        std::fputs(fmt::format("\rround {} of {}: {} nodes, {}, {}\033[K", round + 1, rounds_,
                               row.which.nodes, row.which.name(), row.which.servers)
                       .c_str(),
                   stderr);
      }
      // The fewer nodes, the fewer reads in a second to count.
      settings.seconds = row.which.nodes <= 2 ? seconds_ * 1.5 : seconds_;
      auto cluster = Cluster::start(row.which, settings, **copies, mounts);
      if (!cluster) return tl::unexpected(cluster.error());
      const auto result = (*cluster)->measure(
          files, *stream, seed * 1009 + static_cast<uint64_t>(round), interrupted);
      if (!result) {
        return fail("{} nodes, {}: {}", row.which.nodes, row.which.name(), result.error().message);
      }
      row.rounds.push_back(*result);
    }
  }
  if (isatty(STDERR_FILENO)) std::fputs("\r\033[K", stderr);
  return {};
}

Result<json> ScalingBenchmark::run(const std::atomic<bool>& interrupted) {
  set_defaults();
  if (reads_ % 10 != 0) return fail("--iops {} is not a multiple of 10", reads_);
  std::vector<Row> rows;
  for (const ClusterCase& which : cases()) rows.push_back({which, {}});
  if (auto added = add_earlier(rows); !added) return tl::unexpected(added.error());
  if (rounds_ == 0) print_settings();
  json chases = json::array();
  if (rounds_ > 0) {
    const auto mounts = check_machine();
    if (!mounts) return tl::unexpected(mounts.error());
    print_settings();
    auto checked = check_penalties();
    if (!checked) return checked;
    chases = std::move(*checked);
    if (auto measured = measure(rows, *mounts, interrupted); !measured) {
      return tl::unexpected(measured.error());
    }
  }
  std::erase_if(rows, [](const Row& row) { return row.rounds.empty(); });

  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.which.nodes < b.which.nodes; });
  const auto find = [&](Caching caching, int nodes, double penalty,
                        const std::string& servers) -> const Rounds* {
    for (const Row& row : rows) {
      if (same(row.which, {caching, nodes, penalty, servers})) return &row.rounds;
    }
    return nullptr;
  };
  const auto base_of = [&](const ClusterCase& which) {
    const bool page = which.caching == Caching::kPageCache;
    const Rounds* base = find(page ? Caching::kPageCache : Caching::kPerNode, 1, 1, which.servers);
    return base != nullptr ? base : find(Caching::kPerNode, 1, 1, "nginx");
  };

  print(fmt::format("\n{:>5} {:<13} {:<7} {:>8} {:>19} {:>6} {:>9} {:>6} {:>6} {:>6} {:>8} {:>8}\n",
                    "nodes", "cache", "servers", "req/s", "times one node", "hit %", "reads/req",
                    "disk %", "CPU %", "MB/s", "p50 ms", "p99 ms"));
  json list = json::array();
  for (const Row& row : rows) {
    const auto mid = [&](auto member) {
      return middle(row.rounds, [=](const ClusterResult& r) { return r.*member; });
    };
    const Rounds* const base = base_of(row.which);
    const Interval times = base != nullptr ? ratio(row.rounds, *base) : Interval{};
    const double cpu = mid(&ClusterResult::cpu_most_percent);
    print(
        fmt::format("{:>5} {:<13} {:<7} {:>8.0f} {:>19} {:>6.2f} {:>9.4f} {:>6.0f} {:>5.0f}{} "
                    "{:>6.1f} {:>8.2f} "
                    "{:>8.1f}\n",
                    row.which.nodes, row.which.name(), row.which.servers, mid(&ClusterResult::rps),
                    text(times), mid(&ClusterResult::hit_percent),
                    mid(&ClusterResult::reads_per_request), mid(&ClusterResult::disk_percent), cpu,
                    cpu > kMostCpuPercent ? "!" : " ", mid(&ClusterResult::megabytes_per_second),
                    mid(&ClusterResult::p50_ms), mid(&ClusterResult::p99_ms)));
    json rounds = json::array();
    for (const ClusterResult& round : row.rounds) rounds.push_back(to_json(round));
    list.push_back({{"contender", kind(row.which)},
                    {"nodes", row.which.nodes},
                    {"penalty", row.which.penalty},
                    {"servers", row.which.servers},
                    {"rounds", rounds},
                    {"times_one_node", {times.value, times.low, times.high}}});
  }
  print(fmt::format(
      "times one node: median [least most] of the rounds; CPU: of a node's share, ! above {:g} %: "
      "the processors limit, not the disks\n",
      kMostCpuPercent));

  json paper = json::array();
  const Rounds* const one = find(Caching::kPerNode, 1, 1, "nginx");
  if (one != nullptr) {
    print(
        "\n2 nodes with twice the memory, times one node\n"
        "  the paper, its global memory 12x slower    2 measured, more than 2 expected\n");
    for (const double penalty : penalties_) {
      if (const Rounds* two = find(Caching::kShared, 2, penalty, "nginx"); two != nullptr) {
        const Interval times = ratio(*two, *one);
        print(fmt::format("  shared, remote memory {:>2g}x slower           {}\n", penalty,
                          text(times)));
        paper.push_back({{"penalty", penalty}, {"times", {times.value, times.low, times.high}}});
      }
    }
    if (const Rounds* two = find(Caching::kPerNode, 2, 1, "nginx"); two != nullptr) {
      print(fmt::format("  a cache in each one's local memory         {}\n",
                        text(ratio(*two, *one))));
    }
  }
  for (const auto& [caching, what] :
       {std::pair(Caching::kPerNode, "a cache of ours in each"),
        std::pair(Caching::kPageCache, "nginx with the page cache")}) {
    for (const int nodes : nodes_) {
      const Rounds* const theirs = find(caching, nodes, 1, "nginx");
      if (nodes == 1 || theirs == nullptr) continue;
      for (const double penalty : penalties_) {
        if (const Rounds* ours = find(Caching::kShared, nodes, penalty, "nginx"); ours != nullptr) {
          print(fmt::format("{} nodes, shared {:g}x against {}: {}\n", nodes, penalty, what,
                            text(ratio(*ours, *theirs))));
        }
      }
    }
  }
  if (!svg_.empty()) {
    if (auto plotted = plot(rows); !plotted) return tl::unexpected(plotted.error());
  }
  return json{{"settings", settings_json()},     {"rows", list},      {"paper", paper},
              {"pointer_chase", chases},         {"rounds", rounds_}, {"seconds", seconds_},
              {"warm_requests", warm_requests_}, {"seed", seed},      {"quick", quick}};
}

}  // namespace mcs::loadtest
