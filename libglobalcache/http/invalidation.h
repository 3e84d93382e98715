// SPDX-License-Identifier: Apache-2.0
// What an unsafe request makes invalid (RFC 9111 4.4), and URI references of responses.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "libglobalcache/http/field.h"

namespace mcs::http {

/// The request that a response answers.
struct RequestUri {
  std::string_view scheme;
  std::string_view host;    // Host or :authority
  std::string_view target;  // as received: origin-form or absolute-form
};

/// Resolves a URI reference of the response (RFC 3986 5.2) against the request. The origin-form of
/// the result if it has the same origin (RFC 9110 4.3.1) as the request; nothing otherwise, and
/// for references that are none. The fragment is dropped.
std::optional<std::string> resolve_same_origin(const RequestUri& request,
                                               std::string_view reference);

/// True if `reference` names the requested resource itself.
bool is_same_resource(const RequestUri& request, std::string_view reference);

/// At most three targets in origin-form: build_key makes keys of them, with the request's scheme
/// and host.
struct InvalidationTargets {
  std::array<std::string, 3> targets;
  std::size_t count = 0;

  std::span<const std::string> view() const& noexcept { return {targets.data(), count}; }
  std::span<const std::string> view() const&& = delete;  // it would outlive its targets
};

/// After a non-error response (2xx or 3xx) to an unsafe method: the request's target, and those
/// of Location and Content-Location that have the same origin. All variants and methods of these
/// are to be made invalid. Empty for safe methods and for errors.
InvalidationTargets invalidation_targets(Method method, const RequestUri& request, int status,
                                         Fields response);

}  // namespace mcs::http
