// SPDX-License-Identifier: Apache-2.0
// Has spin verify every protocol in docs/protocols exhaustively within its bounds, and find every
// mistake that is seeded there, by the assertion that is meant to find it. Each case prints how
// many states were visited.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Case {
  std::string model;
  std::string macros;   // "SCENE=1 BUG_…", as -D options
  std::string finding;  // part of the assertion that finds the mistake; "": there is none
};

// The models' head comments explain scenes and mistakes.
const std::vector<Case> kCases = {
    {"owner_lock", "SCENE=1", ""},
    {"owner_lock", "SCENE=2", ""},
    {"owner_lock", "SCENE=3", ""},
    {"owner_lock", "SCENE=1 BUG_ONE_PASS", "TAKE"},
    {"owner_lock", "SCENE=1 BUG_RECORD_LATE", "assert(word == 0 && sound(0) && sound(1))"},
    {"owner_lock", "SCENE=2 KILLS=1 BUG_TWO_THREADS", "assert((word==dead))"},
    {"owner_lock", "SCENE=3 KILLS=1 BUG_BLAME_HOLDER", "waits[0]"},
    {"membership", "KILLS=2", ""},
    {"membership", "BUG_LATE_BYTE", "assert(!(alive[born[d]]))"},
    {"membership", "BUG_NO_SECOND_LOOK", "assert(!(alive[born[d]]))"},
    {"membership", "BUG_ANY_EXIT", "assert(!(alive[born[d]]))"},
    {"membership", "BUG_FOLD_TWICE", "==added"},
    {"membership", "BUG_COUNT_ON", "==added"},
    {"membership", "BUG_FREE_ONLY", "assert((me!=4))"},
    {"global_mutex", "KILLS=2", ""},
    {"global_mutex", "BUG_PLAIN_FREE", "(low==high)"},
    {"global_mutex", "BUG_DUTY_LOST", "(low==high)"},
    {"global_mutex", "BUG_ANY_HOLDER", "(owner==me)"},
    {"global_mutex", "BUG_LOOK_ONCE", "(in_use&&(generation==mine))"},
    {"rebuild", "", ""},
    {"rebuild", "BUG_NO_LOOK", "(entry[0]=="},
    {"rebuild", "BUG_LOOK_FIRST", "(chain[1]==1)"},
    {"rebuild", "BUG_CHAIN_ONLY", "(entry[0]=="},
    {"rebuild", "BUG_NO_RECHECK", "(entry[0]=="},
    {"rebuild", "BUG_SWEEP_FIRST", "(entry[0]=="},
    {"generation", "EVENTS=2", ""},
    {"generation", "BUG_ACK_INSIDE", "(holder_of==g)"},
    {"generation", "KILLS=0 BUG_TWO_THREADS", "(ran[g]==3)"},
    {"generation", "KILLS=0 BUG_NO_ELECTION", "(ran[g]==3)"},
    {"generation", "BUG_LOOK_ONCE", "(generation==g)"},
    {"generation", "BUG_KEEP_STEPS", "(ran[g]==3)"},
    {"fill_lease", "SCENE=1", ""},
    {"fill_lease", "SCENE=2", ""},
    {"fill_lease", "SCENE=3", ""},
    {"fill_lease", "SCENE=4", ""},
    {"fill_lease", "SCENE=5", ""},
    {"fill_lease", "SCENE=1 KILLS=0 BUG_KEEP_OWN", "(d[0].state==SEALED)+"},
    {"fill_lease", "SCENE=2 BUG_WAKE_LAST", "assert((ended==2))"},
    {"fill_lease", "SCENE=2 BUG_WAKE_FOUND", "assert((ended==2))"},
    {"fill_lease", "SCENE=2 BUG_LOST_BITS", "assert((ended==2))"},
    {"fill_lease", "SCENE=2 BUG_NO_RECHECK", "assert((ended==2))"},
    {"fill_lease", "SCENE=5 BUG_UNSETTLED", "!(published_before)"},
    {"fill_lease", "SCENE=3 KILLS=0 BUG_FLAG_STAYS", "!(acknowledged_before)"},
    {"fill_lease", "SCENE=3 KILLS=0 BUG_RING_FORGETS", "!(acknowledged_before)"},
    {"fill_lease", "SCENE=3 KILLS=0 BUG_LOG_LAST", "!(acknowledged_before)"},
    {"fill_lease", "SCENE=3 KILLS=0 BUG_WALK_GIVES_UP", "!(acknowledged_before)"},
    {"fill_lease", "SCENE=4 BUG_SCAN_BY_HINT", "!(acknowledged_before)"},
    {"expulsion", "", ""},
    {"expulsion", "BUG_LOOK_THEN_STORE", "(entry[0]==SEALED)&&(entry[1]==SEALED)"},
    {"expulsion", "BUG_FREE_AT_ONCE", "(owner[d]==1)"},
    {"expulsion", "BUG_STEAL_LOCK", "(word==2)"},
    {"expulsion", "BUG_MARK_ONCE", "assert(ended)"},
    {"expulsion", "BUG_FORGET", "(entry[0]==FREE)"},
    {"expulsion", "BUG_WAIT_ON", "assert(ended)"},
    {"pin_reclaim", "SCENE=1", ""},
    {"pin_reclaim", "SCENE=2 KILLS=2", ""},
    {"pin_reclaim", "SCENE=1 BUG_NO_REREAD", "assert((bytes==link))"},
    {"pin_reclaim", "SCENE=1 KILLS=0 BUG_NO_FENCE", "assert((bytes==link))"},
    {"pin_reclaim", "SCENE=1 KILLS=0 BUG_NO_VERSION", "assert((bytes==link))"},
    {"pin_reclaim", "SCENE=1 KILLS=0 BUG_HIGH_LATE", "assert((bytes==link))"},
    {"pin_reclaim", "SCENE=1 KILLS=0 BUG_SCAN_FIRST", "assert((bytes==link))"},
    {"pin_reclaim", "SCENE=2 BUG_LIMBO_LATE", "(state==FREE)"},
    {"pin_reclaim", "SCENE=2 BUG_ORPHAN_FIRST", "(state==FREE)"},
    {"agreement", "SCENE=1", ""},
    {"agreement", "SCENE=2", ""},
    {"agreement", "SCENE=2 CRASHES=0 ALARMS=2", ""},
    {"agreement", "SCENE=3", ""},
    {"agreement", "SCENE=4", ""},
    {"agreement", "SCENE=5", ""},
    {"agreement", "SCENE=1 BUG_ACT_EARLY", "==want)"},
    {"agreement", "SCENE=1 BUG_STORE", "==want)"},
    {"agreement", "SCENE=1 BUG_LOCAL_FIRST", "==want)"},
    {"agreement", "SCENE=1 BUG_RESUME_FIRST", "in_force"},
    {"agreement", "SCENE=1 BUG_NO_QUARANTINE", "reused"},
    {"agreement", "SCENE=2 BUG_NO_HELP", "assert(0)"},
    {"agreement", "SCENE=3 BUG_ONE_VOICE", "assert(0)"},
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.model << ' ' << c.macros; }

