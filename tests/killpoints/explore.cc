// SPDX-License-Identifier: Apache-2.0
#include "tests/killpoints/explore.h"

#include <fmt/format.h>

#include <algorithm>

namespace mcs::killpoints {

namespace {

constexpr std::uint64_t kStepLimit = 6000000;
constexpr std::size_t kReports = 40;
constexpr unsigned kSecondThread = 8;  // actor that plays the second thread of a process

// Pairs that have shown a mistake, or that alone can show one: in every run, with every schedule of two
// preemptions, or if there are too many of them, of one.
struct KnownPair {
  const char* a;
  const char* b;
  const char* state;
};
constexpr KnownPair kKnownPairs[] = {
    // An orphan was not adopted while whoever made it one was just unlinking it.
    {"purge key", "tick", "limbo full"},
    // An entry that was passed on while its owner was recovered belonged to nobody.
    {"pass on", "recover", "dead expelled"},
    // Whose fill has ended reads the waiters' bits of the next one that has the descriptor.
    {"fill commit awaited", "purge and fill", "some"},
};

constexpr std::uint64_t kMostOfKnown = 2500;

bool is_known(const std::string& a, const std::string& b, const std::string& state) {
  return std::any_of(std::begin(kKnownPairs), std::end(kKnownPairs), [&](const KnownPair& known) {
    return state == known.state && ((a == known.a && b == known.b) || (a == known.b && b == known.a));
  });
}

}  // namespace

Explorer* Explorer::current_ = nullptr;

Explorer::Explorer(World& world, ExploreOptions options)
    : world_(world), options_(std::move(options)), random_(options_.seed) {}

bool Explorer::time_is_up() const {
  return options_.seconds > 0 && std::chrono::steady_clock::now() >= until_;
}

ExploreResult Explorer::run() {
  const auto begin = std::chrono::steady_clock::now();
  until_ = begin + std::chrono::microseconds(static_cast<std::int64_t>(options_.seconds * 1e6));
  hooks.step_limit = kStepLimit;
  current_ = this;
  world_.crowded = true;
  struct Pair {
    const StartState* start;
    const Operation* a;
    const Operation* b;
    bool one_process;
  };
  std::vector<Pair> pairs;
  for (const StartState& start : start_states()) {
    if (!options_.only_state.empty() && start.name != options_.only_state) continue;
    if (start.name == "nobody left" || start.ending != Ending::kAlone) continue;
    for (const Operation& a : operations()) {
      if (!options_.only_first.empty() && a.name != options_.only_first) continue;
      if (!applies(a, start)) continue;
      for (const Operation& b : operations()) {
        if (!options_.only_second.empty() && b.name != options_.only_second) continue;
        if (!applies(b, start)) continue;
        // Each unordered pair once: who starts is part of the schedule.
        if (options_.only_first.empty() && options_.only_second.empty() && &b < &a) continue;
        if (a.victim == kJoiner || (b.victim == kJoiner && a.victim == b.victim)) continue;
        pairs.push_back({&start, &a, &b, false});
        // A process leaves once, and joins a component once.
        const bool once = a.name == "leave" || b.name == "leave" ||
                          (a.name == "component make" && b.name == a.name) ||
                          a.name == "component leave" || b.name == "component leave";
        if (b.victim != kJoiner && !once) {
          pairs.push_back({&start, &a, &b, true});
        }
      }
    }
  }
  // In another order for every seed, so that short runs come around to all of them.
  std::shuffle(pairs.begin(), pairs.end(), random_);
  if (options_.exhaustive || options_.seconds == 0) {
    std::stable_sort(pairs.begin(), pairs.end(),
                     [](const Pair& x, const Pair& y) { return x.start < y.start; });
  }
  std::stable_partition(pairs.begin(), pairs.end(), [](const Pair& pair) {
    return is_known(pair.a->name, pair.b->name, pair.start->name);
  });
  World::Snapshot fresh;
  const StartState* built = nullptr;
  for (const Pair& pair : pairs) {
    if (time_is_up()) break;
    if (built != pair.start) {
      world_.create(pair.start->options);
      pair.start->build(world_);
      world_.save(fresh);
      built = pair.start;
    }
    world_.load(fresh);
    world_.clear_violation();
    run_pair(*pair.start, *pair.a, *pair.b, pair.one_process);
    hooks.log_undo = false;
  }
  hooks.step_limit = 0;
  world_.crowded = false;
  result_.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result_;
}

void Explorer::on_access(const Access& access) {
  Explorer& self = *current_;
  const auto word = reinterpret_cast<std::uintptr_t>(access.address) / 8;
  if (self.mode_ == Mode::kTrace) {
    if (access.address == nullptr) return;
    const unsigned bit = (access.write ? 4U : 1U) << self.running_;
    for (std::uintptr_t w = word; w <= word + access.size / 8; ++w) self.trace_[w] |= bit;
    return;
  }
  if (access.address == nullptr) {
    // Waits for somebody: let that one run.
    if (!self.sides_[1 - self.running_].done) yield_actor();
    return;
  }
  if (!self.conflicts_.contains(word)) return;
  ++self.met_[self.running_];
  if (self.plan_->random) {
    if (self.dice_() % 8 == 0) yield_actor();
    return;
  }
  ++self.since_switch_;
  const std::vector<std::uint64_t>& switches = self.plan_->switches;
  if (self.next_switch_ < switches.size() && self.since_switch_ == switches[self.next_switch_]) {
    ++self.next_switch_;
    yield_actor();
  }
}

void Explorer::find_conflicts() {
  trace_.clear();
  mode_ = Mode::kTrace;
  for (const unsigned first : {0U, 1U}) {
    world_.restore(snapshot_);
    hooks.before_access = on_access;
    for (const unsigned side : {first, 1 - first}) {
      running_ = side;
      run_actor(sides_[side].actor, sides_[side].body);
      flush_delayed();
    }
    hooks.before_access = nullptr;
  }
  conflicts_.clear();
  for (const auto& [word, bits] : trace_) {
    const bool first_writes = (bits & 4) != 0;
    const bool second_writes = (bits & 8) != 0;
    const bool first_uses = (bits & 5) != 0;
    const bool second_uses = (bits & 10) != 0;
    if ((first_writes && second_uses) || (second_writes && first_uses)) conflicts_.insert(word);
  }
}

void Explorer::schedule(const Plan& plan) {
  world_.restore(snapshot_);
  world_.clear_violation();
  mode_ = Mode::kSchedule;
  plan_ = &plan;
  dice_.seed(plan.seed);
  next_switch_ = 0;
  since_switch_ = 0;
  met_ = {};
  for (Side& side : sides_) side.done = side.started = side.dead = false;
  running_ = plan.first;
  ++result_.schedules;
  while (!sides_[0].done || !sides_[1].done) {
    Side& side = sides_[running_];
    hooks.before_access = on_access;
    hooks.stores = side.started ? side.stores : 0;
    hooks.kill_before = plan.kill_store != 0 && plan.killed == running_ ? plan.kill_store : 0;
    const ActorEnd end =
        side.started ? resume_actor(side.actor) : run_actor(side.actor, side.body);
    side.started = true;
    side.stores = hooks.stores;
    hooks.before_access = nullptr;
    hooks.kill_before = 0;
    if (end == ActorEnd::kHung) {
      world_.violate("%s hangs", side.operation->name.c_str());
      return report(plan);
    }
    if (end == ActorEnd::kKilled) {
      ++result_.kills;
      side.dead = true;
      world_.declare_dead(side.member);
      // A process dies with all its threads.
      if (one_process_) sides_[1 - running_].done = true;
    }
    if (end != ActorEnd::kSuspended) side.done = true;
    since_switch_ = 0;
    if (!sides_[1 - running_].done) running_ = 1 - running_;
  }
  conclude();
  if (world_.violated()) report(plan);
}

void Explorer::conclude() {
  World& w = world_;
  w.as(kThirdSurvivor, [&] {
    for (const unsigned k : {kTarget, kFresh, 29U, 1U, 20U}) w.get(kThirdSurvivor, k);
    w.member(kThirdSurvivor).instance->recover_all("test");
    w.pass_on(kThirdSurvivor);
    w.check_woken();
  });
  for (unsigned m = 0; m < kMembers; ++m) {
    if (!w.member(m).alive) continue;
    if (start_->suspended && (m == kOther || (m == kAnother && start_->name == "contended groups"))) {
      if (resume_actor(m) == ActorEnd::kHung) w.violate("process %u hangs", m);
    }
    w.as(m, [&] {
      w.member(m).instance->tick();
      w.state().fills[m].abort();
      w.member(m).cache->tick();
    });
  }
  for (unsigned i = 0; i < w.state().hit_count; ++i) {
    const unsigned m = w.state().hit_owner[i];
    if (w.member(m).alive) w.as(m, [&] { w.unpin(i); });
  }
  w.as(kThirdSurvivor, [&] {
    w.member(kThirdSurvivor).instance->recover_all("test");
    for (const unsigned k : {kTarget, kFresh}) {
      if (w.put(kThirdSurvivor, k, 20) != Put::kStored) {
        w.violate("key %u cannot be filled any more", k);
      }
      if (w.get(kThirdSurvivor, k) != 20) w.violate("key %u: stored and not there", k);
    }
    for (unsigned k = 0; k < 30; ++k) w.get(kThirdSurvivor, k);
  });
  w.settle_component(kThirdSurvivor);
  for (int round = 0; round < 2; ++round) {
    for (unsigned m = 0; m < kMembers; ++m) {
      if (w.member(m).alive) w.as(m, [&] { w.member(m).cache->tick(); });
    }
  }
  w.check_idle(false);
}

void Explorer::run_pair(const StartState& start, const Operation& a, const Operation& b,
                        bool one_process) {
  start_ = &start;
  one_process_ = one_process;
  sides_[0] = {&a, kVictim, kVictim, {}, false, false, false, 0};
  const unsigned second = b.victim == kJoiner ? kJoiner : one_process ? kVictim : kSecondSurvivor;
  sides_[1] = {&b, second, one_process ? kSecondThread : second, {}, false, false, false, 0};
  if (!a.prepare(world_, start, kVictim) || !b.prepare(world_, start, second) ||
      world_.violated()) {
    return;
  }
  // Steps of one fill belong to one thread.
  if (one_process && world_.state().fills[kVictim]) return;
  world_.save(snapshot_);
  hooks.log_undo = true;
  for (Side& side : sides_) {
    side.body = [this, &side] { side.operation->run(world_, *start_, side.member); };
  }
  ++result_.pairs;
  find_conflicts();
  world_.clear_violation();

  Plan alone;
  std::array<std::uint64_t, 2> met{};
  for (const unsigned first : {0U, 1U}) {
    alone.first = first;
    schedule(alone);
    for (unsigned side = 0; side < 2; ++side) met[side] = std::max(met[side], met_[side]);
  }
  // One and two preemptions: before access i of the first, then perhaps before access j of the
  // second; numbered, since there may be millions.
  const std::array<std::uint64_t, 2> instants{met[0] + 2, met[1] + 2};
  const auto numbered = [&](std::uint64_t number) {
    Plan plan;
    const std::uint64_t of_first = instants[0] * (instants[1] + 1);
    plan.first = number < of_first ? 0 : 1;
    if (plan.first == 1) number -= of_first;
    const std::uint64_t seconds = instants[1 - plan.first] + 1;
    plan.switches.push_back(1 + number / seconds);
    if (number % seconds != 0) plan.switches.push_back(number % seconds);
    return plan;
  };
  const std::uint64_t total = instants[0] * (instants[1] + 1) + instants[1] * (instants[0] + 1);
  const bool known = is_known(a.name, b.name, start.name);
  const bool all = options_.exhaustive || total <= options_.schedules_per_pair ||
                   (known && total <= kMostOfKnown);
  if (known && !all) {
    for (const unsigned first : {0U, 1U}) {
      for (std::uint64_t i = 1; i <= instants[first]; ++i) {
        Plan plan;
        plan.first = first;
        plan.switches = {i};
        schedule(plan);
      }
    }
  }
  for (std::uint64_t i = 0; i < (all ? total : options_.schedules_per_pair); ++i) {
    if (time_is_up()) return;
    schedule(numbered(all ? i : random_() % total));
  }
  for (std::uint64_t i = 0; i < options_.random_per_pair; ++i) {
    if (time_is_up()) return;
    Plan plan;
    plan.first = static_cast<unsigned>(random_() % 2);
    plan.random = true;
    plan.seed = random_();
    if (i % 2 == 1) {
      plan.killed = static_cast<unsigned>(random_() % 2);
      plan.kill_store = 1 + random_() % std::max<std::uint64_t>(1, sides_[plan.killed].stores);
    }
    schedule(plan);
  }
}

void Explorer::report(const Plan& plan) {
  const std::string what = world_.violation();
  ++result_.violations;
  result_.hangs += what.find("hang") != std::string::npos ? 1 : 0;
  result_.leaked_bytes += world_.leaked_bytes();
  std::string kind = fmt::format("{} / {}{} from {}", sides_[0].operation->name,
                                 sides_[1].operation->name,
                                 one_process_ ? " (threads)" : "", start_->name + ": " + what);
  std::replace_if(kind.begin(), kind.end(), [](char c) { return c >= '0' && c <= '9'; }, '#');
  if (++result_.kinds[kind] > 1 || result_.reports.size() >= kReports) return;
  std::string order;
  for (const std::uint64_t n : plan.switches) order += fmt::format(" {}", n);
  result_.reports.push_back(fmt::format(
      "{} and {} from \"{}\"{}, {} first, {}{}: {}", sides_[0].operation->name,
      sides_[1].operation->name, start_->name, one_process_ ? " in one process" : "",
      plan.first == 0 ? "the former" : "the latter",
      plan.random ? fmt::format("schedule seed {}", plan.seed) : "switching after" + order,
      plan.kill_store == 0 ? ""
                           : fmt::format(", {} killed before its store {}",
                                         sides_[plan.killed].operation->name, plan.kill_store),
      what));
}

}  // namespace mcs::killpoints
