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

// One nginx with the module, one worker and a domain of its own. All tests of a program serve the
// same files, written once, because the cache trusts no file that has just been changed. At the end
// the error log must tell of no crash and no leak.
class NginxTest : public testing::Test {
 protected:
  NginxTest();
  void TearDown() override;
  // For SetUpTestSuite: writes a file below the document root, or an absolute one; then, after the
  // last one, waits until the cache trusts them.
  static std::filesystem::path write(const std::filesystem::path& file, const std::string& text);
  static void wait_until_trusted();
  static const std::filesystem::path& root();
  // A directory beside the document root.
  static const std::filesystem::path& other();
  static std::string text_of_size(size_t size, unsigned seed = 1);

  NginxOptions& options() { return server_.options(); }
  // `mcs_cache` and the rest as given, instead of the harness's own lines.
  void set_location_lines(const std::string& lines);
  void start();

  HttpResponse get(const std::string& path, std::vector<std::string> headers = {});
  HttpResponse send(HttpRequest request);
  // Twice, the second time from the cache; that answer.
  HttpResponse get_hit(const std::string& path, std::vector<std::string> headers = {});

  const std::filesystem::path& domain_directory() const { return domain_directory_.path(); }

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
