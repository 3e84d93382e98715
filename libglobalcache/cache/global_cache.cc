// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/global_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "gsm-emu/fault.h"

namespace mcs::cache {

using runtime::Instance;
using runtime::LockAnswer;

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kAcqRel = std::memory_order_acq_rel;

bool is_unsettled(std::uint64_t word) {
  return EntryWord::state(word) == EntryState::kSealed &&
         (EntryWord::flags(word) & EntryWord::kUnsettled) != 0;
}

// Keys are short: memcmp would cost more to call than to do.
inline bool same_bytes(const std::byte* stored, std::string_view wanted) {
  const char* their = reinterpret_cast<const char*>(stored);
  std::size_t n = wanted.size();
  const auto word = [](const char* at) {
    std::uint64_t value;
    std::memcpy(&value, at, sizeof value);
    return value;
  };
  if (n < sizeof(std::uint64_t)) return n == 0 || std::memcmp(their, wanted.data(), n) == 0;
  std::uint64_t differing = 0;
  for (; n > sizeof(std::uint64_t); n -= sizeof(std::uint64_t)) {
    differing |= word(their + n - sizeof(std::uint64_t)) ^
                 word(wanted.data() + n - sizeof(std::uint64_t));
  }
  return (differing | (word(their) ^ word(wanted.data()))) == 0;
}

// A head larger than this is damage, not a head.
constexpr std::uint64_t kMaxHead = 1U << 20;
// Entries up to this size, key and head included, are copied in one go. Bytes.
constexpr std::uint64_t kCopiedWhole = 1024;
// Locks not got before reclaiming leaves the rest for its next turn.
constexpr unsigned kBusyInPass = 4;
// From here on it pays to bring near what is read far away.
constexpr std::uint32_t kDearPercent = 200;

}  // namespace

GlobalCache::GlobalCache(gsm::Domain& domain, Instance& instance,
                         std::function<void(std::uint32_t)> wake)
    : memory_(domain),
      instance_(instance),
      pins_(memory_, instance),
      space_(memory_, instance),
      index_(memory_, instance),
      sites_(memory_, domain.header().hash_seed),
      area_(*reinterpret_cast<CacheArea*>(instance.own_component_area())),
      wake_(std::move(wake)),
      seed_(domain.header().hash_seed),
      remote_uses_(domain.header().node_count > 1 &&
                   domain.header().remote_penalty_percent >= kDearPercent) {
  instance.set_steps(this);
}

Key GlobalCache::make_key(std::string_view primary, std::string_view variant) const {
  Key key;
  key.primary = primary;
  key.variant = variant;
  key.hash = XXH3_64bits_withSeed(primary.data(), primary.size(), seed_);
  key.hash2 = ~key.hash;
  if (!variant.empty()) {
    key.hash2 ^= XXH3_64bits_withSeed(variant.data(), variant.size(), seed_ + 1);
  }
  return key;
}

Key GlobalCache::variant_of(const Key& base, std::string_view variant) const {
  Key key = base;
  key.variant = variant;
  if (!variant.empty()) {
    key.hash2 ^= XXH3_64bits_withSeed(variant.data(), variant.size(), seed_ + 1);
  }
  return key;
}

bool GlobalCache::copy_stream(const std::vector<Extent>& extents, std::uint64_t offset, void* to,
                              std::size_t n) const {
  auto* out = static_cast<std::byte*>(to);
  if (!extents.empty() && offset + n <= extents[0].bytes()) {
    gsm::Segment& segment = memory_.segment(extents[0].segment(), extents[0].incarnation());
    segment.charge(n);
    return gsm::guarded_copy(out, segment.payload() + extents[0].first() * kUnitBytes + offset, n);
  }
  return for_each_piece(extents, offset, n, [&](const Piece& piece) {
    gsm::Segment& segment = memory_.segment(piece.segment, piece.incarnation);
    segment.charge(piece.length);
    if (!gsm::guarded_copy(out, segment.payload() + piece.offset, piece.length)) return false;
    out += piece.length;
    return true;
  });
}

bool GlobalCache::read_head(const SealedFields& fields, const std::vector<Extent>& extents,
                            std::vector<std::byte>& out) const {
  const std::uint64_t bytes = std::uint64_t{fields.key_bytes} + fields.head_bytes;
  if (bytes > kMaxHead) return false;
  out.resize(bytes);
  return copy_stream(extents, 0, out.data(), bytes) &&
         static_cast<std::uint32_t>(checksum(out)) == fields.head_sum;
}

