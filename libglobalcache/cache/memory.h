// SPDX-License-Identifier: Apache-2.0
// Addresses: from the numbers in shared words to pointers of this process, each checked (careful
// reference): segment and its incarnation, index range, tag, whether the segment still answers.
#pragma once

#include <bit>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "gsm-emu/domain.h"
#include "libglobalcache/cache/layout.h"
#include "libglobalcache/runtime/recoverability.h"
#include "libglobalcache/runtime/view.h"

namespace mcs::cache {

using SealedWords = std::array<std::uint64_t, kSealedWords>;

/// Private copy of a descriptor's sealed fields, word by word (each load is atomic), and without a loop,
/// so that a lookup has them in registers.
inline SealedWords load_words(const Descriptor& d) {
  return [&]<std::size_t... I>(std::index_sequence<I...>) {
    return SealedWords{d.sealed[I].load(std::memory_order_relaxed)...};
  }(std::make_index_sequence<kSealedWords>());
}
/// Word by word as well: wide loads of what was just stored in narrow pieces would wait for that.
inline void copy_words(const SealedWords& words, SealedFields& fields) {
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    (std::memcpy(reinterpret_cast<std::byte*>(&fields) + I * sizeof(std::uint64_t), &words[I],
                 sizeof(std::uint64_t)),
     ...);
  }(std::make_index_sequence<kSealedWords>());
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
      fold((w[6] << 32 | version) ^ 0x9e3779b97f4a7c15ULL, overflow ^ 0xbf58476d1ce4e5b9ULL);
  return static_cast<std::uint32_t>(((sum ^ (sum >> 37)) * 0x165667919e3779f9ULL) >> 32) | 1;
}
inline std::uint32_t meta_sum(const SealedFields& fields, std::uint64_t overflow,
                              std::uint64_t version) {
  return meta_sum(std::bit_cast<SealedWords>(fields), overflow, version);
}
std::uint64_t overflow_sum(const Overflow& overflow);

/// The segments as this process has them mapped, and the view of the domain that it works in.
///
/// Every access goes by way of a Place, of which there is one for each segment and incarnation that
/// was ever mapped; it is constant and lives as long as the Memory, so that whoever has looked at one
/// can go on with it. adopt() puts others in their place when the view changes. A link names the
/// incarnation, so that one into a former incarnation, or into a segment that the view does not have,
/// resolves to nothing. Thread-safe.
///
/// Home of a key: a table of this process, made of the view whenever it changes. Of the view's segments
/// those that came first (the lowest incarnation) hold the index, each the keys for which it has the
/// highest weight: a key's home moves only when its home is lost, never because a segment comes back;
/// docs/decisions/0043-lost-segments.md.
class Memory {
 public:
  explicit Memory(gsm::Domain& domain);

  /// A segment as it was mapped at some time.
  struct Place {
    std::byte* base = nullptr;
    const std::byte* payload = nullptr;
    gsm::Segment* segment = nullptr;
    std::uint64_t incarnation = 0;
    // What links and extents have in common that lead to it; 0, which none has: it is not in the view.
    std::uint64_t link_fixed = 0;
    std::uint64_t extent_fixed = 0;
    Descriptor* descriptors = nullptr;
    Bucket* buckets = nullptr;
    std::atomic<std::uint8_t>* clock = nullptr;
    bool member = false;                     // of the view
    const Word* view = nullptr;              // the segment's copy
  };
  const Place& at(std::uint32_t segment) const {
    return *places_[segment].load(std::memory_order_acquire);
  }

  gsm::Domain& domain() const { return domain_; }
  const CacheGeometry& geometry() const { return g_; }
  std::uint32_t nodes() const { return nodes_; }
  /// Not to be used: not in this process's view, or it does not answer.
  bool lost(std::uint32_t segment) const {
    const Place& place = at(segment);
    return !place.member || place.segment->lost();
  }

