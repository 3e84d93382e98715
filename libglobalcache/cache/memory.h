// SPDX-License-Identifier: Apache-2.0
// Addresses: from the numbers in shared words to pointers of this process, each checked (careful
// reference): segment and its incarnation, index range, tag, whether the segment still answers.
#pragma once

#include <bit>
#include <vector>

#include "gsm-emu/domain.h"
#include "libglobalcache/cache/layout.h"

namespace mcs::cache {

/// Private copy of a descriptor's sealed fields, word by word (each load is atomic).
inline SealedFields load_sealed(const Descriptor& d) {
  std::array<std::uint64_t, kSealedWords> words;
  for (std::size_t i = 0; i < kSealedWords; ++i) {
    words[i] = d.sealed[i].load(std::memory_order_relaxed);
  }
  return std::bit_cast<SealedFields>(words);
}

inline void store_sealed(Descriptor& d, const SealedFields& fields) {
  const auto words = std::bit_cast<std::array<std::uint64_t, kSealedWords>>(fields);
  for (std::size_t i = 0; i < kSealedWords; ++i) {
    d.sealed[i].store(words[i], std::memory_order_relaxed);
  }
}

/// Low half of XXH3 over the fields before meta_sum, the overflow link and the version.
std::uint32_t meta_sum(const SealedFields& fields, std::uint64_t overflow, std::uint64_t version);
std::uint64_t overflow_sum(const Overflow& overflow);

class Memory {
 public:
  explicit Memory(gsm::Domain& domain);

  gsm::Domain& domain() const { return domain_; }
  const CacheGeometry& geometry() const { return g_; }
  std::uint32_t nodes() const { return static_cast<std::uint32_t>(bases_.size()); }
  bool lost(std::uint32_t segment) const { return domain_.segment(segment).lost(); }

  Descriptor& descriptor(std::uint32_t segment, std::uint64_t index) const {
    return reinterpret_cast<Descriptor*>(bases_[segment] + g_.descriptors_at)[index];
  }
  std::uint8_t clock_byte(std::uint32_t segment, std::uint64_t index) const {
    return clock(segment)[index].load(std::memory_order_relaxed);
  }
  void set_clock_byte(std::uint32_t segment, std::uint64_t index, std::uint8_t value) const {
    clock(segment)[index].store(value, std::memory_order_relaxed);
  }
  Link link_to(std::uint32_t segment, std::uint64_t index, std::uint64_t version) const {
    return Link::make(segment, incarnations_[segment], index, version);
  }
  /// The descriptor a link names, whatever its version now; nullptr: not a valid link.
  Descriptor* resolve(Link link) const {
    if (!link.well_formed() || link.segment() >= bases_.size() ||
        link.incarnation() != (incarnations_[link.segment()] & 0x3f) ||
        link.index() >= g_.descriptors) {
      return nullptr;
    }
    return &descriptor(link.segment(), link.index());
  }
  Overflow* resolve_overflow(Link link) const {
    return reinterpret_cast<Overflow*>(resolve(link));
  }

  /// Rendezvous hashing over the segments that answer: losing one moves only its own buckets.
  std::uint32_t home_of(std::uint64_t hash) const;
  Bucket& bucket(std::uint32_t segment, std::uint64_t hash) const {
    return reinterpret_cast<Bucket*>(bases_[segment] + g_.buckets_at)[hash & (g_.buckets - 1)];
  }
  Bucket& bucket_at(std::uint32_t segment, std::uint64_t index) const {
    return reinterpret_cast<Bucket*>(bases_[segment] + g_.buckets_at)[index];
  }
  Group& group(std::uint32_t segment, std::uint64_t index) const {
    return reinterpret_cast<Group*>(bases_[segment] + g_.groups_at)[index];
  }
  SegmentState& state(std::uint32_t segment) const {
    return *reinterpret_cast<SegmentState*>(bases_[segment] + g_.state_at);
  }
  PurgeLog& purge_log(std::uint32_t segment) const {
    return *reinterpret_cast<PurgeLog*>(bases_[segment] + g_.purge_log_at);
  }
  bool valid(Extent e) const {
    return e.well_formed() && e.segment() < bases_.size() && e.group() < g_.groups &&
           e.first() % kGroupUnits + e.units() <= kGroupUnits;
  }
  runtime::LockRef lock_ref(std::uint32_t segment, const OwnerLock& lock) const {
    return runtime::LockRef::make(
        segment, static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(&lock) -
                                            bases_[segment]));
  }
  std::uint64_t capacity_units() const { return g_.groups * kGroupUnits * nodes(); }
  void charge(std::uint32_t segment, std::size_t bytes) const {
    domain_.segment(segment).charge(bytes);
  }

 private:
  using ClockByte = std::atomic<std::uint8_t>;
  ClockByte* clock(std::uint32_t segment) const {
    return reinterpret_cast<ClockByte*>(bases_[segment] + g_.clock_at);
  }

  gsm::Domain& domain_;
  CacheGeometry g_;
  std::vector<std::byte*> bases_;
  std::vector<std::uint64_t> incarnations_;
};

}  // namespace mcs::cache
