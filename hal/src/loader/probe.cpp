// SPDX-License-Identifier: Apache-2.0
#include "loader/probe.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>

#include "core/environment.hpp"
#include "loader/json.hpp"
#include "loader/probe_cache.hpp"
#include "xhal/init.h"

extern char** environ;

namespace xhal {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Kind = Json::Kind;
constexpr std::chrono::seconds kDeadline{10};
constexpr size_t kMostAnswerBytes = 1 << 20;
constexpr int kLibraryInChild = 3;  // the number of the library's descriptor there

fs::path probe_program() {
  if (const auto named = environment_text("XHAL_PROBE_PROGRAM"); !named.empty()) return named;
  Dl_info self{};
  if (dladdr(reinterpret_cast<void*>(&xhal_version), &self) == 0) return {};
  std::error_code ignored;
  const auto lib = fs::weakly_canonical(self.dli_fname, ignored).parent_path();
  for (auto dir = lib; dir.has_relative_path();
       dir = dir.parent_path()) {  // lib, lib/x86_64-linux-gnu, ...
    const auto candidate = dir.parent_path() / "bin" / "xhal-probe";
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return {};
}

// Waits until the descriptor has something or its other end is closed; false at the deadline.
bool wait_for(int descriptor, Clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd p{descriptor, POLLIN, 0};
    const int ready = poll(&p, 1, static_cast<int>(left));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

// A child whose end is found out whatever the host program does with SIGCHLD, and which never
// outlives this object.
class Child {
 public:
  explicit Child(pid_t pid)
      : pid_(pid), handle_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (handle_) {
      syscall(SYS_pidfd_send_signal, handle_.get(), SIGKILL, nullptr, 0);
    } else if (waitpid(pid_, nullptr, WNOHANG) == 0) {
      // Still our child, so the number is still its own.
      kill(pid_, SIGKILL);
    }
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  // The signal that ended it, if it ends before the deadline and the host lets us know.
  std::optional<int> signal(Clock::time_point deadline) const {
    if (handle_ && !wait_for(handle_.get(), deadline)) return std::nullopt;
    siginfo_t info{};
    const int options = WEXITED | WNOWAIT | (handle_ ? 0 : WNOHANG);
    while (waitid(P_PID, static_cast<id_t>(pid_), &info, options) < 0) {
      if (errno != EINTR) return std::nullopt;  // the host ignores its children's ends
    }
    if (info.si_code != CLD_KILLED && info.si_code != CLD_DUMPED) return std::nullopt;
    return info.si_status;
  }

 private:
  pid_t pid_;
  Descriptor handle_;
};

struct Attributes {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  Attributes() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    // What the host blocks or ignores is not the probe's business.
    sigset_t set;
    sigfillset(&set);
    posix_spawnattr_setsigdefault(&attributes, &set);
    sigemptyset(&set);
    posix_spawnattr_setsigmask(&attributes, &set);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  }
  ~Attributes() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
};

enum class End { answered, silent, late, not_started };

struct Answer {
  End end = End::silent;
  int error = 0;              // not_started
  std::optional<int> signal;  // silent: what ended it, where that is known
  Json verdict;               // answered
};

// The child's last whole line, if it is the verdict with this number. A plugin may print before it.
std::optional<Json> verdict_in(const std::string& output, const std::string& nonce) {
  if (output.empty() || output.back() != '\n') return std::nullopt;
  const auto before = output.rfind('\n', output.size() - 2);
  const size_t begin = before == std::string::npos ? 0 : before + 1;
  auto json = Json::parse(std::string_view(output).substr(begin));
  if (!json) return std::nullopt;
  const Json* said = json->find("nonce");
  if (said == nullptr || !said->is(Kind::text) || said->text != nonce) return std::nullopt;
  return json;
}

std::string make_nonce() {
  uint64_t number[2] = {};
  if (getrandom(number, sizeof number, GRND_NONBLOCK) < 0)
    number[0] = static_cast<uint64_t>(Clock::now().time_since_epoch().count());
  return fmt::format("{:016x}{:016x}", number[0], number[1]);
}

Answer run_probe(const fs::path& program, const TrustedFile& library) {
  Answer answer;
  const auto deadline = Clock::now() + kDeadline;
  const auto not_started = [&](int error) {
    answer.end = End::not_started;
    answer.error = error;
    return answer;
  };
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return not_started(errno);
  // Above the numbers that the child's own descriptors get.
  const auto high = [](int number) {
    const Descriptor low(number);
    return Descriptor(fcntl(number, F_DUPFD_CLOEXEC, kLibraryInChild + 1));
  };
  const Descriptor reader = high(ends[0]);
  Descriptor writer = high(ends[1]);
  const Descriptor file(fcntl(library.descriptor.get(), F_DUPFD_CLOEXEC, kLibraryInChild + 1));
  if (!reader || !writer || !file) return not_started(errno);
  fcntl(reader.get(), F_SETFL, O_NONBLOCK);

  Attributes spawn;
  posix_spawn_file_actions_addopen(&spawn.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&spawn.actions, writer.get(), STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&spawn.actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&spawn.actions, file.get(), kLibraryInChild);
  const auto nonce = make_nonce();
  const auto number = std::to_string(kLibraryInChild);
  const char* argv[] = {program.c_str(), "--descriptor",       number.c_str(), "--nonce",
                        nonce.c_str(),   library.path.c_str(), nullptr};
  pid_t pid = -1;
  if (const int error = posix_spawn(&pid, program.c_str(), &spawn.actions, &spawn.attributes,
                                    const_cast<char**>(argv), environ);
      error != 0)
    return not_started(error);
  const Child child(pid);
  writer = Descriptor();

  std::string output;
  for (;;) {
    if (!wait_for(reader.get(), deadline)) {
      answer.end = End::late;
      return answer;
    }
    char buffer[4096];
    const ssize_t count = read(reader.get(), buffer, sizeof buffer);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0 || output.size() > kMostAnswerBytes) break;
    output.append(buffer, static_cast<size_t>(count));
    if (auto verdict = verdict_in(output, nonce)) {
      answer.end = End::answered;
      answer.verdict = std::move(*verdict);
      return answer;
    }
  }
  answer.signal = child.signal(deadline);
  return answer;
}

Problem from_verdict(const TrustedFile& library, const Json& verdict) {
  const Json* name = verdict.find("verdict");
  if (name != nullptr && name->is(Kind::text) && name->text == "ok") return {};
  const Json* status = verdict.find("status");
  const Json* text = verdict.find("text");
  const bool known = status != nullptr && status->is(Kind::integer) && status->integer < 0 &&
                     status->integer >= INT32_MIN;
  return {known ? static_cast<xhal_status>(status->integer) : xhal_status{XHAL_ERR_PLUGIN},
          text != nullptr && text->is(Kind::text) && !text->text.empty()
              ? text->text
              : fmt::format("{} was refused by xhal-probe, which gave no reason",
                            library.path.string())};
}

Problem judge(const TrustedFile& library, const fs::path& program, const Answer& answer) {
  const auto path = library.path.string();
  switch (answer.end) {
    case End::answered:
      return from_verdict(library, answer.verdict);
    case End::late:
      return {XHAL_ERR_TIMEOUT,
              fmt::format("{} did not finish loading within {} s in a child process; it hangs in a "
                          "constructor or in negotiation",
                          path, kDeadline.count())};
    case End::not_started:
      return {XHAL_ERR_IO, fmt::format("{} could not be started: {}", program.string(),
                                       std::strerror(answer.error))};
    case End::silent:
      break;
  }
  const auto how = answer.signal ? fmt::format(
                                       "crashed while it was loaded in a child process "
                                       "(signal {}, {})",
                                       *answer.signal, strsignal(*answer.signal))
                                 : std::string(
                                       "crashed, or ended the process, while it was loaded "
                                       "in a child process");
  return {XHAL_ERR_PLUGIN, fmt::format("{} {}; report it to its vendor", path, how)};
}

}  // namespace

Problem probe_library(const TrustedFile& library) {
  if (auto verdict = remembered_verdict(library.path)) return *verdict;
  const auto program = probe_program();
  if (program.empty()) {
    return {
        XHAL_ERR_NOT_FOUND,
        "xhal-probe is not installed beside libxhal, and the plugin asks to be probed before it "
        "is loaded; install the xhal tools or set XHAL_PROBE_PROGRAM"};
  }
  const auto answer = run_probe(program, library);
  const auto problem = judge(library, program, answer);
  std::vector<std::string> mapped;
  if (const Json* maps = answer.verdict.find("maps")) {
    for (const auto& file : maps->list) {
      if (file.is(Kind::text)) mapped.push_back(file.text);
    }
  }
  // That the child could not be started, or met another file, says nothing about this one.
  const bool lasting = answer.end != End::not_started && problem.status != XHAL_ERR_BUSY;
  if (lasting && library.is_in_place()) remember_verdict(library.path, problem, mapped);
  return problem;
}

}  // namespace xhal
