// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/runtime/agent.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "libglobalcache/runtime/global_mutex.h"

namespace mcs::runtime {
namespace {

constexpr std::uint32_t kSocketEvent = 0xffffffff;
// To recover an instance as soon as its exit was told; then it has its turn with all the others.
constexpr unsigned kAttempts = 32;

// Which hello an event is about: the slot alone may have told of somebody else since.
std::uint64_t event_of(std::uint32_t slot, std::uint32_t serial) {
  return (static_cast<std::uint64_t>(serial) << 32) | slot;
}

int pidfd_open_self() { return static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)); }

bool address_of(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return true;
}

std::string socket_path(const std::string& domain_path, std::uint32_t node) {
  return fmt::format("{}/agent.{}", domain_path, node);
}

// What a field of a file in /proc says; empty: nothing.
std::string proc_text(const std::string& path, const char* field) {
  FILE* file = std::fopen(path.c_str(), "re");
  if (file == nullptr) return {};
  char line[256];
  std::string text;
  while (text.empty() && std::fgets(line, sizeof line, file) != nullptr) {
    if (std::strncmp(line, field, std::strlen(field)) == 0) text = line + std::strlen(field);
  }
  std::fclose(file);
  return text;
}

// The number that a field has, or `otherwise`.
int proc_field(const std::string& path, const char* field, int otherwise) {
  const std::string text = proc_text(path, field);
  return text.empty() ? otherwise : std::atoi(text.c_str());
}

// What is behind a pidfd, as a number here: 0 if it cannot be seen from this pid namespace, -1 if it is
// gone.
int pid_of(int pidfd) {
  return pidfd < 0 ? 0 : proc_field(fmt::format("/proc/self/fdinfo/{}", pidfd), "Pid:", 0);
}

// Unknown counts as traced: not to be killed.
bool is_traced(int pid) {
  return proc_field(fmt::format("/proc/{}/status", pid), "TracerPid:", -1) != 0;
}

}  // namespace

bool send_hello(const std::string& domain_path, std::uint32_t node, InstanceId id) {
  sockaddr_un address;
  if (domain_path.empty() || !address_of(socket_path(domain_path, node), address)) return false;
  const int pidfd = pidfd_open_self();
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  bool sent = false;
  if (fd >= 0) {
    AgentHello hello{id.slot(), id.incarnation()};
    iovec part{&hello, sizeof hello};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_name = &address;
    message.msg_namelen = sizeof address;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (pidfd >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &pidfd, sizeof pidfd);
    }
    sent = ::sendmsg(fd, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof hello);
    ::close(fd);
  }
  if (pidfd >= 0) ::close(pidfd);
  return sent;
}

bool kill_instance(const Instance& viewer, InstanceId id) {
  const Slot& their = viewer.slot(id.slot());
  if (their.pid <= 1 || their.pid_namespace != viewer.own().pid_namespace) return false;
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, their.pid, 0));
  if (pidfd < 0) return errno == ESRCH;
  // The number may be another one's by now, but not while the pidfd is open and this is so.
  const bool is_it = process_start_time(their.pid) == their.started && !viewer.is_dead(id);
  // One that is busy, with a long repair perhaps, is not hung.
  const bool busy = proc_text(fmt::format("/proc/{}/status", their.pid), "State:").starts_with("\tR");
  const bool killed = is_it && !busy && !is_traced(their.pid) &&
                      ::syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0) == 0;
  ::close(pidfd);
  return killed;
}

int open_agent_program() {
  std::string candidates[3];
  if (const char* named = std::getenv("MCS_AGENT"); named != nullptr) candidates[0] = named;
  Dl_info info{};
  if (::dladdr(reinterpret_cast<void*>(&open_agent_program), &info) != 0 &&
      info.dli_fname != nullptr) {
    const std::string file = info.dli_fname;
    const std::size_t slash = file.rfind('/');
    // A build tree: BUILD/modules/x.so or BUILD/bin/x beside BUILD/bin/mcs-agent.
    if (slash != std::string::npos) candidates[1] = file.substr(0, slash) + "/../bin/mcs-agent";
  }
  candidates[2] = "/usr/libexec/mcs/mcs-agent";
  for (const std::string& path : candidates) {
    if (path.empty()) continue;
    const int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
    if (fd >= 0) return fd;
  }
  return -1;
}

