// SPDX-License-Identifier: Apache-2.0
// Every access to shared memory passes through here.
//
// The shared-state code is compiled with -fsanitize=thread and linked without libtsan: the calls that
// the compiler inserts before each load, store and atomic end in hooks.cc, which knows what is shared
// memory, counts the stores of the running actor, and ends the actor instead of performing the store
// that it was told to die before. A plain store is announced before the program performs it, so an
// actor always dies *before* a store; the state after the last store is that of a finished actor.
//
// memcpy and memset into shared memory are announced in parts, so that an actor may die between any
// of them. What is overwritten is logged, so that a world can be rewound in microseconds.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace mcs::killpoints {

struct Access {
  const void* address = nullptr;
  std::uint32_t size = 0;
  bool write = false;
  const void* site = nullptr;  // return address: where in the program
  unsigned part = 0;           // of a block store
};

/// Which store of the program it is, wherever it goes.
inline std::uint64_t place_of(const Access& access) {
  return reinterpret_cast<std::uintptr_t>(access.site) * 8 + access.part;
}

/// A change to what the compiled program does, to show that the campaign notices.
struct Mutation {
  enum class Kind { kNone, kSkip, kDelay };
  Kind kind = Kind::kNone;
  /// Which stores: given their address and the running actor's program counter.
  bool (*selects)(const Access&, const void* argument) = nullptr;
  const void* argument = nullptr;
};

struct Hooks {
  struct Range {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
  };
  std::array<Range, 4> ranges{};  // shared memory
  Range around;                   // from the first to the last of it
  bool in_actor = false;          // nothing is counted outside
  bool log_undo = false;
  std::uint64_t stores = 0;       // by the running actor since it was armed
  std::uint64_t kill_before = 0;  // 0: never; 1: the first store
  bool pause = false;             // yield there instead of dying, so that it can go on as well
  std::uint64_t steps = 0;        // accesses of all actors since the world was rewound
  std::uint64_t step_limit = 0;   // more than this is a hang; 0: no limit
  std::uint64_t clock = 0;        // what time actors read: accesses too, so that all is the same twice
  Access last;                    // the store before which the actor died
  std::uint64_t* trace = nullptr;  // place_of() of each store goes here
  std::size_t trace_size = 0;
  void (*before_access)(const Access&) = nullptr;  // schedule exploration
  void (*die)() = nullptr;        // instead of ending the coroutine (fork and SIGKILL)
  Mutation mutation;
  std::uint64_t mutated = 0;      // how often the mutation struck
};
extern Hooks hooks;

/// Forget the undo log; shared memory is now what rewind() comes back to.
void begin_undo();
/// How much has been logged: what rewind() may come back to as well.
std::size_t undo_mark();
/// Undo all logged stores since the mark, newest first.
void rewind(std::size_t mark = 0);
/// Perform a store that a kDelay mutation holds back. Call when an actor ends alive.
void flush_delayed();
/// Drop it: its actor was killed.
void drop_delayed();

/// "function (file:line)" of a program address; slow.
std::string describe_site(const void* site);

}  // namespace mcs::killpoints
