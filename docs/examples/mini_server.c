/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small web server that shares the cache with nginx and httpd through globalcache.h alone.
 *
 *   cc -O2 mini_server.c -o mini_server $(pkg-config --cflags --libs globalcache libmicrohttpd)
 *   ./mini_server /var/www/html web my-site 8080 [/dev/shm]
 *
 * serves the files below /var/www/html on 127.0.0.1:8080 from the domain "web" and the key base
 * "my-site". What another server of the same base has filled is a hit here, and the other way round.
 * It ends with SIGTERM or SIGINT.
 */
#include <errno.h>
#include <fcntl.h>
#include <globalcache.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct site {
  const char *root;
  mcs_policy *policy;
  mcs_process *process;
};

/* What one response needs until it has been sent. */
struct answer {
  mcs_process *process;
  mcs_response response;
  struct block *blocks; /* memory that the library asked for */
};
struct block {
  struct block *next;
  max_align_t data[];
};

static void *allocate(void *context, size_t size) {
  struct answer *answer = context;
  struct block *block = malloc(sizeof *block + size);
  if (block == NULL) return NULL;
  block->next = answer->blocks;
  answer->blocks = block;
  return block->data;
}

static void free_answer(void *context) {
  struct answer *answer = context;
  mcs_response_release(answer->process, &answer->response);
  while (answer->blocks != NULL) {
    struct block *next = answer->blocks->next;
    free(answer->blocks);
    answer->blocks = next;
  }
  free(answer);
}

/* Gives the body to the HTTP library. Pinned memory only through a guarded copy: it may be lost. */
static ssize_t read_body(void *context, uint64_t position, char *to, size_t most) {
  struct answer *answer = context;
  const mcs_response *response = &answer->response;
  if (position >= response->body_length) return MHD_CONTENT_READER_END_OF_STREAM;
  if (most > response->body_length - position) most = (size_t)(response->body_length - position);
  if (response->body_pinned) {
    if (!mcs_response_read(answer->process, response, position, to, most)) {
      return MHD_CONTENT_READER_END_WITH_ERROR;
    }
  } else {
    memcpy(to, (const char *)response->body[0].iov_base + position, most);
  }
  return (ssize_t)most;
}

static void add_header(struct MHD_Response *to, const char *name, mcs_str value) {
  char text[256];
  if (value.size == 0 || value.size >= sizeof text) return;
  memcpy(text, value.data, value.size);
  text[value.size] = '\0';
  MHD_add_response_header(to, name, text);
}

static enum MHD_Result send_status(struct MHD_Connection *connection, unsigned status) {
  struct MHD_Response *empty = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
  enum MHD_Result queued = MHD_queue_response(connection, status, empty);
  MHD_destroy_response(empty);
  return queued;
}

/* A segment "..", which could lead out of the root. */
static int climbs(const char *path) {
  for (const char *at = path; (at = strstr(at, "/..")) != NULL; at += 3) {
    if (at[3] == '/' || at[3] == '\0') return 1;
  }
  return 0;
}

