// SPDX-License-Identifier: Apache-2.0
// Index: hash chains over descriptors.
//
// A bucket lives on the home of its hash (memory.h). Lookups take no lock:
// every link carries the version of the descriptor it names, and a walk that meets another version
// starts again, a bounded number of times. Links are changed only under the bucket's OwnerLock, each
// change being one store (link at the head or at the end, or unlink), so a kill at any instant leaves a
// valid chain and the recoverer has only to release the lock.
//
// When a segment is lost, chains that lay on it or led through it are mended entry by entry
// (rebuild.cc); until that is done a walk may not meet what is there.
#pragma once

#include "libglobalcache/cache/memory.h"
#include "libglobalcache/runtime/instance.h"

namespace mcs::cache {

enum class WalkEnd {
  kEnd,      // all of the chain was seen
  kStopped,  // the visitor had enough
  kChanged,  // the chain kept changing under the walk: what was not found may yet be there
  kDamaged   // a link that is none
};

class Index {
 public:
  Index(const Memory& memory, runtime::Instance& instance) : memory_(memory), instance_(instance) {}

  /// Visit the entries with this hash, newest first: visit(link, descriptor, state word) returns
  /// true to stop. When the walk starts again it calls again() and the visitor sees entries again.
  template <typename Visit, typename Again>
  WalkEnd walk(std::uint64_t hash, Visit&& visit, Again&& again) const {
    const Memory::Place& home = memory_.at(memory_.home_of(hash));
    home.segment->charge(sizeof(Bucket));
    const Bucket& bucket = home.buckets[memory_.bucket_number(hash)];
    // The head and its bytes are asked for at once, although only the head says where those are.
    memory_.prefetch(Extent{bucket.hint.load(std::memory_order_relaxed)});
    for (unsigned restart = 0; restart < kRestarts; ++restart) {
      Link link{bucket.head.load(std::memory_order_acquire)};
      bool changed = false;
      for (std::uint64_t steps = 0; !link.is_end(); ++steps) {
        const Memory::Place& place = memory_.at(link.segment());
        const Descriptor* d = memory_.resolve(link, place);
        if (d == nullptr || steps > kMaxChain) return WalkEnd::kDamaged;
        Memory::prefetch(place, link.index());
        place.segment->charge(sizeof(Descriptor));
        const std::uint64_t word = d->state.load(std::memory_order_acquire);
        const Link next{d->next.load(std::memory_order_acquire)};
        const std::uint64_t their_hash = d->sealed[0].load(std::memory_order_acquire);
        const std::uint64_t now = d->state.load(std::memory_order_acquire);
        if (EntryWord::version(word) != link.version() ||
            EntryWord::version(now) != link.version() ||
            EntryWord::state(now) == EntryState::kFree) {
          changed = true;
          break;
        }
        if (their_hash == hash && visit(link, *d, now)) return WalkEnd::kStopped;
        link = next;
      }
      if (!changed) return WalkEnd::kEnd;
      again();
    }
    return WalkEnd::kChanged;
  }
  template <typename Visit>
  WalkEnd walk(std::uint64_t hash, Visit&& visit) const {
    return walk(hash, visit, [] {});
  }

  /// `extent` is where the bytes of `entry` begin.
  void hint(std::uint64_t hash, Link entry, Extent extent) const {
    Bucket& bucket = memory_.bucket(memory_.home_of(hash), hash);
    if (bucket.head.load(std::memory_order_relaxed) == entry.value) {
      bucket.hint.store(extent.value, std::memory_order_relaxed);
    }
  }

  /// A bucket by its number.
  struct Numbered {
    std::uint64_t number;
  };

  /// Holds a bucket's lock.
  class Locked {
   public:
    Locked(const Index& index, std::uint64_t hash)
        : Locked(index, index.memory_.home_of(hash),
                 Numbered{index.memory_.bucket_number(hash)}) {}
    Locked(const Index& index, std::uint32_t home, Numbered bucket);
    runtime::LockAnswer answer() const { return answer_; }
    const OwnerLock& lock() const { return bucket_.lock; }
    /// The entry becomes the chain's first.
    void link_first(Link entry, Descriptor& d);
    /// Take the entry out if it is there. False: the chain is damaged.
    bool unlink(Link entry);
    /// Cut the chain where it leads to nothing: into lost memory, or to what is another entry now. False:
    /// `entry` is in it.
    bool mend(Link entry = {});
    /// mend(), and the entry becomes the last of the chain unless it is there already.
    void link_last(Link entry, Descriptor& d);

   private:
    Word* end_of_chain(Link entry);
    const Memory& memory_;
    runtime::Instance::Op op_;
    Bucket& bucket_;
    runtime::LockAnswer answer_;
  };

  /// Of the chain with this number on `segment`: whether a link of it leads to nothing. Takes no lock.
  bool is_broken(std::uint32_t segment, std::uint64_t number) const;
  /// Whether the entry is in the chain of its hash. Takes no lock: false may mean that the chain has
  /// just changed.
  bool is_linked(std::uint64_t hash, Link entry) const;

  static constexpr std::uint64_t kMaxChain = 1U << 16;

 private:
  static constexpr unsigned kRestarts = 16;
  const Memory& memory_;
  runtime::Instance& instance_;
};

}  // namespace mcs::cache
