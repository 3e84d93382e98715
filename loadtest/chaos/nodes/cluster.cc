// SPDX-License-Identifier: Apache-2.0
#include "loadtest/chaos/nodes/cluster.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <csignal>
#include <sstream>

#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/runtime/instance.h"
#include "loadtest/harness/build_paths.h"

namespace mcs::loadtest {
namespace {

using std::chrono::milliseconds;

// How long before its node fails a request may have been sent that fails with it, and how long after
// its node is back a client may still find a closed connection.
constexpr std::uint64_t kSlackNs = 300'000'000;
// How long after a loss a process may begin to send what it has not yet found lost.
constexpr std::uint64_t kCutNs = 1'000'000'000;
constexpr std::size_t kMostFailuresShown = 20;

}  // namespace

Result<void> Cluster::make_site() {
  std::mt19937_64 random(options_.seed);
  for (int i = 0; i < 400; ++i) {
    const std::size_t size = i % 20 == 0 ? 200'000 + random() % 200'000 : 200 + random() % 30'000;
    std::string body(size, '\0');
    std::generate(body.begin(), body.end(), [&] { return static_cast<char>('a' + random() % 26); });
    if (auto done = write_file(root_.path() / fmt::format("f{}.txt", i), body); !done) return done;
  }
  if (auto added = files_.add_directory(root_.path(), "/"); !added) return added;
  stream_ = zipf_stream(0, files_.size(), 0.7, options_.seed);
  // The core trusts no file that is younger than two seconds.
  std::this_thread::sleep_for(std::chrono::milliseconds(2100));
  return {};
}

Result<void> Cluster::fill(std::uint32_t node) {
  const std::uint64_t first = options_.entries * node / options_.nodes;
  const std::uint64_t end = options_.entries * (node + 1) / options_.nodes;
  auto instance = runtime::Instance::join(*domain_, *liveness_, {.node = node, .server = "mcs-filler"});
  if (!instance) return fail("cannot fill: {}", instance.error().message);
  std::uint64_t stored = 0;
  {
    cache::GlobalCache cache(*domain_, **instance);
    (*instance)->activate();
    const std::string body(150, 'x');
    for (std::uint64_t i = first; i < end; ++i) {
      cache::Fill fill;
      const std::string key = fmt::format("/filled/{}", i);
      if (cache.begin(cache.make_key(key), fill) != cache::Begin::kFilling) continue;
      fill.set_head(std::as_bytes(std::span(key)), body.size());
      if (fill.append(std::as_bytes(std::span(body))) == cache::Append::kOk && fill.commit(1)) {
        ++stored;
      }
    }
    cache.leave();
  }
  (*instance)->leave();
  return stored == end - first ? Result<void>()
                               : fail("only {} of {} entries of node {} fit", stored, end - first, node);
}

// Again whenever a segment has come back.
Result<void> Cluster::look_from_outside() {
  auto opened = cache::open(gsm::kDefaultDirectory, name_);
  if (!opened) return fail("{}", opened.error().message);
  auto liveness = runtime::KernelLiveness::open((*opened)->path());
  if (!liveness) return fail("{}", liveness.error().message);
  inspect_ = std::make_unique<cache::View>(**opened);
  views_ = std::make_unique<runtime::Views>(**opened);
  liveness_ = std::move(*liveness);
  domain_ = std::move(*opened);
  return {};
}

Result<std::unique_ptr<Cluster>> Cluster::start(const ClusterOptions& options) {
  std::unique_ptr<Cluster> self(new Cluster(options));
  static int serial = 0;
  self->name_ = fmt::format("mcs-nodes-{}-{}", ::getpid(), ++serial);
  if (auto made = self->make_site(); !made) return tl::unexpected(made.error());
  DomainOptions domain{self->name_, static_cast<int>(options.nodes), options.memory,
                       NginxOptions{}.user};
  domain.separate_kernels = options.separate_kernels;
  auto up = Domain::up(domain);
  if (!up) return tl::unexpected(up.error());
  self->emulated_.emplace(std::move(*up));
  if (auto looking = self->look_from_outside(); !looking) return tl::unexpected(looking.error());
  for (std::uint32_t node = 0; node < options.nodes; ++node) {
    if (auto filled = self->fill(node); !filled) return tl::unexpected(filled.error());
  }
  for (std::uint32_t node = 0; node < options.nodes; ++node) {
    ServerOptions common;
    common.document_root = self->root_.path();
    common.mcs.emplace();
    common.mcs->domain = self->name_;
    common.mcs->size.clear();
    common.mcs->node = static_cast<int>(node);
    common.mcs->domain_arguments = fmt::format("hang_limit={}ms", options.hang_limit_ms);
    common.workers = 1;
    if (node % 2 == 0) {
      NginxOptions nginx;
      static_cast<ServerOptions&>(nginx) = common;
      self->servers_.push_back(std::make_unique<NginxServer>(nginx));
    } else {
      HttpdOptions httpd;
      static_cast<ServerOptions&>(httpd) = common;
      httpd.max_processes = 1;
      httpd.threads_per_child = 12;
      self->servers_.push_back(std::make_unique<HttpdServer>(httpd));
    }
    if (auto started = self->start_node(node); !started) return tl::unexpected(started.error());
  }
  self->live_ = std::vector<LiveCounters>(options.nodes);
  self->reports_.resize(options.nodes);
  for (std::uint32_t node = 0; node < options.nodes; ++node) {
    LoadOptions load;
    load.targets.push_back({fmt::format("node {}", node), "127.0.0.1", self->servers_[node]->port(),
                            "localhost", ""});
    load.files = &self->files_;
    load.stream = self->stream_.get();
    load.connections = 4;
    load.rate = options.rate;
    load.seed = options.seed + node;
    self->clients_.emplace_back([cluster = self.get(), node, load] {
      cluster->reports_[node] = run_load(load, cluster->stop_, cluster->live_[node]);
    });
  }
  return self;
}

Cluster::~Cluster() {
  for (std::uint32_t node = 0; node < servers_.size(); ++node) {
    for (const pid_t pid : processes(node)) ::kill(pid, SIGCONT);
  }
  stop_clients();
  for (auto& server : servers_) {
    if (server->running()) server->kill_all();
  }
  for (std::uint32_t node = 0; node < servers_.size(); ++node) {
    for (const pid_t pid : processes(node)) ::kill(pid, SIGKILL);
  }
}

void Cluster::stop_clients() {
  stop_ = true;
  for (std::thread& client : clients_) client.join();
  clients_.clear();
}

std::vector<cache::InstanceInfo> Cluster::members(std::uint32_t node) const {
  std::vector<cache::InstanceInfo> found = inspect_->instances(*liveness_);
  std::erase_if(found, [&](const cache::InstanceInfo& info) {
    return info.node != node || domain_->segment(info.id.slot() / inspect_->slots_per_node()).lost();
  });
  return found;
}

std::vector<pid_t> Cluster::processes(std::uint32_t node) const {
  std::vector<pid_t> pids;
  if (inspect_ == nullptr) return pids;
  for (const cache::InstanceInfo& info : members(node)) {
    if (info.alive && info.pid != ::getpid()) pids.push_back(info.pid);
  }
  if (servers_[node]->running()) {
    for (const pid_t pid : servers_[node]->all_pids()) {
      if (std::find(pids.begin(), pids.end(), pid) == pids.end()) pids.push_back(pid);
    }
  }
  return pids;
}

std::uint64_t Cluster::kill_node(std::uint32_t node) {
  const std::vector<pid_t> pids = processes(node);
  const std::uint64_t now = monotonic_ns();
  // None of them may start anything while the others end.
  for (const pid_t pid : pids) ::kill(pid, SIGSTOP);
  for (const pid_t pid : pids) ::kill(pid, SIGKILL);
  if (servers_[node]->running()) servers_[node]->kill_all();
  // An agent that was being started just then.
  wait_until(
      [&] {
        const std::vector<pid_t> late = processes(node);
        for (const pid_t pid : late) ::kill(pid, SIGKILL);
        return late.empty() && !has_agent(node);
      },
      milliseconds(1000));
  return now;
}

void Cluster::lose_memory(std::uint32_t node) {
  losses_ns_.push_back(monotonic_ns());
  const std::string file = fmt::format("{}/segment.{}.{}", domain_->path(), node,
                                       domain_->segment(node).incarnation());
  if (::truncate(file.c_str(), 0) != 0) std::perror(file.c_str());
}

Result<void> Cluster::restore_memory(std::uint32_t node) {
  const auto done =
      run_process({tool_file("gsm-emu").string(), "restore", name_, std::to_string(node)});
  if (!done) return tl::unexpected(done.error());
  if (!done->ok()) return fail("gsm-emu restore: {}", done->describe());
  return look_from_outside();
}

bool Cluster::index_is_whole(std::uint16_t lost) {
  const runtime::View now = view();
  for (std::uint32_t node = 0; node < options_.nodes; ++node) {
    if ((lost >> node & 1) != 0) continue;
    for (const runtime::Word& swept : inspect_->memory().state(node).swept) {
      if (swept.load(std::memory_order_acquire) < now.generation) return false;
    }
  }
  return true;
}

std::uint64_t Cluster::freeze_node(std::uint32_t node) {
  const std::vector<pid_t> pids = processes(node);
  const std::uint64_t now = monotonic_ns();
  for (const pid_t pid : pids) ::kill(pid, SIGSTOP);
  return now;
}

void Cluster::thaw_node(std::uint32_t node) {
  for (const pid_t pid : processes(node)) ::kill(pid, SIGCONT);
}

Result<void> Cluster::start_node(std::uint32_t node) { return servers_[node]->start(); }
Result<void> Cluster::stop_node(std::uint32_t node) { return servers_[node]->stop(); }

void Cluster::begin_outage(std::uint32_t node) { outages_.push_back({node, monotonic_ns(), 0}); }

void Cluster::end_outage(std::uint32_t node) {
  for (Outage& outage : outages_) {
    if (outage.node == node && outage.end_ns == 0) outage.end_ns = monotonic_ns();
  }
}

bool Cluster::excused(std::uint32_t node, std::uint64_t sent_ns, std::uint64_t failed_ns) const {
  return std::any_of(outages_.begin(), outages_.end(), [&](const Outage& outage) {
    return outage.node == node && failed_ns + 1'000'000 >= outage.begin_ns &&
           (outage.end_ns == 0 || sent_ns <= outage.end_ns + kSlackNs);
  });
}

runtime::View Cluster::view() { return views_->current().value_or(runtime::View{}); }

unsigned Cluster::instances(std::uint32_t node, std::set<runtime::InstanceState> states) const {
  unsigned n = 0;
  for (const cache::InstanceInfo& info : members(node)) n += states.contains(info.state) ? 1U : 0U;
  return n;
}

std::uint64_t Cluster::resumed_since(std::uint64_t since_ns, std::uint16_t nodes) const {
  std::uint64_t latest = 0;
  for (const cache::RecordedEvent& event : inspect_->history()) {
    const bool theirs = (nodes >> event.node & 1) != 0 ||
                        event.kind == static_cast<std::uint32_t>(runtime::EventKind::kViewChanged);
    if (event.resumed_ns > since_ns && theirs) latest = std::max(latest, event.resumed_ns);
  }
  return latest;
}

std::uint64_t Cluster::sealed_entries(std::uint16_t segments) const {
  std::uint64_t sealed = 0;
  for (std::uint32_t node = 0; node < options_.nodes; ++node) {
    if ((segments >> node & 1) == 0 || domain_->segment(node).lost()) continue;
    sealed += inspect_->usage(node).by_state[static_cast<unsigned>(cache::EntryState::kSealed)];
  }
  return sealed;
}

ClusterReport Cluster::finish() {
  stop_clients();
  ClusterReport report;
  for (std::uint32_t node = 0; node < options_.nodes; ++node) {
    const LoadReport& load = reports_[node];
    const TargetReport total = load.total();
    report.served += total.requests - total.failed();
    report.wrong_bodies += total.count(Failure::kWrongBody);
    for (const FailureRecord& failure : load.failures) {
      if (failure.failure != Failure::kWrongBody &&
          excused(node, failure.sent_ns == 0 ? failure.opened_ns : failure.sent_ns,
                  failure.failed_ns)) {
        ++report.failed_on_victims;
        continue;
      }
      // Its body, or the rest of it, lay on the lost memory; whatever had come of it was right.
      const bool cut = failure.failure == Failure::kShortBody || failure.failure == Failure::kConnectionLost;
      if (cut && std::any_of(losses_ns_.begin(), losses_ns_.end(), [&](std::uint64_t lost) {
            return failure.sent_ns < lost + kCutNs && failure.failed_ns > lost;
          })) {
        ++report.aborted;
        continue;
      }
      ++report.failed_on_survivors;
      if (failure.failure == Failure::kTimeout) ++report.hangs;
      if (report.failures.size() < kMostFailuresShown) {
        report.failures.push_back(fmt::format("node {}: {} {}, {} ms after it was sent, {}", node,
                                              name_of(failure.failure), files_[failure.file].url_path,
                                              (failure.failed_ns - failure.sent_ns) / 1000000,
                                              failure.detail));
      }
    }
  }
  if (auto verified = emulated_->verify(); verified && verified->is_object()) {
    report.verify = std::move(*verified);
  }
  for (auto& server : servers_) {
    if (server->running()) static_cast<void>(server->stop());
    std::istringstream log(server->error_log());
    for (std::string line; std::getline(log, line);) {
      const bool killed = line.find("signal 9") != std::string::npos ||
                          line.find("Killed (9)") != std::string::npos;
      for (const char* sign : {"exit signal", "exited on signal", "core dumped", "Sanitizer"}) {
        if (killed || line.find(sign) == std::string::npos) continue;
        report.crashes.push_back(fmt::format("{}: {}", server->name(), line));
        break;
      }
    }
  }
  return report;
}

}  // namespace mcs::loadtest
