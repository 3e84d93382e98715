// SPDX-License-Identifier: Apache-2.0
// The limits of an emulated node: its memory, its disk's reads per second and its share of the
// processors, by control groups of Linux's first hierarchy (cgroup v1).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "loadtest/harness/result.h"

namespace mcs::loadtest {

// Where the controllers that a node needs are mounted.
struct CgroupMounts {
  std::filesystem::path memory;
  std::filesystem::path blkio;
  std::filesystem::path cpu;
  std::filesystem::path cpuacct;
};

// From the text of /proc/self/mounts. A missing controller is an error that names it and the
// remedy.
Result<CgroupMounts> find_cgroups(std::string_view mounts);
// Operations of one kind ("Read") on a disk ("254:0"), from the text of blkio.throttle.io_serviced
// and the like; 0 when there were none.
uint64_t blkio_count(std::string_view text, std::string_view disk, std::string_view kind);
// A value of memory.stat; 0 when it is not there.
uint64_t memory_stat(std::string_view text, std::string_view name);

// Number ("254:0") of the disk whose file system holds `directory`; limits apply to whole disks,
// not to partitions.
Result<std::string> disk_of(const std::filesystem::path& directory);

struct NodeLimits {
  uint64_t memory_bytes = 0;  // of processes and of the files they read
  double cpu = 0;             // of one processor: 0.15 is 15 %
  uint32_t reads = 0;         // of the disk, per second
};

struct NodeUsage {
  uint64_t cpu_ns = 0;
  uint64_t reads = 0;
  uint64_t read_bytes = 0;
  uint64_t process_bytes = 0;  // memory of processes now
  uint64_t file_bytes = 0;     // pages of files now
};

// Thread-compatible. Its processes are killed and its groups removed by the destructor, and when
// this process dies (see Guardian).
class NodeGroup {
 public:
  // `name` must be new; `disk` is from disk_of().
  static Result<NodeGroup> make(const CgroupMounts& mounts, const std::string& name,
                                const std::string& disk);
  NodeGroup(NodeGroup&& other) noexcept;
  NodeGroup& operator=(NodeGroup&&) = delete;
  ~NodeGroup();

  // A limit of 0 is none.
  Result<void> limit(const NodeLimits& limits);
  NodeUsage usage() const;
  // What a process must join to belong to this node.
  const std::vector<std::filesystem::path>& directories() const { return directories_; }

 private:
  NodeGroup(const CgroupMounts& mounts, const std::string& name, const std::string& disk);
  std::vector<std::string> removal() const;

  std::string disk_;
  std::filesystem::path memory_;
  std::filesystem::path blkio_;
  std::filesystem::path cpu_;
  std::filesystem::path cpuacct_;
  std::vector<std::filesystem::path> directories_;  // without duplicates; empty: moved from
};

}  // namespace mcs::loadtest
