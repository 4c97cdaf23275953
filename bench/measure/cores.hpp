// SPDX-License-Identifier: Apache-2.0
// cores.hpp: the cores a figure was taken on, and how far they are from each other.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace xhal::bench {

// The processors this process may run on.
std::vector<int> allowed_cpus();
void bind_this_thread(int cpu);
// Lets this thread run wherever the process may again.
void unbind_this_thread();

// The processor for the n-th thread of a peer: two on one would wait for each other.
int cpu_of(unsigned thread);

double load_average();
std::string processor_name();

// Nanoseconds that a cache line takes from one core to the other, half of a round trip between two
// threads bound to the first two processors: the quickest of a few. NaN on a single processor.
// Leaves the calling thread unbound.
double cache_line_hop_ns();
// One sample of the same, as a side that takes its turn. Errors: std::runtime_error when there is
// no second processor to play with.
double cache_line_hop_sample_ns();

// Two virtual processors can be siblings or share a cache ("near"), or not ("far"), and a
// hypervisor may move them during a run.
inline constexpr double kNearHopNs = 100;

// Threads that run one body together, each on a processor of its own: the peer's side of work that
// a device spreads over its cores.
class Team {
 public:
  explicit Team(unsigned threads);  // this thread is one of them
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  unsigned size() const { return size_; }
  // Calls body(index) on every thread and returns when all have returned.
  void run(const std::function<void(unsigned)>& body);

 private:
  struct Part;
  unsigned size_;
  Part* part_;
};

}  // namespace xhal::bench
