// SPDX-License-Identifier: Apache-2.0
// What an mcs_response holds while its body lies in shared memory.
#pragma once

#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/globalcache.h"

namespace mcs::api {

/// The hit's pin as mcs_response.pin; the hit does not own it any more.
void* hand_over_pin(mcs_process& process, cache::Hit& hit);
/// The same, but one pin serves all responses of the process with this body.
void* share_pin(mcs_process& process, cache::Hit& hit);

}  // namespace mcs::api
