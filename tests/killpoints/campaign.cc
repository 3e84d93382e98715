// SPDX-License-Identifier: Apache-2.0
#include "tests/killpoints/campaign.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace mcs::killpoints {

namespace {

constexpr std::uint64_t kStepLimit = 3000000;
constexpr std::size_t kReports = 60;
constexpr std::size_t kMostStores = 1 << 20;
// Who takes a survivor's place where all the members are dead.
constexpr unsigned kLateJoiners[] = {9, 10, 11};
// Of whoever is stopped, where kernels are separate.
constexpr std::uint32_t kTheirNode = 1;

}  // namespace

Campaign::Campaign(World& world, CampaignOptions options)
    : world_(world), options_(std::move(options)), random_(options_.seed) {}

bool Campaign::time_is_up() const {
  return (options_.stop_at_violation && result_.violations > 0) ||
         (options_.seconds > 0 && std::chrono::steady_clock::now() >= until_) ||
         (options_.max_points > 0 && result_.points >= options_.max_points);
}

CampaignResult Campaign::run() {
  const auto begin = std::chrono::steady_clock::now();
  until_ = begin + std::chrono::microseconds(static_cast<std::int64_t>(options_.seconds * 1e6));
  hooks.step_limit = kStepLimit;
  std::vector<Case> cases;
  for (const StartState& start : start_states()) {
    if (!options_.only_state.empty() && start.name != options_.only_state) continue;
    for (const Operation& operation : operations()) {
      if (!options_.only_operation.empty() && operation.name != options_.only_operation) continue;
      if (!applies(operation, start)) continue;
      cases.push_back({&start, &operation});
    }
  }
  std::vector<Case> possible;
  result_.next_case = result_.cases = cases.size();
  for (std::uint64_t number = options_.from_case; number < cases.size(); ++number) {
    const Case& wanted = cases[number];
    const std::uint64_t from = number == options_.from_case ? options_.from_kill : 0;
    if (number >= options_.to_case || (time_is_up() && !options_.all_distinct)) {
      stop_at(number, from);
      break;
    }
    if (!prepare(wanted)) continue;
    possible.push_back(wanted);
    if (options_.all_pairs) {
      kill_all_pairs(number, from);
    } else if (options_.exhaustive) {
      kill_everywhere(number, from);
    } else {
      kill_at_distinct_points();
    }
    world_.restore(snapshot_);
    if (result_.next_case == number) break;
  }
  const auto enough = [&] {
    return time_is_up() || (options_.pairs > 0 && result_.double_kills >= options_.pairs) ||
           (options_.pairs == 0 && options_.seconds == 0 && options_.max_points == 0);
  };
  const bool sampled = !options_.exhaustive && !options_.all_pairs;
  while (sampled && !possible.empty() && !enough()) {
    // Class by class, since building one takes longer than a run.
    std::shuffle(possible.begin(), possible.end(), random_);
    std::stable_sort(possible.begin(), possible.end(),
                     [](const Case& x, const Case& y) { return x.start < y.start; });
    std::rotate(possible.begin(), possible.begin() + static_cast<long>(random_() % possible.size()),
                possible.end());
    for (const Case& wanted : possible) {
      if (enough()) break;
      if (prepare(wanted)) kill_twice(6);
      world_.restore(snapshot_);
    }
  }
  hooks.log_undo = false;
  hooks.step_limit = 0;
  result_.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result_;
}

// Brings the world to where the operation starts. False: it makes no sense in this class.
bool Campaign::prepare(const Case& wanted) {
  start_ = wanted.start;
  operation_ = wanted.operation;
  hooks.log_undo = false;
  if (built_ != start_) {
    world_.create(start_->options);
    start_->build(world_);
    if (world_.violated()) {
      ++result_.violations;
      result_.reports.push_back(
          fmt::format("building \"{}\": {}", start_->name, world_.violation()));
    }
    world_.save(fresh_);
    built_ = start_;
  }
  world_.load(fresh_);
  world_.clear_violation();
  const bool applies = operation_->prepare(world_, *start_, operation_->victim);
  if (world_.violated()) {
    ++result_.violations;
    result_.reports.push_back(fmt::format("preparing {} from \"{}\": {}", operation_->name,
                                          start_->name, world_.violation()));
    return false;
  }
  if (!applies) return false;
  world_.save(snapshot_);
  hooks.log_undo = true;
  choose_keys();
  return true;
}

