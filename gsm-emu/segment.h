// SPDX-License-Identifier: Apache-2.0
// One segment: the memory that one node contributes to Global Shared Memory.
//
// A segment is [header page | metadata | payload]. The header and the boundary are gsm-emu's; what
// the metadata means belongs to the layers above, which find their geometry in header().user.
//
//   word                  written by            when
//   header (all of it)    creator               before the domain is published (rename)
//   metadata              any instance          by its owner's protocol
//   payload               write_payload only    mapped PROT_READ in every process: a wild store
//                                               faults instead of corrupting (Hive's firewall)
//
// A kill during creation leaves an unpublished directory, removed by the next creator. A segment
// that was lost never comes back: its node returns with a new file and a higher incarnation.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "gsm-emu/result.h"

namespace mcs::gsm {

inline constexpr std::uint64_t kSegmentMagic = 0x4d43532d47534d31;  // "MCS-GSM1"
inline constexpr std::uint32_t kHeaderVersion = 2;
/// SegmentHeader::flags: each node has a kernel of its own, so that what this kernel says of another
/// node's processes proves nothing, also where the emulation runs them all on one.
inline constexpr std::uint32_t kSeparateKernels = 1;
inline constexpr std::size_t kPageSize = 4096;
inline constexpr std::uint32_t kMaxNodes = 16;
inline constexpr std::size_t kMaxDomainName = 32;

struct Place;

struct SegmentHeader {
  std::uint64_t magic;
  std::uint32_t header_version;
  std::uint32_t header_bytes;
  std::uint64_t layout_hash;  // of the layers above: a build with other structures is refused
  char domain[kMaxDomainName + 8];
  std::uint64_t domain_id;  // random, the same in all segments of one domain
  std::uint64_t hash_seed;
  std::uint32_t node;
  std::uint32_t node_count;
  std::uint64_t incarnation;  // of this node's segment, from 1
  std::uint64_t size;         // bytes of the whole segment
  std::uint64_t meta_bytes;   // header + metadata; payload starts here
  std::uint32_t remote_penalty_percent;  // 100 = as fast as local memory
  std::uint32_t remote_extra_ns;         // charged per cache line of another node's memory
  std::uint32_t flags;                   // kSeparateKernels
  std::uint32_t node_limit_ms;           // how long a node's heartbeat may stand still; 0: the default
  std::uint64_t user[40];                // geometry of the layers above
  std::uint64_t checksum;                // XXH3 of everything before it
};
static_assert(sizeof(SegmentHeader) <= kPageSize);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

/// XXH3 over the header up to its checksum.
std::uint64_t header_checksum(const SegmentHeader& header);

/// A mapped segment. Thread-safe. Mapped in one process; the object owns the mappings.
class Segment {
 public:
  /// Map a segment file. The header is checked (on a private copy) against magic, version, size,
  /// checksum and layout_hash; a mismatch is refused with a message that says what to do.
  static Result<std::unique_ptr<Segment>> open(const std::string& path, std::uint64_t layout_hash);

  /// In the place of a segment that cannot be opened because its memory is gone: metadata that reads
  /// zero, payload that faults, lost() from the beginning. `header`: what is known of it.
  static Result<std::unique_ptr<Segment>> placeholder(SegmentHeader header);

  /// Make a segment file of header.size bytes, all of them allocated now (a full tmpfs is an error
  /// here, never a SIGBUS later), and map it. `path` must not exist.
  static Result<std::unique_ptr<Segment>> create(const std::string& path, SegmentHeader header,
                                                 unsigned mode);

  /// Make a segment at `offset` of a device, page-aligned, that is large enough. Its metadata reads as
  /// zeros, the header too, until restore_header(): so nobody attaches to what is not yet formatted.
  static Result<std::unique_ptr<Segment>> create_on(const std::string& device, std::uint64_t offset,
                                                    SegmentHeader header);

  /// The header of the segment at `offset` of a device, magic and checksum checked.
  static Result<SegmentHeader> header_on(const std::string& device, std::uint64_t offset);

  /// A segment in private memory, for tests and single-process use; nothing to clean up.
  static std::unique_ptr<Segment> in_memory(SegmentHeader header);

  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  const SegmentHeader& header() const { return header_; }
  std::uint32_t node() const { return header_.node; }
  std::uint64_t incarnation() const { return header_.incarnation; }

