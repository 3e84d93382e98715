// SPDX-License-Identifier: Apache-2.0
// mcs_begin and mcs_resume: from what is stored, what is being filled and what the request asks, to
// an answer, a wait, or a request to the origin.
#include <algorithm>
#include <array>
#include <exception>
#include <memory>

#include "libglobalcache/api/internal/transaction.h"
#include "libglobalcache/api/policy.h"
#include "libglobalcache/http/field_filter.h"
#include "libglobalcache/http/freshness.h"
#include "libglobalcache/http/poisoning.h"
#include "libglobalcache/http/validation.h"

namespace mcs::api {
namespace {

using cache::Begin;
using http::Forward;
using http::Reuse;

// How often a request that keeps being overtaken by others looks again.
constexpr unsigned kRounds = 256;
// How often it tries to become the one that fills.
constexpr unsigned kBegins = 16;

constexpr std::uint64_t kNsPerMs = 1000000;

// How long a thread without a place among those who wait looks on before it goes to the origin, if
// nothing else is configured: most responses have begun by then.
constexpr std::uint64_t kBriefNs = 200 * kNsPerMs;

/// Transactions that are not in use, with the memory they have grown. One list per thread.
class TransactionPool {
 public:
  Transaction* take() {
    if (free_.empty()) return new Transaction;
    Transaction* t = free_.back().release();
    free_.pop_back();
    return t;
  }
  void give_back(Transaction* t) {
    std::unique_ptr<Transaction> owned(t);
    if (free_.size() < kKept) free_.push_back(std::move(owned));
  }

