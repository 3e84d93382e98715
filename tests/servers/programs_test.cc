// SPDX-License-Identifier: Apache-2.0
// Applications behind FastCGI, uwsgi and SCGI: cached as proxied responses are, by both servers.
// And nginx in front of httpd.
#include <sys/stat.h>

#include <sstream>

#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/httpd_server.h"
#include "loadtest/harness/net.h"
#include "tests/servers/responder.h"
#include "tests/servers/server_fixture.h"

namespace mcs::loadtest {
namespace {

struct Behind {
  const char* name;
  ResponderProtocol protocol;
  const char* nginx;  // prefix of its directives
  const char* httpd;  // module and scheme
};
constexpr Behind kFastCgi = {"fastcgi", ResponderProtocol::kFastCgi, "fastcgi", "fcgi"};
constexpr Behind kUwsgi = {"uwsgi", ResponderProtocol::kUwsgi, "uwsgi", "uwsgi"};
constexpr Behind kScgi = {"scgi", ResponderProtocol::kScgi, "scgi", "scgi"};

ProgramAnswer page(const ProgramRequest& request) {
  const std::string uri = request.get("REQUEST_URI");
  const std::string path = uri.substr(0, uri.find('?'));
  const std::string type = "Content-Type: text/html; charset=utf-8";
  const std::string fresh = "Cache-Control: max-age=600";
  const std::string number = std::to_string(request.number);
  if (path == "/large") return {200, {type, fresh}, bytes_of_size(500'000)};
  if (path == "/gone") return {410, {type, fresh}, "gone " + number};
  if (path == "/cookie") return {200, {type, "Set-Cookie: a=b"}, number};
  if (path == "/moved") return {301, {"Location: http://localhost/page", fresh}, number};
  if (path == "/lang") {
    return {200, {type, fresh, "Vary: Accept-Language"}, request.get("HTTP_ACCEPT_LANGUAGE")};
  }
  if (path == "/checked") {
    const bool same = request.get("HTTP_IF_NONE_MATCH") == "\"one\"";
    return {same ? 304 : 200,
            {type, "Cache-Control: max-age=0", "ETag: \"one\""},
            same ? "" : "body " + number};
  }
  return {200,
          {type, fresh, "X-Own: yes"},
          request.get("REQUEST_METHOD") + " " + uri + " " + request.body + " " + number};
}

class ProgramServersTest : public ServersTest {
 protected:
  WebServer& start(const ServerType& type, const Behind& behind, int port) {
    ServerOptions options = default_options();
    options.root_location = false;
    options.mcs->key_base.clear();
    if (type.kind == ServerKind::kNginx) {
      const std::string p = behind.nginx;
      options.server_extra = fmt::format("location / {{\n  {0}_pass 127.0.0.1:{1};\n", p, port) +
                             "  mcs_cache on;\n  mcs_cache_key_base site;\n  mcs_cache_purge on;\n"
                             "  add_header X-Mcs-Status $mcs_cache_status always;\n";
      for (const char* line : {"REQUEST_METHOD $request_method", "REQUEST_URI $request_uri",
                               "QUERY_STRING $query_string", "CONTENT_LENGTH $content_length",
                               "CONTENT_TYPE $content_type", "SERVER_PROTOCOL $server_protocol"}) {
        options.server_extra += "  " + p + "_param " + line + ";\n";
      }
      options.server_extra += "}\n";
    } else {
      for (const std::string module : {"proxy", behind.httpd}) {
        const std::string name = module == "proxy" ? module : "proxy_" + module;
        options.main_extra +=
            "LoadModule " + name + "_module /usr/lib/apache2/modules/mod_" + name + ".so\n";
      }
      options.server_extra = fmt::format("ProxyPass / {}://127.0.0.1:{}/\n", behind.httpd, port) +
                             "<Location \"/\">\n  McsCache On\n  McsCacheKeyBase site\n"
                             "  McsCachePurge On\n</Location>\n";
    }
    return ServersTest::start(type, options);
  }
};

class ProgramsTest : public ProgramServersTest,
                     public testing::WithParamInterface<std::pair<ServerType, Behind>> {};
INSTANTIATE_TEST_SUITE_P(
    Behind, ProgramsTest,
    testing::Values(std::pair(kNginxType, kFastCgi), std::pair(kNginxType, kUwsgi),
                    std::pair(kNginxType, kScgi), std::pair(kEventType, kFastCgi),
                    std::pair(kWorkerType, kUwsgi), std::pair(kPreforkType, kScgi)),
    [](const auto& pair) { return pair.param.first.name + "_" + pair.param.second.name; });

TEST_P(ProgramsTest, AreCachedAsTheySay) {
  const auto& [type, behind] = GetParam();
  Responder responder(behind.protocol, page);
  const WebServer& server = start(type, behind, responder.port());
  const HttpResponse hit = get_hit(server, "/page?a=1");
  EXPECT_EQ(hit.status, 200);
  EXPECT_EQ(hit.body, "GET /page?a=1  1");
  EXPECT_EQ(hit.header("Content-Type"), "text/html; charset=utf-8");
  EXPECT_EQ(hit.header("X-Own"), "yes");
  EXPECT_EQ(hit.header("Content-Length"), std::to_string(hit.body.size()));
  EXPECT_TRUE(hit.has_header("Date"));
  EXPECT_EQ(get(server, "/page?a=2").body, "GET /page?a=2  1");
  const HttpResponse head = client_.head(server.url("/page?a=1")).value_or(HttpResponse());
  EXPECT_EQ(head.cache_status(), "HIT");
  const HttpResponse part = get(server, "/page?a=1", {"Range: bytes=4-8"});
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, "/page");
  EXPECT_EQ(responder.count("/page?a=1"), 1u);

  EXPECT_TRUE(get_hit(server, "/large").body == bytes_of_size(500'000));
  EXPECT_EQ(get_hit(server, "/gone").status, 410);
  EXPECT_EQ(get_hit(server, "/moved").header("Location"), "http://localhost/page");
  for (const char* number : {"1", "2"}) EXPECT_EQ(get(server, "/cookie").body, number);
  for (const std::string language : {"de", "fr"}) {
    EXPECT_EQ(get_hit(server, "/lang", {"Accept-Language: " + language}).body, language);
  }
  EXPECT_EQ(responder.count("/lang"), 2u);
}

TEST_P(ProgramsTest, AreAskedWhetherSomethingHasChanged) {
  const auto& [type, behind] = GetParam();
  Responder responder(behind.protocol, page);
  const WebServer& server = start(type, behind, responder.port());
  EXPECT_EQ(get(server, "/checked").body, "body 1");
  for (int i = 0; i < 2; ++i) {
    const HttpResponse again = get(server, "/checked");
    EXPECT_EQ(again.status, 200);
    EXPECT_EQ(again.body, "body 1");
    EXPECT_EQ(again.cache_status(), "REVALIDATED");
  }
  EXPECT_EQ(get(server, "/checked", {"If-None-Match: \"one\""}).status, 304);

  get_hit(server, "/page");
  HttpRequest post;
  post.method = "POST";
  post.url = server.url("/page");
  post.body = "form";
  EXPECT_EQ(send(post).body, "POST /page form 2");
  const HttpResponse after = get(server, "/page");  // the POST has invalidated it
  EXPECT_EQ(after.cache_status(), "MISS");
  EXPECT_EQ(after.body, "GET /page  3");
  HttpRequest purge;
  purge.method = "PURGE";
  purge.url = server.url("/page");
  EXPECT_EQ(send(purge).status, 200);
  EXPECT_EQ(get(server, "/page").body, "GET /page  4");
}

TEST_F(ProgramServersTest, WhatOneFetchesTheOtherHits) {
  Responder responder(ResponderProtocol::kFastCgi, page);
  const WebServer* servers[] = {&start(kNginxType, kFastCgi, responder.port()),
                                &start(kEventType, kFastCgi, responder.port())};
  for (int filler = 0; filler < 2; ++filler) {
    const std::string path = "/page?" + std::to_string(filler);
    const HttpResponse miss = get(*servers[filler], path, {"Host: site"});
    EXPECT_EQ(miss.cache_status(), "MISS");
    const HttpResponse hit = get(*servers[1 - filler], path, {"Host: site"});
    EXPECT_EQ(hit.cache_status(), "HIT");
    EXPECT_EQ(hit.body, "GET " + path + "  1");
    for (const char* field : {"Content-Type", "X-Own", "Cache-Control"}) {
      EXPECT_EQ(hit.header(field), miss.header(field)) << field;
    }
    EXPECT_EQ(responder.count(path), 1u);
  }
}

// An example with its paths and ports, but nothing else, changed.
std::string example(const std::string& name,
                    const std::vector<std::pair<std::string, std::string>>& changes) {
  std::string text;
  std::istringstream names(name);
  for (std::string part; names >> part;) {
    text += read_file(std::filesystem::path(getenv("MCS_CONF_DIR")) / part).value_or("");
  }
  for (const auto& [from, to] : changes) {
    EXPECT_NE(text.find(from), std::string::npos) << from;
    for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
      text.replace(at, from.size(), to);
    }
  }
  return text;
}

TEST_F(ServersTest, ExampleOfNginxInFrontOfHttpd) {
  const TempDir programs("mcs-cgi");
  const std::filesystem::path runs = programs.path() / "runs";
  ASSERT_TRUE(write_file(runs, ""));
  chmod(runs.c_str(), 0666);
  ASSERT_TRUE(
      write_file(programs.path() / "page", "#!/bin/sh\necho run >> " + runs.string() +
                                               "\necho Content-Type: text/plain\necho\n"
                                               "echo \"$QUERY_STRING for $HTTP_HOST, $(wc -l < " +
                                               runs.string() + ")\"\n"));
  chmod((programs.path() / "page").c_str(), 0755);
  write("a.txt", "hello");
  write("private/a.txt", "secret");

  ServerOptions options = default_options();
  const std::filesystem::path module = module_file("mod_mcs_apache.so");
  options.mcs.reset();
  options.root_location = false;
  const std::string back_address = "127.0.0.1:" + std::to_string(free_port());
  const std::string domain = "size=64m dir=" + domain_directory().string();
  auto& back = dynamic_cast<HttpdServer&>(add(kEventType, options));
  back.options().modules = {"cgid", "setenvif", "authz_host"};
  back.options().main_extra = "LoadModule mcs_module " + module.string() + "\nScriptSock " +
                              back.prefix().string() + "/cgisock\n";
  back.options().server_extra = example("apache2/mcs.conf apache2/behind-nginx.conf",
                                        {{"127.0.0.1:8080", back_address},
                                         {"/var/www/html", root().string()},
                                         {"/usr/lib/cgi-bin", programs.path().string()},
                                         {"size=256m", domain}});
  start(back);
  const std::string front_address = "127.0.0.1:" + std::to_string(free_port());
  options.main_extra = "load_module " + module_file("ngx_mcs_module.so").string() + ";\n";
  options.http_extra = example("nginx/front.conf", {{"listen 80", "listen " + front_address},
                                                    {"127.0.0.1:8080", back_address},
                                                    {"/var/www/html", root().string()},
                                                    {"size=256m", domain}});
  start(kNginxType, options);

  const auto ask = [&](const std::string& address, const std::string& path,
                       const std::string& method = "GET") {
    HttpRequest request;
    request.method = method;
    request.url = "http://" + address + path;
    request.headers = {"Host: www.example.org"};
    return send(request);
  };
  const std::string page = "a for www.example.org, 1\n";
  const HttpResponse miss = ask(front_address, "/app/page?a");
  EXPECT_EQ(miss.body, page);
  EXPECT_EQ(miss.header("X-Cache"), "MISS");
  for (const std::string& address : {front_address, back_address}) {
    const HttpResponse hit = ask(address, "/app/page?a");
    EXPECT_EQ(hit.header("X-Cache"), "HIT") << address;
    EXPECT_EQ(hit.body, page);
  }
  EXPECT_EQ(ask(back_address, "/app/page?b").header("X-Cache"), "MISS");
  EXPECT_EQ(ask(front_address, "/app/page?b").header("X-Cache"), "HIT");
  EXPECT_EQ(ask(back_address, "/app/page?a", "PURGE").status, 200);
  EXPECT_EQ(ask(front_address, "/app/page?a").body, "a for www.example.org, 3\n");
  EXPECT_EQ(ask(front_address, "/app/page?a", "PURGE").status, 200);
  EXPECT_EQ(ask(back_address, "/app/page?a").header("X-Cache"), "MISS");

  EXPECT_EQ(ask(front_address, "/a.txt").header("X-Cache"), "MISS");
  EXPECT_EQ(ask(back_address, "/a.txt").header("X-Cache"), "HIT");
  EXPECT_EQ(ask(front_address, "/private/a.txt").status, 403);
  EXPECT_EQ(ask(back_address, "/private/a.txt").status, 403);
}

}  // namespace
}  // namespace mcs::loadtest
