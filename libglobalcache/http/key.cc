// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/key.h"

#include <algorithm>
#include <vector>

#include "libglobalcache/http/uri.h"

namespace mcs::http {
namespace {

using Unexpected = tl::unexpected<KeyError>;

void append_u32(std::size_t value, std::string& out) {
  const char bytes[] = {static_cast<char>(value & 0xffu), static_cast<char>(value >> 8 & 0xffu),
                        static_cast<char>(value >> 16 & 0xffu),
                        static_cast<char>(value >> 24 & 0xffu)};
  out.append(bytes, sizeof bytes);
}

void append_part(std::string_view part, std::string& out) {
  append_u32(part.size(), out);
  out += part;
}

// Reserves room for a length; end_part writes it once the part is there.
std::size_t begin_part(std::string& out) {
  out.append(4, '\0');
  return out.size();
}

void end_part(std::size_t begin, std::string& out) {
  const std::size_t size = out.size() - begin;
  for (std::size_t i = 0; i < 4; ++i) {
    out[begin - 4 + i] = static_cast<char>(size >> (8 * i) & 0xffu);
  }
}

bool take_u32(std::string_view& rest, std::size_t& value) {
  if (rest.size() < 4) return false;
  value = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    value |= static_cast<std::size_t>(static_cast<unsigned char>(rest[i])) << (8 * i);
  }
  rest.remove_prefix(4);
  return true;
}

bool take_part(std::string_view& rest, std::string_view& part) {
  std::size_t size = 0;
  if (!take_u32(rest, size) || size > rest.size()) return false;
  part = rest.substr(0, size);
  rest.remove_prefix(size);
  return true;
}

bool take_char(std::string_view& rest, char& c) {
  if (rest.empty()) return false;
  c = rest.front();
  rest.remove_prefix(1);
  return true;
}

// Of a host part: no host contains an "@".
std::string_view without_port(std::string_view host) {
  return host.substr(0, std::min(host.find('@'), host.size()));
}

std::string_view parameter_name(std::string_view parameter) {
  return parameter.substr(0, parameter.find('='));
}

// Rewrites the query at `begin` of `out` as the policy wants; false: nothing of it is left.
bool apply_query_rules(const CachePolicy& policy, std::size_t begin, std::string& out) {
  const std::string query = out.substr(begin);
  out.resize(begin);
  std::vector<std::string_view> parameters;
  const std::string_view all = query;
  for (std::size_t at = 0; at <= all.size();) {
    const std::size_t end = std::min(all.find('&', at), all.size());
    const std::string_view parameter = all.substr(at, end - at);
    if (policy.query != QueryRule::kIgnoreListed ||
        !is_ignored_parameter(policy, parameter_name(parameter))) {
      parameters.push_back(parameter);
    }
    at = end + 1;
  }
  // Values of one name keep their order: many applications read it.
  if (policy.query_sort) {
    std::stable_sort(parameters.begin(), parameters.end(),
                     [](auto a, auto b) { return parameter_name(a) < parameter_name(b); });
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (i > 0) out += '&';
    out += parameters[i];
  }
  return !parameters.empty();
}

bool append_query(std::string_view query, const CachePolicy& policy, std::string& key, bool& left) {
  const std::size_t begin = begin_part(key);
  if (!append_normalised(query, key)) return false;
  if (policy.query_sort || policy.query == QueryRule::kIgnoreListed) {
    left = apply_query_rules(policy, begin, key);
  }
  end_part(begin, key);
  return true;
}

}  // namespace

std::string_view describe(KeyError error) noexcept {
  switch (error) {
    case KeyError::kBadTarget:
      return "request target is neither a path nor an http URI";
    case KeyError::kBadEncoding:
      return "request target is not properly encoded";
    case KeyError::kBadHost:
      return "host is malformed";
    case KeyError::kNoSite:
      return "neither key base nor host";
    case KeyError::kBadMethod:
      return "method is not cached";
    case KeyError::kTooLong:
      return "key is too long";
  }
  return "";
}

