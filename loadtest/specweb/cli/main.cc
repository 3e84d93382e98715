// SPDX-License-Identifier: Apache-2.0
// mcs-specweb: writes the SPECweb99 static file set, or prints a request stream over it.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "loadtest/harness/temp_dir.h"
#include "loadtest/specweb/content.h"
#include "loadtest/specweb/specweb.h"

namespace {

using mcs::loadtest::SpecwebSet;
namespace fs = std::filesystem;

int complain(const std::string& message) {
  std::cerr << "mcs-specweb: " << message << "\n";
  return 1;
}

int check(const SpecwebSet& set, const fs::path& root) {
  for (size_t file = 0; file < set.size(); ++file) {
    const auto text = mcs::loadtest::read_file(root / set.path(file));
    if (!text) {
      return complain(text.error().message);
    }
    const auto bytes = std::as_bytes(std::span(*text));
    const auto wrong = mcs::loadtest::first_wrong_byte(set.key(file), 0, bytes);
    if (bytes.size() != set.file_size(file) || wrong) {
      return complain(fmt::format("{} is not as generated ({} bytes, expected {}{})",
                                  set.path(file), bytes.size(), set.file_size(file),
                                  wrong ? fmt::format(", byte {} differs", *wrong) : ""));
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "SPECweb99 static file set: int(25 + (400000/122000 * load) / 5) directories of 36 files, "
      "5 MB each. The bytes follow from --seed and the file's path.");
  double load = 100;
  uint64_t seed = 1;
  fs::path root;
  std::string json;
  size_t requests = 1000;
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--load", load, "SPECweb99 load (simultaneous connections)")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--seed", seed, "Seed of contents and streams")->capture_default_str();
  auto* generate = app.add_subcommand("generate", "Write the files below DIRECTORY");
  generate->add_option("directory", root)->required();
  generate->add_option("--json", json, "Write what was made to FILE (- for standard output)");
  auto* verify = app.add_subcommand("check", "Compare the files below DIRECTORY byte by byte");
  verify->add_option("directory", root)->required();
  auto* stream = app.add_subcommand("stream", "Print a request stream, one path a line");
  stream->add_option("--requests", requests, "Number of requests")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const SpecwebSet set(load, seed);
  if (*generate) {
    if (const auto written = set.write_to(root); !written) {
      return complain(written.error().message);
    }
    const nlohmann::json made = {
        {"directory", root.string()},       {"load", load},        {"seed", seed},
        {"directories", set.directories()}, {"files", set.size()}, {"bytes", set.total_bytes()}};
    if (json == "-") {
      std::cout << made.dump(2) << "\n";
    } else if (!json.empty()) {
      if (const auto saved = mcs::loadtest::write_file(json, made.dump(2) + "\n"); !saved) {
        return complain(saved.error().message);
      }
    }
    std::cerr << fmt::format("{} directories, {} files, {:.1f} MB in {}\n", set.directories(),
                             set.size(), static_cast<double>(set.total_bytes()) / 1e6,
                             root.string());
  } else if (*verify) {
    return check(set, root);
  } else {
    const mcs::loadtest::SpecwebSampler sampler(set.directories());
    mcs::loadtest::Random random(seed);
    for (size_t i = 0; i < requests; ++i) {
      std::cout << set.path(sampler(random)) << "\n";
    }
  }
  return std::cout.good() ? 0 : 1;
}
