// SPDX-License-Identifier: Apache-2.0
#include "loadtest/proxied/herd.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <random>
#include <thread>

#include "loadtest/harness/proc_info.h"
#include "loadtest/killer/held_connections.h"
#include "loadtest/proxied/clients.h"

namespace mcs::loadtest {

namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr const char* kPath = "/herd";
constexpr milliseconds kShort{10'000};

std::string make_body(size_t size) {
  std::mt19937_64 random(size);
  std::string body(size, '\0');
  for (char& byte : body) byte = static_cast<char>(random());
  return body;
}

// The process that asked the origin over the connection with this port.
pid_t find_filler(const ProxiedPair& pair, int origin_port, uint16_t connection, int& server) {
  const HeldConnection wanted{connection, static_cast<uint16_t>(origin_port)};
  for (server = 0; server < 2; ++server) {
    for (const pid_t pid : pair.servers()[static_cast<size_t>(server)]->worker_pids()) {
      const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
      const auto held = held_connections(pid, pidfd);
      close(pidfd);
      if (held && std::find(held->begin(), held->end(), wanted) != held->end()) return pid;
    }
  }
  return 0;
}

class Herd {
 public:
  Herd(const HerdOptions& options, ProxiedPair& pair)
      : options_(options),
        pair_(pair),
        body_(make_body(options.body_bytes)),
        clients_(kPath, body_) {}

  Result<HerdReport> run();

 private:
  bool by_the_clock() const { return options_.duration.count() > 0; }
  void send(OriginExchange& exchange);
  // Before this piece of the body is sent. False: it will not be sent.
  bool prepare(OriginExchange& exchange, size_t piece, uint64_t begin_ns);
  Result<void> kill_filler(uint16_t connection);
  Result<void> gather();
  HerdReport report();

  const HerdOptions options_;
  ProxiedPair& pair_;
  const std::string body_;
  HerdClients clients_;
  Gate all_asked_;
  Gate all_began_;
  std::atomic<uint64_t> origin_first_ns_{0};
  std::atomic<uint64_t> origin_last_ns_{0};
  std::atomic<bool> killing_{false};
  // Written by the script of the first request, read when all clients have ended.
  std::atomic<bool> killed_{false};
  pid_t victim_ = 0;
  int victim_server_ = 0;
  std::vector<HeldConnection> held_;
  std::string kill_error_;
};

void Herd::send(OriginExchange& exchange) {
  if (!by_the_clock() && !exchange.wait(all_asked_)) return;
  const OriginAnswer answer{200, {"Cache-Control: max-age=600", "ETag: \"herd\""}, body_};
  const uint64_t begin_ns = monotonic_ns();
  uint64_t never = 0;
  origin_first_ns_.compare_exchange_strong(never, begin_ns);
  exchange.send_head(answer);
  for (size_t piece = 0; piece < options_.pieces; ++piece) {
    if (!prepare(exchange, piece, begin_ns)) return;
    const size_t from = body_.size() * piece / options_.pieces;
    const size_t to = body_.size() * (piece + 1) / options_.pieces;
    exchange.send_body(std::string_view(body_).substr(from, to - from));
  }
  origin_last_ns_ = monotonic_ns();
}

bool Herd::prepare(OriginExchange& exchange, size_t piece, uint64_t begin_ns) {
  if (by_the_clock()) {
    const uint64_t due = begin_ns + static_cast<uint64_t>(nanoseconds(options_.duration).count()) *
                                        piece / std::max<size_t>(1, options_.pieces - 1);
    const uint64_t now = monotonic_ns();
    if (due > now) std::this_thread::sleep_for(nanoseconds(due - now));
  } else if (piece == options_.pieces / 2 && !exchange.wait(all_began_)) {
    return false;
  }
  if (!options_.kill_filler || piece != options_.pieces / 2 || killing_.exchange(true)) return true;
  if (const auto done = kill_filler(exchange.client_port()); !done) {
    kill_error_ = done.error().message;
  }
  killed_ = true;
  return false;
}

Result<void> Herd::kill_filler(uint16_t connection) {
  const pid_t pid = find_filler(pair_, pair_.origin().port(), connection, victim_server_);
  if (pid == 0) return fail("no process of the servers holds the connection to the origin");
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  kill(pid, SIGSTOP);
  wait_until([&] { return all_threads_stopped(pid); }, kShort);
  auto held = held_connections(pid, pidfd);
  kill(pid, SIGKILL);
  close(pidfd);
  if (!held) return tl::unexpected(held.error());
  victim_ = pid;
  held_ = std::move(*held);
  return {};
}

// All are connected before the first asks, and one of the chosen filler's asks first.
Result<void> Herd::gather() {
  for (size_t i = 0; i < options_.clients; ++i) {
    const int server = static_cast<int>(i + static_cast<size_t>(options_.filler)) % 2;
    const int port = pair_.servers()[static_cast<size_t>(server)]->port();
    if (auto connected = clients_.connect(server, port); !connected) return connected;
  }
  clients_.ask(0);
  if (!pair_.origin().wait_for_requests(kPath, 1, kShort)) {
    return fail("the first client's request did not reach the origin");
  }
  for (size_t i = 1; i < options_.clients; ++i) clients_.ask(i);
  all_asked_.open();
  return {};
}

Result<HerdReport> Herd::run() {
  pair_.origin().on(kPath, [this](OriginExchange& exchange) { send(exchange); });
  if (auto gathered = gather(); !gathered) return tl::unexpected(gathered.error());
  bool opened = false;
  clients_.run(options_.timeout, [&] {
    if (!opened && clients_.began() == options_.clients) {
      all_began_.open();
      opened = true;
    }
    return clients_.ended() == options_.clients;
  });
  if (options_.kill_filler && (!killed_ || !kill_error_.empty())) {
    return fail("the filler was not killed: {}",
                killed_ ? kill_error_ : "the origin did not come to the half of its body");
  }
  HerdReport result = report();
  result.trouble = pair_.stop();
  return result;
}

HerdReport Herd::report() {
  HerdReport report;
  report.origin_requests = pair_.origin().count(kPath);
  report.victim = victim_;
  const uint64_t origin_last = origin_last_ns_;
  for (const HerdClient& client : clients_.clients()) {
    if (client.first_ns != 0 && client.first_ns < origin_last) ++report.began_early;
    if (client.last_ns != 0 && client.failed_ns == 0) {
      ++report.good;
      const uint64_t from = std::max<uint64_t>(origin_first_ns_, client.asked_ns);
      report.first_ms.push_back(static_cast<double>(client.first_ns - from) / 1e6);
      // The last byte may come before the origin's thread has noted that it was sent.
      report.last_ms.push_back(
          (static_cast<double>(client.last_ns) - static_cast<double>(origin_last)) / 1e6);
      continue;
    }
    const bool held = std::any_of(held_.begin(), held_.end(), [&](const HeldConnection& c) {
      return c.remote_port == client.port && client.server == victim_server_;
    });
    const bool wrong = client.failure.starts_with("WRONG");
    ++(held && !wrong ? report.died_with_victim : report.failed);
    if ((held && !wrong) || report.failures.size() >= 10) continue;
    report.failures.push_back(
        fmt::format("{}: {}", pair_.servers()[static_cast<size_t>(client.server)]->name(),
                    client.ended() ? client.failure
                                   : fmt::format("has only {} bytes at the end", client.received)));
  }
  return report;
}

}  // namespace

Result<HerdReport> run_herd(const HerdOptions& options) {
  ProxiedPairOptions pair_options;
  // Each of httpd's clients waits in a thread, and half of a child's may wait; all of them may meet
  // in one child.
  pair_options.httpd_threads =
      options.httpd_threads > 0 ? options.httpd_threads : static_cast<int>(options.clients) + 16;
  pair_options.rules = options.rules;
  // Nobody gives up while the origin waits for something that has no time limit.
  if (options.duration.count() == 0) {
    pair_options.rules.insert(pair_options.rules.end(),
                              {{"cache_lock_timeout", "60s"}, {"cache_lock_age", "60s"}});
  }
  auto pair = ProxiedPair::start(pair_options);
  if (!pair) return tl::unexpected(pair.error());
  return Herd(options, **pair).run();
}

double quantile(std::vector<double> values, double fraction) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(fraction * static_cast<double>(values.size() - 1))];
}

nlohmann::json HerdReport::json() const {
  const auto spread = [](const std::vector<double>& values) {
    return nlohmann::json{{"median", quantile(values, 0.5)},
                          {"p99", quantile(values, 0.99)},
                          {"max", quantile(values, 1)}};
  };
  return {{"origin_requests", origin_requests},
          {"good", good},
          {"failed", failed},
          {"died_with_victim", died_with_victim},
          {"began_early", began_early},
          {"failures", failures},
          {"trouble", trouble},
          {"first_byte_after_origin_ms", spread(first_ms)},
          {"last_byte_after_origin_ms", spread(last_ms)}};
}

}  // namespace mcs::loadtest
