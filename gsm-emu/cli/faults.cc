// SPDX-License-Identifier: Apache-2.0
// Making nodes and memory fail.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>

#include "gsm-emu/cli/command.h"
#include "gsm-emu/cli/processes.h"
#include "libglobalcache/cache/layout.h"
#include "libglobalcache/runtime/view.h"

namespace mcs::emu {
namespace {

using nlohmann::json;

/// Closes at the end.
class File {
 public:
  static Result<File> open(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
      return fail(
          errno == EACCES ? ErrorCode::kPermission : ErrorCode::kSystem,
          fmt::format("cannot open {}: {}; run as the domain's owner", path, std::strerror(errno)));
    }
    return File(fd);
  }
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&&) = delete;
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }
  std::uint64_t size() const {
    struct stat info {};
    return ::fstat(fd_, &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
  }

 private:
  explicit File(int fd) : fd_(fd) {}
  int fd_;
};

Error system_error(const std::string& what) {
  return {ErrorCode::kSystem, fmt::format("{}: {}", what, std::strerror(errno))};
}

/// The node's processes, or an error if the node does not exist.
Result<void> collect(const Common& common, std::uint32_t node, NodeProcesses& processes) {
  const auto domain = find_domain(common);
  if (!domain) return tl::unexpected(domain.error());
  if (const auto file = segment_file(*domain, node); !file) return tl::unexpected(file.error());
  processes.add(read_records(domain->path, node));
  // If it cannot be opened the commands that exec started are known all the same.
  if (auto instances = live_instances(common)) {
    std::erase_if(*instances, [&](const LiveInstance& instance) { return instance.node != node; });
    processes.add(*instances);
  }
  return {};
}

json unreachable_json(const NodeProcesses& processes, std::string& text) {
  json all = json::array();
  for (const LiveInstance& instance : processes.unreachable()) {
    all.push_back({{"server", instance.server},
                   {"pid", instance.pid},
                   {"pid_namespace", instance.pid_namespace}});
    text += fmt::format("not reached: {} pid {} of pid namespace {}\n", instance.server,
                        instance.pid, instance.pid_namespace);
  }
  return all;
}

int signal_node(const Common& common, std::uint32_t node, bool stop) {
  NodeProcesses processes;
  if (const auto ok = collect(common, node, processes); !ok) return fail_with(ok.error());
  bool complete = true;
  if (stop) {
    complete = processes.stop();
  } else {
    processes.resume();
  }
  std::string text = fmt::format("node {}: {} processes {}\n", node, processes.met().size(),
                                 stop ? "stopped" : "continued");
  json unreachable = unreachable_json(processes, text);
  complete = complete && unreachable.empty();
  const int printed = print(common,
                            {{"node", node},
                             {stop ? "stopped" : "continued", processes.met()},
                             {"unreachable", std::move(unreachable)},
                             {"complete", complete}},
                            text);
  return printed != kDone ? printed : complete ? kDone : kPartly;
}

}  // namespace

// What a file can do: be cut, or be written from outside.
static Result<SegmentFile> file_to_break(const DomainPath& domain, std::uint32_t node) {
  auto file = segment_file(domain, node);
  if (file && file->on_device) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("the segment of node {} lies on a device, whose memory cannot be taken away "
                            "or damaged from here",
                            node));
  }
  return file;
}

int crash(const Common& common, std::uint32_t node, bool keep_memory) {
  NodeProcesses processes;
  if (const auto ok = collect(common, node, processes); !ok) return fail_with(ok.error());
  const auto domain = find_domain(common);
  const auto file = keep_memory ? segment_file(*domain, node) : file_to_break(*domain, node);
  if (!file) return fail_with(file.error());
  const bool ended = processes.kill();
  if (!keep_memory && ::truncate(file->path.c_str(), 0) != 0) {
    return fail_with(system_error("cannot take away " + file->path));
  }
  std::string text = fmt::format("node {} crashed: {} processes ended, its memory is {}\n", node,
                                 processes.met().size(), keep_memory ? "kept" : "lost");
  json unreachable = unreachable_json(processes, text);
  if (!ended) text += "some processes have not ended within 10 s\n";
  const bool complete = ended && unreachable.empty();
  const int printed = print(common,
                            {{"node", node},
                             {"killed", processes.met()},
                             {"memory", keep_memory ? "kept" : "lost"},
                             {"unreachable", std::move(unreachable)},
                             {"complete", complete}},
                            text);
  return printed != kDone ? printed : complete ? kDone : kPartly;
}

