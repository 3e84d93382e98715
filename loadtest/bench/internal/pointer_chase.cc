// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/internal/pointer_chase.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "gsm-emu/domain.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {

namespace {

constexpr uint64_t kLine = 64;
constexpr uint64_t kLines =
    1 << 20;  // 64 MiB: as gsm-emu measures the local load that it multiplies
// Shorter than a time slice, so that most rounds are not interrupted also on a busy machine.
constexpr int kSteps = 2000;
constexpr size_t kRounds = 200;
constexpr uint64_t kLayout = 0x6368617365;  // of no cache

struct alignas(kLine) Line {
  uint32_t next;
};

Line* lines_of(gsm::Segment& segment) {
  return reinterpret_cast<Line*>(segment.metadata() + gsm::kPageSize);
}

void link(gsm::Segment& segment) {
  std::vector<uint32_t> order(kLines);
  std::iota(order.begin(), order.end(), 0U);
  std::shuffle(order.begin() + 1, order.end(), std::mt19937(1));
  Line* const lines = lines_of(segment);
  for (size_t i = 0; i < kLines; ++i) lines[order[i]].next = order[(i + 1) % kLines];
}

double chase(gsm::Segment& segment, uint32_t& at) {
  const Line* const lines = lines_of(segment);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kSteps; ++i) {
    segment.charge(kLine);
    at = lines[at].next;
  }
  const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
  return spent.count() / kSteps;
}

}  // namespace

Result<PointerChase> chase_pointers(double remote_penalty) {
  const TempDir directory("/dev/shm", "mcs-chase");
  gsm::DomainSpec spec;
  spec.name = "chase";
  spec.directory = directory.path();
  spec.nodes = 2;
  spec.layout_hash = kLayout;
  spec.remote_penalty_percent = static_cast<uint32_t>(std::lround(remote_penalty * 100));
  gsm::Geometry geometry;
  geometry.meta_bytes = gsm::kPageSize + kLines * kLine;
  spec.bytes_per_node = geometry.meta_bytes + gsm::kPageSize;
  const auto domain = gsm::Domain::create(spec, geometry, link);
  if (!domain) return fail("{}", domain.error().message);
  (*domain)->set_viewer(0);
  std::vector<double> local;
  std::vector<double> remote;
  uint32_t at[2] = {0, 0};
  for (size_t round = 0; round < kRounds; ++round) {
    local.push_back(chase((*domain)->segment(0), at[0]));
  }
  for (size_t round = 0; round < kRounds; ++round) {
    remote.push_back(chase((*domain)->segment(1), at[1]));
  }
  const auto quartile = [](std::vector<double>& all) {
    std::nth_element(all.begin(), all.begin() + kRounds / 4, all.end());
    return all[kRounds / 4];
  };
  return PointerChase{quartile(local), quartile(remote)};
}

}  // namespace mcs::loadtest
