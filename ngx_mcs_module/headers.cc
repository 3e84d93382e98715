// SPDX-License-Identifier: Apache-2.0
// Between nginx's header lists and the core's fields.
#include "ngx_mcs_module/module.h"

namespace mcs::nginx {
namespace {

using Element = ngx_table_elt_t;

// Calls `f` with each element of a list.
template <typename F>
void each(const ngx_list_t& list, F f) noexcept {
  for (const ngx_list_part_t* part = &list.part; part != nullptr; part = part->next) {
    auto* elements = static_cast<Element*>(part->elts);
    for (ngx_uint_t i = 0; i < part->nelts; ++i) f(elements[i]);
  }
}

size_t size_of(const ngx_list_t& list) noexcept {
  size_t n = 0;
  for (const ngx_list_part_t* part = &list.part; part != nullptr; part = part->next) {
    n += part->nelts;
  }
  return n;
}

// Of the lines that nginx hides or rewrites, those that the core has to see as they came.
const ngx_str_t kWantedRaw[] = {text("Date"), text("Content-Length"), text("Transfer-Encoding"),
                                text("Connection")};

// Fields that nginx knows by their place.
Element** place_of(ngx_http_headers_out_t& out, const ngx_str_t& name) noexcept {
  using Out = ngx_http_headers_out_t;
  struct Known {
    ngx_str_t name;
    Element* Out::*member;
  };
  static const Known kKnown[] = {{text("ETag"), &Out::etag},
                                 {text("Last-Modified"), &Out::last_modified},
                                 {text("Date"), &Out::date},
                                 {text("Server"), &Out::server},
                                 {text("Expires"), &Out::expires},
                                 {text("Content-Encoding"), &Out::content_encoding},
                                 {text("Content-Range"), &Out::content_range},
                                 {text("Accept-Ranges"), &Out::accept_ranges},
                                 {text("WWW-Authenticate"), &Out::www_authenticate}};
  for (const Known& known : kKnown) {
    if (same_name(known.name, name)) return &(out.*known.member);
  }
  return nullptr;
}

void set_content_type(ngx_http_headers_out_t& out, const ngx_str_t& value) noexcept {
  out.content_type = value;
  out.content_type_lowcase = nullptr;
  // What gzip_types and the like are compared with.
  const u_char* end = ngx_strlchr(value.data, value.data + value.len, ';');
  out.content_type_len = end == nullptr ? value.len : static_cast<size_t>(end - value.data);
}

ngx_int_t add_field(ngx_http_request_t* r, const mcs_field& field) noexcept {
  static const ngx_str_t kContentType = text("Content-Type");
  static const ngx_str_t kCacheControl = text("Cache-Control");
  ngx_http_headers_out_t& out = r->headers_out;
  const ngx_str_t name = as_str(field.name);
  if (same_name(name, kContentType)) {
    set_content_type(out, as_str(field.value));
    return NGX_OK;
  }
  auto* added = static_cast<Element*>(ngx_list_push(&out.headers));
  if (added == nullptr) return NGX_ERROR;
  *added = {1, name, as_str(field.value), nullptr};
  if (Element** place = place_of(out, name)) *place = added;
  if (!same_name(name, kCacheControl)) return NGX_OK;
  // The `expires` directive looks for these.
  ngx_array_t& known = out.cache_control;
  if (known.elts == nullptr && ngx_array_init(&known, r->pool, 1, sizeof(Element*)) != NGX_OK) {
    return NGX_ERROR;
  }
  auto** next = static_cast<Element**>(ngx_array_push(&known));
  if (next == nullptr) return NGX_ERROR;
  *next = added;
  return NGX_OK;
}

}  // namespace

void* allocate(void* pool, size_t size) noexcept {
  return ngx_palloc(static_cast<ngx_pool_t*>(pool), size);
}

ngx_int_t read_request_fields(ngx_http_request_t* r, mcs_request* request) noexcept {
  const ngx_list_t& list = r->headers_in.headers;
  auto* fields =
      static_cast<mcs_field*>(ngx_palloc(r->pool, (size_of(list) + 1) * sizeof(mcs_field)));
  if (fields == nullptr) return NGX_ERROR;
  size_t n = 0;
  each(list, [&](const Element& field) {
    if (r == r->main || !is_one_of(field.key, kOfMainOnly)) {
      fields[n++] = {as_str(field.key), as_str(field.value)};
    }
  });
  request->fields = fields;
  request->field_count = n;
  return NGX_OK;
}

ngx_int_t edit_request(ngx_http_request_t* r, const mcs_response& edits,
                       RequestEdits* made) noexcept {
  restore_request(r, made);
  if (edits.remove_count == 0 && edits.add_count == 0) return NGX_OK;
  ngx_list_t& list = r->headers_in.headers;
  made->original = list;
  made->active = true;
  const size_t most = size_of(made->original) + edits.add_count + 1;
  if (ngx_list_init(&list, r->pool, most, sizeof(Element)) != NGX_OK) return NGX_ERROR;
  each(made->original, [&](const Element& field) {
    for (size_t i = 0; i < edits.remove_count; ++i) {
      if (same_name(as_str(edits.remove_fields[i]), field.key)) return;
    }
    *static_cast<Element*>(ngx_list_push(&list)) = field;
  });
  for (size_t i = 0; i < edits.add_count; ++i) {
    auto* added = static_cast<Element*>(ngx_list_push(&list));
    const ngx_str_t name = as_str(edits.add_fields[i].name);
    *added = {0, name, as_str(edits.add_fields[i].value), nullptr};
    added->lowcase_key = static_cast<u_char*>(ngx_pnalloc(r->pool, name.len));
    if (added->lowcase_key == nullptr) return NGX_ERROR;
    added->hash = ngx_hash_strlow(added->lowcase_key, name.data, name.len);
  }
  return NGX_OK;
}

void restore_request(ngx_http_request_t* r, RequestEdits* made) noexcept {
  if (made->active) r->headers_in.headers = made->original;
  made->active = false;
}

ngx_int_t read_response_fields(ngx_http_request_t* r, const ngx_http_upstream_t* u,
                               mcs_field** fields, size_t* count) noexcept {
  const ngx_http_headers_out_t& out = r->headers_out;
  const bool raw = u != nullptr && u->headers_in.status_n != 0;
  const size_t most = size_of(out.headers) + (raw ? size_of(u->headers_in.headers) : 0) + 3;
  auto* made = static_cast<mcs_field*>(ngx_palloc(r->pool, most * sizeof(mcs_field)));
  if (made == nullptr) return NGX_ERROR;
  size_t n = 0;
  each(out.headers, [&](const Element& field) {
    if (field.hash != 0 && !(raw && is_one_of(field.key, kWantedRaw))) {
      made[n++] = {as_str(field.key), as_str(field.value)};
    }
  });
  if (out.content_type.len > 0) {
    made[n++] = {as_str(text("Content-Type")), as_str(out.content_type)};
  }
  if (raw) {
    each(u->headers_in.headers, [&](const Element& field) {
      if (is_one_of(field.key, kWantedRaw)) {
        made[n++] = {as_str(field.key), as_str(field.value)};
      }
    });
  } else if (out.content_length_n >= 0) {
    ngx_str_t length = {0, static_cast<u_char*>(ngx_pnalloc(r->pool, NGX_OFF_T_LEN))};
    if (length.data == nullptr) return NGX_ERROR;
    length.len =
        static_cast<size_t>(ngx_sprintf(length.data, "%O", out.content_length_n) - length.data);
    made[n++] = {as_str(text("Content-Length")), as_str(length)};
  }
  *fields = made;
  *count = n;
  return NGX_OK;
}

ngx_int_t add_fields(ngx_http_request_t* r, const mcs_response& response) noexcept {
  for (size_t i = 0; i < response.field_count; ++i) {
    if (add_field(r, response.fields[i]) != NGX_OK) return NGX_ERROR;
  }
  return NGX_OK;
}

ngx_int_t set_response(ngx_http_request_t* r, const mcs_response& response) noexcept {
  ngx_http_clean_header(r);
  ngx_http_headers_out_t& out = r->headers_out;
  out.status = static_cast<ngx_uint_t>(response.status);
  const bool no_length = response.body_length == MCS_UNKNOWN_LENGTH ||
                         response.status == NGX_HTTP_NOT_MODIFIED ||
                         response.status == NGX_HTTP_NO_CONTENT;
  out.content_length_n = no_length ? -1 : static_cast<off_t>(response.body_length);
  r->err_status = 0;
  // Preconditions and ranges are the core's.
  r->disable_not_modified = 1;
  r->allow_ranges = 0;
  if (add_fields(r, response) != NGX_OK) return NGX_ERROR;
  out.last_modified_time = out.last_modified != nullptr ? response.last_modified : -1;
  return NGX_OK;
}

}  // namespace mcs::nginx
