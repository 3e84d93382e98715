// SPDX-License-Identifier: Apache-2.0
#include "tests/killpoints/actor.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "tests/killpoints/hooks.h"

namespace mcs::killpoints {
namespace {

constexpr std::size_t kStackBytes = 512 * 1024;
constexpr std::size_t kHeapBytes = std::size_t{256} << 20;
constexpr std::size_t kRedZone = 1024;

unsigned char* map_bytes(std::size_t n) {
  void* at = ::mmap(nullptr, n, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) std::abort();
  return static_cast<unsigned char*>(at);
}

// Freed blocks are kept by size class, so that the arena stays as small as what is in use.
struct Heap {
  std::size_t used = 0;
  void* free_blocks[40] = {};
};
constexpr std::size_t kBlockHead = 64;  // keeps every block aligned for any type

unsigned char* heap_base() {
  static unsigned char* base = [] {
    unsigned char* at = map_bytes(kHeapBytes);
    auto* heap = new (at) Heap;
    heap->used = 4096;
    return at;
  }();
  return base;
}
Heap& heap() { return *reinterpret_cast<Heap*>(heap_base()); }

bool in_heap(const void* p) {
  const auto* at = static_cast<const unsigned char*>(p);
  return at >= heap_base() && at < heap_base() + kHeapBytes;
}

void* heap_allocate(std::size_t n) {
  const unsigned order =
      static_cast<unsigned>(std::bit_width(std::max<std::size_t>(n + kBlockHead, 128) - 1));
  Heap& h = heap();
  unsigned char* block = nullptr;
  if (h.free_blocks[order] != nullptr) {
    block = static_cast<unsigned char*>(h.free_blocks[order]);
    std::memcpy(&h.free_blocks[order], block + kBlockHead, sizeof(void*));
  } else {
    block = heap_base() + h.used;
    h.used += std::size_t{1} << order;
    if (h.used > kHeapBytes) std::abort();
  }
  std::memcpy(block, &order, sizeof order);
  return block + kBlockHead;
}

void heap_free(void* p) {
  auto* block = static_cast<unsigned char*>(p) - kBlockHead;
  unsigned order = 0;
  std::memcpy(&order, block, sizeof order);
  std::memcpy(p, &heap().free_blocks[order], sizeof(void*));
  heap().free_blocks[order] = block;
}

struct Context {
  jmp_buf inside;   // where the actor is
  jmp_buf outside;  // whoever ran it
  std::uintptr_t sp;
  bool suspended;
  const std::function<void()>* body;
};
// All zeros, so that it is right before any constructor of the program has run.
struct Actors {
  Context contexts[kActors];
  unsigned running;  // actor + 1; 0: none
};
Actors actors;
Context& running() { return actors.contexts[actors.running - 1]; }

unsigned char* stack_of(unsigned number) {
  static unsigned char* stacks = map_bytes(kStackBytes * kActors);
  return stacks + number * kStackBytes;
}

void leave(Context& context, ActorEnd how) {
  hooks.in_actor = false;
  actors.running = 0;
  // 0 is what setjmp itself answers.
  ::_longjmp(context.outside, static_cast<int>(how) + 1);
}

void enter_actor() {
  Context& context = running();
  (*context.body)();
  end_actor(ActorEnd::kFinished);
}

ucontext_t scratch;

}  // namespace

bool inside_actor() { return actors.running != 0; }
unsigned current_actor() { return actors.running - 1; }

ActorEnd run_actor(unsigned number, const std::function<void()>& body) {
  Context& context = actors.contexts[number];
  context.body = &body;
  context.suspended = false;
  const int answer = ::_setjmp(context.outside);
  if (answer != 0) return static_cast<ActorEnd>(answer - 1);
  actors.running = number + 1;
  hooks.in_actor = true;
  ::getcontext(&scratch);
  scratch.uc_stack.ss_sp = stack_of(number);
  scratch.uc_stack.ss_size = kStackBytes;
  scratch.uc_link = nullptr;
  ::makecontext(&scratch, enter_actor, 0);
  ::setcontext(&scratch);
  std::abort();
}

ActorEnd resume_actor(unsigned number) {
  Context& context = actors.contexts[number];
  const int answer = ::_setjmp(context.outside);
  if (answer != 0) return static_cast<ActorEnd>(answer - 1);
  actors.running = number + 1;
  hooks.in_actor = true;
  context.suspended = false;
  ::_longjmp(context.inside, 1);
}

void yield_actor() {
  Context& context = running();
  if (::_setjmp(context.inside) != 0) return;
  context.suspended = true;
  context.sp = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)) - kRedZone;
  leave(context, ActorEnd::kSuspended);
}

void end_actor(ActorEnd how) {
  Context& context = running();
  leave(context, how);
  std::abort();
}

void save_actors(ActorMemory& memory) {
  memory.heap.assign(heap_base(), heap_base() + heap().used);
  for (unsigned i = 0; i < kActors; ++i) {
    memory.stacks[i].clear();
    if (!actors.contexts[i].suspended) continue;
    const auto* from = reinterpret_cast<const unsigned char*>(actors.contexts[i].sp);
    memory.stacks[i].assign(from, static_cast<const unsigned char*>(stack_of(i)) + kStackBytes);
  }
  const auto* contexts = reinterpret_cast<const unsigned char*>(&actors);
  memory.contexts.assign(contexts, contexts + sizeof actors);
}

void restore_actors(const ActorMemory& memory) {
  std::memcpy(heap_base(), memory.heap.data(), memory.heap.size());
  std::memcpy(static_cast<void*>(&actors), memory.contexts.data(), sizeof actors);
  for (unsigned i = 0; i < kActors; ++i) {
    if (memory.stacks[i].empty()) continue;
    std::memcpy(stack_of(i) + kStackBytes - memory.stacks[i].size(), memory.stacks[i].data(),
                memory.stacks[i].size());
  }
}

void reset_actors() {
  auto* fresh = new (heap_base()) Heap;
  fresh->used = 4096;
  actors = Actors{};
}

std::size_t actor_heap_bytes() { return heap().used; }

}  // namespace mcs::killpoints

void* operator new(std::size_t n) {
  if (mcs::killpoints::inside_actor()) return mcs::killpoints::heap_allocate(n);
  void* p = std::malloc(n == 0 ? 1 : n);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void* operator new[](std::size_t n) { return operator new(n); }
void operator delete(void* p) noexcept {
  if (mcs::killpoints::in_heap(p)) {
    mcs::killpoints::heap_free(p);
  } else {
    std::free(p);
  }
}
void operator delete[](void* p) noexcept { operator delete(p); }
void operator delete(void* p, std::size_t) noexcept { operator delete(p); }
void* operator new(std::size_t n, std::align_val_t alignment) {
  if (mcs::killpoints::inside_actor()) return mcs::killpoints::heap_allocate(n);
  const auto to = static_cast<std::size_t>(alignment);
  void* p = std::aligned_alloc(to, (n + to - 1) / to * to);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void operator delete(void* p, std::align_val_t) noexcept { operator delete(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { operator delete(p); }
void operator delete[](void* p, std::size_t) noexcept { operator delete(p); }
