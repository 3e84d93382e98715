// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace mcs::loadtest {

// What a TinyServer does with one request.
struct TinyAnswer {
  std::string bytes;  // sent as they are
  enum { kKeepAlive, kClose, kReset, kHang } then = kKeepAlive;
};

// A server on 127.0.0.1 that answers whatever a test wants, byte by byte. One thread a connection.
class TinyServer {
 public:
  // Called with the request's target, from several threads.
  using Handler = std::function<TinyAnswer(const std::string& path)>;

  explicit TinyServer(Handler handler);
  ~TinyServer();
  TinyServer(const TinyServer&) = delete;
  TinyServer& operator=(const TinyServer&) = delete;

  int port() const { return port_; }
  // The targets that were asked for, in the order of arrival.
  std::vector<std::string> paths() const;

 private:
  void serve(int fd);

  Handler handler_;
  int listener_;
  int port_ = 0;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::vector<std::string> paths_;
  std::vector<int> fds_;
  std::vector<std::thread> connections_;
  std::thread acceptor_;
};

// A 200 with this body and a Content-Length.
std::string ok_response(const std::string& body, const std::string& fields = "");

}  // namespace mcs::loadtest
