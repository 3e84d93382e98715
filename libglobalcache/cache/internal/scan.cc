// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/internal/scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "libglobalcache/cache/checksum.h"

namespace mcs::cache {

using runtime::InstanceId;
using runtime::InstanceState;
using runtime::LockRef;
using runtime::StateWord;

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;

// More suspicions than this say nothing new; they would only fill memory.
constexpr std::size_t kMaxSuspicions = 20000;
constexpr std::uint64_t kMaxHead = 1U << 20;
constexpr std::uint64_t kMaxChain = 1U << 16;
constexpr unsigned kRestarts = 16;

bool same_entry(std::uint64_t word, Link link, EntryState state) {
  return EntryWord::state(word) == state && EntryWord::version(word) == link.version();
}

template <std::size_t N>
bool contains(const std::array<Word, N>& words, std::uint64_t value) {
  return std::any_of(words.begin(), words.end(),
                     [&](const Word& word) { return word.load(kAcquire) == value; });
}

std::uint64_t first_nonzero(std::span<const Word> words) {
  for (const Word& word : words) {
    if (const std::uint64_t value = word.load(kRelaxed); value != 0) return value;
  }
  return 0;
}

}  // namespace

UnitMap::UnitMap(std::uint32_t segments, std::uint64_t groups)
    : words_(segments, std::vector<std::uint64_t>(groups * kGroupWords)) {}

void UnitMap::add(Extent extent, UnitMap* twice) {
  std::uint64_t at = extent.first();
  std::uint64_t left = extent.units();
  while (left > 0) {
    const std::uint64_t n = std::min<std::uint64_t>(left, 64 - at % 64);
    const std::uint64_t mask = (n == 64 ? ~0ULL : (1ULL << n) - 1) << (at % 64);
    std::uint64_t& word = words_[extent.segment()][at / 64];
    if (twice != nullptr) twice->words_[extent.segment()][at / 64] |= word & mask;
    word |= mask;
    at += n;
    left -= n;
  }
}

std::uint64_t UnitMap::count() const {
  std::uint64_t n = 0;
  for (const auto& words : words_) {
    for (const std::uint64_t word : words) n += static_cast<std::uint64_t>(std::popcount(word));
  }
  return n;
}

bool UnitMap::any() const {
  return std::any_of(words_.begin(), words_.end(), [](const auto& words) {
    return std::any_of(words.begin(), words.end(), [](std::uint64_t word) { return word != 0; });
  });
}

UnitMap& UnitMap::operator&=(const UnitMap& other) {
  for (std::size_t s = 0; s < words_.size(); ++s) {
    for (std::size_t i = 0; i < words_[s].size(); ++i) words_[s][i] &= other.words_[s][i];
  }
  return *this;
}

UnitMap& UnitMap::operator|=(const UnitMap& other) {
  for (std::size_t s = 0; s < words_.size(); ++s) {
    for (std::size_t i = 0; i < words_[s].size(); ++i) words_[s][i] |= other.words_[s][i];
  }
  return *this;
}

std::vector<Extent> UnitMap::runs(std::size_t max) const {
  std::vector<Extent> found;
  for (std::uint32_t segment = 0; segment < words_.size(); ++segment) {
    const auto& words = words_[segment];
    const std::uint64_t units = words.size() * 64;
    for (std::uint64_t at = 0; at < units && found.size() < max;) {
      if (words[at / 64] == 0) {
        at = (at / 64 + 1) * 64;
        continue;
      }
      if ((words[at / 64] >> (at % 64) & 1) == 0) {
        ++at;
        continue;
      }
      const std::uint64_t first = at;
      const std::uint64_t group_end = (at / kGroupUnits + 1) * kGroupUnits;
      while (at < group_end && (words[at / 64] >> (at % 64) & 1) != 0) ++at;
      found.push_back(Extent::make(segment, first, at - first));
    }
  }
  return found;
}

Scan::Scan(const View& view, runtime::Liveness& liveness, const VerifyOptions& options,
           const std::set<std::uint64_t>* contents)
    : leaked(view.memory().nodes(), view.memory().geometry().groups),
      missing(leaked),
      shared(leaked),
      view_(view),
      memory_(view.memory()),
      liveness_(liveness),
      options_(options),
      contents_(contents),
      owned_(leaked),
      in_operation_(leaked),
      linked_(memory_.nodes(), std::vector<bool>(memory_.geometry().descriptors)) {}