bool start_agent(int program_fd, const std::string& directory, const std::string& name,
                 std::uint32_t node, std::uint32_t hang_limit_ms) {
  const int program = program_fd >= 0 ? program_fd : open_agent_program();
  if (program < 0) return false;
  // Everything the child needs is made before the fork: only system calls are safe after it.
  std::string words[] = {"mcs-agent",      "--directory",          directory,      "--node",
                         fmt::format("{}", node), "--hang-limit-ms", fmt::format("{}", hang_limit_ms),
                         name};
  char* argv[std::size(words) + 1] = {};
  for (std::size_t i = 0; i < std::size(words); ++i) argv[i] = words[i].data();
  char path[] = "PATH=/usr/bin:/bin";
  char* envp[] = {path, nullptr};
  const pid_t child = ::fork();
  if (child == 0) {
    ::setsid();
    if (::fork() != 0) ::_exit(0);
    const int null = ::open("/dev/null", O_RDWR);
    ::dup2(null, 0);
    ::dup2(null, 1);
    ::dup2(null, 2);
    const int kept = ::fcntl(program, F_DUPFD, 3);
    // Listening sockets above all: an agent that kept them would keep the port.
    if (kept != 3) {
      ::dup2(kept, 3);
    }
    ::fcntl(3, F_SETFD, FD_CLOEXEC);
    ::close_range(4, ~0U, 0);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    if (::chdir("/") != 0) ::_exit(1);
    ::syscall(SYS_execveat, 3, "", argv, envp, AT_EMPTY_PATH);
    ::_exit(1);
  }
  if (program_fd < 0) ::close(program);
  if (child < 0) return false;
  int status = 0;
  // The server's own SIGCHLD handler may have reaped it already.
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return true;
}

Agent::Agent(Instance& instance, std::string domain_path, Options options,
             std::function<void()> tick)
    : instance_(instance),
      path_(std::move(domain_path)),
      socket_path_(socket_path(path_, instance.node())),
      options_(options),
      tick_(std::move(tick)) {}

Agent::~Agent() {
  for (auto& [slot, watched] : watched_) {
    if (watched.pidfd >= 0) ::close(watched.pidfd);
  }
  if (socket_ >= 0) ::close(socket_);
  if (epoll_ >= 0) ::close(epoll_);
}

void Agent::forget(std::uint32_t slot) {
  const auto it = watched_.find(slot);
  if (it == watched_.end()) return;
  if (it->second.pidfd >= 0) ::close(it->second.pidfd);
  watched_.erase(it);
}

void Agent::receive_hellos() {
  for (;;) {
    AgentHello hello{};
    iovec part{&hello, sizeof hello};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t n = ::recvmsg(socket_, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) return;
    int pidfd = -1;
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (header != nullptr && header->cmsg_level == SOL_SOCKET &&
        header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof(int))) {
      std::memcpy(&pidfd, CMSG_DATA(header), sizeof pidfd);
    }
    if (n != static_cast<ssize_t>(sizeof hello) || hello.slot >= instance_.slot_count() ||
        pidfd < 0) {
      if (pidfd >= 0) ::close(pidfd);
      continue;
    }
    forget(hello.slot);
    Watched& watched = watched_[hello.slot];
    watched.incarnation = hello.incarnation;
    watched.pidfd = pidfd;
    watched.serial = ++hellos_;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = event_of(hello.slot, watched.serial);
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, pidfd, &event);
  }
}

