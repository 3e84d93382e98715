// SPDX-License-Identifier: Apache-2.0
#include "loadtest/proxied/clients.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

#include "loadtest/harness/process.h"

namespace mcs::loadtest {

HerdClients::HerdClients(std::string path, std::string_view body)
    : request_(fmt::format("GET {} HTTP/1.1\r\nHost: herd\r\n\r\n", path)),
      body_(body),
      epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  if (epoll_ < 0) throw std::runtime_error("no epoll for a herd of clients");
}

HerdClients::~HerdClients() {
  for (const int fd : sockets_) {
    if (fd >= 0) close(fd);
  }
  close(epoll_);
}

Result<void> HerdClients::connect(int server, int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    const int reason = errno;
    if (fd >= 0) close(fd);
    return fail("client {} cannot connect: {}", clients_.size() + 1, std::strerror(reason));
  }
  socklen_t size = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = clients_.size();
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  HerdClient client;
  client.server = server;
  client.port = ntohs(address.sin_port);
  clients_.push_back(client);
  sockets_.push_back(fd);
  heads_.emplace_back();
  return {};
}

void HerdClients::ask(size_t client) {
  clients_[client].asked_ns = monotonic_ns();
  const ssize_t sent = send(sockets_[client], request_.data(), request_.size(), MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(request_.size())) fail_client(client, "cannot send");
}

void HerdClients::run(std::chrono::milliseconds timeout, const std::function<bool()>& done) {
  const uint64_t until = monotonic_ns() + static_cast<uint64_t>(timeout.count()) * 1'000'000;
  epoll_event events[128];
  while (!done()) {
    const uint64_t now = monotonic_ns();
    if (now >= until) return;
    const int count = epoll_wait(epoll_, events, std::size(events),
                                 static_cast<int>((until - now) / 1'000'000) + 1);
    for (int i = 0; i < count; ++i) receive(events[i].data.u64);
  }
}

void HerdClients::receive(size_t client) {
  char buffer[65536];
  const ssize_t got = recv(sockets_[client], buffer, sizeof buffer, 0);
  if (got > 0) {
    take(client, {buffer, static_cast<size_t>(got)});
  } else if (got == 0) {
    fail_client(client, fmt::format("closed after {} bytes", clients_[client].received));
  } else if (errno != EAGAIN && errno != EINTR) {
    fail_client(client,
                fmt::format("{} after {} bytes", std::strerror(errno), clients_[client].received));
  }
}

void HerdClients::fail_client(size_t client, std::string reason) {
  HerdClient& c = clients_[client];
  if (sockets_[client] >= 0) close(sockets_[client]);
  sockets_[client] = -1;
  if (c.ended()) return;
  c.failure = std::move(reason);
  c.failed_ns = monotonic_ns();
  if (c.first_ns == 0) ++began_;
  ++ended_;
}

size_t HerdClients::take_head(size_t client, std::string_view bytes) {
  std::string& head = heads_[client];
  const size_t before = head.size();
  head += bytes;
  const size_t end = head.find("\r\n\r\n");
  if (end == std::string::npos) {
    if (head.size() > 16384) fail_client(client, "no end of the head");
    return std::string::npos;
  }
  const size_t begin = end + 4 - before;
  head.resize(end + 2);
  if (!head.starts_with("HTTP/1.1 200 ")) {
    fail_client(client, head.substr(0, head.find('\r')));
    return std::string::npos;
  }
  const std::string wanted = fmt::format("\r\nContent-Length: {}\r\n", body_.size());
  if (strcasestr(head.c_str(), wanted.c_str()) == nullptr) {
    fail_client(client, "wrong or no Content-Length");
    return std::string::npos;
  }
  return begin;
}

void HerdClients::take(size_t client, std::string_view bytes) {
  HerdClient& c = clients_[client];
  if (c.last_ns != 0) return fail_client(client, "more than the body");
  if (!heads_[client].ends_with("\r\n") || heads_[client].empty()) {
    const size_t begin = take_head(client, bytes);
    if (begin == std::string::npos) return;
    bytes.remove_prefix(begin);
  }
  if (bytes.empty()) return;
  if (c.first_ns == 0) {
    c.first_ns = monotonic_ns();
    ++began_;
  }
  if (body_.substr(std::min(c.received, body_.size()), bytes.size()) != bytes) {
    return fail_client(
        client, fmt::format("WRONG BYTE within {} bytes from {} on", bytes.size(), c.received));
  }
  c.received += bytes.size();
  if (c.received == body_.size()) {
    c.last_ns = monotonic_ns();
    ++ended_;
  }
}

}  // namespace mcs::loadtest
