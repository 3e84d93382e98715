// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "libglobalcache/runtime/global_mutex.h"
#include "tests/killpoints/scenario.h"

namespace mcs::killpoints {
namespace {

using runtime::GlobalMutex;
using runtime::Instance;
using runtime::MutexAnswer;
using Prepare = std::function<bool(World&, const StartState&, unsigned)>;
using Run = std::function<void(World&, const StartState&, unsigned)>;

constexpr unsigned kBig = 29;  // a key whose body needs appending in pieces

bool joined(World& w, unsigned m) { return w.member(m).alive; }

cache::GlobalCache& mine(World& w, unsigned m) { return *w.member(m).cache; }

bool present(World& w, unsigned key) {
  bool found = false;
  w.as(kFirstSurvivor, [&] { found = w.get(kFirstSurvivor, key) >= 0; });
  return found;
}

bool target_is_there(World& w, const StartState&, unsigned m) {
  return joined(w, m) && present(w, kTarget);
}
bool always(World& w, const StartState&, unsigned m) { return joined(w, m); }

// What a put may answer where nobody dies.
void expect_stored(World& w, const StartState& s, Put answer) {
  // A small body is written by the commit, which can only say that it failed.
  if (answer == Put::kStored || s.busy || w.crowded) return;
  w.violate("a put failed although everybody lives (%d)", static_cast<int>(answer));
}

cache::Link link_of(World& w, unsigned m, unsigned key) {
  cache::Hit hit;
  cache::GlobalCache& cache = *w.member(m).cache;
  if (cache.find(w.key(m, key), hit).found != cache::Found::kHit) return {};
  cache.release(hit);
  return hit.link;
}

Prepare filling(unsigned key, unsigned version, bool with_body) {
  return [=](World& w, const StartState&, unsigned m) {
    if (!joined(w, m)) return false;
    if (key == kBig) w.state().body_bytes[kBig] = 90000;
    Put answer = Put::kFailed;
    w.as(m, [&] {
      answer = w.put_begin(m, key, version + m, w.state().fills[m]);
      if (answer == Put::kStored && with_body) {
        answer = w.put_body(key, version + m, w.state().fills[m]);
      }
    });
    return answer == Put::kStored;
  };
}

// Another process fills a key, shows the head and half of the body, and waits.
bool other_fills(World& w, const StartState& s, unsigned m) {
  if (!joined(w, m) || s.busy) return false;
  w.state().body_bytes[kBig] = 90000;
  bool ok = false;
  w.as(kFirstSurvivor, [&] {
    ok = w.put_begin(kFirstSurvivor, kBig, kOtherVersion, w.state().fills[kFirstSurvivor]) == Put::kStored &&
         w.put_body(kBig, kOtherVersion, w.state().fills[kFirstSurvivor]) == Put::kStored &&
         w.state().fills[kFirstSurvivor].flush() == cache::Append::kOk;
  });
  return ok;
}

void add_fills(std::vector<Operation>& all) {
  const auto put = [](unsigned key, unsigned version) -> Run {
    return [=](World& w, const StartState& s, unsigned m) {
      if (key == kBig) w.state().body_bytes[kBig] = 90000;
      expect_stored(w, s, w.put(m, key, version + m));
    };
  };
  all.push_back({"put", kVictim, always, put(kFresh, 0)});
  all.push_back({"put large", kVictim, always, put(kBig, 1)});
  all.push_back({"replace", kVictim, target_is_there, put(kTarget, 5)});
  all.push_back({"fill begin", kVictim, always, [](World& w, const StartState&, unsigned m) {
                   w.put_begin(m, kFresh, 1 + m, w.state().fills[m]);
                 }});
  all.push_back({"fill append", kVictim, filling(kBig, 1, false),
                 [](World& w, const StartState&, unsigned m) {
                   w.put_body(kBig, 1 + m, w.state().fills[m]);
                 }});
  all.push_back({"fill flush", kVictim, filling(kFresh, 1, true),
                 [](World& w, const StartState&, unsigned m) { w.state().fills[m].flush(); }});
  all.push_back({"fill commit", kVictim, filling(kFresh, 1, true),
                 [](World& w, const StartState& s, unsigned m) {
                   expect_stored(w, s, w.put_commit(kFresh, 1 + m, w.state().fills[m]));
                 }});
  all.push_back({"fill commit large", kVictim, filling(kBig, 1, true),
                 [](World& w, const StartState& s, unsigned m) {
                   expect_stored(w, s, w.put_commit(kBig, 1 + m, w.state().fills[m]));
                 }});
  all.push_back({"fill abort", kVictim, filling(kBig, 1, true),
                 [](World& w, const StartState&, unsigned m) { w.state().fills[m].abort(); }});
  // Somebody waits for it.
  const auto waited = [](unsigned key) -> Prepare {
    return [=](World& w, const StartState& s, unsigned m) {
      if (!filling(key, 1, true)(w, s, m) || !joined(w, kFirstSurvivor)) return false;
      w.as(kFirstSurvivor, [&] { w.wait_for(kFirstSurvivor, w.state().fills[m]); });
      return true;
    };
  };
  all.push_back({"fill commit awaited", kVictim, waited(kTarget),
                 [](World& w, const StartState& s, unsigned m) {
                   expect_stored(w, s, w.put_commit(kTarget, 1 + m, w.state().fills[m]));
                 }});
  all.push_back({"fill abort awaited", kVictim, waited(kFresh),
                 [](World& w, const StartState&, unsigned m) { w.state().fills[m].abort(); }});
  all.push_back({"follow", kVictim, other_fills, [](World& w, const StartState&, unsigned m) {
                   cache::Follow follow;
                   cache::Hit hit;
                   const auto found = mine(w, m).find(w.key(m, kBig), hit);
                   if (found.found == cache::Found::kHit) mine(w, m).release(hit);
                   if (mine(w, m).follow(found.filling, follow) != cache::Following::kArriving) return;
                   std::uint64_t bytes = 0;
                   mine(w, m).follow_state(follow, bytes);
                   std::vector<std::byte> some(1000);
                   if (bytes < some.size() || !mine(w, m).follow_read(follow, 0, some.data(), 1000)) {
                     w.violate("a follower cannot read what was shown");
                   }
                   mine(w, m).release(follow);
                 }});
  all.push_back({"announce wait", kVictim, other_fills, [](World& w, const StartState&, unsigned m) {
                   cache::Hit hit;
                   const auto found = mine(w, m).find(w.key(m, kBig), hit);
                   if (found.found == cache::Found::kHit) mine(w, m).release(hit);
                   mine(w, m).announce_wait(found.filling);
                 }});
  all.push_back({"pass over", kVictim, other_fills, [](World& w, const StartState&, unsigned m) {
                   cache::Hit hit;
                   const auto found = mine(w, m).find(w.key(m, kBig), hit);
                   if (found.found == cache::Found::kHit) mine(w, m).release(hit);
                   mine(w, m).pass_over(found.filling);
                   w.put(m, kBig, 2 + m);
                 }});
}

void add_expulsion(std::vector<Operation>& all) {
  const auto other_fills_and_is_awaited = [](World& w, const StartState& s, unsigned m) {
    if (!joined(w, m) || !joined(w, kOther) || s.busy) return false;
    w.state().body_bytes[kBig] = 90000;
    cache::Fill& fill = w.state().fills[kOther];
    bool ok = false;
    w.as(kOther, [&] {
      ok = w.put_begin(kOther, kBig, kExpelledVersion, fill) == Put::kStored &&
           w.put_body(kBig, kExpelledVersion, fill) == Put::kStored;
    });
    if (ok) w.as(kFirstSurvivor, [&] { w.wait_for(kFirstSurvivor, fill); });
    return ok;
  };
  all.push_back({"expel", kVictim, other_fills_and_is_awaited,
                 [](World& w, const StartState&, unsigned m) {
                   w.member(m).instance->expel(w.member(kOther).instance->id(), "test");
                 }});
  all.push_back({"come back", kVictim,
                 [](World& w, const StartState& s, unsigned m) {
                   if (s.busy || !filling(kFresh, 1, true)(w, s, m)) return false;
                   bool expelled = false;
                   w.as(kFirstSurvivor, [&] {
                     expelled = w.member(kFirstSurvivor)
                                    .instance->expel(w.member(m).instance->id(), "test");
                   });
                   return expelled;
                 },
                 [](World& w, const StartState&, unsigned m) {
                   if (w.put_commit(kFresh, 1 + m, w.state().fills[m]) == Put::kStored) {
                     w.violate("what an expelled process filled is there");
                   }
                   if (w.put(m, kTarget, 5 + m) != Put::kBusy) {
                     w.violate("an expelled process fills");
                   }
                   w.member(m).instance->tick();
                   w.put(m, kFresh, 12);
                 }});
  // What another agent began, as every agent does again and again.
  all.push_back({"pass on", kVictim,
                 [](World& w, const StartState& s, unsigned m) {
                   return joined(w, m) && s.name == "dead expelled";
                 },
                 [](World& w, const StartState&, unsigned m) { w.pass_on(m); }});
  // Of two that go on at the same time one expels the other.
  all.push_back({"expel the other one", kVictim,
                 [](World& w, const StartState& s, unsigned m) {
                   return w.crowded && !s.busy && joined(w, m) && joined(w, kSecondSurvivor) &&
                          m != kSecondSurvivor;
                 },
                 [](World& w, const StartState&, unsigned m) {
                   w.member(m).instance->expel(w.member(kSecondSurvivor).instance->id(), "test");
                 }});
}

void add_lookups(std::vector<Operation>& all) {
  all.push_back({"lookup", kVictim, always,
                 [](World& w, const StartState&, unsigned m) { w.get(m, kTarget); }});
  all.push_back({"unpin", kVictim,
                 [](World& w, const StartState& s, unsigned m) {
                   if (!target_is_there(w, s, m)) return false;
                   bool pinned = false;
                   w.as(m, [&] { pinned = w.pin(m, kTarget); });
                   return pinned;
                 },
                 [](World& w, const StartState&, unsigned m) {
                   for (unsigned i = w.state().hit_count; i-- > 0;) {
                     if (w.state().hit_owner[i] == m) return w.unpin(i);
                   }
                 }});
  all.push_back({"touch", kVictim, target_is_there, [](World& w, const StartState&, unsigned m) {
                   cache::Hit hit;
                   const auto found = mine(w, m).find(w.key(m, kTarget), hit).found;
                   if (found != cache::Found::kHit) return;
                   for (int i = 0; i < 5; ++i) mine(w, m).touch(hit);
                   mine(w, m).set_checked(hit, 1234567);
                   mine(w, m).release(hit);
                 }});
}

void add_removals(std::vector<Operation>& all) {
  all.push_back({"retire", kVictim, target_is_there, [](World& w, const StartState&, unsigned m) {
                   w.state().allowed[kTarget] |= 0;
                   mine(w, m).retire(link_of(w, m, kTarget));
                 }});
  for (const std::uint64_t units : {1, 200}) {
    all.push_back({units == 1 ? "evict one" : "evict many", kVictim, always,
                   [units](World& w, const StartState&, unsigned m) { mine(w, m).evict_some(0, units); }});
  }
  all.push_back({"purge key", kVictim, target_is_there, [](World& w, const StartState&, unsigned m) {
                   w.purge_key(m, kTarget);
                   if (!w.crowded && w.get(m, kTarget) >= 0) w.violate("purged, and there");
                 }});
  // So many that one of them has the descriptor of what was purged: they lie together.
  all.push_back({"purge and fill", kVictim,
                 [](World& w, const StartState& s, unsigned m) {
                   return joined(w, m) && s.name == "some";
                 },
                 [](World& w, const StartState&, unsigned m) {
                   w.purge_key(m, kTarget);
                   w.put(m, kTarget, 14);
                   for (unsigned k = 200; k < 216; ++k) w.put(m, k, 14);
                 }});
  all.push_back({"purge all", kVictim, always, [](World& w, const StartState&, unsigned m) {
                   w.purge_all(m);
                   for (unsigned k = 0; k < 30; ++k) {
                     if (!w.crowded && w.get(m, k) >= 0) w.violate("all purged, but key %u is there", k);
                   }
                 }});
  all.push_back({"purge soft", kVictim, target_is_there, [](World& w, const StartState&, unsigned m) {
                   mine(w, m).purge(cache::PurgeKind::kKey, w.key_name(kTarget), true);
                 }});
  all.push_back({"purge in flight", kVictim, other_fills, [](World& w, const StartState&, unsigned m) {
                   w.purge_key(m, kBig);
                   w.purge_key(m, kTarget);
                 }});
  all.push_back({"reclaim", kVictim,
                 [](World& w, const StartState& s, unsigned m) {
                   if (s.busy || !target_is_there(w, s, m)) return false;
                   bool ready = false;
                   w.as(kFirstSurvivor, [&] {
                     ready = w.pin(kFirstSurvivor, kTarget) && w.pin(kFirstSurvivor, 1);
                   });
                   if (!ready) return false;
                   w.as(m, [&] {
                     w.purge_key(m, kTarget);
                     w.purge_key(m, 1);
                   });
                   const unsigned last = w.state().hit_count;
                   w.as(kFirstSurvivor, [&] {
                     w.unpin(last - 1);
                     w.unpin(last - 2);
                   });
                   return true;
                 },
                 [](World& w, const StartState&, unsigned m) { mine(w, m).reclaim(); }});
  // Sent from its pages, which the kernel may hold on to.
  const auto sent = [](bool retired) -> Prepare {
    return [retired](World& w, const StartState& s, unsigned m) {
      if (s.busy || s.evicts || !joined(w, m)) return false;
      w.state().body_bytes[kBig] = 90000;
      bool ok = false;
      w.as(m, [&] { ok = w.put(m, kBig, 16 + m) == Put::kStored && w.send(m, kBig); });
      if (ok && retired) w.as(m, [&] { w.purge_key(m, kBig); });
      return ok;
    };
  };
  all.push_back({"send", kVictim, sent(false), [](World& w, const StartState&, unsigned m) {
                   w.send(m, kBig);
                   w.purge_key(m, kBig);
                   mine(w, m).reclaim();
                 }});
  all.push_back({"reclaim what was sent", kVictim, sent(true),
                 [](World& w, const StartState&, unsigned m) { mine(w, m).reclaim(); }});
  all.push_back({"tick", kVictim, always, [](World& w, const StartState&, unsigned m) {
                   w.member(m).instance->tick();
                   mine(w, m).tick();
                 }});
}

// What lies on another node's memory moves to its reader.
void add_loans(std::vector<Operation>& all) {
  static const auto far = [](World& w, unsigned m, unsigned& key) {
    for (unsigned k = 0; k < 30; ++k) {
      const cache::Link link = link_of(w, m, k);
      if (link.value == 0 || link.segment() == w.member(m).instance->node()) continue;
      key = k;
      return link;
    }
    return cache::Link{};
  };
  all.push_back({"bring near", kVictim,
                 [](World& w, const StartState&, unsigned m) {
                   if (!joined(w, m) || w.state().domain->node_count() != 2) return false;
                   unsigned key = 0;
                   bool there = false;
                   w.as(m, [&] { there = far(w, m, key).value != 0; });
                   return there;
                 },
                 [](World& w, const StartState& s, unsigned m) {
                   unsigned key = 0;
                   const cache::Link link = far(w, m, key);
                   if (link.value == 0) return;
                   std::uint64_t bytes = 1 << 20;
                   const bool moved = mine(w, m).bring_here(link, w.key(m, key).hash2, bytes);
                   if (!moved && !s.evicts && !w.crowded) w.violate("nothing was moved");
                 }});
}

void add_membership(std::vector<Operation>& all) {
  all.push_back({"join", kJoiner,
                 [](World&, const StartState&, unsigned) { return true; },
                 [](World& w, const StartState& s, unsigned m) {
                   if (!w.join(m) && s.name != "slots full") w.violate("cannot join");
                 }});
  all.push_back({"leave", kVictim, always, [](World& w, const StartState&, unsigned m) {
                   Member& self = w.member(m);
                   for (unsigned i = 0; i < w.state().hit_count; ++i) {
                     if (w.state().hit_owner[i] == m) w.unpin(i);
                   }
                   self.cache->leave();
                   self.instance->leave();
                   self.alive = false;
                 }});
  all.push_back({"count", kVictim, always,
                 [](World& w, const StartState&, unsigned m) { w.count(m, 11); }});
  all.push_back({"recover", kVictim,
                 [](World& w, const StartState& s, unsigned m) { return joined(w, m) && s.name.find("dead") == 0; },
                 [](World& w, const StartState&, unsigned m) {
                   w.member(m).instance->recover_all("test");
                 }});
  all.push_back({"join nobody left", kJoiner,
                 [](World&, const StartState& s, unsigned) { return s.name == "nobody left"; },
                 [](World& w, const StartState&, unsigned m) {
                   if (!w.join(m)) w.violate("cannot join");
                   w.member(m).instance->recover_all("first to join");
                 }});
}

// The victim and two others are members of the component; one of them has begun a recovery event
// that waits for the victim, if `event`.
Prepare component(bool event) {
  return [=](World& w, const StartState& s, unsigned m) {
    if (s.name != "empty" && s.name != "dead recoverer" && s.name != "two nodes" &&
        s.ending == Ending::kAlone) {
      return false;
    }
    bool ok = true;
    for (const unsigned i : {m, kFirstSurvivor, kThirdSurvivor}) {
      if (!joined(w, i)) return false;
      w.as(i, [&] { ok = w.join_component(i) && ok; });
    }
    if (event) {
      w.as(kFirstSurvivor, [&] {
        w.state().components[kFirstSurvivor]->initiate("test");
        w.state().components[kFirstSurvivor]->tick();
      });
      w.as(kThirdSurvivor, [&] { w.state().components[kThirdSurvivor]->tick(); });
    }
    return ok;
  };
}

void add_component(std::vector<Operation>& all) {
  all.push_back({"component make", kVictim,
                 [](World& w, const StartState& s, unsigned m) {
                   return joined(w, m) && (s.name == "empty" || s.name == "dead recoverer" ||
                                           s.ending != Ending::kAlone);
                 },
                 [](World& w, const StartState&, unsigned m) {
                   if (!w.join_component(m) && !w.crowded) w.violate("cannot make the component");
                 }});
  all.push_back({"component lock", kVictim, component(false),
                 [](World& w, const StartState&, unsigned m) {
                   if (!w.work_in_component(m) && !w.crowded) w.violate("cannot work in the component");
                 }});
  all.push_back({"component event", kVictim, component(false),
                 [](World& w, const StartState&, unsigned m) {
                   w.state().components[m]->initiate("test");
                   w.state().components[m]->tick();
                 }});
  all.push_back({"component resume", kVictim, component(true),
                 [](World& w, const StartState&, unsigned m) {
                   for (int i = 0; i < 3; ++i) w.state().components[m]->tick();
                 }});
  all.push_back({"component leave", kVictim, component(false),
                 [](World& w, const StartState&, unsigned m) {
                   w.state().components[m]->leave();
                   w.state().components[m] = nullptr;
                 }});
}

// Of two processes each wants the domain without the other's node.
void add_views(std::vector<Operation>& all) {
  const auto propose = [](World& w, const StartState&, unsigned m) {
    runtime::Views views(*w.state().domain);
    runtime::View want = views.look();
    ++want.generation;
    want.members = static_cast<std::uint16_t>(m % 2 == 0 ? 1 : 2);
    w.note_view(views.propose(want));
    w.note_view(views.look());
  };
  all.push_back({"propose a view", kVictim,
                 [](World& w, const StartState& s, unsigned m) {
                   return joined(w, m) &&
                          (s.name == "two nodes" || s.name == "some, all die");
                 },
                 propose});
}

// What goes on while a segment is lost, and after it.
void add_loss(std::vector<Operation>& all) {
  all.push_back({"look after memory", kVictim,
                 [](World& w, const StartState&, unsigned m) {
                   return joined(w, m) && w.state().lossy;
                 },
                 [](World& w, const StartState&, unsigned m) { mine(w, m).look_after_memory(); }, true});
  // The segment is lost in the middle.
  const auto lost_before_the_rest = [](const Prepare& first) -> Prepare {
    return [first](World& w, const StartState& s, unsigned m) {
      if (s.name != "segment to be lost" || !first(w, s, m)) return false;
      w.lose_segment(1);
      return true;
    };
  };
  for (const unsigned key : {kFresh, kTarget, kBig}) {
    all.push_back({key == kFresh ? "commit at a loss" : key == kTarget ? "replace at a loss"
                                                                       : "commit large at a loss",
                   kVictim, lost_before_the_rest(filling(key, 1, true)),
                   [key](World& w, const StartState& s, unsigned m) {
                     expect_stored(w, s, w.put_commit(key, 1 + m, w.state().fills[m]));
                   },
                   true});
  }
  all.push_back({"abort at a loss", kVictim, lost_before_the_rest(filling(kBig, 1, true)),
                 [](World& w, const StartState&, unsigned m) { w.state().fills[m].abort(); }, true});
  all.push_back({"purge at a loss", kVictim, lost_before_the_rest(always),
                 [](World& w, const StartState&, unsigned m) {
                   w.purge_key(m, kTarget);
                   w.purge_key(m, 21);
                 },
                 true});
  all.push_back({"lookup at a loss", kVictim, lost_before_the_rest(always),
                 [](World& w, const StartState&, unsigned m) {
                   for (unsigned k = 0; k < 30; ++k) w.get(m, k);
                 },
                 true});
  for (Operation& operation : all) {
    for (const char* name : {"put", "put large", "lookup", "purge all", "evict many", "tick", "join",
                             "leave", "lock bucket"}) {
      if (operation.name == name) operation.lossy = true;
    }
  }
}

void add_locks(std::vector<Operation>& all) {
  all.push_back({"lock bucket", kVictim, always, [](World& w, const StartState&, unsigned m) {
                   const cache::Index::Locked bucket(mine(w, m).index(),
                                                     w.key(m, kTarget).hash);
                 }});
  all.push_back({"mutex", kVictim,
                 [](World& w, const StartState&, unsigned m) { return joined(w, m); },
                 [](World& w, const StartState&, unsigned m) {
                   Instance& self = *w.member(m).instance;
                   const runtime::MutexId id = GlobalMutex::for_component(self, 0, 1);
                   GlobalMutex mutex(self, id);
                   if (mutex.lock() == MutexAnswer::kAcquiredAbandoned) mutex.mark_consistent();
                   mutex.unlock();
                   if (mutex.try_lock() != MutexAnswer::kAcquired && !w.crowded) w.violate("cannot lock twice");
                 }});
}

}  // namespace

const std::vector<Operation>& operations() {
  static const std::vector<Operation> all = [] {
    std::vector<Operation> o;
    add_fills(o);
    add_expulsion(o);
    add_lookups(o);
    add_removals(o);
    add_loans(o);
    add_membership(o);
    add_locks(o);
    add_component(o);
    add_views(o);
    add_loss(o);
    return o;
  }();
  return all;
}

}  // namespace mcs::killpoints
