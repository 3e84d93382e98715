// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/runtime/instance.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "libglobalcache/runtime/global_mutex.h"
#include "libglobalcache/runtime/recoverability.h"

namespace mcs::runtime {
namespace {

std::uint64_t pid_namespace() {
  struct stat info {};
  return ::stat("/proc/self/ns/pid", &info) == 0 ? info.st_ino : 0;
}

std::uint64_t start_time_in(const char* path) {
  FILE* file = std::fopen(path, "re");
  if (file == nullptr) return 0;
  char line[1024];
  const std::size_t n = std::fread(line, 1, sizeof line - 1, file);
  std::fclose(file);
  line[n] = '\0';
  const char* at = std::strrchr(line, ')');
  unsigned long long started = 0;
  // Field 22; the first after the command name is field 3.
  if (at == nullptr ||
      std::sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
                          "%*d %*d %llu", &started) != 1) {
    return 0;
  }
  return started;
}

// Of a slot's owners in one incarnation of its segment, which the upper bits tell (format()): the lower
// ones come around. Never 0, which is that of a slot that nobody has had.
std::uint32_t next_incarnation(std::uint32_t incarnation) {
  constexpr std::uint32_t kOfOwner = (1U << 20) - 1;
  const std::uint32_t next = (incarnation + 1) & kOfOwner;
  return (incarnation & ~kOfOwner) | (next == 0 ? 1 : next);
}

// However often it looked: on a busy machine each look may cost a time slice.
constexpr std::uint64_t kBusyLimitNs = 100000000;

constexpr unsigned kStay = 16;

// Until the holder gives the lock back: first stay on the processor, then let it run.
void pause_before_retry(unsigned attempt) {
  if (attempt < kStay) {
    __builtin_ia32_pause();
  } else {
    ::sched_yield();
  }
}

}  // namespace

std::uint64_t process_start_time(int pid) {
  return start_time_in(fmt::format("/proc/{}/stat", pid).c_str());
}

std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000000000ULL +
         static_cast<std::uint64_t>(now.tv_nsec);
}

std::int64_t wall_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1000000;
}

Instance::Instance(gsm::Domain& domain, Liveness& liveness, JoinOptions options)
    : domain_(domain),
      liveness_(liveness),
      options_(std::move(options)),
      views_(domain),
      separate_kernels_(domain.separate_kernels()),
      geometry_(RuntimeGeometry::load(domain.header().user)),
      slot_count_(static_cast<std::uint32_t>(geometry_.slots_per_node * domain.node_count())),
      recovering_(slot_count_) {}

Instance::~Instance() = default;

SlotControl& Instance::control(std::uint32_t slot) const {
  auto* controls =
      reinterpret_cast<SlotControl*>(home_segment(slot).metadata() + geometry_.controls);
  return controls[slot % geometry_.slots_per_node];
}

gsm::Segment& Instance::home_segment(std::uint32_t slot) const {
  return domain_.segment(static_cast<std::uint32_t>(slot / geometry_.slots_per_node));
}

const Slot& Instance::slot(std::uint32_t slot) const {
  return *reinterpret_cast<const Slot*>(home_segment(slot).metadata() + geometry_.slots +
                                        slot % geometry_.slots_per_node * geometry_.slot_bytes);
}

const std::byte* Instance::component_area(std::uint32_t slot_number) const {
  return reinterpret_cast<const std::byte*>(&slot(slot_number)) + sizeof(Slot);
}

StatTotals& Instance::totals(std::uint32_t node) const {
  return *reinterpret_cast<StatTotals*>(domain_.segment(node).metadata() + geometry_.totals);
}

Result<std::unique_ptr<Instance>> Instance::join(gsm::Domain& domain, Liveness& liveness,
                                                 const JoinOptions& options) {
  if (options.node >= domain.node_count()) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("node={}: domain {} has nodes 0 to {}", options.node, domain.name(),
                            domain.node_count() - 1));
  }
  std::unique_ptr<Instance> self(new Instance(domain, liveness, options));
  domain.set_viewer(options.node);
  const auto per_node = static_cast<std::uint32_t>(self->geometry_.slots_per_node);
  const std::uint32_t first = options.node * per_node;
  const std::optional<View> view = self->views_.current();
  for (const bool inherit : {false, true}) {
    if (inherit && !options.may_inherit) break;
    for (std::uint32_t n = 0; n < self->slot_count_; ++n) {
      const std::uint32_t number = (first + n) % self->slot_count_;
      gsm::Segment& segment = self->home_segment(number);
      // Parts of it may still answer: who joined there would have to join anew at once.
      if (segment.lost() || (view && !view->has_segment(number / per_node))) continue;
      self->home_ = &segment;
      if (inherit ? !self->inherit(number) : !self->take(number)) continue;
      self->own_window_ = segment.writable_window(
          self->geometry_.slots + number % per_node * self->geometry_.slot_bytes,
          self->geometry_.slot_bytes);
      if (!self->own_window_) {
        liveness.release(number);
        return fail(ErrorCode::kSystem, "cannot map the instance's own slot writable");
      }
      self->own_ = reinterpret_cast<Slot*>(self->own_window_.data());
      if (!inherit) self->introduce();
      return self;
    }
  }
  return fail(ErrorCode::kNoSpace,
              fmt::format("all {} instance slots of domain {} are taken; this process serves "
                          "without the cache",
                          self->slot_count_, domain.name()));
}

