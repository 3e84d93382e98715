// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/reuse.h"

#include <algorithm>

namespace mcs::http {
namespace {

constexpr std::uint32_t kErrorsOfRfc5861 = kStaleOnError | kStaleOnTimeout | kStaleOnInvalidHeader |
                                           kStaleOn500 | kStaleOn502 | kStaleOn503 | kStaleOn504;

constexpr std::int64_t to_ms(std::int64_t seconds) {
  return std::min(seconds, kMaxDeltaSeconds) * 1000;
}

// How long the response has been stale.
std::int64_t staleness_ms(const StoredMeta& meta, std::int64_t now_ms) {
  return std::max<std::int64_t>(0, saturating_sub(now_ms, meta.fresh_until_ms));
}

bool within_max_stale(const CachePolicy& policy, const StoredMeta& meta, std::int64_t now_ms) {
  return policy.max_stale == 0 || staleness_ms(meta, now_ms) <= to_ms(policy.max_stale);
}

// Neither forbidden nor reserved to what the response itself allows.
bool others_may_allow_stale(const StoredMeta& meta) {
  return (meta.flags & (kMetaNeverStale | kMetaExplicitStaleOnly)) == 0;
}

// What the request asks of freshness beyond not being stale (RFC 9111 5.2.1).
bool satisfies_request(const RequestDirectives& directives, const StoredMeta& meta,
                       std::int64_t now_ms) {
  if (directives.max_age == 0) {
    // A reload. RFC 8246 2.1: no reason to ask for what cannot have changed.
    if ((meta.flags & kMetaImmutable) == 0 || !is_fresh(meta, now_ms)) return false;
  } else if (directives.max_age != kAbsent &&
             current_age_ms(meta, now_ms) / 1000 > directives.max_age) {
    return false;
  }
  return directives.min_fresh == kAbsent ||
         saturating_sub(meta.fresh_until_ms, now_ms) >= to_ms(directives.min_fresh);
}

bool request_allows_stale(const CachePolicy& policy, const RequestDirectives& directives,
                          const StoredMeta& meta, std::int64_t now_ms) {
  return directives.max_stale != kAbsent && directives.min_fresh == kAbsent &&
         others_may_allow_stale(meta) && within_max_stale(policy, meta, now_ms) &&
         (directives.max_stale == kMaxDeltaSeconds ||
          staleness_ms(meta, now_ms) <= to_ms(directives.max_stale));
}

bool within_stale_while_revalidate(const StoredMeta& meta, std::int64_t now_ms) {
  return (meta.flags & kMetaSwr) != 0 && now_ms < meta.stale_while_revalidate_until_ms;
}

}  // namespace

ReuseDecision evaluate_reuse(const CachePolicy& policy, Method method,
                             const RequestDirectives& asked, const StoredMeta& stored,
                             std::int64_t now_ms, bool marked_stale) noexcept {
  ReuseDecision decision;
  if (!is_get_or_head(method)) {
    decision.forward = Forward::kMethod;
    return decision;
  }
  decision.age_s = age_to_send(stored, now_ms);
  if (!asked.any && !marked_stale && (stored.flags & kMetaAlwaysRevalidate) == 0 &&
      is_fresh(stored, now_ms)) [[likely]] {
    decision.verdict = Reuse::kHit;
    decision.ttl_s = saturating_sub(stored.fresh_until_ms, now_ms) / 1000;
    return decision;
  }

  const RequestDirectives directives = policy.ignore_cache_control ? RequestDirectives() : asked;
  StoredMeta meta = stored;
  if (marked_stale && is_fresh(meta, now_ms)) {
    const std::int64_t shift = saturating_sub(now_ms, meta.fresh_until_ms);
    meta.fresh_until_ms = now_ms;
    meta.stale_while_revalidate_until_ms =
        saturating_add(meta.stale_while_revalidate_until_ms, shift);
    meta.stale_if_error_until_ms = saturating_add(meta.stale_if_error_until_ms, shift);
  }
  const bool fresh = is_fresh(meta, now_ms);
  decision.ttl_s = saturating_sub(meta.fresh_until_ms, now_ms) / 1000;
  decision.store_response = !directives.no_store;

  if (directives.no_store && !directives.only_if_cached) {
    decision.verdict = Reuse::kMiss;
    decision.forward = Forward::kRequest;
    return decision;
  }
  const auto ask_origin = [&](Forward reason) {
    decision.verdict = directives.only_if_cached ? Reuse::kGatewayTimeout : Reuse::kRevalidate;
    decision.forward = reason;
    return decision;
  };
  if (directives.no_cache) return ask_origin(Forward::kRequest);
  if ((meta.flags & kMetaAlwaysRevalidate) != 0) return ask_origin(Forward::kStale);
  if (fresh) {
    if (!satisfies_request(directives, meta, now_ms)) return ask_origin(Forward::kRequest);
    decision.verdict = Reuse::kHit;
    return decision;
  }
  if (request_allows_stale(policy, directives, meta, now_ms) &&
      (directives.max_age == kAbsent || satisfies_request(directives, meta, now_ms))) {
    decision.verdict = Reuse::kHitStale;
    decision.refresh_in_background = within_stale_while_revalidate(meta, now_ms);
    return decision;
  }
  const bool may_be_stale = (meta.flags & kMetaNeverStale) == 0 && directives.max_age == kAbsent &&
                            directives.min_fresh == kAbsent;
  if (may_be_stale && within_stale_while_revalidate(meta, now_ms)) {
    decision.verdict = Reuse::kHitStale;
    decision.refresh_in_background = true;
    return decision;
  }
  if (may_be_stale && others_may_allow_stale(meta) && (policy.use_stale & kStaleOnUpdating) != 0 &&
      within_max_stale(policy, meta, now_ms)) {
    if (policy.background_update) {
      decision.verdict = Reuse::kHitStale;
      decision.refresh_in_background = true;
      return decision;
    }
    decision.may_be_stale_while_updating = true;
  }
  return ask_origin(Forward::kStale);
}

ReuseDecision evaluate_absent(const CachePolicy& policy, Method method,
                              const RequestDirectives& directives, Forward forward) noexcept {
  ReuseDecision decision;
  decision.forward = is_get_or_head(method) ? forward : Forward::kMethod;
  if (policy.ignore_cache_control) return decision;
  decision.store_response = !directives.no_store;
  if (directives.only_if_cached && is_get_or_head(method)) {
    decision.verdict = Reuse::kGatewayTimeout;
  }
  return decision;
}

bool may_serve_stale(const CachePolicy& policy, const RequestDirectives& asked,
                     const StoredMeta& meta, std::int64_t now_ms, StaleOn failure) noexcept {
  const RequestDirectives directives = policy.ignore_cache_control ? RequestDirectives() : asked;
  if ((meta.flags & kMetaNeverStale) != 0 || directives.no_cache || directives.no_store) {
    return false;
  }
  const bool is_error = (failure & kErrorsOfRfc5861) != 0;
  if (is_error && (meta.flags & kMetaSie) != 0 && now_ms < meta.stale_if_error_until_ms) {
    return true;
  }
  if (!others_may_allow_stale(meta) || !within_max_stale(policy, meta, now_ms)) return false;
  if (is_error && directives.stale_if_error != kAbsent &&
      staleness_ms(meta, now_ms) <= to_ms(directives.stale_if_error)) {
    return true;
  }
  return (policy.use_stale & failure) != 0;
}

std::uint32_t failure_of_status(int status) noexcept {
  switch (status) {
    case 500:
      return kStaleOn500;
    case 502:
      return kStaleOn502;
    case 503:
      return kStaleOn503;
    case 504:
      return kStaleOn504;
    case 403:
      return kStaleOn403;
    case 404:
      return kStaleOn404;
    case 429:
      return kStaleOn429;
    default:
      return 0;
  }
}

}  // namespace mcs::http
