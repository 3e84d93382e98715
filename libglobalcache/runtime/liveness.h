// SPDX-License-Identifier: Apache-2.0
// Who is alive: decided here and nowhere else.
//
// Each instance holds an exclusive open-file-description lock on one byte (its slot number) of the
// domain's `live` file for as long as it exists; the kernel drops it at death, after which nothing
// of the process can run. It works across pid namespaces. The lock is taken before the slot's state
// leaves FREE. A child forked without exec would keep its parent's lock, so a pthread_atfork
// handler closes the descriptor in the child.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "gsm-emu/result.h"

namespace mcs::runtime {

/// Interface, so that tests can decide who is alive. Thread-safe.
class Liveness {
 public:
  virtual ~Liveness() = default;
  /// Become the living owner of byte `slot`. False: somebody else is.
  virtual bool acquire(std::uint32_t slot) = 0;
  virtual void release(std::uint32_t slot) = 0;
  /// Whether a process other than this one (or another instance in it) holds byte `slot`.
  virtual bool held(std::uint32_t slot) = 0;
  /// How many bytes of [first, last] anybody holds; `most` if there are more.
  virtual unsigned count_held(std::uint32_t first, std::uint32_t last, unsigned most);
};

/// Bytes for agents lie above all slots.
inline constexpr std::uint32_t kAgentByte = 1U << 20;
/// Bytes for what an instance holds until it dies at the latest lie above those: the owner of a range
/// of 65,536 of them is whoever has this number.
constexpr std::uint32_t held_bytes(std::uint32_t number) {
  return 1U << 31 | (number & 0x7fff) << 16;
}

class KernelLiveness final : public Liveness {
 public:
  static Result<std::unique_ptr<KernelLiveness>> open(const std::string& domain_path);
  ~KernelLiveness() override;
  bool acquire(std::uint32_t slot) override;
  void release(std::uint32_t slot) override;
  bool held(std::uint32_t slot) override;
  unsigned count_held(std::uint32_t first, std::uint32_t last, unsigned most) override;

 private:
  explicit KernelLiveness(int fd);
  // The kernel does not tell two owners in one process apart.
  std::mutex mutex_;
  std::set<std::uint32_t> owned_;
  int fd_;
  int probe_fd_ = -1;  // a second description, against which our own locks count too
};

}  // namespace mcs::runtime
