// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/internal/cluster.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <sstream>
#include <thread>

#include "gsm-emu/domain.h"
#include "libglobalcache/cache/layout.h"
#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/nginx_server.h"
#include "loadtest/harness/process.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;

namespace {

constexpr int kWorkers = 4;   // of nginx; as many reads of a node's disk are under way at most
constexpr int kThreads = 16;  // of httpd

struct CpuTimes {
  uint64_t busy = 0;
  uint64_t all = 0;
};

CpuTimes machine_cpu() {
  std::istringstream line(read_file("/proc/stat").value_or(""));
  std::string cpu;
  line >> cpu;
  CpuTimes times;
  uint64_t value = 0;
  for (int i = 0; i < 8 && line >> value; ++i) {
    times.all += value;
    const bool idle = i == 3 || i == 4;  // idle, iowait
    if (!idle) times.busy += value;
  }
  return times;
}

void forget(const fs::path& file) {
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
}

}  // namespace

std::string ClusterCase::name() const {
  switch (caching) {
    case Caching::kShared:
      return fmt::format("shared {:g}x", penalty);
    case Caching::kPerNode:
      return "per node";
    case Caching::kPageCache:
      return "page cache";
  }
  return "";
}

NodeFiles::NodeFiles(const fs::path& parent, const SpecwebSet& set)
    : root_(parent, "mcs-scaling"), set_(set) {}

