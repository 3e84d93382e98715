// SPDX-License-Identifier: Apache-2.0
// The library's functions, not inline ones, which could use only what every processor has.
#undef XXH_INLINE_ALL
#ifndef XXH_STATIC_LINKING_ONLY
#define XXH_STATIC_LINKING_ONLY
#endif
#ifdef MCS_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#include "libglobalcache/cache/checksum.h"

namespace mcs::cache {
namespace {

XXH3_state_t* state_in(std::byte* memory) { return reinterpret_cast<XXH3_state_t*>(memory); }

}  // namespace

std::uint64_t long_checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

void Checksum::reset() {
  static_assert(sizeof(XXH3_state_t) == sizeof state_ && alignof(XXH3_state_t) <= 64);
  XXH3_64bits_reset(state_in(state_));
}

void Checksum::update(std::span<const std::byte> bytes) {
  XXH3_64bits_update(state_in(state_), bytes.data(), bytes.size());
}

std::uint64_t Checksum::value() const {
  if constexpr (!runtime::kChecked) return 1;
  return XXH3_64bits_digest(reinterpret_cast<const XXH3_state_t*>(state_));
}

}  // namespace mcs::cache
