// SPDX-License-Identifier: Apache-2.0
// Keys for people.
#pragma once

#include <string>
#include <string_view>

namespace mcs::ctl {

struct ReadableKey {
  std::string text;               // base or host, path and query
  std::string variant;            // empty: none
  std::size_t primary_bytes = 0;  // of the whole key
};
ReadableKey readable_key(std::string_view whole_key);

}  // namespace mcs::ctl
