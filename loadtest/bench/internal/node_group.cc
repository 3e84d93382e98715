// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/internal/node_group.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <sstream>

#include "loadtest/harness/guardian.h"
#include "loadtest/harness/process.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kPeriodUs = 20'000;

// These files want one write(2) and tell errors by it.
Result<void> set(const fs::path& file, const std::string& value) {
  const int fd = open(file.c_str(), O_WRONLY | O_CLOEXEC);
  const bool written =
      fd >= 0 && write(fd, value.data(), value.size()) == static_cast<ssize_t>(value.size());
  const int error = errno;
  if (fd >= 0) close(fd);
  if (!written)
    return fail("cannot write {} to {}: {}", value, file.string(), std::strerror(error));
  return {};
}

uint64_t number_in(const fs::path& file) {
  return std::strtoull(read_file(file).value_or("0").c_str(), nullptr, 10);
}

}  // namespace

Result<CgroupMounts> find_cgroups(std::string_view mounts) {
  CgroupMounts found;
  std::istringstream lines{std::string(mounts)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string device, place, type, options;
    words >> device >> place >> type >> options;
    if (type != "cgroup") continue;
    options = "," + options + ",";
    const auto has = [&](const char* name) {
      return options.find(fmt::format(",{},", name)) != std::string::npos;
    };
    if (has("memory")) found.memory = place;
    if (has("blkio")) found.blkio = place;
    if (has("cpu")) found.cpu = place;
    if (has("cpuacct")) found.cpuacct = place;
  }
  std::string missing;
  for (const auto& [name, place] : {std::pair("memory", &found.memory),
                                    {"blkio", &found.blkio},
                                    {"cpu", &found.cpu},
                                    {"cpuacct", &found.cpuacct}}) {
    if (place->empty()) missing += (missing.empty() ? "" : ", ") + std::string(name);
  }
  if (!missing.empty()) {
    return fail(
        "no cgroup v1 hierarchy with these controllers is mounted: {}; boot with "
        "systemd.unified_cgroup_hierarchy=0 (and SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1)",
        missing);
  }
  return found;
}

uint64_t blkio_count(std::string_view text, std::string_view disk, std::string_view kind) {
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string device, what;
    uint64_t count = 0;
    if (words >> device >> what >> count && device == disk && what == kind) return count;
  }
  return 0;
}

uint64_t memory_stat(std::string_view text, std::string_view name) {
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string what;
    uint64_t value = 0;
    if (words >> what >> value && what == name) return value;
  }
  return 0;
}

Result<std::string> disk_of(const fs::path& directory) {
  struct stat status = {};
  if (stat(directory.c_str(), &status) != 0) {
    return fail("{}: {}", directory.string(), std::strerror(errno));
  }
  const std::string device = fmt::format("{}:{}", major(status.st_dev), minor(status.st_dev));
  std::error_code error;
  const fs::path entry = fs::canonical(fs::path("/sys/dev/block") / device, error);
  if (error) {
    return fail("{} is on no disk (device {}); name a directory on a disk with --directory",
                directory.string(), device);
  }
  if (!fs::exists(entry / "partition")) return device;
  auto disk = read_file(entry.parent_path() / "dev");
  if (!disk) return disk;
  disk->erase(disk->find_last_not_of('\n') + 1);
  return disk;
}

NodeGroup::NodeGroup(const CgroupMounts& mounts, const std::string& name, const std::string& disk)
    : disk_(disk),
      memory_(mounts.memory / name),
      blkio_(mounts.blkio / name),
      cpu_(mounts.cpu / name),
      cpuacct_(mounts.cpuacct / name) {
  for (const fs::path& directory : {memory_, blkio_, cpu_, cpuacct_}) {
    const bool known =
        std::find(directories_.begin(), directories_.end(), directory) != directories_.end();
    if (!known) directories_.push_back(directory);
  }
}

NodeGroup::NodeGroup(NodeGroup&& other) noexcept
    : disk_(std::move(other.disk_)),
      memory_(std::move(other.memory_)),
      blkio_(std::move(other.blkio_)),
      cpu_(std::move(other.cpu_)),
      cpuacct_(std::move(other.cpuacct_)),
      directories_(std::exchange(other.directories_, {})) {}

// A group goes only when all its members are gone, zombies included.
std::vector<std::string> NodeGroup::removal() const {
  std::vector<std::string> command = {
      "sh", "-c",
      "for try in $(seq 100); do left=; for d; do [ -d $d ] || continue; "
      "for p in $(cat $d/cgroup.procs 2>/dev/null); do kill -9 $p 2>/dev/null; done; "
      "rmdir $d 2>/dev/null || left=1; done; [ $left ] || exit 0; sleep .05; done; exit 1",
      "sh"};
  for (const fs::path& directory : directories_) command.push_back(directory.string());
  return command;
}

Result<NodeGroup> NodeGroup::make(const CgroupMounts& mounts, const std::string& name,
                                  const std::string& disk) {
  NodeGroup group(mounts, name, disk);
  Guardian::instance().add_command(group.removal());
  for (const fs::path& directory : group.directories_) {
    if (mkdir(directory.c_str(), 0755) != 0) {
      return fail(
          "cannot make the control group {}: {}; run as root, in a container that may "
          "change control groups",
          directory.string(), std::strerror(errno));
    }
  }
  return group;
}

NodeGroup::~NodeGroup() {
  if (directories_.empty()) return;
  // Its failure shows as a group that is left behind; there is nothing more to try.
  static_cast<void>(run_process(removal()));
  Guardian::instance().remove_command(removal());
}

Result<void> NodeGroup::limit(const NodeLimits& limits) {
  const auto none_if_0 = [](auto value) {
    return value == 0 ? std::string("-1") : fmt::format("{}", value);
  };
  if (auto done = set(memory_ / "memory.limit_in_bytes", none_if_0(limits.memory_bytes)); !done) {
    return done;
  }
  if (auto done = set(cpu_ / "cpu.cfs_period_us", std::to_string(kPeriodUs)); !done) return done;
  const auto quota = std::llround(limits.cpu * static_cast<double>(kPeriodUs));
  if (auto done = set(cpu_ / "cpu.cfs_quota_us", none_if_0(quota)); !done) return done;
  return set(blkio_ / "blkio.throttle.read_iops_device", fmt::format("{} {}", disk_, limits.reads));
}

NodeUsage NodeGroup::usage() const {
  NodeUsage usage;
  usage.cpu_ns = number_in(cpuacct_ / "cpuacct.usage");
  usage.reads =
      blkio_count(read_file(blkio_ / "blkio.throttle.io_serviced").value_or(""), disk_, "Read");
  usage.read_bytes = blkio_count(read_file(blkio_ / "blkio.throttle.io_service_bytes").value_or(""),
                                 disk_, "Read");
  const std::string memory = read_file(memory_ / "memory.stat").value_or("");
  usage.process_bytes = memory_stat(memory, "rss");
  usage.file_bytes = memory_stat(memory, "cache");
  return usage;
}

}  // namespace mcs::loadtest
