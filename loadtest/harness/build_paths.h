// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string_view>

namespace mcs::loadtest {

// Where this build's products are: $MCS_BUILD_DIR, else the build directory this program lies in,
// else the places an installation uses.

// "ngx_mcs_module.so" or "mod_mcs_apache.so"; empty if it was not built.
std::filesystem::path module_file(std::string_view name);
// "gsm-emu", "mcsctl", "mcs-agent", …; empty if it is not there.
std::filesystem::path tool_file(std::string_view name);

}  // namespace mcs::loadtest
