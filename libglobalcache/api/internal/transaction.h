// SPDX-License-Identifier: Apache-2.0
// One proxied request from its lookup to its end: what mcs_transaction stands for.
//
// Everything here is private to one process and thread. What a transaction holds in shared memory is
// a pin on what is stored (hit), the lease of a fill (fill) or a pin on somebody else's (follow); if
// the process dies, the recoverer gives all three back from the instance's slot.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "libglobalcache/api/internal/entry.h"
#include "libglobalcache/api/process.h"
#include "libglobalcache/api/purge.h"
#include "libglobalcache/cache/checksum.h"
#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/globalcache.h"
#include "libglobalcache/http/cache_control.h"
#include "libglobalcache/http/field.h"
#include "libglobalcache/http/policy.h"
#include "libglobalcache/http/range.h"
#include "libglobalcache/http/reuse.h"
#include "libglobalcache/http/storability.h"

namespace mcs::api {

inline std::string_view view(const mcs_str& s) { return {s.data, s.size}; }

/// What Cache-Status and the counters say about a request.
struct Story {
  mcs_cache_status status = MCS_CACHE_MISS;
  http::Forward forward = http::Forward::kNone;  // kNone: answered from the cache
  int forward_status = 0;
  bool stored = false;
  bool collapsed = false;
  std::optional<std::int64_t> ttl_s;
};

}  // namespace mcs::api

struct mcs_transaction {
  mcs_process* process = nullptr;
  mcs_request ask{};

  // --- the request
  const mcs::http::CachePolicy* policy = nullptr;
  mcs::http::Method method = mcs::http::Method::kGet;
  std::vector<mcs::http::FieldView> fields;
  mcs::http::RequestDirectives directives;
  bool has_range = false;
  bool has_conditions = false;
  bool has_body = false;
  bool has_connection = false;
  bool wants_websocket = false;
  std::string primary;  // key; empty: none
  mcs::cache::Key key;  // of primary, without variant
  std::int64_t now_ms = 0;

  // --- what is stored
  bool has_hit = false;
  mcs::cache::Hit hit;
  mcs::cache::Hit other;                   // a second entry, never kept pinned
  std::optional<mcs::api::EntryView> entry;  // of hit, or of what overrides its head
  bool marked_stale = false;
  bool no_pin = false;
  std::uint64_t part_of = 0;  // a part of a representation of so many bytes is stored
  bool known_specs = false;
  std::string specs;
  std::string variant;       // of hit
  std::string fill_variant;  // what a response would be stored under, as far as is known
  std::string text;          // scratch
  mcs::cache::Link filling;  // somebody else's fill

  // --- the exchange with the origin
  mcs::http::ReuseDecision decision;
  mcs::api::Story story;
  mcs::cache::Fill fill;
  bool validating = false;  // the stored validators went to the origin
  bool stripped = false;    // the client's own Range and conditions did not
  bool storing = false;
  bool counted = false;
  std::int64_t request_time_ms = 0;
  mcs::cache::PurgeMarks purges;  // when the origin was asked
  std::uint64_t forwarded_ns = 0;  // the same on the monotonic clock
  std::uint64_t largest = 0;
  std::uint64_t body_at = 0;  // bytes of the origin's body so far
  bool windowed = false;      // only [window_first, window_end) of them goes to the client
  std::uint64_t window_first = 0;
  std::uint64_t window_end = 0;
  std::optional<std::uint64_t> announced;  // Content-Length

  // --- parts
  bool wants_part = false;      // a 206 may be stored
  bool has_part = false;        // `part` is pinned: the bytes from part_rest follow the origin's
  mcs::cache::Hit part;
  std::uint64_t part_rest = 0;
  std::uint64_t before = 0;     // bytes of the fill's body that came before the origin's

  // --- waiting and following
  std::uint64_t wait_until_ns = 0;  // 0: has not waited yet
  std::uint64_t brief_until_ns = 0;  // without a place; 0: always had one
  mcs::cache::Link waited_for;
  std::uint64_t waited_progress = 0;
  std::uint64_t waited_since_ns = 0;
  bool registered = false;
  bool has_place = false;  // of take_place
  bool last_try = false;
  bool following = false;
  mcs::cache::Follow follow;
  std::uint64_t follow_at = 0;   // next byte of the representation to read
  std::uint64_t follow_from = 0;  // first one that was read
  std::uint64_t follow_end = 0;   // one past the last to be sent; kUnknownBody: all there is
  mcs::cache::Checksum follow_sum;  // over what was read
  std::vector<std::byte> follow_head;  // of the fill whose fields were sent
  std::uint64_t follow_until_ns = 0;   // when looking for another fill ends; 0: not begun

  void* alloc(std::size_t n) const { return ask.alloc(ask.alloc_context, n); }
  mcs::cache::GlobalCache& cache() const { return *process->cache; }
};

