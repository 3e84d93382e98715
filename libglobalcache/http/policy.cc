// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/policy.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "libglobalcache/http/cache_control.h"
#include "libglobalcache/http/date.h"
#include "libglobalcache/http/structured_field.h"

namespace mcs::http {
namespace {

using Args = std::span<const std::string_view>;
using Failure = tl::unexpected<Error>;

template <typename... Values>
Failure bad(std::string_view directive, fmt::format_string<Values...> text, Values&&... values) {
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("{}: {}", directive, fmt::format(text, std::forward<Values>(values)...)));
}

// One setter call: the directive's name is needed for messages.
struct Call {
  CachePolicy& policy;
  std::string_view name;
  Args args;

  std::string_view arg() const { return args.front(); }
};

Result<bool> flag_of(const Call& call, std::string_view text) {
  if (equals_ignore_case(text, "on")) return true;
  if (equals_ignore_case(text, "off")) return false;
  return bad(call.name, "\"{}\" is neither on nor off; write one of them", text);
}

Result<std::int64_t> ms_of(const Call& call, std::string_view text) {
  if (const auto ms = parse_time_ms(text)) return *ms;
  return bad(call.name, "\"{}\" is no time; write seconds or units, such as 90, 10m or 1d12h",
             text);
}

Result<std::int64_t> seconds_of(const Call& call, std::string_view text) {
  return ms_of(call, text).map([](std::int64_t ms) { return ms / 1000; });
}

Result<std::int64_t> seconds_or_off(const Call& call, std::string_view text) {
  if (equals_ignore_case(text, "off")) return 0;
  return seconds_of(call, text);
}

Result<std::uint64_t> size_of(const Call& call, std::string_view text) {
  if (const auto size = parse_size(text)) return *size;
  return bad(call.name, "\"{}\" is no size; write bytes or units, such as 65536, 512k or 1g", text);
}

Result<std::uint32_t> count_of(const Call& call, std::string_view text) {
  const auto number = parse_decimal(text);
  if (number && *number <= 1000000) return static_cast<std::uint32_t>(*number);
  return bad(call.name, "\"{}\" is no number from 0 to 1000000", text);
}

Result<std::uint16_t> status_of(const Call& call, std::string_view text) {
  const auto number = parse_decimal(text);
  if (text.size() == 3 && number && *number >= 200 && *number <= 599) {
    return static_cast<std::uint16_t>(*number);
  }
  return bad(call.name, "\"{}\" is no status code; write one from 200 to 599", text);
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), to_lower);
  return result;
}

Result<std::vector<std::string>> names_of(const Call& call) {
  std::vector<std::string> names;
  for (const std::string_view arg : call.args) {
    if (!is_token(arg)) {
      return bad(call.name, "\"{}\" is no field name; write names such as Set-Cookie", arg);
    }
    names.push_back(lower(arg));
  }
  return names;
}

// Stores a parsed value, or passes its error on.
template <typename T, typename Value>
Result<void> assign(T& target, Result<Value> value) {
  if (!value) return tl::unexpected(std::move(value.error()));
  target = static_cast<T>(std::move(*value));
  return {};
}

struct Word {
  std::string_view text;
  std::uint32_t bit;
};

// The bits of all arguments; `none` alone among them means none.
Result<std::uint32_t> bits_of(const Call& call, std::span<const Word> words,
                              std::string_view none) {
  std::uint32_t bits = 0;
  for (const std::string_view arg : call.args) {
    if (equals_ignore_case(arg, none)) {
      if (call.args.size() == 1) return 0;
      return bad(call.name, "\"{}\" cannot stand together with others; remove it or them", arg);
    }
    const auto* word = std::find_if(words.data(), words.data() + words.size(),
                                    [&](const Word& w) { return equals_ignore_case(w.text, arg); });
    if (word == words.data() + words.size()) {
      std::string known(none);
      for (const Word& w : words) {
        known += ", ";
        known += w.text;
      }
      return bad(call.name, "\"{}\" is unknown; known are: {}", arg, known);
    }
    bits |= word->bit;
  }
  return bits;
}

