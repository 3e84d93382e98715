// SPDX-License-Identifier: Apache-2.0
// The parts of RFC 3986 that caching needs: splitting, resolving references, and the one
// normalisation that can never make two resources one.
#pragma once

#include <string>
#include <string_view>

namespace mcs::http {

/// A URI or reference in parts (RFC 3986 appendix B); views into it, nothing decoded.
struct UriParts {
  std::string_view scheme;
  std::string_view authority;
  std::string_view path;
  std::string_view query;
  bool has_scheme = false;
  bool has_authority = false;
  bool has_query = false;
  bool has_fragment = false;
};
UriParts split_uri(std::string_view text) noexcept;

/// Appends `path` without its dot segments (RFC 3986 5.2.4).
void append_without_dot_segments(std::string_view path, std::string& out);

/// Appends `text` with percent-encoded unreserved characters decoded and the hexadecimal digits of
/// the other encodings in upper case (RFC 3986 6.2.2): nothing else changes, so %2F stays and
/// slashes are not merged. False, with `out` as it was: a "%" without two digits, a control
/// character, a space or "#".
bool append_normalised(std::string_view text, std::string& out);

/// Appends `text` with everything percent-encoded that a path may not hold as it is, "%" and "?" too:
/// texts that differ stay different.
void append_escaped(std::string_view text, std::string& out);

/// Appends host[:port] of `authority` in lower case, without a final dot and without the default
/// port of `scheme` (RFC 3986 6.2.2.1, 6.2.3). False, with `out` as it was: no host, user
/// information, or characters that hosts do not have.
bool append_normalised_authority(std::string_view scheme, std::string_view authority,
                                 std::string& out);

/// True if `text` matches `pattern`, in which "*" stands for any characters, also none.
bool matches_glob(std::string_view pattern, std::string_view text) noexcept;

}  // namespace mcs::http
