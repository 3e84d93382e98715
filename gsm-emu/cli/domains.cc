// SPDX-License-Identifier: Apache-2.0
// Making, listing and removing domains.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "gsm-emu/cli/command.h"
#include "gsm-emu/cli/processes.h"
#include "gsm-emu/internal/place.h"
#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/layout.h"
#include "libglobalcache/runtime/liveness.h"

namespace mcs::emu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kAgentGraceMs = 3000;

std::string this_layout() { return fmt::format("{:08x}", cache::layout_hash() & 0xffffffff); }

/// The header as it is in the file, whatever build made it.
Result<gsm::SegmentHeader> read_header(const std::string& path) {
  gsm::SegmentHeader header{};
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    return fail(errno == EACCES ? ErrorCode::kPermission : ErrorCode::kSystem,
                fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  }
  const auto place = gsm::read_place(fd);
  const ssize_t got = ::pread(fd, &header, sizeof header, 0);
  ::close(fd);
  if (place) return gsm::Segment::header_on(place->device, place->offset);
  if (got == 0) return fail(ErrorCode::kLost, "its memory is lost");
  if (got != static_cast<ssize_t>(sizeof header) || header.magic != gsm::kSegmentMagic) {
    return fail(ErrorCode::kDamaged, "not an MCS segment");
  }
  if (header.header_version == gsm::kHeaderVersion &&
      header.checksum != gsm::header_checksum(header)) {
    return fail(ErrorCode::kDamaged, "its header is damaged");
  }
  return header;
}

