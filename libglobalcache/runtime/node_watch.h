// SPDX-License-Identifier: Apache-2.0
// Which nodes still live, as the agent of one node sees it: heartbeats, accusations, challenges, and
// the views that follow from them. docs/protocols/agreement.md, "Suspicion".
//
//   word               written by                        meaning
//   heartbeat[node]    the node's agent, every tick      [counter 48 | bit per segment it reaches 16];
//                                                        0: no agent there, so nobody judges the node
//   accused[node]      the node's agent                  [generation 32 | bit per node 16 | 0 16]
//   challenge[node]    challenger: CAS 0 -> number; the node's agent: CAS -> 0 as its answer
//   asks[node]         the node's agent: 1 while it wants to be admitted; a member proposes it
//
// All of these are hints: written to every segment that answers, read from the first one that does.
// Losing them, or a death at any store, costs time only.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <functional>

#include "libglobalcache/runtime/view.h"

namespace mcs::runtime {

class NodeWatch {
 public:
  struct Options {
    std::uint32_t limit_ms = 1000;  // how long a heartbeat may stand still
    std::uint32_t tick_ms = 50;     // how often tick() is called
    /// Whether all processes of a node have ended, by evidence that needs no second opinion. Empty:
    /// there is no such evidence, since nodes have kernels of their own.
    std::function<bool(std::uint32_t node)> certainly_gone;
    /// With certainly_gone: a number that changes while a process of the node gets on, its agent or
    /// not. Only a node that gives no such sign either is judged.
    std::function<std::uint64_t(std::uint32_t node)> signs;
    /// A number that changes when something is wrong with a node's state: a check of it failed, or
    /// somebody waited too long for a lock of one of its processes. Empty: nobody tells.
    std::function<std::uint64_t(std::uint32_t node)> hints;
  };
  /// What a tick led to. The causes are constants.
  struct Change {
    View before;
    View now;
    std::uint64_t detected_ns = 0;  // when the evidence for it was complete; 0: others decided
    const char* cause = "";
    explicit operator bool() const { return now.generation != before.generation; }
  };

  /// `views` is this process's; both outlive this object. One thread at a time.
  NodeWatch(Views& views, gsm::Domain& domain, std::uint32_t node, Options options);

  /// Beat, look at the others, and take part in agreement. `now_ns`: this kernel's monotonic clock.
  Change tick(std::uint64_t now_ns);
  /// The agent leaves, and nobody is to judge this node any more.
  void rest();

  bool is_member() const { return views_.mine().has_member(node_); }
  /// A segment that others reach does not answer here: the node left by itself.
  bool cut_off() const { return cut_off_; }
  /// For tests: how many times the limit is the configured one.
  std::uint32_t doubt() const { return doubt_; }

 private:
  struct Other {
    std::uint64_t heartbeat = 0;
    std::uint64_t since_ns = 0;
    std::uint64_t signs = 0;
    std::uint64_t signs_ns = 0;  // when they last changed, looked at only while the heartbeat stands
    std::uint64_t hints = 0;     // when the heartbeat began to stand
    bool followed = false;       // that is known
    bool hinted = false;         // they have changed since
    std::uint32_t beats = 0;
    bool known = false;
  };
  struct Loss {
    std::uint64_t since_ns = 0;  // 0: it answers
    std::array<std::uint32_t, gsm::kMaxNodes> beats{};
  };
  using Lines = std::array<ViewArea::Line, gsm::kMaxNodes> ViewArea::*;
  std::uint64_t read(Lines lines, std::uint32_t node) const;
  void write(Lines lines, std::uint32_t node, std::uint64_t value);
  void beat(std::uint64_t now);
  void follow_segments(const View& view);
  void forget_measurements(std::uint64_t now);
  void observe(const View& view, std::uint64_t now);
  bool gives_signs(std::uint32_t node, std::uint64_t now);
  void look_for_hints(std::uint32_t node, std::uint64_t now);
  void accuse(const View& view);
  void withdraw(std::uint32_t node, bool false_alarm, std::uint64_t now);
  bool second_voice(const View& view, std::uint32_t node) const;
  std::uint16_t to_expel(const View& view, std::uint64_t now, const char*& cause);
  std::uint16_t to_drop(const View& view, std::uint64_t now);
  std::uint16_t to_admit(const View& view, std::uint64_t now) const;
  std::uint16_t not_gone(const View& view) const;
  std::uint64_t limit_ns(std::uint32_t node) const;

  Views& views_;
  gsm::Domain& domain_;
  std::uint32_t node_;
  Options options_;
  std::array<Other, gsm::kMaxNodes> others_{};
  std::array<Loss, gsm::kMaxNodes> losses_{};
  std::array<std::uint64_t, gsm::kMaxNodes> in_view_{};  // incarnation, when the view had it last
  std::bitset<gsm::kMaxNodes> had_segments_;             // of the view at the last tick
  std::uint64_t last_tick_ns_ = 0;
  std::uint64_t counter_ = 0;
  std::uint16_t accused_ = 0;
  std::uint16_t shared_ = 0;  // of those, whom somebody else accused too
  std::uint32_t accused_in_ = 0;  // generation
  std::uint32_t doubt_ = 1;
  std::uint64_t last_alarm_ns_ = 0;
  std::uint64_t challenged_ns_ = 0;  // 0: nobody is challenged
  std::uint64_t challenge_ = 0;      // the number
  std::uint64_t alone_since_ns_ = 0;  // while we ask and hear nobody
  bool cut_off_ = false;
};

}  // namespace mcs::runtime
