// SPDX-License-Identifier: Apache-2.0
// The functions that gcc's and clang's -fsanitize=thread call. This file is compiled without it.
#include "tests/killpoints/hooks.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <utility>
#include <vector>

#include "tests/killpoints/actor.h"

extern "C" {
void* __real_memcpy(void* to, const void* from, std::size_t n);
void* __real_memmove(void* to, const void* from, std::size_t n);
void* __real_memset(void* to, int byte, std::size_t n);
int __real_pthread_mutex_lock(pthread_mutex_t* mutex);
int __real_clock_gettime(clockid_t clock, timespec* time);
}

namespace mcs::killpoints {

Hooks hooks;

namespace {

struct Undo {
  unsigned char* address;
  std::uint32_t size;
  unsigned char old[16];
};
// Grows with malloc, never from the actors' arena.
struct UndoLog {
  Undo* entries = nullptr;
  std::size_t count = 0;
  std::size_t capacity = 0;
} undo;

struct Delayed {
  bool pending = false;
  unsigned char* address = nullptr;
  std::uint32_t size = 0;
  unsigned char value[8];
} delayed;

bool shared(const void* address) {
  const auto a = reinterpret_cast<std::uintptr_t>(address);
  // Most accesses are to private memory.
  if (a - hooks.around.begin >= hooks.around.end - hooks.around.begin) return false;
  for (const Hooks::Range& range : hooks.ranges) {
    if (a >= range.begin && a < range.end) return true;
  }
  return false;
}

void log_old(void* address, std::size_t size) {
  auto* at = static_cast<unsigned char*>(address);
  while (size > 0) {
    if (undo.count == undo.capacity) {
      undo.capacity = std::max<std::size_t>(4096, undo.capacity * 2);
      undo.entries = static_cast<Undo*>(std::realloc(undo.entries, undo.capacity * sizeof(Undo)));
      if (undo.entries == nullptr) std::abort();
    }
    Undo& entry = undo.entries[undo.count++];
    entry.address = at;
    entry.size = static_cast<std::uint32_t>(std::min<std::size_t>(size, sizeof entry.old));
    __real_memcpy(entry.old, at, entry.size);
    at += entry.size;
    size -= entry.size;
  }
}

void die() {
  if (hooks.die != nullptr) hooks.die();
  end_actor(ActorEnd::kKilled);
}

// Before an access of the running actor; may not return.
void announce(const Access& access) {
  if (hooks.in_actor) {
    ++hooks.clock;
    if (hooks.step_limit != 0 && ++hooks.steps > hooks.step_limit) end_actor(ActorEnd::kHung);
    if (hooks.before_access != nullptr) hooks.before_access(access);
    if (access.write) {
      if (hooks.stores < hooks.trace_size) hooks.trace[hooks.stores] = place_of(access);
      if (++hooks.stores == hooks.kill_before) {
        hooks.last = access;
        if (hooks.pause) {
          yield_actor();
        } else {
          die();
        }
      }
    }
  }
  if (access.write && hooks.log_undo) {
    log_old(const_cast<void*>(access.address), access.size);
  }
}

bool overlaps_delayed(const void* address, std::size_t size) {
  const auto* at = static_cast<const unsigned char*>(address);
  return delayed.pending && at < delayed.address + delayed.size && delayed.address < at + size;
}

// Whether the mutation takes the atomic store over.
template <typename T>
bool mutate_store(const Access& access, T* address, T value) {
  if (hooks.mutation.kind == Mutation::Kind::kNone || !hooks.in_actor) return false;
  if (!hooks.mutation.selects(access, hooks.mutation.argument)) return false;
  ++hooks.mutated;
  if (hooks.mutation.kind == Mutation::Kind::kSkip) return true;
  flush_delayed();
  delayed.pending = true;
  delayed.address = reinterpret_cast<unsigned char*>(address);
  delayed.size = sizeof value;
  __real_memcpy(delayed.value, &value, sizeof value);
  return true;
}

// After a store was performed, the one that was held back follows it.
void after_store(const void* site) {
  if (!delayed.pending) return;
  // Between the two is an instant too.
  announce({delayed.address, delayed.size, true, site, 7});
  flush_delayed();
}

void before_load(const void* address, std::size_t size, const void* site) {
  if (!shared(address)) return;
  if (overlaps_delayed(address, size)) flush_delayed();
  announce({address, static_cast<std::uint32_t>(size), false, site, 0});
}

void before_plain_store(void* address, std::size_t size, const void* site) {
  if (!shared(address)) return;
  if (overlaps_delayed(address, size)) flush_delayed();
  announce({address, static_cast<std::uint32_t>(size), true, site, 0});
}

template <typename T>
T atomic_load(const volatile T* address, const void* site) {
  auto* at = const_cast<T*>(address);
  before_load(at, sizeof(T), site);
  return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}

template <typename T>
void atomic_store(volatile T* address, T value, const void* site) {
  auto* at = const_cast<T*>(address);
  if (!shared(at)) {
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);
    return;
  }
  if (overlaps_delayed(at, sizeof(T))) flush_delayed();
  const Access access{at, sizeof(T), true, site, 0};
  announce(access);
  if (mutate_store(access, at, value)) return;
  __atomic_store_n(at, value, __ATOMIC_SEQ_CST);
  after_store(site);
}

// A read-modify-write; `change` gives the new value.
template <typename T, typename Change>
T atomic_change(volatile T* address, const void* site, Change change) {
  auto* at = const_cast<T*>(address);
  if (shared(at)) {
    if (overlaps_delayed(at, sizeof(T))) flush_delayed();
    const Access access{at, sizeof(T), true, site, 0};
    announce(access);
    const T old = __atomic_load_n(at, __ATOMIC_SEQ_CST);
    if (mutate_store(access, at, change(old))) return old;
    __atomic_store_n(at, change(old), __ATOMIC_SEQ_CST);
    after_store(site);
    return old;
  }
  T old = __atomic_load_n(at, __ATOMIC_SEQ_CST);
  while (!__atomic_compare_exchange_n(at, &old, change(old), false, __ATOMIC_SEQ_CST,
                                      __ATOMIC_SEQ_CST)) {
  }
  return old;
}

template <typename T>
bool compare_exchange(volatile T* address, T* expected, T value, const void* site) {
  auto* at = const_cast<T*>(address);
  if (!shared(at)) {
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
  }
  if (overlaps_delayed(at, sizeof(T))) flush_delayed();
  // Only one that succeeds is a store. One actor runs at a time, but another one may run before
  // this access: look again after it was announced.
  if (hooks.before_access != nullptr && hooks.in_actor) {
    hooks.before_access({at, sizeof(T), true, site, 0});
  }
  const T seen = __atomic_load_n(at, __ATOMIC_SEQ_CST);
  if (seen != *expected) {
    if (hooks.in_actor && hooks.step_limit != 0 && ++hooks.steps > hooks.step_limit) {
      end_actor(ActorEnd::kHung);
    }
    *expected = seen;
    return false;
  }
  auto* const schedule = std::exchange(hooks.before_access, nullptr);
  const Access access{at, sizeof(T), true, site, 0};
  announce(access);
  hooks.before_access = schedule;
  // Others may have run while it was paused there.
  const T now = __atomic_load_n(at, __ATOMIC_SEQ_CST);
  if (now != *expected) {
    *expected = now;
    return false;
  }
  if (mutate_store(access, at, value)) return true;
  __atomic_store_n(at, value, __ATOMIC_SEQ_CST);
  after_store(site);
  return true;
}

// Announces a block store in parts of uneven lengths and performs each part.
template <typename Perform>
void block_store(void* to, std::size_t n, const void* site, Perform perform) {
  if (overlaps_delayed(to, n)) flush_delayed();
  auto* at = static_cast<unsigned char*>(to);
  const std::size_t cuts[] = {0, std::min<std::size_t>(1, n), n / 3, n > 0 ? n - 1 : 0, n};
  for (std::size_t i = 0; i + 1 < std::size(cuts); ++i) {
    if (cuts[i + 1] <= cuts[i]) continue;
    const std::size_t length = cuts[i + 1] - cuts[i];
    announce({at + cuts[i], static_cast<std::uint32_t>(length), true, site,
              static_cast<unsigned>(i)});
    perform(cuts[i], length);
  }
  after_store(site);
}

}  // namespace

