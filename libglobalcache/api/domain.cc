// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/api/domain.h"

#include <fmt/format.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstring>

#include "libglobalcache/cache/layout.h"
#include "libglobalcache/http/policy.h"

namespace mcs::api {
namespace {

constexpr std::uint64_t kSmallest = 16ULL << 20;

gsm::Geometry geometry_for(const gsm::DomainSpec& spec, std::uint32_t instances,
                           std::uint64_t ledger_words) {
  cache::PlanOptions options;
  options.nodes = spec.nodes;
  options.bytes_per_node = spec.bytes_per_node;
  options.instances = instances;
  options.ledger_words = ledger_words;
  const cache::CachePlan plan = cache::plan(options);
  gsm::Geometry geometry;
  geometry.meta_bytes = plan.meta_bytes;
  plan.runtime.store(geometry.user.data());
  plan.cache.store(geometry.user.data() + 16);
  return geometry;
}

}  // namespace

Result<DomainConfig> resolve(const mcs_domain_options& options) {
  DomainConfig config;
  config.spec.name = options.name != nullptr ? options.name : "";
  if (auto ok = gsm::Domain::check_name(config.spec.name); !ok) return tl::unexpected(ok.error());
  if (options.directory != nullptr) config.spec.directory = options.directory;
  config.size_given = options.size != 0;
  config.nodes_given = options.nodes != 0;
  if (options.size != 0) config.spec.bytes_per_node = options.size;
  if (options.nodes != 0) config.spec.nodes = options.nodes;
  config.node = options.node;
  if (options.owner != nullptr) config.spec.owner = options.owner;
  if (options.group != nullptr) config.spec.group = options.group;
  if (options.mode != 0) config.spec.mode = options.mode;
  config.spec.layout_hash = cache::layout_hash();
  if (options.server != nullptr) config.server = options.server;
  if (options.hang_limit_ms != 0) config.hang_limit_ms = options.hang_limit_ms;
  config.verify_always = options.verify_always != 0;
  if (config.spec.bytes_per_node < kSmallest) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("size={}k is too small: a node needs at least {} MiB",
                            config.spec.bytes_per_node >> 10, kSmallest >> 20));
  }
  if (config.spec.nodes > gsm::kMaxNodes) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("nodes={}: a domain has 1 to {} nodes",
                                                         config.spec.nodes, gsm::kMaxNodes));
  }
  if (config.nodes_given && config.node >= config.spec.nodes) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("node={}: with nodes={} a node is 0 to {}", config.node,
                            config.spec.nodes, config.spec.nodes - 1));
  }
  return config;
}

Result<std::unique_ptr<gsm::Domain>> create(gsm::DomainSpec spec) {
  spec.layout_hash = cache::layout_hash();
  return gsm::Domain::create(spec, geometry_for(spec, 1024, 0), cache::format);
}

std::unique_ptr<gsm::Domain> create_in_memory(gsm::DomainSpec spec, std::uint32_t instances,
                                              std::uint64_t ledger_words) {
  return gsm::Domain::in_memory(spec, geometry_for(spec, instances, ledger_words), cache::format);
}

Result<Opened> open_or_create(const DomainConfig& config) {
  const gsm::DomainSpec& spec = config.spec;
  // A rival may create or remove it between our two looks; a few rounds settle that.
  for (int round = 0; round < 3; ++round) {
    auto opened = cache::open(spec.directory, spec.name);
    if (opened) {
      Opened result{std::move(*opened), {}};
      const gsm::SegmentHeader& header = result.domain->header();
      const std::uint64_t asked = spec.bytes_per_node / gsm::kPageSize * gsm::kPageSize;
      if (config.size_given && header.size != asked) {
        result.warning = fmt::format(
            "domain {} exists with size={}m and keeps it (its content stays warm); to use size={}m "
            "stop its servers, run 'gsm-emu down {}' and start them again",
            spec.name, header.size >> 20, asked >> 20, spec.name);
      } else if (config.nodes_given && header.node_count != spec.nodes) {
        result.warning = fmt::format(
            "domain {} exists with nodes={} and keeps them; to use nodes={} stop its servers, run "
            "'gsm-emu down {}' and start them again",
            spec.name, header.node_count, spec.nodes, spec.name);
      }
      return result;
    }
    if (opened.error().code != ErrorCode::kNotFound) return tl::unexpected(opened.error());
    gsm::DomainSpec fresh = spec;
    // A node= that lies beyond one node asks for as many nodes.
    if (!config.nodes_given) fresh.nodes = config.node + 1;
    auto created = create(fresh);
    if (!created && created.error().code != ErrorCode::kExists) {
      return tl::unexpected(created.error());
    }
  }
  return fail(ErrorCode::kBusy, fmt::format("domain {} is created and removed by others all the "
                                            "time; is a 'gsm-emu down' running in a loop?",
                                            spec.name));
}

}  // namespace mcs::api

using mcs::api::resolve;

