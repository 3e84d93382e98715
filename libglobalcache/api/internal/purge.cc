// SPDX-License-Identifier: Apache-2.0
// Purging: what a pattern means, in one place for sealed entries and for fills in flight.
//
// A pattern as it is logged for fills: a primary key (kKey); u32 size of the site, the site, and a
// prefix or pattern of path and query (kPrefix, kWildcard; an empty site means any); a tag (kTag).
#include <algorithm>
#include <charconv>
#include <exception>

#include <fmt/format.h>

#include "libglobalcache/api/internal/transaction.h"
#include "libglobalcache/api/policy.h"
#include "libglobalcache/http/invalidation.h"
#include "libglobalcache/http/key.h"
#include "libglobalcache/http/uri.h"

namespace mcs::api {
namespace {

using cache::PurgeKind;

// At the end of a pattern of local files: those of one directory, without those below it. What a
// directory shows may be any of its files.
constexpr char kFilesOf = '\0';

std::string make_pattern(std::string_view site, std::string_view text) {
  std::string pattern;
  for (int shift = 0; shift < 32; shift += 8) {
    pattern += static_cast<char>(site.size() >> shift & 0xffu);
  }
  pattern += site;
  pattern += text;
  return pattern;
}

bool split_pattern(std::string_view pattern, std::string_view& site, std::string_view& text) {
  if (pattern.size() < 4) return false;
  std::size_t size = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    size |= static_cast<std::size_t>(static_cast<unsigned char>(pattern[i])) << (8 * i);
  }
  if (size > pattern.size() - 4) return false;
  site = pattern.substr(4, size);
  text = pattern.substr(4 + size);
  return true;
}

bool takes(std::string_view& rest, std::size_t n) {
  if (n > rest.size()) return false;
  rest.remove_prefix(n);
  return true;
}

bool takes_part(std::string_view& rest) {
  if (rest.size() < 4) return false;
  std::size_t size = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    size |= static_cast<std::size_t>(static_cast<unsigned char>(rest[i])) << (8 * i);
  }
  return takes(rest, 4) && takes(rest, size);
}

// The primary key at the beginning of a whole key: kind, base, host, method, path, 'q' or '-',
// query (http/key.h). It ends where its last part ends, so no variant name can be taken for a part
// of it.
std::string_view primary_of(std::string_view whole_key) {
  std::string_view rest = whole_key;
  if (!takes(rest, 1) || !takes_part(rest) || !takes_part(rest) || !takes(rest, 1) ||
      !takes_part(rest) || !takes(rest, 1) || !takes_part(rest)) {
    return whole_key;
  }
  return whole_key.substr(0, whole_key.size() - rest.size());
}

// Path and query of a key as they were received, as patterns are written.
std::string target_of(const http::KeyParts& parts) {
  std::string target(http::received_path(parts));
  if (parts.has_query) target.append("?").append(parts.query);
  return target;
}

bool meets_pattern(PurgeKind kind, std::string_view site, std::string_view text,
                   std::string_view primary) {
  const auto parts = http::parse_key(primary);
  if (!parts) return false;
  if (!site.empty() && !http::is_of_site(*parts, site)) return false;
  if (kind == PurgeKind::kWildcard && text.ends_with(kFilesOf)) {
    text.remove_suffix(1);
    return parts->path.starts_with(text) && parts->path.find('/', text.size()) == std::string::npos;
  }
  if (kind == PurgeKind::kWildcard) return http::key_matches(primary, parts->site, text);
  if (!parts->has_query) return http::received_path(*parts).starts_with(text);
  return target_of(*parts).starts_with(text);
}

// Of a target, also if a server has rewritten it.
std::string as_received(std::string key) {
  std::string received = http::received_key(key);
  return received.empty() ? key : received;
}

/// A purge as the cache takes it.
struct Order {
  PurgeKind kind;
  std::vector<std::string> patterns;
};

