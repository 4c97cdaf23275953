// SPDX-License-Identifier: Apache-2.0
#include "child.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <memory>
#include <stdexcept>

extern char** environ;

namespace xhal::bench {
namespace {

struct Pipe {
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
      throw std::runtime_error(fmt::format("pipe: {}", std::strerror(errno)));
    out = ends[0];
    in = ends[1];
  }
  int out, in;
};

// The environment of this process with `changes` ("NAME=value") in place of what they name.
std::vector<std::string> changed_environment(const std::vector<std::string>& changes) {
  std::vector<std::string> all = changes;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('=') + 1);
    bool replaced = false;
    for (const auto& change : changes) replaced |= change.starts_with(name);
    if (!replaced) all.push_back(text);
  }
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (auto& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

// Starts a program with its standard input and output on the given descriptors (-1: inherited).
int spawn(const std::string& program, const std::vector<std::string>& arguments,
          const std::vector<std::string>& environment, int in, int out) {
  std::vector<std::string> argv = {program}, env = changed_environment(environment);
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (in >= 0) posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
  if (out >= 0) posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  pid_t pid = -1;
  const int failed = posix_spawn(&pid, program.c_str(), &actions, nullptr, pointers(argv).data(),
                                 pointers(env).data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0)
    throw std::runtime_error(
        fmt::format("{} could not be started: {}", program, std::strerror(failed)));
  return pid;
}

std::string ending(int status) {
  return WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                             : fmt::format("exit status {}", WEXITSTATUS(status));
}

}  // namespace

std::string own_path() { return std::filesystem::read_symlink("/proc/self/exe"); }

Child::Child(const std::string& program, const std::vector<std::string>& arguments,
             const std::vector<std::string>& environment) {
  std::signal(SIGPIPE, SIG_IGN);
  Pipe asks, answers;
  pid_ = spawn(program, arguments, environment, asks.out, answers.in);
  close(asks.out);
  close(answers.in);
  ask_ = asks.in;
  answer_ = answers.out;
}

Child::~Child() {
  close(ask_);
  close(answer_);
  waitpid(pid_, nullptr, 0);
}

Sample Child::side(const std::string& program, const std::vector<std::string>& arguments,
                   const std::vector<std::string>& environment) {
  auto child = std::make_shared<Child>(program, arguments, environment);
  return [child] { return child->sample(); };
}

double Child::sample() {
  double value = 0;
  const char ask = '?';
  if (write(ask_, &ask, 1) != 1 ||
      read(answer_, &value, sizeof value) != static_cast<ssize_t>(sizeof value))
    throw std::runtime_error("the measuring child process ended; what it wrote above says why");
  return value;
}

int serve(const Sample& sample) {
  char ask = 0;
  while (read(STDIN_FILENO, &ask, 1) == 1) {
    double value = 0;
    try {
      value = sample();
    } catch (const std::exception& error) {
      fmt::print(stderr, "bench child: {}\n", error.what());
      return 1;
    }
    if (write(STDOUT_FILENO, &value, sizeof value) != static_cast<ssize_t>(sizeof value)) return 1;
  }
  return 0;
}

std::string output_of(const std::string& program, const std::vector<std::string>& arguments,
                      const std::vector<std::string>& environment) {
  Pipe output;
  const int pid = spawn(program, arguments, environment, -1, output.in);
  close(output.in);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(output.out, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  close(output.out);
  int status = 0;
  waitpid(pid, &status, 0);
  if (status != 0) throw std::runtime_error(fmt::format("{} failed ({})", program, ending(status)));
  return text;
}

}  // namespace xhal::bench
