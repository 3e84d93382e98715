// SPDX-License-Identifier: Apache-2.0
// Pins: references of this instance on entries, written in its own ledger (hazard pointers).
//
// A pin is valid only if the entry's state word, read again after the pin was stored and a full
// fence, still has the version and a state that may be pinned. Whoever frees an entry first makes
// its state RETIRED (a full fence too) and then reads every ledger: so either the reader sees
// RETIRED, or the freer sees the pin. [M. Michael, Hazard Pointers, IEEE TPDS 15(6), 2004]
#pragma once

#include <span>

#include "libglobalcache/cache/memory.h"
#include "libglobalcache/runtime/instance.h"

namespace mcs::cache {

class Pins {
 public:
  Pins(const Memory& memory, runtime::Instance& instance);

  /// Store a pin; -1: the ledger is full (copy or bypass instead). Thread-safe; the caller must
  /// then read the entry's state again. A kill leaves the pin to the recoverer.
  int pin(Link link);
  void unpin(int index);
  /// What is pinned there.
  Link link_of(int index) const { return Link{ledger_[index].load(std::memory_order_relaxed)}; }

  std::uint32_t held() const;

  /// Words of this instance's ledger that name nothing, and its high mark, may have been damaged: such a
  /// word is out of use (Link::kEnd) until whoever holds it gives it back.
  void mend();

  /// Make those of `links` zero that anybody in the domain pins; zeros are left out. Costs a load and
  /// a test for each pin there is. False: memory was lost during the scan, so it proves nothing.
  bool drop_pinned(std::span<Link> links) const;

  static const CacheArea& area(const runtime::Instance& instance, std::uint32_t slot) {
    return *reinterpret_cast<const CacheArea*>(instance.component_area(slot));
  }
  static const Word* ledger(const runtime::Instance& instance, std::uint32_t slot) {
    return reinterpret_cast<const Word*>(instance.component_area(slot) + sizeof(CacheArea));
  }

 private:
  const Memory& memory_;
  runtime::Instance& instance_;
  CacheArea& area_;
  Word* ledger_;
  std::uint32_t words_;
};

}  // namespace mcs::cache
