// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/api/policy.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <mutex>
#include <new>
#include <set>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace {

// All of this process that its configuration says.
struct Policies {
  std::mutex mutex;
  std::unordered_set<const mcs_policy*> all;
};

Policies& policies() {
  // Never destroyed: a configuration may outlive static objects.
  static auto* const made = new Policies;
  return *made;
}

}  // namespace

void mcs_policy::rules_changed() {
  std::unique_lock lock(policies().mutex, std::defer_lock);
  if (!of_request_) lock.lock();
  site.name = mcs::http::site_name(rules);
  site.quota = {rules.quota.bytes, rules.quota.permille};
  site.reserve = {rules.reserve.bytes, rules.reserve.permille};
}

mcs_policy::mcs_policy(bool of_request) : of_request_(of_request) {
  if (of_request_) return;
  const std::lock_guard lock(policies().mutex);
  policies().all.insert(this);
}

mcs_policy::~mcs_policy() {
  if (of_request_) return;
  const std::lock_guard lock(policies().mutex);
  policies().all.erase(this);
}

void mcs::api::keep_sites(const cache::GlobalCache& cache) {
  // A thread that a signal handler has interrupted while it holds the lock does not give it back: the
  // process could not leave its domain if its other threads waited for that.
  const std::unique_lock lock(policies().mutex, std::try_to_lock);
  if (!lock.owns_lock()) return;
  std::set<std::string_view> names;
  for (const mcs_policy* policy : policies().all) {
    if (const cache::SiteRules* site = policy->site_rules()) names.insert(site->name);
  }
  for (const std::string_view name : names) cache.sites().keep(name);
}

extern "C" {

mcs_policy* mcs_policy_create(void) try {
  return new mcs_policy(false);
} catch (const std::exception&) {
  return nullptr;
}

mcs_policy* mcs_policy_create_for_request(void) try {
  return new mcs_policy(true);
} catch (const std::exception&) {
  return nullptr;
}

void mcs_policy_destroy(mcs_policy* policy) { delete policy; }

mcs_status mcs_policy_set(mcs_policy* policy, const char* name, size_t argc,
                          const char* const* argv, char* err, size_t errlen) try {
  const std::vector<std::string_view> args(argv, argv + argc);
  const auto ok = mcs::http::set_directive(policy->rules, name, args);
  policy->rules_changed();
  if (ok) return MCS_OK;
  if (err != nullptr && errlen > 0) std::snprintf(err, errlen, "%s", ok.error().message.c_str());
  return MCS_ERROR;
} catch (const std::exception& e) {
  if (err != nullptr && errlen > 0) std::snprintf(err, errlen, "%s", e.what());
  return MCS_ERROR;
}

size_t mcs_own_key_base(const char* server, const char* config, const char* site, const char* root,
                        char* to, size_t size) {
  const auto text = [](const char* given) { return given != nullptr ? given : ""; };
  struct stat info = {};
  if (root != nullptr) (void)::stat(*root != '\0' ? root : "/", &info);
  char host[256] = "";
  (void)::gethostname(host, sizeof host - 1);
  const int made = std::snprintf(to, size, "%s:%s:%s:%s:%ju.%ju:%s", text(server), host,
                                 text(config), text(site), std::uintmax_t{info.st_dev},
                                 std::uintmax_t{info.st_ino}, text(root));
  return made < 0 ? 0 : static_cast<size_t>(made);
}

size_t mcs_policy_directives(const mcs_directive** directives) try {
  static const std::vector<mcs_directive> all = [] {
    std::vector<mcs_directive> made;
    // Each view is a whole literal, so its data ends with NUL.
    for (const mcs::http::DirectiveInfo& info : mcs::http::policy_directives()) {
      made.push_back({info.nginx_name.data(), info.httpd_name.data(), info.syntax.data(),
                      info.help.data(), info.min_args, info.max_args});
    }
    return made;
  }();
  *directives = all.data();
  return all.size();
} catch (const std::exception&) {
  *directives = nullptr;
  return 0;
}

int mcs_policy_is_local(const mcs_directive* directive) {
  static constexpr std::string_view kOfTheServer[] = {
      "key_base", "key_port", "purge",        "site",     "quota",     "reserve",
      "lock",     "lock_age", "lock_timeout", "lock_busy", "max_ranges",
      "max_object"};
  return std::find(std::begin(kOfTheServer), std::end(kOfTheServer), directive->nginx_name) ==
                 std::end(kOfTheServer)
             ? 1
             : 0;
}

void mcs_policy_inherit(mcs_policy* child, const mcs_policy* parent) {
  try {
    mcs::http::inherit_policy(child->rules, parent->rules);
    child->rules_changed();
  } catch (const std::exception&) {
    // Out of memory at configuration time; the child keeps its own rules.
  }
}

int mcs_policy_sends_cache_status(const mcs_policy* policy) {
  return policy->rules.send_cache_status ? 1 : 0;
}

const char* mcs_cache_status_name(mcs_cache_status status) {
  static const char* const kNames[] = {"",      "HIT",      "MISS",        "EXPIRED",
                                       "STALE", "UPDATING", "REVALIDATED", "BYPASS"};
  return static_cast<unsigned>(status) < 8 ? kNames[status] : "";
}

}  // extern "C"
