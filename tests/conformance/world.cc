// SPDX-License-Identifier: Apache-2.0
#include "tests/conformance/world.h"

#include <fmt/format.h>
#include <strings.h>

#include <algorithm>
#include <charconv>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/net.h"
#include "loadtest/harness/nginx_server.h"

namespace mcs::conformance {

using loadtest::OriginAnswer;
using loadtest::OriginExchange;
using loadtest::OriginRequest;
using loadtest::ServerKind;

namespace {

constexpr std::string_view kHost = "cache.test";

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

std::string_view name_of(std::string_view field) { return field.substr(0, field.find(':')); }

std::string_view value_of(std::string_view field) {
  const size_t colon = field.find(':');
  const size_t at = field.find_first_not_of(' ', colon + 1);
  return at == std::string_view::npos ? std::string_view() : field.substr(at);
}

void replace_all(std::string& text, std::string_view what, std::string_view with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size()) {
    text.replace(at, what.size(), with);
  }
}

// All fields of this name, joined as RFC 9110 5.3 allows.
std::optional<std::string> joined(const std::vector<std::pair<std::string, std::string>>& fields,
                                  std::string_view name) {
  std::optional<std::string> value;
  for (const auto& field : fields) {
    if (same_name(field.first, name)) value = value ? *value + ", " + field.second : field.second;
  }
  return value;
}

bool matches(const std::optional<std::string>& value, std::string_view wanted) {
  if (!value) return false;
  if (wanted == "*") return true;
  if (wanted.starts_with('~')) return value->find(wanted.substr(1)) != std::string::npos;
  const size_t dots = wanted.find("..");
  long low = 0;
  long high = 0;
  long number = 0;
  const auto parse = [](std::string_view text, long& to) {
    const auto end = text.data() + text.size();
    return !text.empty() && std::from_chars(text.data(), end, to).ptr == end;
  };
  if (dots != std::string_view::npos && parse(wanted.substr(0, dots), low) &&
      parse(wanted.substr(dots + 2), high)) {
    return parse(*value, number) && number >= low && number <= high;
  }
  return *value == wanted;
}

// Servers name themselves, keep connections and add defaults as they like; httpd writes dates
// and Vary in its own way.
bool is_of_the_server(std::string_view name) {
  for (const char* own : {"Server", "Date", "Connection", "Keep-Alive", "Content-Type",
                          "Transfer-Encoding", "Content-Length", "Age", "X-Mcs-Status", "Upgrade",
                          "Cache-Status", "Accept-Ranges", "Expires", "Last-Modified", "Vary"}) {
    if (same_name(name, own)) return true;
  }
  return false;
}

std::string shown(const std::string& body) {
  constexpr size_t kReadable = 200;
  if (body.size() <= kReadable) return body;
  return fmt::format("{}... ({} bytes)", body.substr(0, 20), body.size());
}

// Without what depends on the moment: the number after "ttl=", and whether a fill was still on its
// way to its last byte ("collapsed") or just finished ("hit") when the next client came.
std::string without_moment(std::string text) {
  for (const char* begin : {"; fwd=uri-miss; collapsed", "; fwd=vary-miss; collapsed"}) {
    if (const size_t at = text.find(begin); at != std::string::npos) {
      text.replace(at, std::string_view(begin).size(), "; hit");
    }
  }
  if (const size_t at = text.find("ttl="); at != std::string::npos) {
    const size_t digits = at + 4;
    text.erase(digits, text.find_first_not_of("-0123456789", digits) - digits);
  }
  return text;
}

}  // namespace

// One case on one server.
struct World::Run {
  const Case* c = nullptr;
  ServerKind kind = ServerKind::kNginx;
  std::string base;
  time_t start = 0;
  size_t step = 0;  // from 0
  std::vector<OriginRequest> requests;
  size_t requests_before = 0;  // those of earlier steps
  std::vector<size_t> stored;  // steps whose answer the origin sent in full, in order

