// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/inspect.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "gsm-emu/fault.h"
#include "libglobalcache/cache/checksum.h"
#include "libglobalcache/cache/sites.h"

namespace mcs::cache {

using runtime::InstanceState;
using runtime::StateWord;

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;

// A head larger than this is damage, not a head.
constexpr std::uint64_t kMaxHead = 1U << 20;

std::uint32_t count_nonzero(std::span<const Word> words) {
  return static_cast<std::uint32_t>(std::count_if(
      words.begin(), words.end(), [](const Word& word) { return word.load(kRelaxed) != 0; }));
}

template <std::size_t N>
std::string text(const char (&field)[N]) {
  return std::string(field, ::strnlen(field, N));
}

}  // namespace

const char* event_kind_name(std::uint32_t kind) {
  switch (static_cast<runtime::EventKind>(kind)) {
    case runtime::EventKind::kInstanceRecovered:
      return "instance-recovered";
    case runtime::EventKind::kSegmentLost:
      return "segment-lost";
    case runtime::EventKind::kDamageRepaired:
      return "damage-repaired";
    case runtime::EventKind::kExpelled:
      return "expelled";
    case runtime::EventKind::kComponentRecovered:
      return "component-recovered";
    case runtime::EventKind::kViewChanged:
      return "view-changed";
    case runtime::EventKind::kNone:
      break;
  }
  return "unknown";
}

const char* instance_state_name(InstanceState state) {
  switch (state) {
    case InstanceState::kFree:
      return "free";
    case InstanceState::kJoining:
      return "joining";
    case InstanceState::kActive:
      return "active";
    case InstanceState::kLeaving:
      return "leaving";
    case InstanceState::kDead:
      return "dead";
    case InstanceState::kExpelled:
      return "expelled";
    case InstanceState::kInvalid:
      break;
  }
  return "invalid";
}

const char* entry_state_name(EntryState state) {
  static constexpr const char* kNames[] = {"invalid", "free",    "filling",
                                           "sealed",  "retired", "overflow"};
  return kNames[static_cast<unsigned>(state) % 6];
}

View::View(gsm::Domain& domain)
    : memory_(domain),
      runtime_(runtime::RuntimeGeometry::load(domain.header().user)),
      slot_count_(static_cast<std::uint32_t>(runtime_.slots_per_node * domain.node_count())) {}

const runtime::SlotControl& View::control(std::uint32_t slot) const {
  const std::byte* base = domain().segment(slot / slots_per_node()).metadata();
  return reinterpret_cast<const runtime::SlotControl*>(base +
                                                       runtime_.controls)[slot % slots_per_node()];
}

const runtime::Slot& View::slot(std::uint32_t slot) const {
  const std::byte* base = domain().segment(slot / slots_per_node()).metadata();
  return *reinterpret_cast<const runtime::Slot*>(base + runtime_.slots +
                                                 slot % slots_per_node() * runtime_.slot_bytes);
}

const CacheArea& View::area(std::uint32_t number) const {
  return *reinterpret_cast<const CacheArea*>(reinterpret_cast<const std::byte*>(&slot(number)) +
                                             sizeof(runtime::Slot));
}

std::span<const Word> View::ledger(std::uint32_t slot) const {
  const auto* words = reinterpret_cast<const Word*>(
      reinterpret_cast<const std::byte*>(&area(slot)) + sizeof(CacheArea));
  return {words, memory_.geometry().ledger_words};
}

const runtime::StatTotals& View::totals(std::uint32_t node) const {
  return *reinterpret_cast<const runtime::StatTotals*>(domain().segment(node).metadata() +
                                                       runtime_.totals);
}

const runtime::EventRing& View::events(std::uint32_t node) const {
  return *reinterpret_cast<const runtime::EventRing*>(domain().segment(node).metadata() +
                                                      runtime_.events);
}

std::span<const runtime::MutexCell> View::mutexes(std::uint32_t node) const {
  return {reinterpret_cast<const runtime::MutexCell*>(domain().segment(node).metadata() +
                                                      runtime_.mutexes),
          runtime::kMutexes};
}

