// SPDX-License-Identifier: Apache-2.0
// What `mcs-bench core` measures: stores of small values that several processes share, each worked by
// worker processes that obey a coordinator over a socket.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "loadtest/bench/core_worker/protocol.h"

namespace mcs::loadtest::core {

/// "/site/o0" and 16 hexadecimal digits of a number.
class KeyText {
 public:
  explicit KeyText(std::uint64_t number) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::memcpy(text_.data(), "/site/o0", 8);
    for (int i = 0; i < 16; ++i) text_[8 + i] = kDigits[number >> (60 - 4 * i) & 15];
  }
  std::string_view view() const { return {text_.data(), text_.size()}; }

 private:
  std::array<char, kKeyBytes> text_;
};

using Value = std::array<std::uint64_t, kValueBytes / 8>;

inline Value value_of(std::uint64_t number) {
  Value value;
  value.fill(number);
  return value;
}

/// One process's access to a shared store. One thread.
class Store {
 public:
  virtual ~Store() = default;
  /// Copies the value; false: not there.
  virtual bool get(std::uint64_t number, Value& to) = 0;
  /// Stores or replaces. False: refused.
  virtual bool put(std::uint64_t number) = 0;
  /// Stores a new one in a full store, for which another has to go: `oldest`, where the store does not
  /// choose by itself.
  virtual bool displace(std::uint64_t number, std::uint64_t oldest) = 0;
  /// Whether displace() will have to make room.
  virtual bool is_full() { return true; }
  /// Two loads from random places of the store's memory, the second one's address depending on the
  /// first one's value, and a third address on the second's. 0 where that means nothing.
  virtual void touch_all_pages() {}
  virtual std::uint64_t chase(std::uint64_t /*seed*/) { return 0; }
};

/// Each makes the store (`create`) or attaches to it; throws std::runtime_error.
struct StoreOptions {
  std::string directory;
  std::uint64_t entries = 0;
  bool create = false;
};
std::unique_ptr<Store> make_mcs_store(const StoreOptions& options);
std::unique_ptr<Store> make_lmdb_store(const StoreOptions& options);
std::unique_ptr<Store> make_map_store(const StoreOptions& options);
std::unique_ptr<Store> make_memcached_store(const StoreOptions& options);

}  // namespace mcs::loadtest::core