int freeze(const Common& common, std::uint32_t node) { return signal_node(common, node, true); }
int thaw(const Common& common, std::uint32_t node) { return signal_node(common, node, false); }

int lose(const Common& common, std::uint32_t node, std::optional<std::uint64_t> page) {
  const auto domain = find_domain(common);
  if (!domain) return fail_with(domain.error());
  const auto file = file_to_break(*domain, node);
  if (!file) return fail_with(file.error());
  auto opened = File::open(file->path);
  if (!opened) return fail_with(opened.error());
  const std::uint64_t size = opened->size();
  const std::uint64_t pages = size / gsm::kPageSize;
  if (page && *page >= pages) {
    return fail_with(
        {ErrorCode::kInvalidArgument,
         pages == 0 ? fmt::format("node {} has no memory left to lose", node)
                    : fmt::format("--page {}: node {} has pages 0 to {}", *page, node, pages - 1)});
  }
  const std::uint64_t kept = page.value_or(0) * gsm::kPageSize;
  if (::ftruncate(opened->fd(), static_cast<off_t>(kept)) != 0) {
    return fail_with(system_error("cannot take away " + file->path));
  }
  return print(
      common, {{"node", node}, {"file", file->path}, {"bytes_before", size}, {"bytes_left", kept}},
      fmt::format("node {} has lost {} of {} pages\n", node, pages - kept / gsm::kPageSize, pages));
}

// Sites have the same numbers on every segment.
static void copy_sites(const gsm::Segment& from, const gsm::Segment& to) {
  const std::uint64_t at = cache::CacheGeometry::load(from.header().user + 16).state_at;
  const auto& theirs = reinterpret_cast<const cache::SegmentState*>(from.metadata() + at)->sites;
  auto& ours = reinterpret_cast<cache::SegmentState*>(to.metadata() + at)->sites;
  for (std::uint32_t site = 0; site < cache::kSites; ++site) {
    ours.quota[site].store(theirs.quota[site].load());
    ours.reserve[site].store(theirs.reserve[site].load());
    for (std::size_t i = 0; i < ours.names[site].size(); ++i) {
      ours.names[site][i].store(theirs.names[site][i].load());
    }
    ours.ids[site].store(theirs.ids[site].load());
  }
}

int restore(const Common& common, std::uint32_t node) {
  const auto found = find_domain(common);
  if (!found) return fail_with(found.error());
  if (const auto file = segment_file(*found, node); !file) return fail_with(file.error());
  const auto opened = cache::open(common.directory, common.name);
  if (!opened) return fail_with(opened.error());
  gsm::Domain& domain = **opened;
  runtime::Views views(domain);
  runtime::View view = views.look();
  const auto bit = static_cast<std::uint16_t>(1U << node);
  // Out of the view first: nobody may take the new one for the former.
  while (view.has_segment(node) && !domain.segment(node).answers() && view.segments != bit) {
    runtime::View without = view;
    ++without.generation;
    without.segments = static_cast<std::uint16_t>(view.segments & ~bit);
    view = views.propose(without);
  }
  // Another one who restored it may have ended before the view had it: nobody uses what that one made.
  const bool unused = view.generation != 0 && !view.has_segment(node);
  if (const auto made = domain.restore(node, cache::format, unused); !made) {
    return fail_with(made.error());
  }
  const std::uint64_t incarnation = domain.segment(node).incarnation();
  view = views.look();
  for (std::uint32_t other = 0; other < domain.node_count(); ++other) {
    if (other == node || !view.has_segment(other)) continue;
    copy_sites(domain.segment(other), domain.segment(node));
    break;
  }
  if (view.generation == 0 || view.segments == bit) {
    // All memory was lost, and with it every view. Later than any that a process may remember.
    const std::uint32_t later = std::max(view.generation + 1,
                                         static_cast<std::uint32_t>(incarnation << 10 & 0xffffff));
    view = runtime::View::first(domain.node_count());
    view.generation = later;
    view.segments = bit;
    views.area(node).view.word.store(view.word());
  }
  for (int round = 0; round < 100 && !view.has_segment(node); ++round) {
    runtime::View with = view;
    ++with.generation;
    with.segments = static_cast<std::uint16_t>(view.segments | bit);
    view = views.propose(with);
  }
  if (!view.has_segment(node)) {
    return fail_with({ErrorCode::kBusy, fmt::format("node {} has new memory, but the view of domain {} "
                                                    "changes all the time; try again",
                                                    node, common.name)});
  }
  return print(common,
               {{"node", node}, {"incarnation", incarnation}, {"generation", view.generation}},
               fmt::format("node {} has memory again: incarnation {}, in the domain's view {}\n", node,
                           incarnation, view.generation));
}