void Campaign::examine(const StartState& start, const Operation& operation,
                       std::set<unsigned> must_hit, bool eager) {
  start_ = &start;
  operation_ = &operation;
  must_hit_ = std::move(must_hit);
  choose_keys();
  world_.declare_dead(operation.victim);
  Outcome outcome;
  aftermath(outcome, 0, eager);
}

void Campaign::choose_keys() {
  keys_ = {kTarget, kFresh, 29};
  for (unsigned k = 0; k < kKeys; ++k) {
    if (world_.state().allowed[k] != 0) keys_.insert(k);
  }
}

void Campaign::count(const Outcome& outcome) {
  result_.distinct.emplace(operation_->name, start_->name,
                           outcome.killed ? place_of(outcome.where) : 0);
  ++result_.points;
  ++result_.operations[operation_->name];
}

// One kill for each store of the program among the first `stores` of the trace: of the times that it is
// performed, any one.
std::vector<std::uint64_t> Campaign::distinct_kills(std::mt19937_64& random,
                                                    std::uint64_t stores) const {
  std::map<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>> chosen;
  for (std::uint64_t kill = 1; kill <= std::min<std::uint64_t>(stores, trace_.size()); ++kill) {
    auto& [times, one_of_them] = chosen[trace_[kill - 1]];
    if (random() % ++times == 0) one_of_them = kill;
  }
  std::vector<std::uint64_t> kills;
  for (const auto& [place, choice] : chosen) kills.push_back(choice.second);
  return kills;
}

void Campaign::stop_at(std::uint64_t number, std::uint64_t kill) {
  result_.complete = false;
  result_.next_case = number;
  result_.next_kill = kill;
}

// All that decides how the others go on. Not the history of events, which has times in it, nor payload:
// what nobody sealed is not read.
std::uint64_t Campaign::fingerprint() const {
  const WorldState& state = world_.state();
  std::uint64_t print = 0;
  const auto add = [&](const void* from, std::size_t n) {
    print = XXH3_64bits_withSeed(from, n, print);
  };
  const auto r = runtime::RuntimeGeometry::load(state.domain->header().user);
  for (std::uint32_t node = 0; node < state.domain->node_count(); ++node) {
    const gsm::Segment& segment = state.domain->segment(node);
    const auto* at = reinterpret_cast<const unsigned char*>(segment.metadata());
    const std::uint64_t after = r.events + sizeof(runtime::EventRing);
    add(at, r.events);
    add(at + after, segment.header().meta_bytes - after);
  }
  add(state.allowed.data(), sizeof state.allowed);
  add(state.begun.data(), sizeof state.begun);
  add(state.gone.data(), sizeof state.gone);
  add(state.committed.data(), sizeof state.committed);
  add(state.older.data(), sizeof state.older);
  add(state.target_older.data(), sizeof state.target_older);
  // Where it stands decides too, if it goes on.
  const std::uint64_t words[] = {state.waited.value, state.waiter,    state.woken,
                                 state.counted,      state.counting,  state.hit_count,
                                 goes_on(start_->ending) ? kill_ : 0};
  add(words, sizeof words);
  return print;
}

// Every distinct point, before and after survivors work, and with each of them every distinct store of
// whoever recovers.
void Campaign::kill_all_pairs(std::uint64_t number, std::uint64_t from) {
  // The same choice in a run that goes on where another one stopped.
  std::mt19937_64 random(options_.seed * 1000003 + number);
  const Outcome whole = learn();
  std::vector<std::uint64_t> kills = distinct_kills(random, whole.stores);
  kills.push_back(~0ULL);
  seen_.clear();
  seen_first_.clear();
  for (std::uint64_t i = from; i < kills.size(); ++i) {
    // Only here, so that what several runs count adds up.
    if (time_is_up()) return stop_at(number, i);
    std::mt19937_64 of_this(options_.seed * 1000003 + number * 10007 + i);
    for (const bool eager : {false, true}) pairs_of(kills[i], eager, of_this);
  }
  check_harness();
}

