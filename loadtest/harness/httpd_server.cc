// SPDX-License-Identifier: Apache-2.0
#include "loadtest/harness/httpd_server.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/proc_info.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kReloadTimeout{20'000};
constexpr const char* kModules = "/usr/lib/apache2/modules";

std::string domain_lines(const McsOptions& mcs) {
  std::string arguments = mcs.domain;
  if (!mcs.size.empty()) {
    arguments += " size=" + mcs.size;
  }
  if (mcs.node >= 0) {
    arguments += fmt::format(" node={}", mcs.node);
  }
  if (!mcs.domain_arguments.empty()) {
    arguments += " " + mcs.domain_arguments;
  }
  std::string lines = httpd_directive({"domain", arguments}) + "\n";
  for (const McsDirective& directive : mcs.server_directives) {
    lines += httpd_directive(directive) + "\n";
  }
  return lines;
}

std::string cache_lines(const McsOptions& mcs) {
  std::vector<McsDirective> directives;
  if (mcs.cache) {
    directives.emplace_back("cache", "On");
  }
  if (!mcs.valid.empty()) {
    directives.emplace_back("cache_valid", mcs.valid);
  }
  if (!mcs.key_base.empty()) {
    directives.emplace_back("cache_key_base", mcs.key_base);
  }
  directives.insert(directives.end(), mcs.cache_directives.begin(), mcs.cache_directives.end());
  std::string lines;
  for (const McsDirective& directive : directives) {
    lines += "  " + httpd_directive(directive) + "\n";
  }
  return lines;
}

size_t count(std::string_view text, std::string_view what) {
  size_t times = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string_view::npos; at += what.size()) {
    ++times;
  }
  return times;
}

}  // namespace

HttpdServer::HttpdServer(HttpdOptions options) : WebServer("httpd"), options_(std::move(options)) {
  if (options_.mcs && options_.mcs->module.empty()) {
    options_.mcs->module = module_file("mod_mcs_apache.so");
  }
  // The same types as NginxServer has, whether or not the machine has an /etc/mime.types.
  static_cast<void>(write_file(prefix() / "mime.types",
                               "text/html html\ntext/css css\ntext/plain txt\nimage/png png\n"
                               "image/gif gif\nimage/svg+xml svg\napplication/javascript js\n"));
}

std::string HttpdServer::process_limits() const {
  const int per_child = options_.mpm == "prefork" ? 1 : options_.threads_per_child;
  const int limit = std::max(options_.max_processes, options_.workers);
  const int min_spare =
      options_.min_spare_processes > 0 ? options_.min_spare_processes : options_.workers;
  const int max_spare = options_.max_spare_processes > 0 ? options_.max_spare_processes : limit;
  std::string text = fmt::format(
      "ServerLimit {}\nStartServers {}\nMaxRequestWorkers {}\nMaxConnectionsPerChild {}\n", limit,
      options_.workers, limit * per_child, options_.max_connections_per_child);
  if (options_.mpm == "prefork") {
    text += fmt::format("MinSpareServers {}\nMaxSpareServers {}\n", min_spare, max_spare);
  } else {
    // One thread more than the spare children have: with exactly as many, a busy thread would be
    // answered with one more child.
    text += fmt::format(
        "ThreadsPerChild {0}\nThreadLimit {0}\nMinSpareThreads {1}\nMaxSpareThreads {2}\n",
        per_child, std::max(1, (min_spare - 1) * per_child + 1), max_spare * per_child);
  }
  return text;
}

