// SPDX-License-Identifier: Apache-2.0
// A global service in one page: at most `limit` of all processes, in all servers and on all nodes,
// use something at the same time (connections to a backend, say). docs/tutorial-component.md
// explains it line by line.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <span>

#include "libglobalcache/runtime/component.h"

namespace mcs::examples {

class GlobalLimiter {
 public:
  static Result<std::unique_ptr<GlobalLimiter>> join(runtime::Instance& instance,
                                                     std::uint32_t limit) {
    std::unique_ptr<GlobalLimiter> self(new GlobalLimiter(instance));
    runtime::ComponentOptions options;
    options.name = "limiter";
    options.version = 1;
    options.initialise = [limit](std::span<std::byte> data) {
      new (data.data()) Shared{std::min<std::uint32_t>(limit, kMost), 0, {}};
    };
    options.repair = [](std::span<std::byte> data) { repair(shared(data)); };
    auto component = runtime::Component::join(instance, std::move(options));
    if (!component) return tl::unexpected(component.error());
    self->component_ = std::move(*component);
    return self;
  }

  /// True: this process may go on, and must release() later. A process that dies gives its place
  /// back by dying.
  bool try_acquire() {
    bool mine = false;
    const bool locked = component_->with_lock([&] {
      Shared& all = shared(component_->data());
      for (std::uint64_t& holder : all.holders) {
        if (holder != 0 && !component_->alive({holder})) {
          holder = 0;
          --all.in_use;
        }
      }
      if (all.in_use >= all.limit) return;
      for (std::uint64_t& holder : all.holders) {
        if (holder != 0) continue;
        holder = instance_.id().value;
        ++all.in_use;
        mine = true;
        return;
      }
    });
    return locked && mine;
  }

  void release() {
    (void)component_->with_lock([&] {
      Shared& all = shared(component_->data());
      for (std::uint64_t& holder : all.holders) {
        if (holder != instance_.id().value) continue;
        holder = 0;
        --all.in_use;
        return;
      }
    });
  }

  /// About ten times a second, whatever else the process does.
  void tick() { component_->tick(); }

  std::uint32_t in_use() const { return shared(component_->data()).in_use; }

 private:
  static constexpr std::uint32_t kMost = 128;
  struct Shared {
    std::uint32_t limit;
    std::uint32_t in_use;  // how many holders are not 0: two words that a kill may leave unequal
    std::array<std::uint64_t, kMost> holders;
  };
  static_assert(sizeof(Shared) <= runtime::kComponentData);

  explicit GlobalLimiter(runtime::Instance& instance) : instance_(instance) {}

  static Shared& shared(std::span<std::byte> data) {
    return *reinterpret_cast<Shared*>(data.data());
  }
  // Runs after somebody died inside with_lock, before anybody else gets in.
  static void repair(Shared& all) {
    all.in_use = 0;
    for (const std::uint64_t holder : all.holders) all.in_use += holder != 0 ? 1 : 0;
  }

  runtime::Instance& instance_;
  std::unique_ptr<runtime::Component> component_;
};

}  // namespace mcs::examples
