// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/verify.h"

#include <fmt/format.h>

#include <algorithm>

#include "devkit/mcsctl/command.h"
#include "libglobalcache/cache/global_cache.h"

namespace mcs::ctl {
namespace {

using nlohmann::json;

// Whoever died is recovered by those who live. If nobody does, the next one to come would; that is
// us. Returns how many were recovered.
Result<unsigned> recover_if_nobody_lives(Opened& opened) {
  // Another kernel's processes may live, and only it knows.
  if (opened.domain->on_device()) return 0U;
  const cache::View view(*opened.domain);
  const auto instances = view.instances(*opened.liveness);
  const bool anybody = std::any_of(instances.begin(), instances.end(),
                                   [](const auto& instance) { return instance.alive; });
  if (anybody || instances.empty()) return 0U;
  auto instance = runtime::Instance::join(*opened.domain, *opened.liveness,
                                          {.server = "mcs-ctl", .may_inherit = true});
  if (!instance) return tl::unexpected(instance.error());
  cache::GlobalCache cache(*opened.domain, **instance);
  const unsigned recovered = (*instance)->recover_all("mcsctl verify");
  (*instance)->activate();
  cache.tick();
  cache.leave();
  (*instance)->leave();
  return recovered;
}

}  // namespace

int verify(const Common& common, const VerifyCommand& command) {
  auto opened = open(common);
  if (!opened) return fail_with(opened.error());
  unsigned recovered = 0;
  if (command.recover) {
    const auto answer = recover_if_nobody_lives(*opened);
    if (!answer) return fail_with(answer.error());
    recovered = *answer;
  }
  cache::VerifyOptions options;
  options.bodies = command.bodies;
  options.rechecks = command.rechecks;
  const cache::VerifyReport report = cache::verify(*opened->domain, *opened->liveness, options);

  json problems = json::array();
  std::string text;
  for (const cache::Problem& problem : report.problems) {
    problems.push_back(
        {{"kind", problem.kind}, {"where", problem.where}, {"detail", problem.detail}});
    text += fmt::format("{}: {}: {}\n", problem.kind, problem.where, problem.detail);
  }
  if (report.problem_count > report.problems.size()) {
    text += fmt::format("and {} more\n", report.problem_count - report.problems.size());
  }
  text += fmt::format(
      "domain {} is {}: {} ({} checked to the last byte), {} of {} in use, {} leaked, {}, {} held, "
      "in {:.3f} s\n",
      opened->domain->name(), report.ok ? "sound" : "NOT SOUND",
      report.sealed == 1 ? "1 sealed entry" : fmt::format("{} sealed entries", report.sealed),
      report.checked_bodies, readable_bytes(report.units_used * cache::kUnitBytes),
      readable_bytes(report.units_total * cache::kUnitBytes), readable_bytes(report.leaked_bytes),
      counted(report.pins, "pin"), counted(report.locks_held, "lock"), report.seconds);
  const json all = {{"ok", report.ok},
                    {"leaked_bytes", report.leaked_bytes},
                    {"problems", std::move(problems)},
                    {"problem_count", report.problem_count},
                    {"entries", report.entries},
                    {"sealed", report.sealed},
                    {"filling", report.filling},
                    {"retired", report.retired},
                    {"overflow", report.overflow},
                    {"units_used", report.units_used},
                    {"units_total", report.units_total},
                    {"unit_bytes", cache::kUnitBytes},
                    {"pins", report.pins},
                    {"locks_held", report.locks_held},
                    {"instances", report.instances},
                    {"checked_bodies", report.checked_bodies},
                    {"recovered_first", recovered},
                    {"walks", report.walks},
                    {"seconds", report.seconds}};
  const int printed = print(common, all, text);
  return printed != kDone ? printed : report.ok ? kDone : kWrong;
}

}  // namespace mcs::ctl
