// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "loadtest/client/load_client.h"

namespace mcs::loadtest {

// What the threads of one run share.
struct LoadShared {
  LoadShared(const LoadOptions& run_options, const std::atomic<bool>& stop_flag,
             LiveCounters& counters);

  // The request as it is sent; built once per file and target.
  const std::string& request(int target, size_t file) const;
  // False when the file had another ETag before, within options.etag.
  bool same_etag(int target, size_t file, std::string_view etag);
  // Takes one from the budget of requests; false when it is used up.
  bool take_request();

  const LoadOptions& options;
  const std::atomic<bool>& stop;
  LiveCounters& live;

 private:
  std::vector<std::vector<std::string>> requests_;
  std::vector<std::atomic<uint64_t>> etags_;  // hash of the first one seen; 0: none yet
  std::atomic<uint64_t> taken_{0};
};

// One thread's share of the connections, on one epoll set.
class LoadEngine {
 public:
  // Of `threads` engines this is number `index`.
  LoadEngine(LoadShared& shared, int index, int threads);
  ~LoadEngine();
  LoadEngine(const LoadEngine&) = delete;
  LoadEngine& operator=(const LoadEngine&) = delete;

  void run(uint64_t start_ns, uint64_t end_ns);

  std::vector<TargetReport> targets;
  std::vector<FailureRecord> failures;
  uint64_t not_sent = 0;

 private:
  enum class State { kClosed, kConnecting, kIdle, kSending, kHead, kBody };
  enum class ChunkState { kSize, kData, kDataEnd, kTrailer };

  struct Connection {
    int fd = -1;
    int target = 0;
    State state = State::kClosed;
    bool wants_write = false;
    uint64_t opened_ns = 0;
    uint64_t retry_ns = 0;  // not before this time after a failed connect
    uint16_t local_port = 0;

    // The request in flight.
    size_t file = 0;
    uint64_t due_ns = 0;
    uint64_t sent_ns = 0;
    size_t sent = 0;
    uint64_t received = 0;

    // Its response.
    std::string head;  // beginning of a head that came in parts
    int status = 0;
    bool keep_alive = true;
    bool chunked = false;
    ChunkState chunk_state = ChunkState::kSize;
    std::string chunk_line;
    uint64_t left = 0;  // of the body or of the chunk
    uint64_t offset = 0;
    CacheResult cache = CacheResult::kNone;
    // The first thing that was wrong, reported when the response ends.
    bool failed = false;
    Failure failure{};
    std::string detail;
  };

  void open(Connection& connection);
  void close_connection(Connection& connection);
  void reopen(Connection& connection);
  void watch(Connection& connection, bool write);
  void became_ready(Connection& connection);
  void start_request(Connection& connection, uint64_t due_ns);
  void send_request(Connection& connection);
  void receive(Connection& connection);
  void consume(Connection& connection, std::span<const std::byte> data);
  size_t take_head(Connection& connection, std::span<const std::byte> data);
  size_t take_body(Connection& connection, std::span<const std::byte> data);
  size_t take_chunks(Connection& connection, std::span<const std::byte> data);
  void check_head(Connection& connection, const ResponseHead& head);
  void check_body(Connection& connection, std::span<const std::byte> data);
  void note(Connection& connection, Failure failure, std::string detail);
  void finish(Connection& connection);
  void lost(Connection& connection, const char* how);
  void record_failure(const Connection& connection, Failure failure, std::string detail);
  void handle_event(Connection& connection, uint32_t events);
  void run_schedule(uint64_t now);
  void sweep(uint64_t now);
  bool in_flight(const Connection& connection) const;

  LoadShared& shared_;
  int epoll_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::vector<Connection*>> idle_;  // by target
  std::vector<std::deque<uint64_t>> backlog_;   // open loop: due and not sent, by target
  Random random_;
  std::vector<std::byte> buffer_;
  bool ending_ = false;
  // Open loop.
  double interval_ns_ = 0;  // 0: closed loop
  double first_due_ns_ = 0;
  uint64_t scheduled_ = 0;
  size_t next_target_;
};

}  // namespace mcs::loadtest
