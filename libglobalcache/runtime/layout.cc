// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/runtime/layout.h"

#include <xxhash.h>

#include <cstring>

#include "libglobalcache/runtime/view.h"

namespace mcs::runtime {

ServerKind server_kind(const char* server) {
  if (std::strncmp(server, "nginx", 5) == 0) return ServerKind::kNginx;
  if (std::strncmp(server, "httpd", 5) == 0 || std::strncmp(server, "Apache", 6) == 0) {
    return ServerKind::kHttpd;
  }
  return std::strncmp(server, "mcs-", 4) == 0 ? ServerKind::kTool : ServerKind::kOther;
}

std::uint64_t event_sum(const Event& event) {
  constexpr std::size_t kFirst = offsetof(Event, kind);
  constexpr std::size_t kLogged = offsetof(Event, logged);
  std::byte bytes[offsetof(Event, sum) - kFirst];
  std::memcpy(bytes, reinterpret_cast<const char*>(&event) + kFirst, sizeof bytes);
  std::memset(bytes + kLogged - kFirst, 0, sizeof event.logged);
  return XXH3_64bits(bytes, sizeof bytes);
}

RuntimeGeometry RuntimeGeometry::plan(std::uint64_t slots_per_node,
                                      std::uint64_t component_bytes) {
  RuntimeGeometry g;
  g.slots_per_node = slots_per_node;
  g.slot_bytes = align_up(sizeof(Slot) + component_bytes, gsm::kPageSize);
  g.controls = gsm::kPageSize;
  g.totals = align_up(g.controls + slots_per_node * sizeof(SlotControl), 64);
  g.events = align_up(g.totals + sizeof(StatTotals), 64);
  g.mutexes = align_up(g.events + sizeof(EventRing), 64);
  g.components = align_up(g.mutexes + kMutexes * sizeof(MutexCell), gsm::kPageSize);
  g.views = g.components + kMaxComponents * sizeof(ComponentCell);
  g.slots = align_up(g.views + sizeof(ViewArea), gsm::kPageSize);
  g.end = g.slots + slots_per_node * g.slot_bytes;
  return g;
}

void RuntimeGeometry::store(std::uint64_t* user) const {
  const std::uint64_t words[] = {slots_per_node, slot_bytes, controls, slots, events,
                                 totals, mutexes, components, views, end};
  for (std::size_t i = 0; i < std::size(words); ++i) user[i] = words[i];
}

RuntimeGeometry RuntimeGeometry::load(const std::uint64_t* user) {
  RuntimeGeometry g;
  std::uint64_t* words[] = {&g.slots_per_node, &g.slot_bytes, &g.controls, &g.slots,
                            &g.events, &g.totals, &g.mutexes, &g.components, &g.views, &g.end};
  for (std::size_t i = 0; i < std::size(words); ++i) *words[i] = user[i];
  return g;
}

void format(gsm::Segment& segment, const RuntimeGeometry& g) {
  std::byte* base = segment.metadata();
  auto* controls = reinterpret_cast<SlotControl*>(base + g.controls);
  for (std::uint64_t i = 0; i < g.slots_per_node; ++i) {
    // Above all that the slot had in the segment's former incarnations: their owners may still live.
    const auto incarnation = static_cast<std::uint32_t>((segment.incarnation() - 1) & 0xfff) << 20;
    controls[i].state.store(StateWord::make(InstanceState::kFree, incarnation),
                            std::memory_order_relaxed);
    auto* slot = reinterpret_cast<Slot*>(base + g.slots + i * g.slot_bytes);
    slot->tag = kSlotTag;
    slot->node = segment.node();
    slot->number = static_cast<std::uint32_t>(segment.node() * g.slots_per_node + i);
  }
  auto* totals = reinterpret_cast<StatTotals*>(base + g.totals);
  totals->lock.format();
  totals->active.store(1, std::memory_order_relaxed);
  auto* ring = reinterpret_cast<EventRing*>(base + g.events);
  ring->next.store(1, std::memory_order_relaxed);
  auto* mutexes = reinterpret_cast<MutexCell*>(base + g.mutexes);
  for (std::uint32_t i = 0; i < kMutexes; ++i) {
    mutexes[i].identity.store(kMutexTag, std::memory_order_relaxed);
    mutexes[i].owner.store(OwnerLock::kFreeKind, std::memory_order_relaxed);
  }
  auto* components = reinterpret_cast<ComponentCell*>(base + g.components);
  for (std::uint32_t i = 0; i < kMaxComponents; ++i) {
    components[i].identity.store(kComponentTag, std::memory_order_relaxed);
  }
  if (segment.incarnation() == 1) {
    auto* views = reinterpret_cast<ViewArea*>(base + g.views);
    views->view.word.store(View::first(segment.header().node_count).word(),
                           std::memory_order_relaxed);
  }
}

}  // namespace mcs::runtime
