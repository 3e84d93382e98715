// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/api/wake.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace mcs::api {
namespace {

bool address_of(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return true;
}

}  // namespace

WakeSocket::WakeSocket(const std::string& path, unsigned mode) : path_(path) {
  sockaddr_un address;
  if (!address_of(path, address)) return;
  fd_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return;
  ::unlink(path.c_str());
  if (::bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    ::close(fd_);
    fd_ = -1;
    return;
  }
  ::chmod(path.c_str(), mode);
}

WakeSocket::~WakeSocket() {
  hide();
  if (fd_ >= 0) ::close(fd_);
}

void WakeSocket::hide() {
  if (fd_ >= 0 && !path_.empty()) ::unlink(path_.c_str());
  path_.clear();
}

void WakeSocket::move_to(const std::string& path) {
  if (fd_ < 0 || ::rename(path_.c_str(), path.c_str()) != 0) return;
  path_ = path;
}

bool WakeSocket::drain() {
  bool any = false;
  char bytes[64];
  while (::recv(fd_, bytes, sizeof bytes, MSG_DONTWAIT) >= 0) any = true;
  return any;
}

std::string WakeSocket::path_for(const std::string& domain_path, std::uint32_t slot) {
  return fmt::format("{}/wake.{}", domain_path, slot);
}

void WakeSocket::send(int fd, const std::string& path) {
  sockaddr_un address;
  if (fd < 0 || !address_of(path, address)) return;
  (void)::sendto(fd, "w", 1, MSG_DONTWAIT | MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

}  // namespace mcs::api
