// SPDX-License-Identifier: Apache-2.0
// Structured Fields (RFC 9651, which contains RFC 8941): pull parsers that allocate nothing, and a
// serialiser.
//
// A reader checks while it advances, so what it has handed out counts only once it has answered
// kEnd: RFC 9651 4.2 wants a field with any error ignored as a whole. A field that came on several
// lines is to be joined with ", " first (join_field_lines).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "libglobalcache/http/field.h"

namespace mcs::http {

enum class SfType : std::uint8_t {
  kInteger,
  kDecimal,
  kString,
  kToken,
  kByteSequence,
  kBoolean,
  kDate,
  kDisplayString,
};

/// A bare item (RFC 9651 3.3). `text` points into the field and is not decoded.
struct SfBareItem {
  SfType type = SfType::kBoolean;
  std::int64_t integer = 1;  // Integer; Decimal: thousandths; Date: seconds; Boolean: 0 or 1
  std::string_view text;     // String, Display String: between the quotes; Token; Byte Sequence
};

/// Parameters (RFC 9651 3.1.2), already checked; read them with SfParameterReader.
struct SfParameters {
  std::string_view raw;
};

enum class SfStep : std::uint8_t { kMember, kEnd, kError };

/// Walks parameters. If a key comes twice the last one counts (RFC 9651 4.2.3.2).
class SfParameterReader {
 public:
  explicit SfParameterReader(SfParameters parameters) noexcept : rest_(parameters.raw) {}
  SfStep next(std::string_view& key, SfBareItem& value) noexcept;

 private:
  std::string_view rest_;
};

/// A member of a list, dictionary or inner list.
struct SfMember {
  std::string_view key;  // dictionaries only
  bool is_inner_list = false;
  SfBareItem item;         // if it is no inner list
  std::string_view inner;  // of an inner list: what is between the parentheses
  SfParameters parameters;
};

/// RFC 9651 4.2.1.
class SfListReader {
 public:
  explicit SfListReader(std::string_view field) noexcept;
  SfStep next(SfMember& member) noexcept;

 private:
  std::string_view rest_;
  bool first_ = true;
};

/// RFC 9651 4.2.2. If a key comes twice the last one counts: callers overwrite.
class SfDictionaryReader {
 public:
  explicit SfDictionaryReader(std::string_view field) noexcept;
  SfStep next(SfMember& member) noexcept;

 private:
  std::string_view rest_;
  bool first_ = true;
};

/// RFC 9651 4.2.1.2, over SfMember::inner.
class SfInnerListReader {
 public:
  explicit SfInnerListReader(std::string_view inner) noexcept : rest_(inner) {}
  SfStep next(SfMember& member) noexcept;

 private:
  std::string_view rest_;
};

/// RFC 9651 4.2.3: the whole field is one item. False: it is not.
bool sf_parse_item(std::string_view field, SfMember& item) noexcept;

/// Appends what a String, Token, Byte Sequence or Display String stands for to `out`; false for
/// other types and for text that did not come from a reader.
bool sf_decode(const SfBareItem& item, std::string& out);

/// Appends the canonical form (RFC 9651 4.1.3.1) of an item that a reader gave.
void sf_serialize(const SfBareItem& item, std::string& out);
/// Appends a String. Characters a String cannot hold (RFC 9651 3.3.3) become percent-encoded.
void sf_append_string(std::string_view text, std::string& out);
/// True if `text` can be sent as a Token (RFC 9651 3.3.4).
bool sf_is_token(std::string_view text) noexcept;

/// The lines of field `name` joined with ", " (RFC 9651 4.2). One line is returned as it is;
/// `buffer` is used only for more. `lines`: how many there were.
std::string_view join_field_lines(Fields fields, std::string_view name, std::string& buffer,
                                  int& lines);

}  // namespace mcs::http
