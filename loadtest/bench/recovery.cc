// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/recovery.h"

#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <random>
#include <thread>
#include <utility>

#include "loadtest/bench/internal/crowd.h"
#include "loadtest/bench/plot.h"
#include "loadtest/client/histogram.h"

namespace mcs::loadtest {

namespace {

constexpr std::uint32_t kLookups = 2000;             // of a victim, before it is killed
constexpr std::uint32_t kLookupsWhileKilling = 50;
constexpr std::uint64_t kLookupIntervalNs = 50'000;  // of the survivor
constexpr std::uint64_t kKillIntervalNs = 10'000'000;

struct Row {
  std::uint64_t entries;
  std::uint32_t pins;
  std::uint32_t deaths;
  bool huge_pages;
  Histogram notice;  // ns, from SIGKILL to the kernel's notice
  Histogram repair;  // from then to recovered
  Histogram agreed{};  // of which until the recoverer was elected …
  Histogram taken{};   // … until what the dead one held was free …
  Histogram ended{};   // … and until its slot was
  double faults = 0;  // the agent's page faults per death
  double p999_ratio = 0;
  std::uint64_t survivor_max_ns = 0;
  double control_ratio = 0;  // of kills that have nothing to do with the domain
  std::uint64_t control_max_ns = 0;
  std::uint64_t calm_p999_ns = 0;
  std::uint64_t calm_max_ns = 0;

