// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "loadtest/harness/result.h"

namespace mcs::loadtest {

// A connection as the process that holds its socket sees it.
struct HeldConnection {
  uint16_t local_port;
  uint16_t remote_port;

  bool operator==(const HeldConnection&) const = default;
};

// The established IPv4 connections among a process's descriptors. Exact for a stopped process: the
// sockets themselves are asked through pidfd_getfd(2), because /proc/net/tcp may skip an entry
// while the table changes. Needs the rights of a debugger (root, CAP_SYS_PTRACE in a container).
Result<std::vector<HeldConnection>> held_connections(pid_t pid, int pidfd);

}  // namespace mcs::loadtest
