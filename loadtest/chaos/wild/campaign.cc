// SPDX-License-Identifier: Apache-2.0
#include "loadtest/chaos/wild/campaign.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "libglobalcache/cache/inspect.h"
#include "libglobalcache/cache/layout.h"
#include "loadtest/chaos/wild/regions.h"
#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/domain.h"
#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/nginx_server.h"
#include "loadtest/harness/proc_info.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {
namespace {

using std::chrono::milliseconds;

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto at = static_cast<std::size_t>(q * static_cast<double>(values.size()));
  return values[std::min(at, values.size() - 1)];
}

nlohmann::json summary(const std::vector<double>& values) {
  return {{"p50", quantile(values, .5)}, {"p99", quantile(values, .99)}, {"max", quantile(values, 1)}};
}

class Run {
 public:
  explicit Run(const CampaignOptions& options)
      : options_(options), random_(options.seed), name_(fmt::format("mcs-wild-{}", ::getpid())) {}

  Result<void> prepare();
  Result<void> warm_up();
  Result<void> damage();
  void settle();
  void take_down();

  CampaignReport report;

 private:
  std::array<WebServer*, 2> servers() const { return {nginx_.get(), httpd_.get()}; }
  LoadOptions load_options() const;
  void run_wild();
  void damage_spot();
  void gather_events();
  std::map<pid_t, std::string> survivors() const;
  void look_for_crashes();

  const CampaignOptions& options_;
  std::mt19937_64 random_;
  std::string name_;
  TempDir site_{"mcs-wild-site"};
  FileSet files_;
  std::unique_ptr<RequestStream> stream_;
  std::optional<Domain> domain_;
  std::unique_ptr<NginxServer> nginx_;
  std::unique_ptr<HttpdServer> httpd_;
  std::unique_ptr<gsm::Domain> mapped_;  // to look at, and to know what is where
  std::vector<int> segment_fds_;
  std::map<pid_t, std::string> expected_;
  std::set<std::string> seen_events_;
  std::map<pid_t, std::uint64_t> ended_ns_;  // of processes that ran wild
  std::atomic<bool> stop_{false};
};