void Agent::told_of_exit(std::uint32_t slot, std::uint32_t serial, std::uint64_t now) {
  const auto it = watched_.find(slot);
  // An exit that was told in one breath with the hello of the slot's next owner.
  if (it == watched_.end() || it->second.serial != serial) return;
  Watched& watched = it->second;
  const std::uint64_t word = instance_.control(slot).state.load(std::memory_order_acquire);
  // The slot may belong to its next owner by now: that one's lock is held, and recover sees it.
  if (StateWord::incarnation(word) != watched.incarnation ||
      instance_.recover(slot, "exit", now, watched.incarnation)) {
    forget(slot);
  } else if (++watched.attempts == kAttempts) {
    // Somebody who does not get on holds what is needed: the kernel would tell again and again.
    ::epoll_ctl(epoll_, EPOLL_CTL_DEL, watched.pidfd, nullptr);
  }
}

bool Agent::anybody_else() const {
  for (std::uint32_t slot = 0; slot < instance_.slot_count(); ++slot) {
    if (slot == instance_.slot_number()) continue;
    const std::uint64_t word = instance_.control(slot).state.load(std::memory_order_acquire);
    const InstanceState state = StateWord::state(word);
    if (state == InstanceState::kFree || state == InstanceState::kInvalid) continue;
    // Whether the processes of an expelled machine have ended is not known here, nor our concern.
    const std::uint32_t node = instance_.slot(slot).node;
    if (instance_.domain().separate_kernels() && node != instance_.node() &&
        node < instance_.views().nodes() && !instance_.views().mine().has_member(node)) {
      continue;
    }
    if (std::strncmp(instance_.slot(slot).server, "mcs-", 4) != 0) return true;
  }
  return false;
}

// No sign of life while others ask for what it holds.
bool Agent::is_stopped(std::uint32_t slot, Watched& watched, std::uint64_t now) {
  const std::uint64_t blocked =
      instance_.control(slot).blocked.load(std::memory_order_relaxed);
  const std::uint64_t heartbeat =
      instance_.slot(slot).heartbeat.load(std::memory_order_relaxed);
  if (blocked == watched.blocked_seen && watched.stalled_since_ns == 0) return false;
  if (heartbeat != watched.heartbeat_seen || watched.stalled_since_ns == 0) {
    watched.heartbeat_seen = heartbeat;
    watched.stalled_since_ns = blocked == watched.blocked_seen ? 0 : now;
    watched.blocked_seen = blocked;
    return false;
  }
  if (now - watched.stalled_since_ns < options_.hang_limit_ms * 1000000ULL) return false;
  // Nobody asked again since: an idle stopped process is left alone.
  watched.stalled_since_ns = 0;
  return blocked != watched.blocked_seen;
}

// One thread hangs inside a lock while the others go on. Only locks count: a fill may take long.
bool Agent::holds_too_long(std::uint32_t slot, Watched& watched, std::uint64_t now) {
  const std::uint64_t limit = options_.hang_limit_ms * 1000000ULL;
  const std::uint64_t blocked =
      instance_.control(slot).blocked.load(std::memory_order_relaxed);
  if (blocked != watched.blocked_last) {
    watched.blocked_last = blocked;
    watched.blocked_last_ns = now;
  }
  // Those who ask may come seldom.
  if (watched.blocked_last_ns == 0 || now - watched.blocked_last_ns > 12 * limit) {
    watched.holds.clear();
    return false;
  }
  const InstanceId id = InstanceId::make(slot, watched.incarnation);
  const Slot& their = instance_.slot(slot);
  const auto look = [&](unsigned record, std::uint64_t ref, std::uint64_t word,
                        std::uint64_t stamp) {
    if (ref == 0 || OwnerLock::owner(word) != id) {
      watched.holds.erase(record);
      return false;
    }
    Hold& hold = watched.holds[record];
    if (hold.ref != ref || hold.stamp != stamp) hold = {ref, stamp, now};
    return now - hold.since_ns > limit;
  };
  bool too_long = false;
  unsigned record = 0;
  for (const OpRecord& op : their.ops) {
    const LockRef ref{op.lock.load(std::memory_order_acquire)};
    const OwnerLock* lock = ref.value == 0 ? nullptr : instance_.resolve_lock(ref);
    const std::uint64_t word = lock == nullptr ? 0 : lock->load();
    // The word counts how often the lock was taken.
    too_long = look(record++, lock == nullptr ? 0 : ref.value, word, word) || too_long;
  }
  for (const Word& mutex : their.mutexes) {
    const LockRef ref{mutex.load(std::memory_order_acquire)};
    const MutexCell* cell = ref.value == 0 ? nullptr : GlobalMutex::resolve(instance_, ref);
    too_long = look(record++, cell == nullptr ? 0 : ref.value,
                    cell == nullptr ? 0 : cell->owner.load(std::memory_order_acquire),
                    cell == nullptr ? 0 : cell->wakeups.load(std::memory_order_acquire)) ||
               too_long;
  }
  return too_long && now - watched.blocked_last_ns <= limit;
}

