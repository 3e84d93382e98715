// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>

#include "libglobalcache/cache/checksum.h"
#include "libglobalcache/cache/global_cache.h"

namespace mcs::cache {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;

constexpr std::uint32_t kReclaimBatch = 32;  // retired entries

// Collected before the first write: head and body of an entry that is copied on hits.
constexpr std::size_t kStageBytes = 64 * 1024;
// What a body of unknown length gets at least when it grows, within these bounds.
constexpr std::uint64_t kLeastGrowth = 8 * 1024;
constexpr std::uint64_t kMostGrowth = kGroupBytes;
constexpr std::uint64_t kMostAhead = 8 << 20;

}  // namespace

Fill& Fill::operator=(Fill&& other) noexcept {
  if (this != &other) {
    abort();
    cache_ = std::exchange(other.cache_, nullptr);
    link_ = other.link_;
    descriptor_ = other.descriptor_;
    slot_ = other.slot_;
    key_ = std::move(other.key_);
    hash_ = other.hash_;
    site_ = other.site_;
    view_ = other.view_;
    purges_seen_ = other.purges_seen_;
    head_bytes_ = other.head_bytes_;
    head_sum_ = other.head_sum_;
    expected_ = other.expected_;
    body_bytes_ = other.body_bytes_;
    written_ = other.written_;
    capacity_ = other.capacity_;
    reported_ = other.reported_;
    extents_ = std::move(other.extents_);
    stage_ = std::move(other.stage_);
    body_sum_ = std::move(other.body_sum_);
    head_ = std::move(other.head_);
    head_set_ = other.head_set_;
    head_shown_ = other.head_shown_;
    failed_ = other.failed_;
    moved_ = other.moved_;
    moved_word_ = other.moved_word_;
  }
  return *this;
}

void Fill::rename(const Key& key) {
  const Inside inside(*cache_);
  if (!inside) failed_ = true;
  if (failed_) return;
  key_.assign(key.primary).append(key.variant);
  descriptor_->sealed[kHash2Word].store(key.hash2, kRelease);
}

void Fill::set_head(std::span<const std::byte> head, std::optional<std::uint64_t> body_bytes) {
  const auto* key = reinterpret_cast<const std::byte*>(key_.data());
  stage_.assign(key, key + key_.size());
  stage_.insert(stage_.end(), head.begin(), head.end());
  head_.assign(head.begin(), head.end());
  head_bytes_ = static_cast<std::uint32_t>(head.size());
  head_sum_ = static_cast<std::uint32_t>(checksum(stage_));
  expected_ = body_bytes;
  head_set_ = true;
}

Append Fill::append(std::span<const std::byte> bytes) {
  if (failed_ || !head_set_) return Append::kFailed;
  const Inside inside(*cache_);
  if (!inside) {
    failed_ = true;
    return Append::kFailed;
  }
  const bool staged = stage_.size() + bytes.size() <= kStageBytes && written_ == 0;
  if (staged) {
    stage_.insert(stage_.end(), bytes.begin(), bytes.end());
    body_bytes_ += bytes.size();
    return Append::kOk;
  }
  if (const Append answer = flush(); answer != Append::kOk) return answer;
  body_sum_->update(bytes);
  const Append answer = write(bytes);
  // Counted only now: what is counted may be shown to followers.
  if (answer == Append::kOk) body_bytes_ += bytes.size();
  return answer;
}

Append Fill::flush() {
  if (failed_ || !head_set_) return Append::kFailed;
  const Inside inside(*cache_);
  if (!inside) {
    failed_ = true;
    return Append::kFailed;
  }
  if (!body_sum_) {
    body_sum_ = std::make_unique<Checksum>();
    const std::size_t head = key_.size() + head_bytes_;
    body_sum_->update(std::span(stage_).subspan(head));
  }
  Append answer = Append::kOk;
  if (!stage_.empty()) {
    const std::vector<std::byte> stage = std::move(stage_);
    stage_.clear();
    answer = write(stage);
  }
  if (answer != Append::kOk || (head_shown_ && body_bytes_ == reported_)) return answer;
  if (!head_shown_) {
    SealedFields fields;
    fields.key_bytes = key_.size() & kKeyBytesMask;
    fields.site = site_;
    fields.head_bytes = head_bytes_;
    fields.head_sum = head_sum_;
    const auto words = std::bit_cast<std::array<std::uint64_t, kSealedWords>>(fields);
    descriptor_->sealed[kSumsWord].store(words[kSumsWord], kRelaxed);
    descriptor_->sealed[kLengthsWord].store(words[kLengthsWord], kRelease);
    head_shown_ = true;
  }
  // Followers read up to here; the low 44 bits never overflow (16 TiB).
  descriptor_->progress.fetch_add(body_bytes_ - reported_, std::memory_order_seq_cst);
  reported_ = body_bytes_;
  cache_->wake_waiters(link_, *descriptor_);
  return answer;
}

