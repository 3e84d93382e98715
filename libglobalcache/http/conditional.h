// SPDX-License-Identifier: Apache-2.0
// Preconditions of client requests against a stored response or a local file (RFC 9110 13).
#pragma once

#include <cstdint>
#include <string_view>

#include "libglobalcache/http/field.h"

namespace mcs::http {

/// The selected representation. Times as in StoredMeta; kNoTime: unknown.
struct Validators {
  std::string_view etag;  // with its quotes; empty: none
  std::int64_t last_modified_ms = 0;
  std::int64_t date_ms = 0;  // when the response was made: stands in for a missing Last-Modified
};

enum class Precondition : std::uint8_t {
  kProceed,      // send the response, in part if there is a range
  kNotModified,  // 304
  kFailed,       // 412
};

/// RFC 9110 13.2.2, in its order: If-Match, If-Unmodified-Since, If-None-Match, If-Modified-Since.
/// Only responses that would be 2xx are subject to preconditions (13.2.1). Invalid dates are
/// ignored; If-Modified-Since counts for GET and HEAD only, and not beside If-None-Match. Without
/// Last-Modified it is compared with Date (RFC 9111 4.3.2).
Precondition evaluate_preconditions(Method method, Fields request, int status,
                                    const Validators& validators, std::int64_t now_ms) noexcept;

/// True if Range may be obeyed: there is no If-Range, or it names exactly this representation by a
/// strong entity tag, or by a Last-Modified that is strong because Date is at least one second
/// later (RFC 9110 13.1.5, 8.8.2.2).
bool range_applies(Fields request, const Validators& validators, std::int64_t now_ms) noexcept;

/// True for the fields that a fill must not send to the origin, since the whole response is wanted:
/// Range, If-Range and the four preconditions.
bool is_stripped_on_fill(FieldId id) noexcept;

/// True for the fields of a stored response that a 304 carries (RFC 9110 15.4.5): Cache-Control,
/// Content-Location, Date, ETag, Expires, Vary; Last-Modified and whatever is no description of
/// content as well. False: Content-Type, -Encoding, -Language, -Range.
bool is_sent_with_304(FieldId id) noexcept;

}  // namespace mcs::http
