// SPDX-License-Identifier: Apache-2.0
// What `nginx -t` says to wrong and right configurations, and that it touches nothing.
#include "tests/ngx_mcs_module/nginx_fixture.h"

namespace mcs::loadtest {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class NginxConfigTest : public NginxTest {
 protected:
  ProcessResult check() {
    const auto result = server_.check_config();
    EXPECT_TRUE(result) << result.error().message;
    return result.value_or(ProcessResult());
  }
  void expect_refused(const std::string& reason) {
    const ProcessResult result = check();
    EXPECT_FALSE(result.ok());
    EXPECT_THAT(result, output_has(reason));
  }
};

TEST_F(NginxConfigTest, CheckAcceptsEveryContextAndCreatesNothing) {
  options().http_extra =
      "mcs_cache on; mcs_cache_valid 10s; mcs_cache_status_header on;\n"
      "mcs_cache_max_object 1m; mcs_cache_lock_timeout 2s;\n";
  options().server_extra =
      "mcs_cache_valid 2s; mcs_cache_key_base one;\n"
      "location /off/ { mcs_cache off; if ($arg_x) { mcs_cache on; mcs_cache_valid 3s; } }\n";
  const ProcessResult result = check();
  EXPECT_TRUE(result.ok()) << result.err;
  EXPECT_TRUE(std::filesystem::is_empty(domain_directory()));
}

TEST_F(NginxConfigTest, EveryDirectiveInEveryContext) {
  const std::string page =
      read_file(std::filesystem::path(getenv("MCS_CONF_DIR")) / "../../docs/directives.md").value_or("");
  std::string all;
  const std::string begin = "Example: `mcs_cache_";
  for (size_t at = page.find(begin); at != std::string::npos; at = page.find(begin, at + 1)) {
    const size_t first = page.find('`', at) + 1;
    all += page.substr(first, page.find('`', first) - first) + "\n";
  }
  EXPECT_GT(std::count(all.begin(), all.end(), '\n'), 40);
  all += "mcs_cache on; mcs_cache_key $host$uri; mcs_cache_bypass $arg_x; mcs_cache_no_store $arg_x;\n";
  options().mcs->key_base.clear();
  options().mcs->valid.clear();
  options().root_location = false;
  options().http_extra = all;
  options().server_extra = all + "location / {\n" + all + "if ($arg_x) {\n" + all + "}\n}\n";
  const ProcessResult result = check();
  EXPECT_TRUE(result.ok()) << result.err;
}

TEST_F(NginxConfigTest, UnknownDomainParameterIsNamed) {
  options().mcs->domain_arguments += " colour=red";
  const ProcessResult result = check();
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(result, AllOf(output_has("\"mcs_domain\""), output_has("colour")));
}

TEST_F(NginxConfigTest, InvalidDomainNameIsRefused) {
  options().mcs->domain = "No/Such/Name";
  expect_refused("No/Such/Name");
}

TEST_F(NginxConfigTest, SecondDomainIsRefused) {
  options().http_extra = "mcs_domain other;\n";
  expect_refused("\"mcs_domain\": is duplicate");
}

TEST_F(NginxConfigTest, CacheWithoutDomainNamesTheRemedy) {
  const McsOptions with_domain = *options().mcs;
  options().mcs.reset();
  options().main_extra = "load_module " + with_domain.module.string() + ";\n";
  options().location_extra = "mcs_cache on;\n";
  expect_refused("add \"mcs_domain NAME size=256m;\" to http{}");
}

TEST_F(NginxConfigTest, WrongRuleNamesTheDirectiveAndTheLine) {
  options().mcs->valid = "soon";
  const ProcessResult result = check();
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(result, AllOf(output_has("\"mcs_cache_valid\""), output_has("soon"),
                            output_has("nginx.conf:")));
}

TEST_F(NginxConfigTest, KeyBaseTakesNoVariables) {
  options().mcs->key_base = "$host";
  expect_refused("\"mcs_cache_key_base\"");
}

TEST_F(NginxConfigTest, KeyBaseOfHttpDoesNotMixTwoRoots) {
  options().mcs->key_base.clear();
  options().http_extra =
      "mcs_cache_key_base all;\n"
      "server { listen 127.0.0.1:1; root /tmp; mcs_cache on; }\n";
  expect_refused("name a key base in each server{} instead");
}

TEST_F(NginxConfigTest, KeyBaseOfHttpServesSeveralServersOfOneRoot) {
  options().mcs->key_base.clear();
  options().http_extra =
      "mcs_cache_key_base all;\n"
      "server { listen 127.0.0.1:1; root " +
      root().string() +
      "; mcs_cache on; }\n"
      "server { listen 127.0.0.1:2; root /tmp; }\n";
  const ProcessResult result = check();
  EXPECT_TRUE(result.ok()) << result.err;
}

}  // namespace
}  // namespace mcs::loadtest
