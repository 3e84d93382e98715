// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <sstream>

#include "loadtest/harness/httpd_server.h"
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {

// One httpd, event MPM unless a test says otherwise, that is set up in options() before start().
class HttpdTest : public ServersTest {
 protected:
  // A child of the event MPM that is told to end at once may crash in httpd's own code, if a thread
  // is closing a connection just then.
  void TearDown() override {
    EXPECT_TRUE(wait_until([&] { return closing_connections() == 0; }, std::chrono::seconds(10)));
    ServersTest::TearDown();
  }

  HttpdTest() : server_(dynamic_cast<HttpdServer&>(add(kEventType, default_options()))) {}

  HttpdOptions& options() { return server_.options(); }
  void start() { ServersTest::start(server_); }

  HttpResponse get(const std::string& path, std::vector<std::string> headers = {}) {
    return ServersTest::get(server_, path, std::move(headers));
  }
  HttpResponse get_hit(const std::string& path, std::vector<std::string> headers = {}) {
    return ServersTest::get_hit(server_, path, std::move(headers));
  }

  // Those that the client has closed and the server has not.
  int closing_connections() const {
    constexpr int kCloseWait = 8;
    std::istringstream lines(read_file("/proc/net/tcp").value_or(""));
    int count = 0;
    for (std::string line; std::getline(lines, line);) {
      unsigned slot, local, port, remote, remote_port, state;
      if (sscanf(line.c_str(), "%u: %x:%x %x:%x %x", &slot, &local, &port, &remote, &remote_port,
                 &state) == 6 &&
          static_cast<int>(port) == server_.port() && state == kCloseWait) {
        ++count;
      }
    }
    return count;
  }

  HttpdServer& server_;
};

}  // namespace mcs::loadtest
