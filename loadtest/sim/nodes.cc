// SPDX-License-Identifier: Apache-2.0
#include "loadtest/sim/nodes.h"

#include <algorithm>
#include <set>
#include <stdexcept>

#include "loadtest/harness/process.h"

namespace mcs::loadtest {

namespace {

// A server's process ticks many times a second; a node that has nothing to free loses nothing by
// it.
constexpr uint32_t kAccessesPerTick = 64;

}  // namespace

// Everybody is in this process.
class SimulatedNodes::Life final : public runtime::Liveness {
 public:
  bool acquire(std::uint32_t slot) override { return held_.insert(slot).second; }
  void release(std::uint32_t slot) override { held_.erase(slot); }
  bool held(std::uint32_t slot) override { return held_.contains(slot); }

 private:
  std::set<std::uint32_t> held_;
};

SimulatedNodes::SimulatedNodes(const SimulatedNodesOptions& options)
    : options_(options),
      segments_(std::min(options.nodes, gsm::kMaxNodes)),
      life_(std::make_unique<Life>()),
      body_(65536) {
  cache::PlanOptions plan_options;
  plan_options.nodes = segments_;
  plan_options.bytes_per_node = options.bytes_per_node * options.nodes / segments_;
  plan_options.instances = std::max<uint32_t>(plan_options.instances, options.nodes + segments_);
  if (options.mean_bytes != 0) plan_options.bytes_per_entry = options.mean_bytes;
  const cache::CachePlan plan = cache::plan(plan_options);
  gsm::Geometry geometry;
  geometry.meta_bytes = plan.meta_bytes;
  plan.runtime.store(geometry.user.data());
  plan.cache.store(geometry.user.data() + 16);
  gsm::DomainSpec spec;
  spec.name = "sim";
  spec.nodes = segments_;
  spec.bytes_per_node = plan_options.bytes_per_node;
  spec.layout_hash = cache::layout_hash();
  domain_ = gsm::Domain::in_memory(spec, geometry, cache::format);
  const uint32_t timed = std::max(1U, options.nodes / 16);
  uint64_t begin = 0;
  for (uint32_t i = 0; i < options.nodes; ++i) {
    if (i == options.nodes - timed) begin = monotonic_ns();
    auto instance =
        runtime::Instance::join(*domain_, *life_, {.node = i % segments_, .server = "sim/1"});
    if (!instance) throw std::runtime_error(instance.error().message);
    Node& node = nodes_.emplace_back();
    node.instance = std::move(*instance);
    node.cache = std::make_unique<cache::GlobalCache>(*domain_, *node.instance);
    node.instance->activate();
  }
  join_us_ = static_cast<double>(monotonic_ns() - begin) / 1e3 / timed;
}

SimulatedNodes::~SimulatedNodes() {
  for (Node& node : nodes_) {
    if (node.cache == nullptr) continue;
    node.cache->leave();
    node.instance->leave();
  }
}

uint64_t SimulatedNodes::capacity() const {
  return nodes_.back().cache->memory().geometry().groups * cache::kGroupUnits * segments_;
}

double SimulatedNodes::tick_us() const {
  return ticks_ == 0 ? 0 : static_cast<double>(tick_ns_) / 1e3 / static_cast<double>(ticks_);
}

SimulatedNodes::Answer SimulatedNodes::access(uint32_t number, uint32_t object) {
  Node& node = nodes_[number];
  cache::GlobalCache& cache = *node.cache;
  if (++node.accesses % kAccessesPerTick == 0) {
    const uint64_t begin = monotonic_ns();
    cache.tick();
    node.instance->tick();
    tick_ns_ += monotonic_ns() - begin;
    ++ticks_;
  }
  const std::string_view name(reinterpret_cast<const char*>(&object), sizeof object);
  const cache::Key key = cache.make_key(name);
  if (cache.find(key, hit_).found == cache::Found::kHit) {
    cache.touch(hit_);
    Answer answer{true, 1};
    if (hit_.extents.empty() || hit_.extents[0].segment() == node.instance->node()) {
      // Of the nodes that a segment stands for, one is this.
      answer.remote = 1 - static_cast<double>(segments_) / options_.nodes;
    }
    cache.release(hit_);
    return answer;
  }
  // As the servers' default for the largest object.
  const uint64_t bytes = options_.sizes[object] * cache::kUnitBytes - sizeof object;
  if (options_.sizes[object] > capacity() / 8) return {};
  cache::Fill fill;
  if (cache.begin(key, fill) != cache::Begin::kFilling) return {};
  fill.set_head({}, bytes);
  for (uint64_t left = bytes; left > 0;) {
    const uint64_t n = std::min<uint64_t>(left, body_.size());
    if (fill.append(std::span(body_).first(n)) != cache::Append::kOk) return {};
    left -= n;
  }
  fill.commit(1);
  return {};
}

double SimulatedNodes::recovery_us(uint32_t pins) {
  Node& dead = nodes_.back();
  std::vector<cache::Hit> held(pins);
  uint32_t pinned = 0;
  for (uint32_t object = 0; object < options_.sizes.size() && pinned < pins; ++object) {
    const std::string_view name(reinterpret_cast<const char*>(&object), sizeof object);
    if (dead.cache->find(dead.cache->make_key(name), held[pinned]).found == cache::Found::kHit) {
      ++pinned;
    }
  }
  const uint32_t slot = dead.instance->slot_number();
  life_->release(slot);
  const uint64_t begin = monotonic_ns();
  const bool recovered = nodes_.front().instance->recover(slot, "simulated");
  const double us = static_cast<double>(monotonic_ns() - begin) / 1e3;
  if (!recovered) throw std::runtime_error("the dead node could not be recovered");
  // What it was exists no more; its objects must not give back what others own now.
  dead.cache.reset();
  dead.instance.reset();
  return us;
}

}  // namespace mcs::loadtest
