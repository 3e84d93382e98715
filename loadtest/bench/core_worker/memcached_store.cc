// SPDX-License-Identifier: Apache-2.0
// memcached over its unix socket, with its text protocol, one request at a time.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <stdexcept>

#include "loadtest/bench/core_worker/store.h"

namespace mcs::loadtest::core {
namespace {

class MemcachedStore final : public Store {
 public:
  explicit MemcachedStore(const StoreOptions& options)
      : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = options.directory + "/memcached";
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    if (fd_ < 0 ||
        ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      throw std::runtime_error("memcached does not listen at " + path);
    }
  }
  ~MemcachedStore() override { ::close(fd_); }

  bool get(std::uint64_t number, Value& to) override {
    request_.assign("get ").append(KeyText(number).view()).append("\r\n");
    if (!exchange("END\r\n")) return false;
    const std::size_t value = answer_.find('\n') + 1;
    if (value == 0 || answer_.size() < value + sizeof to + 2) return false;
    std::memcpy(&to, answer_.data() + value, sizeof to);
    return true;
  }

  bool put(std::uint64_t number) override {
    const Value value = value_of(number);
    request_.assign("set ").append(KeyText(number).view()).append(" 0 0 128\r\n");
    static_assert(sizeof value == 128);
    request_.append(reinterpret_cast<const char*>(&value), sizeof value).append("\r\n");
    return exchange("STORED\r\n");
  }

  // It has its own idea of what goes.
  bool displace(std::uint64_t number, std::uint64_t) override { return put(number); }

 private:
  bool exchange(std::string_view end) {
    if (::send(fd_, request_.data(), request_.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request_.size())) {
      return false;
    }
    answer_.clear();
    while (!answer_.ends_with(end)) {
      char buffer[1024];
      const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
      if (n <= 0) return false;
      answer_.append(buffer, static_cast<std::size_t>(n));
      if (answer_.compare(0, 6, "SERVER") == 0 || answer_.compare(0, 5, "ERROR") == 0) return false;
    }
    return true;
  }

  int fd_;
  std::string request_;
  std::string answer_;
};

}  // namespace

std::unique_ptr<Store> make_memcached_store(const StoreOptions& options) {
  return std::make_unique<MemcachedStore>(options);
}

}  // namespace mcs::loadtest::core