  // --- the view
  /// Of the view that this process works in.
  std::uint32_t generation() const {
    return static_cast<std::uint32_t>(word_.load(std::memory_order_seq_cst) >> 32) & 0xffffff;
  }
  /// The earliest view with these segments, of those that this process knows of: between it and
  /// generation() only members came and went. Look at generation() before.
  std::uint32_t same_since() const { return same_since_.load(std::memory_order_acquire); }
  bool has_segment(std::uint32_t segment) const { return at(segment).member; }
  std::uint64_t incarnation(std::uint32_t segment) const { return at(segment).incarnation; }
  /// Changes whenever something else lies in the segment's place.
  const void* identity(std::uint32_t segment) const {
    return places_[segment].load(std::memory_order_acquire);
  }
  /// Whether a later view is in force, or on its way. Whoever changes what a rebuild of the index looks
  /// at asks this afterwards: either it sees the view, or whoever rebuilds sees the change.
  bool moved() const;
  /// Work in the latest view from now on. True: it is another one.
  bool adopt();
  /// The latest view has a segment that this process cannot map, for a reason of its own. It goes on in
  /// the view before, finds what it finds there, and must not begin or publish anything; adopt() tries
  /// again. Not evidence that memory is lost.
  bool out_of_reach() const { return out_of_reach_.load(std::memory_order_acquire); }
  /// The reason, for people; empty: nothing is out of reach.
  std::string trouble() const;
  /// Look for memory that does not answer, at the price of a system call for each segment, and if there
  /// is any propose a view without it. Then adopt().
  bool look_after();

  Descriptor& descriptor(std::uint32_t segment, std::uint64_t index) const {
    return at(segment).descriptors[index];
  }
  std::uint8_t clock_byte(std::uint32_t segment, std::uint64_t index) const {
    return clock(segment)[index].load(std::memory_order_relaxed);
  }
  std::atomic<std::uint8_t>& clock_of(Link link) const { return clock(link.segment())[link.index()]; }
  void set_clock_byte(std::uint32_t segment, std::uint64_t index, std::uint8_t value) const {
    clock(segment)[index].store(value, std::memory_order_relaxed);
  }
  Word& arrival(std::uint32_t segment, std::uint64_t number) const {
    return reinterpret_cast<Word*>(base(segment) + g_.arrivals_at)[number % g_.arrivals];
  }
  GhostSet& ghosts(std::uint32_t segment, std::uint64_t hash) const {
    return reinterpret_cast<GhostSet*>(
        base(segment) + g_.ghosts_at)[((hash >> 32) * g_.ghost_sets) >> 32];
  }
  Link link_to(std::uint32_t segment, std::uint64_t index, std::uint64_t version) const {
    return Link::make(segment, at(segment).incarnation, index, version);
  }
  /// The descriptor a link names, whatever its version now; nullptr: not a valid link.
  Descriptor* resolve(Link link) const { return resolve(link, at(link.segment())); }
  Descriptor* resolve(Link link, const Place& place) const {
    if ((link.value & kLinkFixed) != place.link_fixed || link.index() >= g_.descriptors) return nullptr;
    return &place.descriptors[link.index()];
  }
  Overflow* resolve_overflow(Link link) const {
    return reinterpret_cast<Overflow*>(resolve(link));
  }

