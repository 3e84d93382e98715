// SPDX-License-Identifier: Apache-2.0
#include "loadtest/specweb/specweb.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "loadtest/specweb/content.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;

namespace {

Result<void> write_generated(const fs::path& file, uint64_t key, uint64_t size,
                             std::vector<std::byte>& buffer) {
  const int fd = open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) {
    return fail("cannot write {}: {}", file.string(), std::strerror(errno));
  }
  buffer.resize(size);
  fill_content(key, 0, buffer);
  uint64_t written = 0;
  while (written < size) {
    const ssize_t n = write(fd, buffer.data() + written, size - written);
    if (n < 0 && errno != EINTR) {
      const int error = errno;
      close(fd);
      return fail("cannot write {}: {}", file.string(), std::strerror(error));
    }
    written += n > 0 ? static_cast<uint64_t>(n) : 0;
  }
  const timespec times[2] = {{SpecwebSet::kModified, 0}, {SpecwebSet::kModified, 0}};
  futimens(fd, times);
  close(fd);
  return {};
}

struct FileName {
  int directory;
  int file_class;
  int number;
};

FileName name_of(size_t file) {
  const auto index = static_cast<int>(file);
  return {index / SpecwebSet::kFilesPerDirectory,
          index % SpecwebSet::kFilesPerDirectory / SpecwebSet::kFilesPerClass,
          index % SpecwebSet::kFilesPerClass};
}

}  // namespace

int SpecwebSet::directories_for(double load) {
  return static_cast<int>(25 + (400000.0 / 122000.0 * load) / 5);
}

uint64_t SpecwebSet::file_size(int file_class, int number) {
  return kBase[static_cast<size_t>(file_class)] * static_cast<uint64_t>(number + 1) / 10;
}

std::string SpecwebSet::file_path(int directory, int file_class, int number) {
  return fmt::format("dir{:05}/class{}_{}", directory, file_class, number);
}

SpecwebSet::SpecwebSet(double load, uint64_t seed)
    : directories_(directories_for(load)), seed_(seed) {}

std::string SpecwebSet::path(size_t file) const {
  const FileName name = name_of(file);
  return file_path(name.directory, name.file_class, name.number);
}

uint64_t SpecwebSet::file_size(size_t file) const {
  const FileName name = name_of(file);
  return file_size(name.file_class, name.number);
}

uint64_t SpecwebSet::key(size_t file) const { return content_key(seed_, path(file)); }

uint64_t SpecwebSet::total_bytes() const {
  uint64_t per_directory = 0;
  for (size_t file = 0; file < kFilesPerDirectory; ++file) {
    per_directory += file_size(file);
  }
  return per_directory * static_cast<uint64_t>(directories_);
}

Result<void> SpecwebSet::write_to(const fs::path& root) const {
  std::vector<std::byte> buffer;
  for (size_t file = 0; file < size(); ++file) {
    const fs::path target = root / path(file);
    if (file % kFilesPerDirectory == 0) {
      std::error_code error;
      fs::create_directories(target.parent_path(), error);
      if (error) {
        return fail("cannot make {}: {}", target.parent_path().string(), error.message());
      }
    }
    if (auto written = write_generated(target, key(file), file_size(file), buffer); !written) {
      return written;
    }
  }
  return {};
}

SpecwebSampler::SpecwebSampler(int directories)
    : directory_(zipf_weights(static_cast<size_t>(directories), 1)),
      file_class_(SpecwebSet::kClassProbability),
      rank_(zipf_weights(SpecwebSet::kFilesPerClass, 1)) {}

size_t SpecwebSampler::operator()(Random& random) const {
  const size_t directory = directory_(random);
  const size_t file_class = file_class_(random);
  const auto number = static_cast<size_t>(SpecwebSet::kFileOrder[rank_(random)]);
  return directory * SpecwebSet::kFilesPerDirectory + file_class * SpecwebSet::kFilesPerClass +
         number;
}

}  // namespace mcs::loadtest
