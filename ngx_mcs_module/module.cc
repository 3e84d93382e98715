// SPDX-License-Identifier: Apache-2.0
#include "ngx_mcs_module/module.h"

namespace mcs::nginx {
namespace {

constexpr size_t kErrorSize = 512;
constexpr u_char kRulePrefix[] = "mcs_cache_";
char* set_domain(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_rule(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;

constexpr ngx_uint_t kAnyBlock =
    NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_HTTP_LIF_CONF;

const ngx_command_t own_commands[] = {
    {text("mcs_domain"), NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE, set_domain, NGX_HTTP_MAIN_CONF_OFFSET,
     0, nullptr},
    {text("mcs_cache"), kAnyBlock | NGX_CONF_FLAG, ngx_conf_set_flag_slot, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocationConf, enabled), nullptr},
    {text("mcs_cache_key"), kAnyBlock | NGX_CONF_TAKE1, ngx_http_set_complex_value_slot,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocationConf, key), nullptr},
    {text("mcs_cache_bypass"), kAnyBlock | NGX_CONF_1MORE, ngx_http_set_predicate_slot,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocationConf, bypass), nullptr},
    {text("mcs_cache_no_store"), kAnyBlock | NGX_CONF_1MORE, ngx_http_set_predicate_slot,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocationConf, no_store), nullptr},
};

// The directives above and those of the core's rules, of which each, mcs_cache_<name>, goes to the
// core as <name>; made when the module is loaded.
struct Commands {
  static constexpr size_t kMost = 96;
  static constexpr size_t kNameSize = 48;

  Commands() noexcept {
    for (const ngx_command_t& command : own_commands) all[count++] = command;
    const mcs_directive* rules = nullptr;
    const size_t rule_count = mcs_policy_directives(&rules);
    for (size_t i = 0; i < rule_count && count + 1 < kMost; ++i) {
      if (ngx_strcmp(rules[i].nginx_name, "enable") == 0) continue;  // that is `mcs_cache`
      u_char* name = names[count];
      const u_char* end =
          ngx_snprintf(name, kNameSize - 1, "%s%s", kRulePrefix, rules[i].nginx_name);
      const ngx_str_t word = {static_cast<size_t>(end - name), name};
      all[count++] = {word,   kAnyBlock | NGX_CONF_1MORE, set_rule, NGX_HTTP_LOC_CONF_OFFSET, 0,
                      nullptr};
    }
  }

  ngx_command_t all[kMost] = {};  // the first one without a name ends the list
  u_char names[kMost][kNameSize] = {};
  size_t count = 0;
};

Commands commands;

char* config_error(ngx_conf_t* cf, const ngx_str_t& directive, const char* reason) noexcept {
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\": %s", &directive, reason);
  return static_cast<char*>(NGX_CONF_ERROR);
}

const char* c_string(const ngx_str_t& word) noexcept {
  return reinterpret_cast<const char*>(word.data);  // nginx ends each configuration word with NUL
}

bool equal(const ngx_str_t& a, const ngx_str_t& b) noexcept {
  return a.len == b.len && ngx_memcmp(a.data, b.data, a.len) == 0;
}

