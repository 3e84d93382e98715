// SPDX-License-Identifier: Apache-2.0
#include "loadtest/sim/workload.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "loadtest/specweb/sampler.h"
#include "loadtest/specweb/specweb.h"

namespace mcs::loadtest {

namespace {

constexpr uint64_t kUnit = 256;
constexpr uint64_t kHead = 180;    // key and stored header of a static file, about
constexpr int kDirectories = 160;  // of SPECweb99: 0.8 GB

uint32_t units_for(uint64_t body) {
  return static_cast<uint32_t>((body + kHead + kUnit - 1) / kUnit);
}

// Median 2 KiB, mean 3.4 KiB, a few of 100 KiB and more (log-normal, as web objects are).
std::vector<uint32_t> web_sizes(size_t objects, Random& random) {
  std::lognormal_distribution<double> bytes(std::log(2048), 1.0);
  std::vector<uint32_t> sizes(objects);
  for (uint32_t& size : sizes) size = units_for(static_cast<uint64_t>(bytes(random)));
  return sizes;
}

Workload specweb(uint64_t requests, uint64_t seed) {
  Workload workload;
  const SpecwebSampler sampler(kDirectories);
  for (size_t i = 0; i < size_t{kDirectories} * SpecwebSet::kFilesPerDirectory; ++i) {
    const auto in_directory = static_cast<int>(i % SpecwebSet::kFilesPerDirectory);
    workload.sizes.push_back(units_for(SpecwebSet::file_size(
        in_directory / SpecwebSet::kFilesPerClass, in_directory % SpecwebSet::kFilesPerClass)));
  }
  Random random(seed);
  for (uint64_t i = 0; i < requests; ++i) {
    workload.requests.push_back(static_cast<uint32_t>(sampler(random)));
  }
  return workload;
}

}  // namespace

uint64_t Workload::footprint() const {
  std::vector<bool> seen(sizes.size());
  uint64_t units = 0;
  for (const uint32_t object : requests) {
    if (!seen[object]) units += sizes[object];
    seen[object] = true;
  }
  return units;
}

std::vector<std::string> workload_names() {
  return {"specweb99", "zipf-0.7", "zipf-0.8", "zipf-0.9", "zipf-1.0",
          "zipf-1.1",  "scans",    "shift",    "upheaval", "one-hit"};
}

Workload make_workload(const std::string& name, uint64_t requests, uint64_t seed) {
  if (name == "specweb99") {
    Workload workload = specweb(requests, seed);
    workload.name = name;
    return workload;
  }
  Workload workload;
  workload.name = name;
  Random random(seed);
  const size_t objects = requests / 10;
  double alpha = .9;
  if (name.starts_with("zipf-")) {
    alpha = std::stod(name.substr(5));
  } else if (name != "scans" && name != "shift" && name != "upheaval" && name != "one-hit") {
    throw std::invalid_argument("no workload is called " + name);
  }
  const WeightedSampler sampler(zipf_weights(objects, alpha));
  // Which object has a rank is drawn, so that size and popularity are independent.
  std::vector<uint32_t> object_of(objects);
  for (size_t i = 0; i < objects; ++i) object_of[i] = static_cast<uint32_t>(i);
  std::shuffle(object_of.begin(), object_of.end(), random);

  const size_t scanned = objects;
  const size_t extra = name == "scans" ? scanned : name == "one-hit" ? requests : 0;
  workload.sizes = web_sizes(objects + extra, random);
  auto next_extra = static_cast<uint32_t>(objects);
  std::bernoulli_distribution coin(.5);
  for (uint64_t i = 0; workload.requests.size() < requests; ++i) {
    if (i != 0 && i % (requests / 10) == 0) {
      if (name == "upheaval") std::shuffle(object_of.begin(), object_of.end(), random);
      for (size_t n = 0; name == "shift" && n < objects / 8; ++n) {
        std::swap(object_of[random() % objects], object_of[random() % objects]);
      }
    }
    // A scan reads a third of the scanned objects, in order.
    if (name == "scans" && i != 0 && i % (requests / 15) == 0) {
      for (size_t n = 0; n < scanned / 3; ++n) {
        workload.requests.push_back(next_extra);
        if (++next_extra == objects + scanned) next_extra = static_cast<uint32_t>(objects);
      }
    }
    if (name == "one-hit" && coin(random)) {
      workload.requests.push_back(next_extra++);
    } else {
      workload.requests.push_back(object_of[sampler(random)]);
    }
  }
  workload.requests.resize(requests);
  return workload;
}

}  // namespace mcs::loadtest
