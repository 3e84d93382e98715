// SPDX-License-Identifier: Apache-2.0
// Component: events that concern everybody while members die, stop, join, leave and have threads.
#include "libglobalcache/runtime/component.h"

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/libglobalcache/runtime/processes.h"
#include "tests/libglobalcache/test_liveness.h"

namespace mcs::runtime {
namespace {

constexpr unsigned kManyTicks = 20;

/// A point in the code where one thread stops until another one lets it go on.
class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    reached_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
  }
  void wait_until_reached() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return reached_; });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false;
  bool open_ = false;
};

/// Members in one process; each may have several threads.
class ComponentTest : public testing::Test {
 protected:
  static constexpr unsigned kMembers = 3;

  ComponentTest() {
    gsm::DomainSpec spec;
    spec.name = "component";
    spec.bytes_per_node = 16ULL << 20;
    domain_ = api::create_in_memory(spec, 16, 128);
    for (auto& instance : instances_) {
      instance = std::move(Instance::join(*domain_, liveness_, {.server = "test"}).value());
      instance->activate();
    }
  }
  ComponentOptions options(const char* name = "counter") {
    ComponentOptions options;
    options.name = name;
    return options;
  }
  /// `first` runs without, `second` with a barrier.
  void join_all(std::function<bool()> first, std::function<bool()> second) {
    for (unsigned m = 0; m < kMembers; ++m) {
      ComponentOptions all = options();
      all.steps = {{"first", false, first}, {"second", true, second}};
      all.on_gone = [this, m](InstanceId id) { ++gone_[m][id.value]; };
      members_[m] = std::move(Component::join(*instances_[m], std::move(all)).value());
    }
  }
  void tick_all() {
    for (auto& member : members_) {
      if (member != nullptr) member->tick();
    }
  }
  void tick_all_but(unsigned not_this) {
    for (unsigned m = 0; m < kMembers; ++m) {
      if (m != not_this) members_[m]->tick();
    }
  }
  std::uint64_t blocked(unsigned m) {
    return instances_[m]->control(instances_[m]->slot_number()).blocked.load();
  }
  Component& member(unsigned m) { return *members_[m]; }

  TestLiveness liveness_;
  std::unique_ptr<gsm::Domain> domain_;
  std::array<std::unique_ptr<Instance>, kMembers> instances_;
  std::array<std::map<std::uint64_t, unsigned>, kMembers> gone_;
  std::array<std::unique_ptr<Component>, kMembers> members_;
};

// The segment with the component goes while one member holds its lock.
TEST_F(ComponentTest, WhatLayOnLostMemoryBeginsAnewElsewhere) {
  gsm::DomainSpec spec;
  spec.name = "lost";
  spec.nodes = 2;
  spec.bytes_per_node = 4ULL << 20;
  const auto domain = api::create_in_memory(spec, 16, 128);
  TestLiveness liveness;
  std::vector<std::unique_ptr<Instance>> instances;
  std::vector<std::unique_ptr<Component>> members;
  for (unsigned m = 0; m < 2; ++m) {
    instances.push_back(
        std::move(Instance::join(*domain, liveness, {.node = 1, .server = "test"}).value()));
    instances.back()->activate();
    members.push_back(std::move(Component::join(*instances.back(), options()).value()));
  }
  EXPECT_TRUE(members[0]->with_lock([&] { members[0]->data()[0] = std::byte{7}; }));
  EXPECT_TRUE(members[0]->with_lock([&] {
    std::memset(domain->segment(0).metadata(), 0, domain->segment(0).header().meta_bytes);
    domain->segment(0).mark_lost();
    EXPECT_FALSE(members[1]->with_lock([] { ADD_FAILURE() << "in lost memory"; }));
  }));
  for (unsigned m = 0; m < 2; ++m) {
    EXPECT_TRUE(members[m]->is_lost());
    EXPECT_FALSE(members[m]->with_lock([] { ADD_FAILURE() << "in lost memory"; }));
    members[m]->tick();
    members[m].reset();
    members[m] = std::move(Component::join(*instances[m], options()).value());
    EXPECT_FALSE(members[m]->is_lost());
  }
  EXPECT_TRUE(members[0]->with_lock([&] { EXPECT_EQ(members[0]->data()[0], std::byte{0}); }));
  EXPECT_TRUE(members[1]->with_lock([&] { members[1]->data()[0] = std::byte{9}; }));
  EXPECT_EQ(members[0]->data()[0], std::byte{9});
}

