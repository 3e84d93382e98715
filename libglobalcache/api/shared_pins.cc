// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/api/shared_pins.h"

#include <bit>

namespace mcs::api {

SharedPins::SharedPins(cache::Pins& pins, std::uint32_t places)
    : pins_(pins),
      shared_(places),
      chains_(std::bit_ceil(places + 2U), kNone),
      shift_(64U - static_cast<unsigned>(std::countr_zero(std::bit_ceil(places + 2U)))) {}

int SharedPins::share(cache::Link link, int pin) {
  if (static_cast<std::size_t>(pin) >= shared_.size()) return pin;
  const std::lock_guard lock(mutex_);
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
  pins_.unpin(pin);
  return at;
}

void SharedPins::give_back(int pin) {
  if (pin < 0) return;
  if (static_cast<std::size_t>(pin) < shared_.size()) {
    const std::lock_guard lock(mutex_);
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
  }
  pins_.unpin(pin);
}

}  // namespace mcs::api
