// SPDX-License-Identifier: Apache-2.0
// The instructions that each operation of the core takes are those in instructions.txt, +-3 %. To
// record them anew: MCS_UPDATE_INSTRUCTIONS=1 ./mcs test --filter instruction_guard
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "loadtest/harness/process.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {
namespace {

constexpr double kTimes = 1000;
constexpr double kTolerance = .03;
using Counts = std::map<std::string, double>;

// "summary: 123" of the dump whose trigger names the operation.
void add_dump(const std::filesystem::path& file, Counts& counts) {
  std::ifstream in(file);
  std::string name;
  for (std::string line; std::getline(in, line);) {
    const std::string trigger = "desc: Trigger: Client Request: ";
    if (line.rfind(trigger, 0) == 0) name = line.substr(trigger.size());
    for (const char* total : {"summary: ", "totals: "}) {
      if (!name.empty() && line.rfind(total, 0) == 0) {
        counts[name] = std::stod(line.substr(std::string(total).size())) / kTimes;
      }
    }
  }
}

Counts measure() {
  Counts counts;
  const TempDir directory("mcs-guard");
  ProcessOptions options;
  // Which of its copying functions the C library takes must not depend on the processor.
  options.environment = {
      "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2_Usable,-AVX512F_Usable,-ERMS,-AVX2,-AVX512VL",
      "LD_BIND_NOW=1"};
  options.timeout = std::chrono::seconds(100);
  const auto ran =
      run_process({"valgrind", "--tool=callgrind", "--quiet",
                   "--callgrind-out-file=" + (directory.path() / "out").string(),
                   std::getenv("MCS_GUARD_OPERATIONS")},
                  options);
  EXPECT_TRUE(ran && ran->ok()) << (ran ? ran->describe() : ran.error().message);
  for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    add_dump(entry.path(), counts);
  }
  return counts;
}

struct Record {
  std::string compiler;
  Counts counts;
};

Record read_record() {
  Record record;
  std::ifstream in(MCS_GUARD_RECORD);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("# ", 0) == 0) continue;
    std::istringstream words(line);
    std::string name;
    words >> name;
    if (name == "compiler") {
      std::getline(words >> std::ws, record.compiler);
    } else if (!name.empty()) {
      words >> record.counts[name];
    }
  }
  return record;
}

void write_record(const Counts& counts) {
  std::ofstream out(MCS_GUARD_RECORD);
  out << "# Instructions per operation of the core, as callgrind counts them. Record anew with\n"
         "# MCS_UPDATE_INSTRUCTIONS=1 ./mcs test --filter instruction_guard\n"
      << "compiler " << MCS_GUARD_COMPILER << "\n";
  for (const auto& [name, count] : counts) out << name << " " << std::lround(count) << "\n";
}

TEST(InstructionGuard, NoOperationTakesMoreInstructionsThanRecorded) {
  const Counts counts = measure();
  EXPECT_EQ(counts.size(), 5U);
  if (std::getenv("MCS_UPDATE_INSTRUCTIONS") != nullptr) {
    write_record(counts);
    return;
  }
  const Record record = read_record();
  for (const auto& [name, count] : counts) {
    std::printf("%-10s %8.1f instructions, recorded %8.0f\n", name.c_str(), count,
                record.counts.count(name) != 0 ? record.counts.at(name) : 0);
  }
  if (record.compiler != MCS_GUARD_COMPILER) {
    std::printf("not compared: recorded with %s, this is %s\n", record.compiler.c_str(),
                MCS_GUARD_COMPILER);
    return;
  }
  for (const auto& [name, count] : counts) {
    ASSERT_TRUE(record.counts.count(name)) << name << " is not in " << MCS_GUARD_RECORD;
    const double recorded = record.counts.at(name);
    EXPECT_LE(count, recorded * (1 + kTolerance)) << name << " has become slower";
    EXPECT_GE(count, recorded * (1 - kTolerance))
        << name << " has become faster: record it (see the first lines of " << MCS_GUARD_RECORD
        << ")";
  }
}

}  // namespace
}  // namespace mcs::loadtest
