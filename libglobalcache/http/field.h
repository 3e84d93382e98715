// SPDX-License-Identifier: Apache-2.0
// Header fields as views, and the parts of RFC 9110 section 5 that every field shares: tokens,
// lists, case. Nothing here allocates or fails loudly: bad input ends in "not found" or
// "malformed".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace mcs::http {

/// One field line. Both views belong to the caller's message; the value may carry outer whitespace.
struct FieldView {
  std::string_view name;
  std::string_view value;
};

/// All field lines of a message, in order. A field sent on several lines appears several times.
using Fields = std::span<const FieldView>;

/// The fields that some caching rule looks at.
enum class FieldId : std::uint8_t {
  kOther,
  kAcceptEncoding,
  kAcceptLanguage,
  kAge,
  kAuthorization,
  kCacheControl,
  kCacheStatus,
  kConnection,
  kContentEncoding,
  kContentLanguage,
  kContentLength,
  kContentLocation,
  kContentRange,
  kContentType,
  kCookie,
  kDate,
  kEtag,
  kExpires,
  kForwarded,
  kHost,
  kIfMatch,
  kIfModifiedSince,
  kIfNoneMatch,
  kIfRange,
  kIfUnmodifiedSince,
  kKeepAlive,
  kLastModified,
  kLocation,
  kPragma,
  kProxy,  // any Proxy-* field except Proxy-Status
  kRange,
  kSetCookie,  // also Set-Cookie2
  kTe,
  kTrailer,
  kTransferEncoding,
  kUpgrade,
  kVary,
};

/// Which field `name` (any case) is.
FieldId field_id(std::string_view name) noexcept;

/// Request methods, as far as caching tells them apart (RFC 9110 9).
enum class Method : std::uint8_t {
  kGet,
  kHead,
  kPost,
  kPut,
  kDelete,
  kPatch,
  kOptions,
  kTrace,
  kConnect,
  kSafeOther,    // registered as safe: PROPFIND, REPORT, SEARCH, QUERY
  kUnsafeOther,  // everything else, also the unknown: it may change the resource
};

/// Case-sensitive, as RFC 9110 9.1 wants it: "get" is an unknown method.
Method parse_method(std::string_view name) noexcept;

/// RFC 9110 9.2.1.
constexpr bool is_safe(Method method) noexcept {
  return method == Method::kGet || method == Method::kHead || method == Method::kOptions ||
         method == Method::kTrace || method == Method::kSafeOther;
}

constexpr bool is_get_or_head(Method method) noexcept { return method <= Method::kHead; }

constexpr char to_lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}
constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
constexpr bool is_alpha(char c) noexcept { return to_lower(c) >= 'a' && to_lower(c) <= 'z'; }
constexpr bool is_ows(char c) noexcept { return c == ' ' || c == '\t'; }
/// tchar of RFC 9110 5.6.2.
bool is_tchar(char c) noexcept;
/// token of RFC 9110 5.6.2: at least one tchar and nothing else.
bool is_token(std::string_view text) noexcept;
/// The value of a hexadecimal digit, or -1.
constexpr int hex_value(char c) noexcept {
  if (is_digit(c)) return c - '0';
  const char lower = to_lower(c);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/// Without spaces and tabs at either end.
std::string_view trim(std::string_view text) noexcept;
/// ASCII case-insensitive comparison.
bool equals_ignore_case(std::string_view a, std::string_view b) noexcept;
/// ASCII case-insensitive three-way comparison: < 0, 0, > 0.
int compare_ignore_case(std::string_view a, std::string_view b) noexcept;
bool starts_with_ignore_case(std::string_view text, std::string_view prefix) noexcept;
/// No NUL, CR or LF: what may not travel in a field value (RFC 9110 5.5).
bool is_safe_value(std::string_view value) noexcept;

/// The first line of field `name` (any case), or nullptr.
const FieldView* find_field(Fields fields, std::string_view name) noexcept;

/// The trimmed value of the first line of field `name`; empty if there is none.
std::string_view field_value(Fields fields, std::string_view name) noexcept;

/// Walks the members of one list-valued field line (RFC 9110 5.6.1): commas inside quoted strings
/// do not separate, empty members are skipped, outer whitespace is cut off. A quote that is never
/// closed counts as an ordinary character, so that nothing after it is hidden. Takes time linear in
/// the length of the line.
class ListReader {
 public:
  explicit ListReader(std::string_view value) noexcept : rest_(value) {}
  bool next(std::string_view& member) noexcept;

 private:
  std::string_view rest_;
  bool quotes_close_ = true;  // once one does not, no later one does: escapes keep their parity
};

/// A list member split into `name [= value]`, as Cache-Control and Accept-Encoding parameters are.
struct Directive {
  std::string_view name;
  std::string_view value;  // of a quoted string: what is between the quotes, escapes untouched
  bool has_value = false;
  bool quoted = false;
  // Whitespace around "=" or text after a closing quote: the name is still trustworthy, the value
  // is not.
  bool malformed = false;
};
Directive split_directive(std::string_view member) noexcept;

/// True if a list-valued field (any number of lines) has `member` (any case), without parameters.
bool list_contains(Fields fields, std::string_view name, std::string_view member) noexcept;

}  // namespace mcs::http
