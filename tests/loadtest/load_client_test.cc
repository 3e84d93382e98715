// SPDX-License-Identifier: Apache-2.0
// The checking client against a server that answers wrongly in every way it must notice.
#include "loadtest/client/load_client.h"

#include <gtest/gtest.h>

#include <iostream>
#include <thread>

#include "loadtest/client/report_json.h"
#include "loadtest/harness/http_client.h"
#include "loadtest/harness/process.h"
#include "loadtest/harness/temp_dir.h"
#include "tests/loadtest/tiny_server.h"

namespace mcs::loadtest {
namespace {

class LoadClientTest : public testing::Test {
 protected:
  LoadClientTest() : body_(5000, 'b') {
    body_[4999] = 'c';
    EXPECT_TRUE(write_file(root_.path() / "file", body_));
    EXPECT_TRUE(files_.add_directory(root_.path(), "/"));
    stream_ = uniform_stream(0, 1);
    options_.files = &files_;
    options_.stream = stream_.get();
    options_.connections = 1;
    options_.requests = 1;
    options_.timeout = std::chrono::milliseconds(60'000);
  }

  LoadReport load(const TinyServer& server) {
    options_.targets = {{"tiny", "127.0.0.1", server.port(), "", ""}};
    return load();
  }

  LoadReport load() {
    LoadReport report = run_load(options_, stop_, live_);
    for (const FailureRecord& record : report.failures) {
      std::cout << name_of(record.failure) << ": " << record.detail << "\n";
    }
    return report;
  }

  // The outcome of one request that is answered this way.
  FailureRecord failure_of(TinyAnswer answer) {
    const TinyServer server([&](const std::string&) { return answer; });
    const LoadReport report = load(server);
    EXPECT_EQ(report.total().requests, 1u);
    EXPECT_EQ(report.total().failed(), 1u);
    EXPECT_EQ(live_.failed, 1u);
    EXPECT_EQ(report.failures.size(), 1u);
    return report.failures.empty() ? FailureRecord{} : report.failures[0];
  }

  TempDir root_;
  std::string body_;
  FileSet files_;
  std::unique_ptr<RequestStream> stream_;
  LoadOptions options_;
  std::atomic<bool> stop_{false};
  LiveCounters live_;
};

TEST_F(LoadClientTest, CountsGoodAnswers) {
  options_.requests = 50;
  options_.connections = 4;
  options_.headers = {"X-Test: 1"};
  std::atomic<int> asked{0};
  const TinyServer server([&](const std::string& path) {
    EXPECT_EQ(path, "/file");
    const bool first = asked++ == 0;
    return TinyAnswer{ok_response(
        body_, first ? "X-Mcs-Status: MISS\r\n" : "X-Mcs-Status: HIT\r\nETag: \"e\"\r\n")};
  });
  options_.etag = EtagScope::kOff;
  const LoadReport report = load(server);
  const TargetReport total = report.total();
  EXPECT_EQ(total.requests, 50u);
  EXPECT_EQ(total.failed(), 0u);
  EXPECT_EQ(total.bytes, 50u * body_.size());
  EXPECT_EQ(total.count(CacheResult::kHit), 49u);
  EXPECT_EQ(total.count(CacheResult::kMiss), 1u);
  EXPECT_EQ(total.latency.count(), 50u);
  EXPECT_EQ(total.connections, 4u);
  EXPECT_EQ(live_.requests, 50u);
  EXPECT_EQ(live_.hits, 49u);
  EXPECT_EQ(to_json(total, report.seconds).at("cache").at("HIT"), 49);
}

TEST_F(LoadClientTest, NoticesEveryWrongByte) {
  for (const size_t at : {size_t{0}, size_t{2500}, size_t{4999}}) {
    live_.failed = 0;
    std::string wrong = body_;
    wrong[at] = 'x';
    const FailureRecord record = failure_of({ok_response(wrong)});
    EXPECT_EQ(record.failure, Failure::kWrongBody);
    EXPECT_NE(record.detail.find(fmt::format("byte {} of 5000", at)), std::string::npos)
        << record.detail;
  }
  EXPECT_EQ(live_.wrong_bodies, 3u);
}

TEST_F(LoadClientTest, NoticesAWrongLength) {
  EXPECT_EQ(failure_of({ok_response("")}).failure, Failure::kWrongBody);
  live_.failed = 0;
  EXPECT_EQ(failure_of({ok_response(body_.substr(0, 4999))}).failure, Failure::kWrongBody);
  live_.failed = 0;
  EXPECT_EQ(failure_of({ok_response(body_ + "x")}).failure, Failure::kWrongBody);
}

TEST_F(LoadClientTest, NoticesBytesAfterTheBody) {
  // The good answer counts as well.
  const TinyServer server(
      [&](const std::string&) { return TinyAnswer{ok_response(body_) + "extra"}; });
  const LoadReport report = load(server);
  ASSERT_EQ(report.failures.size(), 1u);
  EXPECT_EQ(report.failures[0].failure, Failure::kWrongBody);
}

TEST_F(LoadClientTest, NoticesAShortBody) {
  const std::string response = ok_response(body_);
  const FailureRecord record =
      failure_of({response.substr(0, response.size() - 1), TinyAnswer::kClose});
  EXPECT_EQ(record.failure, Failure::kShortBody);
  EXPECT_NE(record.detail.find("after 4999 of 5000"), std::string::npos) << record.detail;
  EXPECT_LE(record.opened_ns, record.sent_ns);
  EXPECT_LE(record.sent_ns, record.failed_ns);
  EXPECT_NE(record.local_port, 0);
}

TEST_F(LoadClientTest, AWrongByteOutranksTheLostConnection) {
  std::string wrong = body_;
  wrong[1] = 'x';
  const std::string response = ok_response(wrong);
  EXPECT_EQ(failure_of({response.substr(0, response.size() - 1), TinyAnswer::kClose}).failure,
            Failure::kWrongBody);
}

TEST_F(LoadClientTest, NoticesALostConnection) {
  EXPECT_EQ(failure_of({"", TinyAnswer::kClose}).failure, Failure::kConnectionLost);
  live_.failed = 0;
  EXPECT_EQ(failure_of({"HTTP/1.1 200 O", TinyAnswer::kReset}).failure, Failure::kConnectionLost);
}

TEST_F(LoadClientTest, NoticesABadStatus) {
  const FailureRecord record = failure_of({"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\noops"});
  EXPECT_EQ(record.failure, Failure::kBadStatus);
  EXPECT_EQ(record.detail, "status 503");
}

TEST_F(LoadClientTest, NoticesABadHead) {
  EXPECT_EQ(failure_of({"SSH-2.0-nonsense\r\n\r\n"}).failure, Failure::kBadHeader);
  live_.failed = 0;
  EXPECT_EQ(failure_of({"HTTP/1.1 200 OK\r\n\r\n" + body_, TinyAnswer::kClose}).failure,
            Failure::kBadHeader);
}

TEST_F(LoadClientTest, NoticesATimeout) {
  options_.timeout = std::chrono::milliseconds(100);
  EXPECT_EQ(failure_of({"HTTP/1.1 200 OK\r\n", TinyAnswer::kHang}).failure, Failure::kTimeout);
}

TEST_F(LoadClientTest, NoticesARefusedConnection) {
  int port = 0;
  {
    const TinyServer gone([](const std::string&) { return TinyAnswer{}; });
    port = gone.port();
  }
  options_.targets = {{"gone", "127.0.0.1", port, "", ""}};
  options_.requests = 0;
  LoadReport report;
  std::thread client([&] { report = run_load(options_, stop_, live_); });
  EXPECT_TRUE(wait_until([&] { return live_.failed > 0; }, std::chrono::milliseconds(60'000)));
  stop_ = true;
  client.join();
  EXPECT_GE(report.total().count(Failure::kConnect), 1u);
  EXPECT_EQ(report.total().failed(), report.total().requests);
}

TEST_F(LoadClientTest, ChecksLastModified) {
  const std::string field = "Last-Modified: " + http_date(1'000'000'000) + "\r\n";
  EXPECT_EQ(failure_of({ok_response(body_, field)}).failure, Failure::kBadHeader);
}

TEST_F(LoadClientTest, ChecksThatAFileKeepsItsEtag) {
  std::atomic<int> asked{0};
  const TinyServer server([&](const std::string&) {
    return TinyAnswer{ok_response(body_, fmt::format("ETag: \"{}\"\r\n", asked++ / 3))};
  });
  options_.requests = 4;
  EXPECT_EQ(load(server).total().count(Failure::kBadHeader), 1u);
}

TEST_F(LoadClientTest, ChecksEtagsBetweenTargetsOnlyWhenAsked) {
  const TinyServer one(
      [&](const std::string&) { return TinyAnswer{ok_response(body_, "ETag: \"1\"\r\n")}; });
  const TinyServer two(
      [&](const std::string&) { return TinyAnswer{ok_response(body_, "ETag: \"2\"\r\n")}; });
  options_.targets = {{"one", "127.0.0.1", one.port(), "", ""},
                      {"two", "127.0.0.1", two.port(), "", ""}};
  // Open loop, because its requests go to the targets in turn.
  options_.rate = 1000;
  options_.requests = 2;
  EXPECT_EQ(load().total().failed(), 0u);
  options_.etag = EtagScope::kAllTargets;
  EXPECT_EQ(load().total().count(Failure::kBadHeader), 1u);
}

TEST_F(LoadClientTest, UnderstandsChunksAndInterimResponsesInAnyPieces) {
  std::string chunked =
      "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (size_t at = 0; at < body_.size(); at += 1250) {
    chunked += "4e2;extension\r\n" + body_.substr(at, 1250) + "\r\n";
  }
  chunked += "0\r\nTrailer: x\r\n\r\n";
  {
    const TinyServer server([&](const std::string&) { return TinyAnswer{chunked}; });
    options_.requests = 3;
    EXPECT_EQ(load(server).total().failed(), 0u);
  }
  options_.requests = 1;
  live_.failed = 0;
  const size_t digit = chunked.find("4e2;", 200);
  std::string shorter = chunked;
  shorter.erase(digit, 4 + 11 + 1250 + 2);
  EXPECT_EQ(failure_of({shorter}).failure, Failure::kWrongBody);
}

TEST_F(LoadClientTest, OpensNewConnectionsWhenTheServerCloses) {
  options_.requests = 5;
  const TinyServer server([&](const std::string&) {
    return TinyAnswer{ok_response(body_, "Connection: close\r\n"), TinyAnswer::kClose};
  });
  const LoadReport report = load(server);
  EXPECT_EQ(report.total().failed(), 0u);
  EXPECT_EQ(report.total().requests, 5u);
  EXPECT_GE(report.total().connections, 5u);
}

TEST_F(LoadClientTest, OpenLoopCountsLatencyFromTheSchedule) {
  // The first answer is held back until well after the time the other requests were due. With one
  // connection all of them wait for it, and their latency must say so.
  options_.rate = 1000;
  options_.requests = 20;
  constexpr uint64_t kHeldNs = 200'000'000;
  std::atomic<uint64_t> first_ns{0};
  const TinyServer server([&](const std::string&) {
    uint64_t none = 0;
    if (first_ns.compare_exchange_strong(none, monotonic_ns())) {
      wait_until([&] { return monotonic_ns() >= first_ns + kHeldNs; },
                 std::chrono::milliseconds(60'000));
    }
    return TinyAnswer{ok_response(body_)};
  });
  const LoadReport report = load(server);
  const TargetReport total = report.total();
  EXPECT_EQ(total.requests, 20u);
  EXPECT_EQ(total.failed(), 0u);
  // Request 19 was due 19 ms after the first.
  EXPECT_GE(total.latency.percentile(.05), kHeldNs - 30'000'000);
}

TEST_F(LoadClientTest, ReportsWhatItCouldNotSend) {
  options_.rate = 1000;
  options_.requests = 0;
  options_.seconds = .05;
  options_.timeout = std::chrono::milliseconds(50);
  const TinyServer server([&](const std::string&) { return TinyAnswer{"", TinyAnswer::kHang}; });
  const LoadReport report = load(server);
  EXPECT_GT(report.not_sent, 0u);
  EXPECT_GT(report.total().count(Failure::kTimeout), 0u);
}

TEST_F(LoadClientTest, SharesTheWorkBetweenThreads) {
  options_.threads = 3;
  options_.connections = 7;
  options_.requests = 500;
  const TinyServer server([&](const std::string&) { return TinyAnswer{ok_response(body_)}; });
  const LoadReport report = load(server);
  EXPECT_EQ(report.total().requests, 500u);
  EXPECT_EQ(report.total().failed(), 0u);
  EXPECT_EQ(report.total().connections, 7u);
}

TEST_F(LoadClientTest, StopsWhenAsked) {
  options_.requests = 0;
  const TinyServer server([&](const std::string& path) {
    stop_ = true;
    return TinyAnswer{ok_response(path == "/file" ? body_ : "")};
  });
  const LoadReport report = load(server);
  EXPECT_GE(report.total().requests, 1u);
  EXPECT_EQ(report.total().failed(), 0u);
}

TEST_F(LoadClientTest, RefusesEmptyOptions) {
  options_.targets.clear();
  EXPECT_THROW(run_load(options_, stop_, live_), std::invalid_argument);
}

}  // namespace
}  // namespace mcs::loadtest
