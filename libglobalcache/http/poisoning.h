// SPDX-License-Identifier: Apache-2.0
// Checks against request smuggling and cache poisoning: messages that different implementations
// could read differently, or whose response may depend on what is not in the key, are never stored.
#pragma once

#include <cstdint>
#include <string_view>

#include "libglobalcache/http/field.h"

namespace mcs::http {

enum class MessageFlaw : std::uint8_t {
  kNone,
  kInvalidField,       // a name that is no token, or CR, LF or NUL in a value (RFC 9110 5.5)
  kInvalidLength,      // Content-Length is no number (RFC 9112 6.3)
  kConflictingLength,  // several different Content-Length
  kLengthAndEncoding,  // Content-Length with Transfer-Encoding (RFC 9112 6.3)
  kTransferEncoding,   // something like "chunked" that is not, or chunked not last
  kUndecodedCoding,    // the body still carries gzip, compress or deflate as a transfer coding
  kLengthMismatch,     // Content-Length is not what arrived
  kSeveralHosts,       // more than one Host (RFC 9112 3.2)
  kBodyInGet,          // a GET or HEAD with content: it may change the response
  kMethodOverride,     // X-HTTP-Method-Override and its like
  kTargetOverride,     // X-Original-URL, X-Rewrite-URL, X-Forwarded-Prefix, X-Script-Name
  kHostOverride,       // X-Forwarded-Host and its like name another host or port than Host
  kSchemeOverride,     // X-Forwarded-Proto and its like deny the TLS of the connection
  kConnectionOption,   // Connection names a field that the request has: not every server passes it on
};
std::string_view describe(MessageFlaw flaw) noexcept;

/// Whether a response may be stored as far as its framing is concerned. An unknown transfer coding
/// (not a broken "chunked") is allowed: servers read such a body until the connection closes.
/// `content_length`: set to the length if there is a valid one; otherwise untouched.
MessageFlaw check_response_message(Fields response, std::uint64_t& content_length) noexcept;

/// Whether the response to this request may be stored for others. `check_overrides`: also look at
/// fields that no key contains and that frameworks obey; switch it off only where a trusted proxy
/// in front sets them for every request.
/// `scheme`: of the client's connection; where it is "https", a field that says otherwise would make
/// many origins redirect to where the client is already. `authority`: what the key takes for the host,
/// with its port if it has one; a Host field that differs (next to an absolute target) would reach the
/// origin all the same. Empty: not known.
MessageFlaw check_request_message(Method method, Fields request, bool check_overrides,
                                  std::string_view scheme = "http",
                                  std::string_view authority = {}) noexcept;

}  // namespace mcs::http
