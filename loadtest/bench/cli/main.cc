// SPDX-License-Identifier: Apache-2.0
// mcs-bench: measures MCS beside what one would use instead.
#include <csignal>
#include <iostream>

#include "loadtest/bench/benchmark.h"
#include "loadtest/harness/temp_dir.h"

namespace {

std::atomic<bool> g_interrupted{false};

void interrupt(int) { g_interrupted = true; }

int complain(const std::string& message) {
  std::cerr << "mcs-bench: " << message << "\n";
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace mcs::loadtest;
  CLI::App app(
      "Measures MCS beside what one would use instead, all contenders in one run, interleaved.");
  app.require_subcommand(1);
  const auto benchmarks = all_benchmarks();
  std::vector<CLI::App*> commands;
  std::string json_file;
  for (const auto& benchmark : benchmarks) {
    CLI::App* const command = app.add_subcommand(benchmark->name(), benchmark->description());
    command->add_flag("--quick", benchmark->quick, "Fewer and shorter rounds, for a first look");
    command->add_option("--json", json_file, "Write the results to FILE");
    command->add_option("--seed", benchmark->seed, "Of the order of measurements")
        ->capture_default_str();
    benchmark->add_options(*command);
    commands.push_back(command);
  }
  CLI11_PARSE(app, argc, argv);

  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    std::signal(signal, interrupt);
  }
  for (size_t i = 0; i < benchmarks.size(); ++i) {
    if (!*commands[i]) {
      continue;
    }
    try {
      const auto json = benchmarks[i]->run(g_interrupted);
      if (!json) {
        return complain(json.error().message);
      }
      if (!json_file.empty()) {
        if (const auto saved = write_file(json_file, json->dump(2) + "\n"); !saved) {
          return complain(saved.error().message);
        }
      }
    } catch (const std::exception& error) {
      return complain(error.what());
    }
  }
  return 0;
}
