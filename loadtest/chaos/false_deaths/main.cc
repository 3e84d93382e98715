// SPDX-License-Identifier: Apache-2.0
// mcs-false-deaths: processes join a domain, store, look up and leave, again and again; meanwhile some
// are started, some are traced, and some are stopped, for less than the hang limit. Nobody dies, so
// nobody may be taken for dead: every recovery or expulsion that the domain's history tells of is false,
// and so is every member that finds its slot in another state than its own.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/cache/verify.h"
#include "libglobalcache/runtime/agent.h"
#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/temp_dir.h"

namespace {

using namespace mcs;
using runtime::InstanceState;
using runtime::StateWord;

struct Options {
  std::uint64_t joins = 100000;
  double seconds = 0;
  unsigned processes = 8;
  unsigned joins_per_process = 50;
  std::uint32_t hang_limit_ms = 2000;
  std::uint64_t seed = 0;
  std::string json_file;
};

// Shared with the processes that are forked.
struct Counts {
  std::atomic<std::uint64_t> joins{0};
  std::atomic<std::uint64_t> hits{0};
  std::atomic<std::uint64_t> stored{0};
  std::atomic<std::uint64_t> displaced{0};  // found themselves not to be members
  std::atomic<bool> stop{false};
};

struct Seat {
  std::unique_ptr<gsm::Domain> domain;
  std::unique_ptr<runtime::KernelLiveness> liveness;

  explicit Seat(const std::string& directory) {
    auto opened = gsm::Domain::open(directory, "joins", cache::layout_hash());
    if (!opened) throw std::runtime_error(opened.error().message);
    domain = std::move(*opened);
    auto alive = runtime::KernelLiveness::open(domain->path());
    if (!alive) throw std::runtime_error(alive.error().message);
    liveness = std::move(*alive);
  }
};

bool is_mine(const runtime::Instance& instance) {
  const std::uint64_t word = instance.control(instance.slot_number()).state.load();
  return word == StateWord::make(InstanceState::kActive, instance.id().incarnation());
}

void work(cache::GlobalCache& cache, std::mt19937_64& random, Counts& counts) {
  for (int i = 0; i < 6; ++i) {
    const std::string key = fmt::format("/joins/{}", random() % 300);
    cache::Hit hit;
    if (cache.find(cache.make_key(key), hit).found == cache::Found::kHit) {
      cache.release(hit);
      ++counts.hits;
      continue;
    }
    cache::Fill fill;
    if (cache.begin(cache.make_key(key), fill) != cache::Begin::kFilling) continue;
    const std::string body(100 + random() % 30000, 'b');
    fill.set_head(std::as_bytes(std::span(key)), body.size());
    if (fill.append(std::as_bytes(std::span(body))) == cache::Append::kOk && fill.commit(1)) {
      ++counts.stored;
    }
  }
}

[[noreturn]] void be_member(const std::string& directory, const Options& options,
                            std::uint64_t seed, Counts& counts) {
  std::mt19937_64 random(seed);
  const Seat seat(directory);
  for (unsigned i = 0; i < options.joins_per_process && !counts.stop; ++i) {
    auto joined = runtime::Instance::join(*seat.domain, *seat.liveness,
                                          {.server = "joiner/1", .may_inherit = true});
    if (!joined) continue;
    runtime::Instance& instance = **joined;
    {
      cache::GlobalCache cache(*seat.domain, instance);
      instance.activate();
      if (random() % 2 == 0) runtime::send_hello(seat.domain->path(), 0, instance.id());
      work(cache, random, counts);
      instance.tick();
      cache.tick();
      if (!is_mine(instance)) ++counts.displaced;
      cache.leave();
    }
    instance.leave();
    ++counts.joins;
  }
  ::_exit(0);
}

// Traced and interrupted, or stopped, for a while that is shorter than the hang limit.
bool disturb(pid_t pid, bool trace, std::uint32_t for_ms) {
  if (!trace) {
    if (::kill(pid, SIGSTOP) != 0) return false;
    ::usleep(for_ms * 1000);
    ::kill(pid, SIGCONT);
    return true;
  }
  if (::ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) != 0) return false;
  bool held = false;
  if (::ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr) == 0) {
    int status = 0;
    held = ::waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status);
    if (!held) return false;  // it has ended, and is reaped
    ::usleep(for_ms * 1000);
  }
  ::ptrace(PTRACE_DETACH, pid, nullptr, nullptr);
  return held;
}

struct Outcome {
  std::uint64_t started = 0;
  std::uint64_t traced = 0;
  std::uint64_t stopped = 0;
  std::uint64_t killed = 0;   // members that a signal ended
  std::uint64_t recovered = 0;
  std::uint64_t expelled = 0;
  bool sound = false;
};

void count_events(const runtime::Instance& watcher, std::uint64_t& seen, Outcome& result) {
  runtime::EventRing& ring = watcher.events(0);
  const std::uint64_t next = ring.next.load();
  for (; seen < next; ++seen) {
    const runtime::Event& event = ring.events[seen % runtime::kEvents];
    if (event.ready.load() != seen + 1) continue;
    if (event.kind == static_cast<std::uint32_t>(runtime::EventKind::kExpelled)) {
      ++result.expelled;
    } else {
      ++result.recovered;
      fmt::print("recovered: {} pid {} ({})\n", event.server, event.pid, event.cause);
    }
  }
}

