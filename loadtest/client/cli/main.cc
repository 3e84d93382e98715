// SPDX-License-Identifier: Apache-2.0
// mcs-load: a load generator that compares every byte it receives.
#include <CLI/CLI.hpp>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "loadtest/client/load_client.h"
#include "loadtest/client/report_json.h"
#include "loadtest/harness/temp_dir.h"

namespace {

using namespace mcs::loadtest;
namespace fs = std::filesystem;

std::atomic<bool> g_stop{false};

void request_stop(int) { g_stop = true; }

int complain(const std::string& message) {
  std::cerr << "mcs-load: " << message << "\n";
  return 2;
}

// "http://127.0.0.1:8080/docs/" or "NAME=http://…"
Result<LoadTarget> parse_target(const std::string& text) {
  LoadTarget target;
  std::string url = text;
  const size_t scheme = url.find("://");
  if (const size_t equals = url.find('='); equals != std::string::npos && equals < scheme) {
    target.name = url.substr(0, equals);
    url.erase(0, equals + 1);
  }
  if (!url.starts_with("http://")) {
    return fail("{}: a target is http://ADDRESS:PORT[/PATH], optionally with NAME= before it",
                text);
  }
  url.erase(0, 7);
  const size_t slash = std::min(url.find('/'), url.size());
  const std::string authority = url.substr(0, slash);
  target.path_prefix = url.substr(slash);
  while (target.path_prefix.ends_with('/')) {
    target.path_prefix.pop_back();
  }
  const size_t colon = authority.find(':');
  target.address = authority.substr(0, colon);
  if (target.address == "localhost") {
    target.address = "127.0.0.1";
  }
  target.port = colon == std::string::npos ? 80 : std::atoi(authority.c_str() + colon + 1);
  if (target.port <= 0 || target.port > 65535 ||
      target.address.find_first_not_of("0123456789.") != std::string::npos) {
    return fail("{}: the host must be a numeric IPv4 address or localhost", text);
  }
  if (target.name.empty()) {
    target.name = authority;
  }
  return target;
}

void print_report(const LoadReport& report, bool verbose) {
  std::cout << fmt::format("{:<22} {:>10} {:>9} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8}\n", "target",
                           "requests", "req/s", "failed", "hit %", "p50 ms", "p99 ms", "p99.9",
                           "max");
  auto rows = report.targets;
  if (rows.size() > 1) {
    rows.push_back(report.total());
  }
  for (const TargetReport& row : rows) {
    const auto ms = [&](double quantile) {
      return static_cast<double>(row.latency.percentile(quantile)) / 1e6;
    };
    std::cout << fmt::format(
        "{:<22} {:>10} {:>9.0f} {:>7} {:>7.1f} {:>8.2f} {:>8.2f} {:>8.2f} {:>8.2f}\n", row.name,
        row.requests, static_cast<double>(row.requests) / report.seconds, row.failed(),
        row.requests > 0 ? 100.0 * static_cast<double>(row.count(CacheResult::kHit)) /
                               static_cast<double>(row.requests)
                         : 0,
        ms(.5), ms(.99), ms(.999), static_cast<double>(row.latency.max()) / 1e6);
  }
  const TargetReport total = report.total();
  for (size_t i = 0; i < kFailures; ++i) {
    if (total.failures[i] > 0) {
      std::cout << fmt::format("{}: {}\n", name_of(static_cast<Failure>(i)), total.failures[i]);
    }
  }
  if (report.not_sent > 0) {
    std::cout << fmt::format("not sent before the end: {}\n", report.not_sent);
  }
  if (verbose) {
    for (const FailureRecord& record : report.failures) {
      std::cout << fmt::format("  {} {} file {}: {}\n",
                               report.targets[static_cast<size_t>(record.target)].name,
                               name_of(record.failure), record.file, record.detail);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Loads HTTP/1.1 servers and compares every body byte with the file it must be. Exit status: "
      "0 all answers right, 1 some failed, 2 it could not run.");
  std::vector<std::string> urls;
  fs::path root;
  double specweb_load = -1;
  uint64_t specweb_seed = 1;
  std::string popularity = "uniform";
  double alpha = 1;
  std::string etag = "target";
  std::string json_file;
  bool verbose = false;
  int timeout_ms = 10'000;
  bool close_each = false;
  LoadOptions options;
  options.seconds = 10;
  app.add_option("targets", urls, "[NAME=]http://ADDRESS:PORT[/PATH], one or more")->required();
  auto* files = app.add_option_group("files");
  files->add_option("--root", root, "Directory whose files the targets serve")
      ->check(CLI::ExistingDirectory);
  files
      ->add_option("--specweb", specweb_load,
                   "SPECweb99 set of this load instead (see mcs-specweb); needs no files here")
      ->check(CLI::NonNegativeNumber);
  files->require_option(1);
  app.add_option("--specweb-seed", specweb_seed, "Seed the set was generated with")
      ->capture_default_str();
  app.add_option("--popularity", popularity, "Of the files below --root: uniform or zipf")
      ->check(CLI::IsMember({"uniform", "zipf"}))
      ->capture_default_str();
  app.add_option("--alpha", alpha, "Exponent for zipf")->capture_default_str();
  app.add_option("--connections,-c", options.connections, "Connections per target")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--threads,-t", options.threads, "Threads")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--rate", options.rate,
                 "Open loop: requests per second over all targets; latency counts from the "
                 "schedule. 0: closed loop")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--seconds,-d", options.seconds, "Duration; 0: until --requests")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--requests,-n", options.requests, "Stop after this many; 0: no limit")
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Seed of the request stream")->capture_default_str();
  app.add_option("--timeout-ms", timeout_ms, "Of one request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--header,-H", options.headers, "\"Name: value\", sent with every request");
  app.add_flag("--close", close_each, "One request per connection");
  app.add_option("--etag", etag,
                 "A file must keep its ETag: off, target (in each target), all (over all)")
      ->check(CLI::IsMember({"off", "target", "all"}))
      ->capture_default_str();
  app.add_option("--json", json_file, "Write the results to FILE (- for standard output)");
  app.add_flag("--verbose,-v", verbose, "List every failure");
  CLI11_PARSE(app, argc, argv);

