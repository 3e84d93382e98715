// SPDX-License-Identifier: Apache-2.0
#include "loadtest/harness/origin.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

#include "loadtest/harness/listener.h"
#include "loadtest/harness/net.h"

namespace mcs::loadtest {

namespace {

constexpr uint64_t kForAll = uint64_t{1} << 40;

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

// Value of the first "Name: value" line of this name.
std::string field_of(const std::vector<std::string>& lines, std::string_view name) {
  for (const std::string& line : lines) {
    const size_t colon = line.find(':');
    if (colon != std::string::npos && same_name(std::string_view(line).substr(0, colon), name)) {
      const size_t value = line.find_first_not_of(' ', colon + 1);
      return value == std::string::npos ? std::string() : line.substr(value);
    }
  }
  return {};
}

// The header section `head`, without its empty line. False: it is no request.
bool parse_head(const std::string& head, OriginRequest& request, bool& http10) {
  size_t end = head.find("\r\n");
  const std::string line = head.substr(0, end);
  const size_t target = line.find(' ');
  const size_t version = line.rfind(' ');
  if (target == std::string::npos || version <= target) {
    return false;
  }
  request.method = line.substr(0, target);
  request.target = line.substr(target + 1, version - target - 1);
  http10 = line.substr(version + 1) == "HTTP/1.0";
  while (end != std::string::npos) {
    const size_t begin = end + 2;
    end = head.find("\r\n", begin);
    const std::string field = head.substr(begin, end == std::string::npos ? end : end - begin);
    const size_t colon = field.find(':');
    if (colon == std::string::npos) {
      return false;
    }
    const size_t value = std::min(field.find_first_not_of(' ', colon + 1), field.size());
    request.headers.emplace_back(field.substr(0, colon), field.substr(value));
  }
  return true;
}

}  // namespace

std::string OriginRequest::header(std::string_view name) const {
  for (const auto& [field, value] : headers) {
    if (same_name(field, name)) {
      return value;
    }
  }
  return {};
}

bool OriginRequest::has_header(std::string_view name) const {
  return std::any_of(headers.begin(), headers.end(),
                     [&](const auto& field) { return same_name(field.first, name); });
}

Gate::Gate() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)) {
  if (fd_ < 0) {
    throw std::runtime_error("no eventfd for a gate");
  }
}

Gate::~Gate() { close(fd_); }

void Gate::admit(unsigned waits) { (void)eventfd_write(fd_, waits); }

void Gate::open() { (void)eventfd_write(fd_, kForAll); }

uint16_t OriginExchange::client_port() const {
  sockaddr_in address = {};
  socklen_t size = sizeof address;
  getpeername(fd_, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

void OriginExchange::write(std::string_view bytes) {
  while (!bytes.empty() && !broken_) {
    const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (errno != EINTR) {
      broken_ = true;
    }
  }
}

void OriginExchange::send_head(const OriginAnswer& answer) {
  framing_ =
      answer.framing == OriginAnswer::kChunked && http10_ ? OriginAnswer::kClose : answer.framing;
  no_body_ = request_.method == "HEAD" || answer.status == 304 || answer.status == 204;
  std::string head = fmt::format("HTTP/1.1 {} Scripted\r\n", answer.status);
  for (const std::string& line : answer.headers) {
    head += line + "\r\n";
  }
  if (framing_ == OriginAnswer::kClose) {
    close_ = true;
    head += "Connection: close\r\n";
  } else if (answer.status != 304 && answer.status != 204) {
    head += framing_ == OriginAnswer::kChunked
                ? "Transfer-Encoding: chunked\r\n"
                : fmt::format("Content-Length: {}\r\n", answer.body.size());
  }
  write(head + "\r\n");
}

void OriginExchange::send_body(std::string_view bytes) {
  if (no_body_ || bytes.empty()) {
    return;
  }
  if (framing_ == OriginAnswer::kChunked) {
    write(fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes));
  } else {
    write(bytes);
  }
}

void OriginExchange::end_body() {
  if (!no_body_ && framing_ == OriginAnswer::kChunked) {
    write("0\r\n\r\n");
  }
}

void OriginExchange::answer(const OriginAnswer& answer) {
  send_head(answer);
  send_body(answer.body);
  end_body();
}

void OriginExchange::answer_or_304(const OriginAnswer& full) {
  const std::string etag = field_of(full.headers, "ETag");
  const std::string modified = field_of(full.headers, "Last-Modified");
  const bool tagged = request_.has_header("If-None-Match");
  const bool same = tagged ? !etag.empty() && request_.header("If-None-Match") == etag
                           : !modified.empty() && request_.header("If-Modified-Since") == modified;
  if (!same) {
    answer(full);
    return;
  }
  OriginAnswer unchanged = full;
  unchanged.status = 304;
  answer(unchanged);
}

void OriginExchange::send_raw(std::string_view bytes) {
  close_ = true;
  write(bytes);
}

void OriginExchange::reset() {
  const linger at_once{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  // Only close() resets; the number stays taken until the connection's thread ends.
  const int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  dup3(other, fd_, O_CLOEXEC);
  close(other);
  close_ = true;
}

bool OriginExchange::wait(Gate& gate) {
  for (;;) {
    pollfd fds[] = {{gate.fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}, {fd_, POLLRDHUP, 0}};
    if (poll(fds, std::size(fds), -1) < 0) {
      continue;
    }
    eventfd_t passed = 0;
    if (fds[0].revents != 0 && eventfd_read(gate.fd_, &passed) == 0) {
      return true;
    }
    if (fds[1].revents != 0) {
      return false;
    }
    if (fds[2].revents != 0) {
      broken_ = true;
      return false;
    }
  }
}

Origin::Origin() : stop_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  port_ = free_port();
  up();
}

Origin::~Origin() {
  (void)eventfd_write(stop_fd_, 1);
  down();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return connections_.empty(); });
  close(stop_fd_);
}

