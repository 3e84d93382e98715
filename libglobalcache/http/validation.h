// SPDX-License-Identifier: Apache-2.0
// Asking the origin whether a stored response is still good, and what its answer changes
// (RFC 9111 4.3, 3.2).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "libglobalcache/http/field.h"
#include "libglobalcache/http/freshness.h"
#include "libglobalcache/http/header_block.h"
#include "libglobalcache/http/policy.h"
#include "libglobalcache/http/stored_meta.h"

namespace mcs::http {

/// The fields to add to the request that validates a stored response (RFC 9111 4.3.1):
/// If-None-Match and If-Modified-Since, byte for byte what the origin once sent. The request's own
/// fields of is_stripped_on_fill must be removed. Views into `stored`.
struct ValidationFields {
  std::array<FieldView, 2> fields{};
  std::size_t count = 0;

  Fields view() const& noexcept { return {fields.data(), count}; }
  Fields view() const&& = delete;  // it would outlive its fields
};
ValidationFields validation_fields(const CachePolicy& policy, const HeaderBlock& stored) noexcept;

enum class NotModified : std::uint8_t {
  kFreshen,   // update the stored response with the 304's fields and use it
  kMismatch,  // the 304 speaks of another representation: drop it, fetch without conditions
};

/// RFC 9111 4.3.4 for a 304 that answers validation_fields(stored). A strong tag in it must be the
/// stored one, a weak one must match weakly, a Last-Modified without tag must be the stored one; a
/// 304 without validators speaks of what was asked for.
NotModified match_not_modified(const HeaderBlock& stored, Fields not_modified) noexcept;

enum class HeadUpdate : std::uint8_t {
  kFreshen,     // same representation: update the stored response with the fields
  kInvalidate,  // it has changed: mark the stored response stale
  kIgnore,      // says nothing about the stored response
};

/// RFC 9111 4.3.5: what the response to a HEAD says about a stored GET response of `body_length`
/// bytes. 404 and 410 invalidate as well.
HeadUpdate match_head(const HeaderBlock& stored, std::uint64_t body_length, int status,
                      Fields head_response) noexcept;

/// A stored response after an update. It stays where it was made: its fields point into it.
struct Freshened {
  Freshened() = default;
  Freshened(const Freshened&) = delete;
  Freshened& operator=(const Freshened&) = delete;

  std::vector<FieldView> fields;  // views into the stored block, the update, and date
  std::array<char, 29> date{};
  StoredMeta meta;
  bool vary_changed = false;  // the variant it is stored under may be wrong: store anew or drop
  bool storable = true;       // false: the update forbids storing (no-store, private)
};

/// Updates a stored response with the fields of a 304 or a HEAD response (RFC 9111 3.2): every
/// field of the update that may_update and that is not excepted from storing replaces all stored
/// lines of that name; the others stay. Date becomes that of the update or, without one, its
/// arrival. Everything about freshness is computed anew.
void freshen(const CachePolicy& policy, const HeaderBlock& stored, const StoredMeta& stored_meta,
             Fields update, std::int64_t request_time_ms, std::int64_t response_time_ms,
             Freshened& freshened);

}  // namespace mcs::http
