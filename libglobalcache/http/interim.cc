// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/interim.h"

#include <array>
#include <cstring>

#include "libglobalcache/http/field.h"
#include "libglobalcache/http/field_filter.h"

namespace mcs::http {
namespace {

// '#': a digit.
constexpr std::string_view kBegin = "HTTP/1.# 1##";
// More fields than this are nothing to hint at.
constexpr std::size_t kMostFields = 64;

// Cuts the first line, without its end, off `rest`. False: it has no end.
bool take_line(std::string_view& rest, std::string_view& line, bool& has_cr) noexcept {
  const std::size_t end = rest.find('\n');
  if (end == std::string_view::npos) return false;
  line = rest.substr(0, end);
  has_cr = !line.empty() && line.back() == '\r';
  if (has_cr) line.remove_suffix(1);
  rest.remove_prefix(end + 1);
  return true;
}

bool is_for_clients(const FieldView& field, Fields all) noexcept {
  const FieldId id = field_id(field.name);
  return !is_hop_by_hop(id) && id != FieldId::kContentLength &&
         !list_contains(all, "connection", field.name);
}

}  // namespace

Interim find_interim(std::string_view bytes) noexcept {
  Interim found;
  for (std::size_t i = 0; i < kBegin.size(); ++i) {
    if (i == bytes.size()) {
      found.kind = Interim::Kind::kShort;
      return found;
    }
    if (kBegin[i] == '#' ? !is_digit(bytes[i]) : kBegin[i] != bytes[i]) return found;
  }
  found.status = 100 + 10 * (bytes[10] - '0') + (bytes[11] - '0');
  if (found.status == 101) return found;
  std::string_view rest = bytes;
  std::string_view line;
  bool has_cr = false;
  while (take_line(rest, line, has_cr)) {
    if (!line.empty()) continue;
    found.kind = Interim::Kind::kWhole;
    found.size = bytes.size() - rest.size();
    return found;
  }
  found.kind = Interim::Kind::kShort;
  return found;
}

std::size_t clean_interim(char* bytes, const Interim& interim) noexcept {
  if (interim.kind != Interim::Kind::kWhole || interim.status == 100) return 0;
  std::string_view rest(bytes, interim.size);
  std::string_view line;
  bool has_cr = false;
  take_line(rest, line, has_cr);
  const std::string_view first = line;
  if (!has_cr || !is_safe_value(first)) return 0;
  std::array<FieldView, kMostFields> fields;
  std::size_t count = 0;
  while (take_line(rest, line, has_cr) && !line.empty()) {
    const std::size_t colon = line.find(':');
    if (!has_cr || colon == std::string_view::npos || count == kMostFields) return 0;
    const FieldView field{line.substr(0, colon), trim(line.substr(colon + 1))};
    if (!is_token(field.name) || !is_safe_value(field.value)) return 0;
    fields[count++] = field;
  }
  if (!has_cr) return 0;  // the empty line: with a CR it would be longer than what was read
  std::array<FieldView, kMostFields> kept;
  std::size_t kept_count = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (is_for_clients(fields[i], Fields(fields.data(), count))) kept[kept_count++] = fields[i];
  }
  // What is written never overtakes what is still to be read: it is in the same order and no longer.
  char* to = bytes + first.size();
  const auto put = [&to](std::string_view text) {
    std::memmove(to, text.data(), text.size());
    to += text.size();
  };
  bytes[7] = '1';  // HTTP/1.1: the version of this hop
  put("\r\n");
  for (std::size_t i = 0; i < kept_count; ++i) {
    const char* name = kept[i].name.data();
    const char* end = kept[i].value.data() + kept[i].value.size();
    put({name, static_cast<std::size_t>(end - name)});
    put("\r\n");
  }
  put("\r\n");
  return static_cast<std::size_t>(to - bytes);
}

}  // namespace mcs::http
