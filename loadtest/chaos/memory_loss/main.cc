// SPDX-License-Identifier: Apache-2.0
// mcs-memory-loss: memory of nodes is lost, whole segments and from a page of each kind on, of one node or
// of two at once, and restored, while nginx on node 0 and httpd on node 1 serve checked requests and
// threads of this program fill, look up, purge and evict without a pause.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <bit>
#include <csignal>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/cache/inspect.h"
#include "libglobalcache/cache/verify.h"
#include "loadtest/client/load_client.h"
#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/domain.h"
#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/nginx_server.h"
#include "loadtest/harness/process.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
constexpr auto kPatience = std::chrono::seconds(10);

struct Options {
  int faults = 200;
  std::uint32_t nodes = 4;
  int workers = 2;
  double seconds = 0;  // 0: until all faults were made
  std::uint64_t entries = 100000;
  std::uint64_t seed = 0;
  int connections = 8;
  std::string memory = "320M";
  std::string json;
};

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch())
          .count());
}

/// Where in a segment each kind of page lies.
struct Place {
  const char* kind;
  std::uint64_t first = 0;  // bytes
  std::uint64_t end = 0;
};

std::vector<Place> places_of(const gsm::SegmentHeader& header) {
  const auto r = runtime::RuntimeGeometry::load(header.user);
  const auto c = cache::CacheGeometry::load(header.user + 16);
  return {{"whole", 0, 1},
          {"controls", r.controls, r.totals},
          {"events", r.events, r.mutexes},
          {"view", r.views, r.views + sizeof(runtime::ViewArea)},
          {"slots", r.slots, r.end},
          {"purge log", c.purge_log_at, c.buckets_at},
          {"buckets", c.buckets_at, c.clock_at},
          {"clock", c.clock_at, c.arrivals_at},
          {"descriptors", c.descriptors_at, c.groups_at},
          {"groups", c.groups_at, c.end},
          {"payload", header.meta_bytes, header.size}};
}

class Campaign {
 public:
  explicit Campaign(const Options& options) : options_(options), random_(options.seed) {}
  Result<nlohmann::json> run();

 private:
  Result<void> prepare();
  void fill(std::uint32_t node);
  std::uint64_t hits(std::uint16_t segments);
  bool strike();
  void work(unsigned number);
  bool verify(bool bodies);
  std::string segment_path(std::uint32_t node) const;
  std::vector<pid_t> workers() const;
  void lose(std::uint32_t node, std::uint64_t from);

  const Options& options_;
  std::mt19937_64 random_;
  TempDir root_{"memory-loss"};
  FileSet files_;
  std::unique_ptr<RequestStream> stream_;
  std::optional<Domain> emulated_;
  std::unique_ptr<NginxServer> nginx_;
  std::unique_ptr<HttpdServer> httpd_;
  std::unique_ptr<gsm::Domain> domain_;
  std::unique_ptr<runtime::KernelLiveness> liveness_;
  std::vector<pid_t> workers_;

  int faults_ = 0;
  int contained_ = 0;
  int crashes_ = 0;
  int pairs_ = 0;
  std::atomic<bool> done_{false};
  std::atomic<std::uint64_t> operations_{0};
  std::atomic<std::uint64_t> rejoined_{0};
  std::atomic<std::uint64_t> wrong_{0};
  std::vector<double> recovery_ms_;
  std::vector<std::uint64_t> struck_ns_;
  std::map<std::string, int> by_kind_;
  std::uint64_t kept_ = 0;
  std::uint64_t keepable_ = 0;
  std::uint64_t leaked_ = 0;
  std::uint64_t problems_ = 0;
  std::vector<std::string> troubles_;
};

std::string filler_key(std::uint32_t node, std::uint64_t i) {
  return fmt::format("filler/{}/{}", node, i);
}

