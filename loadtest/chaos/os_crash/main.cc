// SPDX-License-Identifier: Apache-2.0
// mcs-os-crash: three operating systems share one cache; their kernels crash, lose power, or stand
// still and go on, while they hold mutexes, leases and pins, and while checking clients ask all of
// them.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/inspect.h"
#include "libglobalcache/cache/verify.h"
#include "libglobalcache/runtime/view.h"
#include "loadtest/chaos/os_crash/guest.h"
#include "loadtest/client/load_client.h"
#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/temp_dir.h"

namespace {

using namespace mcs::loadtest;
using mcs::runtime::InstanceState;
using nlohmann::json;
using std::chrono::milliseconds;

constexpr std::uint32_t kNodes = 3;
constexpr milliseconds kExpelled{60'000};
constexpr milliseconds kBack{180'000};
// How long before its node fails a request may have been sent that fails with it, and how long
// after its node is back a client may still find a closed connection.
constexpr std::uint64_t kSlackNs = 2'000'000'000;

struct Options {
  unsigned faults = 30;
  double seconds = 0;
  unsigned zombie_every = 3;
  unsigned memory_mib = 32;  // per node
  unsigned node_limit_ms = 1500;
  unsigned hang_limit_ms = 15000;
  unsigned entries = 2000;
  double rate = 10;
  int nice = 10;
  std::uint64_t seed = 0;
  std::string kernel_dir;
  std::string json_file;
};

void say(const std::string& text) {
  std::fputs((text + "\n").c_str(), stdout);
  std::fflush(stdout);
}

json distribution(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double q) {
    return values.empty()
               ? 0
               : values[std::min(values.size() - 1,
                                 static_cast<std::size_t>(q * static_cast<double>(values.size())))];
  };
  return {{"p50", at(0.5)}, {"p99", at(0.99)}, {"max", at(1)}};
}

double since_ms(std::uint64_t begin_ns) {
  return static_cast<double>(monotonic_ns() - begin_ns) / 1e6;
}

class Campaign {
 public:
  explicit Campaign(const Options& options)
      : options_(options), random_(options.seed), shared_("/dev/shm", "mcs-os-crash") {}
  ~Campaign() { stop_clients(); }

  Result<void> prepare();
  void run();
  int finish();

 private:
  struct Outage {
    std::uint32_t node;
    std::uint64_t begin_ns;
    std::uint64_t end_ns;  // 0: not over
  };
  Result<void> make_site();
  Result<void> make_memory();
  void start_clients();
  void stop_clients();
  unsigned instances(std::uint32_t node, std::set<InstanceState> states) const;
  mcs::runtime::View view() { return views_->current().value_or(mcs::runtime::View{}); }
  std::uint64_t sealed() const;
  bool is_back(std::uint32_t node);
  bool is_out(std::uint32_t node);
  void begin_outage(std::uint32_t node) { outages_.push_back({node, monotonic_ns(), 0}); }
  void end_outage(std::uint32_t node);
  bool excused(std::uint32_t node, std::uint64_t sent_ns, std::uint64_t failed_ns) const;
  void take_hold(std::uint32_t node);
  bool survivors_get_on(std::set<std::uint32_t> down, bool mutex_is_free);
  bool crash(std::uint32_t node, bool panic);
  bool zombie(std::uint32_t node);
  bool bring_back(std::uint32_t node);
  bool fail(const std::string& what) {
    trouble_.push_back(what);
    say("  " + what);
    return false;
  }

  Options options_;
  std::mt19937_64 random_;
  TempDir directory_{"mcs-os-crash"};
  TempDir shared_;
  FileSet files_;
  std::unique_ptr<RequestStream> stream_;
  std::unique_ptr<mcs::gsm::Domain> domain_;
  std::unique_ptr<mcs::runtime::KernelLiveness> liveness_;
  std::unique_ptr<mcs::cache::View> inspect_;
  std::unique_ptr<mcs::runtime::Views> views_;
  std::vector<Guest> guests_;
  std::atomic<bool> stop_{false};
  std::vector<LiveCounters> live_{kNodes};
  std::vector<LoadReport> reports_{kNodes};
  std::vector<std::thread> clients_;
  std::vector<Outage> outages_;

  unsigned faults_ = 0;
  unsigned contained_ = 0;
  unsigned panics_ = 0;
  unsigned zombies_ = 0;
  unsigned held_mutexes_ = 0;
  unsigned held_leases_ = 0;
  unsigned held_pins_ = 0;
  double kept_ = 1;
  std::vector<double> recovery_ms_;
  std::vector<double> zombie_recovery_ms_;
  std::vector<double> rejoin_ms_;
  std::vector<std::string> trouble_;
};

Result<void> Campaign::make_site() {
  for (int i = 0; i < 120; ++i) {
    const std::size_t size = i % 20 == 1 ? 150'000 + random_() % 100'000 : 200 + random_() % 30'000;
    std::string body(size, '\0');
    std::generate(body.begin(), body.end(),
                  [&] { return static_cast<char>('a' + random_() % 26); });
    if (auto done = write_file(directory_.path() / fmt::format("site/f{}.txt", i), body); !done)
      return done;
  }
  if (auto added = files_.add_directory(directory_.path() / "site", "/"); !added) return added;
  stream_ = zipf_stream(0, files_.size(), 0.7, options_.seed);
  return {};
}

// This process looks at the memory as one more kernel would, but is no node.
Result<void> Campaign::make_memory() {
  std::uint64_t bytes = 1 << 20;
  while (bytes < std::uint64_t{kNodes} * options_.memory_mib << 20) bytes *= 2;
  const auto file = shared_.path() / "memory";
  if (auto made = write_file(file, ""); !made) return made;
  std::error_code error;
  std::filesystem::resize_file(file, bytes, error);
  mcs::gsm::DomainSpec spec;
  spec.name = kGuestDomain;
  spec.directory = shared_.path();
  spec.nodes = kNodes;
  spec.bytes_per_node = std::uint64_t{options_.memory_mib} << 20;
  spec.separate_kernels = true;
  spec.node_limit_ms = options_.node_limit_ms;
  spec.device = file;
  auto domain = mcs::api::create(spec);
  if (!domain) return mcs::loadtest::fail("{}", domain.error().message);
  domain_ = std::move(*domain);
  auto liveness = mcs::runtime::KernelLiveness::open(domain_->path());
  if (!liveness) return mcs::loadtest::fail("{}", liveness.error().message);
  liveness_ = std::move(*liveness);
  inspect_ = std::make_unique<mcs::cache::View>(*domain_);
  views_ = std::make_unique<mcs::runtime::Views>(*domain_);
  ImageOptions image_options{directory_.path() / "site", directory_.path(), options_.kernel_dir,
                             options_.hang_limit_ms};
  const auto image = make_image(image_options);
  if (!image) return tl::unexpected(image.error());
  for (std::uint32_t node = 0; node < kNodes; ++node) {
    guests_.emplace_back(GuestOptions{*image, file, bytes, directory_.path(), node, options_.nice});
  }
  return {};
}

Result<void> Campaign::prepare() {
  if (find_program("qemu-system-x86_64").empty() || find_program("cpio").empty() ||
      !std::filesystem::exists("/bin/busybox")) {
    return mcs::loadtest::fail(
        "qemu-system-x86, busybox-static or cpio is not installed: run it as "
        "'./mcs chaos os-crash', or install them with apt-get");
  }
  if (auto made = make_site(); !made) return made;
  if (auto made = make_memory(); !made) return made;
  const std::uint64_t begin = monotonic_ns();
  for (Guest& guest : guests_) {
    if (auto started = guest.start(); !started) return started;
  }
  for (std::uint32_t node = 0; node < kNodes; ++node) {
    if (!wait_until([&] { return is_back(node); }, kBack)) {
      return mcs::loadtest::fail(
          "node {} does not come up: members {:x}, {} active; its console ends: {}", node,
          view().members, instances(node, {InstanceState::kActive}), guests_[node].console_tail());
    }
  }
  say(fmt::format("three systems are up after {:.1f} s", since_ms(begin) / 1000));
  const auto filled =
      guests_[0].run(fmt::format("mcs-os-holder fill {} 0 {}", kGuestDomain, options_.entries));
  if (!filled || filled->find("filled") == std::string::npos) {
    return mcs::loadtest::fail("cannot fill the cache: {}",
                               filled ? *filled : filled.error().message);
  }
  start_clients();
  return {};
}

void Campaign::start_clients() {
  for (std::uint32_t node = 0; node < kNodes; ++node) {
    LoadOptions load;
    load.targets.push_back({fmt::format("nginx on {}", node), "127.0.0.1",
                            guests_[node].nginx_port(), "localhost", ""});
    load.targets.push_back({fmt::format("httpd on {}", node), "127.0.0.1",
                            guests_[node].httpd_port(), "localhost", ""});
    load.files = &files_;
    load.stream = stream_.get();
    load.connections = 2;
    load.rate = options_.rate;
    load.seed = options_.seed + node;
    load.timeout = milliseconds(30'000);
    clients_.emplace_back(
        [this, node, load] { reports_[node] = run_load(load, stop_, live_[node]); });
  }
}

void Campaign::stop_clients() {
  stop_ = true;
  for (std::thread& client : clients_) client.join();
  clients_.clear();
}

unsigned Campaign::instances(std::uint32_t node, std::set<InstanceState> states) const {
  unsigned n = 0;
  for (const auto& info : inspect_->instances(*liveness_)) {
    n += info.node == node && states.contains(info.state) ? 1U : 0U;
  }
  return n;
}

std::uint64_t Campaign::sealed() const {
  std::uint64_t n = 0;
  for (std::uint32_t node = 0; node < kNodes; ++node) {
    n += inspect_->usage(node).by_state[static_cast<unsigned>(mcs::cache::EntryState::kSealed)];
  }
  return n;
}

// A member, with an agent, a worker of nginx and a child of httpd, and nobody of the one before it
// left.
bool Campaign::is_back(std::uint32_t node) {
  return view().has_member(node) && instances(node, {InstanceState::kActive}) >= 3 &&
         instances(node, {InstanceState::kExpelled, InstanceState::kDead}) == 0 &&
         guests_[node].serves();
}

bool Campaign::is_out(std::uint32_t node) {
  return !view().has_member(node) && instances(node, {InstanceState::kActive}) == 0;
}

void Campaign::end_outage(std::uint32_t node) {
  for (Outage& outage : outages_) {
    if (outage.node == node && outage.end_ns == 0) outage.end_ns = monotonic_ns();
  }
}

bool Campaign::excused(std::uint32_t node, std::uint64_t sent_ns, std::uint64_t failed_ns) const {
  return std::any_of(outages_.begin(), outages_.end(), [&](const Outage& outage) {
    return outage.node == node && failed_ns + 1'000'000 >= outage.begin_ns &&
           (outage.end_ns == 0 || sent_ns <= outage.end_ns + kSlackNs);
  });
}

void Campaign::take_hold(std::uint32_t node) {
  const auto said = guests_[node].run(
      fmt::format("mcs-os-holder hold {} {} >/tmp/held 2>&1 & for i in $(seq 1000); do "
                  "[ -s /tmp/held ] && break; usleep 50000; done; cat /tmp/held",
                  kGuestDomain, node));
  unsigned mutex = 0;
  unsigned lease = 0;
  unsigned pins = 0;
  if (!said || std::sscanf(said->c_str(), "holding %u %u %u", &mutex, &lease, &pins) != 3) {
    fail(fmt::format("node {} holds nothing: {}", node, said ? *said : said.error().message));
    return;
  }
  held_mutexes_ += mutex;
  held_leases_ += lease;
  held_pins_ += pins;
}

// Whoever is left asks for the mutex, and hears in time that it is held, or gets it and finds what
// it guards in order.
bool Campaign::survivors_get_on(std::set<std::uint32_t> down, bool mutex_is_free) {
  bool well = true;
  for (std::uint32_t node = 0; node < kNodes; ++node) {
    if (down.contains(node)) continue;
    const auto said =
        guests_[node].run(fmt::format("mcs-os-holder probe {} {} 2>&1", kGuestDomain, node));
    const std::string answer = said ? *said : said.error().message;
    const bool expected =
        answer.starts_with("taken") || (!mutex_is_free && answer.starts_with("busy"));
    if (!expected) well = fail(fmt::format("node {} cannot go on: {}", node, answer));
  }
  return well;
}

bool Campaign::crash(std::uint32_t node, bool panic) {
  take_hold(node);
  const std::uint64_t before = sealed();
  begin_outage(node);
  const std::uint64_t begin = monotonic_ns();
  if (panic) {
    guests_[node].panic();
    ++panics_;
  } else {
    guests_[node].cut();
  }
  if (!wait_until([&] { return is_out(node); }, kExpelled)) {
    return fail(fmt::format("node {} is not expelled: members {:x}, {} active", node,
                            view().members, instances(node, {InstanceState::kActive})));
  }
  recovery_ms_.push_back(since_ms(begin));
  const std::uint64_t after = sealed();
  if (before != 0)
    kept_ = std::min(kept_, static_cast<double>(after) / static_cast<double>(before));
  return true;
}

bool Campaign::zombie(std::uint32_t node) {
  take_hold(node);
  begin_outage(node);
  const std::uint64_t begin = monotonic_ns();
  guests_[node].stop();
  ++zombies_;
  bool well = wait_until([&] { return is_out(node); }, kExpelled);
  if (!well) fail(fmt::format("zombie {} is not expelled: members {:x}", node, view().members));
  if (well) zombie_recovery_ms_.push_back(since_ms(begin));
  std::this_thread::sleep_for(milliseconds(random_() % 3000));
  if (well && !is_out(node)) well = fail(fmt::format("node {} came back in its sleep", node));
  guests_[node].go_on();
  // What it holds is its own again until its process ends.
  if (const auto said = guests_[node].run("killall -9 mcs-os-holder"); !said) {
    well = fail(said.error().message);
  }
  if (!wait_until([&] { return is_back(node); }, kBack)) {
    well = fail(fmt::format("zombie {} is not admitted again: members {:x}, {} expelled", node,
                            view().members, instances(node, {InstanceState::kExpelled})));
  }
  end_outage(node);
  return well;
}

bool Campaign::bring_back(std::uint32_t node) {
  const std::uint64_t begin = monotonic_ns();
  if (auto started = guests_[node].start(); !started) return fail(started.error().message);
  if (!wait_until([&] { return is_back(node); }, kBack)) {
    return fail(
        fmt::format("node {} does not rejoin: members {:x}, {} active, {} expelled or dead; {}",
                    node, view().members, instances(node, {InstanceState::kActive}),
                    instances(node, {InstanceState::kExpelled, InstanceState::kDead}),
                    guests_[node].console_tail()));
  }
  end_outage(node);
  rejoin_ms_.push_back(since_ms(begin));
  return true;
}

void Campaign::run() {
  const std::uint64_t begin = monotonic_ns();
  for (unsigned fault = 0; fault < options_.faults && trouble_.size() < 5; ++fault) {
    if (options_.seconds > 0 && since_ms(begin) > options_.seconds * 1000) break;
    std::this_thread::sleep_for(milliseconds(random_() % 1000));
    const auto victim = static_cast<std::uint32_t>(random_() % kNodes);
    const auto other = static_cast<std::uint32_t>((victim + 1 + random_() % 2) % kNodes);
    ++faults_;
    bool contained = crash(victim, fault % 2 == 0);
    contained = survivors_get_on({victim}, false) && contained;
    if (options_.zombie_every != 0 && fault % options_.zombie_every == 1) {
      contained = zombie(other) && contained;
    }
    contained = bring_back(victim) && contained;
    contained = survivors_get_on({}, true) && contained;
    contained_ += contained ? 1U : 0U;
    say(fmt::format(
        "fault {}: node {} {}: out after {:.0f} ms, back after {:.1f} s{}", fault, victim,
        fault % 2 == 0 ? "panicked" : "was cut off", recovery_ms_.empty() ? 0 : recovery_ms_.back(),
        rejoin_ms_.empty() ? 0 : rejoin_ms_.back() / 1000, contained ? "" : ", NOT CONTAINED"));
  }
}

int Campaign::finish() {
  stop_clients();
  std::uint64_t served = 0;
  std::uint64_t wrong = 0;
  std::uint64_t hangs = 0;
  std::uint64_t on_survivors = 0;
  std::uint64_t on_victims = 0;
  for (std::uint32_t node = 0; node < kNodes; ++node) {
    const TargetReport total = reports_[node].total();
    served += total.requests - total.failed();
    wrong += total.count(Failure::kWrongBody);
    for (const FailureRecord& failure : reports_[node].failures) {
      const std::uint64_t sent = failure.sent_ns == 0 ? failure.opened_ns : failure.sent_ns;
      if (failure.failure != Failure::kWrongBody && excused(node, sent, failure.failed_ns)) {
        ++on_victims;
        continue;
      }
      ++on_survivors;
      hangs += failure.failure == Failure::kTimeout ? 1U : 0U;
      say(fmt::format("  node {}: {} {} after {} ms: {}", node, name_of(failure.failure),
                      files_[failure.file].url_path, (failure.failed_ns - sent) / 1000000,
                      failure.detail));
    }
  }
  std::vector<std::string> crashes;
  for (Guest& guest : guests_) {
    static_cast<void>(guest.run("killall -QUIT nginx; killall -WINCH apache2"));
    for (const std::string& line : guest.crashes()) crashes.push_back(line);
  }
  for (const std::string& line : crashes) say("  " + line);
  const bool left =
      wait_until([&] { return inspect_->instances(*liveness_).empty(); }, milliseconds(60'000));
  if (!left) fail("the servers do not leave");
  for (Guest& guest : guests_) guest.cut();
  const mcs::cache::VerifyReport verified = mcs::cache::verify(*domain_, *liveness_, {});
  for (const auto& problem : verified.problems) {
    say(fmt::format("  verify: {}: {}: {}", problem.kind, problem.where, problem.detail));
  }
  const json result = {
      {"campaign", "os-crash"},
      {"seed", options_.seed},
      {"nodes", kNodes},
      {"node_limit_ms", options_.node_limit_ms},
      {"hang_limit_ms", options_.hang_limit_ms},
      {"faults", faults_},
      {"contained", contained_},
      {"kernel_panics", panics_},
      {"zombies", zombies_},
      {"held", {{"mutexes", held_mutexes_}, {"leases", held_leases_}, {"pins", held_pins_}}},
      {"wrong_bodies", wrong},
      {"survivor_crashes", crashes.size()},
      {"hangs", hangs},
      {"served_requests", served},
      {"failed_requests_on_survivors", on_survivors},
      {"failed_requests_on_victims", on_victims},
      {"recovery_ms", distribution(recovery_ms_)},
      {"zombie_recovery_ms", distribution(zombie_recovery_ms_)},
      {"rejoin_ms", distribution(rejoin_ms_)},
      {"entries_kept_ratio", kept_},
      {"leaked_bytes", verified.leaked_bytes},
      {"verify", verified.ok ? "ok" : "damaged"},
      {"trouble", trouble_}};
  say(result.dump());
  if (!options_.json_file.empty()) {
    if (auto saved = write_file(options_.json_file, result.dump(2) + "\n"); !saved) {
      say("mcs-os-crash: " + saved.error().message);
      return 2;
    }
  }
  const bool well = contained_ == faults_ && faults_ > 0 && wrong == 0 && crashes.empty() &&
                    hangs == 0 && on_survivors == 0 && served > 0 && verified.ok &&
                    trouble_.empty() && verified.leaked_bytes == 0;
  return well ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Crashes, cuts off and stops operating systems (QEMU guests, emulated) that share one cache, "
      "while "
      "nginx and httpd on all of them serve clients that check every byte. The exit status is 0 if "
      "all went "
      "well, 1 if not, 2 if nothing was tried."};
  Options options;
  options.kernel_dir = (tool_file("gsm-emu").parent_path().parent_path() / "guest-kernel").string();
  app.add_option("--faults", options.faults, "crashes")->capture_default_str();
  app.add_option("--seconds", options.seconds,
                 "begin no further crash after this time; 0: no limit")
      ->capture_default_str();
  app.add_option(
         "--zombie-every", options.zombie_every,
         "in every so many crashes another system stands still meanwhile, and goes on; 0: never")
      ->capture_default_str();
  app.add_option("--memory", options.memory_mib, "of each node, MiB")->capture_default_str();
  app.add_option("--node-limit-ms", options.node_limit_ms, "how long a heartbeat may stand still")
      ->capture_default_str();
  app.add_option("--hang-limit-ms", options.hang_limit_ms, "of processes")->capture_default_str();
  app.add_option("--entries", options.entries, "stored before it begins")->capture_default_str();
  app.add_option("--rate", options.rate, "requests per second to each node")->capture_default_str();
  app.add_option("--nice", options.nice, "of the guests")->capture_default_str();
  app.add_option("--seed", options.seed, "0 draws one")->capture_default_str();
  app.add_option("--kernel-dir", options.kernel_dir, "where the guests' kernel is kept")
      ->capture_default_str();
  app.add_option("--json", options.json_file, "write the results to FILE");
  CLI11_PARSE(app, argc, argv);
  if (options.seed == 0) options.seed = std::random_device{}();
  // Whose clients' connections break must not end us.
  ::signal(SIGPIPE, SIG_IGN);
  say(fmt::format("seed {}", options.seed));
  Campaign campaign(options);
  if (auto prepared = campaign.prepare(); !prepared) {
    say("mcs-os-crash: " + prepared.error().message);
    return 2;
  }
  campaign.run();
  return campaign.finish();
}
