// SPDX-License-Identifier: Apache-2.0
// GlobalCache: the web cache as a component. Finds, fills, retires and frees entries; knows nothing
// of HTTP (a key and a head are bytes).
//
// Crash behaviour: a process may die at any store inside any of these functions. What it held (pins,
// fills, retired entries, locks) is named in its own slot, and whoever recovers it gives that back;
// nothing else is touched, so the cost follows what it held, not the size of the cache.
#pragma once

#include <functional>
#include <map>
#include <mutex>

#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <vector>

#include "libglobalcache/cache/checksum.h"
#include "libglobalcache/cache/index.h"
#include "libglobalcache/cache/memory.h"
#include "libglobalcache/cache/pins.h"
#include "libglobalcache/cache/remote_uses.h"
#include "libglobalcache/cache/sites.h"
#include "libglobalcache/cache/space.h"
#include "libglobalcache/runtime/instance.h"

namespace mcs::cache {

/// A key and its seeded hashes. The bytes belong to the caller. Variants of one resource share
/// `primary` (and so the bucket); the whole key is primary followed by variant.
/// How far the logs of purges had come.
struct PurgeMarks {
  std::uint32_t view = 0;  // in which view
  std::array<std::uint64_t, gsm::kMaxNodes> next{};
  friend bool operator==(const PurgeMarks&, const PurgeMarks&) = default;
};

struct Key {
  std::string_view primary;
  std::string_view variant;
  std::uint64_t hash = 0;   // of primary
  std::uint64_t hash2 = 0;  // of the whole key; decides who waits for whose fill, never what is served
  const SiteRules* site = nullptr;  // whose space its entries take; nullptr: nobody's
  /// When what a fill will store was asked for, if that is before it begins: a purge since then is one
  /// of what it stores. nullptr: it is asked for after it has begun.
  const PurgeMarks* asked = nullptr;

  std::size_t size() const { return primary.size() + variant.size(); }
};

/// A pinned, verified entry: its descriptor's fields copied and checked, its head copied, checked
/// and compared with the key. Valid until released.
struct Hit {
  Link link;
  Descriptor* descriptor = nullptr;
  SealedFields fields;
  std::uint64_t overflow = Link::kEnd;
  std::int64_t checked_ms = 0;
  bool soft_purged = false;
  bool overridden = false;
  int pin = -1;
  std::vector<Extent> extents;
  std::vector<std::byte> copy;      // key and head; of what is small the body too
  std::span<const std::byte> head;  // without the key
  bool has_body = false;            // `copy` has it, not verified
  std::uint64_t hash2 = 0;          // Key::hash2

  std::uint64_t body_bytes() const { return fields.body_bytes; }
};

enum class Found {
  kMiss,     // no sealed entry
  kHit,
  kNoPin,    // there is one, but this instance's ledger is full
  kDamaged   // something failed its check; treated as a miss by callers
};

struct FindResult {
  Found found = Found::kMiss;
  Link filling;  // not 0: an instance is filling this key (besides a possible hit)
};

enum class Begin {
  kFilling,  // the fill is ours
  kOther,    // somebody else fills this key, or has just filled it: look again
  kNoSpace,  // no descriptor or slot to be had
  kBusy      // a lock is held by a stopped process, or this one was expelled
};

enum class Append {
  kOk,
  kNoSpace,
  kFailed  // lost memory or a lock that stays busy
};

class GlobalCache;

/// A fill in progress: the lease on a key. Abandoned by the recoverer if the process dies.
/// One thread at a time.
class Fill {
 public:
  Fill() = default;
  Fill(Fill&& other) noexcept { *this = std::move(other); }
  Fill& operator=(Fill&& other) noexcept;
  ~Fill() { abort(); }

  explicit operator bool() const { return cache_ != nullptr; }

