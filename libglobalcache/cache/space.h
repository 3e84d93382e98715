// SPDX-License-Identifier: Apache-2.0
// Space: units of 256 bytes in groups of 448, each group a bitmap behind an OwnerLock in one cache
// line; and the extents of entries.
//
// Every change happens while the group's lock is held and an OpRecord names the extent and the
// entry, so that a recoverer can tell, and finish or undo, any half of it:
// What is large gets whole pages, as long as there are any, so that it can be sent without copying
// (layout.h, kSent).
//   marking:  record (extent, entry) -> set bits -> attach to the entry -> unlock
//             found unattached by a recoverer: bits cleared again
//   clearing: record (extent, entry, overflow) -> clear bits -> free the overflow block if this was
//             its last extent -> advance the entry's cursor -> unlock
//             found half-way: done again from the start
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "libglobalcache/cache/loans.h"
#include "libglobalcache/cache/memory.h"
#include "libglobalcache/runtime/instance.h"

namespace mcs::cache {

enum class SpaceAnswer {
  kOk,
  kFull,           // no unit found (evict and try again)
  kNoDescriptor,   // an overflow block is needed and none is free (evict and try again)
  kBusy,           // a lock is held by a stopped process
  kLost
};

/// Where a run of an entry's byte stream lies.
struct Piece {
  std::uint32_t segment;
  std::uint64_t incarnation;  // of the segment, as in an extent
  std::uint64_t offset;  // bytes in the segment's payload
  std::uint64_t length;
};

/// Visit bytes [offset, offset + n) of a stream that lies in `extents`, in order; visit(piece)
/// returns false to stop. False: stopped, or the extents are shorter.
template <typename Visit>
bool for_each_piece(const std::vector<Extent>& extents, std::uint64_t offset, std::uint64_t n,
                    Visit&& visit) {
  for (const Extent& extent : extents) {
    if (n == 0) break;
    if (offset >= extent.bytes()) {
      offset -= extent.bytes();
      continue;
    }
    const std::uint64_t length = std::min(n, extent.bytes() - offset);
    if (!visit(Piece{extent.segment(), extent.incarnation(),
                     extent.first() * kUnitBytes + offset, length})) {
      return false;
    }
    n -= length;
    offset = 0;
  }
  return n == 0;
}

class Space {
 public:
  Space(const Memory& memory, runtime::Instance& instance);

  /// Attach one more extent of at most `units` units (at least 1) to a FILLING entry of ours.
  /// `min_units`: do not bother with smaller runs. `local`: only in this node's memory. The extent is
  /// returned through `got`.
  SpaceAnswer grow(Link entry, Descriptor& d, std::uint64_t units, std::uint64_t min_units,
                   bool local, Extent& got);

  /// Free the extents of a RETIRED, unlinked, unpinned entry of ours, and the entry itself. False:
  /// a lock is held by a stopped process, or pages that were sent cannot be exchanged; call again
  /// later, it continues where it stopped. Extents that cannot be believed are not cleared.
  bool free_entry(Link entry, Descriptor& d);

  /// Finish or undo what a dead instance's record says about a group it still holds.
  void repair(const runtime::DeadInstance& dead, runtime::OpRecord& op);

  /// Make a group's bits `owned`, if nobody has changed anything there since its lock's word was `lock`
  /// and its bits were `bits`. `orphaned`: the lock is held by one that is gone, without a record. False:
  /// somebody has; look again.
  bool set_bits(std::uint32_t segment, std::uint64_t group, std::uint64_t lock, bool orphaned,
                const std::array<std::uint64_t, kGroupWords>& bits,
                const std::array<std::uint64_t, kGroupWords>& owned);
  /// What a word of a group's bits is without those that nobody owns. Pages that are given back are
  /// exchanged first, since the kernel may still send what is in them; those that cannot be stay marked.
  std::uint64_t keep_owned(std::uint32_t segment, std::uint64_t group, std::uint64_t word,
                           std::uint64_t marked, std::uint64_t owned);
  /// Of a retired entry whose owner is gone without a record: the block that ended with the extent at
  /// its cursor may have been freed already, and then so was the extent.
  void pass_freed_block(Link entry, Descriptor& d) const;
  /// Claimed by one that is gone, and named by no entry.
  void free_orphaned_block(Link block);