void Scan::run() {
  // The order matters: what is allocated during the walk is not marked in the first reading of the
  // bits, what is freed during it not in the second.
  read_bits(bits_before_);
  read_operations();
  check_headers();
  check_slots();
  check_locks();
  check_descriptors();
  check_chains();
  check_reachable();
  check_overflows();
  read_operations();
  read_bits(bits_after_);
  check_space();
}

void Scan::suspect(const char* kind, std::string where, std::string detail,
                   std::initializer_list<std::uint64_t> evidence, Flaw flaw) {
  if (suspicions.size() >= kMaxSuspicions) return;
  std::string key = fmt::format("{}|{}", kind, where);
  for (const std::uint64_t word : evidence) key += fmt::format("|{:x}", word);
  suspicions.emplace(std::move(key), Problem{kind, std::move(where), std::move(detail), flaw});
}

std::string Scan::who(std::uint32_t number) const {
  const runtime::Slot& slot = view_.slot(number);
  return fmt::format("instance {} ({} pid {} on node {})", number,
                     std::string_view(slot.server, ::strnlen(slot.server, sizeof slot.server)),
                     slot.pid, slot.node);
}

std::string Scan::place(Link link) const {
  return fmt::format("node {} descriptor {} version {}", link.segment(), link.index(),
                     link.version());
}

void Scan::read_bits(std::vector<std::vector<std::uint64_t>>& bits) const {
  bits.assign(memory_.nodes(), {});
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (lost(segment)) continue;
    auto& words = bits[segment];
    words.reserve(memory_.geometry().groups * kGroupWords);
    for (std::uint64_t group = 0; group < memory_.geometry().groups; ++group) {
      for (const Word& word : memory_.group(segment, group).bits) {
        words.push_back(word.load(kAcquire));
      }
    }
  }
}

// What operations in progress hold: a record counts if the lock it names is held by its instance.
void Scan::read_operations() {
  for (std::uint32_t number = 0; number < view_.slot_count(); ++number) {
    if (lost(number / view_.slots_per_node())) continue;
    const std::uint64_t state = view_.control(number).state.load(kAcquire);
    if (StateWord::state(state) == InstanceState::kFree) continue;
    const InstanceId id = InstanceId::make(number, StateWord::incarnation(state));
    for (const runtime::OpRecord& op : view_.slot(number).ops) {
      const std::uint64_t ref = op.lock.load(kAcquire);
      if (ref == 0) continue;
      const Word* lock = view_.resolve_lock(LockRef{ref});
      if (lock == nullptr || OwnerLock::owner(lock->load(kAcquire)) != id) continue;
      const auto phase = static_cast<Phase>(op.phase.load(kAcquire));
      if (phase != Phase::kMarking && phase != Phase::kClearing) continue;
      Operation operation{phase, Extent{op.a.load(kRelaxed)}, Link{op.b.load(kRelaxed)},
                          Link{op.c.load(kRelaxed)}, op.d.load(kRelaxed)};
      std::atomic_thread_fence(kAcquire);
      if (op.lock.load(kRelaxed) != ref ||
          op.phase.load(kRelaxed) != static_cast<std::uint64_t>(phase)) {
        continue;
      }
      if (memory_.valid(operation.extent)) in_operation_.add(operation.extent);
      if (operation.overflow.value != 0) operation_blocks_.insert(operation.overflow.value);
      if (phase == Phase::kClearing) clearing_.insert_or_assign(operation.entry.value, operation);
    }
  }
}