void Instance::become(InstanceId id) {
  id_ = id;
  own_state_ = &control(id.slot()).state;
  own_word_ = StateWord::make(InstanceState::kInvalid, id.incarnation());
}

bool Instance::take(std::uint32_t number) {
  SlotControl& mine = control(number);
  std::uint64_t word = mine.state.load(std::memory_order_acquire);
  if (StateWord::state(word) != InstanceState::kFree || !liveness_.acquire(number)) return false;
  const std::uint32_t incarnation = next_incarnation(StateWord::incarnation(word));
  if (!reserve(mine, word, incarnation) ||
      !mine.state.compare_exchange_strong(
          word, StateWord::make(InstanceState::kJoining, incarnation),
          std::memory_order_acq_rel)) {
    liveness_.release(number);
    return false;
  }
  become(InstanceId::make(number, incarnation));
  return true;
}

// Liveness bytes of other kernels hinder nobody here. False: the slot is about to be another node's, or
// would be if whoever wanted it had not died; then one of that node may still have it.
bool Instance::reserve(SlotControl& control, std::uint64_t free, std::uint32_t incarnation) const {
  if (!separate_kernels_) return true;
  const std::uint64_t mine = JoinerWord::make(incarnation, options_.node);
  std::uint64_t seen = control.joiner.load(std::memory_order_acquire);
  if (JoinerWord::incarnation(seen) == incarnation) return seen == mine;
  // It may have had owners since, and what they left here is newer than what we know.
  if (control.state.load(std::memory_order_acquire) != free) return false;
  return control.joiner.compare_exchange_strong(seen, mine, std::memory_order_acq_rel);
}

std::uint32_t Instance::node_of(std::uint32_t number) const {
  if (separate_kernels_) {
    const std::uint64_t joiner = control(number).joiner.load(std::memory_order_acquire);
    const std::uint64_t word = control(number).state.load(std::memory_order_acquire);
    if (joiner != 0 && JoinerWord::incarnation(joiner) == StateWord::incarnation(word)) {
      return JoinerWord::node(joiner);
    }
  }
  return slot(number).node;
}

// Holding its liveness byte keeps others from becoming the dead instance's recoverer; whoever is it
// already goes on.
bool Instance::inherit(std::uint32_t number) {
  SlotControl& mine = control(number);
  if (lives(number) || !liveness_.acquire(number)) return false;
  const std::uint64_t word = mine.state.load(std::memory_order_acquire);
  const InstanceState state = StateWord::state(word);
  if (state != InstanceState::kFree && state != InstanceState::kInvalid) {
    const InstanceId heir = InstanceId::make(number, StateWord::incarnation(word));
    std::uint64_t recoverer = mine.recoverer.load(std::memory_order_acquire);
    // An heir that died before us has the same name, and nobody but its heir holds the byte.
    if ((recoverer == 0 || recoverer == heir.value || is_dead(InstanceId{recoverer})) &&
        mine.recoverer.compare_exchange_strong(recoverer, heir.value,
                                               std::memory_order_acq_rel)) {
      // Its recoverer may have been done just before.
      if (mine.state.load(std::memory_order_acquire) == word) {
        become(heir);
        inheriting_ = true;
        return true;
      }
      recoverer = heir.value;
      mine.recoverer.compare_exchange_strong(recoverer, 0, std::memory_order_acq_rel);
    }
  }
  liveness_.release(number);
  return false;
}

void Instance::introduce() {
  Slot& own = *own_;
  own.heartbeat.store(1, std::memory_order_relaxed);
  own.node = options_.node;
  own.pid = ::getpid();
  own.pid_namespace = pid_namespace();
  own.started = start_time_in("/proc/self/stat");
  own.joined_ms = wall_ms();
  std::snprintf(own.server, sizeof own.server, "%s", options_.server.c_str());
  own.identity.store(id_.value, std::memory_order_release);
}