// A death that leaves memory as an earlier one did is not followed any further.
void Campaign::pairs_of(std::uint64_t kill, bool eager, std::mt19937_64& random) {
  Outcome outcome;
  die_at(kill, outcome);
  const std::uint64_t print = fingerprint() * 2 + (eager ? 1 : 0);
  if (const auto seen = seen_first_.find(print); seen != seen_first_.end()) {
    count(outcome);
    result_.double_kills += seen->second;
    result_.same += seen->second;
    return;
  }
  trace_recovery_ = true;
  outcome = one(kill, 0, eager);
  trace_recovery_ = false;
  count(outcome);
  std::vector<std::uint64_t> seconds = distinct_kills(random, outcome.recovery_stores);
  std::sort(seconds.begin(), seconds.end());
  kill_recoverer_at_each(kill, seconds, eager);
  seen_first_.emplace(print, seconds.size());
}

// Goes once through the recovery and stops before each of the stores: there its process dies, the
// others come to rest, and then everything is as it was at that store and goes on.
void Campaign::kill_recoverer_at_each(std::uint64_t kill, const std::vector<std::uint64_t>& seconds,
                                      bool eager) {
  Outcome outcome;
  if (seconds.empty() || !die_at(kill, outcome)) return;
  const Others others = those_left();
  if (world_.violated()) return;
  look(others.worker, true);
  const std::function<void()> body = [&] { recover(others.worker, eager); };
  hooks.stores = 0;
  hooks.kill_before = seconds[0];
  hooks.pause = true;
  ActorEnd end = run_actor(others.worker, body);
  for (std::size_t i = 0; end == ActorEnd::kSuspended; end = resume_actor(others.worker)) {
    hooks.kill_before = 0;
    hooks.pause = false;
    ++result_.double_kills;
    if (seen_.insert(fingerprint() * 2 + (eager ? 1 : 0)).second) {
      outcome.second_where = hooks.last;
      outcome.second_killed = true;
      world_.save(instant_);
      Others left = others;
      if (go_on_without_recoverer(left, eager)) come_to_rest(left, eager);
      if (world_.violated()) report(kill, seconds[i], eager, outcome);
      world_.clear_violation();
      world_.go_back(instant_);
    } else {
      ++result_.same;
    }
    if (++i == seconds.size()) return;
    hooks.kill_before = seconds[i];
    hooks.pause = true;
  }
  hooks.kill_before = 0;
  hooks.pause = false;
  // The first run had all of these stores.
  result_.reports.push_back(fmt::format(
      "the harness itself: {} from \"{}\", killed before store {}: the recovery made {} stores, then {}",
      operation_->name, start_->name, kill, seconds.back(), hooks.stores));
  ++result_.violations;
}

void Campaign::kill_at_distinct_points() {
  const Outcome whole = learn();
  std::vector<std::uint64_t> kills = distinct_kills(random_, whole.stores);
  // The last point is the finished operation, whose process dies before it does anything else.
  kills.push_back(~0ULL);
  for (const std::uint64_t kill : kills) {
    if (time_is_up() && !options_.all_distinct) {
      result_.complete = false;
      return;
    }
    count(one(kill, 0, random_() % 2 == 0));
  }
  check_harness();
}

void Campaign::kill_everywhere(std::uint64_t number, std::uint64_t from) {
  const Outcome whole = learn();
  seen_.clear();
  for (std::uint64_t kill = std::max<std::uint64_t>(1, from); kill <= whole.stores + 1; ++kill) {
    const std::uint64_t at = kill > whole.stores ? ~0ULL : kill;
    for (const bool eager : {false, true}) {
      if (time_is_up()) return stop_at(number, kill);
      const Outcome outcome = one(at, 0, eager);
      count(outcome);
      for (std::uint64_t second = 1; second <= outcome.recovery_stores; ++second) {
        if (time_is_up()) return stop_at(number, kill);
        skip_seen_ = true;
        one(at, second, eager);
        skip_seen_ = false;
      }
    }
    if (kill % 500 == 0) check_harness();
  }
  check_harness();
}