void Scan::check_headers() {
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    gsm::SegmentHeader header;
    std::memcpy(&header, view_.domain().segment(segment).metadata(), sizeof header);
    if (!lost(segment) &&
        (header.magic != gsm::kSegmentMagic || header.checksum != gsm::header_checksum(header))) {
      suspect("segment-header", fmt::format("node {}", segment),
              "the header fails its checksum; nobody can join any more", {header.checksum},
              {Flaw::What::kHeader, segment});
    }
    const std::uint64_t active = lost(segment) ? 1 : view_.totals(segment).active.load(kAcquire);
    if (active != 1 && active != 2) {
      suspect("statistics", fmt::format("node {} totals", segment),
              fmt::format("neither copy is the active one ({:#x})", active), {active},
              {Flaw::What::kTotals, segment});
    }
    if (lost(segment) && options_.lost_is_wrong) {
      suspect("segment-lost", fmt::format("node {}", segment), "its memory does not answer", {});
    }
  }
}

bool Scan::is_alive(std::uint32_t slot) const { return liveness_.held(slot); }

// Whether the slot's state says that somebody is, or was until just now, a member.
bool Scan::is_member(std::uint32_t slot, std::uint64_t word) const {
  const InstanceState state = StateWord::state(word);
  return (state == InstanceState::kJoining || state == InstanceState::kActive ||
          state == InstanceState::kLeaving || state == InstanceState::kExpelled) &&
         is_alive(slot);
}

void Scan::check_slots() {
  for (std::uint32_t number = 0; number < view_.slot_count(); ++number) {
    const std::uint32_t home = number / view_.slots_per_node();
    if (lost(home)) continue;
    const runtime::Slot& slot = view_.slot(number);
    if (slot.tag != runtime::kSlotTag || slot.number != number) {
      suspect("slot-damaged", fmt::format("slot {}", number), "its tag or number is not its own",
              {slot.tag, slot.number}, {Flaw::What::kSlotHeader, home, number});
    }
    const std::uint64_t word = view_.control(number).state.load(kAcquire);
    const InstanceState state = StateWord::state(word);
    if (state == InstanceState::kInvalid) {
      if (!lost(home)) {
        suspect("slot-damaged", fmt::format("slot {}", number),
                fmt::format("its state word {:#x} is none", word), {word},
                {Flaw::What::kSlotState, home, number, word});
      }
      continue;
    }
    if (state == InstanceState::kFree) {
      check_free_slot(number, word);
      continue;
    }
    ++counts.instances;
    // The state word first, then the lock: a joiner takes the lock before it changes the word.
    if (!is_alive(number) && view_.control(number).state.load(kAcquire) == word) {
      dead_instances = true;
      suspect("dead-instance", who(number), "it has ended and nobody has recovered it", {word});
    }
    check_ledger(number, word);
    check_names(number, word);
  }
}

void Scan::check_free_slot(std::uint32_t number, std::uint64_t word) {
  const runtime::Slot& slot = view_.slot(number);
  const CacheArea& area = view_.area(number);
  const auto left = [&](const char* what, std::uint64_t value) {
    if (value == 0 || view_.control(number).state.load(kAcquire) != word) return;
    suspect("free-slot", fmt::format("slot {}", number),
            fmt::format("it is free, but its {} still say {:#x}", what, value), {word, value},
            {Flaw::What::kFreeSlot, number / view_.slots_per_node(), number, word});
  };
  left("pins", first_nonzero(view_.ledger(number)));
  left("fills", first_nonzero(area.fills));
  left("retired entries", first_nonzero(area.limbo));
  left("mutexes", first_nonzero(slot.mutexes));
  for (const runtime::OpRecord& op : slot.ops) left("operations", op.lock.load(kRelaxed));
}

void Scan::check_ledger(std::uint32_t number, std::uint64_t state) {
  const std::span<const Word> ledger = view_.ledger(number);
  const std::uint64_t high = view_.area(number).ledger_high.load(kAcquire);
  if (high > ledger.size()) {
    suspect("ledger-damaged", who(number),
            fmt::format("its high mark {} is beyond the ledger", high), {state, high});
  }
  for (std::size_t i = 0; i < ledger.size(); ++i) {
    const std::uint64_t value = ledger[i].load(kAcquire);
    if (value == 0 || value == Link::kEnd) continue;
    ++counts.pins;
    if (memory_.is_former(Link{value})) continue;
    if (memory_.resolve(Link{value}) == nullptr) {
      suspect("pin-damaged", who(number), fmt::format("pin {} ({:#x}) names no entry", i, value),
              {state, i, value});
    } else if (i >= high && view_.area(number).ledger_high.load(kAcquire) <= i) {
      suspect("pin-unseen", who(number),
              fmt::format("pin {} lies above the high mark {}, so reclaiming would not see it", i,
                          high),
              {state, i, value});
    }
  }
}

