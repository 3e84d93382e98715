// SPDX-License-Identifier: Apache-2.0
// mcs-core-worker STORE DIRECTORY ENTRIES create|attach SOCKET: works a store as the other end of
// the socket says, and ends when that end does.
#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <stdexcept>

#include "loadtest/bench/core_worker/store.h"

namespace mcs::loadtest::core {
namespace {

std::uint64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// splitmix64 (S. Vigna): every number once in 2^64.
struct Random {
  std::uint64_t state;
  std::uint64_t next() {
    std::uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t n) {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64);
  }
};

void set_realtime(bool on) {
  const sched_param priority{on ? 10 : 0};
  ::sched_setscheduler(0, on ? SCHED_FIFO : SCHED_OTHER, &priority);
}

// Runs `operation` until the end, looking at the clock now and then.
template <typename Operation>
void repeat(const Command& command, Answer& answer, Operation&& operation) {
  while (now_ns() < command.begin_ns) {
  }
  const std::uint64_t begin = now_ns();
  std::uint64_t end = begin;
  do {
    for (int i = 0; i < 32; ++i) answer.failures += operation() ? 0 : 1;
    answer.operations += 32;
    end = now_ns();
  } while (end < command.end_ns);
  answer.ns = end - begin;
}

Answer obey(Store& store, const Command& command) {
  Answer answer;
  Random random{command.seed};
  Value value{};
  std::uint64_t next = command.first;
  const auto get = [&] {
    const std::uint64_t number = random.below(command.entries);
    return store.get(number, value) && value[0] == number;
  };
  const auto put = [&] { return store.put(random.below(command.entries)); };
  set_realtime(command.realtime != 0);
  switch (command.work) {
    case Work::kFill:
      for (; next < command.first + command.count; ++next)
        answer.failures += store.put(next) ? 0 : 1;
      answer.operations = command.count;
      break;
    case Work::kFillUp:
      while (!store.is_full()) answer.failures += store.displace(next++, ~0ULL) ? 0 : 1;
      answer.operations = next - command.first;
      break;
    case Work::kWarm:
      store.touch_all_pages();
      for (std::uint64_t i = 0; i < command.entries; ++i) {
        answer.failures += store.get(i, value) && value[0] == i ? 0 : 1;
      }
      answer.operations = command.entries;
      break;
    case Work::kGet:
      repeat(command, answer, get);
      break;
    case Work::kMiss:
      repeat(command, answer,
             [&] { return !store.get((1ULL << 40) + random.below(command.entries), value); });
      break;
    case Work::kPut:
      repeat(command, answer, put);
      break;
    case Work::kDisplace:
      repeat(command, answer, [&] {
        const std::uint64_t number = next++;
        return store.displace(number, number - command.count);
      });
      break;
    case Work::kMixed:
      repeat(command, answer, [&] { return random.below(100) < command.count ? put() : get(); });
      break;
    case Work::kChase: {
      std::uint64_t seed = command.seed;
      repeat(command, answer, [&] {
        seed = store.chase(seed);
        return true;
      });
      break;
    }
  }
  set_realtime(false);
  return answer;
}

std::unique_ptr<Store> make(const std::string& kind, const StoreOptions& options) {
#ifndef MCS_CORE_WORKER_VARIANT
  if (kind == "lmdb") return make_lmdb_store(options);
  if (kind == "map") return make_map_store(options);
  if (kind == "memcached") return make_memcached_store(options);
#endif
  if (kind == "mcs") return make_mcs_store(options);
  throw std::runtime_error("no store is called " + kind);
}

int work(char** argv) {
  StoreOptions options;
  options.directory = argv[2];
  options.entries = std::strtoull(argv[3], nullptr, 10);
  options.create = std::string_view(argv[4]) == "create";
  const auto store = make(argv[1], options);
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, argv[5], sizeof address.sun_path - 1);
  if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw std::runtime_error("nobody listens at " + std::string(argv[5]));
  }
  for (Command command; ::recv(fd, &command, sizeof command, 0) == sizeof command;) {
    const Answer answer = obey(*store, command);
    if (::send(fd, &answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer) break;
  }
  return 0;
}

}  // namespace
}  // namespace mcs::loadtest::core

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fputs("mcs-core-worker is started by mcs-bench core\n", stderr);
    return 2;
  }
  try {
    return mcs::loadtest::core::work(argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mcs-core-worker: %s: %s\n", argv[1], error.what());
    return 1;
  }
}
