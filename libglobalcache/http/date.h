// SPDX-License-Identifier: Apache-2.0
// HTTP dates (RFC 9110 5.6.7) and delta-seconds (RFC 9111 1.2.2).
// Instants are milliseconds of wall-clock time since 1970-01-01 00:00:00 UTC.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

namespace mcs::http {

/// "There is no such instant."
inline constexpr std::int64_t kNoTime = std::numeric_limits<std::int64_t>::min();
/// Later than every instant that can be met.
inline constexpr std::int64_t kForever = std::numeric_limits<std::int64_t>::max();
/// The largest delta-seconds; greater ones count as this (RFC 9111 1.2.2).
inline constexpr std::int64_t kMaxDeltaSeconds = std::int64_t{1} << 31;

constexpr std::int64_t saturating_add(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t sum = 0;
  if (!__builtin_add_overflow(a, b, &sum)) return sum;
  return b > 0 ? kForever : kNoTime + 1;
}
constexpr std::int64_t saturating_sub(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t difference = 0;
  if (!__builtin_sub_overflow(a, b, &difference)) return difference;
  return b < 0 ? kForever : kNoTime + 1;
}

/// IMF-fixdate, RFC 850 and asctime dates, exact but for the case of names; anything else, also
/// another time zone or a wrong number of digits, is no date (RFC 9111 5.3: then it is in the
/// past). `now_ms` settles the century of a two-digit year (more than 50 years ahead: the past).
/// The day's name must be one, but need not be the right one.
std::optional<std::int64_t> parse_http_date(std::string_view text, std::int64_t now_ms) noexcept;

/// "Sun, 06 Nov 1994 08:49:37 GMT", always 29 characters. Instants outside the years 0 to 9999 are
/// moved to that range.
std::array<char, 29> format_http_date(std::int64_t instant_ms) noexcept;

/// 1*DIGIT; larger values than kMaxDeltaSeconds become it; anything else is nothing.
std::optional<std::int64_t> parse_delta_seconds(std::string_view text) noexcept;

/// 1*DIGIT as a number of bytes or a position; nothing if it does not fit or is anything else.
std::optional<std::uint64_t> parse_decimal(std::string_view text) noexcept;

}  // namespace mcs::http
