// SPDX-License-Identifier: Apache-2.0
#include "transport/shm/doorbell.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace xcoll::shm {

void ring(Doorbell& doorbell) {
  doorbell.word.fetch_add(1);
  ::syscall(SYS_futex, &doorbell.word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

void ring_all_sleeping(const Segment& segment, uint32_t except) {
  if (segment.header().sleepers.load() == 0) return;
  for (uint32_t rank = 0; rank < segment.ranks(); ++rank) {
    Doorbell& doorbell = segment.doorbell(rank);
    if (rank != except && doorbell.sleeping.load() != 0) ring(doorbell);
  }
}

Nap::Nap(const Segment& segment, uint32_t rank)
    : sleepers_(segment.header().sleepers),
      doorbell_(segment.doorbell(rank)),
      heard_(doorbell_.word.load()) {
  doorbell_.sleeping.store(1);
  sleepers_.fetch_add(1);
}

Nap::~Nap() {
  sleepers_.fetch_sub(1);
  doorbell_.sleeping.store(0);
}

void Nap::sleep(uint64_t timeout_ns) {
  const timespec timeout{static_cast<time_t>(timeout_ns / 1'000'000'000u),
                         static_cast<long>(timeout_ns % 1'000'000'000u)};
  // Every return is a reason to look again: woken, rung before, timed out, interrupted by a signal.
  ::syscall(SYS_futex, &doorbell_.word, FUTEX_WAIT, heard_, &timeout, nullptr, 0);
}

}  // namespace xcoll::shm
