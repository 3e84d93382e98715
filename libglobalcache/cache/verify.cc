// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/verify.h"

#include <fmt/format.h>

#include <thread>

#include "libglobalcache/cache/internal/scan.h"

namespace mcs::cache {
namespace {

using Clock = std::chrono::steady_clock;

// Keep only what `again` suspects as well.
void confirm(Scan& suspects, const Scan& again) {
  std::erase_if(suspects.suspicions, [&](const auto& entry) {
    return again.suspicions.find(entry.first) == again.suspicions.end();
  });
  suspects.leaked &= again.leaked;
  suspects.missing &= again.missing;
  suspects.shared &= again.shared;
  suspects.dead_instances = again.dead_instances;
}

bool any(const Scan& scan) {
  return !scan.suspicions.empty() || scan.leaked.any() || scan.missing.any() || scan.shared.any();
}

void add(VerifyReport& report, const VerifyOptions& options, Problem problem) {
  ++report.problem_count;
  if (report.problems.size() < options.max_problems) report.problems.push_back(std::move(problem));
}

std::string place(Extent run) {
  return fmt::format("node {} group {} units {}-{}", run.segment(), run.group(),
                     run.first() % kGroupUnits, run.first() % kGroupUnits + run.units() - 1);
}

}  // namespace

VerifyReport verify(gsm::Domain& domain, runtime::Liveness& liveness,
                    const VerifyOptions& options) {
  const auto start = Clock::now();
  const View view(domain);
  unsigned walks = 0;
  // A segment that is found to be lost during a walk spoils that walk.
  const auto walk = [&](const std::set<std::uint64_t>* contents) {
    const auto lost = [&] {
      unsigned n = 0;
      for (std::uint32_t node = 0; node < domain.node_count(); ++node) {
        n += domain.segment(node).lost() ? 1U : 0U;
      }
      return n;
    };
    for (;;) {
      const unsigned before = lost();
      Scan scan(view, liveness, options, contents);
      scan.run();
      ++walks;
      if (lost() == before) return scan;
    }
  };

  Scan suspects = walk(nullptr);
  VerifyReport report = suspects.counts;
  const std::uint64_t checked_bodies = report.checked_bodies;
  const auto first_walk_end = Clock::now();
  for (unsigned n = 0; any(suspects); ++n) {
    const bool grace =
        suspects.dead_instances && Clock::now() - first_walk_end < options.dead_grace;
    if (n >= options.rechecks && !grace) break;
    std::this_thread::sleep_for(options.interval);
    const std::set<std::uint64_t> contents = suspects.bad_contents;
    const Scan again = walk(&contents);
    confirm(suspects, again);
    report = again.counts;
  }

  report.checked_bodies = checked_bodies;
  for (auto& [key, problem] : suspects.suspicions) add(report, options, problem);
  report.leaked_bytes = suspects.leaked.count() * kUnitBytes;
  for (const Extent run : suspects.leaked.runs(options.max_problems)) {
    add(report, options, {"leaked-space", place(run), "it is marked in use, but nobody owns it",
                          {Flaw::What::kLeaked, run.segment(), run.group(), run.value}});
  }
  for (const Extent run : suspects.missing.runs(options.max_problems)) {
    add(report, options,
        {"space-not-marked", place(run),
         "it is marked free, but belongs to " + suspects.owners_of(run),
         {Flaw::What::kMissing, run.segment(), run.group(), run.value}});
  }
  for (const Extent run : suspects.shared.runs(options.max_problems)) {
    add(report, options,
        {"space-owned-twice", place(run), "it belongs to " + suspects.owners_of(run),
         {Flaw::What::kShared, run.segment(), run.group(), run.value}});
  }
  report.ok = report.problem_count == 0;
  report.walks = walks;
  report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return report;
}

}  // namespace mcs::cache
