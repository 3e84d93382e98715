// SPDX-License-Identifier: Apache-2.0
#include "loadtest/harness/nginx_server.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/proc_info.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kStartTimeout{20'000};
constexpr milliseconds kReloadTimeout{20'000};

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
  std::string lines = "  " + nginx_directive({"domain", arguments}) + "\n";
  for (const McsDirective& directive : mcs.server_directives) {
    lines += "  " + nginx_directive(directive) + "\n";
  }
  return lines;
}

std::string cache_lines(const McsOptions& mcs) {
  std::vector<McsDirective> directives;
  if (mcs.cache) {
    directives.emplace_back("cache", "on");
  }
  if (!mcs.valid.empty()) {
    directives.emplace_back("cache_valid", mcs.valid);
  }
  directives.insert(directives.end(), mcs.cache_directives.begin(), mcs.cache_directives.end());
  std::string lines;
  for (const McsDirective& directive : directives) {
    lines += "      " + nginx_directive(directive) + "\n";
  }
  if (mcs.status_header) {
    lines += "      add_header X-Mcs-Status $mcs_cache_status always;\n";
  }
  return lines;
}

}  // namespace

NginxServer::NginxServer(NginxOptions options) : WebServer("nginx"), options_(std::move(options)) {
  if (options_.mcs && options_.mcs->module.empty()) {
    options_.mcs->module = module_file("ngx_mcs_module.so");
  }
}

std::string NginxServer::config_text() const {
  const std::string directory = prefix().string();
  const auto& mcs = options_.mcs;
  std::string text = fmt::format(
      "pid {0}/nginx.pid;\n"
      "error_log {0}/error.log {1};\n"
      "worker_processes {2};\n",
      directory, options_.log_level, options_.workers);
  if (geteuid() == 0 && !options_.user.empty()) {
    text += fmt::format("user {};\n", options_.user);
  }
  if (mcs) {
    text += fmt::format("load_module {};\n", mcs->module.string());
  }
  text += options_.main_extra;
  text += fmt::format("\nevents {{\n  worker_connections {};\n  {}\n}}\n",
                      options_.worker_connections, options_.events_extra);
  text += fmt::format(
      "http {{\n"
      "  access_log {1};\n"
      "  client_body_temp_path {0}/body;\n"
      "  proxy_temp_path {0}/proxy;\n"
      "  fastcgi_temp_path {0}/fastcgi;\n"
      "  uwsgi_temp_path {0}/uwsgi;\n"
      "  scgi_temp_path {0}/scgi;\n"
      "  types {{ text/html html; text/css css; text/plain txt; image/png png; image/gif gif;\n"
      "           image/svg+xml svg; application/javascript js; }}\n"
      "  default_type application/octet-stream;\n"
      "  sendfile on;\n"
      "  keepalive_timeout {2}s;\n"
      "  keepalive_requests 1000000000;\n",
      directory, options_.access_log ? directory + "/access.log" : "off",
      options_.keepalive_timeout_s);
  if (mcs) {
    text += domain_lines(*mcs);
  }
  text += options_.http_extra;
  text += fmt::format("\n  server {{\n    listen 127.0.0.1:{};\n", port());
  if (options_.tls) {
    text += fmt::format(
        "    listen 127.0.0.1:{} ssl{};\n"
        "    ssl_certificate {};\n"
        "    ssl_certificate_key {};\n",
        tls_port(), options_.http2 ? " http2" : "", certificate().string(),
        certificate_key().string());
  }
  text +=
      fmt::format("    server_name localhost;\n    root {};\n", options_.document_root.string());
  if (mcs && !mcs->key_base.empty()) {
    // Of the server, not of each location: named for an alias it would mean that the alias holds the
    // same files as the root.
    text += "    " + nginx_directive({"cache_key_base", mcs->key_base}) + "\n";
  }
  const std::string cache = (mcs ? cache_lines(*mcs) : "") + options_.location_extra;
  if (options_.root_location) {
    text += fmt::format("    location / {{\n{}\n    }}\n", cache);
  }
  for (const Location& location : options_.locations) {
    text += fmt::format("    location ^~ {} {{\n      alias {}/;\n{}{}\n    }}\n", location.prefix,
                        location.directory.string(), cache, location.extra);
  }
  text += options_.server_extra;
  text += "\n  }\n}\n";
  return text;
}

