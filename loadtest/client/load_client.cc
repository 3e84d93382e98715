// SPDX-License-Identifier: Apache-2.0
#include "loadtest/client/load_client.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "loadtest/client/internal/engine.h"
#include "loadtest/harness/process.h"

namespace mcs::loadtest {

std::string_view name_of(Failure failure) {
  static constexpr std::array<std::string_view, kFailures> kNames = {
      "connect",    "connection_lost", "short_body", "timeout",
      "bad_status", "bad_header",      "wrong_body"};
  return kNames[static_cast<size_t>(failure)];
}

uint64_t TargetReport::failed() const {
  return std::accumulate(failures.begin(), failures.end(), uint64_t{0});
}

void TargetReport::merge(const TargetReport& other) {
  requests += other.requests;
  bytes += other.bytes;
  connections += other.connections;
  for (size_t i = 0; i < failures.size(); ++i) {
    failures[i] += other.failures[i];
  }
  for (size_t i = 0; i < cache.size(); ++i) {
    cache[i] += other.cache[i];
  }
  latency.merge(other.latency);
  lateness.merge(other.lateness);
}

TargetReport LoadReport::total() const {
  TargetReport total;
  total.name = "total";
  for (const TargetReport& target : targets) {
    total.merge(target);
  }
  return total;
}

LoadReport run_load(const LoadOptions& options, const std::atomic<bool>& stop, LiveCounters& live) {
  if (options.targets.empty() || options.files == nullptr || options.files->empty() ||
      options.stream == nullptr) {
    throw std::invalid_argument("a load needs a target, a file and a request stream");
  }
  const int threads = std::clamp(options.threads, 1, std::max(1, options.connections));
  LoadShared shared(options, stop, live);
  std::vector<std::unique_ptr<LoadEngine>> engines;
  for (int i = 0; i < threads; ++i) {
    engines.push_back(std::make_unique<LoadEngine>(shared, i, threads));
  }
  const uint64_t start = monotonic_ns();
  const uint64_t end = options.seconds > 0 ? start + static_cast<uint64_t>(options.seconds * 1e9)
                                           : std::numeric_limits<uint64_t>::max();
  std::vector<std::exception_ptr> errors(engines.size());
  {
    std::vector<std::jthread> others;
    for (size_t i = 1; i < engines.size(); ++i) {
      others.emplace_back([&, i] {
        try {
          engines[i]->run(start, end);
        } catch (...) {
          errors[i] = std::current_exception();
        }
      });
    }
    engines[0]->run(start, end);
  }
  for (const std::exception_ptr& error : errors) {
    if (error) {
      std::rethrow_exception(error);
    }
  }

  LoadReport report;
  report.seconds = static_cast<double>(monotonic_ns() - start) / 1e9;
  for (const auto& engine : engines) {
    report.targets.resize(engine->targets.size());
    for (size_t i = 0; i < engine->targets.size(); ++i) {
      report.targets[i].name = engine->targets[i].name;
      report.targets[i].merge(engine->targets[i]);
    }
    report.failures.insert(report.failures.end(), engine->failures.begin(), engine->failures.end());
    report.not_sent += engine->not_sent;
  }
  return report;
}

}  // namespace mcs::loadtest
