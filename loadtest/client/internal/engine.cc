// SPDX-License-Identifier: Apache-2.0
#include "loadtest/client/internal/engine.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <stdexcept>

#include "loadtest/harness/process.h"

namespace mcs::loadtest {

namespace {

constexpr size_t kBufferSize = 256 * 1024;
constexpr size_t kMaxHead = 64 * 1024;
constexpr uint64_t kMillisecond = 1'000'000;
constexpr uint64_t kRetryAfter = 20 * kMillisecond;
constexpr uint64_t kSweepEvery = 50 * kMillisecond;

std::string_view as_text(std::span<const std::byte> data) {
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

// To the nanosecond where the kernel can (since 5.11), else to the millisecond.
int wait_for_events(int epoll, std::span<epoll_event> events, uint64_t ns) {
  const timespec timeout = {static_cast<time_t>(ns / 1'000'000'000),
                            static_cast<long>(ns % 1'000'000'000)};
  const auto size = static_cast<int>(events.size());
  const int count = epoll_pwait2(epoll, events.data(), size, &timeout, nullptr);
  return count >= 0 || errno != ENOSYS
             ? count
             : epoll_wait(epoll, events.data(), size,
                          static_cast<int>((ns + kMillisecond - 1) / kMillisecond));
}

}  // namespace

LoadShared::LoadShared(const LoadOptions& run_options, const std::atomic<bool>& stop_flag,
                       LiveCounters& counters)
    : options(run_options),
      stop(stop_flag),
      live(counters),
      etags_(options.files->size() *
             (options.etag == EtagScope::kPerTarget ? options.targets.size() : 1)) {
  std::string fields;
  for (const std::string& header : options.headers) {
    fields += header + "\r\n";
  }
  if (!options.keep_alive) {
    fields += "Connection: close\r\n";
  }
  for (const LoadTarget& target : options.targets) {
    const std::string host =
        target.host.empty() ? fmt::format("{}:{}", target.address, target.port) : target.host;
    std::vector<std::string>& requests = requests_.emplace_back();
    for (size_t file = 0; file < options.files->size(); ++file) {
      requests.push_back(fmt::format("GET {}{} HTTP/1.1\r\nHost: {}\r\n{}\r\n", target.path_prefix,
                                     (*options.files)[file].url_path, host, fields));
    }
  }
}

const std::string& LoadShared::request(int target, size_t file) const {
  return requests_[static_cast<size_t>(target)][file];
}

bool LoadShared::same_etag(int target, size_t file, std::string_view etag) {
  if (options.etag == EtagScope::kOff) {
    return true;
  }
  const uint64_t hash = XXH3_64bits(etag.data(), etag.size()) | 1;
  const size_t scope = options.etag == EtagScope::kPerTarget ? static_cast<size_t>(target) : 0;
  uint64_t first = 0;
  return etags_[scope * options.files->size() + file].compare_exchange_strong(first, hash) ||
         first == hash;
}

bool LoadShared::take_request() {
  return options.requests == 0 || taken_.fetch_add(1, std::memory_order_relaxed) < options.requests;
}

LoadEngine::LoadEngine(LoadShared& shared, int index, int threads)
    : shared_(shared),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      idle_(shared.options.targets.size()),
      backlog_(shared.options.targets.size()),
      random_(shared.options.seed + static_cast<uint64_t>(index) * 0x9e3779b97f4a7c15u),
      buffer_(kBufferSize),
      next_target_(static_cast<size_t>(index)) {
  if (epoll_ < 0) {
    throw std::runtime_error(fmt::format("epoll_create1: {}", std::strerror(errno)));
  }
  const LoadOptions& options = shared.options;
  for (size_t target = 0; target < options.targets.size(); ++target) {
    targets.emplace_back().name = options.targets[target].name;
    for (int i = index; i < options.connections; i += threads) {
      connections_.push_back(std::make_unique<Connection>());
      connections_.back()->target = static_cast<int>(target);
    }
  }
  if (options.rate > 0) {
    interval_ns_ = 1e9 / options.rate * threads;
    first_due_ns_ = 1e9 / options.rate * index;
  }
}

LoadEngine::~LoadEngine() {
  for (auto& connection : connections_) {
    close_connection(*connection);
  }
  close(epoll_);
}

void LoadEngine::run(uint64_t start_ns, uint64_t end_ns) {
  first_due_ns_ += static_cast<double>(start_ns);
  for (auto& connection : connections_) {
    open(*connection);
  }
  uint64_t next_sweep = 0;
  uint64_t drain_end = 0;
  epoll_event events[256];
  for (;;) {
    uint64_t now = monotonic_ns();
    if (!ending_ && (now >= end_ns || shared_.stop.load(std::memory_order_relaxed))) {
      ending_ = true;
    }
    if (now >= next_sweep) {
      sweep(now);
      next_sweep = now + kSweepEvery;
    }
    if (interval_ns_ > 0) {
      run_schedule(now);
    }
    if (ending_ && drain_end == 0) {
      drain_end = now + static_cast<uint64_t>(shared_.options.timeout.count()) * kMillisecond;
    }
    if (ending_) {
      const bool waiting = std::any_of(connections_.begin(), connections_.end(),
                                       [&](const auto& c) { return in_flight(*c); });
      const bool queued = std::any_of(backlog_.begin(), backlog_.end(),
                                      [](const auto& queue) { return !queue.empty(); });
      if ((!waiting && !queued) || now >= drain_end) {
        break;
      }
    }
    uint64_t wake = next_sweep;
    if (interval_ns_ > 0 && !ending_) {
      wake = std::min(wake, static_cast<uint64_t>(first_due_ns_ +
                                                  static_cast<double>(scheduled_) * interval_ns_));
    }
    now = monotonic_ns();
    const bool spins = shared_.options.spins && interval_ns_ > 0 && !ending_;
    const uint64_t wait = wake > now && !spins ? wake - now : 0;
    const int count = wait_for_events(epoll_, events, wait);
    if (count < 0 && errno != EINTR) {
      throw std::runtime_error(fmt::format("epoll_wait: {}", std::strerror(errno)));
    }
    for (int i = 0; i < count; ++i) {
      handle_event(*static_cast<Connection*>(events[i].data.ptr), events[i].events);
    }
  }
  for (auto& connection : connections_) {
    if (in_flight(*connection)) {
      record_failure(*connection, Failure::kTimeout, "no complete answer until the end of the run");
    }
  }
  for (const auto& queue : backlog_) {
    not_sent += queue.size();
  }
}

bool LoadEngine::in_flight(const Connection& connection) const {
  return connection.state == State::kSending || connection.state == State::kHead ||
         connection.state == State::kBody;
}

void LoadEngine::run_schedule(uint64_t now) {
  while (!ending_) {
    const auto due =
        static_cast<uint64_t>(first_due_ns_ + static_cast<double>(scheduled_) * interval_ns_);
    if (due > now) {
      return;
    }
    if (!shared_.take_request()) {
      ending_ = true;
      return;
    }
    ++scheduled_;
    const size_t target = next_target_++ % idle_.size();
    if (idle_[target].empty()) {
      backlog_[target].push_back(due);
    } else {
      Connection& connection = *idle_[target].back();
      idle_[target].pop_back();
      start_request(connection, due);
      targets[target].lateness.add(connection.sent_ns - due);
    }
  }
}

void LoadEngine::sweep(uint64_t now) {
  const uint64_t timeout = static_cast<uint64_t>(shared_.options.timeout.count()) * kMillisecond;
  for (auto& connection : connections_) {
    if (connection->state == State::kClosed && connection->retry_ns <= now) {
      reopen(*connection);
    } else if (in_flight(*connection) && connection->sent_ns + timeout <= now) {
      record_failure(
          *connection, Failure::kTimeout,
          fmt::format("no complete answer within {} ms", shared_.options.timeout.count()));
      reopen(*connection);
    }
  }
}

void LoadEngine::open(Connection& connection) {
  const LoadTarget& target = shared_.options.targets[static_cast<size_t>(connection.target)];
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(target.port));
  inet_pton(AF_INET, target.address.c_str(), &address.sin_addr);
  connection.opened_ns = monotonic_ns();
  connection.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int one = 1;
  setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLOUT;
  event.data.ptr = &connection;
  connection.wants_write = true;
  const int connected =
      connect(connection.fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (connection.fd < 0 || (connected != 0 && errno != EINPROGRESS) ||
      epoll_ctl(epoll_, EPOLL_CTL_ADD, connection.fd, &event) != 0) {
    record_failure(connection, Failure::kConnect, std::strerror(errno));
    close_connection(connection);
    connection.retry_ns = monotonic_ns() + kRetryAfter;
    return;
  }
  connection.state = State::kConnecting;
  ++targets[static_cast<size_t>(connection.target)].connections;
}

void LoadEngine::close_connection(Connection& connection) {
  if (connection.state == State::kIdle) {
    std::erase(idle_[static_cast<size_t>(connection.target)], &connection);
  }
  if (connection.fd >= 0) {
    close(connection.fd);
  }
  connection.fd = -1;
  connection.state = State::kClosed;
  connection.retry_ns = 0;
}

// In place of one that cannot be used again, if there is something to use it for.
void LoadEngine::reopen(Connection& connection) {
  close_connection(connection);
  if (!ending_ || !backlog_[static_cast<size_t>(connection.target)].empty()) {
    open(connection);
  }
}

void LoadEngine::watch(Connection& connection, bool write) {
  if (connection.wants_write != write) {
    connection.wants_write = write;
    epoll_event event = {};
    event.events = EPOLLIN | (write ? static_cast<uint32_t>(EPOLLOUT) : 0u);
    event.data.ptr = &connection;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd, &event);
  }
}

void LoadEngine::handle_event(Connection& connection, uint32_t events) {
  if (connection.state == State::kConnecting) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(connection.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    sockaddr_in local = {};
    size = sizeof local;
    getsockname(connection.fd, reinterpret_cast<sockaddr*>(&local), &size);
    connection.local_port = ntohs(local.sin_port);
    if (error != 0) {
      record_failure(connection, Failure::kConnect, std::strerror(error));
      close_connection(connection);
      connection.retry_ns = monotonic_ns() + kRetryAfter;
      return;
    }
    if ((events & EPOLLOUT) != 0) {
      watch(connection, false);
      became_ready(connection);
    }
    return;
  }
  if (connection.state == State::kSending && (events & EPOLLOUT) != 0) {
    send_request(connection);
  }
  if (connection.state != State::kClosed && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    receive(connection);
  }
}

// The connection can take a request.
void LoadEngine::became_ready(Connection& connection) {
  const auto target = static_cast<size_t>(connection.target);
  if (interval_ns_ > 0) {
    if (!backlog_[target].empty()) {
      const uint64_t due = backlog_[target].front();
      backlog_[target].pop_front();
      start_request(connection, due);
      return;
    }
  } else if (!ending_) {
    if (shared_.take_request()) {
      start_request(connection, monotonic_ns());
      return;
    }
    ending_ = true;
  }
  connection.state = State::kIdle;
  idle_[target].push_back(&connection);
}

void LoadEngine::start_request(Connection& connection, uint64_t due_ns) {
  connection.file = shared_.options.stream->next(random_);
  connection.due_ns = due_ns;
  connection.sent_ns = monotonic_ns();
  connection.sent = 0;
  connection.received = 0;
  connection.head.clear();
  connection.failed = false;
  connection.detail.clear();
  connection.state = State::kSending;
  send_request(connection);
}

void LoadEngine::send_request(Connection& connection) {
  const std::string& request = shared_.request(connection.target, connection.file);
  const ssize_t n = send(connection.fd, request.data() + connection.sent,
                         request.size() - connection.sent, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0 && errno != EAGAIN && errno != EINTR) {
    lost(connection, std::strerror(errno));
    return;
  }
  connection.sent += n > 0 ? static_cast<size_t>(n) : 0;
  const bool complete = connection.sent == request.size();
  if (complete) {
    connection.state = State::kHead;
  }
  watch(connection, !complete);
}

void LoadEngine::receive(Connection& connection) {
  const ssize_t n = recv(connection.fd, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
  if (n > 0) {
    connection.received += static_cast<uint64_t>(n);
    consume(connection, std::span(buffer_).first(static_cast<size_t>(n)));
  } else if (n == 0) {
    lost(connection, "closed by the server");
  } else if (errno != EAGAIN && errno != EINTR) {
    lost(connection, std::strerror(errno));
  }
}

void LoadEngine::consume(Connection& connection, std::span<const std::byte> data) {
  const uint64_t sent_before = connection.sent_ns;
  while (!data.empty()) {
    if (connection.state == State::kHead && connection.sent_ns == sent_before) {
      data = data.subspan(take_head(connection, data));
    } else if (connection.state == State::kBody) {
      data = data.subspan(connection.chunked ? take_chunks(connection, data)
                                             : take_body(connection, data));
    } else if (connection.state == State::kClosed || connection.state == State::kConnecting) {
      return;
    } else {
      // What follows a complete response belongs to nobody: the lengths do not add up.
      record_failure(connection, Failure::kWrongBody,
                     fmt::format("{} bytes after the end of the response", data.size()));
      reopen(connection);
      return;
    }
  }
}

size_t LoadEngine::take_head(Connection& connection, std::span<const std::byte> data) {
  const size_t before = connection.head.size();
  std::string_view text = as_text(data);
  if (before > 0) {
    connection.head.append(text);
    text = connection.head;
  }
  const size_t length = head_length(text);
  if (length == 0) {
    if (before == 0) {
      connection.head = text;
    }
    if (connection.head.size() > kMaxHead) {
      record_failure(connection, Failure::kBadHeader, "the head is longer than 64 KiB");
      reopen(connection);
    }
    return data.size();
  }
  const auto head = parse_head(text.substr(0, length));
  if (head && head->status / 100 == 1) {
    connection.head.clear();
    return length - before;
  }
  if (!head || (!head->content_length && !head->chunked)) {
    record_failure(connection, Failure::kBadHeader,
                   head ? "neither Content-Length nor chunked coding" : "not a response head");
    reopen(connection);
    return data.size();
  }
  check_head(connection, *head);
  connection.head.clear();
  connection.state = State::kBody;
  if (!connection.chunked && connection.left == 0) {
    finish(connection);
  }
  return length - before;
}

void LoadEngine::check_head(Connection& connection, const ResponseHead& head) {
  const FileSet::Entry& file = (*shared_.options.files)[connection.file];
  connection.status = head.status;
  connection.keep_alive = head.keep_alive && shared_.options.keep_alive;
  connection.chunked = head.chunked;
  connection.chunk_state = ChunkState::kSize;
  connection.chunk_line.clear();
  connection.left = head.chunked ? 0 : *head.content_length;
  connection.offset = 0;
  connection.cache = cache_result(head);
  if (head.status != 200) {
    note(connection, Failure::kBadStatus, fmt::format("status {}", head.status));
  } else if (!head.chunked && *head.content_length != file.size) {
    note(connection, Failure::kWrongBody,
         fmt::format("Content-Length {}, the file has {}", *head.content_length, file.size));
  } else if (!file.last_modified.empty() && !head.last_modified.empty() &&
             head.last_modified != file.last_modified) {
    note(connection, Failure::kBadHeader,
         fmt::format("Last-Modified {}, the file's is {}", head.last_modified, file.last_modified));
  } else if (!shared_.same_etag(connection.target, connection.file, head.etag)) {
    note(connection, Failure::kBadHeader,
         fmt::format("ETag {} differs from an earlier one", head.etag));
  }
}

size_t LoadEngine::take_body(Connection& connection, std::span<const std::byte> data) {
  const size_t length = std::min<uint64_t>(connection.left, data.size());
  check_body(connection, data.first(length));
  connection.left -= length;
  if (connection.left == 0) {
    finish(connection);
  }
  return length;
}

size_t LoadEngine::take_chunks(Connection& connection, std::span<const std::byte> data) {
  if (connection.chunk_state == ChunkState::kData) {
    const size_t length = std::min<uint64_t>(connection.left, data.size());
    check_body(connection, data.first(length));
    connection.left -= length;
    if (connection.left == 0) {
      connection.chunk_state = ChunkState::kDataEnd;
    }
    return length;
  }
  // The other states end with a line.
  const std::string_view text = as_text(data);
  const size_t newline = text.find('\n');
  connection.chunk_line.append(text.substr(0, newline));
  if (newline == std::string_view::npos) {
    return data.size();
  }
  if (connection.chunk_line.ends_with('\r')) {
    connection.chunk_line.pop_back();
  }
  const std::string line = std::exchange(connection.chunk_line, {});
  if (connection.chunk_state == ChunkState::kDataEnd) {
    connection.chunk_state = ChunkState::kSize;
  } else if (connection.chunk_state == ChunkState::kSize) {
    const auto parsed =
        std::from_chars(line.data(), line.data() + line.size(), connection.left, 16);
    if (parsed.ec != std::errc()) {
      record_failure(connection, Failure::kBadHeader, "not a chunk's size: " + line);
      reopen(connection);
      return data.size();
    }
    connection.chunk_state = connection.left == 0 ? ChunkState::kTrailer : ChunkState::kData;
  } else if (line.empty()) {
    const uint64_t size = (*shared_.options.files)[connection.file].size;
    if (connection.status == 200 && connection.offset != size) {
      note(connection, Failure::kWrongBody,
           fmt::format("{} bytes in chunks, the file has {}", connection.offset, size));
    }
    finish(connection);
  }
  return newline + 1;
}

void LoadEngine::check_body(Connection& connection, std::span<const std::byte> data) {
  const uint64_t offset = connection.offset;
  connection.offset += data.size();
  targets[static_cast<size_t>(connection.target)].bytes += data.size();
  if (connection.failed) {
    return;
  }
  const FileSet& files = *shared_.options.files;
  const uint64_t size = files[connection.file].size;
  if (offset + data.size() > size) {
    note(connection, Failure::kWrongBody, fmt::format("more bytes than the file's {}", size));
  } else if (const auto wrong = files.first_difference(connection.file, offset, data)) {
    const std::span<const std::byte> shown =
        data.subspan(*wrong).first(std::min<size_t>(16, data.size() - *wrong));
    std::string bytes;
    for (const std::byte byte : shown) {
      bytes += fmt::format("{:02x}", static_cast<unsigned>(byte));
    }
    note(connection, Failure::kWrongBody,
         fmt::format("byte {} of {} differs, from there: {}", offset + *wrong, size, bytes));
  }
}

void LoadEngine::note(Connection& connection, Failure failure, std::string detail) {
  // A wrong byte outranks whatever else is wrong with the response.
  if (!connection.failed || failure == Failure::kWrongBody) {
    connection.failed = true;
    connection.failure = failure;
    connection.detail = std::move(detail);
  }
}

void LoadEngine::finish(Connection& connection) {
  TargetReport& report = targets[static_cast<size_t>(connection.target)];
  if (connection.status == 200) {
    ++report.cache[static_cast<size_t>(connection.cache)];
    if (connection.cache == CacheResult::kHit) {
      shared_.live.hits.fetch_add(1, std::memory_order_relaxed);
    }
  }
  if (connection.failed) {
    record_failure(connection, connection.failure, std::move(connection.detail));
  } else {
    ++report.requests;
    report.latency.add(monotonic_ns() - connection.due_ns);
    shared_.live.requests.fetch_add(1, std::memory_order_relaxed);
    shared_.live.bytes.fetch_add(connection.offset, std::memory_order_relaxed);
  }
  if (connection.keep_alive) {
    became_ready(connection);
  } else {
    reopen(connection);
  }
}

void LoadEngine::lost(Connection& connection, const char* how) {
  if (in_flight(connection)) {
    const bool in_body = connection.state == State::kBody;
    if (connection.failed && connection.failure == Failure::kWrongBody) {
      record_failure(connection, Failure::kWrongBody, std::move(connection.detail));
    } else {
      record_failure(connection, in_body ? Failure::kShortBody : Failure::kConnectionLost,
                     in_body ? fmt::format("{} after {} of {} bytes", how, connection.offset,
                                           (*shared_.options.files)[connection.file].size)
                             : std::string(how));
    }
  }
  reopen(connection);
}

void LoadEngine::record_failure(const Connection& connection, Failure failure, std::string detail) {
  TargetReport& report = targets[static_cast<size_t>(connection.target)];
  ++report.requests;
  ++report.failures[static_cast<size_t>(failure)];
  shared_.live.requests.fetch_add(1, std::memory_order_relaxed);
  shared_.live.failed.fetch_add(1, std::memory_order_relaxed);
  if (failure == Failure::kWrongBody) {
    shared_.live.wrong_bodies.fetch_add(1, std::memory_order_relaxed);
  }
  if (failures.size() < shared_.options.max_failure_records) {
    failures.push_back({failure, connection.target, connection.file, connection.local_port,
                        connection.opened_ns, connection.sent_ns, monotonic_ns(),
                        connection.received, std::move(detail)});
  }
}

}  // namespace mcs::loadtest
