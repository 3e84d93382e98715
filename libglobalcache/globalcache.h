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
#define MCS_API_VERSION_MINOR 6

/** (major << 16) | minor of the library in use. */
MCS_API uint32_t mcs_api_version(void);

/** A string that need not end with NUL. */
typedef struct mcs_str {
  const char *data;
  size_t size;
} mcs_str;

/** One header field line. */
typedef struct mcs_field {
  mcs_str name;
  mcs_str value;
} mcs_field;

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
  uint32_t verify_always; /**< not 0: bodies of any size are copied and verified before they are sent */
} mcs_domain_options;

/**
 * Parse one `key=value` word of an mcs_domain / McsDomain directive (size= nodes= node= dir= owner=
 * group= mode= hang_limit= verify=) into *options. Strings are not copied: they point into word.
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
 * mcs_dispatch. It belongs to the process (do not close it). Event-driven servers only. -1: it could
 * not be made; waits then end by their own limits.
 */
MCS_API int mcs_wake_fd(mcs_process *process);

/**
 * How many requests this process can have at once (its threads, or the connections of an event loop),
 * and how many such processes its server runs. From then on, unless the policy says `wait` (which is the
 * default where there is a waiter), at most half of the requests wait for others' fills to begin (in
 * processes of one request: half of the processes that have the same parent); mcs_cache_lock_busy says
 * what becomes of further ones. Those that look on briefly before they pass are not counted, nor those
 * that receive what arrives. Before the first request.
 */
MCS_API void mcs_set_capacity(mcs_process *process, uint32_t requests, uint32_t processes);

/**
 * Whether within the last within_ms half of the threads (in processes of one request: of the processes)
 * were seen to be held by requests that waited for others' fills or received them while they arrived, or a
 * request found no place to wait. More clients are waiting for a thread then: a server in which kept
 * connections take places from others closes them after their response.
 */
MCS_API int mcs_is_crowded(mcs_process *process, uint32_t within_ms);

/** Drain the wake descriptor and call callbacks.wake for each waiter that may go on. */
MCS_API void mcs_dispatch(mcs_process *process);

/** The waiter goes away (client left, timer fired): it will not be called back. */
MCS_API void mcs_cancel_wait(mcs_process *process, void *waiter);

/* ------------------------------------------------------------------ rules of a location */

/** The caching rules of one location or directory. Built at configuration time, then constant. */
typedef struct mcs_policy mcs_policy;

MCS_API mcs_policy *mcs_policy_create(void);
/**
 * For the rules of one request (.htaccess), which end with it: for one thread at a time, and no lock is taken
 * for it, so that a signal handler that interrupts its making may still end the process. Sites that no
 * other policy names are not kept for it.
 */
MCS_API mcs_policy *mcs_policy_create_for_request(void);
MCS_API void mcs_policy_destroy(mcs_policy *policy);

/**
 * Set one rule: name is the directive without its mcs_cache_ / McsCache prefix ("valid",
 * "key_base", "DefaultExpire", ...); both servers' spellings are known. docs/directives.md.
 */
MCS_API mcs_status mcs_policy_set(mcs_policy *policy, const char *name, size_t argc,
                                  const char *const *argv, char *err, size_t errlen);

/**
 * A key base for the files of a site that does not name one, which no other site has: neither below
 * another root, nor of another server (`server`, `config`: its kind and its configuration), be it in
 * another container. NULL counts as "". Returns its size; as much of it as fits, with a NUL at its
 * end, is written to `to`.
 */
MCS_API size_t mcs_own_key_base(const char *server, const char *config, const char *site,
                                const char *root, char *to, size_t size);

/** A rule's directive as both servers name it. Strings are static and end with NUL. */
typedef struct mcs_directive {
  const char *nginx_name; /**< without "mcs_cache_" */
  const char *httpd_name; /**< without "McsCache" */
  const char *syntax;     /**< of its arguments */
  const char *help;
  unsigned min_args;
  unsigned max_args; /**< 255: any number */
} mcs_directive;

