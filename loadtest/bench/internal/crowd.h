// SPDX-License-Identifier: Apache-2.0
// A domain full of entries, somebody who goes on working in it, and processes that are there to be
// killed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "libglobalcache/cache/global_cache.h"
#include "loadtest/harness/process.h"
#include "loadtest/harness/result.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {

// One instance of a domain, as a server's process is one. What it held stays behind when the process
// is killed.
class Member {
 public:
  static Result<std::unique_ptr<Member>> join(const std::string& directory);
  ~Member();
  cache::GlobalCache& cache() { return *cache_; }
  runtime::Instance& instance() { return *instance_; }
  const std::string& domain_path() const { return domain_->path(); }
  // Gives everything back.
  void leave();

 private:
  std::unique_ptr<gsm::Domain> domain_;
  std::unique_ptr<runtime::Liveness> liveness_;
  std::unique_ptr<runtime::Instance> instance_;
  std::unique_ptr<cache::GlobalCache> cache_;
};

struct CrowdOptions {
  std::uint64_t entries = 10'000;
  std::uint32_t most_pins = 4096;
  bool huge_pages = false;  // on a tmpfs of its own, mounted huge=always; root only
  // Victims and the agent stay off the survivor's processor, if there is another one.
  bool apart = true;
  // Pages, far from each other, of a file of its own that every victim touches as well: with few entries
  // the kernel then has as much to take down when it dies as with very many.
  std::uint32_t ballast_pages = 0;
};

// What is killed.
enum class Victim : std::uint32_t {
  kMember,   // of the domain, in the middle of its work
  kControl,  // has mapped and touched as much of the domain's memory, and belongs to nothing
};

class Crowd {
 public:
  static Result<std::unique_ptr<Crowd>> gather(const CrowdOptions& options);
  ~Crowd();
  Crowd(const Crowd&) = delete;
  Crowd& operator=(const Crowd&) = delete;

  Member& survivor() { return *survivor_; }
  std::uint64_t entries() const { return options_.entries; }
  static std::string key_of(std::uint64_t number);

  // Processes that have joined, made `lookups` hits, hold `pins` pins and are in the middle of a
  // fill. They are killed by the caller.
  Result<std::vector<pid_t>> bring(std::uint32_t count, std::uint32_t pins, std::uint32_t lookups,
                                   Victim kind = Victim::kMember);
  // The processor of whoever looks up.
  static constexpr int kSurvivorsCpu = 0;
  // When the recoverer of each was told of its death, and when what it held was free again, by the
  // recoverers' events; CLOCK_MONOTONIC, ns, in the order of `pids`.
  struct Recovery {
    std::uint64_t detected_ns = 0;
    std::uint64_t agreed_ns = 0;
    std::uint64_t repaired_ns = 0;
    std::uint64_t resumed_ns = 0;
  };
  Result<std::vector<Recovery>> recoveries(const std::vector<pid_t>& pids) const;
  // Page faults of the agent so far.
  std::uint64_t agents_faults() const;
  // mcsctl verify: nothing leaked, nothing wrong.
  Result<void> verify() const;

 private:
  explicit Crowd(const CrowdOptions& options) : options_(options) {}
  Result<void> mount_huge_pages();
  Result<void> make_domain();
  Result<void> fill();
  Result<void> make_ballast() const;
  void touch_ballast() const;
  Result<void> start_nursery();
  [[noreturn]] void tend_nursery(int commands, int answers) const;
  [[noreturn]] void be_victim(int answers, std::uint32_t pins, std::uint32_t lookups,
                              std::uint32_t number) const;
  [[noreturn]] void be_control(int answers, std::uint32_t touches, std::uint32_t number) const;
  void keep_apart(pid_t pid) const;

  CrowdOptions options_;
  TempDir temp_{"/dev/shm", "mcsbench"};
  bool mounted_ = false;
  ChildProcess agent_;
  pid_t nursery_ = 0;
  int commands_ = -1;
  int answers_ = -1;
  std::unique_ptr<Member> survivor_;
};

}  // namespace mcs::loadtest
