// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/pins.h"

#include <algorithm>
#include <bit>

namespace mcs::cache {

using runtime::InstanceState;
using runtime::StateWord;

namespace {

constexpr std::uint32_t kWordsPerThread = 8;  // a cache line

std::atomic<std::uint32_t> threads{0};

}  // namespace

Pins::Pins(const Memory& memory, runtime::Instance& instance)
    : memory_(memory),
      instance_(instance),
      area_(*reinterpret_cast<CacheArea*>(instance.own_component_area())),
      ledger_(reinterpret_cast<Word*>(instance.own_component_area() + sizeof(CacheArea))),
      words_(static_cast<std::uint32_t>(memory.geometry().ledger_words)),
      base_(static_cast<int>(instance.serial() % 1024) << 20) {}

// Without ledgers a pin is a count in the entry, which the compiled-out variant keeps in the word that
// only fills use.
int Pins::pin_anywhere(Link link) {
  if constexpr (!kRecoverable) {
    memory_.resolve(link)->progress.fetch_add(1, std::memory_order_seq_cst);
    return static_cast<int>(link.segment() << 24 | link.index());
  }
  if (own_word == ~0U) {
    own_word = threads.fetch_add(1, std::memory_order_relaxed) % 64 * kWordsPerThread;
  }
  std::uint32_t index = own_word % words_;
  for (std::uint32_t tried = 0; tried < words_; ++tried, index = index + 1 < words_ ? index + 1 : 0) {
    Word& word = ledger_[index];
    if (word.load(std::memory_order_relaxed) != 0) continue;
    // Before the pin, so that no scan leaves it out.
    std::uint64_t high = area_.ledger_high.load(std::memory_order_relaxed);
    while (high <= index && !area_.ledger_high.compare_exchange_weak(high, index + 1,
                                                                     std::memory_order_release)) {
    }
    // Claims the word, stores the pin and is the full fence.
    std::uint64_t free = 0;
    if (word.compare_exchange_strong(free, link.value, std::memory_order_seq_cst)) {
      return base_ + static_cast<int>(index);
    }
  }
  return -1;
}

void Pins::declare(std::uint32_t place, Link link) {
  if (area_.ledger_high.load(std::memory_order_relaxed) <= place) {
    area_.ledger_high.store(place + 1, std::memory_order_release);
  }
  ledger_[place].store(link.value, std::memory_order_seq_cst);
}

void Pins::uncount(int pin) {
  memory_.descriptor(static_cast<std::uint32_t>(pin) >> 24, pin & 0xffffff)
      .progress.fetch_sub(1, std::memory_order_release);
}

void Pins::mend() {
  std::uint64_t used = 0;
  for (std::uint32_t i = 0; i < words_; ++i) {
    std::uint64_t word = ledger_[i].load(std::memory_order_relaxed);
    if (word == 0) continue;
    used = i + 1;
    const Link link{word};
    if (link.is_end() || memory_.resolve(link) != nullptr || memory_.is_former(link)) continue;
    ledger_[i].compare_exchange_strong(word, Link::kEnd, std::memory_order_acq_rel);
  }
  std::uint64_t high = area_.ledger_high.load(std::memory_order_relaxed);
  while ((high < used || high > words_) &&
         !area_.ledger_high.compare_exchange_weak(high, used, std::memory_order_release)) {
  }
}

bool Pins::any_former() const {
  const auto per_node = static_cast<std::uint32_t>(instance_.geometry().slots_per_node);
  for (std::uint32_t slot = 0; slot < instance_.slot_count(); ++slot) {
    if (!memory_.has_segment(slot / per_node)) continue;
    if (StateWord::state(instance_.control(slot).state.load(std::memory_order_acquire)) ==
        InstanceState::kFree) {
      continue;
    }
    const std::uint64_t high = std::min<std::uint64_t>(
        area(instance_, slot).ledger_high.load(std::memory_order_acquire), words_);
    const Word* words = ledger(instance_, slot);
    for (std::uint64_t i = 0; i < high; ++i) {
      const Link link{words[i].load(std::memory_order_acquire)};
      if (memory_.is_former(link)) return true;
    }
  }
  return false;
}

std::uint32_t Pins::held() const {
  std::uint32_t n = 0;
  for (std::uint32_t i = 0; i < words_; ++i) {
    if (ledger_[i].load(std::memory_order_relaxed) != 0) ++n;
  }
  return n;
}

bool Pins::has_left(std::uint32_t slot) const {
  const auto home = static_cast<std::uint32_t>(slot / instance_.geometry().slots_per_node);
  // What processes of a node that is not in the view still hold only its own kernel knows.
  if (memory_.domain().separate_kernels() && home != instance_.node() &&
      !instance_.views().look().has_member(home)) {
    return false;
  }
  if (!instance_.liveness().held(slot)) return true;
  if (!memory_.has_segment(home)) return false;
  // Held by whoever is in the slot now, or by one who is about to say so.
  const InstanceState state =
      StateWord::state(instance_.control(slot).state.load(std::memory_order_acquire));
  return state != InstanceState::kFree && state != InstanceState::kInvalid;
}

bool Pins::has_no_former_owners(std::uint32_t segment) const {
  const void* now = memory_.identity(segment);
  if (left_[segment].load(std::memory_order_acquire) == now) return true;
  if (!memory_.has_segment(segment) || memory_.incarnation(segment) > 1) {
    const auto per_node = static_cast<std::uint32_t>(instance_.geometry().slots_per_node);
    for (std::uint32_t slot = segment * per_node; slot < (segment + 1) * per_node; ++slot) {
      if (!has_left(slot)) return false;
    }
  }
  left_[segment].store(now, std::memory_order_release);
  return true;
}

bool Pins::drop_pinned(std::span<Link> links) const {
  if constexpr (!kRecoverable) {
    for (Link& link : links) {
      if (link.value != 0 && memory_.resolve(link)->progress.load() != 0) link = {};
    }
    return true;
  }
  // Nearly all pins are of other entries: one bit tells.
  std::array<std::uint64_t, 64> maybe{};
  const auto bit_of = [](std::uint64_t link) { return (link * 0x9e3779b97f4a7c15ULL) >> 52; };
  for (const Link link : links) {
    if (link.value != 0) maybe[bit_of(link.value) / 64] |= 1ULL << (bit_of(link.value) % 64);
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (!has_no_former_owners(segment)) return false;
  }
  const auto per_node = static_cast<std::uint32_t>(instance_.geometry().slots_per_node);
  for (std::uint32_t slot = 0; slot < instance_.slot_count(); ++slot) {
    if (slot % per_node == 0 && !memory_.has_segment(slot / per_node)) {
      slot += per_node - 1;
      continue;
    }
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
    if (memory_.has_segment(segment) && memory_.lost(segment)) return false;
  }
  return true;
}

}  // namespace mcs::cache
