// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/field.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace mcs::http {
namespace {

constexpr std::array<bool, 256> make_tchar_table() {
  std::array<bool, 256> table{};
  for (int c = '0'; c <= '9'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (int c = 'a'; c <= 'z'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (int c = 'A'; c <= 'Z'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (const char c : std::string_view("!#$%&'*+-.^_`|~")) {
    table[static_cast<unsigned char>(c)] = true;
  }
  return table;
}
constexpr std::array<bool, 256> kTchar = make_tchar_table();

struct KnownField {
  std::string_view name;  // lower case
  FieldId id;
};

// Sorted by length, so that a name is compared with few others.
constexpr std::array kKnownFields = {
    KnownField{"te", FieldId::kTe},
    KnownField{"age", FieldId::kAge},
    KnownField{"date", FieldId::kDate},
    KnownField{"etag", FieldId::kEtag},
    KnownField{"host", FieldId::kHost},
    KnownField{"vary", FieldId::kVary},
    KnownField{"range", FieldId::kRange},
    KnownField{"cookie", FieldId::kCookie},
    KnownField{"pragma", FieldId::kPragma},
    KnownField{"expires", FieldId::kExpires},
    KnownField{"trailer", FieldId::kTrailer},
    KnownField{"upgrade", FieldId::kUpgrade},
    KnownField{"if-match", FieldId::kIfMatch},
    KnownField{"if-range", FieldId::kIfRange},
    KnownField{"location", FieldId::kLocation},
    KnownField{"forwarded", FieldId::kForwarded},
    KnownField{"connection", FieldId::kConnection},
    KnownField{"keep-alive", FieldId::kKeepAlive},
    KnownField{"set-cookie", FieldId::kSetCookie},
    KnownField{"set-cookie2", FieldId::kSetCookie},
    KnownField{"cache-status", FieldId::kCacheStatus},
    KnownField{"content-type", FieldId::kContentType},
    KnownField{"authorization", FieldId::kAuthorization},
    KnownField{"cache-control", FieldId::kCacheControl},
    KnownField{"content-range", FieldId::kContentRange},
    KnownField{"if-none-match", FieldId::kIfNoneMatch},
    KnownField{"last-modified", FieldId::kLastModified},
    KnownField{"content-length", FieldId::kContentLength},
    KnownField{"accept-encoding", FieldId::kAcceptEncoding},
    KnownField{"accept-language", FieldId::kAcceptLanguage},
    KnownField{"content-encoding", FieldId::kContentEncoding},
    KnownField{"content-language", FieldId::kContentLanguage},
    KnownField{"content-location", FieldId::kContentLocation},
    KnownField{"if-modified-since", FieldId::kIfModifiedSince},
    KnownField{"transfer-encoding", FieldId::kTransferEncoding},
    KnownField{"if-unmodified-since", FieldId::kIfUnmodifiedSince},
};

constexpr std::size_t kLongestKnown = 19;

// kBucket[n]..kBucket[n + 1] are the fields whose names have n characters.
constexpr std::array<std::uint8_t, kLongestKnown + 2> make_buckets() {
  std::array<std::uint8_t, kLongestKnown + 2> buckets{};
  std::size_t index = 0;
  for (std::size_t length = 0; length < buckets.size(); ++length) {
    while (index < kKnownFields.size() && kKnownFields[index].name.size() < length) ++index;
    buckets[length] = static_cast<std::uint8_t>(index);
  }
  return buckets;
}
constexpr auto kBucket = make_buckets();
static_assert(kBucket[kLongestKnown + 1] == kKnownFields.size(),
              "kKnownFields is not sorted by length, or kLongestKnown is too small");

bool equals_lower(std::string_view text, std::string_view lower) noexcept {
  for (std::size_t i = 0; i < lower.size(); ++i) {
    if (to_lower(text[i]) != lower[i]) return false;
  }
  return true;
}

}  // namespace

FieldId field_id(std::string_view name) noexcept {
  if (name.size() <= kLongestKnown) {
    for (std::size_t i = kBucket[name.size()]; i < kBucket[name.size() + 1]; ++i) {
      if (equals_lower(name, kKnownFields[i].name)) return kKnownFields[i].id;
    }
  }
  // Old and new hop-by-hop fields all begin so; Proxy-Status (RFC 9209) alone is end-to-end.
  if (name.size() > 6 && to_lower(name[0]) == 'p' && starts_with_ignore_case(name, "proxy-") &&
      !equals_ignore_case(name, "proxy-status")) {
    return FieldId::kProxy;
  }
  return FieldId::kOther;
}

Method parse_method(std::string_view name) noexcept {
  switch (name.size()) {
    case 3:
      if (name == "GET") return Method::kGet;
      if (name == "PUT") return Method::kPut;
      break;
    case 4:
      if (name == "HEAD") return Method::kHead;
      if (name == "POST") return Method::kPost;
      break;
    case 5:
      if (name == "PATCH") return Method::kPatch;
      if (name == "TRACE") return Method::kTrace;
      if (name == "QUERY") return Method::kSafeOther;
      break;
    case 6:
      if (name == "DELETE") return Method::kDelete;
      if (name == "SEARCH" || name == "REPORT") return Method::kSafeOther;
      break;
    case 7:
      if (name == "OPTIONS") return Method::kOptions;
      if (name == "CONNECT") return Method::kConnect;
      break;
    case 8:
      if (name == "PROPFIND") return Method::kSafeOther;
      break;
    default:
      break;
  }
  return Method::kUnsafeOther;
}

bool is_tchar(char c) noexcept { return kTchar[static_cast<unsigned char>(c)]; }

bool is_token(std::string_view text) noexcept {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_tchar);
}

std::string_view trim(std::string_view text) noexcept {
  while (!text.empty() && is_ows(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_ows(text.back())) text.remove_suffix(1);
  return text;
}

bool equals_ignore_case(std::string_view a, std::string_view b) noexcept {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (to_lower(a[i]) != to_lower(b[i])) return false;
  }
  return true;
}

int compare_ignore_case(std::string_view a, std::string_view b) noexcept {
  const std::size_t common = std::min(a.size(), b.size());
  for (std::size_t i = 0; i < common; ++i) {
    const int difference =
        static_cast<unsigned char>(to_lower(a[i])) - static_cast<unsigned char>(to_lower(b[i]));
    if (difference != 0) return difference;
  }
  if (a.size() == b.size()) return 0;
  return a.size() < b.size() ? -1 : 1;
}

bool starts_with_ignore_case(std::string_view text, std::string_view prefix) noexcept {
  return text.size() >= prefix.size() && equals_ignore_case(text.substr(0, prefix.size()), prefix);
}

bool is_safe_value(std::string_view value) noexcept {
  // Eight bytes at a time: (x - 0x01..) & ~x & 0x80.. is non-zero exactly if a byte of x is zero.
  constexpr std::uint64_t kOnes = 0x0101010101010101u;
  constexpr std::uint64_t kHighs = 0x8080808080808080u;
  const auto has_zero = [](std::uint64_t x) { return (x - kOnes) & ~x & kHighs; };
  const char* data = value.data();
  std::size_t left = value.size();
  while (left >= 8) {
    std::uint64_t word;
    std::memcpy(&word, data, 8);
    if ((has_zero(word) | has_zero(word ^ (kOnes * '\r')) | has_zero(word ^ (kOnes * '\n'))) != 0) {
      return false;
    }
    data += 8;
    left -= 8;
  }
  for (; left > 0; --left, ++data) {
    if (*data == '\0' || *data == '\r' || *data == '\n') return false;
  }
  return true;
}

const FieldView* find_field(Fields fields, std::string_view name) noexcept {
  for (const FieldView& field : fields) {
    if (equals_ignore_case(field.name, name)) return &field;
  }
  return nullptr;
}

std::string_view field_value(Fields fields, std::string_view name) noexcept {
  const FieldView* field = find_field(fields, name);
  return field != nullptr ? trim(field->value) : std::string_view();
}

bool ListReader::next(std::string_view& member) noexcept {
  while (!rest_.empty()) {
    std::size_t end = 0;
    while (end < rest_.size() && rest_[end] != ',') {
      if (rest_[end] == '"' && quotes_close_) {
        std::size_t close = end + 1;
        while (close < rest_.size() && rest_[close] != '"') {
          close += rest_[close] == '\\' ? 2 : 1;
        }
        quotes_close_ = close < rest_.size();
        if (quotes_close_) end = close;
      }
      ++end;
    }
    member = trim(rest_.substr(0, end));
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    if (!member.empty()) return true;
  }
  return false;
}

Directive split_directive(std::string_view member) noexcept {
  Directive directive;
  const std::size_t equals = member.find('=');
  if (equals == std::string_view::npos) {
    directive.name = trim(member);
    return directive;
  }
  directive.has_value = true;
  const std::string_view raw_name = member.substr(0, equals);
  directive.name = trim(raw_name);
  std::string_view value = member.substr(equals + 1);
  directive.malformed =
      directive.name.size() != raw_name.size() || (!value.empty() && is_ows(value.front()));
  value = trim(value);
  if (value.size() >= 2 && value.front() == '"') {
    std::size_t close = 1;
    while (close < value.size() && value[close] != '"') close += value[close] == '\\' ? 2 : 1;
    if (close < value.size()) {
      directive.quoted = true;
      if (close + 1 != value.size()) directive.malformed = true;
      value = value.substr(1, close - 1);
    } else {
      directive.malformed = true;
    }
  }
  directive.value = value;
  return directive;
}

bool list_contains(Fields fields, std::string_view name, std::string_view member) noexcept {
  for (const FieldView& field : fields) {
    if (!equals_ignore_case(field.name, name)) continue;
    ListReader reader(field.value);
    for (std::string_view item; reader.next(item);) {
      if (equals_ignore_case(item, member)) return true;
    }
  }
  return false;
}

}  // namespace mcs::http
