// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/benchmark.h"

#include "loadtest/bench/core.h"
#include "loadtest/bench/growth.h"
#include "loadtest/bench/hit.h"
#include "loadtest/bench/hit_ratio.h"
#include "loadtest/bench/latency.h"
#include "loadtest/bench/recovery.h"
#include "loadtest/bench/scaling.h"
#include "loadtest/bench/simulate.h"

namespace mcs::loadtest {

std::vector<std::unique_ptr<Benchmark>> all_benchmarks() {
  std::vector<std::unique_ptr<Benchmark>> all;
  all.push_back(std::make_unique<HitBenchmark>());
  all.push_back(std::make_unique<LatencyBenchmark>());
  all.push_back(std::make_unique<CoreBenchmark>());
  all.push_back(std::make_unique<GrowthBenchmark>());
  all.push_back(std::make_unique<HitRatioBenchmark>());
  all.push_back(std::make_unique<RecoveryBenchmark>());
  all.push_back(std::make_unique<ScalingBenchmark>());
  all.push_back(std::make_unique<SimulateBenchmark>());
  return all;
}

}  // namespace mcs::loadtest
