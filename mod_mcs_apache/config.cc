// SPDX-License-Identifier: Apache-2.0
//
// Directives, their inheritance, and what is checked and prepared before the first child starts.
#include "mod_mcs_apache/mod_mcs.h"

#include <ap_mpm.h>
#include <apr_fnmatch.h>
#include <apr_strings.h>
#include <apr_user.h>
#include <http_core.h>
#include <http_main.h>
#include <mpm_common.h>
#include <unistd.h>
#include <unixd.h>

#include <atomic>
#include <cstring>

namespace mcs::httpd {

struct Rules {
  // The result of inheriting what is not set here from one parent.
  struct Merge {
    const Rules* parent;
    Rules* result;
    Merge* next;
  };
  explicit Rules(mcs_policy* (*create)() = mcs_policy_create) noexcept : site{create(), create()} {}
  Site site;
  bool of_request = false;  // from a .htaccess file: gone with the request
  std::atomic<Merge*> merges{nullptr};  // only ever pushed to
};

namespace {

constexpr char kPrefix[] = "McsCache";
constexpr char kKeyBase[] = "KeyBase";
constexpr apr_size_t kFlushThreshold = 16 * 1024 * 1024;
constexpr apr_size_t kHttpdFlushThreshold = 65535;  // httpd's own default

// What the global part of the configuration said. In the configuration's pool: gone at a reload.
struct Global {
  mcs_domain_options domain{};
  const char* domain_place = nullptr;   // "file:line" of McsDomain
  const char* enabled_place = nullptr;  // of the first McsCache On
  KeyBase* key_bases = nullptr;
};
Global* global;

const char* place(const cmd_parms* cmd) noexcept {
  return apr_psprintf(cmd->pool, "%s:%d", cmd->directive->filename, cmd->directive->line_num);
}

apr_status_t destroy_rules(void* data) noexcept {
  auto* rules = static_cast<Rules*>(data);
  for (Rules::Merge* merge = rules->merges.load(); merge != nullptr;) {
    Rules::Merge* next = merge->next;
    destroy_rules(merge->result);
    delete merge;
    merge = next;
  }
  mcs_policy_destroy(rules->site.files);
  mcs_policy_destroy(rules->site.responses);
  delete rules;
  return APR_SUCCESS;
}

Rules* create_rules(apr_pool_t* pool, bool of_request) noexcept {
  auto* rules = of_request ? new Rules(mcs_policy_create_for_request) : new Rules;
  rules->of_request = of_request;
  apr_pool_cleanup_register(pool, rules, destroy_rules, apr_pool_cleanup_null);
  return rules;
}

void take_from(Rules* result, const Rules* child, const Rules* parent) noexcept {
  for (const Rules* from : {child, parent}) {
    mcs_policy_inherit(result->site.files, from->site.files);
    mcs_policy_inherit(result->site.responses, from->site.responses);
    if (result->site.key_base == nullptr) result->site.key_base = from->site.key_base;
    if (result->site.key == nullptr) result->site.key = from->site.key;
  }
}

// httpd merges sections for every request; the same two always give the same rules, made once unless
// a request brings its own.
Rules* inherit(apr_pool_t* pool, Rules* child, const Rules* parent) noexcept {
  if (child->of_request || parent->of_request) {
    Rules* result = create_rules(pool, true);
    take_from(result, child, parent);
    return result;
  }
  Rules::Merge* head = child->merges.load(std::memory_order_acquire);
  for (Rules::Merge* merge = head; merge != nullptr; merge = merge->next) {
    if (merge->parent == parent) return merge->result;
  }
  auto* merge = new Rules::Merge{parent, new Rules, head};
  take_from(merge->result, child, parent);
  while (!child->merges.compare_exchange_weak(merge->next, merge, std::memory_order_acq_rel)) {
    // Another thread may have made the same meanwhile; then both are kept and the newer one used.
  }
  return merge->result;
}

KeyBase* add_key_base(apr_pool_t* pool, const char* name, const server_rec* home,
                      const char* directory) noexcept {
  global->key_bases = new (apr_palloc(pool, sizeof(KeyBase)))
      KeyBase{apr_pstrdup(pool, name), home, directory, nullptr, global->key_bases};
  return global->key_bases;
}

const char* without_last_slashes(apr_pool_t* pool, const char* path) noexcept {
  size_t size = strlen(path);
  while (size > 0 && path[size - 1] == '/') --size;
  return apr_pstrmemdup(pool, path, size);
}

// The directory of the <Directory> section a directive is in, unless that names a pattern.
const char* section_directory(const cmd_parms* cmd) noexcept {
  const ap_directive_t* section = cmd->directive->parent;
  if (section == nullptr || strcasecmp(section->directive, "<Directory") != 0 ||
      section->args[0] == '~' || cmd->path == nullptr || cmd->path[0] != '/' ||
      apr_fnmatch_test(cmd->path)) {
    return nullptr;
  }
  return without_last_slashes(cmd->pool, cmd->path);
}

const char* set_domain(cmd_parms* cmd, void*, int argc, char* const argv[]) noexcept {
  if (const char* error = ap_check_cmd_context(cmd, GLOBAL_ONLY)) return error;
  if (global->domain_place != nullptr) {
    return apr_psprintf(cmd->pool, "McsDomain is set already at %s: a server joins one domain",
                        global->domain_place);
  }
  if (argc == 0) return "McsDomain needs a name, for example: McsDomain site size=256m";
  global->domain_place = place(cmd);
  global->domain.name = apr_pstrdup(cmd->pool, argv[0]);
  for (int i = 1; i < argc; ++i) {
    char error[512] = "";
    if (mcs_domain_option(&global->domain, apr_pstrdup(cmd->pool, argv[i]), error, sizeof error) ==
        MCS_ERROR) {
      return apr_psprintf(cmd->pool, "McsDomain: %s", error);
    }
  }
  return nullptr;
}

const char* set_enabled(cmd_parms* cmd, void* config, int enabled) noexcept {
  static_cast<DirConfig*>(config)->enabled = enabled;
  // In .htaccess files the two pools are the same.
  const bool starting = cmd->pool != cmd->temp_pool;
  if (starting && enabled && global->enabled_place == nullptr) global->enabled_place = place(cmd);
  return nullptr;
}

Site& site_of(const cmd_parms* cmd, void* config) noexcept {
  auto* dir = static_cast<DirConfig*>(config);
  // The two pools are the same for .htaccess files.
  if (dir->rules == nullptr) dir->rules = create_rules(cmd->pool, cmd->pool == cmd->temp_pool);
  return dir->rules->site;
}

const char* set_key(cmd_parms* cmd, void* config, const char* text) noexcept {
  const char* error = nullptr;
  site_of(cmd, config).key =
      ap_expr_parse_cmd(cmd, text, AP_EXPR_FLAG_STRING_RESULT, &error, nullptr);
  return error != nullptr ? apr_psprintf(cmd->pool, "McsCacheKey \"%s\": %s", text, error)
                          : nullptr;
}

const char* set_rule(cmd_parms* cmd, void* config, int argc, char* const argv[]) noexcept {
  Site& site = site_of(cmd, config);
  const char* rule = cmd->cmd->name + strlen(kPrefix);
  const auto count = static_cast<size_t>(argc);
  char error[512] = "";
  (void)mcs_policy_set(site.responses, rule, count, argv, error, sizeof error);
  switch (mcs_policy_set(site.files, rule, count, argv, error, sizeof error)) {
    case MCS_ERROR:
      return apr_psprintf(cmd->pool, "%s: %s", cmd->cmd->name, error);
    case MCS_WARNING:
      ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_WARNING, 0, cmd->server, "%s at %s: %s",
                   cmd->cmd->name, place(cmd), error);
      break;
    case MCS_OK:
      break;
  }
  if (strcmp(rule, kKeyBase) == 0) {
    site.key_base = add_key_base(cmd->pool, argv[0], cmd->server, section_directory(cmd));
  }
  return nullptr;
}

int pre_config(apr_pool_t* pool, apr_pool_t*, apr_pool_t*) noexcept {
  global = new (apr_palloc(pool, sizeof(Global))) Global;
  return OK;
}

bool is_configtest() noexcept { return ap_state_query(AP_SQ_RUN_MODE) == AP_SQ_RM_CONFIG_TEST; }

void complete_domain(apr_pool_t* pool) noexcept {
  mcs_domain_options& domain = global->domain;
  ap_version_t version;
  ap_get_server_revision(&version);
  domain.server = apr_psprintf(pool, "httpd/%d.%d.%d", version.major, version.minor, version.patch);
  // Children run as User and Group, so a domain that root creates for them must be theirs.
  if (domain.owner != nullptr || geteuid() != 0) return;
  char* group = nullptr;
  apr_gid_name_get(&group, ap_unixd_config.group_id, pool);
  domain.owner = ap_unixd_config.user_name;
  if (domain.group == nullptr) domain.group = group;
}

int check_config(apr_pool_t* pool, apr_pool_t*, apr_pool_t*, server_rec* server) noexcept {
  if (global->domain_place == nullptr) {
    if (global->enabled_place == nullptr) return OK;
    ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_ERR, 0, server,
                 "McsCache On at %s needs a domain: add a line like `McsDomain site size=256m` "
                 "outside all <VirtualHost> sections",
                 global->enabled_place);
    return HTTP_INTERNAL_SERVER_ERROR;
  }
  complete_domain(pool);
  // A server that starts or reloads goes on without the cache rather than not at all.
  if (!is_configtest()) return OK;
  char error[512] = "";
  mcs_status status = mcs_domain_check(&global->domain, error, sizeof error);
  if (status == MCS_OK) return OK;
  ap_log_error(APLOG_MARK, APLOG_STARTUP | (status == MCS_ERROR ? APLOG_ERR : APLOG_WARNING), 0,
               server, "McsDomain at %s: %s", global->domain_place, error);
  return status == MCS_ERROR ? HTTP_INTERNAL_SERVER_ERROR : OK;
}

