// SPDX-License-Identifier: Apache-2.0
#include "tests/loadtest/tiny_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace mcs::loadtest {

TinyServer::TinyServer(Handler handler)
    : handler_(std::move(handler)), listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
  listen(listener_, 128);
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] {
    for (;;) {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      const std::lock_guard lock(mutex_);
      if (fd < 0 || stopping_) {
        if (fd >= 0) {
          close(fd);
        }
        return;
      }
      fds_.push_back(fd);
      connections_.emplace_back([this, fd] { serve(fd); });
    }
  });
}

TinyServer::~TinyServer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    shutdown(listener_, SHUT_RDWR);
    for (const int fd : fds_) {
      shutdown(fd, SHUT_RDWR);
    }
  }
  acceptor_.join();
  for (std::thread& connection : connections_) {
    connection.join();
  }
  for (const int fd : fds_) {
    close(fd);
  }
  close(listener_);
}

std::vector<std::string> TinyServer::paths() const {
  const std::lock_guard lock(mutex_);
  return paths_;
}

void TinyServer::serve(int fd) {
  std::string buffer;
  char bytes[4096];
  for (;;) {
    const size_t end = buffer.find("\r\n\r\n");
    if (end == std::string::npos) {
      const ssize_t got = recv(fd, bytes, sizeof bytes, 0);
      if (got <= 0) {
        break;
      }
      buffer.append(bytes, static_cast<size_t>(got));
      continue;
    }
    const size_t path = buffer.find(' ') + 1;
    const std::string target = buffer.substr(path, buffer.find(' ', path) - path);
    buffer.erase(0, end + 4);
    {
      const std::lock_guard lock(mutex_);
      paths_.push_back(target);
    }
    const TinyAnswer answer = handler_(target);
    for (size_t sent = 0; sent < answer.bytes.size();) {
      const ssize_t n =
          send(fd, answer.bytes.data() + sent, answer.bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) {
        break;
      }
      sent += static_cast<size_t>(n);
    }
    if (answer.then == TinyAnswer::kReset) {
      const linger reset{1, 0};
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
      // Only close() resets; the number stays taken until the destructor.
      const int null = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      dup2(null, fd);
      close(null);
      return;
    }
    if (answer.then == TinyAnswer::kClose) {
      break;
    }
    if (answer.then == TinyAnswer::kHang) {
      while (recv(fd, bytes, sizeof bytes, 0) > 0) {
      }
      return;
    }
  }
  shutdown(fd, SHUT_RDWR);
}

std::string ok_response(const std::string& body, const std::string& fields) {
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + fields +
         "\r\n" + body;
}

}  // namespace mcs::loadtest
