// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/internal/crowd.h"

#include <fmt/format.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "gsm-emu/domain.h"
#include "libglobalcache/cache/layout.h"
#include "libglobalcache/runtime/agent.h"
#include "loadtest/harness/build_paths.h"

namespace mcs::loadtest {

namespace {

constexpr const char* kDomain = "bench";
constexpr std::size_t kBodyBytes = 64;
// Room for each entry: a unit of 256 bytes, its descriptor, bucket and clock byte, and some slack.
constexpr std::uint64_t kBytesPerEntry = 520;

struct Command {
  std::uint32_t count;
  std::uint32_t pins;
  std::uint32_t lookups;
  Victim kind;
};

}  // namespace

Result<std::unique_ptr<Member>> Member::join(const std::string& directory) {
  auto member = std::make_unique<Member>();
  auto domain = gsm::Domain::open(directory, kDomain, cache::layout_hash());
  if (!domain) return fail("{}", domain.error().message);
  member->domain_ = std::move(*domain);
  auto liveness = runtime::KernelLiveness::open(member->domain_->path());
  if (!liveness) return fail("{}", liveness.error().message);
  member->liveness_ = std::move(*liveness);
  auto instance =
      runtime::Instance::join(*member->domain_, *member->liveness_, {.server = "bench/1"});
  if (!instance) return fail("{}", instance.error().message);
  member->instance_ = std::move(*instance);
  member->cache_ = std::make_unique<cache::GlobalCache>(*member->domain_, *member->instance_);
  member->instance_->activate();
  return member;
}

Member::~Member() = default;

void Member::leave() {
  cache_->leave();
  instance_->leave();
}

std::string Crowd::key_of(std::uint64_t number) { return fmt::format("k{:08}", number); }

Result<std::unique_ptr<Crowd>> Crowd::gather(const CrowdOptions& options) {
  std::unique_ptr<Crowd> crowd(new Crowd(options));
  if (options.huge_pages) {
    if (auto mounted = crowd->mount_huge_pages(); !mounted) return tl::unexpected(mounted.error());
  }
  if (auto made = crowd->make_domain(); !made) return tl::unexpected(made.error());
  if (auto made = crowd->make_ballast(); !made) return tl::unexpected(made.error());
  // Before anything is mapped here, so that victims inherit no page tables.
  if (auto started = crowd->start_nursery(); !started) return tl::unexpected(started.error());
  auto agent = ChildProcess::start({tool_file("mcs-agent").string(), "--directory",
                                    crowd->temp_.path().string(), "--linger-ms", "3600000", kDomain});
  if (!agent) return tl::unexpected(agent.error());
  crowd->agent_ = std::move(*agent);
  crowd->keep_apart(crowd->agent_.pid());
  auto survivor = Member::join(crowd->temp_.path());
  if (!survivor) return tl::unexpected(survivor.error());
  crowd->survivor_ = std::move(*survivor);
  if (auto filled = crowd->fill(); !filled) return tl::unexpected(filled.error());
  return crowd;
}

Crowd::~Crowd() {
  if (survivor_) survivor_->leave();
  survivor_.reset();
  agent_ = ChildProcess();
  if (commands_ >= 0) ::close(commands_);
  if (answers_ >= 0) ::close(answers_);
  if (nursery_ > 0) ::waitpid(nursery_, nullptr, 0);
  if (mounted_) ::umount2(temp_.path().c_str(), MNT_DETACH);
}

void Crowd::keep_apart(pid_t pid) const {
  cpu_set_t set;
  if (!options_.apart || ::sched_getaffinity(pid, sizeof set, &set) != 0) return;
  CPU_CLR(kSurvivorsCpu, &set);
  if (CPU_COUNT(&set) > 0) ::sched_setaffinity(pid, sizeof set, &set);
}

Result<void> Crowd::mount_huge_pages() {
  if (::mount("tmpfs", temp_.path().c_str(), "tmpfs", 0, "huge=always,size=90%") != 0) {
    return fail("cannot mount a tmpfs with huge pages at {}: {}; run as root", temp_.path().string(),
                std::strerror(errno));
  }
  mounted_ = true;
  return {};
}

Result<void> Crowd::make_domain() {
  gsm::DomainSpec spec;
  spec.name = kDomain;
  spec.directory = temp_.path();
  spec.bytes_per_node = (64ULL << 20) + options_.entries * kBytesPerEntry;
  spec.layout_hash = cache::layout_hash();
  cache::PlanOptions options;
  options.bytes_per_node = spec.bytes_per_node;
  options.instances = 128;
  options.ledger_words = options_.most_pins + 64;
  options.bytes_per_entry = spec.bytes_per_node / (options_.entries + options_.entries / 2 + 1024);
  const cache::CachePlan plan = cache::plan(options);
  gsm::Geometry geometry;
  geometry.meta_bytes = plan.meta_bytes;
  plan.runtime.store(geometry.user.data());
  plan.cache.store(geometry.user.data() + 16);
  const auto made = gsm::Domain::create(spec, geometry, cache::format);
  if (!made) return fail("{}", made.error().message);
  return {};
}

Result<void> Crowd::fill() {
  const std::string body(kBodyBytes, 'b');
  cache::GlobalCache& cache = survivor_->cache();
  for (std::uint64_t i = 0; i < options_.entries; ++i) {
    cache::Fill fill;
    const std::string key = key_of(i);
    if (cache.begin(cache.make_key(key), fill) != cache::Begin::kFilling) {
      return fail("the domain has no room for entry {} of {}", i + 1, options_.entries);
    }
    fill.set_head({}, kBodyBytes);
    if (fill.append(std::as_bytes(std::span(body))) != cache::Append::kOk ||
        !fill.commit(runtime::wall_ms())) {
      return fail("entry {} of {} could not be stored", i + 1, options_.entries);
    }
  }
  cache::Hit hit;
  for (std::uint64_t i = 0; i < options_.entries; i += 97) {
    const std::string key = key_of(i);
    if (cache.find(cache.make_key(key), hit).found != cache::Found::kHit) {
      return fail("entry {} of {} was evicted: the domain is too small", i, options_.entries);
    }
    cache.release(hit);
  }
  return {};
}

namespace {

constexpr std::uint64_t kBallastBytes = 5ULL << 30;

std::uint64_t ballast_page(std::uint32_t number) {
  return (number * 0x9e3779b97f4a7c15ULL >> 20) % (kBallastBytes / gsm::kPageSize);
}

}  // namespace

Result<void> Crowd::make_ballast() const {
  if (options_.ballast_pages == 0) return {};
  const int fd = ::open((temp_.path() / "ballast").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  bool made = fd >= 0 && ::ftruncate(fd, static_cast<off_t>(kBallastBytes)) == 0;
  for (std::uint32_t i = 0; made && i < options_.ballast_pages; ++i) {
    made = ::pwrite(fd, "b", 1, static_cast<off_t>(ballast_page(i) * gsm::kPageSize)) == 1;
  }
  if (fd >= 0) ::close(fd);
  if (!made) return fail("cannot make the ballast: {}", std::strerror(errno));
  return {};
}

// Mapped until the process ends.
void Crowd::touch_ballast() const {
  if (options_.ballast_pages == 0) return;
  const int fd = ::open((temp_.path() / "ballast").c_str(), O_RDONLY | O_CLOEXEC);
  void* at = ::mmap(nullptr, kBallastBytes, PROT_READ, MAP_SHARED, fd, 0);
  if (fd >= 0) ::close(fd);
  if (at == MAP_FAILED) ::_exit(1);
  for (std::uint32_t i = 0; i < options_.ballast_pages; ++i) {
    (void)static_cast<const volatile char*>(at)[ballast_page(i) * gsm::kPageSize];
  }
}

std::uint64_t Crowd::agents_faults() const {
  const auto stat = read_file(fmt::format("/proc/{}/stat", agent_.pid()));
  unsigned long long faults = 0;
  // Field 10; the first after the command name is field 3.
  const std::size_t at = stat ? stat->rfind(')') : std::string::npos;
  if (at == std::string::npos ||
      std::sscanf(stat->c_str() + at + 1, " %*c %*d %*d %*d %*d %*d %*u %llu", &faults) != 1) {
    return 0;
  }
  return faults;
}

Result<void> Crowd::start_nursery() {
  int commands[2];
  int answers[2];
  if (::pipe2(commands, O_CLOEXEC) != 0 || ::pipe2(answers, O_CLOEXEC) != 0) {
    return fail("pipe: {}", std::strerror(errno));
  }
  nursery_ = ::fork();
  if (nursery_ < 0) return fail("fork: {}", std::strerror(errno));
  if (nursery_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(commands[1]);
    ::close(answers[0]);
    keep_apart(0);
    tend_nursery(commands[0], answers[1]);
  }
  ::close(commands[0]);
  ::close(answers[1]);
  commands_ = commands[1];
  answers_ = answers[0];
  return {};
}

void Crowd::tend_nursery(int commands, int answers) const {
  std::signal(SIGCHLD, SIG_IGN);  // nobody asks how they ended
  std::signal(SIGINT, SIG_IGN);
  std::uint32_t number = 0;
  for (Command command{}; ::read(commands, &command, sizeof command) == sizeof command;) {
    for (std::uint32_t i = 0; i < command.count; ++i) {
      if (::fork() != 0) continue;
      if (command.kind == Victim::kControl) be_control(answers, command.lookups, number + i);
      be_victim(answers, command.pins, command.lookups, number + i);
    }
    number += command.count;
  }
  ::_exit(0);
}

void Crowd::be_victim(int answers, std::uint32_t pins, std::uint32_t lookups,
                      std::uint32_t number) const {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto member = Member::join(temp_.path());
  if (!member) {
    std::fputs(fmt::format("mcs-bench: {}\n", member.error().message).c_str(), stderr);
    ::_exit(1);
  }
  cache::GlobalCache& cache = (*member)->cache();
  std::vector<cache::Hit> held(pins);
  cache::Hit hit;
  const auto find = [&](std::uint64_t entry, cache::Hit& to) {
    const std::string key = key_of(entry % options_.entries);
    return cache.find(cache.make_key(key), to).found == cache::Found::kHit;
  };
  // The fills of those before may have evicted a few entries.
  for (std::uint32_t i = 0; i < lookups; ++i) {
    if (find(std::uint64_t{number} * 7919 + std::uint64_t{i} * 104729, hit)) cache.release(hit);
  }
  touch_ballast();
  std::uint32_t pinned = 0;
  for (std::uint64_t i = 0; pinned < pins && i < options_.entries; ++i) {
    if (find(i, held[pinned])) ++pinned;
  }
  bool ok = pinned == pins;
  cache::Fill fill;
  const std::string key = fmt::format("victim {}", ::getpid());
  ok = ok && cache.begin(cache.make_key(key), fill) == cache::Begin::kFilling;
  const std::vector<std::byte> part(65536);
  fill.set_head({}, std::nullopt);
  ok = ok && fill.append(part) == cache::Append::kOk;
  while (ok && !runtime::send_hello((*member)->domain_path(), 0, (*member)->instance().id())) {
    ::usleep(1000);
  }
  const pid_t answer = ok ? ::getpid() : -1;
  if (::write(answers, &answer, sizeof answer) != sizeof answer) ::_exit(1);
  for (;;) ::pause();
}

// A lookup touches a bucket, a descriptor and a unit of the payload.
void Crowd::be_control(int answers, std::uint32_t touches, std::uint32_t number) const {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const auto domain = gsm::Domain::open(temp_.path(), kDomain, cache::layout_hash());
  if (!domain) ::_exit(1);
  const gsm::Segment& segment = (*domain)->segment(0);
  const auto g = cache::CacheGeometry::load(segment.header().user + 16);
  const auto* metadata = reinterpret_cast<const volatile char*>(segment.metadata());
  const auto* payload = reinterpret_cast<const volatile char*>(segment.payload());
  // Where entries lie: from the front.
  const std::uint64_t used = std::min(segment.header().size - segment.header().meta_bytes,
                                      options_.entries * cache::kUnitBytes);
  std::uint64_t x = std::uint64_t{number} * 7919 + 1;
  for (std::uint32_t i = 0; i < touches; ++i, x = x * 0x9e3779b97f4a7c15ULL + 12345) {
    (void)metadata[g.buckets_at + (x >> 8) % g.buckets * sizeof(cache::Bucket)];
    (void)metadata[g.descriptors_at + (x >> 16) % g.descriptors * sizeof(cache::Descriptor)];
    (void)payload[(x >> 24) % used];
  }
  const pid_t answer = ::getpid();
  if (::write(answers, &answer, sizeof answer) != sizeof answer) ::_exit(1);
  for (;;) ::pause();
}

Result<std::vector<pid_t>> Crowd::bring(std::uint32_t count, std::uint32_t pins,
                                        std::uint32_t lookups, Victim kind) {
  const Command command{count, pins, lookups, kind};
  if (::write(commands_, &command, sizeof command) != sizeof command) {
    return fail("the nursery is gone");
  }
  std::vector<pid_t> pids;
  while (pids.size() < count) {
    pollfd waiting{answers_, POLLIN, 0};
    pid_t pid = 0;
    if (::poll(&waiting, 1, 30'000) != 1 || ::read(answers_, &pid, sizeof pid) != sizeof pid ||
        pid <= 0) {
      return fail("only {} of {} processes could join the domain", pids.size(), count);
    }
    pids.push_back(pid);
  }
  return pids;
}

Result<std::vector<Crowd::Recovery>> Crowd::recoveries(const std::vector<pid_t>& pids) const {
  runtime::EventRing& ring = survivor_->instance().events(0);
  std::vector<Recovery> at(pids.size());
  const std::uint64_t give_up = runtime::monotonic_ns() + 30'000'000'000ULL;
  for (std::size_t missing = pids.size(); missing > 0;) {
    for (const runtime::Event& event : ring.events) {
      if (event.ready.load(std::memory_order_acquire) == 0) continue;
      const auto found = std::find(pids.begin(), pids.end(), event.pid);
      if (found == pids.end()) continue;
      Recovery& place = at[static_cast<std::size_t>(found - pids.begin())];
      if (place.resumed_ns == 0) --missing;
      place = {event.detected_ns, event.agreed_ns, event.repaired_ns, event.resumed_ns};
    }
    if (missing > 0 && runtime::monotonic_ns() > give_up) {
      return fail("{} of {} dead were not recovered within 30 s", missing, pids.size());
    }
    if (missing > 0) ::usleep(200);
  }
  return at;
}

Result<void> Crowd::verify() const {
  const auto result = run_process({tool_file("mcsctl").string(), "verify", kDomain, "--directory",
                                   temp_.path().string(), "--no-bodies"});
  if (!result) return tl::unexpected(result.error());
  if (result->exit_code != 0) return fail("verify: {}{}", result->out, result->err);
  return {};
}

}  // namespace mcs::loadtest
