// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/poisoning.h"

#include <array>
#include <optional>

#include "libglobalcache/http/date.h"
#include "libglobalcache/http/field_filter.h"

namespace mcs::http {
namespace {

constexpr std::array<std::string_view, 3> kMethodFields = {"x-http-method-override",
                                                           "x-http-method", "x-method-override"};
constexpr std::array<std::string_view, 2> kTargetFields = {"x-original-url", "x-rewrite-url"};
constexpr std::array<std::string_view, 2> kPrefixFields = {"x-forwarded-prefix", "x-script-name"};
constexpr std::array<std::string_view, 5> kHostFields = {
    "x-forwarded-host", "x-host", "x-forwarded-server", "x-original-host", "x-http-host-override"};
constexpr std::array<std::string_view, 5> kSchemeFields = {
    "x-forwarded-proto", "x-forwarded-protocol", "x-forwarded-scheme", "x-url-scheme", "x-scheme"};

template <std::size_t N>
bool is_one_of(std::string_view name, const std::array<std::string_view, N>& names) {
  for (const std::string_view candidate : names) {
    if (equals_ignore_case(name, candidate)) return true;
  }
  return false;
}

bool contains_ignore_case(std::string_view text, std::string_view part) {
  for (std::size_t i = 0; i + part.size() <= text.size(); ++i) {
    if (equals_ignore_case(text.substr(i, part.size()), part)) return true;
  }
  return false;
}

bool is_valid_field(const FieldView& field) {
  return is_token(field.name) && is_safe_value(field.value);
}

// Collects what frames a message's content.
class Framing {
 public:
  void add_length(std::string_view value) {
    // RFC 9110 8.6: a list of identical numbers may be taken for one.
    ListReader reader(value);
    bool any = false;
    for (std::string_view member; reader.next(member);) {
      any = true;
      const auto number = parse_decimal(member);
      if (!number) {
        flaw(MessageFlaw::kInvalidLength);
      } else if (length_ && *length_ != *number) {
        flaw(MessageFlaw::kConflictingLength);
      } else {
        length_ = number;
      }
    }
    if (!any) flaw(MessageFlaw::kInvalidLength);
  }

  void add_coding(std::string_view value) {
    encoded_ = true;
    ListReader reader(value);
    for (std::string_view member; reader.next(member);) {
      const std::string_view name = trim(member.substr(0, member.find(';')));
      if (chunked_) flaw(MessageFlaw::kTransferEncoding);
      if (equals_ignore_case(name, "chunked")) {
        chunked_ = true;
      } else if (contains_ignore_case(member, "chunked")) {
        flaw(MessageFlaw::kTransferEncoding);
      } else if (contains_ignore_case(name, "gzip") || contains_ignore_case(name, "compress") ||
                 equals_ignore_case(name, "deflate")) {
        flaw(MessageFlaw::kUndecodedCoding);
      }
    }
  }

  MessageFlaw result() const {
    if (first_ != MessageFlaw::kNone) return first_;
    return encoded_ && length_ ? MessageFlaw::kLengthAndEncoding : MessageFlaw::kNone;
  }
  const std::optional<std::uint64_t>& length() const { return length_; }
  bool encoded() const { return encoded_; }

 private:
  void flaw(MessageFlaw found) {
    if (first_ == MessageFlaw::kNone) first_ = found;
  }

