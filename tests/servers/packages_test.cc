// SPDX-License-Identifier: Apache-2.0
// What needs further packages of Debian. A real application: DokuWiki in php-fpm, behind both
// servers on one domain, beside an nginx without a cache. And nginx's brotli filter.
#include <pwd.h>
#include <unistd.h>

#include <deque>
#include <regex>
#include <set>

#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/net.h"
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWiki = "/usr/share/dokuwiki";
constexpr int kPages = 40;

class DokuWikiTest : public ServersTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(fs::exists(std::string(kWiki) + "/doku.php") && !php().empty())
        << "Debian's dokuwiki and php8.2-fpm are missing: `./mcs test --long` installs them";
    make_site();
    start_php();
    nginx_ = &start_nginx(true);
    httpd_ = &start_httpd();
    plain_ = &start_nginx(false);
  }

  static std::string php() { return find_program("php-fpm8.2"); }
  fs::path directory() const { return site_.path(); }
  void page(const std::string& name, const std::string& text) const {
    const fs::path file = directory() / "data/pages" / (name + ".txt");
    EXPECT_TRUE(write_file(file, text));
    give_away(file);
  }
  HttpResponse ask(const WebServer& server, const std::string& target,
                   const std::string& method = "GET") {
    HttpRequest request;
    request.method = method;
    request.url = server.url(target);
    request.headers = {"Host: wiki.test"};
    request.timeout = std::chrono::milliseconds(60'000);
    return send(request);
  }
  // Whatever a visitor without an account can reach by links, and what the pages consist of.
  std::vector<std::string> crawl();
  // Without what each rendering has anew.
  static std::string lasting(const std::string& body) {
    static const std::regex stamp(
        "taskrunner\\.php\\?id=[^\"&]*&amp;[0-9]+|[0-9]+-[0-9]+-[0-9]+T[0-9:+]+");
    return std::regex_replace(body, stamp, "");
  }

  WebServer* nginx_ = nullptr;
  WebServer* httpd_ = nullptr;
  WebServer* plain_ = nullptr;

 private:
  void give_away(const fs::path& path) const {
    const passwd* user = geteuid() == 0 ? getpwnam("www-data") : nullptr;
    if (user == nullptr) return;
    EXPECT_EQ(chown(path.c_str(), user->pw_uid, user->pw_gid), 0);
  }
  void make_site() const;
  void start_php();
  WebServer& start_nginx(bool cached);
  WebServer& start_httpd();

  TempDir site_{"mcs-wiki"};
  int php_port_ = free_port();
  ChildProcess php_;
};

void DokuWikiTest::make_site() const {
  for (const char* name : {"attic", "cache", "index", "locks", "log", "media", "media_attic",
                           "media_meta", "meta", "pages", "pages/wiki", "tmp"}) {
    fs::create_directories(directory() / "data" / name);
    give_away(directory() / "data" / name);
  }
  for (const auto& entry : fs::directory_iterator("/etc/dokuwiki")) {
    if (!entry.is_regular_file() || entry.path().filename() == "local.php") continue;
    fs::create_directories(directory() / "conf");
    fs::copy_file(entry.path(), directory() / "conf" / entry.path().filename());
  }
  ASSERT_TRUE(write_file(directory() / "conf/local.php",
                         "<?php\n$conf['title'] = 'A wiki';\n$conf['useacl'] = 0;\n"
                         "$conf['baseurl'] = 'http://wiki.test';\n$conf['savedir'] = '" +
                             directory().string() + "/data';\n"));
  ASSERT_TRUE(write_file(directory() / "prepend.php",
                         "<?php\ndefine('DOKU_MAIN_CONF', '" + directory().string() +
                             "/conf/');\ndefine('DOKU_CONF', DOKU_MAIN_CONF);\n"));
  fs::copy_file(std::string(kWiki) + "/lib/tpl/dokuwiki/images/logo.png",
                directory() / "data/media/logo.png", fs::copy_options::skip_existing);
  std::string list;
  for (int i = 0; i < kPages; ++i) {
    list += "  * [[wiki:page" + std::to_string(i) + "|Page " + std::to_string(i) + "]]\n";
    std::string text = "====== Page " + std::to_string(i) + " ======\n{{:logo.png?60|A logo}}\n";
    for (int section = 0; section < i; ++section) {
      text += "===== Section =====\nSome **bold** and //slanted// text, see [[wiki:page" +
              std::to_string(section) +
              "]].\n\n^ a ^ b ^\n| 1 | 2 |\n\n<code c>\nint main() {}\n"
              "</code>\n";
    }
    page("wiki/page" + std::to_string(i), text);
  }
  page("start", "====== Start ======\n{{:logo.png|The logo}}\n" + list);
}

