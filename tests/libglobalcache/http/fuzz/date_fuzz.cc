// SPDX-License-Identifier: Apache-2.0
// Any bytes as a date: what is accepted must survive being formatted and read again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "libglobalcache/http/date.h"

using namespace mcs::http;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const std::int64_t now : {kNoTime, std::int64_t{0}, std::int64_t{1780000000000}, kForever}) {
    const auto instant = parse_http_date(text, now);
    const auto formatted = format_http_date(instant.value_or(now));
    const auto again = parse_http_date({formatted.data(), formatted.size()}, 0);
    if (!again || (instant && *again != *instant && *instant < 253402300800000)) std::abort();
  }
  parse_delta_seconds(text);
  parse_decimal(text);
  return 0;
}
