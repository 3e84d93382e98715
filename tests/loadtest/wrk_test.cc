// SPDX-License-Identifier: Apache-2.0
// wrk's request streams ask for the same files with the same popularity as the checking client.
#include "loadtest/wrk/wrk.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "loadtest/specweb/specweb.h"
#include "tests/loadtest/tiny_server.h"

namespace mcs::loadtest {
namespace {

std::map<std::string, double> shares(const std::vector<std::string>& paths) {
  std::map<std::string, double> counts;
  for (const std::string& path : paths) {
    counts[path] += 1.0 / static_cast<double>(paths.size());
  }
  return counts;
}

// Five standard deviations of a share that was measured with `draws` draws.
double tolerance(double share, size_t draws) {
  return 5 * std::sqrt(share * (1 - share) / static_cast<double>(draws));
}

TEST(Wrk, ReportsWhatItDid) {
  const TinyServer server([](const std::string&) { return TinyAnswer{ok_response("hello")}; });
  WrkOptions options;
  options.url = fmt::format("http://127.0.0.1:{}/some/path", server.port());
  options.seconds = 1;
  options.connections = 2;
  const auto result = run_wrk(options);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_GT(result->requests, 0u);
  EXPECT_EQ(result->errors(), 0u);
  EXPECT_GT(result->rps(), 0);
  EXPECT_GT(result->p99_us, 0);
  EXPECT_EQ(server.paths().front(), "/some/path");
}

TEST(Wrk, CountsErrors) {
  const TinyServer server([](const std::string& path) {
    return path == "/bad" ? TinyAnswer{"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n"}
                          : TinyAnswer{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
                                       TinyAnswer::kClose};
  });
  WrkOptions options;
  options.seconds = 1;
  options.connections = 1;
  options.url = fmt::format("http://127.0.0.1:{}/bad", server.port());
  auto result = run_wrk(options);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->bad_status, result->requests);
  options.url = fmt::format("http://127.0.0.1:{}/short", server.port());
  result = run_wrk(options);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_GT(result->read_errors, 0u);
}

TEST(Wrk, CanBeEndedEarly) {
  const TinyServer server([](const std::string&) { return TinyAnswer{ok_response("hello")}; });
  WrkOptions options;
  options.url = fmt::format("http://127.0.0.1:{}/", server.port());
  options.seconds = 1000;
  auto run = WrkRun::start(options);
  ASSERT_TRUE(run) << run.error().message;
  ASSERT_TRUE(
      wait_until([&] { return server.paths().size() > 100; }, std::chrono::milliseconds(60'000)));
  (*run)->interrupt();
  const auto result = (*run)->finish();
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_LT(result->seconds, 900);
}

TEST(Wrk, SpecwebScriptFollowsTheDefinition) {
  const TinyServer server([](const std::string&) { return TinyAnswer{ok_response("")}; });
  WrkOptions options;
  options.url = fmt::format("http://127.0.0.1:{}/", server.port());
  options.seconds = 3;
  options.script = "specweb99.lua";
  options.arguments = {"load=20", "prefix=/s/", "seed=7"};
  const auto result = run_wrk(options);
  ASSERT_TRUE(result) << result.error().message;
  const auto paths = server.paths();
  ASSERT_GT(paths.size(), 500u);

  // The same share per directory and class and per file as the C++ sampler has by definition.
  const int directories = SpecwebSet::directories_for(20);
  double directory_sum = 0;
  for (int d = 1; d <= directories; ++d) {
    directory_sum += 1.0 / d;
  }
  double rank_sum = 0;
  for (int r = 1; r <= 9; ++r) {
    rank_sum += 1.0 / r;
  }
  std::map<std::string, double> expected;
  for (int d = 0; d < directories; ++d) {
    for (int c = 0; c < SpecwebSet::kClasses; ++c) {
      for (int r = 0; r < SpecwebSet::kFilesPerClass; ++r) {
        expected["/s/" + SpecwebSet::file_path(d, c, SpecwebSet::kFileOrder[r])] =
            1.0 / (d + 1) / directory_sum * SpecwebSet::kClassProbability[c] / (r + 1) / rank_sum;
      }
    }
  }
  const auto measured = shares(paths);
  for (const auto& entry : measured) {
    ASSERT_TRUE(expected.count(entry.first)) << entry.first;
  }
  for (const auto& [path, share] : expected) {
    if (share * static_cast<double>(paths.size()) > 20) {
      const auto it = measured.find(path);
      EXPECT_NEAR(it == measured.end() ? 0 : it->second, share, tolerance(share, paths.size()))
          << path;
    }
  }
}

TEST(Wrk, ZipfScriptFollowsItsExponent) {
  const TempDir directory;
  std::string list;
  for (int i = 0; i < 100; ++i) {
    list += fmt::format("/page{}\n", i);
  }
  ASSERT_TRUE(write_file(directory.path() / "paths.txt", list));
  const TinyServer server([](const std::string&) { return TinyAnswer{ok_response("")}; });
  WrkOptions options;
  options.url = fmt::format("http://127.0.0.1:{}/", server.port());
  options.seconds = 3;
  options.script = "zipf.lua";
  options.arguments = {"paths=" + (directory.path() / "paths.txt").string(), "alpha=0.8",
                       "order=given"};
  const auto result = run_wrk(options);
  ASSERT_TRUE(result) << result.error().message;
  const auto paths = server.paths();
  ASSERT_GT(paths.size(), 500u);
  const auto weights = zipf_weights(100, .8);
  double sum = 0;
  for (const double weight : weights) {
    sum += weight;
  }
  const auto measured = shares(paths);
  for (size_t i = 0; i < 10; ++i) {
    const double share = weights[i] / sum;
    EXPECT_NEAR(measured.at(fmt::format("/page{}", i)), share, tolerance(share, paths.size()));
  }
}

TEST(Wrk, ScriptsRefuseUnknownArguments) {
  const TinyServer server([](const std::string&) { return TinyAnswer{ok_response("")}; });
  WrkOptions options;
  options.url = fmt::format("http://127.0.0.1:{}/", server.port());
  options.seconds = 1;
  options.script = "specweb99.lua";
  options.arguments = {"laod=20"};
  const auto result = run_wrk(options);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("laod"), std::string::npos) << result.error().message;
}

}  // namespace
}  // namespace mcs::loadtest
