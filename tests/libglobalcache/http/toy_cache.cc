// SPDX-License-Identifier: Apache-2.0
#include "tests/libglobalcache/http/toy_cache.h"

#include <algorithm>

#include "libglobalcache/http/cache_status.h"
#include "libglobalcache/http/conditional.h"
#include "libglobalcache/http/field_filter.h"
#include "libglobalcache/http/header_block.h"
#include "libglobalcache/http/invalidation.h"
#include "libglobalcache/http/key.h"
#include "libglobalcache/http/poisoning.h"
#include "libglobalcache/http/range.h"
#include "libglobalcache/http/storability.h"
#include "libglobalcache/http/validation.h"
#include "libglobalcache/http/vary.h"

namespace mcs::http::testing {
namespace {

constexpr std::string_view kScheme = "http";

OwnedFields owned(Fields fields) {
  OwnedFields result;
  for (const FieldView& field : fields) {
    result.emplace_back(std::string(field.name), std::string(trim(field.value)));
  }
  return result;
}

std::string write_block(int status, Fields fields) {
  std::string block(header_block_size(fields), '\0');
  return write_header_block(status, fields, block) ? block : std::string();
}

}  // namespace

std::vector<FieldView> views(const OwnedFields& fields) {
  std::vector<FieldView> result;
  for (const auto& [name, value] : fields) result.push_back({name, value});
  return result;
}

std::optional<std::string> joined(const OwnedFields& fields, std::string_view name) {
  std::optional<std::string> result;
  for (const auto& [field, value] : fields) {
    if (!equals_ignore_case(field, name)) continue;
    result = result ? *result + ", " + value : value;
  }
  return result;
}

// What is known of one request while it is handled.
struct ToyCache::Exchange {
  explicit Exchange(const Request& from, std::int64_t now)
      : request(from),
        method(parse_method(from.method)),
        fields(views(from.fields)),
        directives(parse_request_directives(fields)),
        host(field_value(fields, "host")),
        now_ms(now) {}

  RequestUri uri() const { return {kScheme, host, request.target}; }

