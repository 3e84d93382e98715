// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "loadtest/harness/result.h"

namespace mcs::loadtest {

// A closed-loop client that costs as little as can be: the kernel throws bodies away without
// copying them to the client (MSG_TRUNC, tcp(7)). For large bodies, where a client that reads them
// needs more CPU than the server that sends them: then the server waits for the client, and what it
// does meanwhile in interrupts is counted to nobody.
struct DrainOptions {
  int port = 0;  // on 127.0.0.1
  std::string path;
  uint64_t size = 0;  // of each body; another Content-Length is an error
  int connections = 32;
  double seconds = 1;
  std::vector<int> cpus;  // that it runs on; empty: any
};

struct DrainResult {
  uint64_t requests = 0;
  double seconds = 0;
};

// Statuses and lengths are checked, bodies are not. Runs in a thread of its own until the time is
// over.
Result<DrainResult> run_drain(const DrainOptions& options);

}  // namespace mcs::loadtest
