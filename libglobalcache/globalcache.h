/* SPDX-License-Identifier: Apache-2.0 */
/**
 * globalcache.h: the C API of MCS, and all that a server module may know.
 *
 * A server process joins a domain once (mcs_join, after its last fork), asks the cache for each
 * request, and sends what it is given. Every decision (what is a key, what is fresh, who fills,
 * who waits) is made behind this line, so that every server makes the same one.
 *
 * Crash-safety: a process may be killed inside any of these functions; the other users of the
 * domain are not harmed, and what the dead process held is given back by whoever notices first.
 *
 * Thread-safety: all functions that take an mcs_process may be called by any thread of the process
 * at the same time, unless stated otherwise. An mcs_response belongs to one thread at a time.
 *
 * Errors: functions that can fail on bad input take (err, errlen) and leave one clear sentence
 * there, naming the thing and the remedy. No function throws, aborts or exits.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MCS_API __attribute__((visibility("default")))
#else
#define MCS_API
#endif

/** Version of this interface: the major number changes when a caller must be compiled again. */
#define MCS_API_VERSION_MAJOR 1
#define MCS_API_VERSION_MINOR 0

/** (major << 16) | minor of the library in use. */
MCS_API uint32_t mcs_api_version(void);

/** A string that need not end with NUL. */
typedef struct mcs_str {
  const char *data;
  size_t size;
} mcs_str;

typedef enum mcs_status {
  MCS_OK = 0,
  MCS_WARNING = 1, /**< it works, but not all that was asked for; err says what */
  MCS_ERROR = 2    /**< it does not work; err says why and what to do */
} mcs_status;

/* ------------------------------------------------------------------ domain and process */

/** Which domain, and how to create it if it does not exist. Zero means the default everywhere. */
typedef struct mcs_domain_options {
  const char *name;      /**< [a-z0-9._-]{1,32}; required */
  const char *directory; /**< tmpfs directory that holds domains; default "/dev/shm" */
  uint64_t size;         /**< bytes per node if the domain must be created; default 256 MiB */
  uint32_t nodes;        /**< nodes if the domain must be created; default 1, at most 16 */
  uint32_t node;         /**< the node this process runs on; default 0 */
  const char *owner;     /**< user name that owns a created domain; default: the caller */
  const char *group;     /**< group name of a created domain; default: the owner's */
  uint32_t mode;         /**< permission bits of a created domain; default 0600 */
  const char *server;    /**< "nginx/1.22.1", for tools and statistics; copied */
  uint32_t hang_limit_ms; /**< how long a stopped process may hold what others need; default 5000 */
} mcs_domain_options;

/**
 * Parse one `key=value` word of an mcs_domain / McsDomain directive (size= nodes= node= dir= owner=
 * group= mode= hang_limit=) into *options. Strings are not copied: they point into word.
 */
MCS_API mcs_status mcs_domain_option(mcs_domain_options *options, const char *word, char *err,
                                     size_t errlen);

/** Check what can be checked without creating, mapping or joining anything (`nginx -t`). */
MCS_API mcs_status mcs_domain_check(const mcs_domain_options *options, char *err, size_t errlen);

/**
 * Create the domain if it does not exist; never joins it. For a server's master process, which may
 * have the rights to set the owner. MCS_WARNING: it exists with another size or number of nodes,
 * and is used as it is.
 */
MCS_API mcs_status mcs_domain_prepare(const mcs_domain_options *options, char *err, size_t errlen);

typedef struct mcs_process mcs_process;

/** What the library calls back. All members may be NULL. Called from mcs_* calls of the process. */
typedef struct mcs_callbacks {
  void *context;
  /** level: 0 error, 1 warning, 2 notice, 3 info; line has no newline. Any thread. */
  void (*log)(void *context, int level, const char *line);
  /** A request that was told MCS_WAIT should ask again now. Called from mcs_dispatch only. */
  void (*wake)(void *context, void *waiter);
} mcs_callbacks;

/**
 * Join the domain (creating it if it does not exist): map its segments, become one of its
 * instances, see to it that a recovery agent runs. To be called in the process that serves, after
 * its last fork. NULL on error: the server then serves without the cache and may try again later.
 */
MCS_API mcs_process *mcs_join(const mcs_domain_options *options, const mcs_callbacks *callbacks,
                              char *err, size_t errlen);

/** Leave in an orderly way. No other call on process may run or follow. NULL is allowed. */
MCS_API void mcs_leave(mcs_process *process);

/**
 * Heartbeat, agent check, log lines of recoveries. Call about every 250 ms from a timer or thread.
 */
MCS_API void mcs_tick(mcs_process *process);

/**
 * A descriptor that becomes readable when waiters of this process may go on: then call
 * mcs_dispatch. It belongs to the process (do not close it). Event-driven servers only.
 */
MCS_API int mcs_wake_fd(mcs_process *process);

/** Drain the wake descriptor and call callbacks.wake for each waiter that may go on. */
MCS_API void mcs_dispatch(mcs_process *process);

/** The waiter goes away (client left, timer fired): it will not be called back. */
MCS_API void mcs_cancel_wait(mcs_process *process, void *waiter);

