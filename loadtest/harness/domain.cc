// SPDX-License-Identifier: Apache-2.0
#include "loadtest/harness/domain.h"

#include <utility>

#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/guardian.h"
#include "loadtest/harness/process.h"

namespace mcs::loadtest {

namespace {

Result<std::string> tool(std::string_view name) {
  const auto file = tool_file(name);
  if (file.empty()) {
    return fail("{} is not built: build the target first", name);
  }
  return file.string();
}

}  // namespace

Result<Domain> Domain::up(const DomainOptions& options) {
  const auto gsm_emu = tool("gsm-emu");
  if (!gsm_emu) {
    return tl::unexpected(gsm_emu.error());
  }
  std::vector<std::string> argv = {
      *gsm_emu,   "up",          options.name, "--nodes", std::to_string(options.nodes),
      "--memory", options.memory};
  if (options.remote_penalty != 1) {
    argv.insert(argv.end(), {"--remote-penalty", fmt::format("{}", options.remote_penalty)});
  }
  if (!options.owner.empty()) {
    argv.insert(argv.end(), {"--owner", options.owner});
  }
  if (options.separate_kernels) {
    argv.emplace_back("--separate-kernels");
  }
  Domain domain(options.name);
  Guardian::instance().add_command(domain.down_command());
  domain.up_ = true;
  const auto made = run_process(argv);
  if (!made) {
    return tl::unexpected(made.error());
  }
  if (!made->ok()) {
    return fail("gsm-emu up: {}", made->describe());
  }
  return domain;
}

Domain::Domain(Domain&& other) noexcept
    : name_(std::move(other.name_)), up_(std::exchange(other.up_, false)) {}

Domain::~Domain() { static_cast<void>(down()); }

std::vector<std::string> Domain::down_command() const {
  return {tool_file("gsm-emu").string(), "down", name_};
}

Result<void> Domain::down() {
  if (!std::exchange(up_, false)) {
    return {};
  }
  const auto result = run_process(down_command());
  Guardian::instance().remove_command(down_command());
  if (!result) {
    return tl::unexpected(result.error());
  }
  return result->ok() ? Result<void>() : fail("gsm-emu down: {}", result->describe());
}

void Domain::keep() {
  up_ = false;
  Guardian::instance().remove_command(down_command());
}

Result<nlohmann::json> Domain::mcsctl(const std::string& command) const {
  const auto file = tool("mcsctl");
  if (!file) {
    return tl::unexpected(file.error());
  }
  const auto result = run_process({*file, command, name_, "--json", "-"});
  if (!result) {
    return tl::unexpected(result.error());
  }
  auto json = nlohmann::json::parse(result->out, nullptr, false);
  if (json.is_discarded()) {
    return fail("mcsctl {}: {}", command, result->describe());
  }
  return json;
}

Result<nlohmann::json> Domain::status() const { return mcsctl("status"); }
Result<nlohmann::json> Domain::events() const { return mcsctl("events"); }
Result<nlohmann::json> Domain::verify() const { return mcsctl("verify"); }

}  // namespace mcs::loadtest
