// SPDX-License-Identifier: Apache-2.0
#include "loadtest/harness/server.h"

#include <unistd.h>

#include <cctype>
#include <csignal>
#include <map>

#include "loadtest/harness/guardian.h"
#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/net.h"
#include "loadtest/harness/nginx_server.h"
#include "loadtest/harness/proc_info.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kStartTimeout{20'000};
constexpr milliseconds kStopTimeout{15'000};

// A malformed request is refused by a worker before any module sees it, so that waiting for the
// server leaves no trace in a cache.
bool answers(int port) {
  auto connection = RawConnection::open(port, milliseconds(200));
  if (!connection || !connection->send("?\r\n\r\n")) {
    return false;
  }
  const auto bytes = connection->read_some();
  return bytes && !bytes->empty();
}

Result<void> make_certificate(const fs::path& certificate, const fs::path& key) {
  if (fs::exists(certificate)) {
    return {};
  }
  const auto made =
      run_process({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                   "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                   "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key.string(),
                   "-out", certificate.string()});
  if (!made) {
    return tl::unexpected(made.error());
  }
  if (!made->ok()) {
    return fail("openssl cannot make a certificate: {}", made->describe());
  }
  return {};
}

}  // namespace

WebServer::WebServer(std::string_view name) : name_(name), prefix_(fmt::format("mcs-{}", name)) {}

WebServer::~WebServer() { static_cast<void>(stop_with(SIGTERM)); }

fs::path WebServer::config_file() const { return prefix() / fmt::format("{}.conf", name()); }

Result<void> WebServer::write_config() {
  const ServerOptions& options = this->options();
  if (!fs::is_directory(options.document_root)) {
    return fail("the document root {} is not a directory", options.document_root.string());
  }
  if (options.mcs && options.mcs->module.empty()) {
    return fail("the {} module of MCS is not built: build the target first", name());
  }
  if (port_ == 0 || (options.port != 0 && options.port != port_)) {
    port_ = options.port != 0 ? options.port : free_port();
  }
  if (options.tls) {
    if (tls_port_ == 0) {
      tls_port_ = free_port();
    }
    if (auto made = make_certificate(certificate(), certificate_key()); !made) {
      return made;
    }
  }
  return write_file(config_file(), config_text());
}

Result<ProcessResult> WebServer::check_config() {
  if (auto written = write_config(); !written) {
    return tl::unexpected(written.error());
  }
  ProcessOptions options;
  options.environment = this->options().environment;
  return run_process(check_command(), options);
}

Result<void> WebServer::start() {
  if (running()) {
    return fail("{} runs already", name());
  }
  constexpr int kAttempts = 3;
  for (int attempt = 1;; ++attempt) {
    const size_t log_before = error_log().size();
    auto started = start_once();
    if (started) {
      return started;
    }
    // Somebody else may have taken the port between its choice and its use.
    const bool port_taken =
        error_log().find("ddress already in use", log_before) != std::string::npos;
    if (options().port != 0 || !port_taken || attempt == kAttempts) {
      return started;
    }
    port_ = 0;
    tls_port_ = 0;
  }
}

SpawnOptions WebServer::spawn_options() const {
  SpawnOptions spawn;
  spawn.environment = options().environment;
  spawn.cpus = options().cpus;
  spawn.cgroups = options().cgroups;
  spawn.directory = prefix();
  spawn.stdout_file = prefix() / "stderr.log";
  spawn.stderr_file = prefix() / "stderr.log";
  return spawn;
}

Result<pid_t> WebServer::launch() {
  auto child = ChildProcess::start(start_command(), spawn_options());
  if (!child) {
    return tl::unexpected(child.error());
  }
  child_ = std::move(*child);
  return child_.pid();
}

Result<void> WebServer::start_once() {
  if (auto written = write_config(); !written) {
    return written;
  }
  program_ = fs::path(start_command().front()).filename().string();
  const auto master = launch();
  if (!master) {
    return tl::unexpected(master.error());
  }
  master_ = *master;
  group_ = *master;
  Guardian::instance().add_group(group_);
  bool ended = false;
  const bool ready = wait_until(
      [&] {
        ended = !running();
        return ended || (answers(port_) && worker_pids().size() >= expected_workers());
      },
      kStartTimeout);
  if (ended || !ready) {
    kill_all();
    return fail("{} {}: {}", name(), ended ? "ended at once" : "did not answer within 20 s",
                log_tail());
  }
  return {};
}

