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

/// Where in a ledger this thread looks for a free word first: at the beginning of a cache line, so that
/// threads do not share one. ~0: it has not asked yet. initial-exec: one instruction, also in a
/// dlopen()ed module; destroying nothing, it keeps no module mapped.
inline constinit thread_local std::uint32_t own_word
    __attribute__((tls_model("initial-exec"))) = ~0U;

class Pins {
 public:
  Pins(const Memory& memory, runtime::Instance& instance);

  /// Store a pin; -1: the ledger is full (copy or bypass instead). Thread-safe; the caller must
  /// then read the entry's state again. A kill leaves the pin to the recoverer.
  int pin(Link link) {
    if constexpr (kRecoverable) {
      const std::uint32_t index = own_word;
      // No scan may leave it out: its place is below the high mark before it is stored.
      if (index < words_ && ledger_[index].load(std::memory_order_relaxed) == 0 &&
          area_.ledger_high.load(std::memory_order_relaxed) > index) {
        // Claims the word, stores the pin and is the full fence.
        std::uint64_t free = 0;
        if (ledger_[index].compare_exchange_strong(free, link.value, std::memory_order_seq_cst)) {
          return base_ + static_cast<int>(index);
        }
      }
    }
    return pin_anywhere(link);
  }
  /// One of a former instance of this process is left where it is.
  void unpin(int pin) {
    if constexpr (!kRecoverable) return uncount(pin);
    if (const int place = place_of(pin); place >= 0) {
      ledger_[place].store(0, std::memory_order_release);
    }
  }
  /// The ledger word behind a pin; -1: it is another instance's.
  int place_of(int pin) const {
    const int place = pin - base_;
    return static_cast<std::uint32_t>(place) < words_ ? place : -1;
  }
  /// Before the instance is used: store a pin that the process holds already, in this very place.
  void declare(std::uint32_t place, Link link);
  void unpin_place(std::uint32_t place) { ledger_[place].store(0, std::memory_order_release); }
  /// What is pinned in a ledger word.
  Link link_of(int place) const { return Link{ledger_[place].load(std::memory_order_relaxed)}; }

  std::uint32_t held() const;

  /// Somebody pins an entry that went with its segment, and may still send it from where its extents are.
  bool any_former() const;

  /// Words of this instance's ledger that name nothing, and its high mark, may have been damaged: such a
  /// word is out of use (Link::kEnd) until whoever holds it gives it back.
  void mend();

  /// Make those of `links` zero that anybody in the domain pins; zeros are left out. Costs a load and
  /// a test for each pin there is. False: memory was lost during the scan, so it proves nothing.
  bool drop_pinned(std::span<Link> links) const;

  /// Nobody alive has, under a former incarnation of the segment, the slot's place.
  bool has_left(std::uint32_t slot) const;
  /// The same for all slots of a segment; once true for what lies in its place it stays so. Pins that
  /// were on a lost segment are declared again, in another slot, before the owner lets the former one's
  /// liveness byte go: until then nothing may be freed.
  bool has_no_former_owners(std::uint32_t segment) const;

  static const CacheArea& area(const runtime::Instance& instance, std::uint32_t slot) {
    return *reinterpret_cast<const CacheArea*>(instance.component_area(slot));
  }
  static const Word* ledger(const runtime::Instance& instance, std::uint32_t slot) {
    return reinterpret_cast<const Word*>(instance.component_area(slot) + sizeof(CacheArea));
  }

 private:
  int pin_anywhere(Link link);
  void uncount(int pin);

  const Memory& memory_;
  runtime::Instance& instance_;
  CacheArea& area_;
  Word* ledger_;
  std::uint32_t words_;
  int base_;  // of this object's pins: other ones of the process give other numbers
  mutable std::array<std::atomic<const void*>, gsm::kMaxNodes> left_{};  // Memory::identity
};

}  // namespace mcs::cache