/// One instance of this process on a node, for as long as it is needed.
struct Filler {
  std::unique_ptr<gsm::Domain> domain;
  std::unique_ptr<runtime::KernelLiveness> liveness;
  std::unique_ptr<runtime::Instance> instance;
  std::unique_ptr<cache::GlobalCache> cache;
  /// Its slot is gone: there is nothing to be given back, and its liveness byte goes with the file.
  void abandon() {
    if (cache && instance) {
      cache.reset();
      instance.reset();
    }
  }
  ~Filler() {
    if (!cache) return;
    if (cache->is_homeless()) {
      abandon();
      return;
    }
    cache->leave();
    instance->leave();
  }
  static std::unique_ptr<Filler> join(const std::string& name, std::uint32_t node) {
    auto filler = std::make_unique<Filler>();
    auto domain = cache::open(gsm::kDefaultDirectory, name);
    if (!domain) return nullptr;
    filler->domain = std::move(*domain);
    auto liveness = runtime::KernelLiveness::open(filler->domain->path());
    if (!liveness) return nullptr;
    filler->liveness = std::move(*liveness);
    auto joined = runtime::Instance::join(*filler->domain, *filler->liveness,
                                          {.node = node, .server = "mcs-campaign"});
    if (!joined) return nullptr;
    filler->instance = std::move(*joined);
    filler->cache = std::make_unique<cache::GlobalCache>(*filler->domain, *filler->instance);
    filler->instance->activate();
    return filler;
  }
};

void Campaign::fill(std::uint32_t node) {
  const auto filler = Filler::join(emulated_->name(), node);
  if (!filler) {
    troubles_.push_back(fmt::format("cannot join node {} to fill it", node));
    return;
  }
  const std::vector<std::byte> body(700);
  for (std::uint64_t i = 0; i < options_.entries / options_.nodes; ++i) {
    const std::string key = filler_key(node, i);
    cache::Fill entry;
    if (filler->cache->begin(filler->cache->make_key(key), entry) != cache::Begin::kFilling) continue;
    entry.set_head(std::span(body).first(64), body.size());
    if (entry.append(body) == cache::Append::kOk) entry.commit(1);
  }
}

// Of the entries made for these nodes, how many are found now by a process of one of them.
std::uint64_t Campaign::hits(std::uint16_t segments) {
  const auto reader =
      Filler::join(emulated_->name(), static_cast<std::uint32_t>(std::countr_zero(segments)));
  if (!reader) return 0;
  std::uint64_t found = 0;
  cache::Hit hit;
  for (std::uint32_t node = 0; node < options_.nodes; ++node) {
    if ((segments >> node & 1) == 0) continue;
    for (std::uint64_t i = 0; i < options_.entries / options_.nodes; ++i) {
      const std::string key = filler_key(node, i);
      if (reader->cache->find(reader->cache->make_key(key), hit).found != cache::Found::kHit) continue;
      found += hit.link.segment() == node ? 1U : 0U;
      reader->cache->release(hit);
    }
  }
  return found;
}

