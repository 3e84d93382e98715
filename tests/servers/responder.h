// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace mcs::loadtest {

enum class ResponderProtocol { kFastCgi, kUwsgi, kScgi };

// A request as a program behind a web server sees it: REQUEST_METHOD, HTTP_ACCEPT, …
struct ProgramRequest {
  std::map<std::string, std::string> variables;
  std::string body;
  size_t number = 0;  // among those with the same REQUEST_URI, from 1

  std::string get(const std::string& name) const {
    const auto found = variables.find(name);
    return found == variables.end() ? std::string() : found->second;
  }
};

struct ProgramAnswer {
  int status = 200;
  std::vector<std::string> headers;  // "Name: value"
  std::string body;
};

// An application server on 127.0.0.1 as php-fpm, uWSGI and the like are one: one thread, one
// request at a time, a connection for each. The program runs in that thread.
class Responder {
 public:
  using Program = std::function<ProgramAnswer(const ProgramRequest&)>;

  Responder(ResponderProtocol protocol, Program program);
  ~Responder();
  Responder(const Responder&) = delete;
  Responder& operator=(const Responder&) = delete;

  int port() const { return port_; }
  // Requests for this REQUEST_URI so far.
  size_t count(const std::string& uri) const;

 private:
  void serve();
  void answer(int fd);

  const ResponderProtocol protocol_;
  const Program program_;
  int port_;
  int listener_;
  std::thread thread_;
  mutable std::mutex mutex_;
  std::map<std::string, size_t> counts_;
};

}  // namespace mcs::loadtest
