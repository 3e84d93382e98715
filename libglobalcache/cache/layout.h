// SPDX-License-Identifier: Apache-2.0
// Shared state of the cache room: descriptors, chains, space, and what each instance holds.
//
// Per segment, after the runtime's part: [state | purge log | buckets | clock bytes | arrivals |
// ghosts | descriptors | groups] and, as the
// payload, units of 256 bytes. An entry is one Descriptor (its index in the array never changes
// meaning: memory once a descriptor stays a descriptor), up to two extents of units, and a chain of
// Overflow descriptors for more. The bytes of an entry are one stream: key, head, body.
//
//   word                    written by                  order, and what a kill leaves
//   Descriptor.state        CAS                          the only word that decides what an entry is:
//     FREE -> FILLING       filler                       after its fills[] record names it
//     FILLING -> SEALED     filler                       after all sealed fields and the payload;
//                                                        unsettled until what it replaces is retired
//     FILLING -> RETIRED    filler (abort), recoverer
//     SEALED -> RETIRED     evictor, purger, replacer    after its limbo[] record names it, and, if
//                                                        it is unsettled, after those that it replaces
//     RETIRED -> RETIRED    its owner: cursor counts freed extents; unlinked flag; owner changes
//                           when a recoverer takes over
//     RETIRED -> FREE       its owner, when unlinked, unpinned and all extents are free
//     flag kSent            whoever is about to give whole pages of the payload to sendfile(2), and
//                           pins it; once, before the first time. The kernel may hold those pages
//                           long after the pin is gone, and after the process: so the flag stays
//                           while the entry is RETIRED, and its owner exchanges the pages for new
//                           ones (Segment::renew_payload) before it clears an extent's bits. A kill
//                           in between: the extent is not counted as freed, so it is done again.
//   Descriptor.progress     filler (fetch_add), waiters (fetch_or)
//   lengths, head_sum       filler                       before the first progress that followers see:
//                                                        key_bytes != 0 says that the head is there;
//                                                        the site beside it from the beginning
//   Descriptor.checked      filler (FILLING): where in the purge log it began, or, if what it stores
//                           was asked for before that (Key::asked), where the log was then
//   Descriptor.next         holder of the bucket's lock   one store links or unlinks
//   Bucket.head             holder of the bucket's lock   one store
//   Bucket.hint             filler, after SEALED         where the head's bytes probably are: readers
//                                                        prefetch from there and believe nothing
//   sealed fields           filler, before SEALED         covered by meta_sum
//   Descriptor.extents      filler (FILLING)              an extent is stored before extent_count
//   Group.bits              holder of the group's lock    the lock holder's OpRecord says what; a
//                                                        recoverer clears or keeps all of it
//   Ledger words            owner thread                  pin: store the link, full fence, re-read
//                                                        state; unpin: store 0. A dead owner's
//                                                        ledger is cleared by its recoverer.
//   clock byte, arrivals,   anybody, plain stores         hints of eviction.cc: losing an update, or
//   ghosts                                               reading an old one, is harmless
//   SiteTable.ids           one CAS                      a site has a number; the rest of the table are
//                                                        hints of sites.cc, counted again by the agent
//
// An entry's space is free only when its descriptor is FREE or no descriptor names it. Retired
// entries are freed by whoever's limbo names them, once no live ledger does.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "gsm-emu/domain.h"
#include "libglobalcache/runtime/layout.h"

