// SPDX-License-Identifier: Apache-2.0
#include "tests/ngx_mcs_module/proxy_fixture.h"

namespace mcs::loadtest {

NginxProxyTest::NginxProxyTest() {
  options().root_location = false;
  options().mcs->key_base.clear();
}

std::string NginxProxyTest::proxy_pass() const {
  return fmt::format("proxy_pass http://127.0.0.1:{}; mcs_cache on;\n", origin_.port()) +
         "add_header X-Mcs-Status $mcs_cache_status always;\n"
         "add_header X-Mcs-Key $mcs_cache_key always;\n"
         "add_header X-Mcs-Age $mcs_cache_age always;\n";
}

void NginxProxyTest::start_proxy(const std::string& location_lines,
                                 const std::string& server_lines) {
  options().server_extra =
      "location / {\n" + proxy_pass() + location_lines + "\n}\n" + server_lines;
  start();
}

OriginAnswer NginxProxyTest::fresh(const std::string& body, int max_age) {
  return {
      200, {fmt::format("Cache-Control: max-age={}", max_age), "Content-Type: text/plain"}, body};
}

RawConnection NginxProxyTest::open_get(const std::string& path, const std::string& fields) {
  auto connection = RawConnection::open(server_.port());
  EXPECT_TRUE(connection);
  // As HttpClient names it, so that the key is the same.
  EXPECT_TRUE(connection->send(fmt::format("GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{}\r\n", path,
                                           server_.port(), fields)));
  return std::move(*connection);
}

std::string NginxProxyTest::read_until(RawConnection& connection, const std::string& text) {
  std::string got;
  while (got.find(text) == std::string::npos) {
    const auto some = connection.read_some();
    if (!some || some->empty()) {
      ADD_FAILURE() << "the connection ended before \"" << text << "\" came, after: " << got;
      break;
    }
    got += *some;
  }
  return got;
}

std::vector<HttpResponse> NginxProxyTest::get_all(const std::string& path, size_t clients) {
  std::vector<HttpResponse> responses(clients);
  std::vector<std::thread> threads;
  for (HttpResponse& response : responses) {
    threads.emplace_back([&, this] {
      HttpClient client;
      auto got = client.get(server_.url(path));
      EXPECT_TRUE(got) << got.error().message;
      response = got.value_or(HttpResponse());
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return responses;
}

}  // namespace mcs::loadtest