  std::uint32_t home_of(std::uint64_t hash) const {
    return homes_[hash >> kHomeShift].load(std::memory_order_relaxed);
  }
  /// Of its home's buckets, the one that this hash belongs to (D. Lemire, Fast Random Integer
  /// Generation in an Interval, ACM TOMACS 29(1), 2019).
  std::uint64_t bucket_number(std::uint64_t hash) const {
    return ((hash & 0xffffffff) * g_.buckets) >> 32;
  }
  Bucket& bucket(std::uint32_t segment, std::uint64_t hash) const {
    return bucket_at(segment, bucket_number(hash));
  }
  Bucket& bucket_at(std::uint32_t segment, std::uint64_t index) const {
    return at(segment).buckets[index];
  }
  Group& group(std::uint32_t segment, std::uint64_t index) const {
    return reinterpret_cast<Group*>(base(segment) + g_.groups_at)[index];
  }
  SegmentState& state(std::uint32_t segment) const {
    return *reinterpret_cast<SegmentState*>(base(segment) + g_.state_at);
  }
  PurgeLog& purge_log(std::uint32_t segment) const {
    return *reinterpret_cast<PurgeLog*>(base(segment) + g_.purge_log_at);
  }
  bool valid(Extent e) const { return valid(e, at(e.segment())); }
  bool valid(Extent e, const Place& place) const {
    if ((e.value & kExtentFixed) != place.extent_fixed) return false;
    const auto first = static_cast<std::uint32_t>(e.first());
    return first / kGroupUnits < g_.groups && e.units() - 1 < kGroupUnits &&
           first % kGroupUnits + e.units() <= kGroupUnits;
  }
  /// It was on a segment that is lost, or on a former incarnation of one.
  bool is_former(Extent e) const {
    return e.well_formed() && e.segment() < nodes_ &&
           (e.value & kExtentFixed) != at(e.segment()).extent_fixed;
  }
  /// It names an entry that went with its segment.
  bool is_former(Link link) const {
    return link.well_formed() && link.segment() < nodes_ && link.index() < g_.descriptors &&
           (link.value & kLinkFixed) != at(link.segment()).link_fixed;
  }
  /// The segment as it was mapped when an extent with this incarnation was valid; never another one that
  /// has come in its place.
  gsm::Segment& segment(std::uint32_t segment, std::uint64_t link_incarnation) const {
    const Place& place = at(segment);
    if ((place.incarnation & 0x3f) == link_incarnation) return *place.segment;
    return former(segment, link_incarnation);
  }
  runtime::LockRef lock_ref(std::uint32_t segment, const OwnerLock& lock) const {
    return runtime::LockRef::make(
        segment, static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(&lock) -
                                            base(segment)));
  }
  /// Begin to load what a lookup reads next. Neither faults nor waits, whatever the words are.
  static void prefetch(const Place& place, std::uint64_t index) {
    const Descriptor* d = &place.descriptors[index];
    __builtin_prefetch(d);
    __builtin_prefetch(&d->sealed[kSumsWord]);
    __builtin_prefetch(place.clock + index);
  }
  void prefetch(Extent extent) const {
    const std::byte* begin = at(extent.segment()).payload + extent.first() * kUnitBytes;
    static_assert(kUnitBytes == 4 * 64);
    __builtin_prefetch(begin);
    __builtin_prefetch(begin + 64);
    __builtin_prefetch(begin + 128);
    __builtin_prefetch(begin + 192);
  }
  std::uint64_t capacity_units() const { return g_.groups * kGroupUnits * nodes(); }

 private:
  std::atomic<std::uint8_t>* clock(std::uint32_t segment) const {
    return at(segment).clock;
  }

  std::byte* base(std::uint32_t segment) const { return at(segment).base; }
  gsm::Segment& former(std::uint32_t segment, std::uint64_t link_incarnation) const;
  bool use(const runtime::View& view);
  bool reaches_all(const runtime::View& view);
  void find_homes();

  static constexpr std::uint64_t kLinkFixed = Link::make(15, 63, 0, 0).value | 0xff;
  static constexpr std::uint64_t kExtentFixed = 0xffULL << 56 | 0x3fULL << 41;
  static constexpr unsigned kHomeBits = 10;
  static constexpr unsigned kHomeShift = 64 - kHomeBits;

  gsm::Domain& domain_;
  CacheGeometry g_;
  std::uint32_t nodes_;
  std::array<std::atomic<const Place*>, gsm::kMaxNodes> places_;
  // By the high bits of the hash; the bucket within the segment uses the low ones.
  std::array<std::atomic<std::uint8_t>, 1U << kHomeBits> homes_{};
  std::atomic<std::uint32_t> same_since_{0};
  std::atomic<std::uint64_t> word_{0};  // of the view; stored after the three above
  std::atomic<bool> out_of_reach_{false};
  runtime::Views views_;
  mutable std::mutex mutex_;  // for all below
  std::vector<std::unique_ptr<const Place>> all_;
};

}  // namespace mcs::cache
