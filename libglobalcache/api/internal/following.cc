// SPDX-License-Identifier: Apache-2.0
// Responses from a fill that is still in progress, and what happens when it breaks off.
//
// A follower keeps a checksum of what it has read. It stands for the bytes when a broken fill is
// continued from another one: only a body that begins with the same bytes is the same body.
#include <algorithm>
#include <exception>
#include <utility>

#include "libglobalcache/api/internal/transaction.h"
#include "libglobalcache/http/freshness.h"

namespace mcs::api {
namespace {

using cache::Following;

constexpr std::uint64_t kNsPerMs = 1000000;
constexpr std::size_t kHashChunk = 32768;

bool is_usable(const http::ReuseDecision& decision) {
  return decision.verdict == http::Reuse::kHit || decision.verdict == http::Reuse::kHitStale;
}

// Whether the entry that is being filled is a response this request selects.
bool is_for(Transaction& t, std::string_view whole_key) {
  return whole_key.substr(0, t.primary.size()) == t.primary &&
         selects(t, whole_key.substr(t.primary.size()));
}

void begin_following(Transaction& t, std::uint64_t from, std::uint64_t end) {
  t.following = true;
  t.follow_from = t.follow_at = from;
  t.follow_end = end;
  t.follow_sum.reset();
  t.follow_head.assign(t.follow.head().begin(), t.follow.head().end());
}

// The same representation: what was promised to the client holds for it as well.
bool is_same(const EntryView& a, const EntryView& b) {
  return a.meta().status == b.meta().status && a.etag() == b.etag() &&
         a.last_modified() == b.last_modified() &&
         a.value(a.head().content_type) == b.value(b.head().content_type) &&
         a.head().length == b.head().length;
}

enum class Prefix { kSame, kDifferent, kNotYet };

// Compares what was read before with the same part of the new body.
Prefix compare_prefix(Transaction& t) {
  std::uint64_t bytes = 0;
  const Following state = t.cache().follow_state(t.follow, bytes);
  if (state == Following::kBroken) return Prefix::kDifferent;
  if (bytes < t.follow_at) {
    return state == Following::kComplete ? Prefix::kDifferent : Prefix::kNotYet;
  }
  cache::Checksum sum;
  std::vector<std::byte> buffer(kHashChunk);
  for (std::uint64_t at = t.follow_from; at < t.follow_at;) {
    const std::size_t n = std::min<std::uint64_t>(buffer.size(), t.follow_at - at);
    if (!t.cache().follow_read(t.follow, at, buffer.data(), n)) return Prefix::kDifferent;
    sum.update(std::span(buffer).first(n));
    at += n;
  }
  return sum.value() == t.follow_sum.value() ? Prefix::kSame : Prefix::kDifferent;
}

// Wait for more of the fill `link`. False: there is more already, look again.
bool wait_for_more(Transaction& t, cache::Link link, std::uint64_t seen, std::uint32_t limit_ms) {
  if (t.ask.waiter != nullptr) {
    t.registered = register_waiter(*t.process, t.ask.waiter, {link, seen});
    return t.registered;
  }
  const std::uint64_t now = runtime::monotonic_ns();
  wait_blocking(*t.process, {link, seen}, now + limit_ms * kNsPerMs);
  return t.cache().fill_progress(link) == seen;
}

std::uint32_t lock_timeout_ms(const Transaction& t) {
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(t.policy->lock_timeout_ms, 1, 600000));
}

// The end of the body has been read: it counts only if the whole of it is what was stored.
bool ends_well(Transaction& t) {
  if (t.follow_from != 0 || t.follow_end != kUnknownBody) return true;
  return t.follow_sum.value() == t.cache().follow_sum(t.follow);
}

mcs_follow read(Transaction& t, void* to, std::size_t size, std::size_t& got) {
  for (;;) {
    std::uint64_t bytes = 0;
    const Following state = t.cache().follow_state(t.follow, bytes);
    if (state == Following::kBroken) return MCS_FOLLOW_BROKEN;
    const bool complete = state == Following::kComplete;
    const std::uint64_t end = std::min(bytes, t.follow_end);
    if (t.follow_at < end) {
      got = std::min<std::uint64_t>(size, end - t.follow_at);
      if (!t.cache().follow_read(t.follow, t.follow_at, to, got)) return MCS_FOLLOW_BROKEN;
      t.follow_sum.update({static_cast<const std::byte*>(to), got});
      t.follow_at += got;
      // Before the last bytes are given out: a promised length must not be fulfilled with wrong ones.
      if (complete && t.follow_at == bytes && !ends_well(t)) return MCS_FOLLOW_BROKEN;
      return MCS_FOLLOW_DATA;
    }
    if (complete || t.follow_at == t.follow_end) {
      const bool cut_short = t.follow_end != kUnknownBody && t.follow_at < t.follow_end;
      return cut_short || !ends_well(t) ? MCS_FOLLOW_BROKEN : MCS_FOLLOW_END;
    }
    if (wait_for_more(t, t.follow.link, 1 + bytes, lock_timeout_ms(t))) return MCS_FOLLOW_WAIT;
  }
}

void unregister(Transaction& t) {
  if (t.registered) mcs_cancel_wait(t.process, t.ask.waiter);
  t.registered = false;
}

// Follow it, with one pin for all of this process who do.
bool follow_shared(Transaction& t, cache::Link link) {
  release_follow(t);
  if (t.cache().follow(link, t.follow) != Following::kArriving) return false;
  t.follow.pin = t.process->pins->share(link, t.follow.pin);
  return t.follow.pin >= 0;
}

// Nobody fills the key any more: until this process, which is asked to, has begun to or has met another
// that does. It is asked once in a second at most; if it then could not, this ends by itself. False: look
// again.
bool wait_for_fill(Transaction& t, const Awaited& begun, std::uint32_t limit_ms, mcs_response& out) {
  out.wait_ms = std::min(limit_ms, kBackstopMs);
  if (t.ask.waiter != nullptr) {
    t.registered = register_waiter(*t.process, t.ask.waiter, begun);
    if (!t.registered) return false;
  }
  const std::uint64_t now = runtime::monotonic_ns();
  out.refresh = t.process->refreshes.claim(t.key.hash2, now) ? 1 : 0;
  if (t.registered || out.refresh != 0) return true;
  wait_blocking(*t.process, begun, now + out.wait_ms * kNsPerMs);
  return false;
}

// Look for another fill or entry of the same representation.
mcs_outcome find_another(Transaction& t, mcs_response& out) {
  const auto sent = EntryView::parse(t.follow_head);
  if (!sent) return MCS_DECLINED;
  for (unsigned round = 0; round < 64; ++round) {
    const std::uint64_t now = runtime::monotonic_ns();
    if (t.follow_until_ns == 0) t.follow_until_ns = now + lock_timeout_ms(t) * kNsPerMs;
    if (now >= t.follow_until_ns) return MCS_DECLINED;
    const auto left_ms = static_cast<std::uint32_t>((t.follow_until_ns - now) / kNsPerMs + 1);
    const std::atomic<std::uint64_t>& begun = fills_begun(*t.process, t.key.hash2);
    const std::uint64_t begun_before = begun.load();
    t.now_ms = t.process->wall_ms();
    look_up(t);
    const cache::Link link = t.has_hit ? t.hit.link : t.filling;
    release_hit(t);
    if (link.value == 0) {
      if (wait_for_fill(t, {{}, begun_before, &begun}, left_ms, out)) return MCS_WAIT;
      round = 0;
      continue;
    }
    out.wait_ms = left_ms;
    const std::uint64_t progress = t.cache().fill_progress(link);
    if (progress == 0) {
      if (wait_for_more(t, link, 0, left_ms)) return MCS_WAIT;
      continue;
    }
    if (!follow_shared(t, link)) continue;
    const auto entry = EntryView::parse(t.follow.head());
    if (!entry || !is_for(t, t.follow.key()) || !is_same(*sent, *entry)) return MCS_DECLINED;
    switch (compare_prefix(t)) {
      case Prefix::kSame:
        t.follow_until_ns = 0;
        return MCS_FOLLOW;
      case Prefix::kDifferent:
        return MCS_DECLINED;
      case Prefix::kNotYet:
        // As long as it comes nearer, however many pieces that takes, it is worth waiting for.
        if (wait_for_more(t, link, progress, left_ms)) return MCS_WAIT;
        t.follow_until_ns = runtime::monotonic_ns() + lock_timeout_ms(t) * kNsPerMs;
        round = 0;
        break;
    }
  }
  return MCS_DECLINED;
}

}  // namespace

