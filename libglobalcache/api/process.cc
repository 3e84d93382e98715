// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/api/process.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>

#include "libglobalcache/api/policy.h"
#include "libglobalcache/api/purge.h"
#include "libglobalcache/runtime/agent.h"

namespace mcs::api {
namespace {

// Opened where a server's master may still read it (its workers may not), closed at unload.
struct AgentProgram {
  std::atomic<int> fd{-1};
  ~AgentProgram() {
    const int open = fd.exchange(-1);
    if (open >= 0) ::close(open);
  }
};
AgentProgram agent_program;

void log_events(mcs_process& process) {
  process.events_seen.resize(process.domain->node_count());
  for (std::uint32_t node = 0; node < process.domain->node_count(); ++node) {
    gsm::Segment& segment = process.domain->segment(node);
    if (segment.lost()) continue;
    runtime::EventRing* ring = &process.instance->events(node);
    const std::uint64_t next = ring->next.load(std::memory_order_acquire);
    auto& [seen, unready] = process.events_seen[node];
    if (next < seen) seen = 0;  // the node's segment came back as another one
    // Also from before we joined: whoever could have printed it may be the one who died.
    if (next - seen > runtime::kEvents) seen = next - runtime::kEvents;
    for (; seen < next; ++seen) {
      runtime::Event& slot = ring->events[seen % runtime::kEvents];
      if (slot.ready.load(std::memory_order_acquire) != seen + 1) {
        if (unready == seen + 1) continue;  // since the last tick: its writer has died
        unready = seen + 1;
        break;
      }
      // One line per recovery in the whole domain: whoever sets `logged` prints it.
      std::uint32_t not_yet = 0;
      if (!std::atomic_ref<std::uint32_t>(slot.logged).compare_exchange_strong(not_yet, 1)) continue;
      runtime::Event event;
      std::memcpy(reinterpret_cast<char*>(&event) + sizeof(runtime::Word),
                  reinterpret_cast<const char*>(&slot) + sizeof(runtime::Word),
                  sizeof event - sizeof(runtime::Word));
      if (event.sum != runtime::event_sum(event)) continue;  // damaged
      const std::string server(event.server, ::strnlen(event.server, sizeof event.server));
      const std::string cause(event.cause, ::strnlen(event.cause, sizeof event.cause));
      if (event.kind == static_cast<std::uint32_t>(runtime::EventKind::kDamageRepaired)) {
        process.log(2, fmt::format("repaired damage in domain {} ({}, {} places) in {:.3f} ms",
                                   process.domain->name(), cause, event.retired,
                                   static_cast<double>(event.resumed_ns - event.detected_ns) / 1e6));
        continue;
      }
      if (event.kind == static_cast<std::uint32_t>(runtime::EventKind::kExpelled)) {
        process.log(2, fmt::format(
            "expelled {} pid {} on node {} of domain {} ({}): {} fills passed on; what it holds stays "
            "locked until it goes on or ends",
            server, event.pid, event.node, process.domain->name(), cause, event.fills));
        continue;
      }
      if (event.kind == static_cast<std::uint32_t>(runtime::EventKind::kViewChanged)) {
        process.log(2, fmt::format("node {} of domain {}: {}; {}, {:.3f} ms", event.node,
                                   process.domain->name(), cause, server,
                                   static_cast<double>(event.resumed_ns - event.detected_ns) / 1e6));
        continue;
      }
      process.log(2, fmt::format(
          "recovered {} pid {} on node {} of domain {} ({}) in {:.3f} ms: {} locks, {} pins, "
          "{} fills, {} retired entries given back",
          server, event.pid, event.node, process.domain->name(), cause,
          static_cast<double>(event.resumed_ns - event.detected_ns) / 1e6, event.locks, event.pins,
          event.fills, event.retired));
    }
  }
}

// Memory that only this process cannot map: said when it begins, and when it is over.
void tell_of_trouble(mcs_process& process) {
  const std::string why = process.cache->memory().trouble();
  if (why == process.trouble) return;
  process.trouble = why;
  const std::string& name = process.domain->name();
  process.log(why.empty() ? 2 : 0,
              why.empty() ? fmt::format("this process reaches all memory of domain {} again", name)
                          : fmt::format("this process stores nothing in domain {} until it reaches all "
                                        "of its memory: {}",
                                        name, why));
}

// For longer than the hang limit, and in several looks: this process may have been stopped too.
bool agent_hangs(mcs_process& process, runtime::InstanceId agent) {
  constexpr unsigned kLooks = 5;
  const runtime::Instance& instance = *process.instance;
  if (!agent.valid() || agent.slot() >= instance.slot_count()) return false;
  const std::uint64_t heartbeat =
      instance.slot(agent.slot()).heartbeat.load(std::memory_order_relaxed);
  const std::uint64_t now = runtime::monotonic_ns();
  auto& seen = process.agent_seen;
  if (seen.agent != agent.value || seen.heartbeat != heartbeat) {
    seen = {agent.value, heartbeat, now, 0};
  }
  return ++seen.looks > kLooks && now - seen.since_ns > process.config.hang_limit_ms * 1000000ULL;
}

void look_after_agent(mcs_process& process) {
  const std::uint32_t node = process.config.node;
  if (!process.liveness->held(runtime::kAgentByte + node)) {
    process.known_agent = 0;
    // Where it cannot run, a program that ends at once is not started at every tick for ever.
    const std::uint64_t now = runtime::monotonic_ns();
    if (process.agent_starts == 0 || now >= process.next_agent_start_ns) {
      const std::uint64_t pause_ms = std::min<std::uint64_t>(250ULL << process.agent_starts, 30000);
      process.agent_starts = std::min(process.agent_starts + 1, 10U);
      process.next_agent_start_ns = now + pause_ms * 1000000;
      runtime::start_agent(agent_program.fd.load(), process.config.spec.directory,
                           process.config.spec.name, node, process.config.hang_limit_ms);
    }
    // Until it is up, and also if it cannot be started.
    process.instance->recover_all("survivor's tick");
    process.cache->recount();
    return;
  }
  process.agent_starts = 0;
  const std::uint64_t agent = process.instance->events(node).agent.load(std::memory_order_acquire);
  if (agent_hangs(process, {agent})) {
    // Its exit makes room for another one.
    runtime::kill_instance(*process.instance, {agent});
    process.instance->recover_all("survivor's tick");
    return;
  }
  if (process.known_agent != agent &&
      runtime::send_hello(process.domain->path(), node, process.instance->id())) {
    process.known_agent = agent;
  }
}

// Take a slot, and the cache with it. What the process used before goes on being readable.
Result<void> move_in(mcs_process& process) {
  const bool first = process.instance.get() == nullptr;
  auto joined = runtime::Instance::join(
      *process.domain, *process.liveness,
      {.node = process.config.node,
       .server = process.config.server,
       .serial = first ? 0 : process.instance->serial() + 1,
       .may_inherit = true});
  if (!joined) return tl::unexpected(joined.error());
  runtime::Instance& instance = **joined;
  const std::string path = api::WakeSocket::path_for(process.domain->path(), instance.slot_number());
  if (first) {
    process.wake = std::make_unique<api::WakeSocket>(path, process.config.spec.mode);
  } else {
    process.wake->move_to(path);
  }
  auto cache = std::make_unique<cache::GlobalCache>(
      *process.domain, instance, [p = &process](std::uint32_t slot) {
        api::WakeSocket::send(p->wake->fd(),
                              api::WakeSocket::path_for(p->domain->path(), slot));
      });
  cache->set_purge_matcher(api::purge_meets);
  if (first) {
    process.pins = std::make_unique<api::SharedPins>(
        cache->pins(), static_cast<std::uint32_t>(cache->memory().geometry().ledger_words));
  } else {
    process.pins->move_to(cache->pins());
  }
  process.instance = std::move(*joined);
  process.cache = std::move(cache);
  return {};
}

// The segment with our own slot is lost: nothing is begun there any more, and what is pinned is declared
// again somewhere else, before the former slot's liveness byte, which keeps it all alive, is let go.
void rejoin(mcs_process& process) {
  const std::uint32_t former = process.instance->slot_number();
  if (!process.cache->retire_instance()) return;
  if (!move_in(process)) return;  // no segment has room: again at the next tick
  process.instance->activate();
  publish_waiting(process);
  process.liveness->release(former);
  process.known_agent = 0;
  process.log(2, fmt::format("the memory of this process's slot in domain {} is lost; it has joined "
                             "anew as instance {}",
                             process.domain->name(), process.instance->slot_number()));
}

mcs_status put_error(char* err, size_t errlen, mcs_status status, const std::string& message) {
  if (err != nullptr && errlen > 0) std::snprintf(err, errlen, "%s", message.c_str());
  return status;
}

}  // namespace

const char* stat_name(unsigned cell) {
  static constexpr const char* kNames[kStatCount] = {
      "requests", "hits",   "misses",    "expired",    "stale",
      "updating", "revalidated", "bypass", "hit_bytes", "miss_bytes",
      "cross_server_hits", "fills", "fill_failures", "waits", "damaged"};
  return cell < kStatCount ? kNames[cell] : "";
}

}  // namespace mcs::api

