// SPDX-License-Identifier: Apache-2.0
// Purging. Order: the log on every live segment first, then every fill in flight is flagged and
// every matching sealed entry retired, then the caller acknowledges. A fill that began before the
// purge finds its flag when it tries to seal (the CAS compares the whole state word) and then
// compares its key with the log.
#include <algorithm>
#include <cstring>

#include "libglobalcache/cache/checksum.h"
#include "libglobalcache/cache/global_cache.h"

namespace mcs::cache {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr std::uint64_t kLooksPerBeat = 4096;  // a few ms, against a hang limit of seconds

// As it is stored and read; `sum` covers all of it.
struct PurgeWords {
  std::uint64_t sequence = 0;
  std::uint64_t kind_and_length = 0;
  std::array<std::uint64_t, kPurgePattern / sizeof(Word)> pattern{};
  std::uint64_t sum() const { return checksum(std::as_bytes(std::span(this, 1))); }
};
static_assert(sizeof(PurgeWords) == offsetof(PurgeRecord, sum));

void write_record(PurgeRecord& record, std::uint64_t sequence, PurgeKind kind,
                  std::string_view pattern) {
  const std::size_t length = pattern.size() > kPurgePattern ? kPurgePattern + 1 : pattern.size();
  PurgeWords words;
  words.sequence = sequence;
  words.kind_and_length =
      (static_cast<std::uint64_t>(length) << 32) | static_cast<std::uint64_t>(kind);
  if (length > 0) {
    std::memcpy(words.pattern.data(), pattern.data(), std::min<std::size_t>(length, kPurgePattern));
  }
  record.sequence.store(0, kRelaxed);
  std::atomic_thread_fence(kRelease);
  record.kind_and_length.store(words.kind_and_length, kRelaxed);
  for (std::size_t i = 0; i < words.pattern.size(); ++i) {
    record.pattern[i].store(words.pattern[i], kRelaxed);
  }
  record.sum.store(words.sum(), kRelaxed);
  record.sequence.store(sequence, kRelease);
}

}  // namespace

bool GlobalCache::purge_matches(PurgeKind kind, std::string_view pattern,
                                std::string_view whole_key,
                                std::span<const std::byte> head) const {
  if (kind == PurgeKind::kAll) return true;
  if (purge_matcher_ != nullptr) return purge_matcher_(kind, pattern, whole_key, head);
  return kind != PurgeKind::kKey || whole_key.substr(0, pattern.size()) == pattern;
}

// Whether a purge from `sequence` on concerns what is being filled.
bool GlobalCache::purged_since(std::uint32_t segment, std::uint64_t sequence,
                               std::string_view whole_key,
                               std::span<const std::byte> head) const {
  const PurgeLog& log = memory_.purge_log(segment);
  const std::uint64_t end = log.next.load(std::memory_order_seq_cst);
  if (memory_.lost(segment) || end - sequence > kPurgeRecords) return true;
  for (; sequence != end; ++sequence) {
    const PurgeRecord& record = log.records[sequence % kPurgeRecords];
    PurgeWords words;
    words.sequence = record.sequence.load(kAcquire);
    if (words.sequence != sequence) return true;
    words.kind_and_length = record.kind_and_length.load(kRelaxed);
    const std::uint64_t length = words.kind_and_length >> 32;
    for (std::size_t i = 0; i < words.pattern.size(); ++i) {
      words.pattern[i] = record.pattern[i].load(kRelaxed);
    }
    const std::uint64_t sum = record.sum.load(kRelaxed);
    std::atomic_thread_fence(kAcquire);
    if (record.sequence.load(kRelaxed) != sequence || sum != words.sum() ||
        length > kPurgePattern) {
      return true;
    }
    const auto kind = static_cast<PurgeKind>(words.kind_and_length & 0xffffffff);
    if (purge_matches(kind, {reinterpret_cast<const char*>(words.pattern.data()), length},
                      whole_key, head)) {
      return true;
    }
  }
  return false;
}

PurgeMarks GlobalCache::purge_marks() const {
  PurgeMarks marks;
  marks.view = memory_.generation();
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (memory_.has_segment(segment)) {
      marks.next[segment] = memory_.purge_log(segment).next.load(std::memory_order_seq_cst);
    }
  }
  return marks;
}

