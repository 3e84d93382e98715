// SPDX-License-Identifier: Apache-2.0
// docs/directives.md has every rule, as it is.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "libglobalcache/globalcache.h"

namespace {

using testing::HasSubstr;

TEST(Directives, AllAreDocumented) {
  std::ifstream file(MCS_DIRECTIVES_PAGE);
  std::ostringstream text;
  text << file.rdbuf();
  const std::string page = text.str();
  const mcs_directive* rules = nullptr;
  const size_t count = mcs_policy_directives(&rules);
  ASSERT_GT(count, 0U);
  for (const mcs_directive* rule = rules; rule < rules + count; ++rule) {
    if (std::string_view(rule->nginx_name) == "enable") continue;  // the switch itself
    EXPECT_THAT(page, HasSubstr(fmt::format("### `mcs_cache_{}` · `McsCache{}`", rule->nginx_name,
                                            rule->httpd_name)));
    EXPECT_THAT(page, HasSubstr(fmt::format("mcs_cache_{} {};", rule->nginx_name, rule->syntax)));
    // The example is accepted.
    const std::string example = fmt::format("Example: `mcs_cache_{} ", rule->nginx_name);
    const size_t at = page.find(example);
    ASSERT_NE(at, std::string::npos) << rule->nginx_name;
    const size_t begin = at + example.size();
    std::istringstream words(page.substr(begin, page.find(';', begin) - begin));
    std::vector<std::string> arguments;
    for (std::string word; words >> word;) arguments.push_back(word);
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    mcs_policy* policy = mcs_policy_create();
    char error[256] = "";
    EXPECT_EQ(mcs_policy_set(policy, rule->nginx_name, argv.size(), argv.data(), error,
                             sizeof error),
              MCS_OK)
        << error;
    mcs_policy_destroy(policy);
  }
}

TEST(Directives, WrongValuesAreNamed) {
  const mcs_directive* rules = nullptr;
  const size_t count = mcs_policy_directives(&rules);
  for (const mcs_directive* rule = rules; rule < rules + count; ++rule) {
    const auto refusal = [&](std::vector<const char*> arguments) {
      mcs_policy* policy = mcs_policy_create_for_request();
      char error[256] = "";
      const mcs_status status = mcs_policy_set(policy, rule->httpd_name, arguments.size(),
                                               arguments.data(), error, sizeof error);
      EXPECT_EQ(status, MCS_ERROR) << rule->httpd_name;
      mcs_policy_destroy(policy);
      return std::string(error);
    };
    EXPECT_THAT(refusal({}), HasSubstr(fmt::format("{}: wrong number of arguments (0); write: {}",
                                                   rule->httpd_name, rule->syntax)));
    if (rule->max_args < 255) {
      EXPECT_THAT(refusal(std::vector<const char*>(rule->max_args + 1, "1")),
                  HasSubstr(fmt::format("wrong number of arguments ({})", rule->max_args + 1)));
    }
    // Any text is a name.
    const std::string_view name = rule->nginx_name;
    if (name == "key_base" || name == "site" || name == "status_header") continue;
    EXPECT_THAT(refusal({"<?>"}), testing::AllOf(HasSubstr(rule->httpd_name), HasSubstr("<?>")));
  }
}

}  // namespace
