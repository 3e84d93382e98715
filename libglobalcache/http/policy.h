// SPDX-License-Identifier: Apache-2.0
// The caching rules of one location or directory, and the directives that set them.
//
// A CachePolicy is built while a server reads its configuration and constant afterwards, so any
// thread may read it. A default-constructed one follows RFC 9111 with the defaults noted below.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gsm-emu/result.h"
#include "libglobalcache/http/field.h"

namespace mcs::http {

/// Response fields whose meaning for caching can be switched off (nginx's proxy_ignore_headers).
enum IgnoredField : std::uint32_t {
  kIgnoreCacheControl = 1u << 0,
  kIgnoreExpires = 1u << 1,
  kIgnoreSetCookie = 1u << 2,
  kIgnoreVary = 1u << 3,
  kIgnoreTargeted = 1u << 4,
  kIgnoreLastModified = 1u << 5,  // no heuristic freshness
  kIgnoreAge = 1u << 6,
};

/// Failures of a revalidation that a stored response may stand in for (proxy_cache_use_stale).
enum StaleOn : std::uint32_t {
  kStaleOnError = 1u << 0,  // no connection, or it broke
  kStaleOnTimeout = 1u << 1,
  kStaleOnInvalidHeader = 1u << 2,
  kStaleOnUpdating = 1u << 3,  // somebody else is fetching it
  kStaleOn500 = 1u << 4,
  kStaleOn502 = 1u << 5,
  kStaleOn503 = 1u << 6,
  kStaleOn504 = 1u << 7,
  kStaleOn403 = 1u << 8,
  kStaleOn404 = 1u << 9,
  kStaleOn429 = 1u << 10,
};

/// What a Set-Cookie in a response does to storing it. RFC 9111 7.3 leaves the choice to caches.
enum class SetCookieRule : std::uint8_t {
  kExplicit,  // stored, with the cookie, if the response itself says how long it is fresh
  kNever,     // not stored
  kAlways,    // stored, with the cookie, like any other response
  kStrip,     // stored without the cookie
};

/// Which part of the query belongs to the key.
enum class QueryRule : std::uint8_t {
  kKeep,       // all of it
  kIgnoreAll,  // nothing
  kIgnoreListed,
};

/// What becomes of a request that should wait for another's fill when half of the threads (or
/// connections) wait already.
enum class LockBusy : std::uint8_t {
  kWait,  // as well
  kPass,  // it goes to the origin by itself
  k503,
  kByServer,  // kPass after a moment where it would hold a thread, kWait where only a connection
};

/// A range of addresses in network byte order.
struct Network {
  std::array<std::uint8_t, 16> address{};
  std::uint8_t bits = 0;
  bool is_v6 = false;
};

/// How long a response with this status is fresh if it does not say so itself.
struct ValidTime {
  std::uint16_t status;  // 0: any status that is not listed
  std::int64_t seconds;
};

/// A share of the cache's space. Both 0: none.
struct SpaceShare {
  std::uint64_t bytes = 0;
  std::uint32_t permille = 0;
};

struct CachePolicy {
  // --- whose space responses take
  std::string site;    // empty: the key base, and without one kUnnamedSite
  SpaceShare quota;    // the site's responses take no more
  SpaceShare reserve;  // others' needs leave so much of the site's responses alone

  // --- keys
  std::string key_base;  // first part of every key; empty: scheme, host, port
  bool key_port = true;  // without a key base the server's port is part of the key
  QueryRule query = QueryRule::kKeep;
  bool query_sort = false;
  std::vector<std::string> query_ignored;  // names; a trailing "*" matches any rest

  // --- what is stored
  bool enabled = true;
  bool cache_post = false;            // POST, with a key of its own that does not see the body
  bool post_content_location = true;  // a POST answer for its own URL serves GET (RFC 9110 9.3.3)
  bool partial = true;                // 206 with a strong validator
  bool store_private = false;         // disobeys Cache-Control: private
  bool store_no_store = false;        // disobeys Cache-Control: no-store of responses
  bool check_unkeyed = true;          // see poisoning.h
  std::uint32_t min_uses = 1;         // requests for a key before its response is stored
  std::uint64_t min_object = 0;       // bytes
  std::uint64_t max_object = 0;       // bytes; 0: the cache decides
  std::uint32_t ignored = 0;          // IgnoredField bits
  SetCookieRule set_cookie = SetCookieRule::kExplicit;
  std::vector<std::string> stripped_fields;                   // never stored, lower case
  std::vector<std::string> targeted = {"cdn-cache-control"};  // RFC 9213 2.2, in order