Result<void> Run::prepare() {
  for (int i = 0; i < options_.files; ++i) {
    // Small ones that are copied, some that lie in several extents, a few large ones.
    const std::uint64_t size = i % 50 == 0   ? 300'000 + random_() % 900'000
                               : i % 8 == 0 ? 17'000 + random_() % 120'000
                                            : 100 + random_() % 15'000;
    std::string body(size, '\0');
    for (std::size_t at = 0; at < body.size(); at += 8) {
      const std::uint64_t word = random_();
      std::memcpy(body.data() + at, &word, std::min<std::size_t>(8, body.size() - at));
    }
    if (auto written = write_file(site_.path() / fmt::format("d{}/f{}.bin", i % 16, i), body);
        !written) {
      return written;
    }
  }
  if (auto added = files_.add_directory(site_.path(), "/"); !added) return added;
  stream_ = uniform_stream(0, files_.size());
  NginxOptions nginx;
  auto domain = Domain::up({name_, 2, options_.memory, nginx.user});
  if (!domain) return tl::unexpected(domain.error());
  domain_.emplace(std::move(*domain));
  McsOptions mcs;
  mcs.domain = name_;
  mcs.size.clear();
  mcs.valid = "1h";
  mcs.key_base = "wild";
  nginx.document_root = site_.path();
  nginx.workers = 2;
  nginx.mcs = mcs;
  nginx.mcs->domain_arguments = "node=0 verify=always";
  nginx_ = std::make_unique<NginxServer>(nginx);
  HttpdOptions httpd;
  httpd.document_root = site_.path();
  httpd.workers = 2;
  httpd.max_processes = 2;
  httpd.threads_per_child = 32;
  httpd.mcs = mcs;
  httpd.mcs->domain_arguments = "node=1 verify=always";
  httpd_ = std::make_unique<HttpdServer>(httpd);
  for (WebServer* server : servers()) {
    if (auto started = server->start(); !started) return started;
  }
  auto mapped = cache::open(gsm::kDefaultDirectory, name_);
  if (!mapped) return fail("{}", mapped.error().message);
  mapped_ = std::move(*mapped);
  for (std::uint32_t node = 0; node < mapped_->node_count(); ++node) {
    const std::string path = fmt::format("{}/segment.{}.1", mapped_->path(), node);
    segment_fds_.push_back(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (segment_fds_.back() < 0) return fail("cannot open {}", path);
  }
  return {};
}

LoadOptions Run::load_options() const {
  LoadOptions load;
  for (const WebServer* server : servers()) {
    load.targets.push_back(
        {std::string(server->name()), "127.0.0.1", server->port(), "localhost", ""});
  }
  load.files = &files_;
  load.stream = stream_.get();
  load.connections = 4;
  load.seed = options_.seed;
  load.etag = EtagScope::kAllTargets;
  return load;
}

// Files that are too young are not stored; then everything is there.
Result<void> Run::warm_up() {
  std::this_thread::sleep_for(milliseconds(2200));
  LoadOptions load = load_options();
  load.requests = files_.size() * 16;
  LiveCounters live;
  std::atomic<bool> never{false};
  const LoadReport warm = run_load(load, never, live);
  if (warm.total().failed() != 0) return fail("{} requests failed before any fault", warm.total().failed());
  const auto verify = domain_->verify();
  if (!verify) return tl::unexpected(verify.error());
  if (!verify->value("ok", false)) return fail("verify is not clean before any fault: {}", verify->dump());
  report.entries = verify->value("sealed", std::uint64_t{0});
  expected_ = survivors();
  return {};
}

// Workers, masters and agents: nobody of them may end.
std::map<pid_t, std::string> Run::survivors() const {
  std::map<pid_t, std::string> pids;
  for (const WebServer* server : servers()) {
    for (const pid_t pid : server->all_pids()) pids[pid] = server->name();
  }
  for (const ProcStat& process : all_processes()) {
    if (executable_name(process.pid) == "mcs-agent" &&
        command_line(process.pid).find(name_) != std::string::npos) {
      pids[process.pid] = "agent";
    }
  }
  return pids;
}

void Run::run_wild() {
  const auto self = tool_file("mcs-wild").string();
  auto ran = run_process({self, "--be-wild", name_, "--node", std::to_string(random_() % 2),
                          "--stores", std::to_string(options_.stores), "--seed",
                          std::to_string(random_() >> 16)},
                         {});
  const auto json = ran ? nlohmann::json::parse(ran->out, nullptr, false) : nlohmann::json();
  if (!ran || ran->signal != SIGKILL || !json.is_object()) {
    ++report.not_begun;
    if (ran) std::fputs(("mcs-wild: " + ran->describe() + " " + ran->err + "\n").c_str(), stderr);
    return;
  }
  ++report.incidents;
  report.stores += json.value("stores", 0U);
  report.faulted += json.value("faulted", 0U);
}

void Run::damage_spot() {
  const auto node = static_cast<std::uint32_t>(random_() % segment_fds_.size());
  const auto regions = regions_of(mapped_->segment(node).header());
  const Region* region = nullptr;
  do {
    region = &regions[random_() % regions.size()];
  } while (!options_.only.empty() &&
           std::find(options_.only.begin(), options_.only.end(), region->name) == options_.only.end());
  const std::uint64_t size = std::min<std::uint64_t>(stray_size(random_), region->bytes);
  // What is in use: half of the spots lie where a word is that is neither 0 nor all ones.
  std::uint64_t offset = 0;
  std::vector<std::byte> current(size);
  std::vector<std::byte> other(size);
  const int fd = segment_fds_[node];
  const bool used = random_() % 2 == 0;
  for (unsigned attempt = 0; attempt < 2000; ++attempt) {
    offset = random_() % (region->bytes - size + 1) & ~std::uint64_t{7};
    // Slots in use are the first ones.
    if (region->name == "slots" && random_() % 4 != 0) offset %= std::min<std::uint64_t>(region->bytes - size + 1, 8 * 12288);
    if (region->name == "controls" && random_() % 4 != 0) offset %= std::min<std::uint64_t>(region->bytes - size + 1, 8 * 64);
    if (::pread(fd, current.data(), size, static_cast<off_t>(region->offset + offset)) !=
        static_cast<ssize_t>(size)) {
      return;
    }
    if (!used || std::any_of(current.begin(), current.end(), [](std::byte b) {
          return b != std::byte{0} && b != std::byte{0xff};
        })) {
      break;
    }
  }
  const std::uint64_t from = random_() % (region->bytes - size + 1) & ~std::uint64_t{7};
  if (::pread(fd, other.data(), size, static_cast<off_t>(region->offset + from)) < 0) return;
  const auto bytes = stray_bytes(random_, current, other);
  if (::pwrite(fd, bytes.data(), size, static_cast<off_t>(region->offset + offset)) !=
      static_cast<ssize_t>(size)) {
    return;
  }
  ++report.incidents;
  ++report.stores;
}

// The history is bounded, so it is read while faults happen.
void Run::gather_events() {
  const cache::View view(*mapped_);
  for (const cache::RecordedEvent& event : view.history()) {
    const std::string key = fmt::format("{} {} {} {}", event.ring, event.kind, event.instance,
                                        event.detected_ns);
    if (!seen_events_.insert(key).second) continue;
    const double ms = static_cast<double>(event.resumed_ns - event.detected_ns) / 1e6;
    if (event.kind == static_cast<std::uint32_t>(runtime::EventKind::kInstanceRecovered)) {
      if (event.server.starts_with("wild")) report.recovery_ms.push_back(ms);
    } else if (event.kind == static_cast<std::uint32_t>(runtime::EventKind::kDamageRepaired)) {
      ++report.repairs;
      report.repair_ms.push_back(ms);
    }
  }
}

void Run::look_for_crashes() {
  const auto now = survivors();
  for (const auto& [pid, name] : expected_) {
    if (now.find(pid) == now.end()) report.crashes.push_back(fmt::format("{} pid {}", name, pid));
  }
}

Result<void> Run::damage() {
  LiveCounters live;
  std::exception_ptr failure;
  const std::uint64_t begin = monotonic_ns();
  std::thread client([&] {
    try {
      report.load = run_load(load_options(), stop_, live);
    } catch (...) {
      failure = std::current_exception();
    }
  });
  const unsigned faults = options_.wild ? options_.processes : options_.spots;
  std::uint64_t said = monotonic_ns();
  for (unsigned i = 0; i < faults; ++i) {
    if (options_.wild) {
      run_wild();
    } else {
      damage_spot();
    }
    if (i % 8 == 0) gather_events();
    if (monotonic_ns() - said > 10'000'000'000) {
      said = monotonic_ns();
      fmt::print("{:>4} s: {}/{} faults, {} checked requests, {} failed, {} wrong bodies, {} repairs\n",
                 (said - begin) / 1'000'000'000, i, faults, live.requests.load(), live.failed.load(),
                 live.wrong_bodies.load(), report.repairs);
      std::fflush(stdout);
    }
    std::this_thread::sleep_for(milliseconds(options_.pause_ms));
  }
  settle();
  stop_ = true;
  client.join();
  report.seconds = static_cast<double>(monotonic_ns() - begin) / 1e9;
  if (failure) std::rethrow_exception(failure);
  for (const FailureRecord& record : report.load.failures) {
    report.failed_paths.push_back(fmt::format(
        "{} {} {}: {}", servers()[static_cast<std::size_t>(record.target)]->name(),
        files_[record.file].url_path, name_of(record.failure), record.detail));
    if (record.failure == Failure::kTimeout) report.hangs.push_back(report.failed_paths.back());
  }
  look_for_crashes();
  return {};
}

// Still under load, until nothing is wrong any more.
void Run::settle() {
  const std::uint64_t begin = monotonic_ns();
  for (unsigned attempt = 0; attempt < 60; ++attempt) {
    gather_events();
    const auto verify = domain_->verify();
    report.verify = verify ? *verify
                           : nlohmann::json{{"ok", false}, {"problems", {verify.error().message}}};
    if (report.verify.value("ok", false)) {
      report.clean_after_ms = static_cast<double>(monotonic_ns() - begin) / 1e6;
      break;
    }
    std::this_thread::sleep_for(milliseconds(250));
  }
  gather_events();
}

void Run::take_down() {
  for (WebServer* server : servers()) {
    if (server == nullptr) continue;
    if (const auto stopped = server->stop(); !stopped) report.hangs.push_back(stopped.error().message);
    std::istringstream log(server->error_log());
    for (std::string line; std::getline(log, line);) {
      for (const char* sign : {"exit signal", "core dumped", "exited on signal", "Sanitizer"}) {
        if (line.find(sign) != std::string::npos) report.crashes.push_back(line);
      }
    }
  }
  for (const int fd : segment_fds_) ::close(fd);
  if (domain_ && options_.keep) domain_->keep();
}

}  // namespace

