// SPDX-License-Identifier: Apache-2.0
#include "loadtest/specweb/content.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace mcs::loadtest {

namespace {

// Word `index` of the content: a counter through the finaliser of SplitMix64.
uint64_t word(uint64_t key, uint64_t index) {
  uint64_t x = key + index * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Calls piece(position in the range, bytes of the content) for the words the range touches, until
// it returns false.
template <class Piece>
void for_each_word(uint64_t key, uint64_t offset, size_t size, Piece piece) {
  for (size_t at = 0; at < size;) {
    const uint64_t value = word(key, (offset + at) / 8);
    const size_t skip = (offset + at) % 8;
    const size_t length = std::min(8 - skip, size - at);
    std::byte bytes[8];
    std::memcpy(bytes, &value, sizeof bytes);
    if (!piece(at, std::span<const std::byte>(bytes + skip, length))) {
      return;
    }
    at += length;
  }
}

}  // namespace

uint64_t content_key(uint64_t seed, std::string_view path) {
  return XXH3_64bits_withSeed(path.data(), path.size(), seed);
}

void fill_content(uint64_t key, uint64_t offset, std::span<std::byte> out) {
  for_each_word(key, offset, out.size(), [&](size_t at, std::span<const std::byte> bytes) {
    std::memcpy(out.data() + at, bytes.data(), bytes.size());
    return true;
  });
}

std::optional<size_t> first_wrong_byte(uint64_t key, uint64_t offset,
                                       std::span<const std::byte> bytes) {
  std::optional<size_t> wrong;
  for_each_word(key, offset, bytes.size(), [&](size_t at, std::span<const std::byte> expected) {
    if (std::memcmp(bytes.data() + at, expected.data(), expected.size()) != 0) {
      wrong = at + static_cast<size_t>(std::mismatch(expected.begin(), expected.end(),
                                                     bytes.begin() + static_cast<ptrdiff_t>(at))
                                           .first -
                                       expected.begin());
    }
    return !wrong;
  });
  return wrong;
}

}  // namespace mcs::loadtest
