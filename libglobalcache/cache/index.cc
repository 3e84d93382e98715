// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/index.h"

namespace mcs::cache {

Index::Locked::Locked(const Index& index, std::uint64_t hash)
    : memory_(index.memory_),
      op_(index.instance_),
      bucket_(memory_.bucket(memory_.home_of(hash), hash)) {
  op_.record().phase.store(static_cast<std::uint64_t>(Phase::kChain), std::memory_order_relaxed);
  answer_ = op_.lock(bucket_.lock, memory_.lock_ref(memory_.home_of(hash), bucket_.lock));
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

}  // namespace mcs::cache
