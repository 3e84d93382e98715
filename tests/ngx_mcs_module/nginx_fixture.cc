// SPDX-License-Identifier: Apache-2.0
#include "tests/ngx_mcs_module/nginx_fixture.h"

#include <sys/stat.h>

#include <ctime>
#include <random>
#include <sstream>

namespace mcs::loadtest {

namespace fs = std::filesystem;

namespace {

NginxOptions default_options(const fs::path& root, const fs::path& domain_directory) {
  NginxOptions options;
  options.document_root = root;
  options.workers = 1;
  options.mcs.emplace();
  options.mcs->domain = "test";
  options.mcs->size = "64m";
  options.mcs->valid = "600s";
  options.mcs->domain_arguments = "dir=" + domain_directory.string();
  return options;
}

timespec last_change = {};

}  // namespace

NginxTest::NginxTest()
    : domain_directory_("/dev/shm", "mcs-nginx-test"),
      server_(default_options(root(), domain_directory_.path())) {}

const fs::path& NginxTest::root() {
  static const TempDir directory("mcs-www");
  return directory.path();
}

const fs::path& NginxTest::other() {
  static const TempDir directory("mcs-other");
  return directory.path();
}

void NginxTest::TearDown() {
  if (server_.running()) {
    const auto stopped = server_.stop();
    EXPECT_TRUE(stopped) << stopped.error().message;
  }
  // Workers that died of a signal, descriptors and memory left over.
  std::istringstream log(server_.error_log());
  for (std::string line; std::getline(log, line);) {
    const bool expected =
        !expected_alert_.empty() && line.find(expected_alert_) != std::string::npos;
    EXPECT_TRUE(expected || line.find("[alert]") == std::string::npos) << line;
  }
}

void NginxTest::set_location_lines(const std::string& lines) {
  options().mcs->cache = false;
  options().mcs->valid.clear();
  options().mcs->key_base.clear();
  options().location_extra = lines;
}

void NginxTest::start() {
  const auto started = server_.start();
  ASSERT_TRUE(started) << started.error().message;
}

fs::path NginxTest::write(const fs::path& file, const std::string& text) {
  const fs::path path = root() / file;
  const auto written = write_file(path, text);
  EXPECT_TRUE(written) << written.error().message;
  struct stat info = {};
  EXPECT_EQ(stat(path.c_str(), &info), 0);
  last_change = info.st_ctim;
  return path;
}

void NginxTest::wait_until_trusted() {
  constexpr int kTrustedAfter = 2;  // seconds, as docs/ tells
  const auto trusted = [] {
    timespec now = {};
    clock_gettime(CLOCK_REALTIME_COARSE, &now);  // the cache looks at this one
    return now.tv_sec - last_change.tv_sec > kTrustedAfter;
  };
  ASSERT_TRUE(wait_until(trusted, std::chrono::seconds(10)));
}

std::string NginxTest::text_of_size(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string text(size, '\0');
  for (char& letter : text) {
    letter = static_cast<char>(random() % 64 == 0 ? '\n' : 'A' + static_cast<int>(random() % 26));
  }
  return text;
}

HttpResponse NginxTest::send(HttpRequest request) {
  auto response = client_.send(request);
  EXPECT_TRUE(response) << request.url << ": " << response.error().message;
  return response.value_or(HttpResponse());
}

HttpResponse NginxTest::get(const std::string& path, std::vector<std::string> headers) {
  HttpRequest request;
  request.url = path.starts_with("http") ? path : server_.url(path);
  request.headers = std::move(headers);
  return send(request);
}

HttpResponse NginxTest::get_hit(const std::string& path, std::vector<std::string> headers) {
  HttpResponse response = get(path, headers);
  EXPECT_EQ(response.cache_status(), "MISS") << path;
  response = get(path, headers);
  EXPECT_EQ(response.cache_status(), "HIT") << path;
  return response;
}

}  // namespace mcs::loadtest
