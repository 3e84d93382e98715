// SPDX-License-Identifier: Apache-2.0
// What the origin answers: stored, passed on, or replaced by what is stored already.
#include <algorithm>
#include <array>
#include <exception>

#include "libglobalcache/api/internal/transaction.h"
#include "libglobalcache/api/policy.h"
#include "libglobalcache/http/field_filter.h"
#include "libglobalcache/http/freshness.h"
#include "libglobalcache/http/key.h"
#include "libglobalcache/http/poisoning.h"
#include "libglobalcache/http/range.h"
#include "libglobalcache/http/storability.h"
#include "libglobalcache/http/validation.h"
#include "libglobalcache/http/vary.h"

namespace mcs::api {
namespace {

using cache::Append;
using cache::Begin;

// Bodies up to this size are copied when their response is freshened; a larger one stays where it
// is, and its new head becomes an entry of its own (docs/decisions/0020-freshening.md). Bytes.
constexpr std::uint64_t kCopiedWhenFreshened = 128 * 1024;
// Pieces of a body are shown to followers as they come, so that whoever comes later need not wait for
// the next one; but a body of unknown length that may well end with this piece is written in one go,
// unless somebody waits already or the origin is slow.
constexpr std::uint64_t kInOneGo = 16 * 1024;
constexpr std::uint64_t kSlowNs = 50000000;

struct Response {
  int status;
  std::vector<http::FieldView> fields;
  http::ResponseInfo info;
  std::string scratch;  // info may point into it
};

void read(Transaction& t, int status, const mcs_field* fields, std::size_t count,
          Response& response) {
  response.status = status;
  response.fields.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    response.fields.push_back({view(fields[i].name), view(fields[i].value)});
  }
  response.info =
      http::read_response(*t.policy, status, response.fields, t.now_ms, response.scratch);
}

// The stored response stands in for one that failed.
bool reply_stale(Transaction& t, int status, mcs_response& reply) {
  t.story.forward_status = status;
  t.story.status = MCS_CACHE_STALE;
  t.story.ttl_s = t.decision.ttl_s;
  const EntryView entry = *t.entry;
  if (reply_from_hit(t, entry, t.story, reply) != Made::kYes) return false;
  t.cache().touch(t.hit);
  count_status(t, MCS_CACHE_STALE, reply.body_length);
  t.fill.abort();
  release_hit(t);
  return true;
}

bool may_be_stale(const Transaction& t, std::uint32_t failure) {
  return t.has_hit && failure != 0 &&
         http::may_serve_stale(*t.policy, t.directives, t.entry->meta(), t.now_ms,
                               static_cast<http::StaleOn>(failure));
}

// The lease of the entry in t.hit, taken now if this transaction has none.
bool lease_hit(Transaction& t) {
  const cache::Key key = t.cache().variant_of(t.key, t.variant);
  if (!t.fill && t.cache().begin(key, t.fill, {}, true) != Begin::kFilling) return false;
  t.fill.rename(key);
  return true;
}

// A newer entry with the same body.
bool store_copy(Transaction& t, std::span<const std::byte> head) {
  std::vector<std::byte> body(t.hit.body_bytes());
  if (!t.cache().read_verified(t.hit, body.data())) return false;
  t.fill.set_head(head, body.size());
  return t.fill.append(body) == Append::kOk && t.fill.commit(t.now_ms);
}

// A newer head beside the entry, which points at it only once it is there.
bool store_override(Transaction& t, std::span<const std::byte> head) {
  t.text.assign("h").append(t.variant);
  cache::Fill fill;
  const cache::Key key = t.cache().variant_of(t.key, t.text);
  if (t.cache().begin(key, fill, {}, true) != Begin::kFilling) return false;
  fill.set_head(head, 0);
  return fill.commit(t.now_ms) &&
         t.cache().set_flag(t.hit.link, cache::EntryWord::kOverridden);
}

// Update what is stored with the fields of a 304 or a HEAD response (RFC 9111 3.2). `head`: the
// entry's new head, whether it could be stored or not.
bool freshen_hit(Transaction& t, const Response& response, std::vector<std::byte>& head) {
  const auto block = http::HeaderBlock::parse(t.entry->block());
  if (!block) return false;
  http::Freshened fresh;
  http::freshen(*t.policy, *block, t.entry->meta(), response.fields, t.request_time_ms, t.now_ms,
                fresh);
  ProxyHead basics;
  basics.server_kind = t.process->server_kind;
  basics.length = t.entry->head().length;
  basics.meta = fresh.meta;
  std::string tags;
  const bool tags_known = append_tags(fresh.fields, tags);
  if (!encode_response(basics, fresh.fields, tags, head)) return false;
  if (!fresh.storable || fresh.vary_changed || !tags_known) {
    t.cache().retire(t.hit.link);
    t.fill.abort();
    return true;
  }
  if (t.hit.body_bytes() <= kCopiedWhenFreshened) {
    if (lease_hit(t) && store_copy(t, head)) t.story.stored = true;
  } else {
    basics.kind = EntryKind::kOverride;
    basics.body = t.hit.link.value;
    std::vector<std::byte> beside;
    if (encode_response(basics, fresh.fields, tags, beside) && store_override(t, beside)) {
      t.story.stored = true;
    }
  }
  t.fill.abort();
  return true;
}

mcs_verdict take_not_modified(Transaction& t, const Response& response, mcs_response& reply) {
  const auto block = http::HeaderBlock::parse(t.entry->block());
  t.story.forward_status = 304;
  std::vector<std::byte> head;
  const bool fits = block && http::match_not_modified(*block, response.fields) ==
                                 http::NotModified::kFreshen;
  if (fits && freshen_hit(t, response, head)) {
    const auto entry = EntryView::parse(head);
    t.story.status = MCS_CACHE_REVALIDATED;
    t.story.ttl_s = (entry->meta().fresh_until_ms - t.now_ms) / 1000;
    const Made made = reply_from_hit(t, *entry, t.story, reply);
    if (made == Made::kYes) {
      t.cache().touch(t.hit);
      count_status(t, MCS_CACHE_REVALIDATED, reply.body_length);
      release_hit(t);
      return MCS_REPLACE;
    }
    if (made == Made::kDamaged) t.process->count(kDamaged);
  }
  // The 304 speaks of something else, or what it speaks of is gone.
  const cache::Link link = t.hit.link;
  release_hit(t);
  t.cache().retire(link);
  t.validating = false;
  reply_generated(t, 502, {}, t.story, reply);
  return MCS_RETRY;
}

void take_head(Transaction& t, const Response& response) {
  const auto block = http::HeaderBlock::parse(t.entry->block());
  if (!block) return;
  switch (http::match_head(*block, t.hit.body_bytes(), response.status, response.fields)) {
    case http::HeadUpdate::kFreshen: {
      std::vector<std::byte> head;
      freshen_hit(t, response, head);
      break;
    }
    case http::HeadUpdate::kInvalidate:
      t.cache().set_flag(t.hit.link, cache::EntryWord::kSoftPurged);
      // A newer head would hide the mark.
      t.text.assign("h").append(t.variant);
      if (t.cache().find(t.cache().variant_of(t.key, t.text), t.other).found ==
          cache::Found::kHit) {
        t.cache().release(t.other);
        t.cache().retire(t.other.link);
      }
      break;
    case http::HeadUpdate::kIgnore:
      break;
  }
}

http::StoreDecision decide_store(Transaction& t, const Response& response) {
  http::Exchange exchange;
  exchange.method = t.method;
  exchange.uri = {view(t.ask.scheme), view(t.ask.host), view(t.ask.target)};
  exchange.request = t.fields;
  exchange.range_sent = t.has_range && !t.stripped;
  exchange.status = response.status;
  exchange.response = response.fields;
  exchange.request_time_ms = t.request_time_ms;
  exchange.response_time_ms = t.now_ms;
  return http::decide_store(*t.policy, exchange, response.info);
}

// The lease under which a response is stored; POST for its own URL is stored under the key of GET.
bool has_lease(Transaction& t, const http::StoreDecision& decision) {
  if (!decision.as_get) return static_cast<bool>(t.fill);
  if ((t.ask.flags & MCS_REQUEST_NO_STORE) != 0) return false;
  t.fill.abort();
  http::KeyRequest request;
  request.scheme = view(t.ask.scheme);
  request.host = view(t.ask.host);
  request.target = view(t.ask.target);
  request.port = port_of(t);
  if (!http::build_key(request, *t.policy, t.primary)) return false;
  make_key(t);
  t.key.asked = &t.purges;
  t.known_specs = false;
  return t.cache().begin(t.key, t.fill, {}, true) == Begin::kFilling;
}

// File the fill where requests that the response matches will look.
bool choose_variant(Transaction& t, const Response& response) {
  std::string spec;
  if (response.info.has_vary && !http::append_vary_spec(response.fields, spec)) return false;
  std::string name;
  if (!spec.empty() || t.known_specs) {
    append_variant_name(t, spec, name);
    if (!remember_spec(t, spec)) return false;
    const std::string_view language = http::field_value(response.fields, "content-language");
    if (!language.empty()) remember_language(t, spec, language);
  }
  if (name != t.fill_variant || t.method == http::Method::kPost) {
    t.fill.rename(t.cache().variant_of(t.key, name));
  }
  return true;
}

bool begin_storing(Transaction& t, const Response& response, const http::StoreDecision& decision) {
  t.largest = largest_object(t.cache(), *t.ask.policy);
  if (t.announced && *t.announced > t.largest) return false;
  if (!choose_variant(t, response)) return false;
  std::array<char, 29> date;
  std::vector<http::FieldView> kept;
  http::select_stored_fields(*t.policy, response.fields, response.info.directives, t.now_ms, date,
                             kept);
  ProxyHead basics;
  basics.server_kind = t.process->server_kind;
  basics.length = t.announced.value_or(kUnknownBody);
  basics.meta = decision.meta;
  std::string tags;
  std::vector<std::byte> head;
  if (!append_tags(response.fields, tags) || !encode_response(basics, kept, tags, head)) {
    return false;
  }
  t.fill.set_head(head, t.announced);
  // Those who wait begin to receive before the body is there.
  if (t.fill.has_waiters()) t.fill.flush();
  return true;
}

// The client's own Range and conditions, which the origin did not see.
bool reply_in_part(Transaction& t, const Response& response, mcs_response& reply) {
  if (!t.stripped || (!t.has_range && !t.has_conditions) || response.status != 200) return false;
  Representation what;
  what.status = response.status;
  what.etag = response.info.etag;
  what.last_modified_ms = response.info.last_modified_ms;
  what.date_ms = response.info.date_ms;
  what.length = t.announced.value_or(kUnknownBody);
  http::RangeSet set;
  Selection selection = select(t, what, set);
  // Several ranges would need a second look at the body, which only a stored one allows.
  if (selection.status == what.status || selection.ranges > 1) return false;
  if (!reply_from_origin(t, response.fields, selection, set, what.length, t.story, reply)) {
    return false;
  }
  t.windowed = true;
  t.window_first = selection.ranges == 1 ? set.ranges[0].first : 0;
  t.window_end = selection.ranges == 1 ? set.ranges[0].last + 1 : 0;
  return true;
}

// Without the fields that belong to the connection to the origin, as the origin sent it.
bool reply_cleaned(Transaction& t, const Response& response, mcs_response& reply) {
  if (!http::must_be_cleaned(response.status, response.fields)) return false;
  Selection selection;
  selection.status = response.status;
  return reply_from_origin(t, response.fields, selection, {}, t.announced.value_or(kUnknownBody),
                           t.story, reply);
}

void settle(Transaction& t, const Response& response, mcs_response& reply) {
  t.story.forward_status = 0;
  if (!reply_in_part(t, response, reply) && !reply_cleaned(t, response, reply)) {
    add_story(t, t.story, reply);
  }
  count_status(t, t.story.status, t.announced.value_or(0));
}

mcs_verdict take(Transaction& t, const Response& response, mcs_response& reply) {
  invalidate(t, response.status, response.fields);
  if (t.has_hit) {
    if (t.validating && response.status == 304) return take_not_modified(t, response, reply);
    if (may_be_stale(t, http::failure_of_status(response.status)) &&
        reply_stale(t, response.status, reply)) {
      return MCS_REPLACE;
    }
    if (t.method == http::Method::kHead) take_head(t, response);
  }
  const http::StoreDecision decision = decide_store(t, response);
  std::uint64_t length = kUnknownBody;
  if (http::check_response_message(response.fields, length) == http::MessageFlaw::kNone &&
      length != kUnknownBody) {
    t.announced = length;
  }
  if (decision.store() && response.status == 206) {
    t.storing = begin_storing_part(t, response.fields, response.info, decision);
    t.story.stored = t.storing;
    if (!t.storing) release_part(t);
  } else if (decision.store() && has_lease(t, decision)) {
    t.storing = begin_storing(t, response, decision);
    t.story.stored = t.storing;
    if (!t.storing) mark_hit_for_miss(t);
  } else if (t.fill && decision.hit_for_miss && t.method != http::Method::kHead) {
    mark_hit_for_miss(t);
  }
  if (!t.storing) t.fill.abort();
  release_hit(t);
  settle(t, response, reply);
  return t.storing ? MCS_STORE : MCS_PASS;
}

void stop_storing(Transaction& t) {
  release_part(t);
  t.storing = false;
  t.fill.abort();
  t.process->count(kFillFailures);
}

void store_bytes(Transaction& t, std::span<const std::byte> bytes) {
  const std::uint64_t total = t.fill.body_bytes() - t.before + bytes.size();
  if (total > t.largest || (t.announced && total > *t.announced)) {
    if (total > t.largest) mark_hit_for_miss(t);
    stop_storing(t);
    return;
  }
  if (t.fill.append(bytes) != Append::kOk) {
    stop_storing(t);
    return;
  }
  const bool goes_on = t.announced ? total < *t.announced : total > kInOneGo;
  const bool show = goes_on || t.fill.has_waiters() || t.fill.is_shown() ||
                    (!t.announced && runtime::monotonic_ns() - t.forwarded_ns > kSlowNs);
  if (show && t.fill.flush() != Append::kOk) stop_storing(t);
}

}  // namespace
}  // namespace mcs::api