void begin_undo() {
  undo.count = 0;
  drop_delayed();
}

std::size_t undo_mark() { return undo.count; }

void rewind(std::size_t mark) {
  while (undo.count > mark) {
    const Undo& entry = undo.entries[--undo.count];
    __real_memcpy(entry.address, entry.old, entry.size);
  }
  drop_delayed();
}

void flush_delayed() {
  if (!delayed.pending) return;
  delayed.pending = false;
  if (hooks.log_undo) log_old(delayed.address, delayed.size);
  __real_memcpy(delayed.address, delayed.value, delayed.size);
}

void drop_delayed() { delayed.pending = false; }

}  // namespace mcs::killpoints

using mcs::killpoints::hooks;
namespace kp = mcs::killpoints;
#define SITE __builtin_return_address(0)

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_ignore_thread_begin() {}
void __tsan_ignore_thread_end() {}
void __tsan_vptr_update(void** address, void*) { kp::before_plain_store(address, 8, SITE); }
void __tsan_vptr_read(void** address) { kp::before_load(address, 8, SITE); }

#define PLAIN(n)                                                                          \
  void __tsan_read##n(void* a) { kp::before_load(a, n, SITE); }                           \
  void __tsan_write##n(void* a) { kp::before_plain_store(a, n, SITE); }                   \
  void __tsan_unaligned_read##n(void* a) { kp::before_load(a, n, SITE); }                 \
  void __tsan_unaligned_write##n(void* a) { kp::before_plain_store(a, n, SITE); }         \
  void __tsan_volatile_read##n(void* a) { kp::before_load(a, n, SITE); }                  \
  void __tsan_volatile_write##n(void* a) { kp::before_plain_store(a, n, SITE); }          \
  void __tsan_unaligned_volatile_read##n(void* a) { kp::before_load(a, n, SITE); }        \
  void __tsan_unaligned_volatile_write##n(void* a) { kp::before_plain_store(a, n, SITE); }
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

