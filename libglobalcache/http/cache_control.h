// SPDX-License-Identifier: Apache-2.0
// Cache-Control of requests and responses (RFC 9111 5.2, RFC 5861, RFC 8246), Pragma, and targeted
// fields (RFC 9213).
//
// Tolerant towards what restricts and exact with what permits: a directive whose name can be read
// restricts even if its value is broken, while a broken number never makes anything fresh.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "libglobalcache/http/field.h"

namespace mcs::http {

/// "The directive is not there" for the numbers below.
inline constexpr std::int64_t kAbsent = -1;

/// What a request asks of caches (RFC 9111 5.2.1). Seconds; kAbsent: not asked.
struct RequestDirectives {
  bool no_cache = false;  // also by `Pragma: no-cache` without any Cache-Control (RFC 9111 5.4)
  bool no_store = false;
  bool only_if_cached = false;
  bool any = false;  // false: nothing below or above is set, the fast case
  std::int64_t max_age = kAbsent;
  std::int64_t min_fresh = kAbsent;
  std::int64_t max_stale = kAbsent;       // kMaxDeltaSeconds if no limit was given
  std::int64_t stale_if_error = kAbsent;  // RFC 5861 4
};

/// One pass over the request's fields. A max-age that is no number counts as 0; another directive
/// whose number is none is ignored. Of duplicates the more demanding counts.
RequestDirectives parse_request_directives(Fields request) noexcept;

/// The field names of `no-cache="..."` and `private="..."` (RFC 9111 5.2.2.4, 5.2.2.7).
class FieldNameList {
 public:
  /// False if there is no room; the directive then has to count as unqualified.
  bool add(std::string_view quoted_list) noexcept;
  bool contains(std::string_view field_name) const noexcept;
  bool empty() const noexcept { return size_ == 0; }

 private:
  std::array<std::string_view, 4> lists_{};
  std::uint8_t size_ = 0;
};

/// What a response says to shared caches (RFC 9111 5.2.2). Seconds; kAbsent: not said. Views point
/// into the response's fields (or into the buffer given to parse_targeted_field).
struct ResponseDirectives {
  bool is_public = false;
  bool is_private = false;  // without field names
  bool no_cache = false;    // without field names
  bool no_store = false;
  bool must_revalidate = false;
  bool proxy_revalidate = false;
  bool must_understand = false;
  bool immutable = false;
  // A max-age or s-maxage that is no number: to be considered stale (RFC 9111 4.2.1).
  bool invalid_freshness = false;
  std::int64_t max_age = kAbsent;
  std::int64_t s_maxage = kAbsent;
  std::int64_t stale_while_revalidate = kAbsent;
  std::int64_t stale_if_error = kAbsent;
  FieldNameList private_fields;
  FieldNameList no_cache_fields;

  bool has_freshness() const noexcept {
    return max_age != kAbsent || s_maxage != kAbsent || invalid_freshness;
  }
};

/// Adds one Cache-Control line. Of max-age and s-maxage the first occurrence counts (RFC 9111
/// 4.2.1), of the stale-* times the smallest; a qualified and an unqualified no-cache or private
/// together count as unqualified.
void add_cache_control(std::string_view line, ResponseDirectives& directives) noexcept;

/// All Cache-Control lines of a response.
ResponseDirectives parse_response_directives(Fields response) noexcept;

/// Reads the targeted field `name` (RFC 9213 2.1). False if it is to be ignored as a whole: it is
/// absent, empty, no Structured Field dictionary, or a known directive has a value of a wrong type.
/// `buffer` holds the joined lines if there are several, and must outlive `directives`.
bool parse_targeted_field(Fields response, std::string_view name, std::string& buffer,
                          ResponseDirectives& directives);

}  // namespace mcs::http
