// SPDX-License-Identifier: Apache-2.0
// Any words as a directive: every one is accepted or refused with one line.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "libglobalcache/http/policy.h"

using namespace mcs::http;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const auto directives = policy_directives();
  const DirectiveInfo& info = directives[data[0] % directives.size()];
  std::vector<std::string_view> args;
  while (!text.empty() && args.size() < 20) {
    const std::string_view word = text.substr(0, text.find(' '));
    args.push_back(word);
    text.remove_prefix(word.size() < text.size() ? word.size() + 1 : word.size());
  }
  CachePolicy policy;
  const auto done = set_directive(policy, info.nginx_name, args);
  if (!done && done.error().message.empty()) std::abort();
  if ((policy.set_rules != 0) != done.has_value()) std::abort();
  CachePolicy child;
  inherit_policy(child, policy);
  configured_lifetime(child, 404);
  purge_allowed(child, "127.0.0.1");
  return 0;
}
