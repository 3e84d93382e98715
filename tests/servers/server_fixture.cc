// SPDX-License-Identifier: Apache-2.0
#include "tests/servers/server_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <map>
#include <ostream>
#include <random>
#include <sstream>
#include <stdexcept>
#include <tuple>

#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/nginx_server.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

std::ostream& operator<<(std::ostream& out, const ServerType& type) { return out << type.name; }

ServersTest::ServersTest() : root_("mcs-www"), domain_directory_("/dev/shm", "mcs-test") {}

void ServersTest::TearDown() {
  for (const auto& server : servers_) {
    if (server->running()) {
      const auto stopped = server->stop();
      EXPECT_TRUE(stopped) << stopped.error().message;
    }
    std::istringstream log(server->error_log());
    for (std::string line; std::getline(log, line);) {
      // A test that kills workers says so itself; SIGKILL is nobody's bug.
      const bool expected =
          line.find("signal 9") != std::string::npos ||
          line.find("Killed (9)") != std::string::npos ||
          (!expected_trouble_.empty() && line.find(expected_trouble_) != std::string::npos);
      for (const char* trouble : {"[alert]", "exit signal", "core dumped", "Sanitizer"}) {
        EXPECT_TRUE(expected || line.find(trouble) == std::string::npos)
            << server->name() << ": " << line;
      }
    }
  }
}

ServerOptions ServersTest::default_options() const {
  ServerOptions options;
  options.document_root = root();
  options.mcs.emplace();
  options.mcs->domain = "test";
  options.mcs->size = "64m";
  options.mcs->valid = "600s";
  options.mcs->domain_arguments = "dir=" + domain_directory().string();
  return options;
}

WebServer& ServersTest::add(const ServerType& type, const ServerOptions& options) {
  if (type.kind == ServerKind::kNginx) {
    servers_.push_back(std::make_unique<NginxServer>(NginxOptions{options, 1024, ""}));
  } else {
    HttpdOptions httpd;
    static_cast<ServerOptions&>(httpd) = options;
    httpd.mpm = type.mpm;
    if (type.mpm == "prefork") httpd.workers *= 4;  // each holds one idle connection only
    servers_.push_back(std::make_unique<HttpdServer>(httpd));
  }
  return *servers_.back();
}

WebServer& ServersTest::start(const ServerType& type, const ServerOptions& options) {
  WebServer& server = add(type, options);
  start(server);
  return server;
}

void ServersTest::start(WebServer& server) {
  settle();
  const auto started = server.start();
  if (!started) throw std::runtime_error(started.error().message);  // ends the test
}

void set_mtime(const fs::path& file, time_t mtime) {
  const timespec times[2] = {{mtime, 0}, {mtime, 0}};
  EXPECT_EQ(utimensat(AT_FDCWD, file.c_str(), times, 0), 0) << file;
}

namespace {

// The cache trusts a file only if its last change is older than this.
constexpr int64_t kYoungMs = 2000;

int64_t to_ms(const timespec& time) {
  return int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000;
}

// Files that tests link to, so that not every test has to wait for its files to grow old.
struct Corpus {
  TempDir directory{"mcs-files"};
  std::map<std::tuple<size_t, size_t, time_t>, fs::path> files;
  int64_t changed_ms = 0;  // the youngest
};

Corpus& corpus() {
  static Corpus instance;
  return instance;
}

}  // namespace

void ServersTest::write(const fs::path& file, const std::string& text, time_t mtime) const {
  fs::path& stored = corpus().files[{text.size(), std::hash<std::string>()(text), mtime}];
  if (stored.empty()) {
    stored = corpus().directory.path() / std::to_string(corpus().files.size());
    const auto written = write_file(stored, text);
    EXPECT_TRUE(written) << written.error().message;
    set_mtime(stored, mtime);
    struct stat info = {};
    EXPECT_EQ(stat(stored.c_str(), &info), 0);
    corpus().changed_ms = to_ms(info.st_ctim);
  }
  const fs::path path = root() / file;
  fs::create_directories(path.parent_path());
  fs::remove(path);
  fs::create_symlink(stored, path);
}

void ServersTest::settle() {
  const auto is_old = [] {
    timespec now = {};
    clock_gettime(CLOCK_REALTIME_COARSE, &now);  // the cache looks at this one
    return to_ms(now) > corpus().changed_ms + kYoungMs;
  };
  EXPECT_TRUE(is_old() || wait_until(is_old, milliseconds(kYoungMs * 5)));
}

fs::path ServersTest::change(const fs::path& file, const std::string& text, time_t mtime) const {
  const fs::path path = root() / file;
  if (fs::is_symlink(path)) fs::remove(path);
  const auto written = write_file(path, text);
  EXPECT_TRUE(written) << written.error().message;
  set_mtime(path, mtime);
  return path;
}

void ServersTest::replace(const fs::path& file, const std::string& text, time_t mtime) const {
  fs::rename(change(file.string() + ".new", text, mtime), root() / file);
}

HttpResponse ServersTest::send(const HttpRequest& request) {
  settle();
  auto response = client_.send(request);
  EXPECT_TRUE(response) << request.url << ": " << response.error().message;
  return response.value_or(HttpResponse());
}

HttpResponse ServersTest::get(const WebServer& server, const std::string& path,
                              std::vector<std::string> headers) {
  HttpRequest request;
  request.url = server.url(path);
  request.headers = std::move(headers);
  return send(request);
}

HttpResponse ServersTest::get_hit(const WebServer& server, const std::string& path,
                                  std::vector<std::string> headers) {
  const HttpResponse first = get(server, path, headers);
  HttpResponse second = get(server, path, headers);
  EXPECT_EQ(second.cache_status(), "HIT") << server.name() << path;
  EXPECT_TRUE(first.body == second.body) << server.name() << path;
  return second;
}

HttpResponse ServersTest::get_until(const WebServer& server, const std::string& path,
                                    const std::function<bool(const HttpResponse&)>& done) {
  HttpResponse response;
  const bool seen = wait_until(
      [&] {
        response = get(server, path);
        return done(response);
      },
      milliseconds(20'000));
  EXPECT_TRUE(seen) << server.name() << path << " still answers " << response.status << " "
                    << response.cache_status();
  return response;
}

std::string bytes_of_size(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) {
    byte = static_cast<char>(random());
  }
  return bytes;
}

std::string server_name(const testing::TestParamInfo<ServerType>& info) { return info.param.name; }

std::string pair_name(const testing::TestParamInfo<std::pair<ServerType, ServerType>>& info) {
  return info.param.first.name + "_then_" + info.param.second.name;
}

}  // namespace mcs::loadtest