  std::string fit(std::string text) const {
    replace_all(text, "{base}", base);
    replace_all(text, "{host}", kHost);
    return text;
  }
  Fields fit(const Fields& fields) const {
    Fields result;
    for (const std::string& field : fields) {
      const std::string_view value = value_of(field);
      if (value.starts_with('@')) {
        const long offset = std::stol(std::string(value.substr(1)));
        result.push_back(
            fmt::format("{}: {}", name_of(field), loadtest::http_date(start + offset)));
      } else {
        result.push_back(fit(field));
      }
    }
    return result;
  }
  std::string body_of(size_t number) const {
    const Step& step_there = c->steps[number];
    return step_there.origin_body.value_or(fmt::format("body of step {}", number + 1));
  }
};

// What came of one request.
struct World::Seen {
  std::string error;  // of the connection
  int status = 0;
  std::vector<std::pair<std::string, std::string>> fields;
  std::string body;
  std::vector<OriginRequest> requests;  // that the origin got meanwhile
};

World::World() : root_("mcs-www"), domain_("/dev/shm", "mcs-test") {
  origin_.on("*", [this](OriginExchange& exchange) { answer(exchange); });
  start(ServerKind::kNginx);
  start(ServerKind::kHttpd);
}

void World::start(ServerKind kind) {
  loadtest::ServerOptions options;
  options.document_root = root_.path();
  options.root_location = false;
  options.mcs.emplace();
  options.mcs->domain = "test";
  options.mcs->size = "64m";
  options.mcs->domain_arguments = "dir=" + domain_.path().string();
  options.mcs->key_base.clear();
  const std::string origin = fmt::format("http://127.0.0.1:{}", origin_.port());
  if (kind == ServerKind::kNginx) {
    options.server_extra = fmt::format(
        "location / {{\n  proxy_pass {};\n  mcs_cache on;\n  mcs_cache_purge on;\n"
        "  mcs_cache_key_port off;\n  mcs_cache_status_header on;\n  add_header X-Mcs-Status $mcs_cache_status always;\n}}\n",
        origin);
    nginx_ = loadtest::make_server(kind, options);
  } else {
    options.server_extra = fmt::format(
        "AllowEncodedSlashes NoDecode\nProxyPass / {}/ nocanon\n<Location \"/\">\n  McsCache On\n"
        "  McsCachePurge On\n  McsCacheKeyPort Off\n  McsCacheStatusHeader On\n</Location>\n",
        origin);
    loadtest::HttpdOptions httpd;
    static_cast<loadtest::ServerOptions&>(httpd) = options;
    httpd.mpm = "event";
    httpd.modules = {"proxy", "proxy_http"};
    httpd_ = std::make_unique<loadtest::HttpdServer>(httpd);
  }
  loadtest::WebServer& started = server(kind, false);
  if (const auto done = started.start(); !done) throw std::runtime_error(done.error().message);
}

loadtest::WebServer& World::server(ServerKind kind, bool other) const {
  return (kind == ServerKind::kNginx) != other ? *nginx_ : *httpd_;
}

std::vector<std::string> World::stop() {
  std::vector<std::string> trouble;
  for (loadtest::WebServer* server : {nginx_.get(), httpd_.get()}) {
    if (const auto stopped = server->stop(); !stopped) trouble.push_back(stopped.error().message);
    std::istringstream log(server->error_log());
    for (std::string line; std::getline(log, line);) {
      for (const char* sign : {"[alert]", "exit signal", "core dumped", "Sanitizer"}) {
        if (line.find(sign) != std::string::npos) trouble.push_back(line);
      }
    }
  }
  return trouble;
}

void World::answer(OriginExchange& exchange) {
  std::unique_lock lock(mutex_);
  Run* const run = running_;
  // The path of a case ends with a slash or the target's own first character.
  if (run == nullptr || exchange.request().target.find(run->base) != 0) {
    lock.unlock();
    exchange.answer({404, {}, "no case asks for this now\n"});
    return;
  }
  run->requests.push_back(exchange.request());
  changed_.notify_all();
  const Step step = run->c->steps[run->step];
  OriginAnswer answer;
  answer.status = step.origin_status;
  answer.headers = run->fit(step.origin_fields);
  answer.body = run->body_of(run->step);
  answer.framing = step.chunked ? OriginAnswer::kChunked : OriginAnswer::kLength;
  const bool conditional = exchange.request().has_header("If-None-Match") ||
                           exchange.request().has_header("If-Modified-Since");
  if (step.answers_304 && conditional) {
    answer.status = 304;
  } else if (exchange.request().method != "HEAD") {
    run->stored.push_back(run->step);
  }
  const auto date = std::find_if(answer.headers.begin(), answer.headers.end(),
                                 [](const auto& f) { return same_name(name_of(f), "Date"); });
  if (date == answer.headers.end()) {
    answer.headers.push_back("Date: " + loadtest::http_date(time(nullptr)));
  } else if (value_of(*date) == "-") {
    answer.headers.erase(date);
  }
  const std::string raw_answer = run->fit(step.raw_answer);
  lock.unlock();
  if (step.breaks_off) {
    exchange.reset();
  } else if (!raw_answer.empty()) {
    exchange.send_raw(raw_answer);
  } else {
    exchange.answer(answer);
  }
}

