// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/freshness.h"

#include <algorithm>

#include "libglobalcache/http/range.h"

namespace mcs::http {
namespace {

constexpr std::int64_t floor_to_second(std::int64_t ms) {
  return ms >= 0 ? ms - ms % 1000 : ms - (ms % 1000 + 1000) % 1000;
}

std::int64_t read_age(std::string_view value) {
  ListReader reader(value);
  std::string_view first;
  if (!reader.next(first)) return kAbsent;
  return parse_delta_seconds(first).value_or(kAbsent);
}

void read_expires(std::string_view value, std::int64_t now_ms, ResponseInfo& info) {
  const std::int64_t expires = parse_http_date(value, now_ms).value_or(kNoTime);
  info.expires_ms = !info.has_expires || info.expires_ms == expires ? expires : kNoTime;
  info.has_expires = true;
}

void read_field(const CachePolicy& policy, const FieldView& field, std::int64_t now_ms,
                ResponseInfo& info) {
  const std::string_view value = trim(field.value);
  const auto ignored = [&](IgnoredField bit) { return (policy.ignored & bit) != 0; };
  switch (field_id(field.name)) {
    case FieldId::kCacheControl:
      if (!ignored(kIgnoreCacheControl) && !info.targeted) {
        add_cache_control(value, info.directives);
      }
      break;
    case FieldId::kExpires:
      if (!ignored(kIgnoreExpires) && !info.targeted) read_expires(value, now_ms, info);
      break;
    case FieldId::kDate:
      if (info.date_ms == kNoTime) info.date_ms = parse_http_date(value, now_ms).value_or(kNoTime);
      break;
    case FieldId::kLastModified:
      if (info.last_modified.empty()) {
        info.last_modified = value;
        info.last_modified_ms = parse_http_date(value, now_ms).value_or(kNoTime);
      }
      break;
    case FieldId::kAge:
      if (!ignored(kIgnoreAge) && info.age_s == kAbsent) info.age_s = read_age(value);
      break;
    case FieldId::kEtag:
      if (info.etag.empty()) info.etag = value;
      break;
    case FieldId::kVary:
      if (!ignored(kIgnoreVary)) info.has_vary = true;
      break;
    case FieldId::kSetCookie:
      if (!ignored(kIgnoreSetCookie)) info.has_set_cookie = true;
      break;
    case FieldId::kContentRange:
      if (info.content_range.empty()) info.content_range = value;
      break;
    case FieldId::kContentLocation:
      if (info.content_location.empty()) info.content_location = value;
      break;
    default:
      break;
  }
}

// Applies to every lifetime, also the response's own (httpd's CacheMaxExpire).
std::int64_t limited(const CachePolicy& policy, std::int64_t seconds) {
  if (policy.max_expire > 0) seconds = std::min(seconds, policy.max_expire);
  return std::clamp<std::int64_t>(seconds, 0, kMaxDeltaSeconds) * 1000;
}

Lifetime heuristic_lifetime(const CachePolicy& policy, const ResponseInfo& info,
                            std::int64_t date_ms) {
  if (!is_heuristically_cacheable(info.status) && !info.directives.is_public) return {};
  const bool ignored = (policy.ignored & kIgnoreLastModified) != 0;
  if (policy.heuristic_permille > 0 && !ignored && info.last_modified_ms != kNoTime &&
      info.last_modified_ms < date_ms) {
    const std::int64_t since = saturating_sub(date_ms, info.last_modified_ms);
    std::int64_t seconds = since / 1000 * policy.heuristic_permille / 1000;
    seconds =
        std::clamp(seconds, policy.min_expire, std::max(policy.heuristic_max, policy.min_expire));
    return {limited(policy, seconds), LifetimeSource::kHeuristic};
  }
  if (policy.default_expire > 0 && info.last_modified.empty()) {
    return {limited(policy, std::max(policy.default_expire, policy.min_expire)),
            LifetimeSource::kDefault};
  }
  return {};
}

// How long after fresh_until_ms a stale-* time of the response or, failing that, of the policy
// reaches.
std::int64_t stale_until(const StoredMeta& meta, std::int64_t said, std::int64_t configured,
                         bool explicit_only, MetaFlag flag, std::uint32_t& flags) {
  std::int64_t seconds = said;
  if (seconds == kAbsent) seconds = explicit_only ? 0 : configured;
  if (seconds > 0) flags |= flag;
  return saturating_add(meta.fresh_until_ms, std::min(seconds, kMaxDeltaSeconds) * 1000);
}

}  // namespace

ResponseInfo read_response(const CachePolicy& policy, int status, Fields response,
                           std::int64_t response_time_ms, std::string& scratch) {
  ResponseInfo info;
  info.status = status;
  if ((policy.ignored & kIgnoreTargeted) == 0) {
    for (const std::string& name : policy.targeted) {
      if (find_field(response, name) == nullptr) continue;
      if (parse_targeted_field(response, name, scratch, info.directives)) {
        info.targeted = true;
        break;
      }
    }
  }
  for (const FieldView& field : response) read_field(policy, field, response_time_ms, info);
  return info;
}

bool is_heuristically_cacheable(int status) noexcept {
  switch (status) {
    case 200:
    case 203:
    case 204:
    case 206:
    case 300:
    case 301:
    case 308:
    case 404:
    case 405:
    case 410:
    case 414:
    case 501:
      return true;
    default:
      return false;
  }
}

bool is_understood(int status) noexcept {
  if (is_heuristically_cacheable(status)) return true;
  switch (status) {
    case 201:
    case 202:
    case 205:
    case 302:
    case 303:
    case 305:
    case 307:
    case 400:
    case 401:
    case 402:
    case 403:
    case 406:
    case 408:
    case 409:
    case 411:
    case 413:
    case 415:
    case 417:
    case 421:
    case 422:
    case 426:
    case 429:
    case 451:
    case 500:
    case 502:
    case 503:
    case 504:
    case 505:
      return true;
    default:
      return false;
  }
}

Lifetime freshness_lifetime(const CachePolicy& policy, const ResponseInfo& info,
                            std::int64_t response_time_ms) noexcept {
  const ResponseDirectives& directives = info.directives;
  const std::int64_t date =
      info.date_ms != kNoTime ? info.date_ms : floor_to_second(response_time_ms);
  // RFC 9111 4.2.1 encourages to take invalid freshness information for stale.
  if (directives.invalid_freshness) return {0, LifetimeSource::kMaxAge};
  if (directives.s_maxage != kAbsent) {
    return {limited(policy, directives.s_maxage), LifetimeSource::kSMaxAge};
  }
  if (directives.max_age != kAbsent) {
    return {limited(policy, directives.max_age), LifetimeSource::kMaxAge};
  }
  if (info.has_expires) {
    const std::int64_t seconds =
        info.expires_ms == kNoTime ? 0 : saturating_sub(info.expires_ms, date) / 1000;
    return {limited(policy, seconds), LifetimeSource::kExpires};
  }
  const std::int64_t configured = configured_lifetime(policy, info.status);
  if (configured != kAbsent) return {limited(policy, configured), LifetimeSource::kConfigured};
  return heuristic_lifetime(policy, info, date);
}

std::int64_t initial_age_ms(const ResponseInfo& info, std::int64_t request_time_ms,
                            std::int64_t response_time_ms) noexcept {
  std::int64_t apparent_age = 0;
  if (info.date_ms != kNoTime) {
    apparent_age =
        std::max<std::int64_t>(0, saturating_sub(floor_to_second(response_time_ms), info.date_ms));
  }
  const std::int64_t response_delay =
      std::max<std::int64_t>(0, saturating_sub(response_time_ms, request_time_ms));
  const std::int64_t age_value = info.age_s == kAbsent ? 0 : info.age_s * 1000;
  return std::max(apparent_age, saturating_add(age_value, response_delay));
}

StoredMeta make_stored_meta(const CachePolicy& policy, const ResponseInfo& info,
                            std::int64_t request_time_ms, std::int64_t response_time_ms) noexcept {
  const ResponseDirectives& directives = info.directives;
  const Lifetime lifetime = freshness_lifetime(policy, info, response_time_ms);
  StoredMeta meta;
  meta.status = static_cast<std::uint16_t>(std::clamp(info.status, 0, 999));
  meta.request_time_ms = request_time_ms;
  meta.response_time_ms = response_time_ms;
  meta.date_ms = info.date_ms != kNoTime ? info.date_ms : floor_to_second(response_time_ms);
  meta.expires_ms = info.expires_ms;
  meta.last_modified_ms = info.last_modified_ms;
  meta.base_ms =
      saturating_sub(response_time_ms, initial_age_ms(info, request_time_ms, response_time_ms));
  meta.fresh_until_ms = saturating_add(meta.base_ms, lifetime.ms);

  std::uint32_t flags = 0;
  if (directives.no_cache) flags |= kMetaAlwaysRevalidate | kMetaNeverStale;
  if (directives.must_revalidate || directives.proxy_revalidate) flags |= kMetaNeverStale;
  // s-maxage has the meaning of proxy-revalidate (RFC 9111 5.2.2.10), unless the same origin allows
  // stale use by name.
  const bool explicit_only = directives.s_maxage != kAbsent;
  if (explicit_only) flags |= kMetaExplicitStaleOnly;
  if (directives.immutable) flags |= kMetaImmutable;
  if (!info.etag.empty()) flags |= kMetaHasEtag;
  if (info.last_modified_ms != kNoTime) flags |= kMetaHasLastModified;
  if (info.has_vary) flags |= kMetaHasVary;
  if (info.age_s != kAbsent) flags |= kMetaAgeWasSent;
  if (lifetime.source == LifetimeSource::kHeuristic) flags |= kMetaHeuristic;
  if (lifetime.source == LifetimeSource::kConfigured ||
      lifetime.source == LifetimeSource::kDefault) {
    flags |= kMetaConfigured;
  }
  meta.stale_while_revalidate_until_ms =
      stale_until(meta, directives.stale_while_revalidate, policy.stale_while_revalidate,
                  explicit_only, kMetaSwr, flags);
  meta.stale_if_error_until_ms = stale_until(meta, directives.stale_if_error, policy.stale_if_error,
                                             explicit_only, kMetaSie, flags);
  if (info.status == 206) {
    const auto range = parse_content_range(info.content_range);
    if (range && range->satisfied && range->complete_length) {
      flags |= kMetaPartial;
      meta.complete_length = *range->complete_length;
      meta.range_first = range->range.first;
      meta.range_last = range->range.last;
    }
  }
  meta.flags = flags;
  return meta;
}

}  // namespace mcs::http
