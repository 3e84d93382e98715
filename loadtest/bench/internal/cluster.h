// SPDX-License-Identifier: Apache-2.0
// Emulated nodes with real servers on them, for `bench scaling`.
#pragma once

#include <array>
#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "loadtest/bench/internal/node_group.h"
#include "loadtest/client/load_client.h"
#include "loadtest/harness/domain.h"
#include "loadtest/harness/server.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {

enum class Caching {
  kShared,     // one domain of all nodes
  kPerNode,    // each node has a domain of its own, in its own memory
  kPageCache,  // nginx without a cache of ours, and the memory for the kernel's
};

struct ClusterCase {
  Caching caching = Caching::kShared;
  int nodes = 1;
  double penalty = 1;
  std::string servers = "nginx";  // "nginx", "httpd", or "mixed": node 0 nginx, node 1 httpd, …

  // "shared 3x", "per node", "page cache"
  std::string name() const;
};

struct ClusterSettings {
  uint64_t cache_bytes = 0;    // of each node's segment
  uint64_t process_bytes = 0;  // of each node, beside the cache
  NodeLimits limits;           // while it is measured; memory_bytes is not used
  int connections = 0;         // to each node
  int warm_requests = 0;       // to each node, before the limits
  double settle_seconds = 0;   // with limits, before the window
  double seconds = 0;          // the window
};

struct ClusterResult {
  double rps = 0;  // all nodes together
  double megabytes_per_second = 0;
  double hit_percent = 0;       // of requests, as the servers say; page cache: what needed no disk
  double reads_per_second = 0;  // of one node's disk
  double reads_per_request = 0;
  double disk_percent = 0;         // of the reads that the limits allow
  double cpu_percent = 0;          // of the nodes' share; mean
  double cpu_most_percent = 0;     // of the node that used most
  double machine_cpu_percent = 0;  // of all processors, the client included
  double p50_ms = 0;
  double p90_ms = 0;
  double p99_ms = 0;
  double process_mib = 0;  // of the node whose processes use most memory
  uint64_t requests = 0;
  uint64_t failed = 0;
  std::array<uint64_t, kCacheResults> statuses{};  // of the window and what is around it
  double remote_line_ns = 0;  // what a line of another node's memory costs more
};

// A copy of the file set for each node, on a real disk. Removed by the destructor.
class NodeFiles {
 public:
  // Below `parent`, for `nodes` nodes.
  static Result<std::unique_ptr<NodeFiles>> write(const std::filesystem::path& parent,
                                                  const SpecwebSet& set, int nodes,
                                                  const std::atomic<bool>& interrupted);
  std::filesystem::path of(int node) const { return root_.path() / std::to_string(node); }
  const std::filesystem::path& root() const { return root_.path(); }
  // Makes the kernel forget what it has of the first `nodes` copies in memory.
  void drop(int nodes) const;

 private:
  NodeFiles(const std::filesystem::path& parent, const SpecwebSet& set);
  Result<void> copy_to(int node, const std::atomic<bool>& interrupted) const;
  TempDir root_;
  const SpecwebSet set_;
};

class Cluster {
 public:
  static Result<std::unique_ptr<Cluster>> start(const ClusterCase& which,
                                                const ClusterSettings& settings,
                                                const NodeFiles& files, const CgroupMounts& mounts);
  // Warms up, limits, and measures. Every body is compared; a wrong one is an error.
  Result<ClusterResult> measure(const FileSet& files, const RequestStream& stream, uint64_t seed,
                                const std::atomic<bool>& interrupted);

 private:
  Cluster(const ClusterCase& which, const ClusterSettings& settings)
      : case_(which), settings_(settings) {}
  Result<void> make_domains();
  Result<void> start_server(int node, const NodeFiles& files);

  ClusterCase case_;
  ClusterSettings settings_;
  double remote_line_ns_ = 0;
  std::vector<NodeGroup> groups_;
  std::vector<Domain> domains_;
  std::vector<std::unique_ptr<WebServer>> servers_;
};

}  // namespace mcs::loadtest
