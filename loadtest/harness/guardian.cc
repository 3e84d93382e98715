// SPDX-License-Identifier: Apache-2.0
#include "loadtest/harness/guardian.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <stdexcept>

namespace mcs::loadtest {

namespace {

// One message: a sign ('+' or '-'), a kind ('g'roup, 'p'ath, 'c'ommand), a value and a zero byte.
// The words of a command are separated by '\x1f'.
constexpr char kWordSeparator = '\x1f';

void run_to_end(const std::vector<std::string>& words) {
  const pid_t child = fork();
  if (child == 0) {
    std::vector<char*> argv;
    for (const std::string& word : words) {
      argv.push_back(const_cast<char*>(word.c_str()));
    }
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  if (child > 0) {
    waitpid(child, nullptr, 0);
  }
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const size_t end = std::min(text.find(kWordSeparator), text.size());
    words.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

void clean_up(const std::vector<std::string>& entries) {
  const auto each = [&](char kind, auto&& action) {
    for (const std::string& entry : entries) {
      if (entry[0] == kind) {
        action(entry.substr(1));
      }
    }
  };
  each('g', [](const std::string& value) {
    pid_t group = 0;
    std::from_chars(value.data(), value.data() + value.size(), group);
    if (group > 1) {
      kill(-group, SIGKILL);
    }
  });
  each('c', [](const std::string& value) { run_to_end(split_words(value)); });
  each('p', [](const std::string& value) {
    run_to_end({"rm", "-rf", "--one-file-system", "--", value});
  });
}

[[noreturn]] void guard(int inherited) {
  const int pipe = fcntl(inherited, F_DUPFD_CLOEXEC, 3);
  setsid();
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) {
    std::signal(signal, SIG_IGN);
  }
  std::signal(SIGCHLD, SIG_DFL);
  // Whatever the parent holds (listening sockets, pipes of a shell) must not stay open in here.
  const int null = open("/dev/null", O_RDWR);
  for (const int fd : {0, 1, 2}) {
    dup2(null, fd);
  }
  if (pipe > 3) {
    close_range(3, static_cast<unsigned>(pipe) - 1, 0);
  }
  close_range(static_cast<unsigned>(pipe) + 1, ~0U, 0);

  std::vector<std::string> entries;
  std::string pending;
  char buffer[4096];
  for (;;) {
    const ssize_t got = read(pipe, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      break;
    }
    pending.append(buffer, static_cast<size_t>(got));
    for (size_t end; (end = pending.find('\0')) != std::string::npos;) {
      const std::string entry = pending.substr(1, end - 1);
      if (pending[0] == '+') {
        entries.push_back(entry);
      } else if (auto it = std::find(entries.begin(), entries.end(), entry); it != entries.end()) {
        entries.erase(it);
      }
      pending.erase(0, end + 1);
    }
  }
  clean_up(entries);
  _exit(0);
}

std::string join_words(const std::vector<std::string>& argv) {
  std::string text;
  for (const std::string& word : argv) {
    text += (text.empty() ? "" : std::string(1, kWordSeparator)) + word;
  }
  return text;
}

}  // namespace

Guardian& Guardian::instance() {
  // Never destroyed: static objects that outlive it may still unregister, and the pipe closes with
  // the process.
  static Guardian* const guardian = new Guardian;
  return *guardian;
}

Guardian::Guardian() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    throw std::runtime_error(std::string("cannot make a socket pair: ") + std::strerror(errno));
  }
  // Two forks, so that it is no child that a waitpid(-1) of the program could meet.
  const pid_t child = fork();
  if (child == 0) {
    if (fork() == 0) {
      guard(fds[0]);
    }
    _exit(0);
  }
  close(fds[0]);
  if (child < 0) {
    throw std::runtime_error(std::string("cannot fork: ") + std::strerror(errno));
  }
  waitpid(child, nullptr, 0);
  pipe_ = fds[1];
}

Guardian::~Guardian() { close(pipe_); }

void Guardian::send(char sign, char kind, std::string_view value) {
  std::string message{sign, kind};
  message.append(value);
  message.push_back('\0');
  const std::lock_guard lock(mutex_);
  for (size_t sent = 0; sent < message.size();) {
    const ssize_t n = ::send(pipe_, message.data() + sent, message.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EINTR) {
      return;
    }
    sent += n > 0 ? static_cast<size_t>(n) : 0;
  }
}

void Guardian::add_group(pid_t group) { send('+', 'g', std::to_string(group)); }
void Guardian::remove_group(pid_t group) { send('-', 'g', std::to_string(group)); }
void Guardian::add_path(const std::filesystem::path& path) { send('+', 'p', path.string()); }
void Guardian::remove_path(const std::filesystem::path& path) { send('-', 'p', path.string()); }
void Guardian::add_command(const std::vector<std::string>& argv) {
  send('+', 'c', join_words(argv));
}
void Guardian::remove_command(const std::vector<std::string>& argv) {
  send('-', 'c', join_words(argv));
}

}  // namespace mcs::loadtest
