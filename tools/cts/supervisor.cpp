// SPDX-License-Identifier: Apache-2.0
#include "supervisor.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "printed.hpp"

namespace xhal::cts {
namespace {

using std::chrono::milliseconds;

constexpr int kHangsWithAllTheirTime = 2, kMostHangs = 8;

// What a test gets once `hangs` others have hung.
milliseconds limit_after(int hangs, milliseconds limit) {
  return hangs < kHangsWithAllTheirTime ? limit : std::max(limit / 6, milliseconds(1000));
}

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
  int fd = -1;       // what it says
  int printed = -1;  // its standard output
};

Child start(const Names& tests, milliseconds limit, const RunTests& run) {
  int ends[2];
  const int printed = make_output_file();
  if (printed < 0) return {};
  if (pipe2(ends, O_CLOEXEC) != 0) {
    close(printed);
    return {};
  }
  fflush(nullptr);
  const pid_t parent = getpid(), pid = fork();
  if (pid == 0) {
    // A group of its own: what hangs is ended with the processes that it has started.
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(2);
    close(ends[0]);
    move_output_to(printed);
    run(tests, limit, [fd = ends[1]](const tools::Json& message) { write_line(fd, message); });
    std::exit(0);
  }
  close(ends[1]);
  return {pid, ends[0], printed};
}

// Hands every message on until the child has closed its end, or says nothing for too long.
void listen(const Child& child, milliseconds limit, const Emit& receive) {
  std::string text;
  while (true) {
    pollfd p{child.fd, POLLIN, 0};
    const int ready = poll(&p, 1, static_cast<int>(limit.count()));
    if (ready < 0 && errno == EINTR) continue;
    char buffer[65536];
    const ssize_t count = ready == 0 ? 0 : read(child.fd, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    text.append(buffer, static_cast<size_t>(count));
    for (size_t end; (end = text.find('\n')) != text.npos; text.erase(0, end + 1)) {
      receive(tools::Json::parse(text.substr(0, end)));
    }
  }
}

// How a child ended.
struct Ending {
  bool hung = false;
  int status = 0;  // as waitpid has it
  bool well() const { return !hung && WIFEXITED(status) && WEXITSTATUS(status) == 0; }
  std::string text(milliseconds limit) const {
    if (hung) return fmt::format("it did not end within {} s", limit.count() / 1000.0);
    if (WIFSIGNALED(status)) {
      return fmt::format("the process crashed: signal {} ({})", WTERMSIG(status),
                         strsignal(WTERMSIG(status)));
    }
    return fmt::format("the process ended: exit status {}, which is for xhal-cts alone to choose",
                       WEXITSTATUS(status));
  }
};

// Ends the child with all that it has started. One that has closed its pipe is about to be gone.
Ending end(const Child& child) {
  Ending ending;
  ending.hung = true;
  for (int tries = 0; ending.hung && tries < 1000; ++tries) {
    ending.hung = waitpid(child.pid, &ending.status, WNOHANG) == 0;
    pollfd closed{child.fd, POLLIN, 0};
    if (ending.hung && poll(&closed, 1, 0) == 0) break;  // still open: it hangs
    if (ending.hung) poll(nullptr, 0, 1);
  }
  kill(-child.pid, SIGKILL);
  while (ending.hung && waitpid(child.pid, &ending.status, 0) < 0 && errno == EINTR) {
  }
  close(child.fd);
  pass_on_printed(child.printed);
  close(child.printed);
  return ending;
}

// What one child has said.
struct Progress {
  std::string running;  // a test
  std::string doing = "while it started";
  bool any_ended = false, finished = false, problem = false;

  void take(const tools::Json& message, Names& left) {
    if (message.contains("doing")) doing = message["doing"];
    if (message.contains("started")) running = message["started"];
    if (message.contains("finished")) finished = true;
    if (message.contains("problem")) problem = true;
    if (!message.contains("ended")) return;
    any_ended = true;
    std::erase(left, message["ended"].get<std::string>());
    running.clear();
  }
  // Another child would come no further.
  bool stuck() const { return running.empty() && !any_ended && !finished; }
};

}  // namespace

void supervise(Names left, milliseconds limit, const RunTests& run, const Emit& receive) {
  std::string why = "the run ended without it";
  for (int hangs = 0; !left.empty() && hangs < kMostHangs;) {
    const auto patience = limit_after(hangs, limit);
    Progress progress;
    const auto child = start(left, patience, run);
    if (child.pid < 0) {
      return receive({{"problem", fmt::format("cannot start a child: {}", std::strerror(errno))},
                      {"status", tools::kUsage}});
    }
    listen(child, patience, [&](const tools::Json& message) {
      progress.take(message, left);
      receive(message);
    });
    const auto ending = end(child);
    if (progress.problem) return;
    if (progress.finished && ending.well()) break;

    auto reason = ending.text(patience);
    if (progress.running.empty()) reason += ", " + progress.doing;
    if (progress.stuck())
      return receive({{"not_run", left}, {"reason", reason}, {"before", "the first test"}});
    const auto name = progress.running.empty() ? "outside of a test" : progress.running;
    receive(
        {{"ended", name}, {"how", "failed"}, {"reason", reason}, {"seconds", 0}, {"abrupt", true}});
    std::erase(left, name);
    if (progress.finished) break;
    hangs += ending.hung;
    if (hangs == kMostHangs) why = fmt::format("{} tests hung before it", hangs);
  }
  if (!left.empty()) receive({{"not_run", left}, {"reason", why}});
}

}  // namespace xhal::cts
