// SPDX-License-Identifier: Apache-2.0
#include "loadtest/demo/demo.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>
#include <set>
#include <thread>

#include "loadtest/demo/site.h"
#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/domain.h"
#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/nginx_server.h"
#include "loadtest/harness/proc_info.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

namespace {

constexpr const char* kMemoryPerNode = "256M";
constexpr milliseconds kRecoveryTimeout{5'000};
constexpr milliseconds kGoneTimeout{10'000};

void say(const std::string& text) {
  std::fputs((text + "\n").c_str(), stdout);
  std::fflush(stdout);
}

class Demo {
 public:
  Demo(const DemoOptions& options, const std::atomic<bool>& interrupted)
      : options_(options), interrupted_(interrupted) {}

  Result<void> prepare();
  Result<void> load();
  void collect();
  Result<void> hand_over();
  void take_down();

  DemoRun run;

 private:
  McsOptions mcs_options(int node) const;
  Result<void> start_servers();
  Result<void> start_wrk();
  void gather_events();
  size_t recovered_kills() const;
  void show_progress(double elapsed, const LiveCounters& live, bool last);
  std::vector<std::string> left_behind() const;

  const DemoOptions& options_;
  const std::atomic<bool>& interrupted_;
  const bool terminal_ = isatty(STDOUT_FILENO) != 0;
  std::string name_ = fmt::format("mcs-demo-{}", getpid());

  std::unique_ptr<DemoSite> site_;
  std::optional<Domain> domain_;
  std::unique_ptr<NginxServer> nginx_;
  std::unique_ptr<HttpdServer> httpd_;
  std::unique_ptr<WorkerKiller> killer_;
  std::vector<std::unique_ptr<WrkRun>> wrk_;
  std::set<std::string> seen_events_;
};

McsOptions Demo::mcs_options(int node) const {
  McsOptions mcs;
  mcs.domain = name_;
  mcs.size.clear();  // the domain exists already
  mcs.node = node;
  mcs.key_base = "demo";
  return mcs;
}

Result<void> Demo::prepare() {
  for (const char* program : {"nginx", "apache2", "wrk"}) {
    if (find_program(program).empty()) {
      return fail("{} is not installed: apt-get install {}", program, program);
    }
  }
  for (const char* module : {"ngx_mcs_module.so", "mod_mcs_apache.so"}) {
    if (module_file(module).empty()) {
      return fail("the module {} is not built: cmake --build build/release", module);
    }
  }
  if (geteuid() != 0) {
    return fail(
        "the demo must run as root: it kills the servers' workers and reads which "
        "connections they hold");
  }
  say("files:   being copied and generated");
  auto site = DemoSite::make(options_.load, options_.seed);
  if (!site) {
    return tl::unexpected(site.error());
  }
  site_ = std::move(*site);
  say(fmt::format(
      "files:   {} of the Apache manual, {} of SPECweb99 (load {}, {} directories), "
      "{:.0f} MB together",
      site_->manual_files(), site_->specweb().size(), options_.load, site_->specweb().directories(),
      static_cast<double>(site_->files().total_bytes()) / 1e6));

  NginxOptions nginx;
  auto domain = Domain::up({name_, 2, kMemoryPerNode, nginx.user});
  if (!domain) {
    return tl::unexpected(domain.error());
  }
  domain_.emplace(std::move(*domain));
  say(fmt::format("domain:  {}, 2 nodes of {}", name_, kMemoryPerNode));
  return start_servers();
}

Result<void> Demo::start_servers() {
  NginxOptions nginx;
  nginx.document_root = site_->root();
  nginx.workers = std::max(2, options_.at_once * 3 / 4);
  nginx.mcs = mcs_options(0);
  nginx_ = std::make_unique<NginxServer>(nginx);

  HttpdOptions httpd;
  httpd.document_root = site_->root();
  httpd.mpm = "event";
  httpd.workers = std::max(4, options_.at_once / 4 + 4);
  // More threads in each child than there are clients: the event MPM closes idle connections when
  // all threads of a child are busy, which a client could not tell from a fault.
  httpd.threads_per_child = std::max(64, 2 * options_.connections + 16);
  httpd.mcs = mcs_options(1);
  httpd_ = std::make_unique<HttpdServer>(httpd);

  for (WebServer* server :
       {static_cast<WebServer*>(nginx_.get()), static_cast<WebServer*>(httpd_.get())}) {
    if (auto started = server->start(); !started) {
      return started;
    }
    run.servers.emplace_back(server->name());
    say(fmt::format("{:<8} {} (pid {}, {} workers, node {})", fmt::format("{}:", server->name()),
                    server->url("/manual/"), server->master_pid(), server->worker_pids().size(),
                    run.servers.size() - 1));
  }
  return {};
}

Result<void> Demo::start_wrk() {
  for (const WebServer* server :
       {static_cast<const WebServer*>(nginx_.get()), static_cast<const WebServer*>(httpd_.get())}) {
    WrkOptions wrk;
    wrk.url = server->url();
    wrk.connections = options_.connections;
    wrk.seconds = options_.seconds;
    wrk.script = "specweb99.lua";
    wrk.arguments = {fmt::format("load={}", options_.load), "prefix=/specweb/",
                     fmt::format("seed={}", options_.seed)};
    auto started = WrkRun::start(wrk);
    if (!started) {
      return tl::unexpected(started.error());
    }
    wrk_.push_back(std::move(*started));
  }
  return {};
}

Result<void> Demo::load() {
  killer_ = std::make_unique<WorkerKiller>(
      std::vector<KillTarget>{{"nginx", [this] { return nginx_->worker_pids(); }},
                              {"httpd", [this] { return httpd_->worker_pids(); }}},
      options_.seed);
  LoadOptions load;
  for (const WebServer* server :
       {static_cast<const WebServer*>(nginx_.get()), static_cast<const WebServer*>(httpd_.get())}) {
    load.targets.push_back(
        {std::string(server->name()), "127.0.0.1", server->port(), "localhost", ""});
  }
  load.files = &site_->files();
  load.stream = &site_->stream();
  load.connections = options_.connections;
  load.seed = options_.seed;
  load.etag = EtagScope::kAllTargets;

  LiveCounters live;
  std::atomic<bool> stop{false};
  std::exception_ptr failure;
  std::thread client([&] {
    try {
      run.client = run_load(load, stop, live);
    } catch (...) {
      failure = std::current_exception();
    }
  });
  auto wrk_started = start_wrk();
  if (wrk_started) {
    killer_->start(milliseconds(options_.kill_interval_ms), static_cast<size_t>(options_.at_once));
    const auto begin = std::chrono::steady_clock::now();
    const auto end = begin + std::chrono::seconds(options_.seconds);
    for (auto next = begin; !interrupted_;) {
      const auto now = std::chrono::steady_clock::now();
      const bool last = now >= end;
      if (now >= next || last) {
        show_progress(std::chrono::duration<double>(now - begin).count(), live, last);
        gather_events();
        next += std::chrono::seconds(1);
      }
      if (last) {
        break;
      }
      std::this_thread::sleep_for(milliseconds(20));
    }
    killer_->stop();
  }
  stop = true;
  client.join();
  run.interrupted = interrupted_;
  run.kills = killer_->records();
  run.missed_kills = killer_->missed();
  run.last_missed = killer_->last_error();
  if (!wrk_started) {
    return wrk_started;
  }
  if (failure) {
    std::rethrow_exception(failure);
  }
  for (const FailureRecord& record : run.client.failures) {
    run.failed_paths.push_back(site_->files()[record.file].url_path);
  }
  for (size_t i = 0; i < wrk_.size(); ++i) {
    wrk_[i]->interrupt();
    const auto result = wrk_[i]->finish();
    if (!result) {
      return tl::unexpected(result.error());
    }
    run.wrk.push_back({run.servers[i], *result});
  }
  return {};
}

void Demo::show_progress(double elapsed, const LiveCounters& live, bool last) {
  constexpr int kSecondsBetweenLines = 5;
  const auto second = static_cast<int>(elapsed);
  if (!terminal_ && !last && second % kSecondsBetweenLines != 0) {
    return;
  }
  const uint64_t requests = live.requests;
  const std::string line = fmt::format(
      "{:>3}/{} s  {} checked requests ({:.0f}/s), {:.1f} % hits, {} kills, {} recoveries, "
      "{} failed, {} wrong bodies",
      second, options_.seconds, requests,
      elapsed > .5 ? static_cast<double>(requests) / elapsed : 0.0,
      requests > 0 ? 100.0 * static_cast<double>(live.hits) / static_cast<double>(requests) : 0.0,
      killer_->kills(), run.events.size(), live.failed.load(), live.wrong_bodies.load());
  if (terminal_ && !last) {
    std::fputs(("\r\033[K" + line).c_str(), stdout);
    std::fflush(stdout);
  } else {
    say((terminal_ ? "\r\033[K" : "") + line);
  }
}

// The log of events is bounded, so it is read while the demo runs.
void Demo::gather_events() {
  const auto events = domain_->events();
  if (!events || !events->is_array()) {
    return;
  }
  for (const auto& event : *events) {
    if (event.value("kind", "") == "instance-recovered" &&
        seen_events_.insert(event.dump()).second) {
      run.events.push_back(event);
    }
  }
}

size_t Demo::recovered_kills() const {
  std::set<pid_t> recovered;
  for (const auto& event : run.events) {
    recovered.insert(event.value("pid", pid_t{0}));
  }
  return static_cast<size_t>(
      std::count_if(run.kills.begin(), run.kills.end(),
                    [&](const KillRecord& kill) { return recovered.count(kill.pid) != 0; }));
}

// What the domain says once all is quiet, with both servers still up.
void Demo::collect() {
  wait_until(
      [&] {
        gather_events();
        return recovered_kills() == run.kills.size();
      },
      kRecoveryTimeout);
  const auto status = domain_->status();
  run.status = status ? *status : nlohmann::json{{"error", status.error().message}};
  const auto verify = domain_->verify();
  run.verify =
      verify ? *verify : nlohmann::json{{"ok", false}, {"problems", {verify.error().message}}};
}

Result<void> Demo::hand_over() {
  const fs::path script = site_->root() / "stop.sh";
  std::string text = "#!/bin/sh\n# Stops the demo's servers and removes its memory and files.\n";
  text += fmt::format("kill {} {}\n", nginx_->master_pid(), httpd_->master_pid());
  text +=
      fmt::format("while kill -0 {} 2>/dev/null || kill -0 {} 2>/dev/null; do sleep 0.1; done\n",
                  nginx_->master_pid(), httpd_->master_pid());
  text += fmt::format("{} down {}\n", tool_file("gsm-emu").string(), name_);
  text += fmt::format("rm -rf {} {} {}\n", nginx_->prefix().string(), httpd_->prefix().string(),
                      site_->root().string());
  if (auto written = write_file(script, text); !written) {
    return written;
  }
  const std::string mcsctl = tool_file("mcsctl").string();
  say(
      fmt::format("\nBoth servers stay up. Try:\n"
                  "  curl -sI {0} | grep -i x-mcs-status      # filled by one server …\n"
                  "  curl -sI {1} | grep -i x-mcs-status      # … a hit in the other\n"
                  "  {2} status {3}\n"
                  "  {2} verify {3}\n"
                  "  kill -9 $(pgrep -P {4}) ; curl -sI {0}   # all nginx workers at once\n"
                  "Stop and remove everything:\n"
                  "  sh {5}\n",
                  nginx_->url("/manual/en/index.html"), httpd_->url("/manual/en/index.html"),
                  mcsctl, name_, nginx_->master_pid(), script.string()));
  nginx_->release();
  httpd_->release();
  domain_->keep();
  site_->keep();
  return {};
}

void Demo::take_down() {
  wrk_.clear();
  const bool was_up = domain_.has_value();
  for (WebServer* server :
       {static_cast<WebServer*>(nginx_.get()), static_cast<WebServer*>(httpd_.get())}) {
    if (server != nullptr) {
      if (const auto stopped = server->stop(); !stopped) {
        say("warning: " + stopped.error().message);
      }
    }
  }
  nginx_.reset();
  httpd_.reset();
  if (domain_) {
    if (const auto down = domain_->down(); !down) {
      say("warning: " + down.error().message);
    }
    domain_.reset();
  }
  site_.reset();
  if (was_up) {
    wait_until([&] { return left_behind().empty(); }, kGoneTimeout);
    run.left_behind = left_behind();
  }
}

std::vector<std::string> Demo::left_behind() const {
  std::vector<std::string> found;
  std::error_code error;
  for (fs::directory_iterator it("/dev/shm", error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().filename().string().find(name_) != std::string::npos) {
      found.push_back(it->path().string());
    }
  }
  for (const ProcStat& process : all_processes()) {
    const std::string line = command_line(process.pid);
    if (line.find(name_) != std::string::npos) {
      found.push_back(fmt::format("process {} ({})", process.pid, line));
    }
  }
  return found;
}

}  // namespace

Result<DemoRun> run_demo(const DemoOptions& options, const std::atomic<bool>& interrupted) {
  Demo demo(options, interrupted);
  auto done = demo.prepare();
  if (done) {
    done = demo.load();
  }
  if (done) {
    demo.collect();
  }
  if (done && options.keep && !interrupted) {
    done = demo.hand_over();
  } else {
    demo.take_down();
  }
  if (!done) {
    return tl::unexpected(done.error());
  }
  return std::move(demo.run);
}

}  // namespace mcs::loadtest
