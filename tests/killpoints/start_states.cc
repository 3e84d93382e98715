// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include "tests/killpoints/scenario.h"

namespace mcs::killpoints {
namespace {

struct Stop {
  World* world = nullptr;
  WordKind kind = WordKind::kOther;
  unsigned left = 0;
  bool suspend = false;
} stop;

void maybe_stop(const Access& access) {
  if (!access.write || stop.left == 0 || stop.world->classify(access.address) != stop.kind) return;
  if (--stop.left > 0) return;
  if (!stop.suspend) end_actor(ActorEnd::kKilled);
  yield_actor();
}

constexpr unsigned kThirdOfThem = 8;

void join_all(World& w, unsigned members) {
  for (unsigned m = 0; m < members; ++m) {
    w.as(m, [&w, m] {
      const gsm::Domain& domain = *w.state().domain;
      const std::uint32_t node =
          domain.separate_kernels() ? w.state().home[m] : m % domain.node_count();
      if (!w.join(m, node)) w.violate("process %u cannot join", m);
    });
  }
}

void store(World& w, unsigned m, unsigned key, std::uint32_t body_bytes, unsigned version = 0) {
  w.state().body_bytes[key] = body_bytes;
  w.as(m, [&w, m, key, version] { w.put(m, key, version); });
}

void build_some(World& w) {
  join_all(w, 6);
  store(w, kFirstSurvivor, 1, 0);
  store(w, kSecondSurvivor, kTarget, 900);
  store(w, kFirstSurvivor, 20, 40);
  store(w, kFirstSurvivor, 21, 5000);
  store(w, kSecondSurvivor, 22, 9000);
  store(w, kVictim, 23, 20000);
  w.state().body_bytes[kFresh] = 1200;
  w.as(kVictim, [&w] { w.count(kVictim, 5); });
}

void build_chain(World& w) {
  join_all(w, 6);
  for (unsigned k = 0; k < 7; ++k) store(w, 1 + k % 3, k, 100 + 300 * k);
  for (unsigned k = 8; k < kChainKeys; ++k) store(w, 1 + k % 3, k, 50);
  w.state().body_bytes[kFresh] = 700;
}

void build_full(World& w) {
  join_all(w, 6);
  for (unsigned k = 0; k < 6; ++k) store(w, 1 + k % 3, k, 3000);
  for (unsigned k = 20; k < 64; ++k) store(w, 1 + k % 3, k, 11000);
  w.state().body_bytes[kFresh] = 9000;
}

// One node has stored so much that some of it lies on the other one's memory.
void build_lent(World& w) {
  join_all(w, 6);
  store(w, kSecondSurvivor, 1, 3000);
  store(w, kFirstSurvivor, kTarget, 2000);
  for (unsigned k = 20; k < 100; ++k) store(w, kFirstSurvivor, k, 11000);
  w.state().body_bytes[kFresh] = 9000;
}

void build_all_descriptors(World& w) {
  join_all(w, 6);
  for (unsigned k = 0; k < 7; ++k) store(w, 1 + k % 3, k, 200);
  for (unsigned k = 20; k < 100; ++k) store(w, 1 + k % 3, k, 10);
  w.state().body_bytes[kFresh] = 100;
}

// No long run of units is free, so that a body needs many extents and overflow blocks.
constexpr std::uint32_t kHole = 17 * cache::kUnitBytes;
constexpr std::uint32_t kManyExtents = 13 * kHole - 200;

void build_fragments(World& w) {
  join_all(w, 6);
  for (unsigned k = 20; k < 146; ++k) store(w, kFirstSurvivor, k, kHole - 100);
  for (unsigned k = 21; k < 146; k += 2) w.as(kFirstSurvivor, [&w, k] { w.purge_key(1, k); });
  // What is large takes whole pages as long as there are any: the first ones take them.
  for (const unsigned k : {18U, 19U, kTarget}) store(w, kSecondSurvivor, k, kManyExtents);
  w.state().body_bytes[kFresh] = kManyExtents;
}

void build_pinned(World& w) {
  build_some(w);
  for (const unsigned k : {1U, kTarget, 20U, 21U, 22U, 23U}) {
    w.as(kFirstSurvivor, [&w, k] { w.pin(kFirstSurvivor, k); });
  }
  // Retired, and read all the same.
  w.as(kSecondSurvivor, [&w] {
    w.pin(kSecondSurvivor, 22);
    w.purge_key(kSecondSurvivor, 21);
  });
  w.as(kVictim, [&w] { w.purge_key(kVictim, 22); });
}

void build_contended_bucket(World& w) {
  build_some(w);
  w.state().body_bytes[2] = 300;
  const bool stopped = stop_before(w, kOther, WordKind::kBucketHead, 1, true,
                                   w.keep([&w] { w.put(kOther, 2, 0); }));
  if (!stopped) w.violate("nobody holds the bucket");
}

void build_contended_groups(World& w) {
  build_some(w);
  w.state().body_bytes[30] = 120000;
  const bool stopped = stop_before(w, kOther, WordKind::kGroupBits, 1, true,
                                   w.keep([&w] { w.put(kOther, 30, 0); }));
  w.state().body_bytes[31] = 100000;
  const bool also = stop_before(w, kAnother, WordKind::kGroupBits, 3, true,
                                w.keep([&w] { w.put(kAnother, 31, 0); }));
  if (!stopped || !also) w.violate("nobody holds a group");
}

void build_dead_in_bucket(World& w) {
  build_some(w);
  w.state().body_bytes[2] = 300;
  if (!stop_before(w, kOther, WordKind::kBucketHead, 1, false, [&w] { w.put(kOther, 2, 0); })) {
    w.violate("nobody died");
  }
  w.declare_dead(kOther);
}

void build_dead_in_groups(World& w) {
  build_fragments(w);
  w.state().body_bytes[8] = kManyExtents;
  // In the middle of attaching an overflow block, and of freeing a long entry.
  if (!stop_before(w, kOther, WordKind::kNext, 2, false, [&w] { w.put(kOther, 8, 0); })) {
    w.violate("nobody died while attaching a block");
  }
  if (!stop_before(w, kAnother, WordKind::kGroupBits, 14, false,
                   [&w] { w.purge_key(kAnother, kTarget); })) {
    w.violate("nobody died while freeing");
  }
  w.declare_dead(kOther);
  w.declare_dead(kAnother);
}

void build_dead_recoverer(World& w) {
  build_some(w);
  for (const unsigned k : {1U, 21U}) w.as(kOther, [&w, k] { w.pin(kOther, k); });
  w.as(kOther, [&w] {
    w.count(kOther, 7);
    w.purge_key(kOther, 21);
  });
  w.state().body_bytes[2] = 3000;
  if (!stop_before(w, kOther, WordKind::kSealed, 12, false, [&w] { w.put(kOther, 2, 0); })) {
    w.violate("nobody died");
  }
  w.declare_dead(kOther);
  if (!stop_before(w, kAnother, WordKind::kLedger, 2, false,
                   [&w] { w.member(kAnother).instance->recover_all("test"); })) {
    w.violate("the recoverer survived");
  }
  w.declare_dead(kAnother);
}

// Died between two operations, holding as much as one can hold then.
void build_dead_filler(World& w) {
  build_some(w);
  w.state().body_bytes[30] = 90000;
  w.as(kOther, [&w] {
    for (const unsigned k : {1U, 21U, 22U}) w.pin(kOther, k);
    w.count(kOther, 7);
    w.purge_key(kOther, 21);
    w.purge_key(kOther, 22);
    for (const unsigned k : {2U, 30U}) {
      cache::Fill& fill = k == 2 ? w.state().fills[kOther] : w.state().fills[kAnother];
      if (w.put_begin(kOther, k, 0, fill) != Put::kStored ||
          w.put_body(k, 0, fill) != Put::kStored || fill.flush() != cache::Append::kOk) {
        w.violate("cannot fill");
      }
    }
  });
  w.declare_dead(kOther);
}

void build_limbo_full(World& w);

// The agent that expelled it died before it could pass on its fill; then it died itself.
void build_dead_expelled(World& w) {
  build_some(w);
  w.state().body_bytes[2] = 3000;
  w.as(kOther, [&w] {
    cache::Fill& fill = w.state().fills[kOther];
    if (w.put_begin(kOther, 2, 0, fill) != Put::kStored || w.put_body(2, 0, fill) != Put::kStored ||
        fill.flush() != cache::Append::kOk) {
      w.violate("cannot fill");
    }
  });
  w.as(kThirdSurvivor, [&w] {
    w.wait_for(kThirdSurvivor, w.state().fills[kOther]);
    const runtime::InstanceId id = w.member(kOther).instance->id();
    w.member(kThirdSurvivor)
        .instance->control(id.slot())
        .state.store(runtime::StateWord::make(runtime::InstanceState::kExpelled, id.incarnation()));
  });
  w.declare_dead(kOther);
}

// Whoever recovers it has no place left for what it takes over.
void build_dead_and_limbo_full(World& w) {
  build_limbo_full(w);
  w.state().body_bytes[8] = 9000;
  w.as(kOther, [&w] {
    cache::Fill& fill = w.state().fills[kOther];
    if (w.put_begin(kOther, 8, 0, fill) != Put::kStored || w.put_body(8, 0, fill) != Put::kStored) {
      w.violate("cannot fill");
    }
    w.purge_key(kOther, kTarget);
  });
  w.declare_dead(kOther);
}

void build_orphans(World& w) {
  build_some(w);
  for (const unsigned k : {20U, 21U, 22U}) w.as(kFirstSurvivor, [&w, k] { w.pin(1, k); });
  w.as(kOther, [&w] {
    for (const unsigned k : {20U, 21U, 22U}) w.purge_key(kOther, k);
    w.member(kOther).cache->leave();
    w.member(kOther).instance->leave();
  });
  w.member(kOther).alive = false;
  for (unsigned i = 0; i < 2; ++i) w.as(kFirstSurvivor, [&w, i] { w.unpin(i); });
}

void build_limbo_full(World& w) {
  join_all(w, 6);
  store(w, kFirstSurvivor, kTarget, 100);
  for (unsigned k = 10; k < 214; ++k) store(w, kFirstSurvivor, k, 30);
  for (unsigned k = 10; k < 214; ++k) {
    const unsigned m = k < 110 ? kFirstSurvivor : kSecondSurvivor;
    w.as(m, [&w, m, k] { w.pin(m, k); });
  }
  for (unsigned k = 10; k < 204; ++k) w.as(kVictim, [&w, k] { w.purge_key(kVictim, k); });
  w.state().body_bytes[kFresh] = 100;
}

void build_ledger_full(World& w) {
  build_some(w);
  for (unsigned i = 0; i < 256; ++i) w.as(kVictim, [&w] { w.pin(kVictim, 20); });
}

void build_slots_full(World& w) {
  build_some(w);
  for (const unsigned m : {7U, 8U}) {
    w.as(m, [&w, m] {
      if (!w.join(m)) w.violate("process %u cannot join", m);
    });
  }
}

// All who stay have their slots on node 0. kOther and kAnother belong to it too, but their slots are on
// node 1, since there was no other, and with them all that says what they hold here.
void build_slots_elsewhere(World& w) {
  const auto join = [&w](unsigned m, std::uint32_t node) {
    w.as(m, [&w, m, node] {
      if (!w.join(m, node)) w.violate("process %u cannot join", m);
    });
  };
  for (const unsigned m : {0U, 1U, 2U, 3U, 7U, 8U, 9U, 10U}) join(m, 0);
  for (const unsigned m : {kOther, kAnother}) join(m, 0);
  for (const unsigned m : {7U, 8U, 9U, 10U}) {
    w.as(m, [&w, m] {
      w.member(m).cache->leave();
      w.member(m).instance->leave();
    });
    w.member(m).alive = false;
  }
  join(11, 1);
  store(w, kFirstSurvivor, 1, 0);
  store(w, kSecondSurvivor, kTarget, 900);
  for (unsigned k = 8; k < 14; ++k) store(w, k % 2 == 0 ? kSecondSurvivor : 11, k, 60 * k);
  for (unsigned k = 20; k < 30; ++k) store(w, k % 3 == 0 ? 11 : kFirstSurvivor, k, 500 * (k - 19));
  w.state().body_bytes[kFresh] = 1200;
}

// Node 1's segment is gone, and nobody has met that.
void build_segment_lost(World& w) {
  build_slots_elsewhere(w);
  w.as(kAnother, [&w] {
    w.pin(kAnother, 20);
    w.pin(kAnother, 22);
    w.purge_key(kAnother, 20);
    w.purge_key(kAnother, 22);
    cache::Fill& fill = w.state().fills[kAnother];
    w.state().body_bytes[30] = 9000;
    if (w.put_begin(kAnother, 30, 0, fill) != Put::kStored ||
        w.put_body(30, 0, fill) != Put::kStored || fill.flush() != cache::Append::kOk) {
      w.violate("cannot fill");
    }
  });
  w.as(kFirstSurvivor, [&w] { w.wait_for(kFirstSurvivor, w.state().fills[kAnother]); });
  // Of those who had their slots there one dies while it frees what lies here, another one while it fills.
  if (!stop_before(w, 11, WordKind::kGroupBits, 1, false, [&w] { w.purge_key(11, 25); })) {
    w.violate("nobody died while freeing");
  }
  w.state().body_bytes[31] = 100000;
  if (!stop_before(w, kOther, WordKind::kGroupBits, 3, false, [&w] { w.put(kOther, 31, 0); })) {
    w.violate("nobody died in a group");
  }
  w.declare_dead(kOther);
  w.lose_segment(1);
  w.state().hit_count = 0;
}

// Whoever joins on node 1 has its slot on node 0.
void build_slots_of_the_other_node(World& w) {
  w.state().home[kThirdOfThem] = 1;
  build_some(w);
  w.as(kThirdOfThem, [&w] {
    if (!w.join(kThirdOfThem)) w.violate("process %u cannot join", kThirdOfThem);
  });
}

// Node 2 is gone with its memory, of three nodes with kernels of their own.
void build_node_lost(World& w) {
  for (const unsigned m : {kOther, kAnother, kThirdOfThem}) w.state().home[m] = 2;
  for (const unsigned m : {0U, 1U, 2U, 3U, kOther, kAnother, kThirdOfThem}) {
    w.as(m, [&w, m] {
      if (!w.join(m)) w.violate("process %u cannot join", m);
    });
  }
  store(w, kFirstSurvivor, 1, 0);
  store(w, kSecondSurvivor, kTarget, 900);
  for (unsigned k = 8; k < 14; ++k) store(w, k % 2 == 0 ? kVictim : kThirdOfThem, k, 60 * k);
  for (unsigned k = 20; k < 30; ++k) store(w, k % 3 == 0 ? kThirdOfThem : k % 3, k, 500 * (k - 19));
  w.state().body_bytes[kFresh] = 1200;
  w.state().body_bytes[30] = 9000;
  w.as(kAnother, [&w] {
    w.pin(kAnother, 20);
    w.purge_key(kAnother, 20);
    cache::Fill& fill = w.state().fills[kAnother];
    if (w.put_begin(kAnother, 30, 0, fill) != Put::kStored ||
        w.put_body(30, 0, fill) != Put::kStored || fill.flush() != cache::Append::kOk) {
      w.violate("cannot fill");
    }
  });
  w.lose_segment(2);
  w.state().hit_count = 0;
}

// Whoever comes first finds only the dead.
void build_nobody_left(World& w) {
  build_pinned(w);
  w.state().body_bytes[2] = 300;
  stop_before(w, kOther, WordKind::kBucketHead, 1, false, [&w] { w.put(kOther, 2, 0); });
  stop_before(w, kAnother, WordKind::kGroupBits, 1, false, [&w] { w.put(kAnother, 30, 0); });
  // One fills and another waits for it.
  w.as(kThirdSurvivor, [&w] {
    cache::Fill& fill = w.state().fills[kThirdSurvivor];
    if (w.put_begin(kThirdSurvivor, 28, 0, fill) != Put::kStored) w.violate("cannot fill");
  });
  w.as(kFirstSurvivor, [&w] { w.wait_for(kFirstSurvivor, w.state().fills[kThirdSurvivor]); });
  for (unsigned m = 0; m < 6; ++m) w.declare_dead(m);
  w.state().hit_count = 0;
}

}  // namespace

bool stop_before(World& world, unsigned m, WordKind kind, unsigned n, bool suspend,
                 const std::function<void()>& body) {
  stop = {&world, kind, n, suspend};
  hooks.before_access = maybe_stop;
  const ActorEnd end = run_actor(m, body);
  hooks.before_access = nullptr;
  return end == (suspend ? ActorEnd::kSuspended : ActorEnd::kKilled);
}

const std::vector<StartState>& start_states() {
  static const std::vector<StartState> all = [] {
    std::vector<StartState> s;
    WorldOptions small;
    WorldOptions many = small;
    many.bytes_per_entry = 2048;
    many.bytes_per_node = 800 * 1024;
    WorldOptions two = small;
    two.nodes = 2;
    two.instances = 16;
    s.push_back({"empty", small, [](World& w) { join_all(w, 6); }});
    s.push_back({"some", small, build_some});
    s.push_back({"chain", small, build_chain});
    s.push_back({"full", small, build_full, false, true});
    s.push_back({"all descriptors", small, build_all_descriptors, false, true});
    s.push_back({"fragments", many, build_fragments});
    s.push_back({"pinned", small, build_pinned});
    s.push_back({"contended bucket", small, build_contended_bucket, true, false, true});
    s.push_back({"contended groups", small, build_contended_groups, true, false, true});
    s.push_back({"dead in bucket", small, build_dead_in_bucket});
    s.push_back({"dead in groups", many, build_dead_in_groups});
    s.push_back({"dead filler", small, build_dead_filler});
    s.push_back({"dead recoverer", small, build_dead_recoverer});
    s.push_back({"dead expelled", small, build_dead_expelled});
    s.push_back({"dead, limbo full", many, build_dead_and_limbo_full});
    s.push_back({"orphans", small, build_orphans});
    s.push_back({"limbo full", many, build_limbo_full});
    s.push_back({"ledger full", small, build_ledger_full});
    s.push_back({"slots full", small, build_slots_full});
    s.push_back({"two nodes", two, build_some});
    s.push_back({"two nodes full", two, build_lent, false, true});
    s.push_back({"nobody left", small, build_nobody_left});
    s.push_back({"segment lost", two, build_segment_lost, true, false, false, true});
    s.push_back({"segment to be lost", two, build_slots_elsewhere, true, false, false, true});
    const auto add = [&s](const char* name, const WorldOptions& options, void (*build)(World&),
                          Ending ending, const char* only) {
      s.push_back({name, options, build});
      s.back().ending = ending;
      s.back().only = only;
    };
    WorldOptions apart = two;
    apart.separate_kernels = true;
    add("some, all die", two, build_some, Ending::kEverybody, "");
    add("some, stopped", small, build_some, Ending::kExpelled, "");
    add("dead filler, stopped", small, build_dead_filler, Ending::kExpelled, "recover");
    add("some, node crashes", apart, build_some, Ending::kNodeCrash, "");
    add("dead filler, node crashes", apart, build_dead_filler, Ending::kNodeCrash, "recover");
    add("some, node freezes", apart, build_some, Ending::kNodeFreeze, "");
    add("dead filler, node freezes", apart, build_dead_filler, Ending::kNodeFreeze, "recover");
    for (const Ending ending : {Ending::kEverybody, Ending::kExpelled}) {
      s.push_back({ending == Ending::kEverybody ? "segment lost, all die" : "segment lost, stopped",
                   two, build_segment_lost, true, false, false, true});
      s.back().ending = ending;
    }
    WorldOptions few = apart;
    few.instances = 8;
    add("no slot of its own, node crashes", few, build_slots_of_the_other_node, Ending::kNodeCrash,
        "join");
    add("no slot of its own, node freezes", few, build_slots_of_the_other_node, Ending::kNodeFreeze,
        "join");
    WorldOptions three = apart;
    three.nodes = 3;
    three.instances = 24;
    s.push_back({"node lost, another freezes", three, build_node_lost, true, false, false, true,
                 Ending::kNodeFreeze, ""});
    return s;
  }();
  return all;
}

}  // namespace mcs::killpoints
