// SPDX-License-Identifier: Apache-2.0
#include "gsm-emu/internal/sent_pages.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <string>

namespace mcs::gsm {
namespace {

constexpr std::size_t kPage = 4096;
using Page = std::array<char, kPage>;

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

// As its mount says, and the setting that overrides it.
bool may_have_huge_pages(dev_t device) {
  std::string word;
  std::ifstream setting("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  while (setting >> word) {
    if (word == "[force]") return true;
  }
  const std::string id = fmt::format(" {}:{} ", major(device), minor(device));
  std::ifstream mounts("/proc/self/mountinfo");
  bool found = false;
  for (std::string line; std::getline(mounts, line);) {
    if (line.find(id) == std::string::npos) continue;
    found = true;
    const std::size_t option = line.find("huge=");
    if (option != std::string::npos && line.compare(option, 10, "huge=never") != 0) return true;
  }
  return !found;
}

bool survives_punching(int directory_of) {
  // In the same directory, whose tmpfs it must be.
  const std::string directory = fmt::format("/proc/self/fd/{}", directory_of);
  std::array<char, 4096> path{};
  const ssize_t n = ::readlink(directory.c_str(), path.data(), path.size() - 1);
  if (n <= 0) return false;
  std::string parent(path.data(), static_cast<std::size_t>(n));
  parent.resize(parent.rfind('/') == std::string::npos ? 0 : parent.rfind('/'));
  const Descriptor file{::open(parent.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)};
  Descriptor out;
  Descriptor in;
  int ends[2];
  if (file.fd < 0 || ::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return false;
  out.fd = ends[0];
  in.fd = ends[1];
  struct stat here {};
  struct stat there {};
  if (::fstat(directory_of, &here) != 0 || ::fstat(file.fd, &there) != 0 ||
      here.st_dev != there.st_dev) {
    return false;
  }
  Page page;
  page.fill('a');
  constexpr auto kSize = static_cast<ssize_t>(kPage);
  loff_t at = 0;
  if (::pwrite(file.fd, page.data(), kPage, 0) != kSize ||
      ::splice(file.fd, &at, in.fd, nullptr, kPage, SPLICE_F_NONBLOCK) != kSize ||
      ::fallocate(file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kSize) != 0 ||
      ::fallocate(file.fd, FALLOC_FL_KEEP_SIZE, 0, kSize) != 0) {
    return false;
  }
  Page later;
  later.fill('b');
  if (::pwrite(file.fd, later.data(), kPage, 0) != kSize) return false;
  Page got{};
  return ::read(out.fd, got.data(), kPage) == kSize && got == page;
}

}  // namespace

bool keeps_sent_pages(int fd) {
  struct statfs system {};
  struct stat info {};
  return ::sysconf(_SC_PAGESIZE) == static_cast<long>(kPage) && ::fstatfs(fd, &system) == 0 &&
         system.f_type == TMPFS_MAGIC && ::fstat(fd, &info) == 0 &&
         !may_have_huge_pages(info.st_dev) && survives_punching(fd);
}

}  // namespace mcs::gsm
