// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/structured_field.h"

#include <algorithm>
#include <charconv>

namespace mcs::http {
namespace {

constexpr bool is_lower_alpha(char c) { return c >= 'a' && c <= 'z'; }
constexpr bool is_key_char(char c) {
  return is_lower_alpha(c) || is_digit(c) || c == '_' || c == '-' || c == '.' || c == '*';
}

void skip_spaces(std::string_view& rest) {
  while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
}
void skip_ows(std::string_view& rest) {
  while (!rest.empty() && is_ows(rest.front())) rest.remove_prefix(1);
}

// The top-level algorithm discards spaces, but not tabs, at both ends of the field.
std::string_view strip_spaces(std::string_view field) {
  while (!field.empty() && field.front() == ' ') field.remove_prefix(1);
  while (!field.empty() && field.back() == ' ') field.remove_suffix(1);
  return field;
}

bool parse_key(std::string_view& rest, std::string_view& key) {
  if (rest.empty() || (!is_lower_alpha(rest.front()) && rest.front() != '*')) return false;
  std::size_t length = 1;
  while (length < rest.size() && is_key_char(rest[length])) ++length;
  key = rest.substr(0, length);
  rest.remove_prefix(length);
  return true;
}

bool parse_number(std::string_view& rest, SfBareItem& item) {
  bool negative = false;
  if (!rest.empty() && rest.front() == '-') {
    negative = true;
    rest.remove_prefix(1);
  }
  std::size_t whole = 0;
  std::int64_t value = 0;
  while (whole < rest.size() && is_digit(rest[whole])) {
    if (whole == 15) return false;
    value = value * 10 + (rest[whole++] - '0');
  }
  if (whole == 0) return false;
  rest.remove_prefix(whole);
  item.type = SfType::kInteger;
  if (!rest.empty() && rest.front() == '.') {
    if (whole > 12) return false;
    rest.remove_prefix(1);
    std::size_t places = 0;
    while (places < rest.size() && is_digit(rest[places])) {
      if (places == 3) return false;
      value = value * 10 + (rest[places++] - '0');
    }
    if (places == 0) return false;
    rest.remove_prefix(places);
    for (; places < 3; ++places) value *= 10;
    item.type = SfType::kDecimal;
  }
  item.integer = negative ? -value : value;
  return true;
}

bool parse_string(std::string_view& rest, SfBareItem& item) {
  for (std::size_t i = 1; i < rest.size(); ++i) {
    const char c = rest[i];
    if (c == '"') {
      item.type = SfType::kString;
      item.text = rest.substr(1, i - 1);
      rest.remove_prefix(i + 1);
      return true;
    }
    if (c == '\\') {
      ++i;
      if (i == rest.size() || (rest[i] != '"' && rest[i] != '\\')) return false;
    } else if (c < 0x20 || c > 0x7e) {
      return false;
    }
  }
  return false;
}

bool parse_token(std::string_view& rest, SfBareItem& item) {
  std::size_t length = 1;
  while (length < rest.size() &&
         (is_tchar(rest[length]) || rest[length] == ':' || rest[length] == '/')) {
    ++length;
  }
  item.type = SfType::kToken;
  item.text = rest.substr(0, length);
  rest.remove_prefix(length);
  return true;
}

int base64_value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (is_digit(c)) return c - '0' + 52;
  if (c == '+') return 62;
  return c == '/' ? 63 : -1;
}

bool parse_bytes(std::string_view& rest, SfBareItem& item) {
  const std::size_t close = rest.find(':', 1);
  if (close == std::string_view::npos) return false;
  const std::string_view text = rest.substr(1, close - 1);
  std::size_t digits = text.size();
  while (digits > 0 && text[digits - 1] == '=') --digits;
  const bool padding_ok = text.size() - digits <= 2 && digits % 4 != 1 &&
                          (text.size() == digits || text.size() % 4 == 0);
  if (!padding_ok || !std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(digits),
                                  [](char c) { return base64_value(c) >= 0; })) {
    return false;
  }
  item.type = SfType::kByteSequence;
  item.text = text;
  rest.remove_prefix(close + 1);
  return true;
}

// Checks UTF-8 byte by byte (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF).
class Utf8Checker {
 public:
  bool add(unsigned char byte) {
    if (more_ > 0) {
      if ((byte & 0xc0u) != 0x80u) return false;
      point_ = point_ << 6 | (byte & 0x3fu);
      if (--more_ > 0) return true;
      return point_ >= lowest_ && point_ <= 0x10ffff && (point_ < 0xd800 || point_ > 0xdfff);
    }
    if (byte < 0x80) return true;
    if (byte >= 0xf0 && byte <= 0xf4) return start(3, byte & 0x07u, 0x10000);
    if (byte >= 0xe0 && byte < 0xf0) return start(2, byte & 0x0fu, 0x800);
    return byte >= 0xc2 && byte < 0xe0 && start(1, byte & 0x1fu, 0x80);
  }
  bool complete() const { return more_ == 0; }

 private:
  bool start(int more, unsigned int bits, unsigned int lowest) {
    more_ = more;
    point_ = bits;
    lowest_ = lowest;
    return true;
  }

