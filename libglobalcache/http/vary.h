// SPDX-License-Identifier: Apache-2.0
// Vary: which request fields select among stored responses, and the key they make (RFC 9111 4.1).
//
// A response with Vary has a spec, the normalised list of its field names, e.g.
// "accept-encoding,accept-language". The variant key of a request under a spec is the normalised
// values of these fields, length-prefixed in the order of the spec. Equal variant keys mean that
// the requests match. A request may have to be tried with every spec stored for its key.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "libglobalcache/http/field.h"

namespace mcs::http {

/// Most names in one Vary; responses with more are not stored.
inline constexpr std::size_t kMaxVaryNames = 32;

/// True if a response can never be selected: "*" anywhere in Vary, a member that is no field name,
/// or too many names.
bool has_unmatchable_vary(Fields response) noexcept;

/// Appends the response's spec to `spec`: names in lower case, sorted, each once, joined by commas.
/// Nothing is appended without Vary. False, with `spec` as it was, if has_unmatchable_vary.
bool append_vary_spec(Fields response, std::string& spec);

/// Appends the variant key of a request: for each name of the spec 'a' (absent) or 'p' (present)
/// and, if present, u32 little endian length and the normalised value.
///
/// Normalised (RFC 9111 4.1): lines joined with a comma, whitespace around commas outside quotes
/// removed. Accept-Encoding and Accept-Language: lower case, weights in one form, sorted (there
/// order means nothing), each once. Accept: lower case, whitespace around ";" removed. Fields that
/// are no lists (User-Agent, Cookie, ...): trimmed only. Allocates nothing but room in `key`.
void append_variant_key(std::string_view spec, Fields request, std::string& key);

/// The language that a request's Accept-Language prefers to all others, in lower case, appended to
/// `tag`; false if there is none (no field, several with the highest weight, or "*").
bool append_preferred_language(Fields request, std::string& tag);

/// True if a response stored with Content-Language `stored_language` under a spec with
/// accept-language is the best this request can get, although their variant keys differ: it is in
/// exactly the one language that the request prefers to all others (RFC 9111 4.1, RFC 9110 12.5.4).
/// All other fields of the spec must be compared by variant keys made without accept-language.
bool prefers_stored_language(Fields request, std::string_view stored_language);

}  // namespace mcs::http
