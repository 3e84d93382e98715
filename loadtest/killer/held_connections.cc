// SPDX-License-Identifier: Apache-2.0
#include "loadtest/killer/held_connections.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace mcs::loadtest {

namespace fs = std::filesystem;

namespace {

// Port of one end, 0 when there is none or it is no IPv4 socket.
template <class Call>
uint16_t port_of(int fd, Call call) {
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  if (call(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 || address.ss_family != AF_INET) {
    return 0;
  }
  return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

}  // namespace

Result<std::vector<HeldConnection>> held_connections(pid_t pid, int pidfd) {
  std::vector<HeldConnection> held;
  std::error_code error;
  const std::string directory = fmt::format("/proc/{}/fd", pid);
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    std::error_code gone;
    if (!fs::read_symlink(it->path(), gone).string().starts_with("socket:")) {
      continue;
    }
    const int number = std::atoi(it->path().filename().c_str());
    const int fd = static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, number, 0));
    if (fd < 0) {
      if (errno == EBADF) {
        continue;  // closed meanwhile; cannot happen while it is stopped
      }
      return fail(
          "cannot look at the sockets of process {} ({}): run as root, in a container with "
          "CAP_SYS_PTRACE",
          pid, std::strerror(errno));
    }
    const uint16_t local = port_of(fd, getsockname);
    const uint16_t remote = port_of(fd, getpeername);
    close(fd);
    if (local != 0 && remote != 0) {
      held.push_back({local, remote});
    }
  }
  if (error) {
    return fail("cannot list {} ({}): run as root, in a container with CAP_SYS_PTRACE", directory,
                error.message());
  }
  return held;
}

}  // namespace mcs::loadtest
