// SPDX-License-Identifier: Apache-2.0
#include "loadtest/chaos/wild/scribbler.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <vector>

#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/runtime/agent.h"
#include "loadtest/chaos/wild/regions.h"

namespace mcs::loadtest {
namespace {

sigjmp_buf escape;
void on_fault(int) { siglongjmp(escape, 1); }

/// Part of the domain as this process has it mapped.
struct Mapped {
  std::byte* begin = nullptr;
  std::uint64_t bytes = 0;
};

std::vector<Mapped> mappings_of(const std::string& path) {
  std::vector<Mapped> found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(path) == std::string::npos) continue;
    std::uintptr_t from = 0;
    std::uintptr_t to = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &from, &to) == 2) {
      found.push_back({reinterpret_cast<std::byte*>(from), to - from});
    }
  }
  return found;
}

class Scribbler {
 public:
  Scribbler(gsm::Domain& domain, runtime::Instance& instance, std::uint64_t seed)
      : domain_(domain), random_(seed), mappings_(mappings_of(domain.path())) {
    // Also what is seldom met by chance: each kind of state, and the slot that is its own to write.
    for (std::uint32_t node = 0; node < domain.node_count(); ++node) {
      for (const Region& region : regions_of(domain.segment(node).header())) {
        if (region.name == "payload" || region.name == "slots" || region.name == "header") continue;
        kinds_.push_back({domain.segment(node).metadata() + region.offset, region.bytes});
      }
    }
    kinds_.push_back({reinterpret_cast<std::byte*>(&instance.own()), instance.geometry().slot_bytes});
  }

  /// False: the page could not be written.
  bool store() {
    const std::vector<Mapped>& among = random_() % 2 == 0 ? mappings_ : kinds_;
    const Mapped& at = among[random_() % among.size()];
    std::uint64_t size = std::min(stray_size(random_), at.bytes);
    std::uint64_t offset = random_() % (at.bytes - size + 1);
    if (random_() % 4 != 0) offset &= ~std::uint64_t{7};
    // What is in use lies at the beginning of most things.
    if (random_() % 4 == 0) offset %= std::min<std::uint64_t>(at.bytes - size + 1, 1024);
    std::vector<std::byte> current(size);
    std::vector<std::byte> other(size);
    if (sigsetjmp(escape, 1) != 0) return false;
    std::memcpy(current.data(), at.begin + offset, size);
    std::memcpy(other.data(), at.begin + random_() % (at.bytes - size + 1) / 8 * 8, size);
    const auto bytes = stray_bytes(random_, current, other);
    std::memcpy(at.begin + offset, bytes.data(), size);
    return true;
  }

 private:
  gsm::Domain& domain_;
  std::mt19937_64 random_;
  std::vector<Mapped> mappings_;
  std::vector<Mapped> kinds_;
};

void work(cache::GlobalCache& cache, std::mt19937_64& random) {
  for (int i = 0; i < 8; ++i) {
    const std::string key = fmt::format("wild/{}", random() % 200);
    cache::Hit hit;
    if (cache.find(cache.make_key(key), hit).found == cache::Found::kHit) {
      cache.release(hit);
      continue;
    }
    cache::Fill fill;
    if (cache.begin(cache.make_key(key), fill) != cache::Begin::kFilling) continue;
    const std::string body(100 + random() % 60000, 'w');
    fill.set_head(std::as_bytes(std::span(key)), body.size());
    if (fill.append(std::as_bytes(std::span(body))) == cache::Append::kOk) fill.commit(1);
  }
}

}  // namespace

int be_wild(const ScribblerOptions& options) {
  auto domain = cache::open(gsm::kDefaultDirectory, options.domain);
  if (!domain) {
    fmt::print(stderr, "{}\n", domain.error().message);
    return 2;
  }
  auto liveness = runtime::KernelLiveness::open((*domain)->path());
  if (!liveness) {
    fmt::print(stderr, "{}\n", liveness.error().message);
    return 2;
  }
  auto instance = runtime::Instance::join(
      **domain, **liveness, {.node = options.node, .server = "wild/1", .may_inherit = true});
  if (!instance) {
    fmt::print(stderr, "{}\n", instance.error().message);
    return 2;
  }
  cache::GlobalCache cache(**domain, **instance);
  (*instance)->activate();
  runtime::send_hello((*domain)->path(), options.node, (*instance)->id());
  std::mt19937_64 random(options.seed);
  work(cache, random);
  // What it holds when it dies.
  cache::Hit pinned;
  cache.find(cache.make_key("wild/7"), pinned);
  cache::Fill open;
  if (cache.begin(cache.make_key(fmt::format("open/{}", options.seed)), open) ==
      cache::Begin::kFilling) {
    const std::string head(64, 'h');
    open.set_head(std::as_bytes(std::span(head)), 30000);
    const std::string part(20000, 'o');
    open.append(std::as_bytes(std::span(part)));
    open.flush();
  }
  struct sigaction action {};
  action.sa_handler = on_fault;
  action.sa_flags = SA_NODEFER;
  ::sigaction(SIGSEGV, &action, nullptr);
  Scribbler scribbler(**domain, **instance, options.seed ^ 0x5c1b);
  unsigned faulted = 0;
  for (unsigned i = 0; i < options.stores; ++i) {
    if (!scribbler.store()) ++faulted;
  }
  fmt::print("{{\"stores\": {}, \"faulted\": {}}}\n", options.stores, faulted);
  std::fflush(stdout);
  ::raise(SIGKILL);
  return 2;
}

}  // namespace mcs::loadtest
