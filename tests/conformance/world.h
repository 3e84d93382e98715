// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <ctime>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "loadtest/harness/http_client.h"
#include "loadtest/harness/origin.h"
#include "loadtest/harness/server.h"
#include "loadtest/harness/temp_dir.h"
#include "tests/conformance/case.h"

namespace mcs::conformance {

// What became of a case on one server.
struct Verdict {
  std::vector<std::string> failures;
  // Per step what the client and the origin saw, without what differs from run to run: both servers
  // must have the same.
  std::vector<std::string> transcript;
};

// nginx with proxy_pass and httpd with mod_proxy_http in front of one scripted origin, in one
// domain, started once for all cases. Throws std::runtime_error if a server does not start.
class World {
 public:
  World();
  // What the servers' logs tell of crashes.
  std::vector<std::string> stop();

  // `index` tells the cases apart; "@0" in fields is `now`.
  Verdict run(const Case& c, size_t index, loadtest::ServerKind kind, time_t now);

 private:
  struct Run;
  struct Seen;

  void start(loadtest::ServerKind kind);
  loadtest::WebServer& server(loadtest::ServerKind kind, bool other) const;
  void answer(loadtest::OriginExchange& exchange);
  Seen ask(Run& run, const Step& step);
  void ask_at_once(Run& run, const Step& step, Seen& seen);
  void judge(Run& run, const Step& step, const Seen& seen, std::vector<std::string>& failures);

  loadtest::TempDir root_;
  loadtest::TempDir domain_;
  loadtest::Origin origin_;
  std::unique_ptr<loadtest::WebServer> nginx_;
  std::unique_ptr<loadtest::WebServer> httpd_;
  loadtest::HttpClient client_;

  std::mutex mutex_;
  std::condition_variable changed_;  // a request has reached the origin
  Run* running_ = nullptr;           // guarded by mutex_
};

}  // namespace mcs::conformance