// What servers do seldom: loss meets each of it in the middle. The bodies say whose they are.
void Campaign::work(unsigned number) {
  std::mt19937_64 random(options_.seed + 1000 + number);
  std::unique_ptr<Filler> self;
  std::vector<std::byte> body;
  const auto content = [&](const std::string& key, std::size_t size) {
    body.resize(size);
    std::mt19937_64 bytes(std::hash<std::string>{}(key) ^ size);
    for (std::byte& b : body) b = static_cast<std::byte>(bytes());
  };
  auto ticked = Clock::now();
  while (!done_) {
    if (self == nullptr) {
      self = Filler::join(emulated_->name(), static_cast<std::uint32_t>(random() % options_.nodes));
      if (self == nullptr) {
        std::this_thread::sleep_for(milliseconds(5));
        continue;
      }
    }
    cache::GlobalCache& cache = *self->cache;
    const std::string key = fmt::format("work/{}", random() % 400);
    const unsigned what = random() % 16;
    ++operations_;
    if (what < 6) {
      cache::Hit hit;
      if (cache.find(cache.make_key(key), hit).found == cache::Found::kHit) {
        std::vector<std::byte> got(hit.body_bytes());
        const bool verified = cache.read_verified(hit, got.data());
        content(key, got.size());
        if (verified && got != body) ++wrong_;
        cache.release(hit);
      }
    } else if (what < 13) {
      cache::Fill entry;
      if (cache.begin(cache.make_key(key), entry) == cache::Begin::kFilling) {
        content(key, random() % 8 == 0 ? 200000 : random() % 5000);
        entry.set_head(std::as_bytes(std::span(key)), body.size());
        if (entry.append(body) == cache::Append::kOk) entry.commit(1);
      }
    } else if (what < 15) {
      cache.purge(cache::PurgeKind::kKey, key);
    } else {
      cache.reclaim();
    }
    if (Clock::now() - ticked > milliseconds(50)) {
      self->instance->tick();
      cache.tick();
      ticked = Clock::now();
    }
    if (cache.is_homeless()) {
      cache.retire_instance();
      self->abandon();
      self.reset();
      ++rejoined_;
    }
    if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
}

std::vector<pid_t> Campaign::workers() const {
  std::vector<pid_t> pids = nginx_->worker_pids();
  const std::vector<pid_t> more = httpd_->worker_pids();
  pids.insert(pids.end(), more.begin(), more.end());
  std::sort(pids.begin(), pids.end());
  return pids;
}

Result<void> Campaign::prepare() {
  std::filesystem::permissions(root_.path(), std::filesystem::perms(0755));
  std::filesystem::create_directory(root_.path() / "files");
  for (int i = 0; i < 240; ++i) {
    // Most are copied and verified at every hit, some are sent from pinned memory.
    const std::size_t size = i % 8 == 0 ? 20000 + random_() % 200000 : random_() % 12000;
    std::string text(size, '\0');
    for (char& c : text) c = static_cast<char>(random_());
    const auto file = root_.path() / "files" / fmt::format("{}.bin", i);
    std::ofstream(file) << text;
    const timespec times[2] = {{1'700'000'000, 0}, {1'700'000'000, 0}};
    ::utimensat(AT_FDCWD, file.c_str(), times, 0);
  }
  if (auto added = files_.add_directory(root_.path() / "files", "/files/"); !added) return added;
  stream_ = uniform_stream(0, files_.size());
  NginxOptions nginx;
  auto up = Domain::up({fmt::format("memory-loss-{}", ::getpid()), static_cast<int>(options_.nodes),
                        options_.memory, nginx.user});
  if (!up) return tl::unexpected(up.error());
  emulated_.emplace(std::move(*up));
  const auto mcs = [&](int node) {
    McsOptions m;
    m.domain = emulated_->name();
    m.size.clear();
    m.node = node;
    m.valid = "600s";
    return m;
  };
  nginx.document_root = root_.path();
  nginx.workers = 2;
  nginx.mcs = mcs(0);
  nginx_ = std::make_unique<NginxServer>(nginx);
  HttpdOptions httpd;
  httpd.document_root = root_.path();
  httpd.mpm = "event";
  httpd.workers = 2;
  httpd.max_processes = 2;
  httpd.threads_per_child = 32;
  httpd.mcs = mcs(1);
  httpd_ = std::make_unique<HttpdServer>(httpd);
  if (auto started = nginx_->start(); !started) return started;
  if (auto started = httpd_->start(); !started) return started;
  auto domain = cache::open(gsm::kDefaultDirectory, emulated_->name());
  if (!domain) return fail("{}", domain.error().message);
  domain_ = std::move(*domain);
  auto liveness = runtime::KernelLiveness::open(domain_->path());
  if (!liveness) return fail("{}", liveness.error().message);
  liveness_ = std::move(*liveness);
  for (std::uint32_t node = 0; node < options_.nodes; ++node) fill(node);
  workers_ = workers();
  return {};
}

std::string Campaign::segment_path(std::uint32_t node) const {
  return fmt::format("{}/segment.{}.{}", domain_->path(), node, domain_->segment(node).incarnation());
}

void Campaign::lose(std::uint32_t node, std::uint64_t from) {
  if (::truncate(segment_path(node).c_str(), static_cast<off_t>(from)) != 0) {
    troubles_.push_back("cannot take memory away: " + segment_path(node));
  }
}

bool Campaign::verify(bool bodies) {
  cache::VerifyOptions options;
  options.bodies = bodies;
  options.lost_is_wrong = false;
  // What instances of a lost segment held is given back when the last of them has joined anew.
  options.rechecks = 100;
  options.interval = milliseconds(20);
  const cache::VerifyReport report = cache::verify(*domain_, *liveness_, options);
  problems_ += report.problem_count;
  leaked_ += report.leaked_bytes;
  for (const cache::Problem& problem : report.problems) {
    if (troubles_.size() < 50) {
      troubles_.push_back(fmt::format("fault {}: {} {}: {}", faults_, problem.kind, problem.where,
                                      problem.detail));
    }
  }
  return report.ok;
}

bool Campaign::strike() {
  const std::vector<Place> places = places_of(domain_->header());
  std::map<std::uint32_t, std::uint64_t> victims;  // from which byte on
  const unsigned many = options_.nodes > 2 && random_() % 6 == 0 ? 2 : 1;
  std::uint16_t gone = 0;
  while (victims.size() < many) {
    const auto node = static_cast<std::uint32_t>(random_() % options_.nodes);
    const Place& place = places[random_() % places.size()];
    if (victims.count(node) == 0) ++by_kind_[place.kind];
    victims.emplace(node, (place.first + random_() % (place.end - place.first)) / gsm::kPageSize *
                              gsm::kPageSize);
    gone = static_cast<std::uint16_t>(gone | 1U << node);
  }
  const auto left = static_cast<std::uint16_t>(((1U << options_.nodes) - 1) & ~gone);
  const std::uint64_t there_before = hits(left);
  ++faults_;
  pairs_ += many == 2 ? 1 : 0;
  cache::Memory memory(*domain_);
  const std::uint64_t struck = now_ns();
  struck_ns_.push_back(struck);
  for (const auto& [node, from] : victims) lose(node, from);

  const auto whole = [&] {
    memory.adopt();
    for (std::uint32_t node = 0; node < options_.nodes; ++node) {
      if ((gone >> node & 1) != 0) {
        if (memory.has_segment(node)) return false;
        continue;
      }
      for (const auto& swept : memory.state(node).swept) {
        if (swept.load() < memory.generation()) return false;
      }
    }
    return true;
  };
  const auto until = Clock::now() + kPatience;
  bool recovered = false;
  while (!(recovered = whole()) && Clock::now() < until) std::this_thread::sleep_for(milliseconds(1));
  if (recovered) recovery_ms_.push_back(static_cast<double>(now_ns() - struck) / 1e6);
  const std::uint64_t there_after = hits(left);
  keepable_ += there_before;
  kept_ += std::min(there_before, there_after);
  bool good = recovered;
  if (!recovered) troubles_.push_back(fmt::format("fault {}: not recovered", faults_));
  const auto now_working = workers();
  if (now_working != workers_) {
    ++crashes_;
    good = false;
    workers_ = now_working;
  }
  for (const auto& [node, from] : victims) {
    const auto restored = run_process(
        {tool_file("gsm-emu").string(), "restore", emulated_->name(), std::to_string(node)});
    if (!restored || !restored->ok()) {
      troubles_.push_back("restore: " + (restored ? restored->describe() : restored.error().message));
      return false;
    }
  }
  const auto back = [&] {
    memory.adopt();
    return std::all_of(victims.begin(), victims.end(),
                       [&](const auto& victim) { return memory.has_segment(victim.first); });
  };
  while (!back() && Clock::now() < until + kPatience) std::this_thread::sleep_for(milliseconds(1));
  for (const auto& [node, from] : victims) fill(node);
  if (faults_ % 10 == 0 && !verify(false)) good = false;
  return good;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1,
                         static_cast<std::size_t>(q * static_cast<double>(values.size())))];
}