void DokuWikiTest::start_php() {
  const std::string where = directory().string();
  std::string text = "[global]\nerror_log = " + where + "/php.log\ndaemonize = no\n[www]\n";
  if (geteuid() == 0) text += "user = www-data\ngroup = www-data\n";
  text += fmt::format(
      "listen = 127.0.0.1:{}\npm = static\npm.max_children = 4\n"
      "php_admin_value[auto_prepend_file] = {}/prepend.php\n"
      "php_admin_value[session.save_path] = {}/data/tmp\nphp_admin_flag[display_errors] = off\n",
      php_port_, where, where);
  ASSERT_TRUE(write_file(directory() / "php.conf", text));
  SpawnOptions options;
  options.stderr_file = directory() / "php.out";
  auto started = ChildProcess::start({php(), "-n", "-R", "-y", where + "/php.conf"}, options);
  ASSERT_TRUE(started) << started.error().message;
  php_ = std::move(*started);
  ASSERT_TRUE(wait_until([&] { return can_connect(php_port_); }, std::chrono::seconds(20)))
      << read_file(directory() / "php.out").value_or("");
}

// The wiki forbids to store its pages, because each visitor gets a session. Visitors without an
// account all see the same, though.
WebServer& DokuWikiTest::start_nginx(bool cached) {
  ServerOptions options = default_options();
  options.document_root = kWiki;
  options.root_location = false;
  if (!cached) options.mcs.reset();
  const std::string cache =
      "mcs_cache on;\nmcs_cache_key_base wiki;\nmcs_cache_purge on;\n"
      "mcs_cache_ignore_headers Cache-Control Expires Set-Cookie;\n"
      "mcs_cache_set_cookie strip;\nmcs_cache_valid 200 404 10m;\n"
      "mcs_cache_bypass $cookie_dokuwiki_user;\nmcs_cache_no_store $cookie_dokuwiki_user;\n"
      "add_header X-Mcs-Status $mcs_cache_status always;\n";
  if (cached) options.mcs->key_base.clear();
  options.server_extra = fmt::format(
      "index doku.php;\n{0}"
      "location ~ \\.php$ {{\n"
      "  fastcgi_pass 127.0.0.1:{1};\n  include /etc/nginx/fastcgi_params;\n"
      "  fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n}}\n",
      cached ? cache : "", php_port_);
  return start(kNginxType, options);
}

WebServer& DokuWikiTest::start_httpd() {
  ServerOptions options = default_options();
  options.document_root = kWiki;
  options.mcs->key_base = "wiki";
  options.mcs->valid = "200 404 10m";
  options.mcs->cache_directives = {{"cache_purge", "on"},
                                   {"cache_ignore_headers", "Cache-Control Expires Set-Cookie"},
                                   {"cache_set_cookie", "strip"}};
  for (const char* module : {"proxy", "proxy_fcgi", "setenvif"}) {
    options.main_extra +=
        fmt::format("LoadModule {0}_module /usr/lib/apache2/modules/mod_{0}.so\n", module);
  }
  options.main_extra += "SetEnvIf Cookie \"(^|; )dokuwiki_user=\" no-cache\n";
  options.server_extra = fmt::format(
      "DirectoryIndex doku.php\n<FilesMatch \"\\.php$\">\n"
      "  SetHandler \"proxy:fcgi://127.0.0.1:{}\"\n</FilesMatch>\n",
      php_port_);
  return start(kEventType, options);
}

std::vector<std::string> DokuWikiTest::crawl() {
  static const std::regex link("(?:href|src)=\"(/[^\"#]*)");
  std::vector<std::string> found = {"/doku.php?id=start", "/doku.php?id=not:there"};
  std::set<std::string> seen(found.begin(), found.end());
  for (size_t next = 0; next < found.size() && found.size() < 300; ++next) {
    const HttpResponse response = ask(*plain_, found[next]);
    if (!response.header("Content-Type").starts_with("text/html")) continue;
    for (std::sregex_iterator it(response.body.begin(), response.body.end(), link), end; it != end;
         ++it) {
      const std::string target = std::regex_replace((*it)[1].str(), std::regex("&amp;"), "&");
      // Other sites, forms, what the wiki does in the background, and its front page by another
      // name: each server has its own entry for an index.
      const bool other = target.starts_with("//") || target == "/" ||
                         target.find("do=") != std::string::npos ||
                         target.find("taskrunner") != std::string::npos;
      if (!other && seen.insert(target).second) found.push_back(target);
    }
  }
  return found;
}