void Scan::check_names(std::uint32_t number, std::uint64_t state) {
  const auto check = [&](const char* what, std::span<const Word> words) {
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::uint64_t value = words[i].load(kAcquire);
      const Link link{value};
      if (value == 0 || memory_.is_former(link) || memory_.resolve(link) != nullptr) continue;
      suspect("slot-damaged", who(number),
              fmt::format("{} {} ({:#x}) names no entry", what, i, value), {state, i, value});
    }
  };
  check("fill", view_.area(number).fills);
  check("retired entry", view_.area(number).limbo);
  for (const runtime::OpRecord& op : view_.slot(number).ops) {
    const std::uint64_t ref = op.lock.load(kAcquire);
    if (ref != 0 && view_.resolve_lock(LockRef{ref}) == nullptr) {
      suspect("slot-damaged", who(number),
              fmt::format("an operation record names {:#x}, which is no lock", ref), {state, ref});
    }
  }
}

bool Scan::named_by_op(InstanceId holder, std::uint64_t ref) const {
  const runtime::Slot& slot = view_.slot(holder.slot());
  return std::any_of(slot.ops.begin(), slot.ops.end(),
                     [&](const runtime::OpRecord& op) { return op.lock.load(kAcquire) == ref; }) ||
         contains(slot.mutexes, ref);
}

void Scan::check_lock(const char* what, std::uint32_t segment, std::uint64_t number,
                      const Word& lock) {
  const std::uint64_t word = lock.load(kAcquire);
  if (OwnerLock::is_free(word)) return;
  std::string where = fmt::format("node {} {} {}", segment, what, number);
  const auto offset = static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(&lock) -
                                                 view_.domain().segment(segment).metadata());
  const Flaw flaw{Flaw::What::kLock, segment, offset, word};
  if (!OwnerLock::is_held(word)) {
    suspect("lock-damaged", std::move(where),
            fmt::format("the lock of the {} is neither free nor held ({:#x})", what, word), {word},
            flaw);
    return;
  }
  ++counts.locks_held;
  const InstanceId holder = OwnerLock::owner(word);
  if (!holder.valid() || holder.slot() >= view_.slot_count()) {
    suspect("lock-damaged", std::move(where),
            fmt::format("the lock of the {} is held by nobody who can exist ({:#x})", what, word),
            {word}, flaw);
    return;
  }
  const std::uint64_t state = view_.control(holder.slot()).state.load(kAcquire);
  const std::uint64_t ref = LockRef::make(segment, offset).value;
  const bool alive =
      StateWord::incarnation(state) == holder.incarnation() && is_member(holder.slot(), state);
  const bool named = named_by_op(holder, ref);
  if ((alive && named) || lock.load(kAcquire) != word) return;
  suspect("lock-orphaned", std::move(where),
          fmt::format("the lock of the {} is held by {}, {}", what, who(holder.slot()),
                      !alive ? "which is not alive" : "which does not know of it"),
          {word}, flaw);
}

void Scan::check_locks() {
  const CacheGeometry& g = memory_.geometry();
  const auto word_of = [](const OwnerLock& lock) -> const Word& {
    return reinterpret_cast<const Word&>(lock);
  };
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    for (std::uint64_t i = 0; i < g.groups && !lost(segment); ++i) {
      check_lock("group", segment, i, word_of(memory_.group(segment, i).lock));
    }
    for (std::uint64_t i = 0; i < g.buckets && !lost(segment); ++i) {
      check_lock("bucket", segment, i, word_of(memory_.bucket_at(segment, i).lock));
    }
    if (lost(segment)) continue;
    check_lock("statistics", segment, 0, word_of(view_.totals(segment).lock));
    std::uint32_t number = 0;
    for (const runtime::MutexCell& cell : view_.mutexes(segment)) {
      check_lock("mutex", segment, number, cell.owner);
      const std::uint64_t identity = cell.identity.load(kAcquire);
      if (identity >> 56 != runtime::kMutexTag >> 56) {
        suspect("mutex-damaged", fmt::format("node {} mutex {}", segment, number),
                fmt::format("its identity {:#x} has no tag", identity), {identity},
                {Flaw::What::kMutex, segment, number, identity});
      }
      ++number;
    }
  }
}