int damage(const Common& common, std::uint32_t node, const DamageOptions& options) {
  const auto domain = find_domain(common);
  if (!domain) return fail_with(domain.error());
  const auto file = file_to_break(*domain, node);
  if (!file) return fail_with(file.error());
  auto opened = File::open(file->path);
  if (!opened) return fail_with(opened.error());
  const std::uint64_t size = opened->size();
  if (size < 2 * gsm::kPageSize) {
    return fail_with({ErrorCode::kLost, fmt::format("node {} has no memory left to damage", node)});
  }
  if (options.zero_page) {
    const std::uint64_t at = *options.zero_page * gsm::kPageSize;
    if (*options.zero_page >= size / gsm::kPageSize) {
      return fail_with({ErrorCode::kInvalidArgument,
                        fmt::format("--zero-page {}: node {} has pages 0 to {}", *options.zero_page,
                                    node, size / gsm::kPageSize - 1)});
    }
    if (::fallocate(opened->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(at), gsm::kPageSize) != 0) {
      return fail_with(system_error("cannot empty a page of " + file->path));
    }
    return print(common, {{"node", node}, {"zeroed_page", *options.zero_page}},
                 fmt::format("page {} of node {} reads as zeros\n", *options.zero_page, node));
  }

  gsm::SegmentHeader header{};
  const bool readable =
      ::pread(opened->fd(), &header, sizeof header, 0) == static_cast<ssize_t>(sizeof header) &&
      header.meta_bytes > gsm::kPageSize && header.meta_bytes < size;
  std::uint64_t first = gsm::kPageSize;
  std::uint64_t end = size;
  if (options.where == "header") {
    first = 0;
    end = sizeof(gsm::SegmentHeader);
  } else if (options.where != "all") {
    if (!readable) {
      return fail_with(
          {ErrorCode::kDamaged, fmt::format("the header of {} is damaged already; only "
                                            "--where all works",
                                            file->path)});
    }
    (options.where == "metadata" ? end : first) = header.meta_bytes;
  }
  const std::uint64_t seed = options.seed.value_or(std::random_device{}());
  std::mt19937_64 random(seed);
  std::vector<std::uint64_t> offsets;
  if (options.offset) {
    if (*options.offset >= size) {
      return fail_with({ErrorCode::kInvalidArgument,
                        fmt::format("--offset {}: the segment of node {} is {} bytes long",
                                    *options.offset, node, size)});
    }
    offsets.push_back(*options.offset);
  }
  for (std::uint64_t i = 0; i < options.random; ++i)
    offsets.push_back(first + random() % (end - first));
  json spots = json::array();
  std::string text;
  for (const std::uint64_t offset : offsets) {
    unsigned char byte = 0;
    const auto at = static_cast<off_t>(offset);
    const bool was_read = ::pread(opened->fd(), &byte, 1, at) == 1;
    const unsigned before = byte;
    byte = static_cast<unsigned char>(byte ^ (1 + random() % 255));
    if (!was_read || ::pwrite(opened->fd(), &byte, 1, at) != 1) {
      return fail_with(system_error("cannot damage " + file->path));
    }
    spots.push_back({{"offset", offset}, {"before", before}, {"after", byte}});
    if (offsets.size() <= 20) {
      text += fmt::format("byte {}: {:#04x} is now {:#04x}\n", offset, before, byte);
    }
  }
  text += fmt::format("{} damaged bytes in the segment of node {}, seed {}\n", offsets.size(), node,
                      seed);
  return print(common, {{"node", node}, {"seed", seed}, {"spots", std::move(spots)}}, text);
}

}  // namespace mcs::emu
