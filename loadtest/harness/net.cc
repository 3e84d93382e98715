// SPDX-License-Identifier: Apache-2.0
#include "loadtest/harness/net.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <random>
#include <stdexcept>

namespace mcs::loadtest {

namespace {

sockaddr_in loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int connect_to(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(port);
  if (fd >= 0 && connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  return fd;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) {
    text.remove_prefix(1);
  }
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) {
    text.remove_suffix(1);
  }
  return text;
}

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace

int free_port() {
  constexpr int kFirst = 20'000;
  constexpr int kLast = 32'000;
  static thread_local std::mt19937 random{std::random_device{}()};
  std::uniform_int_distribution<int> ports(kFirst, kLast);
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const int port = ports(random);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = loopback(port);
    const bool free = fd >= 0 &&
                      bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
                      listen(fd, 1) == 0;
    close(fd);
    if (free) {
      return port;
    }
  }
  throw std::runtime_error("no free port on 127.0.0.1 between 20000 and 32000");
}

bool can_connect(int port) {
  const int fd = connect_to(port);
  if (fd >= 0) {
    close(fd);
  }
  return fd >= 0;
}

std::string RawResponse::header(std::string_view name) const {
  for (const auto& [field, value] : headers) {
    if (same_name(field, name)) {
      return value;
    }
  }
  return {};
}

Result<RawConnection> RawConnection::open(int port, std::chrono::milliseconds timeout) {
  const int fd = connect_to(port);
  if (fd < 0) {
    return fail("cannot connect to 127.0.0.1:{}: {}", port, std::strerror(errno));
  }
  return RawConnection(fd, timeout);
}

RawConnection::RawConnection(RawConnection&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      timeout_(other.timeout_),
      buffer_(std::move(other.buffer_)) {}

RawConnection& RawConnection::operator=(RawConnection&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(timeout_, other.timeout_);
  std::swap(buffer_, other.buffer_);
  return *this;
}

RawConnection::~RawConnection() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

Result<void> RawConnection::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EINTR) {
      return fail("cannot send: {}", std::strerror(errno));
    }
    bytes.remove_prefix(sent > 0 ? static_cast<size_t>(sent) : 0);
  }
  return {};
}

Result<bool> RawConnection::fill(size_t limit) {
  pollfd event{fd_, POLLIN, 0};
  const int ready = poll(&event, 1, static_cast<int>(timeout_.count()));
  if (ready == 0) {
    return fail("no answer within {} ms", timeout_.count());
  }
  char bytes[65536];
  const ssize_t got = recv(fd_, bytes, std::min(limit, sizeof bytes), 0);
  if (got < 0) {
    return fail("cannot receive: {}", std::strerror(errno));
  }
  buffer_.append(bytes, static_cast<size_t>(got));
  return got > 0;
}

Result<RawResponse> RawConnection::read_response(bool head) {
  size_t head_end;
  while ((head_end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    const auto more = fill();
    if (!more) {
      return tl::unexpected(more.error());
    }
    if (!*more) {
      return fail("the connection was closed after {} bytes, before the end of a response head",
                  buffer_.size());
    }
  }
  RawResponse response;
  std::string_view lines = std::string_view(buffer_).substr(0, head_end);
  for (bool first = true; !lines.empty(); first = false) {
    const size_t end = std::min(lines.find("\r\n"), lines.size());
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 2, lines.size()));
    if (first) {
      response.status_line = line;
      const size_t blank = line.find(' ');
      response.status =
          blank == std::string_view::npos ? 0 : std::atoi(std::string(line.substr(blank)).c_str());
    } else if (const size_t colon = line.find(':'); colon != std::string_view::npos) {
      response.headers.emplace_back(line.substr(0, colon), trim(line.substr(colon + 1)));
    }
  }

  size_t position = head_end + 4;
  // Makes buffer_ hold `end` bytes; false when the connection ends before.
  const auto need = [&](size_t end) -> Result<bool> {
    while (buffer_.size() < end) {
      const auto more = fill();
      if (!more || !*more) {
        return more;
      }
    }
    return true;
  };
  const std::string length = response.header("Content-Length");
  if (head || response.status == 304 || response.status == 204 || response.status / 100 == 1) {
    // no body
  } else if (same_name(response.header("Transfer-Encoding"), "chunked")) {
    for (size_t size = 1; size != 0;) {
      size_t line_end;
      while ((line_end = buffer_.find("\r\n", position)) == std::string::npos) {
        const auto more = need(buffer_.size() + 1);
        if (!more || !*more) {
          return fail("the connection was closed within a chunk's size");
        }
      }
      size = std::strtoul(buffer_.c_str() + position, nullptr, 16);
      position = line_end + 2;
      const auto more = need(position + size + 2);
      if (!more || !*more) {
        return fail("the connection was closed within a chunk of {} bytes", size);
      }
      response.body.append(buffer_, position, size);
      position += size + 2;
    }
  } else if (!length.empty()) {
    const size_t size = std::strtoul(length.c_str(), nullptr, 10);
    const auto more = need(position + size);
    if (!more) {
      return tl::unexpected(more.error());
    }
    if (!*more) {
      return fail("the connection was closed after {} of {} body bytes", buffer_.size() - position,
                  size);
    }
    response.body = buffer_.substr(position, size);
    position += size;
  } else {
    const auto end = need(SIZE_MAX);
    if (!end) {
      return tl::unexpected(end.error());
    }
    response.body = buffer_.substr(position);
    position = buffer_.size();
  }
  response.bytes = buffer_.substr(0, position);
  buffer_.erase(0, position);
  return response;
}

Result<std::string> RawConnection::read_to_close() {
  for (;;) {
    const auto more = fill();
    if (!more) {
      return tl::unexpected(more.error());
    }
    if (!*more) {
      return std::exchange(buffer_, {});
    }
  }
}

Result<std::string> RawConnection::read_some(size_t limit) {
  if (buffer_.empty()) {
    // No more than asked for is taken from the kernel, so that a slow reader is really slow.
    const auto more = fill(limit);
    if (!more) {
      return tl::unexpected(more.error());
    }
  }
  std::string bytes = buffer_.substr(0, limit);
  buffer_.erase(0, bytes.size());
  return bytes;
}

void RawConnection::shutdown_sending() { shutdown(fd_, SHUT_WR); }

void RawConnection::set_receive_buffer(int bytes) {
  setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

uint16_t RawConnection::local_port() const {
  sockaddr_in address = {};
  socklen_t size = sizeof address;
  getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

}  // namespace mcs::loadtest