/// Whether any process holds a liveness lock, for domains whose slots this build cannot read.
bool anybody_lives(const std::string& domain_path) {
  const int fd = ::open((domain_path + "/live").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  const bool held = ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  ::close(fd);
  return held;
}

std::string names_of(const std::vector<LiveInstance>& instances) {
  std::map<std::string, unsigned> servers;
  for (const LiveInstance& instance : instances) ++servers[instance.server];
  std::string text;
  for (const auto& [server, count] : servers) {
    if (!text.empty()) text += ", ";
    text += fmt::format("{} x {}", count, server);
  }
  return text;
}

json describe(const Common& common, const DomainPath& domain) {
  json all = {{"name", domain.name},
              {"path", domain.path},
              {"layout", domain.layout},
              {"this_build", domain.this_build},
              {"nodes", json::array()}};
  const auto records = read_records(domain.path);
  for (const SegmentFile& file : segment_files(domain.path)) {
    json node = {{"node", file.node}, {"incarnation", file.incarnation}, {"file", file.path}};
    struct stat info {};
    node["bytes"] = ::stat(file.path.c_str(), &info) == 0 ? info.st_size : 0;
    const auto header = read_header(file.path);
    if (header && file.on_device) {
      node["bytes"] = header->size;
      info.st_size = static_cast<off_t>(header->size);
    }
    node["state"] = header ? "ok" : header.error().message;
    if (header) {
      all["bytes_per_node"] = header->size;
      all["remote_penalty_percent"] = header->remote_penalty_percent;
      if (static_cast<std::uint64_t>(info.st_size) < header->size) {
        node["state"] = fmt::format("lost from byte {} on", info.st_size);
      }
    }
    json processes = json::array();
    for (const ExecRecord& record : records) {
      if (record.node != file.node) continue;
      processes.push_back({{"pid", record.pid},
                           {"isolated", record.isolated},
                           {"reachable", record.reachable()},
                           {"command", record.command}});
    }
    node["processes"] = std::move(processes);
    all["nodes"].push_back(std::move(node));
  }
  all["in_use"] = anybody_lives(domain.path);
  if (!domain.this_build) return all;
  Common here = common;
  here.name = domain.name;
  const auto instances = live_instances(here);
  if (!instances) {
    all["error"] = instances.error().message;
    return all;
  }
  all["instances"] = json::array();
  for (const LiveInstance& instance : *instances) {
    all["instances"].push_back({{"slot", instance.slot},
                                {"node", instance.node},
                                {"server", instance.server},
                                {"pid", instance.pid},
                                {"pid_namespace", instance.pid_namespace}});
  }
  return all;
}

std::string as_text(const json& domain) {
  std::string text = fmt::format("{}  layout {}{}  {}\n", domain["name"].get<std::string>(),
                                 domain["layout"].get<std::string>(),
                                 domain["this_build"].get<bool>() ? "" : " (another build's)",
                                 domain["path"].get<std::string>());
  for (const json& node : domain["nodes"]) {
    text += fmt::format("  node {}: {} MiB, incarnation {}, {}\n", node["node"].get<unsigned>(),
                        node["bytes"].get<std::uint64_t>() >> 20,
                        node["incarnation"].get<std::uint64_t>(), node["state"].get<std::string>());
    for (const json& process : node["processes"]) {
      text += fmt::format("    pid {}{}: {}\n", process["pid"].get<int>(),
                          process["isolated"].get<bool>() ? " (own namespace)" : "",
                          process["command"].get<std::string>());
    }
  }
  if (domain.contains("error")) {
    text += fmt::format("  cannot be opened: {}\n", domain["error"].get<std::string>());
  } else if (!domain.contains("instances")) {
    text += domain["in_use"].get<bool>() ? "  in use\n" : "  not in use\n";
  } else if (domain["instances"].empty()) {
    text += "  nobody uses it\n";
  } else {
    std::map<std::string, unsigned> servers;
    for (const json& instance : domain["instances"]) {
      ++servers[fmt::format("{} on node {}", instance["server"].get<std::string>(),
                            instance["node"].get<unsigned>())];
    }
    for (const auto& [server, count] : servers)
      text += fmt::format("  used by {} x {}\n", count, server);
  }
  return text;
}

Result<DomainPath> choose_to_remove(const Common& common, const std::string& layout) {
  std::vector<DomainPath> same_name;
  for (DomainPath& domain : list_domains(common.directory)) {
    if (domain.name == common.name) same_name.push_back(std::move(domain));
  }
  if (same_name.empty()) {
    return fail(ErrorCode::kNotFound,
                fmt::format("domain {} does not exist in {}; 'gsm-emu status' "
                            "lists what there is",
                            common.name, common.directory));
  }
  const std::string wanted = layout.empty() ? this_layout() : layout;
  std::string layouts;
  for (const DomainPath& domain : same_name) {
    if (domain.layout == wanted) return domain;
    layouts += " " + domain.layout;
  }
  return fail(
      ErrorCode::kIncompatible,
      fmt::format("domain {} does not exist with layout {}, but with{}; choose with --layout",
                  common.name, wanted, layouts));
}

}  // namespace

std::vector<DomainPath> list_domains(const std::string& directory) {
  std::vector<DomainPath> domains;
  for (const std::string& path : gsm::Domain::list(directory)) {
    const std::string file = fs::path(path).filename();
    const std::size_t dot = file.rfind('.');
    const std::string layout = dot == std::string::npos ? "" : file.substr(dot + 1);
    if (layout.size() != 8 || layout.find_first_not_of("0123456789abcdef") != std::string::npos) {
      continue;
    }
    const std::size_t begin = std::strlen("mcs-");
    domains.push_back({path, file.substr(begin, dot - begin), layout, layout == this_layout()});
  }
  return domains;
}

Result<DomainPath> find_domain(const Common& common) {
  if (auto ok = gsm::Domain::check_name(common.name); !ok) return tl::unexpected(ok.error());
  std::string others;
  for (DomainPath& domain : list_domains(common.directory)) {
    if (domain.name != common.name) continue;
    if (domain.this_build) return std::move(domain);
    others += (others.empty() ? "" : ", ") + domain.path;
  }
  if (!others.empty()) {
    return fail(ErrorCode::kIncompatible,
                fmt::format("{} was made by a build with another layout (this build: {}); use that "
                            "build's gsm-emu, or make a new one with 'gsm-emu up {}'",
                            others, this_layout(), common.name));
  }
  return fail(ErrorCode::kNotFound, fmt::format("domain {} does not exist in {}; create it with "
                                                "'gsm-emu up {}'",
                                                common.name, common.directory, common.name));
}