  /// File the entry under another variant of the same primary key, before set_head. Whoever looks
  /// for that variant finds this fill from now on.
  void rename(const Key& key);
  /// The head (any bytes) and, if known, the body's length in bytes, before the first append.
  void set_head(std::span<const std::byte> head, std::optional<std::uint64_t> body_bytes);
  /// Add to the body. Small bodies are collected and written with the head in one system call.
  Append append(std::span<const std::byte> bytes);
  /// Make the head and everything appended so far readable by followers, and wake those who wait.
  Append flush();
  /// Somebody has announced to wait for this fill.
  bool has_waiters() const;
  std::uint64_t body_bytes() const { return body_bytes_; }
  /// Followers can read the head.
  bool is_shown() const { return head_shown_; }
  /// Seal and publish; the older entry of the key is retired. checked_ms: wall clock. False: the
  /// entry is not in the cache (no space, purged or expelled meanwhile); the fill is over.
  bool commit(std::int64_t checked_ms);
  void abort();
  Link link() const { return link_; }

 private:
  friend class GlobalCache;
  Append write(std::span<const std::byte> bytes);

  GlobalCache* cache_ = nullptr;
  Link link_;
  Descriptor* descriptor_ = nullptr;
  int slot_ = -1;
  std::string key_;
  std::uint64_t hash_ = 0;
  std::uint32_t site_ = 0;
  std::uint32_t view_ = 0;         // generation in which it was linked
  std::uint64_t purges_seen_ = 0;  // sequence of the first purge that may concern this fill
  std::uint32_t head_bytes_ = 0;
  std::uint32_t head_sum_ = 0;
  std::optional<std::uint64_t> expected_;
  std::uint64_t body_bytes_ = 0;
  std::uint64_t written_ = 0;    // of the stream
  std::uint64_t capacity_ = 0;   // bytes of all extents
  std::uint64_t reported_ = 0;   // body bytes told to followers
  std::vector<Extent> extents_;
  std::vector<std::byte> stage_;
  std::vector<std::byte> head_;
  std::unique_ptr<Checksum> body_sum_;  // once the body does not fit into stage_
  bool head_set_ = false;
  bool head_shown_ = false;
  bool failed_ = false;
  // The entry that this one is a copy of, nearer to its readers; it takes no loans then.
  Link moved_;
  std::uint64_t moved_word_ = 0;
};

/// An entry that is being filled by somebody, pinned, its head copied and verified.
struct Follow {
  Link link;
  Descriptor* descriptor = nullptr;
  int pin = -1;
  std::uint32_t key_bytes = 0;
  std::uint32_t head_bytes = 0;
  std::vector<Extent> extents;
  std::vector<std::byte> head_copy;  // key and head

  std::string_view key() const {
    return {reinterpret_cast<const char*>(head_copy.data()), key_bytes};
  }
  std::span<const std::byte> head() const {
    return std::span<const std::byte>(head_copy).subspan(key_bytes);
  }
};

enum class Following {
  kNoHead,    // nothing to read yet
  kArriving,  // more may come
  kComplete,  // all of the body is there and will stay so while it is pinned
  kBroken     // the fill was given up, or its memory is lost
};

enum class PurgeKind : std::uint32_t { kKey = 1, kPrefix = 2, kWildcard = 3, kTag = 4, kAll = 5 };

/// Whether a purge meets an entry: its whole key, and its head, empty if that is not known yet (then
/// "maybe" is true). The same function in every process of a domain. Any thread; must not throw.
using PurgeMatcher = bool (*)(PurgeKind kind, std::string_view pattern, std::string_view whole_key,
                              std::span<const std::byte> head);

/// Bodies up to this size are copied, verified and released; larger ones are sent pinned. Bytes.
inline constexpr std::uint64_t kCopyLimit = 16384;

/// Which of N places are in use; private to one process. Thread-safe.
template <std::uint32_t N>
class BitPool {
 public:
  /// A free place, or -1.
  int claim() {
    for (std::uint32_t w = 0; w < N / 64; ++w) {
      std::uint64_t used = words_[w].load(std::memory_order_relaxed);
      while (used != ~0ULL) {
        const int bit = std::countr_one(used);
        if (words_[w].compare_exchange_weak(used, used | (1ULL << bit), std::memory_order_acquire,
                                            std::memory_order_relaxed)) {
          return static_cast<int>(w * 64) + bit;
        }
      }
    }
    return -1;
  }
  /// A place that is known to be in use.
  void take(std::uint32_t place) {
    words_[place / 64].fetch_or(1ULL << (place % 64), std::memory_order_release);
  }
  /// That place, if it is free.
  bool claim_place(std::uint32_t place) {
    const std::uint64_t bit = 1ULL << (place % 64);
    return (words_[place / 64].fetch_or(bit, std::memory_order_acquire) & bit) == 0;
  }
  void give_back(int place) {
    const auto p = static_cast<std::uint32_t>(place);
    words_[p / 64].fetch_and(~(1ULL << (p % 64)), std::memory_order_release);
  }
  bool in_use(std::uint32_t place) const {
    return (words_[place / 64].load(std::memory_order_acquire) >> (place % 64) & 1) != 0;
  }
  std::uint32_t count() const {
    std::uint32_t n = 0;
    for (const auto& word : words_) {
      n += static_cast<std::uint32_t>(std::popcount(word.load(std::memory_order_relaxed)));
    }
    return n;
  }

