// SPDX-License-Identifier: Apache-2.0
// mcs-matrix: failure by phase. The table in docs/failure-model.md names the tests of each cell; this
// program reads it there, runs them, and prints the table with what they said. So the page and the
// command cannot differ.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/process.h"
#include "loadtest/harness/temp_dir.h"

namespace {

using mcs::loadtest::run_process;

constexpr const char* kNeverMeet = "–";
// What the table has to speak of, whatever else it does.
constexpr const char* kPhases[] = {"idle", "lookup", "pinned", "waiting for a fill", "filling",
                                   "evicting", "purging", "joining", "leaving", "recovering"};

struct Cell {
  bool impossible = false;
  std::vector<std::string> tests;
};
struct Line {
  std::string phase;
  std::vector<Cell> cells;
};
struct Table {
  std::vector<std::string> failures;
  std::vector<Line> lines;

  std::set<std::string> tests() const {
    std::set<std::string> all;
    for (const Line& line : lines) {
      for (const Cell& cell : line.cells) all.insert(cell.tests.begin(), cell.tests.end());
    }
    return all;
  }
};

struct Verdict {
  bool passed = false;
  double seconds = 0;
};

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(' ');
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(' ') - begin + 1);
}

std::vector<std::string> columns_of(const std::string& line) {
  std::vector<std::string> columns;
  std::istringstream in(line.substr(1));
  for (std::string column; std::getline(in, column, '|');) columns.push_back(trimmed(column));
  return columns;
}

Cell cell_of(const std::string& text) {
  Cell cell;
  cell.impossible = text == kNeverMeet;
  for (std::size_t at = text.find('`'); at != std::string::npos; at = text.find('`', at + 1)) {
    const std::size_t end = text.find('`', at + 1);
    if (end == std::string::npos) break;
    cell.tests.push_back(text.substr(at + 1, end - at - 1));
    at = end;
  }
  return cell;
}

// The table whose first column is called "phase". Empty: there is none.
Table read_table(const std::string& file) {
  Table table;
  std::ifstream in(file);
  for (std::string text; std::getline(in, text);) {
    if (text.rfind("| phase |", 0) == 0) {
      table.failures = columns_of(text);
      table.failures.erase(table.failures.begin());
      std::getline(in, text);  // the rule below the heads
      continue;
    }
    if (table.failures.empty()) continue;
    if (text.empty() || text[0] != '|') break;
    const std::vector<std::string> columns = columns_of(text);
    Line line{columns[0], {}};
    for (std::size_t i = 1; i < columns.size(); ++i) line.cells.push_back(cell_of(columns[i]));
    table.lines.push_back(std::move(line));
  }
  return table;
}

std::vector<std::string> command_of(const std::string& test, const std::string& build) {
  if (test == "demo") {
    return {mcs::loadtest::tool_file("mcs-demo").string(), "--seconds", "15"};
  }
  return {"ctest", "--test-dir", build, "-R", "^" + test + "$", "--no-tests=error",
          "--output-on-failure"};
}

// Complaints; empty: all is well.
std::vector<std::string> check(const Table& table, const std::string& build) {
  std::vector<std::string> wrong;
  if (table.lines.empty()) wrong.emplace_back("there is no table with a column \"phase\"");
  for (const char* phase : kPhases) {
    if (std::none_of(table.lines.begin(), table.lines.end(),
                     [&](const Line& line) { return line.phase == phase; })) {
      wrong.push_back(fmt::format("no line for the phase \"{}\"", phase));
    }
  }
  for (const Line& line : table.lines) {
    if (line.cells.size() != table.failures.size()) {
      wrong.push_back(fmt::format("\"{}\": {} cells under {} heads", line.phase, line.cells.size(),
                                  table.failures.size()));
    }
  }
  for (const std::string& test : table.tests()) {
    if (test == "demo") continue;
    const auto listed = run_process({"ctest", "--test-dir", build, "-N", "-R", "^" + test + "$"});
    if (!listed || listed->out.find("Total Tests: 1") == std::string::npos) {
      wrong.push_back(fmt::format("\"{}\" is no test of this build", test));
    }
  }
  return wrong;
}

std::string state_of(const Cell& cell, const std::map<std::string, Verdict>& verdicts) {
  if (cell.impossible) return kNeverMeet;
  if (cell.tests.empty()) return "empty";
  const bool passed = std::all_of(cell.tests.begin(), cell.tests.end(), [&](const auto& test) {
    return verdicts.at(test).passed;
  });
  return passed ? "pass" : "FAIL";
}

