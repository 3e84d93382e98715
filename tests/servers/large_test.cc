// SPDX-License-Identifier: Apache-2.0
// Responses of 1 GiB in a domain of 2 GiB: stored by one server and served by the other, ranges
// that touch only what they send, and fills that break off.
#include <nlohmann/json.hpp>

#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/net.h"
#include "loadtest/harness/origin.h"
#include "loadtest/harness/proc_info.h"
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {
namespace {

constexpr uint64_t kSize = 1ULL << 30;
constexpr size_t kPiece = 1 << 20;
constexpr auto kLong = std::chrono::seconds(240);

// Byte `at` of the body; no piece is like another.
class Pattern {
 public:
  Pattern() : bytes_(bytes_of_size(kPiece + 4099)) {}
  std::string_view piece(uint64_t number) const {
    return std::string_view(bytes_).substr(number % 4099, kPiece);
  }
  bool is_at(uint64_t at, std::string_view bytes) const {
    while (!bytes.empty()) {
      const size_t inside = at % kPiece;
      const std::string_view wanted = piece(at / kPiece).substr(inside, bytes.size());
      if (bytes.substr(0, wanted.size()) != wanted) return false;
      at += wanted.size();
      bytes.remove_prefix(wanted.size());
    }
    return true;
  }

 private:
  std::string bytes_;
};

class LargeTest : public PairTest {
 protected:
  WebServer& start_proxy(const ServerType& type) {
    ServerOptions options = default_options();
    options.mcs->size = "2g";
    options.root_location = false;
    options.mcs->key_base.clear();
    if (type.kind == ServerKind::kNginx) {
      options.server_extra = "location / { proxy_pass " + origin_.url() +
                             "; proxy_max_temp_file_size 0; mcs_cache on;"
                             " mcs_cache_key_base site; mcs_cache_max_object 1g;\n"
                             "  add_header X-Mcs-Status $mcs_cache_status always; }\n";
    } else {
      for (const std::string module : {"proxy", "proxy_http"}) {
        options.main_extra +=
            "LoadModule " + module + "_module /usr/lib/apache2/modules/mod_" + module + ".so\n";
      }
      options.server_extra = "ProxyPass / " + origin_.url("/") +
                             "\n<Location \"/\">\n  McsCache On\n  McsCacheKeyBase site\n"
                             "  McsCacheMaxFileSize 1g\n</Location>\n";
    }
    return start(type, options);
  }

  // Sends so much of the body and then breaks off, if that is not all.
  void send_body(OriginExchange& exchange, uint64_t size) const {
    exchange.send_raw(
        fmt::format("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: "
                    "\"1\"\r\nContent-Length: {}\r\n\r\n",
                    kSize));
    for (uint64_t piece = 0; piece < size / kPiece; ++piece) {
      exchange.send_raw(pattern_.piece(piece));
    }
  }

  // Compares while it arrives. How much of the body came, all of it right.
  uint64_t fetch(const WebServer& server, std::string_view status) const {
    auto connection = RawConnection::open(server.port(), kLong);
    EXPECT_TRUE(connection &&
                connection->send("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    std::string head;
    while (head.find("\r\n\r\n") == std::string::npos) {
      const auto some = connection->read_some();
      if (!some || some->empty()) return 0;
      head += *some;
    }
    const std::string first = head.substr(head.find("\r\n\r\n") + 4);
    EXPECT_THAT(head, testing::HasSubstr("X-Mcs-Status: " + std::string(status)));
    EXPECT_TRUE(pattern_.is_at(0, first));
    uint64_t at = first.size();
    for (;;) {
      const auto some = connection->read_some();
      if (!some || some->empty()) return at;
      if (at + some->size() > kSize || !pattern_.is_at(at, *some)) {
        ADD_FAILURE() << server.name() << " sent something wrong at " << at;
        return at;
      }
      at += some->size();
    }
  }

  uint64_t shared_memory_touched(const WebServer& server) const {
    uint64_t sum = 0;
    for (const pid_t pid : server.worker_pids()) {
      sum += process_memory_bytes(pid, "RssShmem").value_or(0);
    }
    return sum;
  }

  uint64_t used_bytes() const {
    const auto result = run_process({tool_file("mcsctl").string(), "status", "test", "--directory",
                                     domain_directory().string(), "--json", "-"});
    EXPECT_TRUE(result && result->ok());
    const size_t at = result->out.rfind("\"used_bytes\":");
    return at == std::string::npos ? 0 : std::strtoull(result->out.c_str() + at + 13, nullptr, 10);
  }

  void expect_sound() const {
    const auto result = run_process({tool_file("mcsctl").string(), "verify", "test", "--directory",
                                     domain_directory().string()});
    ASSERT_TRUE(result);
    EXPECT_TRUE(result->ok()) << result->out << result->err;
  }

  const Pattern pattern_;
  Origin origin_;
};
INSTANTIATE_TEST_SUITE_P(Servers, LargeTest,
                         testing::Values(std::pair(kNginxType, kEventType),
                                         std::pair(kEventType, kNginxType)),
                         pair_name);

TEST_P(LargeTest, StoredByOneServedByTheOtherAndRangesTouchLittle) {
  origin_.on("/large", [this](OriginExchange& exchange) { send_body(exchange, kSize); });
  const WebServer& filler = start_proxy(first());
  EXPECT_EQ(fetch(filler, "MISS"), kSize);
  const WebServer& reader = start_proxy(second());
  const uint64_t before = shared_memory_touched(reader);
  for (const uint64_t from : {uint64_t{0}, kSize / 2 - 50, kSize - 100}) {
    HttpRequest request;
    request.url = reader.url("/large");
    request.headers = {"Host: a", fmt::format("Range: bytes={}-{}", from, from + 99)};
    const HttpResponse part = send(request);
    EXPECT_EQ(part.status, 206);
    EXPECT_EQ(part.cache_status(), "HIT");
    EXPECT_EQ(part.header("Content-Range"), fmt::format("bytes {}-{}/{}", from, from + 99, kSize));
    EXPECT_TRUE(part.body.size() == 100 && pattern_.is_at(from, part.body)) << from;
  }
  EXPECT_LT(shared_memory_touched(reader), before + (32u << 20));
  EXPECT_EQ(fetch(reader, "HIT"), kSize);
  EXPECT_EQ(origin_.count("/large"), 1u);
  expect_sound();
}

TEST_P(LargeTest, AFillThatBreaksOffLeavesNothing) {
  origin_.on("/large", [this](OriginExchange& exchange) {
    send_body(exchange, exchange.request().number <= 3 ? kSize * 3 / 4 : kSize);
  });
  origin_.on("/small", {200, {"Cache-Control: max-age=600"}, "small"});
  const WebServer& one = start_proxy(first());
  const WebServer& other = start_proxy(second());
  get(other, "/small", {"Host: a"});
  const uint64_t before = used_bytes();
  EXPECT_GT(before, 0u);
  EXPECT_LE(fetch(one, "MISS"), kSize * 3 / 4);
  EXPECT_LE(fetch(other, "MISS"), kSize * 3 / 4);
  EXPECT_LE(fetch(one, "MISS"), kSize * 3 / 4);
  EXPECT_TRUE(wait_until([&] { return used_bytes() <= before; }, std::chrono::seconds(20)))
      << before << " " << used_bytes();
  EXPECT_EQ(fetch(other, "MISS"), kSize);
  EXPECT_EQ(fetch(one, "HIT"), kSize);
  EXPECT_EQ(get(one, "/small", {"Host: a"}).cache_status(), "HIT");
  expect_sound();
}

// A site with a reserve in both servers, which then load configurations that name another.
class RenamedSiteTest : public PairTest {
 protected:
  static void name_site(const ServerType& type, WebServer& server, const std::string& site) {
    server.options().server_extra =
        type.kind == ServerKind::kNginx
            ? "mcs_cache_site " + site + "; mcs_cache_reserve 10%;\n"
            : "McsCacheSite " + site + "\nMcsCacheReserve 10%\n";
  }
  uint64_t reserve(const std::string& site) {
    const auto status =
        run_process({tool_file("mcsctl").string(), "status", "test", "--directory",
                     domain_directory().string(), "--json", "-"});
    EXPECT_TRUE(status && status->ok());
    if (!status) return 0;
    const std::string text = status->out.substr(std::min(status->out.find('{'), status->out.size()));
    const auto all = nlohmann::json::parse(text);
    for (const auto& known : all["sites"]) {
      if (known["site"] == site) return known["reserve_bytes"];
    }
    return 0;
  }
};
INSTANTIATE_TEST_SUITE_P(Servers, RenamedSiteTest, testing::Values(std::pair(kNginxType, kEventType)),
                         pair_name);

TEST_P(RenamedSiteTest, WhatNoServerNamesAnyMoreHasNothingReserved) {
  write("a.txt", "a");
  // The third shows how long it takes until a site that nobody names has nothing left.
  const ServerType types[] = {first(), second(), first()};
  std::vector<WebServer*> servers;
  for (const ServerType& type : types) {
    servers.push_back(&add(type, default_options()));
    name_site(type, *servers.back(), servers.size() < 3 ? "before" : "third");
    start(*servers.back());
  }
  get_hit(*servers[0], "/a.txt");
  get(*servers[2], "/a.txt");
  const uint64_t reserved = reserve("before");
  EXPECT_GT(reserved, 1'000'000u);
  EXPECT_EQ(reserve("third"), reserved);
  const auto rename = [&](size_t which) {
    name_site(types[which], *servers[which], "after");
    const auto reloaded = servers[which]->reload();
    ASSERT_TRUE(reloaded) << reloaded.error().message;
  };
  rename(0);
  // Old workers may still answer for a moment.
  int number = 0;
  EXPECT_TRUE(wait_until([&] {
    const std::string file = fmt::format("b{}.txt", number++);
    write(file, "b");
    get(*servers[0], "/" + file);
    return reserve("after") == reserved;
  }, std::chrono::seconds(20)));
  rename(2);
  EXPECT_TRUE(wait_until([&] { return reserve("third") == 0; }, std::chrono::seconds(60)));
  // One of them still names it, however long.
  EXPECT_EQ(reserve("before"), reserved);
  rename(1);
  EXPECT_TRUE(wait_until([&] { return reserve("before") == 0; }, std::chrono::seconds(60)));
  EXPECT_EQ(reserve("after"), reserved);
  get_hit(*servers[1], "/a.txt");
}

}  // namespace
}  // namespace mcs::loadtest