// Key, head and a small body lie together: one copy, whose cache misses overlap, costs less than two.
// `words`: of the descriptor. Lookups have nothing else to wait for, so all of it is in one place.
[[gnu::always_inline]] inline bool GlobalCache::read_copy(const SealedWords& words, Hit& hit) const {
  const std::uint64_t head = std::uint64_t{hit.fields.key_bytes} + hit.fields.head_bytes;
  const std::uint64_t all = head + hit.fields.body_bytes;
  hit.has_body = all <= kCopiedWhole;
  const std::uint64_t n = hit.has_body ? all : head;
  if (n > kMaxHead) return false;
  // Never made smaller: what it gets back later would be set to zero first.
  if (hit.copy.size() < n) [[unlikely]] hit.copy.resize(n);
  std::byte* const to = hit.copy.data();
  const Extent first{words[kExtentWord]};
  const Memory::Place& place = memory_.at(first.segment());
  if (hit.fields.extent_count == 1 && hit.extents.size() == 1 && n <= first.bytes()) [[likely]] {
    if (!memory_.valid(first, place)) return false;
    hit.extents.front() = first;
    place.segment->charge(n);
    if (!gsm::guarded_copy(to, place.payload + first.first() * kUnitBytes, n)) return false;
  } else if (!space_.extents(hit.fields, hit.overflow, true, hit.extents) ||
             !copy_stream(hit.extents, 0, to, n)) {
    return false;
  }
  return static_cast<std::uint32_t>(checksum({to, head})) == hit.fields.head_sum;
}

// Pins and checks one candidate. False: not the entry that is looked for; `outcome` says more.
[[gnu::always_inline]] inline bool GlobalCache::load_hit(Link link, Descriptor& d, const Key& key,
                                                         Hit& hit, Found& outcome) {
  const int pin = pins_.pin(link);
  if (pin < 0) {
    outcome = Found::kNoPin;
    return false;
  }
  const std::uint64_t word = d.state.load(std::memory_order_seq_cst);
  if (EntryWord::state(word) != EntryState::kSealed || EntryWord::version(word) != link.version()) {
    pins_.unpin(pin);
    return false;
  }
  const SealedWords words = load_words(d);
  copy_words(words, hit.fields);
  if (hit.fields.key_bytes != key.size()) {
    // Another variant, or damage, which whoever looks for that entry will notice.
    pins_.unpin(pin);
    return false;
  }
  hit.overflow = d.overflow.load(kAcquire);
  const bool sound =
      static_cast<std::uint32_t>(words[kSumsWord] >> 32) ==
          meta_sum(words, hit.overflow, link.version()) &&
      read_copy(words, hit);
  if (!sound) [[unlikely]] {
    count_damage(link.segment());
    outcome = Found::kDamaged;
    pins_.unpin(pin);
    return false;
  }
  if (!same_bytes(hit.copy.data(), key.primary) ||
      (!key.variant.empty() &&
       !same_bytes(hit.copy.data() + key.primary.size(), key.variant))) {
    pins_.unpin(pin);
    return false;
  }
  hit.link = link;
  hit.hash2 = key.hash2;
  hit.descriptor = &d;
  hit.pin = pin;
  hit.checked_ms = static_cast<std::int64_t>(d.checked.load(kRelaxed));
  hit.soft_purged = (EntryWord::flags(word) & EntryWord::kSoftPurged) != 0;
  hit.overridden = (EntryWord::flags(word) & EntryWord::kOverridden) != 0;
  hit.head = {hit.copy.data() + hit.fields.key_bytes, hit.fields.head_bytes};
  return true;
}

// Whether a fill in the chain of `key` is one that others who look for `key` should wait for.
bool GlobalCache::fills(const Key& key, Link link, const Descriptor& d, std::uint64_t word) const {
  if (EntryWord::state(word) != EntryState::kFilling ||
      (EntryWord::flags(word) & EntryWord::kPassedOver) != 0) {
    return false;
  }
  // A fill that is about to be sealed has overwritten its second hash; it ends in a moment.
  if (d.sealed[kHash2Word].load(kAcquire) != key.hash2 &&
      (d.sealed[kSumsWord].load(kAcquire) >> 32) == 0) {
    return false;
  }
  if ((EntryWord::flags(word) & EntryWord::kPurgeCheck) == 0) return true;
  const std::uint64_t began = d.checked.load(kAcquire);
  return (began & kPurgeSequenceMark) != 0 &&
         !purged_since(link.segment(), began & ~kPurgeSequenceMark, key.primary, {});
}

[[gnu::hot]] FindResult GlobalCache::find(const Key& key, Hit& hit) {
  FindResult result;
  const WalkEnd end = index_.walk(key.hash, [&](Link link, const Descriptor& seen,
                                                std::uint64_t word) {
    const EntryState state = EntryWord::state(word);
    if (state == EntryState::kFilling) {
      if (fills(key, link, seen, word)) result.filling = link;
      return false;
    }
    if (state != EntryState::kSealed) return false;
    auto& d = const_cast<Descriptor&>(seen);
    if (!load_hit(link, d, key, hit, result.found)) return false;
    result.found = Found::kHit;
    return true;
  });
  // Not when the chain kept changing: that is contention.
  if (end == WalkEnd::kDamaged) {
    if (count_damage(memory_.home_of(key.hash))) return find(key, hit);
    if (result.found == Found::kMiss) result.found = Found::kDamaged;
  }
  return result;
}

