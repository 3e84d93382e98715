// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/tags.h"

#include <algorithm>

namespace mcs::http {

bool is_tag_field(std::string_view name) noexcept {
  return equals_ignore_case(name, "surrogate-key") || equals_ignore_case(name, "xkey") ||
         equals_ignore_case(name, "cache-tag");
}

bool TagReader::next(std::string_view& tag) noexcept {
  constexpr std::string_view kSeparators = " \t,";
  for (;;) {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(kSeparators), rest_.size()));
    if (!rest_.empty()) {
      if (given_ == kMaxTags) {
        overflowed_ = true;
        return false;
      }
      tag = rest_.substr(0, rest_.find_first_of(kSeparators));
      rest_.remove_prefix(tag.size());
      ++given_;
      return true;
    }
    while (next_field_ < fields_.size() && !is_tag_field(fields_[next_field_].name)) ++next_field_;
    if (next_field_ == fields_.size()) return false;
    rest_ = fields_[next_field_++].value;
  }
}

}  // namespace mcs::http
