// SPDX-License-Identifier: Apache-2.0
#include "loadtest/proxied/purge_storm.h"

#include <atomic>
#include <charconv>
#include <deque>
#include <mutex>
#include <random>
#include <thread>

#include "loadtest/harness/http_client.h"

namespace mcs::loadtest {

namespace {

using Random = std::mt19937_64;
using Clock = std::chrono::steady_clock;

constexpr const char* kHost = "Host: storm";
// Within an entry's first unit, in one extent, in several.
constexpr size_t kPadding[] = {100, 20'000, 200'000};

size_t draw(Random& random, size_t below) {
  return std::uniform_int_distribution<size_t>(0, below - 1)(random);
}

struct Object {
  std::string path;
  std::string tag;
  std::string padding;
  size_t group;
  size_t number;
  // Answers to requests from now on have at least this version.
  std::atomic<uint64_t> floor{1};
};

struct Purge {
  HttpRequest request;
  std::vector<Object*> met;
};

class PurgeStorm {
 public:
  PurgeStorm(const PurgeStormOptions& options, ProxiedPair& pair);
  PurgeStormReport run();

 private:
  void answer(OriginExchange& exchange);
  void read(uint64_t seed);
  void check(const Object& object, uint64_t floor, const HttpResponse& response);
  void purge(uint64_t seed);
  Purge draw_purge(Random& random);
  void note(size_t PurgeStormReport::*counter, const std::string& detail);

