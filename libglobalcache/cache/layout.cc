// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/layout.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>

namespace mcs::cache {
namespace {

// Raise when the meaning of a shared word changes although no size or offset does.
constexpr std::uint64_t kLayoutVersion = 11;

}  // namespace

void CacheGeometry::store(std::uint64_t* user) const {
  const std::uint64_t words[] = {ledger_words, groups,         buckets,  descriptors,  groups_at,
                                 buckets_at,   clock_at,       descriptors_at, state_at,
                                 purge_log_at, arrivals,       arrivals_at, ghost_sets,
                                 ghosts_at,    end};
  std::copy(std::begin(words), std::end(words), user);
}

CacheGeometry CacheGeometry::load(const std::uint64_t* user) {
  CacheGeometry g;
  std::uint64_t* words[] = {&g.ledger_words, &g.groups,   &g.buckets,        &g.descriptors,
                            &g.groups_at,    &g.buckets_at, &g.clock_at,     &g.descriptors_at,
                            &g.state_at,     &g.purge_log_at, &g.arrivals,   &g.arrivals_at,
                            &g.ghost_sets,   &g.ghosts_at,    &g.end};
  for (std::size_t i = 0; i < std::size(words); ++i) *words[i] = user[i];
  return g;
}

namespace {

std::uint64_t slot_bytes_with(std::uint64_t ledger) {
  return runtime::align_up(sizeof(runtime::Slot) + sizeof(CacheArea) + ledger * sizeof(Word),
                           gsm::kPageSize);
}

CachePlan divide(std::uint64_t size, std::uint64_t slots, std::uint64_t ledger,
                 std::uint64_t descriptors) {
  CachePlan p;
  // The page's rest belongs to the ledger too.
  p.cache.ledger_words =
      (slot_bytes_with(ledger) - sizeof(runtime::Slot) - sizeof(CacheArea)) / sizeof(Word);
  p.runtime = runtime::RuntimeGeometry::plan(
      slots, sizeof(CacheArea) + p.cache.ledger_words * sizeof(Word));

  CacheGeometry& c = p.cache;
  c.descriptors = descriptors;
  c.buckets = c.descriptors;
  c.state_at = runtime::align_up(p.runtime.end, 64);
  c.purge_log_at = c.state_at + sizeof(SegmentState);
  c.buckets_at = runtime::align_up(c.purge_log_at + sizeof(PurgeLog), 64);
  c.clock_at = runtime::align_up(c.buckets_at + c.buckets * sizeof(Bucket), 64);
  c.arrivals = std::max<std::uint64_t>(32, c.descriptors / kDescriptorsPerArrival);
  c.arrivals_at = runtime::align_up(c.clock_at + c.descriptors, 64);
  c.ghost_sets = std::max<std::uint64_t>(4, c.descriptors / kDescriptorsPerGhostSet);
  c.ghosts_at = runtime::align_up(c.arrivals_at + c.arrivals * sizeof(Word), 64);
  c.descriptors_at = runtime::align_up(c.ghosts_at + c.ghost_sets * sizeof(GhostSet), 64);
  c.groups_at = runtime::align_up(c.descriptors_at + c.descriptors * sizeof(Descriptor), 64);
  // What is left holds g groups and their 64-byte heads.
  const std::uint64_t left = size > c.groups_at + gsm::kPageSize ? size - c.groups_at - gsm::kPageSize : 0;
  c.groups = left / (kGroupBytes + sizeof(Group));
  c.end = c.groups_at + c.groups * sizeof(Group);
  p.meta_bytes = runtime::align_up(c.end, gsm::kPageSize);
  return p;
}

bool is_planned(const gsm::SegmentHeader& header) {
  const std::uint64_t slots = runtime::RuntimeGeometry::load(header.user).slots_per_node;
  const auto c = CacheGeometry::load(header.user + 16);
  if (slots == 0 || slots > 65536 || c.ledger_words > 1U << 20 || c.descriptors < 64 ||
      c.descriptors > kMaxDescriptors) {
    return false;
  }
  const CachePlan p = divide(header.size, slots, c.ledger_words, c.descriptors);
  std::array<std::uint64_t, std::extent_v<decltype(gsm::SegmentHeader::user)>> user{};
  p.runtime.store(user.data());
  p.cache.store(user.data() + 16);
  return p.meta_bytes == header.meta_bytes && std::equal(user.begin(), user.end(), header.user);
}

}  // namespace

CachePlan plan(const PlanOptions& options) {
  const std::uint64_t size = options.bytes_per_node / gsm::kPageSize * gsm::kPageSize;
  std::uint64_t ledger = options.ledger_words;
  if (ledger == 0) ledger = size >= (128ULL << 20) ? 640 : 128;
  // Slots take at most an eighth of the memory: a tiny domain serves fewer processes.
  const std::uint64_t wanted = (options.instances + options.nodes - 1) / options.nodes;
  const std::uint64_t slots =
      std::clamp<std::uint64_t>(size / 8 / slot_bytes_with(ledger), 8, wanted);
  return divide(size, slots, ledger,
                std::clamp<std::uint64_t>(size / options.bytes_per_entry, 64, kMaxDescriptors));
}

void format(gsm::Segment& segment) {
  const auto runtime_geometry = runtime::RuntimeGeometry::load(segment.header().user);
  const auto g = CacheGeometry::load(segment.header().user + 16);
  runtime::format(segment, runtime_geometry);
  std::byte* base = segment.metadata();
  auto* groups = reinterpret_cast<Group*>(base + g.groups_at);
  for (std::uint64_t i = 0; i < g.groups; ++i) groups[i].lock.format();
  auto* buckets = reinterpret_cast<Bucket*>(base + g.buckets_at);
  for (std::uint64_t i = 0; i < g.buckets; ++i) {
    buckets[i].head.store(Link::kEnd, std::memory_order_relaxed);
    buckets[i].lock.format();
  }
  auto* descriptors = reinterpret_cast<Descriptor*>(base + g.descriptors_at);
  for (std::uint64_t i = 0; i < g.descriptors; ++i) {
    descriptors[i].state.store(EntryWord::make(0, EntryState::kFree, 0), std::memory_order_relaxed);
    descriptors[i].next.store(Link::kEnd, std::memory_order_relaxed);
    descriptors[i].overflow.store(Link::kEnd, std::memory_order_relaxed);
  }
  auto* log = reinterpret_cast<PurgeLog*>(base + g.purge_log_at);
  log->next.store(1, std::memory_order_relaxed);
  // In the first view there is nothing to rebuild.
  auto* state = reinterpret_cast<SegmentState*>(base + g.state_at);
  const std::uint64_t done = segment.incarnation() == 1 ? 1 : 0;
  state->settled.store(done, std::memory_order_relaxed);
  for (Word& swept : state->swept) swept.store(done, std::memory_order_relaxed);
}

std::uint64_t layout_hash() {
  const std::uint64_t facts[] = {kLayoutVersion,
                                 gsm::kHeaderVersion,
                                 sizeof(gsm::SegmentHeader),
                                 sizeof(runtime::SlotControl),
                                 sizeof(runtime::Slot),
                                 sizeof(runtime::OpRecord),
                                 sizeof(runtime::Event),
                                 sizeof(runtime::StatTotals),
                                 sizeof(runtime::ViewArea),
                                 sizeof(Descriptor),
                                 sizeof(SealedFields),
                                 sizeof(Overflow),
                                 sizeof(Bucket),
                                 sizeof(Group),
                                 sizeof(CacheArea),
                                 sizeof(PurgeLog),
                                 sizeof(SegmentState),
                                 kUnitBytes,
                                 kGroupUnits,
                                 runtime::kOpRecords,
                                 kFills,
                                 kLimbo};
  return XXH3_64bits(facts, sizeof facts);
}

Result<std::unique_ptr<gsm::Domain>> open(const std::string& directory, const std::string& name) {
  auto domain = gsm::Domain::open(directory, name, layout_hash());
  if (!domain) return domain;
  const gsm::SegmentHeader& first = (*domain)->header();
  for (std::uint32_t node = 0; node < (*domain)->node_count(); ++node) {
    const gsm::SegmentHeader& header = (*domain)->segment(node).header();
    if (header.size != first.size || header.node_count != first.node_count ||
        !is_planned(header)) {
      return fail(ErrorCode::kDamaged,
                  fmt::format("{}: the header of node {}'s segment does not fit its size; remove the "
                              "domain with 'gsm-emu down {}' and let it be created again",
                              (*domain)->path(), node, name));
    }
  }
  return domain;
}

}  // namespace mcs::cache
