// SPDX-License-Identifier: Apache-2.0
// A domain: one emulated multicomputer, that is, a directory on a tmpfs with one segment file per
// node. Everything that is true only of this emulation (paths, files, rename) stays in this room;
// a DAX device would offer the same interface, and an ivshmem BAR does: device.cc.
//
//   DIR/mcs-NAME.LAYOUT/            LAYOUT: 8 hex digits of the build's layout hash, so that a build
//     segment.<node>.<incarnation>  with other structures starts a domain beside the old one; where
//                                   segments lie on a device, this says where (internal/place.h)
//     header                        a segment's header, for when all segments are lost
//     live                          liveness locks (one byte per instance), see runtime/liveness.h
//     wake.<slot>, agent.<node>     sockets of instances, made by the rooms above
//
// Creation is atomic: the directory is built under a temporary name and published by rename(2), so
// nobody ever finds half a domain; what a killed creator left is removed by the next one.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "gsm-emu/result.h"
#include "gsm-emu/segment.h"

namespace mcs::gsm {

inline constexpr const char* kDefaultDirectory = "/dev/shm";

/// How a domain is to be made. Sizes in bytes.
struct DomainSpec {
  std::string name;
  std::string directory = kDefaultDirectory;
  std::uint32_t nodes = 1;
  std::uint64_t bytes_per_node = 256ULL << 20;
  std::uint64_t layout_hash = 0;
  std::string owner;  // empty: the caller
  std::string group;  // empty: the owner's
  std::uint32_t mode = 0600;
  std::uint32_t remote_penalty_percent = 100;
  bool separate_kernels = false;
  std::uint32_t node_limit_ms = 0;  // how long a node's heartbeat may stand still; 0: the default
  std::string device;  // segments lie on it, one after the other; empty: in files of the directory
};

/// What the layers above need in each segment.
struct Geometry {
  std::uint64_t meta_bytes = 0;  // header page included, a multiple of the page size
  std::array<std::uint64_t, 40> user{};
};

class Domain {
 public:
  using Format = std::function<void(Segment&)>;

  /// "[a-z0-9._-]{1,32}", not starting with a dot.
  static Result<void> check_name(const std::string& name);
  /// Whether the owner and group that a specification names exist.
  static Result<void> check_owner(const DomainSpec& spec);
  /// Directory of the domain `name` of builds with this layout.
  static std::string path_of(const std::string& directory, const std::string& name,
                             std::uint64_t layout_hash);

  /// Make and map a new domain; `format` initialises the metadata of each segment before anybody
  /// can see it. kExists: somebody else published it first (open it then).
  static Result<std::unique_ptr<Domain>> create(const DomainSpec& spec, const Geometry& geometry,
                                                const Format& format);
  /// Make the domain that lies on the device `here.device` known below here.directory, with the owner,
  /// group and mode of `here`, and map it. Of a device that several kernels see each one has to be told;
  /// what only one kernel knows (liveness locks, sockets) lies in its own directory.
  static Result<std::unique_ptr<Domain>> attach(const DomainSpec& here);
  /// Map an existing domain, each node's newest segment. One whose memory is lost is stood in for
  /// (Segment::placeholder), as long as any other can be opened.
  static Result<std::unique_ptr<Domain>> open(const std::string& directory,
                                              const std::string& name, std::uint64_t layout_hash);
  /// A domain in private memory, for tests and benchmarks of one process.
  static std::unique_ptr<Domain> in_memory(const DomainSpec& spec, const Geometry& geometry,
                                           const Format& format);

  /// Put the node's newest segment file in the place of the one that is mapped, if that does not answer
  /// and the file's incarnation is higher. What was mapped before stays mapped, at its address, until the
  /// domain is closed: others may be reading there. False: there is none, it does not belong to this
  /// domain, or it is out of this process's reach. Thread-safe.
  bool renew(std::uint32_t node);
  /// Why renew() could not tell, or not map what is there: no file descriptor is left, or no permission.
  /// That is this process's own trouble, and says nothing about the memory. Empty: nothing is.
  std::string out_of_reach(std::uint32_t node) const;
  bool is_out_of_reach(std::uint32_t node) const {
    return (unreached_.load(std::memory_order_acquire) >> node & 1) != 0;
  }
  /// A new segment file for `node`, in the place of one that is lost, initialised by `format` before
  /// it gets its name; its incarnation is higher than any in the domain. It is mapped here at once;
  /// others find it with renew(). The former file's memory is given back. kBusy: somebody else is
  /// restoring a segment of this domain. kExists: the segment is not lost.
  /// `unused`: no view has the segment, so that it is made anew though it answers.
  Result<void> restore(std::uint32_t node, const Format& format, bool unused = false);

  /// Remove a domain's files. Processes that have it mapped keep their memory until they leave.
  static Result<void> destroy(const std::string& path);
  /// Paths of all domains below directory, of every layout.
  static std::vector<std::string> list(const std::string& directory);

  const std::string& path() const { return path_; }  // empty if in memory
  const std::string& name() const { return name_; }
  std::uint32_t node_count() const { return node_count_; }
  /// The segment of a node, as it is mapped now.
  Segment& segment(std::uint32_t node) const {
    return *current_[node].load(std::memory_order_acquire);
  }
  /// Of node 0's segment; all but node and incarnation is the same in all.
  const SegmentHeader& header() const { return segment(0).header(); }
  bool on_device() const { return segment(0).on_device(); }
  bool separate_kernels() const { return (header().flags & kSeparateKernels) != 0; }
  /// From which node this process looks at the domain.
  void set_viewer(std::uint32_t node);

 private:
  Domain() = default;
  static Result<std::unique_ptr<Domain>> create_on_device(const DomainSpec& spec,
                                                          const Geometry& geometry,
                                                          const Format& format);
  void add(std::uint32_t node, std::unique_ptr<Segment> segment);
  std::string path_;
  std::string name_;
  std::uint32_t node_count_ = 0;
  std::array<std::atomic<Segment*>, kMaxNodes> current_{};
  void set_reach(std::uint32_t node, const std::string& trouble);
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Segment>> mapped_;  // all that ever were; the pointers above look here
  std::array<std::string, kMaxNodes> trouble_;    // why a node's newest segment is not among them
  std::atomic<std::uint32_t> unreached_{0};       // bit per node that has trouble
  std::uint32_t viewer_ = 0;
};

/// Nanoseconds of one dependent cache-missing load on this machine (measured once per process).
double local_load_ns();

}  // namespace mcs::gsm