bool CampaignReport::good() const {
  return incidents != 0 && load.total().count(Failure::kWrongBody) == 0 && load.total().failed() == 0 &&
         crashes.empty() && hangs.empty() && verify.value("ok", false);
}

nlohmann::json CampaignReport::json(const CampaignOptions& options) const {
  const TargetReport total = load.total();
  const std::uint64_t lost = total.requests - std::min(total.requests, total.count(CacheResult::kHit));
  const double kept =
      incidents == 0 || entries == 0
          ? 1
          : 1 - static_cast<double>(lost) / static_cast<double>(incidents) / static_cast<double>(entries);
  return {{"campaign", options.wild ? "wild-writes" : "damage"},
          {"seed", options.seed},
          {"faults", incidents},
          {"stores", stores},
          {"stopped_by_page_tables", faulted},
          {"not_begun", not_begun},
          {"contained", good() ? incidents : 0},
          {"wrong_bodies", total.count(Failure::kWrongBody)},
          {"survivor_crashes", crashes.size()},
          {"crashes", crashes},
          {"hangs", hangs.size()},
          {"served_requests", total.requests},
          {"hits", total.count(CacheResult::kHit)},
          {"not_hits", lost},
          {"failed_requests_on_survivors", total.failed()},
          {"failures", failed_paths},
          {"recovery_ms", summary(recovery_ms)},
          {"repairs", repairs},
          {"repair_ms", summary(repair_ms)},
          {"clean_after_ms", clean_after_ms},
          {"entries", entries},
          {"entries_kept_ratio", kept},
          {"leaked_bytes", verify.value("leaked_bytes", std::uint64_t{0})},
          {"verify", verify.value("ok", false) ? "clean" : "damaged"},
          {"verify_problems", verify.value("problems", nlohmann::json::array())},
          {"seconds", seconds}};
}

Result<CampaignReport> run_campaign(const CampaignOptions& options) {
  Run run(options);
  auto done = run.prepare();
  if (done) done = run.warm_up();
  if (done) done = run.damage();
  run.take_down();
  if (!done) return tl::unexpected(done.error());
  return std::move(run.report);
}

}  // namespace mcs::loadtest
