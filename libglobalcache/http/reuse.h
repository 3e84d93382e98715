// SPDX-License-Identifier: Apache-2.0
// Whether a stored response may answer a request (RFC 9111 4), and what stands in for an origin
// that fails (RFC 9111 4.2.4, RFC 5861).
#pragma once

#include <cstdint>

#include "libglobalcache/http/cache_control.h"
#include "libglobalcache/http/field.h"
#include "libglobalcache/http/freshness.h"
#include "libglobalcache/http/policy.h"
#include "libglobalcache/http/stored_meta.h"

namespace mcs::http {

enum class Reuse : std::uint8_t {
  kHit,             // send it
  kHitStale,        // send it, although it is stale
  kRevalidate,      // ask the origin first, with the validators if there are any, and wait
  kMiss,            // the stored response is of no use; fetch
  kGatewayTimeout,  // send 504: only-if-cached, and nothing that may be sent (RFC 9111 5.2.1.7)
};

/// Why a request goes to the origin: the fwd parameter of RFC 9211 2.2.
enum class Forward : std::uint8_t {
  kNone,
  kBypass,    // the cache was configured not to handle it
  kMethod,    // the method's semantics
  kUriMiss,   // nothing stored for the key
  kVaryMiss,  // other variants only
  kMiss,      // nothing stored that may be used
  kRequest,   // request directives
  kStale,     // stored, but stale
  kPartial,   // stored in part
};

struct ReuseDecision {
  Reuse verdict = Reuse::kMiss;
  Forward forward = Forward::kNone;
  bool refresh_in_background = false;  // kHitStale: somebody should ask the origin meanwhile
  // kRevalidate: while another request is already asking, this one may be answered stale.
  bool may_be_stale_while_updating = false;
  bool store_response = true;  // false: the request says no-store
  std::int64_t age_s = 0;      // for the Age field
  std::int64_t ttl_s = 0;      // remaining freshness lifetime; negative: stale for so long
};

/// Decides for a response whose key and variant match the request. `marked_stale`: a soft purge or
/// a HEAD response took its freshness away at a time nobody recorded; it counts as stale since now.
ReuseDecision evaluate_reuse(const CachePolicy& policy, Method method,
                             const RequestDirectives& directives, const StoredMeta& meta,
                             std::int64_t now_ms, bool marked_stale = false) noexcept;

/// The same, reading the request's fields. A request without Cache-Control and Pragma costs little
/// more than a look at the lengths of its field names.
inline ReuseDecision evaluate_reuse(const CachePolicy& policy, Method method, Fields request,
                                    const StoredMeta& meta, std::int64_t now_ms,
                                    bool marked_stale = false) noexcept {
  return evaluate_reuse(policy, method, parse_request_directives(request), meta, now_ms,
                        marked_stale);
}

/// When nothing is stored: kMiss, or kGatewayTimeout for only-if-cached.
ReuseDecision evaluate_absent(const CachePolicy& policy, Method method,
                              const RequestDirectives& directives,
                              Forward forward = Forward::kUriMiss) noexcept;

/// True if the stale response may be sent because the origin failed: `failure` is one bit of
/// StaleOn. Allowed by the stale-if-error of the response or, within the policy's max_stale, of the
/// request (for errors and 500, 502, 503, 504; RFC 5861 4), or by the policy; never against
/// must-revalidate, proxy-revalidate, no-cache, or s-maxage without a stale-* directive beside it
/// (RFC 9111 4.2.4), nor for requests with no-cache.
bool may_serve_stale(const CachePolicy& policy, const RequestDirectives& directives,
                     const StoredMeta& meta, std::int64_t now_ms, StaleOn failure) noexcept;

/// The StaleOn bit of an origin's status; 0 if a response with it is no failure.
std::uint32_t failure_of_status(int status) noexcept;

}  // namespace mcs::http
