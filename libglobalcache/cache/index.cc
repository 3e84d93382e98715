// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/index.h"

namespace mcs::cache {

// The home is looked up once: it may be another one a moment later.
Index::Locked::Locked(const Index& index, std::uint32_t home, Numbered bucket)
    : memory_(index.memory_), op_(index.instance_), bucket_(memory_.bucket_at(home, bucket.number)) {
  op_.record().phase.store(static_cast<std::uint64_t>(Phase::kChain), std::memory_order_relaxed);
  answer_ = op_.lock(bucket_.lock, memory_.lock_ref(home, bucket_.lock));
}

void Index::Locked::link_first(Link entry, Descriptor& d) {
  d.next.store(bucket_.head.load(std::memory_order_relaxed), std::memory_order_release);
  bucket_.head.store(entry.value, std::memory_order_release);
}

bool Index::Locked::unlink(Link entry) {
  Word* previous = &bucket_.head;
  for (std::uint64_t steps = 0; steps <= kMaxChain; ++steps) {
    const Link link{previous->load(std::memory_order_acquire)};
    if (link.is_end()) return true;
    Descriptor* d = memory_.resolve(link);
    if (d == nullptr) return false;
    if (link == entry) {
      previous->store(d->next.load(std::memory_order_acquire), std::memory_order_release);
      return true;
    }
    previous = &d->next;
  }
  return false;
}

// The word that is to hold the next link; nullptr: `entry` is in the chain.
Word* Index::Locked::end_of_chain(Link entry) {
  Word* previous = &bucket_.head;
  for (std::uint64_t steps = 0; steps <= kMaxChain; ++steps) {
    const Link link{previous->load(std::memory_order_acquire)};
    if (link.is_end()) return previous;
    if (link == entry) return nullptr;
    Descriptor* d = memory_.resolve(link);
    // Only the lock's holder changes links, so what does not fit now never will.
    if (d == nullptr || EntryWord::version(d->state.load(std::memory_order_acquire)) !=
                            link.version()) {
      break;
    }
    previous = &d->next;
  }
  previous->store(Link::kEnd, std::memory_order_release);
  return previous;
}

bool Index::Locked::mend(Link entry) { return end_of_chain(entry) != nullptr; }

void Index::Locked::link_last(Link entry, Descriptor& d) {
  Word* end = end_of_chain(entry);
  if (end == nullptr) return;
  d.next.store(Link::kEnd, std::memory_order_release);
  end->store(entry.value, std::memory_order_release);
}

bool Index::is_broken(std::uint32_t segment, std::uint64_t number) const {
  Link link{memory_.bucket_at(segment, number).head.load(std::memory_order_acquire)};
  for (std::uint64_t steps = 0; !link.is_end() && steps <= kMaxChain; ++steps) {
    const Descriptor* d = memory_.resolve(link);
    if (d == nullptr) return true;
    if (EntryWord::version(d->state.load(std::memory_order_acquire)) != link.version()) return true;
    link = Link{d->next.load(std::memory_order_acquire)};
  }
  return !link.is_end();
}

bool Index::is_linked(std::uint64_t hash, Link entry) const {
  const std::uint32_t home = memory_.home_of(hash);
  Link link{memory_.bucket(home, hash).head.load(std::memory_order_acquire)};
  for (std::uint64_t steps = 0; !link.is_end() && steps <= kMaxChain; ++steps) {
    if (link == entry) return true;
    const Descriptor* d = memory_.resolve(link);
    if (d == nullptr) return false;
    // Of an entry that was freed meanwhile the next link is another chain's.
    const std::uint64_t next = d->next.load(std::memory_order_acquire);
    if (EntryWord::version(d->state.load(std::memory_order_acquire)) != link.version()) return false;
    link = Link{next};
  }
  return false;
}

}  // namespace mcs::cache
