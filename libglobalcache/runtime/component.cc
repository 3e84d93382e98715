// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/runtime/component.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <thread>

namespace mcs::runtime {
namespace {

constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kAcqRel = std::memory_order_acq_rel;

constexpr std::uint64_t kFree = 0;
constexpr std::uint64_t kMaking = 1;
constexpr std::uint64_t kInUse = 2;
constexpr std::uint64_t kRunning = 1;
constexpr std::uint64_t kRecovering = 2;

std::uint64_t identity(std::uint32_t version, std::uint64_t state) {
  return kComponentTag | (static_cast<std::uint64_t>(version) << 8) | state;
}
std::uint64_t state_of(std::uint64_t word) { return word & 0xff; }
std::uint32_t version_of(std::uint64_t word) { return static_cast<std::uint32_t>(word >> 8); }
std::uint64_t phase(std::uint32_t generation, std::uint64_t what) {
  return (static_cast<std::uint64_t>(generation) << 8) | what;
}
std::uint32_t generation_of(std::uint64_t word) { return static_cast<std::uint32_t>(word >> 8); }

// The cells and the mutex live on the first segment that answers.
std::uint32_t home_of(const Instance& instance) {
  for (std::uint32_t node = 0; node < instance.domain().node_count(); ++node) {
    if (!instance.domain().segment(node).lost()) return node;
  }
  return 0;
}

ComponentCell& cell_at(const Instance& instance, std::uint32_t number) {
  return reinterpret_cast<ComponentCell*>(
      instance.domain().segment(home_of(instance)).metadata() +
      instance.geometry().components)[number];
}

}  // namespace

Component::Component(Instance& instance, ComponentOptions options, std::uint32_t number)
    : instance_(instance), options_(std::move(options)), number_(number) {}

Component::~Component() { leave(); }

ComponentCell& Component::cell() const { return cell_at(instance_, number_); }

std::span<std::byte> Component::data() const { return cell().data; }

Result<std::unique_ptr<Component>> Component::join(Instance& instance, ComponentOptions options) {
  if (options.name.empty() || options.name.size() >= sizeof(ComponentCell::name)) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("component name \"{}\": use 1 to {} bytes", options.name,
                            sizeof(ComponentCell::name) - 1));
  }
  // A cell of this name, or else the first free one. Two that make the same name at once meet in
  // the same free cell, since both look from the start.
  for (int round = 0; round < 1000; ++round) {
    int chosen = -1;
    for (std::uint32_t i = 0; i < kMaxComponents; ++i) {
      const ComponentCell& cell = cell_at(instance, i);
      const std::uint64_t word = cell.identity.load(kAcquire);
      if (state_of(word) == kFree) {
        if (chosen < 0) chosen = static_cast<int>(i);
        break;
      }
      if (state_of(word) == kMaking || options.name == cell.name) {
        chosen = static_cast<int>(i);
        break;
      }
    }
    if (chosen < 0) {
      return fail(ErrorCode::kNoSpace, fmt::format("the domain has room for {} components",
                                                   kMaxComponents));
    }
    std::unique_ptr<Component> self(
        new Component(instance, options, static_cast<std::uint32_t>(chosen)));
    const auto made = self->make_or_adopt();
    if (!made && made.error().code == ErrorCode::kBusy) {
      std::this_thread::yield();
      continue;
    }
    if (!made) return tl::unexpected(made.error());
    instance.control(instance.slot_number())
        .components.fetch_or(1ULL << self->number_, kAcqRel);
    self->acknowledge();
    self->joined_ = true;
    self->known_ = self->members();
    return self;
  }
  return fail(ErrorCode::kBusy,
              fmt::format("component {} is being made by a process that does not finish; is it "
                          "stopped?",
                          options.name));
}

