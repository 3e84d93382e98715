// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/etag.h"

#include <algorithm>
#include <charconv>

#include "libglobalcache/http/field.h"

namespace mcs::http {
namespace {

// etagc of RFC 9110 8.8.3: no control characters, no space, no quote.
bool is_etag_char(char c) noexcept {
  const unsigned char byte = static_cast<unsigned char>(c);
  return byte == 0x21 || (byte >= 0x23 && byte <= 0x7e) || byte >= 0x80;
}

bool is_opaque_tag(std::string_view text) noexcept {
  return text.size() >= 2 && text.front() == '"' && text.back() == '"' &&
         std::all_of(text.begin() + 1, text.end() - 1, is_etag_char);
}

std::string_view without_weakness(std::string_view tag) noexcept {
  return tag.substr(0, 2) == "W/" ? tag.substr(2) : tag;
}

}  // namespace

bool is_strong_etag(std::string_view tag) noexcept { return is_opaque_tag(tag); }

bool strong_match(std::string_view a, std::string_view b) noexcept {
  return a == b && is_strong_etag(a);
}

bool weak_match(std::string_view a, std::string_view b) noexcept {
  if (a == b) return !a.empty();
  const std::string_view opaque = without_weakness(a);
  return opaque == without_weakness(b) && is_opaque_tag(opaque);
}

bool EtagListReader::next(std::string_view& tag) noexcept {
  while (!rest_.empty() && (is_ows(rest_.front()) || rest_.front() == ',')) rest_.remove_prefix(1);
  if (rest_.empty()) return false;
  std::size_t end = without_weakness(rest_).data() - rest_.data();
  if (end < rest_.size() && rest_[end] == '"') {
    const std::size_t close = rest_.find('"', end + 1);
    if (close != std::string_view::npos) end = close + 1;
  }
  end = std::min(rest_.find(',', end), rest_.size());
  tag = trim(rest_.substr(0, end));
  rest_.remove_prefix(end);
  return true;
}

StaticEtag::StaticEtag(std::int64_t mtime_ns, std::uint64_t size) noexcept {
  char* at = text_.data();
  char* const end = at + text_.size();
  *at++ = '"';
  at = std::to_chars(at, end, static_cast<std::uint64_t>(mtime_ns), 16).ptr;
  *at++ = '-';
  at = std::to_chars(at, end, size, 16).ptr;
  *at++ = '"';
  length_ = static_cast<std::uint8_t>(at - text_.data());
}

}  // namespace mcs::http
