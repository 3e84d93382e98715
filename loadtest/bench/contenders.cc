// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/contenders.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <random>

#include "loadtest/bench/internal/varnish_server.h"
#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/http_client.h"
#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/nginx_server.h"
#include "loadtest/harness/process.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;

namespace {

// As recent as a site's files are, but not so recent that a cache may distrust it.
constexpr time_t kFileAge = 24 * 3600;
// nginx takes no longer parameter in its configuration. Bytes.
constexpr size_t kLongestReturn = 4000;

NginxOptions nginx_options(const fs::path& root, int cpu) {
  NginxOptions options;
  options.document_root = root;
  options.workers = 1;
  options.cpus = {cpu};
  options.log_level = "error";
  return options;
}

HttpdOptions httpd_options(const fs::path& root, int cpu) {
  HttpdOptions options;
  options.document_root = root;
  options.workers = 1;
  options.max_processes = 1;
  options.threads_per_child = 128;
  options.cpus = {cpu};
  options.log_level = "error";
  return options;
}

McsOptions mcs_options(const std::string& domain) {
  McsOptions mcs;
  mcs.domain = domain;
  mcs.size.clear();
  mcs.key_base = "bench";
  // The peers send no such fields.
  mcs.status_header = false;
  mcs.cache_directives = {{"cache_status_header", "off"}};
  return mcs;
}

// Ours as it comes verifies bodies up to this size at every hit anyway. Bytes.
constexpr size_t kAlwaysVerified = 16 * 1024;

std::vector<size_t> larger_than(size_t bytes, const std::vector<size_t>& sizes) {
  std::vector<size_t> larger;
  std::copy_if(sizes.begin(), sizes.end(), std::back_inserter(larger),
               [&](size_t size) { return size > bytes; });
  return larger;
}

// Fields of `model` that nginx's `return` does not send by itself.
std::string add_header_lines(const HttpResponse& model) {
  std::string lines;
  for (const auto& [name, value] : model.headers) {
    const bool own = name == "Server" || name == "Date" || name == "Content-Type" ||
                     name == "Content-Length" || name == "Connection";
    if (!own) {
      std::string quoted;
      for (const char letter : value) {
        quoted += letter == '"' || letter == '\\' ? std::string{'\\', letter} : std::string{letter};
      }
      lines += fmt::format("add_header {} \"{}\";\n", name, quoted);
    }
  }
  return lines;
}

}  // namespace

Result<std::unique_ptr<HitContenders>> HitContenders::start(const std::vector<size_t>& sizes,
                                                            int server_cpu, bool varnish,
                                                            const std::string& family) {
  for (const char* module : {"ngx_mcs_module.so", "mod_mcs_apache.so"}) {
    if (module_file(module).empty()) {
      return fail("the module {} is not built: cmake --build build/release", module);
    }
  }
  std::unique_ptr<HitContenders> contenders(new HitContenders);
  contenders->cpu_ = server_cpu;
  contenders->sizes_ = sizes;
  if (auto written = contenders->write_files(sizes); !written) {
    return tl::unexpected(written.error());
  }
  DomainOptions domain;
  domain.name = fmt::format("mcs-bench-{}", getpid());
  domain.nodes = 1;
  domain.memory = "128M";
  domain.owner = geteuid() == 0 ? ServerOptions().user : "";
  auto up = Domain::up(domain);
  if (!up) {
    return tl::unexpected(up.error());
  }
  contenders->domain_.emplace(std::move(*up));
  const bool nginx = family != "httpd";
  if (auto added = nginx ? contenders->add_nginx() : Result<void>(); !added) {
    return tl::unexpected(added.error());
  }
  if (varnish && nginx) {
    if (auto added = contenders->add_varnish(); !added) {
      return tl::unexpected(added.error());
    }
  }
  const bool httpd = family != "nginx";
  if (auto added = httpd ? contenders->add_httpd() : Result<void>(); !added) {
    return tl::unexpected(added.error());
  }
  return contenders;
}

std::string HitContenders::path_of(size_t size) { return fmt::format("/{}.html", size); }

const std::string& HitContenders::body(size_t size) const {
  return bodies_[static_cast<size_t>(std::find(sizes_.begin(), sizes_.end(), size) -
                                     sizes_.begin())];
}

Result<void> HitContenders::write_files(const std::vector<size_t>& sizes) {
  // Letters and digits only: nginx's `return` takes its body from the configuration file.
  constexpr std::string_view kLetters =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
  std::mt19937 random(1);
  for (const size_t size : sizes) {
    std::string& text = bodies_.emplace_back(size, ' ');
    for (char& letter : text) {
      letter = kLetters[random() % kLetters.size()];
    }
    const fs::path file = root_.path() / path_of(size).substr(1);
    if (auto written = write_file(file, text); !written) {
      return written;
    }
    const time_t modified = time(nullptr) - kFileAge;
    const timespec times[2] = {{modified, 0}, {modified, 0}};
    utimensat(AT_FDCWD, file.c_str(), times, 0);
  }
  return {};
}