// Key and site of a request's target. Empty: it has none.
std::string key_of(const mcs_purge_request& request, std::uint16_t port, http::Method method,
                   std::string_view target) {
  static const http::CachePolicy kNone;
  const http::CachePolicy& policy = request.policy != nullptr ? request.policy->rules : kNone;
  std::string key;
  if (request.local_files != 0) {
    return http::build_static_key(policy.key_base, target, key) ? key : std::string();
  }
  http::KeyRequest ask;
  ask.scheme = request.scheme.size > 0 ? view(request.scheme) : "http";
  ask.host = view(request.host);
  ask.target = target;
  ask.method = method;
  ask.port = port;
  return http::build_key(ask, policy, key) ? key : std::string();
}

// `port`: of the server that was asked to purge; 0: a purge for all ports.
std::optional<Order> make_order(const mcs_purge_request& request, std::uint16_t port,
                                std::string& error) {
  const std::string_view pattern = view(request.pattern);
  switch (request.kind) {
    case MCS_PURGE_ALL:
      return Order{PurgeKind::kAll, {std::string()}};
    case MCS_PURGE_TAG:
      if (pattern.empty() || pattern.find('\0') != std::string_view::npos) {
        error = "a tag to purge must not be empty: give the word that Surrogate-Key or xkey holds";
        return std::nullopt;
      }
      return Order{PurgeKind::kTag, {std::string(pattern)}};
    case MCS_PURGE_KEY: {
      Order order{PurgeKind::kKey, {}};
      for (const http::Method method : {http::Method::kGet, http::Method::kPost}) {
        std::string key = as_received(key_of(request, port, method, pattern));
        const auto parts = http::parse_key(key);
        if (parts && parts->is_static && pattern.ends_with('/')) {
          const std::string files = std::string(pattern) + kFilesOf;
          return Order{PurgeKind::kWildcard, {make_pattern(parts->site, files)}};
        }
        if (parts && parts->base.empty() && port == 0) {
          return Order{PurgeKind::kWildcard, {make_pattern(parts->site, target_of(*parts))}};
        }
        if (!key.empty()) order.patterns.push_back(std::move(key));
        // Responses to POST have keys of their own, if they are stored at all.
        const bool post = request.policy == nullptr || request.policy->rules.cache_post;
        if (request.local_files != 0 || !post) break;
      }
      if (!order.patterns.empty()) return order;
      error = fmt::format("\"{}\" is no target: give a path with its first slash, and a host or a "
                          "key base", pattern);
      return std::nullopt;
    }
    case MCS_PURGE_PREFIX:
    case MCS_PURGE_WILDCARD:
      break;
    default:
      error = "unknown kind of purge";
      return std::nullopt;
  }
  std::string text;
  if (!http::append_normalised(pattern, text)) {
    error = fmt::format("\"{}\" is not properly encoded: write special characters as %XX", pattern);
    return std::nullopt;
  }
  std::string site;
  const bool any_site = request.host.size == 0 && request.local_files == 0 &&
                        (request.policy == nullptr || request.policy->rules.key_base.empty());
  if (!any_site) {
    const std::string key = key_of(request, port, http::Method::kGet, "/");
    const auto parts = http::parse_key(key);
    if (!parts) {
      error = "the site to purge has no valid host: give a host or a key base";
      return std::nullopt;
    }
    site = parts->site;
  }
  const PurgeKind kind =
      request.kind == MCS_PURGE_PREFIX ? PurgeKind::kPrefix : PurgeKind::kWildcard;
  return Order{kind, {make_pattern(site, text)}};
}

std::uint64_t carry_out(mcs_process& process, const Order& order, bool soft, std::string& error) {
  std::uint64_t purged = 0;
  for (const std::string& pattern : order.patterns) {
    auto met = process.cache->purge(order.kind, pattern, soft);
    if (!met) {
      // Its slot was lost: another one is taken by the tick.
      mcs_tick(&process);
      met = process.cache->purge(order.kind, pattern, soft);
    }
    if (met) {
      purged += *met;
    } else {
      error = "nothing was purged: this process has lost its place in the cache's memory and gets "
              "another as soon as there is one; ask again";
    }
  }
  // What is there it could not look at.
  if (const std::string why = process.cache->memory().trouble(); !why.empty()) {
    error = "not everything was purged: this process " + why;
  }
  return purged;
}

