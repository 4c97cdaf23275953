// SPDX-License-Identifier: Apache-2.0
#include "supervisor.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace xhal::cts {
namespace {

constexpr int kMillisecondsForOneTest = 300'000;

void write_line(int fd, const tools::Json& message) {
  const auto line = message.dump(-1, ' ', false, tools::Json::error_handler_t::replace) + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t count = write(fd, line.data() + done, line.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) _exit(2);  // nobody listens any more
    done += static_cast<size_t>(count);
  }
}

struct Child {
  pid_t pid = -1;
  int fd = -1;
};

Child start(const Names& tests, const RunTests& run) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return {};
  fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    const int fd = ends[1];
    std::exit(run(tests, [fd](const tools::Json& message) { write_line(fd, message); }));
  }
  close(ends[1]);
  return {pid, ends[0]};
}

// Hands every message on until the child has closed its end; false when one test took too long.
bool listen(const Child& child, const Emit& receive) {
  std::string text;
  while (true) {
    pollfd p{child.fd, POLLIN, 0};
    if (poll(&p, 1, kMillisecondsForOneTest) == 0) return false;
    char buffer[65536];
    const ssize_t count = read(child.fd, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return true;
    text.append(buffer, static_cast<size_t>(count));
    for (size_t end; (end = text.find('\n')) != text.npos; text.erase(0, end + 1)) {
      receive(tools::Json::parse(text.substr(0, end)));
    }
  }
}

std::string death_text(int status) {
  return WIFSIGNALED(status)
             ? fmt::format("crashed: signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)))
             : fmt::format("ended the process with exit status {}", WEXITSTATUS(status));
}

}  // namespace

int supervise(Names tests, const RunTests& run, const Emit& receive) {
  while (true) {
    std::string running;
    bool began = false;
    const auto child = start(tests, run);
    const bool in_time = listen(child, [&](const tools::Json& message) {
      began = true;
      if (message.contains("started")) running = message["started"];
      if (message.contains("ended")) {
        std::erase(tests, message["ended"].get<std::string>());
        running.clear();
      }
      receive(message);
    });
    if (!in_time) kill(child.pid, SIGKILL);
    int status = 0;
    while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR) {
    }
    close(child.fd);
    if (in_time && WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
    if (!began) return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    const auto reason = in_time ? death_text(status) : std::string("did not end within 5 minutes");
    if (running.empty()) running = "closing the device";
    receive({{"ended", running}, {"how", "failed"}, {"reason", reason}, {"seconds", 0}});
    std::erase(tests, running);
    if (tests.empty()) return 0;
  }
}

}  // namespace xhal::cts