 private:
  static_assert(N % 64 == 0);
  std::array<std::atomic<std::uint64_t>, N / 64> words_{};
};

/// A call is at work that writes to shared memory under the instance's name.
class Inside {
 public:
  explicit Inside(GlobalCache& cache);
  ~Inside();
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
  /// False: nothing may be begun any more.
  explicit operator bool() const { return ok_; }

 private:
  GlobalCache& cache_;
  bool ok_;
};

class GlobalCache final : public runtime::RecoverySteps {
 public:
  /// `instance` has joined and is not yet active. `wake`: tell the instance in a slot that a fill
  /// it may wait for has ended or moved; called without locks, may be empty.
  GlobalCache(gsm::Domain& domain, runtime::Instance& instance,
              std::function<void(std::uint32_t slot)> wake = {});

  Key make_key(std::string_view primary, std::string_view variant = {}) const;
  /// The key of another variant, without hashing the primary key again. `base` has no variant.
  Key variant_of(const Key& base, std::string_view variant) const;

  /// Look a key up; on kHit `hit` is pinned and must be released.
  FindResult find(const Key& key, Hit& hit);
  void release(Hit& hit) {
    if (hit.pin >= 0) pins_.unpin(hit.pin);
    hit.pin = -1;
  }
  /// Whether what was read from the entry until now was its own. False: the pin was lost with the
  /// instance that stored it, and the entry is not there any more.
  bool is_held(const Hit& hit) const;
  /// Copy `n` bytes of the body from `offset`; false: lost.
  bool read_body(const Hit& hit, std::uint64_t offset, void* to, std::size_t n) const;
  /// The whole body into private memory, compared with its checksum.
  bool read_verified(const Hit& hit, void* to) const;
  /// Compare a pinned body with its checksum where it lies.
  bool verify_body(const Hit& hit) const;
  /// The body as pieces of mapped payload (for copying system calls), adjacent ones joined.
  void body_pieces(const Hit& hit, std::vector<std::span<const std::byte>>& pieces) const;
  /// Which extents of an entry that is pinned may be given to sendfile(2) from now on: those of whole
  /// pages, where the segment allows it. Costs a store the first time.
  void allow_sendfile(Link pinned, std::vector<Extent>& extents);
  /// Count a use (a saturating hint).
  void touch(const Hit& hit);
  /// The entry was compared with its origin now and is still current.
  void set_checked(const Hit& hit, std::int64_t wall_ms) const;
  /// Add 1 to that word, for entries that keep a count there. Returns the count before.
  std::uint64_t count_checked(const Hit& hit) const;

