// SPDX-License-Identifier: Apache-2.0
#include "gsm-emu/fault.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <mutex>

namespace mcs::gsm {
namespace {

// Read by the signal handler: only lock-free atomics, written in the order kind, lost, begin, end,
// and cleared in the opposite order.
struct Watch {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<RangeKind> kind{RangeKind::kMetadata};
  std::atomic<std::atomic<bool>*> lost{nullptr};
};
constexpr int kMaxWatches = 8192;
Watch watches[kMaxWatches];
std::atomic<int> watch_high{0};
std::mutex watch_mutex;
struct sigaction previous_action;

// Where a copy goes on that met lost memory. Every hit of the cache sets one, so it is the compiler's,
// which keeps three words, and not the C library's, which keeps all registers that a function must
// preserve. Sanitizers know only the library's, and call handlers with all signals blocked, whatever
// sa_flags say: there the mask is restored too, which costs a system call.
#ifdef MCS_SANITIZED
using Escape = sigjmp_buf;
#define MCS_SET_ESCAPE(escape) sigsetjmp(escape, 1)
#define MCS_ESCAPE(escape) siglongjmp(escape, 1)
#else
using Escape = void* [5];
#define MCS_SET_ESCAPE(escape) __builtin_setjmp(escape)
#define MCS_ESCAPE(escape) __builtin_longjmp(escape, 1)
#endif

struct Guard {
  Escape escape;
  volatile sig_atomic_t armed;
};
// initial-exec: no allocation on first use inside the handler, also in a dlopen()ed module.
thread_local Guard guard __attribute__((tls_model("initial-exec")));

void pass_on(int signal, siginfo_t* info, void* context) {
  if (previous_action.sa_flags & SA_SIGINFO) {
    if (previous_action.sa_sigaction != nullptr) {
      previous_action.sa_sigaction(signal, info, context);
      return;
    }
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN &&
             previous_action.sa_handler != nullptr) {
    previous_action.sa_handler(signal);
    return;
  }
  // Not ours and nobody else's: let the access fault again with the default action.
  ::signal(SIGBUS, SIG_DFL);
}

void on_sigbus(int signal, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  const int high = watch_high.load(std::memory_order_acquire);
  for (int i = 0; i < high; ++i) {
    const std::uintptr_t begin = watches[i].begin.load(std::memory_order_acquire);
    const std::uintptr_t end = watches[i].end.load(std::memory_order_acquire);
    if (address < begin || address >= end) continue;
    std::atomic<bool>* lost = watches[i].lost.load(std::memory_order_relaxed);
    if (watches[i].kind.load(std::memory_order_relaxed) == RangeKind::kPayload) {
      lost->store(true, std::memory_order_release);
      if (guard.armed) MCS_ESCAPE(guard.escape);
      break;
    }
    lost->store(true, std::memory_order_release);
    // Not through the library, where sanitizers would take it for a write to the memory.
    const long hole = ::syscall(SYS_mmap, begin, end - begin, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (hole == static_cast<long>(begin)) return;
    break;
  }
  pass_on(signal, info, context);
}

// The string instructions with which memcpy copies 2 KiB and more are 20 times slower on Zen 3 and 4
// when the target's place in its page is just behind the source's (glibc bug 30994: 4.9 us instead of
// 0.2 for 16 KiB). Shorter copies use vector registers.
constexpr std::size_t kShort = 1024;
[[gnu::noinline]] void copy_long(std::byte* to, const std::byte* from, std::size_t n) {
  constexpr std::size_t kPage = 4096;
  const auto distance = reinterpret_cast<std::uintptr_t>(to) - reinterpret_cast<std::uintptr_t>(from);
  if (distance % kPage < 64) {
    for (; n > kShort; to += kShort, from += kShort, n -= kShort) std::memcpy(to, from, kShort);
  }
  std::memcpy(to, from, n);
}

void install_handler() {
  struct sigaction action {};
  action.sa_sigaction = on_sigbus;
  // SA_NODEFER: guarded_copy is left without restoring the signal mask.
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  struct sigaction current {};
  ::sigaction(SIGBUS, nullptr, &current);
  if ((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_sigbus) return;
  previous_action = current;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace

int watch_range(const void* address, std::size_t size, RangeKind kind, std::atomic<bool>* lost) {
  const std::lock_guard lock(watch_mutex);
  // At every call, because servers install handlers of their own between our joins.
  install_handler();
  for (int i = 0; i < kMaxWatches; ++i) {
    if (watches[i].lost.load(std::memory_order_relaxed) != nullptr) continue;
    watches[i].kind.store(kind, std::memory_order_relaxed);
    watches[i].lost.store(lost, std::memory_order_relaxed);
    const auto begin = reinterpret_cast<std::uintptr_t>(address);
    watches[i].begin.store(begin, std::memory_order_relaxed);
    watches[i].end.store(begin + size, std::memory_order_release);
    if (i >= watch_high.load(std::memory_order_relaxed)) {
      watch_high.store(i + 1, std::memory_order_release);
    }
    return i;
  }
  return -1;
}

void unwatch_range(int handle) {
  if (handle < 0 || handle >= kMaxWatches) return;
  const std::lock_guard lock(watch_mutex);
  watches[handle].end.store(0, std::memory_order_release);
  watches[handle].begin.store(0, std::memory_order_release);
  watches[handle].lost.store(nullptr, std::memory_order_release);
}

bool guarded_copy(void* to, const void* from, std::size_t n) noexcept {
  if (n == 0) return true;
  if (MCS_SET_ESCAPE(guard.escape) != 0) {
    guard.armed = 0;
    return false;
  }
  guard.armed = 1;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (n <= kShort) {
    std::memcpy(to, from, n);
  } else {
    copy_long(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), n);
  }
  std::atomic_signal_fence(std::memory_order_seq_cst);
  guard.armed = 0;
  return true;
}

}  // namespace mcs::gsm
