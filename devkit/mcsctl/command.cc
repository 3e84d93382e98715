// SPDX-License-Identifier: Apache-2.0
#include "devkit/mcsctl/command.h"

#include <fmt/format.h>

#include <cstdio>
#include <fstream>

#include "libglobalcache/cache/layout.h"

namespace mcs::ctl {

Result<Opened> open(const Common& common) {
  auto domain = cache::open(common.directory, common.name);
  if (!domain) {
    if (domain.error().code != ErrorCode::kNotFound) return tl::unexpected(domain.error());
    // A domain of that name which another build made is the likely reason.
    const std::string other = gsm::Domain::path_of(common.directory, common.name, 0);
    const std::string prefix = other.substr(0, other.size() - 8);
    for (const std::string& path : gsm::Domain::list(common.directory)) {
      if (path.size() != other.size() || path.compare(0, prefix.size(), prefix) != 0) continue;
      return fail(
          ErrorCode::kIncompatible,
          fmt::format("{} was made by a build with another layout (this build: {:08x}); use "
                      "that build's mcsctl",
                      path, cache::layout_hash() & 0xffffffff));
    }
    return tl::unexpected(domain.error());
  }
  auto liveness = runtime::KernelLiveness::open((*domain)->path());
  if (!liveness) return tl::unexpected(liveness.error());
  return Opened{std::move(*domain), std::move(*liveness)};
}

int fail_with(const Error& error) {
  std::fprintf(stderr, "mcsctl: %s\n", error.message.c_str());
  return kFailed;
}

int print(const Common& common, const nlohmann::json& json, const std::string& text) {
  // Keys may hold any bytes; what is not UTF-8 is replaced.
  const auto dump = [&] {
    return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  };
  if (common.json == "-") {
    std::fputs(dump().c_str(), stdout);
  } else {
    std::fputs(text.c_str(), stdout);
  }
  if (std::fflush(stdout) != 0) return fail_with({ErrorCode::kSystem, "cannot write the output"});
  if (common.json.empty() || common.json == "-") return kDone;
  std::ofstream file(common.json);
  file << dump();
  file.close();
  if (!file) {
    return fail_with(
        {ErrorCode::kSystem,
         fmt::format("cannot write {}; give --json a file that can be written", common.json)});
  }
  return kDone;
}

std::string readable_bytes(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  unsigned unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 || value >= 100 ? fmt::format("{:.0f} {}", value, kUnits[unit])
                                   : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string counted(std::uint64_t n, const char* thing) {
  return fmt::format("{} {}{}", n, thing, n == 1 ? "" : "s");
}

}  // namespace mcs::ctl
