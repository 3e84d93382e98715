// SPDX-License-Identifier: Apache-2.0
// mcs-killpoints: the store-level campaigns as a program.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/killpoints/campaign.h"
#include "tests/killpoints/explore.h"

namespace {

using namespace mcs::killpoints;

template <typename Result>
void print_trouble(const Result& result) {
  for (const std::string& report : result.reports) fmt::print("VIOLATION {}\n", report);
  for (const auto& [kind, n] : result.kinds) fmt::print("{:8} x {}\n", n, kind);
}

bool save(const std::string& file, const std::string& json) {
  if (file.empty()) return true;
  std::ofstream out(file);
  out << json << '\n';
  if (out) return true;
  fmt::print(stderr, "cannot write {}: choose a writable file\n", file);
  return false;
}

int interleave(World& world, const ExploreOptions& options, const std::string& json_file) {
  const ExploreResult result = Explorer(world, options).run();
  print_trouble(result);
  fmt::print("seed {}: {} pairs of operations, {} schedules, {} kills, {} violations, {} hangs, {} "
             "bytes leaked, {:.1f} s\n",
             options.seed, result.pairs, result.schedules, result.kills, result.violations,
             result.hangs, result.leaked_bytes, result.seconds);
  const nlohmann::json json = {
      {"seed", options.seed},           {"pairs", result.pairs},
      {"schedules", result.schedules},  {"kills", result.kills},
      {"violations", result.violations}, {"hangs", result.hangs},
      {"leaked_bytes", result.leaked_bytes}, {"seconds", result.seconds},
      {"reports", result.reports}};
  if (!save(json_file, json.dump(2))) return 2;
  if (result.schedules == 0) {
    fmt::print(stderr, "nothing was tried: no such operation or class of starting states\n");
    return 2;
  }
  return result.violations == 0 ? 0 : 1;
}

// Breaks the protocol in ways it has to withstand none of: a campaign that does not notice is worth
// nothing.
int notice_bugs(World& world, const CampaignOptions& options) {
  struct Bug {
    const char* name;
    Mutation::Kind kind;
    WordKind word;
  };
  constexpr auto kSkip = Mutation::Kind::kSkip;
  constexpr auto kDelay = Mutation::Kind::kDelay;
  constexpr Bug kBugs[] = {
      {"an entry is claimed before the intent to fill it is written", kDelay, WordKind::kFills},
      {"an entry is claimed and no intent to fill it is written", kSkip, WordKind::kFills},
      {"an entry is retired before the intent is written", kDelay, WordKind::kLimbo},
      {"an entry is retired and no intent is written", kSkip, WordKind::kLimbo},
      {"a lock is taken before it is named", kDelay, WordKind::kOpLock},
      {"a lock is taken and never named", kSkip, WordKind::kOpLock},
      {"space is changed and the phase is not written", kSkip, WordKind::kOpPhase},
      {"space is changed before the phase is written", kDelay, WordKind::kOpPhase},
      {"space is changed and its extent is not named", kSkip, WordKind::kOpArguments},
      {"an instance is folded and nobody says so", kSkip, WordKind::kFolded},
      {"pins are not written", kSkip, WordKind::kLedger},
      {"purges are not logged", kSkip, WordKind::kPurgeLog},
      {"what a component's lock protects is not written", kSkip, WordKind::kComponents},
      {"a mutex is taken and never named", kSkip, WordKind::kMutexRecord},
      {"a descriptor's sealed fields come after the seal", kDelay, WordKind::kSealed},
  };
  int unnoticed = 0;
  for (const Bug& bug : kBugs) {
    CampaignOptions broken = options;
    broken.mutation = bug.kind;
    broken.mutated = bug.word;
    broken.stop_at_violation = true;
    const CampaignResult result = Campaign(world, broken).run();
    fmt::print("{}: {}\n", bug.name,
               result.violations == 0
                   ? fmt::format("NOT NOTICED at {} points", result.points)
                   : fmt::format("noticed at point {}: {}", result.points, result.reports[0]));
    unnoticed += result.violations == 0 ? 1 : 0;
  }
  fmt::print("seed {}: {} bugs, {} not noticed\n", options.seed, std::size(kBugs), unnoticed);
  return unnoticed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Kills every operation on shared memory before each of its stores, from every class of "
               "starting states; then survivors work and recover, and everything is checked. The "
               "exit status is 0 if nothing was wrong, 1 if something was, 2 if nothing was tried."};
  CampaignOptions options;
  ExploreOptions explore;
  bool interleaved = false;
  bool notice = false;
  std::string json_file;
  std::string from;
  options.seed = 0;
  app.add_option("--seconds", options.seconds,
                 "stop after this time; what is left after every distinct point goes to sampled "
                 "pairs with recovery and to other occurrences of the points");
  app.add_option("--points", options.max_points, "stop after this many points");
  app.add_option("--pairs", options.pairs,
                 "stop after this many pairs with recovery (its process is killed too)");
  app.add_flag("--exhaustive", options.exhaustive,
               "kill at every occurrence of every store, and then the recoverer at each of its own");
  app.add_flag("--all-pairs", options.all_pairs,
               "each distinct point with each distinct store of its recovery, in both orders");
  app.add_option("--from", from,
                 "with --all-pairs or --exhaustive: go on where another run (of the same seed) says "
                 "that its time was up, CASE:KILL");
  app.add_option("--to", options.to_case,
                 "with --all-pairs or --exhaustive: leave this case and what follows it to another run");
  app.add_flag("--all-distinct", options.all_distinct,
               "finish all distinct points even if that takes longer than the limits");
  app.add_option("--seed", options.seed, "of what is sampled; 0 draws one")->capture_default_str();
  app.add_option("--operation", options.only_operation, "only this one");
  app.add_option("--state", options.only_state, "only from this class of starting states");
  app.add_flag("--interleave", interleaved, "two operations at once instead");
  app.add_option("--second", explore.only_second, "with --interleave: the other operation");
  app.add_option("--schedules", explore.schedules_per_pair,
                 "with --interleave: of two switches, per pair of operations")
      ->capture_default_str();
  app.add_flag("--notice-bugs", notice,
               "break the program on purpose instead, and see whether that is noticed");
  app.add_option("--json", json_file, "write the results to this file");
  CLI11_PARSE(app, argc, argv);
  if (options.seed == 0) options.seed = 1 + std::random_device{}() % 1000000;