Result<void> HitContenders::add(Contender contender) {
  if (auto started = contender.server->start(); !started) {
    return fail("{}: {}", contender.name, started.error().message);
  }
  for (const size_t size : contender.sizes) {
    // The first answers fill caches.
    for (int i = 0; i < 3; ++i) {
      if (auto checked = check(contender, size); !checked) {
        return checked;
      }
    }
  }
  contenders_.push_back(std::move(contender));
  return {};
}

Result<void> HitContenders::add_nginx() {
  NginxOptions options = nginx_options(root_.path(), cpu_);
  options.mcs = mcs_options(domain_->name());
  Contender ours{"nginx-mcs", "nginx", true, sizes_, std::make_unique<NginxServer>(options)};
  if (auto added = add(std::move(ours)); !added) {
    return added;
  }

  HttpClient client;
  const auto model = client.get(contenders_.back().server->url(path_of(sizes_[0])));
  if (!model) {
    return tl::unexpected(model.error());
  }
  options.mcs->domain_arguments = "verify=always";
  Contender always{"nginx-mcs-always", "nginx", true, larger_than(kAlwaysVerified, sizes_),
                   std::make_unique<NginxServer>(options)};
  if (auto added = always.sizes.empty() ? Result<void>() : add(std::move(always)); !added) {
    return added;
  }
  options = nginx_options(root_.path(), cpu_);
  options.location_extra =
      add_header_lines(*model) + fmt::format("return 200 \"{}\";", body(sizes_[0]));
  if (sizes_[0] <= kLongestReturn) {
    Contender returns{
        "nginx-return", "nginx", false, {sizes_[0]}, std::make_unique<NginxServer>(options)};
    if (auto added = add(std::move(returns)); !added) {
      return added;
    }
  }

  options = nginx_options(root_.path(), cpu_);
  options.http_extra =
      "open_file_cache max=1000 inactive=1d; open_file_cache_valid 1d; "
      "open_file_cache_min_uses 1;";
  Contender files{"nginx-static", "nginx", false, sizes_, std::make_unique<NginxServer>(options)};
  if (auto added = add(std::move(files)); !added) {
    return added;
  }
  options.http_extra += " tcp_nopush on;";
  // A header alone in its packet matters only where the body comes by sendfile.
  Contender nopush{"nginx-nopush", "nginx", false, larger_than(kLongestReturn, sizes_),
                   std::make_unique<NginxServer>(options)};
  if (auto added = nopush.sizes.empty() ? Result<void>() : add(std::move(nopush)); !added) {
    return added;
  }

  // Its origin is needed for the first requests only; that the answers go on without it proves that
  // they are hits.
  NginxServer origin(nginx_options(root_.path(), cpu_));
  if (auto started = origin.start(); !started) {
    return started;
  }
  options = nginx_options(root_.path(), cpu_);
  options.http_extra = fmt::format(
      "proxy_cache_path {}/nginx levels=1:2 keys_zone=bench:10m inactive=1d use_temp_path=off;\n"
      "open_file_cache max=1000 inactive=1d; open_file_cache_valid 1d; "
      "open_file_cache_min_uses 1;",
      caches_.path().string());
  options.location_extra = fmt::format(
      "proxy_pass {}; proxy_cache bench; proxy_cache_key $uri; proxy_cache_valid 200 1d;\n"
      "proxy_hide_header Accept-Ranges; add_header Accept-Ranges bytes;",
      origin.url(""));
  Contender proxy{"nginx-proxy_cache", "nginx", false, sizes_,
                  std::make_unique<NginxServer>(options)};
  return add(std::move(proxy));
}

Result<void> HitContenders::add_varnish() {
  if (find_program("varnishd").empty()) {
    return fail("varnish is not installed: ./mcs bench installs it (or leave it out: hit without "
                "--varnish)");
  }
  NginxServer origin(nginx_options(root_.path(), cpu_));
  if (auto started = origin.start(); !started) {
    return started;
  }
  ServerOptions options;
  options.document_root = root_.path();
  options.cpus = {cpu_};
  // What proves that its answers are hits is, as with proxy_cache, that they go on without the origin.
  // The others keep no log, but as it comes it does, for whoever may read it.
  for (const auto& [name, logs] : {std::pair{"varnish", false}, std::pair{"varnish-logging", true}}) {
    Contender contender{name, "nginx", false, sizes_,
                        std::make_unique<VarnishServer>(options, origin.port(), logs)};
    if (auto added = add(std::move(contender)); !added) return added;
  }
  return {};
}

Result<void> HitContenders::wait_for_hits() const {
  for (const Contender& contender : contenders_) {
    for (const size_t size : contender.ours ? contender.sizes : std::vector<size_t>()) {
      const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      for (bool hit = false; !hit;) {
        const auto before = domain_hits();
        const auto fetched = field_names(contender, size);
        const auto after = domain_hits();
        if (!before || !fetched || !after) {
          return fail("cannot fill the cache of {}", contender.name);
        }
        hit = *after > *before;
        if (!hit && std::chrono::steady_clock::now() > give_up) {
          return fail("{} never answers a request for {} bytes with a hit", contender.name, size);
        }
      }
    }
  }
  return {};
}

