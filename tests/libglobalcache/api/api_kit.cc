// SPDX-License-Identifier: Apache-2.0
#include "tests/libglobalcache/api/api_kit.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <sstream>

#include "libglobalcache/api/process.h"
#include "libglobalcache/http/date.h"
#include "libglobalcache/http/field.h"

namespace mcs::api::testing {
namespace {

std::atomic<std::int64_t> test_clock{1780000000250};

mcs_str text(const std::string& s) { return {s.data(), s.size()}; }
std::string owned(const mcs_str& s) { return {s.data == nullptr ? "" : s.data, s.size}; }

}  // namespace

std::int64_t now_ms() { return test_clock.load(); }
void set_now_ms(std::int64_t now) { test_clock.store(now); }
void advance_s(std::int64_t seconds) { test_clock.fetch_add(seconds * 1000); }

std::string date_in(std::int64_t seconds) {
  const auto date = http::format_http_date(now_ms() + seconds * 1000);
  return {date.data(), date.size()};
}

std::optional<std::string> joined(const OwnedFields& fields, std::string_view name) {
  std::optional<std::string> result;
  for (const auto& [field, value] : fields) {
    if (!http::equals_ignore_case(field, name)) continue;
    result = result ? *result + ", " + value : value;
  }
  return result;
}

TestDomain::TestDomain(std::uint32_t nodes, std::uint64_t bytes_per_node)
    : nodes_(nodes), bytes_(bytes_per_node) {
  char path[] = "/dev/shm/mcs-api-test.XXXXXX";
  if (::mkdtemp(path) == nullptr) ADD_FAILURE() << "cannot make a directory in /dev/shm";
  directory_ = path;
}

TestDomain::~TestDomain() {
  for (mcs_process* process : processes_) mcs_leave(process);
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

mcs_process* TestDomain::join(const char* server, std::uint32_t node, void (*wake)(void*, void*),
                              void* context) {
  mcs_domain_options options{};
  options.name = "api";
  options.directory = directory_.c_str();
  options.size = bytes_;
  options.nodes = nodes_;
  options.node = node;
  options.server = server;
  mcs_callbacks callbacks{};
  callbacks.context = context;
  callbacks.wake = wake;
  char error[256] = "";
  mcs_process* process = mcs_join(&options, &callbacks, error, sizeof error);
  EXPECT_NE(process, nullptr) << error;
  if (process != nullptr) {
    process->wall_ms = now_ms;
    processes_.push_back(process);
  }
  return process;
}

void TestDomain::leave(mcs_process* process) {
  std::erase(processes_, process);
  mcs_leave(process);
}

TestPolicy::TestPolicy(std::initializer_list<std::string_view> directives)
    : policy_(mcs_policy_create()) {
  for (const std::string_view directive : directives) set(directive);
}

void TestPolicy::set(std::string_view directive) {
  std::istringstream words{std::string(directive)};
  std::string name;
  words >> name;
  std::vector<std::string> args;
  for (std::string word; words >> word;) args.push_back(word);
  std::vector<const char*> argv;
  for (const std::string& arg : args) argv.push_back(arg.c_str());
  char error[256] = "";
  EXPECT_EQ(mcs_policy_set(policy_, name.c_str(), argv.size(), argv.data(), error, sizeof error),
            MCS_OK)
      << directive << ": " << error;
}

Exchange::Exchange(mcs_process* process, const mcs_policy* policy, Request request, void* waiter)
    : process_(process), request_(std::move(request)) {
  ask_.policy = policy;
  ask_.method = text(request_.method);
  static const std::string kScheme = "http";
  ask_.scheme = text(kScheme);
  ask_.host = text(request_.host);
  ask_.target = text(request_.target);
  ask_.key = text(request_.key);
  ask_.client_address = text(request_.client);
  ask_.fields = own(request_.fields);
  ask_.field_count = request_.fields.size();
  ask_.flags = request_.flags;
  ask_.waiter = waiter;
  ask_.alloc = allocate;
  ask_.alloc_context = this;
}

Exchange::~Exchange() { close(); }

void* Exchange::allocate(void* context, std::size_t size) {
  auto& memory = static_cast<Exchange*>(context)->memory_;
  memory.push_back(std::make_unique<std::byte[]>(size));
  return memory.back().get();
}

const mcs_field* Exchange::own(const OwnedFields& fields) {
  kept_.push_back(std::make_unique<OwnedFields>(fields));
  auto* array = static_cast<mcs_field*>(allocate(this, fields.size() * sizeof(mcs_field) + 1));
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const auto& [name, value] = (*kept_.back())[i];
    array[i] = {text(name), text(value)};
  }
  return array;
}

void Exchange::take_response(const mcs_response& response) {
  reply_.status = response.status;
  reply_.cache_status = response.cache_status;
  reply_.length = response.body_length;
  reply_.refresh = response.refresh != 0;
  reply_.pinned = response.body_pinned != 0;
  reply_.fields.clear();
  for (std::size_t i = 0; i < response.field_count; ++i) {
    reply_.fields.emplace_back(owned(response.fields[i].name), owned(response.fields[i].value));
  }
  reply_.body.clear();
  for (std::size_t i = 0; i < response.body_count; ++i) {
    reply_.body.append(static_cast<const char*>(response.body[i].iov_base),
                       response.body[i].iov_len);
  }
  if (response.body_count > 0) {
    EXPECT_EQ(reply_.body.size(), response.body_length);
  }
  if (response.body_pinned != 0) {
    // As TLS would read it: in odd pieces.
    std::string copy(reply_.body.size(), '\0');
    for (std::size_t at = 0; at < copy.size(); at += 1000) {
      EXPECT_EQ(mcs_response_read(process_, &response, at, copy.data() + at,
                                  std::min<std::size_t>(1000, copy.size() - at)), 1);
    }
    EXPECT_EQ(copy, reply_.body);
  }
}

mcs_outcome Exchange::begin() {
  const mcs_outcome outcome = mcs_begin(process_, &ask_, &transaction_, &response_);
  EXPECT_EQ(transaction_ != nullptr,
            outcome == MCS_WAIT || outcome == MCS_FORWARD || outcome == MCS_FOLLOW);
  if (outcome == MCS_RESPONSE || outcome == MCS_FOLLOW) take_response(response_);
  reply_.declined = outcome == MCS_DECLINED;
  return outcome;
}

mcs_outcome Exchange::resume(unsigned flags) {
  const mcs_outcome outcome = mcs_resume(transaction_, flags, &response_);
  if (outcome == MCS_RESPONSE || outcome == MCS_FOLLOW) take_response(response_);
  return outcome;
}

mcs_outcome Exchange::retry() { return mcs_retry(transaction_, &response_); }

Request Exchange::forwarded() const {
  Request request = request_;
  for (std::size_t i = 0; i < response_.remove_count; ++i) {
    const std::string name = owned(response_.remove_fields[i]);
    std::erase_if(request.fields,
                  [&](const auto& field) { return http::equals_ignore_case(field.first, name); });
  }
  for (std::size_t i = 0; i < response_.add_count; ++i) {
    request.fields.emplace_back(owned(response_.add_fields[i].name),
                                owned(response_.add_fields[i].value));
  }
  return request;
}

mcs_verdict Exchange::head(int status, const OwnedFields& fields) {
  reply_.asked_origin = true;
  mcs_response answer{};
  const mcs_verdict verdict =
      mcs_origin_response(transaction_, status, own(fields), fields.size(), &answer);
  if (verdict == MCS_REPLACE || verdict == MCS_RETRY) {
    take_response(answer);
    mcs_response_release(process_, &answer);
    return verdict;
  }
  whole_body_to_client_ = answer.status == 0;
  const mcs_cache_status cache_status = answer.cache_status;
  if (answer.status == 0) {
    reply_.status = status;
    reply_.fields = fields;
    for (std::size_t i = 0; i < answer.field_count; ++i) {
      reply_.fields.emplace_back(owned(answer.fields[i].name), owned(answer.fields[i].value));
    }
    reply_.length = MCS_UNKNOWN_LENGTH;
  } else {
    take_response(answer);
  }
  reply_.cache_status = cache_status;
  return verdict;
}

bool Exchange::body(std::string_view bytes) {
  mcs_slice slice{};
  const bool storing = mcs_origin_body(transaction_, bytes.data(), bytes.size(), &slice) != 0;
  if (whole_body_to_client_) {
    EXPECT_EQ(slice.first, 0U);
    EXPECT_EQ(slice.count, bytes.size());
  }
  if (request_.method != "HEAD") reply_.body += bytes.substr(slice.first, slice.count);
  return storing;
}

bool Exchange::end(bool complete) {
  reply_.stored = mcs_origin_end(transaction_, complete ? 1 : 0) != 0;
  if (!complete) reply_.failed = true;
  if (complete && reply_.status != 0 && !whole_body_to_client_) {
    EXPECT_EQ(reply_.body.size(), reply_.length);
  }
  return reply_.stored;
}

mcs_verdict Exchange::failed(mcs_failure kind) {
  reply_.asked_origin = true;
  mcs_response answer{};
  const mcs_verdict verdict = mcs_origin_failed(transaction_, kind, &answer);
  if (verdict == MCS_REPLACE) {
    take_response(answer);
    mcs_response_release(process_, &answer);
  } else {
    reply_.failed = true;
    reply_.status = 502;
  }
  return verdict;
}

void Exchange::close() {
  mcs_response_release(process_, &response_);
  mcs_end(transaction_);
  transaction_ = nullptr;
}

mcs_follow Exchange::read(std::size_t chunk) {
  std::string buffer(chunk, '\0');
  for (;;) {
    std::size_t got = 0;
    const mcs_follow answer = mcs_follow_read(transaction_, buffer.data(), buffer.size(), &got);
    if (answer != MCS_FOLLOW_DATA) return answer;
    reply_.body.append(buffer, 0, got);
  }
}

mcs_outcome Exchange::follow_retry() { return mcs_follow_retry(transaction_, &response_); }

const Reply& Exchange::run(const Origin& origin) {
  mcs_outcome outcome = begin();
  for (unsigned i = 0; outcome == MCS_WAIT && i < 1000; ++i) outcome = resume();
  if (outcome == MCS_FOLLOW) {
    mcs_follow answer = MCS_FOLLOW_WAIT;
    while (answer == MCS_FOLLOW_WAIT) answer = read();
    reply_.failed = answer != MCS_FOLLOW_END;
  }
  while (outcome == MCS_FORWARD) {
    outcome = MCS_DECLINED;
    const auto answer = origin(forwarded());
    if (!answer) {
      failed(MCS_FAILED_CONNECT);
      break;
    }
    const mcs_verdict verdict = head(answer->status, answer->fields);
    if (verdict == MCS_RETRY) {
      outcome = retry();
      continue;
    }
    if (verdict == MCS_REPLACE) break;
    const std::string_view all = answer->body;
    const std::size_t chunk = answer->chunk == 0 ? std::max<std::size_t>(1, all.size())
                                                 : answer->chunk;
    for (std::size_t at = 0; at < all.size(); at += chunk) body(all.substr(at, chunk));
    end(!answer->cut_off);
  }
  close();
  return reply_;
}

Reply ask(mcs_process* process, const mcs_policy* policy, const Request& request,
          const Origin& origin) {
  Exchange exchange(process, policy, request);
  return exchange.run(origin);
}

Reply ask(mcs_process* process, const mcs_policy* policy, const Request& request,
          const Response& origin) {
  return ask(process, policy, request,
             [&](const Request&) -> std::optional<Response> { return origin; });
}

}  // namespace mcs::api::testing