namespace mcs::api {

using Transaction = mcs_transaction;

/// Of the server that was asked; 0: unknown.
inline std::uint16_t port_of(const Transaction& t) {
  return static_cast<std::uint16_t>(t.ask.flags >> 16);
}

// --- request.cc
/// Fill in the request's part. False: it has no key (unsafe methods, malformed targets).
bool read_request(Transaction& t);
/// From t.primary.
void make_key(Transaction& t);

// --- lookup.cc
/// Find what is stored for the request and who is filling it, apart from `own`. What was found
/// before is released.
void look_up(Transaction& t, cache::Link own = {});
/// Let go of what is stored.
void release_hit(Transaction& t);
/// The stored response is damaged: it is taken out.
void drop_damaged(Transaction& t);
/// The variant name of a response selected by `spec` for this request, appended to `name`.
void append_variant_name(const Transaction& t, std::string_view spec, std::string& name);
/// Whether a variant name (the end of a whole key) is one this request would select.
bool selects(Transaction& t, std::string_view variant);
/// Remember that responses to this key have this spec. False: it could not be stored.
bool remember_spec(Transaction& t, std::string_view spec);
/// A response with this spec that is being stored is in one language: others who prefer that to all
/// others may get it too.
void remember_language(Transaction& t, std::string_view spec, std::string_view content_language);
/// Not storable a moment ago: requests do not wait for each other.
bool is_hit_for_miss(Transaction& t);
void mark_hit_for_miss(Transaction& t);
/// Count this request for policy.min_uses. True: there have been enough.
bool count_use(Transaction& t);

// --- reply.cc
/// What of a representation answers a request.
struct Selection {
  int status = 200;
  bool body = true;            // false: HEAD, 304, 412, 416
  bool only_with_304 = false;  // fields
  std::uint8_t ranges = 0;     // how many of `range` are to be sent; 0: all of it
  bool unsatisfied = false;
};
struct Representation {
  int status = 200;
  std::string_view etag;
  std::int64_t last_modified_ms = http::kNoTime;
  std::int64_t date_ms = http::kNoTime;
  std::uint64_t length = kUnknownBody;
};
Representation represent(const EntryView& entry, std::uint64_t length);
/// Preconditions, then ranges (RFC 9110 13.2.2). `set` receives the ranges.
Selection select(const Transaction& t, const Representation& what, http::RangeSet& set);

enum class Made { kYes, kDamaged, kNoMemory };
/// The response made of a stored entry: `entry` gives the fields, t.hit the body and its pin.
Made reply_from_hit(Transaction& t, const EntryView& entry, const Story& story, mcs_response& out);
/// Fields and status only, for a body that is still arriving or none.
bool reply_head(Transaction& t, const EntryView& entry, const Selection& selection,
                const http::RangeSet& set, std::uint64_t length, const Story& story,
                mcs_response& out);
/// A reply with the origin's fields but another status.
bool reply_from_origin(Transaction& t, http::Fields fields, const Selection& selection,
                       const http::RangeSet& set, std::uint64_t length, const Story& story,
                       mcs_response& out);
/// A response of our own, without fields.
bool reply_generated(Transaction& t, int status, std::string_view body, const Story& story,
                     mcs_response& out);
/// Cache-Status only, for a response that is sent as the origin made it.
void add_story(Transaction& t, const Story& story, mcs_response& out);

// --- transaction.cc
/// Answer from what is stored; false: it was damaged, look again.
bool answer(Transaction& t, mcs_cache_status status, mcs_response& out);
void count_status(Transaction& t, mcs_cache_status status, std::uint64_t bytes);

// --- partial.cc
/// Answer a request for a part from what is stored of it. False: it cannot be; t.part_of is set if
/// the representation is known to be stored in part only.
bool answer_with_part(Transaction& t, mcs_response& out);
/// A 206 that may be stored: begin a fill that ends as it and what is stored beside it.
bool begin_storing_part(Transaction& t, http::Fields response, const http::ResponseInfo& info,
                        const http::StoreDecision& decision);
/// Its body has arrived: add what follows it. False: the fill is worth nothing.
bool append_rest_of_part(Transaction& t);
void release_part(Transaction& t);

// --- following.cc
enum class Joined { kFollow, kResponse, kWaitForEnd, kNotForUs, kUnusable, kGone };
/// Try to answer from a fill in progress whose head can be read.
Joined join_fill(Transaction& t, cache::Link filling, mcs_response& out);
void release_follow(Transaction& t);

// --- purge.cc
/// A PURGE request (policy.purge is on).
mcs_outcome answer_purge(Transaction& t, mcs_response& out);
/// What an unsafe request made invalid (RFC 9111 4.4).
void invalidate(Transaction& t, int status, http::Fields response);

}  // namespace mcs::api
