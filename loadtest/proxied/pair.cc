// SPDX-License-Identifier: Apache-2.0
#include "loadtest/proxied/pair.h"

#include <sstream>

namespace mcs::loadtest {

ProxiedPair::ProxiedPair() = default;
ProxiedPair::~ProxiedPair() = default;

Result<std::unique_ptr<ProxiedPair>> ProxiedPair::start(const ProxiedPairOptions& options) {
  std::unique_ptr<ProxiedPair> pair(new ProxiedPair);
  ServerOptions common;
  common.document_root = pair->root_.path();
  common.root_location = false;
  common.mcs.emplace();
  common.mcs->domain = "pair";
  common.mcs->size = options.size;
  common.mcs->valid.clear();
  common.mcs->domain_arguments = "dir=" + pair->domain_directory_.path().string();
  common.log_level = "warn";

  NginxOptions nginx{common, 4096, ""};
  nginx.workers = options.nginx_workers;
  nginx.server_extra = "location / {\n  proxy_pass " + pair->origin_.url() +
                       ";\n  mcs_cache on;\n  add_header X-Mcs-Status $mcs_cache_status always;\n" +
                       options.nginx_location;
  HttpdOptions httpd;
  static_cast<ServerOptions&>(httpd) = common;
  httpd.workers = options.httpd_children;
  httpd.max_processes = options.httpd_children;
  httpd.threads_per_child = options.httpd_threads;
  httpd.modules = {"proxy", "proxy_http"};
  httpd.server_extra = "ProxyPass / " + pair->origin_.url("/") +
                       "\n<Location \"/\">\n  McsCache On\n  McsCacheKeyBase site\n";
  for (const McsDirective& rule : options.rules) {
    nginx.server_extra += "  " + nginx_directive(rule) + "\n";
    httpd.server_extra += "  " + httpd_directive(rule) + "\n";
  }
  nginx.server_extra += "}\n";
  httpd.server_extra += "</Location>\n";

  pair->nginx_ = std::make_unique<NginxServer>(nginx);
  pair->httpd_ = std::make_unique<HttpdServer>(httpd);
  pair->servers_ = {pair->nginx_.get(), pair->httpd_.get()};
  for (WebServer* server : pair->servers_) {
    if (auto started = server->start(); !started) return tl::unexpected(started.error());
  }
  return pair;
}

std::vector<std::string> ProxiedPair::stop() {
  std::vector<std::string> trouble;
  for (WebServer* server : servers_) {
    if (const auto stopped = server->stop(); !stopped) trouble.push_back(stopped.error().message);
    std::istringstream log(server->error_log());
    for (std::string line; std::getline(log, line);) {
      const bool killed = line.find("signal 9") != std::string::npos ||
                          line.find("Killed (9)") != std::string::npos;
      for (const char* sign : {"[alert]", "exit signal", "core dumped", "Sanitizer"}) {
        if (killed || line.find(sign) == std::string::npos) continue;
        trouble.push_back(fmt::format("{}: {}", server->name(), line));
        break;
      }
    }
  }
  return trouble;
}

}  // namespace mcs::loadtest