Result<void> Component::make_or_adopt() {
  ComponentCell& c = cell();
  std::uint64_t word = c.identity.load(kAcquire);
  if (state_of(word) == kInUse) {
    if (options_.name != c.name) return fail(ErrorCode::kBusy, "another component took the cell");
    if (version_of(word) != options_.version) {
      return fail(ErrorCode::kIncompatible,
                  fmt::format("component {} exists with data version {} but this program has {}; "
                              "use programs of one version, or another name",
                              options_.name, version_of(word), options_.version));
    }
    return {};
  }
  if (state_of(word) == kMaking) {
    const InstanceId maker{c.maker.load(kAcquire)};
    if (maker.valid() && maker != instance_.id() && !instance_.is_dead(maker)) {
      return fail(ErrorCode::kBusy, "being made");
    }
    // Its maker died: whoever moves the maker word makes it again.
    std::uint64_t seen = maker.value;
    if (!c.maker.compare_exchange_strong(seen, instance_.id().value, kAcqRel)) {
      return fail(ErrorCode::kBusy, "being made");
    }
  } else {
    std::uint64_t seen = c.maker.load(kAcquire);
    if (!c.identity.compare_exchange_strong(word, identity(options_.version, kMaking), kAcqRel)) {
      return fail(ErrorCode::kBusy, "being made");
    }
    if (!c.maker.compare_exchange_strong(seen, instance_.id().value, kAcqRel)) {
      return fail(ErrorCode::kBusy, "being made");
    }
  }
  std::memset(c.name, 0, sizeof c.name);
  std::memcpy(c.name, options_.name.data(), options_.name.size());
  std::memset(c.data.data(), 0, c.data.size());
  if (options_.initialise) options_.initialise(c.data);
  const MutexId mutex = GlobalMutex::for_component(instance_, home_of(instance_), number_);
  c.mutex.store((static_cast<std::uint64_t>(mutex.generation) << 32) | mutex.slot, kRelease);
  c.coordinator.store(0, kRelease);
  c.steps_done.store(0, kRelease);
  c.generation.store(phase(1, kRunning), kRelease);
  std::uint64_t making = c.identity.load(kAcquire);
  c.identity.compare_exchange_strong(making, identity(options_.version, kInUse), kAcqRel);
  return {};
}

MutexId Component::mutex_id() const {
  const std::uint32_t home = home_of(instance_);
  const std::uint64_t word = cell().mutex.load(kAcquire);
  return {home, instance_.domain().segment(home).incarnation(), static_cast<std::uint32_t>(word),
          static_cast<std::uint32_t>(word >> 32)};
}

std::uint32_t Component::generation() const { return generation_of(cell().generation.load(kAcquire)); }

bool Component::recovering() const {
  return (cell().generation.load(kAcquire) & 0xff) == kRecovering;
}

void Component::acknowledge() {
  instance_.own().acknowledged[number_].store(generation(), kRelease);
}

bool Component::with_lock(const std::function<void()>& work, std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  for (;;) {
    GlobalMutex mutex(instance_, mutex_id());
    mutex.watch(&cell().generation, phase(instance_.own().acknowledged[number_].load(kAcquire) &
                                              0xffffffff, kRunning));
    switch (mutex.lock(deadline)) {
      case MutexAnswer::kAcquiredAbandoned:
        if (options_.repair) options_.repair(data());
        mutex.mark_consistent();
        [[fallthrough]];
      case MutexAnswer::kAcquired:
        work();
        mutex.unlock();
        return true;
      case MutexAnswer::kMembershipChanged:
      case MutexAnswer::kRecoveryPending:
        tick();
        std::this_thread::yield();
        break;
      case MutexAnswer::kTooMany:
        std::this_thread::yield();
        break;
      case MutexAnswer::kInvalidId:
      case MutexAnswer::kMemoryLost:
      case MutexAnswer::kTimeout:
        return false;
    }
    if (std::chrono::steady_clock::now() >= deadline) return false;
  }
}

