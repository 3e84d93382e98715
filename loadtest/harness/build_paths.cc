// SPDX-License-Identifier: Apache-2.0
#include "loadtest/harness/build_paths.h"

#include <cstdlib>
#include <initializer_list>

#include "loadtest/harness/process.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;

namespace {

fs::path build_directory() {
  if (const char* directory = std::getenv("MCS_BUILD_DIR"); directory != nullptr && *directory) {
    return directory;
  }
  std::error_code error;
  fs::path directory = fs::read_symlink("/proc/self/exe", error).parent_path();
  while (!error && directory.has_relative_path()) {
    if (fs::exists(directory / "CMakeCache.txt", error)) {
      return directory;
    }
    directory = directory.parent_path();
  }
  return {};
}

fs::path first_existing(std::initializer_list<fs::path> candidates) {
  std::error_code error;
  for (const fs::path& candidate : candidates) {
    if (fs::is_regular_file(candidate, error)) {
      return candidate;
    }
  }
  return {};
}

}  // namespace

fs::path module_file(std::string_view name) {
  const fs::path build = build_directory();
  if (!build.empty()) {
    return first_existing({build / "modules" / name});
  }
  return first_existing(
      {fs::path("/usr/lib/nginx/modules") / name, fs::path("/usr/lib/apache2/modules") / name});
}

fs::path tool_file(std::string_view name) {
  const fs::path build = build_directory();
  if (!build.empty()) {
    return first_existing({build / "bin" / name});
  }
  const std::string found = find_program(name);
  return found.empty() ? first_existing({fs::path("/usr/libexec/mcs") / name}) : fs::path(found);
}

}  // namespace mcs::loadtest