// A check failed. Is it because memory was lost, or came back? True: this process has learnt of another
// view, in which it may be right.
bool GlobalCache::count_damage(std::uint32_t segment) {
  bool lost = memory_.moved();
  bool any = false;
  for (std::uint32_t other = 0; other < memory_.nodes(); ++other) {
    lost = lost || (memory_.has_segment(other) && memory_.lost(other));
    any = any || !memory_.lost(other);
  }
  // With nothing left to look in the tick finds what comes back.
  if (!any) return false;
  if (lost) return memory_.look_after();
  if (index_is_whole()) memory_.state(segment).damage.fetch_add(1, kRelaxed);
  return false;
}

bool GlobalCache::is_held(const Hit& hit) const {
  if (pins_.place_of(hit.pin) >= 0) return true;
  std::atomic_thread_fence(kAcquire);
  const std::uint64_t word = hit.descriptor->state.load(kAcquire);
  return EntryWord::state(word) == EntryState::kSealed &&
         EntryWord::version(word) == hit.link.version();
}

bool GlobalCache::read_body(const Hit& hit, std::uint64_t offset, void* to, std::size_t n) const {
  const std::uint64_t start = std::uint64_t{hit.fields.key_bytes} + hit.fields.head_bytes;
  if (offset + n > hit.fields.body_bytes) return false;
  if (hit.has_body) {
    std::memcpy(to, hit.copy.data() + start + offset, n);
    return true;
  }
  return copy_stream(hit.extents, start + offset, to, n);
}

bool GlobalCache::read_verified(const Hit& hit, void* to) const {
  const std::size_t n = hit.fields.body_bytes;
  return read_body(hit, 0, to, n) &&
         checksum({static_cast<const std::byte*>(to), n}) == hit.fields.body_sum;
}

bool GlobalCache::verify_body(const Hit& hit) const {
  Checksum sum;
  std::array<std::byte, 32768> buffer;
  for (std::uint64_t at = 0; at < hit.fields.body_bytes;) {
    const std::size_t n = std::min<std::uint64_t>(buffer.size(), hit.fields.body_bytes - at);
    if (!read_body(hit, at, buffer.data(), n)) return false;
    sum.update(std::span(buffer).first(n));
    at += n;
  }
  return sum.value() == hit.fields.body_sum;
}

void GlobalCache::body_pieces(const Hit& hit,
                              std::vector<std::span<const std::byte>>& pieces) const {
  pieces.clear();
  const std::uint64_t start = std::uint64_t{hit.fields.key_bytes} + hit.fields.head_bytes;
  for_each_piece(hit.extents, start, hit.fields.body_bytes, [&](const Piece& piece) {
    gsm::Segment& segment = memory_.segment(piece.segment, piece.incarnation);
    segment.charge(piece.length);
    const std::byte* at = segment.payload() + piece.offset;
    if (!pieces.empty() && pieces.back().data() + pieces.back().size() == at) {
      pieces.back() = {pieces.back().data(), pieces.back().size() + piece.length};
    } else {
      pieces.emplace_back(at, piece.length);
    }
    return true;
  });
}

void GlobalCache::allow_sendfile(Link pinned, std::vector<Extent>& extents) {
  extents.clear();
  const Descriptor* d = memory_.resolve(pinned);
  if (d == nullptr) return;
  const SealedFields fields = load_sealed(*d);
  const std::uint64_t overflow = d->overflow.load(kAcquire);
  if (fields.meta_sum != meta_sum(fields, overflow, pinned.version()) ||
      !space_.extents(fields, overflow, true, extents)) {
    extents.clear();
    return;
  }
  std::erase_if(extents, [&](Extent extent) {
    return !extent.whole_pages() || !memory_.segment(extent.segment(), extent.incarnation()).sendable();
  });
  // Whoever retires it after this carries the flag on; what is retired already is copied.
  if (!extents.empty() && !set_flag(pinned, EntryWord::kSent)) extents.clear();
}

void GlobalCache::set_checked(const Hit& hit, std::int64_t wall_ms) const {
  // The pin keeps the descriptor this entry's, so a plain store cannot hit another entry.
  if (!is_held(hit)) return;
  hit.descriptor->checked.store(static_cast<std::uint64_t>(wall_ms), kRelaxed);
}

std::uint64_t GlobalCache::count_checked(const Hit& hit) const {
  return hit.descriptor->checked.fetch_add(1, kRelaxed);
}

