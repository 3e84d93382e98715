// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "loadtest/harness/http_client.h"
#include "loadtest/harness/nginx_server.h"

namespace mcs::loadtest {

// One nginx with the module, one worker, a document root and a domain of its own. Files are old
// enough to be cached at once. At the end the error log must tell of no crash and no leak.
class NginxTest : public testing::Test {
 protected:
  NginxTest();
  void TearDown() override;

  NginxOptions& options() { return server_.options(); }
  // `mcs_cache_key_base` and the rest as given, instead of the harness's own lines.
  void set_location_lines(const std::string& lines);
  void start();

  // Writes a file below the document root (or an absolute one) and makes it look old.
  std::filesystem::path write(const std::filesystem::path& file, const std::string& text);
  static std::string text_of_size(size_t size, unsigned seed = 1);

  HttpResponse get(const std::string& path, std::vector<std::string> headers = {});
  HttpResponse send(HttpRequest request);
  // GET until the answer comes from the cache; then that answer.
  HttpResponse get_hit(const std::string& path, std::vector<std::string> headers = {});

  const std::filesystem::path& root() const { return root_.path(); }
  const std::filesystem::path& domain_directory() const { return domain_directory_.path(); }

  TempDir root_;
  TempDir domain_directory_;
  NginxServer server_;
  HttpClient client_;
  std::string expected_alert_;  // part of lines in the error log that this test provokes
};

// Substrings of `nginx -t`'s output that a test expects.
inline auto output_has(const std::string& text) {
  return testing::Field(&ProcessResult::err, testing::HasSubstr(text));
}

}  // namespace mcs::loadtest