TEST_F(DokuWikiTest, BrowsedThroughBothServersColdAndWarm) {
  const std::vector<std::string> targets = crawl();
  EXPECT_GT(targets.size(), static_cast<size_t>(kPages) + 5);
  const WebServer* servers[] = {nginx_, httpd_};
  double ms[2] = {};  // cold, warm
  const auto timed = [&](double& sum, const WebServer& server, const std::string& target) {
    const uint64_t begin = monotonic_ns();
    HttpResponse response = ask(server, target);
    sum += static_cast<double>(monotonic_ns() - begin) / 1e6;
    return response;
  };
  for (size_t i = 0; i < targets.size(); ++i) {
    SCOPED_TRACE(targets[i]);
    const HttpResponse plain = ask(*plain_, targets[i]);
    const HttpResponse cold = timed(ms[0], *servers[i % 2], targets[i]);
    EXPECT_EQ(cold.status, plain.status);
    EXPECT_EQ(cold.cache_status(), "MISS");
    // The servers know different types of files.
    const bool page = targets[i].find(".php") != std::string::npos;
    if (page) {
      EXPECT_EQ(cold.header("Content-Type"), plain.header("Content-Type"));
    }
    EXPECT_TRUE(lasting(cold.body) == lasting(plain.body));
    for (const WebServer* server : servers) {
      const HttpResponse warm = timed(ms[1], *server, targets[i]);
      EXPECT_EQ(warm.cache_status(), "HIT") << server->name();
      EXPECT_EQ(warm.status, plain.status);
      if (page) {
        EXPECT_EQ(warm.header("Content-Type"), plain.header("Content-Type"));
      }
      EXPECT_FALSE(warm.has_header("Set-Cookie"));
      EXPECT_TRUE(warm.body == cold.body) << server->name();
    }
  }
  const auto count = static_cast<double>(targets.size());
  fmt::print("{} addresses: cold {:.2f} ms each, warm {:.2f} ms each\n", targets.size(),
             ms[0] / count, ms[1] / count / 2);
}

TEST_F(DokuWikiTest, AnEditedPageIsPurgedFromBoth) {
  const std::string target = "/doku.php?id=wiki:page1";
  for (const WebServer* server : {nginx_, httpd_}) ask(*server, target);
  page("wiki/page1", "====== Edited ======\nnew text\n");
  EXPECT_EQ(ask(*nginx_, target).body.find("new text"), std::string::npos);
  EXPECT_EQ(ask(*httpd_, target, "PURGE").status, 200);
  for (const WebServer* server : {nginx_, httpd_}) {
    EXPECT_NE(ask(*server, target).body.find("new text"), std::string::npos) << server->name();
  }
  EXPECT_EQ(ask(*nginx_, target).cache_status(), "HIT");
}

TEST_F(ServersTest, BrotliFilterOfNginx) {
  const fs::path module = "/usr/lib/nginx/modules/ngx_http_brotli_filter_module.so";
  ASSERT_TRUE(fs::exists(module))
      << "libnginx-mod-http-brotli-filter is missing: `./mcs test --long` installs it";
  ServerOptions options = default_options();
  options.main_extra = "load_module " + module.string() + ";\n";
  options.location_extra = "brotli on; brotli_types *; brotli_min_length 1;\n";
  const WebServer& nginx = start(kNginxType, options);
  const WebServer& httpd = start(kEventType);
  const std::string body(100'000, 'a');
  write("a.txt", body);
  HttpRequest request;
  request.url = nginx.url("/a.txt");
  request.coding = "br";
  for (const char* status : {"MISS", "HIT"}) {
    const HttpResponse packed = send(request);
    EXPECT_EQ(packed.cache_status(), status);
    EXPECT_EQ(packed.header("Content-Encoding"), "br");
    EXPECT_TRUE(packed.body == body);
  }
  const HttpResponse plain = get(httpd, "/a.txt");
  EXPECT_EQ(plain.cache_status(), "HIT");
  EXPECT_TRUE(plain.body == body);
}

}  // namespace
}  // namespace mcs::loadtest
