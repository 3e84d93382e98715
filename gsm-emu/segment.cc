// SPDX-License-Identifier: Apache-2.0
#include "gsm-emu/segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/file_mapping.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <new>

#include "gsm-emu/fault.h"
#include "gsm-emu/internal/place.h"
#include "gsm-emu/internal/sent_pages.h"

namespace mcs {

std::string remedy_for(int error) {
  switch (error) {
    case EACCES:
    case EPERM:
      return "; run as the domain's owner or group, or create it with owner=, group= and mode=";
    case EMFILE:
    case ENFILE:
      return "; allow more open files (ulimit -n, worker_rlimit_nofile)";
    case ENOMEM:
      return "; allow more address space (ulimit -v), or more mappings (vm.max_map_count)";
    default:
      return "";
  }
}

}  // namespace mcs

namespace mcs::gsm {

namespace bip = boost::interprocess;

struct Segment::Regions {
  bip::mapped_region metadata;
  bip::mapped_region payload;
};

std::uint64_t header_checksum(const SegmentHeader& header) {
  return XXH3_64bits(&header, offsetof(SegmentHeader, checksum));
}

namespace {

Error system_error(const std::string& what, int error) {
  const ErrorCode code = error == EACCES || error == EPERM ? ErrorCode::kPermission
                         : error == ENOSPC                 ? ErrorCode::kNoSpace
                         : error == ENOENT                 ? ErrorCode::kNotFound
                         : error == EEXIST                 ? ErrorCode::kExists
                                                           : ErrorCode::kSystem;
  return Error{code, fmt::format("{}: {}{}", what, std::strerror(error), remedy_for(error))};
}

Result<void> check_header(const SegmentHeader& header, const std::string& path, off_t file_size,
                          std::uint64_t layout_hash) {
  if (header.magic != kSegmentMagic) {
    return fail(ErrorCode::kDamaged,
                fmt::format("{} is not an MCS segment (wrong magic); remove the domain with "
                            "'gsm-emu down' and let it be created again",
                            path));
  }
  if (header.header_version != kHeaderVersion || header.header_bytes != sizeof(SegmentHeader)) {
    return fail(ErrorCode::kIncompatible,
                fmt::format("{} has segment format {} but this build reads format {}; use the "
                            "build that made it, or remove it with 'gsm-emu down'",
                            path, header.header_version, kHeaderVersion));
  }
  if (header.checksum != header_checksum(header)) {
    return fail(ErrorCode::kDamaged,
                fmt::format("{} has a damaged header (checksum differs); remove the domain with "
                            "'gsm-emu down' and let it be created again",
                            path));
  }
  if (layout_hash != 0 && header.layout_hash != layout_hash) {
    return fail(ErrorCode::kIncompatible,
                fmt::format("{} was made by a build with another layout ({:016x}, this build: "
                            "{:016x}); use that build's tools, or a new domain",
                            path, header.layout_hash, layout_hash));
  }
  if (header.size != static_cast<std::uint64_t>(file_size) || header.meta_bytes < kPageSize ||
      header.meta_bytes % kPageSize != 0 || header.size % kPageSize != 0 ||
      header.meta_bytes >= header.size || header.node >= header.node_count ||
      header.node_count > kMaxNodes || header.incarnation == 0) {
    return fail(ErrorCode::kDamaged,
                fmt::format("{} is {} bytes long but its header says {}; it was truncated or "
                            "damaged: remove the domain with 'gsm-emu down'",
                            path, file_size, header.size));
  }
  return {};
}

void seal(SegmentHeader& header) {
  header.magic = kSegmentMagic;
  header.header_version = kHeaderVersion;
  header.header_bytes = sizeof(SegmentHeader);
  header.checksum = header_checksum(header);
}

}  // namespace

// A lost segment is a truncated file, which a write would grow again, as a hole of zeros that faults
// nobody any more.
static bool is_whole(int fd, std::uint64_t size) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 && static_cast<std::uint64_t>(info.st_size) >= size;
}

Result<void> Segment::map(const std::string& path) {
  try {
    const bip::file_mapping writable(path.c_str(), bip::read_write);
    const bip::file_mapping readable(path.c_str(), bip::read_only);
    regions_ = std::make_unique<Regions>();
    regions_->metadata =
        bip::mapped_region(writable, bip::read_write, static_cast<bip::offset_t>(base_),
                           static_cast<std::size_t>(header_.meta_bytes));
    regions_->payload = bip::mapped_region(
        readable, bip::read_only, static_cast<bip::offset_t>(base_ + header_.meta_bytes),
        static_cast<std::size_t>(payload_bytes()));
  } catch (const bip::interprocess_exception& e) {
    return tl::unexpected(system_error("cannot map " + path, e.get_native_error()));
  }
  metadata_ = static_cast<std::byte*>(regions_->metadata.get_address());
  payload_ = static_cast<std::byte*>(regions_->payload.get_address());
  watch_meta_ = watch_range(metadata_, header_.meta_bytes, RangeKind::kMetadata, &lost_);
  watch_payload_ = watch_range(payload_, payload_bytes(), RangeKind::kPayload, &lost_);
  if (watch_meta_ < 0 || watch_payload_ < 0) {
    return fail(ErrorCode::kSystem, "too many segments are mapped by this process");
  }
  // A crashing server must not write gigabytes of cache into its core file.
  ::madvise(payload_, payload_bytes(), MADV_DONTDUMP);
  return {};
}

