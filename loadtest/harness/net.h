// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loadtest/harness/result.h"

namespace mcs::loadtest {

// A TCP port of 127.0.0.1 that nobody listens on now, below the range the kernel hands to
// connecting clients, so that only another call of this kind can take it first.
int free_port();

// Somebody accepts connections on this port of 127.0.0.1.
bool can_connect(int port);

// A response as it came over the wire, split but not interpreted.
struct RawResponse {
  int status = 0;
  std::string status_line;
  std::vector<std::pair<std::string, std::string>> headers;  // in order, names as sent
  std::string body;                                          // without the chunked coding
  std::string bytes;                                         // everything, unchanged

  // Value of the first field of this name, without regard to case; empty if there is none.
  std::string header(std::string_view name) const;
};

// One TCP connection to 127.0.0.1 for requests that must be sent byte by byte. Not thread-safe.
class RawConnection {
 public:
  static Result<RawConnection> open(
      int port, std::chrono::milliseconds timeout = std::chrono::milliseconds(10'000));
  RawConnection(RawConnection&& other) noexcept;
  RawConnection& operator=(RawConnection&& other) noexcept;
  ~RawConnection();

  Result<void> send(std::string_view bytes);
  // Reads one response to its end as Content-Length, chunked coding or the close of the connection
  // says. `head` expects no body (the answer to HEAD).
  Result<RawResponse> read_response(bool head = false);
  // What arrives until the other side closes.
  Result<std::string> read_to_close();
  // Reads at most `limit` bytes of what is there or arrives first; empty at the end.
  Result<std::string> read_some(size_t limit = 65536);
  void shutdown_sending();
  void set_receive_buffer(int bytes);

  uint16_t local_port() const;
  int fd() const { return fd_; }

 private:
  RawConnection(int fd, std::chrono::milliseconds timeout) : fd_(fd), timeout_(timeout) {}
  // Appends at least one byte to buffer_; false at the end of the connection.
  Result<bool> fill(size_t limit = SIZE_MAX);

  int fd_ = -1;
  std::chrono::milliseconds timeout_;
  std::string buffer_;  // received, not yet handed out
};

}  // namespace mcs::loadtest