  /// Become the one that fills this key. `seen`: the entry that find gave and that is to be
  /// replaced; another one found now answers kOther, unless `insist` (after having looked again).
  Begin begin(const Key& key, Fill& fill, Link seen = {}, bool insist = false);
  /// Register interest in a fill; afterwards look again before waiting.
  void announce_wait(Link filling);
  bool still_filling(Link filling) const;
  /// How far a fill has come: grows when its head and when bytes of its body can be read. 0: nothing
  /// can be read yet; all ones: it has ended.
  std::uint64_t fill_progress(Link filling) const;
  /// The fill has been silent for too long: from now on somebody else may fill the key besides.
  void pass_over(Link filling);

  /// Pin a fill in progress and copy its head. kNoHead, kBroken: `follow` is not pinned.
  Following follow(Link filling, Follow& follow);
  /// Where it stands; `bytes`: how many of its body can be read, all of them if kComplete.
  Following follow_state(const Follow& follow, std::uint64_t& bytes) const;
  /// Copy `n` bytes of the body from `offset`, which follow_state said can be read; false: lost.
  bool follow_read(Follow& follow, std::uint64_t offset, void* to, std::size_t n) const;
  /// kComplete: the body's checksum as it was stored.
  std::uint64_t follow_sum(const Follow& follow) const;
  void release(Follow& follow);

  /// Retire the sealed entry (evict, purge, replace). False: it is not there any more, or nothing
  /// can be retired now.
  bool retire(Link link);

  /// Set a sealed entry's flag kSoftPurged, kOverridden or kSent. False: it is not sealed any more.
  bool set_flag(Link link, std::uint64_t flag);

  /// Before the instance becomes active. Without a matcher only keys are told apart.
  void set_purge_matcher(PurgeMatcher matcher) { purge_matcher_ = matcher; }
  /// Retire everything the pattern matches, and let nothing that is being filled now and matches be
  /// stored. `soft`: mark sealed entries instead. kKey: `pattern` is a primary key. Returns how many
  /// sealed entries it met; nothing: the instance's slot is lost, and nothing was purged.
  std::optional<std::uint64_t> purge(PurgeKind kind, std::string_view pattern, bool soft = false);
  /// For Key::asked, taken before the origin is asked.
  PurgeMarks purge_marks() const;

  /// Free what is retired and unpinned. Returns units freed. Unless `wait`, does nothing while
  /// another thread of this process is at it.
  std::uint64_t reclaim(bool wait = false);
  /// Make room: retire what is least worth keeping. False: nothing could be retired.
  bool evict_some(std::uint32_t segment, std::uint64_t units);
  void tick();
  /// Count what each site takes, if there is one, and, if there are several nodes, what of each segment
  /// is used and lent; not again after a moment unless `at_once`. Looks at every descriptor: for the
  /// agent, or whoever does its work. One thread at a time.
  void recount(bool at_once = false);

  /// Where memory of other nodes is slow: bring what this process keeps reading there into the memory of
  /// its own node. At most about `bytes` of bodies; the rest the next time. Returns how many entries.
  std::uint32_t bring_near(std::uint64_t bytes = 1 << 20);
  /// Move one entry into the memory of our node. `hash2`: Key::hash2 of its key. `bytes` becomes what is
  /// left of it. False: it stays, or is gone.
  bool bring_here(Link link, std::uint64_t hash2, std::uint64_t& bytes);

  /// Notice lost memory and new views, and take part in rebuilding the index: tick() without what can
  /// wait. Cheap while nothing has changed: a system call for each segment.
  void look_after_memory();
  /// All entries on the view's segments are in their chains again.
  bool index_is_whole() const;
  /// Whether the segment with this instance's own slot is lost: it has to join anew.
  bool is_homeless() const {
    return instance_.is_homeless() ||
           memory_.lost(static_cast<std::uint32_t>(
               instance_.slot_number() / instance_.geometry().slots_per_node));
  }
  /// Before another instance takes this one's place in the process. Nothing is begun any more, fills
  /// fail; hits in use stay readable. False: a thread is still at work; ask again.
  bool retire_instance();

  /// Give back everything before Instance::leave.
  void leave();

  void repair_operation(const runtime::DeadInstance& dead, runtime::OpRecord& op) override;
  bool take_over(const runtime::DeadInstance& dead, runtime::RecoveryCounts& counts) override;
  std::uint32_t pass_on(InstanceId expelled) override;