char* set_domain(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept {
  auto& domain = static_cast<MainConf*>(conf)->domain;
  if (domain.name != nullptr) {
    return config_error(cf, cmd->name, "is duplicate: all servers of one nginx share one domain");
  }
  auto* words = static_cast<ngx_str_t*>(cf->args->elts);
  domain.name = c_string(words[1]);
  domain.server = NGINX_VER;
  char error[kErrorSize];
  for (ngx_uint_t i = 2; i < cf->args->nelts; ++i) {
    if (mcs_domain_option(&domain, c_string(words[i]), error, sizeof(error)) == MCS_ERROR) {
      return config_error(cf, cmd->name, error);
    }
  }
  // A start goes on without a cache that cannot be used; only `nginx -t` is there to complain.
  if (ngx_test_config) {
    const mcs_status usable = mcs_domain_check(&domain, error, sizeof(error));
    if (usable == MCS_ERROR) return config_error(cf, cmd->name, error);
    if (usable == MCS_WARNING) {
      ngx_conf_log_error(NGX_LOG_WARN, cf, 0, "\"mcs_domain\": %s", error);
    }
  }
  return NGX_CONF_OK;
}

char* set_rule(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept {
  auto* location = static_cast<LocationConf*>(conf);
  auto* words = static_cast<ngx_str_t*>(cf->args->elts);
  const size_t argc = cf->args->nelts - 1;
  auto* argv = static_cast<const char**>(ngx_palloc(cf->temp_pool, argc * sizeof(char*)));
  if (argv == nullptr) return static_cast<char*>(NGX_CONF_ERROR);
  for (size_t i = 0; i < argc; ++i) argv[i] = c_string(words[i + 1]);
  const char* rule = c_string(cmd->name) + sizeof(kRulePrefix) - 1;
  char error[kErrorSize];
  if (mcs_policy_set(location->policy, rule, argc, argv, error, sizeof(error)) == MCS_ERROR) {
    return config_error(cf, cmd->name, error);
  }
  if (ngx_strcmp(rule, "key_base") == 0) {
    if (ngx_strchr(words[1].data, '$') != nullptr) {
      return config_error(cf, cmd->name,
                          "a key base is one name and takes no variables: leave it out, or name "
                          "one in each server{}");
    }
    location->key_base = words[1];
  }
  return NGX_CONF_OK;
}

void* create_main_conf(ngx_conf_t* cf) noexcept { return ngx_pcalloc(cf->pool, sizeof(MainConf)); }

void destroy_policy(void* policy) noexcept { mcs_policy_destroy(static_cast<mcs_policy*>(policy)); }

// Destroyed with the configuration. nullptr: no memory.
mcs_policy* create_policy(ngx_conf_t* cf) noexcept {
  ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(cf->pool, 0);
  mcs_policy* policy = cleanup == nullptr ? nullptr : mcs_policy_create();
  if (policy != nullptr) {
    cleanup->handler = destroy_policy;
    cleanup->data = policy;
  }
  return policy;
}

LocationConf* conf_of(const ngx_http_core_loc_conf_t* core) noexcept {
  return static_cast<LocationConf*>(core->loc_conf[ngx_http_mcs_module.ctx_index]);
}

// What chooses the block that begins, not where it stands: that changes from reload to reload and
// from node to node. Words end with a zero.
uint32_t place_of(ngx_conf_t* cf) noexcept {
  uint32_t place = 0;
  const auto* words = static_cast<const ngx_str_t*>(cf->args->elts);
  for (ngx_uint_t i = 0; i < cf->args->nelts; ++i) {
    ngx_crc32_update(&place, words[i].data, words[i].len + 1);
  }
  if ((cf->cmd_type & NGX_HTTP_LOC_CONF) == 0) return place;
  const auto* core = static_cast<ngx_http_core_loc_conf_t*>(
      ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
  place += conf_of(core)->place;
  ngx_queue_t* all = core->locations;
  for (ngx_queue_t* q = all; q != nullptr && (q = ngx_queue_next(q)) != all;) {
    const auto* other = reinterpret_cast<const ngx_http_location_queue_t*>(q);
    // The same condition once more.
    if (conf_of(other->exact ? other->exact : other->inclusive)->place == place) ++place;
  }
  return place;
}

void* create_location_conf(ngx_conf_t* cf) noexcept {
  auto* conf = static_cast<LocationConf*>(ngx_pcalloc(cf->pool, sizeof(LocationConf)));
  if (conf == nullptr) return nullptr;
  conf->enabled = NGX_CONF_UNSET;
  conf->bypass = static_cast<ngx_array_t*>(NGX_CONF_UNSET_PTR);
  conf->no_store = static_cast<ngx_array_t*>(NGX_CONF_UNSET_PTR);
  conf->place = place_of(cf);
  conf->policy = create_policy(cf);
  return conf->policy == nullptr ? nullptr : conf;
}

// Without a name of its own a site shares with nobody.
ngx_str_t default_key_base(ngx_conf_t* cf, const ngx_str_t& root) noexcept {
  auto* server = static_cast<ngx_http_core_srv_conf_t*>(
      ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module));
  char text[NGX_MAX_CONF_ERRSTR];
  const size_t size = mcs_own_key_base("nginx", c_string(cf->cycle->conf_file),
                                       c_string(server->server_name), c_string(root), text,
                                       sizeof(text));
  ngx_str_t base = {ngx_min(size, sizeof(text) - 1) + 1, reinterpret_cast<u_char*>(text)};
  base.data = ngx_pstrdup(cf->pool, &base);
  base.len--;
  return base;
}

char* mixes(ngx_conf_t* cf, const LocationConf* conf, const char* what) noexcept {
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                     "\"mcs_cache_key_base %V\" in http{} would mix the %s of several server{} "
                     "blocks: name a key base in each server{} instead",
                     &conf->key_base, what);
  return static_cast<char*>(NGX_CONF_ERROR);
}

char* set_full_key_base(ngx_conf_t* cf, MainConf* main, LocationConf* conf,
                        bool variable_root) noexcept {
  const bool named = conf->key_base.len > 0;
  conf->whole_path = variable_root || (named && !equal(conf->root, conf->key_base_root));
  conf->full_key_base = named ? conf->key_base : default_key_base(cf, conf->root);
  if (named && !conf->whole_path && conf->key_base_in_http) {
    if (main->shared_root.data == nullptr) main->shared_root = conf->root;
    if (!equal(main->shared_root, conf->root)) return mixes(cf, conf, "files");
  }
  if (conf->full_key_base.data == nullptr) return static_cast<char*>(NGX_CONF_ERROR);
  conf->file_policy = create_policy(cf);
  if (conf->file_policy == nullptr) return static_cast<char*>(NGX_CONF_ERROR);
  const char* argument = c_string(conf->full_key_base);
  char error[kErrorSize];
  if (mcs_policy_set(conf->file_policy, "key_base", 1, &argument, error, sizeof(error)) ==
      MCS_ERROR) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "key base \"%V\": %s", &conf->full_key_base, error);
    return static_cast<char*>(NGX_CONF_ERROR);
  }
  mcs_policy_inherit(conf->file_policy, conf->policy);
  return NGX_CONF_OK;
}