Begin GlobalCache::begin(const Key& key, Fill& fill, Link seen, bool insist) {
  return begin_for(key, key.site == nullptr ? 0 : sites_.number_of(*key.site), fill, seen, insist);
}

Begin GlobalCache::begin_for(const Key& key, std::uint32_t site, Fill& fill, Link seen,
                             bool insist) {
  const Inside inside(*this);
  if (!inside || instance_.expelled() || memory_.out_of_reach()) return Begin::kBusy;
  const std::uint32_t view = memory_.generation();
  if (key.asked != nullptr && key.asked->view != view) return Begin::kBusy;  // its logs may be others
  const int slot = fills_used_.claim();
  if (slot < 0) return Begin::kNoSpace;
  Word& intent = area_.fills[static_cast<std::size_t>(slot)];
  Link link;
  for (unsigned attempt = 0; attempt < 4 && link.value == 0; ++attempt) {
    for (std::uint32_t n = 0; n < memory_.nodes() && link.value == 0; ++n) {
      const std::uint32_t segment = (instance_.node() + n) % memory_.nodes();
      if (memory_.lost(segment)) continue;
      link = space_.claim_descriptor(segment, EntryState::kFilling, intent);
    }
    if (link.value == 0) evict_some(own_or_next(), 1);
  }
  if (link.value == 0) {
    fills_used_.give_back(slot);
    return Begin::kNoSpace;
  }
  Descriptor* at = memory_.resolve(link);
  if (at == nullptr) {  // its segment has just left the view
    note(intent, 0);
    fills_used_.give_back(slot);
    return Begin::kBusy;
  }
  Descriptor& d = *at;
  d.progress.store(0, kRelaxed);
  d.sealed[0].store(key.hash, kRelaxed);
  d.sealed[kHash2Word].store(key.hash2, kRelaxed);
  SealedFields fields;
  fields.site = site;
  d.sealed[kLengthsWord].store(
      std::bit_cast<std::array<std::uint64_t, kSealedWords>>(fields)[kLengthsWord], kRelaxed);
  d.sealed[kSumsWord].store(0, kRelaxed);
  if (site != 0) {
    memory_.set_clock_byte(link.segment(), link.index(), ClockByte::kUsed | ClockByte::site(site));
  }
  // A purge that is not seen here sees the entry: it logs first and then looks.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const std::uint64_t logged = memory_.purge_log(link.segment()).next.load(kAcquire);
  const std::uint64_t purges_seen = key.asked == nullptr ? logged : key.asked->next[link.segment()];
  d.checked.store(kPurgeSequenceMark | purges_seen, kRelaxed);
  if (purges_seen != logged) flag_for_purge(link, d);

  const auto give_up = [&] {
    // Never linked, no space: FREE again at once.
    const std::uint32_t owner = instance_.slot_number() + 1;
    std::uint64_t word = EntryWord::make(link.version(), EntryState::kFilling, owner);
    bool freed = false;
    // Again if a purge flags it in between.
    while (!freed && EntryWord::state(word) == EntryState::kFilling &&
           EntryWord::version(word) == link.version()) {
      freed = d.state.compare_exchange_weak(
          word, EntryWord::make(link.version(), EntryState::kFree, 0), kAcqRel);
    }
    if (freed) {
      memory_.set_clock_byte(link.segment(), link.index(), 0);
    } else {
      retire_filling(link, d, owner);  // expelled meanwhile
    }
    note(intent, 0);
    fills_used_.give_back(slot);
  };

  {
    Index::Locked bucket(index_, key.hash);
    if (bucket.answer() != LockAnswer::kAcquired) {
      give_up();
      if (bucket.answer() == LockAnswer::kLost) memory_.look_after();
      return Begin::kBusy;
    }
    bool other = false;
    index_.walk(key.hash, [&](Link found, const Descriptor& entry, std::uint64_t word) {
      const EntryState state = EntryWord::state(word);
      other = fills(key, found, entry, word) ||
              (state == EntryState::kSealed && !insist && !(found == seen));
      return other;
    });
    if (!other) bucket.link_first(link, d);
    if (other) {
      give_up();
      return Begin::kOther;
    }
  }
  fill.abort();
  fill.cache_ = this;
  fill.link_ = link;
  fill.descriptor_ = &d;
  fill.slot_ = slot;
  fill.key_.assign(key.primary).append(key.variant);
  fill.purges_seen_ = purges_seen;
  fill.hash_ = key.hash;
  fill.site_ = site;
  fill_links_[static_cast<std::size_t>(slot)].store(link.value, kRelaxed);
  fill.view_ = view;
  return Begin::kFilling;
}

void GlobalCache::announce_wait(Link filling) {
  Descriptor* d = memory_.resolve(filling);
  if (d == nullptr) return;
  const std::uint64_t bit = 1ULL << (44 + instance_.slot_number() % kWaiterBits);
  d->progress.fetch_or(bit, std::memory_order_seq_cst);
  report_filler(filling, d->state.load(kAcquire));
}