void __tsan_read_range(void* a, unsigned long n) { kp::before_load(a, n, SITE); }
void __tsan_write_range(void* a, unsigned long n) { kp::before_plain_store(a, n, SITE); }

#define ATOMIC(bits, T)                                                                       \
  T __tsan_atomic##bits##_load(const volatile T* a, int) { return kp::atomic_load(a, SITE); } \
  void __tsan_atomic##bits##_store(volatile T* a, T v, int) { kp::atomic_store(a, v, SITE); } \
  T __tsan_atomic##bits##_exchange(volatile T* a, T v, int) {                                 \
    return kp::atomic_change(a, SITE, [v](T) { return v; });                                  \
  }                                                                                           \
  T __tsan_atomic##bits##_fetch_add(volatile T* a, T v, int) {                                \
    return kp::atomic_change(a, SITE, [v](T o) { return static_cast<T>(o + v); });            \
  }                                                                                           \
  T __tsan_atomic##bits##_fetch_sub(volatile T* a, T v, int) {                                \
    return kp::atomic_change(a, SITE, [v](T o) { return static_cast<T>(o - v); });            \
  }                                                                                           \
  T __tsan_atomic##bits##_fetch_and(volatile T* a, T v, int) {                                \
    return kp::atomic_change(a, SITE, [v](T o) { return static_cast<T>(o & v); });            \
  }                                                                                           \
  T __tsan_atomic##bits##_fetch_or(volatile T* a, T v, int) {                                 \
    return kp::atomic_change(a, SITE, [v](T o) { return static_cast<T>(o | v); });            \
  }                                                                                           \
  T __tsan_atomic##bits##_fetch_xor(volatile T* a, T v, int) {                                \
    return kp::atomic_change(a, SITE, [v](T o) { return static_cast<T>(o ^ v); });            \
  }                                                                                           \
  T __tsan_atomic##bits##_fetch_nand(volatile T* a, T v, int) {                               \
    return kp::atomic_change(a, SITE, [v](T o) { return static_cast<T>(~(o & v)); });         \
  }                                                                                           \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* a, T* c, T v, int, int) {     \
    return kp::compare_exchange(a, c, v, SITE) ? 1 : 0;                                       \
  }                                                                                           \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* a, T* c, T v, int, int) {       \
    return kp::compare_exchange(a, c, v, SITE) ? 1 : 0;                                       \
  }                                                                                           \
  T __tsan_atomic##bits##_compare_exchange_val(volatile T* a, T c, T v, int, int) {           \
    kp::compare_exchange(a, &c, v, SITE);                                                     \
    return c;                                                                                 \
  }
