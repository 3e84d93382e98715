// SPDX-License-Identifier: Apache-2.0
#include "gsm-emu/domain.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <new>
#include <numeric>
#include <optional>
#include <random>

#include "gsm-emu/internal/place.h"

namespace mcs::gsm {
namespace {

namespace fs = std::filesystem;
constexpr const char* kPrefix = "mcs-";
constexpr const char* kBuildPrefix = ".mcs-";

std::uint64_t random_u64() {
  std::uint64_t value = 0;
  if (::getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value)) {
    value = std::random_device{}();
  }
  return value | 1;
}

struct Ids {
  uid_t uid = static_cast<uid_t>(-1);
  gid_t gid = static_cast<gid_t>(-1);
};

Result<Ids> resolve_owner(const DomainSpec& spec) {
  Ids ids;
  if (!spec.owner.empty()) {
    const passwd* user = ::getpwnam(spec.owner.c_str());
    if (user == nullptr) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("owner={}: no such user; name an existing user", spec.owner));
    }
    ids.uid = user->pw_uid;
    ids.gid = user->pw_gid;
  }
  if (!spec.group.empty()) {
    const ::group* entry = ::getgrnam(spec.group.c_str());
    if (entry == nullptr) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("group={}: no such group; name an existing group", spec.group));
    }
    ids.gid = entry->gr_gid;
  }
  return ids;
}

Result<void> give(const std::string& path, const Ids& ids) {
  if (ids.uid == static_cast<uid_t>(-1) && ids.gid == static_cast<gid_t>(-1)) return {};
  if (::chown(path.c_str(), ids.uid, ids.gid) != 0) {
    return fail(ErrorCode::kPermission,
                fmt::format("cannot give {} to the configured owner or group: {}; start as root "
                            "or leave out owner= and group=",
                            path, std::strerror(errno)));
  }
  return {};
}

// A build directory whose creator is gone is left over. Its creator holds a lock on `building`; one
// without that file is being begun just now, or was left by a creator killed at that instant. What
// destroy() has renamed is nobody's.
void remove_abandoned_builds(const std::string& directory) {
  constexpr auto kBeginning = std::chrono::minutes(1);
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename();
    if (name.rfind(kBuildPrefix, 0) != 0) continue;
    const int fd = ::open((entry.path() / "building").c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) {
      const bool unmarked = errno == ENOENT;
      const bool gone = name.rfind(std::string(kBuildPrefix) + "gone.", 0) == 0;
      const auto changed = fs::last_write_time(entry.path(), ignored);
      const bool old = fs::file_time_type::clock::now() - changed > kBeginning;
      if (gone || (unmarked && !ignored && old)) fs::remove_all(entry.path(), ignored);
      continue;
    }
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_len = 1;
    if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) fs::remove_all(entry.path(), ignored);
    ::close(fd);
  }
}

SegmentHeader make_header(const DomainSpec& spec, const Geometry& geometry, std::uint32_t node,
                          std::uint64_t domain_id, std::uint64_t seed) {
  SegmentHeader header{};
  header.layout_hash = spec.layout_hash;
  std::snprintf(header.domain, sizeof header.domain, "%s", spec.name.c_str());
  header.domain_id = domain_id;
  header.hash_seed = seed;
  header.node = node;
  header.node_count = spec.nodes;
  header.incarnation = 1;
  header.size = spec.bytes_per_node / kPageSize * kPageSize;
  header.meta_bytes = geometry.meta_bytes;
  header.flags = spec.separate_kernels ? kSeparateKernels : 0;
  header.node_limit_ms = spec.node_limit_ms;
  header.remote_penalty_percent = spec.remote_penalty_percent;
  if (spec.remote_penalty_percent > 100) {
    header.remote_extra_ns =
        static_cast<std::uint32_t>(local_load_ns() * (spec.remote_penalty_percent - 100) / 100.0);
  }
  std::copy(geometry.user.begin(), geometry.user.end(), header.user);
  return header;
}