  int more_ = 0;
  unsigned int point_ = 0;
  unsigned int lowest_ = 0;
};

// The byte at `i` of a Display String, percent-decoded; `i` moves on. -1: not allowed there.
int display_byte(std::string_view text, std::size_t& i) {
  const auto lower_hex = [](char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') ? hex_value(c) : -1;
  };
  const char c = text[i++];
  if (c < 0x20 || c > 0x7e) return -1;
  if (c != '%') return c;
  if (text.size() - i < 2) return -1;
  const int high = lower_hex(text[i]);
  const int low = lower_hex(text[i + 1]);
  i += 2;
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

bool parse_display_string(std::string_view& rest, SfBareItem& item) {
  if (rest.size() < 2 || rest[1] != '"') return false;
  const std::size_t close = rest.find('"', 2);
  if (close == std::string_view::npos) return false;
  const std::string_view text = rest.substr(2, close - 2);
  Utf8Checker utf8;
  for (std::size_t i = 0; i < text.size();) {
    const int byte = display_byte(text, i);
    if (byte < 0 || !utf8.add(static_cast<unsigned char>(byte))) return false;
  }
  if (!utf8.complete()) return false;
  item.type = SfType::kDisplayString;
  item.text = text;
  rest.remove_prefix(close + 1);
  return true;
}

bool parse_bare_item(std::string_view& rest, SfBareItem& item) {
  if (rest.empty()) return false;
  item = SfBareItem{};
  const char c = rest.front();
  if (c == '-' || is_digit(c)) return parse_number(rest, item);
  if (c == '"') return parse_string(rest, item);
  if (c == '*' || is_alpha(c)) return parse_token(rest, item);
  if (c == ':') return parse_bytes(rest, item);
  if (c == '%') return parse_display_string(rest, item);
  if (c == '?') {
    if (rest.size() < 2 || (rest[1] != '0' && rest[1] != '1')) return false;
    item.type = SfType::kBoolean;
    item.integer = rest[1] - '0';
    rest.remove_prefix(2);
    return true;
  }
  if (c == '@') {
    rest.remove_prefix(1);
    if (!parse_number(rest, item) || item.type != SfType::kInteger) return false;
    item.type = SfType::kDate;
    return true;
  }
  return false;
}

// Takes one `;key[=value]` off the front.
bool parse_parameter(std::string_view& rest, std::string_view& key, SfBareItem& value) {
  rest.remove_prefix(1);
  skip_spaces(rest);
  if (!parse_key(rest, key)) return false;
  value = SfBareItem{};
  if (rest.empty() || rest.front() != '=') return true;
  rest.remove_prefix(1);
  return parse_bare_item(rest, value);
}

bool parse_parameters(std::string_view& rest, SfParameters& parameters) {
  const std::string_view start = rest;
  std::string_view key;
  SfBareItem value;
  while (!rest.empty() && rest.front() == ';') {
    if (!parse_parameter(rest, key, value)) return false;
  }
  parameters.raw = start.substr(0, start.size() - rest.size());
  return true;
}

bool parse_item(std::string_view& rest, SfMember& member) {
  return parse_bare_item(rest, member.item) && parse_parameters(rest, member.parameters);
}

bool parse_inner_list(std::string_view& rest, SfMember& member) {
  rest.remove_prefix(1);
  const std::string_view start = rest;
  for (;;) {
    skip_spaces(rest);
    if (rest.empty()) return false;
    if (rest.front() == ')') break;
    SfMember ignored;
    if (!parse_item(rest, ignored)) return false;
    if (rest.empty() || (rest.front() != ' ' && rest.front() != ')')) return false;
  }
  member.is_inner_list = true;
  member.inner = start.substr(0, start.size() - rest.size());
  rest.remove_prefix(1);
  return parse_parameters(rest, member.parameters);
}

bool parse_item_or_inner_list(std::string_view& rest, SfMember& member) {
  return !rest.empty() && rest.front() == '(' ? parse_inner_list(rest, member)
                                              : parse_item(rest, member);
}

// Between two members: a comma that is not the end. False: the field is broken here.
bool parse_separator(std::string_view& rest) {
  if (rest.front() != ',') return false;
  rest.remove_prefix(1);
  skip_ows(rest);
  return !rest.empty();
}

// True if another member is to be parsed; otherwise `step` is the answer.
bool begin_member(std::string_view& rest, bool& first, SfStep& step) {
  if (!first) skip_ows(rest);
  if (rest.empty()) {
    step = SfStep::kEnd;
    return false;
  }
  if (!first && !parse_separator(rest)) {
    step = SfStep::kError;
    return false;
  }
  first = false;
  return true;
}

}  // namespace

SfStep SfParameterReader::next(std::string_view& key, SfBareItem& value) noexcept {
  if (rest_.empty()) return SfStep::kEnd;
  if (rest_.front() != ';') return SfStep::kError;
  return parse_parameter(rest_, key, value) ? SfStep::kMember : SfStep::kError;
}

SfListReader::SfListReader(std::string_view field) noexcept : rest_(strip_spaces(field)) {}

