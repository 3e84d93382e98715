// SPDX-License-Identifier: Apache-2.0
// What a segment consists of, by name, and values that do harm.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "gsm-emu/segment.h"

namespace mcs::loadtest {

struct Region {
  std::string name;
  std::uint64_t offset = 0;  // bytes from the segment's start
  std::uint64_t bytes = 0;
};

/// Header, controls, slots, events …, payload. Together they are all of the segment, paddings apart.
std::vector<Region> regions_of(const gsm::SegmentHeader& header);

/// Bytes to be stored somewhere: `current` is what is there, `other` what is found elsewhere in the
/// same region. As many as `current` has.
std::vector<std::byte> stray_bytes(std::mt19937_64& random, const std::vector<std::byte>& current,
                                   const std::vector<std::byte>& other);

/// How many bytes a stray store changes: mostly a machine word or part of one, at times a stretch.
std::uint64_t stray_size(std::mt19937_64& random);

}  // namespace mcs::loadtest
