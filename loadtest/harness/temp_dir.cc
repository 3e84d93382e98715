// SPDX-License-Identifier: Apache-2.0
#include "loadtest/harness/temp_dir.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "loadtest/harness/guardian.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;

namespace {

fs::path default_parent() {
  const char* parent = std::getenv("TMPDIR");
  return parent != nullptr && *parent != '\0' ? parent : "/tmp";
}

}  // namespace

TempDir::TempDir(std::string_view name) : TempDir(default_parent(), name) {}

TempDir::TempDir(const fs::path& parent, std::string_view name) {
  std::string pattern = (parent / fmt::format("{}-XXXXXX", name)).string();
  if (mkdtemp(pattern.data()) == nullptr || chmod(pattern.c_str(), 0755) != 0) {
    throw std::runtime_error(fmt::format("cannot make a temporary directory in {}: {}",
                                         parent.string(), std::strerror(errno)));
  }
  path_ = pattern;
  Guardian::instance().add_path(path_);
}

TempDir::~TempDir() {
  if (keep_) {
    return;
  }
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  Guardian::instance().remove_path(path_);
}

void TempDir::keep() {
  keep_ = true;
  Guardian::instance().remove_path(path_);
}

Result<void> write_file(const fs::path& file, std::string_view text) {
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.close();
  if (!out) {
    return fail("cannot write {}: {}", file.string(), std::strerror(errno));
  }
  return {};
}

Result<std::string> read_file(const fs::path& file) {
  // Not with a stream: reading /proc may fail half-way, which stream iterators turn into
  // exceptions.
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  std::string text;
  char buffer[65536];
  ssize_t got = -1;
  while (fd >= 0 && ((got = read(fd, buffer, sizeof buffer)) > 0 || (got < 0 && errno == EINTR))) {
    text.append(buffer, got > 0 ? static_cast<size_t>(got) : 0);
  }
  const int error = errno;
  if (fd >= 0) {
    close(fd);
  }
  if (got < 0) {
    return fail("cannot read {}: {}", file.string(), std::strerror(error));
  }
  return text;
}

}  // namespace mcs::loadtest
