// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "loadtest/harness/http_client.h"
#include "loadtest/harness/server.h"

namespace mcs::loadtest {

// A server a test may run against: nginx, or httpd with one of its MPMs.
struct ServerType {
  std::string name;
  ServerKind kind;
  std::string mpm;  // httpd only
};
std::ostream& operator<<(std::ostream& out, const ServerType& type);

inline const ServerType kNginxType = {"nginx", ServerKind::kNginx, ""};
inline const ServerType kEventType = {"httpd_event", ServerKind::kHttpd, "event"};
inline const ServerType kWorkerType = {"httpd_worker", ServerKind::kHttpd, "worker"};
inline const ServerType kPreforkType = {"httpd_prefork", ServerKind::kHttpd, "prefork"};

// mtimes of files that are old enough to be trusted at once.
inline constexpr time_t kOld = 1'700'000'000;

// A document root and a directory for domains, both gone at the end, and servers over them. At the
// end all servers are stopped, and their logs must not tell of a crash.
class ServersTest : public testing::Test {
 protected:
  ServersTest();
  void TearDown() override;

  // Document root, domain "test" of 64 MiB, key base "site", entries valid for 600 s, two workers.
  ServerOptions default_options() const;
  // Not started.
  WebServer& add(const ServerType& type, const ServerOptions& options);
  WebServer& start(const ServerType& type, const ServerOptions& options);
  WebServer& start(const ServerType& type) { return start(type, default_options()); }
  static void start(WebServer& server);

  // A file below the document root, or an absolute one, that has not changed for as long as the
  // cache wants to see it unchanged: a link to one that is kept for all tests of this program.
  void write(const std::filesystem::path& file, const std::string& text, time_t mtime = kOld) const;
  // Returns when files written so far are old enough; requests made through this class wait for it.
  static void settle();
  // Writes a file of the test's own, in place if it has been written so before. It is young.
  std::filesystem::path change(const std::filesystem::path& file, const std::string& text,
                               time_t mtime) const;
  // The same, so that the file changes in one instant.
  void replace(const std::filesystem::path& file, const std::string& text, time_t mtime) const;

  HttpResponse get(const WebServer& server, const std::string& path,
                   std::vector<std::string> headers = {});
  HttpResponse send(const HttpRequest& request);
  // Two GETs, of which the second must be a HIT with the same body.
  HttpResponse get_hit(const WebServer& server, const std::string& path,
                       std::vector<std::string> headers = {});
  // GETs until `done`; the answer that was, or a failure after 20 s.
  HttpResponse get_until(const WebServer& server, const std::string& path,
                         const std::function<bool(const HttpResponse&)>& done);

  const std::filesystem::path& root() const { return root_.path(); }
  const std::filesystem::path& domain_directory() const { return domain_directory_.path(); }

  HttpClient client_;
  std::string expected_trouble_;  // part of log lines that this test provokes

 private:
  TempDir root_;
  TempDir domain_directory_;
  std::vector<std::unique_ptr<WebServer>> servers_;
};

void set_mtime(const std::filesystem::path& file, time_t mtime);
// Bytes of all values, the same for the same seed.
std::string bytes_of_size(size_t size, unsigned seed = 1);

// Tests of one server.
class ServerTest : public ServersTest, public testing::WithParamInterface<ServerType> {};
// Tests of two servers on one domain.
class PairTest : public ServersTest,
                 public testing::WithParamInterface<std::pair<ServerType, ServerType>> {
 protected:
  const ServerType& first() const { return GetParam().first; }
  const ServerType& second() const { return GetParam().second; }
};

// INSTANTIATE_TEST_SUITE_P with these.
inline auto every_server() {
  return testing::Values(kNginxType, kEventType, kWorkerType, kPreforkType);
}
inline auto every_pair() {
  return testing::Values(std::pair(kNginxType, kEventType), std::pair(kEventType, kNginxType),
                         std::pair(kPreforkType, kWorkerType));
}
std::string server_name(const testing::TestParamInfo<ServerType>& info);
std::string pair_name(const testing::TestParamInfo<std::pair<ServerType, ServerType>>& info);

}  // namespace mcs::loadtest
