// SPDX-License-Identifier: Apache-2.0
#include "engine/failure_board.hpp"

#include <sched.h>

#include <cstring>

#include "base/clock.hpp"
#include "transport/shm/doorbell.hpp"

namespace xcoll::engine {

bool publish_failure(const shm::Segment& segment, const xcoll_failure& failure) {
  shm::FailureBoard& board = segment.header().failure_board;
  uint32_t none = shm::FailureBoard::kNone;
  if (!board.state.compare_exchange_strong(none, shm::FailureBoard::kWriting)) return false;
  board.failure = failure;
  board.state.exchange(shm::FailureBoard::kSet);
  shm::ring_all_sleeping(segment, UINT32_MAX);
  return true;
}

xcoll_failure read_failure(const shm::Segment& segment) {
  const shm::FailureBoard& board = segment.header().failure_board;
  // Written in microseconds, unless its writer was killed in between.
  const uint64_t give_up = now_ns() + 200'000'000;
  while (board.state.load() == shm::FailureBoard::kWriting && now_ns() < give_up) ::sched_yield();
  xcoll_failure failure{};
  switch (board.state.load()) {
    case shm::FailureBoard::kSet:
      failure = board.failure;
      break;
    case shm::FailureBoard::kWriting:
      failure.status = XCOLL_ERR_RANK_FAILED;
      failure.culprit = failure.reporter = -1;
      std::strcpy(failure.text,
                  "a rank was killed while it reported a failure of the communicator");
      break;
    default:
      failure.culprit = failure.reporter = -1;
  }
  failure.struct_size = sizeof(failure);
  return failure;
}

}  // namespace xcoll::engine