namespace mcs::cache {

using runtime::InstanceId;
using runtime::OwnerLock;
using runtime::Word;

inline constexpr std::uint64_t kUnitBytes = 256;
inline constexpr std::uint32_t kGroupUnits = 448;  // 112 KiB, 28 pages of 4 KiB
inline constexpr std::uint64_t kGroupBytes = kGroupUnits * kUnitBytes;
inline constexpr std::uint32_t kPageUnits = gsm::kPageSize / kUnitBytes;
static_assert(kGroupUnits % kPageUnits == 0);

/// A chain link or pin: [segment 4 | segment incarnation 6 | index 24 | version 22 | mark 8].
/// All ones: the end of a chain. 0: nothing (an empty ledger word, lost memory).
struct Link {
  static constexpr std::uint64_t kEnd = ~0ULL;
  static constexpr std::uint64_t kMark = 0xe7;
  std::uint64_t value = 0;
  static constexpr Link make(std::uint32_t segment, std::uint64_t incarnation, std::uint64_t index,
                   std::uint64_t version) {
    return {(static_cast<std::uint64_t>(segment) << 60) | ((incarnation & 0x3f) << 54) |
            ((index & 0xffffff) << 30) | ((version & 0x3fffff) << 8) | kMark};
  }
  std::uint32_t segment() const { return static_cast<std::uint32_t>(value >> 60); }
  std::uint64_t incarnation() const { return (value >> 54) & 0x3f; }
  std::uint64_t index() const { return (value >> 30) & 0xffffff; }
  std::uint64_t version() const { return (value >> 8) & 0x3fffff; }
  bool is_end() const { return value == kEnd; }
  bool well_formed() const { return (value & 0xff) == kMark; }
  friend bool operator==(Link, Link) = default;
};
inline constexpr std::uint64_t kMaxDescriptors = 1ULL << 24;

enum class EntryState : std::uint8_t {
  kInvalid = 0,  // lost or damaged memory
  kFree = 1,
  kFilling = 2,
  kSealed = 3,
  kRetired = 4,
  kOverflow = 5,  // holds further extents of another descriptor
};

/// Descriptor.state: [version 22 | state 4 | owner slot + 1: 16 | cursor 18 | flags 4]. The cursor:
/// FILLING: purges seen; RETIRED: extents freed; OVERFLOW: which of its owner's records claimed it.
struct EntryWord {
  static constexpr std::uint64_t kUnlinked = 1;      // RETIRED: no longer in its chain
  static constexpr std::uint64_t kSent = 1;          // SEALED: the kernel may hold pages of it
  static constexpr std::uint64_t kPurgeCheck = 2;    // FILLING: purges ran since; cursor counts them
  static constexpr std::uint64_t kUnsettled = 2;     // SEALED: older entries of the key may be left
  static constexpr std::uint64_t kWasSent = 2;       // RETIRED: kSent was set
  static constexpr std::uint64_t kWasSealed = 4;     // RETIRED: its fields have their checksum
  static constexpr std::uint64_t kSoftPurged = 4;    // SEALED: to be treated as stale
  static constexpr std::uint64_t kPassedOver = 8;    // FILLING: silent too long, others may fill too
  static constexpr std::uint64_t kOverridden = 8;    // SEALED: another entry may hold a newer head
  static constexpr std::uint64_t kMaxCursor = (1ULL << 18) - 1;