ATOMIC(8, std::uint8_t)
ATOMIC(16, std::uint16_t)
ATOMIC(32, std::uint32_t)
ATOMIC(64, std::uint64_t)

void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}

// The linker sends all calls of these here (--wrap).
void* __wrap_memcpy(void* to, const void* from, std::size_t n) {
  if (n == 0) return to;
  if (kp::shared(from)) kp::before_load(from, n, SITE);
  if (!kp::shared(to)) return __real_memcpy(to, from, n);
  kp::block_store(to, n, SITE, [&](std::size_t at, std::size_t length) {
    __real_memcpy(static_cast<char*>(to) + at, static_cast<const char*>(from) + at, length);
  });
  return to;
}

void* __wrap_memmove(void* to, const void* from, std::size_t n) {
  if (!kp::shared(to)) return __real_memmove(to, from, n);
  return __wrap_memcpy(to, from, n);
}

void* __wrap_memset(void* to, int byte, std::size_t n) {
  if (n == 0 || !kp::shared(to)) return __real_memset(to, byte, n);
  kp::block_store(to, n, SITE, [&](std::size_t at, std::size_t length) {
    __real_memset(static_cast<char*>(to) + at, byte, length);
  });
  return to;
}

int __wrap_snprintf(char* to, std::size_t n, const char* format, ...)
    __attribute__((format(printf, 3, 4)));
int __wrap_snprintf(char* to, std::size_t n, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char text[512];
  const int length = std::vsnprintf(kp::shared(to) ? text : to,
                                    kp::shared(to) ? std::min(n, sizeof text) : n, format,
                                    arguments);
  va_end(arguments);
  if (kp::shared(to) && n > 0) {
    const std::size_t stored = std::min<std::size_t>(static_cast<std::size_t>(length), n - 1) + 1;
    __wrap_memcpy(to, text, stored);
  }
  return length;
}

// Waiting for another actor: let it run.
int __wrap_clock_gettime(clockid_t clock, timespec* time) {
  if (!hooks.in_actor) return __real_clock_gettime(clock, time);
  constexpr std::uint64_t kNsPerAccess = 20;
  constexpr std::uint64_t kBegin = 1000000ULL * 1000000000;
  const std::uint64_t now = kBegin + ++hooks.clock * kNsPerAccess;
  *time = {static_cast<time_t>(now / 1000000000), static_cast<long>(now % 1000000000)};
  return 0;
}

int __wrap_sched_yield() {
  if (hooks.in_actor && hooks.before_access != nullptr) {
    hooks.before_access({nullptr, 0, false, SITE, 0});
  }
  return 0;
}

// Another thread of the same process, played by another actor, may hold it.
int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex) {
  if (!hooks.in_actor) return __real_pthread_mutex_lock(mutex);
  while (::pthread_mutex_trylock(mutex) == EBUSY) {
    if (hooks.before_access == nullptr) kp::end_actor(kp::ActorEnd::kHung);
    __wrap_sched_yield();
  }
  return 0;
}

}  // extern "C"
