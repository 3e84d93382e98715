// SPDX-License-Identifier: Apache-2.0
// As many prefork children as a busy site has, each living for 100 connections.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <set>
#include <thread>

#include "loadtest/harness/net.h"
#include "loadtest/harness/proc_info.h"
#include "tests/mod_mcs_apache/httpd_fixture.h"

namespace mcs::loadtest {
namespace {

TEST_F(HttpdTest, FourHundredPreforkChildren) {
  constexpr int kChildren = 400;
  constexpr int kFiles = 200;
  constexpr int kClients = 8;
  options().mpm = "prefork";
  options().workers = kChildren;
  options().max_processes = kChildren;
  options().max_connections_per_child = 100;
  options().mcs->size = "128m";
  std::vector<std::string> bodies;
  for (int i = 0; i < kFiles; ++i) {
    bodies.push_back(bytes_of_size(i % 10 == 0 ? 100'000 : 2'000, static_cast<unsigned>(i)));
    write(std::to_string(i), bodies.back());
  }
  start();
  ASSERT_GE(server_.worker_pids().size(), size_t{kChildren});

  std::atomic<int> wrong{0}, hits{0};
  const auto ask = [&](int connections) {
    std::vector<std::thread> clients;
    for (int c = 0; c < kClients; ++c) {
      clients.emplace_back([&, c] {
        for (int i = 0; i < connections / kClients; ++i) {
          const auto file = static_cast<size_t>((c * 37 + i) % kFiles);
          auto connection = RawConnection::open(server_.port());
          if (!connection ||
              !connection->send("GET /" + std::to_string(file) +
                                " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")) {
            ++wrong;
            continue;
          }
          const auto response = connection->read_response();
          if (!response || response->status != 200 || response->body != bodies[file]) {
            ++wrong;
          } else {
            hits += response->header("X-Mcs-Status") == "HIT";
          }
        }
      });
    }
    for (auto& client : clients) client.join();
  };

  // Each child has served about 40 connections.
  ask(40 * kChildren);
  const auto children = server_.worker_pids();
  EXPECT_GE(children.size(), size_t{kChildren} * 9 / 10);
  uint64_t page_tables = 0, largest = 0;
  for (const pid_t pid : children) {
    const uint64_t bytes = process_memory_bytes(pid, "VmPTE").value_or(0);
    page_tables += bytes;
    largest = std::max(largest, bytes);
  }
  RecordProperty("children", static_cast<int>(children.size()));
  RecordProperty("page_tables_kib", static_cast<int>(page_tables / 1024));
  RecordProperty("largest_page_table_kib", static_cast<int>(largest / 1024));
  std::printf("%zu children, page tables %lu KiB in all, at most %lu KiB each\n", children.size(),
              static_cast<unsigned long>(page_tables / 1024),
              static_cast<unsigned long>(largest / 1024));

  // All of them have ended and others have taken their places.
  const std::set<pid_t> old(children.begin(), children.end());
  const auto none_is_left = [&] {
    const auto now = server_.worker_pids();
    return std::none_of(now.begin(), now.end(), [&](pid_t pid) { return old.count(pid) != 0; });
  };
  int asked = 40 * kChildren;
  for (int round = 0; round < 10 && !none_is_left(); ++round, asked += 20 * kChildren) {
    ask(20 * kChildren);
  }
  EXPECT_TRUE(none_is_left());
  EXPECT_EQ(wrong, 0);
  // Each file is filled once, and may be asked for by others while it is.
  EXPECT_GE(hits, asked - 10 * kFiles);
}

}  // namespace
}  // namespace mcs::loadtest
