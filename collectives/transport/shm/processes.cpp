// SPDX-License-Identifier: Apache-2.0
#include "transport/shm/processes.hpp"

#include <poll.h>
#include <sys/syscall.h>

#include <fstream>
#include <string>

#include "base/failure.hpp"

namespace xcoll::shm {

bool Processes::alive(const RankInfo& rank) const {
  if (rank.process >= pidfds_.size()) return true;
  pollfd poll_pidfd{pidfds_[rank.process].get(), POLLIN, 0};
  return ::poll(&poll_pidfd, 1, 0) <= 0 || (poll_pidfd.revents & POLLIN) == 0;
}

bool Processes::stopped(const RankInfo& rank) {
  std::ifstream stat(fmt::format("/proc/{}/stat", rank.pid));
  std::string line;
  std::getline(stat, line);
  // "pid (name) S ...": the name may hold anything, so look behind the last parenthesis.
  const size_t end_of_name = line.rfind(')');
  if (end_of_name == std::string::npos || end_of_name + 2 >= line.size()) return false;
  const char state = line[end_of_name + 2];
  return state == 'T' || state == 't';
}

Fd open_pidfd(int64_t pid) {
  Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) throw system_failure("pidfd_open", fmt::format("watching process {}", pid));
  return fd;
}

}  // namespace xcoll::shm