void Instance::set_steps(RecoverySteps* steps) {
  steps_ = steps;
  if (!inheriting_) return;
  SlotControl& mine = control(slot_number());
  const std::uint64_t detected_ns = monotonic_ns();
  std::uint64_t word = mine.state.load(std::memory_order_acquire);
  const std::uint32_t incarnation = id_.incarnation();
  const std::uint32_t next = next_incarnation(incarnation);
  mine.state.compare_exchange_strong(word, StateWord::make(InstanceState::kDead, incarnation),
                                     std::memory_order_acq_rel);
  RecoveryCounts counts;
  const DeadInstance dead{id_, own_};
  repair_locks(dead, counts);
  // What cannot be given back now stays in the slot, as ours: a lock is held by a stopped process.
  steps_->take_over(dead, counts);
  if (!fold_statistics(dead) && may_be_folded(dead.id)) {
    for (Word& cell : own_->stats) cell.store(0, std::memory_order_relaxed);
  }
  Event event{};
  fill_event(event, dead, counts, "slot inherited", detected_ns, detected_ns);
  forget_components(dead);
  introduce();
  if (separate_kernels_) {
    mine.joiner.store(JoinerWord::make(next, options_.node), std::memory_order_release);
  }
  word = StateWord::make(InstanceState::kDead, incarnation);
  mine.state.compare_exchange_strong(
      word, StateWord::make(InstanceState::kJoining, next), std::memory_order_acq_rel);
  std::uint64_t heir = id_.value;
  become(InstanceId::make(slot_number(), next));
  own_->identity.store(id_.value, std::memory_order_release);
  mine.recoverer.compare_exchange_strong(heir, 0, std::memory_order_acq_rel);
  inheriting_ = false;
  event.recoverer = id_.value;
  event.resumed_ns = monotonic_ns();
  publish_event(std::move(event));
}

void Instance::activate() {
  SlotControl& mine = control(slot_number());
  mine.blocked.store(0, std::memory_order_relaxed);
  views_.look();
  std::uint64_t word = StateWord::make(InstanceState::kJoining, id_.incarnation());
  const std::uint64_t active = StateWord::make(InstanceState::kActive, id_.incarnation());
  const std::uint64_t expelled = StateWord::make(InstanceState::kExpelled, id_.incarnation());
  if (!mine.state.compare_exchange_strong(word, is_outsider() ? expelled : active)) {
    active_ = word == expelled;
    return;
  }
  active_ = true;
  // Whoever expels our node may have looked at this slot just before.
  views_.look();
  word = active;
  if (is_outsider()) mine.state.compare_exchange_strong(word, expelled);
}

bool Instance::is_outsider() const {
  const View view = views_.mine();
  return view.generation != 0 && !view.has_member(options_.node);
}

void Instance::leave() {
  active_ = false;
  SlotControl& mine = control(slot_number());
  std::uint64_t word = mine.state.load(std::memory_order_acquire);
  // Again if it is expelled in between.
  do {
    if (StateWord::incarnation(word) != id_.incarnation()) return;
  } while (!mine.state.compare_exchange_strong(
      word, StateWord::make(InstanceState::kLeaving, id_.incarnation()),
      std::memory_order_acq_rel));
  const DeadInstance self{id_, own_};
  fold_statistics(self);
  own_->identity.store(0, std::memory_order_release);
  word = StateWord::make(InstanceState::kLeaving, id_.incarnation());
  mine.state.compare_exchange_strong(
      word, StateWord::make(InstanceState::kFree, id_.incarnation()), std::memory_order_acq_rel);
  liveness_.release(slot_number());
}

// A slot's incarnations in a segment that came back begin above all that it had before (format()).
bool Instance::is_of_former_segment(InstanceId id) const {
  return id.incarnation() >> 20 != ((home_segment(id.slot()).incarnation() - 1) & 0xfff);
}

bool Instance::is_dead(InstanceId id) const {
  if (!id.valid() || id.slot() >= slot_count_) return true;
  const std::uint64_t word = control(id.slot()).state.load(std::memory_order_acquire);
  const InstanceState state = StateWord::state(word);
  if (state == InstanceState::kInvalid) return false;
  if (state == InstanceState::kFree && is_of_former_segment(id)) {
    // Whoever had the slot then may live, and let go of it only when it has joined anew.
    return !liveness_.held(id.slot());
  }
  if (StateWord::incarnation(word) != id.incarnation() || state == InstanceState::kFree) {
    // Unless it is the word that is wrong: only its owner, or who has recovered it, changes this one.
    return slot(id.slot()).identity.load(std::memory_order_acquire) != id.value ||
           !liveness_.held(id.slot());
  }
  if (id == id_) return false;
  return !lives(id.slot());
}