// Somebody needs what the filler holds: if that one is stopped, the agent ends it.
void GlobalCache::report_filler(Link filling, std::uint64_t word) {
  const std::uint32_t owner = EntryWord::owner_plus_one(word);
  if (EntryWord::state(word) != EntryState::kFilling ||
      EntryWord::version(word) != filling.version() || owner == 0 ||
      owner > instance_.slot_count() || owner == instance_.slot_number() + 1) {
    return;
  }
  const std::uint64_t state = instance_.control(owner - 1).state.load(kAcquire);
  instance_.report_blocking(
      runtime::InstanceId::make(owner - 1, runtime::StateWord::incarnation(state)));
}

bool GlobalCache::still_filling(Link filling) const {
  const Descriptor* d = memory_.resolve(filling);
  if (d == nullptr) return false;
  const std::uint64_t word = d->state.load(std::memory_order_seq_cst);
  return EntryWord::state(word) == EntryState::kFilling &&
         EntryWord::version(word) == filling.version();
}

void GlobalCache::wake_waiters(Link filling, const Descriptor& d) {
  if (!wake_) return;
  std::uint64_t bits = d.progress.load(std::memory_order_seq_cst) >> 44;
  // Evicted and in use for another fill: whoever waited is not known any more.
  if (EntryWord::version(d.state.load(std::memory_order_seq_cst)) != filling.version()) bits = ~0ULL;
  if (bits == 0) return;
  for (std::uint32_t slot = 0; slot < instance_.slot_count(); ++slot) {
    if ((bits >> (slot % kWaiterBits) & 1) == 0) continue;
    const std::uint64_t word = instance_.control(slot).state.load(kAcquire);
    if (runtime::StateWord::state(word) != runtime::InstanceState::kActive) continue;
    if (Pins::area(instance_, slot).waiting.load(kRelaxed) != 0) wake_(slot);
  }
}

// Where this process makes room first.
std::uint32_t GlobalCache::own_or_next() const {
  std::uint32_t segment = instance_.node();
  for (std::uint32_t n = 0; memory_.lost(segment) && n < memory_.nodes(); ++n) {
    segment = (segment + 1) % memory_.nodes();
  }
  return segment;
}

SpaceAnswer GlobalCache::make_room(Link entry, Descriptor& d, std::uint64_t units, bool local,
                                   std::vector<Extent>& out) {
  const std::uint32_t site = site_of(d);
  if (site != 0 && !keep_quota(site, units)) return SpaceAnswer::kFull;
  unsigned failures = 0;
  unsigned fruitless = 0;
  while (units > 0) {
    // Large bodies in fair pieces, small ones in whatever there is.
    const std::uint64_t min_units = units >= 64 ? 16 : units >= 16 ? 4 : 1;
    Extent extent;
    const SpaceAnswer answer = space_.grow(entry, d, units, min_units, local, extent);
    if (answer == SpaceAnswer::kOk) {
      out.push_back(extent);
      sites_.add(site, extent.units());
      units -= std::min(units, extent.units());  // whole pages may be more
      failures = 0;
      fruitless = 0;
      continue;
    }
    // Others may have taken what was freed; but where nothing is, on any node, all is held by somebody.
    if (answer == SpaceAnswer::kLost || ++failures > 64 || fruitless > 4 + memory_.nodes()) {
      return answer;
    }
    std::uint32_t segment = own_or_next();
    if (failures == 1 && recall(units)) continue;
    if (failures > 4 && !local) segment = (segment + failures) % memory_.nodes();
    if (!evict_some(segment, std::min<std::uint64_t>(units, 4 * kGroupUnits))) ++fruitless;
  }
  return SpaceAnswer::kOk;
}

bool GlobalCache::unlink(Link link, Descriptor& d) {
  for (;;) {
    const std::uint32_t view = memory_.generation();
    {
      Index::Locked bucket(index_, d.sealed[0].load(kAcquire));
      if (bucket.answer() != LockAnswer::kAcquired) {
        // A chain on lost memory is gone, and nobody puts a retired entry into another one.
        if (bucket.answer() != LockAnswer::kLost || !memory_.adopt()) return false;
        continue;
      }
      bucket.unlink(link);
    }
    // Whoever rebuilds the index in a later view may have linked it there before it was retired.
    if ((memory_.moved() && memory_.adopt()) || memory_.generation() != view) continue;
    if (memory_.out_of_reach()) return false;
    break;
  }
  std::uint64_t word = d.state.load(kAcquire);
  while (EntryWord::state(word) == EntryState::kRetired &&
         EntryWord::version(word) == link.version() &&
         (EntryWord::flags(word) & EntryWord::kUnlinked) == 0) {
    if (d.state.compare_exchange_weak(word, word | EntryWord::kUnlinked, kAcqRel)) break;
  }
  return true;
}

