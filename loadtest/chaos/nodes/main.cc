// SPDX-License-Identifier: Apache-2.0
// mcs-nodes: nodes of a multicomputer with nginx and httpd on them crash, hang, wake up, join and leave,
// while checking clients ask all of them all the time.
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <random>

#include "loadtest/chaos/nodes/cluster.h"

namespace {

using namespace mcs::loadtest;
using mcs::runtime::InstanceState;
using nlohmann::json;
using std::chrono::milliseconds;

constexpr milliseconds kContained{10'000};

struct Options {
  ClusterOptions cluster;
  unsigned faults = 20;
  double seconds = 60;
  unsigned load = 16;
  unsigned stall_ms = 300;
  bool without_memory = false;
  std::string json_file;
};

void say(const std::string& text) {
  std::fputs((text + "\n").c_str(), stdout);
  std::fflush(stdout);
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(q * static_cast<double>(values.size())))];
}

// What a campaign counts besides what the clients saw.
struct Tally {
  unsigned faults = 0;
  unsigned contained = 0;
  std::vector<double> recovery_ms;
  double kept = 1;
  std::vector<std::string> trouble;

  void fail(const std::string& what) {
    trouble.push_back(what);
    say("  " + what);
  }
};

std::uint16_t bit(std::uint32_t node) { return static_cast<std::uint16_t>(1U << node); }

std::uint16_t everybody(const Cluster& cluster) {
  return static_cast<std::uint16_t>((1U << cluster.nodes()) - 1);
}

bool wait_for_members(Cluster& cluster, std::uint16_t members) {
  return wait_until([&] { return cluster.view().members == members; }, kContained);
}

// Back, admitted, and its processes active.
bool wait_for_return(Cluster& cluster, std::uint32_t node) {
  return wait_until(
      [&] {
        return cluster.view().has_member(node) && cluster.has_agent(node) &&
               cluster.instances(node, {InstanceState::kActive}) >= 2 &&
               cluster.instances(node, {InstanceState::kExpelled, InstanceState::kDead}) == 0;
      },
      kContained);
}

bool bring_back(Cluster& cluster, std::uint32_t node, Tally& tally) {
  if (auto started = cluster.start_node(node); !started) {
    tally.fail(fmt::format("node {} cannot be started again: {}", node, started.error().message));
    return false;
  }
  const bool back = wait_for_return(cluster, node);
  if (!back) {
    tally.fail(fmt::format("node {} is not admitted again: members {:x}, {} active, {} expelled", node,
                           cluster.view().members, cluster.instances(node, {InstanceState::kActive}),
                           cluster.instances(node, {InstanceState::kExpelled})));
  }
  cluster.end_outage(node);
  return back;
}

int report(const char* name, const Options& options, Cluster& cluster, Tally& tally) {
  const ClusterReport seen = cluster.finish();
  const bool verified = seen.verify.value("ok", false);
  const json result = {
      {"campaign", name},
      {"seed", options.cluster.seed},
      {"nodes", options.cluster.nodes},
      {"separate_kernels", options.cluster.separate_kernels},
      {"faults", tally.faults},
      {"contained", tally.contained},
      {"wrong_bodies", seen.wrong_bodies},
      {"survivor_crashes", seen.crashes.size()},
      {"hangs", seen.hangs},
      {"served_requests", seen.served},
      {"failed_requests_on_survivors", seen.failed_on_survivors},
      {"failed_requests_on_victims", seen.failed_on_victims},
      {"aborted_responses", seen.aborted},
      {"recovery_ms",
       {{"p50", quantile(tally.recovery_ms, 0.5)},
        {"p99", quantile(tally.recovery_ms, 0.99)},
        {"max", quantile(tally.recovery_ms, 1)}}},
      {"entries_kept_ratio", tally.kept},
      {"leaked_bytes", seen.verify.value("leaked_bytes", 0ULL)},
      {"verify", verified ? "ok" : "damaged"},
      {"failures", seen.failures},
      {"trouble", tally.trouble}};
  for (const std::string& line : seen.failures) say("  " + line);
  for (const std::string& line : seen.crashes) say("  " + line);
  if (!verified) say("  verify: " + seen.verify.dump().substr(0, 2000));
  say(fmt::format("{}: seed {}, {} faults, {} contained, {} wrong bodies, {} crashes, {} hangs, {} served, "
                  "{} failed on survivors ({} on victims, {} cut at a loss), recovery p50 {:.0f} p99 {:.0f} "
                  "max {:.0f} ms, "
                  "kept {:.4f}, {} bytes leaked, verify {}",
                  name, options.cluster.seed, tally.faults, tally.contained, seen.wrong_bodies,
                  seen.crashes.size(), seen.hangs, seen.served, seen.failed_on_survivors,
                  seen.failed_on_victims, seen.aborted, quantile(tally.recovery_ms, 0.5),
                  quantile(tally.recovery_ms, 0.99), quantile(tally.recovery_ms, 1), tally.kept,
                  seen.verify.value("leaked_bytes", 0ULL), verified ? "ok" : "damaged"));
  if (!options.json_file.empty()) {
    if (auto saved = write_file(options.json_file, result.dump(2) + "\n"); !saved) {
      say("mcs-nodes: " + saved.error().message);
      return 2;
    }
  }
  const bool well = tally.contained == tally.faults && seen.wrong_bodies == 0 &&
                    seen.crashes.empty() && seen.hangs == 0 && seen.failed_on_survivors == 0 &&
                    seen.served > 0 && verified && tally.trouble.empty() &&
                    seen.verify.value("leaked_bytes", 1ULL) == 0;
  return well ? 0 : 1;
}