void Instance::report_blocking(InstanceId holder) const {
  // A holder, its recoverer, that one's recoverer …: each has died after the one before.
  for (unsigned step = 0; step < 8 && holder.valid() && holder.slot() < slot_count_; ++step) {
    if (holder == id_) return;
    SlotControl& their = control(holder.slot());
    if (!is_dead(holder)) {
      their.blocked.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    const std::uint64_t word = their.state.load(std::memory_order_acquire);
    if (StateWord::incarnation(word) != holder.incarnation()) return;
    holder = InstanceId{their.recoverer.load(std::memory_order_acquire)};
  }
}

bool Instance::waits_for_the_expelled(InstanceId holder) const {
  for (unsigned step = 0; step < 8 && holder.valid() && holder.slot() < slot_count_; ++step) {
    if (!is_dead(holder)) return is_expelled(holder);
    const SlotControl& their = control(holder.slot());
    const std::uint64_t word = their.state.load(std::memory_order_acquire);
    if (StateWord::incarnation(word) != holder.incarnation()) return false;
    holder = InstanceId{their.recoverer.load(std::memory_order_acquire)};
  }
  return false;
}

bool Instance::expel(InstanceId id, const char* cause) {
  Event event{};
  event.detected_ns = monotonic_ns();
  std::uint64_t word = control(id.slot()).state.load();
  do {
    const InstanceState state = StateWord::state(word);
    if (StateWord::incarnation(word) != id.incarnation() ||
        (state != InstanceState::kActive && state != InstanceState::kJoining)) {
      return false;
    }
  } while (!control(id.slot()).state.compare_exchange_weak(
      word, StateWord::make(InstanceState::kExpelled, id.incarnation())));
  event.agreed_ns = monotonic_ns();
  event.fills = steps_ == nullptr ? 0 : steps_->pass_on(id);
  const Slot& their = slot(id.slot());
  event.kind = static_cast<std::uint32_t>(EventKind::kExpelled);
  event.pid = their.pid;
  event.instance = id.value;
  event.recoverer = id_.value;
  event.wall_ms = wall_ms();
  event.repaired_ns = event.resumed_ns = monotonic_ns();
  event.node = their.node;
  std::memcpy(event.server, their.server, sizeof event.server);
  event.server[sizeof event.server - 1] = '\0';
  std::snprintf(event.cause, sizeof event.cause, "%s", cause);
  publish_event(std::move(event));
  return true;
}

unsigned Instance::expel_outsiders() {
  const View view = views_.mine();
  if (view.generation == 0 || view.members == View::first(views_.nodes()).members) return 0;
  unsigned expelled = 0;
  for (std::uint32_t number = 0; number < slot_count_; ++number) {
    const std::uint64_t word = control(number).state.load(std::memory_order_acquire);
    const InstanceState state = StateWord::state(word);
    const InstanceId id = InstanceId::make(number, StateWord::incarnation(word));
    // Until it has introduced itself, the rest of a joiner's slot tells of the owner before.
    const bool known = state == InstanceState::kActive ||
                       (state == InstanceState::kJoining &&
                        slot(number).identity.load(std::memory_order_acquire) == id.value);
    if (number == slot_number() || !known) continue;
    const std::uint32_t node = slot(number).node;
    if (node >= views_.nodes() || view.has_member(node)) continue;  // damaged: its owner mends it
    if (expel(id, "its node was expelled")) {
      ++expelled;
    }
  }
  return expelled;
}

void Instance::pass_on(std::uint32_t number) {
  const std::uint64_t word = control(number).state.load(std::memory_order_acquire);
  if (StateWord::state(word) != InstanceState::kExpelled || steps_ == nullptr) return;
  steps_->pass_on(InstanceId::make(number, StateWord::incarnation(word)));
}

OwnerLock* Instance::resolve_lock(LockRef ref) const {
  if (ref.segment() >= domain_.node_count()) return nullptr;
  gsm::Segment& segment = domain_.segment(ref.segment());
  if (ref.offset() % sizeof(OwnerLock) != 0 || ref.offset() < gsm::kPageSize ||
      ref.offset() + sizeof(OwnerLock) > segment.header().meta_bytes) {
    return nullptr;
  }
  return reinterpret_cast<OwnerLock*>(segment.metadata() + ref.offset());
}

void Instance::repair_locks(const DeadInstance& dead, RecoveryCounts& counts) {
  // Two passes: several records may name one lock (one thread held it, others waited for it), and
  // it must stay held until the holder's record was repaired.
  for (OpRecord& op : dead.slot->ops) {
    const LockRef ref{op.lock.load(std::memory_order_acquire)};
    OwnerLock* lock = ref.value == 0 ? nullptr : resolve_lock(ref);
    if (lock == nullptr || OwnerLock::owner(lock->load()) != dead.id) continue;
    StatTotals& stats = totals(ref.segment());
    if (lock == &stats.lock) {
      // The copy that counts names whom it folded last; that instance is folded now.
      const std::uint64_t active = stats.active.load(std::memory_order_acquire);
      const InstanceId last{stats.copies[(active - 1) & 1].last_folded};
      if (last.valid() && last.slot() < slot_count_) {
        control(last.slot()).folded.store(last.incarnation(), std::memory_order_release);
      }
    } else if (steps_ != nullptr) {
      steps_->repair_operation(dead, op);
    }
  }
  for (OpRecord& op : dead.slot->ops) {
    const LockRef ref{op.lock.load(std::memory_order_acquire)};
    if (ref.value == 0) continue;
    OwnerLock* lock = resolve_lock(ref);
    if (lock != nullptr && lock->unlock(dead.id)) ++counts.locks;
    op.lock.store(0, std::memory_order_release);
  }
  for (Word& record : dead.slot->mutexes) {
    const LockRef ref{record.load(std::memory_order_acquire)};
    if (ref.value == 0) continue;
    MutexCell* mutex = GlobalMutex::resolve(*this, ref);
    if (mutex != nullptr && GlobalMutex::abandon(*mutex, dead.id)) ++counts.locks;
    record.store(0, std::memory_order_release);
  }
}

int Instance::claim_mutex_record(LockRef ref) {
  std::uint32_t free = free_mutex_records_.load(std::memory_order_relaxed);
  while (free != 0) {
    const int index = std::countr_zero(free);
    if (free_mutex_records_.compare_exchange_weak(free, free & ~(1U << index),
                                                  std::memory_order_acquire)) {
      own_->mutexes[static_cast<std::size_t>(index)].store(ref.value, std::memory_order_release);
      return index;
    }
  }
  return -1;
}

void Instance::release_mutex_record(int record) {
  if (record < 0) return;
  own_->mutexes[static_cast<std::size_t>(record)].store(0, std::memory_order_release);
  free_mutex_records_.fetch_or(1U << record, std::memory_order_release);
}

bool Instance::fold_statistics(const DeadInstance& dead) {
  SlotControl& their = control(dead.id.slot());
  const auto folded = static_cast<std::uint32_t>(their.folded.load(std::memory_order_acquire));
  if (folded != dead.id.incarnation()) {
    const auto node = static_cast<std::uint32_t>(dead.id.slot() / geometry_.slots_per_node);
    StatTotals& sums = totals(node);
    Op op(*this);
    const LockRef ref =
        LockRef::make(node, geometry_.totals + offsetof(StatTotals, lock));
    if (op.lock(sums.lock, ref) != LockAnswer::kAcquired) return false;
    if (their.folded.load(std::memory_order_acquire) != dead.id.incarnation()) {
      const std::uint64_t active = sums.active.load(std::memory_order_acquire);
      const StatTotals::Copy& from = sums.copies[(active - 1) & 1];
      StatTotals::Copy& to = sums.copies[active & 1];
      to.kinds = from.kinds;
      StatTotals::Cells& cells = to.kinds[static_cast<unsigned>(server_kind(dead.slot->server))];
      for (unsigned i = 0; i < kStatCells; ++i) {
        cells[i] += dead.slot->stats[i].load(std::memory_order_relaxed);
      }
      to.last_folded = dead.id.value;
      sums.active.store(3 - active, std::memory_order_release);
      their.folded.store(dead.id.incarnation(), std::memory_order_release);
    }
    op.unlock();
  }
  for (Word& cell : dead.slot->stats) cell.store(0, std::memory_order_relaxed);
  return true;
}

// Whether whoever holds the totals' lock, and is dead itself, has added this instance's cells already.
bool Instance::may_be_folded(InstanceId id) const {
  const StatTotals& sums = totals(static_cast<std::uint32_t>(id.slot() / geometry_.slots_per_node));
  const std::uint64_t active = sums.active.load(std::memory_order_acquire);
  if (sums.copies[(active - 1) & 1].last_folded == id.value) return true;
  return control(id.slot()).folded.load(std::memory_order_acquire) == id.incarnation();
}

bool Instance::recover(std::uint32_t number, const char* cause, std::uint64_t detected_ns,
                       std::uint32_t exited) {
  if (number >= slot_count_ || number == slot_number()) return true;
  SlotControl& their = control(number);
  std::uint64_t word = their.state.load(std::memory_order_acquire);
  const InstanceState state = StateWord::state(word);
  if (state == InstanceState::kFree || state == InstanceState::kInvalid) return true;
  const auto is_over = [&](std::uint64_t seen) {
    return (exited != 0 && StateWord::incarnation(seen) == exited) || !lives(number);
  };
  if (!is_over(word)) return false;
  if (detected_ns == 0) detected_ns = monotonic_ns();
  // The recoverer word tells processes apart, not threads; and the slower of two threads would
  // clear the slot of whoever has joined in it since.
  std::atomic<bool>& busy = recovering_[number];
  if (busy.exchange(true, std::memory_order_acquire)) return false;
  struct Done {
    std::atomic<bool>& flag;
    ~Done() { flag.store(false, std::memory_order_release); }
  } done{busy};

  std::uint64_t recoverer = their.recoverer.load(std::memory_order_acquire);
  if (recoverer != id_.value) {
    if (recoverer != 0 && !is_dead(InstanceId{recoverer})) return false;
    if (!their.recoverer.compare_exchange_strong(recoverer, id_.value,
                                                 std::memory_order_acq_rel)) {
      return false;
    }
  }
  // The slot may have been recovered, and taken again, while we were becoming its recoverer.
  word = their.state.load(std::memory_order_acquire);
  const bool still_dead =
      StateWord::state(word) != InstanceState::kFree && is_over(word);
  const auto resign = [&] {
    std::uint64_t me = id_.value;
    their.recoverer.compare_exchange_strong(me, 0, std::memory_order_acq_rel);
  };
  if (!still_dead) {
    resign();
    return StateWord::state(word) == InstanceState::kFree;
  }
  const std::uint32_t incarnation = StateWord::incarnation(word);
  if (StateWord::state(word) != InstanceState::kDead &&
      !their.state.compare_exchange_strong(
          word, StateWord::make(InstanceState::kDead, incarnation), std::memory_order_acq_rel)) {
    resign();
    return false;
  }
  const std::uint64_t agreed_ns = monotonic_ns();

  const auto per_node = geometry_.slots_per_node;
  auto window = home_segment(number).writable_window(
      geometry_.slots + number % per_node * geometry_.slot_bytes, geometry_.slot_bytes);
  if (!window) {
    resign();
    return false;
  }
  const DeadInstance dead{InstanceId::make(number, incarnation),
                          reinterpret_cast<Slot*>(window.data())};
  RecoveryCounts counts;
  // Somebody must do it who knows the components that the dead one used.
  bool complete = steps_ != nullptr || holds_nothing(dead);
  if (complete) {
    repair_locks(dead, counts);
    complete = (steps_ == nullptr || steps_->take_over(dead, counts)) && fold_statistics(dead);
  }
  if (!complete) {
    resign();
    return false;
  }
  forget_components(dead);
  Event event{};
  fill_event(event, dead, counts, cause, detected_ns, agreed_ns);
  clean_slot(*dead.slot, number);
  std::uint64_t dead_word = StateWord::make(InstanceState::kDead, incarnation);
  their.state.compare_exchange_strong(
      dead_word, StateWord::make(InstanceState::kFree, incarnation), std::memory_order_acq_rel);
  resign();
  event.resumed_ns = monotonic_ns();
  publish_event(std::move(event));
  return true;
}

// Whoever ran wild may have written anything into its own slot.
void Instance::clean_slot(Slot& slot, std::uint32_t number) {
  const auto put = [](std::uint32_t& word, std::uint32_t right) {
    if (word != right) word = right;
  };
  put(slot.tag, kSlotTag);
  put(slot.number, number);
  slot.identity.store(0, std::memory_order_release);
}

// Of what only a component's steps can give back.
bool Instance::holds_nothing(const DeadInstance& dead) const {
  const auto* area = reinterpret_cast<const Word*>(dead.component_area());
  const std::uint64_t words = (geometry_.slot_bytes - sizeof(Slot)) / sizeof(Word);
  for (std::uint64_t i = 0; i < words; ++i) {
    if (area[i].load(std::memory_order_relaxed) != 0) return false;
  }
  return std::none_of(dead.slot->ops.begin(), dead.slot->ops.end(), [&](const OpRecord& op) {
    const LockRef ref{op.lock.load(std::memory_order_acquire)};
    const OwnerLock* lock = ref.value == 0 ? nullptr : resolve_lock(ref);
    return lock != nullptr && lock != &totals(ref.segment()).lock &&
           OwnerLock::owner(lock->load()) == dead.id;
  });
}

void Instance::forget_components(const DeadInstance& dead) {
  for (Word& word : dead.slot->acknowledged) word.store(0, std::memory_order_relaxed);
  control(dead.id.slot()).components.store(0, std::memory_order_release);
}

void Instance::fill_event(Event& event, const DeadInstance& dead, const RecoveryCounts& counts,
                          const char* cause, std::uint64_t detected_ns,
                          std::uint64_t agreed_ns) const {
  event.kind = static_cast<std::uint32_t>(EventKind::kInstanceRecovered);
  event.pid = dead.slot->pid;
  event.instance = dead.id.value;
  event.recoverer = id_.value;
  event.wall_ms = wall_ms();
  event.detected_ns = detected_ns;
  event.agreed_ns = agreed_ns;
  event.repaired_ns = monotonic_ns();
  event.node = dead.slot->node;
  event.locks = counts.locks;
  event.pins = counts.pins;
  event.fills = counts.fills;
  event.retired = counts.retired;
  std::memcpy(event.server, dead.slot->server, sizeof event.server);
  event.server[sizeof event.server - 1] = '\0';
  std::snprintf(event.cause, sizeof event.cause, "%s", cause);
}

unsigned Instance::recover_all(const char* cause) {
  unsigned recovered = 0;
  for (std::uint32_t number = 0; number < slot_count_; ++number) {
    const std::uint64_t word = control(number).state.load(std::memory_order_acquire);
    const InstanceState state = StateWord::state(word);
    if (state == InstanceState::kFree || state == InstanceState::kInvalid) continue;
    if (number == slot_number() || lives(number)) continue;
    if (recover(number, cause)) ++recovered;
  }
  return recovered;
}

EventRing& Instance::events(std::uint32_t node) const {
  return *reinterpret_cast<EventRing*>(domain_.segment(node).metadata() + geometry_.events);
}

void Instance::publish_event(Event&& fields) {
  EventRing* ring = &events(static_cast<std::uint32_t>(slot_number() / geometry_.slots_per_node));
  const std::uint64_t ticket = ring->next.fetch_add(1, std::memory_order_acq_rel);
  Event& slot = ring->events[ticket % kEvents];
  slot.ready.store(0, std::memory_order_release);
  fields.sum = event_sum(fields);
  std::memcpy(reinterpret_cast<char*>(&slot) + sizeof(Word),
              reinterpret_cast<const char*>(&fields) + sizeof(Word), sizeof(Event) - sizeof(Word));
  slot.ready.store(ticket + 1, std::memory_order_release);
}

// Words that only this instance has to do with, as they must be: they may have been damaged.
void Instance::mend_own_words() {
  SlotControl& mine = control(slot_number());
  const std::uint64_t active = StateWord::make(InstanceState::kActive, id_.incarnation());
  std::uint64_t word = mine.state.load(std::memory_order_acquire);
  const bool known = StateWord::incarnation(word) == id_.incarnation() &&
                     StateWord::state(word) != InstanceState::kFree &&
                     StateWord::state(word) != InstanceState::kInvalid;
  // Who was taken for dead, and recovered, has lost its name too.
  if (!known && active_ && own_->identity.load(std::memory_order_acquire) == id_.value &&
      mine.state.compare_exchange_strong(word, active, std::memory_order_acq_rel)) {
    report_mended("state of an instance");
  }
  if (active_ && word == active) own_->identity.store(id_.value, std::memory_order_release);
  // Others judge by it.
  if (own_->node != options_.node) own_->node = options_.node;
  // A record that no thread uses names nothing.
  for (std::uint32_t i = 0; i < kOpRecords; ++i) {
    const std::uint32_t bit = 1U << i;
    if (own_->ops[i].lock.load(std::memory_order_relaxed) == 0) continue;
    if ((free_ops_.fetch_and(~bit, std::memory_order_acquire) & bit) == 0) continue;
    own_->ops[i].lock.store(0, std::memory_order_release);
    free_ops_.fetch_or(bit, std::memory_order_release);
  }
  for (std::uint32_t i = 0; i < kHeldMutexes; ++i) {
    const std::uint32_t bit = 1U << i;
    if (own_->mutexes[i].load(std::memory_order_relaxed) == 0) continue;
    if ((free_mutex_records_.fetch_and(~bit, std::memory_order_acquire) & bit) == 0) continue;
    own_->mutexes[i].store(0, std::memory_order_release);
    free_mutex_records_.fetch_or(bit, std::memory_order_release);
  }
  // Whom this process is said to recover and does not, somebody may recover.
  for (std::uint32_t number = 0; number < slot_count_; ++number) {
    std::uint64_t recoverer = control(number).recoverer.load(std::memory_order_relaxed);
    if (recoverer != id_.value || recovering_[number].exchange(true, std::memory_order_acquire)) {
      continue;
    }
    control(number).recoverer.compare_exchange_strong(recoverer, 0, std::memory_order_acq_rel);
    recovering_[number].store(false, std::memory_order_release);
  }
}

void Instance::report_mended(const char* what, std::uint64_t since_ns, std::uint32_t count) {
  Event event{};
  event.kind = static_cast<std::uint32_t>(EventKind::kDamageRepaired);
  event.recoverer = id_.value;
  event.wall_ms = wall_ms();
  event.repaired_ns = event.resumed_ns = monotonic_ns();
  event.detected_ns = event.agreed_ns = since_ns == 0 ? event.resumed_ns : since_ns;
  event.node = options_.node;
  event.retired = count;
  std::snprintf(event.server, sizeof event.server, "%s", options_.server.c_str());
  std::snprintf(event.cause, sizeof event.cause, "%s", what);
  publish_event(std::move(event));
}

void Instance::tick() {
  beat();
  mend_own_words();
  std::uint64_t word = StateWord::make(InstanceState::kExpelled, id_.incarnation());
  // While one of its threads hangs with a lock held it would be expelled again and again.
  if (!expelled() || holds_a_lock()) return;
  views_.look();
  if (is_outsider()) return;
  control(slot_number())
      .state.compare_exchange_strong(
          word, StateWord::make(InstanceState::kActive, id_.incarnation()));
}

bool Instance::holds_a_lock() const {
  const bool op = std::any_of(own_->ops.begin(), own_->ops.end(), [&](const OpRecord& record) {
    const LockRef ref{record.lock.load(std::memory_order_acquire)};
    const OwnerLock* lock = ref.value == 0 ? nullptr : resolve_lock(ref);
    return lock != nullptr && OwnerLock::owner(lock->load()) == id_;
  });
  return op || std::any_of(own_->mutexes.begin(), own_->mutexes.end(), [&](const Word& record) {
    const LockRef ref{record.load(std::memory_order_acquire)};
    const MutexCell* cell = ref.value == 0 ? nullptr : GlobalMutex::resolve(*this, ref);
    return cell != nullptr && OwnerLock::owner(cell->owner.load(std::memory_order_acquire)) == id_;
  });
}

Instance::Op::Op(Instance& instance) : instance_(instance) {
  if constexpr (!kRecoverable) {
    record_ = &instance.own_->ops[0];
    return;
  }
  for (unsigned attempt = 0;; ++attempt) {
    std::uint32_t free = instance.free_ops_.load(std::memory_order_relaxed);
    if (free != 0) {
      index_ = static_cast<unsigned>(std::countr_zero(free));
      if (instance.free_ops_.compare_exchange_weak(free, free & ~(1U << index_),
                                                   std::memory_order_acquire)) {
        break;
      }
      continue;
    }
    // More threads than records: the others are alive, since they are of this process.
    pause_before_retry(attempt);
  }
  record_ = &instance.own_->ops[index_];
}

Instance::Op::~Op() {
  if (held_ != nullptr) unlock();
  if constexpr (kRecoverable) {
    instance_.free_ops_.fetch_or(1U << index_, std::memory_order_release);
  }
}

bool Instance::Op::try_lock(OwnerLock& lock, LockRef ref) {
  note(record_->lock, ref.value);
  if (lock.try_lock(instance_.id_)) {
    held_ = &lock;
    if (!instance_.expelled()) return true;
    unlock();
    return false;
  }
  record_->lock.store(0, std::memory_order_release);
  return false;
}

LockAnswer Instance::Op::lock(OwnerLock& lock, LockRef ref) {
  note(record_->lock, ref.value);
  std::uint64_t since = 0;
  for (unsigned attempt = 0; attempt < instance_.options_.busy_spins; ++attempt) {
    if (lock.try_lock(instance_.id_)) {
      held_ = &lock;
      if (!instance_.expelled()) return LockAnswer::kAcquired;
      unlock();
      return LockAnswer::kBusy;
    }
    const std::uint64_t word = lock.load();
    if (OwnerLock::is_free(word)) continue;
    if (!OwnerLock::is_held(word)) {
      record_->lock.store(0, std::memory_order_release);
      return LockAnswer::kLost;
    }
    const InstanceId holder = OwnerLock::owner(word);
    // Looked at each time: on a busy machine all the others come before the next attempt.
    const std::uint64_t now = attempt < kStay ? 0 : monotonic_ns();
    if (since == 0) since = now;
    bool late = now - since > kBusyLimitNs;
    if (late || attempt % 64 == 63) {
      if (holder != instance_.id_ && instance_.is_dead(holder)) {
        // Our record must not name a lock that we only wait for while we recover somebody else.
        record_->lock.store(0, std::memory_order_release);
        late = !instance_.recover(holder.slot(), "lock wait") && late;
        record_->lock.store(ref.value, std::memory_order_release);
      }
      // Of the dead too: whoever has to recover it may hang.
      if (late || instance_.waits_for_the_expelled(holder)) break;
      // Its slot was on memory that is lost: whoever rebuilds finds out whether it lives.
      if (holder.slot() < instance_.slot_count_ &&
          StateWord::state(instance_.control(holder.slot()).state.load(
              std::memory_order_acquire)) == InstanceState::kInvalid) {
        break;
      }
    }
    pause_before_retry(attempt);
  }
  record_->lock.store(0, std::memory_order_release);
  instance_.report_blocking(OwnerLock::owner(lock.load()));
  return LockAnswer::kBusy;
}

bool Instance::Op::steal(OwnerLock& lock, LockRef ref, std::uint64_t seen) {
  note(record_->lock, ref.value);
  if (!lock.steal(seen, instance_.id_)) {
    note(record_->lock, 0);
    return false;
  }
  held_ = &lock;
  return true;
}

void Instance::Op::unlock() {
  held_->unlock(instance_.id_);
  held_ = nullptr;
  note(record_->lock, 0);
}

}  // namespace mcs::runtime