struct Output {
  int status = -1;
  std::string text;
};

// `command` by the shell in `directory`; its whole output.
Output run(const fs::path& directory, const std::string& command) {
  Output output;
  FILE* pipe = ::popen(fmt::format("cd '{}' && {} 2>&1", directory.string(), command).c_str(), "r");
  if (pipe == nullptr) return output;
  char buffer[4096];
  std::size_t n = 0;
  while ((n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0) output.text.append(buffer, n);
  const int status = ::pclose(pipe);
  output.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return output;
}

std::string first_match(const std::string& text, const char* pattern) {
  std::smatch match;
  return std::regex_search(text, match, std::regex(pattern)) ? match[1].str() : std::string();
}

std::string source_line(const fs::path& file, int number) {
  std::ifstream in(file);
  std::string line;
  while (number-- > 0 && std::getline(in, line)) {
  }
  const auto begin = line.find_first_not_of(' ');
  return begin == std::string::npos ? std::string() : line.substr(begin);
}

class Models : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/mcs-model-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    ASSERT_EQ(run(directory_, "command -v spin").status, 0)
        << "spin is not installed: apt-get install spin, or ./mcs deps";
  }
  void TearDown() override { fs::remove_all(directory_); }

  fs::path directory_;
};

TEST_P(Models, Spin) {
  const Case& c = GetParam();
  const fs::path model = fs::path(MCS_PROTOCOLS) / (c.model + ".pml");
  const std::string macros =
      c.macros.empty() ? "" : " -D" + std::regex_replace(c.macros, std::regex(" "), " -D");

  const Output made = run(directory_, fmt::format("spin -a{} '{}'", macros, model.string()));
  ASSERT_EQ(made.status, 0) << made.text;
  // No more optimisation than pays: gcc would take longer than most searches do.
  const Output compiled =
      run(directory_, fmt::format("'{}' -w {} -DSAFETY -o pan pan.c", MCS_C_COMPILER,
                                  c.finding.empty() ? "-Og" : "-O0"));
  ASSERT_EQ(compiled.status, 0) << compiled.text;
  const Output verified = run(directory_, "./pan -m20000 -n -w22");
  const std::string states = first_match(verified.text, R"((\d+) states, stored)");
  const std::string depth = first_match(verified.text, R"(depth reached (\d+))");
  const std::string errors = first_match(verified.text, R"(errors: (\d+))");
  ASSERT_FALSE(states.empty() || errors.empty()) << verified.text;
  ASSERT_EQ(verified.text.find("max search depth too small"), std::string::npos);

  std::string found;
  if (errors != "0") {
    const Output replay = run(directory_, fmt::format("spin{} -k {}.trail '{}'", macros,
                                                      model.filename().string(), model.string()));
    const std::string line = first_match(replay.text, R"(:(\d+), Error: assertion violated)");
    const std::string text = first_match(replay.text, R"(text of failed assertion: ([^\n]*))");
    found = line.empty()
                ? first_match(verified.text, R"(pan:1: ([^\n]*))")
                : fmt::format("{}.pml:{}: {}", c.model, line,
                              text.size() < 100 ? text : source_line(model, std::stoi(line)));
  }
  fmt::print("{:<13}{:<34}{:>9} states, depth {:>3}  {}\n", c.model, c.macros, states, depth,
             found.empty() ? "holds" : "found by " + found);
  if (c.finding.empty()) {
    EXPECT_EQ(errors, "0") << "violated: " << found;
    EXPECT_EQ(verified.text.find("Search not completed"), std::string::npos) << verified.text;
  } else {
    EXPECT_NE(errors, "0") << "the seeded mistake was not found";
    EXPECT_NE(found.find(c.finding), std::string::npos)
        << "found by another assertion than " << c.finding;
  }
}

INSTANTIATE_TEST_SUITE_P(Protocols, Models, testing::ValuesIn(kCases), [](const auto& chosen) {
  std::string name = chosen.param.model + "_" + chosen.param.macros;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char ch) { return !std::isalnum(ch); }, '_');
  return name;
});

}  // namespace
