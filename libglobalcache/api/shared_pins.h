// SPDX-License-Identifier: Apache-2.0
// One pin of a process for all its requests that use the same entry at the same time.
//
// Ledgers are small, and a crowd follows one fill or is sent one body. Who counts as a user of a
// pin is private to the process; in shared memory there is one word, stored before the first user
// looked at the entry and until the last is done with it. So nothing changes for those who read
// ledgers (cache/pins.h), and a process that dies leaves one pin to its recoverer.
//
// What is known here survives the loss of the ledger: when the process joins anew, its pins are declared
// again in the same places of another ledger, before the former slot's liveness byte is let go. A pin
// that is not known here is held for the length of one call, on bytes whose checksum is compared.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "libglobalcache/cache/pins.h"

namespace mcs::api {

/// Thread-safe; allocates nothing after it was made.
class SharedPins {
 public:
  /// `places`: pins of a ledger.
  SharedPins(cache::Pins& pins, std::uint32_t places);

  /// Takes over a pin on `link`, which is held. Returns the pin to give back instead: another one of
  /// this process on the same entry, if there is one; -1: it was stored in a ledger that is lost, and
  /// protects nothing.
  int share(cache::Link link, int pin);
  /// The same without looking for another one. Takes no lock.
  int keep(cache::Link link, int pin);
  /// Declare all of them in the ledger of another instance that nobody uses yet, and go on there.
  void move_to(cache::Pins& next);
  /// Gives back what share or keep returned, or a pin that was never shared.
  void give_back(int pin);

 private:
  static constexpr std::int32_t kNone = -1;
  // Of the pin with the same place in the ledger.
  struct Shared {
    std::uint64_t link = 0;
    std::uint32_t users = 0;
    std::int32_t next = kNone;  // in its chain
  };
  std::int32_t& chain_of(std::uint64_t link) {
    return chains_[(link * 0x9e3779b97f4a7c15ULL) >> shift_];
  }

  std::atomic<cache::Pins*> pins_;
  std::mutex mutex_;
  std::vector<std::atomic<std::uint64_t>> kept_;  // Link, by place
  std::vector<Shared> shared_;
  std::vector<std::int32_t> chains_;
  unsigned shift_;
};

}  // namespace mcs::api