const Word* View::resolve_lock(runtime::LockRef ref) const {
  if (ref.value >> 63 == 0 || ref.segment() >= domain().node_count()) return nullptr;
  const gsm::Segment& segment = domain().segment(ref.segment());
  if (ref.offset() % sizeof(Word) != 0 || ref.offset() < gsm::kPageSize ||
      ref.offset() + sizeof(Word) > segment.header().meta_bytes) {
    return nullptr;
  }
  return reinterpret_cast<const Word*>(segment.metadata() + ref.offset());
}

std::vector<InstanceInfo> View::instances(runtime::Liveness& liveness) const {
  std::vector<InstanceInfo> found;
  for (std::uint32_t number = 0; number < slot_count_; ++number) {
    const std::uint64_t word = control(number).state.load(kAcquire);
    InstanceInfo info;
    info.state = StateWord::state(word);
    if (info.state == InstanceState::kFree) continue;
    const runtime::Slot& their = slot(number);
    info.id = runtime::InstanceId::make(number, StateWord::incarnation(word));
    info.alive = liveness.held(number);
    info.server = text(their.server);
    info.pid = their.pid;
    info.pid_namespace = their.pid_namespace;
    info.started = their.started;
    info.node = their.node;
    info.heartbeat = their.heartbeat.load(kRelaxed);
    info.joined_ms = their.joined_ms;
    info.waiting = area(number).waiting.load(kRelaxed);
    info.pins = count_nonzero(ledger(number));
    info.fills = count_nonzero(area(number).fills);
    info.retired = count_nonzero(area(number).limbo);
    found.push_back(std::move(info));
  }
  return found;
}

SegmentUsage View::usage(std::uint32_t node) const {
  SegmentUsage usage;
  const CacheGeometry& g = memory_.geometry();
  usage.units = g.groups * kGroupUnits;
  usage.descriptors = g.descriptors;
  for (std::uint64_t group = 0; group < g.groups; ++group) {
    for (const Word& word : memory_.group(node, group).bits) {
      usage.units_used += static_cast<std::uint64_t>(std::popcount(word.load(kRelaxed)));
    }
  }
  for (std::uint64_t i = 0; i < g.descriptors; ++i) {
    const std::uint64_t word = memory_.descriptor(node, i).state.load(kRelaxed);
    ++usage.by_state[static_cast<unsigned>(EntryWord::state(word))];
  }
  usage.damage = memory_.state(node).damage.load(kRelaxed);
  usage.lost = memory_.lost(node);
  return usage;
}

std::vector<Loan> View::loans() const {
  std::array<std::array<std::uint64_t, gsm::kMaxNodes>, gsm::kMaxNodes> units{};
  std::vector<Extent> of_entry;
  for (std::uint32_t borrower = 0; borrower < memory_.nodes() && memory_.nodes() > 1; ++borrower) {
    if (memory_.lost(borrower)) continue;
    for (std::uint64_t i = 0; i < memory_.geometry().descriptors; ++i) {
      const Descriptor& d = memory_.descriptor(borrower, i);
      if (EntryWord::state(d.state.load(kAcquire)) != EntryState::kSealed ||
          !extents(load_sealed(d), d.overflow.load(kAcquire), false, of_entry)) {
        continue;
      }
      for (const Extent& extent : of_entry) units[extent.segment()][borrower] += extent.units();
    }
  }
  std::vector<Loan> found;
  for (std::uint32_t lender = 0; lender < memory_.nodes(); ++lender) {
    for (std::uint32_t borrower = 0; borrower < memory_.nodes(); ++borrower) {
      const std::uint64_t n = units[lender][borrower];
      if (lender != borrower && n != 0) found.push_back({lender, borrower, n});
    }
  }
  return found;
}