using namespace mcs;

extern "C" {

uint32_t mcs_api_version(void) {
  return (MCS_API_VERSION_MAJOR << 16) | MCS_API_VERSION_MINOR;
}

mcs_status mcs_domain_prepare(const mcs_domain_options* options, char* err, size_t errlen) try {
  int none = -1;
  const int program = runtime::open_agent_program();
  if (program >= 0 && !api::agent_program.fd.compare_exchange_strong(none, program)) {
    ::close(program);
  }
  const auto config = api::resolve(*options);
  if (!config) return api::put_error(err, errlen, MCS_ERROR, config.error().message);
  const auto opened = api::open_or_create(*config);
  if (!opened) return api::put_error(err, errlen, MCS_ERROR, opened.error().message);
  if (!opened->warning.empty()) return api::put_error(err, errlen, MCS_WARNING, opened->warning);
  if (config->node >= opened->domain->node_count()) {
    return api::put_error(err, errlen, MCS_ERROR,
                          fmt::format("node={}: domain {} has nodes 0 to {}", config->node,
                                      config->spec.name, opened->domain->node_count() - 1));
  }
  return MCS_OK;
} catch (const std::exception& e) {
  return api::put_error(err, errlen, MCS_ERROR, e.what());
}

mcs_process* mcs_join(const mcs_domain_options* options, const mcs_callbacks* callbacks, char* err,
                      size_t errlen) try {
  auto process = std::make_unique<mcs_process>();
  auto config = api::resolve(*options);
  if (!config) {
    api::put_error(err, errlen, MCS_ERROR, config.error().message);
    return nullptr;
  }
  process->config = std::move(*config);
  if (callbacks != nullptr) process->callbacks = *callbacks;
  auto opened = api::open_or_create(process->config);
  if (!opened) {
    api::put_error(err, errlen, MCS_ERROR, opened.error().message);
    return nullptr;
  }
  process->domain = std::move(opened->domain);
  auto liveness = runtime::KernelLiveness::open(process->domain->path());
  if (!liveness) {
    api::put_error(err, errlen, MCS_ERROR, liveness.error().message);
    return nullptr;
  }
  process->liveness = std::move(*liveness);
  const std::string& server = process->config.server;
  process->server_kind = static_cast<std::uint8_t>(XXH3_64bits(
      server.data(), std::min(server.find('/'), server.size())));
  if (const auto placed = api::move_in(*process); !placed) {
    api::put_error(err, errlen, MCS_ERROR, placed.error().message);
    return nullptr;
  }
  // If everybody died together, whoever comes first recovers them before serving.
  if (!process->liveness->held(runtime::kAgentByte + process->config.node)) {
    process->instance->recover_all("first to join");
  }
  process->instance->activate();
  mcs_tick(process.get());
  return process.release();
} catch (const std::exception& e) {
  api::put_error(err, errlen, MCS_ERROR, e.what());
  return nullptr;
}

void mcs_leave(mcs_process* process) try {
  if (process == nullptr) return;
  process->cache->leave();
  process->wake->hide();
  process->instance->leave();
  delete process;
} catch (const std::exception&) {
  // What could not be given back is recovered from the slot once this process is gone.
}

void mcs_tick(mcs_process* process) try {
  const std::unique_lock lock(process->tick_mutex, std::try_to_lock);
  if (!lock.owns_lock()) return;
  process->instance->tick();
  process->cache->tick();
  api::tell_of_trouble(*process);
  if (process->cache->is_homeless()) api::rejoin(*process);
  process->cache->bring_near();
  constexpr unsigned kTicks = 8;  // about two seconds
  if (process->ticks++ % kTicks == 0) api::keep_sites(*process->cache);
  api::look_after_agent(*process);
  api::log_events(*process);
} catch (const std::exception&) {
  // Tried again at the next tick.
}

}  // extern "C"
