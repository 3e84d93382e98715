// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/runtime/liveness.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

namespace mcs::runtime {
namespace {

// Descriptors that a forked child must not keep. Plain array: touched in the fork handler.
constexpr std::size_t kMaxFiles = 64;
std::array<std::atomic<int>, kMaxFiles> open_files;  // descriptor + 1; 0 = empty

void close_in_child() {
  for (auto& file : open_files) {
    const int entry = file.exchange(0);
    if (entry > 0) ::close(entry - 1);
  }
}

void remember(int fd) {
  static std::once_flag once;
  std::call_once(once, [] { ::pthread_atfork(nullptr, nullptr, close_in_child); });
  for (auto& file : open_files) {
    int none = 0;
    if (file.compare_exchange_strong(none, fd + 1)) return;
  }
}

void forget(int fd) {
  for (auto& file : open_files) {
    int mine = fd + 1;
    if (file.compare_exchange_strong(mine, 0)) return;
  }
}

struct flock byte_lock(short type, std::uint32_t byte) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

}  // namespace

Result<std::unique_ptr<KernelLiveness>> KernelLiveness::open(const std::string& domain_path) {
  const std::string path = domain_path + "/live";
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  const int probe = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0 || probe < 0) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    return fail(error == EACCES ? ErrorCode::kPermission : ErrorCode::kSystem,
                fmt::format("cannot open {}: {}; run as the domain's owner or group, or create it "
                            "with owner=, group= and mode=",
                            path, std::strerror(error)));
  }
  std::unique_ptr<KernelLiveness> liveness(new KernelLiveness(fd));
  liveness->probe_fd_ = probe;
  remember(probe);
  return liveness;
}

KernelLiveness::KernelLiveness(int fd) : fd_(fd) { remember(fd); }

KernelLiveness::~KernelLiveness() {
  forget(fd_);
  forget(probe_fd_);
  ::close(fd_);
  ::close(probe_fd_);
}

bool KernelLiveness::acquire(std::uint32_t slot) {
  const std::lock_guard guard(mutex_);
  struct flock lock = byte_lock(F_WRLCK, slot);
  if (owned_.contains(slot) || ::fcntl(fd_, F_OFD_SETLK, &lock) != 0) return false;
  owned_.insert(slot);
  return true;
}

void KernelLiveness::release(std::uint32_t slot) {
  const std::lock_guard guard(mutex_);
  if (owned_.erase(slot) == 0) return;
  struct flock lock = byte_lock(F_UNLCK, slot);
  ::fcntl(fd_, F_OFD_SETLK, &lock);
}

bool KernelLiveness::held(std::uint32_t slot) {
  struct flock lock = byte_lock(F_WRLCK, slot);
  // An error is not evidence of death.
  return ::fcntl(probe_fd_, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

unsigned Liveness::count_held(std::uint32_t first, std::uint32_t last, unsigned most) {
  unsigned count = 0;
  for (std::uint64_t byte = first; byte <= last && count < most; ++byte) {
    count += held(static_cast<std::uint32_t>(byte)) ? 1 : 0;
  }
  return count;
}

unsigned KernelLiveness::count_held(std::uint32_t first, std::uint32_t last, unsigned most) {
  if (first > last || most == 0) return 0;
  struct flock lock = byte_lock(F_WRLCK, first);
  lock.l_len = static_cast<off_t>(last) - first + 1;
  if (::fcntl(probe_fd_, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return 0;
  // Any of those that are held, not the first; neighbours of one owner are one lock.
  const auto begin = static_cast<std::uint32_t>(std::max<off_t>(first, lock.l_start));
  const off_t lock_end = lock.l_len == 0 ? off_t{last} : lock.l_start + lock.l_len - 1;
  const auto end = static_cast<std::uint32_t>(std::min<off_t>(last, lock_end));
  unsigned count = std::min(most, end - begin + 1);
  if (begin > first) count += count_held(first, begin - 1, most - count);
  if (end < last) count += count_held(end + 1, last, most - count);
  return count;
}

}  // namespace mcs::runtime
