// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/api/internal/entry.h"

#include <algorithm>
#include <string>

#include "libglobalcache/http/conditional.h"
#include "libglobalcache/http/tags.h"

namespace mcs::api {
namespace {

std::uint32_t offset_in(std::string_view block, std::string_view part) {
  return static_cast<std::uint32_t>(part.data() - block.data());
}

}  // namespace

std::optional<EntryView> EntryView::parse(std::span<const std::byte> bytes) noexcept {
  EntryView view;
  if (bytes.size() < sizeof view.head_) return std::nullopt;
  std::memcpy(&view.head_, bytes.data(), sizeof view.head_);
  const ProxyHead& head = view.head_;
  const std::size_t table = std::size_t{head.field_count} * sizeof(StoredField);
  if (head.magic != ProxyHead::kMagic ||
      bytes.size() != sizeof head + table + head.block_size + head.tags_size) {
    return std::nullopt;
  }
  const auto most = std::max({head.etag, head.last_modified, head.content_type,
                              head.accept_ranges});
  if (most > head.field_count) return std::nullopt;
  view.fields_ = bytes.data() + sizeof head;
  const auto* block = reinterpret_cast<const char*>(view.fields_ + table);
  view.block_ = {block, head.block_size};
  view.tags_ = {block + head.block_size, head.tags_size};
  return view;
}

bool encode_response(const ProxyHead& basics, http::Fields fields, std::string_view tags,
                     std::vector<std::byte>& out) {
  const std::size_t block_size = http::header_block_size(fields);
  if (block_size == 0) return false;
  std::string block(block_size, '\0');
  if (!http::write_header_block(basics.meta.status, fields, block)) return false;
  const auto parsed = http::HeaderBlock::parse(block);
  if (!parsed) return false;

  ProxyHead head = basics;
  std::vector<StoredField> table;
  table.reserve(fields.size());
  for (const http::FieldView field : *parsed) {
    const http::FieldId id = http::field_id(field.name);
    const auto place = static_cast<std::uint16_t>(table.size() + 1);
    StoredField stored;
    stored.name_at = offset_in(block, field.name);
    stored.name_size = static_cast<std::uint16_t>(field.name.size());
    stored.value_at = offset_in(block, field.value);
    stored.value_size = static_cast<std::uint32_t>(field.value.size());
    if (http::is_sent_with_304(id)) stored.flags |= StoredField::kWith304;
    table.push_back(stored);
    if (id == http::FieldId::kEtag && head.etag == 0) head.etag = place;
    if (id == http::FieldId::kLastModified && head.last_modified == 0) head.last_modified = place;
    if (id == http::FieldId::kContentType && head.content_type == 0) head.content_type = place;
    if (http::equals_ignore_case(field.name, "accept-ranges")) head.accept_ranges = place;
  }
  head.field_count = static_cast<std::uint16_t>(table.size());
  head.block_size = static_cast<std::uint32_t>(block_size);
  head.tags_size = static_cast<std::uint32_t>(tags.size());
  const auto append = [&out](const void* from, std::size_t size) {
    const auto* bytes = static_cast<const std::byte*>(from);
    out.insert(out.end(), bytes, bytes + size);
  };
  out.clear();
  append(&head, sizeof head);
  append(table.data(), table.size() * sizeof(StoredField));
  append(block.data(), block.size());
  append(tags.data(), tags.size());
  return true;
}

void encode_plain(const ProxyHead& basics, std::string_view block, std::vector<std::byte>& out) {
  ProxyHead head = basics;
  head.block_size = static_cast<std::uint32_t>(block.size());
  out.resize(sizeof head + block.size());
  std::memcpy(out.data(), &head, sizeof head);
  if (!block.empty()) std::memcpy(out.data() + sizeof head, block.data(), block.size());
}

bool append_tags(http::Fields response, std::string& tags) {
  http::TagReader reader(response);
  for (std::string_view tag; reader.next(tag);) {
    if (tags.empty()) tags += '\0';
    tags += tag;
    tags += '\0';
  }
  return !reader.overflowed();
}

bool has_tag(std::string_view tags, std::string_view tag) noexcept {
  for (std::size_t at = tags.find(tag); at != std::string_view::npos; at = tags.find(tag, at + 1)) {
    const std::size_t end = at + tag.size();
    if (!tag.empty() && at > 0 && tags[at - 1] == '\0' && end < tags.size() && tags[end] == '\0') {
      return true;
    }
  }
  return false;
}

bool next_spec(std::string_view& list, std::string_view& spec) noexcept {
  if (list.size() < 2) return false;
  const std::size_t size = static_cast<unsigned char>(list[0]) |
                           static_cast<std::size_t>(static_cast<unsigned char>(list[1])) << 8;
  if (size > list.size() - 2) return false;
  spec = list.substr(2, size);
  list.remove_prefix(2 + size);
  return true;
}

std::string with_spec(std::string_view list, std::string_view spec) {
  std::string result;
  const auto append = [&result](std::string_view one) {
    result += static_cast<char>(one.size() & 0xff);
    result += static_cast<char>(one.size() >> 8 & 0xff);
    result += one;
  };
  append(spec);
  std::size_t count = 1;
  for (std::string_view old; next_spec(list, old) && count < kMaxSpecs;) {
    if (old == spec) continue;
    append(old);
    ++count;
  }
  return result;
}

}  // namespace mcs::api
