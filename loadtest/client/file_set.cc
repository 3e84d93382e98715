// SPDX-License-Identifier: Apache-2.0
#include "loadtest/client/file_set.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <numeric>

#include "loadtest/harness/http_client.h"
#include "loadtest/specweb/content.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;

FileSet::~FileSet() {
  for (const Mapping& mapping : mappings_) {
    munmap(mapping.address, mapping.length);
  }
}

Result<void> FileSet::add_directory(const fs::path& root, std::string_view url_prefix) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::recursive_directory_iterator it(root, error), end; !error && it != end;
       it.increment(error)) {
    if (it->symlink_status().type() == fs::file_type::regular) {
      files.push_back(it->path().lexically_relative(root));
    }
  }
  if (error) {
    return fail("cannot list {}: {}", root.string(), error.message());
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    const fs::path full = root / file;
    const int fd = open(full.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status = {};
    if (fd < 0 || fstat(fd, &status) != 0) {
      const int open_error = errno;
      if (fd >= 0) {
        close(fd);
      }
      return fail("cannot read {}: {}", full.string(), std::strerror(open_error));
    }
    Entry entry;
    entry.url_path = std::string(url_prefix) + percent_encode(file.generic_string());
    entry.size = static_cast<uint64_t>(status.st_size);
    entry.last_modified = http_date(status.st_mtime);
    static constexpr std::byte kNothing{};
    entry.data = &kNothing;
    if (entry.size > 0) {
      void* const address = mmap(nullptr, entry.size, PROT_READ, MAP_PRIVATE, fd, 0);
      if (address == MAP_FAILED) {
        const int map_error = errno;
        close(fd);
        return fail("cannot map {}: {}", full.string(), std::strerror(map_error));
      }
      mappings_.push_back({address, entry.size});
      entry.data = static_cast<const std::byte*>(address);
    }
    close(fd);
    entries_.push_back(std::move(entry));
  }
  return {};
}

void FileSet::add_specweb(const SpecwebSet& set, std::string_view url_prefix) {
  const std::string modified = http_date(SpecwebSet::kModified);
  for (size_t file = 0; file < set.size(); ++file) {
    entries_.push_back({std::string(url_prefix) + set.path(file), set.file_size(file), modified,
                        nullptr, set.key(file)});
  }
}

uint64_t FileSet::total_bytes() const {
  return std::accumulate(entries_.begin(), entries_.end(), uint64_t{0},
                         [](uint64_t sum, const Entry& entry) { return sum + entry.size; });
}

std::optional<size_t> FileSet::first_difference(size_t file, uint64_t offset,
                                                std::span<const std::byte> bytes) const {
  const Entry& entry = entries_[file];
  if (entry.data == nullptr) {
    return first_wrong_byte(entry.key, offset, bytes);
  }
  const std::byte* const expected = entry.data + offset;
  if (std::memcmp(expected, bytes.data(), bytes.size()) == 0) {
    return std::nullopt;
  }
  return static_cast<size_t>(std::mismatch(bytes.begin(), bytes.end(), expected).first -
                             bytes.begin());
}

std::string percent_encode(std::string_view path) {
  std::string text;
  for (const char letter : path) {
    const auto byte = static_cast<unsigned char>(letter);
    if (std::isalnum(byte) != 0 || std::string_view("-._~/").find(letter) != std::string::npos) {
      text += letter;
    } else {
      text += fmt::format("%{:02X}", byte);
    }
  }
  return text;
}

namespace {

class UniformStream : public RequestStream {
 public:
  UniformStream(size_t first, size_t count) : first_(first), count_(count) {}
  size_t next(Random& random) const override {
    return first_ + std::uniform_int_distribution<size_t>(0, count_ - 1)(random);
  }

 private:
  size_t first_;
  size_t count_;
};

class ZipfStream : public RequestStream {
 public:
  ZipfStream(size_t first, size_t count, double alpha, uint64_t seed)
      : rank_(zipf_weights(count, alpha)), file_(count) {
    std::iota(file_.begin(), file_.end(), first);
    Random random(seed);
    std::shuffle(file_.begin(), file_.end(), random);
  }
  size_t next(Random& random) const override { return file_[rank_(random)]; }

 private:
  WeightedSampler rank_;
  std::vector<size_t> file_;
};

class SpecwebStream : public RequestStream {
 public:
  SpecwebStream(size_t first, int directories) : first_(first), sampler_(directories) {}
  size_t next(Random& random) const override { return first_ + sampler_(random); }

 private:
  size_t first_;
  SpecwebSampler sampler_;
};

std::vector<double> weights_of(const std::vector<WeightedStream>& parts) {
  std::vector<double> weights;
  for (const WeightedStream& part : parts) {
    weights.push_back(part.weight);
  }
  return weights;
}

class MixedStream : public RequestStream {
 public:
  explicit MixedStream(std::vector<WeightedStream> parts)
      : parts_(std::move(parts)), choice_(weights_of(parts_)) {}
  size_t next(Random& random) const override {
    return parts_[choice_(random)].stream->next(random);
  }

 private:
  std::vector<WeightedStream> parts_;
  WeightedSampler choice_;
};

}  // namespace

std::unique_ptr<RequestStream> uniform_stream(size_t first, size_t count) {
  return std::make_unique<UniformStream>(first, count);
}

std::unique_ptr<RequestStream> zipf_stream(size_t first, size_t count, double alpha,
                                           uint64_t seed) {
  return std::make_unique<ZipfStream>(first, count, alpha, seed);
}

std::unique_ptr<RequestStream> specweb_stream(size_t first, int directories) {
  return std::make_unique<SpecwebStream>(first, directories);
}

std::unique_ptr<RequestStream> mixed_stream(std::vector<WeightedStream> parts) {
  return std::make_unique<MixedStream>(std::move(parts));
}

}  // namespace mcs::loadtest
