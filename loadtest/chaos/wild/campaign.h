// SPDX-License-Identifier: Apache-2.0
// Damage while nginx and httpd serve checked traffic from the same domain, bodies verified `always`.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "loadtest/client/load_client.h"
#include "loadtest/harness/result.h"

namespace mcs::loadtest {

struct CampaignOptions {
  bool wild = true;  // processes that run wild; else spots damaged from outside
  unsigned processes = 500;
  unsigned stores = 20;    // of each
  unsigned spots = 1000;
  unsigned pause_ms = 20;  // between two faults
  int files = 600;
  std::string memory = "96M";  // of each of two nodes
  std::uint64_t seed = 1;
  bool keep = false;
  std::vector<std::string> only;  // regions that are damaged; empty: all
};

struct CampaignReport {
  std::uint64_t incidents = 0;  // processes that ran wild; spots
  std::uint64_t stores = 0;
  std::uint64_t faulted = 0;  // stopped by the page tables
  std::uint64_t not_begun = 0;
  LoadReport load;
  std::vector<std::string> failed_paths;
  std::vector<std::string> crashes;
  std::vector<std::string> hangs;
  std::vector<double> recovery_ms;
  std::vector<double> repair_ms;
  std::uint64_t repairs = 0;  // events
  nlohmann::json verify;
  double clean_after_ms = -1;  // from the last fault until verify found nothing
  std::uint64_t entries = 0;
  double seconds = 0;

  bool good() const;
  nlohmann::json json(const CampaignOptions& options) const;
};

/// An Error: nothing was tried.
Result<CampaignReport> run_campaign(const CampaignOptions& options);

}  // namespace mcs::loadtest