bool Fill::has_waiters() const {
  return cache_ != nullptr && descriptor_->progress.load(std::memory_order_seq_cst) >> 44 != 0;
}

Append Fill::write(std::span<const std::byte> bytes) {
  if (bytes.size() > capacity_ - written_) {
    std::uint64_t more = bytes.size() - (capacity_ - written_);
    if (expected_) {
      // So much at once that it lies together, but not all of what may come slowly or never.
      const std::uint64_t total = key_.size() + head_bytes_ + *expected_;
      if (total > capacity_) more = std::max(more, std::min(total - capacity_, kMostAhead));
    } else if (body_sum_) {
      more = std::max(more, std::clamp(written_ / 4, kLeastGrowth, kMostGrowth));
    }
    const std::size_t before = extents_.size();
    const SpaceAnswer answer = cache_->make_room(
        link_, *descriptor_, (more + kUnitBytes - 1) / kUnitBytes, moved_.value != 0,
                                                  extents_);
    for (std::size_t i = before; i < extents_.size(); ++i) capacity_ += extents_[i].bytes();
    if (answer != SpaceAnswer::kOk) {
      failed_ = true;
      return answer == SpaceAnswer::kFull || answer == SpaceAnswer::kNoDescriptor
                 ? Append::kNoSpace
                 : Append::kFailed;
    }
  }
  std::size_t done = 0;
  const bool ok = for_each_piece(
      extents_, written_, bytes.size(), [&](const Piece& piece) {
        const bool stored = cache_->memory_.segment(piece.segment, piece.incarnation)
                                .write_payload(piece.offset, bytes.subspan(done, piece.length));
        done += piece.length;
        return stored;
      });
  if (!ok) {
    failed_ = true;
    return Append::kFailed;
  }
  written_ += bytes.size();
  return Append::kOk;
}

