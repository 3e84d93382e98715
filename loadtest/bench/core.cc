// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/core.h"

#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>

#include "loadtest/bench/core_worker/protocol.h"
#include "loadtest/bench/statistics.h"
#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/process.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {

namespace {

using core::Answer;
using core::Command;
using core::Work;

constexpr uint64_t kLeadNs = 2'000'000;  // for every worker to be there before the measurement

struct Kind {
  const char* name;
  const char* program;
  const char* store;
};
constexpr Kind kKinds[] = {
    {"core", "mcs-core-worker", "mcs"},      {"uncounted", "mcs-core-worker-uncounted", "mcs"},
    {"bare", "mcs-core-worker-bare", "mcs"}, {"lmdb", "mcs-core-worker", "lmdb"},
    {"boost-map", "mcs-core-worker", "map"}, {"memcached", "mcs-core-worker", "memcached"},
};

struct Operation {
  const char* name;
  Work work;
  uint64_t percent;
};
constexpr Operation kOperations[] = {
    {"get", Work::kGet, 0},         {"miss", Work::kMiss, 0},    {"put", Work::kPut, 0},
    {"95/5", Work::kMixed, 5},      {"50/50", Work::kMixed, 50}, {"evict", Work::kDisplace, 0},
    {"two loads", Work::kChase, 0},
};

// A store and its worker processes, the first of which has made it.
class Crew {
 public:
  static Result<std::unique_ptr<Crew>> hire(const Kind& kind, uint64_t entries, int most) {
    std::unique_ptr<Crew> crew(new Crew(kind, entries));
    if (std::string_view(kind.store) == "memcached") {
      if (auto started = crew->start_memcached(); !started) return tl::unexpected(started.error());
    }
    crew->listener_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = crew->directory_.path() / "commands";
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    if (::bind(crew->listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(crew->listener_, 16) != 0) {
      return fail("cannot listen at {}: {}", path, std::strerror(errno));
    }
    for (int i = 0; i < most; ++i) {
      if (auto added = crew->add(i == 0); !added) return tl::unexpected(added.error());
    }
    for (uint64_t at = 0; at < entries; at += 1 << 16) {
      Command command;
      command.work = Work::kFill;
      command.first = at;
      command.count = std::min<uint64_t>(entries - at, 1 << 16);
      const auto filled = crew->order(command, 1);
      if (!filled) return tl::unexpected(filled.error());
      if (filled->front().failures > 0) return fail("{} refused to store an entry", kind.name);
    }
    crew->next_ = entries;
    Command warm;
    warm.work = Work::kWarm;
    warm.entries = std::string_view(kind.store) == "memcached" ? 1 : entries;
    const auto warmed = crew->order(warm, most);
    if (!warmed) return tl::unexpected(warmed.error());
    for (const Answer& answer : *warmed) {
      if (answer.failures > answer.operations / 1000) {
        return fail("{} has lost {} of {} entries", kind.name, answer.failures, answer.operations);
      }
    }
    return crew;
  }

  ~Crew() {
    for (const int fd : fds_) ::close(fd);
    for (ChildProcess& worker : workers_) worker.wait(std::chrono::seconds(20));
    if (listener_ >= 0) ::close(listener_);
  }
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  // Stores until the next one needs room.
  Result<void> fill_up() {
    if (full_) return {};
    Command command;
    command.work = Work::kFillUp;
    command.first = next_;
    const auto filled = order(command, 1);
    if (!filled) return tl::unexpected(filled.error());
    next_ += filled->front().operations;
    full_ = true;
    return {};
  }

  // ns per operation of all workers together.
  Result<double> measure(const Operation& operation, int processes, int millis, uint64_t seed,
                         bool realtime) {
    Command command;
    command.work = operation.work;
    // More than one runnable process per processor needs a scheduler.
    command.realtime = realtime && processes <= 2 ? 1 : 0;
    command.entries = entries_;
    command.count = operation.percent;
    command.seed = seed;
    if (operation.work == Work::kDisplace) {
      if (auto filled = fill_up(); !filled) return tl::unexpected(filled.error());
      command.first = next_;
      command.count = entries_;
    }
    command.begin_ns = monotonic_ns() + kLeadNs;
    command.end_ns = command.begin_ns + static_cast<uint64_t>(millis) * 1'000'000;
    const auto answers = order(command, processes);
    if (!answers) return tl::unexpected(answers.error());
    double per_ns = 0;
    for (const Answer& answer : *answers) {
      per_ns += static_cast<double>(answer.operations) / static_cast<double>(answer.ns);
      next_ += operation.work == Work::kDisplace ? answer.operations : 0;
      if (answer.failures > answer.operations / 10) {
        return fail("{}: {} of {} operations ({}) failed", kind_.name, answer.failures,
                    answer.operations, operation.name);
      }
    }
    return 1 / per_ns;
  }

  const Kind& kind() const { return kind_; }

 private:
  Crew(const Kind& kind, uint64_t entries) : kind_(kind), entries_(entries) {}

  Result<void> start_memcached() {
    const std::string program = find_program("memcached");
    if (program.empty()) return fail("memcached is not installed: ./mcs bench core installs it");
    const std::string socket = directory_.path() / "memcached";
    auto started = ChildProcess::start({program, "-s", socket, "-u", "root", "-t", "2", "-m",
                                        fmt::format("{}", 128 + entries_ / 2000), "-o",
                                        "hashpower=22,no_hashexpand"});
    if (!started) return tl::unexpected(started.error());
    server_ = std::move(*started);
    if (!wait_until([&] { return ::access(socket.c_str(), F_OK) == 0; },
                    std::chrono::seconds(10))) {
      return fail("memcached does not start");
    }
    return {};
  }

  Result<void> add(bool create) {
    const auto program = tool_file(kind_.program);
    if (program.empty()) {
      return fail("{} is not built: cmake --build BUILD_DIRECTORY --target mcs-core-workers",
                  kind_.program);
    }
    SpawnOptions options;
    options.cpus = {static_cast<int>(fds_.size() + 1) % 2};
    auto started =
        ChildProcess::start({program, kind_.store, directory_.path(), fmt::format("{}", entries_),
                             create ? "create" : "attach", directory_.path() / "commands"},
                            options);
    if (!started) return tl::unexpected(started.error());
    workers_.push_back(std::move(*started));
    pollfd waiting{listener_, POLLIN, 0};
    while (::poll(&waiting, 1, 100) != 1) {
      if (!workers_.back().running()) return fail("{} could not start", kind_.name);
    }
    fds_.push_back(::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC));
    return {};
  }

