// SPDX-License-Identifier: Apache-2.0
// The command gsm-emu, as a user calls it.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/layout.h"
#include "libglobalcache/runtime/instance.h"
#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/proc_info.h"
#include "loadtest/harness/process.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs {
namespace {

using loadtest::ProcessResult;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using namespace std::chrono_literals;

class GsmEmuTest : public testing::Test {
 protected:
  GsmEmuTest() : temp_("/dev/shm", "gsmtest"), tool_(loadtest::tool_file("gsm-emu")) {
    EXPECT_FALSE(tool_.empty());
  }
  ~GsmEmuTest() override {
    for (const pid_t pid : members_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    for (const auto& domain : gsm::Domain::list(directory())) {
      const std::string file = std::filesystem::path(domain).filename();
      run({"down", file.substr(4, file.rfind('.') - 4), "--force"});
    }
  }
  std::string directory() const { return temp_.path(); }
  std::string domain_path(const std::string& name = "d") const {
    return gsm::Domain::path_of(directory(), name, cache::layout_hash());
  }
  std::string segment(std::uint32_t node) const {
    return fmt::format("{}/segment.{}.1", domain_path(), node);
  }

  /// gsm-emu COMMAND ARG… --directory D; what follows "--" stays last.
  ProcessResult run(std::vector<std::string> words) const {
    const auto dashes = std::find(words.begin(), words.end(), "--");
    words.insert(dashes, {"--directory", directory()});
    words.insert(words.begin(), tool_.string());
    loadtest::ProcessOptions options;
    options.timeout = 60s;
    const auto result = loadtest::run_process(words, options);
    EXPECT_TRUE(result) << result.error().message;
    return result ? *result : ProcessResult{};
  }
  json run_json(std::vector<std::string> words, int exit_code = 0) const {
    words.push_back("--json");
    const ProcessResult result = run(words);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    json parsed = json::parse(result.out, nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << result.out;
    return parsed;
  }
  void up(std::uint32_t nodes = 2) const {
    const ProcessResult made =
        run({"up", "d", "--nodes", std::to_string(nodes), "--memory", "16m"});
    ASSERT_EQ(made.exit_code, 0) << made.err;
  }
  static void expect_error(const ProcessResult& result, const char* why) {
    EXPECT_EQ(result.exit_code, 2) << result.out;
    EXPECT_THAT(result.err, HasSubstr(why));
    EXPECT_THAT(result.err, testing::StartsWith("gsm-emu: "));
    // One line.
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  }

  /// A process that joins node `node` and then sleeps.
  pid_t start_member(std::uint32_t node, bool wrong_start_time = false) {
    int ready[2];
    EXPECT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      auto domain = gsm::Domain::open(directory(), "d", cache::layout_hash());
      if (!domain) ::_exit(1);
      auto liveness = runtime::KernelLiveness::open((*domain)->path());
      if (!liveness) ::_exit(1);
      auto instance = runtime::Instance::join(**domain, **liveness, {node, "server/1"});
      if (!instance) ::_exit(1);
      (*instance)->activate();
      if (wrong_start_time) (*instance)->own().started -= 1;
      if (::write(ready[1], "r", 1) != 1) ::_exit(1);
      for (;;) ::pause();
    }
    ::close(ready[1]);
    char byte = 0;
    EXPECT_EQ(::read(ready[0], &byte, 1), 1);
    ::close(ready[0]);
    members_.push_back(child);
    return child;
  }
  /// How a member ended; it must have.
  int ended(pid_t pid) {
    int status = 0;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    std::erase(members_, pid);
    return status;
  }
  static bool alive(pid_t pid) {
    const auto stat = loadtest::read_proc_stat(pid);
    return stat && stat->state != 'Z';
  }
  /// The pid that a command of `exec` wrote to a file, as this process sees it: the only process
  /// with this argument.
  // Shell text that starts "sleep SECONDS" in a session of its own and goes on when it has that.
  std::string daemon(const std::string& seconds, int number = 0) const {
    const std::string file = fmt::format("{}/daemon.{}", directory(), number);
    return fmt::format("setsid sh -c ': >{0}; exec sleep {1}' >/dev/null 2>&1 </dev/null & "
                       "while [ ! -e {0} ]; do :; done; ",
                       file, seconds);
  }
  // The processes that run "sleep SECONDS" now.
  static std::vector<pid_t> sleepers(const std::string& seconds) {
    std::vector<pid_t> found;
    for (const auto& stat : loadtest::all_processes()) {
      if (stat.state != 'Z' && loadtest::command_line(stat.pid) == "sleep " + seconds) {
        found.push_back(stat.pid);
      }
    }
    return found;
  }

  loadtest::TempDir temp_;
  std::filesystem::path tool_;
  std::vector<pid_t> members_;
};

// ---- up, status, down

TEST_F(GsmEmuTest, ADomainOnADeviceIsAttachedByOtherKernels) {
  const std::string device = directory() + "/device";
  std::ofstream(device).put('\0');
  std::filesystem::resize_file(device, 32 << 20);
  const auto made = run({"up", "d", "--device", device, "--nodes", "2", "--memory", "16m",
                         "--separate-kernels", "--node-limit-ms", "2500"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const loadtest::TempDir there("/dev/shm", "gsmtest");
  const auto attach = [&] {
    return *loadtest::run_process({tool_.string(), "attach", device, "--directory", there.path().string(),
                                   "--mode", "0666", "--json"});
  };
  const json attached = json::parse(attach().out, nullptr, false);
  ASSERT_TRUE(attached.is_object());
  EXPECT_EQ(attached["name"], "d");
  EXPECT_EQ(attached["nodes"], 2);
  EXPECT_EQ(attached["node_limit_ms"], 2500);
  EXPECT_EQ(attached["separate_kernels"], true);
  expect_error(attach(), "cannot attach domain d");
  EXPECT_EQ(run_json({"status", "d"})[0]["nodes"][1]["state"], "ok");
  expect_error(run({"lose", "d", "1"}), "lies on a device");
  expect_error(run({"damage", "d", "1", "--offset", "9000"}), "lies on a device");
  expect_error(run({"crash", "d", "1"}), "lies on a device");
}

TEST_F(GsmEmuTest, UpMakesADomainAndDownRemovesIt) {
  const json made =
      run_json({"up", "d", "--nodes", "3", "--memory", "16M", "--remote-penalty", "12"});
  EXPECT_EQ(made["nodes"], 3);
  EXPECT_EQ(made["bytes_per_node"], 16 << 20);
  EXPECT_EQ(made["remote_penalty_percent"], 1200);
  EXPECT_EQ(made["path"], domain_path());
  EXPECT_TRUE(gsm::Domain::open(directory(), "d", cache::layout_hash()));
  expect_error(run({"up", "d"}), "exists already; look at it with 'gsm-emu status d'");
  const ProcessResult removed = run({"down", "d"});
  EXPECT_EQ(removed.exit_code, 0) << removed.err;
  EXPECT_TRUE(std::filesystem::is_empty(directory()));
  expect_error(run({"down", "d"}), "does not exist");
}

TEST_F(GsmEmuTest, BadInputGetsOneClearLine) {
  expect_error(run({"up", "Bad"}), "not allowed");
  expect_error(run({"up", "d", "--memory", "lots"}), "size=");
  expect_error(run({"up", "d", "--memory", "1m"}), "too small");
  expect_error(run({"up", "d", "--memory", "90000g"}), "no room");
  expect_error(run({"up", "d", "--nodes", "17"}), "1 to 16");
  expect_error(run({"up", "d", "--mode", "rw"}), "octal");
  expect_error(run({"up", "d", "--owner", "no-such-user"}), "no such user");
  expect_error(run({"up", "d", "--remote-penalty", "0.5"}), "--remote-penalty");
  expect_error(run({"up"}), "name is required");
  expect_error(run({"up", "d", "--colour", "red"}), "--colour");
  expect_error(run({"crash", "d", "0"}), "gsm-emu up d");
  expect_error(run({"status", "d"}), "does not exist");
  EXPECT_TRUE(std::filesystem::is_empty(directory()));
  up();
  expect_error(run({"crash", "d", "2"}), "nodes 0 to 1");
  expect_error(run({"exec", "d", "7", "--", "true"}), "nodes 0 to 1");
  expect_error(run({"lose", "d", "x"}), "node");
}

TEST_F(GsmEmuTest, HelpIsNoError) {
  const ProcessResult help = run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* command :
       {"up", "status", "exec", "crash", "freeze", "thaw", "lose", "damage", "down"}) {
    EXPECT_THAT(help.out, HasSubstr(command));
    EXPECT_EQ(run({command, "--help"}).exit_code, 0) << command;
  }
}

TEST_F(GsmEmuTest, StatusListsDomainsOfAllBuilds) {
  EXPECT_THAT(run({"status"}).out, HasSubstr("no domains"));
  up();
  gsm::DomainSpec other;
  other.name = "d";
  other.directory = directory();
  other.bytes_per_node = 1 << 20;
  other.layout_hash = cache::layout_hash() + 1;
  gsm::Geometry geometry;
  geometry.meta_bytes = 8192;
  ASSERT_TRUE(gsm::Domain::create(other, geometry, [](gsm::Segment&) {}));
  const json all = run_json({"status"});
  ASSERT_EQ(all.size(), 2U);
  for (const json& domain : all) {
    const bool ours = domain["path"] == domain_path();
    EXPECT_EQ(domain["this_build"], ours);
    EXPECT_EQ(domain["nodes"].size(), ours ? 2U : 1U);
    EXPECT_EQ(domain["nodes"][0]["state"], "ok");
    EXPECT_EQ(domain["in_use"], false);
  }
  EXPECT_THAT(run({"status", "d"}).out, HasSubstr("another build's"));
  expect_error(run({"status", "--json", "d"}), "status d --json");
  // Removing names this build's unless told otherwise.
  const std::string layout = fmt::format("{:08x}", other.layout_hash & 0xffffffff);
  EXPECT_EQ(run({"down", "d"}).exit_code, 0);
  expect_error(run({"down", "d"}), layout.c_str());
  EXPECT_EQ(run({"down", "d", "--layout", layout}).exit_code, 0);
  EXPECT_TRUE(std::filesystem::is_empty(directory()));
}

TEST_F(GsmEmuTest, StatusNamesInstancesAndDamage) {
  up();
  const pid_t member = start_member(1);
  json domain = run_json({"status", "d"})[0];
  ASSERT_EQ(domain["instances"].size(), 1U);
  EXPECT_EQ(domain["instances"][0]["pid"], member);
  EXPECT_EQ(domain["instances"][0]["node"], 1);
  EXPECT_EQ(domain["instances"][0]["server"], "server/1");
  EXPECT_EQ(domain["in_use"], true);
  EXPECT_EQ(run({"lose", "d", "1"}).exit_code, 0);
  EXPECT_EQ(run({"damage", "d", "0", "--offset", "20"}).exit_code, 0);
  domain = run_json({"status", "d"})[0];
  EXPECT_THAT(domain["nodes"][1]["state"].get<std::string>(), HasSubstr("lost"));
  EXPECT_NE(domain["nodes"][0]["state"], "ok");
  EXPECT_TRUE(domain.contains("error"));
}

TEST_F(GsmEmuTest, DownSparesDomainsInUse) {
  up();
  const pid_t member = start_member(0);
  expect_error(run({"down", "d"}), "in use by 1 x server/1");
  EXPECT_TRUE(std::filesystem::exists(domain_path()));
  const json removed = run_json({"down", "d", "--force"});
  EXPECT_EQ(removed["still_mapped_by"], 1);
  EXPECT_FALSE(std::filesystem::exists(domain_path()));
  EXPECT_TRUE(alive(member));
}

TEST_F(GsmEmuTest, DownStopsTheAgents) {
  up(1);
  auto agent =
      loadtest::ChildProcess::start({loadtest::tool_file("mcs-agent").string(), "--directory",
                                     directory(), "--linger-ms", "600000", "d"});
  ASSERT_TRUE(agent);
  ASSERT_TRUE(loadtest::wait_until(
      [&] { return std::filesystem::exists(domain_path() + "/agent.0"); }, 20s));
  const json removed = run_json({"down", "d"});
  EXPECT_THAT(removed["agents_stopped"], ElementsAre(agent->pid()));
  const auto status = agent->wait(20s);
  ASSERT_TRUE(status);
  EXPECT_TRUE(WIFEXITED(*status));
  EXPECT_FALSE(std::filesystem::exists(domain_path()));
}

// ---- exec

TEST_F(GsmEmuTest, ExecRunsACommandOfItsNode) {
  up();
  const ProcessResult result =
      run({"exec", "d", "1", "--", "sh", "-c", "echo $MCS_NODE $MCS_DOMAIN; echo bad >&2; exit 7"});
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_EQ(result.out, "1 d\n");
  EXPECT_THAT(result.err, HasSubstr("bad"));
  EXPECT_EQ(run({"exec", "d", "0", "--", "no-such-command"}).exit_code, 127);
  EXPECT_EQ(run({"exec", "d", "0", "--", "/"}).exit_code, 126);
  EXPECT_EQ(run({"exec", "d", "0", "--", "sh", "-c", "kill -9 $$"}).exit_code, 137);
  expect_error(run({"exec", "d", "0"}), "command");
  // Nothing is left, neither processes nor records.
  EXPECT_TRUE(loadtest::wait_until(
      [&] {
        return run_json({"status", "d"})[0]["nodes"][0]["processes"].empty();
      },
      20s));
}

TEST_F(GsmEmuTest, ExecPassesSignalsOn) {
  up();
  const std::string started = directory() + "/started";
  auto child = loadtest::ChildProcess::start(
      {tool_.string(), "exec", "d", "0", "--directory", directory(), "--", "sh", "-c",
       "trap 'exit 5' TERM; : >" + started + "; while :; do sleep 0.05; done"});
  ASSERT_TRUE(child);
  ASSERT_TRUE(loadtest::wait_until([&] { return std::filesystem::exists(started); }, 20s));
  child->signal(SIGTERM);
  const auto status = child->wait(20s);
  ASSERT_TRUE(status);
  ASSERT_TRUE(WIFEXITED(*status));
  EXPECT_EQ(WEXITSTATUS(*status), 5);
}

TEST_F(GsmEmuTest, CrashEndsWhatExecStartedAlsoDaemons) {
  up();
  const std::string mark = fmt::format("4{:06}.25", ::getpid());
  const ProcessResult started = run({"exec", "d", "1", "--", "sh", "-c",
                                     daemon(mark) + daemon(mark, 1) + "exit 3"});
  EXPECT_EQ(started.exit_code, 3);
  EXPECT_TRUE(loadtest::wait_until([&] { return sleepers(mark).size() == 2; }, 20s));
  json domain = run_json({"status", "d"})[0];
  ASSERT_EQ(domain["nodes"][1]["processes"].size(), 1U);
  EXPECT_THAT(domain["nodes"][1]["processes"][0]["command"].get<std::string>(), HasSubstr(mark));
  expect_error(run({"down", "d"}), "still runs");
  // Another node's crash does not concern it.
  EXPECT_EQ(run({"crash", "d", "0", "--keep-memory"}).exit_code, 0);
  EXPECT_EQ(sleepers(mark).size(), 2U);
  const json crashed = run_json({"crash", "d", "1", "--keep-memory"});
  EXPECT_EQ(crashed["memory"], "kept");
  EXPECT_EQ(crashed["complete"], true);
  EXPECT_THAT(sleepers(mark), IsEmpty());
  EXPECT_EQ(std::filesystem::file_size(segment(1)), 16U << 20);
  EXPECT_EQ(run({"down", "d"}).exit_code, 0);
}

TEST_F(GsmEmuTest, ExecTellsWhenItsNodeCrashes) {
  up();
  const std::string started = directory() + "/started";
  const std::string errors = directory() + "/errors";
  loadtest::SpawnOptions options;
  options.stderr_file = errors;
  auto child = loadtest::ChildProcess::start(
      {tool_.string(), "exec", "d", "0", "--directory", directory(), "--", "sh", "-c",
       ": >" + started + "; while :; do sleep 0.05; done"},
      options);
  ASSERT_TRUE(child);
  ASSERT_TRUE(loadtest::wait_until([&] { return std::filesystem::exists(started); }, 20s));
  EXPECT_EQ(run({"crash", "d", "0"}).exit_code, 0);
  const auto status = child->wait(20s);
  ASSERT_TRUE(status);
  ASSERT_TRUE(WIFEXITED(*status));
  EXPECT_EQ(WEXITSTATUS(*status), 137);
  EXPECT_THAT(loadtest::read_file(errors).value_or(""), HasSubstr("node 0 crashed"));
}

// Without the right to make namespaces, which root gives up by becoming nobody.
TEST_F(GsmEmuTest, ExecWorksWithoutNamespaces) {
  const bool root = ::geteuid() == 0;
  ASSERT_EQ(run(root ? std::vector<std::string>{"up", "d", "--memory", "16m", "--owner", "nobody"}
                     : std::vector<std::string>{"up", "d", "--memory", "16m"})
                .exit_code,
            0);
  const std::string mark = fmt::format("5{:06}.25", ::getpid());
  const std::string out = directory() + "/out";
  // Opened while it may be read, so that it does not matter who may read the build directory.
  const int program = ::open(tool_.c_str(), O_RDONLY | O_CLOEXEC);
  const int output = ::open(out.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(output, 1);
    ::dup2(output, 2);
    if (root && (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0)) {
      ::_exit(99);
    }
    const std::string command = fmt::format(
        "setsid sleep {0} >/dev/null 2>&1 </dev/null & echo node $MCS_NODE; exit 3", mark);
    const std::string where = directory();
    const char* argv[] = {"gsm-emu",     "exec",          "d",    "0",
                          "--directory", where.c_str(),   "--",   "sh",
                          "-c",          command.c_str(), nullptr};
    ::fexecve(program, const_cast<char**>(argv), environ);
    ::_exit(98);
  }
  ::close(program);
  ::close(output);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 3);
  const std::string said = loadtest::read_file(out).value_or("");
  EXPECT_THAT(said, AllOf(HasSubstr("notice: no pid namespace"), HasSubstr("node 0\n")));
  EXPECT_TRUE(loadtest::wait_until([&] { return sleepers(mark).size() == 1; }, 20s));
  EXPECT_EQ(run({"crash", "d", "0", "--keep-memory"}).exit_code, 0);
  EXPECT_THAT(sleepers(mark), IsEmpty());
}

// ---- faults

TEST_F(GsmEmuTest, CrashEndsTheInstancesOfTheNodeAndItsMemory) {
  up();
  const pid_t there = start_member(1);
  const pid_t elsewhere = start_member(0);
  const json crashed = run_json({"crash", "d", "1"});
  EXPECT_THAT(crashed["killed"], ElementsAre(there));
  EXPECT_EQ(crashed["memory"], "lost");
  const int status = ended(there);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  EXPECT_TRUE(alive(elsewhere));
  EXPECT_EQ(std::filesystem::file_size(segment(1)), 0U);
  EXPECT_EQ(std::filesystem::file_size(segment(0)), 16U << 20);
}

TEST_F(GsmEmuTest, CrashLeavesStrangersAlone) {
  up();
  const pid_t stranger = start_member(1, true);
  const json crashed = run_json({"crash", "d", "1", "--keep-memory"}, 1);
  EXPECT_THAT(crashed["killed"], IsEmpty());
  EXPECT_EQ(crashed["unreachable"].size(), 1U);
  EXPECT_EQ(crashed["complete"], false);
  EXPECT_TRUE(alive(stranger));
}

TEST_F(GsmEmuTest, FreezeStopsANodeAndThawLetsItGoOn) {
  up();
  const pid_t member = start_member(1);
  const std::string mark = fmt::format("6{:06}.25", ::getpid());
  ASSERT_EQ(run({"exec", "d", "1", "--", "sh", "-c", daemon(mark)}).exit_code, 0);
  ASSERT_TRUE(loadtest::wait_until([&] { return sleepers(mark).size() == 1; }, 20s));
  const auto state = [&](pid_t pid) { return loadtest::read_proc_stat(pid)->state; };
  const auto sleeper = sleepers(mark);
  const json frozen = run_json({"freeze", "d", "1"});
  EXPECT_EQ(frozen["complete"], true);
  EXPECT_EQ(state(member), 'T');
  EXPECT_EQ(state(sleeper[0]), 'T');
  EXPECT_EQ(run({"thaw", "d", "1"}).exit_code, 0);
  EXPECT_TRUE(
      loadtest::wait_until([&] { return state(member) == 'S' && state(sleeper[0]) == 'S'; }, 20s));
  // A frozen node can crash too.
  EXPECT_EQ(run({"freeze", "d", "1"}).exit_code, 0);
  EXPECT_EQ(run({"crash", "d", "1"}).exit_code, 0);
  EXPECT_TRUE(WIFSIGNALED(ended(member)));
  EXPECT_THAT(sleepers(mark), IsEmpty());
}

TEST_F(GsmEmuTest, LoseTakesMemoryAway) {
  up();
  json lost = run_json({"lose", "d", "0", "--page", "100"});
  EXPECT_EQ(lost["bytes_left"], 100 * 4096);
  EXPECT_EQ(std::filesystem::file_size(segment(0)), 100U * 4096);
  expect_error(run({"lose", "d", "0", "--page", "100"}), "pages 0 to 99");
  EXPECT_EQ(run({"lose", "d", "0"}).exit_code, 0);
  EXPECT_EQ(std::filesystem::file_size(segment(0)), 0U);
  expect_error(run({"damage", "d", "0", "--random", "1"}), "no memory left");
  EXPECT_EQ(std::filesystem::file_size(segment(1)), 16U << 20);
}

TEST_F(GsmEmuTest, DamageIsRepeatable) {
  up();
  const std::string before = loadtest::read_file(segment(0)).value_or("");
  const json first = run_json({"damage", "d", "0", "--random", "50", "--seed", "7"});
  EXPECT_EQ(first["seed"], 7);
  ASSERT_EQ(first["spots"].size(), 50U);
  const std::string after = loadtest::read_file(segment(0)).value_or("");
  std::size_t differences = 0;
  for (std::size_t i = 0; i < before.size(); ++i) differences += before[i] != after[i] ? 1U : 0U;
  EXPECT_GT(differences, 45U);
  for (const json& spot : first["spots"]) EXPECT_GE(spot["offset"].get<std::uint64_t>(), 4096U);
  const json second = run_json({"damage", "d", "1", "--random", "50", "--seed", "7"});
  for (std::size_t i = 0; i < 50; ++i) {
    EXPECT_EQ(first["spots"][i]["offset"], second["spots"][i]["offset"]);
  }
  const json one = run_json({"damage", "d", "0", "--offset", "5000"});
  EXPECT_EQ(one["spots"][0]["offset"], 5000);
  EXPECT_NE(one["spots"][0]["before"], one["spots"][0]["after"]);
  EXPECT_EQ(run({"damage", "d", "0", "--zero-page", "3"}).exit_code, 0);
  const std::string zeroed = loadtest::read_file(segment(0)).value_or("");
  EXPECT_EQ(zeroed.substr(3 * 4096, 4096), std::string(4096, '\0'));
  expect_error(run({"damage", "d", "0"}), "give one of");
  expect_error(run({"damage", "d", "0", "--random", "1", "--offset", "1"}), "give one of");
  expect_error(run({"damage", "d", "0", "--offset", "999999999"}), "bytes long");
}

TEST_F(GsmEmuTest, DamageKeepsToWhatItWasGiven) {
  up();
  const gsm::SegmentHeader header =
      (*gsm::Domain::open(directory(), "d", cache::layout_hash()))->header();
  const auto offsets = [&](const char* where) {
    std::vector<std::uint64_t> found;
    for (const json& spot :
         run_json({"damage", "d", "0", "--random", "100", "--where", where})["spots"]) {
      found.push_back(spot["offset"]);
    }
    return found;
  };
  EXPECT_THAT(offsets("payload"), testing::Each(testing::Ge(header.meta_bytes)));
  EXPECT_THAT(offsets("metadata"),
              testing::Each(AllOf(testing::Ge(4096U), testing::Lt(header.meta_bytes))));
  EXPECT_THAT(offsets("header"), testing::Each(testing::Lt(sizeof(gsm::SegmentHeader))));
  expect_error(run({"damage", "d", "0", "--random", "1", "--where", "cellar"}), "cellar");
}

TEST_F(GsmEmuTest, ResultsGoToAFileAsJson) {
  const std::string file = directory() + "/result.json";
  const ProcessResult made = run({"up", "d", "--memory", "16m", "--json", file});
  EXPECT_EQ(made.exit_code, 0);
  EXPECT_THAT(made.out, HasSubstr("domain d"));
  EXPECT_EQ(json::parse(loadtest::read_file(file).value_or("")).at("name"), "d");
  expect_error(run({"lose", "d", "0", "--json", directory() + "/no/such/place"}), "--json");
}

}  // namespace
}  // namespace mcs
