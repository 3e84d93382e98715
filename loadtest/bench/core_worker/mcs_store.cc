// SPDX-License-Identifier: Apache-2.0
// The core itself. A worker process is an instance of the domain, as a server's process is.
#include <stdexcept>

#include "gsm-emu/domain.h"
#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/runtime/liveness.h"
#include "loadtest/bench/core_worker/store.h"

namespace mcs::loadtest::core {
namespace {

// Room for each entry: a unit of 256 bytes, its descriptor, bucket and clock byte, and some slack.
constexpr std::uint64_t kBytesPerEntry = 460;

template <typename T, typename E>
T must(tl::expected<T, E> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(*result);
}

void create_domain(const StoreOptions& options) {
  gsm::DomainSpec spec;
  spec.name = "core";
  spec.directory = options.directory;
  spec.bytes_per_node = (3ULL << 20) + options.entries * kBytesPerEntry;
  spec.layout_hash = cache::layout_hash();
  cache::PlanOptions plan_options;
  plan_options.bytes_per_node = spec.bytes_per_node;
  plan_options.instances = 16;
  plan_options.ledger_words = 128;
  plan_options.bytes_per_entry =
      spec.bytes_per_node / (options.entries + options.entries / 8 + 1024);
  const cache::CachePlan plan = cache::plan(plan_options);
  gsm::Geometry geometry;
  geometry.meta_bytes = plan.meta_bytes;
  plan.runtime.store(geometry.user.data());
  plan.cache.store(geometry.user.data() + 16);
  must(gsm::Domain::create(spec, geometry, cache::format));
}

class McsStore final : public Store {
 public:
  explicit McsStore(const StoreOptions& options) {
    if (options.create) create_domain(options);
    domain_ = must(gsm::Domain::open(options.directory, "core", cache::layout_hash()));
    liveness_ = must(runtime::KernelLiveness::open(domain_->path()));
    instance_ = must(runtime::Instance::join(*domain_, *liveness_, {.server = "bench/1"}));
    cache_ = std::make_unique<cache::GlobalCache>(*domain_, *instance_);
    instance_->activate();
  }
  ~McsStore() override {
    cache_->leave();
    instance_->leave();
  }

  bool get(std::uint64_t number, Value& to) override {
    const KeyText key(number);
    if (cache_->find(cache_->make_key(key.view()), hit_).found != cache::Found::kHit) return false;
    const bool ok = hit_.body_bytes() == sizeof to && cache_->read_verified(hit_, &to);
    cache_->touch(hit_);
    cache_->release(hit_);
    return ok;
  }

  bool put(std::uint64_t number) override {
    const KeyText key(number);
    const Value value = value_of(number);
    cache::Fill fill;
    if (cache_->begin(cache_->make_key(key.view()), fill, {}, true) != cache::Begin::kFilling) {
      return false;
    }
    fill.set_head({}, sizeof value);
    return fill.append(std::as_bytes(std::span(value))) == cache::Append::kOk && fill.commit(1);
  }

  bool displace(std::uint64_t number, std::uint64_t) override { return put(number); }

  bool is_full() override {
    return cache_->memory().state(0).clock_hand.load(std::memory_order_relaxed) != 0;
  }

  void touch_all_pages() override {
    const gsm::Segment& segment = domain_->segment(0);
    const std::uint64_t meta = segment.header().meta_bytes;
    for (std::uint64_t at = 0; at < segment.header().size; at += gsm::kPageSize) {
      const std::byte* page = at < meta ? segment.metadata() + at : segment.payload() + (at - meta);
      (void)*reinterpret_cast<const volatile std::byte*>(page);
    }
  }

  std::uint64_t chase(std::uint64_t seed) override {
    const auto load = [&](std::uint64_t random) {
      const gsm::Segment& segment = domain_->segment(0);
      const std::uint64_t meta = segment.header().meta_bytes;
      const std::uint64_t at =
          static_cast<std::uint64_t>(
              (static_cast<unsigned __int128>(random) * (segment.header().size - 8)) >> 64) &
          ~7ULL;
      const std::byte* from = at < meta ? segment.metadata() + at : segment.payload() + (at - meta);
      return *reinterpret_cast<const volatile std::uint64_t*>(from);
    };
    const auto mixed = [](std::uint64_t z) {
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
      return z ^ (z >> 31);
    };
    // What is loaded takes part in the next address, but adds nothing to it.
    seed = mixed(seed + 0x9e3779b97f4a7c15ULL + (load(seed) & nothing_));
    return mixed(seed + 0x9e3779b97f4a7c15ULL + (load(seed) & nothing_));
  }

 private:
  std::unique_ptr<gsm::Domain> domain_;
  std::unique_ptr<runtime::Liveness> liveness_;
  std::unique_ptr<runtime::Instance> instance_;
  std::unique_ptr<cache::GlobalCache> cache_;
  cache::Hit hit_;
  volatile std::uint64_t nothing_ = 0;
};

}  // namespace

std::unique_ptr<Store> make_mcs_store(const StoreOptions& options) {
  return std::make_unique<McsStore>(options);
}

}  // namespace mcs::loadtest::core
