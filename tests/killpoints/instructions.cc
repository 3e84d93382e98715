// SPDX-License-Identifier: Apache-2.0
#include "tests/killpoints/instructions.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>

namespace mcs::killpoints {
namespace {

constexpr std::uint64_t kMostSteps = 1 << 22;
constexpr std::size_t kReports = 40;
constexpr unsigned kHangSeconds = 30;

struct Case {
  const char* operation;
  std::vector<const char*> states;
};
// Only classes whose making needs no stop in the middle of something.
const Case kCases[] = {
    {"fill commit", {"some", "chain"}},
    {"fill commit large", {"some", "two nodes"}},
    {"replace", {"some", "chain"}},
    {"evict one", {"some", "full"}},
    {"evict many", {"some", "pinned"}},
    {"recover", {"dead filler"}},
    {"lookup", {"some", "chain", "ledger full"}},
    {"unpin", {"some"}},
    {"reclaim", {"some"}},
    {"purge key", {"chain", "pinned"}},
    {"fill abort", {"some"}},
    {"leave", {"some", "pinned"}},
};

// Never inlined: the trap comes with the first instruction after the flag was set.
__attribute__((noinline)) void set_trap_flag() {
  asm volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc");
}
__attribute__((noinline)) void clear_trap_flag() {
  asm volatile("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc");
}

// Not fork(): the interrupted code may hold any lock of the C library.
pid_t plain_fork() { return static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }

}  // namespace

struct Instructions::Shared {
  std::uint64_t steps;
  std::uint64_t points;
  std::uint64_t violations;
  std::uint64_t hangs;
  bool finished;
  bool present[2][kKeys];  // before and after the operation
  std::uint64_t reported;
  struct Report {
    std::uint64_t step;
    char text[512];
  } reports[kReports];
  char text[512];  // of the point at hand
  std::uint64_t addresses[kMostSteps];
};

Instructions* Instructions::current_ = nullptr;

Instructions::Instructions(World& world, InstructionOptions options)
    : world_(world), options_(std::move(options)), random_(options_.seed) {
  void* at = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) std::abort();
  shared_ = static_cast<Shared*>(at);
}

bool Instructions::time_is_up() const {
  return options_.seconds > 0 && std::chrono::steady_clock::now() >= until_;
}

InstructionResult Instructions::run() {
  const auto begin = std::chrono::steady_clock::now();
  until_ = begin + std::chrono::microseconds(static_cast<std::int64_t>(options_.seconds * 1e6));
  current_ = this;
  struct sigaction action {};
  action.sa_sigaction = on_trap;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGTRAP, &action, nullptr);
  std::vector<std::pair<const StartState*, const Operation*>> cases;
  for (const Case& wanted : kCases) {
    for (const char* state : wanted.states) {
      if (!options_.only_operation.empty() && options_.only_operation != wanted.operation) continue;
      if (!options_.only_state.empty() && options_.only_state != state) continue;
      const auto start = std::find_if(start_states().begin(), start_states().end(),
                                      [&](const StartState& s) { return s.name == state; });
      const auto operation =
          std::find_if(operations().begin(), operations().end(),
                       [&](const Operation& o) { return o.name == wanted.operation; });
      if (start == start_states().end() || operation == operations().end()) std::abort();
      cases.emplace_back(&*start, &*operation);
    }
  }
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (time_is_up()) {
      result_.complete = false;
      break;
    }
    const std::uint64_t left = options_.points - std::min(options_.points, result_.points);
    run_case(*cases[i].first, *cases[i].second, left / (cases.size() - i));
  }
  ::signal(SIGTRAP, SIG_DFL);
  result_.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result_;
}

