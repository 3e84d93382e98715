// SPDX-License-Identifier: Apache-2.0
// Any bytes as Cache-Control, Pragma and targeted fields, on one or two lines.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "libglobalcache/http/cache_control.h"
#include "libglobalcache/http/date.h"

using namespace mcs::http;

namespace {

void check_number(std::int64_t seconds) {
  if (seconds < kAbsent || seconds > kMaxDeltaSeconds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string_view first = text.substr(0, text.find('\n'));
  const std::string_view second = text.substr(first.size());
  const std::vector<FieldView> fields = {{"Cache-Control", first},
                                         {"Pragma", second},
                                         {"CDN-Cache-Control", first},
                                         {"Cache-Control", second},
                                         {"CDN-Cache-Control", second}};
  const RequestDirectives request = parse_request_directives(fields);
  check_number(request.max_age);
  check_number(request.min_fresh);
  check_number(request.max_stale);
  if (!request.any && (request.no_cache || request.no_store || request.max_age != kAbsent)) {
    std::abort();
  }
  const ResponseDirectives response = parse_response_directives(fields);
  check_number(response.max_age);
  check_number(response.s_maxage);
  check_number(response.stale_while_revalidate);
  response.private_fields.contains("set-cookie");
  std::string buffer;
  ResponseDirectives targeted;
  if (parse_targeted_field(fields, "cdn-cache-control", buffer, targeted)) {
    check_number(targeted.max_age);
    targeted.no_cache_fields.contains("a");
  }
  return 0;
}
