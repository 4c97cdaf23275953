// SPDX-License-Identifier: Apache-2.0
#include "transport/shm/processes.hpp"

#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <string>

namespace xcoll::shm {
namespace {

// What /proc/<pid>/stat tells; state 0: the process is not there, or /proc is not.
struct Stat {
  char state = 0;
  uint64_t start_time = 0;
};

Stat stat_of(int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(file, line);
  // "pid (name) S ...": the name may hold anything, so look behind the last parenthesis.
  const size_t end_of_name = line.rfind(')');
  if (end_of_name == std::string::npos) return {};
  std::istringstream fields(line.substr(end_of_name + 1));
  Stat stat;
  fields >> stat.state;
  std::string skipped;
  constexpr int kFieldsBetween = 18;  // field 3 is the state, field 22 the start time
  for (int i = 0; i < kFieldsBetween; ++i) fields >> skipped;
  fields >> stat.start_time;
  return stat;
}

bool has_ended(const Stat& stat) {
  return stat.state == 0 || stat.state == 'Z' || stat.state == 'X';
}

}  // namespace

bool Processes::alive(const RankInfo& rank) const {
  if (rank.process < pidfds_.size()) {
    pollfd poll_pidfd{pidfds_[rank.process].get(), POLLIN, 0};
    return ::poll(&poll_pidfd, 1, 0) <= 0 || (poll_pidfd.revents & POLLIN) == 0;
  }
  if (rank.pid <= 0) return true;  // of another pid namespace: nothing to ask for
  if (::kill(static_cast<pid_t>(rank.pid), 0) != 0 && errno == ESRCH) return false;
  if (rank.start_time == 0) return true;  // no /proc: the pid is all there is
  const Stat stat = stat_of(rank.pid);
  return !has_ended(stat) && stat.start_time == rank.start_time;
}

bool Processes::stopped(const RankInfo& rank) {
  const char state = stat_of(rank.pid).state;
  return state == 'T' || state == 't';
}

Fd open_pidfd(int64_t pid) { return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))); }

uint64_t start_time_of(int64_t pid) {
  const Stat stat = stat_of(pid);
  return has_ended(stat) ? 0 : stat.start_time;
}

}  // namespace xcoll::shm
