// SPDX-License-Identifier: Apache-2.0
// Memory that stops answering: the SIGBUS handler and guarded copies.
//
// Loads and stores to a lost segment raise SIGBUS in the process that makes them. The process must
// not die of it, and no code can match an access to its failure, so:
//  - metadata: the handler maps private zero pages over the whole metadata range and sets the
//    range's lost flag; the interrupted access goes on and reads zero. Zero never grants anything,
//    and code checks the flag before it believes what it read.
//  - payload: never repaired (a repaired page would make writev send zeros instead of failing with
//    EFAULT). User space reads it through guarded_copy only, which answers false.
#pragma once

#include <atomic>
#include <cstddef>

namespace mcs::gsm {

enum class RangeKind { kMetadata, kPayload };

/// Watch [address, address+size) for SIGBUS. On a fault in a metadata range `lost` is set.
/// Installs the process-wide handler at the first call (an earlier handler is kept and called for
/// faults elsewhere). Returns a handle for unwatch, or -1 if 8,192 ranges are watched already.
/// Thread-safe. `lost` must outlive the watch.
int watch_range(const void* address, std::size_t size, RangeKind kind, std::atomic<bool>* lost);

/// Stop watching; call before unmapping.
void unwatch_range(int handle);

/// Copy n bytes from watched payload into private memory. False: the source is lost (the content of
/// `to` is then undefined, and the range's lost flag is set). Thread-safe, allocation-free; cost
/// above memcpy: about 5 ns.
[[nodiscard]] bool guarded_copy(void* to, const void* from, std::size_t n) noexcept;

}  // namespace mcs::gsm