using namespace mcs;

extern "C" {

mcs_verdict mcs_origin_response(mcs_transaction* t, int status, const mcs_field* fields,
                                size_t field_count, mcs_response* reply) {
  *reply = mcs_response{};
  reply->file_fd = -1;
  reply->last_modified = -1;
  reply->age = -1;
  reply->cache_status = t->story.status;
  try {
    t->now_ms = t->process->wall_ms();
    api::Response response;
    api::read(*t, status, fields, field_count, response);
    return api::take(*t, response, *reply);
  } catch (const std::exception&) {
    // Out of memory: sent on as it is.
    api::release_part(*t);
    t->storing = false;
    t->windowed = false;
    t->fill.abort();
    mcs_response_release(t->process, reply);
    *reply = mcs_response{};
    return MCS_PASS;
  }
}

int mcs_origin_body(mcs_transaction* t, const void* data, size_t size, mcs_slice* send) {
  if (send != nullptr) {
    *send = {0, size};
    if (t->windowed) {
      const std::uint64_t first = std::max(t->body_at, t->window_first);
      const std::uint64_t end = std::min(t->body_at + size, t->window_end);
      *send = first < end ? mcs_slice{static_cast<std::size_t>(first - t->body_at),
                                      static_cast<std::size_t>(end - first)}
                          : mcs_slice{0, 0};
    }
  }
  t->body_at += size;
  if (!t->storing || size == 0) return t->storing ? 1 : 0;
  try {
    api::store_bytes(*t, {static_cast<const std::byte*>(data), size});
  } catch (const std::exception&) {
    api::stop_storing(*t);
  }
  return t->storing ? 1 : 0;
}

int mcs_origin_end(mcs_transaction* t, int complete) {
  if (!t->storing) return 0;
  t->storing = false;
  try {
    const bool whole =
        complete != 0 && t->fill.body_bytes() >= t->policy->min_object &&
        (!t->announced || t->fill.body_bytes() == t->before + *t->announced) &&
        api::append_rest_of_part(*t);
    if (whole && t->fill.commit(t->process->wall_ms())) return 1;
  } catch (const std::exception&) {
    // Given up below.
  }
  api::release_part(*t);
  t->fill.abort();
  t->process->count(api::kFillFailures);
  return 0;
}

mcs_verdict mcs_origin_failed(mcs_transaction* t, mcs_failure failure, mcs_response* reply) {
  *reply = mcs_response{};
  reply->file_fd = -1;
  reply->last_modified = -1;
  reply->age = -1;
  reply->cache_status = t->story.status;
  try {
    t->now_ms = t->process->wall_ms();
    const std::uint32_t kind = failure == MCS_FAILED_TIMEOUT   ? http::kStaleOnTimeout
                               : failure == MCS_FAILED_INVALID ? http::kStaleOnInvalidHeader
                                                               : http::kStaleOnError;
    if (api::may_be_stale(*t, kind) && api::reply_stale(*t, 0, *reply)) return MCS_REPLACE;
  } catch (const std::exception&) {
    mcs_response_release(t->process, reply);
    reply->status = 0;
  }
  t->storing = false;
  t->fill.abort();
  api::release_hit(*t);
  api::count_status(*t, t->story.status, 0);
  return MCS_PASS;
}

}  // extern "C"
