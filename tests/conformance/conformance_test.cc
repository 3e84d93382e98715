// SPDX-License-Identifier: Apache-2.0
// Every case on nginx and on httpd: tests nginx.<case> and httpd.<case>; servers.<case> wants that
// what clients and the origin saw was the same.
#include <gtest/gtest.h>

#include <iostream>
#include <map>
#include <memory>
#include <set>

#include "tests/conformance/world.h"

namespace mcs::conformance {
namespace {

using loadtest::ServerKind;

std::unique_ptr<World>& world() {
  static std::unique_ptr<World> instance;
  return instance;
}

// Starts the servers before the first case and stops them after the last.
class Servers : public testing::Environment {
 public:
  void SetUp() override { world() = std::make_unique<World>(); }
  void TearDown() override {
    if (!world()) return;
    for (const std::string& trouble : world()->stop()) ADD_FAILURE() << trouble;
    world().reset();
  }
};

// Both servers are asked when the first verdict is wanted: then "now" is the same for both.
const Verdict& verdict_of(const Case& c, size_t index, ServerKind kind) {
  static std::map<size_t, std::map<ServerKind, Verdict>> verdicts;
  std::map<ServerKind, Verdict>& both = verdicts[index];
  if (both.empty()) {
    const time_t now = time(nullptr);
    for (const ServerKind one : {ServerKind::kNginx, ServerKind::kHttpd}) {
      both[one] = world()->run(c, index, one, now);
    }
  }
  return both[kind];
}

class OnOneServer : public testing::Test {
 public:
  OnOneServer(const Case& c, size_t index, ServerKind kind)
      : case_(c), index_(index), kind_(kind) {}
  void TestBody() override {
    const Verdict& verdict = verdict_of(case_, index_, kind_);
    for (const std::string& failure : verdict.failures) ADD_FAILURE() << failure;
    if (verdict.failures.empty()) return;
    for (const std::string& line : verdict.transcript) std::cout << line << "\n";
  }

 private:
  const Case& case_;
  size_t index_;
  ServerKind kind_;
};

class OnBoth : public testing::Test {
 public:
  OnBoth(const Case& c, size_t index) : case_(c), index_(index) {}
  void TestBody() override {
    const Verdict& nginx = verdict_of(case_, index_, ServerKind::kNginx);
    const Verdict& httpd = verdict_of(case_, index_, ServerKind::kHttpd);
    EXPECT_EQ(nginx.failures.empty(), httpd.failures.empty());
    EXPECT_EQ(nginx.transcript, httpd.transcript);
  }

 private:
  const Case& case_;
  size_t index_;
};

const Cases& all_cases() {
  static const Cases cases = [] {
    Cases all;
    for (const auto part : {storing_cases, freshness_cases, date_cases, age_cases, request_cases,
                            validation_cases, invalidation_cases, range_cases, vary_cases,
                            field_cases, extension_cases, safety_cases, purge_cases}) {
      for (Case& c : part()) {
        // Names of fields and methods are part of names; "-" means something in --gtest_filter.
        std::erase(c.name, '-');
        all.push_back(std::move(c));
      }
    }
    return all;
  }();
  return cases;
}

template <typename Make>
void add_test(const char* suite, const Case& c, Make make) {
  testing::RegisterTest(suite, c.name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                        [make]() -> testing::Test* { return make(); });
}

void add_all_tests() {
  testing::AddGlobalTestEnvironment(new Servers);
  const Cases& cases = all_cases();
  std::set<std::string> names;
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    if (!names.insert(c.name).second) {
      std::cerr << "two cases are called " << c.name << "\n";
      std::abort();
    }
    add_test("nginx", c, [&c, i] { return new OnOneServer(c, i, ServerKind::kNginx); });
    add_test("httpd", c, [&c, i] { return new OnOneServer(c, i, ServerKind::kHttpd); });
    add_test("servers", c, [&c, i] { return new OnBoth(c, i); });
  }
}

}  // namespace
}  // namespace mcs::conformance

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  mcs::conformance::add_all_tests();
  return RUN_ALL_TESTS();
}