std::vector<SiteUsage> View::sites() const {
  std::uint32_t first = 0;
  while (first + 1 < memory_.nodes() && memory_.lost(first)) ++first;
  const SiteTable& table = memory_.state(first).sites;
  std::array<std::uint64_t, kSites> sealed{};
  if (table.ids[1].load(kAcquire) == 0) return {};
  for (std::uint32_t node = first; node < memory_.nodes(); ++node) {
    if (memory_.lost(node)) continue;
    for (std::uint64_t i = 0; i < memory_.geometry().descriptors; ++i) {
      const Descriptor& d = memory_.descriptor(node, i);
      if (EntryWord::state(d.state.load(kAcquire)) == EntryState::kSealed) ++sealed[site_of(d)];
    }
  }
  const Sites counted(memory_, 0);
  std::vector<SiteUsage> found;
  for (std::uint32_t site = 1; site < kSites && table.ids[site].load(kAcquire) != 0; ++site) {
    std::array<char, kSiteName> name;
    for (std::size_t i = 0; i < table.names[site].size(); ++i) {
      const std::uint64_t word = table.names[site][i].load(kRelaxed);
      std::memcpy(name.data() + i * sizeof word, &word, sizeof word);
    }
    name.back() = 0;
    found.push_back({name.data(), counted.units(site), table.quota[site].load(kRelaxed),
                     counted.reserve(site), sealed[site]});
  }
  return found;
}

std::vector<runtime::GlobalStatistics::Row> View::statistics() const {
  using Row = runtime::GlobalStatistics::Row;
  std::vector<Row> table;
  for (std::uint32_t node = 0; node < memory_.nodes(); ++node) {
    const runtime::StatTotals& stats = totals(node);
    const std::uint64_t active = stats.active.load(kAcquire);
    for (unsigned kind = 0; kind < runtime::kServerKinds; ++kind) {
      table.push_back(Row{static_cast<runtime::ServerKind>(kind), node,
                          stats.copies[(active - 1) & 1].kinds[kind]});
    }
  }
  for (std::uint32_t number = 0; number < slot_count_; ++number) {
    const std::uint64_t word = control(number).state.load(kAcquire);
    const InstanceState state = StateWord::state(word);
    if (state == InstanceState::kFree || state == InstanceState::kInvalid) continue;
    if (control(number).folded.load(kAcquire) == StateWord::incarnation(word)) continue;
    const runtime::Slot& their = slot(number);
    const auto kind = static_cast<unsigned>(runtime::server_kind(text(their.server).c_str()));
    Row& row = table[number / slots_per_node() * runtime::kServerKinds + kind];
    for (unsigned i = 0; i < runtime::kStatCells; ++i) {
      row.cells[i] += their.stats[i].load(kRelaxed);
    }
  }
  std::erase_if(table, [](const Row& row) {
    return std::all_of(row.cells.begin(), row.cells.end(), [](std::uint64_t n) { return n == 0; });
  });
  return table;
}

std::vector<RecordedEvent> View::history() const {
  std::vector<RecordedEvent> events_found;
  for (std::uint32_t node = 0; node < memory_.nodes(); ++node) {
    const runtime::EventRing& ring = events(node);
    const std::uint64_t next = ring.next.load(kAcquire);
    const std::uint64_t first = next > runtime::kEvents ? next - runtime::kEvents : 1;
    for (std::uint64_t ticket = first; ticket < next; ++ticket) {
      const runtime::Event& slot = ring.events[ticket % runtime::kEvents];
      if (slot.ready.load(kAcquire) != ticket + 1) continue;
      runtime::Event copy;
      std::memcpy(reinterpret_cast<char*>(&copy) + sizeof(Word),
                  reinterpret_cast<const char*>(&slot) + sizeof(Word),
                  sizeof(runtime::Event) - sizeof(Word));
      std::atomic_thread_fence(kAcquire);
      if (slot.ready.load(kRelaxed) != ticket + 1) continue;  // overwritten meanwhile
      if (copy.sum != runtime::event_sum(copy)) continue;  // damaged
      RecordedEvent event;
      event.ring = node;
      event.kind = copy.kind;
      event.pid = copy.pid;
      event.instance = copy.instance;
      event.recoverer = copy.recoverer;
      event.wall_ms = copy.wall_ms;
      event.detected_ns = copy.detected_ns;
      event.agreed_ns = copy.agreed_ns;
      event.repaired_ns = copy.repaired_ns;
      event.resumed_ns = copy.resumed_ns;
      event.node = copy.node;
      event.locks = copy.locks;
      event.pins = copy.pins;
      event.fills = copy.fills;
      event.retired = copy.retired;
      event.server = text(copy.server);
      event.cause = text(copy.cause);
      events_found.push_back(std::move(event));
    }
  }
  std::stable_sort(
      events_found.begin(), events_found.end(),
      [](const RecordedEvent& a, const RecordedEvent& b) { return a.wall_ms < b.wall_ms; });
  return events_found;
}

