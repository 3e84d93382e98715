// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/field_filter.h"

#include <algorithm>

#include "libglobalcache/http/date.h"

namespace mcs::http {

bool is_hop_by_hop(FieldId id) noexcept {
  switch (id) {
    case FieldId::kConnection:
    case FieldId::kKeepAlive:
    case FieldId::kProxy:
    case FieldId::kTe:
    case FieldId::kTrailer:
    case FieldId::kTransferEncoding:
    case FieldId::kUpgrade:
      return true;
    default:
      return false;
  }
}

bool must_be_cleaned(int status, Fields response) noexcept {
  bool has_connection = false;
  for (const FieldView& field : response) {
    switch (field_id(field.name)) {
      case FieldId::kConnection:
        has_connection = true;
        break;
      case FieldId::kTe:
      case FieldId::kTrailer:
      case FieldId::kUpgrade:
        return true;
      case FieldId::kProxy:
        // The challenge of an origin that is a proxy itself.
        if (status != 407) return true;
        break;
      default:
        break;
    }
  }
  return has_connection && std::any_of(response.begin(), response.end(), [&](const FieldView& f) {
           return field_id(f.name) != FieldId::kConnection &&
                  field_id(f.name) != FieldId::kKeepAlive &&
                  list_contains(response, "connection", f.name);
         });
}

bool is_connection_option(Fields request, const FieldView& field) noexcept {
  const FieldId id = field_id(field.name);
  return !is_hop_by_hop(id) && id != FieldId::kHost && id != FieldId::kContentLength &&
         !equals_ignore_case(field.name, "http2-settings") &&
         list_contains(request, "connection", field.name);
}

StoredFieldFilter::StoredFieldFilter(const CachePolicy& policy, Fields response,
                                     const ResponseDirectives& directives) noexcept
    : policy_(policy), response_(response), directives_(directives) {
  for (const FieldView& field : response) {
    has_connection_ |= field_id(field.name) == FieldId::kConnection;
  }
}

bool StoredFieldFilter::named_by_connection(std::string_view name) const noexcept {
  return has_connection_ && list_contains(response_, "connection", name);
}

bool StoredFieldFilter::keeps(const FieldView& field) const noexcept {
  const FieldId id = field_id(field.name);
  if (is_hop_by_hop(id) || id == FieldId::kAge || id == FieldId::kContentLength) return false;
  if (!is_token(field.name) || !is_safe_value(field.value)) return false;
  if (id == FieldId::kSetCookie && policy_.set_cookie == SetCookieRule::kStrip) return false;
  if (std::any_of(policy_.stripped_fields.begin(), policy_.stripped_fields.end(),
                  [&](const std::string& name) { return equals_ignore_case(name, field.name); })) {
    return false;
  }
  return !directives_.no_cache_fields.contains(field.name) &&
         !directives_.private_fields.contains(field.name) && !named_by_connection(field.name);
}

bool may_update(FieldId id) noexcept {
  return !is_hop_by_hop(id) && id != FieldId::kAge && id != FieldId::kContentLength &&
         id != FieldId::kContentEncoding && id != FieldId::kContentRange;
}

void select_stored_fields(const CachePolicy& policy, Fields response,
                          const ResponseDirectives& directives, std::int64_t response_time_ms,
                          std::array<char, 29>& date_buffer, std::vector<FieldView>& selected) {
  const StoredFieldFilter filter(policy, response, directives);
  selected.clear();
  bool has_date = false;
  for (const FieldView& field : response) {
    if (!filter.keeps(field)) continue;
    if (field_id(field.name) == FieldId::kDate) {
      if (has_date || !parse_http_date(field.value, response_time_ms)) continue;
      has_date = true;
    }
    selected.push_back(field);
  }
  if (!has_date) {
    date_buffer = format_http_date(response_time_ms);
    selected.push_back({"Date", {date_buffer.data(), date_buffer.size()}});
  }
}

}  // namespace mcs::http