// What a domain's directory has besides segments. Then it is its owner's.
Result<void> admit_others(const std::string& build, const Ids& ids, unsigned mode) {
  const std::string live = build + "/live";
  const int live_fd = ::open(live.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, mode & 0666);
  if (live_fd < 0) {
    return fail(ErrorCode::kSystem, fmt::format("cannot create {}: {}", live, std::strerror(errno)));
  }
  ::fchmod(live_fd, mode & 0666);
  ::close(live_fd);
  if (auto ok = give(live, ids); !ok) return ok;
  if (auto ok = give(build, ids); !ok) return ok;
  // Whoever may read the segments may search the directory and make sockets in it.
  const unsigned directory_mode = (mode & 0666) | ((mode & 0444) >> 2);
  ::chmod(build.c_str(), directory_mode);
  return {};
}

// Beside the liveness bytes of slots and agents, which lie below and above.
constexpr off_t kRestoreByte = (1 << 20) - 1;

// 0: none can be seen, or `error`.
std::uint64_t newest_incarnation(const std::string& path, std::uint32_t wanted,
                                 std::error_code& error) {
  std::uint64_t newest = 0;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    unsigned node = 0;
    unsigned long long incarnation = 0;
    const std::string file = it->path().filename();
    if (std::sscanf(file.c_str(), "segment.%u.%llu", &node, &incarnation) == 2 && node == wanted) {
      newest = std::max<std::uint64_t>(newest, incarnation);
    }
  }
  return newest;
}
std::uint64_t newest_incarnation(const std::string& path, std::uint32_t wanted) {
  std::error_code ignored;
  return newest_incarnation(path, wanted, ignored);
}

// Whether memory was taken away from a segment: its file is shorter than its header says, or has not
// even got that.
bool is_cut_short(const std::string& file, off_t size) {
  SegmentHeader header{};
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  const ssize_t got = ::pread(fd, &header, sizeof header, 0);
  ::close(fd);
  if (size == 0) return true;
  return got == static_cast<ssize_t>(sizeof header) && header.magic == kSegmentMagic &&
         header.checksum == header_checksum(header) &&
         static_cast<std::uint64_t>(size) < header.size;
}

Result<void> write_header(const std::string& file, const SegmentHeader& header, unsigned mode) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  const bool written = fd >= 0 && ::write(fd, &header, sizeof header) ==
                                      static_cast<ssize_t>(sizeof header);
  const int error = errno;
  if (fd >= 0) {
    ::fchmod(fd, mode);
    ::close(fd);
  }
  if (written) return {};
  return fail(ErrorCode::kSystem, fmt::format("cannot write {}: {}", file, std::strerror(error)));
}

bool read_header(const std::string& file, std::uint64_t layout_hash, SegmentHeader& header) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  const ssize_t got = ::read(fd, &header, sizeof header);
  ::close(fd);
  return got == static_cast<ssize_t>(sizeof header) && header.magic == kSegmentMagic &&
         header.checksum == header_checksum(header) && header.layout_hash == layout_hash &&
         header.node_count >= 1 && header.node_count <= kMaxNodes &&
         header.meta_bytes >= kPageSize && header.meta_bytes < header.size;
}

Result<void> check_spec(const DomainSpec& spec, const Geometry& geometry) {
  if (auto ok = Domain::check_name(spec.name); !ok) return ok;
  if (spec.nodes < 1 || spec.nodes > kMaxNodes) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("nodes={}: a domain has 1 to {} nodes", spec.nodes, kMaxNodes));
  }
  if (geometry.meta_bytes + kPageSize > spec.bytes_per_node) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("size={} MiB is too small: use at least 16 MiB per node",
                            spec.bytes_per_node >> 20));
  }
  return {};
}

}  // namespace

Result<void> Domain::check_name(const std::string& name) {
  const bool ok = !name.empty() && name.size() <= kMaxDomainName && name[0] != '.' &&
                  name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789._-") ==
                      std::string::npos;
  if (ok) return {};
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("domain name \"{}\" is not allowed: use 1 to {} of a-z 0-9 . _ -, not "
                          "starting with a dot",
                          name, kMaxDomainName));
}

