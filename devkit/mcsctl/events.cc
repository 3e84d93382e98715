// SPDX-License-Identifier: Apache-2.0
#include <fmt/chrono.h>
#include <fmt/format.h>

#include "devkit/mcsctl/command.h"

namespace mcs::ctl {
namespace {

using nlohmann::json;

// Microseconds from the instant of detection; 0 if the phase was not recorded.
double since_us(const cache::RecordedEvent& event, std::uint64_t ns) {
  return ns < event.detected_ns ? 0 : static_cast<double>(ns - event.detected_ns) / 1000;
}

json as_json(const cache::RecordedEvent& event) {
  return {{"kind", cache::event_kind_name(event.kind)},
          {"instance", event.instance},
          {"recoverer", event.recoverer},
          {"pid", event.pid},
          {"server", event.server},
          {"node", event.node},
          {"cause", event.cause},
          {"wall_ms", event.wall_ms},
          {"detected_monotonic_ns", event.detected_ns},
          {"agreed_us", since_us(event, event.agreed_ns)},
          {"repaired_us", since_us(event, event.repaired_ns)},
          {"resumed_us", since_us(event, event.resumed_ns)},
          {"duration_us", since_us(event, event.resumed_ns)},
          {"locks", event.locks},
          {"pins", event.pins},
          {"fills", event.fills},
          {"retired", event.retired}};
}

std::string as_text(const cache::RecordedEvent& event) {
  const auto seconds = static_cast<std::time_t>(event.wall_ms / 1000);
  std::string line =
      fmt::format("{:%Y-%m-%d %H:%M:%S}.{:03}  {}  {}", fmt::localtime(seconds),
                  event.wall_ms % 1000, cache::event_kind_name(event.kind), event.server);
  if (event.pid != 0) line += fmt::format(" pid {}", event.pid);
  line += fmt::format(" on node {} ({}), {:.3f} ms", event.node, event.cause,
                      since_us(event, event.resumed_ns) / 1000);
  return line + fmt::format(": {}, {}, {}, {} retired\n", counted(event.locks, "lock"),
                            counted(event.pins, "pin"), counted(event.fills, "fill"),
                            event.retired);
}

}  // namespace

int events(const Common& common) {
  auto opened = open(common);
  if (!opened) return fail_with(opened.error());
  const cache::View view(*opened->domain);
  json all = json::array();
  std::string text;
  for (const cache::RecordedEvent& event : view.history()) {
    all.push_back(as_json(event));
    text += as_text(event);
  }
  if (text.empty()) text = "no events\n";
  return print(common, all, text);
}

}  // namespace mcs::ctl