void Scan::check_descriptors() {
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    for (std::uint64_t i = 0; i < memory_.geometry().descriptors && !lost(segment); ++i) {
      check_descriptor(segment, i);
    }
  }
  counts.entries = counts.sealed + counts.filling + counts.retired;
}

void Scan::check_descriptor(std::uint32_t segment, std::uint64_t index) {
  const Descriptor& d = memory_.descriptor(segment, index);
  for (unsigned attempt = 0; attempt < 4; ++attempt) {
    const std::uint64_t word = d.state.load(kAcquire);
    const EntryState state = EntryWord::state(word);
    const Link link = memory_.link_to(segment, index, EntryWord::version(word));
    if (state == EntryState::kFree) return;
    if (state == EntryState::kInvalid) {
      suspect("descriptor-damaged", fmt::format("node {} descriptor {}", segment, index),
              fmt::format("its state word {:#x} is none", word), {word},
              {Flaw::What::kDescriptor, segment, index, word});
      return;
    }
    if (state == EntryState::kOverflow) {
      ++counts.overflow;
      overflows_.push_back(link);
      return;
    }
    const Owned owned = owned_by(d, link, word);
    std::atomic_thread_fence(kAcquire);
    if (d.state.load(kRelaxed) != word) continue;
    for (const Extent extent : owned.extents) owned_.add(extent, &shared);
    for (const Link block : owned.blocks) ++block_owners_[block.value];
    if (!owned.flaw.empty()) suspect("entry-damaged", place(link), owned.flaw, {word},
                                     {Flaw::What::kEntry, segment, index, link.value});
    if (state == EntryState::kSealed) {
      ++counts.sealed;
      sealed_.push_back(link);
      check_contents(d, link);
    } else {
      ++(state == EntryState::kFilling ? counts.filling : counts.retired);
      check_owner(d, link, word);
    }
    return;
  }
}

// The extents an entry owns: all of them, or those that its cursor has not passed yet.
Scan::Owned Scan::owned_by(const Descriptor& d, Link link, std::uint64_t word) const {
  Owned owned;
  const SealedFields fields = load_sealed(d);
  const std::uint64_t total = fields.extent_count;
  std::uint64_t first =
      EntryWord::state(word) == EntryState::kRetired ? EntryWord::cursor(word) : 0;
  // Blocks are freed with their last extent, so the first one left holds the cursor's extent.
  std::uint64_t number = first < 2 ? 2 : first - (first - 2) % kOverflowExtents;
  Link at{d.overflow.load(kAcquire)};
  if (const auto it = clearing_.find(link.value);
      it != clearing_.end() && it->second.number == first) {
    // The operation holds this extent, and perhaps the block that ends with it.
    const Link block = it->second.overflow;
    ++first;
    if (block.value != 0) {
      number = first;
      if (const Overflow* o = memory_.resolve_overflow(block); o != nullptr && at == block) {
        at = Link{o->next.load(kAcquire)};
      }
    }
  }
  const auto take = [&](std::uint64_t value) {
    const Extent extent{value};
    if (memory_.valid(extent)) {
      owned.extents.push_back(extent);
    } else if (!memory_.is_former(extent) || EntryWord::state(word) == EntryState::kSealed) {
      owned.flaw = fmt::format("an extent ({:#x}) is none", value);
    }
  };
  if (total > EntryWord::kMaxCursor) {
    owned.flaw = fmt::format("it says that it has {} extents", total);
    return owned;
  }
  for (std::uint64_t i = first; i < std::min<std::uint64_t>(total, 2); ++i) take(fields.extents[i]);
  const std::uint64_t max_blocks = total / kOverflowExtents + 2;
  while (!at.is_end()) {
    const Overflow* block = memory_.resolve_overflow(at);
    if (block == nullptr || !same_entry(block->state.load(kAcquire), at, EntryState::kOverflow) ||
        owned.blocks.size() > max_blocks) {
      owned.flaw = fmt::format("overflow link {:#x} is stale or none", at.value);
      return owned;
    }
    owned.blocks.push_back(at);
    for (std::uint64_t i = 0; i < kOverflowExtents; ++i, ++number) {
      if (number >= first && number < total) take(block->extents[i].load(kRelaxed));
    }
    at = Link{block->next.load(kAcquire)};
  }
  if (number < total) {
    owned.flaw = fmt::format("it has {} extents, but blocks for {}", total, number);
  }
  return owned;
}

