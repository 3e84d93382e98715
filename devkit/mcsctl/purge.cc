// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "devkit/mcsctl/command.h"
#include "devkit/mcsctl/readable_key.h"
#include "libglobalcache/api/policy.h"
#include "libglobalcache/api/process.h"
#include "libglobalcache/api/purge.h"
#include "libglobalcache/http/key.h"

namespace mcs::ctl {
namespace {

mcs_str str(const std::string& text) { return {text.data(), text.size()}; }

/// This tool as an instance of the domain. Unlike mcs_join it makes no domain and starts no agent,
/// which would run with the rights of whoever purges.
class Joined {
 public:
  static Result<std::unique_ptr<Joined>> join(Opened opened) {
    auto self = std::make_unique<Joined>();
    mcs_process& process = self->process_;
    process.domain = std::move(opened.domain);
    process.liveness = std::move(opened.liveness);
    auto instance = runtime::Instance::join(
        *process.domain, *process.liveness,
        {.node = 0, .server = "mcs-ctl", .may_inherit = true});
    if (!instance) return tl::unexpected(instance.error());
    process.instance = std::move(*instance);
    process.cache = std::make_unique<cache::GlobalCache>(*process.domain, *process.instance);
    process.cache->set_purge_matcher(api::purge_meets);
    const cache::View view(*process.domain);
    const auto instances = view.instances(*process.liveness);
    const bool alone = std::none_of(instances.begin(), instances.end(), [&](const auto& other) {
      return other.alive && other.id != process.instance->id();
    });
    if (alone) process.instance->recover_all("first to join");
    process.instance->activate();
    return self;
  }
  ~Joined() {
    if (!process_.cache) return;
    process_.cache->leave();
    process_.instance->leave();
  }
  mcs_process& process() { return process_; }

 private:
  mcs_process process_;
};

/// Everything that is stored under what `mcsctl keys` shows as `shown`.
std::uint64_t purge_shown(mcs_process& process, const std::string& shown, bool soft) {
  std::set<std::string> primaries;
  const cache::View view(*process.domain);
  for (std::uint32_t node = 0; node < view.memory().nodes(); ++node) {
    for (std::uint64_t i = 0; i < view.memory().geometry().descriptors; ++i) {
      const auto entry = view.sealed(node, i);
      if (!entry) continue;
      const ReadableKey key = readable_key(entry->key());
      if (key.text == shown) primaries.emplace(entry->key().substr(0, key.primary_bytes));
    }
  }
  std::uint64_t purged = 0;
  for (const std::string& primary : primaries) {
    const std::string received = http::received_key(primary);
    purged += process.cache->purge(cache::PurgeKind::kKey, received.empty() ? primary : received, soft)
                  .value_or(0);
  }
  return purged;
}

}  // namespace

int purge(const Common& common, const PurgeOptions& options) {
  mcs_policy policy;
  if (!options.base.empty()) {
    const char* base[] = {options.base.c_str()};
    char error[256];
    if (mcs_policy_set(&policy, "key_base", 1, base, error, sizeof error) != MCS_OK) {
      return fail_with({ErrorCode::kInvalidArgument, error});
    }
  }
  auto opened = open(common);
  if (!opened) return fail_with(opened.error());
  auto joined = Joined::join(std::move(*opened));
  if (!joined) return fail_with(joined.error());
  mcs_process& process = (*joined)->process();

  std::uint64_t purged = 0;
  if (!options.key.empty()) {
    purged = purge_shown(process, options.key, options.soft);
  } else {
    mcs_purge_request request{};
    request.soft = options.soft ? 1 : 0;
    request.policy = &policy;
    request.scheme = str(options.scheme);
    request.host = str(options.host);
    request.kind = options.all                 ? MCS_PURGE_ALL
                   : !options.tag.empty()      ? MCS_PURGE_TAG
                   : !options.prefix.empty()   ? MCS_PURGE_PREFIX
                   : !options.wildcard.empty() ? MCS_PURGE_WILDCARD
                                               : MCS_PURGE_KEY;
    request.pattern = str(!options.tag.empty()        ? options.tag
                          : !options.prefix.empty()   ? options.prefix
                          : !options.wildcard.empty() ? options.wildcard
                                                      : options.path);
    // Local files and proxied responses have different keys, also below one key base.
    const bool of_site =
        request.kind == MCS_PURGE_KEY ||
        ((request.kind == MCS_PURGE_PREFIX || request.kind == MCS_PURGE_WILDCARD) &&
         !(options.base.empty() && options.host.empty()));
    bool any = false;
    char error[256] = "nothing to purge";
    for (const int local : {0, 1}) {
      if (local == 1 && (!of_site || !options.host.empty())) continue;
      if (local == 0 && request.kind == MCS_PURGE_KEY && options.base.empty() &&
          options.host.empty()) {
        continue;
      }
      request.local_files = local;
      std::uint64_t n = 0;
      if (mcs_purge(&process, &request, &n, error, sizeof error) == MCS_OK) any = true;
      purged += n;
    }
    if (!any) return fail_with({ErrorCode::kInvalidArgument, error});
    if (purged == 0 && request.kind == MCS_PURGE_KEY && options.base.empty() && options.host.empty()) {
      return fail_with({ErrorCode::kInvalidArgument,
                        fmt::format("nothing of a site without a name is stored under {}: name the site with "
                                    "--base or --host, as 'mcsctl keys' shows it",
                                    options.path)});
    }
  }
  return print(common, {{"purged", purged}, {"soft", options.soft}},
               fmt::format("{} {}\n", purged == 1 ? "1 entry" : fmt::format("{} entries", purged),
                           options.soft ? "marked stale" : "purged"));
}

}  // namespace mcs::ctl