void Campaign::kill_twice(unsigned times) {
  const Outcome whole = learn();
  for (unsigned i = 0; i < times && !time_is_up(); ++i) {
    const std::uint64_t kill = 1 + random_() % (whole.stores + 1);
    const std::uint64_t at = kill > whole.stores ? ~0ULL : kill;
    const bool eager = random_() % 2 == 0;
    const Outcome outcome = one(at, 0, eager);
    count(outcome);
    for (unsigned j = 0; j < 4 && outcome.recovery_stores > 0; ++j) {
      one(at, 1 + random_() % outcome.recovery_stores, eager);
    }
  }
}

void Campaign::check_harness() {
  world_.restore(snapshot_);
  const void* unseen = world_.difference(snapshot_);
  if (unseen == nullptr) return;
  result_.reports.push_back(
      fmt::format("the harness itself: a store went by unseen: {}", world_.describe(unseen)));
  ++result_.violations;
}

// Nobody dies: learn which stores there are and what the operation leaves alone.
Campaign::Outcome Campaign::learn() {
  world_.restore(snapshot_);
  world_.clear_violation();
  must_hit_.clear();
  Outcome outcome;
  const unsigned victim = operation_->victim;
  const std::function<void()> act = [&] { operation_->run(world_, *start_, victim); };
  // What is there before and also after the operation must be there at every instant in between.
  std::vector<bool> before(kKeys);
  const auto present = [&](unsigned k) {
    int version = -1;
    const Member& m = world_.member(kFirstSurvivor);
    if (m.alive) world_.as(kFirstSurvivor, [&] { version = world_.get(kFirstSurvivor, k); });
    return version >= 0;
  };
  for (const unsigned k : keys_) before[k] = present(k);
  world_.restore(snapshot_);
  trace_.resize(kMostStores);
  hooks.trace = trace_.data();
  hooks.trace_size = trace_.size();
  hooks.kill_before = 0;
  hooks.stores = 0;
  const ActorEnd end = run_actor(victim, act);
  hooks.trace_size = 0;
  if (end == ActorEnd::kHung) world_.violate("the operation hangs although everybody lives");
  outcome.stores = hooks.stores;
  trace_.resize(std::min<std::uint64_t>(kMostStores, outcome.stores));
  flush_delayed();
  for (const unsigned k : keys_) {
    if (before[k] && k != kTarget && k != kFresh && k != 29 && present(k)) must_hit_.insert(k);
  }
  if (world_.member(kFirstSurvivor).alive) {
    world_.as(kFirstSurvivor, [&] { world_.check_woken(); });
  }
  finish_the_living();
  if (world_.violated()) report(0, 0, false, outcome);
  return outcome;
}

Campaign::Outcome Campaign::one(std::uint64_t kill, std::uint64_t second, bool eager) {
  const auto hit = [](const Access& access, const void* campaign) {
    const auto& self = *static_cast<const Campaign*>(campaign);
    return self.world_.classify(access.address) == self.options_.mutated;
  };
  hooks.mutation = {options_.mutation, hit, this};
  const Outcome outcome = one_as_it_is(kill, second, eager);
  hooks.mutation = {};
  drop_delayed();
  return outcome;
}