  for (const std::string& url : urls) {
    auto target = parse_target(url);
    if (!target) {
      return complain(target.error().message);
    }
    options.targets.push_back(std::move(*target));
  }
  if (options.seconds == 0 && options.requests == 0) {
    return complain("without --seconds and --requests it would never end: give one of them");
  }
  FileSet set;
  std::unique_ptr<RequestStream> stream;
  if (specweb_load >= 0) {
    const SpecwebSet specweb(specweb_load, specweb_seed);
    set.add_specweb(specweb, "/");
    stream = specweb_stream(0, specweb.directories());
  } else {
    if (const auto added = set.add_directory(root, "/"); !added) {
      return complain(added.error().message);
    }
    if (set.empty()) {
      return complain(fmt::format("{} has no file", root.string()));
    }
    stream = popularity == "zipf" ? zipf_stream(0, set.size(), alpha, options.seed)
                                  : uniform_stream(0, set.size());
  }
  options.files = &set;
  options.stream = stream.get();
  options.keep_alive = !close_each;
  options.timeout = std::chrono::milliseconds(timeout_ms);
  options.etag = etag == "off"      ? EtagScope::kOff
                 : etag == "target" ? EtagScope::kPerTarget
                                    : EtagScope::kAllTargets;
  std::signal(SIGINT, request_stop);
  std::signal(SIGTERM, request_stop);

  LiveCounters live;
  LoadReport report;
  try {
    report = run_load(options, g_stop, live);
  } catch (const std::exception& error) {
    return complain(error.what());
  }
  const TargetReport total = report.total();
  if (json_file != "-") {
    print_report(report, verbose);
  }
  if (!json_file.empty()) {
    nlohmann::json json = to_json(total, report.seconds);
    json["seconds"] = report.seconds;
    json["seed"] = options.seed;
    json["rate"] = options.rate;
    json["not_sent"] = report.not_sent;
    for (const TargetReport& target : report.targets) {
      json["targets"].push_back(to_json(target, report.seconds));
    }
    if (json_file == "-") {
      std::cout << json.dump(2) << "\n";
    } else if (const auto saved = write_file(json_file, json.dump(2) + "\n"); !saved) {
      return complain(saved.error().message);
    }
  }
  if (total.requests == 0) {
    return complain("no request was made");
  }
  return total.failed() == 0 ? 0 : 1;
}