tl::expected<void, KeyError> build_key(const KeyRequest& request, const CachePolicy& policy,
                                       std::string& key) {
  key.clear();
  if (!is_get_or_head(request.method) && request.method != Method::kPost) {
    return Unexpected(KeyError::kBadMethod);
  }
  if (request.target.size() > kMaxKeySize) return Unexpected(KeyError::kTooLong);
  // A path may begin with two slashes, which split_uri would take for an authority.
  const bool origin_form = !request.target.empty() && request.target.front() == '/';
  UriParts parts;
  std::string_view scheme = request.scheme;
  std::string_view authority = request.host;
  if (origin_form) {
    if (request.target.find('#') != std::string_view::npos) {
      return Unexpected(KeyError::kBadEncoding);
    }
    const std::size_t question = request.target.find('?');
    parts.path = request.target.substr(0, question);
    parts.has_query = question != std::string_view::npos;
    if (parts.has_query) parts.query = request.target.substr(question + 1);
  } else {
    parts = split_uri(request.target);
    if (parts.has_fragment) return Unexpected(KeyError::kBadEncoding);
    if (!parts.has_authority ||
        (!equals_ignore_case(parts.scheme, "http") && !equals_ignore_case(parts.scheme, "https"))) {
      return Unexpected(KeyError::kBadTarget);
    }
    if (scheme.empty()) scheme = parts.scheme;
    authority = parts.authority;
    if (parts.path.empty()) parts.path = "/";
  }

  const std::string_view base =
      request.key_base.empty() ? std::string_view(policy.key_base) : request.key_base;
  key += 'P';
  append_part(base, key);
  const std::size_t host = begin_part(key);
  if (!request.key_base.empty()) key += kOwnKey;
  if (base.empty()) {
    if (authority.empty()) return Unexpected(KeyError::kNoSite);
    for (const char c : scheme) key += to_lower(c);
    key += "://";
    if (!append_normalised_authority(scheme, authority, key)) {
      return Unexpected(KeyError::kBadHost);
    }
    if (policy.key_port && request.port != 0) key += '@' + std::to_string(request.port);
  }
  end_part(host, key);
  key += request.method == Method::kPost ? 'P' : 'G';
  const std::size_t path = begin_part(key);
  if (!append_normalised(parts.path, key)) return Unexpected(KeyError::kBadEncoding);
  end_part(path, key);

  const std::size_t mark = key.size();
  key += 'q';
  bool left = parts.has_query && policy.query != QueryRule::kIgnoreAll;
  if (left && !append_query(parts.query, policy, key, left)) {
    return Unexpected(KeyError::kBadEncoding);
  }
  if (!left) {
    key.resize(mark);
    key += '-';
    append_u32(0, key);
  }
  if (key.size() > kMaxKeySize) return Unexpected(KeyError::kTooLong);
  return {};
}

tl::expected<void, KeyError> build_static_key(std::string_view key_base, std::string_view path,
                                              std::string& key) {
  key.clear();
  if (path.empty() || path.front() != '/' || path.find('\0') != std::string_view::npos) {
    return Unexpected(KeyError::kBadTarget);
  }
  if (key_base.size() + path.size() + 32 > kMaxKeySize) return Unexpected(KeyError::kTooLong);
  // In one piece: this is built at every hit.
  key.resize(key_base.size() + path.size() + 19);
  char* at = key.data();
  const auto put_u32 = [&at](std::size_t value) {
    for (unsigned i = 0; i < 4; ++i) *at++ = static_cast<char>(value >> (8 * i) & 0xffu);
  };
  const auto put_part = [&at, put_u32](std::string_view part) {
    put_u32(part.size());
    at = std::copy(part.begin(), part.end(), at);
  };
  *at++ = 'S';
  put_part(key_base);
  put_part({});
  *at++ = 'G';
  put_part(path);
  *at++ = '-';
  put_u32(0);
  return {};
}

std::optional<KeyParts> parse_key(std::string_view key) noexcept {
  KeyParts parts;
  std::string_view rest = key;
  char kind = 0;
  char query = 0;
  if (!take_char(rest, kind) || (kind != 'P' && kind != 'S') || !take_part(rest, parts.base) ||
      !take_part(rest, parts.host)) {
    return std::nullopt;
  }
  parts.is_static = kind == 'S';
  parts.site = key.substr(0, key.size() - rest.size());
  if (!take_char(rest, parts.method) || (parts.method != 'G' && parts.method != 'P') ||
      !take_part(rest, parts.path) || !take_char(rest, query) || (query != 'q' && query != '-') ||
      !take_part(rest, parts.query) || !rest.empty() || parts.path.empty()) {
    return std::nullopt;
  }
  parts.has_query = query == 'q';
  if (!parts.has_query && !parts.query.empty()) return std::nullopt;
  return parts;
}

std::string_view received_path(const KeyParts& parts) noexcept {
  return parts.is_static ? parts.path : parts.path.substr(0, parts.path.find(kRewritten));
}

std::string received_key(std::string_view key) {
  if (key.find(kRewritten) == std::string_view::npos) return {};
  const auto parts = parse_key(key);
  if (!parts) return {};
  const std::string_view path = received_path(*parts);
  // What only the server itself has asked for was never received.
  if (path.size() == parts->path.size() || path.empty()) return {};
  std::string received(parts->site);
  received += parts->method;
  append_part(path, received);
  received += parts->has_query ? 'q' : '-';
  append_part(parts->query, received);
  return received;
}

bool is_of_site(const KeyParts& parts, std::string_view site) noexcept {
  if (parts.site == site) return true;
  // 'P', an empty base, the host.
  constexpr std::size_t kBeforeHost = 1 + 4 + 4;
  constexpr std::string_view kNoBase("P\0\0\0\0", 5);
  return site.size() > kBeforeHost && site.substr(0, 5) == kNoBase && !parts.is_static &&
         parts.base.empty() && site.substr(kBeforeHost) == without_port(parts.host);
}

std::string display_key(std::string_view key) {
  const auto parts = parse_key(key);
  if (!parts) return {};
  std::string text(parts->base.empty() ? without_port(parts->host) : parts->base);
  text += parts->path;
  if (parts->has_query) {
    text += '?';
    text += parts->query;
  }
  return text;
}

bool key_matches(std::string_view key, std::string_view site, std::string_view pattern) {
  const auto parts = parse_key(key);
  if (!parts || parts->site != site) return false;
  if (!parts->has_query) return matches_glob(pattern, received_path(*parts));
  std::string text(received_path(*parts));
  text += '?';
  text += parts->query;
  return matches_glob(pattern, text);
}

}  // namespace mcs::http