// Kill, and let its exit be recovered like any; or else expel.
void Agent::end(std::uint32_t slot, const Watched& watched) {
  const int pid = pid_of(watched.pidfd);
  if (pid < 0) return;
  // Its own node's agent may know it, and kill it, if there is one.
  const std::uint32_t node = instance_.slot(slot).node;
  if (watched.pidfd < 0 && node != instance_.node() &&
      (instance_.domain().separate_kernels() || instance_.liveness().held(kAgentByte + node))) {
    return;
  }
  const bool traced = pid > 0 && is_traced(pid);
  if (pid > 0 && !traced &&
      (::syscall(SYS_pidfd_send_signal, watched.pidfd, SIGKILL, nullptr, 0) == 0 ||
       errno == ESRCH)) {
    return;
  }
  instance_.expel(InstanceId::make(slot, watched.incarnation),
                  traced ? "hung, and traced" : "hung, and may not be killed");
}

// `now` is when this round began: whoever was held up since then, and looks at another clock, would take
// its own delay for theirs.
void Agent::judge(std::uint32_t slot, Watched& watched, std::uint64_t now) {
  const bool stopped = is_stopped(slot, watched, now);
  if (holds_too_long(slot, watched, now) || stopped) end(slot, watched);
}

// Who was asleep himself has not seen whether others got on meanwhile: they may have slept too.
void Agent::forget_measurements() {
  for (auto& [slot, watched] : watched_) {
    watched.stalled_since_ns = 0;
    watched.blocked_seen = watched.blocked_last =
        instance_.control(slot).blocked.load(std::memory_order_relaxed);
    watched.blocked_last_ns = 0;
    watched.holds.clear();
  }
}

void Agent::look_around(std::uint64_t now) {
  for (std::uint32_t slot = 0; slot < instance_.slot_count(); ++slot) {
    if (slot == instance_.slot_number()) continue;
    const std::uint64_t word = instance_.control(slot).state.load(std::memory_order_acquire);
    const InstanceState state = StateWord::state(word);
    const auto it = watched_.find(slot);
    if (state == InstanceState::kFree || state == InstanceState::kInvalid) {
      if (it != watched_.end() && it->second.incarnation == StateWord::incarnation(word)) {
        forget(slot);
      }
      continue;
    }
    if (it != watched_.end() && it->second.attempts >= kAttempts) {
      told_of_exit(slot, it->second.serial, now);
      continue;
    }
    if (!instance_.lives(slot)) {
      instance_.recover(slot, "liveness lock");
      continue;
    }
    if (state == InstanceState::kExpelled) instance_.pass_on(slot);
    if (state != InstanceState::kActive && state != InstanceState::kLeaving &&
        state != InstanceState::kExpelled) {
      continue;
    }
    // One that has not told of itself is judged too, though it cannot be killed.
    if (it != watched_.end() && it->second.incarnation != StateWord::incarnation(word)) {
      if (it->second.pidfd >= 0) continue;  // its exit is about to be seen
      forget(slot);
    }
    Watched& watched = watched_[slot];
    if (watched.incarnation == 0) {
      watched.incarnation = StateWord::incarnation(word);
      watched.blocked_last = watched.blocked_seen =
          instance_.control(slot).blocked.load(std::memory_order_relaxed);
    }
    judge(slot, watched, now);
  }
}

