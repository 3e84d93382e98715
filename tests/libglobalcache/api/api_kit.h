// SPDX-License-Identifier: Apache-2.0
// A server without a server: drives the C API as a module would, with an origin that tests script,
// over a real domain below /dev/shm that several mcs_process objects share.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libglobalcache/globalcache.h"

namespace mcs::api::testing {

using OwnedFields = std::vector<std::pair<std::string, std::string>>;

/// The values of field `name` (any case) joined with ", "; nothing if there is none.
std::optional<std::string> joined(const OwnedFields& fields, std::string_view name);

/// What freshness takes for the time, in ms; all processes of a test share it.
std::int64_t now_ms();
void set_now_ms(std::int64_t now);
void advance_s(std::int64_t seconds);
/// now + seconds as an HTTP date.
std::string date_in(std::int64_t seconds);

/// A domain in a directory of its own, removed at the end.
class TestDomain {
 public:
  explicit TestDomain(std::uint32_t nodes = 2, std::uint64_t bytes_per_node = 24ULL << 20);
  ~TestDomain();
  TestDomain(const TestDomain&) = delete;
  TestDomain& operator=(const TestDomain&) = delete;

  /// Another process of the domain. It belongs to the domain, which lets it leave at the end.
  mcs_process* join(const char* server, std::uint32_t node = 0, void (*wake)(void*, void*) = nullptr,
                    void* context = nullptr);
  void leave(mcs_process* process);

 private:
  std::string directory_;
  std::uint32_t nodes_;
  std::uint64_t bytes_;
  std::vector<mcs_process*> processes_;
};

/// Rules of a location, from "directive argument ..." lines.
class TestPolicy {
 public:
  TestPolicy(std::initializer_list<std::string_view> directives = {});
  ~TestPolicy() { mcs_policy_destroy(policy_); }
  TestPolicy(const TestPolicy&) = delete;
  TestPolicy& operator=(const TestPolicy&) = delete;
  void set(std::string_view directive);
  const mcs_policy* get() const { return policy_; }
  mcs_policy* get() { return policy_; }

 private:
  mcs_policy* policy_;
};

struct Request {
  std::string method = "GET";
  std::string target = "/a";
  OwnedFields fields = {};
  unsigned flags = 0;
  std::string host = "site.example";
  std::string client = "127.0.0.1";
  std::string key = {};
};

struct Response {
  int status = 200;
  OwnedFields fields = {};
  std::string body = {};
  bool cut_off = false;  // the connection breaks after the body
  std::size_t chunk = 0;  // bytes given to the cache at a time; 0: all at once
};

/// What the client got.
struct Reply {
  bool declined = false;
  bool failed = false;  // no response, or one that broke off
  int status = 0;
  OwnedFields fields;
  std::string body;
  std::uint64_t length = 0;  // as promised
  mcs_cache_status cache_status = MCS_CACHE_NONE;
  bool refresh = false;
  bool pinned = false;
  bool asked_origin = false;
  bool stored = false;
  std::optional<std::string> field(std::string_view name) const { return joined(fields, name); }
};

/// Answers a request as it reaches the origin; nothing: no response at all.
using Origin = std::function<std::optional<Response>(const Request&)>;

/// One request, step by step. Its memory lives as long as it.
class Exchange {
 public:
  Exchange(mcs_process* process, const mcs_policy* policy, Request request,
           void* waiter = nullptr);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  mcs_outcome begin();
  mcs_outcome resume(unsigned flags = 0);
  mcs_outcome retry();
  /// The request as it goes to the origin (after MCS_FORWARD).
  Request forwarded() const;
  /// The origin's header section.
  mcs_verdict head(int status, const OwnedFields& fields);
  /// A piece of the origin's body; what of it goes to the client is added to reply().body.
  bool body(std::string_view bytes);
  bool end(bool complete = true);
  mcs_verdict failed(mcs_failure kind);
  void close();

  /// Everything a follower gets until it has to wait, ends or breaks.
  mcs_follow read(std::size_t chunk = 4096);
  mcs_outcome follow_retry();

  /// From begin() to the end, with `origin`.
  const Reply& run(const Origin& origin);

  Reply& reply() { return reply_; }
  const mcs_response& response() const { return response_; }
  mcs_transaction* transaction() const { return transaction_; }

 private:
  static void* allocate(void* context, std::size_t size);
  void take_response(const mcs_response& response);
  const mcs_field* own(const OwnedFields& fields);

  mcs_process* process_;
  Request request_;
  mcs_request ask_{};
  mcs_response response_{};
  mcs_transaction* transaction_ = nullptr;
  bool whole_body_to_client_ = true;
  Reply reply_;
  std::vector<std::unique_ptr<std::byte[]>> memory_;
  std::vector<std::unique_ptr<OwnedFields>> kept_;
};

/// run() in one line.
Reply ask(mcs_process* process, const mcs_policy* policy, const Request& request,
          const Origin& origin);
Reply ask(mcs_process* process, const mcs_policy* policy, const Request& request,
          const Response& origin);

}  // namespace mcs::api::testing
