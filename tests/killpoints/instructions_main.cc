// SPDX-License-Identifier: Apache-2.0
// mcs-instructions: kills the shipped code after any machine instruction.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/killpoints/instructions.h"

int main(int argc, char** argv) {
  using namespace mcs::killpoints;
  // Else one `rep movsb` is one instruction that traps once per byte.
  constexpr const char* kTunable = "glibc.cpu.x86_rep_movsb_threshold=1000000000";
  if (std::getenv("GLIBC_TUNABLES") == nullptr) {
    ::setenv("GLIBC_TUNABLES", kTunable, 1);
    ::execv("/proc/self/exe", argv);
  }
  CLI::App app{"Kills operations of the shipped code after any machine instruction (trap flag): each "
               "point is a copy of the whole domain, in which survivors work and recover, and "
               "everything is checked. The exit status is 0 if nothing was wrong, 1 if something was, "
               "2 if nothing was tried."};
  InstructionOptions options;
  std::string json_file;
  options.seed = 0;
  app.add_option("--points", options.points, "how many, over all operations")
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "stop after this time");
  app.add_flag("--exhaustive", options.exhaustive,
               "after every instruction, each time that it is executed (hours)");
  app.add_option("--seed", options.seed, "of what is sampled; 0 draws one")->capture_default_str();
  app.add_option("--operation", options.only_operation, "only this one");
  app.add_option("--state", options.only_state, "only from this class of starting states");
  app.add_option("--json", json_file, "write the results to this file");
  CLI11_PARSE(app, argc, argv);
  if (options.seed == 0) options.seed = 1 + std::random_device{}() % 1000000;

  World world;
  const InstructionResult result = Instructions(world, options).run();
  for (const std::string& report : result.reports) fmt::print("VIOLATION {}\n", report);
  for (const auto& [name, points] : result.operations) fmt::print("{:8} {}\n", points, name);
  fmt::print("seed {}: {} points ({} distinct{}) of {} instructions, {} violations, {} hangs, {:.1f} "
             "s\n",
             options.seed, result.points, result.distinct.size(),
             result.complete ? "" : ", not all that were asked for", result.steps,
             result.violations, result.hangs, result.seconds);
  if (!json_file.empty()) {
    const nlohmann::json json = {{"seed", options.seed},
                                 {"points", result.points},
                                 {"distinct_points", result.distinct.size()},
                                 {"instructions", result.steps},
                                 {"operations", result.operations},
                                 {"violations", result.violations},
                                 {"hangs", result.hangs},
                                 {"complete", result.complete},
                                 {"seconds", result.seconds},
                                 {"reports", result.reports}};
    std::ofstream out(json_file);
    out << json.dump(2) << '\n';
    if (!out) {
      fmt::print(stderr, "cannot write {}: choose a writable file\n", json_file);
      return 2;
    }
  }
  if (result.points == 0) {
    fmt::print(stderr, "nothing was tried: no such operation or class of starting states\n");
    return 2;
  }
  return result.violations == 0 ? 0 : 1;
}
