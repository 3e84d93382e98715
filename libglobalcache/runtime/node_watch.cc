// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/runtime/node_watch.h"

#include <algorithm>

namespace mcs::runtime {
namespace {

constexpr std::uint32_t kMostDoubt = 16;
constexpr std::uint64_t kDoubtFadesNs = 600ULL * 1000000000;
constexpr std::uint64_t kFirstBeat = 1;

std::uint16_t bit(std::uint32_t node) { return static_cast<std::uint16_t>(1U << node); }

}  // namespace

NodeWatch::NodeWatch(Views& views, gsm::Domain& domain, std::uint32_t node, Options options)
    : views_(views), domain_(domain), node_(node), options_(std::move(options)) {}

std::uint64_t NodeWatch::read(Lines lines, std::uint32_t node) const {
  for (std::uint32_t segment = 0; segment < views_.nodes(); ++segment) {
    if (domain_.segment(segment).lost()) continue;
    const std::uint64_t value =
        (views_.area(segment).*lines)[node].word.load(std::memory_order_acquire);
    if (!domain_.segment(segment).lost()) return value;
  }
  return 0;
}

void NodeWatch::write(Lines lines, std::uint32_t node, std::uint64_t value) {
  for (std::uint32_t segment = 0; segment < views_.nodes(); ++segment) {
    if (domain_.segment(segment).lost()) continue;
    (views_.area(segment).*lines)[node].word.store(value, std::memory_order_release);
  }
}

void NodeWatch::beat(std::uint64_t now) {
  std::uint16_t reached = 0;
  for (std::uint32_t segment = 0; segment < views_.nodes(); ++segment) {
    // The access may be what finds it out.
    views_.area(segment).view.word.load(std::memory_order_acquire);
    Loss& loss = losses_[segment];
    if (!domain_.segment(segment).lost() || domain_.is_out_of_reach(segment)) {
      reached = static_cast<std::uint16_t>(reached | bit(segment));
      loss.since_ns = 0;
    } else if (loss.since_ns == 0) {
      loss.since_ns = now;
      for (std::uint32_t node = 0; node < views_.nodes(); ++node) {
        loss.beats[node] = others_[node].beats;
      }
    }
  }
  if (counter_ == 0) counter_ = (read(&ViewArea::heartbeat, node_) >> 16) + kFirstBeat;
  write(&ViewArea::heartbeat, node_, (++counter_ << 16) | reached);
  // An answer to whoever asked for a sign of life.
  for (std::uint32_t segment = 0; segment < views_.nodes(); ++segment) {
    if (domain_.segment(segment).lost()) continue;
    Word& word = views_.area(segment).challenge[node_].word;
    std::uint64_t asked = word.load(std::memory_order_acquire);
    if (asked != 0) word.compare_exchange_strong(asked, 0, std::memory_order_acq_rel);
  }
}

void NodeWatch::rest() { write(&ViewArea::heartbeat, node_, 0); }

// Who was asleep himself has no opinion about others.
void NodeWatch::forget_measurements(std::uint64_t now) {
  for (Other& other : others_) other.since_ns = now;
  accused_ = shared_ = 0;
  challenged_ns_ = 0;
  alone_since_ns_ = 0;
}

// What a node's memory and its locks say shortens what its silence must prove, all of it together once.
std::uint64_t NodeWatch::limit_ns(std::uint32_t node) const {
  const std::uint64_t limit = options_.limit_ms * 1000000ULL * doubt_;
  return losses_[node].since_ns != 0 || others_[node].hinted ? limit / 2 : limit;
}

void NodeWatch::withdraw(std::uint32_t node, bool false_alarm, std::uint64_t now) {
  if ((accused_ & bit(node)) == 0) return;
  accused_ = static_cast<std::uint16_t>(accused_ & ~bit(node));
  shared_ = static_cast<std::uint16_t>(shared_ & ~bit(node));
  if (!false_alarm) return;
  doubt_ = std::min(kMostDoubt, doubt_ * 2);
  last_alarm_ns_ = now;
}

// While a node's agent is silent: whether its other processes are not. An agent may be traced, or have
// died and be unable to start again.
bool NodeWatch::gives_signs(std::uint32_t node, std::uint64_t now) {
  Other& other = others_[node];
  if (!options_.signs || now - other.since_ns < 2ULL * options_.tick_ms * 1000000) return false;
  const std::uint64_t signs = options_.signs(node);
  if (signs != other.signs) {
    other.signs = signs;
    other.signs_ns = now;
  }
  return other.signs_ns > other.since_ns && now - other.signs_ns < limit_ns(node);
}

// Only what comes while its heartbeat stands: who beats may be waited for as long as it takes.
void NodeWatch::look_for_hints(std::uint32_t node, std::uint64_t now) {
  Other& other = others_[node];
  if (!options_.hints || now - other.since_ns < 2ULL * options_.tick_ms * 1000000) {
    other.followed = other.hinted = false;
    return;
  }
  const std::uint64_t hints = options_.hints(node);
  other.hinted = other.hinted || (other.followed && hints != other.hints);
  other.hints = hints;
  other.followed = true;
}

void NodeWatch::observe(const View& view, std::uint64_t now) {
  if (doubt_ > 1 && now - last_alarm_ns_ > kDoubtFadesNs) {
    doubt_ /= 2;
    last_alarm_ns_ = now;
  }
  for (std::uint32_t node = 0; node < views_.nodes(); ++node) {
    if (node == node_) continue;
    Other& other = others_[node];
    const std::uint64_t heartbeat = read(&ViewArea::heartbeat, node);
    if (!other.known || heartbeat != other.heartbeat) {
      if (other.known && heartbeat != 0) {
        ++other.beats;
        withdraw(node, (shared_ & bit(node)) == 0, now);
      }
      other.known = true;
      other.heartbeat = heartbeat;
      other.since_ns = now;
    }
    look_for_hints(node, now);
    if (!view.has_member(node) || heartbeat == 0 || gives_signs(node, now)) {
      withdraw(node, false, now);
    } else if (now - other.since_ns >= limit_ns(node)) {
      accused_ = static_cast<std::uint16_t>(accused_ | bit(node));
    }
  }
}

void NodeWatch::accuse(const View& view) {
  const std::uint64_t word = accused_ == 0 ? 0
                                           : (static_cast<std::uint64_t>(view.generation) << 32) |
                                                 (static_cast<std::uint64_t>(accused_) << 16);
  if (read(&ViewArea::accused, node_) != word) write(&ViewArea::accused, node_, word);
}

bool NodeWatch::second_voice(const View& view, std::uint32_t node) const {
  for (std::uint32_t other = 0; other < views_.nodes(); ++other) {
    if (other == node_ || other == node || !view.has_member(other)) continue;
    const std::uint64_t word = read(&ViewArea::accused, other);
    if (word >> 32 == view.generation && (word >> (16 + node) & 1) != 0) return true;
  }
  return false;
}

std::uint16_t NodeWatch::to_expel(const View& view, std::uint64_t now, const char*& cause) {
  std::uint16_t expelled = 0;
  std::uint16_t to_ask = 0;
  for (std::uint32_t node = 0; node < views_.nodes(); ++node) {
    if (node == node_ || !view.has_member(node)) continue;
    const bool stands_still = now - others_[node].since_ns >= 2ULL * options_.tick_ms * 1000000;
    if (options_.certainly_gone && others_[node].heartbeat != 0 && stands_still &&
        options_.certainly_gone(node)) {
      expelled = static_cast<std::uint16_t>(expelled | bit(node));
      cause = "all its processes have ended";
      continue;
    }
    if ((accused_ & bit(node)) == 0 && others_[node].heartbeat != 0) {
      to_ask = static_cast<std::uint16_t>(to_ask | bit(node));
    }
  }
  if (expelled != 0) return expelled;
  for (std::uint32_t node = 0; node < views_.nodes(); ++node) {
    if ((accused_ & bit(node)) == 0 || !second_voice(view, node)) continue;
    shared_ = static_cast<std::uint16_t>(shared_ | bit(node));
    expelled = static_cast<std::uint16_t>(expelled | bit(node));
    cause = "heartbeat, two voices";
  }
  if (to_ask != 0 || accused_ == 0) {
    challenged_ns_ = 0;
    return expelled;
  }
  // Nobody to ask: whoever lives may say so.
  if (challenged_ns_ == 0) {
    challenged_ns_ = now;
    challenge_ = (static_cast<std::uint64_t>(node_ + 1) << 48) | (counter_ & ((1ULL << 48) - 1));
    for (std::uint32_t node = 0; node < views_.nodes(); ++node) {
      if ((accused_ & bit(node)) == 0) continue;
      for (std::uint32_t segment = 0; segment < views_.nodes(); ++segment) {
        if (domain_.segment(segment).lost()) continue;
        std::uint64_t seen = views_.area(segment).challenge[node].word.load();
        views_.area(segment).challenge[node].word.compare_exchange_strong(seen, challenge_);
      }
    }
    return expelled;
  }
  if (now - challenged_ns_ < limit_ns(node_) / 2) return expelled;
  challenged_ns_ = 0;
  for (std::uint32_t node = 0; node < views_.nodes(); ++node) {
    if ((accused_ & bit(node)) == 0) continue;
    if (read(&ViewArea::challenge, node) == 0) {
      withdraw(node, true, now);
      others_[node].since_ns = now;
    } else {
      expelled = static_cast<std::uint16_t>(expelled | bit(node));
      cause = "heartbeat, no answer";
    }
  }
  return expelled;
}

// Segments that nobody reaches any more. Where nodes have kernels of their own, a member that beats and
// reaches one that we do not tells that the failure is ours. On one kernel it has only not met the loss
// yet: what one process finds lost is lost to all.
std::uint16_t NodeWatch::to_drop(const View& view, std::uint64_t now) {
  std::uint16_t dropped = 0;
  for (std::uint32_t segment = 0; segment < views_.nodes(); ++segment) {
    const Loss& loss = losses_[segment];
    if (!view.has_segment(segment) || loss.since_ns == 0) continue;
    bool heard_all = true;
    for (std::uint32_t node = 0; node < views_.nodes(); ++node) {
      const Other& other = others_[node];
      if (node == node_ || !view.has_member(node) || other.heartbeat == 0) continue;
      if (other.beats - loss.beats[node] < 2) {
        heard_all = false;
      } else if (!options_.certainly_gone && (other.heartbeat >> segment & 1) != 0) {
        cut_off_ = true;
      }
    }
    if (cut_off_) return 0;
    if (heard_all || now - loss.since_ns > 4ULL * options_.tick_ms * 1000000) {
      dropped = static_cast<std::uint16_t>(dropped | bit(segment));
    }
  }
  return dropped;
}

std::uint16_t NodeWatch::to_admit(const View& view, std::uint64_t now) const {
  std::uint16_t admitted = 0;
  for (std::uint32_t node = 0; node < views_.nodes(); ++node) {
    if (view.has_member(node) || node == node_) continue;
    const Other& other = others_[node];
    // Who died while it asked would be admitted and expelled again for ever.
    const bool beats = other.beats != 0 && now - other.since_ns < 2ULL * options_.tick_ms * 1000000;
    if (beats && read(&ViewArea::asks, node) != 0) {
      admitted = static_cast<std::uint16_t>(admitted | bit(node));
    }
  }
  return admitted;
}

// Members that may still live.
std::uint16_t NodeWatch::not_gone(const View& view) const {
  std::uint16_t left = 0;
  for (std::uint32_t node = 0; node < views_.nodes(); ++node) {
    if (node == node_ || !view.has_member(node)) continue;
    if (!options_.certainly_gone(node)) left = static_cast<std::uint16_t>(left | bit(node));
  }
  return left;
}

// What was measured of a segment's former incarnation says nothing about the one that came back.
void NodeWatch::follow_segments(const View& view) {
  for (std::uint32_t segment = 0; segment < views_.nodes(); ++segment) {
    const std::uint64_t incarnation = domain_.segment(segment).incarnation();
    if (view.has_segment(segment)) {
      if (domain_.segment(segment).lost()) domain_.renew(segment);
      const std::uint64_t now = domain_.segment(segment).incarnation();
      if (now != in_view_[segment] || !had_segments_.test(segment)) losses_[segment] = {};
      in_view_[segment] = now;
    } else if (options_.certainly_gone && incarnation == in_view_[segment]) {
      // All read the same hints, whoever has met the loss.
      domain_.segment(segment).mark_lost();
    }
    had_segments_.set(segment, view.has_segment(segment));
  }
}

NodeWatch::Change NodeWatch::tick(std::uint64_t now) {
  Change change;
  change.before = views_.mine();
  const bool late = last_tick_ns_ == 0 || now - last_tick_ns_ > options_.limit_ms * 1000000ULL / 4;
  last_tick_ns_ = now;
  beat(now);
  const View view = views_.look();
  change.now = view;
  if (view.generation != 0) follow_segments(view);
  if (view.generation == 0) return change;
  if (late) forget_measurements(now);
  if (view.generation != accused_in_) {
    accused_ = shared_ = 0;
    challenged_ns_ = 0;
    accused_in_ = view.generation;
  }
  observe(view, now);
  const auto propose = [&](std::uint16_t members, std::uint16_t segments, const char* cause) {
    const View want{view.generation + 1, members, segments};
    change.now = views_.propose(want);
    change.detected_ns = now;
    change.cause = cause;
  };
  if (!view.has_member(node_)) {
    accused_ = shared_ = 0;
    if (cut_off_) return change;
    if (read(&ViewArea::asks, node_) == 0) write(&ViewArea::asks, node_, 1);
    // A member that lives hears of it. If there is none, nobody is there to be agreed with.
    const bool heard = std::any_of(others_.begin(), others_.end(), [&](const Other& other) {
      const auto node = static_cast<std::uint32_t>(&other - others_.data());
      return view.has_member(node) && other.heartbeat != 0 && now - other.since_ns < limit_ns(node_);
    });
    if (heard || alone_since_ns_ == 0) alone_since_ns_ = now;
    const bool waited = now - alone_since_ns_ >= limit_ns(node_);
    // Certain evidence needs no waiting, and without it nobody is left out: a member without an agent
    // is silent too, and one that is silent for long is judged once we are a member.
    const std::uint16_t others = options_.certainly_gone ? not_gone(view) : std::uint16_t{0};
    if (!waited && (!options_.certainly_gone || others != 0)) return change;
    propose(static_cast<std::uint16_t>(bit(node_) | others), view.segments,
            others == 0 ? "nobody else is left" : "nobody else speaks");
    return change;
  }
  alone_since_ns_ = 0;
  if (read(&ViewArea::asks, node_) != 0) write(&ViewArea::asks, node_, 0);
  const char* cause = "a segment is lost";
  const std::uint16_t expelled = to_expel(view, now, cause);
  accuse(view);
  const std::uint16_t dropped = to_drop(view, now);
  if (cut_off_) {
    if (view.members != bit(node_)) {
      propose(static_cast<std::uint16_t>(view.members & ~bit(node_)), view.segments,
              "it does not reach a segment");
    }
    return change;
  }
  const std::uint16_t admitted = to_admit(view, now);
  if (expelled == 0 && dropped == 0 && admitted != 0) cause = "it asked to be admitted";
  const auto members = static_cast<std::uint16_t>((view.members & ~expelled) | admitted);
  const auto segments = static_cast<std::uint16_t>(view.segments & ~dropped);
  if ((members == view.members && segments == view.segments) || segments == 0) {
    views_.repair();
    change.now = views_.mine();
    return change;
  }
  propose(members, segments, cause);
  return change;
}

}  // namespace mcs::runtime