TEST_F(ComponentTest, ABarrierWaitsForTheThreadThatIsInside) {
  unsigned passed = 0;
  join_all([] { return true; }, [&] { return ++passed > 0; });
  Gate gate;
  std::thread inside([&] { EXPECT_TRUE(member(0).with_lock([&] { gate.pass(); })); });
  gate.wait_until_reached();
  member(1).initiate("test");
  // Member 0 ticks, in another thread than the one that is inside.
  for (unsigned i = 0; i < kManyTicks; ++i) tick_all();
  EXPECT_EQ(passed, 0U);
  EXPECT_TRUE(member(0).recovering());
  const auto& slot = instances_[0]->slot(instances_[0]->slot_number());
  EXPECT_EQ(slot.acknowledged[member(0).number()].load(), 1U);
  gate.open();
  inside.join();
  for (unsigned i = 0; i < kManyTicks; ++i) tick_all();
  EXPECT_EQ(passed, 1U);
  EXPECT_FALSE(member(0).recovering());
  EXPECT_TRUE(member(0).with_lock([] {}));
}

TEST_F(ComponentTest, OneThreadOfAProcessCoordinates) {
  Gate gate;
  std::map<std::uint32_t, unsigned> runs;
  join_all(
      [&] {
        if (++runs[member(0).generation()] == 1 && member(0).generation() == 2) gate.pass();
        return true;
      },
      [] { return true; });
  member(0).initiate("one");
  std::thread slow([&] { member(0).tick(); });
  gate.wait_until_reached();
  for (unsigned i = 0; i < kManyTicks; ++i) tick_all();
  EXPECT_TRUE(member(0).recovering()) << "its coordinator is in the middle of a step";
  // Whatever the slow one counts late must not count for the next event.
  member(0).initiate("two");
  gate.open();
  slow.join();
  for (unsigned i = 0; i < kManyTicks; ++i) tick_all();
  EXPECT_EQ(member(0).generation(), 2U);
  member(0).initiate("three");
  for (unsigned i = 0; i < kManyTicks; ++i) tick_all();
  EXPECT_EQ(member(0).generation(), 3U);
  EXPECT_FALSE(member(0).recovering());
  EXPECT_EQ(runs, (std::map<std::uint32_t, unsigned>{{2, 1}, {3, 1}}));
}

// Threads of all members work, tick and start events. What with_lock and the steps write is not
// atomic: ThreadSanitizer sees it if a barrier is passed too early.
TEST_F(ComponentTest, ThreadsWorkWhileEventsPass) {
  constexpr std::uint32_t kEvents = 40;
  struct Shared {
    std::uint64_t worked;
    std::uint64_t events;
    std::uint32_t inside;
    std::uint32_t seen_inside;
  };
  std::map<std::uint32_t, unsigned> first;
  std::map<std::uint32_t, unsigned> second;
  const auto shared = [&]() -> Shared& { return *reinterpret_cast<Shared*>(member(0).data().data()); };
  join_all([&] { return ++first[member(0).generation()] > 0; },
           [&] {
             ++second[member(0).generation()];
             ++shared().events;
             shared().seen_inside += shared().inside;
             return true;
           });
  std::atomic<std::uint64_t> worked{0};
  std::atomic<unsigned> done{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 2 * kMembers; ++t) {
    threads.emplace_back([&, t] {
      Component& mine = member(t % kMembers);
      while (mine.generation() < kEvents) {
        EXPECT_TRUE(mine.with_lock([&] {
          ++shared().inside;
          ++shared().worked;
          --shared().inside;
        }));
        ++worked;
        mine.tick();
        if (t % 2 == 0) mine.initiate("test");
      }
      // The others may still wait for this member.
      for (++done; done < 2 * kMembers;) mine.tick();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (unsigned i = 0; i < kManyTicks; ++i) tick_all();
  EXPECT_FALSE(member(0).recovering());
  EXPECT_EQ(shared().worked, worked);
  EXPECT_EQ(shared().seen_inside, 0U);
  EXPECT_EQ(shared().events, member(0).generation() - 1);
  EXPECT_EQ(first.size(), member(0).generation() - 1);
  for (const auto& [generation, runs] : first) EXPECT_EQ(runs, 1U) << generation;
  for (const auto& [generation, runs] : second) EXPECT_EQ(runs, 1U) << generation;
}

TEST_F(ComponentTest, EachProcessIsToldOnceWhoIsGone) {
  join_all([] { return true; }, [] { return true; });
  const InstanceId left = instances_[2]->id();
  const InstanceId dead = instances_[1]->id();
  member(0).tick();
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      while (!stop) member(0).tick();
    });
  }
  member(2).leave();
  liveness_.release(dead.slot());
  EXPECT_TRUE(instances_[0]->recover(dead.slot(), "test"));
  while (member(0).members().size() > 1) std::this_thread::yield();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  member(0).tick();
  EXPECT_EQ(gone_[0], (std::map<std::uint64_t, unsigned>{{left.value, 1}, {dead.value, 1}}));
}