// A limbo word that names `link`, not yet one that reclaim() looks at; -1: all are in use.
int GlobalCache::claim_limbo(Link link) {
  int place = limbo_used_.claim();
  if (place < 0) {
    reclaim();
    place = limbo_used_.claim();
    if (place < 0) return -1;
  }
  area_.limbo[static_cast<std::size_t>(place)].store(link.value, kRelease);
  limbo_links_[static_cast<std::size_t>(place)].store(link.value, kRelaxed);
  return place;
}

void GlobalCache::drop_limbo(int place) {
  if (place < 0) return;
  limbo_links_[static_cast<std::size_t>(place)].store(0, kRelaxed);
  area_.limbo[static_cast<std::size_t>(place)].store(0, kRelease);
  limbo_used_.give_back(place);
}

// Only the thread whose CAS made the entry ours lets reclaim() free it: another one that tried at
// the same time still has a limbo word of its own that names the entry.
void GlobalCache::keep_limbo(int place) {
  if (place >= 0) limbo_ready_.take(static_cast<std::uint32_t>(place));
}

GlobalCache::SiteCost GlobalCache::cost_of(const Descriptor& d) const {
  SiteCost cost{site_of(d), 0};
  std::vector<Extent> extents;
  if (cost.site != 0 && space_.extents(load_sealed(d), d.overflow.load(kAcquire), false, extents)) {
    for (const Extent& extent : extents) cost.units += extent.units();
  }
  return cost;
}

bool GlobalCache::retire_as(Link link, Descriptor& d, std::uint64_t expected) {
  const int place = claim_limbo(link);
  if (place < 0) return false;
  const SiteCost cost = cost_of(d);
  if (!d.state.compare_exchange_strong(
          expected,
          EntryWord::retired(expected, instance_.slot_number() + 1), std::memory_order_seq_cst)) {
    drop_limbo(place);
    return false;
  }
  sites_.remove(cost.site, cost.units);
  unlink(link, d);
  keep_limbo(place);
  return true;
}

bool GlobalCache::retire(Link link) {
  const Inside inside(*this);
  Descriptor* d = inside ? memory_.resolve(link) : nullptr;
  if (d == nullptr) return false;
  for (unsigned attempt = 0; attempt < 8; ++attempt) {
    const std::uint64_t word = d->state.load(kAcquire);
    if (EntryWord::version(word) != link.version() || !is_unsettled(word)) break;
    settle(link, *d);
  }
  return retire_settled(link, *d);
}

// Also one that is not settled, if what replaces it is there.
bool GlobalCache::retire_settled(Link link, Descriptor& d) {
  for (unsigned attempt = 0; attempt < 64; ++attempt) {
    const std::uint64_t word = d.state.load(kAcquire);
    if (EntryWord::state(word) != EntryState::kSealed ||
        EntryWord::version(word) != link.version()) {
      return false;
    }
    // Again if somebody sets a flag in between.
    if (retire_as(link, d, word)) return true;
    if (d.state.load(kAcquire) == word) break;
  }
  return false;
}

// When limbo is full of what somebody still reads: whoever ticks next adopts it.
bool GlobalCache::retire_as_orphan(Link link, Descriptor& d) {
  std::uint64_t word = d.state.load(kAcquire);
  if (EntryWord::state(word) != EntryState::kSealed || EntryWord::version(word) != link.version()) {
    return false;
  }
  std::unique_lock lock(orphan_mutex_);
  area_.orphaning.store(link.value, kRelease);
  const SiteCost cost = cost_of(d);
  bool retired = false;
  while (!retired && EntryWord::state(word) == EntryState::kSealed &&
         EntryWord::version(word) == link.version()) {
    retired = d.state.compare_exchange_weak(
        word, EntryWord::retired(word, 0), std::memory_order_seq_cst);
  }
  if (retired) count_orphan(link);
  area_.orphaning.store(0, kRelease);
  lock.unlock();  // unlinking may have to recover somebody, which may come here again
  if (retired) sites_.remove(cost.site, cost.units);
  if (retired) unlink(link, d);
  return retired;
}

bool GlobalCache::set_flag(Link link, std::uint64_t flag) {
  Descriptor* d = memory_.resolve(link);
  if (d == nullptr) return false;
  std::uint64_t word = d->state.load(kAcquire);
  while (EntryWord::state(word) == EntryState::kSealed &&
         EntryWord::version(word) == link.version()) {
    if ((EntryWord::flags(word) & flag) != 0 ||
        d->state.compare_exchange_weak(word, word | flag, std::memory_order_seq_cst)) {
      return true;
    }
  }
  return false;
}