constexpr std::array kStaleWords = {
    Word{"error", kStaleOnError},
    Word{"timeout", kStaleOnTimeout},
    Word{"invalid_header", kStaleOnInvalidHeader},
    Word{"updating", kStaleOnUpdating},
    Word{"http_500", kStaleOn500},
    Word{"http_502", kStaleOn502},
    Word{"http_503", kStaleOn503},
    Word{"http_504", kStaleOn504},
    Word{"http_403", kStaleOn403},
    Word{"http_404", kStaleOn404},
    Word{"http_429", kStaleOn429},
};

// The X-Accel fields of nginx's list are never processed here, so ignoring them changes nothing.
constexpr std::array kIgnoreWords = {
    Word{"Cache-Control", kIgnoreCacheControl},
    Word{"Expires", kIgnoreExpires},
    Word{"Set-Cookie", kIgnoreSetCookie},
    Word{"Vary", kIgnoreVary},
    Word{"Targeted", kIgnoreTargeted},
    Word{"Last-Modified", kIgnoreLastModified},
    Word{"Age", kIgnoreAge},
    Word{"X-Accel-Expires", 0},
    Word{"X-Accel-Redirect", 0},
    Word{"X-Accel-Limit-Rate", 0},
    Word{"X-Accel-Buffering", 0},
    Word{"X-Accel-Charset", 0},
};

Result<void> set_key_base(const Call& call) {
  if (call.arg().empty())
    return bad(call.name, "the key base is empty; write for example the site");
  call.policy.key_base = call.arg();
  return {};
}

Result<void> set_query(const Call& call) {
  CachePolicy& policy = call.policy;
  policy.query = QueryRule::kKeep;
  policy.query_sort = false;
  policy.query_ignored.clear();
  Args rest = call.args;
  if (equals_ignore_case(rest.front(), "sort")) {
    policy.query_sort = true;
    rest = rest.subspan(1);
    if (rest.empty()) return {};
  }
  if (equals_ignore_case(rest.front(), "keep") && rest.size() == 1) return {};
  if (!equals_ignore_case(rest.front(), "ignore")) {
    return bad(call.name, "\"{}\" is unknown; write keep, ignore [name ...] or sort", rest.front());
  }
  policy.query = rest.size() == 1 ? QueryRule::kIgnoreAll : QueryRule::kIgnoreListed;
  for (const std::string_view name : rest.subspan(1)) policy.query_ignored.emplace_back(name);
  return {};
}

Result<void> set_ignore_query_string(const Call& call) {
  return flag_of(call, call.arg()).map([&](bool on) {
    call.policy.query = on ? QueryRule::kIgnoreAll : QueryRule::kKeep;
    call.policy.query_ignored.clear();
  });
}

Result<void> set_methods(const Call& call) {
  call.policy.cache_post = false;
  for (const std::string_view arg : call.args) {
    const Method method = parse_method(arg);
    if (method == Method::kPost) {
      call.policy.cache_post = true;
    } else if (!is_get_or_head(method)) {
      return bad(call.name, "responses to {} cannot be cached; choose from GET, HEAD and POST",
                 arg);
    }
  }
  return {};
}

Result<void> set_valid(const Call& call) {
  const auto seconds = seconds_of(call, call.args.back());
  if (!seconds) return tl::unexpected(seconds.error());
  std::vector<ValidTime> added;
  for (const std::string_view arg : call.args.first(call.args.size() - 1)) {
    if (equals_ignore_case(arg, "any")) {
      added.push_back({0, *seconds});
      continue;
    }
    const auto status = status_of(call, arg);
    if (!status) return tl::unexpected(status.error());
    added.push_back({*status, *seconds});
  }
  if (added.empty()) added = {{200, *seconds}, {301, *seconds}, {302, *seconds}};
  std::vector<ValidTime>& valid = call.policy.valid;
  for (const ValidTime& time : added) {
    std::erase_if(valid, [&](const ValidTime& old) { return old.status == time.status; });
    valid.push_back(time);
  }
  return {};
}

