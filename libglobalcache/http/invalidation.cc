// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/invalidation.h"

#include <algorithm>

#include "libglobalcache/http/uri.h"

namespace mcs::http {
namespace {

struct Base {
  std::string_view scheme;
  std::string_view authority;
  std::string_view path;
  std::string_view query;
  bool has_query = false;
};

std::optional<Base> base_of(const RequestUri& request) {
  Base base{request.scheme, request.host, {}, {}, false};
  if (!request.target.empty() && request.target.front() == '/') {
    const std::size_t question = request.target.find('?');
    base.path = request.target.substr(0, question);
    base.has_query = question != std::string_view::npos;
    if (base.has_query) base.query = request.target.substr(question + 1);
    return base;
  }
  const UriParts parts = split_uri(request.target);
  if (!parts.has_scheme || !parts.has_authority) return std::nullopt;
  return Base{parts.scheme, parts.authority, parts.path.empty() ? "/" : parts.path, parts.query,
              parts.has_query};
}

std::string origin_of(std::string_view scheme, std::string_view authority) {
  std::string origin;
  for (const char c : scheme) origin += to_lower(c);
  origin += "://";
  return append_normalised_authority(scheme, authority, origin) ? origin : std::string();
}

std::string normalised(std::string_view target) {
  std::string result;
  return append_normalised(target, result) ? result : std::string();
}

void add_target(std::string target, InvalidationTargets& targets) {
  const auto known = targets.view();
  if (std::find(known.begin(), known.end(), target) == known.end()) {
    targets.targets[targets.count++] = std::move(target);
  }
}

}  // namespace

std::optional<std::string> resolve_same_origin(const RequestUri& request,
                                               std::string_view reference) {
  const auto base = base_of(request);
  reference = trim(reference);
  if (!base || !is_safe_value(reference)) return std::nullopt;
  const UriParts parts = split_uri(reference);
  if (parts.has_scheme && !parts.has_authority) return std::nullopt;
  if (parts.has_authority) {
    const std::string own = origin_of(base->scheme, base->authority);
    if (own.empty() ||
        own != origin_of(parts.has_scheme ? parts.scheme : base->scheme, parts.authority)) {
      return std::nullopt;
    }
  }

  std::string target;
  std::string_view query = parts.query;
  bool has_query = parts.has_query;
  if (parts.has_authority || (!parts.path.empty() && parts.path.front() == '/')) {
    append_without_dot_segments(parts.path, target);
  } else if (parts.path.empty()) {
    target = base->path;
    if (!has_query) {
      query = base->query;
      has_query = base->has_query;
    }
  } else {
    // Merge (RFC 3986 5.2.3): the reference replaces what follows the last slash.
    std::string merged(base->path.substr(0, base->path.rfind('/') + 1));
    merged += parts.path;
    append_without_dot_segments(merged, target);
  }
  if (target.empty() || target.front() != '/') target.insert(target.begin(), '/');
  if (has_query) {
    target += '?';
    target += query;
  }
  return target;
}

bool is_same_resource(const RequestUri& request, std::string_view reference) {
  const auto base = base_of(request);
  const auto resolved = resolve_same_origin(request, reference);
  if (!base || !resolved) return false;
  std::string own(base->path);
  if (base->has_query) {
    own += '?';
    own += base->query;
  }
  const std::string target = normalised(own);
  return !target.empty() && target == normalised(*resolved);
}

InvalidationTargets invalidation_targets(Method method, const RequestUri& request, int status,
                                         Fields response) {
  InvalidationTargets targets;
  if (is_safe(method) || status < 200 || status >= 400) return targets;
  if (auto own = resolve_same_origin(request, "")) add_target(std::move(*own), targets);
  for (const std::string_view name : {"location", "content-location"}) {
    const FieldView* field = find_field(response, name);
    if (field == nullptr) continue;
    if (auto target = resolve_same_origin(request, field->value)) {
      add_target(std::move(*target), targets);
    }
  }
  return targets;
}

}  // namespace mcs::http
