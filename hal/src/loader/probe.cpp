#include "loader/probe.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/environment.hpp"
#include "sync/timeline.hpp"
#include "xhal/init.h"

extern char** environ;

namespace xhal {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kDeadlineNs = 10'000'000'000;
constexpr int64_t kBadVerdictSeconds = 3600;

fs::path probe_program() {
  if (const auto named = environment("XHAL_PROBE_PROGRAM"); !named.empty()) return named;
  Dl_info self{};
  if (dladdr(reinterpret_cast<void*>(&xhal_version), &self) == 0) return {};
  std::error_code ignored;
  const auto lib = fs::weakly_canonical(self.dli_fname, ignored).parent_path();
  for (auto dir = lib; dir.has_relative_path();
       dir = dir.parent_path()) {  // lib, lib/x86_64-linux-gnu, ...
    const auto candidate = dir.parent_path() / "bin" / "xhal-probe";
    if (fs::exists(candidate, ignored)) return candidate;
  }
  return {};
}

fs::path cache_file() {
  if (const auto xdg = environment("XDG_CACHE_HOME"); !xdg.empty())
    return fs::path(xdg) / "xhal" / "probe.json";
  const auto home = environment("HOME");
  return home.empty() ? fs::path() : fs::path(home) / ".cache" / "xhal" / "probe.json";
}

// A file that was replaced has another inode, size or time: that is its identity here.
std::string identity(const fs::path& file) {
  struct stat s {};
  if (stat(file.c_str(), &s) != 0) return "gone";
  return fmt::format("{}:{}:{}:{}.{}", s.st_dev, s.st_ino, s.st_size, s.st_mtim.tv_sec,
                     s.st_mtim.tv_nsec);
}

nlohmann::json read_cache() {
  std::ifstream file(cache_file());
  auto json = file ? nlohmann::json::parse(file, nullptr, false) : nlohmann::json();
  return json.is_object() ? json : nlohmann::json::object();
}

void write_cache(const nlohmann::json& cache) {
  const auto file = cache_file();
  if (file.empty()) return;
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  const auto temporary = file.string() + fmt::format(".{}", getpid());
  // Without a cache the next start probes again, nothing worse; half a one must not be left.
  std::ofstream out(temporary);
  out << cache.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  out.close();
  if (out) fs::rename(temporary, file, error);
  if (!out || error) fs::remove(temporary, error);
}

// What was read from a file or a child may have any type.
int64_t number_of(const nlohmann::json& object, const char* key, int64_t otherwise) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_integer() ? it->get<int64_t>() : otherwise;
}
std::string text_of(const nlohmann::json& object, const std::string& otherwise) {
  const auto it = object.find("text");
  return it != object.end() && it->is_string() ? it->get<std::string>() : otherwise;
}

Problem from_verdict(const nlohmann::json& verdict) {
  const auto status = static_cast<xhal_status>(number_of(verdict, "status", XHAL_OK));
  return status == XHAL_OK ? Problem{} : Problem{status, text_of(verdict, "probe failed")};
}

// A verdict counts while nothing it was made from has changed; a bad one not for ever. One that
// this library would not have written does not count.
bool still_valid(const nlohmann::json& verdict) {
  const auto maps = verdict.find("maps");
  if (maps == verdict.end() || !maps->is_object() || maps->empty()) return false;
  for (const auto& [file, id] : maps->items()) {
    if (!id.is_string() || identity(file) != id.get<std::string>()) return false;
  }
  const auto status = number_of(verdict, "status", INT64_MIN);
  if (status == XHAL_OK) return true;
  return status < 0 && status >= INT32_MIN &&
         time(nullptr) - number_of(verdict, "time", 0) < kBadVerdictSeconds;
}

// Runs the child; its standard output is the JSON it prints. Returns its wait status, -1 when it
// did not end in time.
int run_probe(const fs::path& program, const fs::path& library, std::string* output) {
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) return -2;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  const char* argv[] = {program.c_str(), library.c_str(), nullptr};
  pid_t pid = -1;
  const int failed =
      posix_spawn(&pid, program.c_str(), &actions, nullptr, const_cast<char**>(argv), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_fds[1]);
  if (failed != 0) {
    close(pipe_fds[0]);
    return -2;
  }
  const uint64_t deadline = deadline_after(kDeadlineNs);
  bool ended = false;
  while (!ended) {
    const uint64_t now = now_ns();
    pollfd p{pipe_fds[0], POLLIN, 0};
    if (now >= deadline || poll(&p, 1, static_cast<int>((deadline - now) / 1'000'000 + 1)) == 0)
      break;
    char buffer[4096];
    const ssize_t n = read(pipe_fds[0], buffer, sizeof buffer);
    if (n > 0) output->append(buffer, static_cast<size_t>(n));
    ended = n == 0;
  }
  close(pipe_fds[0]);
  if (!ended) kill(pid, SIGKILL);
  int status = 0;
  waitpid(pid, &status, 0);
  return ended ? status : -1;
}

}  // namespace

Problem probe_library(const fs::path& library) {
  auto cache = read_cache();
  if (const auto hit = cache.find(library.string()); hit != cache.end() && still_valid(*hit))
    return from_verdict(*hit);
  const auto program = probe_program();
  if (program.empty()) {
    return {
        XHAL_ERR_NOT_FOUND,
        "xhal-probe is not installed beside libxhal, and the plugin asks to be probed before it "
        "is loaded; install the xhal tools or set XHAL_PROBE_PROGRAM"};
  }
  std::string output;
  const int ended = run_probe(program, library, &output);
  auto verdict = nlohmann::json::parse(output, nullptr, false);
  if (!verdict.is_object()) verdict = nlohmann::json::object();
  Problem problem;
  if (ended == -1) {
    problem = {
        XHAL_ERR_TIMEOUT,
        fmt::format("{} did not finish loading within 10 s in a child process; it hangs in a "
                    "constructor or in negotiation",
                    library.string())};
  } else if (ended == -2) {
    problem = {XHAL_ERR_IO,
               fmt::format("{} could not be started: {}", program.string(), std::strerror(errno))};
  } else if (WIFSIGNALED(ended)) {
    problem = {
        XHAL_ERR_PLUGIN,
        fmt::format("{} crashed while it was loaded in a child process (signal {}, {}); report it "
                    "to its vendor",
                    library.string(), WTERMSIG(ended), strsignal(WTERMSIG(ended)))};
  } else if (WEXITSTATUS(ended) != 0) {
    problem = {XHAL_ERR_PLUGIN,
               text_of(verdict, fmt::format("{} does not load (xhal-probe exit {})",
                                            library.string(), WEXITSTATUS(ended)))};
  }
  nlohmann::json maps = nlohmann::json::object();
  maps[library.string()] = identity(library);
  if (const auto listed = verdict.find("maps"); listed != verdict.end() && listed->is_array()) {
    for (const auto& file : *listed) {
      if (file.is_string()) maps[file.get<std::string>()] = identity(file.get<std::string>());
    }
  }
  cache[library.string()] = {
      {"status", problem.status}, {"text", problem.text}, {"time", time(nullptr)}, {"maps", maps}};
  write_cache(cache);
  return problem;
}

}  // namespace xhal