// A fill that ends without an entry: ours (abort) or a dead instance's.
bool GlobalCache::retire_filling(Link link, Descriptor& d, std::uint64_t owner_plus_one) {
  const int place = claim_limbo(link);
  const std::uint32_t new_owner = place >= 0 ? instance_.slot_number() + 1 : 0;
  std::uint64_t word = d.state.load(kAcquire);
  while (EntryWord::state(word) == EntryState::kFilling &&
         EntryWord::version(word) == link.version() &&
         EntryWord::owner_plus_one(word) == owner_plus_one) {
    const SiteCost cost = cost_of(d);
    if (d.state.compare_exchange_weak(
            word, EntryWord::make(link.version(), EntryState::kRetired, new_owner),
            std::memory_order_seq_cst)) {
      if (place < 0) count_orphan(link);
      sites_.remove(cost.site, cost.units);
      unlink(link, d);
      wake_waiters(link, d);
      keep_limbo(place);
      return true;
    }
  }
  // Passed on while we were expelled. We do not write there any more.
  while (owner_plus_one == instance_.slot_number() + 1 &&
         EntryWord::state(word) == EntryState::kRetired &&
         EntryWord::version(word) == link.version() &&
         EntryWord::owner_plus_one(word) == owner_plus_one) {
    wake_waiters(link, d);
    if (place >= 0) {
      unlink(link, d);
      keep_limbo(place);
      return true;
    }
    if (d.state.compare_exchange_weak(
            word, EntryWord::make(link.version(), EntryState::kRetired, 0, EntryWord::cursor(word),
                                  EntryWord::flags(word)))) {
      count_orphan(link);
      return true;
    }
  }
  drop_limbo(place);
  return false;
}

std::uint64_t GlobalCache::reclaim(bool wait) {
  const Inside inside(*this);
  if (!inside) return 0;
  std::unique_lock lock(reclaim_mutex_, std::defer_lock);
  if (wait) {
    lock.lock();
  } else if (!lock.try_lock()) {
    return 0;
  }
  if (limbo_used_.count() == 0) return 0;
  // What is freed below must have been retired and unlinked before the ledgers are read: an entry
  // that another thread retires later may have been pinned in between.
  std::array<Link, kLimbo> candidates{};
  // Each lock that a stopped process holds is waited for: not for all that lies behind it, and the next
  // pass begins there.
  unsigned busy = 0;
  std::uint32_t last = reclaim_from_;
  for (std::uint32_t n = 0; n < kLimbo && busy < kBusyInPass; ++n) {
    const std::uint32_t place = (reclaim_from_ + n) % kLimbo;
    last = place;
    if (!limbo_ready_.in_use(place)) continue;
    const Link link{limbo_links_[place].load(kAcquire)};
    Descriptor* d = memory_.resolve(link);
    if (d == nullptr) {
      // Lost with its segment.
      limbo_ready_.give_back(static_cast<int>(place));
      drop_limbo(static_cast<int>(place));
      continue;
    }
    const auto is_retired = [&](std::uint64_t word) {
      return EntryWord::version(word) == link.version() &&
             EntryWord::state(word) == EntryState::kRetired;
    };
    std::uint64_t word = d->state.load(kAcquire);
    if (is_retired(word) && (EntryWord::flags(word) & EntryWord::kUnlinked) == 0) {
      if (!unlink(link, *d)) ++busy;
      word = d->state.load(kAcquire);
    }
    if (is_retired(word) && (EntryWord::flags(word) & EntryWord::kUnlinked) != 0 &&
        EntryWord::owner_plus_one(word) == instance_.slot_number() + 1) {
      candidates[place] = link;
    }
  }
  const std::uint32_t first = reclaim_from_;
  if (busy == kBusyInPass) reclaim_from_ = (last + 1) % kLimbo;
  if (!pins_.drop_pinned(candidates)) return 0;
  std::uint64_t freed = 0;
  busy = 0;
  for (std::uint32_t n = 0; n < kLimbo && busy < kBusyInPass; ++n) {
    const std::uint32_t place = (first + n) % kLimbo;
    const Link link = candidates[place];
    Descriptor* d = link.value != 0 ? memory_.resolve(link) : nullptr;
    if (d == nullptr) continue;
    std::vector<Extent> extents;
    std::uint64_t units = 0;
    if (space_.extents(load_sealed(*d), d->overflow.load(kAcquire), false, extents)) {
      for (const Extent& extent : extents) units += extent.units();
    }
    if (!space_.free_entry(link, *d)) {
      if (++busy == kBusyInPass) reclaim_from_ = (place + 1) % kLimbo;
      continue;
    }
    limbo_ready_.give_back(static_cast<int>(place));
    drop_limbo(static_cast<int>(place));
    freed += units;
  }
  return freed;
}

