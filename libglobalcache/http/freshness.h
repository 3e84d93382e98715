// SPDX-License-Identifier: Apache-2.0
// Freshness lifetime and age (RFC 9111 4.2), computed once when a response arrives.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "libglobalcache/http/cache_control.h"
#include "libglobalcache/http/field.h"
#include "libglobalcache/http/policy.h"
#include "libglobalcache/http/stored_meta.h"

namespace mcs::http {

/// What the caching rules need to know of a response, read in one pass over its fields. Views point
/// into the fields.
struct ResponseInfo {
  int status = 0;
  ResponseDirectives directives;  // of the targeted field if there is a valid one
  bool targeted = false;          // then Expires counts for nothing (RFC 9213 2.2)
  bool has_expires = false;
  bool has_set_cookie = false;
  bool has_vary = false;
  std::int64_t expires_ms = kNoTime;  // kNoTime with has_expires: invalid, that is, in the past
  std::int64_t date_ms = kNoTime;
  std::int64_t last_modified_ms = kNoTime;
  std::int64_t age_s = kAbsent;
  std::string_view etag;
  std::string_view last_modified;  // as it was sent
  std::string_view content_range;
  std::string_view content_location;

  bool has_validator() const noexcept { return !etag.empty() || !last_modified.empty(); }
  /// The response itself says how long it is fresh.
  bool has_explicit_freshness() const noexcept { return directives.has_freshness() || has_expires; }
};

/// Reads a response. Of several Date, Last-Modified, ETag or Age lines, and of several members of
/// an Age line, the first counts (RFC 9111 5.1); an Age that is no number is ignored; Expires lines
/// that differ are invalid. Fields that the policy ignores are not looked at. `scratch` must
/// outlive the result.
ResponseInfo read_response(const CachePolicy& policy, int status, Fields response,
                           std::int64_t response_time_ms, std::string& scratch);

/// RFC 9110 15.1: fresh by heuristics without being marked public.
bool is_heuristically_cacheable(int status) noexcept;
/// Statuses whose meaning for caches is known here (RFC 9111 5.2.2.3).
bool is_understood(int status) noexcept;

enum class LifetimeSource : std::uint8_t {
  kNone,
  kSMaxAge,
  kMaxAge,
  kExpires,
  kConfigured,  // valid, negative
  kHeuristic,
  kDefault,  // default_expire
};

struct Lifetime {
  std::int64_t ms = 0;  // 0: stale from the beginning
  LifetimeSource source = LifetimeSource::kNone;
};

/// RFC 9111 4.2.1 and 4.2.2 for a shared cache: s-maxage, max-age, Expires - Date, then the
/// policy's time for the status, then policy.heuristic_permille of Date - Last-Modified, then the
/// default. No response is fresh by heuristics without a valid Last-Modified before its Date.
Lifetime freshness_lifetime(const CachePolicy& policy, const ResponseInfo& info,
                            std::int64_t response_time_ms) noexcept;

/// corrected_initial_age of RFC 9111 4.2.3, in milliseconds. Date counts in whole seconds: what
/// differs by less than one second is no age. A Date in the future is no age either.
std::int64_t initial_age_ms(const ResponseInfo& info, std::int64_t request_time_ms,
                            std::int64_t response_time_ms) noexcept;

/// Everything about a response that hits need later.
StoredMeta make_stored_meta(const CachePolicy& policy, const ResponseInfo& info,
                            std::int64_t request_time_ms, std::int64_t response_time_ms) noexcept;

/// current_age of RFC 9111 4.2.3 in milliseconds; never less than it was on arrival, whatever the
/// clock of this node says.
inline std::int64_t current_age_ms(const StoredMeta& meta, std::int64_t now_ms) noexcept {
  const std::int64_t at = now_ms > meta.response_time_ms ? now_ms : meta.response_time_ms;
  const std::int64_t age = saturating_sub(at, meta.base_ms);
  return age > 0 ? age : 0;
}

/// The value of the Age field to send: whole seconds, at most kMaxDeltaSeconds (RFC 9111 5.1).
inline std::int64_t age_to_send(const StoredMeta& meta, std::int64_t now_ms) noexcept {
  const std::int64_t seconds = current_age_ms(meta, now_ms) / 1000;
  return seconds < kMaxDeltaSeconds ? seconds : kMaxDeltaSeconds;
}

/// RFC 9111 4.2.
inline bool is_fresh(const StoredMeta& meta, std::int64_t now_ms) noexcept {
  return now_ms < meta.fresh_until_ms;
}

}  // namespace mcs::http