  const Memory& memory() const { return memory_; }
  Pins& pins() { return pins_; }
  Space& space() { return space_; }
  const Sites& sites() const { return sites_; }
  const Index& index() const { return index_; }
  runtime::Instance& instance() { return instance_; }

  /// The key and head of an entry that is pinned or otherwise certain; false: lost or damaged.
  bool read_head(const SealedFields& fields, const std::vector<Extent>& extents,
                 std::vector<std::byte>& out) const;

 private:
  friend class Fill;
  friend class Repairer;
  void mend_own_area();
  bool copy_stream(const std::vector<Extent>& extents, std::uint64_t offset, void* to,
                   std::size_t n) const;
  bool read_copy(const SealedWords& words, Hit& hit) const;
  bool load_hit(Link link, Descriptor& d, const Key& key, Hit& hit, Found& outcome);
  std::uint32_t own_or_next() const;
  SpaceAnswer make_room(Link entry, Descriptor& d, std::uint64_t units, bool local,
                        std::vector<Extent>& out);
  Begin begin_for(const Key& key, std::uint32_t site, Fill& fill, Link seen, bool insist);
  static bool flag_for_purge(Link link, Descriptor& d);
  /// An entry that is about to be retired, and what its site has less then.
  struct SiteCost {
    std::uint32_t site = 0;
    std::uint64_t units = 0;
  };
  SiteCost cost_of(const Descriptor& d) const;
  bool unlink(Link link, Descriptor& d);
  int claim_limbo(Link link);
  void drop_limbo(int place);
  void keep_limbo(int place);
  bool retire_as(Link link, Descriptor& d, std::uint64_t expected);
  bool retire_as_orphan(Link link, Descriptor& d);
  /// Counted only when the entry is retired: an adopter that looks before forgets the count. Until
  /// then a record of this instance names the entry, so that its recoverer counts it.
  void count_orphan(Link link) { memory_.state(link.segment()).orphans.fetch_add(1); }
  void wake_waiters(Link filling, const Descriptor& d);
  /// Whoever retired a fill may have died before it woke who waits for it.
  void wake_if_was_filling(Link retired, const Descriptor& d, std::uint64_t word) {
    if ((EntryWord::flags(word) & EntryWord::kWasSealed) == 0) wake_waiters(retired, d);
  }
  void report_filler(Link filling, std::uint64_t word);
  enum class KeyRead { kRead, kGone, kDamaged };
  KeyRead read_key(Link link, const Descriptor& d, std::string& key);
  bool retire_duplicates(Link sealed, std::uint64_t hash, std::string_view whole_key);
  /// Retire what a sealed entry replaces, and say so in its word: only then may it be retired itself,
  /// else what it replaced could be found again.
  void settle(Link sealed, Descriptor& d, std::uint64_t hash, std::string_view whole_key);
  void settle(Link sealed, Descriptor& d);
  void say_settled(Link sealed, Descriptor& d);
  bool replace_moved(Link copy, Descriptor& d, Link moved, std::uint64_t word);
  bool retire_settled(Link link, Descriptor& d);
  // Eviction, see eviction.cc.
  void admit(Link link, const SealedFields& fields);
  void inherit_use(Link entry, Link replaced) const;
  bool is_ghost(std::uint32_t segment, std::uint64_t hash) const;
  void add_ghost(std::uint32_t segment, std::uint64_t hash, std::uint64_t units);
  std::uint64_t evict(Link link, Descriptor& d, std::uint64_t word, const SiteUnits* reserves);
  std::uint64_t evict_arrival(std::uint32_t segment, const SiteUnits* reserves);
  std::uint64_t evict_at_hand(std::uint32_t segment, const SiteUnits* reserves, bool& others);
  /// `nothing`: set if no entry there could go.
  bool evict_until(std::uint32_t segment, std::uint64_t units, const SiteUnits* reserves,
                   bool* nothing = nullptr);
  bool recall(std::uint64_t units);
  bool is_reserved(const SealedFields& fields, const SiteUnits* reserves) const;
  std::uint64_t filling_units(std::uint32_t site) const;
  bool keep_quota(std::uint32_t site, std::uint64_t units);
  // Rebuilding, see rebuild.cc.
  friend class Inside;
  void carry_over();
  bool rebuild();
  bool sweep_chains(std::uint32_t segment, std::uint32_t part);
  bool sweep_entries(std::uint32_t segment, std::uint32_t part);
  bool sweep_entry(Link link, Descriptor& d);
  bool link_again(Link link, Descriptor& d, std::uint64_t hash);
  bool is_gone(InstanceId id) const;
  bool is_gone(std::uint32_t owner_plus_one, Link link) const;
  bool has_lost_owner(std::uint32_t owner_plus_one, Link link) const;
  void release_orphaned(const OwnerLock& lock);
  bool space_is_settled() const;
  void settle_space();
  bool count_damage(std::uint32_t segment);
  bool retire_everywhere(Link kept, std::uint64_t hash, std::string_view whole_key);
  void keep_inherited_limbo(runtime::RecoveryCounts& counts);
  void adopt_retired(Link link, Descriptor& d, std::uint32_t their_owner,
                     runtime::RecoveryCounts& counts);
  bool in_limbo(Link link) const;
  /// True: its waiters were woken.
  bool retire_filling(Link link, Descriptor& d, std::uint64_t owner_plus_one);
  void adopt_orphans(std::uint32_t segment);
  bool fills(const Key& key, Link link, const Descriptor& d, std::uint64_t word) const;
  bool purge_matches(PurgeKind kind, std::string_view pattern, std::string_view whole_key,
                     std::span<const std::byte> head) const;
  bool purged_since(std::uint32_t segment, std::uint64_t sequence, std::string_view whole_key,
                    std::span<const std::byte> head) const;