bool is_on(std::string_view value) {
  value = http::trim(value);
  return !value.empty() && value != "0" && !http::equals_ignore_case(value, "off") &&
         !http::equals_ignore_case(value, "no");
}

// What a PURGE request asks for: tags if it names any, otherwise its target, in which a last "*"
// makes a prefix and another one a pattern.
std::uint64_t purge_as_asked(Transaction& t, std::string& error) {
  bool soft = is_on(http::field_value(t.fields, "soft-purge"));
  std::string tags;
  append_tags(t.fields, tags);
  std::uint64_t purged = 0;
  mcs_purge_request request{};
  request.soft = soft ? 1 : 0;
  request.policy = t.ask.policy;
  request.scheme = t.ask.scheme;
  request.host = t.ask.host;
  const auto run = [&] {
    const auto order = make_order(request, port_of(t), error);
    if (order) purged += carry_out(*t.process, *order, soft, error);
  };
  if (!tags.empty()) {
    request.kind = MCS_PURGE_TAG;
    std::string_view rest = std::string_view(tags).substr(1);
    for (std::size_t end; (end = rest.find('\0')) != std::string_view::npos;) {
      request.pattern = {rest.data(), end};
      run();
      rest.remove_prefix(end + 1);
    }
    return purged;
  }
  if (t.ask.key.size > 0) {
    http::KeyRequest ask;
    ask.key_base = view(t.ask.key);
    ask.target = "/";
    std::string key;
    if (http::build_key(ask, *t.policy, key)) {
      purged = carry_out(*t.process, {PurgeKind::kKey, {key}}, soft, error);
    }
    return purged;
  }
  const std::string_view target = view(t.ask.target);
  const std::size_t star = target.find('*');
  request.kind = star == std::string_view::npos        ? MCS_PURGE_KEY
                 : star + 1 == target.size() ? MCS_PURGE_PREFIX
                                             : MCS_PURGE_WILDCARD;
  request.pattern = t.ask.target;
  if (request.kind == MCS_PURGE_PREFIX) --request.pattern.size;
  run();
  return purged;
}

}  // namespace

bool purge_meets(PurgeKind kind, std::string_view pattern, std::string_view whole_key,
                 std::span<const std::byte> head) try {
  const std::string_view primary = primary_of(whole_key);
  std::string_view site;
  std::string_view text;
  switch (kind) {
    case PurgeKind::kAll:
      return true;
    case PurgeKind::kKey:
      return primary == pattern || http::received_key(primary) == pattern;
    case PurgeKind::kPrefix:
    case PurgeKind::kWildcard:
      return !split_pattern(pattern, site, text) || meets_pattern(kind, site, text, primary);
    case PurgeKind::kTag: {
      if (head.empty()) return true;
      const auto entry = EntryView::parse(head);
      return entry && has_tag(entry->tags(), pattern);
    }
  }
  return true;
} catch (const std::exception&) {
  return true;  // out of memory: rather too much
}

mcs_outcome answer_purge(Transaction& t, mcs_response& out) {
  Story story;
  story.status = MCS_CACHE_NONE;
  if (!http::purge_allowed(*t.policy, view(t.ask.client_address))) {
    return reply_generated(t, 403, "purging is not allowed from this address\n", story, out)
               ? MCS_RESPONSE
               : MCS_DECLINED;
  }
  std::string error;
  const std::uint64_t purged = purge_as_asked(t, error);
  const std::string text = error.empty() ? fmt::format("purged {}\n", purged) : error + "\n";
  const bool cannot = t.cache().memory().out_of_reach() || t.cache().is_homeless();
  const int status = error.empty() ? 200 : cannot ? 503 : 400;
  return reply_generated(t, status, text, story, out) ? MCS_RESPONSE : MCS_DECLINED;
}