std::string Origin::url(std::string_view path) const {
  return fmt::format("http://127.0.0.1:{}{}", port_, path);
}

void Origin::on(const std::string& path, Script script) {
  const std::lock_guard lock(mutex_);
  scripts_[path] = std::move(script);
}

void Origin::on(const std::string& path, OriginAnswer answer) {
  on(path, [answer = std::move(answer)](OriginExchange& exchange) { exchange.answer(answer); });
}

void Origin::listen() { listener_ = listen_on(port_); }

void Origin::up() {
  if (listener_ >= 0) {
    return;
  }
  listen();
  acceptor_ = std::thread([this, fd = listener_] { accept_all(fd); });
}

void Origin::down() {
  if (listener_ < 0) {
    return;
  }
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  close(listener_);
  listener_ = -1;
  close_connections();
}

void Origin::close_connections() {
  const std::lock_guard lock(mutex_);
  for (const int fd : connections_) {
    shutdown(fd, SHUT_RDWR);
  }
}

void Origin::accept_all(int listener) {
  for (;;) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) {
      return;
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const std::lock_guard lock(mutex_);
    connections_.push_back(fd);
    std::thread([this, fd] { serve(fd); }).detach();
  }
}

void Origin::serve(int fd) {
  std::string buffer;
  while (serve_one(fd, buffer)) {
  }
  shutdown(fd, SHUT_WR);
  const std::lock_guard lock(mutex_);
  close(fd);
  std::erase(connections_, fd);
  changed_.notify_all();
}

// False: the connection is at its end.
bool Origin::serve_one(int fd, std::string& buffer) {
  constexpr std::string_view kEnd = "\r\n\r\n";
  const auto fill = [&] {
    char bytes[16384];
    const ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    if (n > 0) {
      buffer.append(bytes, static_cast<size_t>(n));
    }
    return n > 0;
  };
  size_t end;
  while ((end = buffer.find(kEnd)) == std::string::npos) {
    if (!fill()) {
      return false;
    }
  }
  OriginRequest request;
  bool http10 = false;
  if (!parse_head(buffer.substr(0, end), request, http10)) {
    return false;
  }
  buffer.erase(0, end + kEnd.size());
  const size_t length = std::strtoul(request.header("Content-Length").c_str(), nullptr, 10);
  constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  if (buffer.size() < length && request.header("Expect") == "100-continue" &&
      ::send(fd, kContinue.data(), kContinue.size(), MSG_NOSIGNAL) < 0) {
    return false;
  }
  while (buffer.size() < length) {
    if (!fill()) {
      return false;
    }
  }
  request.body = buffer.substr(0, length);
  buffer.erase(0, length);

  const std::string path = request.path();
  Script script;
  {
    const std::lock_guard lock(mutex_);
    request.number = ++counts_[path];
    requests_.push_back(request);
    auto found = scripts_.find(path);
    if (found == scripts_.end()) {
      found = scripts_.find("*");
    }
    if (found != scripts_.end()) {
      script = found->second;
    }
    changed_.notify_all();
  }
  const bool keep_alive = same_name(request.header("Connection"), "keep-alive") ||
                          (!http10 && !same_name(request.header("Connection"), "close"));
  OriginExchange exchange(fd, stop_fd_, http10, std::move(request));
  if (script) {
    script(exchange);
  } else {
    exchange.answer({404, {}, "the origin has no script for this path\n"});
  }
  if (exchange.broken_) {
    const std::lock_guard lock(mutex_);
    ++broken_[path];
    changed_.notify_all();
  }
  return keep_alive && !exchange.close_ && !exchange.broken_;
}

std::vector<OriginRequest> Origin::requests(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  std::vector<OriginRequest> selected;
  for (const OriginRequest& request : requests_) {
    if (path.empty() || request.path() == path) {
      selected.push_back(request);
    }
  }
  return selected;
}

size_t Origin::count(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  const auto found = counts_.find(path);
  return path.empty() ? requests_.size() : found == counts_.end() ? 0 : found->second;
}

size_t Origin::broken(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  const auto found = broken_.find(path);
  return found == broken_.end() ? 0 : found->second;
}

bool Origin::wait_for_requests(const std::string& path, size_t count,
                               std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return counts_[path] >= count; });
}

bool Origin::wait_for_broken(const std::string& path, size_t count,
                             std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return broken_[path] >= count; });
}

}  // namespace mcs::loadtest
