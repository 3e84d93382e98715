// SPDX-License-Identifier: Apache-2.0
// From an address in shared memory to the name of the word that lies there.
#include <fmt/format.h>

#include "tests/killpoints/world.h"

namespace mcs::killpoints {

using cache::Bucket;
using cache::CacheArea;
using cache::CacheGeometry;
using cache::Descriptor;
using cache::Group;
using runtime::OpRecord;
using runtime::RuntimeGeometry;
using runtime::Slot;
using runtime::SlotControl;
using runtime::StatTotals;

namespace {

WordKind slot_word(std::uint64_t at, std::uint64_t ledger_words) {
  if (at >= sizeof(Slot)) {
    at -= sizeof(Slot);
    if (at < offsetof(CacheArea, waiting)) return WordKind::kLedgerHigh;
    if (at < offsetof(CacheArea, unused)) return WordKind::kWaiting;
    if (at < offsetof(CacheArea, fills)) return WordKind::kOther;
    if (at < offsetof(CacheArea, limbo)) return WordKind::kFills;
    if (at < sizeof(CacheArea)) return WordKind::kLimbo;
    return at < sizeof(CacheArea) + ledger_words * 8 ? WordKind::kLedger : WordKind::kOther;
  }
  if (at >= offsetof(Slot, ops)) {
    switch ((at - offsetof(Slot, ops)) % sizeof(OpRecord)) {
      case offsetof(OpRecord, lock):
        return WordKind::kOpLock;
      case offsetof(OpRecord, phase):
        return WordKind::kOpPhase;
      default:
        return WordKind::kOpArguments;
    }
  }
  if (at >= offsetof(Slot, stats)) return WordKind::kStats;
  if (at >= offsetof(Slot, mutexes) && at < offsetof(Slot, acknowledged)) {
    return WordKind::kMutexRecord;
  }
  return WordKind::kSlot;
}

WordKind descriptor_word(std::uint64_t at) {
  if (at < offsetof(Descriptor, next)) return WordKind::kState;
  if (at < offsetof(Descriptor, next) + 8) return WordKind::kNext;
  if (at >= offsetof(Descriptor, sealed)) return WordKind::kSealed;
  if (at >= offsetof(Descriptor, overflow)) return WordKind::kOverflow;
  return at >= offsetof(Descriptor, checked) && at < offsetof(Descriptor, checked) + 8
             ? WordKind::kChecked
             : WordKind::kProgress;
}

WordKind control_word(std::uint64_t at) {
  switch (at % sizeof(SlotControl)) {
    case offsetof(SlotControl, state):
      return WordKind::kSlotState;
    case offsetof(SlotControl, recoverer):
      return WordKind::kRecoverer;
    case offsetof(SlotControl, folded):
      return WordKind::kFolded;
    default:
      return WordKind::kControl;
  }
}

}  // namespace

const char* name_of(WordKind kind) {
  static constexpr const char* kNames[] = {
      "other", "SlotControl.state", "SlotControl.recoverer", "SlotControl.folded", "SlotControl",
      "Slot", "Slot.mutexes", "Slot.stats", "OpRecord.lock", "OpRecord.phase", "OpRecord.arguments",
      "CacheArea.ledger_high", "CacheArea.waiting", "CacheArea.fills", "CacheArea.limbo", "ledger",
      "events", "StatTotals.lock", "StatTotals", "MutexCell", "ComponentCell", "ViewArea", "SegmentState",
      "PurgeLog", "Bucket.head", "Bucket.lock", "Bucket.hint", "clock", "Descriptor.state", "Descriptor.next",
      "Descriptor.checked", "Descriptor.progress", "Descriptor.overflow", "Descriptor.sealed",
      "Group.lock", "Group.bits", "payload"};
  return kNames[static_cast<unsigned>(kind)];
}

WordKind World::classify(const void* address) const {
  const auto a = reinterpret_cast<std::uintptr_t>(address);
  const auto r = RuntimeGeometry::load(state_->domain->header().user);
  const auto g = CacheGeometry::load(state_->domain->header().user + 16);
  for (std::uint32_t node = 0; node < state_->domain->node_count(); ++node) {
    const gsm::Segment& segment = state_->domain->segment(node);
    const auto base = reinterpret_cast<std::uintptr_t>(segment.metadata());
    if (a < base || a >= base + segment.header().size) continue;
    const std::uint64_t at = a - base;
    if (at >= segment.header().meta_bytes) return WordKind::kPayload;
    if (at >= g.groups_at) {
      return (at - g.groups_at) % sizeof(Group) == 0 ? WordKind::kGroupLock : WordKind::kGroupBits;
    }
    if (at >= g.descriptors_at) return descriptor_word((at - g.descriptors_at) % sizeof(Descriptor));
    if (at >= g.clock_at) return WordKind::kClock;
    if (at >= g.buckets_at) {
      switch ((at - g.buckets_at) % sizeof(Bucket)) {
        case offsetof(Bucket, head):
          return WordKind::kBucketHead;
        case offsetof(Bucket, lock):
          return WordKind::kBucketLock;
        default:
          return WordKind::kBucketHint;
      }
    }
    if (at >= g.purge_log_at) return WordKind::kPurgeLog;
    if (at >= g.state_at) return WordKind::kSegmentState;
    if (at >= r.slots) return slot_word((at - r.slots) % r.slot_bytes, g.ledger_words);
    if (at >= r.views) return WordKind::kViews;
    if (at >= r.components) return WordKind::kComponents;
    if (at >= r.mutexes) return WordKind::kMutexes;
    if (at >= r.events) return WordKind::kEvents;
    if (at >= r.totals) return at == r.totals ? WordKind::kTotalsLock : WordKind::kTotals;
    if (at >= r.controls) return control_word(at - r.controls);
  }
  return WordKind::kOther;
}

std::string World::describe(const void* address) const {
  return fmt::format("{} at {}", name_of(classify(address)), address);
}

}  // namespace mcs::killpoints
