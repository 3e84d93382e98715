// SPDX-License-Identifier: Apache-2.0
// Any bytes as Vary and as the fields that it names.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "libglobalcache/http/vary.h"

using namespace mcs::http;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string_view vary = text.substr(0, text.find('\n'));
  const std::string_view value = text.substr(vary.size());
  const std::vector<FieldView> response = {{"Vary", vary}};
  std::string spec;
  if (append_vary_spec(response, spec)) {
    // A spec is its own normal form.
    std::string again;
    const std::vector<FieldView> normal = {{"Vary", spec}};
    if (!append_vary_spec(normal, again) || again != spec) std::abort();
  }
  const std::vector<FieldView> request = {{"Accept-Encoding", value},
                                          {"Accept-Language", value},
                                          {"Accept", value},
                                          {"Cookie", value},
                                          {"Foo", value},
                                          {"Foo", vary}};
  std::string key;
  append_variant_key(spec, request, key);
  std::string full;
  append_variant_key("accept,accept-encoding,accept-language,cookie,foo", request, full);
  std::string tag;
  append_preferred_language(request, tag);
  prefers_stored_language(request, value);
  return 0;
}