bool WebServer::running() const {
  const auto stat = master_ != 0 ? read_proc_stat(master_) : std::nullopt;
  return stat && stat->state != 'Z' && stat->state != 'X' && stat->group == group_;
}

std::vector<pid_t> WebServer::all_pids() const {
  std::vector<pid_t> pids = group_ != 0 ? members_of_group(group_) : std::vector<pid_t>();
  std::erase_if(pids, [&](pid_t pid) { return executable_name(pid) != program_; });
  return pids;
}

Result<void> WebServer::stop_with(int signal) {
  if (group_ == 0) {
    return {};
  }
  if (running()) {
    kill(master_, signal);
  }
  // The master first: a worker's end is its business. What it left behind is killed.
  const bool master_ended = wait_until([&] { return !running(); }, kStopTimeout);
  const bool all_ended = wait_until([&] { return all_pids().empty(); }, milliseconds(2'000));
  kill_all();
  if (!master_ended || !all_ended) {
    return fail("{} did not stop by itself on signal {} and was killed: {}", name(), signal,
                log_tail());
  }
  return {};
}

Result<void> WebServer::stop() { return stop_with(SIGTERM); }

Result<void> WebServer::graceful_stop() { return stop_with(graceful_stop_signal()); }

void WebServer::kill_all() {
  if (group_ == 0) {
    return;
  }
  // A group that has no member left may have lost its number to somebody else.
  if (!all_pids().empty()) {
    kill(-group_, SIGKILL);
    wait_until([&] { return all_pids().empty(); }, kStopTimeout);
  }
  Guardian::instance().remove_group(group_);
  child_ = ChildProcess();
  master_ = 0;
  group_ = 0;
}

void WebServer::release() {
  child_.release();
  Guardian::instance().remove_group(group_);
  prefix_.keep();
  master_ = 0;
  group_ = 0;
}

std::string WebServer::url(std::string_view path) const {
  return fmt::format("http://127.0.0.1:{}{}", port_, path);
}

std::string WebServer::tls_url(std::string_view path) const {
  return fmt::format("https://127.0.0.1:{}{}", tls_port_, path);
}

std::string WebServer::error_log() const {
  return read_file(prefix() / "error.log").value_or("") +
         read_file(prefix() / "stderr.log").value_or("");
}

bool WebServer::wait_for_log(std::string_view text, milliseconds timeout) const {
  return wait_until([&] { return error_log().find(text) != std::string::npos; }, timeout);
}

std::string WebServer::log_tail() const {
  constexpr size_t kTail = 2000;
  const std::string log = error_log();
  return log.empty() ? "(its error log is empty)"
                     : log.substr(log.size() > kTail ? log.size() - kTail : 0);
}

std::unique_ptr<WebServer> make_server(ServerKind kind, const ServerOptions& options) {
  if (kind == ServerKind::kNginx) {
    NginxOptions nginx;
    static_cast<ServerOptions&>(nginx) = options;
    return std::make_unique<NginxServer>(std::move(nginx));
  }
  HttpdOptions httpd;
  static_cast<ServerOptions&>(httpd) = options;
  return std::make_unique<HttpdServer>(std::move(httpd));
}

std::string nginx_directive(const McsDirective& directive) {
  return fmt::format("mcs_{} {};", directive.first, directive.second);
}

std::string httpd_directive(const McsDirective& directive) {
  // Where httpd's own cache has a name for a thing, the module for httpd uses that.
  static const std::map<std::string_view, std::string_view> kOtherNames = {
      {"cache_min_object", "McsCacheMinFileSize"},
      {"cache_max_object", "McsCacheMaxFileSize"},
      {"cache_ignore_headers", "McsCacheIgnoreMeaning"},
      {"cache_strip_headers", "McsCacheIgnoreHeaders"},
      {"cache_lock_age", "McsCacheLockMaxAge"}};
  if (const auto it = kOtherNames.find(directive.first); it != kOtherNames.end()) {
    return fmt::format("{} {}", it->second, directive.second);
  }
  std::string name = "Mcs";
  bool upper = true;
  for (const char letter : directive.first) {
    if (letter == '_') {
      upper = true;
    } else {
      name += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(letter))) : letter;
      upper = false;
    }
  }
  return fmt::format("{} {}", name, directive.second);
}

}  // namespace mcs::loadtest
