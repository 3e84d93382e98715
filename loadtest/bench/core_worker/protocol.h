// SPDX-License-Identifier: Apache-2.0
// Messages between `mcs-bench core` and its worker processes: one Command, one Answer, as packets of
// a SOCK_SEQPACKET socket.
#pragma once

#include <cstdint>

namespace mcs::loadtest::core {

inline constexpr std::uint64_t kKeyBytes = 24;
inline constexpr std::uint64_t kValueBytes = 128;

enum class Work : std::uint32_t {
  kFill = 1,     // put numbers [first, first + count)
  kFillUp = 2,   // put numbers from `first` on until the store is full; answer.operations: how many
  kGet = 3,      // of a number below `entries`
  kMiss = 4,     // of a number that was never put
  kPut = 5,      // replace a number below `entries`
  kDisplace = 6, // put numbers from `first` on into a full store
  kMixed = 7,    // gets, and `count` percent of puts, of numbers below `entries`
  kChase = 8,    // pairs of dependent loads
  kWarm = 9,     // read all there is, so that no measurement meets a page for the first time
};

struct Command {
  Work work = Work::kFill;
  std::uint32_t realtime = 0;
  std::uint64_t entries = 0;
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  std::uint64_t seed = 1;
  std::uint64_t begin_ns = 0;  // CLOCK_MONOTONIC
  std::uint64_t end_ns = 0;
};

struct Answer {
  std::uint64_t operations = 0;
  std::uint64_t ns = 0;
  std::uint64_t failures = 0;  // refused, not found although it must be there, or a wrong value
};

}  // namespace mcs::loadtest::core