  /// The extents of an entry in order, checked; false: damaged (nothing may be believed).
  bool extents(const SealedFields& fields, std::uint64_t overflow, bool check_sums,
               std::vector<Extent>& out) const {
    if (fields.extent_count == 1 && out.size() == 1) {
      out.front() = Extent{fields.extents[0]};
      return memory_.valid(out.front());
    }
    if (fields.extent_count > 2) return all_extents(fields, overflow, check_sums, out);
    out.clear();
    for (std::uint64_t i = 0; i < fields.extent_count; ++i) {
      out.push_back(Extent{fields.extents[i]});
      if (!memory_.valid(out.back())) return false;
    }
    return true;
  }

  /// Claim a FREE descriptor on `segment` for `state`; returns its new link, or 0. `claimer` tells
  /// the threads of an instance apart and becomes the state word's cursor.
  Link claim_descriptor(std::uint32_t segment, EntryState state, Word& intent,
                        std::uint64_t claimer = 0);

  /// A group where space was just freed: the next grow looks there first.
  void hint_group(std::uint32_t segment, std::uint64_t group);

  const Loans& loans() const { return loans_; }
  /// Units in use, read without a lock (approximate while others work).
  std::uint64_t used_units(std::uint32_t segment) const;

 private:
  /// 0: it is not FREE.
  Link claim_at(std::uint32_t segment, std::uint64_t index, EntryState state, Word& intent,
                std::uint64_t claimer);
  friend class Repairer;
  bool may_clear(Link entry, const Descriptor& d, std::uint64_t word) const;
  bool all_extents(const SealedFields& fields, std::uint64_t overflow, bool check_sums,
                   std::vector<Extent>& out) const;
  SpaceAnswer grow_in(std::uint32_t segment, std::uint64_t group, Link entry, Descriptor& d,
                      std::uint64_t units, std::uint64_t min_units, bool whole_pages, Extent& got);
  bool attach(runtime::OpRecord& op, Link entry, Descriptor& d, Extent extent);
  Overflow* block(const Descriptor& d, std::uint64_t number) const;
  static std::uint64_t count(const Descriptor& d);
  static void set_count(Descriptor& d, std::uint64_t n);
  static void mark(Group& group, Extent extent, bool used);
  void clear(runtime::OpRecord& op, Descriptor& d);
  /// An overflow block that no entry names any more becomes a FREE descriptor. Its extents lie where
  /// a descriptor has its overflow link and its count, and whoever claims a descriptor believes those
  /// two from its first instant: they are emptied before the block is FREE.
  void free_block(Link block, std::uint64_t word);

  const Memory& memory_;
  Loans loans_;
  runtime::Instance& instance_;
  // Descriptors that this process has freed, so that who evicts to make room finds at once what that
  // has freed. Hints: each is claimed like any other, one that is overwritten or left behind by a death
  // is found by looking.
  class Freed {
   public:
    void add(std::uint64_t index) {
      const std::uint64_t at = in_.fetch_add(1, std::memory_order_relaxed);
      places_[at % places_.size()].store(static_cast<std::uint32_t>(index + 1),
                                         std::memory_order_relaxed);
    }
    /// kNone: nothing is known to be free.
    std::uint64_t take() {
      // The latest: what others have overwritten is the oldest.
      std::uint64_t in = in_.load(std::memory_order_relaxed);
      while (in > 0 && !in_.compare_exchange_weak(in, in - 1, std::memory_order_relaxed)) {
      }
      if (in == 0) return kNone;
      const std::uint32_t found =
          places_[(in - 1) % places_.size()].exchange(0, std::memory_order_relaxed);
      return found == 0 ? kNone : found - 1;
    }
    static constexpr std::uint64_t kNone = ~0ULL;

   private:
    std::array<std::atomic<std::uint32_t>, 256> places_{};
    std::atomic<std::uint64_t> in_{0};
  };
  struct Cursor {
    Freed freed_descriptors;
    std::atomic<std::uint64_t> group{0};
    std::atomic<std::uint64_t> descriptor{0};
    std::array<std::atomic<std::uint64_t>, 8> freed{};  // group + 1
    std::atomic<std::uint32_t> next_freed{0};
  };
  std::vector<Cursor> cursors_;  // per segment, private to the process
};

}  // namespace mcs::cache
