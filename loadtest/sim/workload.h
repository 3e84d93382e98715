// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mcs::loadtest {

// A stream of requests for numbered objects. The same name, length and seed give the same stream.
struct Workload {
  std::string name;
  std::vector<uint32_t> sizes;  // by object, in units of cache::kUnitBytes, header and key included
  std::vector<uint32_t> requests;

  // Units of all objects that are asked for.
  uint64_t footprint() const;
};

// "specweb99"; "zipf-0.7" to "zipf-1.1"; and with Zipf 0.9: "scans", interrupted by scans over objects
// that are asked for once in each; "shift": after each tenth a quarter of the ranks move to other
// objects; "upheaval": all of them do; "one-hit": half of the requests are for objects that are never
// asked for again.
std::vector<std::string> workload_names();
Workload make_workload(const std::string& name, uint64_t requests, uint64_t seed);

}  // namespace mcs::loadtest
