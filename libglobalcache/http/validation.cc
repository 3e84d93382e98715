// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/validation.h"

#include "libglobalcache/http/etag.h"
#include "libglobalcache/http/field_filter.h"
#include "libglobalcache/http/vary.h"

namespace mcs::http {
namespace {

bool same_date(std::string_view a, std::string_view b) noexcept {
  if (a == b) return true;
  const auto first = parse_http_date(a, 0);
  return first && first == parse_http_date(b, 0);
}

bool is_in(std::string_view name, std::span<const FieldView> fields) noexcept {
  for (const FieldView& field : fields) {
    if (equals_ignore_case(field.name, name)) return true;
  }
  return false;
}

}  // namespace

ValidationFields validation_fields(const CachePolicy& policy, const HeaderBlock& stored) noexcept {
  ValidationFields result;
  if (!policy.revalidate) return result;
  const std::string_view etag = stored.value("etag");
  const std::string_view last_modified = stored.value("last-modified");
  if (!etag.empty()) result.fields[result.count++] = {"If-None-Match", etag};
  if (!last_modified.empty()) {
    result.fields[result.count++] = {"If-Modified-Since", last_modified};
  }
  return result;
}

NotModified match_not_modified(const HeaderBlock& stored, Fields not_modified) noexcept {
  const std::string_view new_tag = field_value(not_modified, "etag");
  const std::string_view old_tag = stored.value("etag");
  if (!new_tag.empty() && !old_tag.empty()) {
    const bool same = is_strong_etag(new_tag) && is_strong_etag(old_tag)
                          ? strong_match(new_tag, old_tag)
                          : weak_match(new_tag, old_tag);
    return same ? NotModified::kFreshen : NotModified::kMismatch;
  }
  // A strong tag where none was known identifies no stored response.
  if (is_strong_etag(new_tag)) return NotModified::kMismatch;
  const std::string_view new_date = field_value(not_modified, "last-modified");
  const std::string_view old_date = stored.value("last-modified");
  if (new_tag.empty() && !new_date.empty() && !old_date.empty() && !same_date(new_date, old_date)) {
    return NotModified::kMismatch;
  }
  return NotModified::kFreshen;
}

HeadUpdate match_head(const HeaderBlock& stored, std::uint64_t body_length, int status,
                      Fields head_response) noexcept {
  if (status == 404 || status == 410) return HeadUpdate::kInvalidate;
  if (status != 200 || stored.status() != 200) return HeadUpdate::kIgnore;
  const std::string_view etag = field_value(head_response, "etag");
  const std::string_view last_modified = field_value(head_response, "last-modified");
  const std::string_view length = field_value(head_response, "content-length");
  const std::string_view old_etag = stored.value("etag");
  const std::string_view old_last_modified = stored.value("last-modified");
  if (!etag.empty() && etag != old_etag) return HeadUpdate::kInvalidate;
  if (!last_modified.empty() && !same_date(last_modified, old_last_modified)) {
    return HeadUpdate::kInvalidate;
  }
  if (!length.empty() && parse_decimal(length) != body_length) return HeadUpdate::kInvalidate;
  return HeadUpdate::kFreshen;
}

void freshen(const CachePolicy& policy, const HeaderBlock& stored, const StoredMeta& stored_meta,
             Fields update, std::int64_t request_time_ms, std::int64_t response_time_ms,
             Freshened& freshened) {
  std::string scratch;
  const ResponseInfo update_info =
      read_response(policy, stored.status(), update, response_time_ms, scratch);
  const StoredFieldFilter filter(policy, update, update_info.directives);

  // What the update brings, its Date first: only the first valid one is taken.
  std::vector<FieldView> replacing;
  if (update_info.date_ms == kNoTime) {
    freshened.date = format_http_date(response_time_ms);
    replacing.push_back({"Date", {freshened.date.data(), freshened.date.size()}});
  }
  bool has_date = !replacing.empty();
  for (const FieldView& field : update) {
    const FieldId id = field_id(field.name);
    if (!may_update(id) || !filter.keeps(field)) continue;
    if (id == FieldId::kDate) {
      if (has_date || !parse_http_date(field.value, response_time_ms)) continue;
      has_date = true;
    }
    replacing.push_back(field);
  }

  // What no-cache="..." or private="..." of the update names must not stay either.
  const ResponseDirectives& directives = update_info.directives;
  freshened.fields.clear();
  for (const FieldView field : stored) {
    if (!is_in(field.name, replacing) && !directives.no_cache_fields.contains(field.name) &&
        !directives.private_fields.contains(field.name)) {
      freshened.fields.push_back(field);
    }
  }
  freshened.fields.insert(freshened.fields.end(), replacing.begin(), replacing.end());

  std::string old_spec;
  std::string new_spec;
  std::vector<FieldView> stored_fields;
  stored.copy_to(stored_fields);
  append_vary_spec(stored_fields, old_spec);
  const bool matchable = append_vary_spec(freshened.fields, new_spec);
  freshened.vary_changed =
      (policy.ignored & kIgnoreVary) == 0 && (!matchable || old_spec != new_spec);

  // Age is never stored, so that of the update is the only one there may be.
  std::string merged_scratch;
  ResponseInfo info =
      read_response(policy, stored.status(), freshened.fields, response_time_ms, merged_scratch);
  info.age_s = update_info.age_s;
  freshened.storable =
      !(info.directives.no_store && !info.directives.must_understand && !policy.store_no_store) &&
      !(info.directives.is_private && !policy.store_private);
  freshened.meta = make_stored_meta(policy, info, request_time_ms, response_time_ms);
  if ((stored_meta.flags & kMetaPartial) != 0) {
    freshened.meta.flags |= kMetaPartial;
    freshened.meta.complete_length = stored_meta.complete_length;
    freshened.meta.range_first = stored_meta.range_first;
    freshened.meta.range_last = stored_meta.range_last;
  }
}

}  // namespace mcs::http