std::vector<std::string> NginxServer::start_command() const {
  // With its full path, which it needs to start itself again on USR2.
  std::string program =
      options_.program.empty() ? find_program("nginx") : options_.program.string();
  return {program.empty() ? "nginx" : program, "-p", prefix().string() + "/", "-e",
          (prefix() / "error.log").string(),   "-c", config_file().string()};
}

std::vector<std::string> NginxServer::foreground_command() const {
  auto words = start_command();
  words.insert(words.end(), {"-g", "daemon off;"});
  return words;
}

std::vector<std::string> NginxServer::check_command() const {
  auto words = start_command();
  words.push_back("-t");
  return words;
}

pid_t NginxServer::pid_in_file() const {
  return std::atoi(read_file(pid_file()).value_or("").c_str());
}

Result<pid_t> NginxServer::launch() {
  std::error_code ignored;
  fs::remove(pid_file(), ignored);
  auto starter = ChildProcess::start(start_command(), spawn_options());
  if (!starter) {
    return tl::unexpected(starter.error());
  }
  const auto status = starter->wait(kStartTimeout);
  // Debian's nginx writes the pid of the daemon before that has left the starter's process group.
  pid_t master = 0;
  const auto left_group = [&] {
    master = pid_in_file();
    const auto stat = master != 0 ? read_proc_stat(master) : std::nullopt;
    return stat && stat->group == master;
  };
  if (!status || *status != 0 || !wait_until(left_group, kStartTimeout)) {
    return fail("nginx did not start: {}", log_tail());
  }
  return master;
}

int NginxServer::graceful_stop_signal() const { return SIGQUIT; }

size_t NginxServer::expected_workers() const { return static_cast<size_t>(options_.workers); }

std::vector<pid_t> NginxServer::worker_pids() const {
  std::vector<pid_t> workers;
  for (const pid_t pid : children_of(master_)) {
    const std::string title = command_line(pid);
    if (title.find("worker process") != std::string::npos &&
        title.find("shutting down") == std::string::npos) {
      workers.push_back(pid);
    }
  }
  return workers;
}

Result<void> NginxServer::reload() {
  if (auto checked = check_config(); !checked || !checked->ok()) {
    return checked ? fail("nginx -t: {}", checked->describe()) : tl::unexpected(checked.error());
  }
  const std::vector<pid_t> before = worker_pids();
  const size_t log_before = error_log().size();
  kill(master_, SIGHUP);
  bool refused = false;
  const bool done = wait_until(
      [&] {
        refused = error_log().find("[emerg]", log_before) != std::string::npos;
        const auto now = worker_pids();
        const auto fresh = std::count_if(now.begin(), now.end(), [&](pid_t pid) {
          return std::find(before.begin(), before.end(), pid) == before.end();
        });
        return refused || !running() || static_cast<size_t>(fresh) >= expected_workers();
      },
      kReloadTimeout);
  if (refused || !done || !running()) {
    return fail("nginx did not reload: {}", log_tail());
  }
  return {};
}

Result<void> NginxServer::upgrade_binary() {
  const pid_t old_master = master_;
  kill(old_master, SIGUSR2);
  pid_t new_master = 0;
  const bool started = wait_until(
      [&] {
        new_master = pid_in_file();
        return new_master != 0 && new_master != old_master;
      },
      kReloadTimeout);
  if (!started) {
    return fail("nginx did not start its new binary: {}", log_tail());
  }
  master_ = new_master;
  if (!wait_until([&] { return worker_pids().size() >= expected_workers(); }, kReloadTimeout)) {
    return fail("the new nginx has no workers: {}", log_tail());
  }
  kill(old_master, SIGQUIT);
  const bool ended = wait_until(
      [&] {
        const auto stat = read_proc_stat(old_master);
        return !stat || stat->state == 'Z';
      },
      kReloadTimeout);
  return ended ? Result<void>() : fail("the old nginx did not end: {}", log_tail());
}

}  // namespace mcs::loadtest
