// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace mcs::loadtest {

// What a checking client looks at in the head of an HTTP/1.1 response. Views into the parsed text.
struct ResponseHead {
  int status = 0;
  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool keep_alive = true;
  std::string_view etag;
  std::string_view last_modified;
  std::string_view mcs_status;    // X-Mcs-Status
  std::string_view cache_status;  // Cache-Status (RFC 9211)
};

// Parses a head that ends with its empty line. nullopt: it is no response head, or it names two
// different lengths.
std::optional<ResponseHead> parse_head(std::string_view text);

// Length of the head at the start of `text`, its empty line included; 0: not complete.
size_t head_length(std::string_view text);

enum class CacheResult {
  kHit,
  kMiss,
  kExpired,
  kStale,
  kUpdating,
  kRevalidated,
  kBypass,
  kNone,  // no field that says
};
constexpr size_t kCacheResults = 8;
std::string_view name_of(CacheResult result);  // "HIT", …
// X-Mcs-Status if there is one, else Cache-Status: "hit" is a hit, "fwd=bypass" a bypass,
// "fwd=stale" expired, another "fwd" a miss.
CacheResult cache_result(const ResponseHead& head);

}  // namespace mcs::loadtest