Result<void> Domain::check_owner(const DomainSpec& spec) {
  const auto ids = resolve_owner(spec);
  if (!ids) return tl::unexpected(ids.error());
  return {};
}

std::string Domain::path_of(const std::string& directory, const std::string& name,
                            std::uint64_t layout_hash) {
  return fmt::format("{}/{}{}.{:08x}", directory, kPrefix, name, layout_hash & 0xffffffff);
}

Result<std::unique_ptr<Domain>> Domain::create(const DomainSpec& spec, const Geometry& geometry,
                                               const Format& format) {
  if (auto ok = check_spec(spec, geometry); !ok) return tl::unexpected(ok.error());
  if (!spec.device.empty()) return create_on_device(spec, geometry, format);
  const auto ids = resolve_owner(spec);
  if (!ids) return tl::unexpected(ids.error());
  remove_abandoned_builds(spec.directory);

  std::string build = fmt::format("{}/{}{}.XXXXXX", spec.directory, kBuildPrefix, spec.name);
  if (::mkdtemp(build.data()) == nullptr) {
    return fail(errno == EACCES ? ErrorCode::kPermission : ErrorCode::kSystem,
                fmt::format("cannot create a domain in {}: {}; give dir= a writable tmpfs",
                            spec.directory, std::strerror(errno)));
  }
  struct Cleanup {
    std::string path;
    ~Cleanup() {
      std::error_code ignored;
      if (!path.empty()) fs::remove_all(path, ignored);
    }
  } cleanup{build};

  // Under its name only when it is locked: who finds it unlocked takes its creator for dead.
  const std::string unlocked = build + "/building.new";
  const int marker = ::open(unlocked.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  if (marker >= 0 && ::fcntl(marker, F_OFD_SETLK, &lock) == 0) {
    ::rename(unlocked.c_str(), (build + "/building").c_str());
  }
  struct CloseMarker {
    int fd;
    ~CloseMarker() {
      if (fd >= 0) ::close(fd);
    }
  } close_marker{marker};

  std::unique_ptr<Domain> domain(new Domain);
  const std::uint64_t id = random_u64();
  const std::uint64_t seed = random_u64();
  for (std::uint32_t node = 0; node < spec.nodes; ++node) {
    const std::string file = fmt::format("{}/segment.{}.1", build, node);
    auto segment =
        Segment::create(file, make_header(spec, geometry, node, id, seed), spec.mode & 0666);
    if (!segment) return tl::unexpected(segment.error());
    format(**segment);
    (*segment)->protect(0, kPageSize);
    if (auto ok = give(file, *ids); !ok) return tl::unexpected(ok.error());
    domain->add(node, std::move(*segment));
  }
  if (auto ok = write_header(build + "/header", domain->header(), spec.mode & 0666); !ok) {
    return tl::unexpected(ok.error());
  }
  if (auto ok = give(build + "/header", *ids); !ok) return tl::unexpected(ok.error());
  if (auto ok = admit_others(build, *ids, spec.mode); !ok) return tl::unexpected(ok.error());
  domain->path_ = path_of(spec.directory, spec.name, spec.layout_hash);
  domain->name_ = spec.name;
  if (::rename(build.c_str(), domain->path_.c_str()) != 0) {
    if (errno == EEXIST || errno == ENOTEMPTY) {
      return fail(ErrorCode::kExists, fmt::format("domain {} exists already", spec.name));
    }
    return fail(ErrorCode::kSystem, fmt::format("cannot publish domain {}: {}", spec.name,
                                                std::strerror(errno)));
  }
  // After the rename, so that at no instant a build looks abandoned or is left unmarked.
  ::unlink((domain->path_ + "/building").c_str());
  cleanup.path.clear();
  return domain;
}

Result<std::unique_ptr<Domain>> Domain::open(const std::string& directory,
                                             const std::string& name, std::uint64_t layout_hash) {
  if (auto ok = check_name(name); !ok) return tl::unexpected(ok.error());
  std::unique_ptr<Domain> domain(new Domain);
  domain->path_ = path_of(directory, name, layout_hash);
  domain->name_ = name;
  std::error_code error;
  std::array<std::uint64_t, kMaxNodes> newest{};
  for (fs::directory_iterator it(domain->path_, error), end; !error && it != end;
       it.increment(error)) {
    unsigned node = 0;
    unsigned long long incarnation = 0;
    const std::string file = it->path().filename();
    if (std::sscanf(file.c_str(), "segment.%u.%llu", &node, &incarnation) == 2 &&
        node < kMaxNodes) {
      newest[node] = std::max<std::uint64_t>(newest[node], incarnation);
    }
  }
  if (error == std::errc::no_such_file_or_directory) {
    return fail(ErrorCode::kNotFound,
                fmt::format("domain {} does not exist in {}; create it with 'gsm-emu up {}' or by "
                            "starting a server that names it",
                            name, directory, name));
  }
  if (error) {
    return fail(error == std::errc::permission_denied ? ErrorCode::kPermission
                                                      : ErrorCode::kSystem,
                fmt::format("cannot read {}: {}; run as the domain's owner or group, or create it "
                            "with owner=, group= and mode=",
                            domain->path_, error.message()));
  }
  // Whoever answers says how many nodes there are, and what the lost ones looked like.
  std::array<std::unique_ptr<Segment>, kMaxNodes> opened;
  const SegmentHeader* known = nullptr;
  std::optional<Error> trouble;
  for (std::uint32_t node = 0; node < (known == nullptr ? kMaxNodes : known->node_count); ++node) {
    if (newest[node] == 0) continue;
    const std::string file = fmt::format("{}/segment.{}.{}", domain->path_, node, newest[node]);
    auto segment = Segment::open(file, layout_hash);
    if (!segment) {
      // What is merely damaged, of another build or forbidden is for people to look at.
      struct stat info {};
      const bool lost = ::stat(file.c_str(), &info) == 0 && is_cut_short(file, info.st_size);
      if (!lost) return tl::unexpected(segment.error());
      if (!trouble) trouble = segment.error();
      continue;
    }
    const SegmentHeader& header = (*segment)->header();
    if (header.node != node || (known != nullptr && header.domain_id != known->domain_id)) {
      return fail(ErrorCode::kDamaged,
                  fmt::format("{} belongs to another domain or node; remove the domain with "
                              "'gsm-emu down {}'",
                              file, name));
    }
    opened[node] = std::move(*segment);
    if (known == nullptr) known = &opened[node]->header();
  }
  SegmentHeader described{};
  if (known == nullptr && trouble) {
    if (!read_header(domain->path_ + "/header", layout_hash, described)) {
      return tl::unexpected(*trouble);
    }
    known = &described;
  }
  for (std::uint32_t node = 0; node < (known == nullptr ? 1 : known->node_count); ++node) {
    if (newest[node] == 0) {
      return fail(ErrorCode::kDamaged,
                  fmt::format("domain {} has no segment of node {}; remove it with 'gsm-emu down {}' "
                              "and let it be created again",
                              name, node, name));
    }
    if (opened[node] == nullptr) {
      SegmentHeader header = *known;
      header.node = node;
      header.incarnation = newest[node];
      auto stand_in = Segment::placeholder(header);
      if (!stand_in) return tl::unexpected(stand_in.error());
      opened[node] = std::move(*stand_in);
    }
    domain->add(node, std::move(opened[node]));
  }
  return domain;
}

Result<std::unique_ptr<Domain>> Domain::create_on_device(const DomainSpec& spec,
                                                         const Geometry& geometry,
                                                         const Format& format) {
  const std::string path = path_of(spec.directory, spec.name, spec.layout_hash);
  if (::access(path.c_str(), F_OK) == 0) {
    return fail(ErrorCode::kExists, fmt::format("domain {} exists already", spec.name));
  }
  const std::uint64_t id = random_u64();
  const std::uint64_t seed = random_u64();
  std::vector<std::unique_ptr<Segment>> segments;
  for (std::uint32_t node = 0; node < spec.nodes; ++node) {
    const SegmentHeader header = make_header(spec, geometry, node, id, seed);
    auto segment = Segment::create_on(spec.device, node * header.size, header);
    if (!segment) return tl::unexpected(segment.error());
    segments.push_back(std::move(*segment));
  }
  for (auto& segment : segments) format(*segment);
  // The first one's last, by which the device is known to hold a domain.
  for (std::uint32_t node = spec.nodes; node-- > 0;) {
    if (!segments[node]->restore_header()) {
      return fail(ErrorCode::kLost, fmt::format("{} cannot be written", spec.device));
    }
  }
  return attach(spec);
}

Result<std::unique_ptr<Domain>> Domain::attach(const DomainSpec& here) {
  const auto ids = resolve_owner(here);
  if (!ids) return tl::unexpected(ids.error());
  remove_abandoned_builds(here.directory);
  std::string build = fmt::format("{}/{}attach.XXXXXX", here.directory, kBuildPrefix);
  if (::mkdtemp(build.data()) == nullptr) {
    return fail(errno == EACCES ? ErrorCode::kPermission : ErrorCode::kSystem,
                fmt::format("cannot attach a domain in {}: {}; give it a writable tmpfs",
                            here.directory, std::strerror(errno)));
  }
  struct Cleanup {
    std::string path;
    ~Cleanup() {
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
  } cleanup{build};
  // The first segment says how large all are, and how many.
  Place place{here.device, 0, 0};
  std::string name;
  for (std::uint32_t node = 0, nodes = 1; node < nodes; ++node) {
    auto header = Segment::header_on(here.device, place.offset);
    if (!header) return tl::unexpected(header.error());
    place.bytes = header->size;
    const std::string file = fmt::format("{}/segment.{}.{}", build, node, header->incarnation);
    if (auto ok = write_place(file, place, here.mode & 0666); !ok) return tl::unexpected(ok.error());
    if (auto ok = give(file, *ids); !ok) return tl::unexpected(ok.error());
    const auto segment = Segment::open(file, here.layout_hash);
    if (!segment) return tl::unexpected(segment.error());
    if (header->node != node) {
      return fail(ErrorCode::kDamaged,
                  fmt::format("byte {} of {} is where node {} should be, but node {} is there; make the "
                              "domain again with 'gsm-emu up NAME --device {}'",
                              place.offset, here.device, node, header->node, here.device));
    }
    nodes = header->node_count;
    name.assign(header->domain, ::strnlen(header->domain, sizeof header->domain));
    place.offset += place.bytes;
  }
  if (auto ok = check_name(name); !ok) return tl::unexpected(ok.error());
  if (auto ok = admit_others(build, *ids, here.mode); !ok) return tl::unexpected(ok.error());
  if (::rename(build.c_str(), path_of(here.directory, name, here.layout_hash).c_str()) != 0) {
    return fail(errno == EEXIST || errno == ENOTEMPTY ? ErrorCode::kExists : ErrorCode::kSystem,
                fmt::format("cannot attach domain {} in {}: {}", name, here.directory,
                            std::strerror(errno)));
  }
  return open(here.directory, name, here.layout_hash);
}

void Domain::add(std::uint32_t node, std::unique_ptr<Segment> segment) {
  segment->set_viewer(viewer_);
  current_[node].store(segment.get(), std::memory_order_release);
  mapped_.push_back(std::move(segment));
  node_count_ = std::max(node_count_, node + 1);
}

void Domain::set_reach(std::uint32_t node, const std::string& trouble) {
  trouble_[node] = trouble;
  if (trouble.empty()) {
    unreached_.fetch_and(~(1U << node), std::memory_order_acq_rel);
  } else {
    unreached_.fetch_or(1U << node, std::memory_order_acq_rel);
  }
}

std::string Domain::out_of_reach(std::uint32_t node) const {
  const std::lock_guard lock(mutex_);
  return trouble_[node];
}

bool Domain::renew(std::uint32_t node) {
  if (path_.empty()) return false;
  const std::lock_guard lock(mutex_);
  const SegmentHeader& have = segment(node).header();
  set_reach(node, "");
  // Only what does not answer is ever replaced.
  if (segment(node).answers()) return false;
  std::error_code error;
  const std::uint64_t newest = newest_incarnation(path_, node, error);
  if (error && error != std::errc::no_such_file_or_directory) {
    set_reach(node, fmt::format("cannot read {}: {}{}", path_, error.message(), remedy_for(error.value())));
  }
  if (newest <= have.incarnation) return false;
  auto opened = Segment::open(fmt::format("{}/segment.{}.{}", path_, node, newest), have.layout_hash);
  if (!opened) {
    const ErrorCode code = opened.error().code;
    if (code == ErrorCode::kPermission || code == ErrorCode::kSystem) {
      set_reach(node, opened.error().message);
    }
    return false;
  }
  const SegmentHeader& header = (*opened)->header();
  if (header.node != node || header.domain_id != have.domain_id || header.size != have.size ||
      header.incarnation != newest || header.meta_bytes != have.meta_bytes ||
      !std::equal(std::begin(header.user), std::end(header.user), std::begin(have.user))) {
    return false;
  }
  add(node, std::move(*opened));
  return true;
}

Result<void> Domain::restore(std::uint32_t node, const Format& format, bool unused) {
  if (on_device()) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("the segments of domain {} lie on a device, which only its owner can restore; "
                            "create the domain again",
                            name_));
  }
  // One at a time: the incarnation says in which order segments came.
  const int live = ::open((path_ + "/live").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  struct Close {
    int fd;
    ~Close() {
      if (fd >= 0) ::close(fd);
    }
  } close_live{live};
  struct flock one {};
  one.l_type = F_WRLCK;
  one.l_whence = SEEK_SET;
  one.l_start = kRestoreByte;
  one.l_len = 1;
  if (live < 0 || ::fcntl(live, F_OFD_SETLK, &one) != 0) {
    return fail(ErrorCode::kBusy, fmt::format("a segment of domain {} is being restored already, or "
                                              "{}/live cannot be locked; try again",
                                              name_, path_));
  }
  const std::lock_guard lock(mutex_);
  Segment& former = segment(node);
  std::uint64_t incarnation = 0;
  for (std::uint32_t other = 0; other < node_count_; ++other) {
    incarnation = std::max(incarnation, newest_incarnation(path_, other));
  }
  if (former.incarnation() != newest_incarnation(path_, node)) {
    return fail(ErrorCode::kBusy, fmt::format("node {} of domain {} has just been restored; look again",
                                              node, name_));
  }
  if (!unused && former.answers()) {
    return fail(ErrorCode::kExists, fmt::format("node {} of domain {} has lost nothing: its segment "
                                                "answers; only lost memory is restored",
                                                node, name_));
  }
  SegmentHeader header = former.header();
  const std::uint64_t old = newest_incarnation(path_, node);
  header.node = node;
  header.incarnation = incarnation + 1;
  struct stat owner {};
  if (::fstat(live, &owner) != 0) owner = {};
  const std::string half = fmt::format("{}/restoring.{}", path_, node);
  ::unlink(half.c_str());
  // Before there is room for the new one, the old one's has to be given back.
  const std::string gone = fmt::format("{}/segment.{}.{}", path_, node, old);
  if (::truncate(gone.c_str(), 0) != 0) {
    return fail(ErrorCode::kPermission,
                fmt::format("cannot give back {}: {}", gone, std::strerror(errno)));
  }
  auto made = Segment::create(half, header, owner.st_mode & 0666);
  if (!made) return tl::unexpected(made.error());
  format(**made);
  (*made)->protect(0, kPageSize);
  if (::chown(half.c_str(), owner.st_uid, owner.st_gid) != 0 &&
      ::chown(half.c_str(), static_cast<uid_t>(-1), owner.st_gid) != 0) {
    ::unlink(half.c_str());
    return fail(ErrorCode::kPermission,
                fmt::format("the new memory of node {} cannot be given to the owner and group of domain {}: {}; "
                            "restore it as its owner or as root",
                            node, name_, std::strerror(errno)));
  }
  const std::string file = fmt::format("{}/segment.{}.{}", path_, node, header.incarnation);
  if (::rename(half.c_str(), file.c_str()) != 0) {
    return fail(ErrorCode::kSystem,
                fmt::format("cannot publish {}: {}", file, std::strerror(errno)));
  }
  ::unlink(gone.c_str());
  add(node, std::move(*made));
  return {};
}

std::unique_ptr<Domain> Domain::in_memory(const DomainSpec& spec, const Geometry& geometry,
                                          const Format& format) {
  std::unique_ptr<Domain> domain(new Domain);
  domain->name_ = spec.name;
  for (std::uint32_t node = 0; node < spec.nodes; ++node) {
    auto segment = Segment::in_memory(make_header(spec, geometry, node, 1, 42));
    format(*segment);
    domain->add(node, std::move(segment));
  }
  return domain;
}

Result<void> Domain::destroy(const std::string& path) {
  std::error_code error;
  // Renamed first, so that nobody opens half of it.
  const std::string gone = fmt::format("{}/{}gone.{}.{}", fs::path(path).parent_path().string(),
                                       kBuildPrefix, ::getpid(), random_u64());
  fs::rename(path, gone, error);
  if (error) {
    return fail(error == std::errc::no_such_file_or_directory ? ErrorCode::kNotFound
                                                              : ErrorCode::kPermission,
                fmt::format("cannot remove {}: {}", path, error.message()));
  }
  fs::remove_all(gone, error);
  if (error) {
    return fail(ErrorCode::kSystem, fmt::format("cannot remove {}: {}", gone, error.message()));
  }
  return {};
}

std::vector<std::string> Domain::list(const std::string& directory) {
  std::vector<std::string> paths;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename();
    if (name.rfind(kPrefix, 0) == 0 && entry.is_directory(ignored)) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

void Domain::set_viewer(std::uint32_t node) {
  const std::lock_guard lock(mutex_);
  viewer_ = node;
  for (auto& segment : mapped_) segment->set_viewer(node);
}

double local_load_ns() {
  static const double measured = [] {
    // A random cycle through 64 MiB, far larger than the last-level cache's share of one core, in
    // shared memory as segments are: its pages are small where a heap's would be huge.
    constexpr std::size_t kLine = 64;
    constexpr std::size_t kCount = (64U << 20) / kLine;
    struct alignas(kLine) Line {
      std::uint32_t next;
    };
    void* const memory = ::mmap(nullptr, kCount * kLine, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    auto* const lines = static_cast<Line*>(memory);
    std::vector<std::uint32_t> order(kCount);
    std::iota(order.begin(), order.end(), 0U);
    std::mt19937 random(1);
    std::shuffle(order.begin() + 1, order.end(), random);
    for (std::size_t i = 0; i < kCount; ++i) lines[order[i]].next = order[(i + 1) % kCount];
    // Rounds shorter than a time slice, and the lower quartile of them: on a busy machine the mean
    // would be of the waiting.
    constexpr int kSteps = 2000;
    std::array<double, 100> rounds;
    std::uint32_t at = 0;
    for (double& ns : rounds) {
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < kSteps; ++i) at = lines[at].next;
      const std::chrono::duration<double, std::nano> spent =
          std::chrono::steady_clock::now() - start;
      ns = spent.count() / kSteps;
    }
    volatile std::uint32_t sink = at;
    (void)sink;
    ::munmap(memory, kCount * kLine);
    std::nth_element(rounds.begin(), rounds.begin() + rounds.size() / 4, rounds.end());
    return rounds[rounds.size() / 4];
  }();
  return measured;
}

}  // namespace mcs::gsm
