// SPDX-License-Identifier: Apache-2.0
// watchdog.hpp: tests of what must not hang or crash. A hang fails the test with a text that says
// what hung; no test is judged by how long it takes.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <future>
#include <source_location>
#include <string>
#include <thread>

namespace xhal::test {

// Long enough for a loaded machine under a sanitizer: only what never ends takes it.
inline constexpr auto kDeadline = std::chrono::seconds(60);

// Runs `body` on a thread of its own. If it does not end, the process says what hung and fails: a
// thread that hangs inside a library cannot be ended on its own.
template <class Body>
void within_deadline(const char* what, Body&& body) {
  std::packaged_task<void()> task(std::forward<Body>(body));
  auto done = task.get_future();
  std::thread thread(std::move(task));
  if (done.wait_for(kDeadline) != std::future_status::ready) {
    std::fprintf(stderr, "%s did not end: it hangs\n", what);
    std::fflush(nullptr);
    _exit(1);
  }
  thread.join();
  done.get();
}

// Runs `body` in a forked child, whose EXPECT and ASSERT lines count. Says how it ended: "" when
// nothing failed, else "hung", "killed by signal 11 (Segmentation fault)", "failed".
// `at_the_end` calls exit() after the body instead of leaving at once: static destructors and
// atexit handlers run.
enum class End { at_once, through_exit };
template <class Body>
std::string in_child(Body&& body, End end = End::at_once) {
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    try {
      body();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "the child threw: %s\n", e.what());
      std::fflush(nullptr);
      _exit(2);
    }
    const int code = testing::Test::HasFailure() ? 1 : 0;
    std::fflush(nullptr);
    if (end == End::through_exit) std::exit(code);
    _exit(code);
  }
  const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  pollfd ended{handle, POLLIN, 0};
  const auto milliseconds = std::chrono::milliseconds(kDeadline).count();
  const bool hung = handle >= 0 && poll(&ended, 1, static_cast<int>(milliseconds)) == 0;
  if (hung) kill(pid, SIGKILL);
  if (handle >= 0) close(handle);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (hung) return "hung";
  if (WIFSIGNALED(status)) {
    return "killed by signal " + std::to_string(WTERMSIG(status)) + " (" +
           strsignal(WTERMSIG(status)) + ")";
  }
  return WEXITSTATUS(status) == 0 ? "" : "failed";
}

// As in_child, for a child that must end well: fails at the caller's line, with `note`.
template <class Body>
void expect_child(Body&& body, const std::string& note = {}, End end = End::at_once,
                  std::source_location where = std::source_location::current()) {
  const auto how = in_child(std::forward<Body>(body), end);
  if (how.empty()) return;
  ADD_FAILURE_AT(where.file_name(), static_cast<int>(where.line()))
      << "the child process: " << how << (note.empty() ? "" : ", ") << note;
}

}  // namespace xhal::test