GlobalCache::KeyRead GlobalCache::read_key(Link link, const Descriptor& d, std::string& key) {
  // Without a pin the bytes may change while they are read: the state, read afterwards, tells.
  const int pin = pins_.pin(link);
  const SealedFields fields = load_sealed(d);
  const std::uint64_t overflow = d.overflow.load(kAcquire);
  std::vector<Extent> extents;
  std::vector<std::byte> head;
  const bool readable = fields.meta_sum == meta_sum(fields, overflow, link.version()) &&
                        space_.extents(fields, overflow, true, extents) &&
                        read_head(fields, extents, head);
  const std::uint64_t word = d.state.load(std::memory_order_seq_cst);
  if (pin >= 0) pins_.unpin(pin);
  if (EntryWord::state(word) != EntryState::kSealed || EntryWord::version(word) != link.version()) {
    return KeyRead::kGone;
  }
  if (!readable) return KeyRead::kDamaged;
  key.assign(reinterpret_cast<const char*>(head.data()), fields.key_bytes);
  return KeyRead::kRead;
}

// Of two fills of one key that were allowed at once the one that was linked later counts, whichever
// is sealed first; the other one goes, as do those that either replaces. False: not all were seen.
bool GlobalCache::retire_duplicates(Link sealed, std::uint64_t hash, std::string_view whole_key) {
  // Until the index is whole the older entry may be in no chain.
  if (!index_is_whole() && !retire_everywhere(sealed, hash, whole_key)) return false;
  std::array<Link, 8> older;
  std::size_t n = 0;
  Link newest;
  do {
    n = 0;
    newest = {};
    std::string key;
    const WalkEnd end = index_.walk(
        hash,
        [&](Link link, const Descriptor& entry, std::uint64_t word) {
          if (EntryWord::state(word) != EntryState::kSealed) return false;
          const KeyRead answer = read_key(link, entry, key);
          if (answer == KeyRead::kGone || (answer == KeyRead::kRead && key != whole_key)) {
            return false;
          }
          if (newest.value != 0 || answer == KeyRead::kDamaged) {
            older[n++] = link;
          } else {
            newest = link;
          }
          return n == older.size();
        },
        [&] {
          n = 0;
          newest = {};
        });
    if (end == WalkEnd::kChanged) return false;
    // What lies behind lost memory is seen when the index is whole again.
    if (end == WalkEnd::kDamaged && (memory_.moved() || memory_.lost(memory_.home_of(hash)))) {
      return false;
    }
    for (std::size_t i = 0; i < n; ++i) {
      Descriptor* old = memory_.resolve(older[i]);
      if (old == nullptr) continue;
      inherit_use(newest, older[i]);
      if (!retire_settled(older[i], *old)) retire_as_orphan(older[i], *old);
    }
  } while (n == older.size());
  return true;
}

void GlobalCache::settle(Link sealed, Descriptor& d, std::uint64_t hash,
                         std::string_view whole_key) {
  if (retire_duplicates(sealed, hash, whole_key)) say_settled(sealed, d);
}

// In the name of a filler that has not come to it, or has died.
void GlobalCache::settle(Link sealed, Descriptor& d) {
  const std::uint64_t hash = d.sealed[0].load(kAcquire);
  std::string key;
  const KeyRead answer = read_key(sealed, d, key);
  if (answer == KeyRead::kRead) settle(sealed, d, hash, key);
  // Nobody knows what it replaces, and it must not stay for ever.
  if (answer == KeyRead::kDamaged) say_settled(sealed, d);
}

void GlobalCache::say_settled(Link sealed, Descriptor& d) {
  std::uint64_t word = d.state.load(kAcquire);
  while (EntryWord::version(word) == sealed.version() && is_unsettled(word)) {
    if (d.state.compare_exchange_weak(word, word & ~EntryWord::kUnsettled, kAcqRel)) break;
  }
}

// What this instance writes in its slot for whoever recovers it may have been damaged since.
void GlobalCache::mend_own_area() {
  const auto mend = [](auto& pool, auto& links, auto& records) {
    for (std::uint32_t place = 0; place < records.size(); ++place) {
      const std::uint64_t named = records[place].load(kAcquire);
      const std::uint64_t link = links[place].load(kAcquire);
      if (named == link) continue;
      if (pool.claim_place(place)) {
        records[place].store(0, kRelease);
        pool.give_back(static_cast<int>(place));
      } else if (link != 0 && links[place].load(kAcquire) == link) {
        records[place].store(link, kRelease);
      }
    }
  };
  mend(fills_used_, fill_links_, area_.fills);
  mend(limbo_used_, limbo_links_, area_.limbo);
  pins_.mend();
}

void GlobalCache::tick() {
  look_after_memory();
  const Inside inside(*this);
  if (!inside) return;
  mend_own_area();
  for (std::uint32_t segment = 0; segment < memory_.nodes(); ++segment) {
    if (!memory_.lost(segment)) adopt_orphans(segment);
  }
  reclaim();
}

}  // namespace mcs::cache