void print(const Table& table, const std::map<std::string, Verdict>& verdicts) {
  std::size_t first = 5;
  for (const Line& line : table.lines) first = std::max(first, line.phase.size());
  fmt::print("{:<{}}", "phase", first);
  for (const std::string& failure : table.failures) {
    fmt::print("  {:>{}}", failure, std::max<std::size_t>(5, failure.size()));
  }
  fmt::print("\n");
  for (const Line& line : table.lines) {
    fmt::print("{:<{}}", line.phase, first);
    for (std::size_t i = 0; i < line.cells.size(); ++i) {
      fmt::print("  {:>{}}", state_of(line.cells[i], verdicts),
                 std::max<std::size_t>(5, table.failures[i].size()));
    }
    fmt::print("\n");
  }
}

nlohmann::json as_json(const Table& table, const std::map<std::string, Verdict>& verdicts) {
  nlohmann::json cells = nlohmann::json::array();
  std::map<std::string, int> counts{{"pass", 0}, {"FAIL", 0}, {"empty", 0}, {kNeverMeet, 0}};
  for (const Line& line : table.lines) {
    for (std::size_t i = 0; i < line.cells.size(); ++i) {
      const std::string state = state_of(line.cells[i], verdicts);
      ++counts[state];
      cells.push_back({{"phase", line.phase},
                       {"failure", table.failures[i]},
                       {"result", state == kNeverMeet ? "impossible" : state == "FAIL" ? "fail" : state},
                       {"tests", line.cells[i].tests}});
    }
  }
  nlohmann::json tests;
  for (const auto& [name, verdict] : verdicts) {
    tests[name] = {{"passed", verdict.passed}, {"seconds", verdict.seconds}};
  }
  return {{"cells", cells},          {"tests", tests},           {"passed", counts["pass"]},
          {"failed", counts["FAIL"]}, {"empty", counts["empty"]}, {"impossible", counts[kNeverMeet]}};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Runs the tests that the cells of docs/failure-model.md name, each once, and prints the "
               "table with what they said: pass, FAIL, empty (no test makes this failure happen in "
               "this phase), or – (the two cannot meet). The exit status is 0 if none failed."};
  std::string page = MCS_FAILURE_MODEL;
  std::string build = MCS_BUILD_DIRECTORY;
  std::string json_file;
  bool only_check = false;
  app.add_option("--page", page, "the page with the table")->capture_default_str();
  app.add_option("--build", build, "the build whose tests are run")->capture_default_str();
  app.add_option("--json", json_file, "write the results to this file");
  app.add_flag("--check", only_check, "run nothing: is the table whole, and does each test exist?");
  CLI11_PARSE(app, argc, argv);

  const Table table = read_table(page);
  const std::vector<std::string> wrong = check(table, build);
  for (const std::string& complaint : wrong) {
    fmt::print(stderr, "{}: {}; mend the table\n", page, complaint);
  }
  if (!wrong.empty()) return 2;
  if (only_check) return 0;

  std::map<std::string, Verdict> verdicts;
  for (const std::string& test : table.tests()) {
    fmt::print("{:<32}", test);
    std::fflush(stdout);
    mcs::loadtest::ProcessOptions options;
    options.timeout = std::chrono::minutes(10);
    const std::uint64_t begin = mcs::loadtest::monotonic_ns();
    const auto result = run_process(command_of(test, build), options);
    Verdict& verdict = verdicts[test];
    verdict.passed = result && result->ok();
    verdict.seconds = static_cast<double>(mcs::loadtest::monotonic_ns() - begin) / 1e9;
    fmt::print("{} {:6.1f} s\n", verdict.passed ? "pass" : "FAIL", verdict.seconds);
    if (result && !result->ok()) fmt::print("{}{}\n", result->out, result->err);
  }
  fmt::print("\n");
  print(table, verdicts);
  const nlohmann::json json = as_json(table, verdicts);
  fmt::print("{} cells pass, {} fail, {} are empty\n", json["passed"].get<int>(),
             json["failed"].get<int>(), json["empty"].get<int>());
  if (!json_file.empty()) {
    if (const auto written = mcs::loadtest::write_file(json_file, json.dump(2)); !written) {
      fmt::print(stderr, "cannot write {}: choose a writable file\n", json_file);
      return 2;
    }
  }
  return json["failed"].get<int>() == 0 ? 0 : 1;
}
