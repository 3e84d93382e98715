// SPDX-License-Identifier: Apache-2.0
// Parts of representations: 206 responses, stored and combined (RFC 9111 3.3, 3.4).
//
// A request for a part usually fetches the whole, which then answers everybody. Where the whole is
// known not to be storable (it is larger than the largest object, say), ranges go to the origin as
// they are, and a part that comes back is stored by itself: one stretch of bytes for each variant,
// under a name of its own ("p" before the variant's, internal/entry.h), so that nothing that looks
// for a response can find it. A part that touches or overlaps the one that is there is stored together
// with it, as one new entry whose body is written in order: what is there before it, what comes from
// the origin, what is there after it. Until that entry is sealed the old one answers, and if its
// writer dies the old one stays. A stretch that has become the whole is stored as a response.
#include <algorithm>
#include <array>

#include "libglobalcache/api/internal/transaction.h"
#include "libglobalcache/api/policy.h"
#include "libglobalcache/http/field_filter.h"
#include "libglobalcache/http/vary.h"

namespace mcs::api {
namespace {

using cache::Append;
using cache::Begin;
using cache::Found;
using http::ByteRange;

constexpr std::size_t kPiece = 65536;
// What is joined is copied before the client gets its bytes; the new part itself may always be as much.
constexpr std::uint64_t kMostCopied = 1U << 20;

ByteRange held_by(const http::StoredMeta& meta) { return {meta.range_first, meta.range_last}; }

// The part in a pinned entry. Anything else under that name is released and taken out.
std::optional<EntryView> read_part(Transaction& t, cache::Hit& hit) {
  const auto entry = EntryView::parse(hit.head);
  if (entry && entry->head().kind == EntryKind::kPartial &&
      (entry->meta().flags & http::kMetaPartial) != 0 &&
      entry->meta().range_first <= entry->meta().range_last &&
      entry->meta().range_last < entry->meta().complete_length &&
      held_by(entry->meta()).length() == hit.body_bytes()) {
    return entry;
  }
  t.cache().release(hit);
  t.cache().retire(hit.link);
  return std::nullopt;
}

bool can_answer(const Transaction& t, const EntryView& entry) {
  http::RangeSet set;
  const Selection selection = select(t, represent(entry, entry.meta().complete_length), set);
  if (selection.status == 304) return true;
  const ByteRange held = held_by(entry.meta());
  return selection.status == 206 && selection.ranges == 1 && set.ranges[0].first >= held.first &&
         set.ranges[0].last <= held.last;
}

// Copies [from, to) of the pinned part's body to the end of the fill.
bool append_stored(Transaction& t, std::uint64_t from, std::uint64_t to) {
  std::vector<std::byte> piece;
  while (from < to) {
    piece.resize(std::min<std::uint64_t>(kPiece, to - from));
    if (!t.cache().read_body(t.part, from, piece.data(), piece.size()) ||
        t.fill.append(piece) != Append::kOk) {
      return false;
    }
    from += piece.size();
  }
  // Else it may have been other bytes already.
  return t.cache().is_held(t.part);
}

enum class Neighbour { kNone, kJoins, kStays };

// The stored part that the new one can be joined to, pinned in t.part. kStays: what is stored is better
// than the new one, and too much to be copied.
Neighbour find_neighbour(Transaction& t, const cache::Key& key, const ByteRange& added,
                         std::string_view etag, std::uint64_t complete, ByteRange& joined) {
  if (t.cache().find(key, t.part).found != Found::kHit) return Neighbour::kNone;
  const auto entry = read_part(t, t.part);
  if (!entry) return Neighbour::kNone;
  t.has_part = true;
  const ByteRange held = held_by(entry->meta());
  const bool touches = held.first <= added.last + 1 && added.first <= held.last + 1;
  joined = {std::min(held.first, added.first), std::max(held.last, added.last)};
  const bool fits = touches && !t.part.soft_purged && joined.length() <= t.largest &&
                    http::may_combine(etag, complete, entry->etag(), entry->meta().complete_length);
  const bool dear = held.length() > std::max(kMostCopied, added.length());
  // Its bytes get a new checksum: they must be what the old one stands for.
  if (fits && !dear && t.cache().verify_body(t.part)) return Neighbour::kJoins;
  release_part(t);
  return fits && dear ? Neighbour::kStays : Neighbour::kNone;
}

// What the new part does not say again holds on (RFC 9111 3.4).
bool keep_fields_of_part(Transaction& t, std::vector<http::FieldView>& kept, std::string& tags) {
  const auto entry = EntryView::parse(t.part.head);
  const auto block = entry ? http::HeaderBlock::parse(entry->block()) : std::nullopt;
  if (!block) return false;
  const std::size_t said = kept.size();
  for (const http::FieldView field : *block) {
    const bool again = std::any_of(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(said),
                                   [&](const http::FieldView& other) {
                                     return http::equals_ignore_case(other.name, field.name);
                                   });
    if (!again) kept.push_back(field);
  }
  if (!entry->tags().empty()) tags.append(entry->tags().substr(tags.empty() ? 0 : 1));
  return true;
}

bool asks_if_range(const Transaction& t) {
  return std::any_of(t.fields.begin(), t.fields.end(), [](const http::FieldView& field) {
    return http::field_id(field.name) == http::FieldId::kIfRange;
  });
}

}  // namespace

void release_part(Transaction& t) {
  if (t.has_part) t.cache().release(t.part);
  t.has_part = false;
}

bool answer_with_part(Transaction& t, mcs_response& out) {
  t.part_of = 0;
  if (!t.policy->partial || !t.has_range || t.has_hit || t.method != http::Method::kGet) {
    return false;
  }
  t.text.assign("p").append(t.fill_variant);
  if (t.cache().find(t.cache().variant_of(t.key, t.text), t.hit).found != Found::kHit) return false;
  const auto entry = read_part(t, t.hit);
  if (!entry) return false;
  t.has_hit = true;
  t.entry = entry;
  t.part_of = entry->meta().complete_length;
  const http::ReuseDecision decision = http::evaluate_reuse(
      *t.policy, t.method, t.directives, entry->meta(), t.now_ms, t.hit.soft_purged);
  if (decision.verdict == http::Reuse::kHit && can_answer(t, *entry)) {
    t.decision.ttl_s = decision.ttl_s;
    if (answer(t, MCS_CACHE_HIT, out)) return true;
  }
  release_hit(t);
  return false;
}

bool begin_storing_part(Transaction& t, http::Fields response, const http::ResponseInfo& info,
                        const http::StoreDecision& decision) {
  if (!t.wants_part || (t.ask.flags & MCS_REQUEST_NO_STORE) != 0) return false;
  t.largest = largest_object(t.cache(), *t.ask.policy);
  const http::StoredMeta& meta = decision.meta;
  const ByteRange added = held_by(meta);
  if ((meta.flags & http::kMetaPartial) == 0 || added.length() > t.largest) return false;
  std::string spec;
  std::string variant;
  if (info.has_vary && !http::append_vary_spec(response, spec)) return false;
  if (!spec.empty() || t.known_specs) {
    append_variant_name(t, spec, variant);
    if (!remember_spec(t, spec)) return false;
  }
  const std::string name = "p" + variant;
  const cache::Key key = t.cache().variant_of(t.key, name);
  ByteRange joined = added;
  const Neighbour found = find_neighbour(t, key, added, info.etag, meta.complete_length, joined);
  const bool joins = found == Neighbour::kJoins;
  // Alone it lacks the fields that its client has already (RFC 9110 15.3.7).
  if (found == Neighbour::kStays || (!joins && asks_if_range(t))) return false;
  if (!joins) joined = added;
  const bool whole = joined.length() == meta.complete_length;
  t.fill.abort();
  if (t.cache().begin(whole ? t.cache().variant_of(t.key, variant) : key, t.fill, {}, true) !=
      Begin::kFilling) {
    return false;
  }

  std::array<char, 29> date;
  std::vector<http::FieldView> kept;
  http::select_stored_fields(*t.policy, response, info.directives, t.now_ms, date, kept);
  std::erase_if(kept, [](const http::FieldView& field) {
    return http::field_id(field.name) == http::FieldId::kContentRange;
  });
  ProxyHead basics;
  basics.kind = whole ? EntryKind::kResponse : EntryKind::kPartial;
  basics.server_kind = t.process->server_kind;
  basics.length = joined.length();
  basics.meta = meta;
  basics.meta.status = 200;
  basics.meta.range_first = whole ? 0 : joined.first;
  basics.meta.range_last = whole ? 0 : joined.last;
  if (whole) {
    basics.meta.flags &= ~http::kMetaPartial;
    basics.meta.complete_length = 0;
  }
  std::string tags;
  std::vector<std::byte> head;
  if (!append_tags(response, tags) || (joins && !keep_fields_of_part(t, kept, tags)) ||
      !encode_response(basics, kept, tags, head)) {
    return false;
  }
  t.fill.set_head(head, joined.length());

  t.announced = added.length();
  t.before = joins ? added.first - joined.first : 0;
  if (!joins) return true;
  if (!append_stored(t, 0, t.before)) return false;
  if (joined.last == added.last) {
    release_part(t);
  } else {
    // What follows in the stored body: it ends where the joined stretch ends.
    t.part_rest = t.part.body_bytes() - (joined.last - added.last);
  }
  return true;
}

bool append_rest_of_part(Transaction& t) {
  if (!t.has_part) return true;
  const bool appended = append_stored(t, t.part_rest, t.part.body_bytes());
  release_part(t);
  return appended;
}

}  // namespace mcs::api
