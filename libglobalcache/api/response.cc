// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/api/response.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>
#include <vector>

#include "gsm-emu/fault.h"
#include "libglobalcache/api/process.h"
#include "libglobalcache/http/date.h"
#include "libglobalcache/http/field.h"
#include "libglobalcache/http/interim.h"

namespace mcs::api {

namespace {

// From here on sending pages costs less than copying their bytes.
constexpr std::uint64_t kLeastSent = 32 * 1024;

// A pin is a place in this process's ledger, counted from 1 so that no pin is a null pointer.
void* as_handle(int pin) {
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(pin) + 1);
}

}  // namespace

void* hand_over_pin(mcs_process& process, cache::Hit& hit) {
  return as_handle(process.pins->keep(hit.link, std::exchange(hit.pin, -1)));
}

void* share_pin(mcs_process& process, cache::Hit& hit) {
  return as_handle(process.pins->share(hit.link, std::exchange(hit.pin, -1)));
}

}  // namespace mcs::api

extern "C" {

void mcs_response_release(mcs_process* process, mcs_response* response) {
  if (response->pin == nullptr) return;
  const auto place = reinterpret_cast<std::uintptr_t>(std::exchange(response->pin, nullptr)) - 1;
  process->pins->give_back(static_cast<int>(place));
}

int mcs_response_read(mcs_process*, const mcs_response* response, uint64_t offset, void* to,
                      size_t length) {
  if (response->pin == nullptr) return 0;
  auto* out = static_cast<std::byte*>(to);
  for (std::size_t i = 0; i < response->body_count && length > 0; ++i) {
    const iovec& piece = response->body[i];
    if (offset >= piece.iov_len) {
      offset -= piece.iov_len;
      continue;
    }
    const std::size_t n = std::min<std::uint64_t>(length, piece.iov_len - offset);
    if (!mcs::gsm::guarded_copy(out, static_cast<const std::byte*>(piece.iov_base) + offset, n)) {
      return 0;
    }
    out += n;
    length -= n;
    offset = 0;
  }
  return length == 0 ? 1 : 0;
}

void mcs_response_places(mcs_process* process, const mcs_response* response, int to_send,
                         mcs_place* places) try {
  using mcs::cache::Extent;
  using mcs::cache::kUnitBytes;
  for (std::size_t i = 0; i < response->body_count; ++i) places[i] = {-1, 0, 0};
  if (response->pin == nullptr) return;
  static thread_local std::vector<Extent> extents;
  extents.clear();
  if (to_send != 0 && response->body_length >= mcs::api::kLeastSent) {
    const auto pin = reinterpret_cast<std::uintptr_t>(response->pin) - 1;
    process->cache->allow_sendfile(process->cache->pins().link_of(static_cast<int>(pin)), extents);
  }
  const mcs::cache::Memory& memory = process->cache->memory();
  for (std::size_t i = 0; i < response->body_count; ++i) {
    const auto* at = static_cast<const std::byte*>(response->body[i].iov_base);
    for (std::uint32_t node = 0; node < memory.nodes(); ++node) {
      const mcs::gsm::Segment& segment = memory.domain().segment(node);
      if (at < segment.payload() || at >= segment.payload() + segment.payload_bytes()) continue;
      auto offset = static_cast<std::uint64_t>(at - segment.payload());
      places[i] = {segment.fd(), 0, segment.file_offset(offset)};
      // It may go on in the next extent if that lies behind this one.
      std::uint64_t left = response->body[i].iov_len;
      for (const Extent extent : extents) {
        const std::uint64_t begin = extent.first() * kUnitBytes;
        if (extent.segment() != node || offset < begin || offset >= begin + extent.bytes()) continue;
        const std::uint64_t n = std::min(left, begin + extent.bytes() - offset);
        offset += n;
        left -= n;
      }
      places[i].may_send = left == 0 ? 1 : 0;
    }
  }
} catch (const std::exception&) {
  for (std::size_t i = 0; i < response->body_count; ++i) places[i].may_send = 0;
}

int mcs_take_interim(char* data, size_t* size, void (*pass)(void*, const char*, size_t),
                     void* context) {
  using Kind = mcs::http::Interim::Kind;
  for (;;) {
    const mcs::http::Interim interim = mcs::http::find_interim({data, *size});
    if (interim.kind != Kind::kWhole) return interim.kind == Kind::kShort ? 1 : 0;
    const std::size_t kept = mcs::http::clean_interim(data, interim);
    if (kept > 0) pass(context, data, kept);
    *size -= interim.size;
    std::memmove(data, data + interim.size, *size);
  }
}

int mcs_is_invalid_expires(const char* line, size_t size) {
  constexpr std::string_view kName = "expires:";
  std::string_view text(line, size);
  if (!mcs::http::starts_with_ignore_case(text, kName)) return 0;
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  return mcs::http::parse_http_date(mcs::http::trim(text.substr(kName.size())), 0) ? 0 : 1;
}

}  // extern "C"
