// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <stdexcept>

#include "gsm-emu/domain.h"
#include "libglobalcache/cache/global_cache.h"
#include "loadtest/sim/policy.h"

namespace mcs::loadtest {

namespace {

// The only process there is.
class Alone final : public runtime::Liveness {
 public:
  bool acquire(std::uint32_t) override { return true; }
  void release(std::uint32_t) override {}
  bool held(std::uint32_t) override { return false; }
};

std::unique_ptr<gsm::Domain> make_domain(const PolicyOptions& options) {
  const uint64_t groups = options.capacity / cache::kGroupUnits;
  uint64_t units = 0;
  for (const uint32_t size : options.sizes) units += size;
  const uint64_t mean = std::max<uint64_t>(1, units / options.sizes.size()) * cache::kUnitBytes;
  cache::PlanOptions plan_options;
  plan_options.instances = 8;
  plan_options.ledger_words = 64;
  // Twice as many descriptors as entries of mean size, and no fewer than a domain has by default.
  plan_options.bytes_per_entry = std::clamp<uint64_t>(mean / 2, 384, plan_options.bytes_per_entry);
  plan_options.bytes_per_node = groups * (cache::kGroupBytes + sizeof(cache::Group)) + (1U << 20);
  cache::CachePlan plan = cache::plan(plan_options);
  while (plan.cache.groups != groups) {
    plan_options.bytes_per_node += (groups - plan.cache.groups) * cache::kGroupBytes;
    plan = cache::plan(plan_options);
  }
  gsm::Geometry geometry;
  geometry.meta_bytes = plan.meta_bytes;
  plan.runtime.store(geometry.user.data());
  plan.cache.store(geometry.user.data() + 16);
  gsm::DomainSpec spec;
  spec.name = "sim";
  spec.bytes_per_node = plan_options.bytes_per_node;
  spec.layout_hash = cache::layout_hash();
  return gsm::Domain::in_memory(spec, geometry, cache::format);
}

class Real final : public Policy {
 public:
  explicit Real(const PolicyOptions& options) : options_(options), domain_(make_domain(options)) {
    auto instance = runtime::Instance::join(*domain_, alone_, {.server = "sim/1"});
    if (!instance) throw std::runtime_error(instance.error().message);
    instance_ = std::move(*instance);
    cache_ = std::make_unique<cache::GlobalCache>(*domain_, *instance_);
    instance_->activate();
  }
  ~Real() override {
    cache_->leave();
    instance_->leave();
  }

  bool access(uint32_t object) override {
    const std::string_view name(reinterpret_cast<const char*>(&object), sizeof object);
    const cache::Key key = cache_->make_key(name);
    if (cache_->find(key, hit_).found == cache::Found::kHit) {
      cache_->touch(hit_);
      cache_->release(hit_);
      return true;
    }
    if (options_.sizes[object] > options_.largest) return false;
    cache::Fill fill;
    if (cache_->begin(key, fill) != cache::Begin::kFilling) return false;
    const uint64_t bytes = options_.sizes[object] * cache::kUnitBytes - sizeof object;
    fill.set_head({}, bytes);
    for (uint64_t left = bytes; left > 0;) {
      const uint64_t n = std::min<uint64_t>(left, body_.size());
      if (fill.append(std::span(body_).first(n)) != cache::Append::kOk) return false;
      left -= n;
    }
    fill.commit(1);
    return false;
  }

 private:
  PolicyOptions options_;
  Alone alone_;
  std::unique_ptr<gsm::Domain> domain_;
  std::unique_ptr<runtime::Instance> instance_;
  std::unique_ptr<cache::GlobalCache> cache_;
  cache::Hit hit_;
  std::vector<std::byte> body_ = std::vector<std::byte>(65536);
};

}  // namespace

std::unique_ptr<Policy> make_real(const PolicyOptions& options) {
  return std::make_unique<Real>(options);
}

}  // namespace mcs::loadtest
