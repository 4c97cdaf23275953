// SPDX-License-Identifier: Apache-2.0
#include "common/child.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include "common/library.hpp"

namespace xhal::tools {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kSlice{20};

void write_line(int fd, const Json& message) {
  const auto line = message.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t count = write(fd, line.data() + done, line.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) _exit(kUsage);  // the parent is gone
    done += static_cast<size_t>(count);
  }
}

[[noreturn]] void be_the_child(pid_t parent, int fd, const std::function<void(const Emit&)>& work) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kUsage);
  dup2(STDERR_FILENO, STDOUT_FILENO);
  const auto failed = [&](int status, const char* text) {
    write_line(fd, {{"failure", text}, {"status", status}});
  };
  try {
    work([fd](const Json& message) { write_line(fd, {{"message", message}}); });
    write_line(fd, {{"finished", true}});
  } catch (const Failure& failure) {
    failed(failure.status, failure.what());
  } catch (const std::exception& e) {
    failed(kUsage, e.what());
  } catch (...) {
    failed(kUsage, "a plugin threw something that is no std::exception");
  }
  std::fflush(nullptr);
  _exit(0);  // destructors and exit handlers are the parent's
}

// The parent's view of the child: its lines as they come, and its end.
class Child {
 public:
  Child(pid_t pid, int fd) : pid_(pid), fd_(fd) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    close(fd_);
    if (status_) return;
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  // The next message; nothing when the child has ended or the deadline has passed.
  std::optional<Json> next(Clock::time_point deadline) {
    while (true) {
      if (const auto end = text_.find('\n'); end != text_.npos) {
        auto message = Json::parse(text_.substr(0, end), nullptr, false);
        text_.erase(0, end + 1);
        return message;
      }
      // Its end is looked for besides: a process that it has started may keep the pipe open.
      const bool readable = wait_readable();
      if (readable && read_some()) continue;
      if (!status_) look();
      if (status_ && !wait_readable(0)) return std::nullopt;
      if (Clock::now() >= deadline) return std::nullopt;
      if (readable) poll(nullptr, 0, static_cast<int>(kSlice.count()));  // closed, but alive
    }
  }
  std::optional<int> status() const { return status_; }

 private:
  bool wait_readable(int milliseconds = static_cast<int>(kSlice.count())) const {
    if (closed_) return milliseconds != 0;
    pollfd p{fd_, POLLIN, 0};
    return poll(&p, 1, milliseconds) > 0;
  }
  bool read_some() {
    char buffer[16384];
    const ssize_t count = closed_ ? 0 : read(fd_, buffer, sizeof buffer);
    if (count > 0) text_.append(buffer, static_cast<size_t>(count));
    if (count == 0) closed_ = true;
    return count > 0 || (count < 0 && errno == EINTR);
  }
  void look() {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) status_ = status;
  }

  pid_t pid_;
  int fd_;
  bool closed_ = false;
  std::string text_;
  std::optional<int> status_;
};

ChildEnd end_of(std::optional<int> status, std::chrono::milliseconds patience) {
  if (!status) return {ChildEnd::How::silent, 0, patience};
  if (WIFSIGNALED(*status)) return {ChildEnd::How::signalled, WTERMSIG(*status), patience};
  return {ChildEnd::How::exited, WEXITSTATUS(*status), patience};
}

}  // namespace

std::string ChildEnd::text() const {
  switch (how) {
    case How::finished:
      return "finished";
    case How::exited:
      return fmt::format("ended the process with exit status {}", code);
    case How::signalled:
      return fmt::format("crashed: signal {} ({})", code, strsignal(code));
    case How::silent:
      return fmt::format("did not answer within {:g} s",
                         std::chrono::duration<double>(patience).count());
    case How::not_started:
      return fmt::format("could not be given a process of its own: {}", std::strerror(code));
  }
  return {};
}

ChildEnd run_in_child(std::chrono::milliseconds silence,
                      const std::function<void(const Emit&)>& work, const Emit& receive) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return {ChildEnd::How::not_started, errno, silence};
  std::fflush(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    be_the_child(parent, ends[1], work);
  }
  const int error = errno;
  close(ends[1]);
  if (pid < 0) {
    close(ends[0]);
    return {ChildEnd::How::not_started, error, silence};
  }
  Child child(pid, ends[0]);
  while (true) {
    const auto line = child.next(Clock::now() + silence);
    if (!line) return end_of(child.status(), silence);
    if (line->contains("message")) {
      receive((*line)["message"]);
    } else if (line->contains("failure")) {
      throw Failure(line->value("status", int{kUsage}), line->value("failure", ""));
    } else if (line->contains("finished")) {
      return {ChildEnd::How::finished, 0, silence};
    }
  }
}

}  // namespace xhal::tools
