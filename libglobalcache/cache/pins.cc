// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/pins.h"

#include <algorithm>
#include <bit>

namespace mcs::cache {

using runtime::InstanceState;
using runtime::StateWord;

Pins::Pins(const Memory& memory, runtime::Instance& instance)
    : memory_(memory),
      instance_(instance),
      area_(*reinterpret_cast<CacheArea*>(instance.own_component_area())),
      ledger_(reinterpret_cast<Word*>(instance.own_component_area() + sizeof(CacheArea))),
      words_(static_cast<std::uint32_t>(memory.geometry().ledger_words)),
      used_((words_ + 63) / 64) {
  // Words beyond the ledger's end count as used.
  if (words_ % 64 != 0) used_.back().store(~0ULL << (words_ % 64), std::memory_order_relaxed);
}

int Pins::pin(Link link) {
  for (std::size_t w = 0; w < used_.size(); ++w) {
    std::uint64_t used = used_[w].load(std::memory_order_relaxed);
    while (used != ~0ULL) {
      const int bit = std::countr_one(used);
      if (!used_[w].compare_exchange_weak(used, used | (1ULL << bit), std::memory_order_acquire,
                                          std::memory_order_relaxed)) {
        continue;
      }
      const auto index = static_cast<std::uint32_t>(w * 64 + static_cast<unsigned>(bit));
      std::uint64_t high = area_.ledger_high.load(std::memory_order_relaxed);
      while (high <= index && !area_.ledger_high.compare_exchange_weak(
                                  high, index + 1, std::memory_order_release)) {
      }
      ledger_[index].exchange(link.value, std::memory_order_seq_cst);
      return static_cast<int>(index);
    }
  }
  return -1;
}

void Pins::unpin(int index) {
  const auto i = static_cast<std::uint32_t>(index);
  ledger_[i].store(0, std::memory_order_release);
  used_[i / 64].fetch_and(~(1ULL << (i % 64)), std::memory_order_release);
}

std::uint32_t Pins::held() const {
  std::uint32_t n = 0;
  for (std::uint32_t i = 0; i < words_; ++i) {
    if (ledger_[i].load(std::memory_order_relaxed) != 0) ++n;
  }
  return n;
}

bool Pins::drop_pinned(std::span<Link> links) const {
  // Nearly all pins are of other entries: one bit tells.
  std::array<std::uint64_t, 64> maybe{};
  const auto bit_of = [](std::uint64_t link) { return (link * 0x9e3779b97f4a7c15ULL) >> 52; };
  for (const Link link : links) {
    if (link.value != 0) maybe[bit_of(link.value) / 64] |= 1ULL << (bit_of(link.value) % 64);
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (std::uint32_t slot = 0; slot < instance_.slot_count(); ++slot) {
    const std::uint64_t word = instance_.control(slot).state.load(std::memory_order_acquire);
    if (StateWord::state(word) == InstanceState::kFree) continue;
    const std::uint64_t high = std::min<std::uint64_t>(
        area(instance_, slot).ledger_high.load(std::memory_order_acquire), words_);
    const Word* words = ledger(instance_, slot);
    for (std::uint64_t i = 0; i < high; ++i) {
      const std::uint64_t pinned = words[i].load(std::memory_order_acquire);
      if (pinned == 0 || (maybe[bit_of(pinned) / 64] >> (bit_of(pinned) % 64) & 1) == 0) continue;
      for (Link& link : links) {
        if (link.value == pinned) link = {};
      }
    }
  }
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (memory_.lost(segment)) return false;
  }
  return true;
}

}  // namespace mcs::cache
