// SPDX-License-Identifier: Apache-2.0
// What the cache stores beside a response so that a hit parses no header field.
#pragma once

#include <cstdint>
#include <type_traits>

#include "libglobalcache/http/date.h"

namespace mcs::http {

/// StoredMeta::flags.
enum MetaFlag : std::uint32_t {
  kMetaAlwaysRevalidate = 1u << 0,  // no-cache without field names
  kMetaNeverStale = 1u << 1,        // must-revalidate, proxy-revalidate or no-cache forbid it
  kMetaImmutable = 1u << 2,         // RFC 8246
  kMetaHasEtag = 1u << 3,
  kMetaHasLastModified = 1u << 4,  // a valid one
  kMetaHasVary = 1u << 5,
  kMetaHeuristic = 1u << 6,   // freshness lifetime from Last-Modified
  kMetaConfigured = 1u << 7,  // freshness lifetime from the policy
  kMetaPartial = 1u << 8,     // 206: range_first..range_last of complete_length
  kMetaAgeWasSent = 1u << 9,  // the origin sent a valid Age
  kMetaSwr = 1u << 10,        // stale_while_revalidate_until_ms was set by response or policy
  kMetaSie = 1u << 11,        // stale_if_error_until_ms was set by response or policy
  kMetaExplicitStaleOnly = 1u << 12,  // s-maxage: stale only as the response itself allows it
};

/// Plain data in wall-clock milliseconds, the same layout in every process of a domain. Written
/// once, by make_stored_meta (freshness.h); later freshening replaces the whole record. All
/// functions that read it tolerate any content.
struct StoredMeta {
  std::int64_t request_time_ms = 0;   // when the request that caused it was sent
  std::int64_t response_time_ms = 0;  // when its header section arrived
  std::int64_t date_ms = 0;           // Date, or response_time_ms if there is no valid one
  std::int64_t expires_ms = kNoTime;
  std::int64_t last_modified_ms = kNoTime;
  std::int64_t base_ms = 0;                          // current age = now - base_ms (RFC 9111 4.2.3)
  std::int64_t fresh_until_ms = 0;                   // the first instant at which it is stale
  std::int64_t stale_while_revalidate_until_ms = 0;  // fresh_until_ms if there is no such time
  std::int64_t stale_if_error_until_ms = 0;          // likewise
  std::uint64_t complete_length = 0;                 // kMetaPartial: of the whole representation
  std::uint64_t range_first = 0;                     // kMetaPartial: first byte held
  std::uint64_t range_last = 0;                      // kMetaPartial: last byte held
  std::uint32_t flags = 0;
  std::uint16_t status = 0;
  std::uint16_t reserved = 0;
};
static_assert(std::is_trivially_copyable_v<StoredMeta> && std::is_standard_layout_v<StoredMeta>);
static_assert(sizeof(StoredMeta) == 104, "part of the layout of shared memory");

}  // namespace mcs::http
