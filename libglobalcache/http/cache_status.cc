// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/cache_status.h"

#include <algorithm>
#include <charconv>

#include "libglobalcache/http/structured_field.h"

namespace mcs::http {
namespace {

void append_number(std::int64_t value, std::string& out) {
  // Integers of Structured Fields have at most 15 digits.
  constexpr std::int64_t kMost = 999999999999999;
  char digits[20];
  value = std::clamp(value, -kMost, kMost);
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

}  // namespace

std::string_view forward_token(Forward forward) noexcept {
  switch (forward) {
    case Forward::kNone:
      return "";
    case Forward::kBypass:
      return "bypass";
    case Forward::kMethod:
      return "method";
    case Forward::kUriMiss:
      return "uri-miss";
    case Forward::kVaryMiss:
      return "vary-miss";
    case Forward::kMiss:
      return "miss";
    case Forward::kRequest:
      return "request";
    case Forward::kStale:
      return "stale";
    case Forward::kPartial:
      return "partial";
  }
  return "";
}

void append_cache_status(const CacheStatus& status, std::string& out) {
  if (!out.empty()) out += ", ";
  const std::string_view name = status.cache_name.empty() ? "mcs" : status.cache_name;
  if (sf_is_token(name)) {
    out += name;
  } else {
    sf_append_string(name, out);
  }
  if (status.hit) {
    out += "; hit";
  } else if (status.forward != Forward::kNone) {
    out += "; fwd=";
    out += forward_token(status.forward);
    if (status.forward_status >= 100 && status.forward_status <= 999) {
      out += "; fwd-status=";
      append_number(status.forward_status, out);
    }
    if (status.stored) out += "; stored";
    if (status.collapsed) out += "; collapsed";
  }
  if (status.ttl_s) {
    out += "; ttl=";
    append_number(*status.ttl_s, out);
  }
  if (!status.key.empty()) {
    out += "; key=";
    sf_append_string(status.key, out);
  }
  if (!status.detail.empty()) {
    out += "; detail=";
    sf_append_string(status.detail, out);
  }
}

}  // namespace mcs::http
