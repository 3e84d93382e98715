// SPDX-License-Identifier: Apache-2.0
// Which response fields are stored, and which of them an update replaces (RFC 9111 3.1, 3.2).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "libglobalcache/http/cache_control.h"
#include "libglobalcache/http/field.h"
#include "libglobalcache/http/policy.h"

namespace mcs::http {

/// Fields that end at this hop, whether or not Connection names them (RFC 9110 7.6.1), for requests
/// and responses: Connection, Keep-Alive, Proxy-* (not Proxy-Status), TE, Trailer,
/// Transfer-Encoding, Upgrade.
bool is_hop_by_hop(FieldId id) noexcept;

/// Whether a response has fields that an intermediary must not pass on (RFC 9110 7.6.1) besides those
/// that every server takes for itself: what Connection names, TE, Trailer, Upgrade, and Proxy-…
bool must_be_cleaned(int status, Fields response) noexcept;

/// Whether Connection names this field of the same request, so that it must not go further (RFC 9110
/// 7.6.1), besides those that every server takes for itself. Host and Content-Length stay all the same.
bool is_connection_option(Fields request, const FieldView& field) noexcept;

/// Decides field by field what of one response is stored. Views into the response's fields, which
/// must outlive it.
class StoredFieldFilter {
 public:
  /// `directives` as read_response gave them; both must outlive this.
  StoredFieldFilter(const CachePolicy& policy, Fields response,
                    const ResponseDirectives& directives) noexcept;

  /// Not kept: hop-by-hop fields and those that Connection names; those that no-cache="..." and
  /// private="..." name; what the policy strips; Age and Content-Length, which are made anew for
  /// every hit from the age and the body; anything that could not be sent safely.
  bool keeps(const FieldView& field) const noexcept;

 private:
  bool named_by_connection(std::string_view name) const noexcept;

  const CachePolicy& policy_;
  Fields response_;
  const ResponseDirectives& directives_;
  bool has_connection_ = false;
};

/// True if a 304 or a HEAD response may replace this field of a stored response (RFC 9111 3.2):
/// not what describes the bytes that are kept (Content-Encoding, Content-Range; Content-Length is
/// never stored).
bool may_update(FieldId id) noexcept;

/// The fields to store: those that the filter keeps, and a Date of `response_time_ms` if there is
/// no valid one (RFC 9110 6.6.1). Views into `response` and `date_buffer`.
void select_stored_fields(const CachePolicy& policy, Fields response,
                          const ResponseDirectives& directives, std::int64_t response_time_ms,
                          std::array<char, 29>& date_buffer, std::vector<FieldView>& selected);

}  // namespace mcs::http
