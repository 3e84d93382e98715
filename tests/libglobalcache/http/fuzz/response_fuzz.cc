// SPDX-License-Identifier: Apache-2.0
// Any text as a request and a response head ("Name: value" lines, an empty line between them),
// through all decisions from storing to a hit.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "libglobalcache/http/field_filter.h"
#include "libglobalcache/http/reuse.h"
#include "libglobalcache/http/storability.h"

using namespace mcs::http;

namespace {

std::vector<FieldView> read_fields(std::string_view& text) {
  std::vector<FieldView> fields;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() < text.size() ? line.size() + 1 : line.size());
    if (line.empty()) break;
    const std::size_t colon = line.find(':');
    fields.push_back(
        {line.substr(0, colon), colon == std::string_view::npos ? "" : line.substr(colon + 1)});
  }
  return fields;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  std::string_view text(reinterpret_cast<const char*>(data + 3), size - 3);
  CachePolicy policy;
  policy.ignored = data[0];
  policy.set_cookie = static_cast<SetCookieRule>(data[1] % 4);
  policy.default_expire = data[1] / 4;
  policy.cache_post = true;
  Exchange exchange;
  exchange.method = data[1] % 3 == 0 ? Method::kPost : Method::kGet;
  exchange.uri = {"http", "h", "/a"};
  exchange.status = 200 + data[2];
  const auto request = read_fields(text);
  const auto response = read_fields(text);
  exchange.request = request;
  exchange.response = response;
  exchange.range_sent = true;
  exchange.request_time_ms = 1780000000000;
  exchange.response_time_ms = 1780000000100;
  const StoreDecision decision = decide_store(policy, exchange);
  if (!decision.store()) return 0;
  for (const std::int64_t after : {-1000000, 0, 1000, 100000000}) {
    const std::int64_t now = exchange.response_time_ms + after;
    const ReuseDecision reuse =
        evaluate_reuse(policy, Method::kGet, Fields(request), decision.meta, now);
    if (reuse.age_s < 0 || reuse.age_s > kMaxDeltaSeconds) std::abort();
    if (reuse.verdict == Reuse::kHit && !is_fresh(decision.meta, now)) std::abort();
  }
  std::array<char, 29> date;
  std::vector<FieldView> selected;
  select_stored_fields(policy, response, ResponseDirectives(), exchange.response_time_ms, date,
                       selected);
  for (const FieldView& field : selected) {
    if (is_hop_by_hop(field_id(field.name)) || !is_safe_value(field.value)) std::abort();
  }
  return 0;
}
