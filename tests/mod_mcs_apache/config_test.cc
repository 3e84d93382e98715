// SPDX-License-Identifier: Apache-2.0
// Directives: what configtest says, and where they may stand.
#include "loadtest/harness/origin.h"
#include "tests/mod_mcs_apache/httpd_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;

class HttpdConfigTest : public HttpdTest {
 protected:
  // The output of configtest, which must fail.
  std::string refused() {
    const auto check = server_.check_config();
    EXPECT_TRUE(check);
    EXPECT_FALSE(check->ok());
    return check->err;
  }
  void expect_accepted() {
    const auto check = server_.check_config();
    ASSERT_TRUE(check);
    EXPECT_TRUE(check->ok()) << check->err;
  }
};

TEST_F(HttpdConfigTest, CacheWithoutDomainNamesThePlaceAndTheRemedy) {
  options().main_extra = "LoadModule mcs_module " + options().mcs->module.string() + "\n";
  options().mcs.reset();
  options().server_extra = "McsCache On\n";
  EXPECT_THAT(refused(), AllOf(HasSubstr("McsCache On at "), HasSubstr("httpd.conf:"),
                               HasSubstr("McsDomain site size=256m")));
  options().server_extra = "McsCache Off\n";
  expect_accepted();
}

TEST_F(HttpdConfigTest, SecondDomainIsRefused) {
  options().server_extra = "McsDomain other\n";
  EXPECT_THAT(refused(), AllOf(HasSubstr("McsDomain is set already at "), HasSubstr(".conf:")));
}

TEST_F(HttpdConfigTest, DomainNeedsAName) {
  options().mcs->domain.clear();
  options().mcs->size.clear();
  options().mcs->domain_arguments.clear();
  EXPECT_THAT(refused(), HasSubstr("McsDomain needs a name"));
}

TEST_F(HttpdConfigTest, DomainIsForTheWholeServer) {
  options().main_extra = "LoadModule mcs_module " + options().mcs->module.string() + "\n";
  options().mcs.reset();
  options().server_extra = "<VirtualHost *:*>\n  McsDomain test\n</VirtualHost>\n";
  EXPECT_THAT(refused(), HasSubstr("McsDomain cannot occur within <VirtualHost> section"));
}

TEST_F(HttpdConfigTest, WrongRuleNamesDirectiveAndLine) {
  options().mcs->cache_directives = {{"cache_valid", "soon"}};
  EXPECT_THAT(refused(), AllOf(HasSubstr("Syntax error on line"), HasSubstr("McsCacheValid"),
                               HasSubstr("soon")));
  options().mcs->cache_directives = {{"cache", "Perhaps"}};
  EXPECT_THAT(refused(), HasSubstr("McsCache must be On or Off"));
}

TEST_F(HttpdConfigTest, EveryContextIsAccepted) {
  const std::string rules = "McsCache On\nMcsCacheValid 5s\nMcsCacheKeyBase x\n";
  options().server_extra = rules + "<VirtualHost *:*>\n" + rules + "<Location /a>\n" + rules +
                           "</Location>\n<Files *.txt>\n" + rules + "</Files>\n<If \"true\">\n" +
                           rules + "</If>\n</VirtualHost>\n";
  expect_accepted();
}

TEST_F(HttpdConfigTest, EveryDirectiveInEveryContext) {
  const std::string page =
      read_file(std::filesystem::path(getenv("MCS_CONF_DIR")) / "../../docs/directives.md").value_or("");
  std::string all;
  for (size_t at = page.find("` · `McsCache"); at != std::string::npos;
       at = page.find("` · `McsCache", at + 1)) {
    // Of the examples, not of the headings.
    if (page[at - 1] != ';') continue;
    const size_t first = page.find("McsCache", at);
    all += page.substr(first, page.find('`', first) - first) + "\n";
  }
  EXPECT_GT(std::count(all.begin(), all.end(), '\n'), 40);
  all += "McsCache On\nMcsCacheKey %{HTTP_HOST}%{REQUEST_URI}\n";
  options().mcs->cache_directives.clear();
  options().mcs->key_base.clear();
  options().server_extra = all;
  for (const char* section : {"VirtualHost *:*", "Directory /x", "DirectoryMatch x", "Location /x",
                              "LocationMatch x", "Files x", "If \"true\"", "Proxy *"}) {
    const std::string name(section, strcspn(section, " "));
    options().server_extra += "<" + std::string(section) + ">\n" + all + "</" + name + ">\n";
  }
  options().modules.push_back("proxy");
  expect_accepted();
}

// A .htaccess file may switch the cache; rules that are not about its pages are for the administrator.
TEST_F(HttpdConfigTest, Htaccess) {
  options().location_extra = "AllowOverride FileInfo\n";
  write("off/.htaccess", "McsCache Off\n");
  write("off/a.txt", "hello");
  write("rules/.htaccess", "McsCacheKeyBase other\n");
  write("rules/a.txt", "hello");
  start();
  for (int i = 0; i < 2; ++i) EXPECT_THAT(get("/off/a.txt").cache_status(), Not("HIT"));
  EXPECT_EQ(get("/off/a.txt").body, "hello");
  EXPECT_EQ(get("/rules/a.txt").status, 500);
  EXPECT_TRUE(server_.wait_for_log("McsCacheKeyBase not allowed here"));
}

