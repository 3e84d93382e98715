// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "devkit/mcsctl/command.h"
#include "devkit/mcsctl/readable_key.h"
#include "libglobalcache/runtime/instance.h"

namespace mcs::ctl {
namespace {

using nlohmann::json;

struct Row {
  std::string key;
  std::string variant;
  std::string state;
  std::uint64_t bytes = 0;
  std::int64_t age_ms = 0;
  std::size_t extents = 0;
  std::set<std::uint32_t> nodes;  // where the bytes lie
  std::uint32_t node = 0;         // where the descriptor lies
  std::size_t pins = 0;
};

std::string age_text(std::int64_t ms) {
  if (ms < 0) return "-";
  if (ms < 60000) return fmt::format("{:.1f} s", static_cast<double>(ms) / 1000);
  if (ms < 7200000) return fmt::format("{} min", ms / 60000);
  return fmt::format("{} h", ms / 3600000);
}

}  // namespace

int keys(const Common& common, const KeysOptions& options) {
  auto opened = open(common);
  if (!opened) return fail_with(opened.error());
  const cache::View view(*opened->domain);
  const std::vector<std::uint64_t> pins = view.pins();
  const std::int64_t now = runtime::wall_ms();
  std::vector<Row> rows;
  std::uint64_t matched = 0;
  for (std::uint32_t node = 0; node < view.memory().nodes(); ++node) {
    for (std::uint64_t i = 0; i < view.memory().geometry().descriptors; ++i) {
      if (view.memory().lost(node)) break;
      const auto entry = view.sealed(node, i);
      if (!entry) continue;
      Row row;
      ReadableKey key = readable_key(entry->key());
      row.key = std::move(key.text);
      row.variant = std::move(key.variant);
      if (row.key.compare(0, options.prefix.size(), options.prefix) != 0) continue;
      ++matched;
      if (rows.size() >= options.limit) continue;
      row.state = (cache::EntryWord::flags(entry->word) & cache::EntryWord::kSoftPurged) != 0
                      ? "stale"
                      : "sealed";
      row.bytes = entry->fields.body_bytes;
      // Entries of proxied responses may keep another number there.
      const bool is_time = entry->checked_ms > 0 && entry->checked_ms <= now + 60000;
      row.age_ms = is_time ? std::max<std::int64_t>(0, now - entry->checked_ms) : -1;
      row.extents = entry->extents.size();
      for (const cache::Extent extent : entry->extents) row.nodes.insert(extent.segment());
      row.node = node;
      const auto [first, last] = std::equal_range(pins.begin(), pins.end(), entry->link.value);
      row.pins = static_cast<std::size_t>(last - first);
      rows.push_back(std::move(row));
    }
  }
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return std::tie(a.key, a.variant) < std::tie(b.key, b.variant);
  });
  json all = json::array();
  std::string text = "      size       age  extents  nodes  pins  key\n";
  for (const Row& row : rows) {
    all.push_back({{"key", row.key},
                   {"variant", row.variant},
                   {"state", row.state},
                   {"bytes", row.bytes},
                   {"age_ms", row.age_ms},
                   {"extents", row.extents},
                   {"nodes", row.nodes},
                   {"descriptor_node", row.node},
                   {"pins", row.pins}});
    text += fmt::format("{:>10}  {:>8}  {:>7}  {:>5}  {:>4}  {}{}{}\n", readable_bytes(row.bytes),
                        age_text(row.age_ms), row.extents, fmt::join(row.nodes, ","), row.pins,
                        row.key, row.variant.empty() ? "" : "  variant " + row.variant,
                        row.state == "stale" ? "  (stale)" : "");
  }
  text += fmt::format("{} of {}\n", rows.size(),
                      matched == 1 ? "1 entry" : fmt::format("{} entries", matched));
  return print(common, {{"entries", std::move(all)}, {"matched", matched}}, text);
}

}  // namespace mcs::ctl
