// SPDX-License-Identifier: Apache-2.0
#include "loadtest/harness/http_client.h"

#include <curl/curl.h>
#include <strings.h>

#include <ctime>
#include <stdexcept>

namespace mcs::loadtest {

namespace {

size_t take_body(char* data, size_t size, size_t count, void* response) {
  static_cast<HttpResponse*>(response)->body.append(data, size * count);
  return size * count;
}

size_t take_header(char* data, size_t size, size_t count, void* target) {
  auto& response = *static_cast<HttpResponse*>(target);
  std::string_view line(data, size * count);
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) {
    line.remove_suffix(1);
  }
  if (line.starts_with("HTTP/")) {
    response.headers.clear();  // of an interim response
  } else if (const size_t colon = line.find(':'); colon != std::string_view::npos) {
    const std::string_view name = line.substr(0, colon);
    line.remove_prefix(colon + 1);
    while (!line.empty() && line.front() == ' ') {
      line.remove_prefix(1);
    }
    response.headers.emplace_back(name, line);
  }
  return size * count;
}

}  // namespace

std::string HttpResponse::header(std::string_view name) const {
  for (const auto& [field, value] : headers) {
    if (field.size() == name.size() && strncasecmp(field.data(), name.data(), name.size()) == 0) {
      return value;
    }
  }
  return {};
}

bool HttpResponse::has_header(std::string_view name) const {
  for (const auto& field : headers) {
    if (field.first.size() == name.size() &&
        strncasecmp(field.first.data(), name.data(), name.size()) == 0) {
      return true;
    }
  }
  return false;
}

HttpClient::HttpClient() : handle_(curl_easy_init()) {
  if (handle_ == nullptr) {
    throw std::runtime_error("libcurl cannot be initialised");
  }
}

HttpClient::~HttpClient() { curl_easy_cleanup(handle_); }

Result<HttpResponse> HttpClient::send(const HttpRequest& request) {
  CURL* const curl = handle_;
  curl_easy_reset(curl);  // keeps its connections
  HttpResponse response;
  curl_slist* headers = nullptr;
  for (const std::string& header : request.headers) {
    headers = curl_slist_append(headers, header.c_str());
  }
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &response);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &response);
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(request.timeout.count()));
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
  curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
  curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
  curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, request.path_as_is ? 1L : 0L);
  curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, request.fresh_connection ? 1L : 0L);
  if (!request.coding.empty()) {
    curl_easy_setopt(curl, CURLOPT_ACCEPT_ENCODING, request.coding.c_str());
  }
  const bool tls = request.url.starts_with("https:");
  curl_easy_setopt(curl, CURLOPT_HTTP_VERSION,
                   !request.http2 ? CURL_HTTP_VERSION_1_1
                   : tls          ? CURL_HTTP_VERSION_2TLS
                                  : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
  if (request.method == "HEAD") {
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  } else {
    if (!request.body.empty()) {
      curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE,
                       static_cast<curl_off_t>(request.body.size()));
      curl_easy_setopt(curl, CURLOPT_COPYPOSTFIELDS, request.body.c_str());
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
  const CURLcode code = curl_easy_perform(curl);
  curl_slist_free_all(headers);
  if (code != CURLE_OK) {
    return fail("{} {}: {}", request.method, request.url, curl_easy_strerror(code));
  }
  long number = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &number);
  response.status = static_cast<int>(number);
  curl_easy_getinfo(curl, CURLINFO_HTTP_VERSION, &number);
  response.http_version = number == CURL_HTTP_VERSION_1_0   ? 10
                          : number == CURL_HTTP_VERSION_2_0 ? 20
                                                            : 11;
  curl_easy_getinfo(curl, CURLINFO_NUM_CONNECTS, &number);
  response.new_connection = number > 0;
  return response;
}

Result<HttpResponse> HttpClient::get(const std::string& url, std::vector<std::string> headers) {
  HttpRequest request;
  request.url = url;
  request.headers = std::move(headers);
  return send(request);
}

Result<HttpResponse> HttpClient::head(const std::string& url, std::vector<std::string> headers) {
  HttpRequest request;
  request.method = "HEAD";
  request.url = url;
  request.headers = std::move(headers);
  return send(request);
}

std::string http_date(time_t time) {
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  tm parts = {};
  gmtime_r(&time, &parts);
  return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT", kDays[parts.tm_wday],
                     parts.tm_mday, kMonths[parts.tm_mon], parts.tm_year + 1900, parts.tm_hour,
                     parts.tm_min, parts.tm_sec);
}

}  // namespace mcs::loadtest