const char* document_root(apr_pool_t* pool, const server_rec* server) noexcept {
  auto* core = static_cast<core_server_config*>(ap_get_core_module_config(server->module_config));
  return core->ap_document_root != nullptr ? without_last_slashes(pool, core->ap_document_root)
                                           : nullptr;
}

// A key base set outside all virtual hosts and <Directory> sections holds for each host, so it
// belongs to the document root they have in common. nullptr: they have none.
const char* shared_root(apr_pool_t* pool, const server_rec* main_server) noexcept {
  const server_rec* first = main_server->next != nullptr ? main_server->next : main_server;
  const char* shared = document_root(pool, first);
  for (const server_rec* server = first; shared != nullptr && server != nullptr;
       server = server->next) {
    const char* root = document_root(pool, server);
    if (root == nullptr || strcmp(root, shared) != 0) return nullptr;
  }
  return shared;
}

void find_roots(apr_pool_t* pool, const server_rec* main_server) noexcept {
  const char* shared = shared_root(pool, main_server);
  for (KeyBase* key_base = global->key_bases; key_base != nullptr; key_base = key_base->next) {
    key_base->root = key_base->home == main_server ? shared : document_root(pool, key_base->home);
    if (key_base->root == nullptr || key_base->directory == nullptr) continue;
    const size_t size = strlen(key_base->root);
    const char* below = key_base->directory + size;
    if (strncmp(key_base->directory, key_base->root, size) == 0 &&
        (*below == '/' || *below == '\0')) {
      key_base->directory = nullptr;  // it is part of that site
    }
  }
  for (KeyBase* key_base = global->key_bases; key_base != nullptr; key_base = key_base->next) {
    if (key_base->directory != nullptr) {
      // The directory is a site of its own, unless its key base is also that of something else.
      const char* root = key_base->directory;
      for (KeyBase* other = global->key_bases; other != nullptr; other = other->next) {
        if (strcmp(other->name, key_base->name) != 0) continue;
        if (other->directory == nullptr) {
          root = other->root;
          break;
        }
        if (strcmp(other->directory, key_base->directory) != 0) root = nullptr;
      }
      key_base->root = root;
    }
    if (key_base->root == nullptr) {
      ap_log_error(APLOG_MARK, APLOG_WARNING, 0, main_server,
                   "McsCacheKeyBase %s is in effect for several roots, so its entries are not "
                   "shared with other servers: set one in each <VirtualHost> instead",
                   key_base->name);
    }
  }
}