std::vector<SegmentFile> segment_files(const std::string& domain_path) {
  std::map<std::uint32_t, SegmentFile> newest;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(domain_path, ignored)) {
    unsigned node = 0;
    unsigned long long incarnation = 0;
    const std::string file = entry.path().filename();
    if (std::sscanf(file.c_str(), "segment.%u.%llu", &node, &incarnation) != 2) continue;
    SegmentFile& have = newest[node];
    if (incarnation >= have.incarnation) have = {node, incarnation, entry.path(), false};
  }
  for (auto& [node, file] : newest) {
    const int fd = ::open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) continue;
    file.on_device = gsm::read_place(fd).has_value();
    ::close(fd);
  }
  std::vector<SegmentFile> files;
  for (auto& [node, file] : newest) files.push_back(std::move(file));
  return files;
}

Result<SegmentFile> segment_file(const DomainPath& domain, std::uint32_t node) {
  const std::vector<SegmentFile> files = segment_files(domain.path);
  for (const SegmentFile& file : files) {
    if (file.node == node) return file;
  }
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("domain {} has no node {}: it has nodes 0 to {}", domain.name, node,
                          files.size() - 1));
}

int fail_with(const Error& error) {
  std::fprintf(stderr, "gsm-emu: %s\n", error.message.c_str());
  return kFailed;
}

int print(const Common& common, const json& result, const std::string& text) {
  const std::string dump = result.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  std::fputs(common.json == "-" ? dump.c_str() : text.c_str(), stdout);
  if (std::fflush(stdout) != 0) return fail_with({ErrorCode::kSystem, "cannot write the output"});
  if (common.json.empty() || common.json == "-") return kDone;
  std::ofstream file(common.json);
  file << dump;
  file.close();
  if (file) return kDone;
  return fail_with(
      {ErrorCode::kSystem, fmt::format("cannot write {}; give --json a file that can be "
                                       "written",
                                       common.json)});
}

static Result<gsm::DomainSpec> spec_of(const Common& common, const UpOptions& options) {
  mcs_domain_options given{};
  given.name = common.name.c_str();
  given.directory = common.directory.c_str();
  const std::pair<const char*, const std::string&> words[] = {{"size", options.memory},
                                                              {"nodes", options.nodes},
                                                              {"owner", options.owner},
                                                              {"group", options.group},
                                                              {"mode", options.mode}};
  std::vector<std::string> kept;  // mcs_domain_option points into them
  kept.reserve(std::size(words));
  for (const auto& [key, value] : words) {
    if (value.empty()) continue;
    char error[256];
    kept.push_back(fmt::format("{}={}", key, value));
    if (mcs_domain_option(&given, kept.back().c_str(), error, sizeof error) != MCS_OK) {
      return fail(ErrorCode::kInvalidArgument, error);
    }
  }
  auto config = api::resolve(given);
  if (!config) return tl::unexpected(config.error());
  gsm::DomainSpec spec = std::move(config->spec);
  spec.separate_kernels = options.separate_kernels;
  spec.node_limit_ms = options.node_limit_ms;
  spec.device = options.device;
  return spec;
}

static int describe_made(const Common& common, const Result<std::unique_ptr<gsm::Domain>>& made) {
  if (!made) {
    Error error = made.error();
    if (error.code == ErrorCode::kExists) {
      error.message += fmt::format(
          "; look at it with 'gsm-emu status {}', or remove it with "
          "'gsm-emu down {}'",
          common.name, common.name);
    }
    return fail_with(error);
  }
  const gsm::SegmentHeader& header = (*made)->header();
  return print(common,
               {{"name", (*made)->name()},
                {"path", (*made)->path()},
                {"layout", this_layout()},
                {"nodes", header.node_count},
                {"bytes_per_node", header.size},
                {"remote_penalty_percent", header.remote_penalty_percent},
                {"node_limit_ms", header.node_limit_ms},
                {"separate_kernels", (*made)->separate_kernels()}},
               fmt::format("domain {}: {} x {} MiB at {}\n", (*made)->name(), header.node_count,
                           header.size >> 20, (*made)->path()));
}

