// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/uri.h"

#include <algorithm>

#include "libglobalcache/http/date.h"
#include "libglobalcache/http/field.h"

namespace mcs::http {
namespace {

constexpr std::string_view kHex = "0123456789ABCDEF";

constexpr bool is_unreserved(char c) {
  return is_alpha(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

bool is_scheme(std::string_view text) {
  return !text.empty() && is_alpha(text.front()) &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return is_alpha(c) || is_digit(c) || c == '+' || c == '-' || c == '.';
         });
}

void append_lower(std::string_view text, std::string& out) {
  for (const char c : text) out += to_lower(c);
}

// "[" IPv6address or IPvFuture "]", loosely: no character that could end a host.
bool is_ip_literal(std::string_view host) {
  return host.size() > 2 && host.front() == '[' && host.back() == ']' &&
         std::all_of(host.begin() + 1, host.end() - 1,
                     [](char c) { return hex_value(c) >= 0 || c == ':' || c == '.'; });
}

// Length of a "%41" at `at`, or nothing if it is no percent-encoding.
bool is_escape(std::string_view text, std::size_t at) {
  return text.size() - at >= 3 && hex_value(text[at + 1]) >= 0 && hex_value(text[at + 2]) >= 0;
}

}  // namespace

UriParts split_uri(std::string_view text) noexcept {
  UriParts parts;
  const std::size_t fragment = text.find('#');
  if (fragment != std::string_view::npos) {
    parts.has_fragment = true;
    text = text.substr(0, fragment);
  }
  const std::size_t question = text.find('?');
  if (question != std::string_view::npos) {
    parts.has_query = true;
    parts.query = text.substr(question + 1);
    text = text.substr(0, question);
  }
  const std::size_t colon = text.find(':');
  if (colon != std::string_view::npos && is_scheme(text.substr(0, colon))) {
    parts.has_scheme = true;
    parts.scheme = text.substr(0, colon);
    text.remove_prefix(colon + 1);
  }
  if (text.substr(0, 2) == "//") {
    parts.has_authority = true;
    text.remove_prefix(2);
    const std::size_t slash = std::min(text.find('/'), text.size());
    parts.authority = text.substr(0, slash);
    text.remove_prefix(slash);
  }
  parts.path = text;
  return parts;
}

void append_without_dot_segments(std::string_view path, std::string& out) {
  const std::size_t start = out.size();
  const auto drop_last_segment = [&] {
    const std::size_t slash = out.rfind('/');
    out.resize(slash == std::string::npos || slash < start ? start : slash);
  };
  while (!path.empty()) {
    if (path.substr(0, 3) == "../") {
      path.remove_prefix(3);
    } else if (path.substr(0, 2) == "./") {
      path.remove_prefix(2);
    } else if (path.substr(0, 3) == "/./") {
      path.remove_prefix(2);
    } else if (path == "/.") {
      path = "/";
    } else if (path.substr(0, 4) == "/../") {
      path.remove_prefix(3);
      drop_last_segment();
    } else if (path == "/..") {
      path = "/";
      drop_last_segment();
    } else if (path == "." || path == "..") {
      path = {};
    } else {
      const std::size_t slash = std::min(path.find('/', 1), path.size());
      out += path.substr(0, slash);
      path.remove_prefix(slash);
    }
  }
}

void append_escaped(std::string_view text, std::string& out) {
  constexpr std::string_view kPlain = "/!$&'()*+,;=:@";
  for (const char c : text) {
    if (is_unreserved(c) || kPlain.find(c) != std::string_view::npos) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += '%';
    out += kHex[byte >> 4];
    out += kHex[byte & 15];
  }
}

bool append_normalised(std::string_view text, std::string& out) {
  const std::size_t start = out.size();
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '%') {
      if (!is_escape(text, i)) {
        out.resize(start);
        return false;
      }
      const int byte = hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]);
      i += 2;
      if (byte < 0x80 && is_unreserved(static_cast<char>(byte))) {
        out += static_cast<char>(byte);
      } else {
        out += '%';
        out += kHex[static_cast<std::size_t>(byte >> 4)];
        out += kHex[static_cast<std::size_t>(byte & 15)];
      }
      continue;
    }
    const unsigned char byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte == 0x7f || c == '#') {
      out.resize(start);
      return false;
    }
    out += c;
  }
  return true;
}

bool append_normalised_authority(std::string_view scheme, std::string_view authority,
                                 std::string& out) {
  std::string_view host = authority;
  std::string_view port;
  const std::size_t bracket = authority.rfind(']');
  const std::size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (colon != std::string_view::npos) {
    host = authority.substr(0, colon);
    port = authority.substr(colon + 1);
    const auto number = parse_decimal(port.empty() ? "0" : port);
    if (!number || *number > 65535 || port.size() > 5) return false;
    const bool is_default = (equals_ignore_case(scheme, "http") && *number == 80) ||
                            (equals_ignore_case(scheme, "https") && *number == 443);
    if (is_default) port = {};
    while (port.size() > 1 && port.front() == '0') port.remove_prefix(1);
  }
  if (!host.empty() && host.front() == '[') {
    if (!is_ip_literal(host)) return false;
  } else {
    if (host.size() > 1 && host.back() == '.') host.remove_suffix(1);
    if (host.empty() || host.front() == '.' || host.back() == '.' ||
        host.find("..") != std::string_view::npos ||
        !std::all_of(host.begin(), host.end(), is_unreserved)) {
      return false;
    }
  }
  append_lower(host, out);
  if (!port.empty()) {
    out += ':';
    out += port;
  }
  return true;
}

bool matches_glob(std::string_view pattern, std::string_view text) noexcept {
  std::size_t p = 0;
  std::size_t t = 0;
  std::size_t star = std::string_view::npos;
  std::size_t retry = 0;
  // After a mismatch only the latest star has to take one character more.
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++retry;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace mcs::http