void Instructions::run_case(const StartState& start, const Operation& operation,
                            std::uint64_t points) {
  start_ = &start;
  operation_ = &operation;
  world_.create(start.options);
  start.build(world_);
  const bool applies = !world_.violated() && operation.prepare(world_, start, operation.victim);
  if (!applies || world_.violated() || !trace(start, operation)) {
    ++result_.violations;
    result_.reports.push_back(fmt::format("{} from \"{}\" cannot be tried: {}", operation.name,
                                          start.name, world_.violation()));
    return;
  }
  const std::uint64_t steps = shared_->steps;
  result_.steps += steps;
  chosen_.clear();
  if (options_.exhaustive) {
    for (std::uint64_t step = 1; step <= steps; ++step) chosen_.push_back(step);
  } else {
    // One execution of as many different instructions as may be, then others.
    std::map<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>> by_address;
    for (std::uint64_t step = 1; step <= steps; ++step) {
      auto& [times, one_of_them] = by_address[shared_->addresses[step - 1]];
      if (random_() % ++times == 0) one_of_them = step;
    }
    for (const auto& [address, choice] : by_address) chosen_.push_back(choice.second);
    std::shuffle(chosen_.begin(), chosen_.end(), random_);
    while (chosen_.size() < points && chosen_.size() < steps) {
      chosen_.push_back(1 + random_() % steps);
    }
    chosen_.resize(std::min<std::size_t>(chosen_.size(), points));
    std::sort(chosen_.begin(), chosen_.end());
    chosen_.erase(std::unique(chosen_.begin(), chosen_.end()), chosen_.end());
  }
  shared_->points = shared_->violations = shared_->hangs = shared_->reported = 0;
  const pid_t child = ::fork();
  if (child == 0) {
    step_through(start, operation);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    ++result_.violations;
    result_.reports.push_back(fmt::format("{} from \"{}\": the operation itself ended with status {}",
                                          operation.name, start.name, status));
  }
  result_.points += shared_->points;
  result_.operations[operation.name] += shared_->points;
  result_.violations += shared_->violations;
  result_.hangs += shared_->hangs;
  for (std::uint64_t i = 0; i < shared_->points; ++i) {
    result_.distinct.emplace(operation.name, start.name, shared_->addresses[chosen_[i] - 1]);
  }
  if (shared_->points < chosen_.size()) result_.complete = false;
  for (std::uint64_t i = 0; i < shared_->reported && result_.reports.size() < kReports; ++i) {
    const Shared::Report& report = shared_->reports[i];
    result_.reports.push_back(fmt::format(
        "{} from \"{}\", killed after instruction {} in {}: {}", operation.name, start.name,
        report.step,
        describe_site(reinterpret_cast<const void*>(shared_->addresses[report.step - 1] + 1)),
        report.text));
  }
}

// Learns which instructions there are and what the operation leaves alone, in a process of its own.
bool Instructions::trace(const StartState& start, const Operation& operation) {
  std::memset(shared_->present, 0, sizeof shared_->present);
  shared_->finished = false;
  const auto look = [&](bool* present) {
    for (unsigned k = 0; k < kKeys; ++k) {
      world_.as(kFirstSurvivor, [&] { present[k] = world_.get(kFirstSurvivor, k) >= 0; });
    }
  };
  int status = 0;
  // Apart from the operation, because looking leaves traces too.
  if (const pid_t before = ::fork(); before == 0) {
    look(shared_->present[0]);
    ::_exit(0);
  } else {
    ::waitpid(before, &status, 0);
  }
  const pid_t child = ::fork();
  if (child == 0) {
    tracing_ = true;
    step_ = 0;
    const std::function<void()> body = [&] {
      set_trap_flag();
      operation.run(world_, start, operation.victim);
      clear_trap_flag();
    };
    run_actor(operation.victim, body);
    shared_->steps = step_;
    look(shared_->present[1]);
    shared_->finished = !world_.violated();
    ::_exit(0);
  }
  ::waitpid(child, &status, 0);
  must_hit_.clear();
  for (unsigned k = 0; k < kKeys; ++k) {
    const bool about_it = k == kTarget || k == kFresh || k == 29;
    if (shared_->present[0][k] && shared_->present[1][k] && !about_it) must_hit_.insert(k);
  }
  return shared_->finished && shared_->steps > 0 && shared_->steps < kMostSteps;
}

void Instructions::step_through(const StartState& start, const Operation& operation) {
  tracing_ = false;
  step_ = 0;
  next_ = 0;
  const std::function<void()> body = [&] {
    set_trap_flag();
    operation.run(world_, start, operation.victim);
    clear_trap_flag();
  };
  run_actor(operation.victim, body);
}

void Instructions::on_trap(int, siginfo_t*, void* context) {
  Instructions& self = *current_;
  const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  ++self.step_;
  if (self.tracing_) {
    if (self.step_ <= kMostSteps) {
      self.shared_->addresses[self.step_ - 1] = static_cast<std::uint64_t>(registers[REG_RIP]);
    }
    return;
  }
  if (self.next_ == self.chosen_.size() || self.step_ != self.chosen_[self.next_]) return;
  if (self.time_is_up()) ::_exit(0);
  ++self.next_;
  self.examine_here();
}

void Instructions::examine_here() {
  shared_->text[0] = '\0';
  const pid_t child = plain_fork();
  if (child == 0) {
    ::alarm(kHangSeconds);
    Campaign campaign(world_, {});
    campaign.examine(*start_, *operation_, must_hit_, step_ % 2 == 0);
    std::snprintf(shared_->text, sizeof shared_->text, "%.500s", world_.violation());
    ::_exit(world_.violated() ? 1 : 0);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  ++shared_->points;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  ++shared_->violations;
  const bool hang = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
  if (hang) ++shared_->hangs;
  if (shared_->reported == kReports) return;
  Shared::Report& report = shared_->reports[shared_->reported++];
  report.step = step_;
  if (WIFSIGNALED(status)) {
    std::snprintf(report.text, sizeof report.text, "the survivors %s (signal %d)",
                  hang ? "hang" : "crash", WTERMSIG(status));
  } else {
    std::memcpy(report.text, shared_->text, sizeof report.text);
  }
}

}  // namespace mcs::killpoints
