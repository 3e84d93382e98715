// SPDX-License-Identifier: Apache-2.0
// Purging. Order: the log on every live segment first, then every fill in flight is flagged and
// every matching sealed entry retired, then the caller acknowledges. A fill that began before the
// purge finds its flag when it tries to seal (the CAS compares the whole state word) and then
// compares its key with the log.
#include <fnmatch.h>

#include <algorithm>
#include <cstring>

#include "libglobalcache/cache/global_cache.h"

namespace mcs::cache {
namespace {

constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;

bool pattern_matches(PurgeKind kind, std::string_view pattern, std::string_view primary) {
  switch (kind) {
    case PurgeKind::kKey:
      return primary == pattern;
    case PurgeKind::kPrefix:
      return primary.substr(0, pattern.size()) == pattern;
    case PurgeKind::kWildcard:
      return ::fnmatch(std::string(pattern).c_str(), std::string(primary).c_str(), 0) == 0;
    case PurgeKind::kTag:
    case PurgeKind::kAll:
      break;
  }
  return true;
}

}  // namespace

bool GlobalCache::purged_in_flight(std::string_view primary) const {
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (memory_.lost(segment)) continue;
    for (const PurgeRecord& record : memory_.purge_log(segment).records) {
      const std::uint64_t sequence = record.sequence.load(kAcquire);
      if (sequence == 0 && record.kind == 0) continue;  // never used
      if (sequence == 0 || record.length > kPurgePattern) return true;
      if (pattern_matches(static_cast<PurgeKind>(record.kind),
                          std::string_view(record.pattern, record.length), primary)) {
        return true;
      }
    }
  }
  return false;
}

std::uint64_t GlobalCache::purge(PurgeKind kind, std::string_view pattern, const Match& matches) {
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (memory_.lost(segment)) continue;
    PurgeLog& log = memory_.purge_log(segment);
    const std::uint64_t sequence = log.next.fetch_add(1, std::memory_order_acq_rel);
    PurgeRecord& record = log.records[sequence % kPurgeRecords];
    record.sequence.store(0, kRelease);
    record.kind = static_cast<std::uint32_t>(kind);
    record.length = static_cast<std::uint32_t>(
        pattern.size() > kPurgePattern ? kPurgePattern + 1 : pattern.size());
    std::memcpy(record.pattern, pattern.data(), std::min<std::size_t>(pattern.size(), kPurgePattern));
    record.sequence.store(sequence, kRelease);
  }
  std::uint64_t purged = 0;
  std::vector<Extent> extents;
  std::vector<std::byte> head;
  const auto consider = [&](Link link, Descriptor& d) {
    std::uint64_t word = d.state.load(std::memory_order_seq_cst);
    while (EntryWord::state(word) == EntryState::kFilling &&
           EntryWord::version(word) == link.version()) {
      if (d.state.compare_exchange_weak(word, word | EntryWord::kPurgeCheck,
                                        std::memory_order_seq_cst)) {
        return;
      }
    }
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
            matches({reinterpret_cast<const char*>(head.data()), fields.key_bytes},
                    std::span<const std::byte>(head).subspan(fields.key_bytes));
      if (pin >= 0) pins_.unpin(pin);
    }
    if (hit && retire(link)) ++purged;
  };
  if (kind == PurgeKind::kKey) {
    const Key key = make_key(pattern);
    std::vector<Link> chain;
    index_.walk(key.hash, [&](Link link, const Descriptor&, std::uint64_t) {
      chain.push_back(link);
      return chain.size() > Index::kMaxChain;
    });
    for (const Link link : chain) {
      if (Descriptor* d = memory_.resolve(link); d != nullptr) consider(link, *d);
    }
  } else {
    for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
      if (memory_.lost(segment)) continue;
      for (std::uint64_t i = 0; i < memory_.geometry().descriptors; ++i) {
        if (memory_.clock_byte(segment, i) == 0) continue;
        Descriptor& d = memory_.descriptor(segment, i);
        consider(memory_.link_to(segment, i, EntryWord::version(d.state.load(kAcquire))), d);
      }
    }
  }
  reclaim();
  return purged;
}

}  // namespace mcs::cache
