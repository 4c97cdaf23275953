#include "engine/verdict.hpp"

#include <sched.h>

#include <cstring>

#include "base/clock.hpp"
#include "transport/shm/bell.hpp"

namespace xcoll::engine {

bool publish_verdict(const shm::Segment& segment, const xcoll_failure& failure) {
  shm::Verdict& verdict = segment.header().verdict;
  uint32_t none = shm::Verdict::kNone;
  if (!verdict.state.compare_exchange_strong(none, shm::Verdict::kWriting)) return false;
  verdict.failure = failure;
  verdict.state.exchange(shm::Verdict::kSet);
  shm::ring_all_sleeping(segment, UINT32_MAX);
  return true;
}

xcoll_failure read_verdict(const shm::Segment& segment) {
  const shm::Verdict& verdict = segment.header().verdict;
  // Written in microseconds, unless its writer was killed in between.
  const uint64_t give_up = now_ns() + 200'000'000;
  while (verdict.state.load() == shm::Verdict::kWriting && now_ns() < give_up) ::sched_yield();
  xcoll_failure failure{};
  switch (verdict.state.load()) {
    case shm::Verdict::kSet:
      failure = verdict.failure;
      break;
    case shm::Verdict::kWriting:
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
