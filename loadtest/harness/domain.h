// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "loadtest/harness/result.h"

namespace mcs::loadtest {

struct DomainOptions {
  std::string name;
  int nodes = 2;
  std::string memory = "256M";  // per node
  std::string owner;            // user the servers' workers run as; empty: the caller
  bool separate_kernels = false;
  double remote_penalty = 1;
};

// A domain of emulated global memory, made with gsm-emu and looked at with mcsctl. Removed by the
// destructor and when this process dies.
class Domain {
 public:
  static Result<Domain> up(const DomainOptions& options);
  Domain(Domain&& other) noexcept;
  Domain& operator=(Domain&&) = delete;
  ~Domain();

  const std::string& name() const { return name_; }
  // What `mcsctl status|events|verify NAME --json -` prints. Damage that verify finds is a result.
  Result<nlohmann::json> status() const;
  Result<nlohmann::json> events() const;
  Result<nlohmann::json> verify() const;
  Result<void> down();
  // Neither the destructor nor the end of this process removes it.
  void keep();

 private:
  explicit Domain(std::string name) : name_(std::move(name)) {}
  Result<nlohmann::json> mcsctl(const std::string& command) const;
  std::vector<std::string> down_command() const;

  std::string name_;
  bool up_ = false;
};

}  // namespace mcs::loadtest
