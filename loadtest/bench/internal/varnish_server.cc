// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/internal/varnish_server.h"

#include <csignal>

#include "loadtest/harness/proc_info.h"

namespace mcs::loadtest {

namespace {

constexpr const char* kNoLog =
    "vsl_mask=-ReqStart,-ReqMethod,-ReqURL,-ReqProtocol,-ReqHeader,-ReqUnset,-RespProtocol,"
    "-RespStatus,-RespReason,-RespHeader,-RespUnset,-VCL_call,-VCL_return,-VCL_use,-Timestamp,"
    "-Debug,-Hit,-ReqAcct,-Begin,-End,-Link,-SessOpen,-SessClose";

}  // namespace

std::vector<pid_t> VarnishServer::worker_pids() const { return children_of(master_); }

// The same fields as the others: what Varnish adds of its own goes.
std::string VarnishServer::config_text() const {
  return fmt::format(
      "vcl 4.1;\n"
      "backend origin {{ .host = \"127.0.0.1\"; .port = \"{}\"; }}\n"
      "sub vcl_recv {{ unset req.http.Cookie; }}\n"
      "sub vcl_backend_response {{ set beresp.ttl = 1d; }}\n"
      "sub vcl_deliver {{\n"
      "  unset resp.http.X-Varnish; unset resp.http.Via; unset resp.http.Age;\n"
      "}}\n",
      backend_);
}

// One pool of threads for the one CPU.
std::vector<std::string> VarnishServer::start_command() const {
  std::vector<std::string> words = {"varnishd", "-F",
                                    "-j", "none",
                                    "-n", (prefix() / "work").string(),
                                    "-a", fmt::format("127.0.0.1:{}", port()),
                                    "-f", config_file().string(),
                                    "-s", "malloc,256m",
                                    "-p", "thread_pools=1",
                                    "-p", "thread_pool_min=64",
                                    "-T", "none"};
  if (!logs_) words.insert(words.end(), {"-p", kNoLog});
  return words;
}

std::vector<std::string> VarnishServer::check_command() const {
  return {"varnishd", "-C", "-n", (prefix() / "check").string(), "-f", config_file().string()};
}

int VarnishServer::graceful_stop_signal() const { return SIGTERM; }

}  // namespace mcs::loadtest
