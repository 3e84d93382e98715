// SPDX-License-Identifier: Apache-2.0
// Runs each operation of the core a fixed number of times between two requests to callgrind, whose
// dump is named after the operation. Everything is the same in every run: memory, hash seed, order.
#include <valgrind/callgrind.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/global_cache.h"

namespace {

using namespace mcs;

constexpr unsigned kTimes = 1000;
constexpr unsigned kEntries = 500;

class Alone final : public runtime::Liveness {
 public:
  bool acquire(std::uint32_t) override { return true; }
  void release(std::uint32_t) override {}
  bool held(std::uint32_t) override { return false; }
};

struct Process {
  explicit Process(std::uint64_t bytes) {
    gsm::DomainSpec spec;
    spec.name = "guard";
    spec.bytes_per_node = bytes;
    domain = api::create_in_memory(spec, 8, 128);
    auto joined = runtime::Instance::join(*domain, alone, {.server = "guard/1"});
    if (!joined) std::abort();
    instance = std::move(*joined);
    cache = std::make_unique<cache::GlobalCache>(*domain, *instance);
    instance->activate();
  }
  Alone alone;
  std::unique_ptr<gsm::Domain> domain;
  std::unique_ptr<runtime::Instance> instance;
  std::unique_ptr<cache::GlobalCache> cache;
};

std::string key_of(unsigned number) { return "/site/object/" + std::to_string(100000 + number); }

void put(Process& p, const std::string& key, std::span<const std::byte> body) {
  cache::Fill fill;
  if (p.cache->begin(p.cache->make_key(key), fill, {}, true) != cache::Begin::kFilling) std::abort();
  fill.set_head(body.first(64), body.size());
  if (fill.append(body) != cache::Append::kOk || !fill.commit(1)) std::abort();
}

bool get(Process& p, const std::string& key, cache::Hit& hit, std::span<std::byte> to) {
  if (p.cache->find(p.cache->make_key(key), hit).found != cache::Found::kHit) return false;
  if (!p.cache->read_verified(hit, to.data())) std::abort();
  p.cache->touch(hit);
  p.cache->release(hit);
  return true;
}

template <typename Operation>
void count(const char* name, Operation&& operation) {
  for (unsigned i = 0; i < 100; ++i) operation(i);  // resolves symbols, grows buffers
  CALLGRIND_ZERO_STATS;
  for (unsigned i = 0; i < kTimes; ++i) operation(i);
  CALLGRIND_DUMP_STATS_AT(name);
}

}  // namespace

int main() {
  Process p(16ULL << 20);
  const std::array<std::byte, 128> body{};
  std::array<std::byte, 128> to{};
  std::array<std::string, kEntries> keys;
  std::array<std::string, kEntries> absent;
  for (unsigned i = 0; i < kEntries; ++i) {
    keys[i] = key_of(i);
    absent[i] = key_of(50000 + i);
    put(p, keys[i], body);
  }
  cache::Hit hit;
  count("get_hit", [&](unsigned i) {
    if (!get(p, keys[i % kEntries], hit, to)) std::abort();
  });
  count("get_miss", [&](unsigned i) {
    if (get(p, absent[i % kEntries], hit, to)) std::abort();
  });
  count("pin_unpin", [&](unsigned) { p.cache->pins().unpin(p.cache->pins().pin(hit.link)); });
  count("put", [&](unsigned i) { put(p, keys[i % kEntries], body); });

  Process full(4ULL << 20);
  unsigned next = 0;
  while (full.cache->memory().state(0).clock_hand.load() == 0 &&
         full.cache->memory().state(0).arrivals_out.load() == 0) {
    put(full, key_of(next++), body);
  }
  for (unsigned i = 0; i < 5000; ++i) put(full, key_of(next++), body);
  std::array<std::string, kTimes> fresh;
  for (std::string& key : fresh) key = key_of(next++);
  CALLGRIND_ZERO_STATS;
  for (const std::string& key : fresh) put(full, key, body);
  CALLGRIND_DUMP_STATS_AT("evict");
  return 0;
}
