// SPDX-License-Identifier: Apache-2.0
// mcs-os-holder: runs in a guest. Takes what a crash must not keep from others, and waits for it:
// a mutex in the middle of a change of the structure it guards, a lease, and pins. Or tries whether
// others get on.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/http/key.h"
#include "libglobalcache/runtime/component.h"

namespace {

using namespace mcs;
using std::chrono::milliseconds;

constexpr milliseconds kWait{2000};
constexpr std::size_t kPins = 6;
constexpr int kFiles = 120;  // of the site, as the campaign makes it

// Guarded by the component's mutex: equal whenever nobody is inside.
struct Counters {
  std::uint64_t begun;
  std::uint64_t ended;
};

struct Member {
  std::unique_ptr<gsm::Domain> domain;
  std::unique_ptr<runtime::KernelLiveness> liveness;
  std::unique_ptr<runtime::Instance> instance;
  std::unique_ptr<cache::GlobalCache> cache;
  std::unique_ptr<runtime::Component> component;
  Counters& counters() const { return *reinterpret_cast<Counters*>(component->data().data()); }
};

Result<Member> join(const std::string& name, std::uint32_t node) {
  Member self;
  auto domain = cache::open(gsm::kDefaultDirectory, name);
  if (!domain) return tl::unexpected(domain.error());
  self.domain = std::move(*domain);
  auto liveness = runtime::KernelLiveness::open(self.domain->path());
  if (!liveness) return tl::unexpected(liveness.error());
  self.liveness = std::move(*liveness);
  auto instance = runtime::Instance::join(*self.domain, *self.liveness,
                                          {.node = node, .server = "holder", .may_inherit = true});
  if (!instance) return tl::unexpected(instance.error());
  self.instance = std::move(*instance);
  self.cache = std::make_unique<cache::GlobalCache>(*self.domain, *self.instance);
  self.instance->activate();
  runtime::ComponentOptions options;
  options.name = "os-crash";
  options.initialise = [](std::span<std::byte> data) {
    std::memset(data.data(), 0, sizeof(Counters));
  };
  options.repair = [](std::span<std::byte> data) {
    auto* counters = reinterpret_cast<Counters*>(data.data());
    counters->ended = counters->begun;
  };
  auto component = runtime::Component::join(*self.instance, std::move(options));
  if (!component) return tl::unexpected(component.error());
  self.component = std::move(*component);
  return self;
}

void leave(Member& self) {
  self.component->leave();
  self.cache->leave();
  self.instance->leave();
}

// Of the files that clients ask for.
std::vector<std::string> known_keys(std::mt19937& random) {
  std::vector<std::string> keys;
  for (int file = 0; file < kFiles; ++file) {
    std::string key;
    if (http::build_static_key("site", fmt::format("/f{}.txt", file), key)) keys.push_back(key);
  }
  std::shuffle(keys.begin(), keys.end(), random);
  return keys;
}

int hold(Member& self) {
  std::mt19937 random(std::random_device{}());
  const std::vector<std::string> keys = known_keys(random);
  std::vector<cache::Hit> hits(kPins);
  cache::Fill lease;
  std::size_t pins = 0;
  for (const std::string& name : keys) {
    const cache::Key key = self.cache->make_key(name);
    cache::Hit found;
    cache::Hit& hit = pins < kPins ? hits[pins] : found;
    if (self.cache->find(key, hit).found != cache::Found::kHit) continue;
    if (pins < kPins) {
      ++pins;
      continue;
    }
    // Whoever asks for this one has to wait for us.
    self.cache->retire(hit.link);
    self.cache->release(hit);
    if (self.cache->begin(key, lease) != cache::Begin::kFilling) continue;
    lease.set_head(std::as_bytes(std::span(name)), 100000);
    lease.append(std::as_bytes(std::span(name)));
    break;
  }
  const auto wait = [&](bool mutex) {
    std::printf("holding %d %d %zu\n", mutex ? 1 : 0, lease ? 1 : 0, pins);
    std::fflush(stdout);
    for (;;) ::pause();
  };
  (void)self.component->with_lock(
      [&] {
        ++self.counters().begun;
        wait(true);
      },
      kWait);
  wait(false);
  return 0;
}

int probe(Member& self) {
  bool equal = false;
  const bool taken = self.component->with_lock(
      [&] {
        Counters& counters = self.counters();
        equal = counters.begun == counters.ended;
        ++counters.begun;
        ++counters.ended;
      },
      kWait);
  leave(self);
  std::puts(!taken ? "busy" : equal ? "taken" : "inconsistent");
  return 0;
}

int fill(Member& self, std::uint64_t entries) {
  const std::string body(150, 'x');
  std::uint64_t stored = 0;
  for (std::uint64_t i = 0; i < entries; ++i) {
    cache::Fill one;
    const std::string key = fmt::format("/filled/{}", i);
    if (self.cache->begin(self.cache->make_key(key), one) != cache::Begin::kFilling) continue;
    one.set_head(std::as_bytes(std::span(key)), body.size());
    if (one.append(std::as_bytes(std::span(body))) == cache::Append::kOk && one.commit(1)) ++stored;
  }
  leave(self);
  std::printf("filled %llu\n", static_cast<unsigned long long>(stored));
  return stored == entries ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 3 ? argv[1] : "";
  if (what != "hold" && what != "probe" && !(what == "fill" && argc > 4)) {
    std::fputs("usage: mcs-os-holder hold|probe|fill DOMAIN NODE [ENTRIES]\n", stderr);
    return 2;
  }
  auto self = join(argv[2], static_cast<std::uint32_t>(std::atoi(argv[3])));
  if (!self) {
    std::fprintf(stderr, "mcs-os-holder: %s\n", self.error().message.c_str());
    return 2;
  }
  if (what == "hold") return hold(*self);
  if (what == "probe") return probe(*self);
  return fill(*self, std::strtoull(argv[4], nullptr, 10));
}