Result<void> HitContenders::add_httpd() {
  HttpdOptions options = httpd_options(root_.path(), cpu_);
  options.mcs = mcs_options(domain_->name());
  // nginx has filled this key base; a hit would not tell who can fill.
  options.mcs->key_base = "bench-httpd";
  Contender ours{"httpd-mcs", "httpd", true, sizes_, std::make_unique<HttpdServer>(options)};
  if (auto added = add(std::move(ours)); !added) {
    return added;
  }
  options.mcs->domain_arguments = "verify=always";
  Contender always{"httpd-mcs-always", "httpd", true, larger_than(kAlwaysVerified, sizes_),
                   std::make_unique<HttpdServer>(options)};
  if (auto added = always.sizes.empty() ? Result<void>() : add(std::move(always)); !added) {
    return added;
  }

  // As it comes (files are mapped), and with sendfile, which httpd's manual advises to test first.
  options = httpd_options(root_.path(), cpu_);
  Contender files{"httpd-static", "httpd", false, sizes_, std::make_unique<HttpdServer>(options)};
  if (auto added = add(std::move(files)); !added) {
    return added;
  }
  options.main_extra = "EnableSendfile On\n";
  Contender sendfile{"httpd-sendfile", "httpd", false, sizes_,
                     std::make_unique<HttpdServer>(options)};
  if (auto added = add(std::move(sendfile)); !added) {
    return added;
  }

  // A module of its own that answers from its memory.
  options = httpd_options(root_.path(), cpu_);
  if (const fs::path module = module_file("mod_bare_handler.so"); !module.empty()) {
    options.main_extra = fmt::format("LoadModule bare_handler_module {}\n", module.string());
    for (const size_t size : sizes_) {
      options.main_extra +=
          fmt::format("BareBody {} {}{}\n", path_of(size), root_.path().string(), path_of(size));
    }
    Contender bare{"httpd-bare", "httpd", false, sizes_, std::make_unique<HttpdServer>(options)};
    if (auto added = add(std::move(bare)); !added) {
      return added;
    }
  }

  options = httpd_options(root_.path(), cpu_);
  const fs::path cache = caches_.path() / "httpd";
  std::error_code error;
  fs::create_directories(cache, error);
  fs::permissions(cache, fs::perms::all, error);
  options = httpd_options(root_.path(), cpu_);
  options.modules = {"cache", "cache_disk"};
  options.main_extra = fmt::format(
      "EnableSendfile On\nEnableMMAP On\nCacheEnable disk /\nCacheRoot {}\nCacheQuickHandler On\n"
      "CacheMaxFileSize 1000000000\nCacheDefaultExpire 86400\nCacheMinExpire 86400\n"
      "CacheMaxExpire 604800\nCacheIgnoreNoLastMod On\nCacheIgnoreCacheControl On\n",
      cache.string());
  Contender disk{"httpd-cache_disk", "httpd", false, sizes_,
                 std::make_unique<HttpdServer>(options)};
  if (auto added = add(std::move(disk)); !added) {
    return added;
  }
  HttpClient client;
  for (const size_t size : sizes_) {
    // It stores a response after it has sent it.
    const auto cached = [&] {
      const auto answer = client.get(contenders_.back().server->url(path_of(size)));
      return answer && answer->has_header("Age");
    };
    if (!wait_until(cached, std::chrono::seconds(20))) {
      return fail("httpd-cache_disk does not answer {} from its cache", path_of(size));
    }
  }
  return {};
}

Result<void> HitContenders::check(const Contender& contender, size_t size) const {
  HttpClient client;
  const auto answer = client.get(contender.server->url(path_of(size)));
  if (!answer) {
    return fail("{}: {}", contender.name, answer.error().message);
  }
  if (answer->status != 200 || answer->body != body(size)) {
    return fail("{} answers {} with status {} and {} bytes that are not the file's", contender.name,
                path_of(size), answer->status, answer->body.size());
  }
  return {};
}

Result<void> HitContenders::check() {
  for (const Contender& contender : contenders_) {
    for (const size_t size : contender.sizes) {
      if (auto checked = check(contender, size); !checked) {
        return checked;
      }
    }
  }
  return {};
}

Result<std::vector<std::string>> HitContenders::field_names(const Contender& contender,
                                                            size_t size) const {
  HttpClient client;
  const auto answer = client.get(contender.server->url(path_of(size)));
  if (!answer) {
    return tl::unexpected(answer.error());
  }
  std::vector<std::string> names;
  for (const auto& header : answer->headers) {
    names.push_back(header.first);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<uint64_t> HitContenders::domain_hits() const {
  const auto status = domain_->status();
  if (!status) {
    return tl::unexpected(status.error());
  }
  const auto statistics = status->find("statistics");
  if (statistics == status->end() || !statistics->contains("hits")) {
    return fail("mcsctl status does not say how many hits there were");
  }
  return statistics->at("hits").get<uint64_t>();
}

}  // namespace mcs::loadtest
