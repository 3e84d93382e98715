// SPDX-License-Identifier: Apache-2.0
// Waking: one datagram socket per instance at DOMAIN/wake.<slot>. Node-local help only: a lost or
// forged datagram costs time (waiters have a backstop), never correctness.
#pragma once

#include <cstdint>
#include <string>

namespace mcs::api {

class WakeSocket {
 public:
  /// Bind `path` (replacing what a dead owner of the slot left). fd() < 0 if that fails.
  WakeSocket(const std::string& path, unsigned mode);
  ~WakeSocket();
  WakeSocket(const WakeSocket&) = delete;
  WakeSocket& operator=(const WakeSocket&) = delete;

  int fd() const { return fd_; }
  /// Be found no more: before whoever takes the slot next binds the same path.
  void hide();
  /// Be found under another path. Whoever watches fd() notices nothing.
  void move_to(const std::string& path);
  /// Take everything that has arrived; true if there was anything.
  bool drain();

  static std::string path_for(const std::string& domain_path, std::uint32_t slot);
  /// Never blocks; errors are ignored (the receiver is gone or has enough to read). Thread-safe.
  static void send(int fd, const std::string& path);

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace mcs::api
