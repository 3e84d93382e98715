// SPDX-License-Identifier: Apache-2.0
// Access rules hold for entries as they do for files.
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/mod_mcs_apache/httpd_fixture.h"

namespace mcs::loadtest {
namespace {

class HttpdAccessTest : public HttpdTest {
 protected:
  HttpdAccessTest() {
    write("a.txt", "secret");
    write("sub/a.txt", "secret");
  }
};

TEST_F(HttpdAccessTest, HtaccessThatAppearsDeniesWhatIsCached) {
  options().location_extra = "AllowOverride All\n";
  start();
  get_hit("/sub/a.txt");
  write("sub/.htaccess", "Require all denied\n");
  EXPECT_EQ(get("/sub/a.txt").status, 403);
  std::filesystem::remove(root() / "sub/.htaccess");
  EXPECT_EQ(get("/sub/a.txt").cache_status(), "HIT");
}

TEST_F(HttpdAccessTest, DomainBelongsToUserAndGroup) {
  if (geteuid() == 0) options().main_extra = "Group backup\n";
  start();
  const group* entry = getgrnam("backup");
  for (const auto& file : std::filesystem::recursive_directory_iterator(domain_directory())) {
    struct stat info = {};
    struct stat worker = {};
    ASSERT_EQ(stat(file.path().c_str(), &info), 0);
    ASSERT_EQ(stat(("/proc/" + std::to_string(server_.worker_pids().at(0))).c_str(), &worker), 0);
    EXPECT_EQ(info.st_uid, worker.st_uid) << file.path();
    EXPECT_EQ(info.st_gid, geteuid() == 0 && entry != nullptr ? entry->gr_gid : getegid())
        << file.path();
  }
}

TEST_F(HttpdAccessTest, RequireOfAReloadDeniesWhatIsCached) {
  start();
  get_hit("/a.txt");
  options().server_extra = "<Files a.txt>\n  Require all denied\n</Files>\n";
  ASSERT_TRUE(server_.reload());
  get_until(server_, "/a.txt", [](const auto& r) { return r.status == 403; });
}

TEST_F(HttpdAccessTest, PasswordIsAskedForOnEveryHit) {
  // user:password
  ASSERT_TRUE(
      write_file(server_.prefix() / "passwords", "user:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n"));
  options().modules = {"authn_core", "authn_file", "authz_user", "auth_basic"};
  options().server_extra = "<Location /sub>\n  AuthType Basic\n  AuthName x\n  AuthUserFile " +
                           (server_.prefix() / "passwords").string() +
                           "\n  Require valid-user\n</Location>\n";
  start();
  const std::vector<std::string> right = {"Authorization: Basic dXNlcjpwYXNzd29yZA=="};
  EXPECT_EQ(get("/sub/a.txt").status, 401);
  EXPECT_EQ(get_hit("/sub/a.txt", right).body, "secret");
  EXPECT_EQ(get("/sub/a.txt").status, 401);
  EXPECT_EQ(get("/sub/a.txt", {"Authorization: Basic dXNlcjp3cm9uZw=="}).status, 401);
}

TEST_F(HttpdAccessTest, MethodsThatAreNotAllowed) {
  start();
  get_hit("/a.txt");
  options().server_extra =
      "<Location />\n  <Limit GET>\n    Require all denied\n  </Limit>\n</Location>\n";
  ASSERT_TRUE(server_.reload());
  get_until(server_, "/a.txt", [](const auto& r) { return r.status == 403; });
}

TEST_F(HttpdAccessTest, FileThatBecomesUnreadable) {
  if (geteuid() != 0) return;  // the owner of a file could read it
  options().mcs->valid = "1s";
  change("a.txt", "secret", kOld);
  start();
  get_until(server_, "/a.txt", [](const auto& r) { return r.cache_status() == "HIT"; });
  std::filesystem::permissions(root() / "a.txt", std::filesystem::perms::owner_read);
  get_until(server_, "/a.txt", [](const auto& r) { return r.status == 403; });
}

TEST_F(HttpdAccessTest, SymbolicLinksThatAreNotFollowed) {
  std::filesystem::create_symlink("a.txt", root() / "link.txt");
  start();
  get_hit("/link.txt");
  options().location_extra = "Options -FollowSymLinks\n";
  ASSERT_TRUE(server_.reload());
  get_until(server_, "/link.txt", [](const auto& r) { return r.status == 403; });
}

}  // namespace
}  // namespace mcs::loadtest