TEST_F(ComponentTest, WhoIsExpelledIsNotGoneUntilItIs) {
  join_all([] { return true; }, [] { return true; });
  tick_all();
  const InstanceId other = instances_[1]->id();
  ASSERT_TRUE(instances_[0]->expel(other, "test"));
  tick_all_but(1);
  EXPECT_TRUE(gone_[0].empty()) << "it may come back";
  EXPECT_EQ(member(0).members().size(), 2U);
  member(1).tick();
  tick_all();
  EXPECT_TRUE(gone_[0].empty());
  EXPECT_EQ(member(0).members().size(), 3U);
  ASSERT_TRUE(instances_[0]->expel(other, "again"));
  tick_all_but(1);
  liveness_.release(other.slot());
  EXPECT_TRUE(instances_[0]->recover(other.slot(), "test"));
  tick_all_but(1);
  tick_all_but(1);
  for (const unsigned m : {0U, 2U}) {
    EXPECT_EQ(gone_[m], (std::map<std::uint64_t, unsigned>{{other.value, 1}})) << m;
  }
}

// A thread that hangs inside would have the process expelled again as soon as it is back.
TEST_F(ComponentTest, WhoIsExpelledComesBackWhenNoneOfItsThreadsHoldsALock) {
  join_all([] { return true; }, [] { return true; });
  const InstanceId other = instances_[1]->id();
  Gate gate;
  std::thread hung([&] { EXPECT_TRUE(member(1).with_lock([&] { gate.pass(); })); });
  gate.wait_until_reached();
  ASSERT_TRUE(instances_[0]->expel(other, "test"));
  for (int i = 0; i < 3; ++i) member(1).tick();
  EXPECT_TRUE(instances_[0]->is_expelled(other));
  EXPECT_FALSE(member(0).with_lock([] {}, std::chrono::milliseconds(5)));
  gate.open();
  hung.join();
  member(1).tick();
  EXPECT_FALSE(instances_[0]->is_expelled(other));
  EXPECT_TRUE(member(0).with_lock([] {}));
}

TEST_F(ComponentTest, WhoKeepsAnEventWaitingIsReported) {
  Gate gate;
  join_all(
      [&] {
        gate.pass();
        return true;
      },
      [] { return true; });
  member(0).initiate("test");
  std::thread coordinator([&] { member(0).tick(); });
  gate.wait_until_reached();
  EXPECT_EQ(blocked(0), 0U);
  member(1).tick();
  EXPECT_EQ(blocked(0), 1U) << "it does not come to an end";
  const auto soon = std::chrono::milliseconds(5);
  EXPECT_FALSE(member(1).with_lock([] {}, soon));
  EXPECT_GT(blocked(0), 1U);
  gate.open();
  coordinator.join();
  member(0).tick();
  EXPECT_EQ(blocked(1), 0U) << "it has acknowledged";
  const std::uint64_t before = blocked(2);
  EXPECT_GT(before, 0U) << "it has not";
  member(1).tick();
  EXPECT_GT(blocked(2), before);
  member(2).tick();
  member(0).tick();
  EXPECT_FALSE(member(0).recovering());
  const std::uint64_t after = blocked(0) + blocked(1) + blocked(2);
  tick_all();
  EXPECT_EQ(blocked(0) + blocked(1) + blocked(2), after) << "nobody waits";
}