bool Fill::commit(std::int64_t checked_ms) {
  if (cache_ == nullptr) return false;
  const Inside inside(*cache_);
  if (!inside || cache_->instance_.expelled() || cache_->memory_.out_of_reach()) {
    abort();
    return false;
  }
  std::uint64_t body_sum = 0;
  const std::size_t head = key_.size() + head_bytes_;
  if (!body_sum_ && head_set_ && !failed_) {
    body_sum = checksum(std::span(stage_).subspan(head));
    if (write(stage_) != Append::kOk) failed_ = true;
  } else if (body_sum_) {
    if (!stage_.empty()) flush();
    body_sum = body_sum_->value();
  }
  const bool complete = !expected_ || *expected_ == body_bytes_;
  if (failed_ || !head_set_ || !complete) {
    abort();
    return false;
  }
  Descriptor& d = *descriptor_;
  SealedFields fields;
  fields.hash = hash_;
  fields.body_sum = body_sum;
  fields.body_bytes = body_bytes_ & ((1ULL << 44) - 1);
  fields.extent_count = extents_.size() & ((1U << 20) - 1);
  fields.key_bytes = key_.size() & kKeyBytesMask;
  fields.site = site_;
  fields.head_bytes = head_bytes_;
  for (std::size_t i = 0; i < std::min<std::size_t>(2, extents_.size()); ++i) {
    fields.extents[i] = extents_[i].value;
  }
  fields.head_sum = head_sum_;
  const std::uint64_t overflow = d.overflow.load(kAcquire);
  std::size_t blocks = extents_.size() / kOverflowExtents + 1;
  for (Link link{overflow}; !link.is_end(); --blocks) {
    Overflow* block = blocks == 0 ? nullptr : cache_->memory_.resolve_overflow(link);
    const std::uint64_t word = block == nullptr ? 0 : block->state.load(kAcquire);
    if (EntryWord::state(word) != EntryState::kOverflow ||
        EntryWord::version(word) != link.version()) {
      abort();
      return false;
    }
    block->sum.store(overflow_sum(*block), kRelaxed);
    link = Link{block->next.load(kAcquire)};
  }
  fields.meta_sum = meta_sum(fields, overflow, link_.version());
  d.checked.store(static_cast<std::uint64_t>(checked_ms), kRelaxed);
  // The sums before the second hash, so that the fill is recognised as one until it is sealed.
  const auto words = std::bit_cast<std::array<std::uint64_t, kSealedWords>>(fields);
  d.sealed[kSumsWord].store(words[kSumsWord], kRelaxed);
  std::atomic_thread_fence(kRelease);
  store_sealed(d, fields);

  const std::uint32_t owner = cache_->instance_.slot_number() + 1;
  const std::uint64_t sealed =
      EntryWord::make(link_.version(), EntryState::kSealed, 0, 0, EntryWord::kUnsettled);
  std::uint64_t word = EntryWord::make(link_.version(), EntryState::kFilling, owner);
  while (!d.state.compare_exchange_strong(word, sealed, std::memory_order_seq_cst)) {
    const bool ours = EntryWord::state(word) == EntryState::kFilling &&
                      EntryWord::version(word) == link_.version() &&
                      EntryWord::owner_plus_one(word) == owner;
    // A purge counts up in the word each time, so none can pass between this look and the seal. What
    // is not sealed stays readable for those who follow it already.
    if (!ours || ((EntryWord::flags(word) & EntryWord::kPurgeCheck) != 0 &&
                  cache_->purged_since(link_.segment(), purges_seen_, key_, head_))) {
      abort();
      return false;
    }
  }
  cache_->index_.hint(hash_, link_, Extent{fields.extents[0]});
  cache_->admit(link_, fields);
  bool kept = moved_.value == 0 || cache_->replace_moved(link_, d, moved_, moved_word_);
  if (kept) cache_->settle(link_, d, hash_, key_);
  // Where it was linked may be gone; whoever rebuilds the index has perhaps seen it before the seal.
  GlobalCache& its = *cache_;
  while (kept && ((its.memory_.moved() && its.memory_.adopt()) || its.memory_.generation() != view_)) {
    view_ = its.memory_.generation();
    // What cannot be put into its chain must not stay: its part may have been swept already.
    if (!its.sweep_entry(link_, d) && !its.retire_settled(link_, d)) its.retire_as_orphan(link_, d);
    its.settle(link_, d, hash_, key_);
  }
  // There is a view that this process cannot act upon, and whether others saw the seal it cannot tell.
  if (kept && its.memory_.out_of_reach()) {
    if (!its.retire_settled(link_, d)) its.retire_as_orphan(link_, d);
    kept = false;
  }
  // Before the record is cleared, by which a recoverer knows for whom to do it.
  cache_->wake_waiters(link_, d);
  cache_->fill_links_[static_cast<std::size_t>(slot_)].store(0, kRelaxed);
  note(cache_->area_.fills[static_cast<std::size_t>(slot_)], 0);
  cache_->fills_used_.give_back(slot_);
  GlobalCache& cache = *std::exchange(cache_, nullptr);
  *this = Fill{};
  // What was replaced is freed in batches; whoever needs room, and the tick, frees the rest.
  if (cache.limbo_used_.count() >= kReclaimBatch) cache.reclaim();
  return kept;
}

void Fill::abort() {
  if (cache_ == nullptr) return;
  GlobalCache& cache = *cache_;
  const Inside inside(cache);
  cache_ = nullptr;
  if (!inside) {
    // Whoever finds it in nobody's hands frees it.
    *this = Fill{};
    return;
  }
  cache.retire_filling(link_, *descriptor_, cache.instance_.slot_number() + 1);
  cache.fill_links_[static_cast<std::size_t>(slot_)].store(0, kRelaxed);
  note(cache.area_.fills[static_cast<std::size_t>(slot_)], 0);
  cache.fills_used_.give_back(slot_);
  cache.reclaim();
  *this = Fill{};
}

}  // namespace mcs::cache
