// SPDX-License-Identifier: Apache-2.0
#include "loadtest/client/response_head.h"

#include <strings.h>

#include <array>
#include <charconv>
#include <cstring>

namespace mcs::loadtest {

namespace {

constexpr std::array<std::string_view, kCacheResults> kNames = {
    "HIT", "MISS", "EXPIRED", "STALE", "UPDATING", "REVALIDATED", "BYPASS", "none"};

bool same(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) {
    text.remove_prefix(1);
  }
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) {
    text.remove_suffix(1);
  }
  return text;
}

bool take_length(std::string_view value, ResponseHead& head) {
  uint64_t length = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), length);
  if (error != std::errc() || end != value.data() + value.size() ||
      (head.content_length && *head.content_length != length)) {
    return false;
  }
  head.content_length = length;
  return true;
}

}  // namespace

size_t head_length(std::string_view text) {
  const void* const end = memmem(text.data(), text.size(), "\r\n\r\n", 4);
  return end == nullptr ? 0 : static_cast<size_t>(static_cast<const char*>(end) - text.data()) + 4;
}

std::optional<ResponseHead> parse_head(std::string_view text) {
  ResponseHead head;
  // "HTTP/1.1 200 …"
  if (!text.starts_with("HTTP/1.") || text.size() < 13) {
    return std::nullopt;
  }
  head.keep_alive = text[7] != '0';
  const auto [end, error] = std::from_chars(text.data() + 9, text.data() + 12, head.status);
  if (error != std::errc() || end != text.data() + 12) {
    return std::nullopt;
  }
  size_t line_end = text.find("\r\n");
  while (line_end != std::string_view::npos) {
    text.remove_prefix(line_end + 2);
    line_end = text.find("\r\n");
    if (line_end == 0 || line_end == std::string_view::npos) {
      break;
    }
    const std::string_view line = text.substr(0, line_end);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) {
      return std::nullopt;
    }
    const std::string_view name = line.substr(0, colon);
    switch (line[0] | 0x20) {
      case 'c':
        if (same(name, "content-length")) {
          if (!take_length(trim(line.substr(colon + 1)), head)) {
            return std::nullopt;
          }
        } else if (same(name, "connection")) {
          const std::string_view value = trim(line.substr(colon + 1));
          head.keep_alive = same(value, "keep-alive") || (head.keep_alive && !same(value, "close"));
        } else if (same(name, "cache-status")) {
          head.cache_status = trim(line.substr(colon + 1));
        }
        break;
      case 'e':
        if (same(name, "etag")) {
          head.etag = trim(line.substr(colon + 1));
        }
        break;
      case 'l':
        if (same(name, "last-modified")) {
          head.last_modified = trim(line.substr(colon + 1));
        }
        break;
      case 't':
        if (same(name, "transfer-encoding")) {
          head.chunked = same(trim(line.substr(colon + 1)), "chunked");
        }
        break;
      case 'x':
        if (same(name, "x-mcs-status")) {
          head.mcs_status = trim(line.substr(colon + 1));
        }
        break;
      default:
        break;
    }
  }
  return head;
}

std::string_view name_of(CacheResult result) { return kNames[static_cast<size_t>(result)]; }

CacheResult cache_result(const ResponseHead& head) {
  if (!head.mcs_status.empty()) {
    for (size_t i = 0; i + 1 < kNames.size(); ++i) {
      if (head.mcs_status == kNames[i]) {
        return static_cast<CacheResult>(i);
      }
    }
    return CacheResult::kNone;
  }
  // A list of caches; ours is the last one that added itself.
  std::string_view member = head.cache_status;
  if (const size_t comma = member.rfind(','); comma != std::string_view::npos) {
    member.remove_prefix(comma + 1);
  }
  while (!member.empty()) {
    const size_t end = member.find(';');
    const std::string_view parameter = trim(member.substr(0, end));
    if (parameter == "hit" || parameter == "hit=?1") {
      return CacheResult::kHit;
    }
    if (parameter == "fwd=bypass") {
      return CacheResult::kBypass;
    }
    if (parameter == "fwd=stale") {
      return CacheResult::kExpired;
    }
    if (parameter.starts_with("fwd=")) {
      return CacheResult::kMiss;
    }
    member.remove_prefix(end == std::string_view::npos ? member.size() : end + 1);
  }
  return CacheResult::kNone;
}

}  // namespace mcs::loadtest
