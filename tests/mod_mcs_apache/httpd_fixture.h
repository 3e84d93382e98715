// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loadtest/harness/httpd_server.h"
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {

// One httpd, event MPM unless a test says otherwise, that is set up in options() before start().
class HttpdTest : public ServersTest {
 protected:
  HttpdTest() : server_(dynamic_cast<HttpdServer&>(add(kEventType, default_options()))) {}

  HttpdOptions& options() { return server_.options(); }
  void start() { ServersTest::start(server_); }

  HttpResponse get(const std::string& path, std::vector<std::string> headers = {}) {
    return ServersTest::get(server_, path, std::move(headers));
  }
  HttpResponse get_hit(const std::string& path, std::vector<std::string> headers = {}) {
    return ServersTest::get_hit(server_, path, std::move(headers));
  }

  HttpdServer& server_;
};

}  // namespace mcs::loadtest
