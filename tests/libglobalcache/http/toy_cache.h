// SPDX-License-Identifier: Apache-2.0
// The smallest cache that obeys libglobalcache/http: one thread, a map, a clock that tests move. It
// shows in which order the rules are to be asked, and lets whole exchanges be tested without
// servers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "libglobalcache/http/policy.h"
#include "libglobalcache/http/reuse.h"
#include "libglobalcache/http/stored_meta.h"

namespace mcs::http::testing {

using OwnedFields = std::vector<std::pair<std::string, std::string>>;

/// Views of all fields of `owned`, which must outlive them.
std::vector<FieldView> views(const OwnedFields& owned);
/// The values of field `name`, joined with ", "; nothing if there is none.
std::optional<std::string> joined(const OwnedFields& fields, std::string_view name);

struct Request {
  std::string method = "GET";
  std::string target = "/";
  OwnedFields fields;
};

struct Response {
  int status = 200;
  OwnedFields fields;
  std::string body;
};

struct Answer {
  Response response;
  std::string cache_status;
  bool refresh_in_background = false;
};

class ToyCache {
 public:
  /// Answers a request, or nothing if the connection broke.
  using Origin = std::function<std::optional<Response>(const Request&)>;

  ToyCache(CachePolicy policy, Origin origin)
      : policy_(std::move(policy)), origin_(std::move(origin)) {}

  Answer handle(const Request& request, std::int64_t now_ms);

 private:
  struct Entry {
    std::string spec;         // of Vary
    std::string variant_key;  // of the request that it was fetched for
    std::string block;        // HeaderBlock
    std::string body;
    StoredMeta meta;
    bool marked_stale = false;
  };
  struct Exchange;

  Entry* find(const std::string& key, Fields request, bool& other_variants);
  Answer from_entry(const Exchange& exchange, const Entry& entry, const ReuseDecision& decision);
  Answer forward(Exchange& exchange, Entry* entry, const ReuseDecision& decision);
  Answer finish(Exchange& exchange, Response response, bool store);
  bool store(Exchange& exchange, const Response& response);
  bool update(Exchange& exchange, Entry& entry, const Response& response);
  void invalidate(const Exchange& exchange, const Response& response);

  CachePolicy policy_;
  Origin origin_;
  std::map<std::string, std::vector<Entry>> entries_;
};

}  // namespace mcs::http::testing
