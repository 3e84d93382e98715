// SPDX-License-Identifier: Apache-2.0
// A process that joins a domain like a server's worker, works, and then runs wild.
#pragma once

#include <cstdint>
#include <string>

namespace mcs::loadtest {

struct ScribblerOptions {
  std::string domain;
  std::uint32_t node = 0;
  unsigned stores = 20;
  std::uint64_t seed = 1;
};

/// Joins, stores and looks up, takes pins and leaves a fill open; then stores `stores` times somewhere in
/// what it has mapped of the domain, prints one line of JSON {"stores", "faulted"} to standard output and
/// ends itself with SIGKILL. Returns only if it cannot begin.
int be_wild(const ScribblerOptions& options);

}  // namespace mcs::loadtest