  if (!from.empty()) {
    unsigned long first = 0;
    unsigned long kill = 0;
    if (std::sscanf(from.c_str(), "%lu:%lu", &first, &kill) != 2) {
      fmt::print(stderr, "--from {}: not CASE:KILL, such as 12:3\n", from);
      return 2;
    }
    options.from_case = first;
    options.from_kill = kill;
  }
  World world;
  if (notice) return notice_bugs(world, options);
  if (interleaved) {
    explore.seed = options.seed;
    explore.seconds = options.seconds;
    explore.exhaustive = options.exhaustive;
    explore.only_first = options.only_operation;
    explore.only_state = options.only_state;
    return interleave(world, explore, json_file);
  }
  const CampaignResult result = Campaign(world, options).run();
  print_trouble(result);
  for (const auto& [name, points] : result.operations) fmt::print("{:8} {}\n", points, name);
  fmt::print("seed {}: {} points ({} distinct{}), {} double kills, {} violations, {} hangs, {} bytes "
             "leaked, {:.1f} s\n",
             options.seed, result.points, result.distinct.size(),
             result.complete ? "" : ", not all of them", result.double_kills, result.violations,
             result.hangs, result.leaked_bytes, result.seconds);
  if (options.all_pairs || options.exhaustive) {
    fmt::print("{} of the double kills left a state that had been tried; {}\n", result.same,
               result.complete
                   ? fmt::format("all {} cases are done", result.cases)
                   : fmt::format("go on with --from {}:{} (of {} cases)", result.next_case,
                                 result.next_kill, result.cases));
  }
  if (!save(json_file, Campaign::json(result))) return 2;
  if (result.points == 0) {
    fmt::print(stderr, "nothing was tried: no such operation or class of starting states\n");
    return 2;
  }
  return result.violations == 0 ? 0 : 1;
}