  const Request& request;
  Method method;
  std::vector<FieldView> fields;
  RequestDirectives directives;
  std::string_view host;
  std::int64_t now_ms;
  std::string key;
  bool has_key = false;
  CacheStatus status;
};

ToyCache::Entry* ToyCache::find(const std::string& key, Fields request, bool& other_variants) {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return nullptr;
  other_variants = !found->second.empty();
  for (Entry& entry : found->second) {
    std::string variant_key;
    append_variant_key(entry.spec, request, variant_key);
    if (variant_key == entry.variant_key) return &entry;
  }
  // RFC 9111 4.1: what was stored for another Accept-Language may be the best answer all the same.
  for (Entry& entry : found->second) {
    if (entry.spec != "accept-language") continue;
    const auto block = HeaderBlock::parse(entry.block);
    if (prefers_stored_language(request, block->value("content-language"))) return &entry;
  }
  return nullptr;
}

Answer ToyCache::handle(const Request& request, std::int64_t now_ms) {
  Exchange exchange(request, now_ms);
  exchange.status.cache_name = policy_.cache_status_name;
  exchange.has_key =
      build_key({{}, kScheme, exchange.host, request.target, Method::kGet}, policy_, exchange.key)
          .has_value();
  ReuseDecision decision;
  bool other_variants = false;
  Entry* entry = nullptr;
  if (exchange.has_key && is_get_or_head(exchange.method)) {
    entry = find(exchange.key, exchange.fields, other_variants);
  }
  if (entry != nullptr) {
    decision = evaluate_reuse(policy_, exchange.method, exchange.directives, entry->meta, now_ms,
                              entry->marked_stale);
  } else {
    decision = evaluate_absent(policy_, exchange.method, exchange.directives,
                               other_variants ? Forward::kVaryMiss : Forward::kUriMiss);
  }
  switch (decision.verdict) {
    case Reuse::kHit:
    case Reuse::kHitStale:
      return from_entry(exchange, *entry, decision);
    case Reuse::kGatewayTimeout:
      return {{504, {}, ""}, "", false};
    default:
      return forward(exchange, entry, decision);
  }
}

// Sends a stored response: Age, preconditions, ranges.
Answer ToyCache::from_entry(const Exchange& exchange, const Entry& entry,
                            const ReuseDecision& decision) {
  const HeaderBlock block = HeaderBlock::parse(entry.block).value();
  std::vector<FieldView> fields;
  block.copy_to(fields);
  Answer answer;
  answer.refresh_in_background = decision.refresh_in_background;
  answer.response = {block.status(), owned(fields), entry.body};
  answer.response.fields.emplace_back("Age", std::to_string(decision.age_s));
  CacheStatus status = exchange.status;
  status.hit = status.forward == Forward::kNone;
  status.ttl_s = decision.ttl_s;
  append_cache_status(status, answer.cache_status);

  const Validators validators{block.value("etag"), entry.meta.last_modified_ms, entry.meta.date_ms};
  switch (evaluate_preconditions(exchange.method, exchange.fields, block.status(), validators,
                                 exchange.now_ms)) {
    case Precondition::kNotModified:
      answer.response.status = 304;
      answer.response.body.clear();
      std::erase_if(answer.response.fields,
                    [](const auto& field) { return !is_sent_with_304(field_id(field.first)); });
      return answer;
    case Precondition::kFailed:
      answer.response = {412, {}, ""};
      return answer;
    case Precondition::kProceed:
      break;
  }
  const FieldView* range = find_field(exchange.fields, "range");
  if (range != nullptr && exchange.method == Method::kGet && block.status() == 200 &&
      range_applies(exchange.fields, validators, exchange.now_ms)) {
    const RangeSet set = parse_range(range->value, entry.body.size(), policy_.max_ranges);
    if (set.result == RangeResult::kUnsatisfiable) {
      answer.response = {416, {}, ""};
      append_unsatisfied_range(entry.body.size(),
                               answer.response.fields.emplace_back("Content-Range", "").second);
    } else if (set.count == 1) {
      const ByteRange& only = set.ranges[0];
      answer.response.status = 206;
      answer.response.body = entry.body.substr(only.first, only.length());
      append_content_range(only, entry.body.size(),
                           answer.response.fields.emplace_back("Content-Range", "").second);
    }
  }
  if (exchange.method == Method::kHead) answer.response.body.clear();
  return answer;
}

Answer ToyCache::forward(Exchange& exchange, Entry* entry, const ReuseDecision& decision) {
  exchange.status.forward = decision.forward;
  Request sent{exchange.request.method, exchange.request.target, {}};
  const bool fills = exchange.method == Method::kGet && exchange.has_key && decision.store_response;
  const bool validates = fills && entry != nullptr;
  for (const auto& field : exchange.request.fields) {
    if (!fills || !is_stripped_on_fill(field_id(field.first))) sent.fields.push_back(field);
  }
  if (validates) {
    const HeaderBlock block = HeaderBlock::parse(entry->block).value();
    const ValidationFields added = validation_fields(policy_, block);
    for (const FieldView& field : added.view()) {
      sent.fields.emplace_back(std::string(field.name), std::string(field.value));
    }
  }
  std::optional<Response> response = origin_(sent);
  const std::uint32_t failure =
      response ? failure_of_status(response->status) : std::uint32_t{kStaleOnError};
  if (entry != nullptr && failure != 0 &&
      may_serve_stale(policy_, exchange.directives, entry->meta, exchange.now_ms,
                      static_cast<StaleOn>(failure))) {
    ReuseDecision stale = decision;
    stale.age_s = age_to_send(entry->meta, exchange.now_ms);
    return from_entry(exchange, *entry, stale);
  }
  if (!response) return {{502, {}, ""}, "", false};
  if (validates && response->status == 304) {
    const HeaderBlock block = HeaderBlock::parse(entry->block).value();
    const auto fields = views(response->fields);
    if (match_not_modified(block, fields) == NotModified::kFreshen &&
        update(exchange, *entry, *response)) {
      exchange.status.forward_status = 304;
      ReuseDecision fresh = decision;
      fresh.age_s = age_to_send(entry->meta, exchange.now_ms);
      return from_entry(exchange, *entry, fresh);
    }
    std::erase_if(sent.fields,
                  [](const auto& field) { return is_stripped_on_fill(field_id(field.first)); });
    response = origin_(sent);
    if (!response) return {{502, {}, ""}, "", false};
  }
  if (exchange.method == Method::kHead && entry != nullptr) {
    const HeaderBlock block = HeaderBlock::parse(entry->block).value();
    const auto fields = views(response->fields);
    switch (match_head(block, entry->body.size(), response->status, fields)) {
      case HeadUpdate::kFreshen:
        update(exchange, *entry, *response);
        break;
      case HeadUpdate::kInvalidate:
        entry->marked_stale = true;
        break;
      case HeadUpdate::kIgnore:
        break;
    }
  }
  return finish(exchange, std::move(*response), decision.store_response);
}

// A response that came from the origin as a whole.
Answer ToyCache::finish(Exchange& exchange, Response response, bool may_store) {
  invalidate(exchange, response);
  exchange.status.stored = may_store && exchange.has_key && store(exchange, response);
  Answer answer;
  append_cache_status(exchange.status, answer.cache_status);
  if (exchange.status.stored && is_get_or_head(exchange.method)) {
    // Preconditions and ranges of the client were not sent on, so they are evaluated here.
    bool ignored = false;
    const Entry* entry = find(exchange.key, exchange.fields, ignored);
    ReuseDecision decision;
    decision.age_s = age_to_send(entry->meta, exchange.now_ms);
    return from_entry(exchange, *entry, decision);
  }
  answer.response = std::move(response);
  return answer;
}

bool ToyCache::store(Exchange& exchange, const Response& response) {
  const auto response_fields = views(response.fields);
  http::Exchange facts;
  facts.method = exchange.method;
  facts.uri = exchange.uri();
  facts.request = exchange.fields;
  facts.status = response.status;
  facts.response = response_fields;
  facts.request_time_ms = facts.response_time_ms = exchange.now_ms;
  std::string scratch;
  const ResponseInfo info =
      read_response(policy_, response.status, response_fields, exchange.now_ms, scratch);
  const StoreDecision decision = decide_store(policy_, facts, info);
  if (!decision.store()) {
    exchange.status.detail = describe(decision.reason);
    return false;
  }
  std::array<char, 29> date;
  std::vector<FieldView> selected;
  select_stored_fields(policy_, response_fields, info.directives, exchange.now_ms, date, selected);
  Entry entry;
  append_vary_spec(selected, entry.spec);
  append_variant_key(entry.spec, exchange.fields, entry.variant_key);
  entry.block = write_block(response.status, selected);
  entry.body = response.body;
  entry.meta = decision.meta;
  std::vector<Entry>& variants = entries_[exchange.key];
  std::erase_if(variants, [&](const Entry& old) {
    return old.spec == entry.spec && old.variant_key == entry.variant_key;
  });
  variants.push_back(std::move(entry));
  return true;
}

bool ToyCache::update(Exchange& exchange, Entry& entry, const Response& response) {
  const HeaderBlock block = HeaderBlock::parse(entry.block).value();
  const auto fields = views(response.fields);
  Freshened freshened;
  freshen(policy_, block, entry.meta, fields, exchange.now_ms, exchange.now_ms, freshened);
  entry.block = write_block(block.status(), freshened.fields);
  entry.meta = freshened.meta;
  entry.marked_stale = false;
  return true;
}

void ToyCache::invalidate(const Exchange& exchange, const Response& response) {
  const auto fields = views(response.fields);
  const InvalidationTargets targets =
      invalidation_targets(exchange.method, exchange.uri(), response.status, fields);
  for (const std::string& target : targets.view()) {
    std::string key;
    if (build_key({{}, kScheme, exchange.host, target, Method::kGet}, policy_, key)) {
      entries_.erase(key);
    }
  }
}

}  // namespace mcs::http::testing