  const PurgeStormOptions& options_;
  ProxiedPair& pair_;
  std::deque<Object> objects_;
  std::atomic<uint64_t> version_{0};
  Clock::time_point end_;
  std::atomic<size_t> requests_{0};
  std::atomic<size_t> hits_{0};
  std::atomic<size_t> purges_{0};
  std::mutex mutex_;
  PurgeStormReport report_;
};

PurgeStorm::PurgeStorm(const PurgeStormOptions& options, ProxiedPair& pair)
    : options_(options), pair_(pair) {
  for (size_t group = 0; group < options.groups; ++group) {
    for (size_t number = 0; number < options.per_group; ++number) {
      Object& object = objects_.emplace_back();
      object.path = fmt::format("/g{}/{}", group, number);
      object.tag = fmt::format("t{}", number % options.groups);
      object.padding.assign(kPadding[objects_.size() % std::size(kPadding)],
                            static_cast<char>('a' + objects_.size() % 26));
      object.group = group;
      object.number = number;
      pair.origin().on(object.path, [this](OriginExchange& exchange) { answer(exchange); });
    }
  }
}

void PurgeStorm::note(size_t PurgeStormReport::*counter, const std::string& detail) {
  const std::lock_guard lock(mutex_);
  ++(report_.*counter);
  if (report_.details.size() < 10) report_.details.push_back(detail);
}

// The version is given out first, so that purges come while an older one is on its way.
void PurgeStorm::answer(OriginExchange& exchange) {
  const uint64_t version = ++version_;
  const std::string path = exchange.request().path();
  const auto object = std::find_if(objects_.begin(), objects_.end(),
                                   [&](const Object& o) { return o.path == path; });
  Random random(options_.seed ^ version);
  std::this_thread::sleep_for(options_.most_delay * draw(random, 1000) / 1000);
  exchange.answer({200,
                   {"Cache-Control: max-age=600", "Surrogate-Key: all " + object->tag},
                   fmt::format("{} {} {}", version, path, object->padding)});
}

void PurgeStorm::read(uint64_t seed) {
  Random random(seed);
  HttpClient client;
  while (Clock::now() < end_) {
    const Object& object = objects_[draw(random, objects_.size())];
    const WebServer& server = *pair_.servers()[draw(random, 2)];
    const uint64_t floor = object.floor;
    const auto response = client.get(server.url(object.path), {kHost});
    ++requests_;
    if (!response || response->status != 200) {
      note(&PurgeStormReport::failed,
           fmt::format("{} {}: {}", server.name(), object.path,
                       response ? std::to_string(response->status) : response.error().message));
      continue;
    }
    if (response->cache_status() == "HIT") ++hits_;
    check(object, floor, *response);
  }
}

void PurgeStorm::check(const Object& object, uint64_t floor, const HttpResponse& response) {
  uint64_t version = 0;
  const std::string& body = response.body;
  const auto [rest, error] = std::from_chars(body.data(), body.data() + body.size(), version);
  const std::string_view expected_rest(rest, static_cast<size_t>(body.data() + body.size() - rest));
  if (error != std::errc() || expected_rest != fmt::format(" {} {}", object.path, object.padding)) {
    note(&PurgeStormReport::wrong, fmt::format("{}: {} bytes that begin with \"{}\"", object.path,
                                               body.size(), body.substr(0, 40)));
  } else if (version < floor) {
    note(&PurgeStormReport::stale,
         fmt::format("{}: a {} of version {}, but {} were purged before it was asked for",
                     object.path, response.cache_status(), version, floor - 1));
  }
}

Purge PurgeStorm::draw_purge(Random& random) {
  const Object& example = objects_[draw(random, objects_.size())];
  Purge purge;
  purge.request.method = "PURGE";
  purge.request.headers = {kHost};
  std::function<bool(const Object&)> meets;
  std::string target = example.path;
  switch (draw(random, 8)) {
    case 0:  // a prefix
      target = fmt::format("/g{}/*", example.group);
      meets = [&](const Object& o) { return o.group == example.group; };
      break;
    case 1:  // a pattern
      target = fmt::format("/g*/{}", example.number);
      meets = [&](const Object& o) { return o.number == example.number; };
      break;
    case 2:
      purge.request.headers.push_back("Surrogate-Key: " + example.tag);
      meets = [&](const Object& o) { return o.tag == example.tag; };
      break;
    default:  // most often one key, so that there are hits
      meets = [&](const Object& o) { return &o == &example; };
  }
  purge.request.url = pair_.servers()[draw(random, 2)]->url(target);
  for (Object& object : objects_) {
    if (meets(object)) purge.met.push_back(&object);
  }
  return purge;
}

void PurgeStorm::purge(uint64_t seed) {
  Random random(seed);
  HttpClient client;
  const auto interval = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
      static_cast<double>(options_.purgers) / options_.purges_per_second));
  for (auto due = Clock::now(); due < end_; due += interval) {
    std::this_thread::sleep_until(due);
    const Purge purge = draw_purge(random);
    const uint64_t before = version_;
    const auto response = client.send(purge.request);
    ++purges_;
    if (!response || response->status != 200) {
      note(&PurgeStormReport::failed,
           fmt::format("PURGE {}: {}", purge.request.url,
                       response ? std::to_string(response->status) : response.error().message));
      continue;
    }
    for (Object* object : purge.met) {
      uint64_t floor = object->floor;
      while (floor <= before && !object->floor.compare_exchange_weak(floor, before + 1)) {
      }
    }
  }
}

PurgeStormReport PurgeStorm::run() {
  end_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                            std::chrono::duration<double>(options_.seconds));
  Random seeds(options_.seed);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < options_.readers; ++i) {
    threads.emplace_back([this, seed = seeds()] { read(seed); });
  }
  for (size_t i = 0; i < options_.purgers; ++i) {
    threads.emplace_back([this, seed = seeds()] { purge(seed); });
  }
  for (std::thread& thread : threads) thread.join();
  report_.requests = requests_;
  report_.hits = hits_;
  report_.purges = purges_;
  report_.origin_requests = pair_.origin().count();
  report_.trouble = pair_.stop();
  return report_;
}

}  // namespace

Result<PurgeStormReport> run_purge_storm(const PurgeStormOptions& options) {
  ProxiedPairOptions pair_options;
  pair_options.rules = {{"cache_purge", "on"}};
  auto pair = ProxiedPair::start(pair_options);
  if (!pair) return tl::unexpected(pair.error());
  return PurgeStorm(options, **pair).run();
}

nlohmann::json PurgeStormReport::json() const {
  return {{"requests", requests}, {"hits", hits},       {"origin_requests", origin_requests},
          {"purges", purges},     {"stale", stale},     {"wrong", wrong},
          {"failed", failed},     {"details", details}, {"trouble", trouble}};
}

}  // namespace mcs::loadtest