// For where McsCacheKeyBase does not set one.
const char* default_key_base(apr_pool_t* pool, const server_rec* server) noexcept {
  const char* site = apr_psprintf(pool, "%s:%u", server->server_hostname, server->port);
  char name[MAX_STRING_LEN];
  mcs_own_key_base("httpd", ap_pid_fname, site, document_root(pool, server), name, sizeof name);
  return apr_pstrdup(pool, name);
}

// Gives the server a configuration of its own: httpd lets virtual hosts without a directive of this
// module share the main server's.
void complete_rules(apr_pool_t* pool, server_rec* server) noexcept {
  auto* shared =
      static_cast<const DirConfig*>(ap_get_module_config(server->lookup_defaults, &mcs_module));
  auto* dir = static_cast<DirConfig*>(create_dir_config(pool, nullptr));
  if (shared != nullptr) *dir = *shared;
  ap_set_module_config(server->lookup_defaults, &mcs_module, dir);
  Rules* defaults = create_rules(pool, false);
  const char* name = default_key_base(pool, server);
  KeyBase* key_base = add_key_base(pool, name, server, nullptr);
  key_base->root = document_root(pool, server);
  defaults->site.key_base = key_base;
  char error[512] = "";
  if (mcs_policy_set(defaults->site.files, kKeyBase, 1, &name, error, sizeof error) != MCS_OK) {
    ap_log_error(APLOG_MARK, APLOG_ERR, 0, server, "cache off: default key base: %s", error);
    dir->enabled = 0;
  }
  dir->rules = dir->rules != nullptr ? inherit(pool, dir->rules, defaults) : defaults;
}

