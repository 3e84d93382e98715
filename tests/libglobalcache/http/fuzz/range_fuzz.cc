// SPDX-License-Identifier: Apache-2.0
// Any bytes as Range, Content-Range, entity tags and preconditions.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "libglobalcache/http/conditional.h"
#include "libglobalcache/http/etag.h"
#include "libglobalcache/http/range.h"

using namespace mcs::http;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{10}, std::uint64_t{1} << 40}) {
    const RangeSet set = parse_range(text, length);
    std::uint64_t sum = 0;
    for (const ByteRange& range : set.view()) {
      if (range.first > range.last || range.last >= length) std::abort();
      sum += range.length();
    }
    if (sum > length || (set.result == RangeResult::kPartial) != (set.count > 0)) std::abort();
    ByteCoverage coverage;
    for (const ByteRange& range : set.view()) {
      if (!coverage.add(range) || !coverage.covers(range)) std::abort();
    }
  }
  if (const auto range = parse_content_range(text); range && range->satisfied) {
    if (range->range.first > range->range.last) std::abort();
    if (range->complete_length) {
      std::string again;
      append_content_range(range->range, *range->complete_length, again);
      const auto twice = parse_content_range(again);
      if (!twice || !(twice->range == range->range)) std::abort();
    }
  }
  EtagListReader reader(text);
  for (std::string_view tag; reader.next(tag);) {
    if (tag.empty() || !weak_match(tag, tag)) std::abort();
    if (strong_match(tag, tag) != is_strong_etag(tag)) std::abort();
  }
  const std::vector<FieldView> request = {{"If-None-Match", text}, {"If-Modified-Since", text},
                                          {"If-Match", text},      {"If-Unmodified-Since", text},
                                          {"If-Range", text},      {"Range", text}};
  const Validators validators{"\"a\"", 784111777000, 784111778000};
  evaluate_preconditions(Method::kGet, request, 200, validators, 1780000000000);
  range_applies(request, validators, 1780000000000);
  return 0;
}