Result<void> set_negative(const Call& call) {
  std::vector<std::uint16_t> statuses;
  for (const std::string_view arg : call.args.subspan(1)) {
    const auto status = status_of(call, arg);
    if (!status) return tl::unexpected(status.error());
    statuses.push_back(*status);
  }
  call.policy.negative_statuses = std::move(statuses);
  return assign(call.policy.negative, seconds_or_off(call, call.arg()));
}

Result<void> set_ignore_headers(const Call& call) {
  return assign(call.policy.ignored, bits_of(call, kIgnoreWords, "none"));
}

Result<void> set_stripped(const Call& call) {
  if (call.args.size() == 1 && equals_ignore_case(call.arg(), "none")) {
    call.policy.stripped_fields.clear();
    return {};
  }
  return assign(call.policy.stripped_fields, names_of(call));
}

Result<void> set_targeted(const Call& call) {
  if (call.args.size() == 1 && equals_ignore_case(call.arg(), "off")) {
    call.policy.targeted.clear();
    return {};
  }
  return assign(call.policy.targeted, names_of(call));
}

Result<void> set_use_stale(const Call& call) {
  return assign(call.policy.use_stale, bits_of(call, kStaleWords, "off"));
}

Result<void> set_stale_on_error(const Call& call) {
  constexpr std::uint32_t kErrors = kStaleOnError | kStaleOnTimeout | kStaleOnInvalidHeader |
                                    kStaleOn500 | kStaleOn502 | kStaleOn503 | kStaleOn504;
  return flag_of(call, call.arg()).map([&](bool on) {
    std::uint32_t& bits = call.policy.use_stale;
    bits = on ? bits | kErrors : bits & ~kErrors;
  });
}

Result<std::uint32_t> permille_of(const Call& call, std::string_view text, bool percent) {
  const std::size_t point = std::min(text.find('.'), text.size());
  const std::string_view places = text.substr(std::min(point + 1, text.size()));
  const auto whole = parse_decimal(text.substr(0, point));
  const auto fraction = places.empty() ? std::optional<std::uint64_t>(0) : parse_decimal(places);
  const std::size_t digits = percent ? 1 : 3;
  if (whole && fraction && *whole <= 100 && places.size() <= digits) {
    std::uint64_t value = *whole;
    for (std::size_t i = 0; i < digits; ++i) {
      value = value * 10 + (i < places.size() ? static_cast<std::uint64_t>(places[i] - '0') : 0);
    }
    if (value <= 1000) return static_cast<std::uint32_t>(value);
  }
  return percent ? bad(call.name, "\"{}\" is no percentage from 0 to 100, such as 10 or 2.5", text)
                 : bad(call.name, "\"{}\" is no factor from 0 to 1, such as 0.1", text);
}

Result<void> set_share(const Call& call, SpaceShare& share) {
  share = {};
  if (equals_ignore_case(call.arg(), "off")) return {};
  if (call.arg().ends_with('%')) {
    return assign(share.permille, permille_of(call, call.arg().substr(0, call.arg().size() - 1), true));
  }
  return assign(share.bytes, size_of(call, call.arg()));
}

Result<void> set_quota(const Call& call) {
  if (auto set = set_share(call, call.policy.quota); !set) return set;
  if (call.policy.quota.bytes + call.policy.quota.permille > 0 || equals_ignore_case(call.arg(), "off")) {
    return {};
  }
  return bad(call.name, "a quota of 0 stores nothing; to cache nothing here switch the cache off");
}

Result<void> set_reserve(const Call& call) { return set_share(call, call.policy.reserve); }

Result<void> set_site(const Call& call) {
  if (call.arg().empty() || !is_safe_value(call.arg())) {
    return bad(call.name, "the site has no name; write for example shop");
  }
  call.policy.site = call.arg();
  return {};
}

Result<void> set_heuristic(const Call& call) {
  if (equals_ignore_case(call.arg(), "off")) {
    call.policy.heuristic_permille = 0;
    return {};
  }
  if (call.args.size() == 2) {
    if (auto set = assign(call.policy.heuristic_max, seconds_of(call, call.args[1])); !set) {
      return set;
    }
  }
  return assign(call.policy.heuristic_permille, permille_of(call, call.arg(), true));
}

Result<void> set_last_modified_factor(const Call& call) {
  return assign(call.policy.heuristic_permille, permille_of(call, call.arg(), false));
}

