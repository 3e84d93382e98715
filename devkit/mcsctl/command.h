// SPDX-License-Identifier: Apache-2.0
// What the commands of mcsctl have in common.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "gsm-emu/domain.h"
#include "gsm-emu/result.h"
#include "libglobalcache/cache/inspect.h"
#include "libglobalcache/runtime/liveness.h"

namespace mcs::ctl {

/// Exit codes: 0 done, 1 verify found something wrong, 2 it could not be done.
inline constexpr int kDone = 0;
inline constexpr int kWrong = 1;
inline constexpr int kFailed = 2;

struct Common {
  std::string name;
  std::string directory = gsm::kDefaultDirectory;
  std::string json;  // file, "-" for standard output, empty: text for people
};

/// A domain that is mapped but not joined.
struct Opened {
  std::unique_ptr<gsm::Domain> domain;
  std::unique_ptr<runtime::Liveness> liveness;
};
Result<Opened> open(const Common& common);

/// "mcsctl: <message>" on standard error.
int fail_with(const Error& error);

/// JSON where it was asked for; text on standard output unless the JSON goes there.
int print(const Common& common, const nlohmann::json& json, const std::string& text);

/// "1.5 MiB", "300 B".
std::string readable_bytes(std::uint64_t bytes);
/// "1 pin", "2 pins".
std::string counted(std::uint64_t n, const char* thing);

int status(const Common& common);
int events(const Common& common);

struct KeysOptions {
  std::string prefix;
  std::uint64_t limit = 100;
};
int keys(const Common& common, const KeysOptions& options);

/// Exactly one of key, path, prefix, wildcard, tag and all is given.
struct PurgeOptions {
  std::string key;  // as `keys` shows it
  std::string path;
  std::string prefix;
  std::string wildcard;
  std::string tag;
  bool all = false;
  bool soft = false;
  std::string base;  // key base
  std::string host;  // of a site without key base
  std::string scheme = "http";
};
int purge(const Common& common, const PurgeOptions& options);

struct VerifyCommand {
  bool bodies = true;
  bool recover = true;
  unsigned rechecks = 10;
};
int verify(const Common& common, const VerifyCommand& options);

}  // namespace mcs::ctl
