// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>
#include <set>

#include "libglobalcache/runtime/liveness.h"

namespace mcs {

/// Who lives is what the test says: an instance is dead once its byte is released. Thread-safe.
class TestLiveness final : public runtime::Liveness {
 public:
  bool acquire(std::uint32_t slot) override {
    const std::lock_guard lock(mutex_);
    return held_.insert(slot).second;
  }
  void release(std::uint32_t slot) override {
    const std::lock_guard lock(mutex_);
    held_.erase(slot);
  }
  bool held(std::uint32_t slot) override {
    const std::lock_guard lock(mutex_);
    return held_.contains(slot);
  }

 private:
  std::mutex mutex_;
  std::set<std::uint32_t> held_;
};

}  // namespace mcs