Result<void> set_set_cookie(const Call& call) {
  constexpr std::array kWords = {Word{"explicit", 0}, Word{"never", 1}, Word{"always", 2},
                                 Word{"strip", 3}};
  for (const Word& word : kWords) {
    if (!equals_ignore_case(word.text, call.arg())) continue;
    call.policy.set_cookie = static_cast<SetCookieRule>(word.bit);
    return {};
  }
  return bad(call.name, "\"{}\" is unknown; write explicit, never, always or strip", call.arg());
}

Result<void> set_cache_status(const Call& call) {
  const auto flag = flag_of(call, call.arg());
  call.policy.send_cache_status = flag.value_or(true);
  if (flag) return {};
  if (call.arg().empty() || !is_safe_value(call.arg())) {
    return bad(call.name, "write on, off, or the name of this cache");
  }
  call.policy.cache_status_name = call.arg();
  return {};
}

Result<void> set_lock_busy(const Call& call) {
  constexpr std::array kWords = {Word{"wait", 0}, Word{"pass", 1}, Word{"503", 2}};
  for (const Word& word : kWords) {
    if (!equals_ignore_case(word.text, call.arg())) continue;
    call.policy.lock_busy = static_cast<LockBusy>(word.bit);
    return {};
  }
  return bad(call.name, "\"{}\" is unknown; write wait, pass or 503", call.arg());
}

bool parse_address(std::string_view text, Network& network) {
  std::array<char, INET6_ADDRSTRLEN> zero_ended{};
  if (text.size() >= zero_ended.size()) return false;
  std::copy(text.begin(), text.end(), zero_ended.begin());
  network.is_v6 = text.find(':') != std::string_view::npos;
  return inet_pton(network.is_v6 ? AF_INET6 : AF_INET, zero_ended.data(), network.address.data()) ==
         1;
}

Result<void> set_purge(const Call& call) {
  call.policy.purge_from.clear();
  call.policy.purge = false;
  if (call.args.size() == 1 && equals_ignore_case(call.arg(), "off")) return {};
  constexpr std::array<std::string_view, 2> kThisMachine = {"127.0.0.1", "::1"};
  const bool on = call.args.size() == 1 && equals_ignore_case(call.arg(), "on");
  for (const std::string_view arg : on ? Args(kThisMachine) : call.args) {
    const std::size_t slash = std::min(arg.find('/'), arg.size());
    Network network;
    if (!parse_address(arg.substr(0, slash), network)) {
      return bad(call.name, "\"{}\" is no address; write for example 127.0.0.1, 10.0.0.0/8, or on", arg);
    }
    const std::uint64_t most = network.is_v6 ? 128 : 32;
    const auto bits =
        slash == arg.size() ? std::optional(most) : parse_decimal(arg.substr(slash + 1));
    if (!bits || *bits > most) {
      return bad(call.name, "\"{}\" needs a prefix length from 0 to {} after the slash", arg, most);
    }
    network.bits = static_cast<std::uint8_t>(*bits);
    call.policy.purge_from.push_back(network);
  }
  call.policy.purge = true;
  return {};
}

template <auto Member>
Result<void> set_flag(const Call& call) {
  return assign(call.policy.*Member, flag_of(call, call.arg()));
}
template <auto Member>
Result<void> set_seconds(const Call& call) {
  return assign(call.policy.*Member, seconds_or_off(call, call.arg()));
}
template <auto Member>
Result<void> set_ms(const Call& call) {
  return assign(call.policy.*Member, ms_of(call, call.arg()));
}
template <auto Member>
Result<void> set_size(const Call& call) {
  return assign(call.policy.*Member, size_of(call, call.arg()));
}
template <auto Member>
Result<void> set_count(const Call& call) {
  return assign(call.policy.*Member, count_of(call, call.arg()));
}

template <auto... Members>
void copy(CachePolicy& to, const CachePolicy& from) {
  ((to.*Members = from.*Members), ...);
}

struct Entry {
  DirectiveInfo info;
  Result<void> (*set)(const Call&);
  void (*copy)(CachePolicy&, const CachePolicy&);
};

