// SPDX-License-Identifier: Apache-2.0
// mcs-agent: the recovery agent of one node. Started by the first process that joins the domain;
// ends with its last user.
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

#include "libglobalcache/api/wake.h"
#include "libglobalcache/cache/repair.h"
#include "libglobalcache/runtime/agent.h"

namespace {

volatile bool stop = false;

int run(const std::string& directory, const std::string& name, std::uint32_t node,
        const mcs::runtime::Agent::Options& options) {
  using namespace mcs;
  auto domain = cache::open(directory, name);
  if (!domain) {
    std::fprintf(stderr, "mcs-agent: %s\n", domain.error().message.c_str());
    return 1;
  }
  auto liveness = runtime::KernelLiveness::open((*domain)->path());
  if (!liveness) {
    std::fprintf(stderr, "mcs-agent: %s\n", liveness.error().message.c_str());
    return 1;
  }
  // One agent per node; a rival that came first does the work.
  if (!(*liveness)->acquire(runtime::kAgentByte + node)) return 0;
  auto instance = runtime::Instance::join(
      **domain, **liveness, {.node = node, .server = "mcs-agent", .may_inherit = true});
  if (!instance) {
    std::fprintf(stderr, "mcs-agent: %s\n", instance.error().message.c_str());
    return 1;
  }
  // Whoever waits for what a dead process was filling is told at once.
  const int wake = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  cache::GlobalCache cache(**domain, **instance, [&](std::uint32_t slot) {
    api::WakeSocket::send(wake, api::WakeSocket::path_for((*domain)->path(), slot));
  });
  (*instance)->recover_all("agent started");
  (*instance)->activate();
  bool ok = false;
  {
    runtime::Agent::Options watching = options;
    watching.failed_checks = [&](std::uint32_t other) {
      return cache.memory().state(other).damage.load(std::memory_order_relaxed);
    };
    std::string said;
    watching.watch = [&] {
      cache.look_after_memory();
      if (std::string why = cache.memory().trouble(); why != said) {
        said = std::move(why);
        if (!said.empty()) std::fprintf(stderr, "mcs-agent: %s\n", said.c_str());
      }
      // Its slot is gone with its segment. Whoever ticks next starts another agent.
      if (cache.is_homeless()) stop = true;
    };
    runtime::Agent agent(**instance, (*domain)->path(), watching, [&] { cache.tick(); });
    std::atomic<bool> ended{false};
    std::thread repairer([&] { cache::Repairer(cache).watch(ended); });
    ok = agent.run(&stop);
    ended = true;
    repairer.join();
  }
  if (cache.is_homeless()) return ok ? 0 : 1;
  cache.leave();
  (*instance)->leave();
  return ok ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"The recovery agent of one node of an MCS domain. Servers start it by themselves."};
  std::string name;
  std::string directory = mcs::gsm::kDefaultDirectory;
  std::uint32_t node = 0;
  mcs::runtime::Agent::Options options;
  app.add_option("domain", name, "name of the domain")->required();
  app.add_option("--directory", directory, "directory that holds domains")->capture_default_str();
  app.add_option("--node", node, "node this agent looks after")->capture_default_str();
  app.add_option("--hang-limit-ms", options.hang_limit_ms,
                 "how long a stopped process may hold what others need, ms")
      ->capture_default_str();
  app.add_option("--node-limit-ms", options.node_limit_ms,
                 "how long another node may be silent, ms [what the domain was made with; twice the hang "
                 "limit; 1000 where each node has a kernel of its own]");
  app.add_option("--linger-ms", options.linger_ms, "how long to stay when nobody is left, ms")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  struct sigaction action {};
  action.sa_handler = [](int) { stop = true; };
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
  return run(directory, name, node, options);
}
