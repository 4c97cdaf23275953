// SPDX-License-Identifier: Apache-2.0
// processes.hpp: whether the processes of the other ranks live. One pidfd for each process,
// made by rank 0 and handed on, so it is right across pid namespaces and cannot be confused by
// a reused pid.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "transport/shm/segment.hpp"

namespace xcoll::shm {

class Processes {
 public:
  Processes() = default;
  // `pidfds[p]` is the process number p of RankInfo.
  explicit Processes(std::vector<Fd> pidfds) : pidfds_(std::move(pidfds)) {}

  // False only when the process has surely ended.
  bool alive(const RankInfo& rank) const;
  // Stopped by SIGSTOP, SIGTSTP or a debugger, as far as /proc tells.
  static bool stopped(const RankInfo& rank);

 private:
  std::vector<Fd> pidfds_;
};

// An fd that becomes readable when the process ends.
Fd open_pidfd(int64_t pid);

}  // namespace xcoll::shm