using P = CachePolicy;
constexpr std::uint8_t kMany = 255;

constexpr std::array kEntries = {
    Entry{{"enable", "Enable", "on|off", "caching at all", 1, 1},
          set_flag<&P::enabled>,
          copy<&P::enabled>},
    Entry{
        {"key_base", "KeyBase", "string",
         "first part of the key; default: scheme, host and the server's port", 1, 1},
        set_key_base,
        copy<&P::key_base>},
    Entry{{"key_port", "KeyPort", "on|off",
           "without a key base: keys contain the server's port", 1, 1},
          set_flag<&P::key_port>,
          copy<&P::key_port>},
    Entry{{"query", "Query", "[sort] keep | [sort] ignore [name ...] | sort",
           "which part of the query belongs to the key", 1, kMany},
          set_query,
          copy<&P::query, &P::query_sort, &P::query_ignored>},
    Entry{{"ignore_query_string", "IgnoreQueryString", "on|off", "keys without the query", 1, 1},
          set_ignore_query_string,
          copy<&P::query, &P::query_sort, &P::query_ignored>},
    Entry{{"methods", "Methods", "GET|HEAD|POST ...",
           "whose responses are stored; GET and HEAD always are", 1, 3},
          set_methods,
          copy<&P::cache_post>},
    Entry{{"post_content_location", "PostContentLocation", "on|off",
           "store a POST answer with its own URL as Content-Location for GET", 1, 1},
          set_flag<&P::post_content_location>,
          copy<&P::post_content_location>},
    Entry{{"min_uses", "MinUses", "number", "requests before a response is stored", 1, 1},
          set_count<&P::min_uses>,
          copy<&P::min_uses>},
    Entry{{"min_object", "MinFileSize", "size", "smaller bodies are not stored", 1, 1},
          set_size<&P::min_object>,
          copy<&P::min_object>},
    Entry{{"max_object", "MaxFileSize", "size", "larger bodies are not stored", 1, 1},
          set_size<&P::max_object>,
          copy<&P::max_object>},
    Entry{{"site", "Site", "name", "whose share of the space responses take", 1, 1},
          set_site,
          copy<&P::site>},
    Entry{{"quota", "Quota", "size|percent%|off", "the most space that the site's responses take", 1,
           1},
          set_quota,
          copy<&P::quota>},
    Entry{{"reserve", "Reserve", "size|percent%|off",
           "space of the site that no other site's responses take away", 1, 1},
          set_reserve,
          copy<&P::reserve>},
    Entry{{"partial", "Partial", "on|off", "store 206 responses and combine them", 1, 1},
          set_flag<&P::partial>,
          copy<&P::partial>},
    Entry{{"valid", "Valid", "[status ...|any] time",
           "freshness of responses that do not say theirs", 1, kMany},
          set_valid,
          copy<&P::valid>},
    Entry{{"negative", "Negative", "time [status ...] | off", "freshness of error responses", 1,
           kMany},
          set_negative,
          copy<&P::negative, &P::negative_statuses>},
    Entry{{"default_expire", "DefaultExpire", "time|off", "freshness without any other hint", 1, 1},
          set_seconds<&P::default_expire>,
          copy<&P::default_expire>},
    Entry{{"min_expire", "MinExpire", "time|off", "shortest heuristic or default freshness", 1, 1},
          set_seconds<&P::min_expire>,
          copy<&P::min_expire>},
    Entry{{"max_expire", "MaxExpire", "time|off", "longest freshness of any kind", 1, 1},
          set_seconds<&P::max_expire>,
          copy<&P::max_expire>},
    Entry{{"heuristic", "Heuristic", "percent [time] | off",
           "share of the time since Last-Modified, and its limit", 1, 2},
          set_heuristic,
          copy<&P::heuristic_permille, &P::heuristic_max>},
    Entry{{"last_modified_factor", "LastModifiedFactor", "factor",
           "share of the time since Last-Modified", 1, 1},
          set_last_modified_factor,
          copy<&P::heuristic_permille, &P::heuristic_max>},
    Entry{{"ignore_headers", "IgnoreMeaning", "field ...|none",
           "response fields that do not influence caching", 1, kMany},
          set_ignore_headers,
          copy<&P::ignored>},
    Entry{{"strip_headers", "IgnoreHeaders", "field ...|none",
           "response fields that are not stored", 1, kMany},
          set_stripped,
          copy<&P::stripped_fields>},
    Entry{{"set_cookie", "SetCookie", "explicit|never|always|strip",
           "what Set-Cookie does to storing", 1, 1},
          set_set_cookie,
          copy<&P::set_cookie>},
    Entry{{"targeted", "Targeted", "field ...|off", "targeted fields (RFC 9213), best first", 1,
           kMany},
          set_targeted,
          copy<&P::targeted>},
    Entry{{"store_private", "StorePrivate", "on|off", "disobey Cache-Control: private", 1, 1},
          set_flag<&P::store_private>,
          copy<&P::store_private>},
    Entry{{"store_no_store", "StoreNoStore", "on|off", "disobey Cache-Control: no-store", 1, 1},
          set_flag<&P::store_no_store>,
          copy<&P::store_no_store>},
    Entry{{"check_unkeyed", "CheckUnkeyed", "on|off",
           "do not store what X-Forwarded-Host and the like may have changed", 1, 1},
          set_flag<&P::check_unkeyed>,
          copy<&P::check_unkeyed>},
    Entry{
        {"hit_for_miss", "HitForMiss", "time|off", "how long \"not storable\" is remembered", 1, 1},
        set_seconds<&P::hit_for_miss>,
        copy<&P::hit_for_miss>},
    Entry{{"use_stale", "UseStale", "error|timeout|invalid_header|updating|http_NNN ...|off",
           "failures for which a stale response stands in", 1, kMany},
          set_use_stale,
          copy<&P::use_stale>},
    Entry{{"stale_on_error", "StaleOnError", "on|off", "stale instead of errors and 5xx", 1, 1},
          set_stale_on_error,
          copy<&P::use_stale>},
    Entry{{"stale_while_revalidate", "StaleWhileRevalidate", "time|off",
           "default of that directive (RFC 5861)", 1, 1},
          set_seconds<&P::stale_while_revalidate>,
          copy<&P::stale_while_revalidate>},
    Entry{{"stale_if_error", "StaleIfError", "time|off", "default of that directive (RFC 5861)", 1,
           1},
          set_seconds<&P::stale_if_error>,
          copy<&P::stale_if_error>},
    Entry{{"max_stale", "MaxStale", "time|off", "how stale a response may be served at all", 1, 1},
          set_seconds<&P::max_stale>,
          copy<&P::max_stale>},
    Entry{{"background_update", "BackgroundUpdate", "on|off",
           "with use_stale updating: refresh behind a stale answer", 1, 1},
          set_flag<&P::background_update>,
          copy<&P::background_update>},
    Entry{{"revalidate", "Revalidate", "on|off", "conditional requests to the origin", 1, 1},
          set_flag<&P::revalidate>,
          copy<&P::revalidate>},
    Entry{{"ignore_cache_control", "IgnoreCacheControl", "on|off",
           "disobey Cache-Control and Pragma of requests", 1, 1},
          set_flag<&P::ignore_cache_control>,
          copy<&P::ignore_cache_control>},
    Entry{{"max_ranges", "MaxRanges", "number", "ranges answered in one response", 1, 1},
          set_count<&P::max_ranges>,
          copy<&P::max_ranges>},
    Entry{{"lock", "Lock", "on|off", "one request to the origin for many clients", 1, 1},
          set_flag<&P::lock>,
          copy<&P::lock>},
    Entry{{"lock_timeout", "LockTimeout", "time", "longest wait for another's fill", 1, 1},
          set_ms<&P::lock_timeout_ms>,
          copy<&P::lock_timeout_ms>},
    Entry{
        {"lock_age", "LockMaxAge", "time", "a fill silent for so long is given to the next", 1, 1},
        set_ms<&P::lock_age_ms>,
        copy<&P::lock_age_ms>},
    Entry{{"lock_busy", "LockBusy", "wait|pass|503", "what happens when half of the threads wait", 1, 1},
          set_lock_busy,
          copy<&P::lock_busy>},
    Entry{
        {"status_header", "StatusHeader", "on|off|name", "the Cache-Status field (RFC 9211)", 1, 1},
        set_cache_status,
        copy<&P::send_cache_status, &P::cache_status_name>},
    Entry{{"purge", "Purge", "on|address[/bits] ...|off",
           "who may purge with the PURGE method; on: this machine", 1,
           kMany},
          set_purge,
          copy<&P::purge, &P::purge_from>},
};
static_assert(kEntries.size() <= 64, "CachePolicy::set_rules has one bit per directive");

