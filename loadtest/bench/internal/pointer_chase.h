// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loadtest/harness/result.h"

namespace mcs::loadtest {

struct PointerChase {
  double local_ns = 0;   // of one dependent load from the own node's segment
  double remote_ns = 0;  // from another node's
  double ratio() const { return local_ns > 0 ? remote_ns / local_ns : 0; }
};

// What a line of another node's memory costs in a domain made with this penalty. The lower quartile
// of many short rounds: what else runs on the machine can only add to a load.
Result<PointerChase> chase_pointers(double remote_penalty);

}  // namespace mcs::loadtest