static enum MHD_Result serve(void *context, struct MHD_Connection *connection, const char *path,
                             const char *method, const char *version, const char *upload,
                             size_t *upload_size, void **state) {
  static int seen;
  struct site *site = context;
  (void)version, (void)upload;
  if (*state == NULL) { /* the head of the request only: wait for its end */
    *state = &seen;
    return MHD_YES;
  }
  const int head = strcmp(method, "HEAD") == 0;
  if ((!head && strcmp(method, "GET") != 0) || *upload_size != 0) {
    *upload_size = 0;
    return send_status(connection, MHD_HTTP_METHOD_NOT_ALLOWED);
  }
  char file[4096];
  if (path[0] != '/' || climbs(path) ||
      (size_t)snprintf(file, sizeof file, "%s%s", site->root, path) >= sizeof file) {
    return send_status(connection, MHD_HTTP_NOT_FOUND);
  }

  struct answer *answer = calloc(1, sizeof *answer);
  if (answer == NULL) return MHD_NO;
  answer->process = site->process;
  mcs_static_request request = {0};
  request.policy = site->policy;
  request.path = (mcs_str){path, strlen(path)};
  request.file = file;
  request.head = head;
  request.alloc = allocate;
  request.alloc_context = answer;
  mcs_response *response = &answer->response;
  const mcs_outcome outcome = mcs_static_get(site->process, &request, response);
  if (outcome != MCS_RESPONSE && outcome != MCS_FILE) {
    free_answer(answer);
    return send_status(connection, MHD_HTTP_NOT_FOUND);
  }

  const char *known =
      MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_IF_NONE_MATCH);
  const int unchanged = known != NULL && strlen(known) == response->etag.size &&
                        memcmp(known, response->etag.data, response->etag.size) == 0;
  unsigned status = unchanged ? MHD_HTTP_NOT_MODIFIED : MHD_HTTP_OK;
  struct MHD_Response *out;
  if (unchanged || (head && outcome == MCS_RESPONSE)) {
    out = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (!unchanged) {
      char length[32];
      snprintf(length, sizeof length, "%llu", (unsigned long long)response->body_length);
      MHD_add_response_header(out, MHD_HTTP_HEADER_CONTENT_LENGTH, length);
    }
    if (outcome == MCS_FILE) close(response->file_fd);
  } else if (outcome == MCS_FILE) {
    out = MHD_create_response_from_fd64(response->body_length, response->file_fd);
  } else {
    out = MHD_create_response_from_callback(response->body_length, 65536, read_body, answer,
                                            free_answer);
  }
  if (out == NULL) {
    free_answer(answer);
    return MHD_NO;
  }
  add_header(out, MHD_HTTP_HEADER_ETAG, response->etag);
  add_header(out, MHD_HTTP_HEADER_LAST_MODIFIED, response->last_modified_field);
  MHD_add_response_header(out, "X-Mcs-Status", mcs_cache_status_name(response->cache_status));
  const int by_callback = !unchanged && !head && outcome == MCS_RESPONSE;
  const enum MHD_Result queued = MHD_queue_response(connection, status, out);
  MHD_destroy_response(out); /* frees the answer too, once the body has been sent */
  if (!by_callback) free_answer(answer);
  return queued;
}

static void print_log(void *context, int level, const char *line) {
  (void)context, (void)level;
  fprintf(stderr, "mini_server: %s\n", line);
}

int main(int argc, char **argv) {
  if (argc < 5 || argc > 6) {
    fprintf(stderr, "usage: %s ROOT DOMAIN KEY_BASE PORT [DIRECTORY]\n", argv[0]);
    return 2;
  }
  if (mcs_api_version() >> 16 != MCS_API_VERSION_MAJOR) {
    fprintf(stderr, "mini_server: libglobalcache has another version: compile this again\n");
    return 1;
  }
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigprocmask(SIG_BLOCK, &ends, NULL);

  char error[256];
  struct site site = {argv[1], mcs_policy_create(), NULL};
  const char *base = argv[3];
  if (mcs_policy_set(site.policy, "key_base", 1, &base, error, sizeof error) == MCS_ERROR) {
    fprintf(stderr, "mini_server: %s\n", error);
    return 1;
  }
  mcs_domain_options domain = {0};
  domain.name = argv[2];
  domain.directory = argc == 6 ? argv[5] : NULL;
  domain.server = "mini_server/1";
  const mcs_callbacks callbacks = {NULL, print_log, NULL};
  site.process = mcs_join(&domain, &callbacks, error, sizeof error);
  if (site.process == NULL) {
    fprintf(stderr, "mini_server: %s\n", error);
    return 1;
  }

  struct sockaddr_in address = {0};
  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)atoi(argv[4]));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct MHD_Daemon *daemon = MHD_start_daemon(
      MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION, 0, NULL, NULL, serve, &site,
      MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address, MHD_OPTION_END);
  if (daemon == NULL) {
    fprintf(stderr, "mini_server: cannot listen on 127.0.0.1:%s: %s\n", argv[4], strerror(errno));
    mcs_leave(site.process);
    return 1;
  }
  /* The heartbeat, four times a second, until a signal comes. */
  const struct timespec interval = {0, 250 * 1000 * 1000};
  while (sigtimedwait(&ends, NULL, &interval) < 0) mcs_tick(site.process);
  MHD_stop_daemon(daemon);
  mcs_leave(site.process);
  mcs_policy_destroy(site.policy);
  return 0;
}
