// SPDX-License-Identifier: Apache-2.0
// mcs-demo: nginx and httpd over one cache while their workers are killed.
#include <CLI/CLI.hpp>
#include <csignal>
#include <iostream>
#include <random>

#include "loadtest/demo/demo.h"
#include "loadtest/harness/temp_dir.h"

namespace {

std::atomic<bool> g_interrupted{false};

void interrupt(int) { g_interrupted = true; }

int complain(const std::string& message) {
  std::cerr << "mcs-demo: " << message << "\n";
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace mcs::loadtest;
  CLI::App app(
      "Starts nginx and httpd over one cache in emulated global memory, asks both for the files of "
      "the Apache manual and of a SPECweb99 set, compares every byte, and meanwhile kills random "
      "workers of both. Exit status: 0 every answer was right, no failure but on the killed "
      "workers' own connections, nothing leaked; 1 otherwise; 2 it could not run.");
  DemoOptions options;
  options.seed = std::random_device{}();
  std::string json_file;
  app.add_option("--seconds", options.seconds, "How long the load and the killing last")
      ->check(CLI::Range(1, 86'400))
      ->capture_default_str();
  app.add_option("--kill-interval-ms", options.kill_interval_ms,
                 "One worker is killed every so often")
      ->check(CLI::Range(10, 3'600'000))
      ->capture_default_str();
  app.add_option("--at-once", options.at_once,
                 "With more than 1: up to so many at the same time, after random times of the interval "
                 "in the mean, and as many workers of both servers as that takes")
      ->check(CLI::Range(1, 64))
      ->take_last()
      ->capture_default_str();
  app.add_option("--load", options.load,
                 "SPECweb99 load: int(25 + (400000/122000 * load) / 5) directories of 5 MB")
      ->check(CLI::Range(0.0, 100'000.0))
      ->capture_default_str();
  app.add_option("--connections", options.connections,
                 "Of the checking client and of wrk, per server each")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of requests, kills and files (default: a new one)");
  app.add_flag("--keep", options.keep, "Leave both servers up afterwards and say what to try");
  app.add_option("--json", json_file, "Write the results to FILE");
  app.add_flag("--verbose,-v", options.verbose, "List every failure that no kill explains");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }

  struct sigaction action = {};
  action.sa_handler = interrupt;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    sigaction(signal, &action, nullptr);
  }
  std::cout << "seed:    " << options.seed << std::endl;
  try {
    const auto run = run_demo(options, g_interrupted);
    if (!run) {
      return complain(run.error().message);
    }
    const DemoVerdict verdict = judge(*run);
    print_table(options, *run, verdict);
    if (!json_file.empty()) {
      const auto saved = write_file(json_file, to_json(options, *run, verdict).dump(2) + "\n");
      if (!saved) {
        return complain(saved.error().message);
      }
    }
    if (run->interrupted) {
      return 130;
    }
    return verdict.good(*run) ? 0 : 1;
  } catch (const std::exception& error) {
    return complain(error.what());
  }
}
