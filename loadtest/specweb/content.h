// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace mcs::loadtest {

// Bytes that follow from a key alone, at any offset, so that a checker knows every byte of a file
// without reading it. Two keys give unrelated bytes; no byte position is constant over keys.

uint64_t content_key(uint64_t seed, std::string_view path);
void fill_content(uint64_t key, uint64_t offset, std::span<std::byte> out);
// Index in `bytes` of the first one that is not the content at `offset` + index.
std::optional<size_t> first_wrong_byte(uint64_t key, uint64_t offset,
                                       std::span<const std::byte> bytes);

}  // namespace mcs::loadtest
