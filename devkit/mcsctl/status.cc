// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "devkit/mcsctl/command.h"
#include "libglobalcache/api/process.h"
#include "libglobalcache/cache/layout.h"
#include "libglobalcache/runtime/instance.h"
#include "libglobalcache/runtime/statistics.h"
#include "libglobalcache/runtime/view.h"

namespace mcs::ctl {
namespace {

using nlohmann::json;
using Row = runtime::GlobalStatistics::Row;

const char* server_kind_name(runtime::ServerKind kind) {
  static constexpr const char* kNames[] = {"nginx", "httpd", "other", "tool"};
  return kNames[static_cast<unsigned>(kind) % runtime::kServerKinds];
}

json cells_json(const Row& row) {
  json cells = json::object();
  for (unsigned i = 0; i < api::kStatCount; ++i) cells[api::stat_name(i)] = row.cells[i];
  cells["latency_us_p50"] = static_cast<double>(row.latency_ns(0.5)) / 1000;
  cells["latency_us_p99"] = static_cast<double>(row.latency_ns(0.99)) / 1000;
  return cells;
}

json segment_json(const cache::View& view, const std::optional<runtime::View>& domain_view,
                  runtime::Liveness& liveness, std::uint32_t node,
                  const cache::SegmentUsage& usage) {
  const gsm::SegmentHeader& header = view.domain().segment(node).header();
  const auto entries = [&](cache::EntryState state) {
    return usage.by_state[static_cast<unsigned>(state)];
  };
  return {{"node", node},
          {"incarnation", header.incarnation},
          {"bytes", header.size},
          {"lost", usage.lost},
          {"agent", liveness.held(runtime::kAgentByte + node)},
          {"member", domain_view && domain_view->has_member(node)},
          {"in_view", domain_view && domain_view->has_segment(node)},
          {"space_bytes", usage.units * cache::kUnitBytes},
          {"used_bytes", usage.units_used * cache::kUnitBytes},
          {"free_bytes", (usage.units - usage.units_used) * cache::kUnitBytes},
          {"descriptors", usage.descriptors},
          {"entries",
           {{"sealed", entries(cache::EntryState::kSealed)},
            {"filling", entries(cache::EntryState::kFilling)},
            {"retired", entries(cache::EntryState::kRetired)}}},
          {"overflow", entries(cache::EntryState::kOverflow)},
          {"failed_checks", usage.damage}};
}

json instance_json(const cache::InstanceInfo& instance) {
  return {{"slot", instance.id.slot()},
          {"instance", instance.id.value},
          {"server", instance.server},
          {"pid", instance.pid},
          {"pid_namespace", instance.pid_namespace},
          {"node", instance.node},
          {"state", cache::instance_state_name(instance.state)},
          {"alive", instance.alive},
          {"pins", instance.pins},
          {"fills", instance.fills},
          {"retired", instance.retired},
          {"waiting", instance.waiting},
          {"heartbeat", instance.heartbeat},
          {"joined_ms", instance.joined_ms}};
}

std::string as_text(const json& all) {
  std::string text =
      fmt::format("domain {} ({}), layout {}\n{} of {}", all["domain"].get<std::string>(),
                  all["path"].get<std::string>(), all["layout"].get<std::string>(),
                  counted(all["nodes"].get<std::uint64_t>(), "node"),
                  readable_bytes(all["bytes_per_node"].get<std::uint64_t>()));
  if (all["remote_penalty_percent"] > 100) {
    text += fmt::format(", remote memory {:.1f} times as slow as local",
                        all["remote_penalty_percent"].get<double>() / 100);
  }
  text += all["view"].is_null()
              ? "\nno view of the domain can be read"
              : fmt::format("\nview {}", all["view"]["generation"].get<unsigned>());
  if (!all["view"].is_null() && !all["view"]["index_is_whole"].get<bool>()) {
    text += ", the index is being rebuilt";
  }
  text += "\n\nnode  agent      used      free   sealed  filling  retired\n";
  for (const json& s : all["segments"]) {
    if (s["lost"].get<bool>()) {
      text += fmt::format("{:>4}  its memory does not answer{}\n", s["node"].get<unsigned>(),
                          s["member"].get<bool>() ? "" : "; expelled");
      continue;
    }
    text += fmt::format(
        "{:>4}  {:<5}  {:>8}  {:>8}  {:>7}  {:>7}  {:>7}{}\n", s["node"].get<unsigned>(),
        s["agent"].get<bool>() ? "yes" : "no", readable_bytes(s["used_bytes"].get<std::uint64_t>()),
        readable_bytes(s["free_bytes"].get<std::uint64_t>()),
        s["entries"]["sealed"].get<std::uint64_t>(), s["entries"]["filling"].get<std::uint64_t>(),
        s["entries"]["retired"].get<std::uint64_t>(),
        !s["member"].get<bool>()    ? "  node expelled"
        : !s["in_view"].get<bool>() ? "  segment not in the view"
                                    : "");
  }
  for (const json& loan : all["loans"]) {
    text += fmt::format("      node {} lends node {} {}\n", loan["lender"].get<unsigned>(),
                        loan["borrower"].get<unsigned>(),
                        readable_bytes(loan["bytes"].get<std::uint64_t>()));
  }
  text += "\nslot  node      pid  state     pins  fills  retired  server\n";
  for (const json& i : all["instances"]) {
    text += fmt::format("{:>4}  {:>4}  {:>7}  {:<8}  {:>4}  {:>5}  {:>7}  {}{}\n",
                        i["slot"].get<unsigned>(), i["node"].get<unsigned>(), i["pid"].get<int>(),
                        i["state"].get<std::string>(), i["pins"].get<unsigned>(),
                        i["fills"].get<unsigned>(), i["retired"].get<unsigned>(),
                        i["server"].get<std::string>(),
                        i["alive"].get<bool>() ? "" : " (ended, not recovered yet)");
  }
  if (all["instances"].empty()) text += "      nobody uses the domain\n";
  if (!all["sites"].empty()) text += "\n    used     quota   reserve   sealed  site\n";
  for (const json& site : all["sites"]) {
    const auto bytes = [&](const char* name) { return site[name].get<std::uint64_t>(); };
    text += fmt::format("{:>8}  {:>8}  {:>8}  {:>7}  {}\n", readable_bytes(bytes("used_bytes")),
                        bytes("quota_bytes") == 0 ? "-" : readable_bytes(bytes("quota_bytes")),
                        readable_bytes(bytes("reserve_bytes")), bytes("sealed"),
                        site["site"].get<std::string>());
  }
  const json& sums = all["statistics"];
  const auto n = [&](const char* name) { return sums[name].get<std::uint64_t>(); };
  const std::uint64_t answered = n("hits") + n("revalidated") + n("misses") + n("expired") +
                                 n("stale") + n("updating") + n("bypass");
  text += fmt::format(
      "\n{}: {} hits ({} on what another server filled), {} revalidated, {} misses, "
      "{} expired, {} bypassed",
      counted(n("requests"), "request"), n("hits"), n("cross_server_hits"), n("revalidated"),
      n("misses"), n("expired"), n("bypass"));
  if (answered != 0) {
    text += fmt::format(
        ", {:.1f} % from the cache",
        100.0 * static_cast<double>(answered - n("misses") - n("expired") - n("bypass")) /
            static_cast<double>(answered));
  }
  const auto recoveries = all["recoveries"].get<std::uint64_t>();
  text += fmt::format("\n{} in the history (mcsctl events)\n",
                      recoveries == 1 ? "1 recovery" : fmt::format("{} recoveries", recoveries));
  return text;
}

}  // namespace

int status(const Common& common) {
  auto opened = open(common);
  if (!opened) return fail_with(opened.error());
  const cache::View view(*opened->domain);
  const gsm::SegmentHeader& header = opened->domain->header();
  json all = {{"domain", opened->domain->name()},
              {"path", opened->domain->path()},
              {"layout", fmt::format("{:016x}", header.layout_hash)},
              {"nodes", header.node_count},
              {"bytes_per_node", header.size},
              {"remote_penalty_percent", header.remote_penalty_percent},
              {"separate_kernels", opened->domain->separate_kernels()},
              {"slots", view.slot_count()},
              {"segments", json::array()},
              {"instances", json::array()}};
  const runtime::Views views(*opened->domain);
  const std::optional<runtime::View> domain_view = views.current();
  if (domain_view) {
    json members = json::array();
    json segments = json::array();
    for (std::uint32_t node = 0; node < header.node_count; ++node) {
      if (domain_view->has_member(node)) members.push_back(node);
      if (domain_view->has_segment(node)) segments.push_back(node);
    }
    // Of those in the view: this program may know that one is lost before it is agreed.
    bool whole = true;
    for (std::uint32_t node = 0; node < header.node_count; ++node) {
      if (!domain_view->has_segment(node)) continue;
      for (const auto& swept : view.memory().state(node).swept) {
        whole = whole && swept.load(std::memory_order_acquire) >= domain_view->generation;
      }
    }
    all["view"] = {{"generation", domain_view->generation},
                   {"members", std::move(members)},
                   {"segments", std::move(segments)},
                   {"index_is_whole", whole}};
  } else {
    all["view"] = nullptr;
  }
  std::uint64_t units = 0;
  std::uint64_t used = 0;
  std::array<std::uint64_t, 6> by_state{};
  for (std::uint32_t node = 0; node < header.node_count; ++node) {
    const cache::SegmentUsage usage = view.usage(node);
    if (!usage.lost) {
      units += usage.units;
      used += usage.units_used;
      for (std::size_t i = 0; i < by_state.size(); ++i) by_state[i] += usage.by_state[i];
    }
    all["segments"].push_back(segment_json(view, domain_view, *opened->liveness, node, usage));
  }
  all["entries"] = {{"sealed", by_state[static_cast<unsigned>(cache::EntryState::kSealed)]},
                    {"filling", by_state[static_cast<unsigned>(cache::EntryState::kFilling)]},
                    {"retired", by_state[static_cast<unsigned>(cache::EntryState::kRetired)]}};
  all["loans"] = json::array();
  for (const cache::Loan& loan : view.loans()) {
    all["loans"].push_back({{"lender", loan.lender},
                            {"borrower", loan.borrower},
                            {"bytes", loan.units * cache::kUnitBytes}});
  }
  all["sites"] = json::array();
  for (const cache::SiteUsage& site : view.sites()) {
    all["sites"].push_back({{"site", site.name},
                            {"used_bytes", site.units * cache::kUnitBytes},
                            {"quota_bytes", site.quota * cache::kUnitBytes},
                            {"reserve_bytes", site.reserve * cache::kUnitBytes},
                            {"sealed", site.sealed}});
  }
  all["space_bytes"] = units * cache::kUnitBytes;
  all["used_bytes"] = used * cache::kUnitBytes;
  all["free_bytes"] = (units - used) * cache::kUnitBytes;
  for (const cache::InstanceInfo& instance : view.instances(*opened->liveness)) {
    all["instances"].push_back(instance_json(instance));
  }
  Row sum{runtime::ServerKind::kOther, 0, {}};
  json rows = json::array();
  for (const Row& row : view.statistics()) {
    for (unsigned i = 0; i < runtime::kStatCells; ++i) sum.cells[i] += row.cells[i];
    json cells = cells_json(row);
    cells["server"] = server_kind_name(row.server);
    cells["node"] = row.node;
    rows.push_back(std::move(cells));
  }
  all["statistics"] = cells_json(sum);
  all["statistics_by_server"] = std::move(rows);
  std::uint64_t recoveries = 0;
  for (const cache::RecordedEvent& event : view.history()) {
    if (static_cast<runtime::EventKind>(event.kind) == runtime::EventKind::kInstanceRecovered) {
      ++recoveries;
    }
  }
  std::uint64_t total = 0;
  for (std::uint32_t node = 0; node < header.node_count; ++node) {
    const std::uint64_t next = view.events(node).next.load(std::memory_order_acquire);
    total += next == 0 ? 0 : next - 1;
  }
  all["recoveries"] = recoveries;  // in the history, which keeps the last 256 events per node
  all["events_total"] = total;     // ever
  return print(common, all, as_text(all));
}

}  // namespace mcs::ctl