// On one kernel: neither an agent nor an instance of the node is left, though it has had some.
bool Agent::has_ended(std::uint32_t node) const {
  if (instance_.liveness().held(kAgentByte + node)) return false;
  for (std::uint32_t slot = 0; slot < instance_.slot_count(); ++slot) {
    const std::uint64_t word = instance_.control(slot).state.load(std::memory_order_acquire);
    const InstanceState state = StateWord::state(word);
    if (state == InstanceState::kFree) continue;
    // Of a slot whose memory is damaged or lost nobody can tell whose it is.
    const bool may_be = state == InstanceState::kInvalid || instance_.slot(slot).node == node;
    if (may_be && instance_.liveness().held(slot)) return false;
  }
  return true;
}

// On one kernel: changes while any process of the node gets on.
std::uint64_t Agent::signs_of(std::uint32_t node) const {
  std::uint64_t sum = 0;
  for (std::uint32_t slot = 0; slot < instance_.slot_count(); ++slot) {
    const std::uint64_t word = instance_.control(slot).state.load(std::memory_order_acquire);
    if (StateWord::state(word) == InstanceState::kFree) continue;
    const Slot& their = instance_.slot(slot);
    if (their.node != node || !instance_.liveness().held(slot)) continue;
    sum += their.heartbeat.load(std::memory_order_relaxed);
  }
  return sum;
}

// Changes while somebody waits in vain for a process of the node, or a check of its memory fails.
std::uint64_t Agent::hints_of(std::uint32_t node) const {
  std::uint64_t sum = options_.failed_checks ? options_.failed_checks(node) : 0;
  for (std::uint32_t slot = 0; slot < instance_.slot_count(); ++slot) {
    const SlotControl& control = instance_.control(slot);
    const InstanceState state = StateWord::state(control.state.load(std::memory_order_acquire));
    if (state == InstanceState::kFree || state == InstanceState::kInvalid) continue;
    if (instance_.slot(slot).node == node) sum += control.blocked.load(std::memory_order_relaxed);
  }
  return sum;
}

void Agent::take_effect(const NodeWatch::Change& change) {
  const std::uint64_t agreed_ns = monotonic_ns();
  const unsigned expelled = instance_.expel_outsiders();
  const std::uint64_t repaired_ns = monotonic_ns();
  // Whoever is first tells of it.
  Word* announced = nullptr;
  for (std::uint32_t node = 0; node < instance_.views().nodes() && announced == nullptr; ++node) {
    if (instance_.domain().segment(node).lost()) continue;
    announced = &instance_.views().area(node).announced.word;
  }
  if (announced == nullptr) return;
  std::uint64_t seen = announced->load(std::memory_order_acquire);
  const View& now = change.now;
  if (seen >= now.generation || !announced->compare_exchange_strong(seen, now.generation)) return;
  Event event{};
  event.kind = static_cast<std::uint32_t>(EventKind::kViewChanged);
  event.recoverer = instance_.id().value;
  event.wall_ms = wall_ms();
  event.detected_ns = change.detected_ns != 0 ? change.detected_ns : agreed_ns;
  event.agreed_ns = agreed_ns;
  event.repaired_ns = repaired_ns;
  event.resumed_ns = monotonic_ns();
  event.retired = expelled;
  const auto other = static_cast<std::uint16_t>(
      change.before.members != now.members ? change.before.members ^ now.members
                                           : change.before.segments ^ now.segments);
  event.node = other == 0 ? instance_.node() : static_cast<std::uint32_t>(std::countr_zero(other));
  std::snprintf(event.server, sizeof event.server, "view %u: members %x, segments %x", now.generation,
                static_cast<unsigned>(now.members), static_cast<unsigned>(now.segments));
  std::snprintf(event.cause, sizeof event.cause, "%s",
                change.detected_ns != 0 ? change.cause : "decided by others");
  instance_.publish_event(std::move(event));
}

