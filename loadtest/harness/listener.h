// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace mcs::loadtest {

// A socket that listens on this port of 127.0.0.1, which others may have used a moment ago. Throws
// std::runtime_error if it cannot.
int listen_on(int port);

}  // namespace mcs::loadtest