Result<std::unique_ptr<NodeFiles>> NodeFiles::write(const fs::path& parent, const SpecwebSet& set,
                                                    int nodes,
                                                    const std::atomic<bool>& interrupted) {
  const auto nodes_wide = static_cast<uint64_t>(nodes);
  const uint64_t needed = (set.total_bytes() + set.size() * 4096) * nodes_wide + (64 << 20);
  std::error_code error;
  const fs::space_info space = fs::space(parent, error);
  if (error) return fail("{}: {}", parent.string(), error.message());
  if (space.available < needed) {
    return fail(
        "{} copies of the files need {} MiB but {} has {} MiB; name another directory with "
        "--directory, or use a smaller --load or fewer --nodes",
        nodes, needed >> 20, parent.string(), space.available >> 20);
  }
  std::unique_ptr<NodeFiles> files(new NodeFiles(parent, set));
  if (auto written = set.write_to(files->of(0)); !written) return tl::unexpected(written.error());
  for (int node = 1; node < nodes; ++node) {
    if (auto copied = files->copy_to(node, interrupted); !copied) {
      return tl::unexpected(copied.error());
    }
  }
  // What is not on the disk yet cannot be forgotten.
  const int fd = open(files->root().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && syncfs(fd) == 0;
  if (fd >= 0) close(fd);
  if (!synced) return fail("{} cannot be synchronised", files->root().string());
  files->drop(nodes);
  // A file whose times are younger than 2 s is served, but not stored.
  wait_until([&] { return interrupted.load(); }, std::chrono::milliseconds(2'500));
  if (interrupted) return fail("interrupted");
  return files;
}

Result<void> NodeFiles::copy_to(int node, const std::atomic<bool>& interrupted) const {
  for (size_t file = 0; file < set_.size(); ++file) {
    if (interrupted) return fail("interrupted");
    const fs::path from = of(0) / set_.path(file);
    const fs::path to = of(node) / set_.path(file);
    std::error_code error;
    if (file % SpecwebSet::kFilesPerDirectory == 0) fs::create_directories(to.parent_path(), error);
    if (!error) fs::copy_file(from, to, error);
    const auto modified = error ? fs::file_time_type() : fs::last_write_time(from, error);
    if (!error) fs::last_write_time(to, modified, error);
    if (error) return fail("cannot write {}: {}", to.string(), error.message());
  }
  return {};
}

void NodeFiles::drop(int nodes) const {
  for (int node = 0; node < nodes; ++node) {
    for (size_t file = 0; file < set_.size(); ++file) forget(of(node) / set_.path(file));
  }
}

Result<std::unique_ptr<Cluster>> Cluster::start(const ClusterCase& which,
                                                const ClusterSettings& settings,
                                                const NodeFiles& files,
                                                const CgroupMounts& mounts) {
  const auto disk = disk_of(files.root());
  if (!disk) return tl::unexpected(disk.error());
  files.drop(which.nodes);
  std::unique_ptr<Cluster> cluster(new Cluster(which, settings));
  // The memory of a domain is its creator's, not that of the nodes, so the nodes' limits count what
  // is beside it.
  NodeLimits warm_up;
  warm_up.memory_bytes = settings.process_bytes;
  if (which.caching == Caching::kPageCache) {
    warm_up.memory_bytes += settings.cache_bytes;
  } else if (auto made = cluster->make_domains(); !made) {
    return tl::unexpected(made.error());
  }
  for (int node = 0; node < which.nodes; ++node) {
    auto group = NodeGroup::make(mounts, fmt::format("mcs-scaling-{}-{}", getpid(), node), *disk);
    if (!group) return tl::unexpected(group.error());
    if (auto limited = group->limit(warm_up); !limited) return tl::unexpected(limited.error());
    cluster->groups_.push_back(std::move(*group));
    if (auto started = cluster->start_server(node, files); !started) {
      return tl::unexpected(started.error());
    }
  }
  return cluster;
}

Result<void> Cluster::make_domains() {
  const bool shared = case_.caching == Caching::kShared;
  for (int i = 0; i < (shared ? 1 : case_.nodes); ++i) {
    DomainOptions options;
    options.name = fmt::format("mcs-scaling-{}-{}", getpid(), i);
    options.nodes = shared ? case_.nodes : 1;
    options.memory = fmt::format("{}M", settings_.cache_bytes >> 20);
    options.remote_penalty = shared ? case_.penalty : 1;
    options.owner = ServerOptions().user;
    auto domain = Domain::up(options);
    if (!domain) return tl::unexpected(domain.error());
    domains_.push_back(std::move(*domain));
  }
  const auto opened =
      gsm::Domain::open(gsm::kDefaultDirectory, domains_.front().name(), cache::layout_hash());
  if (!opened) return fail("{}", opened.error().message);
  remote_line_ns_ = (*opened)->header().remote_extra_ns;
  return {};
}

Result<void> Cluster::start_server(int node, const NodeFiles& files) {
  const bool httpd = case_.servers == "httpd" || (case_.servers == "mixed" && node % 2 == 1);
  ServerOptions options;
  options.document_root = files.of(node);
  options.log_level = "error";
  options.cgroups = groups_.back().directories();
  options.workers = kWorkers;
  if (case_.caching != Caching::kPageCache) {
    const bool shared = case_.caching == Caching::kShared;
    McsOptions mcs;
    mcs.domain = domains_[shared ? 0 : static_cast<size_t>(node)].name();
    mcs.size.clear();
    if (shared) mcs.node = node;
    mcs.key_base = "scaling";
    options.mcs = mcs;
  }
  if (httpd) {
    HttpdOptions with;
    static_cast<ServerOptions&>(with) = options;
    with.workers = 1;
    with.max_processes = 1;
    with.threads_per_child = kThreads;
    servers_.push_back(std::make_unique<HttpdServer>(std::move(with)));
  } else {
    NginxOptions with;
    static_cast<ServerOptions&>(with) = options;
    with.worker_connections = 256;
    // The cache exchanges pages that were sent with sendfile, and the new ones are charged to who
    // touches them: the groups that are to be limited beside the cache.
    if (with.mcs) with.location_extra = "sendfile off;";
    servers_.push_back(std::make_unique<NginxServer>(std::move(with)));
  }
  if (auto started = servers_.back()->start(); !started) {
    return fail("node {}: {}", node, started.error().message);
  }
  return {};
}

Result<ClusterResult> Cluster::measure(const FileSet& files, const RequestStream& stream,
                                       uint64_t seed, const std::atomic<bool>& interrupted) {
  LoadOptions load;
  for (const auto& server : servers_) {
    LoadTarget target;
    target.name = fmt::format("node {}", load.targets.size());
    target.port = server->port();
    load.targets.push_back(target);
  }
  load.files = &files;
  load.stream = &stream;
  load.connections = settings_.connections;
  load.timeout = std::chrono::milliseconds(60'000);
  // A file is the same on all nodes, and so must be its ETag.
  load.etag = EtagScope::kAllTargets;
  load.seed = seed;
  const auto nodes = static_cast<uint64_t>(case_.nodes);
  load.requests = static_cast<uint64_t>(settings_.warm_requests) * nodes;
  const auto blame = [](const LoadReport& report) {
    const TargetReport total = report.total();
    return total.failed() == 0
               ? std::string()
               : fmt::format("{} of {} requests failed, {} bodies were wrong; the first: {}",
                             total.failed(), total.requests, total.count(Failure::kWrongBody),
                             report.failures.empty() ? "" : report.failures.front().detail);
  };
  {
    LiveCounters warm;
    const std::string blamed = blame(run_load(load, interrupted, warm));
    if (!blamed.empty()) return fail("warm-up: {}", blamed);
    if (interrupted) return fail("interrupted");
  }
  NodeLimits limits = settings_.limits;
  limits.memory_bytes =
      settings_.process_bytes + (case_.caching == Caching::kPageCache ? settings_.cache_bytes : 0);
  for (NodeGroup& group : groups_) {
    if (auto limited = group.limit(limits); !limited) return tl::unexpected(limited.error());
  }

  load.requests = 0;
  load.seed = seed + 1'000'003;
  std::atomic<bool> done{false};
  LiveCounters live;
  LoadReport report;
  std::jthread client([&] { report = run_load(load, done, live); });
  struct Snapshot {
    uint64_t at_ns, requests, bytes;
    CpuTimes cpu;
    std::vector<NodeUsage> nodes;
  };
  const auto look = [&] {
    Snapshot now{monotonic_ns(), live.requests, live.bytes, machine_cpu(), {}};
    for (const NodeGroup& group : groups_) now.nodes.push_back(group.usage());
    return now;
  };
  const auto pass = [&](double seconds) {
    wait_until([&] { return interrupted.load(); },
               std::chrono::milliseconds(static_cast<int>(seconds * 1000)));
  };
  pass(settings_.settle_seconds);
  const Snapshot before = look();
  pass(settings_.seconds);
  const Snapshot after = look();
  done = true;
  client.join();
  if (interrupted) return fail("interrupted");
  if (report.total().count(Failure::kWrongBody) != 0) return fail("{}", blame(report));

  ClusterResult result;
  const double seconds = static_cast<double>(after.at_ns - before.at_ns) / 1e9;
  result.requests = after.requests - before.requests;
  const auto requests = static_cast<double>(std::max<uint64_t>(1, result.requests));
  result.rps = requests / seconds;
  result.megabytes_per_second = static_cast<double>(after.bytes - before.bytes) / seconds / 1e6;
  uint64_t reads = 0;
  for (size_t i = 0; i < groups_.size(); ++i) {
    reads += after.nodes[i].reads - before.nodes[i].reads;
    const double share = static_cast<double>(after.nodes[i].cpu_ns - before.nodes[i].cpu_ns) / 1e7 /
                         seconds / settings_.limits.cpu;
    result.cpu_percent += share / static_cast<double>(nodes);
    result.cpu_most_percent = std::max(result.cpu_most_percent, share);
    result.process_mib =
        std::max(result.process_mib, static_cast<double>(after.nodes[i].process_bytes) / 1048576.0);
  }
  result.reads_per_request = static_cast<double>(reads) / requests;
  result.reads_per_second = static_cast<double>(reads) / seconds / static_cast<double>(nodes);
  result.disk_percent = 100 * result.reads_per_second / settings_.limits.reads;
  result.machine_cpu_percent =
      100 * static_cast<double>(after.cpu.busy - before.cpu.busy) /
      static_cast<double>(std::max<uint64_t>(1, after.cpu.all - before.cpu.all));
  const TargetReport total = report.total();
  result.p50_ms = static_cast<double>(total.latency.percentile(.5)) / 1e6;
  result.p90_ms = static_cast<double>(total.latency.percentile(.9)) / 1e6;
  result.p99_ms = static_cast<double>(total.latency.percentile(.99)) / 1e6;
  result.failed = total.failed();
  const uint64_t not_hit = total.count(CacheResult::kMiss) + total.count(CacheResult::kBypass) +
                           total.count(CacheResult::kNone);
  result.hit_percent = case_.caching == Caching::kPageCache
                           ? 100 * std::max(0.0, 1 - result.reads_per_request)
                           : 100 - 100 * static_cast<double>(not_hit) /
                                       static_cast<double>(std::max<uint64_t>(1, total.requests));
  result.statuses = total.cache;
  result.remote_line_ns = remote_line_ns_;
  return result;
}

}  // namespace mcs::loadtest
