// SPDX-License-Identifier: Apache-2.0
// Range requests and partial responses (RFC 9110 14, RFC 9111 3.3 and 3.4).
// Positions are bytes from 0; `last` is included.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "libglobalcache/http/field.h"

namespace mcs::http {

struct ByteRange {
  std::uint64_t first = 0;
  std::uint64_t last = 0;

  constexpr std::uint64_t length() const noexcept { return last - first + 1; }
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

/// Most ranges that one response will carry, whatever the policy says.
inline constexpr std::size_t kMaxRanges = 32;

enum class RangeResult : std::uint8_t {
  kWhole,          // no range asked for, or one that may be ignored: send 200
  kPartial,        // send 206 with `ranges`
  kUnsatisfiable,  // send 416
};

/// What a Range field asks of a representation of a given length.
struct RangeSet {
  RangeResult result = RangeResult::kWhole;
  std::uint8_t count = 0;
  std::array<ByteRange, kMaxRanges> ranges{};

  std::span<const ByteRange> view() const& noexcept { return {ranges.data(), count}; }
  std::span<const ByteRange> view() const&& = delete;  // it would outlive its ranges
};

/// Reads a Range field (RFC 9110 14.2). Ignored, as the RFC allows: other units, broken syntax,
/// more than `max_ranges` ranges (0: every Range). Overlapping and touching ranges become one, at
/// the place of the earlier; otherwise the client's order stays. So a response never carries a byte
/// twice.
RangeSet parse_range(std::string_view value, std::uint64_t length,
                     std::uint32_t max_ranges = 16) noexcept;

/// A Content-Range field (RFC 9110 14.4).
struct ContentRange {
  bool satisfied = true;  // false: "bytes */length"
  ByteRange range;
  std::optional<std::uint64_t> complete_length;  // nothing: "*"
};
std::optional<ContentRange> parse_content_range(std::string_view value) noexcept;

/// "bytes 0-4/10", and for 416 "bytes */10", appended.
void append_content_range(const ByteRange& range, std::uint64_t complete_length, std::string& out);
void append_unsatisfied_range(std::uint64_t complete_length, std::string& out);

/// The frame of a multipart/byteranges body (RFC 9110 14.6): before the bytes of range i comes
/// part_header(i), after those of the last comes trailer().
class Multipart {
 public:
  /// `nonce` should be unpredictable; `content_type` may be empty. Both views must outlive this.
  Multipart(std::span<const ByteRange> ranges, std::uint64_t complete_length,
            std::string_view content_type, std::uint64_t nonce);

  std::string content_type() const;  // of the whole response
  std::string part_header(std::size_t index) const;
  std::string trailer() const;
  std::uint64_t content_length() const;

 private:
  std::span<const ByteRange> ranges_;
  std::uint64_t complete_length_;
  std::string_view content_type_;
  std::array<char, 16> boundary_{};
};

/// Which bytes of a representation are held: at most kMaxPieces separate pieces, in order.
class ByteCoverage {
 public:
  static constexpr std::size_t kMaxPieces = 64;

  /// False: the piece would need one piece more than there is room for; nothing changed.
  bool add(const ByteRange& piece) noexcept;
  bool covers(const ByteRange& range) const noexcept;
  /// The first stretch of `range` that is not held; nothing if all of it is.
  std::optional<ByteRange> first_gap(const ByteRange& range) const noexcept;
  std::span<const ByteRange> pieces() const noexcept { return {pieces_.data(), size_}; }

 private:
  std::array<ByteRange, kMaxPieces> pieces_{};
  std::size_t size_ = 0;
};

/// True if two partial responses are parts of the same representation: the same strong entity tag,
/// and the same complete length (RFC 9111 3.4, RFC 9110 15.3.7.3).
bool may_combine(std::string_view etag_a, std::uint64_t complete_a, std::string_view etag_b,
                 std::uint64_t complete_b) noexcept;

}  // namespace mcs::http