bool Scan::owner_names(std::uint32_t owner_plus_one, Link link, bool filling) const {
  if (owner_plus_one == 0 || owner_plus_one > view_.slot_count()) return false;
  const CacheArea& area = view_.area(owner_plus_one - 1);
  // A fill that was passed on when its filler was expelled stays in its record.
  return contains(area.fills, link.value) || (!filling && contains(area.limbo, link.value));
}

void Scan::check_owner(const Descriptor& d, Link link, std::uint64_t word) {
  const bool filling = EntryWord::state(word) == EntryState::kFilling;
  const std::uint32_t owner = EntryWord::owner_plus_one(word);
  const char* state = filling ? "being filled" : "retired";
  std::string detail;
  if (owner == 0) {
    if (!filling && memory_.state(link.segment()).orphans.load(kAcquire) != 0) return;
    detail = fmt::format("it is {} by nobody, and nobody looks for it", state);
  } else if (owner > view_.slot_count()) {
    detail = fmt::format("it is {} by instance {}, which cannot exist", state, owner - 1);
  } else if (!owner_names(owner, link, filling)) {
    detail = fmt::format("it is {} by {}, which does not know of it", state, who(owner - 1));
  } else if (!is_member(owner - 1, view_.control(owner - 1).state.load(kAcquire))) {
    detail = fmt::format("it is {} by {}, which is not alive", state, who(owner - 1));
  }
  if (detail.empty() || d.state.load(kAcquire) != word) return;
  suspect(filling ? "fill-orphaned" : "retired-orphaned", place(link), std::move(detail), {word},
          {filling ? Flaw::What::kFill : Flaw::What::kRetired, link.segment(), link.index(),
           link.value});
}

void Scan::check_contents(const Descriptor& d, Link link) {
  if (contents_ != nullptr && contents_->find(link.value) == contents_->end()) return;
  const int pin = options_.pins != nullptr ? options_.pins->pin(link) : -1;
  std::string flaw;
  if (same_entry(d.state.load(std::memory_order_seq_cst), link, EntryState::kSealed)) {
    flaw = flaw_of(d, link);
    // Read without a pin: what was read counts only if the entry is still there.
    if (!view_.still_sealed(link)) flaw.clear();
  }
  if (pin >= 0) options_.pins->unpin(pin);
  if (flaw.empty()) return;
  bad_contents.insert(link.value);
  suspect("entry-damaged", place(link), std::move(flaw), {link.value},
          {Flaw::What::kEntry, link.segment(), link.index(), link.value});
}

std::string Scan::flaw_of(const Descriptor& d, Link link) {
  const SealedFields fields = load_sealed(d);
  const std::uint64_t overflow = d.overflow.load(kAcquire);
  if (fields.meta_sum != meta_sum(fields, overflow, link.version())) {
    return "its fields fail their checksum";
  }
  std::vector<Extent> extents;
  if (!view_.extents(fields, overflow, true, extents)) {
    return "its extents or overflow blocks fail their checks";
  }
  const std::uint64_t head = std::uint64_t{fields.key_bytes} + fields.head_bytes;
  std::uint64_t room = 0;
  for (const Extent extent : extents) room += extent.bytes();
  if (head > kMaxHead || room < head + fields.body_bytes) {
    return fmt::format("it has room for {} bytes but says {}", room, head + fields.body_bytes);
  }
  buffer_.resize(std::max<std::size_t>(head, 65536));
  if (!view_.copy_stream(extents, 0, buffer_.data(), head)) return "its memory does not answer";
  if (static_cast<std::uint32_t>(checksum(std::span(buffer_).first(head))) != fields.head_sum) {
    return "its key and head fail their checksum";
  }
  if (!options_.bodies) return {};
  Checksum sum;
  for (std::uint64_t at = 0; at < fields.body_bytes;) {
    const std::size_t n = std::min<std::uint64_t>(buffer_.size(), fields.body_bytes - at);
    if (!view_.copy_stream(extents, head + at, buffer_.data(), n)) {
      return "its memory does not answer";
    }
    sum.update(std::span(buffer_).first(n));
    at += n;
  }
  ++counts.checked_bodies;
  return sum.value() == fields.body_sum ? "" : "its body fails its checksum";
}

