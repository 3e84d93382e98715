// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/nginx_server.h"
#include "loadtest/harness/origin.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {

struct ProxiedPairOptions {
  std::string size = "256m";  // of the domain
  int nginx_workers = 2;
  // Half of a child's threads may wait for another's fill; more clients than that ask the origin.
  int httpd_children = 2;
  int httpd_threads = 64;
  std::vector<McsDirective> rules;  // besides the key base
  std::string nginx_location;       // further lines beside proxy_pass
};

// nginx and httpd as caching proxies in front of one scripted origin, on one domain of their own.
// Stopped, and all files removed, by the destructor.
class ProxiedPair {
 public:
  static Result<std::unique_ptr<ProxiedPair>> start(const ProxiedPairOptions& options);
  ~ProxiedPair();

  Origin& origin() { return origin_; }
  const std::array<WebServer*, 2>& servers() const { return servers_; }
  const std::filesystem::path& domain_directory() const { return domain_directory_.path(); }
  // Stops both; what their logs tell of crashes. SIGKILL is no crash.
  std::vector<std::string> stop();

 private:
  ProxiedPair();

  TempDir root_{"mcs-www"};
  TempDir domain_directory_{"/dev/shm", "mcs-pair"};
  Origin origin_;
  std::unique_ptr<NginxServer> nginx_;
  std::unique_ptr<HttpdServer> httpd_;
  std::array<WebServer*, 2> servers_{};
};

}  // namespace mcs::loadtest