// Everything of a node that was alive is taken out of the way: recovered where the kernel says that it is
// dead, expelled where only its silence does.
bool settled(Cluster& cluster, std::uint32_t node) {
  const std::set<InstanceState> open = {InstanceState::kJoining, InstanceState::kActive,
                                        InstanceState::kLeaving, InstanceState::kDead};
  return cluster.instances(node, open) == 0 ||
         (cluster.inspect().domain().separate_kernels() &&
          cluster.instances(node, {InstanceState::kActive}) == 0);
}

int node_crash(const Options& options) {
  auto started = Cluster::start(options.cluster);
  if (!started) return say("mcs-nodes: " + started.error().message), 2;
  Cluster& cluster = **started;
  std::mt19937_64 random(options.cluster.seed);
  Tally tally;
  if (!wait_for_members(cluster, everybody(cluster))) tally.fail("the nodes are not all there");
  for (unsigned fault = 0; fault < options.faults; ++fault) {
    std::set<std::uint32_t> victims{static_cast<std::uint32_t>(random() % cluster.nodes())};
    if (cluster.nodes() > 2 && random() % 6 == 0) {
      victims.insert(static_cast<std::uint32_t>(random() % cluster.nodes()));
    }
    std::this_thread::sleep_for(milliseconds(20 + random() % 200));
    std::uint16_t gone = 0;
    for (const std::uint32_t node : victims) {
      gone = static_cast<std::uint16_t>(gone | bit(node));
      cluster.begin_outage(node);
    }
    const auto left = static_cast<std::uint16_t>(everybody(cluster) & ~gone);
    const std::uint64_t before = cluster.sealed_entries(options.without_memory ? left : everybody(cluster));
    const std::uint64_t begin = monotonic_ns();
    for (const std::uint32_t node : victims) {
      cluster.kill_node(node);
      if (options.without_memory) cluster.lose_memory(node);
    }
    ++tally.faults;
    std::uint64_t whole = 0;
    bool contained = wait_until(
        [&] {
          const mcs::runtime::View view = cluster.view();
          if ((view.members & gone) != 0 || (options.without_memory && (view.segments & gone) != 0)) {
            return false;
          }
          // Of what lay on lost memory nothing is left to be looked at.
          if (options.without_memory ? !cluster.index_is_whole(gone)
                                     : !std::all_of(victims.begin(), victims.end(), [&](std::uint32_t node) {
                                         return settled(cluster, node);
                                       })) {
            return false;
          }
          if (whole == 0) whole = monotonic_ns();
          return cluster.resumed_since(begin, gone) != 0;
        },
        kContained);
    if (!contained) {
      tally.fail(fmt::format("fault {}: nodes {:x} are not out of the way: members {:x}, segments {:x}", fault,
                             gone, cluster.view().members, cluster.view().segments));
    } else {
      std::this_thread::sleep_for(milliseconds(30));
      const std::uint64_t end =
          std::max(cluster.resumed_since(begin, gone), options.without_memory ? whole : 0);
      tally.recovery_ms.push_back(static_cast<double>(end - begin) / 1e6);
      const std::uint64_t after = cluster.sealed_entries(options.without_memory ? left : everybody(cluster));
      if (before != 0) tally.kept = std::min(tally.kept, static_cast<double>(after) / static_cast<double>(before));
    }
    for (const std::uint32_t node : victims) {
      if (options.without_memory) {
        if (auto restored = cluster.restore_memory(node); !restored) {
          tally.fail(restored.error().message);
          contained = false;
        }
      }
      contained = bring_back(cluster, node, tally) && contained;
      if (!options.without_memory) continue;
      if (auto filled = cluster.fill(node); !filled) tally.fail(filled.error().message);
    }
    tally.contained += contained ? 1U : 0U;
    if ((fault + 1) % 10 == 0) {
      say(fmt::format("{} faults, recovery p50 {:.0f} ms, max {:.0f} ms", fault + 1,
                      quantile(tally.recovery_ms, 0.5), quantile(tally.recovery_ms, 1)));
    }
    if (!contained && tally.trouble.size() > 5) break;
  }
  return report("node-crash", options, cluster, tally);
}