void release_follow(Transaction& t) { t.process->pins->give_back(std::exchange(t.follow.pin, -1)); }

Joined join_fill(Transaction& t, cache::Link filling, mcs_response& out) {
  if (!follow_shared(t, filling)) return Joined::kGone;
  const auto leave = [&t](Joined answer) {
    release_follow(t);
    return answer;
  };
  const auto entry = EntryView::parse(t.follow.head());
  if (!entry || entry->head().kind != EntryKind::kResponse || !is_for(t, t.follow.key())) {
    return leave(Joined::kNotForUs);
  }
  const http::ReuseDecision decision = http::evaluate_reuse(
      *t.policy, t.method == http::Method::kPost ? http::Method::kGet : t.method, t.directives,
      entry->meta(), t.now_ms);
  if (!is_usable(decision)) return leave(Joined::kUnusable);

  const std::uint64_t length = entry->head().length;
  http::RangeSet set;
  const Selection selection = select(t, represent(*entry, length), set);
  if (selection.ranges > 1) return leave(Joined::kWaitForEnd);
  t.story = {};
  t.story.status = MCS_CACHE_HIT;
  t.story.forward = t.has_hit ? http::Forward::kStale : t.decision.forward;
  t.story.collapsed = true;
  t.story.ttl_s = decision.ttl_s;
  if (!reply_head(t, *entry, selection, set, length, t.story, out)) throw std::bad_alloc();
  count_status(t, t.story.status, out.body_length);
  if (entry->head().server_kind != t.process->server_kind) t.process->count(kCrossServerHits);
  release_hit(t);
  if (!selection.body) return leave(Joined::kResponse);
  const bool part = selection.ranges == 1;
  begin_following(t, part ? set.ranges[0].first : 0, part ? set.ranges[0].last + 1 : kUnknownBody);
  return Joined::kFollow;
}

}  // namespace mcs::api

using namespace mcs;

extern "C" {

mcs_follow mcs_follow_read(mcs_transaction* t, void* to, size_t size, size_t* got) try {
  *got = 0;
  api::unregister(*t);
  if (!t->following || size == 0) return MCS_FOLLOW_BROKEN;
  const mcs_follow answer = api::read(*t, to, size, *got);
  if (answer != MCS_FOLLOW_DATA) *got = 0;
  return answer;
} catch (const std::exception&) {
  *got = 0;
  return MCS_FOLLOW_BROKEN;
}

mcs_outcome mcs_follow_retry(mcs_transaction* t, mcs_response* response) try {
  *response = mcs_response{};
  response->file_fd = -1;
  api::unregister(*t);
  return t->following ? api::find_another(*t, *response) : MCS_DECLINED;
} catch (const std::exception&) {
  return MCS_DECLINED;
}

}  // extern "C"
