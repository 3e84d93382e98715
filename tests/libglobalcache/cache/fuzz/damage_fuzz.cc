// SPDX-License-Identifier: Apache-2.0
// Shared state in which anything may have been written, before and while a process joins, looks up,
// stores, purges, recovers the dead, verifies and leaves. Whatever the damage: no wrong body, no
// access outside of the domain, no endless loop.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/cache/verify.h"
#include "tests/libglobalcache/test_liveness.h"

namespace mcs::cache {
namespace {

constexpr unsigned kKeys = 24;

std::string key_of(unsigned i) { return "/file" + std::to_string(i); }

// Small ones, some that are copied, some in several extents.
std::size_t size_of(unsigned i) { return i % 5 == 4 ? 60000 : i % 5 * 3000 + i; }

std::string body_of(unsigned i) {
  std::string body;
  while (body.size() < size_of(i)) body += key_of(i) + ':' + std::to_string(body.size());
  body.resize(size_of(i));
  return body;
}

struct Member {
  std::unique_ptr<runtime::Instance> instance;
  std::unique_ptr<GlobalCache> cache;
};

class World {
 public:
  World() {
    gsm::DomainSpec spec;
    spec.name = "damaged";
    spec.nodes = 2;
    spec.bytes_per_node = 1ULL << 20;
    domain_ = api::create_in_memory(spec, 8, 64);
    // They go on living and dying in the snapshot; the objects are never destroyed.
    static Member living = join(0);
    static Member dead = join(1);
    for (unsigned i = 0; i < kKeys; ++i) {
      bodies_.push_back(body_of(i));
      if (i % 4 != 3) put(i % 2 == 0 ? living : dead, i);
    }
    static Hit held[2];
    static Fill open[2];
    hold(living, held[0], open[0], 0);
    hold(dead, held[1], open[1], 1);
    liveness_.release(dead.instance->slot_number());
    for (std::uint32_t node = 0; node < 2; ++node) take_snapshot(domain_->segment(node));
  }

  void run(FuzzedDataProvider& input) {
    restore();
    damage(input);
    Member member;
    auto joined = runtime::Instance::join(
        *domain_, liveness_, {.node = input.ConsumeIntegralInRange<std::uint32_t>(0, 1),
                              .server = "fuzz/1", .busy_spins = 20, .may_inherit = true});
    if (!joined) return;
    member.instance = std::move(*joined);
    member.cache = std::make_unique<GlobalCache>(*domain_, *member.instance);
    member.instance->activate();
    const std::uint32_t slot = member.instance->slot_number();
    const bool verifies = input.ConsumeBool();
    while (input.remaining_bytes() > 0) {
      damage(input);
      act(member, input);
    }
    look_up_all(member);
    member.instance->recover_all("fuzz");
    member.cache->tick();
    if (verifies) check();
    member.cache->leave();
    member.instance->leave();
    liveness_.release(slot);
  }

 private:
  struct Snapshot {
    std::vector<std::uint64_t> words;
    std::vector<std::size_t> telling;  // indices of metadata with a value that few others have
  };

  Member join(std::uint32_t node) {
    Member member;
    member.instance = *runtime::Instance::join(*domain_, liveness_, {node, "server/1", 20});
    member.cache = std::make_unique<GlobalCache>(*domain_, *member.instance);
    member.instance->activate();
    return member;
  }

  bool put(Member& member, unsigned i) {
    Fill fill;
    const std::string name = key_of(i);
    if (member.cache->begin(member.cache->make_key(name), fill, {}, true) != Begin::kFilling) {
      return false;
    }
    fill.set_head(std::as_bytes(std::span(name)), bodies_[i].size());
    return fill.append(std::as_bytes(std::span(bodies_[i]))) == Append::kOk && fill.commit(1);
  }

  // A pin and a fill under way.
  void hold(Member& member, Hit& hit, Fill& fill, unsigned i) {
    member.cache->find(member.cache->make_key(key_of(i)), hit);
    const std::string name = "/open" + std::to_string(i);
    if (member.cache->begin(member.cache->make_key(name), fill, {}, true) != Begin::kFilling) return;
    fill.set_head(std::as_bytes(std::span(name)), 50000);
    fill.append(std::as_bytes(std::span(bodies_[4])));
  }

