// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/range.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "libglobalcache/http/date.h"
#include "libglobalcache/http/etag.h"

namespace mcs::http {
namespace {

constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();

// 1*DIGIT; numbers that do not fit count as the largest. Nothing: no number.
std::optional<std::uint64_t> parse_position(std::string_view text) {
  if (text.empty() || !std::all_of(text.begin(), text.end(), is_digit)) return std::nullopt;
  return parse_decimal(text).value_or(kHuge);
}

enum class Spec : std::uint8_t { kRange, kUnsatisfiable, kBroken };

Spec parse_spec(std::string_view text, std::uint64_t length, ByteRange& range) {
  const std::size_t dash = text.find('-');
  if (dash == std::string_view::npos) return Spec::kBroken;
  const std::string_view first = text.substr(0, dash);
  const std::string_view last = text.substr(dash + 1);
  if (first.empty()) {
    const auto suffix = parse_position(last);
    if (!suffix) return Spec::kBroken;
    if (*suffix == 0 || length == 0) return Spec::kUnsatisfiable;
    range = {length - std::min(*suffix, length), length - 1};
    return Spec::kRange;
  }
  const auto from = parse_position(first);
  const auto to = last.empty() ? std::optional(kHuge) : parse_position(last);
  if (!from || !to || *to < *from) return Spec::kBroken;
  if (*from >= length) return Spec::kUnsatisfiable;
  range = {*from, std::min(*to, length - 1)};
  return Spec::kRange;
}

bool touches(const ByteRange& a, const ByteRange& b) {
  return a.first <= b.last + 1 && b.first <= a.last + 1;
}

// Adds a range, uniting it with those it touches, at the place of the first of them. One pass is
// enough: the ranges already there do not touch each other.
void add_range(RangeSet& set, ByteRange range) {
  std::size_t place = set.count;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < set.count; ++i) {
    const ByteRange old = set.ranges[i];
    if (touches(old, range)) {
      range = {std::min(old.first, range.first), std::max(old.last, range.last)};
      if (place == set.count) {
        place = kept;
        ++kept;
      }
    } else {
      set.ranges[kept++] = old;
    }
  }
  if (place == set.count) place = kept++;
  set.ranges[place] = range;
  set.count = static_cast<std::uint8_t>(kept);
}

void append_number(std::uint64_t value, std::string& out) {
  char digits[20];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

}  // namespace

RangeSet parse_range(std::string_view value, std::uint64_t length,
                     std::uint32_t max_ranges) noexcept {
  RangeSet set;
  value = trim(value);
  if (!starts_with_ignore_case(value, "bytes=")) return set;
  value.remove_prefix(6);
  const std::size_t limit = std::min<std::size_t>(max_ranges, kMaxRanges);
  std::size_t asked = 0;
  ListReader reader(value);
  for (std::string_view member; reader.next(member);) {
    if (++asked > limit) return RangeSet();
    ByteRange range;
    switch (parse_spec(member, length, range)) {
      case Spec::kBroken:
        return RangeSet();
      case Spec::kUnsatisfiable:
        break;
      case Spec::kRange:
        add_range(set, range);
        break;
    }
  }
  if (asked == 0) return RangeSet();
  if (set.count == 0) {
    set.result = RangeResult::kUnsatisfiable;
    return set;
  }
  set.result = RangeResult::kPartial;
  return set;
}

std::optional<ContentRange> parse_content_range(std::string_view value) noexcept {
  value = trim(value);
  if (!starts_with_ignore_case(value, "bytes ")) return std::nullopt;
  value = trim(value.substr(6));
  const std::size_t slash = value.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  ContentRange result;
  const std::string_view complete = value.substr(slash + 1);
  if (complete != "*") {
    result.complete_length = parse_decimal(complete);
    if (!result.complete_length) return std::nullopt;
  }
  const std::string_view range = value.substr(0, slash);
  if (range == "*") {
    result.satisfied = false;
    return result.complete_length ? std::optional(result) : std::nullopt;
  }
  const std::size_t dash = range.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto first = parse_decimal(range.substr(0, dash));
  const auto last = parse_decimal(range.substr(dash + 1));
  if (!first || !last || *last < *first || *last == kHuge ||
      (result.complete_length && *last >= *result.complete_length)) {
    return std::nullopt;
  }
  result.range = {*first, *last};
  return result;
}

void append_content_range(const ByteRange& range, std::uint64_t complete_length, std::string& out) {
  out += "bytes ";
  append_number(range.first, out);
  out += '-';
  append_number(range.last, out);
  out += '/';
  append_number(complete_length, out);
}

void append_unsatisfied_range(std::uint64_t complete_length, std::string& out) {
  out += "bytes */";
  append_number(complete_length, out);
}

Multipart::Multipart(std::span<const ByteRange> ranges, std::uint64_t complete_length,
                     std::string_view content_type, std::uint64_t nonce)
    : ranges_(ranges), complete_length_(complete_length), content_type_(content_type) {
  constexpr std::string_view kHex = "0123456789abcdef";
  for (char& c : boundary_) {
    c = kHex[nonce & 15u];
    nonce >>= 4;
  }
}

std::string Multipart::content_type() const {
  std::string text = "multipart/byteranges; boundary=";
  text.append(boundary_.data(), boundary_.size());
  return text;
}

std::string Multipart::part_header(std::size_t index) const {
  std::string text = "\r\n--";
  text.append(boundary_.data(), boundary_.size());
  text += "\r\n";
  if (!content_type_.empty()) {
    text += "Content-Type: ";
    text += content_type_;
    text += "\r\n";
  }
  text += "Content-Range: ";
  append_content_range(ranges_[index], complete_length_, text);
  text += "\r\n\r\n";
  return text;
}

std::string Multipart::trailer() const {
  std::string text = "\r\n--";
  text.append(boundary_.data(), boundary_.size());
  text += "--\r\n";
  return text;
}

std::uint64_t Multipart::content_length() const {
  std::uint64_t length = trailer().size();
  for (std::size_t i = 0; i < ranges_.size(); ++i) {
    length += part_header(i).size() + ranges_[i].length();
  }
  return length;
}

bool ByteCoverage::add(const ByteRange& piece) noexcept {
  ByteRange united = piece;
  std::size_t begin = 0;
  while (begin < size_ && pieces_[begin].last + 1 < piece.first) ++begin;
  std::size_t end = begin;
  while (end < size_ && touches(pieces_[end], united)) {
    united = {std::min(united.first, pieces_[end].first), std::max(united.last, pieces_[end].last)};
    ++end;
  }
  if (end == begin) {
    if (size_ == kMaxPieces) return false;
    std::move_backward(pieces_.begin() + static_cast<std::ptrdiff_t>(begin),
                       pieces_.begin() + static_cast<std::ptrdiff_t>(size_),
                       pieces_.begin() + static_cast<std::ptrdiff_t>(size_ + 1));
    ++size_;
  } else {
    std::move(pieces_.begin() + static_cast<std::ptrdiff_t>(end),
              pieces_.begin() + static_cast<std::ptrdiff_t>(size_),
              pieces_.begin() + static_cast<std::ptrdiff_t>(begin + 1));
    size_ -= end - begin - 1;
  }
  pieces_[begin] = united;
  return true;
}

bool ByteCoverage::covers(const ByteRange& range) const noexcept { return !first_gap(range); }

std::optional<ByteRange> ByteCoverage::first_gap(const ByteRange& range) const noexcept {
  std::uint64_t at = range.first;
  for (const ByteRange& piece : pieces()) {
    if (piece.last < at) continue;
    if (piece.first > at) return ByteRange{at, std::min(range.last, piece.first - 1)};
    if (piece.last >= range.last) return std::nullopt;
    at = piece.last + 1;
  }
  return ByteRange{at, range.last};
}

bool may_combine(std::string_view etag_a, std::uint64_t complete_a, std::string_view etag_b,
                 std::uint64_t complete_b) noexcept {
  return complete_a == complete_b && strong_match(etag_a, etag_b);
}

}  // namespace mcs::http
