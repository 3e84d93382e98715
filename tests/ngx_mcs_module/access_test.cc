// SPDX-License-Identifier: Apache-2.0
// A hit is served to those only whom nginx's own rules let through.
#include "tests/ngx_mcs_module/nginx_fixture.h"

namespace mcs::loadtest {
namespace {

class NginxAccessTest : public NginxTest {
 protected:
  static void SetUpTestSuite() {
    write("a.txt", "secret\n");
    write("users", "user:{PLAIN}pass\n");
    const auto closed = write("closed.txt", "closed\n");
    std::filesystem::permissions(closed, std::filesystem::perms::none);
    wait_until_trusted();
  }
  // A location over the same files and the same key base, so that its files are in the cache.
  void add_location(const std::string& prefix, const std::string& rules) {
    options().server_extra += "location " + prefix + " { alias " + root().string() +
                              "/; mcs_cache on; mcs_cache_key_base site;\n"
                              "add_header X-Mcs-Status $mcs_cache_status always;\n" +
                              rules + "}\n";
  }
  std::string users() const { return (root() / "users").string(); }
};

const std::string kUser = "Authorization: Basic dXNlcjpwYXNz";  // user:pass

TEST_F(NginxAccessTest, DeniedStaysDenied) {
  add_location("/denied/", "deny all;\n");
  start();
  EXPECT_EQ(get_hit("/a.txt").body, "secret\n");
  const HttpResponse response = get("/denied/a.txt");
  EXPECT_EQ(response.status, 403);
  EXPECT_EQ(response.cache_status(), "");
}

TEST_F(NginxAccessTest, PasswordIsAskedFor) {
  add_location("/auth/", "auth_basic x; auth_basic_user_file " + users() + ";\n");
  start();
  get_hit("/a.txt");
  EXPECT_EQ(get("/auth/a.txt").status, 401);
  const HttpResponse response = get("/auth/a.txt", {kUser});
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.cache_status(), "HIT");
  EXPECT_EQ(get("/auth/a.txt").status, 401);
}

TEST_F(NginxAccessTest, SatisfyAnyAndAll) {
  const std::string auth = "auth_basic x; auth_basic_user_file " + users() + ";\n";
  add_location("/any-ok/", "satisfy any; allow 127.0.0.1; deny all;\n" + auth);
  add_location("/any-no/", "satisfy any; deny all;\n" + auth);
  add_location("/all/", "satisfy all; deny all;\n" + auth);
  start();
  get_hit("/a.txt");
  EXPECT_EQ(get("/any-ok/a.txt").cache_status(), "HIT");
  EXPECT_EQ(get("/any-no/a.txt").status, 401);
  EXPECT_EQ(get("/any-no/a.txt", {kUser}).cache_status(), "HIT");
  EXPECT_EQ(get("/all/a.txt", {kUser}).status, 403);
}

TEST_F(NginxAccessTest, LimitExcept) {
  add_location("/except/", "limit_except POST { deny all; }\n");
  add_location("/get/", "limit_except GET { deny all; }\n");
  start();
  get_hit("/a.txt");
  EXPECT_EQ(get("/except/a.txt").status, 403);
  EXPECT_EQ(get("/get/a.txt").cache_status(), "HIT");
}

TEST_F(NginxAccessTest, InternalLocations) {
  add_location("/internal/", "internal;\n");
  options().server_extra += "location = /door { error_page 418 = /internal/a.txt; return 418; }\n";
  start();
  get_hit("/a.txt");
  EXPECT_EQ(get("/internal/a.txt").status, 404);
  const HttpResponse response = get("/door");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.cache_status(), "HIT");
}

TEST_F(NginxAccessTest, SubrequestDecides) {
  add_location("/asked/", "auth_request /judge;\n");
  options().server_extra +=
      "location = /judge { internal; if ($http_x_key = open) { return 204; }"
      " return 403; }\n";
  start();
  get_hit("/a.txt");
  EXPECT_EQ(get("/asked/a.txt").status, 403);
  EXPECT_EQ(get("/asked/a.txt", {"X-Key: open"}).cache_status(), "HIT");
}

TEST_F(NginxAccessTest, FileThatMayNotBeRead) {
  start();
  if (geteuid() == 0) {  // otherwise the workers own the file
    EXPECT_EQ(get("/closed.txt").status, 403);
  }
}

}  // namespace
}  // namespace mcs::loadtest
