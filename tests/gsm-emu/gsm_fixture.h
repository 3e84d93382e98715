// SPDX-License-Identifier: Apache-2.0
// Domains in a directory of their own on the memory file system.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "gsm-emu/domain.h"

namespace mcs::gsm {

class GsmTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kLayout = 0x1122334455667788;
  static constexpr std::uint64_t kBytes = 1 << 20;
  static constexpr std::uint64_t kMeta = 4 * kPageSize;

  GsmTest() {
    char name[] = "/dev/shm/gsmtest.XXXXXX";
    if (::mkdtemp(name) == nullptr) throw std::runtime_error("no directory in /dev/shm");
    directory_ = name;
  }
  ~GsmTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  DomainSpec spec(const std::string& name, std::uint32_t nodes = 1) const {
    DomainSpec s;
    s.name = name;
    s.directory = directory_;
    s.nodes = nodes;
    s.bytes_per_node = kBytes;
    s.layout_hash = kLayout;
    return s;
  }
  static Geometry geometry() {
    Geometry g;
    g.meta_bytes = kMeta;
    g.user[3] = 33;
    return g;
  }
  /// Writes a mark that differs from node to node.
  static void format(Segment& segment) {
    segment.metadata()[kPageSize] = static_cast<std::byte>(0xa0 + segment.node());
  }
  Result<std::unique_ptr<Domain>> create(const DomainSpec& s) const {
    return Domain::create(s, geometry(), format);
  }
  std::unique_ptr<Domain> make(const std::string& name, std::uint32_t nodes = 1) const {
    auto domain = create(spec(name, nodes));
    EXPECT_TRUE(domain) << domain.error().message;
    return domain ? std::move(*domain) : nullptr;
  }
  Result<std::unique_ptr<Domain>> open(const std::string& name) const {
    return Domain::open(directory_, name, kLayout);
  }
  std::string path(const std::string& name) const {
    return Domain::path_of(directory_, name, kLayout);
  }
  std::string segment_path(const std::string& name, std::uint32_t node,
                           std::uint64_t incarnation = 1) const {
    return path(name) + "/segment." + std::to_string(node) + "." + std::to_string(incarnation);
  }

  static SegmentHeader read_header(const std::string& file) {
    SegmentHeader header{};
    const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(::pread(fd, &header, sizeof header, 0), static_cast<ssize_t>(sizeof header));
    ::close(fd);
    return header;
  }
  /// `sum`: with a checksum that fits again.
  static void write_header(const std::string& file, SegmentHeader header, bool sum) {
    if (sum) header.checksum = header_checksum(header);
    const int fd = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    EXPECT_EQ(::pwrite(fd, &header, sizeof header, 0), static_cast<ssize_t>(sizeof header));
    ::close(fd);
  }
  std::vector<std::string> names_in_directory() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  std::string directory_;
};

/// Runs `work` in a child process; what it returns as a sentence is the result.
template <typename Work>
std::string in_child(Work&& work) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return "no pipe";
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string text = work();
    const ssize_t written = ::write(ends[1], text.data(), text.size());
    ::_exit(written == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  ::close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = ::read(ends[0], buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(n));
  }
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? text : text + " (child ended badly)";
}

}  // namespace mcs::gsm
