// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "loadtest/harness/net.h"
#include "loadtest/harness/origin.h"
#include "tests/ngx_mcs_module/nginx_fixture.h"

namespace mcs::loadtest {

// nginx with the module in front of a scripted origin: `location /` is proxied and cached.
class NginxProxyTest : public NginxTest {
 protected:
  NginxProxyTest();
  // Further lines of the proxied location, and of the server.
  void start_proxy(const std::string& location_lines = "", const std::string& server_lines = "");
  std::string proxy_pass() const;

  // A response that is fresh for `max_age` seconds.
  static OriginAnswer fresh(const std::string& body, int max_age = 600);

  // A GET on a connection of its own whose answer is read in steps.
  RawConnection open_get(const std::string& path, const std::string& fields = "");
  // Reads until `text` has arrived; what came until then.
  static std::string read_until(RawConnection& connection, const std::string& text);

  // Status names of several GETs of the same path that start at the same time.
  std::vector<HttpResponse> get_all(const std::string& path, size_t clients);

  Origin origin_;
};

}  // namespace mcs::loadtest
