// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/cache_control.h"

#include <algorithm>
#include <optional>

#include "libglobalcache/http/date.h"
#include "libglobalcache/http/structured_field.h"

namespace mcs::http {
namespace {

enum class Name : std::uint8_t {
  kOther,
  kPublic,
  kPrivate,
  kNoCache,
  kNoStore,
  kMustRevalidate,
  kProxyRevalidate,
  kMustUnderstand,
  kImmutable,
  kMaxAge,
  kSMaxAge,
  kStaleWhileRevalidate,
  kStaleIfError,
  kOnlyIfCached,
  kMinFresh,
  kMaxStale,
};

struct KnownName {
  std::string_view text;
  Name name;
};

constexpr std::array kNames = {
    KnownName{"max-age", Name::kMaxAge},
    KnownName{"s-maxage", Name::kSMaxAge},
    KnownName{"public", Name::kPublic},
    KnownName{"private", Name::kPrivate},
    KnownName{"no-cache", Name::kNoCache},
    KnownName{"no-store", Name::kNoStore},
    KnownName{"must-revalidate", Name::kMustRevalidate},
    KnownName{"proxy-revalidate", Name::kProxyRevalidate},
    KnownName{"must-understand", Name::kMustUnderstand},
    KnownName{"immutable", Name::kImmutable},
    KnownName{"stale-while-revalidate", Name::kStaleWhileRevalidate},
    KnownName{"stale-if-error", Name::kStaleIfError},
    KnownName{"only-if-cached", Name::kOnlyIfCached},
    KnownName{"min-fresh", Name::kMinFresh},
    KnownName{"max-stale", Name::kMaxStale},
};

Name known_name(std::string_view text) noexcept {
  for (const KnownName& known : kNames) {
    if (equals_ignore_case(text, known.text)) return known.name;
  }
  return Name::kOther;
}

std::optional<std::int64_t> seconds_of(const Directive& directive) noexcept {
  if (!directive.has_value || directive.malformed) return std::nullopt;
  return parse_delta_seconds(directive.value);
}

void keep_smaller(std::int64_t& kept, std::int64_t value) noexcept {
  if (kept == kAbsent || value < kept) kept = value;
}

// A first, unreadable number is remembered as 0 seconds, so that no later one replaces it.
void keep_first(std::int64_t& kept, std::optional<std::int64_t> value, bool& invalid) noexcept {
  if (kept != kAbsent) return;
  kept = value.value_or(0);
  if (!value) invalid = true;
}

// `private` and `no-cache`: with names they speak of those fields only.
void add_qualified(const Directive& directive, bool& unqualified, FieldNameList& names) noexcept {
  if (!directive.has_value || directive.malformed || trim(directive.value).empty() ||
      !names.add(directive.value)) {
    unqualified = true;
  }
}

void add_request_line(std::string_view line, RequestDirectives& directives) noexcept {
  ListReader reader(line);
  for (std::string_view member; reader.next(member);) {
    const Directive directive = split_directive(member);
    switch (known_name(directive.name)) {
      case Name::kNoCache:
        directives.no_cache = directives.any = true;
        break;
      case Name::kNoStore:
        directives.no_store = directives.any = true;
        break;
      case Name::kOnlyIfCached:
        directives.only_if_cached = directives.any = true;
        break;
      case Name::kMaxAge:
        keep_smaller(directives.max_age, seconds_of(directive).value_or(0));
        directives.any = true;
        break;
      case Name::kMinFresh:
        if (const auto seconds = seconds_of(directive)) {
          directives.min_fresh = std::max(directives.min_fresh, *seconds);
          directives.any = true;
        }
        break;
      case Name::kMaxStale:
        if (const auto seconds =
                directive.has_value ? seconds_of(directive) : std::optional(kMaxDeltaSeconds)) {
          keep_smaller(directives.max_stale, *seconds);
          directives.any = true;
        }
        break;
      case Name::kStaleIfError:
        if (const auto seconds = seconds_of(directive)) {
          keep_smaller(directives.stale_if_error, *seconds);
          directives.any = true;
        }
        break;
      default:
        break;
    }
  }
}

// The type that RFC 9213 2.1 and the directives' definitions want; nothing else is accepted.
bool add_targeted(const SfMember& member, ResponseDirectives& directives) noexcept {
  const Name name = known_name(member.key);
  if (name == Name::kOther) return true;
  if (member.is_inner_list) return false;
  const SfBareItem& item = member.item;
  const bool is_flag = item.type == SfType::kBoolean;
  const bool flag = is_flag && item.integer != 0;
  const auto set_flag = [&](bool& target) {
    target = flag;
    return is_flag;
  };
  const auto set_seconds = [&](std::int64_t& target) {
    if (item.type != SfType::kInteger || item.integer < 0) return false;
    target = std::min(item.integer, kMaxDeltaSeconds);
    return true;
  };
  const auto set_qualified = [&](bool& unqualified, FieldNameList& names) {
    unqualified = flag;
    names = FieldNameList();
    if (item.type != SfType::kString) return is_flag;
    if (trim(item.text).empty() || !names.add(item.text)) unqualified = true;
    return true;
  };
  switch (name) {
    case Name::kPublic:
      return set_flag(directives.is_public);
    case Name::kNoStore:
      return set_flag(directives.no_store);
    case Name::kMustRevalidate:
      return set_flag(directives.must_revalidate);
    case Name::kProxyRevalidate:
      return set_flag(directives.proxy_revalidate);
    case Name::kMustUnderstand:
      return set_flag(directives.must_understand);
    case Name::kImmutable:
      return set_flag(directives.immutable);
    case Name::kPrivate:
      return set_qualified(directives.is_private, directives.private_fields);
    case Name::kNoCache:
      return set_qualified(directives.no_cache, directives.no_cache_fields);
    case Name::kMaxAge:
      return set_seconds(directives.max_age);
    case Name::kSMaxAge:
      return set_seconds(directives.s_maxage);
    case Name::kStaleWhileRevalidate:
      return set_seconds(directives.stale_while_revalidate);
    case Name::kStaleIfError:
      return set_seconds(directives.stale_if_error);
    default:
      return true;
  }
}

}  // namespace

RequestDirectives parse_request_directives(Fields request) noexcept {
  RequestDirectives directives;
  bool has_cache_control = false;
  bool pragma_no_cache = false;
  for (const FieldView& field : request) {
    // The two lengths rule nearly every field out before it is looked at.
    if (field.name.size() == 13 && equals_ignore_case(field.name, "cache-control")) {
      has_cache_control = true;
      add_request_line(field.value, directives);
    } else if (field.name.size() == 6 && equals_ignore_case(field.name, "pragma")) {
      ListReader reader(field.value);
      for (std::string_view member; reader.next(member);) {
        if (equals_ignore_case(split_directive(member).name, "no-cache")) pragma_no_cache = true;
      }
    }
  }
  if (pragma_no_cache && !has_cache_control) directives.no_cache = directives.any = true;
  return directives;
}

bool FieldNameList::add(std::string_view quoted_list) noexcept {
  if (size_ == lists_.size()) return false;
  lists_[size_++] = quoted_list;
  return true;
}

bool FieldNameList::contains(std::string_view field_name) const noexcept {
  for (std::size_t i = 0; i < size_; ++i) {
    ListReader reader(lists_[i]);
    for (std::string_view member; reader.next(member);) {
      if (equals_ignore_case(member, field_name)) return true;
    }
  }
  return false;
}

void add_cache_control(std::string_view line, ResponseDirectives& directives) noexcept {
  ListReader reader(line);
  for (std::string_view member; reader.next(member);) {
    const Directive directive = split_directive(member);
    switch (known_name(directive.name)) {
      case Name::kPublic:
        directives.is_public = true;
        break;
      case Name::kNoStore:
        directives.no_store = true;
        break;
      case Name::kMustRevalidate:
        directives.must_revalidate = true;
        break;
      case Name::kProxyRevalidate:
        directives.proxy_revalidate = true;
        break;
      case Name::kMustUnderstand:
        directives.must_understand = true;
        break;
      case Name::kImmutable:
        directives.immutable = true;
        break;
      case Name::kPrivate:
        add_qualified(directive, directives.is_private, directives.private_fields);
        break;
      case Name::kNoCache:
        add_qualified(directive, directives.no_cache, directives.no_cache_fields);
        break;
      case Name::kMaxAge:
        keep_first(directives.max_age, seconds_of(directive), directives.invalid_freshness);
        break;
      case Name::kSMaxAge:
        keep_first(directives.s_maxage, seconds_of(directive), directives.invalid_freshness);
        break;
      case Name::kStaleWhileRevalidate:
        if (const auto seconds = seconds_of(directive)) {
          keep_smaller(directives.stale_while_revalidate, *seconds);
        }
        break;
      case Name::kStaleIfError:
        if (const auto seconds = seconds_of(directive)) {
          keep_smaller(directives.stale_if_error, *seconds);
        }
        break;
      default:
        break;
    }
  }
}

ResponseDirectives parse_response_directives(Fields response) noexcept {
  ResponseDirectives directives;
  for (const FieldView& field : response) {
    if (field.name.size() == 13 && equals_ignore_case(field.name, "cache-control")) {
      add_cache_control(field.value, directives);
    }
  }
  return directives;
}

bool parse_targeted_field(Fields response, std::string_view name, std::string& buffer,
                          ResponseDirectives& directives) {
  int lines = 0;
  SfDictionaryReader reader(join_field_lines(response, name, buffer, lines));
  ResponseDirectives result;
  bool any = false;
  SfMember member;
  for (;;) {
    const SfStep step = reader.next(member);
    if (step == SfStep::kError) return false;
    if (step == SfStep::kEnd) break;
    any = true;
    if (!add_targeted(member, result)) return false;
  }
  if (any) directives = result;
  return any;
}

}  // namespace mcs::http