 private:
  static constexpr std::size_t kKept = 16;
  std::vector<std::unique_ptr<Transaction>> free_;
};

TransactionPool& pool() {
  static thread_local TransactionPool transactions;
  return transactions;
}

// Everything but the memory that can be used again.
void reset(Transaction& t) {
  t.has_range = t.has_conditions = t.has_body = t.has_connection = t.wants_websocket = false;
  t.has_hit = t.marked_stale = t.no_pin = t.known_specs = false;
  t.entry.reset();
  t.filling = {};
  t.decision = {};
  t.story = {};
  t.validating = t.stripped = t.storing = t.counted = false;
  t.request_time_ms = 0;
  t.forwarded_ns = 0;
  t.largest = 0;
  t.body_at = 0;
  t.windowed = false;
  t.window_first = t.window_end = 0;
  t.announced.reset();
  t.part_of = t.before = t.part_rest = 0;
  t.wants_part = t.has_part = false;
  t.wait_until_ns = t.brief_until_ns = t.waited_since_ns = 0;
  t.waited_for = {};
  t.waited_progress = 0;
  t.registered = t.last_try = t.following = false;
  t.follow_at = t.follow_from = t.follow_end = 0;
  t.follow_until_ns = 0;
}

bool refreshes(const Transaction& t) { return (t.ask.flags & MCS_REQUEST_REFRESH) != 0; }

bool is_get_like(const Transaction& t) {
  return http::is_get_or_head(t.method) ||
         (t.method == http::Method::kPost && t.policy->cache_post);
}

// POST has a key of its own if its responses are stored at all, and is looked up like GET.
http::Method lookup_method(const Transaction& t) {
  return t.method == http::Method::kPost ? http::Method::kGet : t.method;
}

void decide(Transaction& t) {
  if (t.has_hit) {
    t.decision = http::evaluate_reuse(*t.policy, lookup_method(t), t.directives, t.entry->meta(),
                                      t.now_ms, t.marked_stale);
  } else {
    t.decision = http::evaluate_absent(*t.policy, lookup_method(t), t.directives,
                                       t.known_specs ? Forward::kVaryMiss : Forward::kUriMiss);
  }
  if ((t.ask.flags & MCS_REQUEST_BYPASS) != 0) {
    const bool store = t.decision.store_response;
    t.decision = {};
    t.decision.forward = Forward::kBypass;
    t.decision.store_response = store;
  }
}

// Whether this request's response may be stored for others, as far as the request shows.
bool may_fill(Transaction& t) {
  if ((t.ask.flags & MCS_REQUEST_NO_STORE) != 0 || !t.decision.store_response || t.no_pin) {
    return false;
  }
  // HEAD brings no body, but its 304 freshens what is stored.
  if (t.method == http::Method::kHead && !t.has_hit) return false;
  return http::check_request_message(t.method, t.fields, t.policy->check_unkeyed,
                                     view(t.ask.scheme), view(t.ask.host)) ==
         http::MessageFlaw::kNone;
}

bool is_stale_from_the_start(const http::StoredMeta& meta) {
  return (meta.flags & http::kMetaAlwaysRevalidate) != 0 ||
         meta.fresh_until_ms <= meta.response_time_ms;
}

constexpr mcs_str kStripped[] = {{"Range", 5},           {"If-Range", 8},
                                 {"If-Match", 8},        {"If-None-Match", 13},
                                 {"If-Modified-Since", 17}, {"If-Unmodified-Since", 19}};

bool add_edits(Transaction& t, mcs_response& out) {
  out.remove_fields = kStripped;
  out.remove_count = std::size(kStripped);
  t.stripped = true;
  if (!t.validating) return true;
  const auto block = http::HeaderBlock::parse(t.entry->block());
  const http::ValidationFields validators =
      block ? http::validation_fields(*t.policy, *block) : http::ValidationFields();
  if (validators.count == 0) {
    t.validating = false;
    return true;
  }
  std::size_t bytes = validators.count * sizeof(mcs_field);
  for (const auto& field : validators.view()) bytes += field.name.size() + field.value.size();
  auto* memory = static_cast<char*>(t.alloc(bytes));
  if (memory == nullptr) return false;
  auto* fields = reinterpret_cast<mcs_field*>(memory);
  char* at = memory + validators.count * sizeof(mcs_field);
  const auto copy = [&at](std::string_view text) {
    std::memcpy(at, text.data(), text.size());
    const mcs_str copied{at, text.size()};
    at += text.size();
    return copied;
  };
  for (const auto& field : validators.view()) {
    fields[out.add_count++] = {copy(field.name), copy(field.value)};
  }
  out.add_fields = fields;
  return true;
}

// What Connection names must not go further (RFC 9110 7.6.1), and nginx does not see to that. False: no
// memory.
bool remove_connection_options(Transaction& t, mcs_response& out) {
  const auto named = [&](const http::FieldView& field) {
    return http::is_connection_option(t.fields, field);
  };
  const auto count = static_cast<std::size_t>(
      t.has_connection ? std::count_if(t.fields.begin(), t.fields.end(), named) : 0);
  if (count == 0) return true;
  auto* names = static_cast<mcs_str*>(t.alloc((out.remove_count + count) * sizeof(mcs_str)));
  if (names == nullptr) return false;
  mcs_str* end = std::copy_n(out.remove_fields, out.remove_count, names);
  for (const http::FieldView& field : t.fields) {
    if (named(field)) *end++ = {field.name.data(), field.name.size()};
  }
  out.remove_fields = names;
  out.remove_count += count;
  return true;
}

mcs_cache_status forward_status(const Transaction& t) {
  if (t.decision.forward == Forward::kBypass) return MCS_CACHE_BYPASS;
  return t.has_hit ? MCS_CACHE_EXPIRED : MCS_CACHE_MISS;
}

// The request goes to the origin, with or without the lease of a fill.
mcs_outcome forward(Transaction& t, mcs_response& out) {
  out = mcs_response{};
  out.file_fd = -1;
  out.last_modified = -1;
  out.age = -1;
  t.story = {};
  t.story.forward = t.decision.forward;
  t.story.status = forward_status(t);
  out.cache_status = t.story.status;
  // Without no-store and the like a stored response may be validated, also by those who do not fill.
  const bool usable = t.has_hit && t.decision.verdict != Reuse::kMiss && !t.has_body;
  t.validating = usable;
  t.stripped = false;
  if (t.fill || usable) {
    if (!add_edits(t, out)) {
      t.fill.abort();
      t.validating = false;
    }
    // Nothing to validate with, and nobody waits: the client's own conditions may do.
    if (!t.fill && !t.validating && t.stripped) {
      out.remove_fields = nullptr;
      out.remove_count = 0;
      t.stripped = false;
    }
  }
  if (!remove_connection_options(t, out)) return MCS_DECLINED;
  if (!usable) release_hit(t);
  out.fill = t.fill ? 1 : 0;
  if (t.fill) t.process->count(kFills);
  t.request_time_ms = t.process->wall_ms();
  t.forwarded_ns = runtime::monotonic_ns();
  t.purges = t.cache().purge_marks();
  t.key.asked = &t.purges;
  return MCS_FORWARD;
}

// What goes to the origin without being looked at: no key, or a method that is never stored.
mcs_outcome forward_plain(Transaction& t, mcs_response& out) {
  t.decision = {};
  t.decision.forward =
      is_get_like(t) || (t.ask.flags & MCS_REQUEST_BYPASS) != 0 ? Forward::kBypass
                                                                : Forward::kMethod;
  return forward(t, out);
}

// The request gets no response from the origin, by its own wish or because too many wait already.
mcs_outcome refuse(Transaction& t, int status, mcs_response& out) {
  t.story = {};
  t.story.forward = t.decision.forward;
  count_status(t, t.story.status, 0);
  return reply_generated(t, status, {}, t.story, out) ? MCS_RESPONSE : MCS_DECLINED;
}

// Whether the wait for others is over. Starts the clock at the first call.
bool wait_is_over(Transaction& t) {
  const std::uint64_t now = runtime::monotonic_ns();
  if (t.wait_until_ns == 0) {
    t.wait_until_ns =
        now + static_cast<std::uint64_t>(std::max<std::int64_t>(0, t.policy->lock_timeout_ms)) *
                  kNsPerMs;
  }
  return t.last_try || now >= t.wait_until_ns;
}

// A fill that made no progress for as long as the policy allows: others may fill besides.
bool is_silent(Transaction& t, std::uint64_t progress) {
  return t.waited_for == t.filling && t.waited_progress == progress && t.policy->lock_age_ms > 0 &&
         runtime::monotonic_ns() - t.waited_since_ns >=
             static_cast<std::uint64_t>(t.policy->lock_age_ms) * kNsPerMs;
}

// Whoever waits has a place among those who do, which it keeps until it has an answer.
bool may_wait(Transaction& t) {
  http::LockBusy busy = t.policy->lock_busy;
  if (busy == http::LockBusy::kByServer) {
    busy = t.ask.waiter == nullptr ? http::LockBusy::kPass : http::LockBusy::kWait;
  }
  if (busy == http::LockBusy::kWait || t.has_place) return true;
  t.has_place = (t.ask.flags & MCS_REQUEST_NO_WAIT) == 0 && take_place(*t.process);
  return t.has_place;
}

void leave_own_place(Transaction& t) {
  if (t.has_place) leave_place(*t.process);
  t.has_place = false;
}

enum class Step { kAgain, kDone, kForward };

// Somebody else fills the key.
Step wait_for_other(Transaction& t, mcs_response& out, mcs_outcome& outcome) {
  const bool once = t.decision.forward == Forward::kRequest ||
                    t.decision.forward == Forward::kBypass ||
                    (t.has_hit && is_stale_from_the_start(t.entry->meta()));
  if (once || !t.policy->lock || is_hit_for_miss(t)) return Step::kForward;
  std::uint64_t progress = t.cache().fill_progress(t.filling);
  if (progress == ~0ULL) return Step::kAgain;
  if (progress > 0) {
    switch (join_fill(t, t.filling, out)) {
      case Joined::kFollow:
        outcome = MCS_FOLLOW;
        return Step::kDone;
      case Joined::kResponse:
        outcome = MCS_RESPONSE;
        return Step::kDone;
      case Joined::kUnusable:
        return Step::kForward;
      case Joined::kNotForUs:
      case Joined::kGone:
        return Step::kAgain;
      case Joined::kWaitForEnd:
        progress = kUntilEnd;
        break;
    }
  }
  if (wait_is_over(t)) {
    if (!is_silent(t, progress)) return Step::kForward;
    t.cache().pass_over(t.filling);
    return Step::kAgain;
  }
  t.process->count(kWaits);
  std::uint64_t until_ns = t.wait_until_ns;
  if (!may_wait(t)) {
    if (t.policy->lock_busy == http::LockBusy::k503) {
      outcome = refuse(t, 503, out);
      return Step::kDone;
    }
    if (t.brief_until_ns == 0) t.brief_until_ns = runtime::monotonic_ns() + kBriefNs;
    if (t.policy->lock_busy == http::LockBusy::kPass ||
        runtime::monotonic_ns() >= t.brief_until_ns) {
      return Step::kForward;
    }
    until_ns = std::min(until_ns, t.brief_until_ns);
  }
  // What is stored is looked up again after the wait, which many may share.
  release_hit(t);
  if (!(t.waited_for == t.filling) || t.waited_progress != progress) {
    t.waited_for = t.filling;
    t.waited_progress = progress;
    t.waited_since_ns = runtime::monotonic_ns();
  }
  if (t.ask.waiter == nullptr) {
    wait_blocking(*t.process, {t.filling, progress}, until_ns);
    return Step::kAgain;
  }
  if (!register_waiter(*t.process, t.ask.waiter, {t.filling, progress})) return Step::kAgain;
  t.registered = true;
  const std::uint64_t now = runtime::monotonic_ns();
  out.wait_ms = static_cast<std::uint32_t>(
      t.wait_until_ns > now ? (t.wait_until_ns - now) / kNsPerMs + 1 : 1);
  outcome = MCS_WAIT;
  return Step::kDone;
}

// Become the one that fills, unless something has come meanwhile.
Step try_to_fill(Transaction& t, unsigned attempt) {
  const cache::Key key = t.cache().variant_of(t.key, t.fill_variant);
  switch (t.cache().begin(key, t.fill, {}, true)) {
    case Begin::kFilling:
      note_begun(*t.process, t.key.hash2);
      break;
    case Begin::kOther:
      return attempt < kBegins ? Step::kAgain : Step::kForward;
    case Begin::kNoSpace:
    case Begin::kBusy:
      return Step::kForward;
  }
  // Between the look and the lease somebody may have finished: then this fill is not needed.
  const cache::Link seen = t.has_hit ? t.hit.link : cache::Link{};
  look_up(t, t.fill.link());
  const cache::Link now = t.has_hit ? t.hit.link : cache::Link{};
  if ((seen == now && t.filling.value == 0) || attempt >= kBegins) {
    if (!(seen == now)) decide(t);
    return Step::kForward;
  }
  t.fill.abort();
  return Step::kAgain;
}

bool answer_stale(Transaction& t, mcs_response& out) {
  bool refresh = false;
  mcs_cache_status status = MCS_CACHE_STALE;
  if (t.decision.refresh_in_background) {
    refresh = t.filling.value == 0 && may_fill(t) &&
              t.process->refreshes.claim(t.key.hash2, runtime::monotonic_ns());
    if (!refresh) status = MCS_CACHE_UPDATING;
  }
  if (!answer(t, status, out)) return false;
  out.refresh = refresh ? 1 : 0;
  return true;
}

mcs_outcome look_and_wait(Transaction& t, mcs_response& out) {
  unsigned begins = 0;
  for (unsigned round = 0; round < kRounds; ++round) {
    t.now_ms = t.process->wall_ms();
    look_up(t);
    decide(t);
    const bool bypass = (t.ask.flags & MCS_REQUEST_BYPASS) != 0;
    if (!bypass && !refreshes(t) && answer_with_part(t, out)) return MCS_RESPONSE;
    if (refreshes(t)) {
      if ((t.has_hit && t.decision.verdict == Reuse::kHit) || t.filling.value != 0) {
        note_begun(*t.process, t.key.hash2);
        return MCS_DECLINED;
      }
    } else {
      switch (t.decision.verdict) {
        case Reuse::kHit:
          if (answer(t, MCS_CACHE_HIT, out)) return MCS_RESPONSE;
          continue;
        case Reuse::kHitStale:
          if (answer_stale(t, out)) return MCS_RESPONSE;
          continue;
        case Reuse::kGatewayTimeout:
          return refuse(t, 504, out);
        case Reuse::kRevalidate:
          if (t.filling.value != 0 && t.decision.may_be_stale_while_updating) {
            if (answer(t, MCS_CACHE_UPDATING, out)) return MCS_RESPONSE;
            continue;
          }
          break;
        case Reuse::kMiss:
          break;
      }
    }
    // HEAD fills nothing, but the head of what is being filled answers it.
    const bool joins = t.method == http::Method::kHead && t.filling.value != 0 && !refreshes(t);
    if (!may_fill(t) && !joins) return refreshes(t) ? MCS_DECLINED : forward(t, out);
    mcs_outcome outcome = MCS_DECLINED;
    Step step = Step::kAgain;
    if (t.filling.value != 0) {
      step = wait_for_other(t, out, outcome);
      if (step == Step::kForward) return forward(t, out);
    } else {
      // Where responses are not stored, a part or a 304 must not become a whole body.
      const bool partly =
          (t.has_range || t.has_conditions) &&
          (t.part_of > largest_object(t.cache(), *t.ask.policy) || is_hit_for_miss(t));
      t.wants_part = partly;
      if (!refreshes(t) && (partly || (begins == 0 && !t.has_hit && !count_use(t)))) return forward(t, out);
      step = try_to_fill(t, begins++);
      if (step == Step::kForward) {
        return refreshes(t) && !t.fill ? MCS_DECLINED : forward(t, out);
      }
    }
    if (step == Step::kDone) return outcome;
  }
  return forward(t, out);
}

mcs_outcome run(Transaction& t, mcs_response& out) {
  const mcs_outcome outcome = look_and_wait(t, out);
  if (outcome != MCS_WAIT) leave_own_place(t);
  return outcome;
}

mcs_outcome start(Transaction& t, mcs_response& out) {
  t.now_ms = t.process->wall_ms();
  const bool has_key = read_request(t);
  // What becomes a tunnel (RFC 6455) is no response, and what is stored for its target is none of it.
  if (!t.policy->enabled || t.wants_websocket) return MCS_DECLINED;
  if (t.policy->purge && view(t.ask.method) == "PURGE") return answer_purge(t, out);
  if (!is_get_like(t)) {
    t.counted = true;
    return forward_plain(t, out);
  }
  if (!has_key) return MCS_DECLINED;
  t.process->count(kRequests);
  // A request with content may change the response; nothing may be known of it.
  if (t.has_body && http::is_get_or_head(t.method)) return forward_plain(t, out);
  const LatencySample sample(*t.process);
  return run(t, out);
}

void let_go(Transaction& t) {
  if (t.registered) mcs_cancel_wait(t.process, t.ask.waiter);
  t.registered = false;
  leave_own_place(t);
  t.fill.abort();
  release_hit(t);
  release_part(t);
  release_follow(t);
  t.following = false;
}

bool keeps_transaction(mcs_outcome outcome) {
  return outcome == MCS_WAIT || outcome == MCS_FORWARD || outcome == MCS_FOLLOW;
}

}  // namespace

bool answer(Transaction& t, mcs_cache_status status, mcs_response& out) {
  t.story = {};
  t.story.status = status;
  t.story.ttl_s = t.decision.ttl_s;
  const EntryView entry = *t.entry;
  switch (reply_from_hit(t, entry, t.story, out)) {
    case Made::kYes:
      break;
    case Made::kDamaged:
      drop_damaged(t);
      return false;
    case Made::kNoMemory:
      throw std::bad_alloc();
  }
  t.cache().touch(t.hit);
  if (entry.head().server_kind != t.process->server_kind) t.process->count(kCrossServerHits);
  count_status(t, status, out.body_length);
  release_hit(t);
  return true;
}

void count_status(Transaction& t, mcs_cache_status status, std::uint64_t bytes) {
  if (t.counted) return;
  t.counted = true;
  if (bytes == kUnknownBody) bytes = 0;
  switch (status) {
    case MCS_CACHE_HIT:
      t.process->count(kHits);
      break;
    case MCS_CACHE_STALE:
      t.process->count(kStale);
      break;
    case MCS_CACHE_UPDATING:
      t.process->count(kUpdating);
      break;
    case MCS_CACHE_REVALIDATED:
      t.process->count(kRevalidated);
      break;
    case MCS_CACHE_EXPIRED:
      t.process->count(kExpired);
      t.process->count(kMissBytes, bytes);
      return;
    case MCS_CACHE_BYPASS:
      t.process->count(kBypass);
      t.process->count(kMissBytes, bytes);
      return;
    default:
      t.process->count(kMisses);
      t.process->count(kMissBytes, bytes);
      return;
  }
  t.process->count(kHitBytes, bytes);
}

std::uint64_t largest_object(const cache::GlobalCache& cache, const mcs_policy& policy) {
  const std::uint64_t capacity = cache.memory().capacity_units() * cache::kUnitBytes;
  std::uint64_t largest = capacity / 8;
  if (policy.rules.max_object != 0) {
    largest = std::min(policy.rules.max_object, capacity - capacity / 4);
  }
  // More would drive out all others of its site.
  const std::uint64_t quota = cache.sites().units_of(policy.site.quota) * cache::kUnitBytes;
  return quota != 0 ? std::min(largest, quota - quota / 4) : largest;
}

}  // namespace mcs::api