TEST_F(ComponentTest, WhoLeavesInTheMiddleOfAnEventKeepsNobodyWaiting) {
  unsigned second = 0;
  join_all([] { return true; }, [&] { return ++second > 0; });
  member(0).initiate("test");
  member(0).tick();
  ASSERT_EQ(second, 0U);
  member(0).leave();
  member(1).tick();
  member(2).tick();
  member(1).tick();
  EXPECT_EQ(second, 1U);
  EXPECT_FALSE(member(1).recovering());
}

TEST_F(ComponentTest, AStepThatCannotRunYetIsTriedAgainByAnybody) {
  bool possible = false;
  unsigned tried = 0;
  join_all(
      [&] {
        ++tried;
        return possible;
      },
      [] { return true; });
  member(0).initiate("test");
  member(0).tick();
  EXPECT_EQ(tried, 1U);
  possible = true;
  // The first one need not come back.
  member(1).tick();
  EXPECT_EQ(tried, 2U);
  tick_all();
  tick_all();
  EXPECT_EQ(tried, 2U);
  EXPECT_FALSE(member(0).recovering());
}

TEST_F(ComponentTest, SeveralComponentsInOneProcessKnowNothingOfEachOther) {
  join_all([] { return true; }, [] { return true; });
  std::vector<std::unique_ptr<Component>> others;
  unsigned steps = 0;
  for (unsigned m = 0; m < 2; ++m) {
    ComponentOptions all = options("other");
    all.steps = {{"only", true, [&] { return ++steps > 0; }}};
    others.push_back(std::move(Component::join(*instances_[m], std::move(all)).value()));
  }
  EXPECT_NE(others[0]->number(), member(0).number());
  EXPECT_EQ(others[0]->members().size(), 2U);
  EXPECT_EQ(member(0).members().size(), 3U);
  others[0]->initiate("test");
  // The one goes on while the other recovers.
  EXPECT_TRUE(member(0).with_lock([&] {
    others[0]->data()[0] = std::byte{1};
    EXPECT_FALSE(others[0]->with_lock([] {}, std::chrono::milliseconds(1)));
  }));
  EXPECT_EQ(member(0).generation(), 1U);
  for (unsigned i = 0; i < kManyTicks; ++i) {
    for (auto& other : others) other->tick();
  }
  EXPECT_EQ(others[0]->generation(), 2U);
  EXPECT_EQ(steps, 1U);
  EXPECT_TRUE(member(0).with_lock([&] { EXPECT_TRUE(others[0]->with_lock([] {})); }));
  others[0]->leave();
  EXPECT_EQ(others[1]->members().size(), 1U);
  EXPECT_EQ(member(0).members().size(), 3U);
  // It may come back.
  others[0] = std::move(Component::join(*instances_[0], options("other")).value());
  EXPECT_EQ(others[1]->members().size(), 2U);
}

TEST_F(ComponentTest, WhatCannotJoinIsToldWhy) {
  const auto code = [&](ComponentOptions what) {
    auto joined = Component::join(*instances_[1], std::move(what));
    return joined ? ErrorCode{} : joined.error().code;
  };
  members_[0] = std::move(Component::join(*instances_[0], options()).value());
  EXPECT_EQ(code(options("")), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(options("a name that is longer than 31 bytes")), ErrorCode::kInvalidArgument);
  ComponentOptions other = options();
  other.version = 2;
  EXPECT_EQ(code(other), ErrorCode::kIncompatible);
  ComponentOptions many = options("many");
  many.steps.resize(256);
  EXPECT_EQ(code(many), ErrorCode::kInvalidArgument);
  members_[1] = std::move(Component::join(*instances_[1], options()).value());
  EXPECT_EQ(code(options()), ErrorCode::kExists);
  EXPECT_TRUE(member(1).with_lock([] {})) << "the second try took nothing away from the first";
}

/// What the processes of a test saw.
struct Log {
  std::array<std::array<std::atomic<unsigned>, 2>, 64> runs{};  // by generation and step
  std::atomic<unsigned> repairs{0};
  std::atomic<unsigned> made{0};
  std::atomic<bool> stop{false};
};

