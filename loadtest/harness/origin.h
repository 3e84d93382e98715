// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace mcs::loadtest {

// A request as an Origin received it.
struct OriginRequest {
  std::string method;
  std::string target;  // as received, with its query
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;   // only what Content-Length announced
  size_t number = 0;  // among those for the same path, from 1

  std::string path() const { return target.substr(0, target.find('?')); }
  // The first field of this name without regard to case; empty if there is none.
  std::string header(std::string_view name) const;
  bool has_header(std::string_view name) const;
};

struct OriginAnswer {
  enum Framing {
    kLength,   // Content-Length
    kChunked,  // unknown to HTTP/1.0 clients, which get kClose instead
    kClose,    // the body ends with the connection
  };
  int status = 200;
  std::vector<std::string> headers;  // "Name: value"; nothing is added but the framing
  std::string body;                  // not sent for HEAD, 204 and 304
  Framing framing = kLength;
};

// Something that a script waits for and the test lets happen. Thread-safe.
class Gate {
 public:
  Gate();
  ~Gate();
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // Lets the next `waits` pass.
  void admit(unsigned waits = 1);
  // Lets all pass from now on.
  void open();

 private:
  friend class OriginExchange;
  int fd_;
};

// One request and the response to it, sent by a script at once or step by step. Failures of the
// connection are not reported: the rest of the script just has no effect.
class OriginExchange {
 public:
  const OriginRequest& request() const { return request_; }
  // The port of the connection's other end.
  uint16_t client_port() const;

  // All of a response.
  void answer(const OriginAnswer& answer);
  // A 304 with the answer's fields if the request's If-None-Match or If-Modified-Since names its
  // ETag or Last-Modified exactly; otherwise all of it.
  void answer_or_304(const OriginAnswer& answer);

  // Status line and fields; with kLength the length of answer.body is announced.
  void send_head(const OriginAnswer& answer);
  // A piece of the body, coded as the head said.
  void send_body(std::string_view bytes);
  void end_body();
  // Bytes as they are. The connection is closed after the script.
  void send_raw(std::string_view bytes);
  // Closes the connection at once, with a reset.
  void reset();

  // False: the other side has closed the connection, or the origin ends.
  bool wait(Gate& gate);

 private:
  friend class Origin;
  OriginExchange(int fd, int stop_fd, bool http10, OriginRequest request)
      : fd_(fd), stop_fd_(stop_fd), http10_(http10), request_(std::move(request)) {}
  void write(std::string_view bytes);

  int fd_;
  int stop_fd_;
  bool http10_;
  OriginRequest request_;
  OriginAnswer::Framing framing_ = OriginAnswer::kLength;
  bool no_body_ = false;
  bool close_ = false;
  bool broken_ = false;  // the other side went before the response was complete
};

// An HTTP/1.1 server on 127.0.0.1 whose answers a test scripts by path, and which counts what it
// was asked. One thread a connection; scripts run in it. Thread-safe.
class Origin {
 public:
  using Script = std::function<void(OriginExchange&)>;

  Origin();
  // Ends waits of scripts, closes all connections and waits for the scripts.
  ~Origin();
  Origin(const Origin&) = delete;
  Origin& operator=(const Origin&) = delete;

  int port() const { return port_; }
  std::string url(std::string_view path = "") const;

  // What requests for this path (without query) get from now on; path "*" is for all others, which
  // otherwise get 404. A script may go on after the connection broke.
  void on(const std::string& path, Script script);
  void on(const std::string& path, OriginAnswer answer);

  // Nobody listens and all connections are closed, until up().
  void down();
  void up();

  // In the order of arrival. An empty path means all.
  std::vector<OriginRequest> requests(const std::string& path = "") const;
  size_t count(const std::string& path = "") const;
  // Responses that the other side did not want to the end.
  size_t broken(const std::string& path) const;
  // False after `timeout`.
  bool wait_for_requests(const std::string& path, size_t count,
                         std::chrono::milliseconds timeout = std::chrono::milliseconds(10'000));
  bool wait_for_broken(const std::string& path, size_t count,
                       std::chrono::milliseconds timeout = std::chrono::milliseconds(10'000));

 private:
  void listen();
  void accept_all(int listener);
  void serve(int fd);
  bool serve_one(int fd, std::string& buffer);
  void close_connections();

  int port_ = 0;
  int listener_ = -1;
  int stop_fd_;
  std::thread acceptor_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Script> scripts_;
  std::vector<OriginRequest> requests_;
  std::map<std::string, size_t> counts_;
  std::map<std::string, size_t> broken_;
  std::vector<int> connections_;
};

}  // namespace mcs::loadtest
