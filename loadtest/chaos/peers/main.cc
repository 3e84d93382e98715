// SPDX-License-Identifier: Apache-2.0
// mcs-peers: the worker that fetches a stale entry anew is killed on the way (nginx/nginx#880). What
// do nginx's proxy_cache and MCS answer afterwards?
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "loadtest/harness/http_client.h"
#include "loadtest/harness/nginx_server.h"
#include "loadtest/harness/origin.h"
#include "loadtest/harness/process.h"

namespace mcs::loadtest {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Outcome {
  std::string name;
  std::vector<std::string> statuses;  // of the requests after the kill
  size_t old_answers = 0;
  int fresh_after = -1;  // how many requests it took until the new content came; -1: it never did
  size_t origin_requests = 0;  // after the kill
};

struct Contender {
  std::string name;
  bool ours;
};

NginxOptions options_for(const Contender& contender, const Origin& origin, const TempDir& root,
                         const TempDir& cache) {
  NginxOptions options;
  options.document_root = root.path();
  options.workers = 1;
  options.log_level = "error";
  const std::string proxy = fmt::format("proxy_pass {};\n", origin.url());
  if (contender.ours) {
    options.mcs = McsOptions();
    options.mcs->domain = "peers";
    options.mcs->size = "64m";
    options.mcs->domain_arguments = "dir=" + cache.path().string();
    options.mcs->valid.clear();
    options.mcs->key_base.clear();
    options.mcs->cache_directives = {{"cache_use_stale", "error timeout updating"},
                                     {"cache_background_update", "off"}};
    options.location_extra = proxy;
  } else {
    options.http_extra = fmt::format("proxy_cache_path {} keys_zone=peers:1m;\n",
                                     (cache.path() / "proxy_cache").string());
    options.location_extra =
        proxy +
        "proxy_cache peers;\nproxy_cache_use_stale error timeout updating;\n"
        "add_header X-Mcs-Status $upstream_cache_status always;\n";
  }
  return options;
}

Result<Outcome> try_contender(const Contender& contender, int requests) {
  Origin origin;
  Gate gate;
  std::atomic<bool> held{false};
  std::atomic<bool> fresh{false};
  const std::string path = "/page";
  origin.on(path, [&](OriginExchange& exchange) {
    if (held && !exchange.wait(gate)) return;
    exchange.answer({200, {"Cache-Control: max-age=1"}, fresh ? "new" : "old"});
  });
  const TempDir root("peers");
  const TempDir cache("/dev/shm", "peers");
  std::filesystem::permissions(cache.path(), std::filesystem::perms::all);
  NginxServer server(options_for(contender, origin, root, cache));
  if (auto started = server.start(); !started) return tl::unexpected(started.error());
  HttpClient client;
  if (!client.get(server.url(path)) || client.get(server.url(path))->cache_status() != "HIT") {
    return fail("{} does not cache", contender.name);
  }
  // Somebody finds it expired and asks the origin, which does not answer.
  const size_t asked = origin.count(path);
  held = true;
  std::atomic<bool> stop{false};
  std::thread asker([&] {
    HttpClient own;
    while (!stop && origin.count(path) == asked) own.get(server.url(path));
  });
  const bool asking = origin.wait_for_requests(path, asked + 1, seconds(20));
  stop = true;
  const auto victims = server.worker_pids();
  for (const pid_t victim : victims) ::kill(victim, SIGKILL);
  asker.join();
  if (!asking || victims.empty()) return fail("{}: nobody asked the origin", contender.name);
  const bool replaced = wait_until(
      [&] {
        const auto now = server.worker_pids();
        return !now.empty() && now != victims;
      },
      seconds(20));
  if (!replaced) return fail("{}: no new worker", contender.name);

  held = false;
  fresh = true;
  gate.open();
  const size_t before = origin.count(path);
  Outcome outcome;
  outcome.name = contender.name;
  for (int i = 0; i < requests; ++i) {
    const auto answer = client.get(server.url(path));
    if (!answer) return tl::unexpected(answer.error());
    outcome.statuses.push_back(answer->cache_status());
    if (answer->body == "new") {
      if (outcome.fresh_after < 0) outcome.fresh_after = i + 1;
    } else {
      ++outcome.old_answers;
    }
    std::this_thread::sleep_for(milliseconds(100));  // so that they spread over several lifetimes
  }
  outcome.origin_requests = origin.count(path) - before;
  return outcome;
}

std::string summary(const std::vector<std::string>& statuses) {
  std::map<std::string, int> counts;
  for (const std::string& status : statuses) ++counts[status];
  std::string text;
  for (const auto& [status, count] : counts) {
    text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", count, status);
  }
  return text;
}

int run(int requests, const std::string& json_file) {
  std::fputs("A worker is killed while it fetches an expired entry anew; the origin then has new "
             "content (max-age=1).\n\n",
             stdout);
  nlohmann::json list = nlohmann::json::array();
  bool well = true;
  for (const Contender& contender :
       {Contender{"nginx proxy_cache", false}, Contender{"nginx with MCS", true}}) {
    const auto outcome = try_contender(contender, requests);
    if (!outcome) {
      std::fputs(fmt::format("mcs-peers: {}\n", outcome.error().message).c_str(), stderr);
      return 2;
    }
    const bool stuck = outcome->fresh_after < 0;
    std::fputs(fmt::format("{:<18} {}\n{:<18} {} ({} of {} requests answered with the old content; "
                           "{} requests to the origin)\n\n",
                           contender.name,
                           stuck ? "never fetched it again: stuck"
                                 : fmt::format("new content from request {} on", outcome->fresh_after),
                           "", summary(outcome->statuses), outcome->old_answers, requests,
                           outcome->origin_requests)
                   .c_str(),
               stdout);
    list.push_back({{"name", outcome->name},
                    {"stuck", stuck},
                    {"fresh_after", outcome->fresh_after},
                    {"old_answers", outcome->old_answers},
                    {"origin_requests", outcome->origin_requests},
                    {"statuses", outcome->statuses}});
    if (contender.ours && stuck) well = false;
  }
  if (!json_file.empty()) {
    const nlohmann::json json = {{"contenders", list}, {"requests", requests}};
    if (const auto saved = write_file(json_file, json.dump(2) + "\n"); !saved) {
      std::fputs(fmt::format("mcs-peers: {}\n", saved.error().message).c_str(), stderr);
      return 2;
    }
  }
  return well ? 0 : 1;
}

}  // namespace
}  // namespace mcs::loadtest

int main(int argc, char** argv) {
  CLI::App app{
      "Kills the worker that fetches an expired entry anew, in stock nginx with proxy_cache and in "
      "nginx with MCS,\nand shows what each answers afterwards (nginx/nginx#880).\n"
      "Exit status: 0 MCS fetched it again; 1 it did not; 2 it could not be tried."};
  int requests = 50;
  std::string json_file;
  app.add_option("--requests", requests, "requests after the kill, one every 100 ms")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app.add_option("--json", json_file, "write the results to FILE");
  CLI11_PARSE(app, argc, argv);
  try {
    return mcs::loadtest::run(requests, json_file);
  } catch (const std::exception& error) {
    std::fputs(fmt::format("mcs-peers: {}\n", error.what()).c_str(), stderr);
    return 2;
  }
}
