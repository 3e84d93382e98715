// SPDX-License-Identifier: Apache-2.0
// The recovery agent: one process per node that is always awake, so that a death is repaired within
// milliseconds even if no server process has anything to do. It is help, not a necessity: any
// instance that meets a dead one recovers it.
//
// It also ends whom others wait for in vain: who is stopped, or holds a lock, for longer than the hang
// limit while somebody asks. Who is traced, or may not be killed (another user, a pid namespace where
// it cannot be seen), is expelled instead. A stopped process that nobody needs is left alone.
//
// A second thread speaks for the node (node_watch.h): it beats, judges other nodes and takes part in
// views, and expels the instances of nodes that are not in the view. It beats only while the first one
// gets on.
//
// Instances tell the agent of themselves with a datagram to DOMAIN/agent.<node> that carries a pidfd
// (SCM_RIGHTS works across pid namespaces); the pidfd becomes readable when the process is gone.
// Those that did not are looked after through their liveness locks.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <string>

#include "libglobalcache/runtime/instance.h"
#include "libglobalcache/runtime/node_watch.h"

namespace mcs::runtime {

struct AgentHello {
  std::uint32_t slot;
  std::uint32_t incarnation;
};

/// Tell the agent of `node` about this instance. False: there is no agent to tell.
bool send_hello(const std::string& domain_path, std::uint32_t node, InstanceId id);

/// Start the agent program for a node: double fork, own session, no inherited descriptor. Thread-
/// and fork-safe. `program_fd` (from open_agent_program) may be -1: then the program is looked up.
bool start_agent(int program_fd, const std::string& directory, const std::string& name,
                 std::uint32_t node, std::uint32_t hang_limit_ms);
/// Kill the process of `id`, if it is of this pid namespace and neither traced nor running. False: it
/// goes on.
bool kill_instance(const Instance& viewer, InstanceId id);
/// Open the agent program for start_agent; to be done while the process may still read it.
int open_agent_program();

class Agent {
 public:
  struct Options {
    std::uint32_t hang_limit_ms = 5000;
    std::uint32_t linger_ms = 1500;  // how long to stay when nobody uses the domain
    // How long another node may be silent. 0: what the domain was made with, or else twice the hang
    // limit, where the kernel reports ends of processes anyway, and a second where each node has a
    // kernel of its own.
    std::uint32_t node_limit_ms = 0;
    std::uint32_t beat_ms = 50;
    std::function<void()> watch = {};  // called every 20 ms
    /// How many checks of a node's memory have failed so far; any thread. Empty: nobody counts.
    std::function<std::uint64_t(std::uint32_t node)> failed_checks = {};
  };
  /// `instance` is active; `tick` is called about every 100 ms.
  Agent(Instance& instance, std::string domain_path, Options options, std::function<void()> tick);
  ~Agent();
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  /// Until nobody uses the domain any more or *stop becomes true. False: the socket could not be made.
  bool run(const volatile bool* stop);

 private:
  /// A lock that somebody holds, since when this agent has seen it in the same hands for the same time.
  struct Hold {
    std::uint64_t ref = 0;
    std::uint64_t stamp = 0;
    std::uint64_t since_ns = 0;
  };
  struct Watched {
    std::uint32_t incarnation = 0;
    int pidfd = -1;
    std::uint32_t serial = 0;  // of the hello that brought the pidfd
    unsigned attempts = 0;     // to recover it since the kernel told of its exit
    std::uint64_t blocked_seen = 0;
    std::uint64_t heartbeat_seen = 0;
    std::uint64_t stalled_since_ns = 0;
    std::uint64_t blocked_last = 0;     // at the last look …
    std::uint64_t blocked_last_ns = 0;  // … and when it last went up; 0: it has not
    std::map<unsigned, Hold> holds;     // by record
  };
  void receive_hellos();
  void told_of_exit(std::uint32_t slot, std::uint32_t serial, std::uint64_t now);
  void look_around(std::uint64_t now);
  void forget_measurements();
  void judge(std::uint32_t slot, Watched& watched, std::uint64_t now);
  bool is_stopped(std::uint32_t slot, Watched& watched, std::uint64_t now);
  bool holds_too_long(std::uint32_t slot, Watched& watched, std::uint64_t now);
  void end(std::uint32_t slot, const Watched& watched);
  bool anybody_else() const;
  void forget(std::uint32_t slot);
  void watch_nodes(const std::atomic<bool>& stop);
  void take_effect(const NodeWatch::Change& change);
  bool has_ended(std::uint32_t node) const;
  std::uint64_t signs_of(std::uint32_t node) const;
  std::uint64_t hints_of(std::uint32_t node) const;

  Instance& instance_;
  std::string path_;
  std::string socket_path_;
  Options options_;
  std::function<void()> tick_;
  int socket_ = -1;
  int epoll_ = -1;
  std::map<std::uint32_t, Watched> watched_;
  std::uint32_t hellos_ = 0;
  std::atomic<std::uint64_t> awake_ns_{0};  // when the first thread last came around
};

}  // namespace mcs::runtime
