// SPDX-License-Identifier: Apache-2.0
// mcs-chaos NAME [OPTION…]: one name for all programs that break things on purpose. Each is a program
// of its own beside this one, since some are built in ways that do not go together.
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

struct Campaign {
  const char* name;
  const char* program;
  const char* option;  // given to the program first; nullptr: none
  const char* description;
};

constexpr Campaign kCampaigns[] = {
    {"kill-points", "mcs-killpoints", nullptr,
     "kill operations on shared memory before every store, and their recoverers too"},
    {"interleavings", "mcs-killpoints", "--interleave",
     "run two operations at once in all orders that matter, and kill one of them on the way"},
    {"instructions", "mcs-instructions", nullptr,
     "kill operations of the shipped code after any machine instruction"},
    {"live", "mcs-demo", "--at-once=32",
     "kill up to 32 workers of nginx and httpd at once, at random times under load"},
    {"matrix", "mcs-matrix", nullptr,
     "run the tests that docs/failure-model.md names, and show failure by phase what they say"},
    {"false-deaths", "mcs-false-deaths", nullptr,
     "join and leave under load while processes are started, traced and stopped; nobody may die"},
    {"wild-writes", "mcs-wild", "--wild-writes",
     "processes that share the memory store where they should not, while nginx and httpd serve"},
    {"damage", "mcs-wild", "--damage",
     "bytes of the shared memory change by themselves, while nginx and httpd serve"},
    {"send-loss", "mcs-send-loss", nullptr,
     "the segment is lost while large responses are being sent, plain and encrypted"},
    {"peers", "mcs-peers", nullptr,
     "kill the worker that refreshes an entry, in stock nginx and in ours, side by side"},
    {"memory-loss", "mcs-memory-loss", nullptr,
     "lose memory of nodes, whole and in parts, and restore it, while nginx and httpd serve"},
    {"herd", "mcs-proxied", "herd",
     "many clients of nginx and httpd ask for one missing object, and who fetches it is killed"},
    {"stale", "mcs-proxied", "stale",
     "stale-while-revalidate on both servers while the origin takes its time"},
    {"node-crash", "mcs-nodes", "node-crash",
     "end all processes of a node at once, also of two, with and without its memory"},
    {"zombie", "mcs-nodes", "zombie",
     "freeze a node until the others expel it, then let it go on"},
    {"churn", "mcs-nodes", "churn", "nodes and their servers come and go at random"},
    {"false-expulsions", "mcs-nodes", "false-expulsions",
     "stall processes under load; nobody may be expelled"},
    {"os-crash", "mcs-os-crash", nullptr,
     "crash, cut off and stop operating systems that share the cache (QEMU guests; takes long)"},
    {"purges", "mcs-proxied", "purges",
     "purge keys, prefixes and tags while clients of both servers read"},
};

void usage(std::FILE* to) {
  std::fprintf(to, "Breaks things on purpose and looks for wrong answers.\n\n"
                   "Usage: mcs-chaos NAME [OPTION...]\n\n");
  for (const Campaign& c : kCampaigns) std::fprintf(to, "  %-14s %s\n", c.name, c.description);
  std::fprintf(to, "\nmcs-chaos NAME --help explains the options. The exit status is 0 if nothing went "
                   "wrong, 1 if\nsomething did, and another one if nothing was tried.\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    usage(stderr);
    return 2;
  }
  const std::string name = argv[1];
  if (name == "-h" || name == "--help" || name == "help") {
    usage(stdout);
    return 0;
  }
  char self[PATH_MAX] = {};
  if (::readlink("/proc/self/exe", self, sizeof self - 1) < 0) {
    std::perror("mcs-chaos: cannot find its own program");
    return 2;
  }
  for (const Campaign& c : kCampaigns) {
    if (name != c.name) continue;
    const std::string path = std::string(self, std::strrchr(self, '/') + 1 - self) + c.program;
    std::vector<char*> arguments{argv[1]};
    std::string option = c.option == nullptr ? "" : c.option;
    if (!option.empty()) arguments.push_back(option.data());
    arguments.insert(arguments.end(), argv + 2, argv + argc);
    arguments.push_back(nullptr);
    ::execv(path.c_str(), arguments.data());
    std::fprintf(stderr, "mcs-chaos: cannot run %s: %s; build it with ./mcs build\n", path.c_str(),
                 std::strerror(errno));
    return 2;
  }
  std::fprintf(stderr, "mcs-chaos: no campaign '%s'; mcs-chaos --help lists them\n", name.c_str());
  return 2;
}
