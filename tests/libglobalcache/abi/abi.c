/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C API as programs were compiled against it (version 1.3, x86-64). Whoever breaks a line of this
 * raises MCS_API_VERSION_MAJOR. Compiled as C, which proves that the header is C.
 */
#include "libglobalcache/globalcache.h"

#if defined(__x86_64__)
_Static_assert(sizeof(mcs_str) == 16, "mcs_str");
_Static_assert(sizeof(mcs_field) == 32, "mcs_field");
_Static_assert(sizeof(mcs_domain_options) == 72, "mcs_domain_options");
_Static_assert(offsetof(mcs_domain_options, hang_limit_ms) == 64, "mcs_domain_options.hang_limit_ms");
_Static_assert(sizeof(mcs_callbacks) == 24, "mcs_callbacks");
_Static_assert(offsetof(mcs_callbacks, wake) == 16, "mcs_callbacks.wake");
_Static_assert(sizeof(mcs_directive) == 40, "mcs_directive");
_Static_assert(offsetof(mcs_directive, max_args) == 36, "mcs_directive.max_args");
_Static_assert(sizeof(mcs_response) == 176, "mcs_response");
_Static_assert(offsetof(mcs_response, body_length) == 64, "mcs_response.body_length");
_Static_assert(offsetof(mcs_response, body) == 72, "mcs_response.body");
_Static_assert(offsetof(mcs_response, file_fd) == 92, "mcs_response.file_fd");
_Static_assert(offsetof(mcs_response, pin) == 104, "mcs_response.pin");
_Static_assert(offsetof(mcs_response, fields) == 112, "mcs_response.fields");
_Static_assert(offsetof(mcs_response, refresh) == 136, "mcs_response.refresh");
_Static_assert(offsetof(mcs_response, remove_fields) == 144, "mcs_response.remove_fields");
_Static_assert(offsetof(mcs_response, add_count) == 168, "mcs_response.add_count");
_Static_assert(sizeof(mcs_static_request) == 64, "mcs_static_request");
_Static_assert(offsetof(mcs_static_request, file) == 24, "mcs_static_request.file");
_Static_assert(offsetof(mcs_static_request, waiter) == 40, "mcs_static_request.waiter");
_Static_assert(offsetof(mcs_static_request, alloc_context) == 56, "mcs_static_request.alloc_context");
_Static_assert(sizeof(mcs_request) == 152, "mcs_request");
_Static_assert(offsetof(mcs_request, target) == 56, "mcs_request.target");
_Static_assert(offsetof(mcs_request, fields) == 104, "mcs_request.fields");
_Static_assert(offsetof(mcs_request, flags) == 120, "mcs_request.flags");
_Static_assert(offsetof(mcs_request, waiter) == 128, "mcs_request.waiter");
_Static_assert(offsetof(mcs_request, alloc_context) == 144, "mcs_request.alloc_context");
_Static_assert(sizeof(mcs_slice) == 16, "mcs_slice");
_Static_assert(sizeof(mcs_purge_request) == 72, "mcs_purge_request");
_Static_assert(offsetof(mcs_purge_request, pattern) == 56, "mcs_purge_request.pattern");
_Static_assert(MCS_ERROR == 2 && MCS_CACHE_BYPASS == 7 && MCS_FOLLOW == 5, "enumerations");
_Static_assert(MCS_RETRY == 3 && MCS_FAILED_INVALID == 2 && MCS_FOLLOW_BROKEN == 3 && MCS_PURGE_ALL == 5, "enumerations");
_Static_assert(MCS_REQUEST_LAST_TRY == 16, "flags");
#endif

_Static_assert(MCS_API_VERSION_MAJOR == 1, "a new major version has a new ABI to be recorded here");