std::vector<std::uint64_t> View::pins() const {
  std::vector<std::uint64_t> links;
  for (std::uint32_t number = 0; number < slot_count_; ++number) {
    const std::uint64_t word = control(number).state.load(kAcquire);
    if (StateWord::state(word) == InstanceState::kFree) continue;
    for (const Word& pin : ledger(number)) {
      if (const std::uint64_t link = pin.load(kAcquire); link != 0) links.push_back(link);
    }
  }
  std::sort(links.begin(), links.end());
  return links;
}

bool View::extents(const SealedFields& fields, std::uint64_t overflow_link, bool check_sums,
                   std::vector<Extent>& out) const {
  out.clear();
  const std::uint64_t total = fields.extent_count;
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(total, 2); ++i) {
    out.push_back(Extent{fields.extents[i]});
  }
  Link link{overflow_link};
  while (out.size() < total) {
    const Overflow* block = memory_.resolve_overflow(link);
    if (block == nullptr) return false;
    const std::uint64_t word = block->state.load(kAcquire);
    if (EntryWord::state(word) != EntryState::kOverflow ||
        EntryWord::version(word) != link.version()) {
      return false;
    }
    if (check_sums && block->sum.load(kRelaxed) != overflow_sum(*block)) return false;
    for (std::uint32_t i = 0; i < kOverflowExtents && out.size() < total; ++i) {
      out.push_back(Extent{block->extents[i].load(kRelaxed)});
    }
    link = Link{block->next.load(kAcquire)};
  }
  return std::all_of(out.begin(), out.end(), [&](Extent e) { return memory_.valid(e); });
}

bool View::copy_stream(const std::vector<Extent>& extents, std::uint64_t offset, void* to,
                       std::size_t n) const {
  auto* out = static_cast<std::byte*>(to);
  return for_each_piece(extents, offset, n, [&](const Piece& piece) {
    const std::byte* from = memory_.segment(piece.segment, piece.incarnation).payload() + piece.offset;
    if (!gsm::guarded_copy(out, from, piece.length)) return false;
    out += piece.length;
    return true;
  });
}

std::optional<SealedEntry> View::sealed(std::uint32_t segment, std::uint64_t index) const {
  const Descriptor& d = memory_.descriptor(segment, index);
  SealedEntry entry;
  entry.word = d.state.load(kAcquire);
  if (EntryWord::state(entry.word) != EntryState::kSealed) return std::nullopt;
  entry.link = memory_.link_to(segment, index, EntryWord::version(entry.word));
  entry.fields = load_sealed(d);
  entry.checked_ms = static_cast<std::int64_t>(d.checked.load(kRelaxed));
  const std::uint64_t overflow = d.overflow.load(kAcquire);
  const std::uint64_t bytes = std::uint64_t{entry.fields.key_bytes} + entry.fields.head_bytes;
  if (bytes > kMaxHead ||
      entry.fields.meta_sum != meta_sum(entry.fields, overflow, entry.link.version()) ||
      !extents(entry.fields, overflow, true, entry.extents)) {
    return std::nullopt;
  }
  entry.head.resize(bytes);
  if (!copy_stream(entry.extents, 0, entry.head.data(), bytes) ||
      static_cast<std::uint32_t>(checksum(entry.head)) != entry.fields.head_sum ||
      !still_sealed(entry.link)) {
    return std::nullopt;
  }
  return entry;
}

bool View::still_sealed(Link link) const {
  std::atomic_thread_fence(kAcquire);
  const Descriptor* d = memory_.resolve(link);
  if (d == nullptr) return false;
  const std::uint64_t word = d->state.load(kRelaxed);
  return EntryWord::state(word) == EntryState::kSealed &&
         EntryWord::version(word) == link.version();
}

}  // namespace mcs::cache
