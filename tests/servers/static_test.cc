// SPDX-License-Identifier: Apache-2.0
// Local files: what is served, from where, and how changes of the files are seen.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <thread>

#include "loadtest/harness/net.h"
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::AnyOf;
using testing::Not;

using StaticTest = ServerTest;
INSTANTIATE_TEST_SUITE_P(Servers, StaticTest, every_server(), server_name);

TEST_P(StaticTest, BodyIsTheFileAtEverySize) {
  // Around the sizes where bodies are copied, pinned and spread, and HTTP's own buffers end.
  std::map<std::string, std::string> bodies;
  for (const size_t size : {0u, 1u, 1000u, 4096u, 8191u, 16383u, 16384u, 16385u, 65535u, 65536u,
                            65537u, 262144u, 1048577u}) {
    const std::string name = std::to_string(size) + ".bin";
    bodies[name] = bytes_of_size(size, static_cast<unsigned>(size) + 1);
    write(name, bodies[name]);
  }
  const WebServer& server = start(GetParam());
  for (const auto& [name, body] : bodies) {
    const HttpResponse hit = get_hit(server, "/" + name);
    EXPECT_EQ(hit.status, 200);
    EXPECT_EQ(hit.header("Content-Length"), std::to_string(body.size()));
    EXPECT_TRUE(hit.body == body) << name;
  }
}