int zombie(const Options& options) {
  auto started = Cluster::start(options.cluster);
  if (!started) return say("mcs-nodes: " + started.error().message), 2;
  Cluster& cluster = **started;
  std::mt19937_64 random(options.cluster.seed);
  Tally tally;
  for (unsigned fault = 0; fault < options.faults; ++fault) {
    const auto node = static_cast<std::uint32_t>(random() % cluster.nodes());
    std::this_thread::sleep_for(milliseconds(20 + random() % 200));
    cluster.begin_outage(node);
    const std::uint64_t before = cluster.sealed_entries(everybody(cluster));
    const std::uint64_t begin = cluster.freeze_node(node);
    ++tally.faults;
    const auto left = static_cast<std::uint16_t>(everybody(cluster) & ~bit(node));
    const auto asleep = [&] {
      return cluster.view().members == left &&
             cluster.instances(node, {InstanceState::kActive, InstanceState::kJoining}) == 0 &&
             cluster.instances(node, {InstanceState::kExpelled}) > 0;
    };
    bool contained = wait_until([&] { return asleep() && cluster.resumed_since(begin, bit(node)) != 0; },
                                kContained);
    if (!contained) {
      tally.fail(fmt::format("fault {}: node {} is not expelled: members {:x}", fault, node,
                             cluster.view().members));
    } else {
      tally.recovery_ms.push_back(
          static_cast<double>(cluster.resumed_since(begin, bit(node)) - begin) / 1e6);
    }
    std::this_thread::sleep_for(milliseconds(random() % 300));
    if (contained && !asleep()) {
      tally.fail(fmt::format("fault {}: node {} came back in its sleep", fault, node));
      contained = false;
    }
    cluster.thaw_node(node);
    if (!wait_for_return(cluster, node)) {
      tally.fail(fmt::format("fault {}: node {} is not admitted again: members {:x}, {} expelled", fault, node,
                             cluster.view().members, cluster.instances(node, {InstanceState::kExpelled})));
      contained = false;
    }
    const std::uint64_t after = cluster.sealed_entries(everybody(cluster));
    if (before != 0) tally.kept = std::min(tally.kept, static_cast<double>(after) / static_cast<double>(before));
    cluster.end_outage(node);
    tally.contained += contained ? 1U : 0U;
    if ((fault + 1) % 10 == 0) say(fmt::format("{} faults", fault + 1));
    if (!contained && tally.trouble.size() > 5) break;
  }
  return report("zombie", options, cluster, tally);
}

int churn(const Options& options) {
  auto started = Cluster::start(options.cluster);
  if (!started) return say("mcs-nodes: " + started.error().message), 2;
  Cluster& cluster = **started;
  std::mt19937_64 random(options.cluster.seed);
  Tally tally;
  const std::uint64_t end = monotonic_ns() + static_cast<std::uint64_t>(options.seconds * 1e9);
  while (monotonic_ns() < end && tally.trouble.size() < 5) {
    const auto node = static_cast<std::uint32_t>(random() % cluster.nodes());
    std::this_thread::sleep_for(milliseconds(random() % 300));
    cluster.begin_outage(node);
    ++tally.faults;
    const unsigned kind = random() % 4;
    if (kind == 0) {
      cluster.kill_node(node);
    } else if (kind == 1) {
      cluster.freeze_node(node);
      std::this_thread::sleep_for(milliseconds(random() % 2500));
      cluster.thaw_node(node);
    } else if (auto stopped = cluster.stop_node(node); !stopped) {
      tally.fail(stopped.error().message);
    }
    // Sometimes long enough for the agent to go as well, or for the others to expel it.
    std::this_thread::sleep_for(milliseconds(random() % 2 == 0 ? random() % 100 : random() % 2500));
    bool contained = true;
    if (kind == 1) {
      contained = wait_for_return(cluster, node);
      if (!contained) tally.fail(fmt::format("node {} does not come back", node));
      cluster.end_outage(node);
    } else {
      contained = bring_back(cluster, node, tally);
    }
    tally.contained += contained ? 1U : 0U;
  }
  return report("churn", options, cluster, tally);
}