// Its rules are read for each request, between those of sections that stay.
TEST_F(HttpdConfigTest, RulesOfHtaccess) {
  options().location_extra = "AllowOverride FileInfo\n";
  options().server_extra =
      "<Location /own>\n  McsCacheMaxRanges 3\n</Location>\n"
      "<Location /own/no>\n  McsCacheStatusHeader Off\n</Location>\n";
  write("own/a.txt", "hello");
  write("own/no/a.txt", "hello");
  write("a.txt", "hello");
  start();
  for (int i = 0; i < 30; ++i) {
    const std::string name = "name" + std::to_string(i);
    ASSERT_TRUE(write_file(root() / "own/.htaccess", "McsCacheStatusHeader " + name + "\n"));
    EXPECT_THAT(get("/own/a.txt").header("Cache-Status"), StartsWith(name + ";"));
    EXPECT_FALSE(get("/own/no/a.txt").has_header("Cache-Status"));
    EXPECT_FALSE(get("/a.txt").has_header("Cache-Status"));
  }
  get_hit("/own/a.txt");
}

TEST_F(HttpdConfigTest, RulesOfSectionsAreMerged) {
  write("on/a.txt", "a");
  write("on/off/a.txt", "a");
  write("on/off/on/a.txt", "a");
  options().mcs->cache_directives = {{"cache_status_header", "off"}};
  options().server_extra = "<Directory " + root().string() +
                           "/on>\n  McsCacheStatusHeader On\n</Directory>\n" + "<Directory " +
                           root().string() + "/on/off>\n  McsCache Off\n</Directory>\n" +
                           "<Location /on/off/on>\n  McsCache On\n</Location>\n";
  start();
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(get("/on/a.txt").has_header("Cache-Status"));
    EXPECT_FALSE(get("/on/off/a.txt").has_header("Cache-Status"));
    EXPECT_TRUE(get("/on/off/on/a.txt").has_header("Cache-Status"));
  }
}

TEST_F(HttpdConfigTest, RulesOfTheCoreAreDirectives) {
  options().server_extra =
      "McsCacheDefaultExpire 10m\nMcsCacheMaxExpire 1d\nMcsCacheIgnoreHeaders Set-Cookie\n"
      "McsCacheIgnoreQueryString On\nMcsCacheStaleOnError On\nMcsCacheMethods GET HEAD POST\n"
      "McsCachePurge 127.0.0.1 10.0.0.0/8\nMcsCacheKey \"%{HTTP_HOST}%{REQUEST_URI}\"\n"
      "McsCacheMinUses 2\nMcsCacheNegative 10s 404\nMcsCacheLockTimeout 2s\n";
  expect_accepted();
  for (const auto& [line, message] :
       {std::pair{"McsCacheDefaultExpire soon", "\"soon\" is no time"},
        {"McsCachePurge everybody", "\"everybody\" is no address"},
        {"McsCacheKey \"%{nothing:x}\"", "McsCacheKey"},
        {"McsCacheMethods DELETE", "cannot be cached"},
        {"McsCacheMinUses", "wrong number of arguments"}}) {
    options().server_extra = std::string(line) + "\n";
    EXPECT_THAT(refused(), AllOf(HasSubstr("Syntax error on line"), HasSubstr(message)));
  }
}

// An example with its paths and port, but nothing else, changed.
std::string example(const std::string& name,
                    std::vector<std::pair<std::string, std::string>> changes) {
  const std::filesystem::path examples = getenv("MCS_CONF_DIR");
  std::string text =
      read_file(examples / "mcs.conf").value_or("") + read_file(examples / name).value_or("");
  for (const auto& [from, to] : changes) {
    EXPECT_NE(text.find(from), std::string::npos) << from;
    for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
      text.replace(at, from.size(), to);
    }
  }
  return text;
}

TEST_F(HttpdConfigTest, ExampleOfAStaticSite) {
  options().main_extra = "LoadModule mcs_module " + options().mcs->module.string() + "\n";
  options().mcs.reset();
  options().server_extra =
      example("static-site.conf", {{"/var/www/html", root().string()},
                                   {"*:80", "*:*"},
                                   {"size=256m", "size=64m dir=" + domain_directory().string()},
                                   {"${APACHE_LOG_DIR}", server_.prefix().string()}});
  write("a.txt", "hello");
  write("private/a.txt", "secret");
  start();
  get("/a.txt");
  EXPECT_EQ(get("/a.txt").header("X-Cache"), "HIT");
  EXPECT_EQ(get("/private/a.txt").status, 403);
}

TEST_F(HttpdConfigTest, ExampleOfAReverseProxy) {
  Origin application;
  application.on("*", OriginAnswer{200, {}, "page"});
  options().modules = {"proxy", "proxy_http", "setenvif", "status", "authz_host"};
  options().main_extra = "LoadModule mcs_module " + options().mcs->module.string() + "\n";
  options().mcs.reset();
  options().server_extra =
      example("reverse-proxy.conf", {{"*:80", "*:*"},
                                     {"127.0.0.1:8080", application.url().substr(7)},
                                     {"size=256m", "size=64m dir=" + domain_directory().string()},
                                     {"${APACHE_LOG_DIR}", server_.prefix().string()}});
  start();
  EXPECT_EQ(get("/a?utm_source=x").header("X-Cache"), "MISS");
  const HttpResponse hit = get("/a");
  EXPECT_EQ(hit.header("X-Cache"), "HIT");
  EXPECT_EQ(hit.body, "page");
  EXPECT_THAT(hit.header("Cache-Status"), HasSubstr("hit"));
  EXPECT_EQ(get("/a", {"Cookie: a=b; session=1"}).header("X-Cache"), "BYPASS");
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(get("/server-status").body, HasSubstr("Server Status"));
    EXPECT_THAT(get("/server-status").header("X-Cache"), Not("HIT"));
  }
  HttpRequest purge;
  purge.method = "PURGE";
  purge.url = server_.url("/a");
  EXPECT_EQ(send(purge).status, 200);
  EXPECT_EQ(get("/a").header("X-Cache"), "MISS");
}

}  // namespace
}  // namespace mcs::loadtest