// Runs the operation up to its store number `kill`. False: it hangs.
bool Campaign::die_at(std::uint64_t kill, Outcome& outcome) {
  world_.restore(snapshot_);
  world_.clear_violation();
  kill_ = kill;
  act_ = [this] { operation_->run(world_, *start_, operation_->victim); };
  hooks.stores = 0;
  hooks.kill_before = kill == ~0ULL ? 0 : kill;
  world_.crowded = hooks.pause = goes_on(start_->ending);
  const ActorEnd end = run_actor(operation_->victim, act_);
  hooks.kill_before = 0;
  world_.crowded = hooks.pause = false;
  stands_still_ = end == ActorEnd::kSuspended;
  outcome.killed = end == ActorEnd::kKilled || stands_still_;
  outcome.where = hooks.last;
  if (end == ActorEnd::kHung) {
    world_.violate("the operation hangs");
    return false;
  }
  if (end == ActorEnd::kFinished) {
    flush_delayed();
  } else {
    drop_delayed();
  }
  if (goes_on(start_->ending)) return true;
  for (unsigned m = 0; m < kMembers; ++m) {
    if (m == operation_->victim || start_->ending == Ending::kEverybody ||
        (start_->ending == Ending::kNodeCrash && world_.state().home[m] == kTheirNode)) {
      world_.declare_dead(m);
    }
  }
  if (start_->ending == Ending::kEverybody) world_.state().hit_count = 0;
  return true;
}

Campaign::Outcome Campaign::one_as_it_is(std::uint64_t kill, std::uint64_t second, bool eager) {
  Outcome outcome;
  if (die_at(kill, outcome)) aftermath(outcome, second, eager);
  if (second != 0) ++result_.double_kills;
  if (world_.violated()) report(kill, second, eager, outcome);
  return outcome;
}

void Campaign::look(unsigned m, bool must_hit) {
  world_.as(m, [&] {
    for (const unsigned k : keys_) {
      const int version = world_.get(m, k);
      if (must_hit && version < 0 && must_hit_.contains(k)) {
        world_.violate("key %u was lost by somebody's death", k);
      }
    }
  });
}

// What survivors do before anybody has recovered anything: it may answer busy, but nothing wrong.
void Campaign::work_beside_the_dead(unsigned m) {
  world_.put(m, 12, 3);
  world_.put(m, kFresh, 8);
  // What the dead one stored is seen and evicted: what it replaced must not come back.
  cache::Hit hit;
  cache::GlobalCache& cache = *world_.member(m).cache;
  if (world_.get(m, kTarget) >= 0 &&
      cache.find(world_.key(m, kTarget), hit).found == cache::Found::kHit) {
    cache.release(hit);
    cache.retire(hit.link);
    world_.get(m, kTarget);
  }
  if (!start_->evicts) world_.purge_key(m, 1);
  world_.member(m).cache->tick();
}

void Campaign::finish_the_living() {
  if (start_->suspended) {
    for (const unsigned m : {kOther, kAnother}) {
      if (!world_.member(m).alive || (m == kAnother && start_->name != "contended groups")) continue;
      if (resume_actor(m) == ActorEnd::kHung) world_.violate("process %u hangs", m);
    }
  }
  if (world_.member(kFirstSurvivor).alive) {
    world_.as(kFirstSurvivor, [&] {
      cache::Fill& fill = world_.state().fills[kFirstSurvivor];
      if (fill) world_.put_commit(29, kOtherVersion, fill);
    });
  }
  if (!start_->suspended && world_.member(kOther).alive) {
    world_.as(kOther, [&] {
      cache::Fill& fill = world_.state().fills[kOther];
      if (fill) world_.put_commit(29, kExpelledVersion, fill);
      world_.member(kOther).instance->tick();
    });
  }
  for (unsigned i = 0; i < world_.state().hit_count; ++i) {
    const unsigned m = world_.state().hit_owner[i];
    if (world_.member(m).alive) world_.as(m, [&] { world_.unpin(i); });
  }
}

bool Campaign::choose_worker(Others& others) {
  if (others.survivors.empty()) {
    const unsigned m = kLateJoiners[others.late++];
    world_.as(m, [&] {
      if (!world_.join(m)) world_.violate("nobody lives and nobody can join");
    });
    others.survivors.push_back(m);
  }
  others.worker = others.survivors.front();
  return !world_.violated();
}

Campaign::Others Campaign::those_left() {
  Others others;
  for (const unsigned m : {kFirstSurvivor, kSecondSurvivor, kThirdSurvivor}) {
    if (world_.member(m).alive) others.survivors.push_back(m);
  }
  choose_worker(others);
  return others;
}

