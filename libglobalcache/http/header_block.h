// SPDX-License-Identifier: Apache-2.0
// The stored form of a response's status and fields: one run of bytes, checked once when it is read
// and then walked without copying.
//
//   u32 magic | u16 status | u16 field count | u32 size of the whole block
//   per field: u16 name length | u32 value length | name | value          (all little endian)
//
// Written only into private memory, and then stored as a whole by the cache; there is no state in
// which a block is half written. Reading tolerates any bytes: what is no block is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "libglobalcache/http/field.h"

namespace mcs::http {

/// Limits of a block; a response beyond them is not stored.
inline constexpr std::size_t kMaxBlockSize = 1 << 20;
inline constexpr std::size_t kMaxBlockFields = 1024;

/// Size of the block for these fields, or 0 if they exceed a limit.
std::size_t header_block_size(Fields fields) noexcept;

/// Writes the block into `out`, which must have header_block_size(fields) bytes. False: it has not,
/// or a limit is exceeded.
bool write_header_block(int status, Fields fields, std::span<char> out) noexcept;

/// A checked block: every length lies inside it, names are tokens and values hold no CR, LF or NUL.
/// Views into the caller's bytes, which must stay as they are: bytes in shared memory have to be
/// copied and verified first.
class HeaderBlock {
 public:
  class Iterator {
   public:
    using value_type = FieldView;
    using difference_type = std::ptrdiff_t;

    Iterator() = default;
    explicit Iterator(const char* at) noexcept : at_(at) {}
    FieldView operator*() const noexcept;
    Iterator& operator++() noexcept;
    Iterator operator++(int) noexcept {
      const Iterator old = *this;
      ++*this;
      return old;
    }
    friend bool operator==(const Iterator&, const Iterator&) = default;

   private:
    const char* at_ = nullptr;
  };

  /// Nothing if the bytes are no block. Trailing bytes after the block are allowed.
  static std::optional<HeaderBlock> parse(std::string_view bytes) noexcept;

  int status() const noexcept { return status_; }
  std::size_t field_count() const noexcept { return count_; }
  std::string_view bytes() const noexcept { return bytes_; }
  Iterator begin() const noexcept;
  Iterator end() const noexcept { return Iterator(bytes_.data() + bytes_.size()); }

  /// The value of the first field `name` (any case); empty if there is none.
  std::string_view value(std::string_view name) const noexcept;
  /// Replaces `fields` by views of all fields.
  void copy_to(std::vector<FieldView>& fields) const;

 private:
  HeaderBlock(std::string_view bytes, int status, std::size_t count) noexcept
      : bytes_(bytes), status_(status), count_(count) {}

  std::string_view bytes_;
  int status_;
  std::size_t count_;
};

}  // namespace mcs::http
