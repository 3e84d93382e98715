// SPDX-License-Identifier: Apache-2.0
// What a purge meets.
#pragma once

#include "libglobalcache/cache/global_cache.h"

namespace mcs::api {

/// The cache::PurgeMatcher of every process of a domain.
bool purge_meets(cache::PurgeKind kind, std::string_view pattern, std::string_view whole_key,
                 std::span<const std::byte> head);

}  // namespace mcs::api