  /// First byte of the segment as mapped read-write (header page included, but read-only).
  std::byte* metadata() const { return metadata_; }
  /// First byte of the payload; may fault when the segment is lost: read it with guarded_copy, or
  /// hand it to copying system calls (which answer EFAULT).
  const std::byte* payload() const { return payload_; }
  std::uint64_t payload_bytes() const { return header_.size - header_.meta_bytes; }

  /// Whether an access of this process met lost memory. Never reset.
  bool lost() const { return lost_.load(std::memory_order_acquire); }
  void mark_lost() { lost_.store(true, std::memory_order_release); }
  /// Whether all of it still answers, as far as can be told without an access: one system call. Marks
  /// it lost otherwise. What a device would report by itself.
  bool answers();

  /// Store bytes into the payload at offset (bytes from payload()). False: out of range, lost, or
  /// no room; then nothing may be assumed about the range. Atomicity: none beyond the kernel's.
  [[nodiscard]] bool write_payload(std::uint64_t offset, std::span<const std::byte> bytes);

  /// The file that holds the payload, for system calls that read it; -1: none. The segment's.
  int fd() const { return on_device_ ? -1 : fd_; }
  /// Where payload()[offset] lies in that file. Bytes.
  std::uint64_t file_offset(std::uint64_t offset) const { return header_.meta_bytes + offset; }
  /// It can only be mapped: read, write, sendfile and punching of holes fail on such memory.
  bool on_device() const { return on_device_; }

  /// Whether sendfile(2) may be given pages of the payload which renew_payload is called for before
  /// they are written again: what the kernel has queued then stays as it was. So it is on tmpfs
  /// without huge pages (of those it would zero a part in place). Tried out at the first call.
  bool sendable() const;

  /// Exchange pages of the payload (offset and length in bytes, page-aligned) for new ones, which read
  /// as zeros: whoever was given the old ones keeps them. False: the pages are still the old ones. If
  /// another user of the tmpfs takes the room in between, the range is left without memory, and what
  /// writes to it later may fail for that. Can be repeated after a kill at any point.
  [[nodiscard]] bool renew_payload(std::uint64_t offset, std::uint64_t length);

  /// Take write permission away from metadata[offset, offset+length), page-aligned, in this process.
  void protect(std::uint64_t offset, std::uint64_t length);

  /// Write the header again as it was when this process mapped the segment; nothing else ever changes it.
  bool restore_header();

  /// A second, writable view of metadata[offset, offset+length), page-aligned.
  class Window {
   public:
    Window() = default;
    Window(Window&& other) noexcept { *this = std::move(other); }
    Window& operator=(Window&& other) noexcept;
    ~Window() { reset(); }
    void reset();
    std::byte* data() const { return data_; }
    explicit operator bool() const { return data_ != nullptr; }

   private:
    friend class Segment;
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    int watch_ = -1;
    bool owned_ = false;
  };
  Window writable_window(std::uint64_t offset, std::uint64_t length);

  /// Emulated distance: charge for `bytes` read from or written to this segment by a process of
  /// another node. One branch when emulation is off.
  void charge(std::size_t bytes) const {
    if (extra_ns_per_line_.load(std::memory_order_relaxed) != 0) charge_slow(bytes);
  }
  /// From which node this process looks at the segment (decides whether charge costs anything).
  void set_viewer(std::uint32_t node);

 private:
  Segment() = default;
  void charge_slow(std::size_t bytes) const;
  Result<void> map(const std::string& path);
  static Result<std::unique_ptr<Segment>> open_on_device(const std::string& path, const Place& place,
                                                         std::uint64_t layout_hash);

  SegmentHeader header_{};
  std::byte* metadata_ = nullptr;
  std::byte* payload_ = nullptr;
  std::atomic<bool> lost_{false};
  std::atomic<std::uint32_t> extra_ns_per_line_{0};
  int fd_ = -1;
  int watch_meta_ = -1;
  int watch_payload_ = -1;
  std::uint64_t base_ = 0;  // where the segment begins in what fd_ is; 0 but on a device
  bool in_memory_ = false;
  bool on_device_ = false;
  mutable std::once_flag sendable_tried_;
  mutable bool sendable_ = false;
  bool placeholder_ = false;
  struct Regions;
  std::unique_ptr<Regions> regions_;
};

}  // namespace mcs::gsm
