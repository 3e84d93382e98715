// SPDX-License-Identifier: Apache-2.0
// Any bytes as a stored header block, which is then used as a hit and a revalidation would use it.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "libglobalcache/http/header_block.h"
#include "libglobalcache/http/validation.h"

using namespace mcs::http;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto block = HeaderBlock::parse(bytes);
  if (!block) return 0;
  std::size_t count = 0;
  for (const FieldView field : *block) {
    if (!is_token(field.name) || !is_safe_value(field.value)) std::abort();
    if (field.value.data() + field.value.size() > bytes.data() + bytes.size()) std::abort();
    ++count;
  }
  if (count != block->field_count()) std::abort();
  std::vector<FieldView> fields;
  block->copy_to(fields);
  std::string again(header_block_size(fields), '\0');
  if (!write_header_block(block->status(), fields, again) || !HeaderBlock::parse(again)) {
    std::abort();
  }
  const CachePolicy policy;
  validation_fields(policy, *block);
  match_not_modified(*block, fields);
  match_head(*block, 5, 200, fields);
  Freshened freshened;
  freshen(policy, *block, StoredMeta(), fields, 0, 1000, freshened);
  return 0;
}
