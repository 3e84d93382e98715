// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loadtest/harness/domain.h"
#include "loadtest/harness/server.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {

// One way to serve the same few files, in a server of its own.
struct Contender {
  std::string name;    // "nginx-mcs", "httpd-static", …
  std::string family;  // "nginx" (Varnish as well) or "httpd"
  bool ours = false;
  std::vector<size_t> sizes;  // bytes of the bodies it can serve
  std::unique_ptr<WebServer> server;
};

// All contenders of `bench hit`, running, warm and checked. Servers are pinned to one CPU.
class HitContenders {
 public:
  // Starts everything; `sizes` are the bodies' sizes in bytes, the first one that of nginx's
  // `return` too if it fits into a configuration file. `varnish`: whether to start that too.
  // `family`: only its contenders; empty: all.
  static Result<std::unique_ptr<HitContenders>> start(const std::vector<size_t>& sizes,
                                                      int server_cpu, bool varnish,
                                                      const std::string& family = "");
  // Files that were just made are served but not stored for two seconds; returns when each request
  // to ours is a hit.
  Result<void> wait_for_hits() const;
  const std::filesystem::path& root() const { return root_.path(); }

  std::vector<Contender>& all() { return contenders_; }
  static std::string path_of(size_t size);
  const std::string& body(size_t size) const;
  // Each contender answers each of its files with status 200 and the right body. Run before and
  // after the measurement.
  Result<void> check();
  // Names of the fields of an answer, for the report: what is compared must do the same work.
  Result<std::vector<std::string>> field_names(const Contender& contender, size_t size) const;
  // Hits the domain has counted so far, over all servers.
  Result<uint64_t> domain_hits() const;

 private:
  HitContenders() = default;
  Result<void> write_files(const std::vector<size_t>& sizes);
  Result<void> add_nginx();
  Result<void> add_varnish();
  Result<void> add_httpd();
  Result<void> add(Contender contender);
  Result<void> check(const Contender& contender, size_t size) const;

  int cpu_ = 0;
  std::vector<size_t> sizes_;
  std::vector<std::string> bodies_;
  TempDir root_{"mcs-bench"};
  TempDir caches_{"/dev/shm", "mcs-bench-caches"};
  std::optional<Domain> domain_;
  std::vector<Contender> contenders_;
};

}  // namespace mcs::loadtest
