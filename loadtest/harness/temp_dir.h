// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string_view>

#include "loadtest/harness/result.h"

namespace mcs::loadtest {

// A directory of its own that disappears with the object, and also when this process is killed
// (see Guardian). Mode 0755, so that servers' unprivileged workers can read below it.
class TempDir {
 public:
  // Below $TMPDIR, or /tmp. Throws std::runtime_error when it cannot be made: nothing that needs a
  // temporary directory can go on without it.
  explicit TempDir(std::string_view name = "mcs");
  // Below `parent`, for example a tmpfs.
  TempDir(const std::filesystem::path& parent, std::string_view name);
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Leave the directory behind.
  void keep();

 private:
  std::filesystem::path path_;
  bool keep_ = false;
};

// Writes `text` to `file`, replacing it in place and making its parent directories.
Result<void> write_file(const std::filesystem::path& file, std::string_view text);
Result<std::string> read_file(const std::filesystem::path& file);

}  // namespace mcs::loadtest
