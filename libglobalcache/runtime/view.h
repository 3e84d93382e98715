// SPDX-License-Identifier: Apache-2.0
// The view: which nodes belong to the domain, which segments answer. Decided by a ballot in the
// segments themselves, without a lock; docs/protocols/agreement.md says why, agreement.pml proves it.
//
//   word        written by                        a kill leaves
//   ViewArea.view   any member: CAS from an older view to W, all segments in ascending order; then
//                   CAS from what is no view to W, where W is decided and has that segment
//                                                 a prefix of the segments with W: whoever sees it
//                                                 runs the same ballot before he acts upon it
//
// A word that is 0 or whose checksum is wrong is no view: that copy is lost, and grants nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "gsm-emu/domain.h"
#include "libglobalcache/runtime/layout.h"

namespace mcs::runtime {

/// One view. In shared memory one word: [checksum 8 | generation 24 | members 16 | segments 16].
struct View {
  std::uint32_t generation = 0;  // from 1; 0 is no view
  std::uint16_t members = 0;     // bit per node
  std::uint16_t segments = 0;    // bit per node whose segment answers

  bool has_member(std::uint32_t node) const { return (members >> node & 1) != 0; }
  bool has_segment(std::uint32_t node) const { return (segments >> node & 1) != 0; }
  std::uint64_t word() const;
  /// Nothing if the word is no view of a domain of `nodes` nodes.
  static std::optional<View> from(std::uint64_t word, std::uint32_t nodes);
  /// All nodes and all segments.
  static View first(std::uint32_t nodes);

  friend bool operator==(const View&, const View&) = default;
};

/// The views of a domain as one process sees them. Thread-safe; no function waits for anybody.
class Views {
 public:
  /// `domain` must outlive it and be formatted by the layers above.
  explicit Views(gsm::Domain& domain);

  /// The latest view in any segment that answers, be it decided or not; of two of one generation
  /// that of the lower segment. Nothing: no segment has one. Reads one word per segment.
  std::optional<View> current() const;

  /// The view that this process acts upon: decided, and the latest that look() or propose() met.
  /// One private word. Generation 0: none yet.
  View mine() const { return unpack(mine_.load(std::memory_order_acquire)); }

  /// Bring mine() up to date: a later view is completed first, as its proposer would have done.
  View look();

  /// The ballot: make `want` the next view. Its generation must be that of mine() + 1, else nothing
  /// is done. What is decided becomes mine() and is the answer: another view if somebody was first.
  View propose(const View& want);

  /// Write the decided view into segments of it whose copy is lost; where another one lies that nobody
  /// acted upon, decide a next view with the same nodes and segments. Returns how many were not right.
  unsigned repair();

  ViewArea& area(std::uint32_t node) const;
  std::uint32_t nodes() const { return nodes_; }

 private:
  static std::uint64_t pack(const View& v) {
    return (static_cast<std::uint64_t>(v.generation) << 32) |
           (static_cast<std::uint64_t>(v.members) << 16) | v.segments;
  }
  static View unpack(std::uint64_t word) {
    return {static_cast<std::uint32_t>(word >> 32), static_cast<std::uint16_t>(word >> 16),
            static_cast<std::uint16_t>(word)};
  }
  std::optional<View> read(std::uint32_t node) const;
  bool ballot(View& want);
  void spread(const View& decided);
  View act_upon(const View& decided);

  gsm::Domain& domain_;
  std::uint32_t nodes_;
  std::uint64_t at_;  // of the ViewArea in each segment
  std::atomic<std::uint64_t> mine_{0};
};

}  // namespace mcs::runtime
