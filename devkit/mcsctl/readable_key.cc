// SPDX-License-Identifier: Apache-2.0
#include "devkit/mcsctl/readable_key.h"

#include <fmt/format.h>

#include "libglobalcache/http/key.h"

namespace mcs::ctl {
namespace {

// Control characters, which a terminal might obey, are shown as \xHH.
std::string printable(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < ' ' || byte == 0x7f) {
      text += fmt::format("\\x{:02x}", byte);
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

ReadableKey readable_key(std::string_view whole) {
  // The primary key says itself where it ends, so at most one beginning of the whole is a key.
  for (std::size_t n = whole.size(); n > 0; --n) {
    const std::string text = http::display_key(whole.substr(0, n));
    if (text.empty()) continue;
    return {printable(text), printable(whole.substr(n)), n};
  }
  return {printable(whole), {}, whole.size()};
}

}  // namespace mcs::ctl
