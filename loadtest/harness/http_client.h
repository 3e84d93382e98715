// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loadtest/harness/result.h"

namespace mcs::loadtest {

struct HttpRequest {
  std::string method = "GET";
  std::string url;
  std::vector<std::string> headers;  // "Name: value"; "Name:" removes one that libcurl would send
  std::string body;                  // sent when not empty
  bool http2 = false;                // by ALPN for https, with prior knowledge for http
  bool fresh_connection = false;     // do not reuse one
  bool path_as_is = true;            // leave "/../" and "/./" alone
  std::string coding;                // Accept-Encoding; what comes encoded so is decoded
  std::chrono::milliseconds timeout{10'000};
};

struct HttpResponse {
  int status = 0;
  int http_version = 0;  // 10, 11 or 20
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  bool new_connection = false;

  // The first field of this name without regard to case; empty if there is none.
  std::string header(std::string_view name) const;
  bool has_header(std::string_view name) const;
  // What $mcs_cache_status or mcs-cache-status said: HIT, MISS, …
  std::string cache_status() const { return header("X-Mcs-Status"); }
};

// An HTTP client for tests on libcurl: keeps connections alive between requests, verifies no
// certificate, follows no redirect, decodes a content coding only if told to. Not thread-safe.
class HttpClient {
 public:
  HttpClient();
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // An Error is a failure of the transport; every status is a response.
  Result<HttpResponse> send(const HttpRequest& request);
  Result<HttpResponse> get(const std::string& url, std::vector<std::string> headers = {});
  Result<HttpResponse> head(const std::string& url, std::vector<std::string> headers = {});

 private:
  void* handle_;
};

// The date of an HTTP field (RFC 9110, 5.6.7), for example "Sun, 06 Nov 1994 08:49:37 GMT".
std::string http_date(time_t time);

}  // namespace mcs::loadtest
