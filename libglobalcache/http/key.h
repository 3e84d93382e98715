// SPDX-License-Identifier: Apache-2.0
// Cache keys: bytes that are the same for one resource in every server and differ for different
// ones. A key consists of length-prefixed parts, so that no choice of parts looks like another:
//
//   kind 'P' or 'S' | u32 base | base | u32 host | host | method 'G' or 'P'
//                   | u32 path | path | 'q' or '-' | u32 query | query      (u32: little endian)
//
// The path of a request that a server has rewritten is the one received, "%00", which no path that is
// received has, and what became of it. Purging sees only what was received.
//
// What precedes the method is the key's site; purging by prefix or pattern compares sites first.
// The host part of a key without base is "scheme://host" and, behind an "@", the port of the server
// that answers: the same Host may reach different servers (policy.key_port). A key that was named for
// one response is its base, and its host part says so: no key base makes the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "libglobalcache/http/field.h"
#include "libglobalcache/http/policy.h"

namespace mcs::http {

/// Why a request has no key. It is passed to the origin and its response is not stored.
enum class KeyError : std::uint8_t {
  kBadTarget,    // neither origin-form nor absolute-form of http or https (RFC 9112 3.2)
  kBadEncoding,  // "%" without two digits, a control character, a space, or a fragment
  kBadHost,
  kNoSite,     // neither a key base nor a host
  kBadMethod,  // a method whose responses are not stored
  kTooLong,
};
std::string_view describe(KeyError error) noexcept;

/// Longest key, in bytes.
inline constexpr std::size_t kMaxKeySize = 16384;

/// A request for a response that comes from an origin.
struct KeyRequest {
  std::string_view key_base;  // a key of the request's own, instead of the policy's base; may be empty
  std::string_view scheme;    // of the connection: "http" or "https"
  std::string_view host;      // the Host field or :authority
  std::string_view target;    // the request target as it was received
  Method method = Method::kGet;
  std::uint16_t port = 0;  // of the server that answers; 0: unknown
};

/// Writes the key to `key`, replacing what was there. The target is normalised only by
/// append_normalised and the policy's query rules. An absolute-form target overrides the Host field
/// (RFC 9112 3.2.2), but not the connection's scheme: it is the same origin that answers. Without a key base the site is "scheme://host@port".
tl::expected<void, KeyError> build_key(const KeyRequest& request, const CachePolicy& policy,
                                       std::string& key);

/// The key of a local file: `path` is byte-exact, below the document root, with its first slash.
tl::expected<void, KeyError> build_static_key(std::string_view key_base, std::string_view path,
                                              std::string& key);

/// A key in parts; views into it.
struct KeyParts {
  bool is_static = false;
  std::string_view site;  // the key's bytes up to and without the method
  std::string_view base;
  std::string_view host;
  char method = 'G';
  std::string_view path;
  bool has_query = false;
  std::string_view query;
};

/// Nothing if `key` is no key that build_key or build_static_key could have written.
std::optional<KeyParts> parse_key(std::string_view key) noexcept;

/// The host part of a key of its own.
inline constexpr char kOwnKey = '@';

/// Between what was received and what a server made of it.
inline constexpr std::string_view kRewritten = "%00";
/// The path as it was received.
std::string_view received_path(const KeyParts& parts) noexcept;
/// The key of the same request as if nothing had been rewritten; empty: that is `key` itself.
std::string received_key(std::string_view key);

/// True if a key's site is `site`, or `site` names its host without a port.
bool is_of_site(const KeyParts& parts, std::string_view site) noexcept;

/// Base or host, path and query, for people and for Cache-Status. Not unambiguous.
std::string display_key(std::string_view key);

/// True if `key` belongs to `site` (KeyParts::site of a key that was built for the purge request)
/// and its path and query match `pattern`, in which "*" stands for anything.
bool key_matches(std::string_view key, std::string_view site, std::string_view pattern);

}  // namespace mcs::http