/* ------------------------------------------------------------------ rules of a location */

/** The caching rules of one location or directory. Built at configuration time, then constant. */
typedef struct mcs_policy mcs_policy;

MCS_API mcs_policy *mcs_policy_create(void);
MCS_API void mcs_policy_destroy(mcs_policy *policy);

/**
 * Set one rule: name is the directive without its mcs_cache_ / McsCache prefix ("valid",
 * "key_base", "DefaultExpire", ...); both servers' spellings are known. docs/directives.md.
 */
MCS_API mcs_status mcs_policy_set(mcs_policy *policy, const char *name, size_t argc,
                                  const char *const *argv, char *err, size_t errlen);

/** Every rule that was not set in child is taken from parent. */
MCS_API void mcs_policy_inherit(mcs_policy *child, const mcs_policy *parent);

/** Whether Cache-Status (RFC 9211) is to be sent. */
MCS_API int mcs_policy_sends_cache_status(const mcs_policy *policy);

/* ------------------------------------------------------------------ responses */

/** How the cache answered; names as nginx's $upstream_cache_status. */
typedef enum mcs_cache_status {
  MCS_CACHE_NONE = 0,
  MCS_CACHE_HIT,
  MCS_CACHE_MISS,
  MCS_CACHE_EXPIRED,
  MCS_CACHE_STALE,
  MCS_CACHE_UPDATING,
  MCS_CACHE_REVALIDATED,
  MCS_CACHE_BYPASS
} mcs_cache_status;

/** "HIT", "MISS", ...; "" for MCS_CACHE_NONE. Static storage. */
MCS_API const char *mcs_cache_status_name(mcs_cache_status status);

/** Gives memory that lives as long as the request (a pool); NULL: no memory. */
typedef void *(*mcs_alloc)(void *context, size_t size);

typedef enum mcs_outcome {
  MCS_DECLINED = 0, /**< not for the cache: the server handles the request as without it */
  MCS_RESPONSE,     /**< *response is filled in: send it, then mcs_response_release */
  MCS_FILE,         /**< send response->file_fd (the caller closes it), with response's fields */
  MCS_WAIT          /**< ask again when callbacks.wake is called for the waiter, or after
                         response->wait_ms at the latest (then pass last_try = 1) */
} mcs_outcome;

/**
 * An answer. Everything it points to is either constant, in memory from the request's mcs_alloc,
 * or (body_pinned) in shared memory that stays as it is until mcs_response_release.
 */
typedef struct mcs_response {
  mcs_cache_status cache_status;
  int status;                 /**< HTTP status code; 200 for a file */
  time_t last_modified;       /**< seconds; -1 if unknown */
  mcs_str etag;               /**< with its quotes; size 0 if none */
  mcs_str cache_status_field; /**< value for the Cache-Status field; size 0 if not wanted */
  uint64_t body_length;       /**< bytes */
  const struct iovec *body;   /**< body_count pieces; NULL if the request was HEAD or MCS_FILE */
  size_t body_count;
  int body_pinned; /**< body lies in shared memory: copying system calls only, until released */
  int file_fd;     /**< MCS_FILE: open for reading at offset 0; otherwise -1 */
  uint32_t wait_ms; /**< MCS_WAIT: the longest sensible wait, milliseconds */
  void *pin;        /**< internal */
} mcs_response;

/**
 * Give the body's memory back; the response is dead afterwards. Idempotent. Does nothing for
 * bodies that were copied, so callers may register it as a cleanup only if body_pinned is set.
 */
MCS_API void mcs_response_release(mcs_process *process, mcs_response *response);

/**
 * Copy length bytes of a pinned body from offset into to, through a guarded copy: bytes that lie
 * in memory that was lost give 0, never a signal. For bodies that user space must read (TLS,
 * filters). 1: copied.
 */
MCS_API int mcs_response_read(mcs_process *process, const mcs_response *response, uint64_t offset,
                              void *to, size_t length);

/* ------------------------------------------------------------------ local files */

typedef struct mcs_static_request {
  const mcs_policy *policy;
  mcs_str path;     /**< byte-exact path below the document root, after mapping, with its first
                         slash: the key together with the policy's key base */
  const char *file; /**< the file, NUL-terminated, as this server would open it */
  int head;         /**< HEAD: no body wanted */
  int last_try;     /**< the wait is over: answer without the cache rather than MCS_WAIT */
  void *waiter;     /**< names this request in callbacks.wake; NULL: the call itself blocks
                         (bounded) where it would have answered MCS_WAIT */
  mcs_alloc alloc;
  void *alloc_context;
} mcs_static_request;

/**
 * Serve a local file through the cache: from memory if it is there and was checked within
 * the policy's `valid`, otherwise read it, store it and serve it.
 * MCS_DECLINED: not a regular readable file (the server answers 404, 403, index, ... itself);
 * MCS_FILE: too large, too young, no space: served from the file, with the same ETag.
 */
MCS_API mcs_outcome mcs_static_get(mcs_process *process, const mcs_static_request *request,
                                   mcs_response *response);

#ifdef __cplusplus
}
#endif