World::Seen World::ask(Run& run, const Step& step) {
  Seen seen;
  {
    const std::lock_guard lock(mutex_);
    run.requests_before = run.requests.size();
  }
  loadtest::WebServer& to = server(run.kind, step.elsewhere);
  if (step.clients > 1) {
    ask_at_once(run, step, seen);
  } else if (!step.raw_request.empty()) {
    auto connection = loadtest::RawConnection::open(to.port());
    if (!connection || !connection->send(run.fit(step.raw_request))) {
      seen.error = "cannot send";
    } else if (auto got = connection->read_response(step.method == "HEAD"); !got) {
      seen.error = got.error().message;
    } else {
      seen.status = got->status;
      seen.fields = got->headers;
      seen.body = got->body;
    }
  } else {
    loadtest::HttpRequest request;
    request.method = step.method;
    request.url = to.url(run.base + run.fit(step.target));
    request.headers = run.fit(step.request);
    request.body = step.content;
    const bool has_host = std::any_of(request.headers.begin(), request.headers.end(),
                                      [](const auto& f) { return same_name(name_of(f), "Host"); });
    if (!has_host) request.headers.push_back(fmt::format("Host: {}", kHost));
    if (auto got = client_.send(request); !got) {
      seen.error = got.error().message;
    } else {
      seen.status = got->status;
      seen.fields = got->headers;
      seen.body = got->body;
    }
  }
  std::unique_lock lock(mutex_);
  if (step.refreshes) {
    const bool asked = changed_.wait_for(lock, std::chrono::seconds(10),
                                         [&] { return run.requests.size() > run.requests_before; });
    if (!asked) seen.error = "the origin was not asked behind the response";
  }
  seen.requests.assign(run.requests.begin() + static_cast<long>(run.requests_before),
                       run.requests.end());
  return seen;
}

