// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <string>

#include "loadtest/harness/result.h"
#include "loadtest/specweb/sampler.h"

namespace mcs::loadtest {

// The static file set of SPECweb99 and the popularity of its files. Directories hold 36 files: 9 of
// each of 4 classes. File n (0..8) of class c has int(base_c * (n + 1) / 10) bytes.
class SpecwebSet {
 public:
  static constexpr int kClasses = 4;
  static constexpr int kFilesPerClass = 9;
  static constexpr int kFilesPerDirectory = kClasses * kFilesPerClass;
  static constexpr std::array<uint64_t, kClasses> kBase = {1024, 10240, 102400, 1024000};
  static constexpr std::array<double, kClasses> kClassProbability = {.35, .50, .14, .01};
  // Files of a class from the most to the least popular.
  static constexpr std::array<int, kFilesPerClass> kFileOrder = {4, 3, 5, 2, 6, 1, 7, 8, 0};
  // Every file's modification time, so that generating the set again changes no validator.
  static constexpr time_t kModified = 946'684'800;  // 2000-01-01

  // int(25 + (400000/122000 * load) / 5) directories.
  static int directories_for(double load);
  static uint64_t file_size(int file_class, int number);
  // "dir00007/class2_4"
  static std::string file_path(int directory, int file_class, int number);

  SpecwebSet(double load, uint64_t seed);

  int directories() const { return directories_; }
  uint64_t seed() const { return seed_; }
  // Files are numbered directory by directory, class by class.
  size_t size() const { return static_cast<size_t>(directories_) * kFilesPerDirectory; }
  std::string path(size_t file) const;
  uint64_t file_size(size_t file) const;
  // Key of the file's bytes, see content.h.
  uint64_t key(size_t file) const;
  uint64_t total_bytes() const;

  // Writes all files below `root`, modification time kModified.
  Result<void> write_to(const std::filesystem::path& root) const;

 private:
  int directories_;
  uint64_t seed_;
};

// The next file to ask for: directory by Zipf(1), class by kClassProbability, file by Zipf(1) over
// kFileOrder. Immutable, so threads may share it.
class SpecwebSampler {
 public:
  explicit SpecwebSampler(int directories);
  size_t operator()(Random& random) const;

 private:
  WeightedSampler directory_;
  WeightedSampler file_class_;
  WeightedSampler rank_;
};

}  // namespace mcs::loadtest