// Above this many bytes that are not in a file, the event MPM blocks a thread until the client has
// read them; bodies in shared memory would be, although they need no memory of their own.
bool raise_flush_threshold(server_rec* server) noexcept {
  auto* core = static_cast<core_server_config*>(ap_get_core_module_config(server->module_config));
  if (core->flush_max_threshold != kHttpdFlushThreshold) return false;
  core->flush_max_threshold = kFlushThreshold;
  return true;
}

int post_config(apr_pool_t* pool, apr_pool_t*, apr_pool_t*, server_rec* main_server) noexcept {
  if (global->domain_place == nullptr || is_configtest() ||
      ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG) {
    return OK;
  }
  char error[512] = "";
  mcs_status status = mcs_domain_prepare(&global->domain, error, sizeof error);
  if (status != MCS_OK) {
    ap_log_error(APLOG_MARK, status == MCS_ERROR ? APLOG_ERR : APLOG_WARNING, 0, main_server,
                 "McsDomain at %s: %s", global->domain_place, error);
  }
  int async = 0;
  ap_mpm_query(AP_MPMQ_IS_ASYNC, &async);
  bool raised = false;
  find_roots(pool, main_server);
  for (server_rec* server = main_server; server != nullptr; server = server->next) {
    complete_rules(pool, server);
    if (async && global->enabled_place != nullptr) raised |= raise_flush_threshold(server);
  }
  if (raised) {
    ap_log_error(APLOG_MARK, APLOG_INFO, 0, main_server,
                 "FlushMaxThreshold raised to %" APR_SIZE_T_FMT
                 ", so that slow clients of large cached bodies occupy no thread",
                 kFlushThreshold);
  }
  return OK;
}