int false_expulsions(const Options& options) {
  auto started = Cluster::start(options.cluster);
  if (!started) return say("mcs-nodes: " + started.error().message), 2;
  Cluster& cluster = **started;
  std::mt19937_64 random(options.cluster.seed);
  Tally tally;
  std::vector<pid_t> burners;
  for (unsigned i = 0; i < options.load; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      volatile std::uint64_t n = 0;
      for (;;) n = n + 1;
    }
    burners.push_back(pid);
  }
  const std::uint32_t first = cluster.view().generation;
  const std::uint64_t begin = monotonic_ns();
  const std::uint64_t end = begin + static_cast<std::uint64_t>(options.seconds * 1e9);
  while (monotonic_ns() < end) {
    const auto node = static_cast<std::uint32_t>(random() % cluster.nodes());
    const std::vector<pid_t> all = cluster.processes(node);
    if (all.empty()) continue;
    // One process, or the whole node.
    std::vector<pid_t> chosen = all;
    if (random() % 3 != 0) chosen = {all[random() % all.size()]};
    for (const pid_t pid : chosen) ::kill(pid, SIGSTOP);
    std::this_thread::sleep_for(milliseconds(options.stall_ms));
    for (const pid_t pid : chosen) ::kill(pid, SIGCONT);
    ++tally.faults;
    std::this_thread::sleep_for(milliseconds(random() % options.stall_ms));
  }
  for (const pid_t pid : burners) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  unsigned expelled = 0;
  for (const auto& event : cluster.inspect().history()) {
    if (event.resumed_ns < begin) continue;
    ++expelled;
    tally.fail(fmt::format("{} {} on node {}: {}", mcs::cache::event_kind_name(event.kind), event.server,
                           event.node, event.cause));
  }
  if (cluster.view().generation != first) tally.fail("the view has changed");
  tally.contained = tally.faults - std::min(tally.faults, expelled);
  say(fmt::format("{} stalls of {} ms at load {} in {:.0f} s: {} false expulsions", tally.faults,
                  options.stall_ms, options.load, options.seconds, expelled));
  return report("false-expulsions", options, cluster, tally);
}

CLI::App* add(CLI::App& app, const char* name, const char* what, Options& options) {
  CLI::App* command = app.add_subcommand(name, what);
  command->add_option("--nodes", options.cluster.nodes)->check(CLI::Range(2, 8))->capture_default_str();
  command->add_flag("--separate-kernels,!--one-kernel", options.cluster.separate_kernels,
                    "nodes judge each other by heartbeats only, or also by what the kernel says");
  command->add_option("--memory", options.cluster.memory, "of each node")->capture_default_str();
  command->add_option("--entries", options.cluster.entries, "stored before it begins")
      ->capture_default_str();
  command->add_option("--rate", options.cluster.rate, "requests per second to each node")
      ->capture_default_str();
  command->add_option("--hang-limit-ms", options.cluster.hang_limit_ms)->capture_default_str();
  command->add_option("--seed", options.cluster.seed, "0 draws one")->capture_default_str();
  command->add_option("--json", options.json_file, "write the results to FILE");
  return command;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Makes nodes fail while nginx and httpd on all nodes serve clients that check every byte. The exit "
      "status is 0 if all went well, 1 if not, 2 if nothing was tried."};
  app.require_subcommand(1);
  Options options;
  options.cluster.seed = 0;
  CLI::App* crash = add(app, "node-crash", "all processes of a node, or two, end at once", options);
  crash->add_option("--faults", options.faults)->capture_default_str();
  crash->add_flag("--without-memory", options.without_memory, "their memory is lost with them");
  CLI::App* frozen = add(app, "zombie", "a node is frozen, expelled, and goes on", options);
  frozen->add_option("--faults", options.faults)->capture_default_str();
  CLI::App* coming = add(app, "churn", "nodes and servers come and go", options);
  coming->add_option("--seconds", options.seconds)->capture_default_str();
  CLI::App* stalls = add(app, "false-expulsions", "stalls that must lead to nothing", options);
  stalls->add_option("--seconds", options.seconds)->capture_default_str();
  stalls->add_option("--load", options.load, "busy processes besides")->capture_default_str();
  stalls->add_option("--stall-ms", options.stall_ms)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (options.cluster.seed == 0) options.cluster.seed = std::random_device{}();
  // Whose clients' connections break must not end us.
  ::signal(SIGPIPE, SIG_IGN);
  say(fmt::format("seed {}", options.cluster.seed));
  if (crash->parsed()) return node_crash(options);
  if (frozen->parsed()) return zombie(options);
  if (coming->parsed()) return churn(options);
  return false_expulsions(options);
}
