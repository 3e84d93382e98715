// SPDX-License-Identifier: Apache-2.0
// Finding the response that a request selects, and the small entries beside it.
#include <algorithm>
#include <thread>

#include "libglobalcache/api/internal/transaction.h"
#include "libglobalcache/http/vary.h"

namespace mcs::api {
namespace {

using cache::Begin;
using cache::Found;

// A list of specs has the same key as a response without Vary, but nobody waits for one.
constexpr std::uint64_t kSpecsHash = 0x5be25b1e5bec5a1dULL;
constexpr unsigned kTries = 64;
constexpr unsigned kPinTries = 8;

Found find(Transaction& t, const cache::Key& key, cache::Hit& hit, cache::Link own) {
  cache::FindResult result = t.cache().find(key, hit);
  // A full ledger: pins that are shared are given back at once.
  for (unsigned i = 0; i < kPinTries && result.found == Found::kNoPin; ++i) {
    std::this_thread::yield();
    result = t.cache().find(key, hit);
  }
  if (result.filling.value != 0 && !(result.filling == own)) t.filling = result.filling;
  if (result.found == Found::kNoPin) t.no_pin = true;
  if (result.found == Found::kDamaged) t.process->count(kDamaged);
  return result.found;
}

// The head of a pinned response. Anything else is released and taken out.
std::optional<EntryView> read_response(Transaction& t, cache::Hit& hit) {
  auto entry = EntryView::parse(hit.head);
  if (entry && entry->head().kind == EntryKind::kResponse) return entry;
  t.cache().release(hit);
  t.cache().retire(hit.link);
  return std::nullopt;
}

// A newer head of the response in t.hit, if there is one.
void apply_override(Transaction& t) {
  t.text.assign("h").append(t.variant);
  const cache::Key key = t.cache().variant_of(t.key, t.text);
  if (t.cache().find(key, t.other).found != Found::kHit) return;
  const auto entry = EntryView::parse(t.other.head);
  // Only the head is needed, and that was copied.
  t.cache().touch(t.other);
  t.cache().release(t.other);
  if (!entry || entry->head().kind != EntryKind::kOverride ||
      entry->head().body != t.hit.link.value) {
    return;
  }
  t.entry = entry;
  t.marked_stale = t.other.soft_purged;
}

void take_hit(Transaction& t, const EntryView& entry, std::string_view variant) {
  t.has_hit = true;
  t.entry = entry;
  t.variant.assign(variant);
  t.marked_stale = t.hit.soft_purged;
}

// The spec without accept-language, if it has that and nothing else is wrong with it.
bool without_language(std::string_view spec, std::string& rest) {
  bool found = false;
  while (!spec.empty()) {
    const std::size_t comma = std::min(spec.find(','), spec.size());
    const std::string_view name = spec.substr(0, comma);
    if (name == "accept-language") {
      found = true;
    } else {
      if (!rest.empty()) rest += ',';
      rest += name;
    }
    spec.remove_prefix(std::min(comma + 1, spec.size()));
  }
  return found;
}

// The name of the note that says which variant is in `language` (in lower case).
std::string language_note(const Transaction& t, std::string_view rest_of_spec,
                          std::string_view language) {
  std::string name("l");
  append_variant_name(t, rest_of_spec, name);
  name += '\0';
  name += language;
  return name;
}

// A response in exactly the one language that the request prefers to all others may answer it,
// although their Accept-Language differs (RFC 9111 4.1, http/vary.h).
void look_up_language(Transaction& t, std::string_view spec) {
  std::string rest;
  std::string language;
  if (!without_language(spec, rest) || !http::append_preferred_language(t.fields, language)) return;
  const std::string note = language_note(t, rest, language);
  if (t.cache().find(t.cache().variant_of(t.key, note), t.other).found != Found::kHit) return;
  const auto entry = EntryView::parse(t.other.head);
  t.cache().release(t.other);
  if (!entry || entry->head().kind != EntryKind::kMarker) return;
  const std::string variant(entry->block());
  if (find(t, t.cache().variant_of(t.key, variant), t.other, {}) != Found::kHit) return;
  const auto response = read_response(t, t.other);
  if (!response) return;
  std::swap(t.hit, t.other);
  take_hit(t, *response, variant);
}

// Of the responses that the request selects under different specs, the latest (RFC 9111 4.1).
void look_up_variants(Transaction& t, cache::Link own) {
  std::string_view list = t.specs;
  bool first = true;
  for (std::string_view spec; next_spec(list, spec); first = false) {
    t.text.clear();
    append_variant_name(t, spec, t.text);
    if (first) t.fill_variant = t.text;
    if (find(t, t.cache().variant_of(t.key, t.text), t.other, own) != Found::kHit) continue;
    const auto entry = read_response(t, t.other);
    if (!entry) continue;
    if (t.has_hit && t.entry->meta().date_ms >= entry->meta().date_ms) {
      t.cache().release(t.other);
      continue;
    }
    release_hit(t);
    // Views stay good: swapping vectors moves no bytes.
    std::swap(t.hit, t.other);
    take_hit(t, *entry, t.text);
  }
  list = t.specs;
  for (std::string_view spec; !t.has_hit && next_spec(list, spec);) look_up_language(t, spec);
}

/// Store an entry without a body. hash2 names the fill; `checked` is what Descriptor.checked gets.
bool store_plain(Transaction& t, const cache::Key& key, EntryKind kind, std::string_view block,
                 std::int64_t checked) {
  cache::Fill fill;
  if (t.cache().begin(key, fill, {}, true) != Begin::kFilling) return false;
  ProxyHead head;
  head.kind = kind;
  head.server_kind = t.process->server_kind;
  std::vector<std::byte> bytes;
  encode_plain(head, block, bytes);
  fill.set_head(bytes, 0);
  return fill.commit(checked);
}

// The list of specs as it is now; empty if there is none.
void read_specs(Transaction& t, std::string& list) {
  list.clear();
  if (t.cache().find(t.key, t.other).found != Found::kHit) return;
  const auto entry = EntryView::parse(t.other.head);
  if (entry && entry->head().kind == EntryKind::kSpecs) list = entry->block();
  t.cache().release(t.other);
}

}  // namespace

void release_hit(Transaction& t) {
  if (t.has_hit) t.cache().release(t.hit);
  t.has_hit = false;
  t.entry.reset();
  t.marked_stale = false;
}

void drop_damaged(Transaction& t) {
  t.process->count(kDamaged);
  const cache::Link link = t.hit.link;
  release_hit(t);
  t.cache().retire(link);
}

void append_variant_name(const Transaction& t, std::string_view spec, std::string& name) {
  name += 'v';
  name += spec;
  name += '\0';
  http::append_variant_key(spec, t.fields, name);
}

bool selects(Transaction& t, std::string_view variant) {
  if (variant.empty()) return true;
  const std::size_t end = variant.find('\0');
  if (variant.front() != 'v' || end == std::string_view::npos) return false;
  t.text.clear();
  append_variant_name(t, variant.substr(1, end - 1), t.text);
  return t.text == variant;
}

void look_up(Transaction& t, cache::Link own) {
  release_hit(t);
  t.filling = {};
  t.no_pin = false;
  t.known_specs = false;
  t.fill_variant.clear();
  if (find(t, t.key, t.hit, own) == Found::kHit) {
    const auto entry = EntryView::parse(t.hit.head);
    if (entry && entry->head().kind == EntryKind::kSpecs) {
      t.specs.assign(entry->block());
      t.known_specs = true;
      t.cache().touch(t.hit);
      t.cache().release(t.hit);
      look_up_variants(t, own);
    } else if (entry && entry->head().kind == EntryKind::kResponse) {
      take_hit(t, *entry, {});
    } else {
      t.cache().release(t.hit);
      t.cache().retire(t.hit.link);
    }
  }
  if (t.has_hit && t.hit.overridden) apply_override(t);
}

bool remember_spec(Transaction& t, std::string_view spec) {
  const auto is_newest = [&spec](std::string_view list) {
    std::string_view newest;
    return next_spec(list, newest) && newest == spec;
  };
  cache::Key key = t.key;
  key.hash2 ^= kSpecsHash;
  std::string list;
  for (unsigned attempt = 0; attempt < kTries; ++attempt) {
    read_specs(t, list);
    if (is_newest(list)) return true;
    cache::Fill fill;
    const Begin begun = t.cache().begin(key, fill, {}, true);
    if (begun == Begin::kOther) {
      std::this_thread::yield();
      continue;
    }
    if (begun != Begin::kFilling) return false;
    // Read again now that nobody else can change it.
    read_specs(t, list);
    if (is_newest(list)) return true;
    ProxyHead head;
    head.kind = EntryKind::kSpecs;
    head.server_kind = t.process->server_kind;
    std::vector<std::byte> bytes;
    encode_plain(head, with_spec(list, spec), bytes);
    fill.set_head(bytes, 0);
    return fill.commit(t.now_ms);
  }
  return false;
}

void remember_language(Transaction& t, std::string_view spec, std::string_view content_language) {
  std::string rest;
  if (!without_language(spec, rest)) return;
  std::string language;
  for (const char c : http::trim(content_language)) language += http::to_lower(c);
  if (!http::is_token(language)) return;
  std::string variant;
  append_variant_name(t, spec, variant);
  const std::string note = language_note(t, rest, language);
  store_plain(t, t.cache().variant_of(t.key, note), EntryKind::kMarker, variant, t.now_ms);
}

bool is_hit_for_miss(Transaction& t) {
  if (t.policy->hit_for_miss <= 0) return false;
  const cache::Key key = t.cache().variant_of(t.key, kMissMarker);
  if (t.cache().find(key, t.other).found != Found::kHit) return false;
  const std::int64_t age = t.now_ms - t.other.checked_ms;
  t.cache().release(t.other);
  const std::int64_t limit = t.policy->hit_for_miss * 1000;
  return age < limit && age > -limit && !t.other.soft_purged;
}

void mark_hit_for_miss(Transaction& t) {
  if (t.policy->hit_for_miss <= 0) return;
  const cache::Key key = t.cache().variant_of(t.key, kMissMarker);
  if (t.cache().find(key, t.other).found == Found::kHit) {
    t.cache().set_checked(t.other, t.now_ms);
    t.cache().touch(t.other);
    t.cache().release(t.other);
    return;
  }
  store_plain(t, key, EntryKind::kMarker, {}, t.now_ms);
}

bool count_use(Transaction& t) {
  if (t.policy->min_uses <= 1) return true;
  const cache::Key key = t.cache().variant_of(t.key, kUsesMarker);
  if (t.cache().find(key, t.other).found != Found::kHit) {
    store_plain(t, key, EntryKind::kMarker, {}, 1);
    return false;
  }
  const std::uint64_t uses = 1 + t.cache().count_checked(t.other);
  t.cache().touch(t.other);
  t.cache().release(t.other);
  return uses >= t.policy->min_uses;
}

}  // namespace mcs::api
