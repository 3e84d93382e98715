// SPDX-License-Identifier: Apache-2.0
// The commands of gsm-emu. Exit codes: 0 done; 1 done in part (crash, freeze, thaw: processes that
// cannot be reached from here); 2 not done.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "gsm-emu/domain.h"
#include "gsm-emu/result.h"

namespace mcs::emu {

inline constexpr int kDone = 0;
inline constexpr int kPartly = 1;
inline constexpr int kFailed = 2;

struct Common {
  std::string name;
  std::string directory = gsm::kDefaultDirectory;
  std::string json;  // file, "-" for standard output, empty: text for people
};

/// A domain's directory, taken apart without opening anything.
struct DomainPath {
  std::string path;
  std::string name;
  std::string layout;       // 8 hex digits
  bool this_build = false;  // whether this build can open it
};
std::vector<DomainPath> list_domains(const std::string& directory);
/// The domain `name` of this build, or an error that says what there is instead.
Result<DomainPath> find_domain(const Common& common);

/// Files of the segments, newest incarnation of each node, in the order of nodes.
struct SegmentFile {
  std::uint32_t node = 0;
  std::uint64_t incarnation = 0;
  std::string path;
  bool on_device = false;  // the file only says where
};
std::vector<SegmentFile> segment_files(const std::string& domain_path);
Result<SegmentFile> segment_file(const DomainPath& domain, std::uint32_t node);

int fail_with(const Error& error);
/// JSON where it was asked for; text on standard output unless the JSON goes there.
int print(const Common& common, const nlohmann::json& json, const std::string& text);

struct UpOptions {
  std::string nodes;  // as given; empty: the default
  std::string memory;
  std::string owner;
  std::string group;
  std::string mode;
  double remote_penalty = 1;
  bool separate_kernels = false;
  std::uint32_t node_limit_ms = 0;
  std::string device;  // empty: files
};
int attach(const Common& common, const UpOptions& options);
int up(const Common& common, const UpOptions& options);
int status(const Common& common);
struct DownOptions {
  bool force = false;
  std::string layout;  // 8 hex digits; empty: this build's
};
int down(const Common& common, const DownOptions& options);

/// Never returns to a shell before the command has ended; the exit code is the command's.
int exec(const Common& common, std::uint32_t node, const std::vector<std::string>& command);

int crash(const Common& common, std::uint32_t node, bool keep_memory);
int freeze(const Common& common, std::uint32_t node);
int thaw(const Common& common, std::uint32_t node);

int lose(const Common& common, std::uint32_t node, std::optional<std::uint64_t> page);
int restore(const Common& common, std::uint32_t node);
struct DamageOptions {
  std::uint64_t random = 0;  // how many bytes
  std::optional<std::uint64_t> seed;
  std::optional<std::uint64_t> offset;
  std::optional<std::uint64_t> zero_page;
  std::string where = "all";  // all, header, metadata or payload
};
int damage(const Common& common, std::uint32_t node, const DamageOptions& options);

}  // namespace mcs::emu
