// SPDX-License-Identifier: Apache-2.0
// What recoverability costs is measured against the same code without it (`./mcs bench core`), which
// is compiled with these two at 0 and used for nothing else.
#pragma once

#include <atomic>
#include <cstdint>

#ifndef MCS_RECOVERABLE
#define MCS_RECOVERABLE 1
#endif
#ifndef MCS_CHECKED
#define MCS_CHECKED 1
#endif

namespace mcs::runtime {

/// Whether pins are in ledgers and intents are written before what they announce; if not, a pin is a
/// shared count in the entry, and nobody can repair what a dead process left.
inline constexpr bool kRecoverable = MCS_RECOVERABLE != 0;
/// Whether bytes and descriptors have checksums.
inline constexpr bool kChecked = MCS_CHECKED != 0;

/// Store into a record that only a recoverer reads.
inline void note(std::atomic<std::uint64_t>& record, std::uint64_t value) {
  if constexpr (kRecoverable) record.store(value, std::memory_order_release);
}

}  // namespace mcs::runtime