void Campaign::recover(unsigned m, bool eager) {
  if (eager) work_beside_the_dead(m);
  if (world_.state().lossy) world_.member(m).cache->look_after_memory();
  expel(m);
  world_.member(m).instance->recover_all("test");
  world_.pass_on(m);
}

// As an agent does with who is hung and may not be killed, or whose node is.
void Campaign::expel(unsigned m) {
  runtime::Instance& instance = *world_.member(m).instance;
  if (start_->ending == Ending::kExpelled) {
    const Member& victim = world_.member(operation_->victim);
    if (victim.alive) instance.expel(victim.instance->id(), "test");
  } else if (concerns_node(start_->ending)) {
    admit(m, false);
    instance.expel_outsiders();
  }
}

void Campaign::admit(unsigned m, bool member) {
  runtime::Views& views = world_.member(m).instance->views();
  runtime::View want = views.look();
  if (want.has_member(kTheirNode) == member) return;
  ++want.generation;
  want.members = static_cast<std::uint16_t>(want.members ^ (1U << kTheirNode));
  world_.note_view(views.propose(want));
}

// Who stood still goes on, before or after its node is admitted again; a node that crashed has new
// processes.
void Campaign::come_back(unsigned m, bool eager) {
  const bool node = concerns_node(start_->ending);
  if (!node && start_->ending != Ending::kExpelled) return;
  const auto admit_them = [&] { world_.as(m, [&] { admit(m, true); }); };
  if (start_->ending == Ending::kNodeCrash) {
    world_.as(kReturned, [&] {
      if (!world_.join(kReturned)) world_.violate("nobody can join on a node that comes back");
    });
    if (world_.violated()) return;
  }
  if (node && !eager) admit_them();
  world_.crowded = true;
  const bool hangs = stands_still_ && resume_actor(operation_->victim) == ActorEnd::kHung;
  world_.crowded = false;
  if (hangs) {
    world_.violate("the operation hangs when it goes on");
    return;
  }
  if (node && eager) admit_them();
  for (unsigned i = 0; i < kMembers; ++i) {
    const bool theirs = node ? world_.state().home[i] == kTheirNode : i == operation_->victim;
    if (!theirs || !world_.member(i).alive) continue;
    world_.as(i, [&] {
      const Member& self = world_.member(i);
      if (eager) self.instance->tick();
      if (i == operation_->victim) world_.state().fills[i].abort();
      self.instance->tick();
      if (self.instance->expelled()) world_.violate("process %u does not come back", i);
      if (world_.state().lossy) self.cache->look_after_memory();
      self.instance->recover_all("test");
      world_.pass_on(i);
      self.cache->tick();
    });
  }
}

void Campaign::aftermath(Outcome& outcome, std::uint64_t second, bool eager) {
  Others others = those_left();
  if (world_.violated()) return;
  look(others.worker, true);

  const std::function<void()> body = [&] { recover(others.worker, eager); };
  if (trace_recovery_) {
    trace_.resize(kMostStores);
    hooks.trace = trace_.data();
    hooks.trace_size = trace_.size();
  }
  hooks.stores = 0;
  hooks.kill_before = second;
  const ActorEnd end = run_actor(others.worker, body);
  hooks.kill_before = 0;
  hooks.trace_size = 0;
  outcome.recovery_stores = hooks.stores;
  outcome.second_killed = end == ActorEnd::kKilled;
  outcome.second_where = hooks.last;
  if (end == ActorEnd::kHung) {
    world_.violate("the recovery hangs");
    return;
  }
  if (end == ActorEnd::kKilled) {
    drop_delayed();
    if (skip_seen_ && !seen_.insert(fingerprint() * 2 + (eager ? 1 : 0)).second) {
      ++result_.same;
      return;
    }
    if (!go_on_without_recoverer(others, eager)) return;
  } else {
    flush_delayed();
  }
  come_to_rest(others, eager);
}

bool Campaign::go_on_without_recoverer(Others& others, bool eager) {
  world_.declare_dead(others.worker);
  others.survivors.erase(others.survivors.begin());
  if (!choose_worker(others)) return false;
  look(others.worker, !eager);
  world_.as(others.worker, [&] { recover(others.worker, eager); });
  return true;
}

