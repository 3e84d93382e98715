// SPDX-License-Identifier: Apache-2.0
// Conditional and range requests on entries of both kinds: copied and sent from shared memory.
#include "loadtest/harness/net.h"
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::StartsWith;

class RequestsTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerOptions options = default_options();
    options.mcs->size = "128m";
    server_ = &start(GetParam(), options);
    for (const size_t size : {1000u, 300'000u}) {
      File file{"/" + std::to_string(size) + ".bin", bytes_of_size(size), "", ""};
      write(file.path.substr(1), file.body);
      const HttpResponse hit = get_hit(*server_, file.path);
      file.etag = hit.header("ETag");
      file.date = hit.header("Last-Modified");
      EXPECT_EQ(file.date, http_date(kOld));
      EXPECT_THAT(file.etag, StartsWith("\""));
      files_.push_back(file);
    }
  }

  struct File {
    std::string path;
    std::string body;
    std::string etag;
    std::string date;
  };
  std::vector<File> files_;
  const WebServer* server_ = nullptr;
};
INSTANTIATE_TEST_SUITE_P(Servers, RequestsTest, every_server(), server_name);

TEST_P(RequestsTest, ConditionalRequests) {
  const std::string later = http_date(kOld + 3600);
  const std::string earlier = http_date(kOld - 3600);
  for (const File& file : files_) {
    struct Case {
      std::vector<std::string> headers;
      int status;
    };
    const std::vector<Case> cases = {
        {{"If-None-Match: " + file.etag}, 304},
        {{"If-None-Match: W/" + file.etag}, 304},
        {{"If-None-Match: *"}, 304},
        {{"If-None-Match: \"x\", " + file.etag + ", \"y\""}, 304},
        {{"If-None-Match: \"x\""}, 200},
        {{"If-None-Match: \"x\"", "If-Modified-Since: " + file.date}, 200},
        // RFC 9110, 13.1.3: the date is to be ignored. nginx's own filter asks both.
        {{"If-None-Match: " + file.etag, "If-Modified-Since: " + earlier},
         GetParam().kind == ServerKind::kNginx ? 200 : 304},
        {{"If-Modified-Since: " + file.date}, 304},
        {{"If-Modified-Since: " + earlier}, 200},
        {{"If-Modified-Since: no date at all"}, 200},
        {{"If-Match: " + file.etag}, 200},
        {{"If-Match: *"}, 200},
        {{"If-Match: \"x\""}, 412},
        {{"If-Unmodified-Since: " + file.date}, 200},
        {{"If-Unmodified-Since: " + later}, 200},
        {{"If-Unmodified-Since: " + earlier}, 412},
    };
    for (const Case& test : cases) {
      for (const char* method : {"GET", "HEAD"}) {
        HttpRequest request;
        request.method = method;
        request.url = server_->url(file.path);
        request.headers = test.headers;
        const HttpResponse response = send(request);
        EXPECT_EQ(response.status, test.status)
            << method << " " << file.path << " " << testing::PrintToString(test.headers);
        if (response.status == 304) {
          EXPECT_EQ(response.header("ETag"), file.etag);
          EXPECT_TRUE(response.body.empty());
        } else if (response.status == 200 && request.method == "GET") {
          EXPECT_TRUE(response.body == file.body);
        }
      }
    }
    EXPECT_EQ(get(*server_, file.path).cache_status(), "HIT");
  }
}

TEST_P(RequestsTest, OneRange) {
  for (const File& file : files_) {
    const size_t size = file.body.size();
    const std::string last = std::to_string(size - 1);
    struct Case {
      std::string range;
      size_t first;
      size_t length;
    };
    const std::vector<Case> cases = {
        {"0-0", 0, 1},
        {"5-9", 5, 5},
        {"0-" + last, 0, size},
        {last + "-", size - 1, 1},
        {"100-", 100, size - 100},
        {"-5", size - 5, 5},
        {"-" + std::to_string(size), 0, size},
        {"-99999999", 0, size},
        {"990-99999999", 990, size - 990},
    };
    for (const Case& test : cases) {
      const HttpResponse response = get(*server_, file.path, {"Range: bytes=" + test.range});
      EXPECT_TRUE(response.body == file.body.substr(test.first, test.length)) << test.range;
      EXPECT_EQ(response.header("Content-Length"), std::to_string(test.length)) << test.range;
      if (test.length < size) {
        EXPECT_EQ(response.status, 206) << test.range;
        EXPECT_EQ(response.header("Content-Range"),
                  fmt::format("bytes {}-{}/{}", test.first, test.first + test.length - 1, size));
      } else {
        EXPECT_THAT(response.status, AnyOf(200, 206)) << test.range;
      }
    }
  }
}

