// SPDX-License-Identifier: Apache-2.0
#include "tests/servers/responder.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "loadtest/harness/listener.h"
#include "loadtest/harness/net.h"

namespace mcs::loadtest {

namespace {

// FastCGI 1.0: https://fastcgi-archives.github.io/FastCGI_Specification.html
enum : unsigned char { kBegin = 1, kEnd = 3, kParams = 4, kStdin = 5, kStdout = 6 };

class Stream {
 public:
  explicit Stream(int fd) : fd_(fd) {}

  // Exactly so many bytes; fewer at the end of the connection.
  std::string take(size_t count) {
    std::string bytes(count, '\0');
    size_t got = 0;
    while (got < count) {
      const ssize_t n = recv(fd_, bytes.data() + got, count - got, 0);
      if (n <= 0) break;
      got += static_cast<size_t>(n);
    }
    bytes.resize(got);
    return bytes;
  }
  std::string take_until(char end) {
    std::string bytes;
    for (std::string one = take(1); !one.empty() && one[0] != end; one = take(1)) bytes += one;
    return bytes;
  }
  void put(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }

 private:
  int fd_;
};

unsigned byte_at(std::string_view bytes, size_t at) {
  return at < bytes.size() ? static_cast<unsigned char>(bytes[at]) : 0;
}

std::string record(unsigned char type, std::string_view content) {
  std::string bytes{1, static_cast<char>(type), 0, 1};
  bytes += static_cast<char>(content.size() >> 8);
  bytes += static_cast<char>(content.size() & 255);
  bytes.append(2, '\0');
  return bytes.append(content);
}

size_t fastcgi_length(std::string_view bytes, size_t& at) {
  const size_t first = byte_at(bytes, at++);
  if (first < 128) return first;
  const size_t length = (first & 127) << 24 | byte_at(bytes, at) << 16 |
                        byte_at(bytes, at + 1) << 8 | byte_at(bytes, at + 2);
  at += 3;
  return length;
}

ProgramRequest read_fastcgi(Stream& stream) {
  ProgramRequest request;
  std::string params;
  for (;;) {
    const std::string head = stream.take(8);
    if (head.size() < 8) break;
    const size_t length = byte_at(head, 4) << 8 | byte_at(head, 5);
    const std::string content = stream.take(length);
    stream.take(byte_at(head, 6));
    if (head[1] == kParams) params += content;
    if (head[1] == kStdin) request.body += content;
    if (head[1] == kStdin && length == 0) break;
  }
  for (size_t at = 0; at < params.size();) {
    const size_t name = fastcgi_length(params, at);
    const size_t value = fastcgi_length(params, at);
    request.variables[params.substr(at, name)] = params.substr(at + name, value);
    at += name + value;
  }
  return request;
}

void write_fastcgi(Stream& stream, std::string_view text) {
  constexpr size_t kMost = 65535;
  for (; !text.empty(); text.remove_prefix(std::min(kMost, text.size()))) {
    stream.put(record(kStdout, text.substr(0, kMost)));
  }
  stream.put(record(kStdout, "") + record(kEnd, std::string(8, '\0')));
}

ProgramRequest read_uwsgi(Stream& stream) {
  ProgramRequest request;
  const std::string head = stream.take(4);
  const std::string block = stream.take(byte_at(head, 1) | byte_at(head, 2) << 8);
  const auto text = [&](size_t& at) {
    const size_t length = byte_at(block, at) | byte_at(block, at + 1) << 8;
    const std::string result = at + 2 <= block.size() ? block.substr(at + 2, length) : "";
    at += 2 + length;
    return result;
  };
  for (size_t at = 0; at < block.size();) {
    const std::string name = text(at);
    request.variables[name] = text(at);
  }
  return request;
}

ProgramRequest read_scgi(Stream& stream) {
  ProgramRequest request;
  const std::string block = stream.take(std::strtoul(stream.take_until(':').c_str(), nullptr, 10));
  stream.take(1);
  for (size_t at = 0; at < block.size();) {
    const std::string name = block.c_str() + at;
    const std::string value =
        at + name.size() + 1 < block.size() ? block.c_str() + at + name.size() + 1 : "";
    request.variables[name] = value;
    at += name.size() + value.size() + 2;
  }
  return request;
}

}  // namespace

Responder::Responder(ResponderProtocol protocol, Program program)
    : protocol_(protocol),
      program_(std::move(program)),
      port_(free_port()),
      listener_(listen_on(port_)) {
  thread_ = std::thread([this] { serve(); });
}

Responder::~Responder() {
  shutdown(listener_, SHUT_RDWR);
  thread_.join();
  close(listener_);
}

size_t Responder::count(const std::string& uri) const {
  const std::lock_guard lock(mutex_);
  const auto found = counts_.find(uri);
  return found == counts_.end() ? 0 : found->second;
}

void Responder::serve() {
  for (int fd; (fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
    answer(fd);
    close(fd);
  }
}

void Responder::answer(int fd) {
  Stream stream(fd);
  ProgramRequest request = protocol_ == ResponderProtocol::kFastCgi ? read_fastcgi(stream)
                           : protocol_ == ResponderProtocol::kUwsgi ? read_uwsgi(stream)
                                                                    : read_scgi(stream);
  if (request.variables.empty()) return;  // somebody only looked whether the port is open
  if (protocol_ != ResponderProtocol::kFastCgi) {
    request.body = stream.take(std::strtoul(request.get("CONTENT_LENGTH").c_str(), nullptr, 10));
  }
  {
    const std::lock_guard lock(mutex_);
    request.number = ++counts_[request.get("REQUEST_URI")];
  }
  const ProgramAnswer answer = program_(request);
  std::string text = protocol_ == ResponderProtocol::kUwsgi
                         ? fmt::format("HTTP/1.1 {} Scripted\r\n", answer.status)
                         : fmt::format("Status: {}\r\n", answer.status);
  for (const std::string& header : answer.headers) text += header + "\r\n";
  text += "\r\n" + answer.body;
  if (protocol_ == ResponderProtocol::kFastCgi) {
    write_fastcgi(stream, text);
  } else {
    stream.put(text);
  }
  shutdown(fd, SHUT_WR);
  stream.take(1);  // until the server has closed, so that nothing is reset
}

}  // namespace mcs::loadtest