  void take_snapshot(gsm::Segment& segment) {
    Snapshot snapshot;
    snapshot.words.resize(segment.header().size / 8);
    std::memcpy(snapshot.words.data(), segment.metadata(), segment.header().size);
    const std::size_t metadata = segment.header().meta_bytes / 8;
    std::map<std::uint64_t, unsigned> frequency;
    for (std::size_t i = gsm::kPageSize / 8; i < metadata; ++i) ++frequency[snapshot.words[i]];
    for (std::size_t i = gsm::kPageSize / 8; i < metadata; ++i) {
      if (frequency[snapshot.words[i]] < 8) snapshot.telling.push_back(i);
    }
    snapshots_.push_back(std::move(snapshot));
  }

  void restore() {
    for (std::uint32_t node = 0; node < 2; ++node) {
      gsm::Segment& segment = domain_->segment(node);
      std::memcpy(segment.metadata(), snapshots_[node].words.data(), segment.header().size);
    }
    for (std::uint32_t slot = 2; slot < 8; ++slot) liveness_.release(slot);
    liveness_.release(1);
  }

  std::uint64_t& word(FuzzedDataProvider& input) {
    const std::uint32_t node = input.ConsumeIntegralInRange<std::uint32_t>(0, 1);
    const Snapshot& snapshot = snapshots_[node];
    gsm::Segment& segment = domain_->segment(node);
    const std::size_t at = input.ConsumeIntegral<std::uint32_t>();
    auto* words = reinterpret_cast<std::uint64_t*>(segment.metadata());
    const std::size_t first = gsm::kPageSize / 8;
    return at % 8 == 0 ? words[first + at / 8 % (segment.header().size / 8 - first)]
                       : words[snapshot.telling[at / 8 % snapshot.telling.size()]];
  }

  void damage(FuzzedDataProvider& input) {
    const unsigned spots = input.ConsumeIntegralInRange<unsigned>(0, 6);
    for (unsigned i = 0; i < spots; ++i) {
      std::uint64_t& spot = word(input);
      std::atomic_ref<std::uint64_t> value(spot);
      switch (input.ConsumeIntegralInRange<int>(0, 5)) {
        case 0:
          value = input.ConsumeIntegral<std::uint64_t>();
          break;
        case 1:
          value ^= 1ULL << input.ConsumeIntegralInRange<int>(0, 63);
          break;
        case 2:
          value = std::atomic_ref<std::uint64_t>(word(input)).load();
          break;
        case 3:
          value += input.ConsumeIntegral<std::uint8_t>();
          break;
        case 4:
          value = 0;
          break;
        default:
          value = ~0ULL;
      }
    }
  }

  void look_up(Member& member, unsigned i) {
    const std::string name = key_of(i);
    Hit hit;
    if (member.cache->find(member.cache->make_key(name), hit).found != Found::kHit) return;
    std::string body(std::min<std::uint64_t>(hit.body_bytes(), 1 << 20), '\0');
    if (body.size() == hit.body_bytes() && member.cache->read_verified(hit, body.data()) &&
        body != bodies_[i]) {
      std::fprintf(stderr, "wrong body of %s\n", name.c_str());
      std::abort();
    }
    member.cache->touch(hit);
    member.cache->release(hit);
  }
  void look_up_all(Member& member) {
    for (unsigned i = 0; i < kKeys; ++i) look_up(member, i);
  }

  void act(Member& member, FuzzedDataProvider& input) {
    const unsigned i = input.ConsumeIntegralInRange<unsigned>(0, kKeys - 1);
    switch (input.ConsumeIntegralInRange<int>(0, 7)) {
      case 0:
      case 1:
        put(member, i);
        break;
      case 2:
        member.cache->purge(PurgeKind::kKey, key_of(i));
        break;
      case 3:
        member.cache->purge(PurgeKind::kPrefix, "/file1", input.ConsumeBool());
        break;
      case 4:
        member.instance->recover_all("fuzz");
        break;
      case 5:
        member.cache->tick();
        break;
      case 6:
        member.cache->evict_some(input.ConsumeIntegralInRange<std::uint32_t>(0, 1), 40);
        break;
      default:
        look_up(member, i);
    }
  }

  void check() {
    VerifyOptions options;
    options.rechecks = 1;
    options.interval = {};
    options.dead_grace = {};
    verify(*domain_, liveness_, options);
  }

  TestLiveness liveness_;
  std::unique_ptr<gsm::Domain> domain_;
  std::vector<std::string> bodies_;
  std::vector<Snapshot> snapshots_;
};

}  // namespace
}  // namespace mcs::cache

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static auto* const world = new mcs::cache::World;
  FuzzedDataProvider input(data, size);
  world->run(input);
  return 0;
}
