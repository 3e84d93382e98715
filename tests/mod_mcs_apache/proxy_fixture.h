// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "loadtest/harness/net.h"
#include "loadtest/harness/origin.h"
#include "tests/mod_mcs_apache/httpd_fixture.h"

namespace mcs::loadtest {

// One httpd as a caching reverse proxy in front of an origin that the test scripts.
class ProxyTest : public HttpdTest {
 protected:
  ProxyTest() { options().modules = {"proxy", "proxy_http"}; }

  // The proxied paths are all but /local/, with these further directives.
  void start(const std::string& rules = "", const std::string& extra = "") {
    options().server_extra += "ProxyPass /local/ !\nProxyPass / " + origin_.url("/") +
                              "\n<Location \"/\">\n  McsCache On\n  McsCacheStatusHeader On\n" +
                              rules + "</Location>\n" + extra;
    HttpdTest::start();
  }

  static OriginAnswer fresh(const std::string& body, std::vector<std::string> more = {}) {
    more.insert(more.end(), {"Cache-Control: max-age=600", "Content-Type: text/plain"});
    return {200, std::move(more), body, OriginAnswer::kLength};
  }

  // A GET by another client, in a thread of its own.
  std::future<HttpResponse> get_elsewhere(const std::string& path,
                                          std::vector<std::string> headers = {}) {
    return std::async(std::launch::async, [this, path, headers = std::move(headers)] {
      HttpClient client;
      HttpRequest request;
      request.url = server_.url(path);
      request.headers = headers;
      request.timeout = std::chrono::milliseconds(30'000);
      const auto response = client.send(request);
      return response ? *response : HttpResponse{};
    });
  }

  Origin origin_;
};

}  // namespace mcs::loadtest
