// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loadtest/harness/process.h"
#include "loadtest/harness/result.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {

// A directive of both modules by its common name: {"cache_valid", "1s"} is `mcs_cache_valid 1s;` in
// nginx and `McsCacheValid 1s` in httpd. The name is nginx's without `mcs_`.
using McsDirective = std::pair<std::string, std::string>;

// What the MCS modules are told; the lines are built in one place for each server.
struct McsOptions {
  std::filesystem::path module;  // empty: the one of this build
  std::string domain;
  std::string size = "256m";     // empty: not written
  int node = -1;                 // negative: not written
  std::string domain_arguments;  // further "name=value" arguments of the domain directive
  std::vector<McsDirective> server_directives;  // beside the domain directive
  bool cache = true;                            // switch the cache on in every location
  std::string valid = "1s";                     // empty: not written
  std::string key_base = "site";                // empty: not written
  std::vector<McsDirective> cache_directives;   // further ones in every location
  bool status_header = true;                    // X-Mcs-Status in every response
};

// One URL prefix served from a directory: /docs/x is <directory>/x for prefix "/docs/".
struct Location {
  std::string prefix;
  std::filesystem::path directory;
  std::string extra;  // in the server's own language
};

// What both servers understand. Text given as `…_extra` is in the language of the server at hand.
struct ServerOptions {
  std::filesystem::path document_root;  // must exist and be readable by `user`
  std::vector<Location> locations;
  bool root_location = true;  // serve the document root at "/" (nginx: write `location /`)
  std::optional<McsOptions> mcs;
  int port = 0;                   // 0: a free one, kept over restarts
  bool tls = false;               // a second port, with a self-signed certificate
  bool http2 = false;             // on the TLS port
  std::string user = "www-data";  // of the workers, when this process is root; empty: keep
  int workers = 2;                // nginx: worker_processes; httpd: StartServers
  std::string main_extra;
  std::string http_extra;      // nginx only: in http{}
  std::string server_extra;    // nginx: in server{}; httpd: after the directories
  std::string location_extra;  // in every location or <Directory>
  std::vector<int> cpus;
  std::vector<std::filesystem::path> cgroups;
  std::vector<std::string> environment;
  bool access_log = false;  // <prefix>/access.log
  std::string log_level = "notice";
  int keepalive_timeout_s = 300;
  std::filesystem::path program;  // empty: the installed server
};

// A real web server in a prefix of its own on 127.0.0.1. It is started by start() and stopped by
// the destructor; when this process is killed, it dies as well (see Guardian). The server's
// processes are one process group, but not the recovery agent, which leaves it.
//
// Options may be changed between start()s and before reload(). Not thread-safe, but worker_pids()
// and url() may be called from other threads while no other member runs.
class WebServer {
 public:
  virtual ~WebServer();
  WebServer(const WebServer&) = delete;
  WebServer& operator=(const WebServer&) = delete;

  std::string_view name() const { return name_; }  // "nginx" or "httpd"
  virtual ServerOptions& options() = 0;
  virtual const ServerOptions& options() const = 0;

  // Writes the configuration and runs the server's own check; the result is its output.
  Result<ProcessResult> check_config();
  // Writes the configuration, starts the server and waits until it answers and all workers are
  // there. On failure the Error quotes the end of the error log.
  Result<void> start();
  // Writes the configuration and makes the running server use it, with new workers: HUP for nginx,
  // USR1 (graceful) for httpd. Returns when new workers are there; old ones may still finish
  // requests.
  virtual Result<void> reload() = 0;
  // TERM: ends requests in flight.
  Result<void> stop();
  // QUIT or WINCH: lets them finish.
  Result<void> graceful_stop();
  // SIGKILL for master and workers at once; start() works again afterwards.
  void kill_all();

  // Lets the running server live on, also after this process; prefix() stays.
  void release();

  bool running() const;
  pid_t master_pid() const { return master_; }
  // Workers that take requests (nginx: without those shutting down).
  virtual std::vector<pid_t> worker_pids() const = 0;
  // Master, workers and orphaned workers.
  std::vector<pid_t> all_pids() const;

  int port() const { return port_; }
  int tls_port() const { return tls_port_; }
  std::string url(std::string_view path = "/") const;
  std::string tls_url(std::string_view path = "/") const;

  const std::filesystem::path& prefix() const { return prefix_.path(); }
  std::filesystem::path config_file() const;
  // Runs the server in the foreground with the configuration that check_config() has written: for
  // tests that put it into a container. start() needs no such thing.
  virtual std::vector<std::string> foreground_command() const { return start_command(); }
  // What the server wrote to its error log and its standard error so far.
  std::string error_log() const;
  bool wait_for_log(std::string_view text,
                    std::chrono::milliseconds timeout = std::chrono::milliseconds(10'000)) const;

 protected:
  explicit WebServer(std::string_view name);
  virtual std::string config_text() const = 0;
  // Starts the master without waiting for more than its process id, which is also that of its
  // process group. By default it stays a child of this process.
  virtual Result<pid_t> launch();
  virtual std::vector<std::string> start_command() const = 0;
  virtual std::vector<std::string> check_command() const = 0;
  virtual int graceful_stop_signal() const = 0;
  virtual size_t expected_workers() const = 0;

  Result<void> write_config();
  SpawnOptions spawn_options() const;
  Result<void> stop_with(int signal);
  // The last lines of the log, for messages.
  std::string log_tail() const;
  std::filesystem::path certificate() const { return prefix() / "cert.pem"; }
  std::filesystem::path certificate_key() const { return prefix() / "key.pem"; }

  pid_t master_ = 0;
  pid_t group_ = 0;

 private:
  Result<void> start_once();

  std::string name_;
  std::string program_;  // file name of the executable that runs
  TempDir prefix_;
  ChildProcess child_;
  int port_ = 0;
  int tls_port_ = 0;
};

enum class ServerKind { kNginx, kHttpd };

// For tests that run against both servers: one of them with the options both understand.
std::unique_ptr<WebServer> make_server(ServerKind kind, const ServerOptions& options);

// Names of directives, see McsDirective.
std::string nginx_directive(const McsDirective& directive);
std::string httpd_directive(const McsDirective& directive);

}  // namespace mcs::loadtest
