// SPDX-License-Identifier: Apache-2.0
// Any bytes as a request target, a host, a URI reference, a key and a glob.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "libglobalcache/http/invalidation.h"
#include "libglobalcache/http/key.h"
#include "libglobalcache/http/uri.h"

using namespace mcs::http;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const CachePolicy plain;
  static const CachePolicy rules = [] {
    CachePolicy policy;
    policy.query = QueryRule::kIgnoreListed;
    policy.query_sort = true;
    policy.query_ignored = {"a*", "b"};
    return policy;
  }();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string_view target = text.substr(0, text.find('\n'));
  const std::string_view host = text.substr(target.size() + (target.size() < size ? 1 : 0));
  std::string key;
  for (const CachePolicy* policy : {&plain, &rules}) {
    if (!build_key({{}, "http", host.empty() ? "h" : host, target, Method::kGet}, *policy, key)) {
      continue;
    }
    const auto parts = parse_key(key);
    if (!parts || key.size() > kMaxKeySize) std::abort();
    // A key's own path and query make the same key again: normalising is idempotent.
    std::string again_target(parts->path);
    if (parts->has_query) again_target += "?" + std::string(parts->query);
    std::string again;
    const std::string_view site_host = parts->host.substr(parts->host.find("://") + 3);
    const std::string_view scheme = parts->host.substr(0, parts->host.find("://"));
    if (again_target.front() == '/' &&
        (!build_key({{}, scheme, site_host, again_target, Method::kGet}, *policy, again) ||
         again != key)) {
      std::abort();
    }
    if (!key_matches(key, parts->site, "*")) std::abort();
    display_key(key);
  }
  if (build_static_key(host, target, key) && !parse_key(key)) std::abort();
  parse_key(text);
  key_matches(text, target, host);
  const RequestUri request = {"http", "h", target};
  if (const auto resolved = resolve_same_origin({"http", "h", "/a/b?c"}, text)) {
    if (resolved->empty() || resolved->front() != '/') std::abort();
  }
  resolve_same_origin(request, host);
  is_same_resource(request, host);
  matches_glob(target, host);
  return 0;
}
