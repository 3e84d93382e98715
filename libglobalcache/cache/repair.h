// SPDX-License-Identifier: Apache-2.0
// Damage is mended while servers go on: what verify finds wrong in several walks, one after the other.
//
// Who may do it: any instance; the agents do. Two that mend at once meet in the words that they change,
// each by a CAS on the word that was seen, or under the lock of what is changed, looked at again there.
//
// What is done, in this order, and what it costs:
//   segment header   written again as it was when the segment was mapped
//   slots            tag, number; a state word from the name in the slot, which only its owner writes;
//                    what a free slot still holds is cleared. Living owners mend their own slots
//                    (Instance::tick, GlobalCache::tick)
//   locks            held by nobody, or by somebody who does not know of it: free again. A GlobalMutex
//                    becomes free and abandoned: its next owner repairs the data
//   mutex names      a component's is found in its cell; another one is destroyed
//   descriptors      whose state word is none become FREE, as soon as no pin names their place
//   entries          that fail a check are retired; their space is not cleared by what they say of it
//   fills, retired   without an owner become orphans, which the next tick adopts
//   chains           that are broken are linked anew from the sealed entries that belong there and pass
//                    their checks; an entry that an intact chain does not name is retired
//   groups           get the bits that the extents of all entries say, under the group's lock. While
//                    something is in doubt (an entry or a slot to be mended, a pin on what is no entry),
//                    bits are only set, and cleared in a later run
//
// A kill in between leaves some of it mended; redo is idempotent. Every run that mended something leaves
// an event kDamageRepaired for each kind of damage.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/cache/verify.h"

namespace mcs::cache {

struct RepairReport {
  unsigned found = 0;
  unsigned mended = 0;
  double walk_ms = 0;
};

class Repairer {
 public:
  explicit Repairer(GlobalCache& cache);

  /// One run. Thread-safe against everything but another run of this object.
  RepairReport run(const VerifyOptions& options);
  /// Again until nothing is found, or nothing more can be mended, at most `rounds` times.
  RepairReport run_until_clean(const VerifyOptions& options, unsigned rounds = 8);

  /// Checks that failed and were counted in the segments: whether something should be looked for now.
  std::uint64_t evidence() const;
  /// Grows with everything that happened; who died may have run wild before.
  std::uint64_t happenings() const;

  /// Until *stop: runs when there is new evidence, and else so that walking takes at most a fiftieth of
  /// the time, or a twentieth when something happened. For a thread of an agent's own.
  void watch(const std::atomic<bool>& stop);

 private:
  struct Place {
    std::uint32_t segment;
    std::uint64_t number;
    auto operator<=>(const Place&) const = default;
  };
  struct Entry {
    Link link;
    std::uint64_t word;
    std::vector<Extent> extents;  // that it still owns
  };

  bool mend(const Flaw& flaw);
  bool mend_slot_header(std::uint32_t slot);
  bool mend_slot_state(std::uint32_t slot, std::uint64_t word);
  bool mend_free_slot(std::uint32_t slot, std::uint64_t word);
  bool mend_lock(const Flaw& flaw);
  bool mend_mutex(const Flaw& flaw);
  bool mend_descriptor(const Flaw& flaw);
  bool mend_entry(Link link);
  bool mend_orphan(Link link, bool filling);
  bool mend_overflow(Link link);
  bool mend_duplicate(Link link);
  unsigned mend_shared(const std::vector<Extent>& extents);
  unsigned mend_chains(const std::set<Place>& buckets);
  bool mend_chain(Place bucket, const std::vector<Link>& candidates);
  unsigned mend_groups(const std::set<Place>& groups, bool in_doubt);

  bool entry_at(std::uint32_t segment, std::uint64_t index, Entry& entry) const;
  bool is_dead_holder(std::uint64_t lock_word) const;
  bool stale_pins() const;
  bool passes(Link link) const;
  bool lock(runtime::Instance::Op& op, std::uint32_t segment, OwnerLock& lock) const;

  GlobalCache& cache_;
  const Memory& memory_;
  runtime::Instance& instance_;
};

}  // namespace mcs::cache
