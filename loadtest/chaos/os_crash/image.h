// SPDX-License-Identifier: Apache-2.0
// What a guest boots: a kernel of Debian's, and a file system in memory with the servers, modules
// and tools of this build, whatever libraries they need, and the site.
#pragma once

#include <filesystem>

#include "loadtest/harness/result.h"

namespace mcs::loadtest {

inline constexpr const char* kGuestDomain = "os-crash";

struct Image {
  std::filesystem::path kernel;
  std::filesystem::path files;  // a cpio archive
};

struct ImageOptions {
  std::filesystem::path site;
  std::filesystem::path directory;   // where to make it
  std::filesystem::path kernel_dir;  // where the unpacked kernel package is, or is to be put
  unsigned hang_limit_ms = 15000;
};

/// Downloads the kernel package with apt-get if it is not there. What is missing is named in the
/// error.
Result<Image> make_image(const ImageOptions& options);

}  // namespace mcs::loadtest