  Result<std::vector<Answer>> order(Command command, int processes) {
    const uint64_t seed = command.seed;
    for (int i = 0; i < processes; ++i) {
      command.seed = seed + static_cast<uint64_t>(i) * 0x632be59bd9b4e019ULL;
      if (command.work == Work::kDisplace) command.first = next_ + (static_cast<uint64_t>(i) << 36);
      if (::send(fds_[static_cast<size_t>(i)], &command, sizeof command, MSG_NOSIGNAL) !=
          sizeof command) {
        return fail("a worker of {} has died", kind_.name);
      }
    }
    std::vector<Answer> answers(static_cast<size_t>(processes));
    for (int i = 0; i < processes; ++i) {
      if (::recv(fds_[static_cast<size_t>(i)], &answers[static_cast<size_t>(i)], sizeof(Answer),
                 0) != sizeof(Answer)) {
        return fail("a worker of {} has died", kind_.name);
      }
    }
    return answers;
  }

  Kind kind_;
  uint64_t entries_;
  uint64_t next_ = 0;
  bool full_ = false;
  TempDir directory_{"/dev/shm", "mcscore"};
  ChildProcess server_;
  int listener_ = -1;
  std::vector<ChildProcess> workers_;
  std::vector<int> fds_;
};

struct Case {
  Crew* crew;
  const Operation* operation;
  uint64_t entries;
  int processes;
  std::vector<double> ns;
};

bool makes_sense(const Kind& kind, const Operation& operation, int processes) {
  const std::string_view store = kind.store;
  if (operation.work == Work::kChase)
    return std::string_view(kind.name) == "core" && processes == 1;
  // memcached chooses what goes in its own process; peers would have to agree on what is oldest.
  if (operation.work == Work::kDisplace) return store != "memcached" && processes == 1;
  return true;
}

nlohmann::json report(const std::vector<Case>& cases, uint64_t seed) {
  nlohmann::json list = nlohmann::json::array();
  const auto find = [&](const Case& like, std::string_view kind,
                        std::string_view operation) -> const Case* {
    for (const Case& one : cases) {
      if (one.entries == like.entries && one.processes == like.processes &&
          kind == one.crew->kind().name && operation == one.operation->name) {
        return &one;
      }
    }
    return nullptr;
  };
  std::fputs(fmt::format("\n{:<10} {:>9} {:>5} {:<10} {:>9} {:>19}   {}\n", "operation", "entries",
                         "procs", "store", "ns", "95 % interval", "core / this store")
                 .c_str(),
             stdout);
  for (const Case& one : cases) {
    const Interval ns = bootstrap_median(one.ns, seed);
    nlohmann::json entry = {{"operation", one.operation->name},
                            {"entries", one.entries},
                            {"processes", one.processes},
                            {"store", one.crew->kind().name},
                            {"ns", ns.value},
                            {"ns_interval", {ns.low, ns.high}},
                            {"rounds", one.ns}};
    std::string text;
    const Case* ours = find(one, "core", one.operation->name);
    if (one.operation->work == Work::kChase) ours = find(one, "core", "get");
    if (ours != nullptr && ours != &one) {
      const Interval ratio = bootstrap_ratio(ours->ns, one.ns, seed);
      text = fmt::format("{:.3f} [{:.3f} {:.3f}]", ratio.value, ratio.low, ratio.high);
      entry["core_ratio"] = ratio.value;
      entry["core_ratio_interval"] = {ratio.low, ratio.high};
    }
    std::fputs(fmt::format("{:<10} {:>9} {:>5} {:<10} {:>9.1f} {:>9.1f} {:>9.1f}   {}\n",
                           one.operation->name, one.entries, one.processes, one.crew->kind().name,
                           ns.value, ns.low, ns.high, text)
                   .c_str(),
               stdout);
    list.push_back(entry);
  }
  return list;
}

}  // namespace

