// SPDX-License-Identifier: Apache-2.0
// nginx and httpd over one cache in front of one origin, and many clients at once.
#include <gtest/gtest.h>

#include <random>

#include "loadtest/harness/http_client.h"
#include "loadtest/proxied/herd.h"
#include "loadtest/proxied/purge_storm.h"

namespace mcs::loadtest {
namespace {

struct HerdCase {
  const char* name;
  size_t body_bytes;
  int filler;
  bool kill_filler;
};
void PrintTo(const HerdCase& herd, std::ostream* out) { *out << herd.name; }

class HerdTest : public testing::TestWithParam<HerdCase> {};
INSTANTIATE_TEST_SUITE_P(Both, HerdTest,
                         testing::Values(HerdCase{"64KFilledByNginx", 64 << 10, 0, false},
                                         HerdCase{"1MFilledByHttpd", 1 << 20, 1, false},
                                         HerdCase{"1MFillingNginxDies", 1 << 20, 0, true},
                                         HerdCase{"64KFillingHttpdDies", 64 << 10, 1, true}),
                         [](const auto& herd) { return herd.param.name; });

TEST_P(HerdTest, OneRequestToTheOriginAndNobodyFails) {
  HerdOptions options;
  options.duration = std::chrono::milliseconds(0);
  options.body_bytes = GetParam().body_bytes;
  options.filler = GetParam().filler;
  options.kill_filler = GetParam().kill_filler;
  const auto report = run_herd(options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->origin_requests, options.kill_filler ? 2u : 1u);
  EXPECT_EQ(report->failed, 0u) << testing::PrintToString(report->failures);
  EXPECT_EQ(report->good + report->died_with_victim, options.clients);
  EXPECT_LT(report->died_with_victim, options.clients / 2 + 1);  // one of four processes
  EXPECT_EQ(report->died_with_victim > 0, options.kill_filler);
  EXPECT_EQ(report->began_early, options.clients);
  EXPECT_TRUE(report->trouble.empty()) << testing::PrintToString(report->trouble);
}

// httpd keeps connections that are idle in places that it does not give to others before
// KeepAliveTimeout, which is longer here than the clients' patience.
TEST(FewThreadsTest, NobodyIsLeftWithoutAnAnswerByFewThreads) {
  HerdOptions options;
  options.duration = std::chrono::milliseconds(300);
  options.httpd_threads = 32;
  const auto report = run_herd(options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->failed, 0u) << testing::PrintToString(report->failures);
  EXPECT_EQ(report->good, options.clients);
  EXPECT_LE(report->origin_requests, 33u);  // half of the threads may pass
  EXPECT_TRUE(report->trouble.empty()) << testing::PrintToString(report->trouble);
}

TEST(StaleWhileRevalidateTest, NobodyWaitsForTheRefreshThatOneStartsForBoth) {
  ProxiedPairOptions options;
  options.rules = {{"cache_lock_age", "60s"}};  // nobody takes the held request for a dead one
  auto pair = ProxiedPair::start(options);
  ASSERT_TRUE(pair) << pair.error().message;
  Origin& origin = (*pair)->origin();
  Gate gate;
  origin.on("/a", [&](OriginExchange& exchange) {
    const size_t number = exchange.request().number;
    if (number == 2) exchange.wait(gate);
    exchange.answer({200,
                     {number == 1 ? "Cache-Control: max-age=0, stale-while-revalidate=600"
                                  : "Cache-Control: max-age=600"},
                     std::to_string(number)});
  });
  const auto [nginx, httpd] = (*pair)->servers();
  HttpClient client;
  const auto get = [&](const WebServer* server) {
    const auto response = client.get(server->url("/a"), {"Host: a"});
    EXPECT_TRUE(response) << response.error().message;
    return response.value_or(HttpResponse());
  };
  EXPECT_EQ(get(nginx).body, "1");
  // Each on one kept connection, also right behind the request that starts the refresh.
  for (int i = 0; i < 20; ++i) {
    for (const WebServer* server : {httpd, nginx}) {
      const HttpResponse response = get(server);
      EXPECT_EQ(response.body, "1") << server->name();
      EXPECT_TRUE(response.cache_status() == "STALE" || response.cache_status() == "UPDATING")
          << response.cache_status();
    }
  }
  EXPECT_TRUE(origin.wait_for_requests("/a", 2));
  gate.open();
  for (const WebServer* server : {httpd, nginx}) {
    EXPECT_TRUE(wait_until([&] { return get(server).body == "2"; }, std::chrono::seconds(20)));
  }
  EXPECT_EQ(origin.count("/a"), 2u);
  EXPECT_EQ((*pair)->stop(), std::vector<std::string>());
}

TEST(PurgeStormTest, NoAnswerIsOlderThanAnAcknowledgedPurge) {
  PurgeStormOptions options;
  options.seconds = 2.5;
  options.seed = std::random_device()();
  SCOPED_TRACE("mcs-proxied purges --seed " + std::to_string(options.seed));
  const auto report = run_purge_storm(options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->well()) << report->json().dump(2);
  EXPECT_GT(report->purges, 50u);
  EXPECT_GT(report->hits, 50u);
}

}  // namespace
}  // namespace mcs::loadtest