/** All directives that mcs_policy_set knows, for a module to register. Returns their number. */
MCS_API size_t mcs_policy_directives(const mcs_directive **directives);

/**
 * Whether whoever may only say how his own pages are served may set this rule: it is about these pages
 * and not about keys, purging, shares of the space or how long requests hold the server.
 */
MCS_API int mcs_policy_is_local(const mcs_directive *directive);

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
  MCS_WAIT,         /**< ask again when callbacks.wake is called for the waiter, or after
                         response->wait_ms at the latest (then pass last_try = 1) */
  MCS_FORWARD,      /**< mcs_begin, mcs_resume: let the server fetch the response from the origin,
                         with the edits of *response, and tell mcs_origin_response */
  MCS_FOLLOW        /**< mcs_begin, mcs_resume: send response's status and fields now, and the body
                         as mcs_follow_read gives it */
} mcs_outcome;

/** body_length of a response whose end is not known yet. */
#define MCS_UNKNOWN_LENGTH UINT64_MAX

/**
 * An answer. Everything it points to is either constant, in memory from the request's mcs_alloc,
 * or (body_pinned) in shared memory that stays as it is until mcs_response_release.
 */
typedef struct mcs_response {
  mcs_cache_status cache_status;
  int status;                 /**< HTTP status code; 200 for a file */
  time_t last_modified;       /**< seconds; -1 if unknown */
  mcs_str last_modified_field; /**< the same as an HTTP date, for servers that can use it */
  mcs_str etag;               /**< with its quotes; size 0 if none */
  mcs_str cache_status_field; /**< value for the Cache-Status field; size 0 if not wanted */
  uint64_t body_length;       /**< bytes */
  const struct iovec *body;   /**< body_count pieces; NULL if the request was HEAD or MCS_FILE */
  size_t body_count;
  int body_pinned; /**< body lies in shared memory: copying system calls only, until released */
  int file_fd;     /**< MCS_FILE: open for reading at offset 0; otherwise -1 */
  uint32_t wait_ms; /**< MCS_WAIT: the longest sensible wait, milliseconds */
  void *pin;        /**< internal */

  /* Proxied responses only: zero for local files. */
  const mcs_field *fields; /**< to send; without Content-Length and hop-by-hop fields, with Age,
                                and Cache-Status if wanted. last_modified, etag and
                                cache_status_field are among them and not to be sent again. */
  size_t field_count;
  int64_t age; /**< of the stored response, seconds; -1: it comes from the origin */
  int refresh; /**< start an internal request with MCS_REQUEST_REFRESH (same target and fields) */
  int fill;    /**< MCS_FORWARD: others may wait for this response; it may be stored */
  const mcs_str *remove_fields; /**< MCS_FORWARD: names that must not go to the origin */
  size_t remove_count;
  const mcs_field *add_fields; /**< MCS_FORWARD: fields that must, after the removal */
  size_t add_count;
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

/** Where a piece of a body lies in a file. */
typedef struct mcs_place {
  int fd;          /**< -1: in no file. Belongs to the process and stays open until mcs_leave. */
  int may_send;    /**< sendfile(2) may have it */
  uint64_t offset; /**< bytes */
} mcs_place;

/**
 * places[i]: where body[i] of a response with a pinned body lies. Any of them may be read with
 * pread(2), which is short or fails where memory was lost, until the response is released. to_send:
 * the caller is going to sendfile(2) those for which may_send is set, also short or failing then;
 * the kernel may go on sending after the release and after the death of the process. The others go
 * out as they lie in body. Costs a store the first time an entry is sent so.
 */
MCS_API void mcs_response_places(mcs_process *process, const mcs_response *response, int to_send,
                                 mcs_place *places);

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
 * MCS_DECLINED: not a regular readable file (the server answers 404, 403, index, ... itself), or
 * process is NULL;
 * MCS_FILE: too large, too young, no space: served from the file, with the same ETag.
 */
MCS_API mcs_outcome mcs_static_get(mcs_process *process, const mcs_static_request *request,
                                   mcs_response *response);

/* ------------------------------------------------------------------ proxied responses
 *
 * One request is one transaction:
 *
 *   mcs_begin --> MCS_RESPONSE   send it; there is no transaction
 *             --> MCS_DECLINED   serve without the cache; there is no transaction
 *             --> MCS_WAIT       when woken, or after wait_ms with MCS_REQUEST_LAST_TRY: mcs_resume,
 *                                which answers like mcs_begin
 *             --> MCS_FOLLOW     send status and fields, then mcs_follow_read until its end
 *             --> MCS_FORWARD    edit the request, let the server fetch the response, then
 *                  mcs_origin_response --> MCS_PASS, MCS_STORE   send it on; each piece of the body
 *                                                   to mcs_origin_body, its end to mcs_origin_end
 *                                      --> MCS_REPLACE   send *reply; drop what the origin sends
 *                                      --> MCS_RETRY     fetch again: mcs_retry
 *                  mcs_origin_failed if there is no response
 *   mcs_end     in every case in which there is a transaction, however the request ends
 *
 * What a transaction is given (fields, target, ...) must stay as it is until mcs_end. It belongs to
 * one thread at a time. The core decides all of ranges, preconditions, HEAD and status: the server's
 * own filters for these must leave such responses alone.
 */

/** mcs_request.flags */
enum {
  MCS_REQUEST_BYPASS = 1,   /**< do not answer from the cache; the response may be stored */
  MCS_REQUEST_NO_STORE = 2, /**< do not store the response */
  MCS_REQUEST_REFRESH = 4,  /**< internal: fetch what is stale, for nobody. MCS_DECLINED: somebody
                                 else does it, or it is fresh by now. Never waits. */
  MCS_REQUEST_NO_WAIT = 8,  /**< many requests of this process wait already: the policy decides */
  MCS_REQUEST_LAST_TRY = 16 /**< mcs_resume: the wait is over, do not answer MCS_WAIT */
};
/** Besides, in mcs_request.flags: the port at which the server was asked. Where no key base is named
    it keeps what servers on different ports answer to the same Host apart. */
#define MCS_REQUEST_PORT(port) ((unsigned)(port) << 16)

typedef struct mcs_request {
  const mcs_policy *policy;
  mcs_str method;         /**< as received: "GET" */
  mcs_str scheme;         /**< "http" or "https", of the client's connection */
  mcs_str host;           /**< Host or :authority; may be empty with a key base */
  mcs_str target;         /**< the request target byte for byte as received, with its query */
  mcs_str key;            /**< size > 0: takes the place of scheme, host and target in the key */
  mcs_str client_address; /**< "192.0.2.1" or "2001:db8::1": who may purge */
  const mcs_field *fields; /**< as received */
  size_t field_count;
  unsigned flags;
  void *waiter;    /**< names this request in callbacks.wake; NULL: calls block (bounded) where they
                        would have answered MCS_WAIT or MCS_FOLLOW_WAIT. Processes that use
                        mcs_wake_fd must have another thread that calls mcs_dispatch then. */
  mcs_alloc alloc; /**< memory that lives as long as the request and its response */
  void *alloc_context;
} mcs_request;

typedef struct mcs_transaction mcs_transaction;

/**
 * The target of a request that its server has rewritten or redirected within itself to `path` (decoded)
 * and `args`: both and what was `received` (empty: nothing) are in the key, since the response may depend
 * on them, and purging sees what was received. `chosen`, if not empty, and `place` name which of several
 * handlers that could answer has been chosen. No data: no memory.
 */
MCS_API mcs_str mcs_rewritten_target(mcs_str received, mcs_str path, mcs_str args, mcs_str chosen,
                                     uint32_t place, mcs_alloc alloc, void *alloc_context);

/**
 * Look the request up. *transaction is NULL unless the outcome is MCS_WAIT, MCS_FORWARD or
 * MCS_FOLLOW. Any method may be given: unsafe ones are forwarded and then invalidate what they
 * change; PURGE is answered here if the policy allows it. A hit allocates nothing but through alloc.
 */
MCS_API mcs_outcome mcs_begin(mcs_process *process, const mcs_request *request,
                              mcs_transaction **transaction, mcs_response *response);

/** Ask again after MCS_WAIT. flags: those of the request, or MCS_REQUEST_LAST_TRY besides. */
MCS_API mcs_outcome mcs_resume(mcs_transaction *transaction, unsigned flags,
                               mcs_response *response);

typedef enum mcs_verdict {
  MCS_PASS = 0, /**< nothing is stored */
  MCS_STORE,    /**< the body must go to mcs_origin_body and mcs_origin_end */
  MCS_REPLACE,  /**< *reply is the whole response, as after MCS_RESPONSE; what the origin sent is
                     dropped (its body need not be read) */
  MCS_RETRY     /**< the origin's 304 does not fit what is stored: fetch again (mcs_retry). A server
                     that cannot sends *reply, a 502. */
} mcs_verdict;

/**
 * The origin's final status (not 1xx) and header section have arrived, before any filter changed
 * them. MCS_PASS and MCS_STORE: if reply->status is 0, send the origin's status and fields, and
 * reply->fields besides; otherwise send reply's status and fields instead (a 206, 304, ... made of
 * the origin's response), body_length says how long the body will be, and of the origin's body only
 * what mcs_origin_body tells. reply->cache_status is set in every case.
 */
MCS_API mcs_verdict mcs_origin_response(mcs_transaction *transaction, int status,
                                        const mcs_field *fields, size_t field_count,
                                        mcs_response *reply);

/** A part of a buffer. */
typedef struct mcs_slice {
  size_t first;
  size_t count;
} mcs_slice;

/**
 * Bytes of the origin's body, in order, without transfer coding. *send (may be NULL): which of them
 * go to the client. 0: nothing is stored (any more); further calls are needed for *send only, and
 * only if reply->status was not 0. Followers receive the bytes at once.
 */
MCS_API int mcs_origin_body(mcs_transaction *transaction, const void *data, size_t size,
                            mcs_slice *send);

/**
 * The body has ended. complete: the whole of it has arrived, as its framing says; anything else is
 * never stored. 1: it is in the cache.
 */
MCS_API int mcs_origin_end(mcs_transaction *transaction, int complete);

typedef enum mcs_failure {
  MCS_FAILED_CONNECT = 0, /**< no connection, or it broke before the header section was complete */
  MCS_FAILED_TIMEOUT,
  MCS_FAILED_INVALID /**< what arrived is no HTTP response */
} mcs_failure;

/**
 * There is no response. MCS_REPLACE: *reply is a stored one that may stand in for it; MCS_PASS: the
 * server sends its own error. Nothing else but mcs_end may follow.
 */
MCS_API mcs_verdict mcs_origin_failed(mcs_transaction *transaction, mcs_failure failure,
                                      mcs_response *reply);

/**
 * For servers that do not know interim responses (1xx but 101; RFC 9110 15.2): takes them from the
 * beginning of the first *size bytes that an origin has sent. What of each an HTTP/1.1 client is to
 * get goes to `pass`. Afterwards `data` holds the *size bytes of the rest. 1: more bytes are needed
 * before these can be taken for a final response.
 */
MCS_API int mcs_take_interim(char *data, size_t *size,
                             void (*pass)(void *context, const char *data, size_t size),
                             void *context);

/**
 * 1: this line of a header section is an Expires field whose value is no date (RFC 9110 5.6.7), so
 * that the response is stale (RFC 9111 5.3). For servers that would mend it.
 */
MCS_API int mcs_is_invalid_expires(const char *line, size_t size);

/**
 * The request that renews what is stored for `request`, as a client would send it: GET without
 * conditions, ranges, and what belongs to a connection; the connection ends after it. Returns its
 * size; as much of it as fits is written to `to`.
 */
MCS_API size_t mcs_refresh_request(const mcs_request *request, char *to, size_t size);

/** After MCS_RETRY: MCS_FORWARD with new edits. */
MCS_API mcs_outcome mcs_retry(mcs_transaction *transaction, mcs_response *response);

typedef enum mcs_follow {
  MCS_FOLLOW_DATA = 0, /**< *got bytes were copied */
  MCS_FOLLOW_WAIT,     /**< nothing there yet: call again when woken (no limit but the client's) */
  MCS_FOLLOW_END,      /**< that was all of the body */
  MCS_FOLLOW_BROKEN    /**< the fill has failed: mcs_follow_retry, or close the connection */
} mcs_follow;

/** Copy the next bytes of a body that is still arriving. */
MCS_API mcs_follow mcs_follow_read(mcs_transaction *transaction, void *to, size_t size,
                                   size_t *got);

/**
 * After MCS_FOLLOW_BROKEN: continue where the body broke off, from another fill of the same
 * representation. MCS_FOLLOW: go on with mcs_follow_read. MCS_WAIT: call again when woken or after
 * wait_ms (without a waiter: at once, since the call blocks itself); if response->refresh is set start an
 * internal request for it first, which wakes its waiters when it has begun. MCS_DECLINED: there is nothing to
 * continue with; close the connection without a regular end.
 */
MCS_API mcs_outcome mcs_follow_retry(mcs_transaction *transaction, mcs_response *response);

/**
 * The transaction is over. A fill that has not ended is given up, and whoever waits for it goes on
 * by itself: a server that wants to finish it after its client left keeps the transaction. NULL is
 * allowed. No pinned response of the transaction is released by this.
 */
MCS_API void mcs_end(mcs_transaction *transaction);

/** The request's key for people and logs, without NUL. Returns its size; 0: it has no key. */
MCS_API size_t mcs_request_key(const mcs_request *request, char *to, size_t size);

/* ------------------------------------------------------------------ purging */

/**
 * For a PURGE request that mcs_begin has answered, if its target is a file of this server, which has
 * a key of its own (as in mcs_static_request): purges it too, unless the answer is a refusal, and
 * counts it in the answer's body. A path that ends with a slash means the files of that directory,
 * of which any may be what it shows. 0: out of memory.
 */
MCS_API int mcs_purge_file(mcs_process *process, const mcs_policy *files, mcs_str path,
                           mcs_alloc alloc, void *alloc_context, mcs_response *response);

typedef enum mcs_purge_kind {
  MCS_PURGE_KEY = 1,      /**< one target, all its variants */
  MCS_PURGE_PREFIX = 2,   /**< all targets of a site that begin with this */
  MCS_PURGE_WILDCARD = 3, /**< all targets of a site that match; "*" stands for anything */
  MCS_PURGE_TAG = 4,      /**< everything tagged so by Surrogate-Key or xkey */
  MCS_PURGE_ALL = 5       /**< everything in the domain */
} mcs_purge_kind;

typedef struct mcs_purge_request {
  mcs_purge_kind kind;
  int soft;                 /**< mark stale instead of removing */
  int local_files;          /**< key, prefix, wildcard: local files instead of proxied responses */
  const mcs_policy *policy; /**< key base and query rules; NULL: none */
  mcs_str scheme;           /**< of the site, if it has no key base */
  mcs_str host;             /**< likewise. Prefix, wildcard: no key base and no host: any site */
  mcs_str pattern;          /**< target, prefix, pattern or tag; unused by MCS_PURGE_ALL */
} mcs_purge_request;

/**
 * Purge in all servers of the domain. When it returns no request that comes later receives what was
 * stored or being fetched before. *purged (may be NULL): how many stored responses it met. Does not
 * ask who is allowed to; PURGE requests do (mcs_begin).
 */
MCS_API mcs_status mcs_purge(mcs_process *process, const mcs_purge_request *request,
                             uint64_t *purged, char *err, size_t errlen);

#ifdef __cplusplus
}
#endif