std::vector<InstanceId> Component::members() const {
  std::vector<InstanceId> ids;
  for (std::uint32_t slot = 0; slot < instance_.slot_count(); ++slot) {
    const SlotControl& control = instance_.control(slot);
    const std::uint64_t word = control.state.load(kAcquire);
    const InstanceState state = StateWord::state(word);
    if (state != InstanceState::kJoining && state != InstanceState::kActive) continue;
    if ((control.components.load(kAcquire) >> number_ & 1) == 0) continue;
    ids.push_back(InstanceId::make(slot, StateWord::incarnation(word)));
  }
  return ids;
}

void Component::initiate(const char* cause) {
  ComponentCell& c = cell();
  std::uint64_t word = c.generation.load(kAcquire);
  if ((word & 0xff) != kRunning) return;
  c.steps_done.store(0, kRelease);
  if (c.generation.compare_exchange_strong(word, phase(generation_of(word) + 1, kRecovering),
                                           kAcqRel)) {
    cause_ = cause;
  }
}

bool Component::all_acknowledged(std::uint32_t generation) const {
  for (const InstanceId id : members()) {
    if (instance_.slot(id.slot()).acknowledged[number_].load(kAcquire) == generation) continue;
    if (id == instance_.id() || !instance_.is_dead(id)) return false;
  }
  return true;
}

void Component::coordinate() {
  ComponentCell& c = cell();
  const std::uint64_t word = c.generation.load(kAcquire);
  if ((word & 0xff) != kRecovering) return;
  std::uint64_t coordinator = c.coordinator.load(kAcquire);
  if (coordinator != instance_.id().value) {
    if (coordinator != 0 && !instance_.is_dead(InstanceId{coordinator})) return;
    if (!c.coordinator.compare_exchange_strong(coordinator, instance_.id().value, kAcqRel)) return;
  }
  const std::uint32_t generation = generation_of(word);
  const std::uint64_t agreed_ns = monotonic_ns();
  for (;;) {
    const std::uint64_t done = c.steps_done.load(kAcquire);
    if (done >= options_.steps.size()) break;
    const RecoveryStep& step = options_.steps[done];
    if (step.barrier && !all_acknowledged(generation)) return;  // at the next tick
    if (!step.run()) return;
    c.steps_done.store(done + 1, kRelease);
  }
  std::uint64_t recovering = phase(generation, kRecovering);
  if (c.generation.compare_exchange_strong(recovering, phase(generation, kRunning), kAcqRel)) {
    Event event{};
    event.kind = static_cast<std::uint32_t>(EventKind::kComponentRecovered);
    event.recoverer = instance_.id().value;
    event.wall_ms = wall_ms();
    event.detected_ns = agreed_ns;
    event.agreed_ns = agreed_ns;
    event.repaired_ns = event.resumed_ns = monotonic_ns();
    event.node = instance_.node();
    std::snprintf(event.server, sizeof event.server, "%s", options_.name.c_str());
    std::snprintf(event.cause, sizeof event.cause, "%s", cause_.c_str());
    instance_.publish_event(std::move(event));
  }
  std::uint64_t me = instance_.id().value;
  c.coordinator.compare_exchange_strong(me, 0, kAcqRel);
}

bool Component::alive(InstanceId id) const {
  if (!id.valid() || id.slot() >= instance_.slot_count()) return false;
  const bool member = (instance_.control(id.slot()).components.load(kAcquire) >> number_ & 1) != 0;
  return member && (id == instance_.id() || !instance_.is_dead(id));
}

void Component::tick() {
  acknowledge();
  coordinate();
  std::vector<InstanceId> now = members();
  if (options_.on_gone) {
    for (const InstanceId id : known_) {
      if (std::find(now.begin(), now.end(), id) == now.end()) options_.on_gone(id);
    }
  }
  known_ = std::move(now);
}

void Component::leave() {
  if (!joined_) return;
  joined_ = false;
  instance_.control(instance_.slot_number()).components.fetch_and(~(1ULL << number_), kAcqRel);
}

}  // namespace mcs::runtime