// The header, of what cannot be read.
static bool copy_mapped(int fd, std::uint64_t offset, SegmentHeader& header) {
  void* page = ::mmap(nullptr, kPageSize, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (page == MAP_FAILED) return false;
  std::memcpy(&header, page, sizeof header);
  ::munmap(page, kPageSize);
  return true;
}

Result<std::unique_ptr<Segment>> Segment::open_on_device(const std::string& path, const Place& place,
                                                         std::uint64_t layout_hash) {
  std::unique_ptr<Segment> segment(new Segment);
  segment->on_device_ = true;
  segment->base_ = place.offset;
  // The domain's owner has written that name: what has effects when it is opened is not.
  const int named = ::open(place.device.c_str(), O_PATH | O_CLOEXEC);
  struct stat kind {};
  if (named >= 0 && ::fstat(named, &kind) == 0 && S_ISREG(kind.st_mode)) {
    segment->fd_ = ::open(fmt::format("/proc/self/fd/{}", named).c_str(), O_RDWR | O_CLOEXEC);
  } else if (named >= 0) {
    errno = EINVAL;
  }
  const int failed = errno;
  if (named >= 0) ::close(named);
  errno = failed;
  if (segment->fd_ < 0) return tl::unexpected(system_error("cannot open " + place.device, errno));
  struct stat info {};
  if (::fstat(segment->fd_, &info) != 0 || place.offset % kPageSize != 0 ||
      place.offset > static_cast<std::uint64_t>(info.st_size) ||
      place.bytes > static_cast<std::uint64_t>(info.st_size) - place.offset ||
      place.bytes < sizeof(SegmentHeader) ||
      !copy_mapped(segment->fd_, place.offset, segment->header_)) {
    return fail(ErrorCode::kDamaged,
                fmt::format("{} says that a segment lies at byte {} of {}, which is {} bytes long and "
                            "cannot be mapped there; remove the domain with 'gsm-emu down' and attach "
                            "it again",
                            path, place.offset, place.device, info.st_size));
  }
  if (auto ok = check_header(segment->header_, path, static_cast<off_t>(place.bytes), layout_hash);
      !ok) {
    return tl::unexpected(ok.error());
  }
  if (auto ok = segment->map(place.device); !ok) return tl::unexpected(ok.error());
  segment->protect(0, kPageSize);
  return segment;
}

Result<SegmentHeader> Segment::header_on(const std::string& device, std::uint64_t offset) {
  SegmentHeader header{};
  const int fd = ::open(device.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return tl::unexpected(system_error("cannot open " + device, errno));
  struct stat info {};
  const bool copied = ::fstat(fd, &info) == 0 &&
                      static_cast<std::uint64_t>(info.st_size) >= offset + kPageSize &&
                      copy_mapped(fd, offset, header);
  ::close(fd);
  if (!copied || header.magic != kSegmentMagic || header.checksum != header_checksum(header)) {
    return fail(ErrorCode::kDamaged, fmt::format("no MCS segment lies at byte {} of {}; make a domain "
                                                 "there first with 'gsm-emu up NAME --device {}'",
                                                 offset, device, device));
  }
  return header;
}

Result<std::unique_ptr<Segment>> Segment::create_on(const std::string& device, std::uint64_t offset,
                                                    SegmentHeader header) {
  std::unique_ptr<Segment> segment(new Segment);
  segment->on_device_ = true;
  segment->base_ = offset;
  segment->fd_ = ::open(device.c_str(), O_RDWR | O_CLOEXEC);
  if (segment->fd_ < 0) return tl::unexpected(system_error("cannot open " + device, errno));
  struct stat info {};
  if (::fstat(segment->fd_, &info) != 0 ||
      static_cast<std::uint64_t>(info.st_size) < offset + header.size) {
    return fail(ErrorCode::kNoSpace,
                fmt::format("{} has only {} MiB: use less memory per node, or a larger device", device,
                            info.st_size >> 20));
  }
  seal(header);
  segment->header_ = header;
  if (auto ok = segment->map(device); !ok) return tl::unexpected(ok.error());
  std::memset(segment->metadata_, 0, header.meta_bytes);
  return segment;
}

Result<std::unique_ptr<Segment>> Segment::open(const std::string& path,
                                               std::uint64_t layout_hash) {
  std::unique_ptr<Segment> segment(new Segment);
  segment->fd_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (segment->fd_ < 0) return tl::unexpected(system_error("cannot open " + path, errno));
  struct stat info {};
  if (::fstat(segment->fd_, &info) != 0) {
    return tl::unexpected(system_error("cannot stat " + path, errno));
  }
  if (const auto place = read_place(segment->fd_)) return open_on_device(path, *place, layout_hash);
  // Checked on a private copy: a hostile or dying writer may change the file under our eyes.
  const ssize_t got = ::pread(segment->fd_, &segment->header_, sizeof(SegmentHeader), 0);
  if (got != static_cast<ssize_t>(sizeof(SegmentHeader))) {
    return fail(ErrorCode::kDamaged,
                fmt::format("{} is too short to be an MCS segment; remove the domain with "
                            "'gsm-emu down' and let it be created again",
                            path));
  }
  if (auto ok = check_header(segment->header_, path, info.st_size, layout_hash); !ok) {
    return tl::unexpected(ok.error());
  }
  if (auto ok = segment->map(path); !ok) return tl::unexpected(ok.error());
  segment->protect(0, kPageSize);
  return segment;
}

Result<std::unique_ptr<Segment>> Segment::create(const std::string& path, SegmentHeader header,
                                                 unsigned mode) {
  std::unique_ptr<Segment> segment(new Segment);
  segment->fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (segment->fd_ < 0) return tl::unexpected(system_error("cannot create " + path, errno));
  const int error = ::posix_fallocate(segment->fd_, 0, static_cast<off_t>(header.size));
  if (error != 0) {
    ::unlink(path.c_str());
    if (error == ENOSPC) {
      return fail(ErrorCode::kNoSpace,
                  fmt::format("no room for {} MiB at {}: use a smaller size=, another dir=, or "
                              "enlarge that tmpfs (containers often limit /dev/shm to 64 MiB)",
                              header.size >> 20, path));
    }
    return tl::unexpected(system_error("cannot allocate " + path, error));
  }
  ::fchmod(segment->fd_, mode);
  seal(header);
  segment->header_ = header;
  if (::pwrite(segment->fd_, &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header)) {
    return tl::unexpected(system_error("cannot write " + path, errno));
  }
  if (auto ok = segment->map(path); !ok) return tl::unexpected(ok.error());
  return segment;
}

Result<std::unique_ptr<Segment>> Segment::placeholder(SegmentHeader header) {
  std::unique_ptr<Segment> segment(new Segment);
  segment->header_ = header;
  // An empty file: whatever is mapped of it lies beyond its end.
  segment->fd_ = ::memfd_create("mcs-lost", MFD_CLOEXEC);
  if (segment->fd_ < 0) return tl::unexpected(system_error("cannot stand in for lost memory", errno));
  void* payload = ::mmap(nullptr, segment->payload_bytes(), PROT_READ, MAP_SHARED, segment->fd_, 0);
  void* metadata = ::mmap(nullptr, header.meta_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  segment->placeholder_ = true;
  segment->mark_lost();
  if (payload != MAP_FAILED) segment->payload_ = static_cast<std::byte*>(payload);
  if (metadata != MAP_FAILED) segment->metadata_ = static_cast<std::byte*>(metadata);
  if (payload == MAP_FAILED || metadata == MAP_FAILED) {
    return tl::unexpected(system_error("cannot stand in for lost memory", ENOMEM));
  }
  segment->watch_payload_ = watch_range(segment->payload_, segment->payload_bytes(),
                                        RangeKind::kPayload, &segment->lost_);
  return segment;
}

std::unique_ptr<Segment> Segment::in_memory(SegmentHeader header) {
  std::unique_ptr<Segment> segment(new Segment);
  seal(header);
  segment->header_ = header;
  segment->in_memory_ = true;
  void* memory = ::mmap(nullptr, header.size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  segment->metadata_ = static_cast<std::byte*>(memory);
  segment->payload_ = segment->metadata_ + header.meta_bytes;
  std::memcpy(memory, &header, sizeof header);
  return segment;
}

Segment::~Segment() {
  unwatch_range(watch_meta_);
  unwatch_range(watch_payload_);
  regions_.reset();
  if (in_memory_ && metadata_ != nullptr) ::munmap(metadata_, header_.size);
  if (placeholder_ && metadata_ != nullptr) ::munmap(metadata_, header_.meta_bytes);
  if (placeholder_ && payload_ != nullptr) ::munmap(payload_, payload_bytes());
  if (fd_ >= 0) ::close(fd_);
}

bool Segment::answers() {
  if (lost() || in_memory_ || on_device_) return !lost();
  struct stat info {};
  if (::fstat(fd_, &info) != 0 || static_cast<std::uint64_t>(info.st_size) < header_.size) {
    mark_lost();
  }
  return !lost();
}

bool Segment::write_payload(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (offset > payload_bytes() || bytes.size() > payload_bytes() - offset || lost()) return false;
  charge(bytes.size());
  if (in_memory_) {
    std::memcpy(payload_ + offset, bytes.data(), bytes.size());
    return true;
  }
  if (on_device_) {
    // Writable for no longer than it takes.
    const std::uint64_t at = header_.meta_bytes + offset;
    const std::uint64_t first = at / kPageSize * kPageSize;
    const std::uint64_t end = (at + bytes.size() + kPageSize - 1) / kPageSize * kPageSize;
    const Window window = bytes.empty() ? Window() : writable_window(first, end - first);
    if (!window) return bytes.empty();
    std::memcpy(window.data() + (at - first), bytes.data(), bytes.size());
    return !lost();
  }
  if (!answers()) return false;
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::pwrite(fd_, bytes.data() + done, bytes.size() - done,
                               static_cast<off_t>(header_.meta_bytes + offset + done));
    if (n <= 0) {
      if (n < 0 && errno == EINTR) continue;
      return false;
    }
    done += static_cast<std::size_t>(n);
  }
  return !lost();
}

bool Segment::sendable() const {
  std::call_once(sendable_tried_, [this] { sendable_ = !in_memory_ && !on_device_ && keeps_sent_pages(fd_); });
  return sendable_;
}

bool Segment::renew_payload(std::uint64_t offset, std::uint64_t length) {
  if (in_memory_) {
    std::memset(payload_ + offset, 0, length);
    return true;
  }
  if (lost() || on_device_ || offset % kPageSize != 0 || length % kPageSize != 0) return false;
  if (!is_whole(fd_, header_.size)) {
    mark_lost();
    return false;
  }
  const auto at = static_cast<off_t>(file_offset(offset));
  const auto n = static_cast<off_t>(length);
  while (::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n) != 0) {
    if (errno != EINTR) return false;
  }
  // At once, so that hardly anybody comes in between.
  while (::fallocate(fd_, FALLOC_FL_KEEP_SIZE, at, n) != 0 && errno == EINTR) {
  }
  return true;
}

void Segment::protect(std::uint64_t offset, std::uint64_t length) {
  if (!in_memory_) ::mprotect(metadata_ + offset, length, PROT_READ);
}

bool Segment::restore_header() {
  if (in_memory_) {
    std::memcpy(metadata_, &header_, sizeof header_);
    return true;
  }
  if (on_device_) {
    const Window window = writable_window(0, kPageSize);
    if (window) std::memcpy(window.data(), &header_, sizeof header_);
    return window && !lost();
  }
  return !lost() && ::pwrite(fd_, &header_, sizeof header_, 0) == static_cast<ssize_t>(sizeof header_);
}

Segment::Window Segment::writable_window(std::uint64_t offset, std::uint64_t length) {
  Window window;
  if (in_memory_) {
    window.data_ = metadata_ + offset;
    window.size_ = length;
    return window;
  }
  void* at = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd_,
                    static_cast<off_t>(base_ + offset));
  if (at == MAP_FAILED) return window;
  window.data_ = static_cast<std::byte*>(at);
  window.size_ = length;
  window.owned_ = true;
  window.watch_ = watch_range(at, length, RangeKind::kMetadata, &lost_);
  return window;
}

Segment::Window& Segment::Window::operator=(Window&& other) noexcept {
  if (this != &other) {
    reset();
    data_ = std::exchange(other.data_, nullptr);
    size_ = other.size_;
    watch_ = std::exchange(other.watch_, -1);
    owned_ = std::exchange(other.owned_, false);
  }
  return *this;
}

void Segment::Window::reset() {
  unwatch_range(watch_);
  if (owned_ && data_ != nullptr) ::munmap(data_, size_);
  data_ = nullptr;
  watch_ = -1;
  owned_ = false;
}

void Segment::set_viewer(std::uint32_t node) {
  extra_ns_per_line_.store(node == header_.node ? 0 : header_.remote_extra_ns,
                           std::memory_order_relaxed);
}

void Segment::charge_slow(std::size_t bytes) const {
  using clock = std::chrono::steady_clock;
  const std::uint64_t lines = (bytes + 63) / 64;
  const auto until = clock::now() + std::chrono::nanoseconds(
                         lines * extra_ns_per_line_.load(std::memory_order_relaxed));
  while (clock::now() < until) {
  }
}

}  // namespace mcs::gsm
