// SPDX-License-Identifier: Apache-2.0
#include "loadtest/wrk/wrk.h"

#include <csignal>
#include <nlohmann/json.hpp>

namespace mcs::loadtest {

namespace fs = std::filesystem;

namespace {

// The scripts beside the sources this was built from, else the installed ones.
Result<std::string> script_file(const std::string& name) {
  for (const char* directory : {MCS_WRK_SOURCE_DIR, MCS_WRK_INSTALL_DIR}) {
    if (fs::exists(fs::path(directory) / name)) {
      return (fs::path(directory) / name).string();
    }
  }
  return fail("the wrk script {} is neither in {} nor in {}", name, MCS_WRK_SOURCE_DIR,
              MCS_WRK_INSTALL_DIR);
}

}  // namespace

Result<std::unique_ptr<WrkRun>> WrkRun::start(const WrkOptions& options) {
  if (find_program("wrk").empty()) {
    return fail("wrk is not installed: apt-get install wrk");
  }
  const auto script = script_file(options.script);
  if (!script) {
    return tl::unexpected(script.error());
  }
  std::unique_ptr<WrkRun> run(new WrkRun);
  std::vector<std::string> argv = {"wrk",
                                   fmt::format("-t{}", options.threads),
                                   fmt::format("-c{}", options.connections),
                                   fmt::format("-d{}s", options.seconds),
                                   "--timeout",
                                   fmt::format("{}s", options.timeout_s),
                                   "-s",
                                   *script};
  for (const std::string& header : options.headers) {
    argv.insert(argv.end(), {"-H", header});
  }
  argv.insert(argv.end(), {options.url, "--"});
  argv.insert(argv.end(), options.arguments.begin(), options.arguments.end());
  argv.push_back("json=" + (run->directory_.path() / "result.json").string());
  SpawnOptions spawn;
  spawn.cpus = options.cpus;
  spawn.stdout_file = run->directory_.path() / "output";
  spawn.stderr_file = run->directory_.path() / "output";
  auto process = ChildProcess::start(argv, spawn);
  if (!process) {
    return tl::unexpected(process.error());
  }
  run->process_ = std::move(*process);
  run->limit_ = std::chrono::seconds(options.seconds + options.timeout_s + 20);
  return run;
}

void WrkRun::interrupt() { process_.signal(SIGINT); }

Result<WrkResult> WrkRun::finish() {
  const auto status = process_.wait(limit_);
  const auto text = read_file(directory_.path() / "result.json");
  const auto json = nlohmann::json::parse(text.value_or(""), nullptr, false);
  if (!status || json.is_discarded()) {
    return fail("wrk {}: {}", status ? "failed" : "did not end",
                read_file(directory_.path() / "output").value_or(""));
  }
  const auto& errors = json.at("errors");
  const auto& latency = json.at("latency_us");
  WrkResult result;
  result.requests = json.at("requests");
  result.bytes = json.at("bytes");
  result.seconds = json.at("seconds");
  result.connect_errors = errors.at("connect");
  result.read_errors = errors.at("read");
  result.write_errors = errors.at("write");
  result.bad_status = errors.at("status");
  result.timeouts = errors.at("timeout");
  result.p50_us = latency.at("p50");
  result.p99_us = latency.at("p99");
  result.p999_us = latency.at("p999");
  return result;
}

Result<WrkResult> run_wrk(const WrkOptions& options) {
  auto run = WrkRun::start(options);
  if (!run) {
    return tl::unexpected(run.error());
  }
  return (*run)->finish();
}

}  // namespace mcs::loadtest