// True: it is a fill, which looks at the log before it is sealed.
bool GlobalCache::flag_for_purge(Link link, Descriptor& d) {
  std::uint64_t word = d.state.load(std::memory_order_seq_cst);
  while (EntryWord::state(word) == EntryState::kFilling &&
         EntryWord::version(word) == link.version()) {
    // Another word each time, so that no look at the log holds for longer than until now.
    const std::uint64_t flagged = EntryWord::make(
        link.version(), EntryState::kFilling, EntryWord::owner_plus_one(word),
        (EntryWord::cursor(word) + 1) & EntryWord::kMaxCursor,
        EntryWord::flags(word) | EntryWord::kPurgeCheck);
    if (d.state.compare_exchange_weak(word, flagged, std::memory_order_seq_cst)) return true;
  }
  return false;
}

std::optional<std::uint64_t> GlobalCache::purge(PurgeKind kind, std::string_view pattern, bool soft) {
  const Inside inside(*this);
  if (!inside) return std::nullopt;
  const std::uint32_t view = memory_.generation();
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (memory_.lost(segment)) continue;
    PurgeLog& log = memory_.purge_log(segment);
    const std::uint64_t sequence = log.next.fetch_add(1, std::memory_order_seq_cst);
    write_record(log.records[sequence % kPurgeRecords], sequence, kind, pattern);
  }
  std::uint64_t purged = 0;
  std::uint64_t looked = 0;
  std::vector<Extent> extents;
  std::vector<std::byte> head;
  const auto consider = [&](Link link, Descriptor& d) {
    if (++looked % kLooksPerBeat == 0) instance_.beat();
    if (flag_for_purge(link, d)) return;
    std::uint64_t word = d.state.load(std::memory_order_seq_cst);
    if (EntryWord::state(word) != EntryState::kSealed ||
        EntryWord::version(word) != link.version()) {
      return;
    }
    bool hit = kind == PurgeKind::kAll;
    if (!hit) {
      const int pin = pins_.pin(link);
      const std::uint64_t again = d.state.load(std::memory_order_seq_cst);
      if (EntryWord::state(again) != EntryState::kSealed ||
          EntryWord::version(again) != link.version()) {
        if (pin >= 0) pins_.unpin(pin);
        return;
      }
      const SealedFields fields = load_sealed(d);
      // What cannot be read any more is not worth keeping either.
      hit = !space_.extents(fields, d.overflow.load(kAcquire), true, extents) ||
            !read_head(fields, extents, head) ||
            purge_matches(kind, pattern,
                          {reinterpret_cast<const char*>(head.data()), fields.key_bytes},
                          std::span<const std::byte>(head).subspan(fields.key_bytes));
      if (pin >= 0) pins_.unpin(pin);
    }
    if (!hit) return;
    const bool met = soft ? set_flag(link, EntryWord::kSoftPurged)
                          : retire(link) || retire_as_orphan(link, d);
    if (met) ++purged;
  };
  if (kind == PurgeKind::kKey) {
    const Key key = make_key(pattern);
    std::vector<Link> chain;
    const WalkEnd end = index_.walk(key.hash, [&](Link link, const Descriptor&, std::uint64_t) {
      chain.push_back(link);
      return chain.size() > Index::kMaxChain;
    });
    for (const Link link : chain) {
      if (Descriptor* d = memory_.resolve(link); d != nullptr) consider(link, *d);
    }
    if (end == WalkEnd::kEnd && index_is_whole() && !memory_.moved() &&
        memory_.generation() == view) {
      reclaim();
      return purged;
    }
    // A chain that keeps changing, is damaged, or may be about to be rebuilt may hide something: look at
    // everything.
  }
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (memory_.lost(segment)) continue;
    // Not by the clock bytes: they are hints, and one that was lost would hide an entry.
    for (std::uint64_t i = 0; i < memory_.geometry().descriptors; ++i) {
      Descriptor& d = memory_.descriptor(segment, i);
      consider(memory_.link_to(segment, i, EntryWord::version(d.state.load(kAcquire))), d);
    }
  }
  // What began meanwhile on a segment that has just come has seen no log.
  if ((memory_.moved() && memory_.adopt()) || memory_.generation() != view) {
    const auto again = purge(kind, pattern, soft);
    if (!again) return std::nullopt;
    purged += *again;
  }
  reclaim();
  return purged;
}

}  // namespace mcs::cache