void Scan::check_overflows() {
  for (const auto& [value, owners] : block_owners_) {
    if (owners < 2) continue;
    suspect("overflow-shared", place(Link{value}), fmt::format("{} entries name it", owners),
            {value}, {Flaw::What::kOverflow, Link{value}.segment(), Link{value}.index(), value});
  }
  // Records again: a block may have been claimed since.
  read_operations();
  for (const Link link : overflows_) {
    if (block_owners_.count(link.value) != 0 || operation_blocks_.count(link.value) != 0) continue;
    const std::uint64_t word =
        memory_.descriptor(link.segment(), link.index()).state.load(kAcquire);
    if (!same_entry(word, link, EntryState::kOverflow)) continue;
    suspect("overflow-orphaned", place(link), "no entry and no operation names it", {word},
            {Flaw::What::kOverflow, link.segment(), link.index(), link.value});
  }
}

void Scan::check_chains() {
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    for (std::uint64_t i = 0; i < memory_.geometry().buckets && !lost(segment); ++i) {
      check_chain(segment, i);
    }
  }
}

void Scan::check_chain(std::uint32_t segment, std::uint64_t number) {
  const Bucket& bucket = memory_.bucket_at(segment, number);
  const std::uint64_t head = bucket.head.load(kAcquire);
  if (head == Link::kEnd) return;
  const std::string where = fmt::format("node {} bucket {}", segment, number);
  const Flaw flaw{Flaw::What::kChain, segment, number};
  std::vector<std::pair<std::uint64_t, Link>> sealed;  // hash and link
  for (unsigned restart = 0; restart < kRestarts; ++restart) {
    sealed.clear();
    std::vector<Link> seen;
    bool changed = false;
    Link link{bucket.head.load(kAcquire)};
    std::uint64_t previous = 0;
    while (!link.is_end() && !changed) {
      const Descriptor* d = memory_.resolve(link);
      if (d == nullptr || lost(link.segment())) {
        suspect(
            "chain-broken", where,
            fmt::format("after {} entries a link ({:#x}) leads nowhere", seen.size(), link.value),
            {previous, link.value}, flaw);
        break;
      }
      const std::uint64_t word = d->state.load(kAcquire);
      const Link next{d->next.load(kAcquire)};
      const std::uint64_t hash = d->sealed[0].load(kAcquire);
      std::atomic_thread_fence(kAcquire);
      const EntryState state = EntryWord::state(word);
      // The chain names it, so it must be an entry of this version; else the chain has just
      // changed, or is wrong: which of both shows when it is still so after all restarts.
      const bool entry = EntryWord::version(word) == link.version() &&
                         (state == EntryState::kFilling || state == EntryState::kSealed ||
                          state == EntryState::kRetired);
      if (!entry || d->state.load(kRelaxed) != word) {
        changed = true;
        if (restart + 1 < kRestarts || entry) continue;
        suspect(
            "chain-stale", where,
            fmt::format("after {} entries a link names {}, which is version {} and {}", seen.size(),
                        place(link), EntryWord::version(word), entry_state_name(state)),
            {previous, link.value, word}, flaw);
        continue;
      }
      if (memory_.bucket_number(hash) != number || memory_.home_of(hash) != segment) {
        suspect("chain-foreign", where,
                fmt::format("{} is in this chain but its hash belongs to node {} bucket {}",
                            place(link), memory_.home_of(hash), memory_.bucket_number(hash)),
                {link.value, hash}, flaw);
      }
      if (state == EntryState::kRetired && (EntryWord::flags(word) & EntryWord::kUnlinked) != 0) {
        suspect("chain-unlinked", where,
                fmt::format("{} is said to be unlinked but is still in the chain", place(link)),
                {link.value, word}, flaw);
      }
      if (state == EntryState::kSealed) sealed.emplace_back(hash, link);
      seen.push_back(link);
      if (seen.size() > kMaxChain ||
          (seen.size() % 256 == 0 && std::count(seen.begin(), seen.end(), link) > 1)) {
        suspect("chain-loop", where, fmt::format("it comes back to {}", place(link)), {}, flaw);
        break;
      }
      previous = link.value;
      link = next;
    }
    for (const Link found : seen) linked_[found.segment()][found.index()] = true;
    if (!changed) {
      check_duplicates(sealed);
      return;
    }
  }
  unread_chains_.emplace(segment, number);
}

