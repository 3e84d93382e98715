// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "gsm-emu/domain.h"
#include "libglobalcache/cache/global_cache.h"

namespace mcs::loadtest {

struct SimulatedNodesOptions {
  uint32_t nodes = 1;
  uint64_t bytes_per_node = 16ULL << 20;  // metadata included, as with `gsm-emu up --memory`
  std::span<const uint32_t> sizes;        // of the objects, in units of cache::kUnitBytes
  uint64_t mean_bytes = 0;  // of an entry, as mcs_domain's plan takes it; 0: its default
};

// The cache itself over the memory of many nodes, each with an instance of its own, in one process
// and one thread. A domain has at most gsm::kMaxNodes segments: with more nodes, each segment
// stands for the memory of several.
class SimulatedNodes {
 public:
  explicit SimulatedNodes(const SimulatedNodesOptions& options);
  ~SimulatedNodes();
  SimulatedNodes(const SimulatedNodes&) = delete;
  SimulatedNodes& operator=(const SimulatedNodes&) = delete;

  struct Answer {
    bool hit = false;
    // The probability that the memory it came from is another node's.
    double remote = 0;
  };
  // A node is asked for an object, and stores it if it had to fetch it.
  Answer access(uint32_t node, uint32_t object);

  // Time to join for the last sixteenth of the nodes, and the mean tick; in microseconds.
  double join_us() const { return join_us_; }
  double tick_us() const;
  // One of the nodes dies holding `pins` pins, and another recovers it; microseconds. May be called
  // once, as the last thing.
  double recovery_us(uint32_t pins);
  // Space for entries of all nodes, in units.
  uint64_t capacity() const;

 private:
  class Life;
  struct Node {
    std::unique_ptr<runtime::Instance> instance;
    std::unique_ptr<cache::GlobalCache> cache;
    uint32_t accesses = 0;
  };

  SimulatedNodesOptions options_;
  uint32_t segments_;
  std::unique_ptr<Life> life_;
  std::unique_ptr<gsm::Domain> domain_;
  std::vector<Node> nodes_;
  cache::Hit hit_;
  std::vector<std::byte> body_;
  double join_us_ = 0;
  uint64_t tick_ns_ = 0;
  uint64_t ticks_ = 0;
};

}  // namespace mcs::loadtest
