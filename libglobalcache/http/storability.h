// SPDX-License-Identifier: Apache-2.0
// Whether a response may be stored (RFC 9111 3).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "libglobalcache/http/field.h"
#include "libglobalcache/http/freshness.h"
#include "libglobalcache/http/invalidation.h"
#include "libglobalcache/http/poisoning.h"
#include "libglobalcache/http/policy.h"
#include "libglobalcache/http/stored_meta.h"

namespace mcs::http {

enum class StoreReason : std::uint8_t {
  kStore,
  kDisabled,
  kStatus,          // interim, 304, 412, 416, 407: they answer this request only
  kMethod,          // not GET, and no POST that may be stored
  kMessage,         // a MessageFlaw
  kRequestNoStore,  // RFC 9111 5.2.1.5
  kNoStore,         // RFC 9111 5.2.2.5
  kMustUnderstand,  // unknown status with must-understand (RFC 9111 5.2.2.3)
  kPrivate,         // RFC 9111 5.2.2.7
  kAuthorization,   // RFC 9111 3.5
  kVary,            // "*", or something that is no field name (RFC 9111 4.1)
  kSetCookie,       // CachePolicy::set_cookie
  kPartial,         // 206 that could not be used later (RFC 9111 3.3)
  kNotCacheable,    // nothing makes it cacheable (RFC 9111 3)
  kNotFresh,        // stale already and nothing to validate it with
  kSize,            // CachePolicy::min_object, max_object
};
/// For Cache-Status detail and logs; empty for kStore.
std::string_view describe(StoreReason reason) noexcept;

/// The exchange whose response might be stored.
struct Exchange {
  Method method = Method::kGet;
  RequestUri uri;           // needed for POST only
  Fields request;           // as the client sent it
  bool range_sent = false;  // the request to the origin had a Range
  int status = 0;
  Fields response;
  std::int64_t request_time_ms = 0;
  std::int64_t response_time_ms = 0;
};

struct StoreDecision {
  StoreReason reason = StoreReason::kStore;
  MessageFlaw flaw = MessageFlaw::kNone;
  // Others who ask for the same key need not wait for each other: their responses will not be
  // stored either. Remember it for CachePolicy::hit_for_miss.
  bool hit_for_miss = false;
  bool as_get = false;  // a POST whose response is stored under the key of GET (RFC 9110 9.3.3)
  StoredMeta meta;      // if it is stored

  bool store() const noexcept { return reason == StoreReason::kStore; }
};

/// Decides with what is known when the response's header section has arrived. `info` must come from
/// read_response for the same response. Minimum uses are the caller's.
StoreDecision decide_store(const CachePolicy& policy, const Exchange& exchange,
                           const ResponseInfo& info);

/// As above, reading the response itself.
StoreDecision decide_store(const CachePolicy& policy, const Exchange& exchange);

}  // namespace mcs::http
