// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "loadtest/client/file_set.h"
#include "loadtest/client/histogram.h"
#include "loadtest/client/response_head.h"

namespace mcs::loadtest {

// A checking HTTP/1.1 client: many keep-alive connections in few threads, every body byte compared.
//
// Closed loop (rate 0): each connection asks again as soon as its answer is complete. Open loop:
// request k is due at start + k / rate whether or not earlier ones were answered, and its latency
// counts from when it was due, so that a stall is seen by all requests it delayed (no coordinated
// omission).

struct LoadTarget {
  std::string name;                   // in reports
  std::string address = "127.0.0.1";  // IPv4, numeric
  int port = 0;
  std::string host;         // Host field; empty: address:port
  std::string path_prefix;  // before every path of the file set
};

enum class EtagScope {
  kOff,
  kPerTarget,   // a file has one ETag in each target
  kAllTargets,  // … and the same in all of them
};

struct LoadOptions {
  std::vector<LoadTarget> targets;
  const FileSet* files = nullptr;
  const RequestStream* stream = nullptr;
  int connections = 8;  // per target, all threads together
  int threads = 1;
  double rate = 0;        // requests per second, all targets together; 0: closed loop
  bool spins = false;     // open loop: never sleeps until the next is due, for a CPU of its own
  double seconds = 0;     // 0: until `requests` or the stop flag
  uint64_t requests = 0;  // 0: no limit
  uint64_t seed = 1;
  std::chrono::milliseconds timeout{10'000};  // of a request from its sending on
  bool keep_alive = true;
  std::vector<std::string> headers;  // "Name: value", sent with every request
  EtagScope etag = EtagScope::kPerTarget;
  size_t max_failure_records = 100'000;
};

enum class Failure {
  kConnect,         // no connection
  kConnectionLost,  // closed or reset before the head was complete
  kShortBody,       // closed or reset within the body
  kTimeout,
  kBadStatus,  // not 200
  kBadHeader,  // no valid head, another Last-Modified than the file's, an ETag that changed
  kWrongBody,  // a byte or the length differs from the file
};
constexpr size_t kFailures = 7;
std::string_view name_of(Failure failure);  // "connection_lost", …

struct FailureRecord {
  Failure failure;
  int target;
  size_t file;
  uint16_t local_port;
  // CLOCK_MONOTONIC.
  uint64_t opened_ns;  // before connect()
  uint64_t sent_ns;
  uint64_t failed_ns;
  uint64_t received;  // bytes of the response
  std::string detail;
};

struct TargetReport {
  std::string name;
  uint64_t requests = 0;  // with an outcome: good or failed
  uint64_t bytes = 0;     // of bodies
  uint64_t connections = 0;
  std::array<uint64_t, kFailures> failures{};
  std::array<uint64_t, kCacheResults> cache{};  // of status 200
  Histogram latency;                            // of good answers
  // Open loop: how late the client itself sent what a connection was free for. Latencies that are
  // not well above it are the client's, not the server's.
  Histogram lateness;

  uint64_t failed() const;
  uint64_t count(Failure failure) const { return failures[static_cast<size_t>(failure)]; }
  uint64_t count(CacheResult result) const { return cache[static_cast<size_t>(result)]; }
  void merge(const TargetReport& other);
};

struct LoadReport {
  double seconds = 0;
  uint64_t not_sent = 0;  // open loop: due, but no connection was free until the end
  std::vector<TargetReport> targets;
  std::vector<FailureRecord> failures;  // the first max_failure_records

  TargetReport total() const;
};

// Readable while run_load runs.
struct LiveCounters {
  std::atomic<uint64_t> requests{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<uint64_t> hits{0};
  std::atomic<uint64_t> failed{0};
  std::atomic<uint64_t> wrong_bodies{0};
};

// Runs until the time or the number of requests is over or `stop` is set, then waits for the
// answers in flight (at most options.timeout). Throws std::invalid_argument for options that make
// no sense.
LoadReport run_load(const LoadOptions& options, const std::atomic<bool>& stop, LiveCounters& live);

}  // namespace mcs::loadtest
