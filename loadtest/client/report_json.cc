// SPDX-License-Identifier: Apache-2.0
#include "loadtest/client/report_json.h"

namespace mcs::loadtest {

namespace {

double to_ms(uint64_t ns) { return static_cast<double>(ns) / 1e6; }

}  // namespace

nlohmann::json latency_json(const Histogram& latency) {
  return {{"p50", to_ms(latency.percentile(.5))},  {"p90", to_ms(latency.percentile(.9))},
          {"p99", to_ms(latency.percentile(.99))}, {"p999", to_ms(latency.percentile(.999))},
          {"max", to_ms(latency.max())},           {"mean", latency.mean() / 1e6}};
}

nlohmann::json to_json(const TargetReport& report, double seconds) {
  nlohmann::json failures = nlohmann::json::object();
  for (size_t i = 0; i < kFailures; ++i) {
    failures[std::string(name_of(static_cast<Failure>(i)))] = report.failures[i];
  }
  nlohmann::json cache = nlohmann::json::object();
  for (size_t i = 0; i < kCacheResults; ++i) {
    cache[std::string(name_of(static_cast<CacheResult>(i)))] = report.cache[i];
  }
  return {{"name", report.name},
          {"requests", report.requests},
          {"failed", report.failed()},
          {"failures", failures},
          {"wrong_bodies", report.count(Failure::kWrongBody)},
          {"bytes", report.bytes},
          {"connections", report.connections},
          {"rps", seconds > 0 ? static_cast<double>(report.requests) / seconds : 0},
          {"hits", report.count(CacheResult::kHit)},
          {"cache", cache},
          {"latency_ms", latency_json(report.latency)}};
}

}  // namespace mcs::loadtest
