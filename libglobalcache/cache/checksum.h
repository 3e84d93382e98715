// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mcs::cache {

/// XXH3 (64 bits, no seed) of `bytes`, with the widest vector instructions that the processor has:
/// what a body's checksum at every hit costs (docs/decisions/0003-checksums.md).
std::uint64_t checksum(std::span<const std::byte> bytes);

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
