// SPDX-License-Identifier: Apache-2.0
// Tags of responses, by which an origin names what is to be purged together.
#pragma once

#include <cstdint>
#include <string_view>

#include "libglobalcache/http/field.h"

namespace mcs::http {

/// Most tags of one response; further ones are not given out.
inline constexpr std::size_t kMaxTags = 256;

/// Walks the tags of Surrogate-Key, xkey and Cache-Tag: words between spaces, tabs and commas, case
/// kept, in the order of the fields. Duplicates come twice.
class TagReader {
 public:
  explicit TagReader(Fields response) noexcept : fields_(response) {}
  bool next(std::string_view& tag) noexcept;
  /// True if there were more tags than kMaxTags: then a purge could miss the response, so that it
  /// had better not be stored.
  bool overflowed() const noexcept { return overflowed_; }

 private:
  Fields fields_;
  std::string_view rest_;
  std::size_t next_field_ = 0;
  std::size_t given_ = 0;
  bool overflowed_ = false;
};

/// True for the three fields above: caches speak to each other with them, clients have no use for
/// them.
bool is_tag_field(std::string_view name) noexcept;

}  // namespace mcs::http