  std::optional<std::uint64_t> length_;
  bool encoded_ = false;
  bool chunked_ = false;
  MessageFlaw first_ = MessageFlaw::kNone;
};

// The host without a port, for comparing names that may or may not carry one.
std::string_view without_port(std::string_view host) {
  const std::size_t bracket = host.rfind(']');
  const std::size_t colon = host.find(':', bracket == std::string_view::npos ? 0 : bracket);
  return host.substr(0, colon);
}

std::string_view port_of(std::string_view host) {
  const std::string_view name = without_port(host);
  return name.size() < host.size() ? host.substr(name.size() + 1) : std::string_view();
}

// A port that links to this host may show: its own and the usual ones. A proxy in front may have taken
// the TLS off, but none has put it on: there is no port 80 in a link to where TLS is.
bool is_port_of(std::string_view port, std::string_view host, std::string_view scheme) {
  return port.empty() || port == "443" || port == port_of(host) ||
         (port == "80" && scheme != "https");
}

// `text`: a host, with a port or without. `host`: that of the request.
bool is_other_host(std::string_view text, std::string_view host, std::string_view scheme) {
  return !equals_ignore_case(without_port(text), without_port(host)) ||
         !is_port_of(port_of(text), host, scheme);
}

// What Forwarded (RFC 7239 4) says otherwise.
MessageFlaw check_forwarded(std::string_view value, std::string_view host,
                            std::string_view scheme) {
  ListReader reader(value);
  for (std::string_view element; reader.next(element);) {
    while (!element.empty()) {
      const std::size_t end = element.find(';');
      const Directive pair = split_directive(trim(element.substr(0, end)));
      if (equals_ignore_case(pair.name, "host") && is_other_host(trim(pair.value), host, scheme)) {
        return MessageFlaw::kHostOverride;
      }
      if (scheme == "https" && equals_ignore_case(pair.name, "proto") &&
          !equals_ignore_case(trim(pair.value), "https")) {
        return MessageFlaw::kSchemeOverride;
      }
      if (end == std::string_view::npos) break;
      element.remove_prefix(end + 1);
    }
  }
  return MessageFlaw::kNone;
}

bool names_other_host(std::string_view value, std::string_view host, std::string_view scheme) {
  ListReader reader(value);
  for (std::string_view member; reader.next(member);) {
    if (is_other_host(member, host, scheme)) return true;
  }
  return false;
}

bool lists_other_than(std::string_view value, std::string_view wanted) {
  ListReader reader(value);
  for (std::string_view member; reader.next(member);) {
    if (!equals_ignore_case(member, wanted)) return true;
  }
  return false;
}

// That there was no TLS where there is.
bool denies_tls(const FieldView& field) {
  if (is_one_of(field.name, kSchemeFields)) return lists_other_than(field.value, "https");
  return equals_ignore_case(field.name, "x-forwarded-ssl") && lists_other_than(field.value, "on");
}

MessageFlaw check_overrides_of(const FieldView& field, std::string_view host,
                               std::string_view scheme) {
  if (field.name.size() == 9 && equals_ignore_case(field.name, "forwarded")) {
    return check_forwarded(field.value, host, scheme);
  }
  if (field.name.size() < 6 || to_lower(field.name[0]) != 'x' || field.name[1] != '-') {
    return MessageFlaw::kNone;
  }
  if (is_one_of(field.name, kMethodFields)) return MessageFlaw::kMethodOverride;
  if (is_one_of(field.name, kTargetFields)) return MessageFlaw::kTargetOverride;
  if (is_one_of(field.name, kHostFields) && names_other_host(field.value, host, scheme)) {
    return MessageFlaw::kHostOverride;
  }
  // What links begin with.
  if (is_one_of(field.name, kPrefixFields) && !trim(field.value).empty() &&
      trim(field.value) != "/") {
    return MessageFlaw::kTargetOverride;
  }
  if (equals_ignore_case(field.name, "x-forwarded-port") &&
      !is_port_of(trim(field.value), host, scheme)) {
    return MessageFlaw::kHostOverride;
  }
  if (scheme == "https" && denies_tls(field)) return MessageFlaw::kSchemeOverride;
  return MessageFlaw::kNone;
}

}  // namespace

std::string_view describe(MessageFlaw flaw) noexcept {
  switch (flaw) {
    case MessageFlaw::kNone:
      return "";
    case MessageFlaw::kInvalidField:
      return "invalid field";
    case MessageFlaw::kInvalidLength:
      return "invalid Content-Length";
    case MessageFlaw::kConflictingLength:
      return "conflicting Content-Length";
    case MessageFlaw::kLengthAndEncoding:
      return "Content-Length with Transfer-Encoding";
    case MessageFlaw::kTransferEncoding:
      return "broken Transfer-Encoding";
    case MessageFlaw::kUndecodedCoding:
      return "compressed Transfer-Encoding";
    case MessageFlaw::kLengthMismatch:
      return "incomplete body";
    case MessageFlaw::kSeveralHosts:
      return "several Host fields";
    case MessageFlaw::kBodyInGet:
      return "GET with content";
    case MessageFlaw::kMethodOverride:
      return "method override";
    case MessageFlaw::kTargetOverride:
      return "target override";
    case MessageFlaw::kHostOverride:
      return "host override";
    case MessageFlaw::kSchemeOverride:
      return "scheme override";
    case MessageFlaw::kConnectionOption:
      return "connection option";
  }
  return "";
}

MessageFlaw check_response_message(Fields response, std::uint64_t& content_length) noexcept {
  Framing framing;
  for (const FieldView& field : response) {
    if (!is_valid_field(field)) return MessageFlaw::kInvalidField;
    if (field.name.size() == 14 && equals_ignore_case(field.name, "content-length")) {
      framing.add_length(field.value);
    } else if (field.name.size() == 17 && equals_ignore_case(field.name, "transfer-encoding")) {
      framing.add_coding(field.value);
    }
  }
  const MessageFlaw flaw = framing.result();
  if (flaw == MessageFlaw::kNone && framing.length()) content_length = *framing.length();
  return flaw;
}

MessageFlaw check_request_message(Method method, Fields request, bool check_overrides,
                                  std::string_view scheme, std::string_view authority) noexcept {
  Framing framing;
  int hosts = 0;
  bool has_connection = false;
  std::string_view host;
  for (const FieldView& field : request) {
    if (!is_valid_field(field)) return MessageFlaw::kInvalidField;
    switch (field_id(field.name)) {
      case FieldId::kContentLength:
        framing.add_length(field.value);
        break;
      case FieldId::kTransferEncoding:
        framing.add_coding(field.value);
        break;
      case FieldId::kHost:
        host = trim(field.value);
        ++hosts;
        break;
      case FieldId::kConnection:
        has_connection = true;
        break;
      default:
        break;
    }
  }
  if (const MessageFlaw flaw = framing.result(); flaw != MessageFlaw::kNone) return flaw;
  if (hosts > 1) return MessageFlaw::kSeveralHosts;
  if (hosts == 1 && !authority.empty() && is_other_host(host, authority, scheme)) {
    return MessageFlaw::kHostOverride;
  }
  if (is_get_or_head(method) && (framing.encoded() || framing.length().value_or(0) > 0)) {
    return MessageFlaw::kBodyInGet;
  }
  for (const FieldView& field : request) {
    if (has_connection && is_connection_option(request, field)) {
      return MessageFlaw::kConnectionOption;
    }
  }
  if (!check_overrides) return MessageFlaw::kNone;
  for (const FieldView& field : request) {
    const MessageFlaw flaw = check_overrides_of(field, host, scheme);
    if (flaw != MessageFlaw::kNone) return flaw;
  }
  return MessageFlaw::kNone;
}

}  // namespace mcs::http
