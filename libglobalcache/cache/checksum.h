// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "libglobalcache/runtime/recoverability.h"

namespace mcs::cache {

/// XXH3 (64 bits, no seed) of `bytes`, with the widest vector instructions that the processor has:
/// what a body's checksum at every hit costs (docs/decisions/0003-checksums.md).
std::uint64_t long_checksum(std::span<const std::byte> bytes);

/// The same; what is too short for vectors is not worth a call.
[[gnu::always_inline]] static inline std::uint64_t checksum(std::span<const std::byte> bytes) {
  if constexpr (!runtime::kChecked) return 1;
  constexpr std::size_t kShort = 240;
  return bytes.size() <= kShort ? XXH3_64bits(bytes.data(), bytes.size()) : long_checksum(bytes);
}

/// The same, of bytes that come piece by piece. Not thread-safe.
class Checksum {
 public:
  Checksum() { reset(); }
  void reset();
  void update(std::span<const std::byte> bytes);
  std::uint64_t value() const;

 private:
  alignas(64) std::byte state_[576];
};

}  // namespace mcs::cache
