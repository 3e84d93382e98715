// SPDX-License-Identifier: Apache-2.0
// Actors: coroutines that stand for processes. One may be ended at any access to shared memory by
// jumping off its stack: no destructor runs, as in a process that is killed.
//
// All memory that actors allocate comes from an arena, and all their stacks lie in one place, so a
// world (shared memory, heap, suspended stacks) is saved and restored by copying bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace mcs::killpoints {

enum class ActorEnd {
  kFinished,
  kKilled,
  kHung,       // more steps than any correct run needs
  kSuspended,  // yielded; resume() continues it
};

inline constexpr unsigned kActors = 12;

/// Run `body` on the stack of actor `number` until it finishes, is ended or yields. `body` must live
/// as long as the actor may be resumed. A suspended actor of that number is forgotten.
ActorEnd run_actor(unsigned number, const std::function<void()>& body);
ActorEnd resume_actor(unsigned number);
/// Inside an actor: give control back to whoever ran it.
void yield_actor();
/// Inside an actor: never come back.
[[noreturn]] void end_actor(ActorEnd how);
bool inside_actor();
unsigned current_actor();

/// The arena and the stacks of suspended actors.
struct ActorMemory {
  std::vector<unsigned char> heap;
  std::vector<unsigned char> stacks[kActors];
  std::vector<unsigned char> contexts;
};
void save_actors(ActorMemory& memory);
void restore_actors(const ActorMemory& memory);
/// Empty the arena, forget all actors.
void reset_actors();
std::size_t actor_heap_bytes();

}  // namespace mcs::killpoints