SfStep SfListReader::next(SfMember& member) noexcept {
  SfStep step = SfStep::kError;
  if (!begin_member(rest_, first_, step)) return step;
  member = SfMember{};
  return parse_item_or_inner_list(rest_, member) ? SfStep::kMember : SfStep::kError;
}

SfDictionaryReader::SfDictionaryReader(std::string_view field) noexcept
    : rest_(strip_spaces(field)) {}

SfStep SfDictionaryReader::next(SfMember& member) noexcept {
  SfStep step = SfStep::kError;
  if (!begin_member(rest_, first_, step)) return step;
  member = SfMember{};
  if (!parse_key(rest_, member.key)) return SfStep::kError;
  if (!rest_.empty() && rest_.front() == '=') {
    rest_.remove_prefix(1);
    return parse_item_or_inner_list(rest_, member) ? SfStep::kMember : SfStep::kError;
  }
  return parse_parameters(rest_, member.parameters) ? SfStep::kMember : SfStep::kError;
}

SfStep SfInnerListReader::next(SfMember& member) noexcept {
  skip_spaces(rest_);
  if (rest_.empty()) return SfStep::kEnd;
  member = SfMember{};
  return parse_item(rest_, member) ? SfStep::kMember : SfStep::kError;
}

bool sf_parse_item(std::string_view field, SfMember& item) noexcept {
  std::string_view rest = strip_spaces(field);
  item = SfMember{};
  return parse_item(rest, item) && rest.empty();
}

bool sf_decode(const SfBareItem& item, std::string& out) {
  switch (item.type) {
    case SfType::kToken:
      out += item.text;
      return true;
    case SfType::kString:
      for (std::size_t i = 0; i < item.text.size(); ++i) {
        if (item.text[i] == '\\' && ++i == item.text.size()) return false;
        out += item.text[i];
      }
      return true;
    case SfType::kDisplayString:
      for (std::size_t i = 0; i < item.text.size();) {
        const int byte = display_byte(item.text, i);
        if (byte < 0) return false;
        out += static_cast<char>(byte);
      }
      return true;
    case SfType::kByteSequence: {
      unsigned int bits = 0;
      int count = 0;
      for (const char c : item.text) {
        if (c == '=') break;
        const int value = base64_value(c);
        if (value < 0) return false;
        bits = (bits << 6 | static_cast<unsigned int>(value)) & 0xffffu;
        count += 6;
        if (count >= 8) {
          count -= 8;
          out += static_cast<char>(bits >> count & 0xffu);
        }
      }
      return true;
    }
    default:
      return false;
  }
}

void sf_serialize(const SfBareItem& item, std::string& out) {
  const auto number = [&out](std::int64_t value) {
    char digits[24];
    const auto result = std::to_chars(digits, digits + sizeof digits, value);
    out.append(digits, result.ptr);
  };
  switch (item.type) {
    case SfType::kInteger:
      number(item.integer);
      break;
    case SfType::kDecimal: {
      if (item.integer < 0) out += '-';
      const std::int64_t size = item.integer < 0 ? -item.integer : item.integer;
      number(size / 1000);
      std::int64_t fraction = size % 1000;
      int places = 3;
      while (places > 1 && fraction % 10 == 0) fraction /= 10, --places;
      out += '.';
      for (std::int64_t unit = places == 3 ? 100 : places == 2 ? 10 : 1; unit > 0; unit /= 10) {
        out += static_cast<char>('0' + fraction / unit % 10);
      }
      break;
    }
    case SfType::kString:
      out += '"';
      out += item.text;
      out += '"';
      break;
    case SfType::kToken:
      out += item.text;
      break;
    case SfType::kByteSequence: {
      out += ':';
      out += item.text;
      for (std::size_t length = item.text.size(); length % 4 != 0; ++length) out += '=';
      out += ':';
      break;
    }
    case SfType::kBoolean:
      out += item.integer != 0 ? "?1" : "?0";
      break;
    case SfType::kDate:
      out += '@';
      number(item.integer);
      break;
    case SfType::kDisplayString:
      out += "%\"";
      out += item.text;
      out += '"';
      break;
  }
}

void sf_append_string(std::string_view text, std::string& out) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c >= 0x20 && c <= 0x7e) {
      out += c;
    } else {
      const unsigned char byte = static_cast<unsigned char>(c);
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15u];
    }
  }
  out += '"';
}

bool sf_is_token(std::string_view text) noexcept {
  if (text.empty() || (text.front() != '*' && !is_alpha(text.front()))) return false;
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return is_tchar(c) || c == ':' || c == '/'; });
}

std::string_view join_field_lines(Fields fields, std::string_view name, std::string& buffer,
                                  int& lines) {
  lines = 0;
  std::string_view first;
  for (const FieldView& field : fields) {
    if (!equals_ignore_case(field.name, name)) continue;
    if (++lines == 1) {
      first = field.value;
      continue;
    }
    if (lines == 2) buffer.assign(first);
    buffer += ", ";
    buffer += field.value;
  }
  return lines > 1 ? std::string_view(buffer) : first;
}

}  // namespace mcs::http
