// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/api/shared_pins.h"

#include <bit>

namespace mcs::api {

SharedPins::SharedPins(cache::Pins& pins, std::uint32_t places)
    : pins_(&pins),
      kept_(places),
      shared_(places),
      chains_(std::bit_ceil(places + 2U), kNone),
      shift_(64U - static_cast<unsigned>(std::countr_zero(std::bit_ceil(places + 2U)))) {}

int SharedPins::share(cache::Link link, int handle) {
  const std::lock_guard lock(mutex_);
  cache::Pins& pins = *pins_.load(std::memory_order_acquire);
  const int pin = pins.place_of(handle);
  if (static_cast<std::size_t>(pin) >= shared_.size()) return pin;
  std::int32_t& chain = chain_of(link.value);
  std::int32_t at = chain;
  while (at != kNone && shared_[static_cast<std::size_t>(at)].link != link.value) {
    at = shared_[static_cast<std::size_t>(at)].next;
  }
  if (at == kNone) {
    shared_[static_cast<std::size_t>(pin)] = {link.value, 1, chain};
    chain = pin;
    return pin;
  }
  ++shared_[static_cast<std::size_t>(at)].users;
  // Which of the two stays does not matter to who reads ledgers.
  pins.unpin_place(static_cast<std::uint32_t>(pin));
  return at;
}

// Either move_to sees what is kept, or this sees where the pins have moved to.
int SharedPins::keep(cache::Link link, int handle) {
  const int pin = pins_.load(std::memory_order_acquire)->place_of(handle);
  if (static_cast<std::size_t>(pin) >= kept_.size()) return pin;
  kept_[static_cast<std::size_t>(pin)].store(link.value, std::memory_order_seq_cst);
  if (pins_.load(std::memory_order_seq_cst)->place_of(handle) == pin) return pin;
  give_back(pin);
  return -1;
}

void SharedPins::move_to(cache::Pins& next) {
  const std::lock_guard lock(mutex_);
  pins_.store(&next, std::memory_order_seq_cst);
  for (std::uint32_t place = 0; place < shared_.size(); ++place) {
    const Shared& shared = shared_[place];
    const std::uint64_t kept = kept_[place].load(std::memory_order_seq_cst);
    if (shared.users != 0) {
      next.declare(place, cache::Link{shared.link});
    } else if (kept != 0) {
      next.declare(place, cache::Link{kept});
    }
  }
}

void SharedPins::give_back(int pin) {
  if (pin < 0) return;
  const std::lock_guard lock(mutex_);
  cache::Pins& pins = *pins_.load(std::memory_order_acquire);
  if (static_cast<std::size_t>(pin) < shared_.size()) {
    Shared& shared = shared_[static_cast<std::size_t>(pin)];
    if (shared.users > 1) {
      --shared.users;
      return;
    }
    if (shared.users == 1) {
      std::int32_t* at = &chain_of(shared.link);
      while (*at != pin) at = &shared_[static_cast<std::size_t>(*at)].next;
      *at = shared.next;
      shared = {};
    }
    kept_[static_cast<std::size_t>(pin)].store(0, std::memory_order_relaxed);
    pins.unpin_place(static_cast<std::uint32_t>(pin));
    return;
  }
  pins.unpin(pin);
}

}  // namespace mcs::api
