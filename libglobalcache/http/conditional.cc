// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/conditional.h"

#include <optional>

#include "libglobalcache/http/date.h"
#include "libglobalcache/http/etag.h"

namespace mcs::http {
namespace {

bool any_tag_matches(std::string_view line, std::string_view etag,
                     bool (*matches)(std::string_view, std::string_view) noexcept) noexcept {
  EtagListReader reader(line);
  for (std::string_view tag; reader.next(tag);) {
    // "*" stands for any current representation, and a 2xx is one.
    if (tag == "*" || matches(tag, etag)) return true;
  }
  return false;
}

// The conditional fields of a request; of dates the first line counts.
struct Conditions {
  bool has_match = false;
  bool match = false;
  bool has_none_match = false;
  bool none_match_hit = false;
  std::optional<std::int64_t> unmodified_since;
  std::optional<std::int64_t> modified_since;
};

Conditions read_conditions(Fields request, std::string_view etag, std::int64_t now_ms) noexcept {
  Conditions conditions;
  for (const FieldView& field : request) {
    // All four begin with "If-"; most fields do not.
    if (field.name.size() < 8 || to_lower(field.name[0]) != 'i' || field.name[2] != '-') continue;
    switch (field_id(field.name)) {
      case FieldId::kIfMatch:
        conditions.has_match = true;
        conditions.match |= any_tag_matches(field.value, etag, strong_match);
        break;
      case FieldId::kIfNoneMatch:
        conditions.has_none_match = true;
        conditions.none_match_hit |= any_tag_matches(field.value, etag, weak_match);
        break;
      case FieldId::kIfUnmodifiedSince:
        if (!conditions.unmodified_since) {
          conditions.unmodified_since = parse_http_date(field.value, now_ms);
        }
        break;
      case FieldId::kIfModifiedSince:
        if (!conditions.modified_since) {
          conditions.modified_since = parse_http_date(field.value, now_ms);
        }
        break;
      default:
        break;
    }
  }
  return conditions;
}

}  // namespace

Precondition evaluate_preconditions(Method method, Fields request, int status,
                                    const Validators& validators, std::int64_t now_ms) noexcept {
  if (status < 200 || status >= 300) return Precondition::kProceed;
  const Conditions conditions = read_conditions(request, validators.etag, now_ms);
  const bool dated = validators.last_modified_ms != kNoTime;
  if (conditions.has_match) {
    if (!conditions.match) return Precondition::kFailed;
  } else if (conditions.unmodified_since && dated &&
             validators.last_modified_ms > *conditions.unmodified_since) {
    return Precondition::kFailed;
  }
  if (conditions.has_none_match) {
    if (!conditions.none_match_hit) return Precondition::kProceed;
    return is_get_or_head(method) ? Precondition::kNotModified : Precondition::kFailed;
  }
  if (conditions.modified_since && is_get_or_head(method)) {
    const std::int64_t changed = dated ? validators.last_modified_ms : validators.date_ms;
    if (changed != kNoTime && changed <= *conditions.modified_since) {
      return Precondition::kNotModified;
    }
  }
  return Precondition::kProceed;
}

bool range_applies(Fields request, const Validators& validators, std::int64_t now_ms) noexcept {
  const FieldView* field = find_field(request, "if-range");
  if (field == nullptr) return true;
  const std::string_view value = trim(field->value);
  if (value.find('"') != std::string_view::npos) return strong_match(value, validators.etag);
  const auto date = parse_http_date(value, now_ms);
  return date && validators.last_modified_ms != kNoTime && *date == validators.last_modified_ms &&
         validators.date_ms != kNoTime &&
         saturating_sub(validators.date_ms, validators.last_modified_ms) >= 1000;
}

bool is_stripped_on_fill(FieldId id) noexcept {
  switch (id) {
    case FieldId::kRange:
    case FieldId::kIfRange:
    case FieldId::kIfMatch:
    case FieldId::kIfNoneMatch:
    case FieldId::kIfModifiedSince:
    case FieldId::kIfUnmodifiedSince:
      return true;
    default:
      return false;
  }
}

bool is_sent_with_304(FieldId id) noexcept {
  switch (id) {
    case FieldId::kContentType:
    case FieldId::kContentEncoding:
    case FieldId::kContentLanguage:
    case FieldId::kContentLength:
    case FieldId::kContentRange:
      return false;
    default:
      return true;
  }
}

}  // namespace mcs::http
