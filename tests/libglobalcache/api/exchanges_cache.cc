// SPDX-License-Identifier: Apache-2.0
// Puts the real cache in the place of the toy: tests/libglobalcache/http/exchanges_test.cc, linked
// with this file, runs its cases through the whole C API.
#include "tests/libglobalcache/api/api_kit.h"
#include "tests/libglobalcache/http/toy_cache.h"

#include "libglobalcache/api/policy.h"
#include "libglobalcache/http/field.h"

namespace mcs::http::testing {
namespace {

namespace api = mcs::api::testing;

/// One domain for all cases; each begins with nothing stored.
class Cache {
 public:
  Cache() : process_(domain_.join("test/1")) {}
  void clear() {
    mcs_purge_request all{};
    all.kind = MCS_PURGE_ALL;
    mcs_purge(process_, &all, nullptr, nullptr, 0);
  }
  mcs_process* process() { return process_; }

 private:
  api::TestDomain domain_;
  mcs_process* process_;
};

Cache& the_cache() {
  static Cache cache;
  return cache;
}

}  // namespace

std::vector<FieldView> views(const OwnedFields& fields) {
  std::vector<FieldView> result;
  for (const auto& [name, value] : fields) result.push_back({name, value});
  return result;
}

std::optional<std::string> joined(const OwnedFields& fields, std::string_view name) {
  return api::joined(fields, name);
}

Answer ToyCache::handle(const Request& request, std::int64_t now_ms) {
  // entries_ is not used here but to tell a new cache from one that has seen requests.
  if (entries_.empty()) {
    the_cache().clear();
    entries_["used"];
  }
  api::set_now_ms(now_ms);
  mcs_policy policy;
  policy.rules = policy_;
  policy.rules.send_cache_status = true;
  api::Request ask;
  ask.method = request.method;
  ask.target = request.target;
  ask.fields = request.fields;
  ask.host = joined(request.fields, "host").value_or("");
  const auto origin = [&](const api::Request& forwarded) -> std::optional<api::Response> {
    const auto response = origin_({forwarded.method, forwarded.target, forwarded.fields});
    if (!response) return std::nullopt;
    api::Response answer{response->status, response->fields, response->body, false, 0};
    // Origins say how long a body is; without that a part of it cannot be promised on a miss.
    if (answer.status == 200 && !joined(answer.fields, "content-length") &&
        !joined(answer.fields, "transfer-encoding")) {
      answer.fields.emplace_back("Content-Length", std::to_string(answer.body.size()));
    }
    return answer;
  };
  api::Reply reply = api::ask(the_cache().process(), &policy, ask, origin);
  if (reply.declined) {
    const auto response = origin(ask);
    if (response) {
      reply.status = response->status;
      reply.fields = response->fields;
      reply.body = response->body;
    }
  }
  return {{reply.status, reply.fields, reply.body},
          reply.field("cache-status").value_or(""),
          reply.refresh};
}

}  // namespace mcs::http::testing