void Scan::check_duplicates(const std::vector<std::pair<std::uint64_t, Link>>& sealed) {
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    for (std::size_t j = i + 1; j < std::min(sealed.size(), i + 64); ++j) {
      if (sealed[i].first != sealed[j].first || sealed[i].second == sealed[j].second) continue;
      const Link a = sealed[i].second;
      const Link b = sealed[j].second;
      const auto one = view_.sealed(a.segment(), a.index());
      const auto other = view_.sealed(b.segment(), b.index());
      if (!one || !other || one->link != a || other->link != b || one->key() != other->key()) {
        continue;
      }
      suspect("entry-duplicate", place(b),
              fmt::format("{} is sealed too and has the same key", place(a)), {a.value, b.value},
              {Flaw::What::kDuplicate, b.segment(), b.index(), b.value});
    }
  }
}

void Scan::check_reachable() {
  for (const Link link : sealed_) {
    if (linked_[link.segment()][link.index()] || !view_.still_sealed(link)) continue;
    const Descriptor& d = memory_.descriptor(link.segment(), link.index());
    const std::uint64_t hash = d.sealed[0].load(kAcquire);
    const std::uint32_t home = memory_.home_of(hash);
    const std::uint64_t bucket = memory_.bucket_number(hash);
    if (unread_chains_.count({home, bucket}) != 0) continue;
    suspect("entry-unreachable", place(link),
            fmt::format("it is sealed but not in the chain of node {} bucket {}", home, bucket),
            {link.value, hash}, {Flaw::What::kOutside, home, bucket, link.value});
  }
}

void Scan::check_space() {
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (lost(segment) || bits_before_[segment].size() != bits_after_[segment].size()) continue;
    counts.units_total += bits_after_[segment].size() * 64;
    for (std::size_t i = 0; i < bits_after_[segment].size(); ++i) {
      const std::uint64_t before = bits_before_[segment][i];
      const std::uint64_t after = bits_after_[segment][i];
      const std::uint64_t owned = owned_.words(segment)[i];
      const std::uint64_t busy = in_operation_.words(segment)[i];
      counts.units_used += static_cast<std::uint64_t>(std::popcount(after));
      leaked.words(segment)[i] = before & after & ~owned & ~busy;
      missing.words(segment)[i] = ~before & ~after & owned & ~busy;
      shared.words(segment)[i] &= ~busy;
    }
  }
}

std::string Scan::owners_of(Extent extent) const {
  std::string names;
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    for (std::uint64_t i = 0; i < memory_.geometry().descriptors && !lost(segment); ++i) {
      const Descriptor& d = memory_.descriptor(segment, i);
      const std::uint64_t word = d.state.load(kAcquire);
      const EntryState state = EntryWord::state(word);
      if (state != EntryState::kFilling && state != EntryState::kSealed &&
          state != EntryState::kRetired) {
        continue;
      }
      const Link link = memory_.link_to(segment, i, EntryWord::version(word));
      for (const Extent theirs : owned_by(d, link, word).extents) {
        if (theirs.segment() != extent.segment() ||
            theirs.first() >= extent.first() + extent.units() ||
            extent.first() >= theirs.first() + theirs.units()) {
          continue;
        }
        if (!names.empty()) names += " and ";
        names += fmt::format("{} ({})", place(link), entry_state_name(state));
        break;
      }
    }
  }
  return names.empty() ? "nobody any more" : names;
}

}  // namespace mcs::cache
