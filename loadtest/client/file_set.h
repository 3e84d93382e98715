// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "loadtest/harness/result.h"
#include "loadtest/specweb/sampler.h"
#include "loadtest/specweb/specweb.h"

namespace mcs::loadtest {

// The files a checking client asks for and what their bytes must be: files on disk are mapped,
// SPECweb99 files are computed. After it was filled it is constant and may be shared by threads.
class FileSet {
 public:
  struct Entry {
    std::string url_path;  // percent-encoded
    uint64_t size = 0;
    std::string last_modified;        // what the field must say; empty: not checked
    const std::byte* data = nullptr;  // mapped; nullptr: generated from `key`
    uint64_t key = 0;
  };

  FileSet() = default;
  FileSet(const FileSet&) = delete;
  FileSet& operator=(const FileSet&) = delete;
  ~FileSet();

  // All regular files (not symbolic links) below `root`, sorted by name, as `url_prefix` + path.
  // They must not shrink while this object lives.
  Result<void> add_directory(const std::filesystem::path& root, std::string_view url_prefix);
  // All files of the set, in its numbering.
  void add_specweb(const SpecwebSet& set, std::string_view url_prefix);

  size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  const Entry& operator[](size_t file) const { return entries_[file]; }
  uint64_t total_bytes() const;
  // Index in `bytes` of the first one that the file does not have at `offset` + index. The range
  // must lie within the file.
  std::optional<size_t> first_difference(size_t file, uint64_t offset,
                                         std::span<const std::byte> bytes) const;

 private:
  struct Mapping {
    void* address;
    size_t length;
  };
  std::vector<Entry> entries_;
  std::vector<Mapping> mappings_;
};

// Path with every byte percent-encoded that is not unreserved or '/' (RFC 3986, 2.3).
std::string percent_encode(std::string_view path);

// Draws the next file of a FileSet. Immutable, so threads may share it with a Random each.
class RequestStream {
 public:
  virtual ~RequestStream() = default;
  virtual size_t next(Random& random) const = 0;
};

// Every file of [first, first + count) equally often.
std::unique_ptr<RequestStream> uniform_stream(size_t first, size_t count);
// Zipf(alpha) over the files of [first, first + count) in an order shuffled by `seed`.
std::unique_ptr<RequestStream> zipf_stream(size_t first, size_t count, double alpha, uint64_t seed);
// SPECweb99's popularity over a set added with add_specweb at index `first`.
std::unique_ptr<RequestStream> specweb_stream(size_t first, int directories);
// One of the streams, chosen anew for each request with a probability proportional to its weight.
struct WeightedStream {
  double weight;
  std::unique_ptr<RequestStream> stream;
};
std::unique_ptr<RequestStream> mixed_stream(std::vector<WeightedStream> parts);

}  // namespace mcs::loadtest
