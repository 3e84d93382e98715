// SPDX-License-Identifier: Apache-2.0
// mcs-send-loss: the segment is lost while large responses are on their way out of it, in nginx and httpd,
// plain, TLS, HTTP/2 and gzip. Every response must be the file to its last byte, or be visibly cut: an error
// of the transfer, and what came before it the file's first bytes.
#include <curl/curl.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/http_client.h"
#include "loadtest/harness/nginx_server.h"
#include "loadtest/harness/temp_dir.h"

namespace {

using namespace mcs::loadtest;
namespace fs = std::filesystem;

enum Way { kPlain, kTls, kHttp2, kGzip, kWays };
constexpr std::array<const char*, kWays> kWayNames = {"plain", "tls", "http2", "gzip"};

struct Options {
  unsigned responses = 1000;  // of each server, plain and TLS; a tenth of them HTTP/2 and gzip
  unsigned at_once = 50;
  std::size_t bytes = 8'000'000;
  std::uint64_t seed = 0;
  std::string json_file;
};

struct Count {
  std::uint64_t lost_under_way = 0;  // not complete when the segment was taken away
  std::uint64_t exact = 0;
  std::uint64_t aborted = 0;
  std::uint64_t wrong = 0;  // a wrong byte, or short without an error
  std::uint64_t hung = 0;
};

// One request that stops reading after some bytes, until it may go on.
class Transfer {
 public:
  Transfer(const WebServer& server, Way way, const std::string& body, std::size_t pause_at)
      : way_(way), body_(body), pause_at_(pause_at), handle_(curl_easy_init()) {
    const bool tls = way == kTls || way == kHttp2;
    url_ = tls ? server.tls_url("/long.txt") : server.url("/long.txt");
    curl_easy_setopt(handle_, CURLOPT_URL, url_.c_str());
    curl_easy_setopt(handle_, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(handle_, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(handle_, CURLOPT_PRIVATE, this);
    curl_easy_setopt(handle_, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(handle_, CURLOPT_SSL_VERIFYHOST, 0L);
    curl_easy_setopt(handle_, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle_, CURLOPT_BUFFERSIZE, 16384L);
    curl_easy_setopt(handle_, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(handle_, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(handle_, CURLOPT_HTTP_VERSION,
                     way == kHttp2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1);
    if (way == kGzip) curl_easy_setopt(handle_, CURLOPT_ACCEPT_ENCODING, "gzip");
    curl_easy_setopt(handle_, CURLOPT_SOCKOPTFUNCTION, on_socket);
  }
  ~Transfer() { curl_easy_cleanup(handle_); }
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  CURL* handle() const { return handle_; }
  Way way() const { return way_; }
  bool paused() const { return paused_; }
  bool done() const { return done_; }
  void finish(CURLcode code) {
    code_ = code;
    done_ = true;
  }
  void go_on() {
    pause_at_ = SIZE_MAX;
    if (!paused_) return;
    paused_ = false;
    curl_easy_pause(handle_, CURLPAUSE_CONT);
  }
  void count(Count& count) const {
    if (!done_) {
      ++count.hung;
    } else if (wrong_) {
      ++count.wrong;
    } else if (code_ != CURLE_OK) {
      ++count.aborted;
    } else {
      ++(received_ == body_.size() ? count.exact : count.wrong);
    }
  }

 private:
  static int on_socket(void*, curl_socket_t fd, curlsocktype) {
    const int bytes = 65536;
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    return CURL_SOCKOPT_OK;
  }
  static std::size_t on_bytes(char* data, std::size_t, std::size_t n, void* self) {
    auto& t = *static_cast<Transfer*>(self);
    if (t.received_ >= t.pause_at_) {
      t.paused_ = true;
      return CURL_WRITEFUNC_PAUSE;
    }
    if (t.received_ + n > t.body_.size() ||
        std::memcmp(t.body_.data() + t.received_, data, n) != 0) {
      t.wrong_ = true;
    }
    t.received_ += n;
    return n;
  }

  Way way_;
  const std::string& body_;
  std::size_t pause_at_;
  CURL* handle_;
  std::string url_;
  std::size_t received_ = 0;
  CURLcode code_ = CURLE_OK;
  bool paused_ = false;
  bool done_ = false;
  bool wrong_ = false;
};

using Counts = std::array<std::array<Count, kWays>, 2>;

class Round {
 public:
  Round(const Options& options, const fs::path& site, const std::string& body, std::mt19937_64& random)
      : options_(options), body_(body), random_(random) {
    ServerOptions common;
    common.document_root = site;
    common.tls = true;
    common.http2 = true;
    common.mcs.emplace();
    common.mcs->domain = "loss";
    common.mcs->size = "192m";
    common.mcs->valid = "1h";
    common.mcs->domain_arguments = "dir=" + domains_.path().string();
    fs::permissions(domains_.path(), fs::perms::all);
    NginxOptions nginx{common, 4096, ""};
    nginx.server_extra = "gzip on; gzip_types text/plain; gzip_min_length 1000;";
    HttpdOptions httpd;
    static_cast<ServerOptions&>(httpd) = common;
    httpd.threads_per_child = 64;
    httpd.workers = httpd.max_processes = 4;
    httpd.modules = {"deflate", "filter"};
    httpd.server_extra = "AddOutputFilterByType DEFLATE text/plain\n";
    nginx_ = std::make_unique<NginxServer>(nginx);
    httpd_ = std::make_unique<HttpdServer>(httpd);
  }

  Result<void> run(const std::array<unsigned, kWays>& wanted, Counts& counts) {
    std::array<WebServer*, 2> servers = {nginx_.get(), httpd_.get()};
    for (WebServer* server : servers) {
      if (auto started = server->start(); !started) return started;
    }
    HttpClient client;
    for (WebServer* server : servers) {
      const auto warmed = [&] {
        const auto response = client.get(server->url("/long.txt"));
        return response && response->cache_status() == "HIT" && response->body == body_;
      };
      if (!wait_until(warmed, std::chrono::seconds(20))) {
        return fail("{}: the file does not become a hit", server->name());
      }
    }
    CURLM* multi = curl_multi_init();
    std::array<std::vector<std::unique_ptr<Transfer>>, 2> transfers;
    for (std::size_t s = 0; s < servers.size(); ++s) {
      for (int way = 0; way < kWays; ++way) {
        for (unsigned i = 0; i < wanted[static_cast<std::size_t>(way)]; ++i) {
          // Compressed all of it is on its way soon: stop early.
          const std::size_t most = way == kGzip ? body_.size() / 8 : body_.size() / 4;
          transfers[s].push_back(std::make_unique<Transfer>(*servers[s], static_cast<Way>(way), body_,
                                                            random_() % most));
          curl_multi_add_handle(multi, transfers[s].back()->handle());
        }
      }
    }
    const auto all = [&](auto&& test) {
      return std::all_of(transfers.begin(), transfers.end(), [&](const auto& list) {
        return std::all_of(list.begin(), list.end(), [&](const auto& t) { return test(*t); });
      });
    };
    drive(multi, [&] { return all([](const Transfer& t) { return t.paused() || t.done(); }); }, 30);
    for (std::size_t s = 0; s < 2; ++s) {
      for (const auto& t : transfers[s]) {
        if (!t->done()) ++counts[s][t->way()].lost_under_way;
      }
    }
    // Some go on just before, so that bytes move in the very moment.
    for (const auto& list : transfers) {
      for (const auto& t : list) {
        if (random_() % 2 == 0) t->go_on();
      }
    }
    int running = 0;
    for (std::uint64_t turns = random_() % 40; turns > 0; --turns) curl_multi_perform(multi, &running);
    unsigned lost = 0;
    for (const auto& file : fs::recursive_directory_iterator(domains_.path())) {
      if (!file.path().filename().string().starts_with("segment.")) continue;
      fs::resize_file(file.path(), 0);
      ++lost;
    }
    if (lost != 1) return fail("{} segments were there to be lost", lost);
    for (const auto& list : transfers) {
      for (const auto& t : list) t->go_on();
    }
    drive(multi, [&] { return all([](const Transfer& t) { return t.done(); }); }, 60);
    for (std::size_t s = 0; s < 2; ++s) {
      for (const auto& t : transfers[s]) {
        t->count(counts[s][t->way()]);
        curl_multi_remove_handle(multi, t->handle());
      }
      transfers[s].clear();
    }
    curl_multi_cleanup(multi);
    for (WebServer* server : servers) {
      const auto after = client.get(server->url("/long.txt"));
      if (!after || after->body != body_) trouble.push_back(fmt::format("{} does not serve any more", server->name()));
      if (const auto stopped = server->stop(); !stopped) trouble.push_back(stopped.error().message);
      std::istringstream log(server->error_log());
      for (std::string line; std::getline(log, line);) {
        for (const char* sign : {"exit signal", "core dumped", "exited on signal"}) {
          if (line.find(sign) != std::string::npos) trouble.push_back(line);
        }
      }
    }
    return {};
  }

  std::vector<std::string> trouble;

 private:
  template <typename Test>
  void drive(CURLM* multi, Test&& until, int seconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    while (!until() && std::chrono::steady_clock::now() < end) {
      int running = 0;
      curl_multi_perform(multi, &running);
      int left = 0;
      while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
        if (message->msg != CURLMSG_DONE) continue;
        Transfer* transfer = nullptr;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
        transfer->finish(message->data.result);
      }
      curl_multi_poll(multi, nullptr, 0, 20, nullptr);
    }
  }

  const Options& options_;
  const std::string& body_;
  std::mt19937_64& random_;
  TempDir domains_{"/dev/shm", "mcs-send-loss"};
  std::unique_ptr<NginxServer> nginx_;
  std::unique_ptr<HttpdServer> httpd_;
};

int run(const Options& options) {
  std::mt19937_64 random(options.seed);
  TempDir site("mcs-send-loss-site");
  std::string body;
  // Text that can be compressed, but not to nothing.
  while (body.size() < options.bytes) body += fmt::format("{:016x} {}\n", random(), body.size());
  body.resize(options.bytes);
  if (auto written = write_file(site.path() / "long.txt", body); !written) {
    fmt::print(stderr, "mcs-send-loss: {}\n", written.error().message);
    return 2;
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(2200));
  Counts counts{};
  std::vector<std::string> trouble;
  const auto enough = [&] {
    for (const auto& server : counts) {
      if (server[kPlain].lost_under_way < options.responses || server[kTls].lost_under_way < options.responses) {
        return false;
      }
    }
    return true;
  };
  unsigned losses = 0;
  for (; !enough() && losses < 4 * options.responses / options.at_once + 4; ++losses) {
    const unsigned few = std::max(1U, options.at_once / 10);
    Round round(options, site.path(), body, random);
    if (auto done = round.run({options.at_once, options.at_once, few, few}, counts); !done) {
      fmt::print(stderr, "mcs-send-loss: {}\n", done.error().message);
      if (losses == 0) return 2;
      trouble.push_back(done.error().message);
      break;
    }
    trouble.insert(trouble.end(), round.trouble.begin(), round.trouble.end());
  }
  nlohmann::json servers;
  bool well = trouble.empty() && enough();
  for (std::size_t s = 0; s < 2; ++s) {
    const char* name = s == 0 ? "nginx" : "httpd";
    for (std::size_t way = 0; way < kWays; ++way) {
      const Count& c = counts[s][way];
      well = well && c.wrong == 0 && c.hung == 0;
      fmt::print("{} {:<6} {:>5} under way: {:>5} exact, {:>5} aborted, {} wrong, {} hung\n", name,
                 kWayNames[way], c.lost_under_way, c.exact, c.aborted, c.wrong, c.hung);
      servers[name][kWayNames[way]] = {{"under_way", c.lost_under_way}, {"exact", c.exact},
                                       {"aborted", c.aborted},          {"wrong", c.wrong},
                                       {"hung", c.hung}};
    }
  }
  for (const std::string& line : trouble) fmt::print("trouble: {}\n", line);
  fmt::print("seed {}: {} losses, {}\n", options.seed, losses, well ? "all as it must be" : "NOT as it must be");
  if (!options.json_file.empty() &&
      !write_file(options.json_file, nlohmann::json{{"seed", options.seed},
                                                    {"losses", losses},
                                                    {"servers", servers},
                                                    {"trouble", trouble},
                                                    {"ok", well}}
                                             .dump(2) +
                                         "\n")) {
    fmt::print(stderr, "cannot write {}: choose a writable file\n", options.json_file);
    return 2;
  }
  return well ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"The segment is lost while large responses are being sent. The exit status is 0 if each "
               "response was the file to its last byte or visibly cut."};
  Options options;
  app.add_option("--responses", options.responses, "of each server, plain and TLS")->capture_default_str();
  app.add_option("--at-once", options.at_once, "on their way when the segment is lost")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--bytes", options.bytes, "of each response")->capture_default_str();
  app.add_option("--seed", options.seed, "of where clients stand; 0 draws one");
  app.add_option("--json", options.json_file, "write the results to this file");
  CLI11_PARSE(app, argc, argv);
  if (options.seed == 0) options.seed = 1 + std::random_device{}() % 1000000;
  curl_global_init(CURL_GLOBAL_DEFAULT);
  return run(options);
}