class ComponentProcessTest : public ProcessTest {
 protected:
  struct Member {
    Place place;
    std::unique_ptr<Component> component;
    explicit Member(const std::string& name) : place(name) {}
  };
  using Step = std::function<bool(Component&)>;

  /// A member whose second step has a barrier.
  std::unique_ptr<Member> join(Step first = {}, Step second = {},
                               std::function<void(std::span<std::byte>)> initialise = {}) {
    auto self = std::make_unique<Member>(name_);
    Member* me = self.get();
    ComponentOptions options;
    options.name = "service";
    options.initialise = [this, initialise](std::span<std::byte> data) {
      ++log_->made;
      if (initialise) initialise(data);
    };
    options.repair = [this](std::span<std::byte> data) {
      ++log_->repairs;
      data[0] = data[1] = std::byte{0};
    };
    const auto step = [this, me](unsigned number, const Step& extra) {
      return [this, me, number, extra] {
        ++log_->runs[me->component->generation()][number];
        return !extra || extra(*me->component);
      };
    };
    options.steps = {{"first", false, step(0, first)}, {"second", true, step(1, second)}};
    self->component =
        std::move(Component::join(*self->place.instance, std::move(options)).value());
    return self;
  }
  unsigned runs(std::uint32_t generation, unsigned step) {
    return log_->runs[generation][step].load();
  }
  /// A member that ticks when it is told to ('t'), and starts events ('i').
  std::function<void(Channel&)> obedient(Step first = {}, Step second = {}) {
    return [this, first, second](Channel& channel) {
      const auto me = join(first, second);
      channel.say('r');
      for (;;) {
        if (channel.hear() == 'i') me->component->initiate("child");
        me->component->tick();
        channel.say('d');
      }
    };
  }
  static void order(Child& child, char what) {
    child.tell(what);
    EXPECT_EQ(child.listen(), 'd');
  }

  SharedMemory<Log> log_;
};

TEST_F(ComponentProcessTest, EachStepRunsOncePerGeneration) {
  constexpr std::uint32_t kLast = 40;
  std::vector<Child> children;
  for (int i = 0; i < 4; ++i) {
    children.emplace_back([&](Channel& channel) {
      const auto me = join();
      channel.say('r');
      (void)channel.hear();
      while (me->component->generation() < kLast || me->component->recovering()) {
        me->component->tick();
        if (me->component->generation() < kLast) me->component->initiate("child");
      }
      channel.say('d');
      while (!log_->stop) me->component->tick();
    });
  }
  for (Child& child : children) ASSERT_EQ(child.listen(), 'r');
  for (Child& child : children) child.tell('g');
  for (Child& child : children) EXPECT_EQ(child.listen(), 'd');
  for (std::uint32_t generation = 2; generation <= kLast; ++generation) {
    EXPECT_EQ(runs(generation, 0), 1U) << generation;
    EXPECT_EQ(runs(generation, 1), 1U) << generation;
  }
  EXPECT_EQ(log_->made, 1U);
}

TEST_F(ComponentProcessTest, TheNextOneFinishesWhatAKilledCoordinatorBegan) {
  for (const unsigned killed_in : {0U, 1U}) {
    const auto me = join();
    const std::uint32_t generation = me->component->generation() + 1;
    Channel* up = nullptr;
    const Step hang = [&](Component&) {
      up->say('s');
      for (;;) (void)up->hear();
      return true;
    };
    Child coordinator([&](Channel& channel) {
      up = &channel;
      obedient(killed_in == 0 ? hang : Step{}, killed_in == 1 ? hang : Step{})(channel);
    });
    ASSERT_EQ(coordinator.listen(), 'r');
    if (killed_in == 1) {
      // We come to the barrier and resign; the other one acknowledges and goes on.
      me->component->initiate("test");
      me->component->tick();
      ASSERT_EQ(runs(generation, 0), 1U);
    }
    coordinator.tell(killed_in == 0 ? 'i' : 't');
    ASSERT_EQ(coordinator.listen(), 's');
    for (unsigned i = 0; i < kManyTicks; ++i) me->component->tick();
    EXPECT_EQ(runs(generation, killed_in), 1U) << "nobody takes a living one's place";
    EXPECT_TRUE(me->component->recovering());
    coordinator.end();
    for (unsigned i = 0; i < kManyTicks; ++i) me->component->tick();
    EXPECT_FALSE(me->component->recovering());
    EXPECT_EQ(me->component->generation(), generation);
    EXPECT_EQ(runs(generation, 0), killed_in == 0 ? 2U : 1U) << "what was finished is not run again";
    EXPECT_EQ(runs(generation, 1), killed_in == 0 ? 1U : 2U);
    me->component->leave();
    me->place.instance->leave();
  }
}

