// SPDX-License-Identifier: Apache-2.0
// Local files: what nginx's own static module would send, from the cache.
#include "ngx_mcs_module/module.h"

namespace mcs::nginx {
namespace {

// The path below the document root or alias, with its first slash, or else the whole path after a second
// slash, as in httpd; empty if there is no such path.
mcs_str key_path(ngx_http_request_t* r, const ngx_str_t& path, size_t root_size) noexcept {
  const auto* data = reinterpret_cast<const char*>(path.data);
  if (location_conf(r)->whole_path) {
    auto* whole = static_cast<char*>(ngx_pnalloc(r->pool, path.len + 1));
    if (whole == nullptr) return {};
    whole[0] = '/';
    ngx_memcpy(whole + 1, data, path.len);
    return {whole, path.len + 1};
  }
  size_t begin = root_size;
  if (begin == path.len && core_conf(r)->exact_match) {  // an alias that is one file
    while (begin > 0 && data[begin - 1] != '/') --begin;
  }
  if (begin > 0 && data[begin - 1] == '/') --begin;  // an alias that ends with a slash
  // "//" could be taken for a whole path (merge_slashes off).
  const bool below = begin < path.len && data[begin] == '/' && path.data[begin + 1] != '/';
  return below ? mcs_str{data + begin, path.len - begin} : mcs_str{};
}

ngx_int_t set_headers(ngx_http_request_t* r, mcs_response response) noexcept {
  mcs_field fields[3];
  response.fields = fields;
  const auto add = [&](const char* name, const mcs_str& value) {
    if (value.size > 0) fields[response.field_count++] = {{name, ngx_strlen(name)}, value};
  };
  add("Last-Modified", response.last_modified_field);
  add("ETag", core_conf(r)->etag ? response.etag : mcs_str{});
  add("Cache-Status", response.cache_status_field);
  r->headers_out.status = static_cast<ngx_uint_t>(response.status);
  r->headers_out.content_length_n = static_cast<off_t>(response.body_length);
  if (add_fields(r, response) != NGX_OK) return NGX_ERROR;
  r->headers_out.last_modified_time = response.last_modified;
  return ngx_http_set_content_type(r);
}

ngx_int_t send_response(ngx_http_request_t* r, const ngx_str_t& path,
                        mcs_response* response) noexcept {
  const ngx_int_t begun = begin_sending(r, path, response);
  if (begun != NGX_OK) return begun;
  if (set_headers(r, *response) != NGX_OK) return NGX_HTTP_INTERNAL_SERVER_ERROR;
  r->allow_ranges = 1;
  // nginx cuts several ranges out of one buffer only.
  r->single_range = response->body_count > 1;
  return send_all(r, path, *response);
}

void resume(ngx_http_request_t* r, RequestContext* context, bool timed_out) noexcept {
  context->last_try = context->last_try || timed_out;
  r->read_event_handler = ngx_http_block_reading;
  r->write_event_handler = ngx_http_core_run_phases;
  ngx_http_core_run_phases(r);
}

// The file and, in the context, its key. NGX_DECLINED: there can be none.
ngx_int_t find_file(ngx_http_request_t* r, RequestContext* context, ngx_str_t* path) noexcept {
  size_t root_size;
  const u_char* end = ngx_http_map_uri_to_path(r, path, &root_size, 0);
  if (end == nullptr) return NGX_HTTP_INTERNAL_SERVER_ERROR;
  path->len = static_cast<size_t>(end - path->data);
  context->key_path = key_path(r, *path, root_size);
  return context->key_path.size == 0 ? NGX_DECLINED : NGX_OK;
}

ngx_int_t static_handler(ngx_http_request_t* r) noexcept {
  const LocationConf* conf = location_conf(r);
  if (conf->file_policy == nullptr || joined_process == nullptr ||
      !(r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) || r->uri.data[r->uri.len - 1] == '/' ||
      r->post_action || core_conf(r)->disable_symlinks != NGX_DISABLE_SYMLINKS_OFF) {
    return NGX_DECLINED;
  }

  RequestContext* context = make_context(r);
  if (context == nullptr) return NGX_HTTP_INTERNAL_SERVER_ERROR;
  if (ngx_http_test_predicates(r, conf->bypass) != NGX_OK ||
      ngx_http_test_predicates(r, conf->no_store) != NGX_OK) {
    context->status = MCS_CACHE_BYPASS;
    return NGX_DECLINED;
  }
  ngx_str_t path;
  const ngx_int_t found = find_file(r, context, &path);
  if (found != NGX_OK) return found;
  mcs_static_request request = {};
  request.policy = conf->file_policy;
  request.path = context->key_path;
  request.file = reinterpret_cast<const char*>(path.data);
  request.head = r->method == NGX_HTTP_HEAD || r->header_only;
  request.last_try = context->last_try;
  request.waiter = context;
  request.alloc = allocate;
  request.alloc_context = r->pool;
  mcs_response response;
  const mcs_outcome outcome = mcs_static_get(joined_process, &request, &response);
  if (outcome == MCS_WAIT) {
    if (begin_waiting(context, response.wait_ms, resume) != NGX_OK) {
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    r->write_event_handler = ngx_http_request_empty_handler;
    r->main->count++;
    return NGX_DONE;
  }
  if (outcome == MCS_DECLINED) return NGX_DECLINED;
  context->status = response.cache_status;
  return send_response(r, path, &response);
}

}  // namespace

ngx_int_t purge_file(ngx_http_request_t* r, mcs_response* response) noexcept {
  RequestContext* context = request_context(r);
  ngx_str_t path;
  const ngx_int_t found = find_file(r, context, &path);
  if (found == NGX_DECLINED) return NGX_OK;
  return found == NGX_OK && mcs_purge_file(joined_process, location_conf(r)->file_policy,
                                           context->key_path, allocate, r->pool, response)
             ? NGX_OK
             : NGX_ERROR;
}

RequestContext* make_context(ngx_http_request_t* r) noexcept {
  RequestContext* context = request_context(r);
  if (context == nullptr) {
    context = static_cast<RequestContext*>(ngx_pcalloc(r->pool, sizeof(RequestContext)));
    if (context != nullptr) {
      context->request = r;
      context->age = -1;
      ngx_http_set_ctx(r, context, ngx_http_mcs_module);
    }
  }
  return context;
}

// The handler takes its turn in the content phase just before the static module, which is the
// first in the list and the last to be asked: access rules, try_files, index and gzip_static have
// had theirs, and locations with a content handler (proxy_pass, ...) never come here.
ngx_int_t add_static_handler(ngx_conf_t* cf) noexcept {
  auto* core = static_cast<ngx_http_core_main_conf_t*>(
      ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  ngx_array_t& handlers = core->phases[NGX_HTTP_CONTENT_PHASE].handlers;
  if (ngx_array_push(&handlers) == nullptr) return NGX_ERROR;
  auto* first = static_cast<ngx_http_handler_pt*>(handlers.elts);
  for (ngx_uint_t i = handlers.nelts - 1; i > 1; --i) first[i] = first[i - 1];
  first[handlers.nelts > 1 ? 1 : 0] = static_handler;
  return NGX_OK;
}

}  // namespace mcs::nginx