  // --- how long it is fresh; seconds
  std::vector<ValidTime> valid;
  std::int64_t negative = 0;  // 0: off
  // Empty: 404, 405, 410, 414, 451, 500 to 504.
  std::vector<std::uint16_t> negative_statuses;
  std::int64_t default_expire = 0;         // no freshness and no Last-Modified; 0: not fresh
  std::int64_t min_expire = 0;             // lower bound of heuristic and default times
  std::int64_t max_expire = 0;             // upper bound of every time; 0: none
  std::uint32_t heuristic_permille = 100;  // of Date - Last-Modified (RFC 9111 4.2.2); 0: off
  std::int64_t heuristic_max = 86400;
  std::int64_t hit_for_miss = 5;  // how long "not storable" is remembered, for collapsing

  // --- serving stale; seconds
  std::uint32_t use_stale = kStaleOnError | kStaleOnTimeout | kStaleOnInvalidHeader;
  std::int64_t stale_while_revalidate = 0;  // if the response does not say
  std::int64_t stale_if_error = 0;          // if the response does not say
  std::int64_t max_stale = 0;               // upper bound for use_stale and max-stale; 0: none
  bool background_update = true;  // with `use_stale updating`: refresh behind a stale answer
  bool revalidate = true;         // ask the origin with If-None-Match and If-Modified-Since

  // --- requests
  bool ignore_cache_control = false;  // of requests: only-if-cached, no-cache, max-age, ...
  std::uint32_t max_ranges = 16;      // more in one request: the whole body is sent

  // --- collapsing
  bool lock = true;
  std::int64_t lock_timeout_ms = 5000;  // then the request goes to the origin by itself
  std::int64_t lock_age_ms = 5000;      // a fill silent for so long is given to the next
  LockBusy lock_busy = LockBusy::kByServer;

  // --- what else
  bool send_cache_status = false;
  std::string cache_status_name = "mcs";  // RFC 9211 2
  bool purge = false;
  std::vector<Network> purge_from;

  std::uint64_t set_rules = 0;  // which directives were given; for inherit_policy
};

/// The name of the site of all that name none.
inline constexpr std::string_view kUnnamedSite = "-";
/// The site whose share of the space responses take; empty: they are not told apart.
std::string_view site_name(const CachePolicy& policy) noexcept;

/// What a directive looks like, for modules that register them and for docs/directives.md.
struct DirectiveInfo {
  std::string_view nginx_name;  // after mcs_cache_
  std::string_view httpd_name;  // after McsCache
  std::string_view syntax;
  std::string_view help;
  std::uint8_t min_args;
  std::uint8_t max_args;
};

/// All directives, in the order of the documentation. Static storage.
std::span<const DirectiveInfo> policy_directives() noexcept;

/// Sets one rule. `name` is a directive of either server without its prefix ("valid",
/// "DefaultExpire"); nginx names are compared exactly, httpd names in any case. Repeating `valid`
/// adds to it, other directives replace. Errors name the directive, the argument and the remedy.
Result<void> set_directive(CachePolicy& policy, std::string_view name,
                           std::span<const std::string_view> args);

/// Every rule that was not set in `child` is taken from `parent`.
void inherit_policy(CachePolicy& child, const CachePolicy& parent);

/// The configured lifetime for a response that gives none: `valid` for its status, then `negative`,
/// then `valid any`; kAbsent (-1) if there is none. Seconds.
std::int64_t configured_lifetime(const CachePolicy& policy, int status) noexcept;

/// True if `name` is a query parameter that is not part of the key.
bool is_ignored_parameter(const CachePolicy& policy, std::string_view name) noexcept;

/// True if a purge from this address ("192.0.2.1", "2001:db8::1") is allowed.
bool purge_allowed(const CachePolicy& policy, std::string_view address) noexcept;

/// "10m", "1d12h", "90" (seconds), "500ms": milliseconds; nginx's units y M w d h m s ms, each at
/// most once and in this order. Nothing: no time.
std::optional<std::int64_t> parse_time_ms(std::string_view text) noexcept;
/// "512", "10k", "10m", "1g" (1024 each, any case): bytes. Nothing: no size.
std::optional<std::uint64_t> parse_size(std::string_view text) noexcept;

}  // namespace mcs::http