Outcome run(const Options& options, Counts& counts) {
  Outcome result;
  std::mt19937_64 random(options.seed);
  const loadtest::TempDir directory("/dev/shm", "mcs-joins");
  gsm::DomainSpec spec;
  spec.name = "joins";
  spec.directory = directory.path();
  spec.bytes_per_node = 32ULL << 20;
  if (auto made = api::create(spec); !made) throw std::runtime_error(made.error().message);

  ::setenv("MCS_AGENT", loadtest::tool_file("mcs-agent").c_str(), 0);
  runtime::start_agent(-1, directory.path(), "joins", 0, options.hang_limit_ms);
  Seat seat(directory.path());
  auto watcher = runtime::Instance::join(*seat.domain, *seat.liveness, {.server = "watcher/1"});
  if (!watcher) throw std::runtime_error(watcher.error().message);
  (*watcher)->activate();
  while ((*watcher)->events(0).agent.load() == 0) ::usleep(1000);
  std::uint64_t seen = (*watcher)->events(0).next.load();

  std::vector<pid_t> members;
  const auto start_one = [&] {
    const std::uint64_t seed = random();
    const pid_t pid = ::fork();
    if (pid == 0) be_member(directory.path(), options, seed, counts);
    if (pid > 0) {
      members.push_back(pid);
      ++result.started;
    }
  };
  const auto reap = [&](bool wait) {
    for (auto it = members.begin(); it != members.end();) {
      int status = 0;
      const pid_t ended = ::waitpid(*it, &status, wait ? 0 : WNOHANG);
      if (ended == 0) {
        ++it;
        continue;
      }
      if (ended == *it && WIFSTOPPED(status)) continue;
      if (ended == *it && WIFSIGNALED(status)) ++result.killed;
      it = members.erase(it);
    }
  };
  const std::uint64_t begin = runtime::monotonic_ns();
  const auto time_is_up = [&] {
    return options.seconds > 0 &&
           static_cast<double>(runtime::monotonic_ns() - begin) > options.seconds * 1e9;
  };
  while (counts.joins < options.joins && !time_is_up()) {
    while (members.size() < options.processes) start_one();
    const pid_t victim = members[random() % members.size()];
    const bool trace = random() % 2 == 0;
    // Most for a moment, some for nearly as long as one may.
    const std::uint32_t for_ms = random() % 200 == 0
                                     ? options.hang_limit_ms / 2
                                     : static_cast<std::uint32_t>(random() % 4);
    if (disturb(victim, trace, for_ms)) ++(trace ? result.traced : result.stopped);
    reap(false);
    count_events(**watcher, seen, result);
    (*watcher)->tick();
  }
  counts.stop = true;
  for (const pid_t pid : members) ::kill(pid, SIGCONT);
  reap(true);
  // Two rounds of the agent: what it took for dead it would have recovered.
  ::usleep(300000);
  count_events(**watcher, seen, result);
  result.sound = cache::verify(*seat.domain, *seat.liveness).ok;
  (*watcher)->leave();
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Processes join a domain, work and leave while others are started, traced, and stopped "
               "for less than the hang limit. The exit status is 0 if nobody was taken for dead."};
  Options options;
  app.add_option("--joins", options.joins, "how many joins, and leaves")->capture_default_str();
  app.add_option("--seconds", options.seconds, "stop after this time; 0: when the joins are done");
  app.add_option("--processes", options.processes, "at the same time")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--hang-limit-ms", options.hang_limit_ms, "of the agent")->capture_default_str();
  app.add_option("--seed", options.seed, "of what is disturbed, and for how long; 0 draws one");
  app.add_option("--json", options.json_file, "write the results to this file");
  CLI11_PARSE(app, argc, argv);
  if (options.seed == 0) options.seed = 1 + std::random_device{}() % 1000000;
  void* memory = ::mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    fmt::print(stderr, "mcs-false-deaths: no memory\n");
    return 2;
  }
  Counts& counts = *new (memory) Counts;
  const std::uint64_t begin = runtime::monotonic_ns();
  Outcome result;
  try {
    result = run(options, counts);
  } catch (const std::exception& error) {
    fmt::print(stderr, "mcs-false-deaths: {}\n", error.what());
    return 2;
  }
  const double seconds = static_cast<double>(runtime::monotonic_ns() - begin) / 1e9;
  const std::uint64_t false_deaths =
      result.killed + result.recovered + result.expelled + counts.displaced;
  fmt::print("seed {}: {} joins by {} processes, {} times traced, {} times stopped, {} hits, {} stored, "
             "{} false deaths ({} killed, {} recovered, {} expelled, {} displaced), {}, {:.1f} s\n",
             options.seed, counts.joins.load(), result.started, result.traced, result.stopped,
             counts.hits.load(), counts.stored.load(), false_deaths, result.killed, result.recovered,
             result.expelled, counts.displaced.load(), result.sound ? "sound" : "NOT SOUND", seconds);
  if (!options.json_file.empty()) {
    const nlohmann::json json = {
        {"seed", options.seed},          {"joins", counts.joins.load()},
        {"processes", result.started},   {"traced", result.traced},
        {"stopped", result.stopped},     {"false_deaths", false_deaths},
        {"hits", counts.hits.load()},    {"stored", counts.stored.load()},
        {"sound", result.sound},         {"seconds", seconds}};
    if (!loadtest::write_file(options.json_file, json.dump(2))) {
      fmt::print(stderr, "cannot write {}: choose a writable file\n", options.json_file);
      return 2;
    }
  }
  if (counts.joins == 0 || result.traced + result.stopped == 0) return 2;
  return false_deaths == 0 && result.sound ? 0 : 1;
}