TEST_F(ComponentProcessTest, ABarrierWaitsForALivingProcessAndNotForADeadOne) {
  const auto me = join();
  Child late(obedient());
  Child doomed(obedient());
  ASSERT_EQ(late.listen(), 'r');
  ASSERT_EQ(doomed.listen(), 'r');
  me->component->initiate("test");
  for (unsigned i = 0; i < kManyTicks; ++i) me->component->tick();
  EXPECT_EQ(runs(2, 0), 1U);
  doomed.end();
  for (unsigned i = 0; i < kManyTicks; ++i) me->component->tick();
  EXPECT_EQ(runs(2, 1), 0U);
  order(late, 't');
  EXPECT_EQ(runs(2, 1), 1U);
  EXPECT_FALSE(me->component->recovering());
}

TEST_F(ComponentProcessTest, WhoJoinsDuringAnEventIsNotWaitedForAndWorksAfterIt) {
  const auto me = join();
  Child late(obedient());
  ASSERT_EQ(late.listen(), 'r');
  me->component->initiate("test");
  me->component->tick();
  ASSERT_TRUE(me->component->recovering());
  Child joiner([&](Channel& channel) {
    const auto self = join();
    channel.say(self->component->with_lock([] {}, std::chrono::milliseconds(0)) ? 'w' : 'n');
    (void)channel.hear();
    channel.say(self->component->with_lock([&] {
      self->component->data()[2] = static_cast<std::byte>(self->component->generation());
    }) ? 'w' : 'n');
    (void)channel.hear();
  });
  EXPECT_EQ(joiner.listen(), 'n') << "the event is not over";
  EXPECT_EQ(me->component->members().size(), 3U);
  order(late, 't');
  EXPECT_FALSE(me->component->recovering());
  joiner.tell('g');
  EXPECT_EQ(joiner.listen(), 'w');
  EXPECT_EQ(me->component->data()[2], std::byte{2});
  EXPECT_EQ(runs(2, 0), 1U);
  EXPECT_EQ(runs(2, 1), 1U);
}

TEST_F(ComponentProcessTest, BehindABarrierNothingIsLeftHalfDone) {
  bool whole = false;
  const auto me = join({}, [&](Component& component) {
    whole = component.data()[0] == component.data()[1];
    return true;
  });
  Child victim([&](Channel& channel) {
    const auto self = join();
    (void)self->component->with_lock([&] {
      self->component->data()[0] = std::byte{7};
      channel.say('h');
      for (;;) (void)channel.hear();
    });
  });
  ASSERT_EQ(victim.listen(), 'h');
  me->component->initiate("test");
  for (unsigned i = 0; i < kManyTicks; ++i) me->component->tick();
  EXPECT_EQ(runs(2, 1), 0U) << "it is inside";
  victim.end();
  for (unsigned i = 0; i < kManyTicks; ++i) me->component->tick();
  EXPECT_EQ(runs(2, 1), 1U);
  EXPECT_TRUE(whole);
  EXPECT_EQ(log_->repairs, 1U);
  EXPECT_TRUE(me->component->with_lock([] {}));
  EXPECT_EQ(log_->repairs, 1U);
}

TEST_F(ComponentProcessTest, AKilledMakersComponentIsMadeByTheNext) {
  Child maker([&](Channel& channel) {
    (void)join({}, {}, [&](std::span<std::byte> data) {
      std::memset(data.data(), 0xff, data.size());
      channel.say('m');
      for (;;) (void)channel.hear();
    });
  });
  ASSERT_EQ(maker.listen(), 'm');
  maker.end();
  const auto me = join();
  EXPECT_EQ(log_->made, 2U);
  EXPECT_EQ(me->component->data()[100], std::byte{0});
  EXPECT_TRUE(me->component->with_lock([] {}));
}

