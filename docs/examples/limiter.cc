// SPDX-License-Identifier: Apache-2.0
// limiter DOMAIN LIMIT: takes one of LIMIT places, if one is free, and keeps it until SIGTERM or
// SIGINT. The program of docs/tutorial-component.md.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "docs/examples/global_limiter.h"
#include "libglobalcache/cache/layout.h"
#include "libglobalcache/runtime/agent.h"

namespace {

using namespace mcs;

constexpr const char* kDirectory = "/dev/shm";
constexpr std::uint32_t kNode = 0;
constexpr std::uint32_t kHangLimitMs = 5000;

volatile std::sig_atomic_t stop = 0;

int complain(const Error& error) {
  std::fprintf(stderr, "limiter: %s\n", error.message.c_str());
  return 2;
}

// The agent ends us if we are stopped while others wait for us; each new one must be told.
void tell_agent(const std::string& path, runtime::Instance& instance, std::uint64_t& told) {
  const std::uint64_t agent = instance.events(kNode).agent.load(std::memory_order_acquire);
  if (agent != told && runtime::send_hello(path, kNode, instance.id())) told = agent;
}

int run(const char* name, std::uint32_t limit) {
  auto domain = gsm::Domain::open(kDirectory, name, cache::layout_hash());
  if (!domain) return complain(domain.error());
  auto liveness = runtime::KernelLiveness::open((*domain)->path());
  if (!liveness) return complain(liveness.error());
  auto instance =
      runtime::Instance::join(**domain, **liveness, {.node = kNode, .server = "limiter"});
  if (!instance) return complain(instance.error());
  (*instance)->activate();
  // Goes away at once if the node has one.
  runtime::start_agent(-1, kDirectory, name, kNode, kHangLimitMs);

  auto limiter = examples::GlobalLimiter::join(**instance, limit);
  if (!limiter) return complain(limiter.error());
  const bool mine = (*limiter)->try_acquire();
  std::printf(mine ? "a place for me, %u in use\n" : "no place for me, %u in use\n",
              (*limiter)->in_use());
  std::fflush(stdout);
  std::uint64_t told = 0;
  while (mine && stop == 0) {
    tell_agent((*domain)->path(), **instance, told);
    (*limiter)->tick();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  if (mine) (*limiter)->release();
  limiter->reset();
  (*instance)->leave();
  return mine ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const int limit = argc == 3 ? std::atoi(argv[2]) : 0;
  if (limit < 1) {
    std::fprintf(stderr, "usage: limiter DOMAIN LIMIT (a number from 1)\n");
    return 2;
  }
  std::signal(SIGTERM, [](int) { stop = 1; });
  std::signal(SIGINT, [](int) { stop = 1; });
  return run(argv[1], static_cast<std::uint32_t>(limit));
}
