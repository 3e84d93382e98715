// SPDX-License-Identifier: Apache-2.0
// One walk of the verifier over a domain: what looks wrong now. See verify.h.
#pragma once

#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "libglobalcache/cache/inspect.h"
#include "libglobalcache/cache/verify.h"

namespace mcs::cache {

/// One bit per unit of space.
class UnitMap {
 public:
  UnitMap(std::uint32_t segments, std::uint64_t groups);
  /// Set an extent's bits; those that were set already are set in `twice` as well.
  void add(Extent extent, UnitMap* twice = nullptr);
  std::uint64_t count() const;
  bool any() const;
  std::vector<std::uint64_t>& words(std::uint32_t segment) { return words_[segment]; }
  const std::vector<std::uint64_t>& words(std::uint32_t segment) const { return words_[segment]; }
  UnitMap& operator&=(const UnitMap& other);
  UnitMap& operator|=(const UnitMap& other);
  /// Runs of set bits, none longer than a group.
  std::vector<Extent> runs(std::size_t max) const;

 private:
  std::vector<std::vector<std::uint64_t>> words_;
};

class Scan {
 public:
  /// `contents`: links of the sealed entries whose bytes are to be checked; nullptr: all.
  Scan(const View& view, runtime::Liveness& liveness, const VerifyOptions& options,
       const std::set<std::uint64_t>* contents);
  void run();

  // What was found; the key of a suspicion holds the words it was derived from.
  std::map<std::string, Problem> suspicions;
  UnitMap leaked;   // marked in use, owned by nobody
  UnitMap missing;  // owned, but marked free
  UnitMap shared;   // owned more than once
  std::set<std::uint64_t> bad_contents;
  bool dead_instances = false;
  VerifyReport counts;

  /// "node 0 descriptor 5 version 7" of those that own any unit of `extent`.
  std::string owners_of(Extent extent) const;

 private:
  struct Operation {
    Phase phase;
    Extent extent;
    Link entry;
    Link overflow;
    std::uint64_t number;
  };
  struct Owned {
    std::vector<Extent> extents;
    std::vector<Link> blocks;
    std::string flaw;
  };

  void suspect(const char* kind, std::string where, std::string detail,
               std::initializer_list<std::uint64_t> evidence, Flaw flaw = {});
  std::string who(std::uint32_t slot) const;
  std::string place(Link link) const;

  void read_bits(std::vector<std::vector<std::uint64_t>>& bits) const;
  void read_operations();
  void check_headers();
  void check_slots();
  void check_free_slot(std::uint32_t slot, std::uint64_t word);
  void check_ledger(std::uint32_t slot, std::uint64_t word);
  void check_names(std::uint32_t slot, std::uint64_t word);
  void check_lock(const char* what, std::uint32_t segment, std::uint64_t number, const Word& lock);
  void check_locks();
  bool is_alive(std::uint32_t slot) const;
  bool is_member(std::uint32_t slot, std::uint64_t word) const;
  bool named_by_op(runtime::InstanceId holder, std::uint64_t ref) const;

  void check_descriptors();
  void check_descriptor(std::uint32_t segment, std::uint64_t index);
  Owned owned_by(const Descriptor& d, Link link, std::uint64_t word) const;
  bool owner_names(std::uint32_t owner_plus_one, Link link, bool filling) const;
  void check_owner(const Descriptor& d, Link link, std::uint64_t word);
  void check_contents(const Descriptor& d, Link link);
  std::string flaw_of(const Descriptor& d, Link link);
  void check_overflows();

  void check_chains();
  void check_chain(std::uint32_t segment, std::uint64_t bucket);
  void check_duplicates(const std::vector<std::pair<std::uint64_t, Link>>& sealed);
  void check_reachable();
  void check_space();

  bool lost(std::uint32_t segment) const { return view_.memory().lost(segment); }

  const View& view_;
  const Memory& memory_;
  runtime::Liveness& liveness_;
  const VerifyOptions& options_;
  const std::set<std::uint64_t>* contents_;
  std::vector<std::vector<std::uint64_t>> bits_before_;
  std::vector<std::vector<std::uint64_t>> bits_after_;
  UnitMap owned_;
  UnitMap in_operation_;
  std::unordered_map<std::uint64_t, Operation> clearing_;  // by Link of the entry
  std::set<std::uint64_t> operation_blocks_;
  std::unordered_map<std::uint64_t, unsigned> block_owners_;  // by Link of the block
  std::vector<Link> overflows_;
  std::vector<Link> sealed_;
  std::vector<std::vector<bool>> linked_;
  std::set<std::pair<std::uint32_t, std::uint64_t>> unread_chains_;  // home and bucket
  std::vector<std::byte> buffer_;
};

}  // namespace mcs::cache
