// SPDX-License-Identifier: Apache-2.0
// mcs-junit: adds up what ctest and the GoogleTest programs it ran found, case by case.
//
// Reads <build>/ctest.xml (ctest --output-junit) and, for each entry there, the case-by-case
// <build>/gtest/<entry>.xml when the program wrote one. A program that failed although none of its
// cases did (it crashed, leaked or timed out) counts as one more failure, and so does a build
// without a ctest.xml or with no test in it. Only the two producers' XML is understood: attributes
// in double quotes, markup inside text escaped.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace {

struct TestResult {
  std::string name;
  bool passed = false;
  double seconds = 0;
};

std::optional<std::string> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string unescape(std::string text) {
  static constexpr std::pair<const char*, const char*> kEntities[] = {
      {"&quot;", "\""}, {"&apos;", "'"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&amp;", "&"}};
  for (const auto& [entity, plain] : kEntities) {
    for (size_t at = 0; (at = text.find(entity, at)) != std::string::npos; ++at) {
      text.replace(at, std::string(entity).size(), plain);
    }
  }
  return text;
}

std::string attribute(const std::string& tag, const std::string& name) {
  const std::string key = " " + name + "=\"";
  const size_t begin = tag.find(key);
  if (begin == std::string::npos) return "";
  const size_t value = begin + key.size();
  return unescape(tag.substr(value, tag.find('"', value) - value));
}

double to_seconds(const std::string& text) { return std::strtod(text.c_str(), nullptr); }

/// The <testcase> elements of `xml`, each as its opening tag and what it contains.
std::vector<std::pair<std::string, std::string>> test_cases(const std::string& xml) {
  std::vector<std::pair<std::string, std::string>> cases;
  size_t at = 0;
  while ((at = xml.find("<testcase", at)) != std::string::npos) {
    const size_t close = xml.find('>', at);
    if (close == std::string::npos) break;
    const std::string tag = xml.substr(at, close - at);
    std::string body;
    at = close;
    if (tag.back() != '/') {
      const size_t end = xml.find("</testcase>", close);
      body = xml.substr(close + 1, end == std::string::npos ? end : end - close - 1);
      if (end == std::string::npos) break;
      at = end;
    }
    cases.emplace_back(tag, body);
  }
  return cases;
}

/// The cases of one GoogleTest program. A skipped or disabled case has not passed.
std::vector<TestResult> program_cases(const std::string& program, const std::string& xml) {
  std::vector<TestResult> results;
  for (const auto& [tag, body] : test_cases(xml)) {
    const bool ran = attribute(tag, "status") == "run" && attribute(tag, "result") == "completed";
    results.push_back({program + ": " + attribute(tag, "classname") + "." + attribute(tag, "name"),
                       ran && body.find("<failure") == std::string::npos,
                       to_seconds(attribute(tag, "time"))});
  }
  return results;
}

std::vector<TestResult> build_results(const std::string& build) {
  const auto xml = read_file(build + "/ctest.xml");
  if (!xml) return {{"build and run", false, 0}};
  std::vector<TestResult> results;
  for (const auto& [tag, body] : test_cases(*xml)) {
    const std::string name = attribute(tag, "name");
    const bool passed = attribute(tag, "status") == "run";
    const double seconds = to_seconds(attribute(tag, "time"));
    const auto gtest_xml = read_file(build + "/gtest/" + name + ".xml");
    if (!gtest_xml) {
      results.push_back({name, passed, seconds});
      continue;
    }
    const auto cases = program_cases(name, *gtest_xml);
    bool explained = passed;
    for (const auto& result : cases) explained = explained || !result.passed;
    results.insert(results.end(), cases.begin(), cases.end());
    if (!explained) results.push_back({name + ": the program itself", false, seconds});
  }
  if (results.empty()) return {{"no test was there to run", false, 0}};
  return results;
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("Add up test results; exits non-zero unless something ran and all of it passed.");
  std::vector<std::string> builds;
  std::string json_file;
  double seconds = 0;
  app.add_option("builds", builds, "PRESET=BUILD_DIRECTORY, in which ctest wrote ctest.xml");
  app.add_option("--json", json_file, "Write all results to this file");
  app.add_option("--seconds", seconds, "How long the whole run took, for the JSON");
  CLI11_PARSE(app, argc, argv);

  int passed = 0;
  int failed = 0;
  auto tests = nlohmann::json::array();
  for (const auto& build : builds) {
    const size_t equals = build.find('=');
    if (equals == std::string::npos) {
      std::cerr << "mcs-junit: '" << build << "' is not PRESET=BUILD_DIRECTORY\n";
      return 2;
    }
    const std::string preset = build.substr(0, equals);
    for (const auto& result : build_results(build.substr(equals + 1))) {
      ++(result.passed ? passed : failed);
      if (!result.passed) std::cout << "FAILED [" << preset << "] " << result.name << '\n';
      tests.push_back({{"name", result.name},
                       {"preset", preset},
                       {"result", result.passed ? "passed" : "failed"},
                       {"seconds", result.seconds}});
    }
  }
  int status = failed == 0 && passed > 0 ? 0 : 1;
  if (!json_file.empty()) {
    std::ofstream out(json_file);
    out << nlohmann::json{{"passed", passed},
                          {"failed", failed},
                          {"seconds", seconds},
                          {"tests", tests}}
               .dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
        << '\n';
    out.close();
    if (!out) {
      std::cerr << "mcs-junit: cannot write " << json_file << ": name a writable file\n";
      status = 2;
    }
  }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  return status;
} catch (const std::exception& error) {
  std::cerr << "mcs-junit: " << error.what() << '\n';
  return 2;
}