// A key base takes the place of the host, so each server{} that proxies needs its own.
char* check_proxied_key_base(ngx_conf_t* cf, MainConf* main, const LocationConf* conf) noexcept {
  const void* server = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);
  if (!conf->key_base_in_http) return NGX_CONF_OK;
  if (main->shared_server == nullptr) main->shared_server = server;
  return main->shared_server == server ? NGX_CONF_OK : mixes(cf, conf, "responses");
}

// The core's own locations are merged before those of a dynamic module, so roots are known here.
char* merge_location_conf(ngx_conf_t* cf, void* parent, void* child) noexcept {
  const auto* outer = static_cast<const LocationConf*>(parent);
  auto* conf = static_cast<LocationConf*>(child);
  const auto* core = static_cast<ngx_http_core_loc_conf_t*>(
      ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
  auto* main = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_mcs_module));

  conf->root = core->root;
  if (conf->root.len > 0 && conf->root.data[conf->root.len - 1] == '/') conf->root.len--;
  if (conf->key_base.len > 0) {
    conf->key_base_root = conf->root;
  } else if (outer->key_base.len > 0) {
    const bool outer_is_http = outer->root.data == nullptr;
    conf->key_base = outer->key_base;
    conf->key_base_root = outer_is_http ? conf->root : outer->key_base_root;
    conf->key_base_in_http = outer_is_http || outer->key_base_in_http;
  }

  ngx_conf_merge_value(conf->enabled, outer->enabled, 0);
  ngx_conf_merge_ptr_value(conf->bypass, outer->bypass, nullptr);
  ngx_conf_merge_ptr_value(conf->no_store, outer->no_store, nullptr);
  if (conf->key == nullptr) conf->key = outer->key;
  mcs_policy_inherit(conf->policy, outer->policy);
  if (!conf->enabled) return NGX_CONF_OK;
  if (main->domain.name == nullptr) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"mcs_cache on\" needs a domain: add \"mcs_domain NAME size=256m;\" "
                       "to http{}");
    return static_cast<char*>(NGX_CONF_ERROR);
  }
  return core->handler != nullptr
             ? check_proxied_key_base(cf, main, conf)
             : set_full_key_base(cf, main, conf, core->root_lengths != nullptr);
}

ngx_int_t add_handlers(ngx_conf_t* cf) noexcept {
  return add_static_handler(cf) == NGX_OK && add_proxied_handler(cf) == NGX_OK &&
                 add_refresh_handler(cf) == NGX_OK
             ? NGX_OK
             : NGX_ERROR;
}

ngx_http_module_t http_module = {
    add_variables,         // preconfiguration
    add_handlers,          // postconfiguration
    create_main_conf,      // create main configuration
    nullptr,               // init main configuration
    nullptr,               // create server configuration
    nullptr,               // merge server configuration
    create_location_conf,  // create location configuration
    merge_location_conf,   // merge location configuration
};

}  // namespace

ngx_int_t add_handler(ngx_conf_t* cf, ngx_http_phases phase, ngx_http_handler_pt handler) noexcept {
  auto* core = static_cast<ngx_http_core_main_conf_t*>(
      ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  auto* place = static_cast<ngx_http_handler_pt*>(ngx_array_push(&core->phases[phase].handlers));
  if (place == nullptr) return NGX_ERROR;
  *place = handler;
  return NGX_OK;
}

}  // namespace mcs::nginx

extern "C" {

ngx_module_t ngx_http_mcs_module = {
    NGX_MODULE_V1,
    &mcs::nginx::http_module,    // module context
    mcs::nginx::commands.all,    // module directives
    NGX_HTTP_MODULE,             // module type
    nullptr,                     // init master
    mcs::nginx::prepare_domain,  // init module
    mcs::nginx::start_worker,    // init process
    nullptr,                     // init thread
    nullptr,                     // exit thread
    mcs::nginx::stop_worker,     // exit process
    nullptr,                     // exit master
    NGX_MODULE_V1_PADDING,
};

// What nginx looks up in a dynamic module. Without an order the module comes last, so that its
// filters see responses before any other.
static char module_name[] = "ngx_http_mcs_module";
MCS_API ngx_module_t* ngx_modules[] = {&ngx_http_mcs_module, nullptr};
MCS_API char* ngx_module_names[] = {module_name, nullptr};
MCS_API char* ngx_module_order[] = {nullptr};
}
