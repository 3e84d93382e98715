// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "libglobalcache/api/internal/transaction.h"
#include "libglobalcache/api/policy.h"
#include "libglobalcache/http/conditional.h"
#include "libglobalcache/http/field_filter.h"
#include "libglobalcache/http/key.h"
#include "libglobalcache/http/uri.h"

namespace mcs::api {

bool read_request(Transaction& t) {
  const mcs_request& ask = t.ask;
  t.policy = &ask.policy->rules;
  t.method = http::parse_method(view(ask.method));
  t.fields.clear();
  bool has_directives = false;
  for (std::size_t i = 0; i < ask.field_count; ++i) {
    const http::FieldView field{view(ask.fields[i].name), view(ask.fields[i].value)};
    t.fields.push_back(field);
    switch (http::field_id(field.name)) {
      case http::FieldId::kCacheControl:
      case http::FieldId::kPragma:
        has_directives = true;
        break;
      case http::FieldId::kRange:
        t.has_range = true;
        break;
      case http::FieldId::kIfMatch:
      case http::FieldId::kIfNoneMatch:
      case http::FieldId::kIfModifiedSince:
      case http::FieldId::kIfUnmodifiedSince:
        t.has_conditions = true;
        break;
      case http::FieldId::kTransferEncoding:
        t.has_body = true;
        break;
      case http::FieldId::kConnection:
        t.has_connection = true;
        break;
      case http::FieldId::kUpgrade:
        t.wants_websocket |= http::list_contains(std::span(&field, 1), "upgrade", "websocket");
        break;
      case http::FieldId::kContentLength:
        if (http::trim(field.value) != "0") t.has_body = true;
        break;
      default:
        break;
    }
  }
  t.directives =
      has_directives ? http::parse_request_directives(t.fields) : http::RequestDirectives();
  http::KeyRequest request;
  request.scheme = view(ask.scheme);
  request.host = view(ask.host);
  request.target = view(ask.target);
  request.method = t.method;
  request.port = static_cast<std::uint16_t>(ask.flags >> 16);
  if (ask.key.size > 0) {
    request.key_base = view(ask.key);
    request.target = "/";
  }
  if (!http::build_key(request, *t.policy, t.primary)) {
    t.primary.clear();
    return false;
  }
  make_key(t);
  return true;
}

void make_key(Transaction& t) {
  t.key = t.cache().make_key(t.primary);
  // Purges look in the chain of what was received.
  if (const std::string received = http::received_key(t.primary); !received.empty()) {
    t.key.hash = t.cache().make_key(received).hash;
  }
  t.key.site = t.ask.policy->site_rules();
}

}  // namespace mcs::api

using namespace mcs;

extern "C" mcs_str mcs_rewritten_target(mcs_str received, mcs_str path, mcs_str args, mcs_str chosen,
                                        uint32_t place, mcs_alloc alloc, void* alloc_context) try {
  const std::string_view whole = api::view(received);
  const std::size_t question = std::min(whole.find('?'), whole.size());
  std::string_view query = whole.empty() ? api::view(args) : whole.substr(question);
  if (!whole.empty() && !query.empty()) query.remove_prefix(1);
  std::string target(whole.substr(0, question));
  if (!target.empty()) target += http::kRewritten;
  http::append_escaped(api::view(path), target);
  if (query != api::view(args)) {
    target += http::kRewritten;
    http::append_escaped(api::view(args), target);
  }
  if (chosen.size > 0) {
    target.append(http::kRewritten).append(":");
    http::append_escaped(api::view(chosen), target);
    target += std::to_string(place);
  }
  if (!query.empty()) target.append("?").append(query);
  auto* memory = static_cast<char*>(alloc(alloc_context, target.size()));
  if (memory == nullptr) return {};
  std::memcpy(memory, target.data(), target.size());
  return {memory, target.size()};
} catch (const std::exception&) {
  return {};
}

extern "C" size_t mcs_refresh_request(const mcs_request* request, char* to, size_t size) {
  std::size_t n = 0;
  const auto put = [&](std::string_view text) {
    if (n < size) std::memcpy(to + n, text.data(), std::min(text.size(), size - n));
    n += text.size();
  };
  put("GET ");
  put(api::view(request->target));
  put(" HTTP/1.1\r\n");
  for (std::size_t i = 0; i < request->field_count; ++i) {
    const std::string_view name = api::view(request->fields[i].name);
    const http::FieldId id = http::field_id(name);
    if (http::is_hop_by_hop(id) || http::is_stripped_on_fill(id) ||
        id == http::FieldId::kContentLength || http::equals_ignore_case(name, "expect") ||
        http::equals_ignore_case(name, "http2-settings")) {
      continue;
    }
    put(name);
    put(": ");
    put(api::view(request->fields[i].value));
    put("\r\n");
  }
  put("Connection: close\r\n\r\n");
  return n;
}

extern "C" size_t mcs_request_key(const mcs_request* request, char* to, size_t size) try {
  http::KeyRequest ask;
  ask.scheme = api::view(request->scheme);
  ask.host = api::view(request->host);
  ask.target = request->key.size > 0 ? "/" : api::view(request->target);
  if (request->key.size > 0) ask.key_base = api::view(request->key);
  ask.port = static_cast<std::uint16_t>(request->flags >> 16);
  std::string key;
  if (!http::build_key(ask, request->policy->rules, key)) return 0;
  const std::string text =
      request->key.size > 0 ? std::string(api::view(request->key)) : http::display_key(key);
  const std::size_t n = std::min(text.size(), size);
  std::memcpy(to, text.data(), n);
  return text.size();
} catch (const std::exception&) {
  return 0;
}
