// SPDX-License-Identifier: Apache-2.0
// The Cache-Status field (RFC 9211).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "libglobalcache/http/reuse.h"

namespace mcs::http {

/// What one cache did with one request. RFC 9211 2: hit and forward exclude each other.
struct CacheStatus {
  std::string_view cache_name;  // CachePolicy::cache_status_name
  bool hit = false;
  Forward forward = Forward::kNone;
  int forward_status = 0;  // of the origin's response, if it differs from what is sent; 0: left out
  std::optional<std::int64_t> ttl_s;  // remaining freshness lifetime; negative: stale
  bool stored = false;                // the forwarded request's response is being stored
  bool collapsed = false;             // it was answered together with others
  std::string_view key;               // display_key; empty: left out
  std::string_view detail;            // why, for people; empty: left out
};

/// The fwd token of RFC 9211 2.2; empty for kNone.
std::string_view forward_token(Forward forward) noexcept;

/// Appends this cache's member to `out`, which may hold the members of the caches closer to the
/// origin already (RFC 9211 2: they come first).
void append_cache_status(const CacheStatus& status, std::string& out);

}  // namespace mcs::http
