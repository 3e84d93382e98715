// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "tests/killpoints/hooks.h"

namespace mcs::killpoints {

std::string describe_site(const void* site) {
  Dl_info info{};
  if (site == nullptr || ::dladdr(site, &info) == 0) return "?";
  const auto offset = reinterpret_cast<std::uintptr_t>(site) -
                      reinterpret_cast<std::uintptr_t>(info.dli_fbase) - 1;
  char command[600];
  std::snprintf(command, sizeof command, "addr2line -sCfie %s %lx 2>/dev/null", info.dli_fname,
                static_cast<unsigned long>(offset));
  FILE* pipe = ::popen(command, "re");
  if (pipe == nullptr) return "?";
  // Pairs of lines, from the innermost inlined function outwards; those of the library headers say
  // nothing.
  std::string text;
  char function[1024];
  char place[1024];
  while (std::fgets(function, sizeof function, pipe) != nullptr &&
         std::fgets(place, sizeof place, pipe) != nullptr) {
    function[std::strcspn(function, "\n(")] = '\0';
    place[std::strcspn(place, "\n ")] = '\0';
    if (std::strncmp(function, "std::", 5) == 0 || std::strstr(place, "atomic") != nullptr) continue;
    if (!text.empty()) text += " < ";
    text += std::string(function) + " (" + place + ")";
  }
  ::pclose(pipe);
  return text.empty() ? "?" : text;
}

}  // namespace mcs::killpoints