TEST_P(RequestsTest, RangesThatAreNoneOrTooFar) {
  for (const File& file : files_) {
    const std::string size = std::to_string(file.body.size());
    for (const std::string& range : {size + "-", std::string("99999999-")}) {
      EXPECT_EQ(get(*server_, file.path, {"Range: bytes=" + range}).status, 416) << range;
    }
    // A unit nobody knows is ignored (RFC 9110, 14.2).
    const HttpResponse response = get(*server_, file.path, {"Range: lines=1-2"});
    EXPECT_EQ(response.status, 200);
    EXPECT_TRUE(response.body == file.body);
  }
}

TEST_P(RequestsTest, SeveralRanges) {
  for (const File& file : files_) {
    const HttpResponse response = get(*server_, file.path, {"Range: bytes=1-3,500-599,-2"});
    EXPECT_EQ(response.status, 206);
    const std::string type = response.header("Content-Type");
    ASSERT_THAT(type, StartsWith("multipart/byteranges; boundary="));
    const std::string boundary = type.substr(type.find('=') + 1);
    const size_t size = file.body.size();
    size_t at = 0;
    for (const auto& [first, length] :
         {std::pair<size_t, size_t>{1, 3}, {500, 100}, {size - 2, 2}}) {
      const std::string field = fmt::format("bytes {}-{}/{}\r\n", first, first + length - 1, size);
      at = response.body.find("--" + boundary, at);
      ASSERT_NE(at, std::string::npos);
      const size_t head_end = response.body.find("\r\n\r\n", at);
      ASSERT_NE(head_end, std::string::npos);
      EXPECT_THAT(response.body.substr(at, head_end + 2 - at), HasSubstr(field));
      EXPECT_TRUE(response.body.substr(head_end + 4, length) == file.body.substr(first, length));
      at = head_end + 4 + length;
    }
    EXPECT_NE(response.body.find("--" + boundary + "--", at), std::string::npos);
  }
}

TEST_P(RequestsTest, IfRange) {
  for (const File& file : files_) {
    const auto status = [&](const std::string& validator) {
      return get(*server_, file.path, {"Range: bytes=0-9", "If-Range: " + validator}).status;
    };
    EXPECT_EQ(status(file.etag), 206);
    EXPECT_EQ(status(file.date), 206);
    EXPECT_EQ(status("\"other\""), 200);
    EXPECT_EQ(status("W/" + file.etag), 200);
    EXPECT_EQ(status(http_date(kOld - 3600)), 200);
  }
}

TEST_P(RequestsTest, RangeOnAMissIsCutFromTheWholeEntry) {
  const std::string body = bytes_of_size(100'000, 7);
  write("cold.bin", body);
  const HttpResponse response = get(*server_, "/cold.bin", {"Range: bytes=10-19"});
  EXPECT_EQ(response.status, 206);
  EXPECT_TRUE(response.body == body.substr(10, 10));
  const HttpResponse whole = get(*server_, "/cold.bin");
  EXPECT_EQ(whole.cache_status(), "HIT");
  EXPECT_TRUE(whole.body == body);
}

TEST_P(RequestsTest, PipelinedRequests) {
  auto connection = RawConnection::open(server_->port());
  ASSERT_TRUE(connection) << connection.error().message;
  std::string requests;
  for (int i = 0; i < 20; ++i) {
    requests += "GET " + files_[i % 2].path + " HTTP/1.1\r\nHost: localhost\r\n\r\n";
  }
  ASSERT_TRUE(connection->send(requests));
  for (int i = 0; i < 20; ++i) {
    const auto response = connection->read_response();
    ASSERT_TRUE(response) << i << ": " << response.error().message;
    EXPECT_EQ(response->status, 200);
    EXPECT_TRUE(response->body == files_[i % 2].body) << i;
  }
}

TEST_P(RequestsTest, ClientThatLeavesInTheMiddleHarmsNobody) {
  const std::string body = bytes_of_size(8 << 20, 3);
  write("large.bin", body);
  get_hit(*server_, "/large.bin");
  for (int i = 0; i < 10; ++i) {
    auto connection = RawConnection::open(server_->port());
    ASSERT_TRUE(connection) << connection.error().message;
    connection->set_receive_buffer(4096);
    ASSERT_TRUE(connection->send("GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    ASSERT_TRUE(connection->read_some(1000));
  }
  EXPECT_TRUE(get(*server_, "/large.bin").body == body);
}

}  // namespace
}  // namespace mcs::loadtest
