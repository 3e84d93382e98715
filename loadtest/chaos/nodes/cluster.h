// SPDX-License-Identifier: Apache-2.0
// A multicomputer with a web server on every node and a checking client at each, whose nodes are then
// made to fail. What a client is told while its own node is down, or was while the request was under way,
// counts for nothing; everything else is a survivor's.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "libglobalcache/cache/inspect.h"
#include "libglobalcache/runtime/liveness.h"
#include "libglobalcache/runtime/view.h"
#include "loadtest/client/load_client.h"
#include "loadtest/harness/domain.h"
#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/nginx_server.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {

struct ClusterOptions {
  std::uint32_t nodes = 4;
  bool separate_kernels = false;
  std::string memory = "128M";  // per node
  std::uint32_t hang_limit_ms = 5000;
  std::uint64_t entries = 0;  // stored before it begins, besides what clients ask for
  double rate = 60;           // requests per second and node
  std::uint64_t seed = 1;
};

struct ClusterReport {
  std::uint64_t served = 0;
  std::uint64_t failed_on_survivors = 0;
  std::uint64_t failed_on_victims = 0;
  std::uint64_t aborted = 0;  // cut while what was being sent was lost
  std::uint64_t wrong_bodies = 0;
  std::uint64_t hangs = 0;  // survivors' requests without an answer in 10 s
  std::vector<std::string> crashes;
  std::vector<std::string> failures;  // the first few
  nlohmann::json verify = nlohmann::json::object();  // as mcsctl prints it; empty: it failed
};

class Cluster {
 public:
  static Result<std::unique_ptr<Cluster>> start(const ClusterOptions& options);
  ~Cluster();

  std::uint32_t nodes() const { return options_.nodes; }
  /// SIGKILL to every process of the node at once. When, CLOCK_MONOTONIC.
  std::uint64_t kill_node(std::uint32_t node);
  void lose_memory(std::uint32_t node);
  Result<void> restore_memory(std::uint32_t node);
  /// Store its share of the entries that there are besides what clients ask for.
  Result<void> fill(std::uint32_t node);
  /// All entries on the segments but these are in their chains, in the view that is in force.
  bool index_is_whole(std::uint16_t lost);
  /// SIGSTOP and SIGCONT to every process of the node.
  std::uint64_t freeze_node(std::uint32_t node);
  void thaw_node(std::uint32_t node);
  Result<void> start_node(std::uint32_t node);
  Result<void> stop_node(std::uint32_t node);
  bool runs(std::uint32_t node) const { return servers_[node]->running(); }
  /// Processes that serve on a node, and its agent.
  std::vector<pid_t> processes(std::uint32_t node) const;

  /// From now on, or again, what the node's clients are told counts for nothing, or counts.
  void begin_outage(std::uint32_t node);
  void end_outage(std::uint32_t node);

  runtime::View view();
  bool has_agent(std::uint32_t node) { return liveness_->held(runtime::kAgentByte + node); }
  const cache::View& inspect() const { return *inspect_; }
  /// Instances of a node by state.
  unsigned instances(std::uint32_t node, std::set<runtime::InstanceState> states) const;
  /// The latest event since `since_ns` that ends what happened to these nodes; 0: none yet.
  std::uint64_t resumed_since(std::uint64_t since_ns, std::uint16_t nodes) const;
  std::uint64_t sealed_entries(std::uint16_t segments) const;

  /// Ends the clients, then the servers, and judges.
  ClusterReport finish();

 private:
  explicit Cluster(const ClusterOptions& options) : options_(options) {}
  Result<void> make_site();
  Result<void> look_from_outside();
  std::vector<cache::InstanceInfo> members(std::uint32_t node) const;
  void stop_clients();
  bool excused(std::uint32_t node, std::uint64_t sent_ns, std::uint64_t failed_ns) const;

  struct Outage {
    std::uint32_t node;
    std::uint64_t begin_ns;
    std::uint64_t end_ns;  // 0: it lasts
  };
  ClusterOptions options_;
  std::string name_;
  TempDir root_{"mcs-nodes"};
  std::optional<Domain> emulated_;
  std::vector<std::unique_ptr<WebServer>> servers_;
  std::unique_ptr<gsm::Domain> domain_;
  std::unique_ptr<runtime::KernelLiveness> liveness_;
  std::unique_ptr<cache::View> inspect_;
  std::unique_ptr<runtime::Views> views_;
  FileSet files_;
  std::unique_ptr<RequestStream> stream_;
  std::vector<Outage> outages_;
  std::vector<std::uint64_t> losses_ns_;  // when memory was lost
  std::atomic<bool> stop_{false};
  std::vector<LiveCounters> live_;
  std::vector<LoadReport> reports_;
  std::vector<std::thread> clients_;
};

}  // namespace mcs::loadtest
