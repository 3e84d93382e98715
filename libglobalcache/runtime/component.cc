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

constexpr std::uint64_t kMostSteps = 255;
constexpr auto kMakingLimit = std::chrono::seconds(10);

/// Sets a flag of one thread of the process, if no other one has; clears it again.
class OneThread {
 public:
  explicit OneThread(std::atomic<bool>& flag)
      : flag_(flag), mine_(!flag.exchange(true, std::memory_order_acquire)) {}
  ~OneThread() {
    if (mine_) flag_.store(false, std::memory_order_release);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;
  explicit operator bool() const { return mine_; }

 private:
  std::atomic<bool>& flag_;
  bool mine_;
};

// Before looking again at what another process has to do.
void pause_before_retry(unsigned attempt) {
  if (attempt < 32) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// The cells and the mutex live on the segment that came first, of those that answer: they move only when
// that one is lost.
gsm::Segment& home_of(const Instance& instance) {
  gsm::Segment* first = &instance.domain().segment(0);
  for (std::uint32_t node = 1; node < instance.domain().node_count(); ++node) {
    gsm::Segment& segment = instance.domain().segment(node);
    if (segment.lost()) continue;
    if (first->lost() || segment.incarnation() < first->incarnation()) first = &segment;
  }
  return *first;
}

ComponentCell& cell_at(const Instance& instance, const gsm::Segment& home, std::uint32_t number) {
  return reinterpret_cast<ComponentCell*>(home.metadata() + instance.geometry().components)[number];
}

}  // namespace

Component::Component(Instance& instance, ComponentOptions options, std::uint32_t number,
                     gsm::Segment& home)
    : instance_(instance), options_(std::move(options)), number_(number), home_(home) {}

Component::~Component() { leave(); }

ComponentCell& Component::cell() const { return cell_at(instance_, home_, number_); }

bool Component::is_lost() const {
  return home_.lost() || &instance_.domain().segment(home_.node()) != &home_;
}

std::span<std::byte> Component::data() const { return cell().data; }

Result<std::unique_ptr<Component>> Component::join(Instance& instance, ComponentOptions options) {
  if (options.name.empty() || options.name.size() >= sizeof(ComponentCell::name)) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("component name \"{}\": use 1 to {} bytes", options.name,
                            sizeof(ComponentCell::name) - 1));
  }
  if (options.steps.size() > kMostSteps) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("component {}: {} recovery steps; use at most {}", options.name,
                            options.steps.size(), kMostSteps));
  }
  // A cell of this name, or else the first free one. Two that make the same name at once meet in
  // the same free cell, since both look from the start.
  const auto give_up = std::chrono::steady_clock::now() + kMakingLimit;
  for (unsigned round = 0; round == 0 || std::chrono::steady_clock::now() < give_up; ++round) {
    int chosen = -1;
    gsm::Segment& home = home_of(instance);
    for (std::uint32_t i = 0; i < kMaxComponents; ++i) {
      const ComponentCell& cell = cell_at(instance, home, i);
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
    if (chosen < 0 && home.lost()) continue;
    if (chosen < 0) {
      return fail(ErrorCode::kNoSpace, fmt::format("the domain has room for {} components",
                                                   kMaxComponents));
    }
    std::unique_ptr<Component> self(
        new Component(instance, options, static_cast<std::uint32_t>(chosen), home));
    const auto made = self->make_or_adopt();
    if (self->is_lost()) continue;  // on the next segment, then
    if (!made && made.error().code == ErrorCode::kBusy) {
      pause_before_retry(round);
      continue;
    }
    if (!made) return tl::unexpected(made.error());
    const std::uint64_t bit = 1ULL << self->number_;
    // First a member, then the generation: an event that did not see the one sees the other.
    if ((instance.control(instance.slot_number()).components.fetch_or(bit) & bit) != 0) {
      return fail(ErrorCode::kExists,
                  fmt::format("this instance is a member of component {} already; use the object "
                              "that it has",
                              options.name));
    }
    self->acknowledge();
    self->known_ = self->members(true);
    self->joined_.store(true, kRelease);
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
      instance_.report_blocking(maker);
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
  const MutexId mutex = GlobalMutex::for_component(instance_, home_.node(), number_);
  c.mutex.store((static_cast<std::uint64_t>(mutex.generation) << 32) | mutex.slot, kRelease);
  c.coordinator.store(0, kRelease);
  c.steps_done.store(0, kRelease);
  c.generation.store(phase(1, kRunning), kRelease);
  std::uint64_t making = c.identity.load(kAcquire);
  c.identity.compare_exchange_strong(making, identity(options_.version, kInUse), kAcqRel);
  return {};
}

MutexId Component::mutex_id() const {
  const std::uint64_t word = cell().mutex.load(kAcquire);
  return {home_.node(), home_.incarnation(), static_cast<std::uint32_t>(word),
          static_cast<std::uint32_t>(word >> 32)};
}

std::uint32_t Component::generation() const { return generation_of(cell().generation.load(kAcquire)); }

bool Component::recovering() const {
  return (cell().generation.load(kAcquire) & 0xff) == kRecovering;
}

// A thread that goes in works in the generation that the whole instance has acknowledged.
bool Component::enter(std::uint64_t& generation) {
  const std::lock_guard guard(state_);
  generation = phase(static_cast<std::uint32_t>(
                         instance_.own().acknowledged[number_].load(kAcquire)),
                     kRunning);
  if (cell().generation.load(kAcquire) != generation) return false;
  ++inside_;
  return true;
}

void Component::exit() {
  const std::lock_guard guard(state_);
  --inside_;
  acknowledge_locked();
}

void Component::acknowledge() {
  const std::lock_guard guard(state_);
  acknowledge_locked();
}

void Component::acknowledge_locked() {
  if (inside_ == 0) instance_.own().acknowledged[number_].store(generation(), kRelease);
}

bool Component::with_lock(const std::function<void()>& work, std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  for (unsigned attempt = 0;; ++attempt) {
    if (is_lost()) return false;
    std::uint64_t generation = 0;
    MutexAnswer answer = MutexAnswer::kRecoveryPending;
    if (enter(generation)) {
      struct Inside {
        Component& component;
        ~Inside() { component.exit(); }
      } inside{*this};
      GlobalMutex mutex(instance_, mutex_id());
      mutex.watch(&cell().generation, generation);
      answer = mutex.lock(deadline);
      if (answer == MutexAnswer::kAcquiredAbandoned) {
        if (options_.repair) options_.repair(data());
        mutex.mark_consistent();
        answer = MutexAnswer::kAcquired;
      }
      if (answer == MutexAnswer::kAcquired) {
        work();
        return true;
      }
    }
    switch (answer) {
      case MutexAnswer::kInvalidId:
      case MutexAnswer::kMemoryLost:
      case MutexAnswer::kTimeout:
        return false;
      default:
        tick();
        pause_before_retry(attempt);
    }
    if (std::chrono::steady_clock::now() >= deadline) return false;
  }
}

std::vector<InstanceId> Component::members(bool with_expelled) const {
  std::vector<InstanceId> ids;
  for (std::uint32_t slot = 0; slot < instance_.slot_count(); ++slot) {
    const SlotControl& control = instance_.control(slot);
    const std::uint64_t word = control.state.load(kAcquire);
    const InstanceState state = StateWord::state(word);
    if (state != InstanceState::kJoining && state != InstanceState::kActive &&
        !(with_expelled && state == InstanceState::kExpelled)) {
      continue;
    }
    if ((control.components.load(kAcquire) >> number_ & 1) == 0) continue;
    ids.push_back(InstanceId::make(slot, StateWord::incarnation(word)));
  }
  return ids;
}

void Component::initiate(const char* cause) {
  const std::lock_guard guard(state_);
  std::uint64_t word = cell().generation.load(kAcquire);
  if ((word & 0xff) != kRunning) return;
  const std::uint32_t next = generation_of(word) + 1;
  if (cell().generation.compare_exchange_strong(word, phase(next, kRecovering))) {
    initiated_ = next;
    cause_ = cause;
  }
}

bool Component::all_acknowledged(std::uint32_t generation) const {
  bool all = true;
  for (const InstanceId id : members()) {
    if (instance_.slot(id.slot()).acknowledged[number_].load(kAcquire) == generation) continue;
    if (id != instance_.id()) {
      if (instance_.is_dead(id)) continue;
      instance_.report_blocking(id);
    }
    all = false;
  }
  return all;
}

// All living members hold nothing; what a dead one left must be whole before a step works on it.
bool Component::repair_abandoned() {
  GlobalMutex mutex(instance_, mutex_id());
  const MutexAnswer answer = mutex.try_lock();
  if (answer == MutexAnswer::kAcquiredAbandoned) {
    if (options_.repair) options_.repair(data());
    mutex.mark_consistent();
  }
  return answer == MutexAnswer::kAcquired || answer == MutexAnswer::kAcquiredAbandoned;
}

bool Component::run_steps(std::uint32_t generation) {
  ComponentCell& c = cell();
  for (;;) {
    std::uint64_t progress = c.steps_done.load(kAcquire);
    const std::uint64_t done = generation_of(progress) == generation ? progress & 0xff : 0;
    if (done >= options_.steps.size()) return true;
    const RecoveryStep& step = options_.steps[done];
    if (step.barrier && (!all_acknowledged(generation) || !repair_abandoned())) return false;
    if (!step.run()) return false;
    c.steps_done.compare_exchange_strong(progress, phase(generation, done + 1), kAcqRel);
  }
}

void Component::coordinate() {
  ComponentCell& c = cell();
  if (!recovering()) return;
  const OneThread coordinating(coordinating_);
  if (!coordinating) return;
  std::uint64_t coordinator = c.coordinator.load(kAcquire);
  const InstanceId other{coordinator};
  if (other.valid() && other != instance_.id() && alive(other)) {
    instance_.report_blocking(other);
    return;
  }
  if (!c.coordinator.compare_exchange_strong(coordinator, instance_.id().value, kAcqRel)) return;
  struct Resign {
    Word& coordinator;
    std::uint64_t me;
    ~Resign() { coordinator.compare_exchange_strong(me, 0, kAcqRel); }
  } resign{c.coordinator, instance_.id().value};
  // Another one may have come to the end while we were elected.
  const std::uint64_t word = c.generation.load(kAcquire);
  if ((word & 0xff) != kRecovering) return;
  const std::uint32_t generation = generation_of(word);
  const std::uint64_t agreed_ns = monotonic_ns();
  if (!run_steps(generation)) return;
  std::uint64_t recovering = phase(generation, kRecovering);
  if (c.generation.compare_exchange_strong(recovering, phase(generation, kRunning), kAcqRel)) {
    publish(generation, agreed_ns);
  }
}

void Component::publish(std::uint32_t generation, std::uint64_t agreed_ns) {
  Event event{};
  event.kind = static_cast<std::uint32_t>(EventKind::kComponentRecovered);
  event.recoverer = instance_.id().value;
  event.wall_ms = wall_ms();
  event.detected_ns = agreed_ns;
  event.agreed_ns = agreed_ns;
  event.repaired_ns = event.resumed_ns = monotonic_ns();
  event.node = instance_.node();
  std::snprintf(event.server, sizeof event.server, "%s", options_.name.c_str());
  {
    const std::lock_guard guard(state_);
    std::snprintf(event.cause, sizeof event.cause, "%s",
                  initiated_ == generation ? cause_.c_str() : "initiated elsewhere");
  }
  instance_.publish_event(std::move(event));
}

bool Component::alive(InstanceId id) const {
  if (!id.valid() || id.slot() >= instance_.slot_count()) return false;
  const bool member = (instance_.control(id.slot()).components.load(kAcquire) >> number_ & 1) != 0;
  return member && (id == instance_.id() || !instance_.is_dead(id));
}

void Component::tick() {
  instance_.tick();
  acknowledge();
  coordinate();
  report_gone();
}

void Component::report_gone() {
  const OneThread reporting(reporting_);
  if (!reporting) return;
  std::vector<InstanceId> now = members(true);
  if (options_.on_gone) {
    for (const InstanceId id : known_) {
      if (std::find(now.begin(), now.end(), id) == now.end()) options_.on_gone(id);
    }
  }
  known_ = std::move(now);
}

void Component::leave() {
  if (!joined_.exchange(false, kAcqRel)) return;
  instance_.control(instance_.slot_number()).components.fetch_and(~(1ULL << number_), kAcqRel);
}

}  // namespace mcs::runtime
