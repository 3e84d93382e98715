// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/storability.h"

#include <algorithm>
#include <limits>

#include "libglobalcache/http/etag.h"
#include "libglobalcache/http/range.h"
#include "libglobalcache/http/vary.h"

namespace mcs::http {
namespace {

constexpr std::uint64_t kUnknownLength = std::numeric_limits<std::uint64_t>::max();

// Statuses that answer the preconditions, the range or the credentials of one request.
bool answers_one_request_only(int status) {
  return status < 200 || status > 599 || status == 304 || status == 407 || status == 412 ||
         status == 416;
}

// RFC 9110 9.3.3: explicit freshness and a Content-Location that is the request's own URI.
bool is_reusable_post(const CachePolicy& policy, const Exchange& exchange,
                      const ResponseInfo& info) {
  return policy.post_content_location && info.has_explicit_freshness() && exchange.status >= 200 &&
         exchange.status < 300 && !info.content_location.empty() &&
         is_same_resource(exchange.uri, info.content_location);
}

StoreReason check_directives(const CachePolicy& policy, const ResponseInfo& info) {
  const ResponseDirectives& directives = info.directives;
  const bool understood = is_understood(info.status);
  if (directives.must_understand && !understood) return StoreReason::kMustUnderstand;
  // RFC 9111 5.2.2.3: must-understand overrides no-store for those who understand the status.
  if (directives.no_store && !directives.must_understand && !policy.store_no_store) {
    return StoreReason::kNoStore;
  }
  if (directives.is_private && !policy.store_private) return StoreReason::kPrivate;
  return StoreReason::kStore;
}

bool allows_authorized(const ResponseDirectives& directives) {
  return directives.is_public || directives.must_revalidate || directives.s_maxage != kAbsent;
}

StoreReason check_set_cookie(const CachePolicy& policy, const ResponseInfo& info) {
  if (!info.has_set_cookie) return StoreReason::kStore;
  switch (policy.set_cookie) {
    case SetCookieRule::kNever:
      return StoreReason::kSetCookie;
    case SetCookieRule::kExplicit:
      return info.has_explicit_freshness() || info.directives.is_public ? StoreReason::kStore
                                                                        : StoreReason::kSetCookie;
    default:
      return StoreReason::kStore;
  }
}

// A 206 is worth storing if it can be combined with others and served by itself: one range of a
// known representation with a strong validator, of which no byte is missing.
bool is_storable_partial(const CachePolicy& policy, const Exchange& exchange,
                         const ResponseInfo& info, std::uint64_t content_length) {
  if (!policy.partial || !exchange.range_sent || !is_strong_etag(info.etag)) return false;
  const auto range = parse_content_range(info.content_range);
  return range && range->satisfied && range->complete_length &&
         (content_length == kUnknownLength || content_length == range->range.length());
}

// RFC 9111 3, the last condition, plus the policy's own times.
bool is_cacheable(const CachePolicy& policy, const ResponseInfo& info) {
  return info.directives.is_public || info.has_explicit_freshness() ||
         is_heuristically_cacheable(info.status) || configured_lifetime(policy, info.status) > 0;
}

StoreReason check_freshness(const ResponseInfo& info, const StoredMeta& meta) {
  const bool serves_stale =
      (meta.flags & (kMetaSwr | kMetaSie)) != 0 && (meta.flags & kMetaNeverStale) == 0;
  const bool usable = (meta.flags & kMetaAlwaysRevalidate) == 0 &&
                      (meta.fresh_until_ms > meta.response_time_ms || serves_stale);
  return usable || info.has_validator() ? StoreReason::kStore : StoreReason::kNotFresh;
}

StoreDecision decide(const CachePolicy& policy, const Exchange& exchange,
                     const ResponseInfo& info) {
  StoreDecision decision;
  const auto no = [&](StoreReason reason) {
    decision.reason = reason;
    return decision;
  };
  if (!policy.enabled) return no(StoreReason::kDisabled);
  if (answers_one_request_only(exchange.status)) return no(StoreReason::kStatus);
  if (exchange.method == Method::kPost) {
    decision.as_get = is_reusable_post(policy, exchange, info);
    if (!decision.as_get && !(policy.cache_post && info.has_explicit_freshness())) {
      return no(StoreReason::kMethod);
    }
  } else if (exchange.method != Method::kGet) {
    return no(StoreReason::kMethod);
  }
  std::uint64_t content_length = kUnknownLength;
  decision.flaw = check_request_message(exchange.method, exchange.request, policy.check_unkeyed,
                                        exchange.uri.scheme);
  if (decision.flaw != MessageFlaw::kNone) return no(StoreReason::kMessage);
  // From here on the reasons lie in the response; a failing origin is to be asked again soon.
  decision.hit_for_miss = exchange.status < 500;
  decision.flaw = check_response_message(exchange.response, content_length);
  if (decision.flaw != MessageFlaw::kNone) return no(StoreReason::kMessage);

  if (const StoreReason reason = check_directives(policy, info); reason != StoreReason::kStore) {
    return no(reason);
  }
  if (info.has_vary && has_unmatchable_vary(exchange.response)) return no(StoreReason::kVary);
  if (const StoreReason reason = check_set_cookie(policy, info); reason != StoreReason::kStore) {
    return no(reason);
  }
  if (exchange.status == 206 && !is_storable_partial(policy, exchange, info, content_length)) {
    return no(StoreReason::kPartial);
  }
  if (!is_cacheable(policy, info)) return no(StoreReason::kNotCacheable);
  if (content_length != kUnknownLength &&
      (content_length < policy.min_object ||
       (policy.max_object > 0 && content_length > policy.max_object))) {
    return no(StoreReason::kSize);
  }
  decision.meta =
      make_stored_meta(policy, info, exchange.request_time_ms, exchange.response_time_ms);
  if (const StoreReason reason = check_freshness(info, decision.meta);
      reason != StoreReason::kStore) {
    return no(reason);
  }

  // These two lie in the request: for another one the same response might be stored.
  decision.hit_for_miss = false;
  if (!policy.ignore_cache_control && parse_request_directives(exchange.request).no_store) {
    return no(StoreReason::kRequestNoStore);
  }
  if (find_field(exchange.request, "authorization") != nullptr &&
      !allows_authorized(info.directives)) {
    return no(StoreReason::kAuthorization);
  }
  return decision;
}

}  // namespace

std::string_view describe(StoreReason reason) noexcept {
  switch (reason) {
    case StoreReason::kStore:
      return "";
    case StoreReason::kDisabled:
      return "caching is off";
    case StoreReason::kStatus:
      return "status not cacheable";
    case StoreReason::kMethod:
      return "method not cacheable";
    case StoreReason::kMessage:
      return "unsafe message";
    case StoreReason::kRequestNoStore:
      return "request no-store";
    case StoreReason::kNoStore:
      return "no-store";
    case StoreReason::kMustUnderstand:
      return "must-understand";
    case StoreReason::kPrivate:
      return "private";
    case StoreReason::kAuthorization:
      return "Authorization";
    case StoreReason::kVary:
      return "Vary";
    case StoreReason::kSetCookie:
      return "Set-Cookie";
    case StoreReason::kPartial:
      return "partial content";
    case StoreReason::kNotCacheable:
      return "no freshness information";
    case StoreReason::kNotFresh:
      return "not fresh";
    case StoreReason::kSize:
      return "size limit";
  }
  return "";
}

StoreDecision decide_store(const CachePolicy& policy, const Exchange& exchange,
                           const ResponseInfo& info) {
  return decide(policy, exchange, info);
}

StoreDecision decide_store(const CachePolicy& policy, const Exchange& exchange) {
  std::string scratch;
  const ResponseInfo info =
      read_response(policy, exchange.status, exchange.response, exchange.response_time_ms, scratch);
  return decide(policy, exchange, info);
}

}  // namespace mcs::http