std::string HttpdServer::config_text() const {
  const std::string directory = prefix().string();
  const auto& mcs = options_.mcs;
  std::vector<std::string> modules = {
      "mpm_" + options_.mpm, "authz_core", "mime", "dir", "alias", "headers"};
  if (options_.tls) {
    modules.insert(modules.end(), {"socache_shmcb", "ssl"});
  }
  if (options_.http2) {
    modules.push_back("http2");
  }
  modules.insert(modules.end(), options_.modules.begin(), options_.modules.end());

  std::string text = fmt::format(
      "ServerRoot {0}\n"
      "DefaultRuntimeDir {0}\n"
      "PidFile {0}/httpd.pid\n"
      "ErrorLog {0}/error.log\n"
      "LogLevel {1}\n"
      "ServerName localhost\n",
      directory, options_.log_level);
  for (const std::string& module : modules) {
    text += fmt::format("LoadModule {0}_module {1}/mod_{0}.so\n", module, kModules);
  }
  if (mcs) {
    text += fmt::format("LoadModule mcs_module {}\n", mcs->module.string());
  }
  if (geteuid() == 0 && !options_.user.empty()) {
    text += fmt::format("User {0}\nGroup {0}\n", options_.user);
  }
  if (options_.access_log) {
    text += fmt::format("CustomLog {}/access.log \"%h %t \\\"%r\\\" %>s %b\"\n", directory);
  }
  text += process_limits();
  // FlushMaxThreshold: with less, the event MPM blocks a thread on a slow reader of what is not a
  // file.
  text += fmt::format(
      "TypesConfig {}/mime.types\n"
      "DirectoryIndex index.html\n"
      "KeepAlive On\n"
      "KeepAliveTimeout {}\n"
      "MaxKeepAliveRequests 0\n"
      "FlushMaxThreshold 16777216\n"
      "Listen 127.0.0.1:{}\n",
      directory, options_.keepalive_timeout_s, port());
  if (options_.tls) {
    text += fmt::format(
        "Listen 127.0.0.1:{0}\n"
        "SSLSessionCache none\n",
        tls_port());
  }
  if (mcs) {
    text += domain_lines(*mcs);
    if (mcs->status_header) {
      text += "Header always set X-Mcs-Status \"%{mcs-cache-status}e\"\n";
    }
  }
  text += options_.main_extra;
  text += fmt::format(
      "\nDocumentRoot {}\n<Directory />\n  AllowOverride None\n"
      "  Options FollowSymLinks\n  Require all denied\n</Directory>\n",
      options_.document_root.string());
  const std::string cache = (mcs ? cache_lines(*mcs) : "") + options_.location_extra;
  const auto serve = [&](const fs::path& root, const std::string& extra) {
    text += fmt::format("<Directory {}>\n  Require all granted\n{}{}\n</Directory>\n",
                        root.string(), cache, extra);
  };
  if (options_.root_location) {
    serve(options_.document_root, "");
  }
  for (const Location& location : options_.locations) {
    text += fmt::format("Alias {} {}/\n", location.prefix, location.directory.string());
    serve(location.directory, location.extra);
  }
  if (options_.tls) {
    text += fmt::format(
        "<VirtualHost 127.0.0.1:{}>\n  SSLEngine on\n  SSLCertificateFile {}\n"
        "  SSLCertificateKeyFile {}\n  {}\n</VirtualHost>\n",
        tls_port(), certificate().string(), certificate_key().string(),
        options_.http2 ? "Protocols h2 http/1.1" : "");
  }
  text += options_.server_extra;
  text += "\n";
  return text;
}

std::vector<std::string> HttpdServer::command() const {
  return {options_.program.empty() ? "apache2" : options_.program.string(), "-d", prefix().string(),
          "-f", config_file().string()};
}

std::vector<std::string> HttpdServer::start_command() const {
  auto words = command();
  words.push_back("-DFOREGROUND");
  return words;
}

std::vector<std::string> HttpdServer::check_command() const {
  auto words = command();
  words.push_back("-t");
  return words;
}

int HttpdServer::graceful_stop_signal() const { return SIGWINCH; }

size_t HttpdServer::expected_workers() const { return static_cast<size_t>(options_.workers); }

std::vector<pid_t> HttpdServer::worker_pids() const { return children_of(master_); }

Result<void> HttpdServer::reload() { return restart_with(SIGUSR1); }

Result<void> HttpdServer::restart() { return restart_with(SIGHUP); }

Result<void> HttpdServer::restart_with(int signal) {
  // A parent that finds an error in its configuration while restarting ends.
  if (auto checked = check_config(); !checked || !checked->ok()) {
    return checked ? fail("apache2 -t: {}", checked->describe()) : tl::unexpected(checked.error());
  }
  constexpr std::string_view kResumed = "resuming normal operations";
  const std::vector<pid_t> before = worker_pids();
  const size_t resumed_before = count(error_log(), kResumed);
  kill(master_, signal);
  const bool done = wait_until(
      [&] {
        const auto now = worker_pids();
        const bool fresh = std::any_of(now.begin(), now.end(), [&](pid_t pid) {
          return std::find(before.begin(), before.end(), pid) == before.end();
        });
        return !running() || (fresh && count(error_log(), kResumed) > resumed_before);
      },
      kReloadTimeout);
  if (!done || !running()) {
    return fail("httpd did not restart: {}", log_tail());
  }
  return {};
}

}  // namespace mcs::loadtest