using namespace mcs;

extern "C" {

mcs_outcome mcs_begin(mcs_process* process, const mcs_request* request,
                      mcs_transaction** transaction, mcs_response* response) {
  *transaction = nullptr;
  *response = mcs_response{};
  response->file_fd = -1;
  response->last_modified = -1;
  response->age = -1;
  api::Transaction* t = nullptr;
  try {
    t = api::pool().take();
    api::reset(*t);
    t->process = process;
    t->ask = *request;
    t->last_try = (request->flags & MCS_REQUEST_LAST_TRY) != 0;
    const mcs_outcome outcome = api::start(*t, *response);
    if (api::keeps_transaction(outcome)) {
      *transaction = t;
      return outcome;
    }
    api::let_go(*t);
    api::pool().give_back(t);
    return outcome;
  } catch (const std::exception&) {
    // Out of memory: the server answers by itself.
    if (t != nullptr) {
      api::let_go(*t);
      delete t;
    }
    mcs_response_release(process, response);
    return MCS_DECLINED;
  }
}

mcs_outcome mcs_resume(mcs_transaction* t, unsigned flags, mcs_response* response) try {
  *response = mcs_response{};
  response->file_fd = -1;
  if (t->registered) mcs_cancel_wait(t->process, t->ask.waiter);
  t->registered = false;
  if ((flags & MCS_REQUEST_LAST_TRY) != 0) t->last_try = true;
  return api::run(*t, *response);
} catch (const std::exception&) {
  mcs_response_release(t->process, response);
  t->fill.abort();
  return MCS_DECLINED;
}

mcs_outcome mcs_retry(mcs_transaction* t, mcs_response* response) try {
  t->last_try = true;
  t->validating = false;
  if (t->fill) {
    t->now_ms = t->process->wall_ms();
    api::release_hit(*t);
    return api::forward(*t, *response);
  }
  return api::run(*t, *response);
} catch (const std::exception&) {
  t->fill.abort();
  return MCS_DECLINED;
}

void mcs_end(mcs_transaction* t) {
  if (t == nullptr) return;
  try {
    if (t->request_time_ms != 0) api::count_status(*t, t->story.status, 0);
    api::let_go(*t);
    api::pool().give_back(t);
  } catch (const std::exception&) {
    // Only the pool could fail, after everything was given back.
  }
}

}  // extern "C"