template <class Function>
cmd_func as_command(Function* function) noexcept {
  // In C++, httpd declares all command functions without parameters and calls them by args_how.
  return reinterpret_cast<cmd_func>(reinterpret_cast<void (*)()>(function));
}

// One directive for each rule the core knows, and those of this module before them.
struct Directives {
  static constexpr size_t kMost = 80;
  command_rec all[kMost]{};
  char names[kMost][48];

  Directives() noexcept {
    command_rec* next = all;
    const auto add = [&next](const char* name, cmd_func function, int where, cmd_how how,
                             const char* help) {
      *next++ = {name, function, nullptr, where, how, help};
    };
    add("McsDomain", as_command(set_domain), RSRC_CONF, TAKE_ARGV,
        "name of the cache domain, then options such as size=256m");
    add("McsCache", as_command(set_enabled), RSRC_CONF | ACCESS_CONF | OR_FILEINFO, FLAG,
        "On or Off: answer from the shared cache");
    add("McsCacheKey", as_command(set_key), RSRC_CONF | ACCESS_CONF, TAKE1,
        "expression whose value is the key of a response, instead of host and target");
    const mcs_directive* rules = nullptr;
    const size_t count = mcs_policy_directives(&rules);
    for (const mcs_directive* rule = rules; rule < rules + count && next < all + kMost - 1;
         ++rule) {
      // `McsCache` does the same.
      if (strcmp(rule->httpd_name, "Enable") == 0) continue;
      char* name = names[rule - rules];
      snprintf(name, sizeof names[0], "%s%s", kPrefix, rule->httpd_name);
      const int users = mcs_policy_is_local(rule) ? OR_FILEINFO : 0;
      add(name, as_command(set_rule), RSRC_CONF | ACCESS_CONF | users, TAKE_ARGV, rule->help);
    }
  }
};

}  // namespace

const command_rec* directives() noexcept {
  static const Directives made;
  return made.all;
}

void* create_dir_config(apr_pool_t* pool, char*) noexcept {
  return new (apr_palloc(pool, sizeof(DirConfig))) DirConfig;
}

void* merge_dir_config(apr_pool_t* pool, void* parent_config, void* child_config) noexcept {
  auto* parent = static_cast<DirConfig*>(parent_config);
  auto* child = static_cast<DirConfig*>(child_config);
  auto* merged = new (apr_palloc(pool, sizeof(DirConfig))) DirConfig;
  merged->enabled = child->enabled >= 0 ? child->enabled : parent->enabled;
  merged->rules = child->rules == nullptr    ? parent->rules
                  : parent->rules == nullptr ? child->rules
                                             : inherit(pool, child->rules, parent->rules);
  return merged;
}

const Site* site_of(const request_rec* r) noexcept {
  auto* dir = static_cast<const DirConfig*>(ap_get_module_config(r->per_dir_config, &mcs_module));
  return dir != nullptr && dir->enabled > 0 && dir->rules != nullptr ? &dir->rules->site : nullptr;
}

const mcs_domain_options* configured_domain() noexcept {
  return global != nullptr && global->domain_place != nullptr ? &global->domain : nullptr;
}

void register_config_hooks() noexcept {
  ap_hook_pre_config(pre_config, nullptr, nullptr, APR_HOOK_MIDDLE);
  ap_hook_check_config(check_config, nullptr, nullptr, APR_HOOK_MIDDLE);
  ap_hook_post_config(post_config, nullptr, nullptr, APR_HOOK_MIDDLE);
}

}  // namespace mcs::httpd
