// SPDX-License-Identifier: Apache-2.0
// Entity tags (RFC 9110 8.8.3).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace mcs::http {

/// Both are strong and the same (RFC 9110 8.8.3.2). Tags that are none (unquoted, "w/...") are
/// never strong.
bool strong_match(std::string_view a, std::string_view b) noexcept;

/// The opaque parts are the same. Tags that are none match only byte for byte: an origin that sends
/// them gets back what it sent.
bool weak_match(std::string_view a, std::string_view b) noexcept;

/// A well-formed tag without "W/".
bool is_strong_etag(std::string_view tag) noexcept;

/// Walks If-Match and If-None-Match: tags may contain commas and backslashes, and an unquoted word
/// counts as a tag of its own. "*" comes out as a member.
class EtagListReader {
 public:
  explicit EtagListReader(std::string_view line) noexcept : rest_(line) {}
  bool next(std::string_view& tag) noexcept;

 private:
  std::string_view rest_;
};

/// `"<hex mtime in ns>-<hex size>"`, the tag of a file however it is served.
class StaticEtag {
 public:
  StaticEtag(std::int64_t mtime_ns, std::uint64_t size) noexcept;
  std::string_view view() const noexcept { return {text_.data(), length_}; }

 private:
  std::array<char, 36> text_{};
  std::uint8_t length_ = 0;
};

inline StaticEtag make_static_etag(std::int64_t mtime_ns, std::uint64_t size) noexcept {
  return StaticEtag(mtime_ns, size);
}

}  // namespace mcs::http
