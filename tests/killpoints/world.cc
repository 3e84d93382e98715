// SPDX-License-Identifier: Apache-2.0
#include "tests/killpoints/world.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace mcs::killpoints {

using cache::Append;
using cache::Begin;
using cache::Found;
using runtime::Instance;

namespace {

constexpr std::uint32_t kHeadMagic = 0x6b696c6c;
constexpr std::uint32_t kSpins = 130;  // enough to notice a dead holder twice
// Where kernels are separate: whoever is stopped (scenario.h), who dies before, and who comes afterwards.
constexpr unsigned kOfNodeOne[] = {0, 4, 5, 6, 7};

struct Head {
  std::uint32_t magic;
  std::uint32_t key;
  std::uint32_t version;
  std::uint32_t body_bytes;
};

std::uint32_t size_of(const WorldState& state, unsigned key, unsigned version) {
  return state.body_bytes[key] == 0 ? 0 : state.body_bytes[key] + version * 13;
}

// What a version of a key is made of. Kept for good, outside of what is rewound: made anew at every look
// it took most of a campaign's time. A shorter body is the beginning of a longer one. Mapped before any
// actor runs: one that dies in the middle of malloc(3) would leave a heap that nobody can use.
constexpr std::size_t kMostBody = 1 << 17;
constexpr std::size_t kVersions = 32;
std::byte* const all_bodies = static_cast<std::byte*>(
    ::mmap(nullptr, kKeys * kVersions * kMostBody, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
std::array<std::array<std::size_t, kVersions>, kKeys> made_of_bodies{};  // bytes

std::span<const std::byte> body_of(unsigned key, unsigned version, std::size_t bytes) {
  if (all_bodies == MAP_FAILED || version >= kVersions || bytes > kMostBody) std::abort();
  std::byte* const at = all_bodies + (key * kVersions + version) * kMostBody;
  std::size_t& made = made_of_bodies[key][version];
  if (made < bytes) {
    const std::size_t words = (bytes + 7) / 8;
    std::uint64_t x = (static_cast<std::uint64_t>(key) << 32 | version) * 0x9e3779b97f4a7c15ULL + 1;
    for (std::size_t i = 0; i < words; ++i) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
      std::memcpy(at + i * 8, &x, 8);
    }
    made = words * 8;
  }
  return {at, bytes};
}

}  // namespace

unsigned FakeLiveness::kernel() const { return kernels_[current_actor()]; }
bool FakeLiveness::acquire(std::uint32_t slot) {
  if (held(slot)) return false;
  holder_[kernel()][slot] = current_actor() + 1;
  return true;
}
void FakeLiveness::release(std::uint32_t slot) { holder_[kernel()][slot] = 0; }
bool FakeLiveness::held(std::uint32_t slot) {
  return inside_actor() ? holder_[kernel()][slot] != 0 : held_anywhere(slot);
}
bool FakeLiveness::held_anywhere(std::uint32_t slot) const {
  return std::any_of(holder_.begin(), holder_.end(), [&](const auto& of) { return of[slot] != 0; });
}
void FakeLiveness::release_all(unsigned actor) {
  for (auto& of_kernel : holder_) std::replace(of_kernel.begin(), of_kernel.end(), actor + 1, 0U);
}

World::World() { make_names(); }
World::~World() { reset_actors(); }

void World::violate(const char* format, ...) {
  if (violated()) return;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(violation_, sizeof violation_, format, arguments);
  va_end(arguments);
}

void World::create(const WorldOptions& options) {
  reset_actors();
  clear_violation();
  hooks.ranges = {};
  hooks.around = {};
  const std::function<void()> build = [&] {
    state_ = new WorldState;
    gsm::DomainSpec spec;
    spec.name = "killpoints";
    spec.nodes = options.nodes;
    spec.bytes_per_node = options.bytes_per_node;
    spec.separate_kernels = options.separate_kernels;
    cache::PlanOptions plan_options;
    plan_options.nodes = options.nodes;
    plan_options.bytes_per_node = options.bytes_per_node;
    plan_options.instances = options.instances;
    plan_options.bytes_per_entry = options.bytes_per_entry;
    const cache::CachePlan plan = cache::plan(plan_options);
    gsm::Geometry geometry;
    geometry.meta_bytes = plan.meta_bytes;
    plan.runtime.store(geometry.user.data());
    plan.cache.store(geometry.user.data() + 16);
    state_->domain = gsm::Domain::in_memory(spec, geometry, cache::format);
    state_->body_bytes.fill(300);
    for (const unsigned m : kOfNodeOne) state_->home[m] = options.separate_kernels ? 1 : 0;
  };
  run_actor(0, build);
  attach_ranges();
}

void World::attach_ranges() {
  hooks.ranges = {};
  hooks.around = {~std::uintptr_t{0}, 0};
  for (std::uint32_t node = 0; node < state_->domain->node_count(); ++node) {
    const gsm::Segment& segment = state_->domain->segment(node);
    const auto begin = reinterpret_cast<std::uintptr_t>(segment.metadata());
    hooks.ranges[node] = {begin, begin + segment.header().size};
    hooks.around.begin = std::min(hooks.around.begin, begin);
    hooks.around.end = std::max(hooks.around.end, hooks.ranges[node].end);
  }
}

void World::make_names() {
  // The seed of in-memory domains is fixed, so the names can be chosen once.
  create({});
  const std::function<void()> choose = [&] {
    if (!join(0)) std::abort();
    cache::GlobalCache& cache = *member(0).cache;
    unsigned tried = 0;
    for (unsigned k = 0; k < kKeys; ++k) {
      for (;; ++tried) {
        char name[32];
        std::snprintf(name, sizeof name, "/object/%u", tried);
        if ((cache.memory().bucket_number(cache.make_key(name).hash) == 5) != (k < kChainKeys)) continue;
        // Short enough to live inside the string, which outlives the arena.
        names_[k] = name;
        ++tried;
        break;
      }
    }
  };
  run_actor(0, choose);
}

void World::as(unsigned m, const std::function<void()>& body) {
  const std::uint64_t kill = std::exchange(hooks.kill_before, 0);
  const ActorEnd end = run_actor(m, body);
  hooks.kill_before = kill;
  if (end == ActorEnd::kHung) violate("process %u hangs", m);
  if (end == ActorEnd::kKilled) violate("process %u died by itself", m);
}

bool World::join(unsigned m, std::optional<std::uint32_t> node) {
  runtime::JoinOptions options;
  if (node) state_->home[m] = *node;
  options.node = state_->home[m];
  options.server = "kill/point";
  options.busy_spins = kSpins;
  options.may_inherit = true;
  if (state_->domain->separate_kernels()) state_->liveness.set_kernel(m, options.node);
  auto joined = Instance::join(*state_->domain, state_->liveness, options);
  if (!joined) return false;
  Member& self = member(m);
  self.instance = joined->release();
  self.cache = new cache::GlobalCache(
      *state_->domain, *self.instance,
      [this, m](std::uint32_t slot) {
        // A system call; this store makes it an instant to be killed at.
        member(m).instance->own().joined_ms = 0;
        state_->woken |= std::uint64_t{1} << slot;
      });
  self.instance->activate();
  self.alive = true;
  return true;
}

cache::Key World::key(unsigned m, unsigned k) const {
  static const cache::SiteRules kSite{"site", {}, {1 << 16, 0}};
  cache::Key key = member(m).cache->make_key(names_[k]);
  if (k == kTarget || k >= kFresh) key.site = &kSite;
  return key;
}

namespace {

runtime::Word* words_of(std::span<std::byte> data) {
  return reinterpret_cast<runtime::Word*>(data.data());
}

}  // namespace

bool World::join_component(unsigned m) {
  if (state_->components[m] != nullptr) return true;
  runtime::ComponentOptions options;
  options.name = "pair";
  options.initialise = [](std::span<std::byte> data) {
    words_of(data)[0].store(1);
    words_of(data)[1].store(1);
  };
  options.repair = [](std::span<std::byte> data) {
    words_of(data)[1].store(words_of(data)[0].load());
  };
  options.steps.push_back({"count", false, [this, m] {
                             words_of(state_->components[m]->data())[2].fetch_add(1);
                             return true;
                           }});
  options.steps.push_back({"all together", true, [this, m] {
                             words_of(state_->components[m]->data())[3].fetch_add(1);
                             return true;
                           }});
  auto joined = runtime::Component::join(*member(m).instance, std::move(options));
  if (!joined) return false;
  state_->components[m] = joined->release();
  return true;
}

bool World::work_in_component(unsigned m) {
  runtime::Component& component = *state_->components[m];
  const auto work = [&] {
    runtime::Word* words = words_of(component.data());
    const std::uint64_t value = words[0].load();
    if (words[1].load() != value || value == 0) violate("the component's words differ under its lock");
    words[0].store(value + 1);
    words[1].store(value + 1);
  };
  // In a crowd a recovery event may wait for somebody who does not run.
  return component.with_lock(work, std::chrono::milliseconds(crowded ? 20 : 10000));
}

void World::settle_component(unsigned m) {
  const auto& components = state_->components;
  if (std::all_of(components.begin(), components.end(), [](auto* c) { return c == nullptr; })) return;
  as(m, [&] {
    if (!join_component(m)) violate("process %u cannot join the component", m);
  });
  for (int round = 0; round < 6 && !violated(); ++round) {
    for (unsigned i = 0; i < kMembers; ++i) {
      if (member(i).alive && components[i] != nullptr) as(i, [&] { components[i]->tick(); });
    }
  }
  if (violated()) return;
  if (components[m]->recovering()) violate("the component's recovery event does not end");
  const bool was_crowded = std::exchange(crowded, false);
  as(m, [&] {
    if (!work_in_component(m)) violate("process %u cannot use the component", m);
  });
  crowded = was_crowded;
}

std::uint64_t World::eviction_steps() const {
  std::uint64_t steps = 0;
  for (const Member& m : state_->members) {
    if (!m.alive) continue;
    const cache::Memory& memory = m.cache->memory();
    for (std::uint32_t node = 0; node < memory.nodes(); ++node) {
      steps += memory.state(node).clock_hand.load() + memory.state(node).arrivals_out.load();
    }
    break;
  }
  return steps;
}

Put World::put_begin(unsigned m, unsigned k, unsigned version, cache::Fill& fill, bool insist) {
  switch (member(m).cache->begin(key(m, k), fill, {}, insist)) {
    case Begin::kFilling:
      break;
    case Begin::kOther:
      return Put::kOther;
    case Begin::kNoSpace:
      return Put::kNoSpace;
    case Begin::kBusy:
      return Put::kBusy;
  }
  state_->begun[k] |= 1U << version;
  state_->gone[k] &= ~(1U << version);
  state_->older[version] = state_->committed[k];
  if (k == kTarget) state_->target_older[version] = state_->committed[k] & ~(1U << version);
  const Head head{kHeadMagic, k, version, size_of(*state_, k, version)};
  fill.set_head(std::as_bytes(std::span(&head, 1)), head.body_bytes);
  return Put::kStored;
}

Put World::put_body(unsigned k, unsigned version, cache::Fill& fill) {
  const std::span<const std::byte> body = body_of(k, version, size_of(*state_, k, version));
  // Two appends, so that large bodies flush in between.
  const std::size_t half = body.size() / 2;
  for (const auto& part : {body.first(half), body.subspan(half)}) {
    const Append answer = fill.append(part);
    if (answer == Append::kNoSpace) return Put::kNoSpace;
    if (answer != Append::kOk) return Put::kFailed;
  }
  return Put::kStored;
}

Put World::put_commit(unsigned k, unsigned version, cache::Fill& fill) {
  const std::uint32_t bit = 1U << version;
  // A version may be stored again after it was purged, by another fill.
  state_->allowed[k] |= bit & ~state_->gone[k];
  if (!fill.commit(1)) {
    state_->allowed[k] &= ~bit;
    return Put::kFailed;
  }
  state_->committed[k] |= bit;
  // What was there when this fill began is replaced; what began besides it may be there instead.
  state_->allowed[k] &= ~(state_->older[version] & ~bit);
  return Put::kStored;
}

Put World::put(unsigned m, unsigned k, unsigned version, bool insist) {
  cache::Fill fill;
  Put answer = put_begin(m, k, version, fill, insist);
  if (answer == Put::kStored) answer = put_body(k, version, fill);
  if (answer == Put::kStored) return put_commit(k, version, fill);
  return answer;
}

bool World::right_content(const cache::GlobalCache& cache, const cache::Hit& hit, unsigned k,
                          unsigned& version) {
  Head head{};
  if (hit.head.size() != sizeof head) {
    violate("key %u: the head has %zu bytes", k, hit.head.size());
    return false;
  }
  std::memcpy(&head, hit.head.data(), sizeof head);
  version = head.version;
  if (head.magic != kHeadMagic || head.key != k || head.version >= 32 ||
      head.body_bytes != hit.body_bytes()) {
    violate("key %u: wrong head", k);
    return false;
  }
  std::vector<std::byte> body(hit.body_bytes());
  if (!cache.read_verified(hit, body.data())) {
    violate("key %u version %u: the body fails its check", k, version);
    return false;
  }
  if (!body.empty() &&
      std::memcmp(body.data(), body_of(k, version, body.size()).data(), body.size()) != 0) {
    violate("key %u version %u: the body is another's", k, version);
    return false;
  }
  return true;
}

int World::get(unsigned m, unsigned k) {
  cache::GlobalCache& cache = *member(m).cache;
  cache::Hit hit;
  // What is replaced or purged during the lookup may be given, and what is stored during it.
  const std::uint32_t before = state_->allowed[k];
  const cache::FindResult found = cache.find(key(m, k), hit);
  if (found.found == Found::kDamaged) {
    if (state_->lossy) return -1;
    violate("key %u: a lookup met damage", k);
    return -1;
  }
  if (found.found != Found::kHit) return -1;
  unsigned version = 0;
  if (right_content(cache, hit, k, version) &&
      ((before | state_->allowed[k]) >> version & 1) == 0) {
    violate("key %u: version %u may not be there any more (allowed %#x)", k, version,
            state_->allowed[k]);
  }
  if (k == kTarget && !violated()) state_->allowed[k] &= ~state_->target_older[version];
  cache.touch(hit);
  cache.release(hit);
  return static_cast<int>(version);
}

void World::note_view(const runtime::View& view) {
  std::uint64_t& decided = state_->views[view.generation % state_->views.size()];
  if (decided == 0) decided = view.word();
  if (decided != view.word()) violate("two views of generation %u", view.generation);
}

void World::pass_on(unsigned m) {
  runtime::Instance& instance = *member(m).instance;
  for (std::uint32_t slot = 0; slot < instance.slot_count(); ++slot) instance.pass_on(slot);
}

void World::wait_for(unsigned m, const cache::Fill& fill) {
  state_->waited = fill.link();
  state_->waiter = m;
  auto& area = *reinterpret_cast<cache::CacheArea*>(member(m).instance->own_component_area());
  area.waiting.store(1);
  member(m).cache->announce_wait(fill.link());
}

void World::check_woken() {
  const Member& waiter = member(state_->waiter);
  if (state_->waited.value == 0 || !waiter.alive) return;
  if (waiter.cache->still_filling(state_->waited)) return;
  if ((state_->woken >> waiter.instance->slot_number() & 1) == 0) {
    violate("process %u waits for a fill that is over and was never woken", state_->waiter);
  }
}

bool World::pin(unsigned m, unsigned k) {
  if (state_->hit_count == state_->hits.size()) return false;
  cache::Hit& hit = state_->hits[state_->hit_count];
  if (member(m).cache->find(key(m, k), hit).found != Found::kHit) return false;
  state_->hit_owner[state_->hit_count++] = static_cast<std::uint8_t>(m);
  return true;
}

std::uint64_t World::sample(cache::Extent extent) const {
  constexpr std::uint64_t kAt = 5000;  // not the key
  std::uint64_t bytes = 0;
  std::memcpy(&bytes,
              state_->domain->segment(extent.segment()).payload() +
                  extent.first() * cache::kUnitBytes + kAt,
              sizeof bytes);
  return bytes;
}

bool World::send(unsigned m, unsigned k) {
  cache::Hit hit;
  cache::GlobalCache& cache = *member(m).cache;
  if (cache.find(key(m, k), hit).found != Found::kHit) return false;
  if (cache.set_flag(hit.link, cache::EntryWord::kSent)) {
    std::size_t n = 0;
    for (const cache::Extent extent : hit.extents) {
      if (extent.whole_pages() && extent.units() > 2 * cache::kPageUnits && n < state_->sent.size()) {
        state_->sent[n++] = {extent, sample(extent)};
      }
    }
  }
  cache.release(hit);
  return true;
}

void World::unpin(unsigned index) {
  cache::Hit& hit = state_->hits[index];
  const unsigned m = state_->hit_owner[index];
  if (hit.pin < 0) return;
  Head head{};
  std::memcpy(&head, hit.head.data(), sizeof head);
  unsigned version = 0;
  right_content(*member(m).cache, hit, head.key, version);
  member(m).cache->release(hit);
}

std::uint64_t World::purge_key(unsigned m, unsigned k) {
  const std::uint32_t begun = state_->begun[k];
  const std::uint64_t purged =
      member(m).cache->purge(cache::PurgeKind::kKey, names_[k]).value_or(0);
  // Also what was being filled.
  state_->allowed[k] &= ~begun;
  state_->gone[k] |= begun;
  return purged;
}

std::uint64_t World::purge_all(unsigned m) {
  const auto begun = state_->begun;
  const std::uint64_t purged = member(m).cache->purge(cache::PurgeKind::kAll, {}).value_or(0);
  for (unsigned k = 0; k < kKeys; ++k) {
    state_->allowed[k] &= ~begun[k];
    state_->gone[k] |= begun[k];
  }
  return purged;
}

void World::count(unsigned m, std::uint64_t n) {
  state_->counting = n;
  member(m).instance->add_stat(0, n);
  state_->counted += n;
  state_->counting = 0;
}

void World::lose_segment(std::uint32_t node) {
  gsm::Segment& segment = state_->domain->segment(node);
  std::memset(segment.metadata(), 0, segment.header().size);
  segment.mark_lost();
  state_->lossy = true;
  for (unsigned m = 0; m < kMembers; ++m) {
    if (!member(m).alive) continue;
    const auto& instance = *member(m).instance;
    if (instance.slot_number() / instance.geometry().slots_per_node == node) declare_dead(m);
  }
}

void World::declare_dead(unsigned m) {
  state_->liveness.release_all(m);
  member(m).alive = false;
}

void World::save(Snapshot& snapshot) {
  save_actors(snapshot.actors);
  snapshot.segments.clear();
  for (std::uint32_t node = 0; node < state_->domain->node_count(); ++node) {
    const gsm::Segment& segment = state_->domain->segment(node);
    const auto* at = reinterpret_cast<const unsigned char*>(segment.metadata());
    snapshot.segments.emplace_back(at, at + segment.header().size);
  }
  snapshot.state = state_;
  snapshot.clock = hooks.clock;
  begin_undo();
}

void World::load(const Snapshot& snapshot) {
  begin_undo();
  hooks.ranges = {};
  hooks.around = {};
  restore_actors(snapshot.actors);
  state_ = snapshot.state;
  for (std::uint32_t node = 0; node < state_->domain->node_count(); ++node) {
    std::memcpy(state_->domain->segment(node).metadata(), snapshot.segments[node].data(),
                snapshot.segments[node].size());
  }
  attach_ranges();
  hooks.steps = 0;
  hooks.clock = snapshot.clock;
}

void World::restore(const Snapshot& snapshot) {
  rewind();
  restore_actors(snapshot.actors);
  hooks.steps = 0;
  hooks.clock = snapshot.clock;
}

void World::save(Instant& instant) const {
  save_actors(instant.actors);
  instant.undo = undo_mark();
  instant.stores = hooks.stores;
  instant.steps = hooks.steps;
  instant.clock = hooks.clock;
}

void World::go_back(const Instant& instant) {
  rewind(instant.undo);
  restore_actors(instant.actors);
  hooks.stores = instant.stores;
  hooks.steps = instant.steps;
  hooks.clock = instant.clock;
}

const void* World::difference(const Snapshot& snapshot) const {
  for (std::uint32_t node = 0; node < state_->domain->node_count(); ++node) {
    const auto* now =
        reinterpret_cast<const unsigned char*>(state_->domain->segment(node).metadata());
    const std::vector<unsigned char>& then = snapshot.segments[node];
    const auto differs = std::mismatch(then.begin(), then.end(), now);
    if (differs.first != then.end()) return differs.second;
  }
  return nullptr;
}

}  // namespace mcs::killpoints