TEST_F(ComponentProcessTest, AKilledProcessIsGoneFromAllItsComponents) {
  Place me(name_);
  std::map<std::string, unsigned> gone;
  std::vector<std::unique_ptr<Component>> mine;
  const auto options = [&](const std::string& name) {
    ComponentOptions all;
    all.name = name;
    all.on_gone = [&gone, name](InstanceId) { ++gone[name]; };
    return all;
  };
  for (const char* name : {"a", "b"}) {
    mine.push_back(std::move(Component::join(*me.instance, options(name)).value()));
  }
  Child child([&](Channel& channel) {
    Place place(name_);
    std::vector<std::unique_ptr<Component>> theirs;
    for (const char* name : {"a", "b"}) {
      theirs.push_back(std::move(Component::join(*place.instance, options(name)).value()));
    }
    channel.say('r');
    (void)channel.hear();
  });
  ASSERT_EQ(child.listen(), 'r');
  for (auto& component : mine) component->tick();
  EXPECT_EQ(mine[0]->members().size(), 2U);
  child.end();
  EXPECT_EQ(me.instance->recover_all("test"), 1U);
  for (int i = 0; i < 2; ++i) {
    for (auto& component : mine) component->tick();
  }
  EXPECT_EQ(gone, (std::map<std::string, unsigned>{{"a", 1}, {"b", 1}}));
}

// One thread hangs with the lock held; the process goes on counting its heartbeat.
TEST_F(ComponentProcessTest, TheAgentEndsAProcessWhoseThreadHangsInsideTheLock) {
  Place watcher(name_, "mcs-agent");
  const auto me = join();
  Child child([&](Channel& channel) {
    (void)channel.hear();
    const auto self = join();
    const Place& place = self->place;
    std::thread hung([&] {
      (void)self->component->with_lock([&] {
        self->component->data()[100] = std::byte{7};
        channel.say(send_hello(place.domain->path(), 0, place.instance->id()) ? 'y' : 'n');
        for (;;) ::pause();
      });
    });
    for (;; ::usleep(2000)) self->component->tick();
  });
  RunningAgent agent(watcher, 300);
  child.tell('g');
  EXPECT_EQ(child.listen(), 'y');
  bool seen = false;
  EXPECT_TRUE(me->component->with_lock([&] { seen = me->component->data()[100] == std::byte{7}; },
                                       std::chrono::minutes(1)));
  EXPECT_TRUE(seen);
  EXPECT_EQ(child.wait_for_kill(), SIGKILL);
}

/// Stopped for good while everybody waits for it: a member before a barrier, and the coordinator.
class HungMemberTest : public ComponentProcessTest, public testing::WithParamInterface<bool> {};

TEST_P(HungMemberTest, TheAgentEndsIt) {
  const bool coordinates = GetParam();
  Place watcher(name_, "mcs-agent");
  const auto me = join();
  Child child([&](Channel& channel) {
    (void)channel.hear();
    const auto self = join([&](Component&) {
      if (!coordinates) return true;
      channel.say('s');
      for (;;) (void)channel.hear();
    });
    const Place& place = self->place;
    channel.say(send_hello(place.domain->path(), 0, place.instance->id()) ? 'y' : 'n');
    (void)channel.hear();
    if (coordinates) self->component->initiate("test");
    self->component->tick();
  });
  RunningAgent agent(watcher, 50);
  child.tell('g');
  EXPECT_EQ(child.listen(), 'y');
  if (coordinates) {
    child.tell('g');
    EXPECT_EQ(child.listen(), 's');
  } else {
    me->component->initiate("test");
  }
  child.stop();
  ASSERT_TRUE(me->component->recovering());
  EXPECT_TRUE(me->component->with_lock([] {}, std::chrono::minutes(1)));
  EXPECT_EQ(me->component->generation(), 2U);
  EXPECT_EQ(child.wait_for_kill(), SIGKILL);
}

INSTANTIATE_TEST_SUITE_P(Role, HungMemberTest, testing::Bool(), [](const auto& role) {
  return role.param ? std::string("Coordinator") : std::string("Member");
});

}  // namespace
}  // namespace mcs::runtime