  Memory memory_;
  runtime::Instance& instance_;
  Pins pins_;
  Space space_;
  Index index_;
  Sites sites_;
  std::uint64_t next_recount_ns_ = 0;
  SiteUnits sites_seen_{};  // of Sites::age
  /// Per node: until then all entries there are taken to be reserved.
  std::array<std::atomic<std::uint64_t>, gsm::kMaxNodes> nothing_until_ns_{};
  CacheArea& area_;
  std::function<void(std::uint32_t)> wake_;
  PurgeMatcher purge_matcher_ = nullptr;
  std::uint64_t seed_;
  // Which fills[] and limbo[] words are in use; private to the process.
  BitPool<kFills> fills_used_;
  BitPool<kLimbo> limbo_used_;
  BitPool<kLimbo> limbo_ready_;  // of those in use: entries that are ours, for reclaim() to free
  // What the words in use should say.
  std::array<Word, kFills> fill_links_{};
  std::array<Word, kLimbo> limbo_links_{};
  mutable std::atomic<std::uint32_t> whole_{0};  // a view in which the index was known to be whole
  // Units that belonged to nobody when the space was compared last, in groups that were in use then; by
  // segment and group. Of whoever holds rebuild_mutex_, like the others before that.
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::array<std::uint64_t, kGroupWords>> loose_;
  std::set<std::uint64_t> loose_blocks_;  // links of overflow blocks that no entry named
  std::uint32_t loose_of_ = 0;  // view
  std::array<std::uint64_t, gsm::kMaxNodes> loose_settled_{};  // SegmentState.settled, before that
  std::uint32_t carried_ = 0;  // view; likewise
  std::mutex rebuild_mutex_;
  std::atomic<bool> left_{false};        // another instance has this one's place, or is about to
  std::atomic<std::uint32_t> inside_{0};  // calls that write to shared memory
  RemoteUses remote_uses_;
  std::mutex reclaim_mutex_;
  std::uint32_t reclaim_from_ = 0;  // where the next pass begins
  std::mutex orphan_mutex_;  // area_.orphaning is one word
};

}  // namespace mcs::cache
