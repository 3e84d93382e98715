// SPDX-License-Identifier: Apache-2.0
// Reading an entry while somebody else fills it. The filler writes bytes first and then shows them
// (head: key_bytes becomes not 0; body: progress grows). A follower pins the entry, so that what it
// may read stays where it is, also if the fill is given up: RETIRED entries are freed only when no
// ledger names them.
#include <algorithm>
#include <bit>

#include "libglobalcache/cache/checksum.h"
#include "libglobalcache/cache/global_cache.h"

namespace mcs::cache {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr std::uint64_t kBytesMask = (1ULL << 44) - 1;
constexpr std::uint64_t kMaxHead = 1U << 20;

// A FILLING entry's fields: an extent is there before the count says so.
SealedFields load_filling(const Descriptor& d) {
  std::array<std::uint64_t, kSealedWords> words{};
  words[kLengthsWord] = d.sealed[kLengthsWord].load(kAcquire);
  words[kCountWord] = d.sealed[kCountWord].load(kAcquire);
  words[kExtentWord] = d.sealed[kExtentWord].load(kRelaxed);
  words[kExtentWord + 1] = d.sealed[kExtentWord + 1].load(kRelaxed);
  words[kSumsWord] = d.sealed[kSumsWord].load(kRelaxed);
  return std::bit_cast<SealedFields>(words);
}

std::uint64_t bytes_of(const std::vector<Extent>& extents) {
  std::uint64_t n = 0;
  for (const Extent& extent : extents) n += extent.bytes();
  return n;
}

}  // namespace

std::uint64_t GlobalCache::fill_progress(Link filling) const {
  const Descriptor* d = memory_.resolve(filling);
  if (d == nullptr || !still_filling(filling)) return ~0ULL;
  if ((d->sealed[kLengthsWord].load(kAcquire) & kKeyBytesMask) == 0) return 0;
  return 1 + (d->progress.load(std::memory_order_seq_cst) & kBytesMask);
}

void GlobalCache::pass_over(Link filling) {
  Descriptor* d = memory_.resolve(filling);
  if (d == nullptr) return;
  std::uint64_t word = d->state.load(kAcquire);
  report_filler(filling, word);
  while (EntryWord::state(word) == EntryState::kFilling &&
         EntryWord::version(word) == filling.version() &&
         !d->state.compare_exchange_weak(word, word | EntryWord::kPassedOver,
                                         std::memory_order_seq_cst)) {
  }
}

Following GlobalCache::follow(Link filling, Follow& follow) {
  Descriptor* d = memory_.resolve(filling);
  if (d == nullptr) return Following::kBroken;
  const int pin = pins_.pin(filling);
  if (pin < 0) return Following::kBroken;
  const auto give_up = [&](Following answer) {
    pins_.unpin(pin);
    return answer;
  };
  const std::uint64_t word = d->state.load(std::memory_order_seq_cst);
  const EntryState state = EntryWord::state(word);
  if (EntryWord::version(word) != filling.version() ||
      (state != EntryState::kFilling && state != EntryState::kSealed)) {
    return give_up(Following::kBroken);
  }
  const SealedFields fields = load_filling(*d);
  if (fields.key_bytes == 0) return give_up(Following::kNoHead);
  const std::uint64_t bytes = std::uint64_t{fields.key_bytes} + fields.head_bytes;
  if (bytes > kMaxHead || !space_.extents(fields, d->overflow.load(kAcquire), false,
                                          follow.extents)) {
    return give_up(Following::kBroken);
  }
  follow.head_copy.resize(bytes);
  if (!copy_stream(follow.extents, 0, follow.head_copy.data(), bytes) ||
      static_cast<std::uint32_t>(checksum(follow.head_copy)) != fields.head_sum) {
    return give_up(Following::kBroken);
  }
  follow.link = filling;
  follow.descriptor = d;
  follow.pin = pin;
  follow.key_bytes = fields.key_bytes;
  follow.head_bytes = fields.head_bytes;
  return Following::kArriving;
}

Following GlobalCache::follow_state(const Follow& follow, std::uint64_t& bytes) const {
  const Descriptor& d = *follow.descriptor;
  const std::uint64_t word = d.state.load(kAcquire);
  if (EntryWord::version(word) != follow.link.version()) return Following::kBroken;
  if (EntryWord::state(word) == EntryState::kFilling) {
    bytes = d.progress.load(std::memory_order_seq_cst) & kBytesMask;
    return Following::kArriving;
  }
  // Whatever became of the entry, all of it was written if its checksum was.
  const SealedFields fields = load_sealed(d);
  if (fields.meta_sum != meta_sum(fields, d.overflow.load(kAcquire), follow.link.version())) {
    return Following::kBroken;
  }
  bytes = fields.body_bytes;
  return Following::kComplete;
}

bool GlobalCache::follow_read(Follow& follow, std::uint64_t offset, void* to,
                              std::size_t n) const {
  const std::uint64_t start = std::uint64_t{follow.key_bytes} + follow.head_bytes + offset;
  if (bytes_of(follow.extents) < start + n &&
      !space_.extents(load_filling(*follow.descriptor),
                      follow.descriptor->overflow.load(kAcquire), false, follow.extents)) {
    return false;
  }
  return copy_stream(follow.extents, start, to, n);
}

std::uint64_t GlobalCache::follow_sum(const Follow& follow) const {
  return load_sealed(*follow.descriptor).body_sum;
}

void GlobalCache::release(Follow& follow) {
  if (follow.pin >= 0) pins_.unpin(follow.pin);
  follow.pin = -1;
}

}  // namespace mcs::cache
