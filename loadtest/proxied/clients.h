// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "loadtest/harness/result.h"

namespace mcs::loadtest {

// One client of a herd. Times are CLOCK_MONOTONIC, 0 as long as it has not happened.
struct HerdClient {
  int server = 0;
  uint16_t port = 0;  // its own
  uint64_t asked_ns = 0;
  uint64_t first_ns = 0;  // the first byte of the body
  uint64_t last_ns = 0;   // the last byte
  uint64_t failed_ns = 0;
  std::string failure;  // empty: none so far
  size_t received = 0;  // of the body

  bool ended() const { return last_ns != 0 || failed_ns != 0; }
};

// Many clients, a connection each, that ask for one path and compare every byte of the answer as it
// arrives. All are served by the thread that calls run().
class HerdClients {
 public:
  HerdClients(std::string path, std::string_view body);
  ~HerdClients();
  HerdClients(const HerdClients&) = delete;
  HerdClients& operator=(const HerdClients&) = delete;

  // Connects and does not ask yet.
  Result<void> connect(int server, int port);
  void ask(size_t client);
  // Receives until `done` or the time is over. `done` is asked after whatever has arrived.
  void run(std::chrono::milliseconds timeout, const std::function<bool()>& done);

  const std::vector<HerdClient>& clients() const { return clients_; }
  size_t began() const { return began_; }  // have a byte of the body, or have failed
  size_t ended() const { return ended_; }

 private:
  void receive(size_t client);
  void fail_client(size_t client, std::string reason);
  void take(size_t client, std::string_view bytes);
  // Its place in `bytes` when the head is complete; npos: it is not, or the client has failed.
  size_t take_head(size_t client, std::string_view bytes);

  std::string request_;
  std::string_view body_;
  int epoll_ = -1;
  std::vector<HerdClient> clients_;
  std::vector<int> sockets_;
  std::vector<std::string> heads_;
  size_t began_ = 0;
  size_t ended_ = 0;
};

}  // namespace mcs::loadtest