  void copy_survivor(const Row& from) {
    p999_ratio = from.p999_ratio;
    survivor_max_ns = from.survivor_max_ns;
    control_ratio = from.control_ratio;
    control_max_ns = from.control_max_ns;
    calm_p999_ns = from.calm_p999_ns;
    calm_max_ns = from.calm_max_ns;
  }
};

double ms(std::uint64_t ns) { return static_cast<double>(ns) / 1e6; }

// Kill all of them at once; the times at which the kernel told of each death.
std::vector<std::uint64_t> kill_all(const std::vector<pid_t>& pids, std::uint64_t& killed_at) {
  std::vector<pollfd> waiting;
  for (const pid_t pid : pids) {
    const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
    waiting.push_back({pidfd, POLLIN, 0});
  }
  killed_at = runtime::monotonic_ns();
  for (const pid_t pid : pids) ::kill(pid, SIGKILL);
  std::vector<std::uint64_t> noticed(pids.size(), 0);
  for (std::size_t missing = pids.size(); missing > 0;) {
    if (::poll(waiting.data(), waiting.size(), 30'000) <= 0) break;
    const std::uint64_t now = runtime::monotonic_ns();
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      if (waiting[i].fd < 0 || waiting[i].revents == 0) continue;
      noticed[i] = now;
      ::close(waiting[i].fd);
      waiting[i].fd = -1;  // poll leaves it out
      --missing;
    }
  }
  return noticed;
}

Result<void> measure_deaths(Crowd& crowd, Row& row) {
  auto pids = crowd.bring(row.deaths, row.pins, kLookups);
  if (!pids) return tl::unexpected(pids.error());
  const std::uint64_t faults = crowd.agents_faults();
  std::uint64_t killed_at = 0;
  auto noticed = kill_all(*pids, killed_at);
  const auto recovered = crowd.recoveries(*pids);
  if (!recovered) return tl::unexpected(recovered.error());
  std::uint64_t last = 0;
  for (std::size_t i = 0; i < noticed.size(); ++i) {
    // Whoever recovers may be told a moment before this process is.
    noticed[i] = std::min(noticed[i], (*recovered)[i].detected_ns);
    const Crowd::Recovery& phases = (*recovered)[i];
    last = std::max(last, phases.resumed_ns);
    row.agreed.add(phases.agreed_ns - noticed[i]);
    row.taken.add(phases.repaired_ns - phases.agreed_ns);
    row.ended.add(phases.resumed_ns - phases.repaired_ns);
  }
  row.faults += static_cast<double>(crowd.agents_faults() - faults) / row.deaths;
  // Of all together: from the last notice to the last one recovered.
  const std::uint64_t from = *std::max_element(noticed.begin(), noticed.end());
  row.notice.add(from - killed_at);
  row.repair.add(last > from ? last - from : 0);
  return {};
}

// Lookups on a schedule that does not wait for slow ones; latencies count from the scheduled time.
Histogram look_up(Crowd& crowd, std::chrono::milliseconds duration, std::uint64_t seed) {
  Histogram latencies;
  std::mt19937_64 random(seed);
  cache::GlobalCache& cache = crowd.survivor().cache();
  cache::Hit hit;
  const std::uint64_t begin = runtime::monotonic_ns();
  const std::uint64_t end =
      begin + static_cast<std::uint64_t>(std::chrono::nanoseconds(duration).count());
  for (std::uint64_t due = begin; due < end; due += kLookupIntervalNs) {
    const timespec at{static_cast<time_t>(due / 1'000'000'000),
                      static_cast<long>(due % 1'000'000'000)};
    while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
    }
    const std::string key = Crowd::key_of(random() % crowd.entries());
    if (cache.find(cache.make_key(key), hit).found == cache::Found::kHit) cache.release(hit);
    latencies.add(runtime::monotonic_ns() - due);
  }
  return latencies;
}

// The survivor has a processor of its own, as a server's worker would; all others share the rest
// (unless mixed).
void bind_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
  const sched_param priority{10};
  sched_setscheduler(0, SCHED_FIFO, &priority);  // if permitted
}

Result<Histogram> look_up_while_killing(Crowd& crowd, const Row& row, Victim kind,
                                        std::chrono::milliseconds duration, std::uint64_t seed) {
  Histogram latencies;
  std::atomic<bool> done{false};
  std::thread survivor([&] {
    bind_to(Crowd::kSurvivorsCpu);
    latencies = look_up(crowd, duration, seed);
    done = true;
  });
  std::vector<pid_t> pids;
  Result<void> killed;
  for (std::uint64_t due = runtime::monotonic_ns(); !done; due += kKillIntervalNs) {
    auto next = crowd.bring(1, row.pins, kLookupsWhileKilling, kind);
    if (!next) {
      killed = tl::unexpected(next.error());
      break;
    }
    while (runtime::monotonic_ns() < due) ::usleep(100);
    ::kill(next->front(), SIGKILL);
    pids.push_back(next->front());
    due = std::max(due, runtime::monotonic_ns() - kKillIntervalNs);
  }
  survivor.join();
  if (!killed) return tl::unexpected(killed.error());
  if (kind == Victim::kMember) {
    pids.erase(pids.begin(), pids.end() - std::min<std::ptrdiff_t>(100, std::ssize(pids)));
    if (const auto all = crowd.recoveries(pids); !all) return tl::unexpected(all.error());
  }
  return latencies;
}

struct Turns {
  std::vector<std::uint64_t> p999_ns;
  std::uint64_t max_ns = 0;

  void add(const Histogram& turn) {
    p999_ns.push_back(std::max<std::uint64_t>(1, turn.percentile(0.999)));
    max_ns = std::max(max_ns, turn.max());
  }
  // A machine that stands still once for 5 ms makes so many lookups late that it decides about a turn.
  std::uint64_t median_ns() {
    const auto middle = p999_ns.begin() + std::ssize(p999_ns) / 2;
    std::nth_element(p999_ns.begin(), middle, p999_ns.end());
    return *middle;
  }
};

Result<void> measure_survivor(Crowd& crowd, Row& row, bool quick, std::uint64_t seed) {
  const std::chrono::milliseconds duration(quick ? 250 : 1000);
  Turns calm;
  Turns busy;
  Turns control;
  // One of each in turn, so that all see the same machine.
  for (int turn = 0; turn < 9; ++turn) {
    std::thread quiet([&] {
      bind_to(Crowd::kSurvivorsCpu);
      calm.add(look_up(crowd, duration, seed));
    });
    quiet.join();
    for (const auto& [kind, turns] :
         {std::pair{Victim::kMember, &busy}, std::pair{Victim::kControl, &control}}) {
      auto measured = look_up_while_killing(crowd, row, kind, duration, seed);
      if (!measured) return tl::unexpected(measured.error());
      turns->add(*measured);
    }
  }
  row.calm_p999_ns = calm.median_ns();
  row.calm_max_ns = calm.max_ns;
  const auto ratio = [&](Turns& of) {
    return static_cast<double>(of.median_ns()) / static_cast<double>(row.calm_p999_ns);
  };
  row.p999_ratio = ratio(busy);
  row.survivor_max_ns = busy.max_ns;
  row.control_ratio = ratio(control);
  row.control_max_ns = control.max_ns;
  return {};
}

nlohmann::json row_json(const Row& row) {
  return {{"entries", row.entries},
          {"pins", row.pins},
          {"deaths", row.deaths},
          {"huge_pages", row.huge_pages},
          {"notice_ms_p50", ms(row.notice.percentile(0.5))},
          {"notice_ms_p99", ms(row.notice.percentile(0.99))},
          {"repair_ms_p50", ms(row.repair.percentile(0.5))},
          {"repair_ms_p99", ms(row.repair.percentile(0.99))},
          {"agreed_ms_p50", ms(row.agreed.percentile(0.5))},
          {"taken_over_ms_p50", ms(row.taken.percentile(0.5))},
          {"ended_ms_p50", ms(row.ended.percentile(0.5))},
          {"agents_faults", row.faults},
          {"survivor_p999_ratio", row.p999_ratio},
          {"survivor_max_ms", ms(row.survivor_max_ns)},
          {"control_p999_ratio", row.control_ratio},
          {"control_max_ms", ms(row.control_max_ns)},
          {"calm_p999_ms", ms(row.calm_p999_ns)},
          {"calm_max_ms", ms(row.calm_max_ns)}};
}

void print(const Row& row) {
  std::fputs(fmt::format("{:>9} {:>6} {:>7} {:>5} {:>8.2f} {:>8.2f} {:>9.3f} {:>9.3f} {:>10.2f} "
                         "{:>9.3f} {:>10.2f} {:>9.3f}\n",
                         row.entries, row.pins, row.deaths, row.huge_pages ? "yes" : "no",
                         ms(row.notice.percentile(0.5)), ms(row.notice.percentile(0.99)),
                         ms(row.repair.percentile(0.5)), ms(row.repair.percentile(0.99)),
                         row.p999_ratio, ms(row.survivor_max_ns), row.control_ratio,
                         ms(row.control_max_ns))
                 .c_str(),
             stdout);
  std::fflush(stdout);
}

}  // namespace

void RecoveryBenchmark::add_options(CLI::App& app) {
  app.add_option("--entries", entries_, "Entries in the cache")
      ->delimiter(',')
      ->check(CLI::Range(1000, 100'000'000));
  app.add_option("--pins", pins_, "Pins that each of the dead held")
      ->delimiter(',')
      ->check(CLI::Range(0, 100'000))
      ->capture_default_str();
  app.add_option("--deaths", deaths_, "Processes killed at once")
      ->delimiter(',')
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--rounds", rounds_, "Rounds of each row")->check(CLI::Range(1, 10'000));
  app.add_flag("--huge-pages", huge_pages_, "The domain on a tmpfs with huge pages (root only)");
  app.add_flag("--mixed", mixed_,
               "Victims and the agent also on the survivor's processor, where its lookups wait for the "
               "kernel to take a dead process down");
  app.add_option("--ballast", ballast_,
                 "Pages of other memory that each victim has touched as well, for comparison: a process "
                 "that is larger in a cache that is not")
      ->check(CLI::Range(0, 1'000'000));
  app.add_flag("!--no-survivor", survivor_, "Leave out the lookups while processes are killed");
  app.add_option("--svg", svg_, "Write a plot to FILE");
}

Result<nlohmann::json> RecoveryBenchmark::run(const std::atomic<bool>& interrupted) {
  std::vector<std::uint64_t> sizes(entries_.begin(), entries_.end());
  if (sizes.empty()) sizes = {10'000, 100'000, 1'000'000};
  if (entries_.empty() && !quick) sizes.push_back(10'000'000);
  const int rounds = rounds_ > 0 ? rounds_ : (quick ? 5 : 200);
  std::fputs(fmt::format("{:>9} {:>6} {:>7} {:>5} {:>17} {:>19} {:>20} {:>20}\n{:>9} {:>6} {:>7} "
                         "{:>5} {:>8} {:>8} {:>9} {:>9} {:>10} {:>9} {:>10} {:>9}\n",
                         "", "", "", "huge", "notice ms", "repair ms", "survivor lookups",
                         "others' kills", "entries", "pins", "deaths", "pages", "p50", "p99", "p50",
                         "p99", "p99.9 x", "max ms", "p99.9 x", "max ms")
                 .c_str(),
             stdout);
  std::vector<Row> rows;
  for (const std::uint64_t entries : sizes) {
    CrowdOptions options;
    options.entries = entries;
    options.most_pins = *std::max_element(pins_.begin(), pins_.end());
    options.huge_pages = huge_pages_;
    options.apart = !mixed_;
    options.ballast_pages = ballast_;
    auto crowd = Crowd::gather(options);
    if (!crowd) return tl::unexpected(crowd.error());
    for (const std::uint32_t pins : pins_) {
      for (const std::uint32_t deaths : deaths_) {
        Row row{entries, pins, deaths, huge_pages_, {}, {}};
        for (int round = 0; round < rounds; ++round) {
          if (auto measured = measure_deaths(**crowd, row); !measured) {
            return tl::unexpected(measured.error());
          }
          if (interrupted) return fail("interrupted");
        }
        row.faults /= rounds;
        // One is killed every 10 ms, however many are killed at once above.
        if (deaths != deaths_.front()) {
          row.copy_survivor(rows.back());
        } else if (survivor_) {
          if (auto measured = measure_survivor(**crowd, row, quick, seed); !measured) {
            return tl::unexpected(measured.error());
          }
        }
        if (auto sound = (*crowd)->verify(); !sound) return tl::unexpected(sound.error());
        print(row);
        rows.push_back(std::move(row));
      }
    }
  }
  nlohmann::json list = nlohmann::json::array();
  for (const Row& row : rows) list.push_back(row_json(row));
  if (!svg_.empty()) {
    Plot plot;
    plot.title = "From the kernel's notice of a death to recovered (p99)";
    plot.x_label = "entries in the cache";
    plot.y_label = "ms";
    for (const std::uint32_t deaths : deaths_) {
      for (const std::uint32_t pins : pins_) {
        Plot::Line line{fmt::format("{} dead, {} pins each", deaths, pins), {}};
        for (const Row& row : rows) {
          if (row.deaths == deaths && row.pins == pins) {
            line.points.emplace_back(static_cast<double>(row.entries),
                                     ms(row.repair.percentile(0.99)));
          }
        }
        plot.lines.push_back(std::move(line));
      }
    }
    if (auto written = write_file(svg_, plot.svg()); !written) {
      return tl::unexpected(written.error());
    }
  }
  return nlohmann::json{{"rows", list}, {"rounds", rounds}, {"seed", seed}, {"quick", quick}};
}

}  // namespace mcs::loadtest
