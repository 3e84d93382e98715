// SPDX-License-Identifier: Apache-2.0
#include "loadtest/chaos/os_crash/guest.h"

#include <sys/resource.h>

#include <algorithm>
#include <sstream>

#include "loadtest/harness/net.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {

using std::chrono::milliseconds;

namespace {

constexpr const char* kCrashes[] = {"exit signal", "exited on signal", "segfault", "traps:"};

bool answers(int port) {
  auto connection = RawConnection::open(port, milliseconds(5000));
  if (!connection ||
      !connection->send("GET /f0.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")) {
    return false;
  }
  const auto response = connection->read_response();
  return response && response->status == 200;
}

}  // namespace

Guest::Guest(GuestOptions options)
    : options_(std::move(options)),
      shell_port_(free_port()),
      nginx_port_(free_port()),
      httpd_port_(free_port()) {}

std::filesystem::path Guest::console(unsigned boot) const {
  return options_.consoles / fmt::format("node{}.boot{}", options_.node, boot);
}

Result<void> Guest::start() {
  cut();
  const std::string forward = fmt::format(
      "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{}-:9999,hostfwd=tcp:127.0.0.1:{}-:80,"
      "hostfwd=tcp:127.0.0.1:{}-:8080",
      shell_port_, nginx_port_, httpd_port_);
  const int nicer = std::max(0, options_.nice - ::getpriority(PRIO_PROCESS, 0));
  const std::vector<std::string> argv = {
      "nice", "-n", fmt::format("{}", nicer), "qemu-system-x86_64", "-nodefaults",
      "-no-user-config", "-display", "none", "-machine", "q35",
      // Room for a second processor: with one, atomic instructions would not be so between guests.
      "-accel", "tcg,thread=multi", "-smp", "1,maxcpus=2",
      // Without these, copying is six times as fast here.
      "-cpu", "max,-erms,-fsrm", "-m", "256M", "-no-reboot", "-kernel",
      options_.image.kernel.string(), "-initrd", options_.image.files.string(), "-append",
      fmt::format("console=ttyS0 quiet mitigations=off panic=0 mcs.node={}", options_.node),
      "-serial", "file:" + console(boots_).string(), "-object",
      fmt::format("memory-backend-file,id=gsm,size={},share=on,mem-path={}", options_.memory_bytes,
                  options_.memory.string()),
      "-device", "ivshmem-plain,memdev=gsm", "-netdev", forward, "-device",
      "virtio-net-pci,netdev=net,romfile="};
  SpawnOptions spawn;
  spawn.stderr_file = options_.consoles / fmt::format("node{}.qemu", options_.node);
  auto started = ChildProcess::start(argv, spawn);
  if (!started) return tl::unexpected(started.error());
  ++boots_;
  qemu_ = std::move(*started);
  return {};
}

void Guest::panic() {
  auto shell = RawConnection::open(shell_port_);
  if (!shell || !shell->send("echo c >/proc/sysrq-trigger\n")) return cut();
  const auto panicked = [&] { return console_tail().find("Kernel panic") != std::string::npos; };
  if (!wait_until(panicked, milliseconds(20'000))) cut();
}

Result<std::string> Guest::run(const std::string& command, milliseconds timeout) {
  auto shell = RawConnection::open(shell_port_, timeout);
  if (!shell) return tl::unexpected(shell.error());
  // QEMU itself accepts connections, whether or not anybody is there.
  if (auto sent = shell->send(command + "\necho; echo done\nexit\n"); !sent)
    return tl::unexpected(sent.error());
  auto said = shell->read_to_close();
  if (!said) return tl::unexpected(said.error());
  if (!said->ends_with("done\n")) return fail("node {} does not answer", options_.node);
  said->resize(said->size() - std::string("\ndone\n").size());
  return said;
}

bool Guest::serves() const { return answers(nginx_port_) && answers(httpd_port_); }

std::vector<std::string> Guest::crashes() const {
  std::vector<std::string> found;
  for (unsigned boot = 0; boot < boots_; ++boot) {
    std::istringstream lines(read_file(console(boot)).value_or(""));
    for (std::string line; std::getline(lines, line);) {
      const bool killed = line.find("signal 9") != std::string::npos ||
                          line.find("Killed (9)") != std::string::npos;
      const bool crash =
          std::any_of(std::begin(kCrashes), std::end(kCrashes),
                      [&](const char* sign) { return line.find(sign) != std::string::npos; });
      if (crash && !killed)
        found.push_back(fmt::format("node {}, boot {}: {}", options_.node, boot, line));
    }
  }
  return found;
}

std::string Guest::console_tail() const {
  if (boots_ == 0) return {};
  const std::string text = read_file(console(boots_ - 1)).value_or("");
  return text.size() > 2000 ? text.substr(text.size() - 2000) : text;
}

}  // namespace mcs::loadtest
