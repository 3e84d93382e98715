// SPDX-License-Identifier: Apache-2.0
// The store-level campaign: every operation from every class of starting states, killed before each
// of its stores; then survivors work, somebody recovers, and everything is checked.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/killpoints/scenario.h"

namespace mcs::killpoints {

struct CampaignOptions {
  std::uint64_t seed = 1;
  // Every distinct point comes first; what time is left is for second kills and for other
  // occurrences of the same points.
  double seconds = 0;             // 0: no limit
  std::uint64_t max_points = 0;   // 0: no limit
  std::uint64_t pairs = 0;        // stop after so many second kills; 0: none unless `seconds` is given
  bool exhaustive = false;        // every occurrence, both orders, and every second kill
  bool all_pairs = false;         // every distinct point with every distinct store of its recovery
  std::uint64_t from_case = 0;    // where an earlier run came to its end: CampaignResult.next_…
  std::uint64_t from_kill = 0;
  std::uint64_t to_case = ~std::uint64_t{0};  // for another run: where it goes on
  std::string only_operation;     // empty: all
  std::string only_state;
  bool stop_at_violation = false;
  // What the program is made to do wrong with stores to these words.
  Mutation::Kind mutation = Mutation::Kind::kNone;
  WordKind mutated = WordKind::kOther;
  bool all_distinct = false;      // the limits do not cut the distinct points short
};

struct CampaignResult {
  std::uint64_t points = 0;        // operations that were killed
  std::uint64_t double_kills = 0;  // of which the recoverer was killed too
  std::uint64_t violations = 0;
  std::uint64_t hangs = 0;
  std::uint64_t leaked_bytes = 0;
  double seconds = 0;
  bool complete = true;                             // all distinct points were tried
  // With all_pairs and exhaustive: where the time was up, and how many second kills left a state in
  // which the others have been seen to go on already.
  std::uint64_t next_case = 0;
  std::uint64_t next_kill = 0;
  std::uint64_t cases = 0;
  std::uint64_t same = 0;
  std::map<std::string, std::uint64_t> operations;  // name: points
  // Operation, class of starting states, store.
  std::set<std::tuple<std::string, std::string, std::uint64_t>> distinct;
  std::vector<std::string> reports;  // the first violations, a sentence or two each
  std::map<std::string, std::uint64_t> kinds;  // of violations, by operation and message
};

class Campaign {
 public:
  Campaign(World& world, CampaignOptions options);
  CampaignResult run();

  /// The operation's process has just died, somewhere: let the others go on and check everything.
  /// What is wrong is the world's violation().
  void examine(const StartState& start, const Operation& operation, std::set<unsigned> must_hit,
               bool eager);

  static std::string json(const CampaignResult& result);

 private:
  struct Case {
    const StartState* start;
    const Operation* operation;
  };
  // One run: the victim dies before its store number `kill` (0: never) and the recoverer before its
  // `second` (0: never). Returns how many stores the operation made; 0: it did not finish.
  struct Outcome {
    bool killed = false;
    bool second_killed = false;
    std::uint64_t stores = 0;
    std::uint64_t recovery_stores = 0;
    Access where;
    Access second_where;
  };
  void try_all(std::vector<Case>& cases, bool distinct_points);
  bool prepare(const Case& wanted);
  void kill_at_distinct_points();
  void kill_everywhere(std::uint64_t number, std::uint64_t from);
  void stop_at(std::uint64_t number, std::uint64_t kill);
  void kill_all_pairs(std::uint64_t number, std::uint64_t from);
  std::vector<std::uint64_t> distinct_kills(std::mt19937_64& random, std::uint64_t stores) const;
  std::uint64_t fingerprint() const;
  void kill_twice(unsigned times);
  Outcome learn();
  Outcome one(std::uint64_t kill, std::uint64_t second, bool eager);
  Outcome one_as_it_is(std::uint64_t kill, std::uint64_t second, bool eager);
  // Who is left, and who works for them.
  struct Others {
    std::vector<unsigned> survivors;
    std::size_t late = 0;  // joiners that came because nobody was left
    unsigned worker = 0;
  };
  Others those_left();
  bool choose_worker(Others& others);
  void recover(unsigned worker, bool eager);
  void expel(unsigned worker);
  void admit(unsigned worker, bool member);
  void come_back(unsigned worker, bool eager);
  void aftermath(Outcome& outcome, std::uint64_t second, bool eager);
  bool go_on_without_recoverer(Others& others, bool eager);
  void come_to_rest(Others& others, bool eager);
  bool die_at(std::uint64_t kill, Outcome& outcome);
  void pairs_of(std::uint64_t kill, bool eager, std::mt19937_64& random);
  void kill_recoverer_at_each(std::uint64_t kill, const std::vector<std::uint64_t>& seconds,
                              bool eager);
  void work_beside_the_dead(unsigned survivor);
  void finish_the_living();
  void look(unsigned m, bool must_hit);
  void count(const Outcome& outcome);
  void choose_keys();
  void check_harness();
  void report(std::uint64_t kill, std::uint64_t second, bool eager, const Outcome& outcome);
  bool time_is_up() const;

  World& world_;
  CampaignOptions options_;
  CampaignResult result_;
  std::mt19937_64 random_;
  std::chrono::steady_clock::time_point until_;
  // The case at hand.
  const StartState* start_ = nullptr;
  const Operation* operation_ = nullptr;
  World::Snapshot fresh_;  // of the class, before the operation was prepared
  const StartState* built_ = nullptr;
  World::Snapshot snapshot_;
  std::vector<std::uint64_t> trace_;  // which store of the program each of the operation's is
  bool trace_recovery_ = false;       // … or of its recoverer's
  // What memory looked like when a second one died; no use in seeing how it goes on from there twice.
  std::set<std::uint64_t> seen_;
  // … and when the first one died, with the number of pairs that were tried from there.
  std::map<std::uint64_t, std::uint64_t> seen_first_;
  World::Instant instant_;
  std::uint64_t kill_ = 0;
  bool stands_still_ = false;  // in the middle of the operation
  std::function<void()> act_;
  bool skip_seen_ = false;
  std::set<unsigned> keys_;       // ever stored in this world
  std::set<unsigned> must_hit_;   // there before and after the operation
};

}  // namespace mcs::killpoints
