// SPDX-License-Identifier: Apache-2.0
// The least that a handler of httpd does for a hit: bodies read once and kept in the process's own
// memory, the fields of a static file, no cache. What `mcs-bench hit` compares our module with.
//
// BareBody <path> <file>: what a request for <path> is answered with.
#include <httpd.h>
// httpd.h comes first.
#include <apr_strings.h>
#include <http_config.h>
#include <http_protocol.h>
#include <http_request.h>
#include <util_filter.h>

#include <fstream>
#include <iterator>
#include <map>
#include <string>

namespace {

struct Body {
  std::string bytes;
  std::string etag;
  apr_time_t modified = 0;
};

// Filled while the configuration is read, constant afterwards.
std::map<std::string, Body, std::less<>> bodies;

const char* set_body(cmd_parms* cmd, void* /*conf*/, const char* path, const char* file) {
  std::ifstream in(file, std::ios::binary);
  apr_finfo_t info;
  if (!in || apr_stat(&info, file, APR_FINFO_MIN, cmd->pool) != APR_SUCCESS) {
    return apr_psprintf(cmd->pool, "BareBody: cannot read %s", file);
  }
  Body& body = bodies[path];
  body.bytes.assign(std::istreambuf_iterator<char>(in), {});
  body.etag =
      apr_psprintf(cmd->pool, "\"%" APR_UINT64_T_HEX_FMT "-%" APR_UINT64_T_HEX_FMT "\"",
                   static_cast<apr_uint64_t>(info.size), static_cast<apr_uint64_t>(info.mtime));
  body.modified = info.mtime;
  return nullptr;
}

int handle(request_rec* r) {
  const auto found = bodies.find(r->uri);
  if (found == bodies.end()) return DECLINED;
  const Body& body = found->second;
  ap_set_content_type(r, "text/html");
  ap_set_content_length(r, static_cast<apr_off_t>(body.bytes.size()));
  ap_update_mtime(r, body.modified);
  ap_set_last_modified(r);
  apr_table_setn(r->headers_out, "ETag", body.etag.c_str());
  apr_table_setn(r->headers_out, "Accept-Ranges", "bytes");
  apr_bucket_alloc_t* const alloc = r->connection->bucket_alloc;
  apr_bucket_brigade* const brigade = apr_brigade_create(r->pool, alloc);
  APR_BRIGADE_INSERT_TAIL(brigade,
                          apr_bucket_immortal_create(body.bytes.data(), body.bytes.size(), alloc));
  APR_BRIGADE_INSERT_TAIL(brigade, apr_bucket_eos_create(alloc));
  return ap_pass_brigade(r->output_filters, brigade) == APR_SUCCESS ? OK : AP_FILTER_ERROR;
}

void register_hooks(apr_pool_t* /*pool*/) {
  ap_hook_handler(handle, nullptr, nullptr, APR_HOOK_MIDDLE);
}

const command_rec commands[] = {
    {"BareBody", reinterpret_cast<cmd_func>(reinterpret_cast<void*>(set_body)), nullptr, RSRC_CONF, TAKE2,
     "a path and the file it is answered with"},
    {}};

}  // namespace

extern "C" {
__attribute__((visibility("default"))) module bare_handler_module = {
    STANDARD20_MODULE_STUFF, nullptr, nullptr, nullptr, nullptr, commands, register_hooks, 0};
}
