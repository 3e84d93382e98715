// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

#include "loadtest/client/load_client.h"

namespace mcs::loadtest {

// {"requests", "failed", "failures": {…}, "bytes", "rps", "cache": {"HIT": …}, "latency_ms": {…}}
nlohmann::json to_json(const TargetReport& report, double seconds);
// p50, p90, p99, p999, max and mean in milliseconds.
nlohmann::json latency_json(const Histogram& latency);

}  // namespace mcs::loadtest