constexpr std::uint64_t share_rules() {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < kEntries.size(); ++i) {
    const std::string_view name = kEntries[i].info.nginx_name;
    if (name == "quota" || name == "reserve") bits |= std::uint64_t{1} << i;
  }
  return bits;
}
constexpr std::uint64_t kShareRules = share_rules();

constexpr auto make_infos() {
  std::array<DirectiveInfo, kEntries.size()> infos{};
  for (std::size_t i = 0; i < infos.size(); ++i) infos[i] = kEntries[i].info;
  return infos;
}
constexpr auto kInfos = make_infos();

// Neither 400 nor 403: what one client's request provokes must not meet all others.
constexpr std::array<std::uint16_t, 10> kErrorStatuses = {404, 405, 410, 414, 451,
                                                          500, 501, 502, 503, 504};

bool matches_network(const Network& network, const Network& address) {
  if (network.is_v6 != address.is_v6) return false;
  const std::size_t whole = network.bits / 8u;
  if (!std::equal(network.address.begin(),
                  network.address.begin() + static_cast<std::ptrdiff_t>(whole),
                  address.address.begin())) {
    return false;
  }
  const unsigned int rest = network.bits % 8u;
  return rest == 0 || ((network.address[whole] ^ address.address[whole]) >> (8 - rest)) == 0;
}

}  // namespace