// What the kernel still holds of a body that was sent must stay as it was when its space is used for
// others: who has not read it gets it, not what was stored there later.
TEST_P(StaticTest, WhatAnIdleClientHasNotReadIsNotOverwritten) {
  constexpr size_t kSize = 100'000;  // fits into the sockets between here and there
  constexpr int kOthers = 300;       // together about twice what the domain can hold
  const std::string body = bytes_of_size(kSize, 7);
  const std::string other = bytes_of_size(kSize, 8);
  write("sent.bin", body);
  for (int i = 0; i < kOthers; ++i) write("other" + std::to_string(i) + ".bin", other);
  ServerOptions options = default_options();
  options.workers = 1;
  options.mcs->size = "16m";
  options.mcs->cache_directives = {{"cache_purge", "on"}};
  options.access_log = true;
  if (GetParam().kind == ServerKind::kHttpd) options.main_extra = "EnableSendfile On\n";
  const WebServer& server = start(GetParam(), options);
  get_hit(server, "/sent.bin");
  auto idle = RawConnection::open(server.port());
  ASSERT_TRUE(idle);
  ASSERT_TRUE(idle->send("GET /sent.bin?idle HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  // The line is written when the server is through with it and has unpinned the entry.
  const auto log = [&] { return read_file(server.prefix() / "access.log").value_or(""); };
  ASSERT_TRUE(wait_until([&] { return log().find("sent.bin?idle") != std::string::npos; },
                         std::chrono::seconds(20)));
  HttpRequest purge;
  purge.method = "PURGE";
  purge.url = server.url("/sent.bin");
  EXPECT_EQ(send(purge).body, "purged 1\n");
  for (int i = 0; i < kOthers; ++i) {
    ASSERT_TRUE(get(server, "/other" + std::to_string(i) + ".bin").body == other);
  }
  const auto response = idle->read_response();
  ASSERT_TRUE(response);
  EXPECT_TRUE(response->body == body);
}

TEST_P(StaticTest, LargeFiles) {
  const WebServer& server = start(GetParam());
  const std::string body = bytes_of_size(20 << 20);
  write("large.bin", body);
  for (int i = 0; i < 3; ++i) {
    const HttpResponse response = get(server, "/large.bin");
    EXPECT_EQ(response.status, 200);
    EXPECT_TRUE(response.body == body) << response.body.size();
  }
}

TEST_P(StaticTest, MissThenHit) {
  const WebServer& server = start(GetParam());
  write("a.txt", "hello\n");
  EXPECT_EQ(get(server, "/a.txt").cache_status(), "MISS");
  for (int i = 0; i < 20; ++i) {  // whichever worker answers
    HttpRequest request;
    request.url = server.url("/a.txt");
    request.fresh_connection = true;
    request.headers = {"Connection: close"};
    EXPECT_EQ(send(request).cache_status(), "HIT");
  }
}

TEST_P(StaticTest, UnchangedFileIsRevalidated) {
  ServerOptions options = default_options();
  options.mcs->valid = "1s";
  const WebServer& server = start(GetParam(), options);
  write("a.txt", "hello\n");
  EXPECT_EQ(get(server, "/a.txt").cache_status(), "MISS");
  const HttpResponse response =
      get_until(server, "/a.txt", [](const auto& r) { return r.cache_status() != "HIT"; });
  EXPECT_EQ(response.cache_status(), "REVALIDATED");
  EXPECT_EQ(response.body, "hello\n");
}

TEST_P(StaticTest, FileReplacedByRenameIsSeen) {
  ServerOptions options = default_options();
  options.mcs->valid = "1s";
  const WebServer& server = start(GetParam(), options);
  for (const size_t size : {100u, 200'000u}) {
    const std::string before = bytes_of_size(size, 1);
    const std::string after = bytes_of_size(size, 2);
    write("a.bin", before);
    get_until(server, "/a.bin",
              [&](const auto& r) { return r.cache_status() == "HIT" && r.body == before; });
    // The older date of a restored backup is a change as well.
    replace("a.bin", after, kOld - 1000);
    const HttpResponse response =
        get_until(server, "/a.bin", [&](const auto& r) { return r.body != before; });
    EXPECT_TRUE(response.body == after);
    EXPECT_EQ(response.cache_status(), "EXPIRED");
  }
}

TEST_P(StaticTest, FileChangedInPlaceIsSeen) {
  ServerOptions options = default_options();
  options.mcs->valid = "1s";
  const WebServer& server = start(GetParam(), options);
  change("a.txt", "before", kOld);
  get_until(server, "/a.txt", [](const auto& r) { return r.cache_status() == "HIT"; });
  change("a.txt", "after ", kOld + 10);
  const HttpResponse response =
      get_until(server, "/a.txt", [](const auto& r) { return r.body != "before"; });
  EXPECT_EQ(response.body, "after ");
}

TEST_P(StaticTest, DeletedFileIsGoneAndComesBack) {
  ServerOptions options = default_options();
  options.mcs->valid = "1s";
  const WebServer& server = start(GetParam(), options);
  write("a.txt", "one");
  get(server, "/a.txt");
  std::filesystem::remove(root() / "a.txt");
  get_until(server, "/a.txt", [](const auto& r) { return r.status == 404; });
  write("a.txt", "two", kOld + 10);
  get_until(server, "/a.txt", [](const auto& r) { return r.status == 200 && r.body == "two"; });
}

TEST_P(StaticTest, DirectoryInPlaceOfAFile) {
  ServerOptions options = default_options();
  options.mcs->valid = "1s";
  const WebServer& server = start(GetParam(), options);
  write("a", "file");
  get_hit(server, "/a");
  std::filesystem::remove(root() / "a");
  write("a/index.html", "index");
  get_until(server, "/a", [](const auto& r) { return r.status == 301; });
  EXPECT_EQ(get(server, "/a/").body, "index");
}

// A file that is being written: each version is one letter throughout. What is handed out from the
// file itself may be mixed, as without a cache; what comes from the cache must not be.
TEST_P(StaticTest, ChangingFileIsNeverStoredMixed) {
  ServerOptions options = default_options();
  options.mcs->valid = "1s";
  const WebServer& server = start(GetParam(), options);
  constexpr size_t kSize = 300'000;
  const auto path = change("a.bin", std::string(kSize, 'a'), kOld);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    for (int version = 1; !stop; ++version) {
      const std::string text(kSize / 10, static_cast<char>('a' + version % 26));
      for (size_t part = 0; part < 10; ++part) {
        EXPECT_EQ(pwrite(fd, text.data(), text.size(), static_cast<off_t>(part * text.size())),
                  static_cast<ssize_t>(text.size()));
      }
    }
    close(fd);
  });
  const auto is_uniform = [](const std::string& body) {
    return body.find_first_not_of(body[0]) == std::string::npos;
  };
  for (int i = 0; i < 300; ++i) {
    const HttpResponse response = get(server, "/a.bin");
    EXPECT_EQ(response.body.size(), kSize);
    if (response.cache_status() == "HIT" || response.cache_status() == "REVALIDATED") {
      EXPECT_TRUE(is_uniform(response.body)) << response.cache_status();
    }
  }
  stop = true;
  writer.join();
  change("a.bin", std::string(kSize, 'z'), kOld + 10);
  get_until(server, "/a.bin", [&](const auto& r) {
    return r.cache_status() == "HIT" && r.body == std::string(kSize, 'z');
  });
}

TEST_P(StaticTest, EtagIsTheSameWithAndWithoutTheCache) {
  ServerOptions options = default_options();
  options.mcs->valid = "1s";
  const WebServer& server = start(GetParam(), options);
  change("a.txt", "young", time(nullptr));
  const HttpResponse young = get(server, "/a.txt");
  EXPECT_EQ(young.body, "young");
  const HttpResponse hit =
      get_until(server, "/a.txt", [](const auto& r) { return r.cache_status() == "HIT"; });
  EXPECT_THAT(young.header("ETag"), Not(""));
  EXPECT_EQ(young.header("ETag"), hit.header("ETag"));
  EXPECT_EQ(young.header("Last-Modified"), hit.header("Last-Modified"));
}

TEST_P(StaticTest, MoreFilesThanRoomIsNeverAnError) {
  ServerOptions options = default_options();
  options.mcs->size = "16m";
  const WebServer& server = start(GetParam(), options);
  constexpr unsigned kFiles = 1500;
  constexpr size_t kSize = 24'000;  // 36 MB in all
  for (unsigned i = 0; i < kFiles; ++i) {
    write("many/" + std::to_string(i), bytes_of_size(kSize, i));
  }
  for (int round = 0; round < 2; ++round) {
    for (unsigned i = 0; i < kFiles; ++i) {
      const HttpResponse response = get(server, "/many/" + std::to_string(i));
      ASSERT_EQ(response.status, 200) << i;
      ASSERT_TRUE(response.body == bytes_of_size(kSize, i)) << i;
    }
  }
  get_hit(server, "/many/0");
}

TEST_P(StaticTest, ManyClientsAskForWhatIsNotThereYet) {
  const WebServer& server = start(GetParam());
  for (const size_t size : {500u, 2'000'000u}) {
    const std::string path = "/" + std::to_string(size);
    const std::string body = bytes_of_size(size);
    write(path.substr(1), body);
    settle();
    std::vector<std::thread> clients;
    std::atomic<int> right{0};
    for (int i = 0; i < 16; ++i) {
      clients.emplace_back([&] {
        const auto response = HttpClient().get(server.url(path));
        right += response && response->status == 200 && response->body == body;
      });
    }
    for (auto& client : clients) client.join();
    EXPECT_EQ(right, 16) << size;
    EXPECT_EQ(get(server, path).cache_status(), "HIT");
  }
}

TEST_P(StaticTest, HeadFillsNothingWrong) {
  const WebServer& server = start(GetParam());
  for (const size_t size : {0u, 500u, 200'000u}) {
    const std::string path = "/" + std::to_string(size);
    const std::string body = bytes_of_size(size);
    write(path.substr(1), body);
    HttpRequest request;
    request.method = "HEAD";
    request.url = server.url(path);
    const HttpResponse before = send(request);
    const HttpResponse hit = get_hit(server, path);
    const HttpResponse after = send(request);
    EXPECT_TRUE(hit.body == body);
    for (const HttpResponse& head : {before, after}) {
      EXPECT_EQ(head.status, 200);
      EXPECT_TRUE(head.body.empty());
      for (const char* name : {"Content-Length", "Content-Type", "ETag", "Last-Modified"}) {
        // httpd leaves "Content-Length: 0" out of every answer to HEAD.
        if (size == 0 && std::string_view(name) == "Content-Length") continue;
        EXPECT_EQ(head.header(name), hit.header(name)) << name << " at " << size;
      }
    }
    EXPECT_EQ(after.cache_status(), "HIT");
  }
}

TEST_P(StaticTest, OtherMethodsAreTheServersBusiness) {
  const WebServer& server = start(GetParam());
  write("a.txt", "hello\n");
  get_hit(server, "/a.txt");
  for (const char* method : {"POST", "PUT", "DELETE"}) {
    HttpRequest request;
    request.method = method;
    request.url = server.url("/a.txt");
    const HttpResponse response = send(request);
    // httpd hands out a file also for a POST.
    EXPECT_THAT(response.status, AnyOf(200, 405)) << method;
    EXPECT_THAT(response.cache_status(), Not("HIT"));
  }
}

TEST_P(StaticTest, CacheStatusFieldWhenSwitchedOn) {
  ServerOptions options = default_options();
  options.mcs->cache_directives = {{"cache_status_header", "\"edge 1\""}};
  const WebServer& server = start(GetParam(), options);
  write("a.txt", "hello\n");
  EXPECT_EQ(get(server, "/a.txt").header("Cache-Status"), "\"edge 1\"; fwd=uri-miss; stored");
  EXPECT_EQ(get(server, "/a.txt").header("Cache-Status"), "\"edge 1\"; hit");
}

}  // namespace
}  // namespace mcs::loadtest
