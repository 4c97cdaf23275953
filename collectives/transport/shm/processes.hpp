// SPDX-License-Identifier: Apache-2.0
// processes.hpp: whether the processes of the other ranks live. One pidfd for each process,
// made by rank 0 and handed on, so it is right across pid namespaces and cannot be confused by
// a reused pid. Where there are none (a kernel before 5.3, a seccomp filter, valgrind, too many
// descriptors in flight) a process is its pid and start time in /proc, in one pid namespace.
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
  // `pidfds[p]` is the process number p of RankInfo; empty: by pid and start time.
  explicit Processes(std::vector<Fd> pidfds) : pidfds_(std::move(pidfds)) {}

  // False only when the process has surely ended.
  bool alive(const RankInfo& rank) const;
  // Stopped by SIGSTOP, SIGTSTP or a debugger, as far as /proc tells.
  static bool stopped(const RankInfo& rank);

 private:
  std::vector<Fd> pidfds_;
};

// An fd that becomes readable when the process ends; none where the system gives none.
Fd open_pidfd(int64_t pid);
// The start time of a living process in ticks since boot; 0 when it has ended or /proc is missing.
uint64_t start_time_of(int64_t pid);

}  // namespace xcoll::shm
