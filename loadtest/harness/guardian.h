// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace mcs::loadtest {

// Cleans up after this process when it is killed: a small forked process that holds the other
// end of a socket pair. While this process lives it does nothing; when its end closes (exit,
// SIGKILL, a test's timeout) it kills the process groups, runs the commands and removes the
// directories that are still registered. Destructors unregister what they have cleaned up
// themselves.
//
// Thread-safe. Forked on first use; processes forked later without exec keep it waiting for them.
class Guardian {
 public:
  // The one everything in this library registers with.
  static Guardian& instance();

  // Throws std::runtime_error when it cannot be started.
  Guardian();
  // Cleans up what is still registered, in the background.
  ~Guardian();
  Guardian(const Guardian&) = delete;
  Guardian& operator=(const Guardian&) = delete;

  // SIGKILL to every member of a process group.
  void add_group(pid_t group);
  void remove_group(pid_t group);
  // Remove a directory tree.
  void add_path(const std::filesystem::path& path);
  void remove_path(const std::filesystem::path& path);
  // Run a command (found in PATH) after all groups are dead and before directories are removed.
  void add_command(const std::vector<std::string>& argv);
  void remove_command(const std::vector<std::string>& argv);

 private:
  void send(char sign, char kind, std::string_view value);

  std::mutex mutex_;
  int pipe_ = -1;
};

}  // namespace mcs::loadtest
