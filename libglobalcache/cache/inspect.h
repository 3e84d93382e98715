// SPDX-License-Identifier: Apache-2.0
// A view of a domain's shared state without being one of its instances: what tools, and the
// verifier, look through. Nothing here writes to shared memory, takes a lock or needs a slot.
//
// Servers go on meanwhile, so every answer is what was true at some instant of the call. Bytes of
// an entry are read without a pin and believed only if the entry's state word is the same
// afterwards: its space cannot have been given to anybody else as long as it stays SEALED with that
// version. Crash behaviour: nothing is held, so nothing is left.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "libglobalcache/cache/memory.h"
#include "libglobalcache/cache/space.h"
#include "libglobalcache/runtime/layout.h"
#include "libglobalcache/runtime/liveness.h"
#include "libglobalcache/runtime/statistics.h"

namespace mcs::cache {

/// One instance as its slot describes it.
struct InstanceInfo {
  runtime::InstanceId id;
  runtime::InstanceState state = runtime::InstanceState::kInvalid;
  bool alive = false;  // its liveness lock is held
  std::string server;
  std::int32_t pid = 0;
  std::uint64_t pid_namespace = 0;  // inode number
  std::uint64_t started = 0;        // field 22 of /proc/PID/stat
  std::uint32_t node = 0;
  std::uint64_t heartbeat = 0;
  std::int64_t joined_ms = 0;  // wall clock
  std::uint64_t waiting = 0;   // requests that wait for fills
  std::uint32_t pins = 0;
  std::uint32_t fills = 0;
  std::uint32_t retired = 0;
};

/// How much of a segment is in use, and for what.
struct SegmentUsage {
  bool lost = false;
  std::uint64_t units = 0;  // of kUnitBytes
  std::uint64_t units_used = 0;
  std::uint64_t descriptors = 0;
  std::array<std::uint64_t, 6> by_state{};  // descriptors, by EntryState
  std::uint64_t damage = 0;                 // checks that failed here so far
};

/// Space of one segment that entries of another one take.
struct Loan {
  std::uint32_t lender = 0;
  std::uint32_t borrower = 0;
  std::uint64_t units = 0;
};

/// A site with a share of the space of its own.
struct SiteUsage {
  std::string name;
  std::uint64_t units = 0;    // as counted, about
  std::uint64_t quota = 0;    // units; 0: none
  std::uint64_t reserve = 0;  // units
  std::uint64_t sealed = 0;   // entries
};

/// A sealed entry, copied and checked.
struct SealedEntry {
  Link link;
  std::uint64_t word = 0;  // Descriptor.state as it was
  SealedFields fields;
  std::int64_t checked_ms = 0;
  std::vector<Extent> extents;
  std::vector<std::byte> head;  // key and head

  std::string_view key() const {
    return {reinterpret_cast<const char*>(head.data()), fields.key_bytes};
  }
};

/// An event of the history with the node in whose ring it was.
struct RecordedEvent {
  std::uint32_t ring = 0;
  std::uint32_t kind = 0;  // runtime::EventKind
  std::int32_t pid = 0;
  std::uint64_t instance = 0;
  std::uint64_t recoverer = 0;
  std::int64_t wall_ms = 0;
  std::uint64_t detected_ns = 0;  // CLOCK_MONOTONIC of the recoverer's kernel
  std::uint64_t agreed_ns = 0;
  std::uint64_t repaired_ns = 0;
  std::uint64_t resumed_ns = 0;
  std::uint32_t node = 0;
  std::uint32_t locks = 0;
  std::uint32_t pins = 0;
  std::uint32_t fills = 0;
  std::uint32_t retired = 0;
  std::string server;
  std::string cause;
};
const char* event_kind_name(std::uint32_t kind);
const char* instance_state_name(runtime::InstanceState state);
const char* entry_state_name(EntryState state);

class View {
 public:
  /// `domain` must outlive the view.
  explicit View(gsm::Domain& domain);

  gsm::Domain& domain() const { return memory_.domain(); }
  const Memory& memory() const { return memory_; }
  const runtime::RuntimeGeometry& runtime_geometry() const { return runtime_; }

  std::uint32_t slot_count() const { return slot_count_; }
  std::uint32_t slots_per_node() const {
    return static_cast<std::uint32_t>(runtime_.slots_per_node);
  }
  const runtime::SlotControl& control(std::uint32_t slot) const;
  const runtime::Slot& slot(std::uint32_t slot) const;
  const CacheArea& area(std::uint32_t slot) const;
  std::span<const Word> ledger(std::uint32_t slot) const;
  const runtime::StatTotals& totals(std::uint32_t node) const;
  const runtime::EventRing& events(std::uint32_t node) const;
  std::span<const runtime::MutexCell> mutexes(std::uint32_t node) const;
  /// Nullptr if the slot's segment is lost or `ref` names no place for a lock.
  const Word* resolve_lock(runtime::LockRef ref) const;

  /// Every slot that is not FREE; those with an invalid state word too.
  std::vector<InstanceInfo> instances(runtime::Liveness& liveness) const;
  SegmentUsage usage(std::uint32_t node) const;
  /// Who lends to whom, by lender and borrower: what sealed entries take.
  std::vector<Loan> loans() const;
  /// Of every site that has a number.
  std::vector<SiteUsage> sites() const;
  /// What all instances counted, the dead and the living: one row per server and node that counted
  /// anything. One that leaves during the call may be missing or counted twice in this answer.
  std::vector<runtime::GlobalStatistics::Row> statistics() const;
  /// The history of all nodes, oldest first by wall clock.
  std::vector<RecordedEvent> history() const;
  /// All pins in the domain, sorted; a link pinned n times is there n times.
  std::vector<std::uint64_t> pins() const;

  /// The extents of an entry with these fields, in order, whatever its state; false if a link or an
  /// extent is not one. `check_sums`: also the checksums of Overflow descriptors.
  bool extents(const SealedFields& fields, std::uint64_t overflow, bool check_sums,
               std::vector<Extent>& out) const;
  /// Copy [offset, offset + n) of the stream in `extents`; false: lost, or the stream is shorter.
  bool copy_stream(const std::vector<Extent>& extents, std::uint64_t offset, void* to,
                   std::size_t n) const;
  /// The sealed entry in a descriptor, key and head included. Nothing: not sealed, changed while it
  /// was read, or damaged.
  std::optional<SealedEntry> sealed(std::uint32_t segment, std::uint64_t index) const;
  /// Whether the entry still is what it was when `word` was read.
  bool still_sealed(Link link) const;

 private:
  Memory memory_;
  runtime::RuntimeGeometry runtime_;
  std::uint32_t slot_count_;
};

}  // namespace mcs::cache
