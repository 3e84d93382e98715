// SPDX-License-Identifier: Apache-2.0
// Interim responses (RFC 9110 15.2): what an origin says before its final response. They are passed
// on and never stored; 100 is only for those who expect it, and 101 is final.
#pragma once

#include <cstddef>
#include <string_view>

namespace mcs::http {

/// What stands at the beginning of an origin's bytes.
struct Interim {
  enum class Kind {
    kNone,   // no interim response
    kShort,  // more bytes are needed to tell, or to see its end
    kWhole,
  };
  Kind kind = Kind::kNone;
  int status = 0;
  std::size_t size = 0;  // kWhole: bytes, with the empty line at its end
};
Interim find_interim(std::string_view bytes) noexcept;

/// Makes a whole interim response in `bytes` fit for an HTTP/1.1 client, in place: without fields
/// that belong to the connection to the origin or that frame content. Returns its new size; 0: it is
/// not for the client (a 100), or not well-formed.
std::size_t clean_interim(char* bytes, const Interim& interim) noexcept;

}  // namespace mcs::http