void Agent::watch_nodes(const std::atomic<bool>& stop) {
  NodeWatch::Options options;
  const bool separate = instance_.domain().separate_kernels();
  const std::uint32_t agreed = instance_.domain().header().node_limit_ms;
  options.limit_ms = options_.node_limit_ms != 0 ? options_.node_limit_ms
                     : agreed != 0               ? agreed
                     : separate                  ? 1000
                                                 : std::max(1000U, 2 * options_.hang_limit_ms);
  options.tick_ms = options_.beat_ms;
  if (!separate) {
    options.certainly_gone = [this](std::uint32_t node) { return has_ended(node); };
    options.signs = [this](std::uint32_t node) { return signs_of(node); };
  } else {
    options.hints = [this](std::uint32_t node) { return hints_of(node); };
  }
  NodeWatch watch(instance_.views(), instance_.domain(), instance_.node(), options);
  while (!stop.load(std::memory_order_acquire)) {
    // Work under way in the first thread may take long; a hang may not.
    if (monotonic_ns() - awake_ns_.load(std::memory_order_acquire) <
        options_.hang_limit_ms * 1000000ULL) {
      const NodeWatch::Change change = watch.tick(monotonic_ns());
      if (change) {
        take_effect(change);
      } else {
        instance_.expel_outsiders();
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(options_.beat_ms));
  }
  watch.rest();
}

bool Agent::run(const volatile bool* stop) {
  sockaddr_un address;
  socket_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  if (socket_ < 0 || epoll_ < 0 || !address_of(socket_path_, address)) return false;
  ::unlink(socket_path_.c_str());
  if (::bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return false;
  }
  struct stat domain {};
  if (::stat(path_.c_str(), &domain) == 0) ::chmod(socket_path_.c_str(), domain.st_mode & 0666);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kSocketEvent;
  ::epoll_ctl(epoll_, EPOLL_CTL_ADD, socket_, &event);
  std::uint64_t alone_since = 0;
  std::uint64_t last_look = 0;
  awake_ns_.store(monotonic_ns(), std::memory_order_release);
  std::atomic<bool> over{false};
  std::thread watcher([&] { watch_nodes(over); });
  struct Join {
    std::atomic<bool>& over;
    std::thread& thread;
    ~Join() {
      over.store(true, std::memory_order_release);
      thread.join();
    }
  } join{over, watcher};
  while (stop == nullptr || !*stop) {
    epoll_event events[64];
    const int n = ::epoll_wait(epoll_, events, 64, 20);
    const std::uint64_t now = monotonic_ns();
    awake_ns_.store(now, std::memory_order_release);
    for (int i = 0; i < n; ++i) {
      const auto slot = static_cast<std::uint32_t>(events[i].data.u64);
      if (slot == kSocketEvent) {
        receive_hellos();
        continue;
      }
      told_of_exit(slot, static_cast<std::uint32_t>(events[i].data.u64 >> 32), now);
    }
    if (options_.watch) options_.watch();
    if (now - last_look < 100000000ULL) continue;
    const std::uint64_t late_ns = std::max<std::uint64_t>(options_.hang_limit_ms / 2, 300) * 1000000;
    if (last_look != 0 && now - last_look > late_ns) forget_measurements();
    last_look = now;
    // Instances that see another agent than they told of themselves tell this one. Again, since the
    // segment may have come back as another one.
    Word& word = instance_.events(instance_.node()).agent;
    if (word.load(std::memory_order_relaxed) != instance_.id().value) {
      word.store(instance_.id().value, std::memory_order_release);
    }
    instance_.tick();
    look_around(now);
    tick_();
    if (anybody_else()) {
      alone_since = 0;
    } else if (alone_since == 0) {
      alone_since = now;
    } else if (now - alone_since > options_.linger_ms * 1000000ULL) {
      break;
    }
  }
  ::unlink(socket_path_.c_str());
  return true;
}

}  // namespace mcs::runtime
