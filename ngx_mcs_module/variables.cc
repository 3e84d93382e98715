// SPDX-License-Identifier: Apache-2.0
#include "ngx_mcs_module/module.h"

namespace mcs::nginx {
namespace {

ngx_int_t set_nothing(ngx_http_variable_value_t* value) noexcept {
  value->not_found = 1;
  return NGX_OK;
}

ngx_int_t get_status(ngx_http_request_t* r, ngx_http_variable_value_t* value,
                     uintptr_t /*data*/) noexcept {
  const RequestContext* context = request_context(r);
  if (context == nullptr || context->status == MCS_CACHE_NONE) return set_nothing(value);
  const char* name = mcs_cache_status_name(context->status);
  set_value(value, as_str(mcs_str{name, ngx_strlen(name)}));
  return NGX_OK;
}

ngx_int_t get_age(ngx_http_request_t* r, ngx_http_variable_value_t* value,
                  uintptr_t /*data*/) noexcept {
  const RequestContext* context = request_context(r);
  if (context == nullptr || context->age < 0) return set_nothing(value);
  auto* digits = static_cast<u_char*>(ngx_pnalloc(r->pool, NGX_INT64_LEN));
  if (digits == nullptr) return NGX_ERROR;
  const u_char* end = ngx_sprintf(digits, "%L", context->age);
  set_value(value, {static_cast<size_t>(end - digits), digits});
  return NGX_OK;
}

ngx_int_t get_key(ngx_http_request_t* r, ngx_http_variable_value_t* value,
                  uintptr_t /*data*/) noexcept {
  const RequestContext* context = request_context(r);
  if (context == nullptr) return set_nothing(value);
  const bool proxied = context->exchange != nullptr;
  const ngx_str_t& base = location_conf(r)->full_key_base;
  const mcs_str& path = context->key_path;
  const size_t size = proxied ? mcs_request_key(&proxied_request(context), nullptr, 0)
                              : base.len + path.size;
  if (size == 0 || (!proxied && path.size == 0)) return set_nothing(value);
  auto* key = static_cast<u_char*>(ngx_pnalloc(r->pool, size));
  if (key == nullptr) return NGX_ERROR;
  if (proxied) {
    mcs_request_key(&proxied_request(context), reinterpret_cast<char*>(key), size);
  } else {
    ngx_memcpy(ngx_cpymem(key, base.data, base.len), path.data, path.size);
  }
  set_value(value, {size, key});
  return NGX_OK;
}

// They change while a request goes from one location to another.
ngx_http_variable_t variables[] = {
    {text("mcs_cache_status"), nullptr, get_status, 0, NGX_HTTP_VAR_NOCACHEABLE, 0},
    {text("mcs_cache_age"), nullptr, get_age, 0, NGX_HTTP_VAR_NOCACHEABLE, 0},
    {text("mcs_cache_key"), nullptr, get_key, 0, NGX_HTTP_VAR_NOCACHEABLE, 0}};

}  // namespace

void set_value(ngx_http_variable_value_t* value, const ngx_str_t& text) noexcept {
  value->data = text.data;
  value->len = static_cast<unsigned>(text.len) & 0x0fffffff;
  value->valid = 1;
  value->no_cacheable = 0;
  value->not_found = 0;
}

ngx_int_t add_variables(ngx_conf_t* cf) noexcept {
  for (ngx_http_variable_t& known : variables) {
    ngx_http_variable_t* variable = ngx_http_add_variable(cf, &known.name, known.flags);
    if (variable == nullptr) return NGX_ERROR;
    variable->get_handler = known.get_handler;
  }
  return NGX_OK;
}

}  // namespace mcs::nginx
