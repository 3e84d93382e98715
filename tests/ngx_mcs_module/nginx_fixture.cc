// SPDX-License-Identifier: Apache-2.0
#include "tests/ngx_mcs_module/nginx_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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

}  // namespace

NginxTest::NginxTest()
    : root_("mcs-www"),
      domain_directory_("/dev/shm", "mcs-nginx-test"),
      server_(default_options(root_.path(), domain_directory_.path())) {}

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
  const timespec old = {1'700'000'000, 0};
  const timespec times[2] = {old, old};
  EXPECT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  return path;
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
