// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "libglobalcache/globalcache.h"
#include "libglobalcache/http/policy.h"

/// The C API's handle of a location's rules.
struct mcs_policy {
  mcs::http::CachePolicy rules;
};