// The same GET by many, half of them through the other server; what one of them saw, or an error.
void World::ask_at_once(Run& run, const Step& step, Seen& seen) {
  std::vector<std::thread> threads;
  std::mutex mutex;
  for (int i = 0; i < step.clients; ++i) {
    threads.emplace_back([&, i] {
      loadtest::HttpClient client;
      const loadtest::WebServer& to = server(run.kind, i % 2 == 1);
      const auto got = client.get(to.url(run.base + step.target), {fmt::format("Host: {}", kHost)});
      const std::lock_guard lock(mutex);
      if (!got) {
        seen.error = got.error().message;
      } else if (seen.status != 0 && (got->status != seen.status || got->body != seen.body)) {
        seen.error = "clients got different responses";
      } else {
        seen.status = got->status;
        seen.body = got->body;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void World::judge(Run& run, const Step& step, const Seen& seen,
                  std::vector<std::string>& failures) {
  const auto fail = [&](const std::string& text) { failures.push_back(text); };
  if (!seen.error.empty()) {
    if (!step.lost) fail(seen.error);
    return;
  }
  const int asked = static_cast<int>(seen.requests.size());
  if (step.asks && (*step.asks < 0 ? asked == 0 : asked != *step.asks)) {
    fail(fmt::format("the origin was asked {} times, expected {} ({})", asked, *step.asks,
                     joined(seen.fields, "Cache-Status").value_or("no Cache-Status")));
  }
  std::vector<size_t> stored;
  {
    const std::lock_guard lock(mutex_);
    stored = run.stored;
  }
  const size_t source = step.body_of > 0  ? static_cast<size_t>(step.body_of - 1)
                        : !stored.empty() ? stored.back()
                                          : run.step;
  const int status = step.status != 0 ? step.status : run.c->steps[source].origin_status;
  if (seen.status != status && !step.lost)
    fail(fmt::format("status {}, expected {}", seen.status, status));
  if (!step.any_body && !step.lost) {
    const bool bodiless = step.method == "HEAD" || status == 204 || status == 304 ||
                          status == 412 || status == 416 || (status >= 500 && step.status != 0);
    const std::string wanted = step.body.value_or(bodiless ? "" : run.body_of(source));
    const bool own_page = bodiless && status >= 412 && !step.body;  // servers have their own
    if (!own_page && seen.body != wanted) {
      fail(fmt::format("body \"{}\", expected \"{}\"", shown(seen.body), shown(wanted)));
    }
  }
  for (const std::string& field : run.fit(step.has)) {
    const auto value = joined(seen.fields, name_of(field));
    if (!matches(value, value_of(field))) {
      fail(fmt::format("response has {}: {}, expected {}", name_of(field), value.value_or("(none)"),
                       value_of(field)));
    }
  }
  for (const std::string& name : step.lacks) {
    if (const auto value = joined(seen.fields, name)) {
      fail(fmt::format("response has {}: {}, expected none", name, *value));
    }
  }
  if (step.reaches.empty() && step.hides.empty()) return;
  if (seen.requests.empty()) return fail("nothing reached the origin");
  const OriginRequest& request = seen.requests.front();
  for (const std::string& field : run.fit(step.reaches)) {
    const auto value = joined(request.headers, name_of(field));
    if (!matches(value, value_of(field))) {
      fail(fmt::format("the origin got {}: {}, expected {}", name_of(field),
                       value.value_or("(none)"), value_of(field)));
    }
  }
  for (const std::string& name : step.hides) {
    if (const auto value = joined(request.headers, name)) {
      fail(fmt::format("the origin got {}: {}, expected none", name, *value));
    }
  }
}

Verdict World::run(const Case& c, size_t index, ServerKind kind, time_t now) {
  Run run;
  run.c = &c;
  run.kind = kind;
  run.base = fmt::format("/{}{}-", kind == ServerKind::kNginx ? 'n' : 'a', index);
  run.start = now;
  {
    const std::lock_guard lock(mutex_);
    running_ = &run;
  }
  Verdict verdict;
  for (size_t i = 0; i < c.steps.size(); ++i) {
    const Step& step = c.steps[i];
    {
      const std::lock_guard lock(mutex_);
      run.step = i;
    }
    Seen seen;
    std::vector<std::string> failures;
    const auto attempt = [&] {
      failures.clear();
      seen = ask(run, step);
      judge(run, step, seen, failures);
      return failures.empty();
    };
    if (step.in_the_end) {
      loadtest::wait_until(attempt, std::chrono::seconds(10));
    } else {
      attempt();
    }
    for (const std::string& failure : failures) {
      verdict.failures.push_back(fmt::format("step {}: {}", i + 1, failure));
    }
    if (step.lost) {
      // Servers refuse nonsense each in its own way.
      verdict.transcript.push_back(fmt::format("step {}: not compared", i + 1));
      continue;
    }
    std::string line = fmt::format("step {}: {} \"{}\"", i + 1, seen.status,
                                   seen.status < 400 && !step.any_body ? shown(seen.body) : "");
    // What the origin says at this moment passes through a server that changes it as it likes.
    const bool from_cache = seen.requests.empty() || step.answers_304;
    std::vector<std::string> names;
    for (const auto& [name, value] : seen.fields) {
      if (from_cache && !is_of_the_server(name)) names.push_back(name + ": " + value);
    }
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) line += " | " + name;
    line += " || " + without_moment(joined(seen.fields, "Cache-Status").value_or("-")) + " ||";
    // mod_proxy lets clients ask again when a kept connection to the origin breaks.
    const bool any_number = step.asks && *step.asks < 0;
    for (const OriginRequest& request : seen.requests) {
      if (any_number) break;
      line += fmt::format(" {} {}{}", request.method, request.target,
                          request.has_header("If-None-Match")       ? " (tag)"
                          : request.has_header("If-Modified-Since") ? " (date)"
                                                                    : "");
    }
    replace_all(line, run.base, "");
    verdict.transcript.push_back(std::move(line));
  }
  const std::lock_guard lock(mutex_);
  running_ = nullptr;
  return verdict;
}

}  // namespace mcs::conformance
