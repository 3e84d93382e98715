// SPDX-License-Identifier: Apache-2.0
// What the entries of proxied responses look like: the head of an entry in cache::GlobalCache.
//
//   ProxyHead | StoredField[field_count] | header block (http/header_block.h) | tags
//
// All entries of one resource share their primary key (http/key.h). By variant name:
//
//   ""                   a response without Vary; or, once one with Vary was seen, the list of specs
//   "v" spec "\0" values a response selected by Vary (http/vary.h)
//   "h" variant          a newer head of that variant's response, whose body is not copied
//   "l" values language  a note: the name of the variant that is in that language
//   "p" variant          a part of that variant's representation
//   "m", "u"             markers: not storable at present; how often it was asked for
//
// The cache checks the head's bytes against their checksum before anybody sees them, so nothing here
// guards against damage; sizes are checked all the same. Written only into private memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "libglobalcache/http/field.h"
#include "libglobalcache/http/header_block.h"
#include "libglobalcache/http/stored_meta.h"

namespace mcs::api {

enum class EntryKind : std::uint8_t {
  kResponse = 1,
  kSpecs = 2,     // no fields; the block holds specs, each with its length as u16
  kMarker = 3,    // no fields; Descriptor.checked holds a time or a counter; the block holds a note
  kOverride = 4,  // fields and freshness of a response whose body is in the entry `body`
  kPartial = 5,   // the bytes meta.range_first..range_last; fields and status as of the whole
};

inline constexpr std::string_view kMissMarker = "m";
inline constexpr std::string_view kUsesMarker = "u";

/// Length of a body that is not known yet.
inline constexpr std::uint64_t kUnknownBody = ~0ULL;

/// Where a field line lies in the header block, so that a hit reads no header.
struct StoredField {
  static constexpr std::uint16_t kWith304 = 1;
  std::uint32_t name_at = 0;
  std::uint32_t value_at = 0;
  std::uint32_t value_size = 0;
  std::uint16_t name_size = 0;
  std::uint16_t flags = 0;
};
static_assert(sizeof(StoredField) == 16);

struct ProxyHead {
  static constexpr std::uint32_t kMagic = 0x31585250;  // "PRX1"
  std::uint32_t magic = kMagic;
  EntryKind kind = EntryKind::kResponse;
  std::uint8_t server_kind = 0;  // of the process that filled it
  std::uint16_t field_count = 0;
  std::uint32_t block_size = 0;
  std::uint32_t tags_size = 0;
  // Places in the field table, counted from 1; 0: none.
  std::uint16_t etag = 0;
  std::uint16_t last_modified = 0;
  std::uint16_t content_type = 0;
  std::uint16_t accept_ranges = 0;
  std::uint64_t length = kUnknownBody;  // of the body, as the origin announced it
  std::uint64_t body = 0;               // kOverride: cache::Link of the entry with the body
  http::StoredMeta meta;
};
static_assert(sizeof(ProxyHead) == 144);

/// A head, read. Views into the bytes it was read from.
class EntryView {
 public:
  /// Nothing if the bytes are no head of this kind of entry.
  static std::optional<EntryView> parse(std::span<const std::byte> bytes) noexcept;

  const ProxyHead& head() const noexcept { return head_; }
  const http::StoredMeta& meta() const noexcept { return head_.meta; }
  std::string_view block() const noexcept { return block_; }
  std::string_view tags() const noexcept { return tags_; }

  StoredField field(std::size_t index) const noexcept {
    StoredField field;
    std::memcpy(&field, fields_ + index * sizeof field, sizeof field);
    return field;
  }
  /// The value of the field at `place` of ProxyHead (from 1); empty for 0.
  std::string_view value(std::uint16_t place) const noexcept {
    if (place == 0) return {};
    const StoredField f = field(place - 1U);
    return block_.substr(f.value_at, f.value_size);
  }
  std::string_view etag() const noexcept { return value(head_.etag); }
  std::string_view last_modified() const noexcept { return value(head_.last_modified); }

 private:
  ProxyHead head_;
  const std::byte* fields_ = nullptr;
  std::string_view block_;
  std::string_view tags_;
};

/// Writes the head of a response. `fields` are those to store (http/field_filter.h). False: they
/// exceed a limit of header blocks.
bool encode_response(const ProxyHead& basics, http::Fields fields, std::string_view tags,
                     std::vector<std::byte>& out);

/// A head without fields: markers and lists of specs (`block`).
void encode_plain(const ProxyHead& basics, std::string_view block, std::vector<std::byte>& out);

/// Appends the tags of a response (http/tags.h), each between NULs. False: they are too many for all
/// of them to be known.
bool append_tags(http::Fields response, std::string& tags);
bool has_tag(std::string_view tags, std::string_view tag) noexcept;

/// The most specs remembered for one resource; of more the oldest is forgotten.
inline constexpr std::size_t kMaxSpecs = 8;
/// Walks a list of specs; newest first.
bool next_spec(std::string_view& list, std::string_view& spec) noexcept;
/// `list` with `spec` as its newest.
std::string with_spec(std::string_view list, std::string_view spec);

}  // namespace mcs::api
