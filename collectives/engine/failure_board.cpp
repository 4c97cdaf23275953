// SPDX-License-Identifier: Apache-2.0
#include "engine/failure_board.hpp"

#include <sched.h>

#include "transport/shm/doorbell.hpp"

namespace xcoll::engine {

bool publish_failure(const shm::Segment& segment, const xcoll_failure& failure) {
  std::atomic<uint32_t>& failed_by = segment.header().failed_by;
  if (failed_by.load() != 0) return false;
  const auto reporter = static_cast<uint32_t>(failure.reporter);
  shm::FailureRecord& own = segment.failure_record(reporter);
  if (own.claimed.exchange(1) != 0) {
    // Another thread of this rank is between the two steps.
    while (failed_by.load() == 0) ::sched_yield();
    return false;
  }
  own.failure = failure;
  uint32_t nobody = 0;
  if (!failed_by.compare_exchange_strong(nobody, reporter + 1)) return false;
  shm::ring_all_sleeping(segment, UINT32_MAX);
  return true;
}

xcoll_failure read_failure(const shm::Segment& segment) {
  const uint32_t failed_by = segment.header().failed_by.load();
  xcoll_failure failure{};
  if (failed_by != 0) {
    failure = segment.failure_record(failed_by - 1).failure;
  } else {
    failure.culprit = failure.reporter = -1;
  }
  failure.struct_size = sizeof(failure);
  return failure;
}

}  // namespace xcoll::engine
