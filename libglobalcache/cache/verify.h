// SPDX-License-Identifier: Apache-2.0
// verify: walks the whole state of a domain, while servers run, and names what is wrong.
//
// What is checked:
//   instances  state words and slot headers valid; nobody dead and not recovered; nothing left in
//              FREE slots (pins, fills, retired entries, operation records)
//   locks      every bucket, group, statistics and GlobalMutex word free, or held by a living
//              instance that names it in its slot
//   ledgers    every pin names a descriptor, below the ledger's high mark
//   chains     links resolve, versions agree, each entry hashes to that bucket, no loop, nothing
//              marked unlinked, no two sealed entries of one key and variant
//   entries    sealed: checksums of fields, overflow blocks, head and (option) body, extents valid
//              and long enough, reachable in its chain; filling: a living owner whose fills name
//              it; retired: a living owner whose limbo names it, or none and the segment knows of
//              orphans
//   overflow   every OVERFLOW descriptor belongs to exactly one entry, or to an operation in
//   progress space      a unit is marked in use if and only if exactly one entry, or an operation
//   in
//              progress, owns it. Marked and owned by nobody: leaked.
//
// How it works beside running servers: a walk is no snapshot, so what looks wrong in one walk is
// only a suspicion. It names the words it was derived from (descriptor version and state, lock
// word, the unit), the walk is repeated after `interval`, and only what looks wrong in the same way
// in every walk is reported. The protocol never leaves any of these states between two stores,
// except through a death; deaths are given `dead_grace` to be recovered.
//
// Nothing is written and no lock is taken, unless `pins` is given. Bodies are read as in inspect.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "gsm-emu/domain.h"
#include "libglobalcache/cache/pins.h"
#include "libglobalcache/runtime/liveness.h"

namespace mcs::cache {

struct VerifyOptions {
  bool bodies = true;                          // compare every body with its checksum
  unsigned rechecks = 10;                      // walks that must confirm a suspicion
  std::chrono::milliseconds interval{10};      // between two walks
  std::chrono::milliseconds dead_grace{2000};  // how long a death may wait for its recovery
  bool lost_is_wrong = true;       // whether a segment that does not answer is a problem by itself
  Pins* pins = nullptr;            // pin entries while their bytes are read
  std::size_t max_problems = 200;  // listed; problem_count counts all
};

/// What is wrong, for whoever mends it (repair.h).
struct Flaw {
  enum class What {
    kNone,
    kHeader,      // segment
    kTotals,      // segment
    kSlotHeader,  // number: slot
    kSlotState,   // number: slot, word: its state word
    kFreeSlot,    // number: slot, word: its state word
    kLock,        // number: offset in the segment's metadata, word: the lock's
    kMutex,       // number: of the segment's cells, word: its identity
    kDescriptor,  // number: of the segment's descriptors, word: its state word
    kEntry,       // word: Link
    kFill,        // word: Link
    kRetired,     // word: Link
    kOverflow,    // word: Link
    kChain,       // number: bucket
    kOutside,     // word: Link of a sealed entry that its chain does not name
    kDuplicate,   // word: Link of the older one
    kLeaked,      // word: Extent
    kMissing,     // word: Extent
    kShared       // word: Extent
  };
  What what = What::kNone;
  std::uint32_t segment = 0;
  std::uint64_t number = 0;
  std::uint64_t word = 0;
};

struct Problem {
  std::string kind;    // a word, such as "leaked-space"
  std::string where;   // which part of the domain
  std::string detail;  // one sentence
  Flaw flaw = {};
};

struct VerifyReport {
  bool ok = true;
  std::uint64_t leaked_bytes = 0;
  std::vector<Problem> problems;
  std::uint64_t problem_count = 0;
  std::uint64_t entries = 0;  // sealed + filling + retired
  std::uint64_t sealed = 0;
  std::uint64_t filling = 0;
  std::uint64_t retired = 0;
  std::uint64_t overflow = 0;
  std::uint64_t units_used = 0;
  std::uint64_t units_total = 0;
  std::uint64_t pins = 0;
  std::uint64_t locks_held = 0;
  std::uint64_t instances = 0;  // not FREE
  std::uint64_t checked_bodies = 0;
  unsigned walks = 0;
  double seconds = 0;
};

/// Never crashes on damaged state; a segment that is lost meanwhile is left out. Thread-safe.
/// Numbers are those of the last walk.
VerifyReport verify(gsm::Domain& domain, runtime::Liveness& liveness,
                    const VerifyOptions& options = {});

}  // namespace mcs::cache
