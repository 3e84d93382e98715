// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/header_block.h"

#include <cstring>
#include <limits>

namespace mcs::http {
namespace {

constexpr std::uint32_t kMagic = 0x3142484du;  // "MHB1"
constexpr std::size_t kHeadSize = 12;
constexpr std::size_t kFieldHeadSize = 6;

std::uint32_t load(const char* at, std::size_t bytes) noexcept {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i) {
    value |= static_cast<std::uint32_t>(static_cast<unsigned char>(at[i])) << (8 * i);
  }
  return value;
}

char* store(std::size_t value, std::size_t bytes, char* at) noexcept {
  for (std::size_t i = 0; i < bytes; ++i) *at++ = static_cast<char>(value >> (8 * i) & 0xffu);
  return at;
}

char* store(std::string_view text, char* at) noexcept {
  if (!text.empty()) std::memcpy(at, text.data(), text.size());
  return at + text.size();
}

}  // namespace

std::size_t header_block_size(Fields fields) noexcept {
  if (fields.size() > kMaxBlockFields) return 0;
  std::size_t size = kHeadSize;
  for (const FieldView& field : fields) {
    if (field.name.size() > std::numeric_limits<std::uint16_t>::max() ||
        field.value.size() > kMaxBlockSize) {
      return 0;
    }
    size += kFieldHeadSize + field.name.size() + trim(field.value).size();
    if (size > kMaxBlockSize) return 0;
  }
  return size;
}

bool write_header_block(int status, Fields fields, std::span<char> out) noexcept {
  const std::size_t size = header_block_size(fields);
  if (size == 0 || size != out.size() || status < 100 || status > 999) return false;
  char* at = store(kMagic, 4, out.data());
  at = store(static_cast<std::size_t>(status), 2, at);
  at = store(fields.size(), 2, at);
  at = store(size, 4, at);
  for (const FieldView& field : fields) {
    const std::string_view value = trim(field.value);
    at = store(field.name.size(), 2, at);
    at = store(value.size(), 4, at);
    at = store(field.name, at);
    at = store(value, at);
  }
  return true;
}

std::optional<HeaderBlock> HeaderBlock::parse(std::string_view bytes) noexcept {
  if (bytes.size() < kHeadSize || load(bytes.data(), 4) != kMagic) return std::nullopt;
  const int status = static_cast<int>(load(bytes.data() + 4, 2));
  const std::size_t count = load(bytes.data() + 6, 2);
  const std::size_t size = load(bytes.data() + 8, 4);
  if (status < 100 || status > 999 || count > kMaxBlockFields || size > kMaxBlockSize ||
      size < kHeadSize || size > bytes.size()) {
    return std::nullopt;
  }
  std::size_t at = kHeadSize;
  for (std::size_t i = 0; i < count; ++i) {
    if (size - at < kFieldHeadSize) return std::nullopt;
    const std::size_t name_size = load(bytes.data() + at, 2);
    const std::size_t value_size = load(bytes.data() + at + 2, 4);
    at += kFieldHeadSize;
    if (name_size > size - at || value_size > size - at - name_size) return std::nullopt;
    if (!is_token(bytes.substr(at, name_size)) ||
        !is_safe_value(bytes.substr(at + name_size, value_size))) {
      return std::nullopt;
    }
    at += name_size + value_size;
  }
  if (at != size) return std::nullopt;
  return HeaderBlock(bytes.substr(0, size), status, count);
}

FieldView HeaderBlock::Iterator::operator*() const noexcept {
  const std::size_t name_size = load(at_, 2);
  const std::size_t value_size = load(at_ + 2, 4);
  const char* const name = at_ + kFieldHeadSize;
  return {{name, name_size}, {name + name_size, value_size}};
}

HeaderBlock::Iterator& HeaderBlock::Iterator::operator++() noexcept {
  at_ += kFieldHeadSize + load(at_, 2) + load(at_ + 2, 4);
  return *this;
}

HeaderBlock::Iterator HeaderBlock::begin() const noexcept {
  return Iterator(bytes_.data() + kHeadSize);
}

std::string_view HeaderBlock::value(std::string_view name) const noexcept {
  for (const FieldView field : *this) {
    if (equals_ignore_case(field.name, name)) return field.value;
  }
  return {};
}

void HeaderBlock::copy_to(std::vector<FieldView>& fields) const {
  fields.clear();
  fields.reserve(count_);
  for (const FieldView field : *this) fields.push_back(field);
}

}  // namespace mcs::http