Result<nlohmann::json> Campaign::run() {
  if (auto ready = prepare(); !ready) return tl::unexpected(ready.error());
  LoadOptions load;
  load.targets = {{"nginx", "127.0.0.1", nginx_->port(), "localhost", ""},
                  {"httpd", "127.0.0.1", httpd_->port(), "localhost", ""}};
  load.files = &files_;
  load.stream = stream_.get();
  load.connections = options_.connections;
  load.seed = options_.seed;
  LiveCounters live;
  std::atomic<bool> stop{false};
  LoadReport report;
  std::thread client([&] { report = run_load(load, stop, live); });
  std::vector<std::thread> workers;
  for (int i = 0; i < options_.workers; ++i) {
    workers.emplace_back([this, i] { work(static_cast<unsigned>(i)); });
  }
  const auto begun = Clock::now();
  while (faults_ < options_.faults &&
         (options_.seconds == 0 ||
          std::chrono::duration<double>(Clock::now() - begun).count() < options_.seconds)) {
    if (strike()) ++contained_;
    if (faults_ % 10 == 0) {
      fmt::print("{} faults, {} contained, {} requests, {} wrong bodies, recovery p50 {:.0f} ms\n",
                 faults_, contained_, live.requests.load(), live.wrong_bodies.load(),
                 quantile(recovery_ms_, .5));
      std::fflush(stdout);
    }
  }
  stop = true;
  done_ = true;
  client.join();
  for (std::thread& worker : workers) worker.join();
  const bool clean = verify(true);

  // A response that was being sent from the lost memory is aborted; every other one must be whole.
  std::uint64_t aborted = 0;
  std::map<std::string, std::uint64_t> kinds;
  for (const FailureRecord& failure : report.failures) {
    const bool cut = failure.failure == Failure::kShortBody ||
                     failure.failure == Failure::kConnectionLost;
    const bool at_a_loss =
        std::any_of(struck_ns_.begin(), struck_ns_.end(), [&](std::uint64_t struck) {
          return failure.sent_ns < struck + 1'000'000'000 && failure.failed_ns > struck;
        });
    if (cut && at_a_loss) {
      ++aborted;
    } else {
      ++kinds[std::string(name_of(failure.failure))];
    }
  }
  const TargetReport total = report.total();
  const std::uint64_t failed = total.failed() - aborted;
  nlohmann::json result = {
      {"campaign", "memory-loss"},
      {"seed", options_.seed},
      {"entries", options_.entries},
      {"nodes", options_.nodes},
      {"faults", faults_},
      {"two_at_once", pairs_},
      {"faults_by_kind", by_kind_},
      {"contained", contained_},
      {"wrong_bodies", total.count(Failure::kWrongBody) + wrong_},
      {"operations_besides", operations_.load()},
      {"joined_anew", rejoined_.load()},
      {"survivor_crashes", crashes_},
      {"hangs", total.count(Failure::kTimeout)},
      {"served_requests", total.requests - total.failed()},
      {"aborted_responses", aborted},
      {"failed_requests_on_survivors", failed},
      {"failures", kinds},
      {"recovery_ms",
       {{"p50", quantile(recovery_ms_, .5)},
        {"p99", quantile(recovery_ms_, .99)},
        {"max", quantile(recovery_ms_, 1)}}},
      {"entries_kept_ratio", keepable_ == 0 ? 0.0
                                            : static_cast<double>(kept_) /
                                                  static_cast<double>(keepable_)},
      {"leaked_bytes", leaked_},
      {"verify", clean && problems_ == 0 ? "clean" : "problems"},
      {"problems", problems_},
      {"troubles", troubles_},
      {"seconds", std::chrono::duration<double>(Clock::now() - begun).count()}};
  return result;
}

}  // namespace
}  // namespace mcs::loadtest

