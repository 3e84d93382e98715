// SPDX-License-Identifier: Apache-2.0
#include "gsm-emu/internal/place.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace mcs::gsm {
namespace {

constexpr std::size_t kMostBytes = 1024;

}  // namespace

Result<void> write_place(const std::string& path, const Place& place, unsigned mode) {
  const std::string text =
      fmt::format("mcs-device {} {} {}\n", place.offset, place.bytes, place.device);
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  const bool written = fd >= 0 && text.size() < kMostBytes &&
                       ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int error = errno;
  if (fd >= 0) {
    ::fchmod(fd, mode);
    ::close(fd);
  }
  if (written) return {};
  return fail(ErrorCode::kSystem, fmt::format("cannot write {}: {}", path, std::strerror(error)));
}

std::optional<Place> read_place(int fd) {
  std::array<char, kMostBytes> text{};
  const ssize_t got = ::pread(fd, text.data(), text.size() - 1, 0);
  if (got <= 0 || text[static_cast<std::size_t>(got) - 1] != '\n') return std::nullopt;
  text[static_cast<std::size_t>(got) - 1] = '\0';
  Place place;
  unsigned long long offset = 0;
  unsigned long long bytes = 0;
  int path_at = 0;
  if (std::sscanf(text.data(), "mcs-device %llu %llu %n", &offset, &bytes, &path_at) != 2 ||
      text[static_cast<std::size_t>(path_at)] != '/') {
    return std::nullopt;
  }
  place.offset = offset;
  place.bytes = bytes;
  place.device = text.data() + path_at;
  return place;
}

}  // namespace mcs::gsm