void Campaign::come_to_rest(Others& others, bool eager) {
  std::vector<unsigned>& survivors = others.survivors;
  const unsigned m = others.worker;
  look(m, !eager);
  world_.as(m, [&] { world_.check_woken(); });
  come_back(m, eager);
  finish_the_living();
  // What a stopped process held up is tried again.
  world_.as(m, [&] { world_.member(m).instance->recover_all("test"); });
  if (survivors.size() == 1 && !world_.violated()) {
    const unsigned next = kLateJoiners[others.late++];
    world_.as(next, [&] {
      if (world_.join(next)) survivors.push_back(next);
    });
  }
  const unsigned reader = survivors.size() > 1 ? survivors[1] : m;
  world_.settle_component(reader);
  const std::uint64_t evictions = world_.eviction_steps();
  world_.as(m, [&] {
    for (const unsigned k : {kTarget, kFresh}) {
      const Put answer = world_.put(m, k, 10);
      if (answer != Put::kStored) {
        world_.violate("key %u cannot be filled any more (%d)", k, static_cast<int>(answer));
      }
    }
  });
  world_.as(reader, [&] {
    for (const unsigned k : {kTarget, kFresh}) {
      const int version = world_.get(reader, k);
      // If there was no room, the second may have taken the place of the first.
      const bool evicted = world_.eviction_steps() != evictions;
      if (version != 10 && !(evicted && version < 0 && k == kTarget)) {
        world_.violate("key %u: stored, but version %d is there", k, version);
      }
    }
  });
  look(reader, false);
  for (int round = 0; round < 2; ++round) {
    for (unsigned i = 0; i < kMembers; ++i) {
      if (!world_.member(i).alive) continue;
      world_.as(i, [&] {
        world_.member(i).instance->tick();
        world_.member(i).cache->tick();
      });
    }
  }
  world_.check_idle(false);
}

void Campaign::report(std::uint64_t kill, std::uint64_t second, bool eager,
                      const Outcome& outcome) {
  const bool hang = std::string(world_.violation()).find("hang") != std::string::npos;
  result_.hangs += hang ? 1 : 0;
  ++result_.violations;
  result_.leaked_bytes += world_.leaked_bytes();
  std::string kind =
      operation_->name + " from \"" + start_->name + "\": " + world_.violation();
  std::replace_if(kind.begin(), kind.end(), [](char c) { return c >= '0' && c <= '9'; }, '#');
  const std::uint64_t seen = ++result_.kinds[kind];
  if (seen > 1 || result_.reports.size() >= kReports) return;
  std::string text = fmt::format("{} from \"{}\"", operation_->name, start_->name);
  if (outcome.killed) {
    text += fmt::format(", {} before store {} ({}) in {}",
                        goes_on(start_->ending) ? "stopped" : "killed", kill,
                        world_.describe(outcome.where.address), describe_site(outcome.where.site));
  } else if (kill != 0) {
    text += ", killed after it finished";
  }
  if (second != 0 && outcome.second_killed) {
    text += fmt::format(", its recoverer before store {} ({}) in {}", second,
                        world_.describe(outcome.second_where.address),
                        describe_site(outcome.second_where.site));
  }
  if (eager) text += ", survivors working first";
  text += fmt::format(": {}", world_.violation());
  result_.reports.push_back(text);
}

std::string Campaign::json(const CampaignResult& result) {
  nlohmann::json out;
  out["points"] = result.points;
  out["distinct_points"] = result.distinct.size();
  out["operations"] = result.operations;
  out["double_kills"] = result.double_kills;
  out["violations"] = result.violations;
  out["hangs"] = result.hangs;
  out["leaked_bytes"] = result.leaked_bytes;
  out["seconds"] = result.seconds;
  out["complete"] = result.complete;
  out["cases"] = result.cases;
  out["next_case"] = result.next_case;
  out["next_kill"] = result.next_kill;
  out["same_states"] = result.same;
  out["reports"] = result.reports;
  return out.dump(2);
}

}  // namespace mcs::killpoints