namespace {

mcs_status report(mcs_status status, const std::string& message, char* err, size_t errlen) {
  if (err != nullptr && errlen > 0) std::snprintf(err, errlen, "%s", message.c_str());
  return status;
}

bool parse_u32(const char* text, int base, std::uint32_t& value) {
  const char* end = text + std::strlen(text);
  const auto [at, error] = std::from_chars(text, end, value, base);
  return error == std::errc{} && at == end && text != end;
}

}  // namespace

extern "C" {

mcs_status mcs_domain_option(mcs_domain_options* options, const char* word, char* err,
                             size_t errlen) {
  const char* equals = std::strchr(word, '=');
  const std::string key(word, equals != nullptr ? static_cast<size_t>(equals - word)
                                                : std::strlen(word));
  const char* value = equals != nullptr ? equals + 1 : "";
  const auto bad = [&](const char* remedy) {
    return report(MCS_ERROR, fmt::format("\"{}\": {}", word, remedy), err, errlen);
  };
  if (equals == nullptr || *value == '\0') {
    return bad(
        "expected one of size= nodes= node= dir= owner= group= mode= hang_limit= verify= with a value");
  }
  if (key == "size") {
    const auto size = mcs::http::parse_size(value);
    if (!size) return bad("size= takes a number with k, m or g, for example size=256m");
    options->size = *size;
  } else if (key == "nodes") {
    if (!parse_u32(value, 10, options->nodes) || options->nodes < 1 || options->nodes > 16) {
      return bad("nodes= takes a number from 1 to 16");
    }
  } else if (key == "node") {
    if (!parse_u32(value, 10, options->node) || options->node > 15) {
      return bad("node= takes a number from 0 to 15");
    }
  } else if (key == "dir") {
    if (*value != '/') return bad("dir= takes an absolute path of a tmpfs directory");
    options->directory = value;
  } else if (key == "owner") {
    options->owner = value;
  } else if (key == "group") {
    options->group = value;
  } else if (key == "mode") {
    if (!parse_u32(value, 8, options->mode) || (options->mode & ~0666U) != 0 ||
        (options->mode & 0600) != 0600) {
      return bad("mode= takes octal permission bits without x, for example mode=0660");
    }
  } else if (key == "hang_limit") {
    const auto time = mcs::http::parse_time_ms(value);
    if (!time || *time < 100) return bad("hang_limit= takes a time of at least 100ms, for example 5s");
    options->hang_limit_ms = static_cast<std::uint32_t>(*time);
  } else if (key == "verify") {
    options->verify_always = std::strcmp(value, "always") == 0 ? 1 : 0;
    if (options->verify_always == 0 && std::strcmp(value, "small") != 0) {
      return bad("verify= takes small (bodies up to 16 KiB at every hit) or always (all bodies)");
    }
  } else {
    return bad(
        "unknown option; known are size= nodes= node= dir= owner= group= mode= hang_limit= verify=");
  }
  return MCS_OK;
}

mcs_status mcs_domain_check(const mcs_domain_options* options, char* err, size_t errlen) {
  const auto config = resolve(*options);
  if (!config) return report(MCS_ERROR, config.error().message, err, errlen);
  const mcs::gsm::DomainSpec& spec = config->spec;
  if (const auto ok = mcs::gsm::Domain::check_owner(spec); !ok) {
    return report(MCS_ERROR, ok.error().message, err, errlen);
  }
  const std::string path =
      mcs::gsm::Domain::path_of(spec.directory, spec.name, spec.layout_hash);
  if (::access(path.c_str(), F_OK) == 0) {
    if (::access(path.c_str(), R_OK | W_OK | X_OK) != 0) {
      return report(MCS_ERROR,
                    fmt::format("no permission for domain {} at {}: run as its owner or group, or "
                                "create it with owner=, group= and mode=",
                                spec.name, path),
                    err, errlen);
    }
    return MCS_OK;
  }
  if (::access(spec.directory.c_str(), W_OK | X_OK) != 0) {
    return report(MCS_ERROR,
                  fmt::format("cannot create domain {} in {}: {}; give dir= a writable tmpfs",
                              spec.name, spec.directory, std::strerror(errno)),
                  err, errlen);
  }
  struct statvfs room {};
  if (::statvfs(spec.directory.c_str(), &room) == 0) {
    const std::uint64_t free = std::uint64_t{room.f_bavail} * room.f_frsize;
    const std::uint64_t nodes = config->nodes_given ? spec.nodes : config->node + 1;
    if (free < spec.bytes_per_node * nodes) {
      return report(MCS_WARNING,
                    fmt::format("domain {} needs {} MiB but {} has only {} MiB free: use a smaller "
                                "size= or enlarge that tmpfs",
                                spec.name, spec.bytes_per_node * nodes >> 20, spec.directory,
                                free >> 20),
                    err, errlen);
    }
  }
  return MCS_OK;
}

}  // extern "C"
