// SPDX-License-Identifier: Apache-2.0
// Any bytes as a structured field. What a reader accepts, its serialisation must be accepted again
// and serialise the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "libglobalcache/http/structured_field.h"

using namespace mcs::http;

namespace {

void check_parameters(const SfParameters& parameters) {
  SfParameterReader reader(parameters);
  std::string_view key;
  SfBareItem value;
  SfStep step;
  while ((step = reader.next(key, value)) == SfStep::kMember) {
  }
  if (step != SfStep::kEnd) std::abort();  // parameters that were handed out are checked
}

void check_item(const SfBareItem& item) {
  std::string canonical;
  sf_serialize(item, canonical);
  SfMember again;
  if (!sf_parse_item(canonical, again) || again.item.type != item.type) std::abort();
  std::string twice;
  sf_serialize(again.item, twice);
  if (twice != canonical) std::abort();
  std::string decoded;
  sf_decode(item, decoded);
}

void check_member(const SfMember& member) {
  check_parameters(member.parameters);
  if (!member.is_inner_list) {
    check_item(member.item);
    return;
  }
  SfInnerListReader reader(member.inner);
  SfMember inner;
  SfStep step;
  while ((step = reader.next(inner)) == SfStep::kMember) {
    check_item(inner.item);
    check_parameters(inner.parameters);
  }
  if (step != SfStep::kEnd) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  SfMember member;
  if (sf_parse_item(text, member)) check_member(member);
  SfListReader list(text);
  while (list.next(member) == SfStep::kMember) check_member(member);
  SfDictionaryReader dictionary(text);
  while (dictionary.next(member) == SfStep::kMember) check_member(member);
  std::string quoted;
  sf_append_string(text, quoted);
  if (!sf_parse_item(quoted, member)) std::abort();
  return 0;
}
