// SPDX-License-Identifier: Apache-2.0
// From a server's directive to a domain: parsing, checking, creating, opening.
#pragma once

#include <memory>
#include <string>

#include "gsm-emu/domain.h"
#include "libglobalcache/globalcache.h"

namespace mcs::api {

/// The options with every default filled in; strings are copied.
struct DomainConfig {
  gsm::DomainSpec spec;
  std::uint32_t node = 0;
  std::string server;
  std::uint32_t hang_limit_ms = 5000;
  bool verify_always = false;
  bool size_given = false;
  bool nodes_given = false;
};

Result<DomainConfig> resolve(const mcs_domain_options& options);

struct Opened {
  std::unique_ptr<gsm::Domain> domain;
  std::string warning;  // not empty: the existing domain differs from what was asked for
};

/// Open the domain, creating it if it does not exist. Safe when many processes do so at once.
Result<Opened> open_or_create(const DomainConfig& config);

/// Create the domain; the geometry follows from the specification.
Result<std::unique_ptr<gsm::Domain>> create(gsm::DomainSpec spec);
/// A domain in private memory for tests and benchmarks.
std::unique_ptr<gsm::Domain> create_in_memory(gsm::DomainSpec spec, std::uint32_t instances = 64,
                                              std::uint64_t ledger_words = 0);

}  // namespace mcs::api