int attach(const Common& common, const UpOptions& options) {
  Common named = common;
  named.name = "attached";  // the device says the right one
  const auto spec = spec_of(named, options);
  if (!spec) return fail_with(spec.error());
  return describe_made(common, gsm::Domain::attach(*spec));
}

int up(const Common& common, const UpOptions& options) {
  auto spec = spec_of(common, options);
  if (!spec) return fail_with(spec.error());
  if (!(options.remote_penalty >= 1 && options.remote_penalty <= 1000)) {
    return fail_with({ErrorCode::kInvalidArgument,
                      "--remote-penalty takes a multiple from 1 (off) to 1000, for example 12"});
  }
  spec->remote_penalty_percent =
      static_cast<std::uint32_t>(std::lround(options.remote_penalty * 100));
  return describe_made(common, api::create(*spec));
}

int status(const Common& common) {
  json all = json::array();
  std::string text;
  for (const DomainPath& domain : list_domains(common.directory)) {
    if (!common.name.empty() && domain.name != common.name) continue;
    if (common.name.empty() && domain.name == common.json) {
      return fail_with({ErrorCode::kInvalidArgument,
                        fmt::format("--json takes {0} for its FILE: write 'gsm-emu status {0} --json', or "
                                    "'--json ./{0}' for a file of that name",
                                    domain.name)});
    }
    all.push_back(describe(common, domain));
    text += as_text(all.back());
  }
  if (all.empty() && !common.name.empty()) {
    return fail_with(
        {ErrorCode::kNotFound,
         fmt::format("domain {} does not exist in {}; 'gsm-emu status' lists what there is",
                     common.name, common.directory)});
  }
  if (all.empty()) text = fmt::format("no domains in {}\n", common.directory);
  return print(common, all, text);
}

int down(const Common& common, const DownOptions& options) {
  const auto domain = choose_to_remove(common, options.layout);
  if (!domain) return fail_with(domain.error());
  std::vector<LiveInstance> agents;
  std::vector<LiveInstance> users;
  bool readable = false;
  if (domain->this_build) {
    if (const auto instances = live_instances(common)) {
      readable = true;
      for (const LiveInstance& instance : *instances) {
        (instance.agent() ? agents : users).push_back(instance);
      }
    }
  }
  const auto records = read_records(domain->path);
  if (!options.force) {
    if (!users.empty() || (!readable && anybody_lives(domain->path))) {
      return fail_with(
          {ErrorCode::kBusy,
           fmt::format("domain {} is in use{}{}; stop its servers first, or use --force "
                       "(they then go on without anybody to share with)",
                       common.name, users.empty() ? "" : " by ", names_of(users))});
    }
    if (!records.empty()) {
      return fail_with(
          {ErrorCode::kBusy,
           fmt::format("node {} of domain {} still runs '{}' (pid {}); stop it first, or "
                       "use --force to end it",
                       records.front().node, common.name, records.front().command,
                       records.front().pid)});
    }
  }
  NodeProcesses commands;
  commands.add(records);
  commands.kill();
  NodeProcesses stopped;
  stopped.add(agents);
  stopped.terminate(kAgentGraceMs);
  if (const auto removed = gsm::Domain::destroy(domain->path); !removed) {
    return fail_with(removed.error());
  }
  return print(common,
               {{"name", common.name},
                {"path", domain->path},
                {"ended", commands.met()},
                {"agents_stopped", stopped.met()},
                {"still_mapped_by", users.size()}},
               fmt::format("domain {} is removed{}\n", common.name,
                           users.empty() ? "" : "; still mapped by " + names_of(users)));
}

}  // namespace mcs::emu
