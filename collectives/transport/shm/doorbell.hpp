// SPDX-License-Identifier: Apache-2.0
// doorbell.hpp: sleeping until something in the shared memory has changed.
//
// A signaller stores its counter (sequentially consistent), then looks whether anybody sleeps; a
// sleeper says that it sleeps, then looks at the counters once more. One of the two sees the other.
#pragma once

#include <cstdint>

#include "transport/shm/segment.hpp"

namespace xcoll::shm {

// Wakes the owner of the doorbell if it sleeps. Thread: any, any process.
void ring(Doorbell& doorbell);

// Called after a counter of interest to `rank` has been stored.
inline void ring_if_sleeping(const Segment& segment, uint32_t rank) {
  if (segment.header().sleepers.load() == 0) return;
  Doorbell& doorbell = segment.doorbell(rank);
  if (doorbell.sleeping.load() != 0) ring(doorbell);
}
void ring_all_sleeping(const Segment& segment, uint32_t except);

// Announces that `rank` is about to sleep, for as long as the object lives: construct it, look at
// what is waited for once more, then sleep().
class Nap {
 public:
  Nap(const Segment& segment, uint32_t rank);
  ~Nap();
  Nap(const Nap&) = delete;

  // Returns when the doorbell rings or rang since construction, or after `timeout_ns`.
  void sleep(uint64_t timeout_ns);

 private:
  std::atomic<uint32_t>& sleepers_;
  Doorbell& doorbell_;
  uint32_t heard_;
};

}  // namespace xcoll::shm