void CoreBenchmark::add_options(CLI::App& app) {
  app.add_option("--rounds", rounds_, "Rounds; each measures every store once")
      ->check(CLI::Range(1, 1000));
  app.add_option("--milliseconds", millis_, "Of each measurement")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app.add_option("--entries", entries_, "How many entries the stores hold, up to 10000000")
      ->delimiter(',')
      ->check(CLI::Range(100, 10'000'000))
      ->capture_default_str();
  app.add_option("--processes", processes_,
                 "How many processes work at once; more than one only with --crowded entries")
      ->delimiter(',')
      ->check(CLI::Range(1, 8))
      ->capture_default_str();
  app.add_option("--crowded", crowded_entries_, "Entries where several processes are measured")
      ->capture_default_str();
  app.add_option("--only", only_, "Operations: get, miss, put, 95/5, 50/50, evict")->delimiter(',');
  app.add_option("--stores", stores_, "Of: core, uncounted, bare, lmdb, boost-map, memcached")
      ->delimiter(',');
  app.add_flag(
      "--realtime", realtime_,
      "Measured processes take precedence over everything else on the machine (SCHED_FIFO; "
      "root only)");
}

Result<nlohmann::json> CoreBenchmark::run(const std::atomic<bool>& interrupted) {
  const int rounds = rounds_ > 0 ? rounds_ : (quick ? 5 : 15);
  if (sysconf(_SC_NPROCESSORS_ONLN) < 2) return fail("this needs two processors");
  if (realtime_) {
    const sched_param normal{0};
    const sched_param priority{10};
    if (sched_setscheduler(0, SCHED_FIFO, &priority) != 0 ||
        sched_setscheduler(0, SCHED_OTHER, &normal) != 0) {
      return fail("--realtime is not permitted: {}; run it as root", std::strerror(errno));
    }
  }
  std::mt19937_64 random(seed);
  nlohmann::json list = nlohmann::json::array();
  for (const uint64_t entries : entries_) {
    std::vector<int> processes = {1};
    if (entries == crowded_entries_) processes = processes_;
    std::vector<std::unique_ptr<Crew>> crews;
    for (const Kind& kind : kKinds) {
      if (!stores_.empty() &&
          std::find(stores_.begin(), stores_.end(), kind.name) == stores_.end()) {
        continue;
      }
      auto crew = Crew::hire(kind, entries, *std::max_element(processes.begin(), processes.end()));
      if (!crew) return tl::unexpected(crew.error());
      crews.push_back(std::move(*crew));
    }
    std::vector<Case> cases;
    for (const Operation& operation : kOperations) {
      const bool wanted = only_.empty() || operation.work == Work::kChase ||
                          std::find(only_.begin(), only_.end(), operation.name) != only_.end();
      for (const int p : processes) {
        for (const auto& crew : crews) {
          if (wanted && makes_sense(crew->kind(), operation, p)) {
            cases.push_back({crew.get(), &operation, entries, p, {}});
          }
        }
      }
    }
    // Contenders of one comparison are measured beside each other; what evicts comes last, because
    // it takes away what the others look for.
    for (size_t begin = 0, end = 0; begin < cases.size(); begin = end) {
      while (end < cases.size() && (cases[end].operation->work == Work::kChase ||
                                    cases[end].operation->work == Work::kDisplace) ==
                                       (cases[begin].operation->work == Work::kChase ||
                                        cases[begin].operation->work == Work::kDisplace)) {
        ++end;
      }
      std::vector<size_t> order;
      for (size_t i = begin; i < end; ++i) order.push_back(i);
      for (int round = 0; round < rounds; ++round) {
        std::shuffle(order.begin(), order.end(), random);
        for (const size_t i : order) {
          Case& one = cases[i];
          const auto ns =
              one.crew->measure(*one.operation, one.processes, millis_, random(), realtime_);
          if (!ns) return tl::unexpected(ns.error());
          one.ns.push_back(*ns);
          if (interrupted) return fail("interrupted in round {}", round);
        }
      }
    }
    for (auto& one : report(cases, seed)) list.push_back(one);
  }
  return nlohmann::json{{"cases", list},
                        {"round_count", rounds},
                        {"milliseconds", millis_},
                        {"key_bytes", core::kKeyBytes},
                        {"value_bytes", core::kValueBytes},
                        {"seed", seed},
                        {"quick", quick},
                        {"realtime", realtime_}};
}

}  // namespace mcs::loadtest
