// SPDX-License-Identifier: Apache-2.0
#include "loadtest/proxied/stale.h"

#include "loadtest/harness/http_client.h"
#include "loadtest/proxied/pair.h"

namespace mcs::loadtest {

namespace {

double ms(uint64_t ns) { return static_cast<double>(ns) / 1e6; }

nlohmann::json summary(const TargetReport& report) {
  nlohmann::json cache;
  for (size_t i = 0; i < kCacheResults; ++i) {
    if (report.cache[i] != 0) cache[std::string(name_of(CacheResult(i)))] = report.cache[i];
  }
  return {{"requests", report.requests},
          {"failed", report.failed()},
          {"cache", cache},
          {"p50_ms", ms(report.latency.percentile(0.5))},
          {"p99_ms", ms(report.latency.percentile(0.99))},
          {"p999_ms", ms(report.latency.percentile(0.999))},
          {"max_ms", ms(report.latency.max())}};
}

class StaleCampaign {
 public:
  StaleCampaign(const StaleOptions& options, ProxiedPair& pair) : options_(options), pair_(pair) {}

  Result<void> prepare();
  Result<TargetReport> load(const std::string& directory, uint64_t seed);

 private:
  const StaleOptions& options_;
  ProxiedPair& pair_;
  TempDir files_{"mcs-stale"};
  FileSet set_;
};

Result<void> StaleCampaign::prepare() {
  const std::string body(options_.body_bytes, 'b');
  if (auto written = write_file(files_.path() / "object", body); !written) return written;
  if (auto added = set_.add_directory(files_.path(), "/"); !added) return added;
  pair_.origin().on("/fresh/object", {200, {"Cache-Control: max-age=600"}, body});
  pair_.origin().on("/stale/object", [this, body](OriginExchange& exchange) {
    if (exchange.request().number > 1) std::this_thread::sleep_for(options_.origin_delay);
    exchange.answer({200, {"Cache-Control: max-age=1, stale-while-revalidate=600"}, body});
  });
  HttpClient client;
  for (const char* path : {"/fresh/object", "/stale/object"}) {
    if (const auto got = client.get(pair_.servers()[0]->url(path), {"Host: stale"}); !got) {
      return tl::unexpected(got.error());
    }
  }
  return {};
}

Result<TargetReport> StaleCampaign::load(const std::string& directory, uint64_t seed) {
  const auto stream = uniform_stream(0, set_.size());
  LoadOptions load;
  for (const WebServer* server : pair_.servers()) {
    LoadTarget target;
    target.name = server->name();
    target.port = server->port();
    target.path_prefix = directory;
    load.targets.push_back(target);
  }
  load.files = &set_;
  load.stream = stream.get();
  load.connections = options_.connections;
  load.rate = options_.rate;
  load.seconds = options_.seconds;
  load.seed = seed;
  load.etag = EtagScope::kOff;
  const std::atomic<bool> stop{false};
  LiveCounters live;
  const LoadReport report = run_load(load, stop, live);
  if (report.not_sent != 0) {
    return fail("{} requests found no free connection: ask for a lower rate", report.not_sent);
  }
  return report.total();
}

}  // namespace

Result<StaleReport> run_stale(const StaleOptions& options,
                              const std::function<void(const StaleRound&)>& progress) {
  auto pair = ProxiedPair::start({});
  if (!pair) return tl::unexpected(pair.error());
  StaleCampaign campaign(options, **pair);
  if (auto prepared = campaign.prepare(); !prepared) return tl::unexpected(prepared.error());
  StaleReport report;
  for (int round = 0; round < options.rounds; ++round) {
    const uint64_t seed = options.seed + static_cast<uint64_t>(round);
    auto fresh = campaign.load("/fresh", seed);
    if (!fresh) return tl::unexpected(fresh.error());
    const size_t before = (*pair)->origin().count("/stale/object");
    auto stale = campaign.load("/stale", seed);
    if (!stale) return tl::unexpected(stale.error());
    report.rounds.push_back({*fresh, *stale, (*pair)->origin().count("/stale/object") - before});
    progress(report.rounds.back());
  }
  report.trouble = (*pair)->stop();
  return report;
}

nlohmann::json StaleReport::json() const {
  nlohmann::json list = nlohmann::json::array();
  for (const StaleRound& round : rounds) {
    list.push_back({{"fresh", summary(round.fresh)},
                    {"stale", summary(round.stale)},
                    {"origin_requests", round.origin_requests}});
  }
  return {{"rounds", list}, {"trouble", trouble}};
}

}  // namespace mcs::loadtest