std::string_view site_name(const CachePolicy& policy) noexcept {
  const auto none = [](const SpaceShare& share) { return share.bytes == 0 && share.permille == 0; };
  if (!policy.site.empty()) return policy.site;
  // Given as off: told apart too, so that what was noted before is withdrawn.
  if (none(policy.quota) && none(policy.reserve) && (policy.set_rules & kShareRules) == 0) return {};
  return policy.key_base.empty() ? kUnnamedSite : std::string_view(policy.key_base);
}

std::span<const DirectiveInfo> policy_directives() noexcept { return kInfos; }

Result<void> set_directive(CachePolicy& policy, std::string_view name,
                           std::span<const std::string_view> args) {
  const auto entry = std::find_if(kEntries.begin(), kEntries.end(), [&](const Entry& candidate) {
    return candidate.info.nginx_name == name || equals_ignore_case(candidate.info.httpd_name, name);
  });
  if (entry == kEntries.end()) {
    return bad(name, "no such caching rule; docs/directives.md lists them");
  }
  const DirectiveInfo& info = entry->info;
  if (args.size() < info.min_args || args.size() > info.max_args) {
    return bad(name, "wrong number of arguments ({}); write: {}", args.size(), info.syntax);
  }
  const std::uint64_t bit = std::uint64_t{1} << (entry - kEntries.begin());
  // A directive that fails leaves the policy as it was.
  CachePolicy changed = policy;
  const Call call{changed, name, args};
  if (auto set = entry->set(call); !set) return set;
  changed.set_rules |= bit;
  policy = std::move(changed);
  return {};
}

void inherit_policy(CachePolicy& child, const CachePolicy& parent) {
  for (std::size_t i = 0; i < kEntries.size(); ++i) {
    const std::uint64_t bit = std::uint64_t{1} << i;
    if ((parent.set_rules & bit) == 0 || (child.set_rules & bit) != 0) continue;
    // Another directive of the child may set the same members (UseStale and StaleOnError).
    bool overridden = false;
    for (std::size_t other = 0; other < kEntries.size(); ++other) {
      overridden |=
          (child.set_rules >> other & 1u) != 0 && kEntries[other].copy == kEntries[i].copy;
    }
    if (!overridden) kEntries[i].copy(child, parent);
  }
  child.set_rules |= parent.set_rules;
}