int main(int argc, char** argv) {
  using namespace mcs::loadtest;
  CLI::App app{
      "Memory of nodes is lost and restored while nginx and httpd serve checked requests.\n"
      "Exit status: 0 every fault was contained; 1 not; 2 nothing was tried."};
  Options options;
  options.seed = std::random_device{}();
  app.add_option("--faults", options.faults, "how many")->capture_default_str();
  app.add_option("--nodes", options.nodes, "of which two have a web server")
      ->check(CLI::Range(2, 8))
      ->capture_default_str();
  app.add_option("--workers", options.workers, "threads that fill, look up, purge and evict besides")
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "stop after this time [never]");
  app.add_option("--entries", options.entries, "in the cache, beside what is served")
      ->capture_default_str();
  app.add_option("--memory", options.memory, "of each node")->capture_default_str();
  app.add_option("--connections", options.connections, "of the checking client, to each server")
      ->capture_default_str();
  app.add_option("--seed", options.seed, "of all random choices [drawn, printed]");
  app.add_option("--json", options.json, "write the result to this file");
  CLI11_PARSE(app, argc, argv);
  fmt::print("seed {}\n", options.seed);
  Campaign campaign(options);
  const auto result = campaign.run();
  if (!result) {
    fmt::print(stderr, "mcs-memory-loss: {}\n", result.error().message);
    return 2;
  }
  fmt::print("{}\n", result->dump(2));
  if (!options.json.empty()) std::ofstream(options.json) << result->dump(2) << "\n";
  const bool good = (*result)["contained"] == (*result)["faults"] &&
                    (*result)["wrong_bodies"] == 0 && (*result)["survivor_crashes"] == 0 &&
                    (*result)["hangs"] == 0 && (*result)["verify"] == "clean" &&
                    (*result)["leaked_bytes"] == 0;
  return good ? 0 : 1;
}
