// SPDX-License-Identifier: Apache-2.0
// Addresses: from the numbers in shared words to pointers of this process, each checked (careful
// reference): segment and its incarnation, index range, tag, whether the segment still answers.
#pragma once

#include <bit>
#include <vector>

#include "gsm-emu/domain.h"
#include "libglobalcache/cache/layout.h"
#include "libglobalcache/runtime/recoverability.h"

namespace mcs::cache {

using SealedWords = std::array<std::uint64_t, kSealedWords>;

/// Private copy of a descriptor's sealed fields, word by word (each load is atomic).
inline SealedWords load_words(const Descriptor& d) {
  SealedWords words;
  for (std::size_t i = 0; i < kSealedWords; ++i) {
    words[i] = d.sealed[i].load(std::memory_order_relaxed);
  }
  return words;
}
inline SealedFields load_sealed(const Descriptor& d) {
  return std::bit_cast<SealedFields>(load_words(d));
}

/// The site in whose name it was filled; 0: none.
inline std::uint32_t site_of(const Descriptor& d) {
  return static_cast<std::uint32_t>(d.sealed[kLengthsWord].load(std::memory_order_relaxed) >> 24) %
         kSites;
}

inline void store_sealed(Descriptor& d, const SealedFields& fields) {
  const auto words = std::bit_cast<SealedWords>(fields);
  for (std::size_t i = 0; i < kSealedWords; ++i) {
    d.sealed[i].store(words[i], std::memory_order_relaxed);
  }
}

using runtime::kChecked;
using runtime::kRecoverable;
using runtime::note;

/// Of the fields before meta_sum, the overflow link and the version. Folded products, as XXH3 makes
/// of short inputs, but of whole words and inline, without a loop: every hit needs it.
inline std::uint32_t meta_sum(const SealedWords& w, std::uint64_t overflow, std::uint64_t version) {
  if constexpr (!kChecked) return 1;
  const auto fold = [](std::uint64_t a, std::uint64_t b) {
    const auto product = static_cast<unsigned __int128>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
  };
  static_assert(kSealedWords == 7 && kSumsWord == 6);
  const std::uint64_t sum =
      fold(w[0] ^ 0xa0761d6478bd642fULL, w[1] ^ 0xe7037ed1a0b428dbULL) +
      fold(w[2] ^ 0x8ebc6af09c88c6e3ULL, w[3] ^ 0x589965cc75374cc3ULL) +
      fold(w[4] ^ 0x1d8e4e27c47d124fULL, w[5] ^ 0xeb44accab455d165ULL) +
      fold((w[6] & 0xffffffff) ^ 0x9e3779b97f4a7c15ULL, overflow ^ 0xbf58476d1ce4e5b9ULL) +
      fold(version ^ 0x94d049bb133111ebULL, 0x632be59bd9b4e019ULL);
  return static_cast<std::uint32_t>(((sum ^ (sum >> 37)) * 0x165667919e3779f9ULL) >> 32) | 1;
}
inline std::uint32_t meta_sum(const SealedFields& fields, std::uint64_t overflow,
                              std::uint64_t version) {
  return meta_sum(std::bit_cast<SealedWords>(fields), overflow, version);
}
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
  Word& arrival(std::uint32_t segment, std::uint64_t number) const {
    return reinterpret_cast<Word*>(bases_[segment] + g_.arrivals_at)[number % g_.arrivals];
  }
  GhostSet& ghosts(std::uint32_t segment, std::uint64_t hash) const {
    return reinterpret_cast<GhostSet*>(
        bases_[segment] + g_.ghosts_at)[((hash >> 32) * g_.ghost_sets) >> 32];
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
  /// Of its home's buckets, the one that this hash belongs to (D. Lemire, Fast Random Integer
  /// Generation in an Interval, ACM TOMACS 29(1), 2019).
  std::uint64_t bucket_number(std::uint64_t hash) const {
    return ((hash & 0xffffffff) * g_.buckets) >> 32;
  }
  Bucket& bucket(std::uint32_t segment, std::uint64_t hash) const {
    return bucket_at(segment, bucket_number(hash));
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
  /// Begin to load what a lookup reads next. Neither faults nor waits, whatever the words are.
  void prefetch(Link link) const {
    if (const Descriptor* d = resolve(link); d != nullptr) {
      __builtin_prefetch(d);
      __builtin_prefetch(&d->sealed[kSumsWord]);
      __builtin_prefetch(clock(link.segment()) + link.index());
    }
  }
  void prefetch(Extent extent) const {
    if (extent.segment() >= payloads_.size()) return;
    const std::byte* at = payloads_[extent.segment()] + extent.first() * kUnitBytes;
    for (std::size_t line = 0; line < kUnitBytes; line += 64) __builtin_prefetch(at + line);
  }
  std::uint64_t capacity_units() const { return g_.groups * kGroupUnits * nodes(); }
  void charge(std::uint32_t segment, std::size_t bytes) const {
    domain_.segment(segment).charge(bytes);
  }

 private:
  std::atomic<std::uint8_t>* clock(std::uint32_t segment) const {
    return reinterpret_cast<std::atomic<std::uint8_t>*>(bases_[segment] + g_.clock_at);
  }

  gsm::Domain& domain_;
  CacheGeometry g_;
  std::vector<std::byte*> bases_;
  std::vector<const std::byte*> payloads_;
  std::vector<std::uint64_t> incarnations_;
};

}  // namespace mcs::cache