void invalidate(Transaction& t, int status, http::Fields response) {
  if (http::is_safe(t.method)) return;
  const http::RequestUri uri{view(t.ask.scheme), view(t.ask.host), view(t.ask.target)};
  const http::InvalidationTargets targets =
      http::invalidation_targets(t.method, uri, status, response);
  std::string error;
  const cache::PurgeMarks before = t.cache().purge_marks();
  std::uint64_t own = 0;
  for (const std::string& target : targets.view()) {
    http::KeyRequest ask{{}, uri.scheme, uri.host, target, http::Method::kGet, port_of(t)};
    std::string key;
    if (http::build_key(ask, *t.policy, key)) {
      ++own;
      carry_out(*t.process, {PurgeKind::kKey, {as_received(key)}}, false, error);
    }
  }
  if (targets.count > 0 && t.ask.key.size > 0) {
    http::KeyRequest ask{view(t.ask.key), uri.scheme, uri.host, "/", http::Method::kGet, 0};
    std::string key;
    if (http::build_key(ask, *t.policy, key)) {
      ++own;
      carry_out(*t.process, {PurgeKind::kKey, {key}}, false, error);
    }
  }
  // What this response itself purges it may then fill anew. If anybody else has purged since it was asked
  // for, all counts.
  const cache::PurgeMarks after = t.cache().purge_marks();
  bool only_own = after.view == before.view && before == t.purges;
  for (std::size_t i = 0; i < after.next.size() && only_own; ++i) {
    only_own = after.next[i] == 0 || after.next[i] == before.next[i] + own;
  }
  if (only_own) t.purges = after;
  if (!error.empty()) t.process->log(0, "after a request that changes things: " + error);
}

}  // namespace mcs::api

using namespace mcs;

extern "C" mcs_status mcs_purge(mcs_process* process, const mcs_purge_request* request,
                                uint64_t* purged, char* err, size_t errlen) {
  std::string error;
  if (purged != nullptr) *purged = 0;
  try {
    const auto order = api::make_order(*request, 0, error);
    if (order) {
      const std::uint64_t n = api::carry_out(*process, *order, request->soft != 0, error);
      if (purged != nullptr) *purged = n;
      if (error.empty()) return MCS_OK;
    }
  } catch (const std::exception& e) {
    if (error.empty()) error = e.what();
  }
  if (err != nullptr && errlen > 0) std::snprintf(err, errlen, "%s", error.c_str());
  return MCS_ERROR;
}

extern "C" int mcs_purge_file(mcs_process* process, const mcs_policy* files, mcs_str path,
                              mcs_alloc alloc, void* alloc_context, mcs_response* response) {
  if (response->status != 200) return 1;
  mcs_purge_request request{};
  request.kind = MCS_PURGE_KEY;
  request.local_files = 1;
  request.policy = files;
  request.pattern = path;
  // With what the answer counts already.
  std::uint64_t before = 0;
  constexpr std::string_view kPurged = "purged ";
  if (response->body_count == 1 && response->body->iov_len > kPurged.size()) {
    const auto* text = static_cast<const char*>(response->body->iov_base);
    std::from_chars(text + kPurged.size(), text + response->body->iov_len, before);
  }
  std::uint64_t purged = 0;
  char error[256] = "";
  if (mcs_purge(process, &request, &purged, error, sizeof error) == MCS_ERROR) {
    process->log(0, std::string("a file could not be purged: ") + error);
  }
  constexpr std::size_t kMostText = 32;
  void* memory = alloc(alloc_context, sizeof(iovec) + kMostText);
  if (memory == nullptr) return 0;
  auto* body = static_cast<iovec*>(memory);
  char* text = reinterpret_cast<char*>(body + 1);
  const int size = std::snprintf(text, kMostText, "purged %ju\n", std::uintmax_t{before + purged});
  *body = {text, static_cast<std::size_t>(size)};
  response->body = body;
  response->body_count = 1;
  response->body_length = body->iov_len;
  return 1;
}
