// SPDX-License-Identifier: Apache-2.0
#include "loadtest/client/drain_client.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>
#include <thread>

#include "loadtest/harness/process.h"

namespace mcs::loadtest {

namespace {

constexpr size_t kHeadSize = 2048;  // of a response, at most

class Drain {
 public:
  explicit Drain(const DrainOptions& options)
      : options_(options),
        request_(fmt::format("GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", options.path,
                             options.port)),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {}
  Drain(const Drain&) = delete;
  Drain& operator=(const Drain&) = delete;
  ~Drain() {
    for (const Connection& one : connections_) close(one.fd);
    close(epoll_);
  }

  Result<DrainResult> run() {
    for (int i = 0; i < options_.connections; ++i) {
      if (auto opened = open_one(); !opened) return tl::unexpected(opened.error());
    }
    DrainResult result;
    const uint64_t start = monotonic_ns();
    const uint64_t end = start + static_cast<uint64_t>(options_.seconds * 1e9);
    uint64_t now = start;
    for (; now < end; now = monotonic_ns()) {
      std::array<epoll_event, 64> events;
      const int ready = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 1000);
      for (int i = 0; i < ready; ++i) {
        auto read = take(connections_[events[static_cast<size_t>(i)].data.u32]);
        if (!read) return tl::unexpected(read.error());
        result.requests += *read ? 1 : 0;
      }
    }
    result.seconds = static_cast<double>(now - start) / 1e9;
    return result;
  }

 private:
  struct Connection {
    int fd;
    uint64_t left = 0;  // of the body; 0: a head comes next
  };

  Result<void> open_one() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(options_.port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    connections_.push_back({fd});
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      return fail("cannot connect to port {}: {}", options_.port, std::strerror(errno));
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u32 = static_cast<uint32_t>(connections_.size() - 1);
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
    return ask(connections_.back());
  }

  Result<void> ask(const Connection& one) {
    if (send(one.fd, request_.data(), request_.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request_.size())) {
      return fail("a request could not be sent: {}", std::strerror(errno));
    }
    return {};
  }

  // Reads what is there; true: that was the rest of a response, and the next one is asked for.
  Result<bool> take(Connection& one) {
    if (one.left == 0) {
      std::array<char, kHeadSize> bytes;
      const ssize_t got = recv(one.fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
      if (got < 0 && errno == EAGAIN) return false;
      if (got <= 0) return fail("a connection was closed");
      const std::string_view text(bytes.data(), static_cast<size_t>(got));
      constexpr std::string_view kLength = "\r\nContent-Length: ";
      const size_t head = text.find("\r\n\r\n");
      const size_t at = text.find(kLength);
      uint64_t length = 0;
      if (!text.starts_with("HTTP/1.1 200 ") || head == text.npos || at > head ||
          std::from_chars(text.data() + at + kLength.size(), text.data() + head, length).ec !=
              std::errc() ||
          length != options_.size || text.size() - head - 4 > length) {
        return fail("not a whole head with status 200 and {} bytes: {}", options_.size,
                    text.substr(0, std::min(head, text.size())));
      }
      one.left = length - (text.size() - head - 4);
    }
    if (one.left > 0) {
      const ssize_t got = recv(one.fd, nullptr, one.left, MSG_DONTWAIT | MSG_TRUNC);
      if (got < 0 && errno == EAGAIN) return false;
      if (got <= 0) return fail("a connection was closed within a body");
      one.left -= static_cast<uint64_t>(got);
    }
    if (one.left > 0) return false;
    if (auto asked = ask(one); !asked) return tl::unexpected(asked.error());
    return true;
  }

  const DrainOptions& options_;
  std::string request_;
  int epoll_;
  std::vector<Connection> connections_;
};

}  // namespace

Result<DrainResult> run_drain(const DrainOptions& options) {
  Result<DrainResult> result;
  std::thread([&] {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    for (const int cpu : options.cpus) CPU_SET(static_cast<size_t>(cpu), &cpus);
    if (!options.cpus.empty() && sched_setaffinity(0, sizeof cpus, &cpus) != 0) {
      result = fail("cannot choose the client's CPU: {}", std::strerror(errno));
    } else {
      result = Drain(options).run();
    }
  }).join();
  return result;
}

}  // namespace mcs::loadtest
