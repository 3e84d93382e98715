// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/globalcache.h"
#include "libglobalcache/http/policy.h"

/// The C API's handle of a location's rules.
struct mcs_policy {
  /// of_request: nobody else ever sees it, so that nothing about it is locked.
  explicit mcs_policy(bool of_request = false);
  ~mcs_policy();
  mcs_policy(const mcs_policy&) = delete;
  mcs_policy& operator=(const mcs_policy&) = delete;

  mcs::http::CachePolicy rules;
  mcs::cache::SiteRules site;  // what the rules say of it

  /// For keys; nullptr: no site is told apart here.
  const mcs::cache::SiteRules* site_rules() const { return site.name.empty() ? nullptr : &site; }
  void rules_changed();

 private:
  const bool of_request_;
};

namespace mcs::api {

/// Tell the cache of every site that this process's policies name. Any thread.
void keep_sites(const cache::GlobalCache& cache);

/// The most bytes of a body that is stored.
std::uint64_t largest_object(const cache::GlobalCache& cache, const mcs_policy& policy);

}  // namespace mcs::api