std::int64_t configured_lifetime(const CachePolicy& policy, int status) noexcept {
  std::int64_t any = kAbsent;
  for (const ValidTime& time : policy.valid) {
    if (time.status == status) return time.seconds;
    if (time.status == 0) any = time.seconds;
  }
  if (policy.negative > 0) {
    const std::span<const std::uint16_t> statuses =
        policy.negative_statuses.empty() ? std::span<const std::uint16_t>(kErrorStatuses)
                                         : std::span<const std::uint16_t>(policy.negative_statuses);
    if (std::find(statuses.begin(), statuses.end(), status) != statuses.end()) {
      return policy.negative;
    }
  }
  return any;
}

bool is_ignored_parameter(const CachePolicy& policy, std::string_view name) noexcept {
  for (const std::string& ignored : policy.query_ignored) {
    const std::string_view pattern = ignored;
    if (!pattern.empty() && pattern.back() == '*') {
      if (name.substr(0, pattern.size() - 1) == pattern.substr(0, pattern.size() - 1)) return true;
    } else if (name == pattern) {
      return true;
    }
  }
  return false;
}

bool purge_allowed(const CachePolicy& policy, std::string_view address) noexcept {
  // What a socket for both versions calls an IPv4 client (RFC 4291 2.5.5.2).
  constexpr std::string_view kMapped = "::ffff:";
  if (starts_with_ignore_case(address, kMapped) && address.find('.') != std::string_view::npos) {
    address.remove_prefix(kMapped.size());
  }
  Network network;
  if (!policy.purge || !parse_address(address, network)) return false;
  return std::any_of(policy.purge_from.begin(), policy.purge_from.end(),
                     [&](const Network& allowed) { return matches_network(allowed, network); });
}

std::optional<std::int64_t> parse_time_ms(std::string_view text) noexcept {
  struct Unit {
    std::string_view text;
    std::int64_t ms;
  };
  constexpr std::array<Unit, 8> kUnits = {{{"y", 31536000000},
                                           {"M", 2592000000},
                                           {"w", 604800000},
                                           {"d", 86400000},
                                           {"h", 3600000},
                                           {"m", 60000},
                                           {"s", 1000},
                                           {"ms", 1}}};
  constexpr std::int64_t kMost = kMaxDeltaSeconds * 1000;
  if (text.empty()) return std::nullopt;
  std::int64_t total = 0;
  std::size_t next_unit = 0;
  while (!text.empty()) {
    std::size_t digits = 0;
    while (digits < text.size() && is_digit(text[digits])) ++digits;
    const auto number = parse_decimal(text.substr(0, digits));
    if (!number || *number > static_cast<std::uint64_t>(kMost)) return std::nullopt;
    text.remove_prefix(digits);
    std::size_t letters = 0;
    while (letters < text.size() && is_alpha(text[letters])) ++letters;
    const std::string_view name = letters == 0 ? "s" : text.substr(0, letters);
    while (next_unit < kUnits.size() && kUnits[next_unit].text != name) ++next_unit;
    if (next_unit == kUnits.size()) return std::nullopt;
    std::int64_t part = 0;
    if (__builtin_mul_overflow(static_cast<std::int64_t>(*number), kUnits[next_unit].ms, &part)) {
      return std::nullopt;
    }
    total = saturating_add(total, part);
    if (total > kMost) return std::nullopt;
    ++next_unit;
    text.remove_prefix(letters);
  }
  return total;
}

std::optional<std::uint64_t> parse_size(std::string_view text) noexcept {
  if (text.empty()) return std::nullopt;
  std::uint64_t unit = 1;
  switch (to_lower(text.back())) {
    case 'k':
      unit = 1024;
      break;
    case 'm':
      unit = 1024 * 1024;
      break;
    case 'g':
      unit = 1024 * 1024 * 1024;
      break;
    default:
      break;
  }
  if (unit != 1) text.remove_suffix(1);
  const auto number = parse_decimal(text);
  std::uint64_t bytes = 0;
  if (!number || __builtin_mul_overflow(*number, unit, &bytes)) return std::nullopt;
  return bytes;
}

}  // namespace mcs::http
