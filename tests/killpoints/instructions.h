// SPDX-License-Identifier: Apache-2.0
// Kills the shipped code after any machine instruction.
//
// A forked process runs an operation with the trap flag set; memory is private to it, so every fork
// of it is a copy of the whole domain. At chosen instructions its SIGTRAP handler forks once more:
// there the operation's process counts as dead at exactly this instruction, the survivors work and
// recover, and everything is checked.
#pragma once

#include <chrono>
#include <csignal>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/killpoints/campaign.h"

namespace mcs::killpoints {

struct InstructionOptions {
  std::uint64_t seed = 1;
  std::uint64_t points = 2400;  // over all operations; sampled
  bool exhaustive = false;      // after every instruction, each time that it is executed
  double seconds = 0;           // 0: no limit
  std::string only_operation;
  std::string only_state;
};

struct InstructionResult {
  std::uint64_t points = 0;
  std::uint64_t steps = 0;  // instructions that the operations execute, all together
  std::uint64_t violations = 0;
  std::uint64_t hangs = 0;
  double seconds = 0;
  bool complete = true;
  std::map<std::string, std::uint64_t> operations;  // name: points
  // Operation, class of starting states, address of the instruction.
  std::set<std::tuple<std::string, std::string, std::uint64_t>> distinct;
  std::vector<std::string> reports;
};

class Instructions {
 public:
  Instructions(World& world, InstructionOptions options);
  InstructionResult run();

 private:
  struct Shared;
  bool prepare(const StartState& start, const Operation& operation);
  void run_case(const StartState& start, const Operation& operation, std::uint64_t points);
  bool trace(const StartState& start, const Operation& operation);
  void step_through(const StartState& start, const Operation& operation);
  void examine_here();
  bool time_is_up() const;
  static void on_trap(int, siginfo_t*, void* context);

  World& world_;
  InstructionOptions options_;
  InstructionResult result_;
  std::mt19937_64 random_;
  std::chrono::steady_clock::time_point until_;
  Shared* shared_;  // with the forked processes
  const StartState* start_ = nullptr;
  const Operation* operation_ = nullptr;
  std::set<unsigned> must_hit_;
  std::vector<std::uint64_t> chosen_;  // instructions after which to die, by number, ascending
  std::size_t next_ = 0;
  bool tracing_ = false;
  std::uint64_t step_ = 0;
  static Instructions* current_;
};

}  // namespace mcs::killpoints