  static std::uint64_t make(std::uint64_t version, EntryState state, std::uint32_t owner_plus_one,
                            std::uint64_t cursor = 0, std::uint64_t flags = 0) {
    return ((version & 0x3fffff) << 42) | (static_cast<std::uint64_t>(state) << 38) |
           (static_cast<std::uint64_t>(owner_plus_one & 0xffff) << 22) | (cursor << 4) | flags;
  }
  /// What a SEALED word becomes.
  static std::uint64_t retired(std::uint64_t w, std::uint32_t owner_plus_one) {
    return make(version(w), EntryState::kRetired, owner_plus_one, 0,
                kWasSealed | ((flags(w) & kSent) != 0 ? kWasSent : 0));
  }
  static std::uint64_t version(std::uint64_t w) { return w >> 42; }
  static EntryState state(std::uint64_t w) {
    const auto s = static_cast<std::uint8_t>((w >> 38) & 0xf);
    return s > 5 ? EntryState::kInvalid : static_cast<EntryState>(s);
  }
  static std::uint32_t owner_plus_one(std::uint64_t w) {
    return static_cast<std::uint32_t>(w >> 22) & 0xffff;
  }
  static std::uint64_t cursor(std::uint64_t w) { return (w >> 4) & kMaxCursor; }
  static std::uint64_t flags(std::uint64_t w) { return w & 0xf; }
};

/// [tag 4 = 0xe | segment 4 | check 9 | segment incarnation 6 | first unit 32 | units 9]; 0 is never an
/// extent. Inside one group. The check, and that the incarnation is the segment's, are looked at before
/// bits are cleared by an extent: what somebody else owns must not be given away because a word was
/// damaged.
struct Extent {
  static constexpr std::uint64_t kCheckMask = 0x1ffULL << 47;
  std::uint64_t value = 0;
  static Extent make(std::uint32_t segment, std::uint64_t first, std::uint64_t units,
                     std::uint64_t incarnation = 1) {
    const std::uint64_t plain = (0xeULL << 60) | (static_cast<std::uint64_t>(segment) << 56) |
                                ((incarnation & 0x3f) << 41) | ((first & 0xffffffff) << 9) | units;
    return {plain | check(plain)};
  }
  static std::uint64_t check(std::uint64_t word) {
    word = (word & ~kCheckMask) * 0x9e3779b97f4a7c15ULL;
    return ((word ^ (word >> 29)) * 0xbf58476d1ce4e5b9ULL >> 55) << 47;
  }
  std::uint64_t incarnation() const { return (value >> 41) & 0x3f; }
  bool well_formed() const { return (value >> 60) == 0xe && units() != 0; }
  bool sound() const { return well_formed() && (value & kCheckMask) == check(value); }
  std::uint32_t segment() const { return static_cast<std::uint32_t>(value >> 56) & 0xf; }
  std::uint64_t first() const { return (value >> 9) & 0xffffffff; }
  std::uint64_t units() const { return value & 0x1ff; }
  std::uint64_t bytes() const { return units() * kUnitBytes; }
  std::uint64_t group() const { return first() / kGroupUnits; }
  /// No page of it belongs to another extent too, so that all of it may be sent and exchanged.
  bool whole_pages() const { return first() % kPageUnits == 0 && units() % kPageUnits == 0; }
  friend bool operator==(Extent, Extent) = default;
};

/// The part of a descriptor that is written before SEALED and then constant.
struct SealedFields {
  std::uint64_t hash = 0;      // of the primary key, seeded per domain
  std::uint64_t body_sum = 0;  // XXH3 of the body
  std::uint64_t body_bytes : 44 = 0;
  std::uint64_t extent_count : 20 = 0;  // data extents; also the commit point while FILLING
  std::uint32_t key_bytes : 24 = 0;
  std::uint32_t site : 8 = 0;  // whose space it takes (SiteTable); 0: nobody's
  std::uint32_t head_bytes = 0;  // after the key
  std::array<std::uint64_t, 2> extents{};  // Extent
  std::uint32_t head_sum = 0;  // low half of XXH3 over key and head
  std::uint32_t meta_sum = 0;  // of the fields above, the overflow link and the version
};
static_assert(sizeof(SealedFields) == 56);

inline constexpr std::size_t kSealedWords = sizeof(SealedFields) / sizeof(Word);
inline constexpr std::size_t kHash2Word = 1;    // FILLING: the key's second hash
inline constexpr std::size_t kCountWord = 2;    // SealedFields word with extent_count
inline constexpr std::size_t kLengthsWord = 3;  // SealedFields word with key_bytes, site, head_bytes
inline constexpr std::uint64_t kKeyBytesMask = (1U << 24) - 1;  // of that word
inline constexpr std::size_t kExtentWord = 4;   // SealedFields word of extents[0]
inline constexpr std::size_t kSumsWord = 6;     // SealedFields word with head_sum and meta_sum
/// Descriptor.checked while FILLING: this bit and the sequence of the first purge that may concern it.
inline constexpr std::uint64_t kPurgeSequenceMark = 1ULL << 63;

struct alignas(32) Descriptor {
  Word state;
  Word next;      // Link
  Word checked;   // SEALED: wall clock ms of the last time the entry was known to be current, or
                  // whatever number its owner keeps there; FILLING: kPurgeSequenceMark | sequence
  Word progress;  // FILLING: [bytes of the body in place 44 | waiters 20: bit slot % 20]
  Word overflow;  // Link to the first Overflow; extents beyond two
  std::array<Word, kSealedWords> sealed;  // SealedFields; FILLING: word 1 is the key's second hash
};
static_assert(sizeof(Descriptor) == 96);
inline constexpr std::uint32_t kWaiterBits = 20;

inline constexpr std::uint32_t kOverflowExtents = 9;
struct alignas(32) Overflow {
  Word state;  // OVERFLOW
  Word next;   // Link to the next Overflow, or kEnd
  std::array<Word, kOverflowExtents> extents;
  Word sum;  // written when the entry is sealed: XXH3 of next and extents
};
static_assert(sizeof(Overflow) == sizeof(Descriptor));

struct Bucket {
  Word head;  // Link
  OwnerLock lock;
  Word hint;  // Extent
};

inline constexpr std::uint32_t kGroupWords = kGroupUnits / 64;
struct alignas(64) Group {
  OwnerLock lock;
  std::array<Word, kGroupWords> bits;  // 1 = in use
};
static_assert(sizeof(Group) == 64);

/// Phases of OpRecord.phase. a = Extent, b = Link of the entry, c = Link of an Overflow or 0,
/// d = number of the extent within the entry.
enum class Phase : std::uint64_t {
  kLocking = 1,   // nothing changed yet
  kMarking = 2,   // bits of a are being set, then a is attached to b, perhaps by way of c
  kClearing = 3,  // bits of a are being cleared, c is being freed, then b's cursor passes d
  kDone = 4,
  kChain = 5,  // a bucket's lock: its changes are single stores, nothing to repair
  kSetting = 6,  // all bits of a's group are being set as its owners say: until that is done again
                 // every unit counts as in use
};

inline constexpr std::uint32_t kFills = 128;
inline constexpr std::uint32_t kLimbo = 192;

/// The cache's part of an instance's slot; the ledger fills the rest of the slot.
struct CacheArea {
  Word ledger_high;  // ledger words from here on were never used
  Word waiting;      // how many requests of this instance wait for fills
  Word orphaning;    // Link of an entry that is being retired without an owner
  std::uint64_t unused[5];
  std::array<Word, kFills> fills;  // Link of a descriptor that is being, or was about to be, filled
  std::array<Word, kLimbo> limbo;  // Link of a descriptor that is, or was about to be, retired
};

/// Log of purges, one ring per segment. A fill reads the log of its descriptor's segment, from the
/// record that was next when it began or, if that was earlier, when the origin was asked. Records are read and written word by word; a reader that does
/// not meet the sequence it looks for, before and after, or whose sum fails, counts as matched: a
/// purger that was stopped in the middle may go on when the ring has come round, and write into the
/// record of another one.
inline constexpr std::uint32_t kPurgeRecords = 512;
inline constexpr std::uint32_t kPurgePattern = 208;
struct alignas(64) PurgeRecord {
  Word sequence;         // stored last; 0 = being written
  Word kind_and_length;  // length in the high half; > kPurgePattern: too long to keep, matches all
  std::array<Word, kPurgePattern / sizeof(Word)> pattern;
  Word sum;  // XXH3 of all the others
};
static_assert(sizeof(PurgeRecord) == 256);
struct PurgeLog {
  Word next;  // sequence of the next record, from 1
  std::uint64_t unused[7];
  std::array<PurgeRecord, kPurgeRecords> records;
};

/// Sites that have a share of the space of their own, by number; number 0 is everything else. The table
/// of the first segment that answers counts; the others have the same numbers.
inline constexpr std::uint32_t kSites = 64;
inline constexpr std::uint32_t kSiteName = 56;
struct alignas(64) SiteTable {
  std::array<Word, kSites> ids;      // hash of the name, 0: none
  std::array<Word, kSites> units;    // that its entries take, about
  std::array<Word, kSites> quota;    // units that they may take; 0: any number
  std::array<Word, kSites> reserve;  // units below which others' needs do not bring them
  std::array<Word, kSites> unnamed;  // recounts since a running configuration last named the site
  std::array<Word, kSites> hands;    // where eviction for the quota looks next
  std::array<std::array<Word, kSiteName / sizeof(Word)>, kSites> names;  // for people; ends with 0
};
inline constexpr std::uint32_t kSweepParts = 64;

/// SegmentState.settled: [how often it was undone 32 | generation of the view 32].
struct Settled {
  static std::uint64_t generation(std::uint64_t word) { return word & 0xffffffff; }
  static std::uint64_t undone(std::uint64_t word) { return ((word >> 32) + 1) << 32; }
  static std::uint64_t in(std::uint64_t word, std::uint32_t view) {
    return (word & ~0xffffffffULL) | view;
  }
};

/// What of this segment's space is in use, about (loans.h).
struct alignas(64) LoanTable {
  Word used;  // units
  Word hand;  // where the lender looks next for loans that it needs back
  std::uint64_t unused[6];
  std::array<Word, gsm::kMaxNodes> lent;  // units, by the borrower's segment
};

/// Small shared words of one segment.
struct alignas(64) SegmentState {
  Word clock_hand;   // next descriptor the evictor looks at
  Word orphans;      // not 0: retired entries without an owner may exist here
  Word damage;       // checks that failed here
  Word arrivals_in;   // arrivals stored; the newest is at (arrivals_in - 1) % arrivals
  Word arrivals_out;  // arrivals looked at again
  Word probation;     // units of the entries in between, about
  Word ghost_units;   // units evicted on probation, ever
  // Generation of the view for which this segment's space was compared with what owns it (undone if
  // whoever did it died in a group), and, of each part of its buckets and descriptors, for which the
  // index was rebuilt (rebuild.cc). CAS, upwards, after the work: a kill before it makes somebody else do
  // it again.
  Word settled;
  std::array<Word, kSweepParts> swept;
  SiteTable sites;
  LoanTable loans;
};

/// Clock byte of a descriptor; 0: FREE.
struct ClockByte {
  static constexpr std::uint8_t kUsed = 0x80;
  static constexpr std::uint8_t kProbation = 0x40;  // in the ring of arrivals
  static constexpr std::uint8_t kPassed = 0x20;     // the hand has met it on probation
  static constexpr std::uint8_t kSite = 0x1c;       // of which sites it may be, 0: of none
  static constexpr std::uint8_t kMaxUses = 3;
  static std::uint8_t uses(std::uint8_t byte) { return byte & 3; }
  static std::uint8_t site(std::uint64_t number) {
    return static_cast<std::uint8_t>(number == 0 ? 0 : (number % 7 + 1) << 2);
  }
};

/// One entry that arrived: [index 24 | version 22 | units 18].
struct Arrival {
  static constexpr std::uint64_t kMaxUnits = (1ULL << 18) - 1;
  std::uint64_t value = 0;
  static Arrival make(Link link, std::uint64_t units) {
    return {link.index() << 40 | link.version() << 18 | (units < kMaxUnits ? units : kMaxUnits)};
  }
  std::uint64_t index() const { return value >> 40; }
  std::uint64_t version() const { return (value >> 18) & 0x3fffff; }
  std::uint64_t units() const { return value & kMaxUnits; }
};

/// What was evicted on probation, a set-associative table: [tag 16 | time 16], 0 = nothing. Time is
/// SegmentState.ghost_units in 256ths of the segment's units.
struct alignas(64) GhostSet {
  std::array<std::atomic<std::uint32_t>, 16> ghosts;
};
static_assert(sizeof(GhostSet) == 64);

/// Descriptors for each word of the ring of arrivals, and for each set of ghosts.
inline constexpr std::uint64_t kDescriptorsPerArrival = 8;
inline constexpr std::uint64_t kDescriptorsPerGhostSet = 32;
/// What an entry costs beside its units: descriptor, bucket, clock byte, and its part of the two above.
inline constexpr std::uint64_t kMetadataPerEntry =
    sizeof(Descriptor) + sizeof(Bucket) + 1 + sizeof(Word) / kDescriptorsPerArrival +
    sizeof(GhostSet) / kDescriptorsPerGhostSet;
static_assert(kMetadataPerEntry <= 128);

/// Where things are in a segment. Stored in SegmentHeader::user[16..31].
struct CacheGeometry {
  std::uint64_t ledger_words = 0;
  std::uint64_t groups = 0;  // count, then offsets in bytes from the segment's start
  std::uint64_t buckets = 0;  // count
  std::uint64_t descriptors = 0;  // count
  std::uint64_t groups_at = 0;
  std::uint64_t buckets_at = 0;
  std::uint64_t clock_at = 0;
  std::uint64_t arrivals = 0;  // count
  std::uint64_t arrivals_at = 0;
  std::uint64_t ghost_sets = 0;  // count
  std::uint64_t ghosts_at = 0;
  std::uint64_t descriptors_at = 0;
  std::uint64_t state_at = 0;
  std::uint64_t purge_log_at = 0;
  std::uint64_t end = 0;

  void store(std::uint64_t* user) const;
  static CacheGeometry load(const std::uint64_t* user);
};

/// How a domain of this size is divided.
struct CachePlan {
  runtime::RuntimeGeometry runtime;
  CacheGeometry cache;
  std::uint64_t meta_bytes = 0;
};
struct PlanOptions {
  std::uint32_t nodes = 1;
  std::uint64_t bytes_per_node = 256ULL << 20;
  std::uint32_t instances = 1024;        // of the whole domain
  std::uint64_t ledger_words = 0;        // pins per instance; 0: chosen by size
  std::uint64_t bytes_per_entry = 2048;  // expected mean size, decides the number of descriptors
};
CachePlan plan(const PlanOptions& options);

/// Initialise the cache's part (and the runtime's) of a new segment.
void format(gsm::Segment& segment);

/// Hash of everything a build must agree on to share a domain.
std::uint64_t layout_hash();

/// Map an existing domain of this build's layout. kDamaged: a segment is not divided as plan() divides
/// it; its header decides where every access goes, so it is not believed then.
Result<std::unique_ptr<gsm::Domain>> open(const std::string& directory, const std::string& name);

}  // namespace mcs::cache
