// verdict.hpp: the one verdict on a communicator. It lies in the shared memory; the first rank to
// publish wins, and everybody reads the same.
#pragma once

#include <string>

#include "transport/shm/segment.hpp"

namespace xcoll::engine {

inline bool has_verdict(const shm::Segment& segment) {
  return segment.header().verdict.state.load() != shm::Verdict::kNone;
}

// Publishes and wakes everybody. False when another verdict was first.
bool publish_verdict(const shm::Segment& segment, const xcoll_failure& failure);

// The verdict; status XCOLL_OK when there is none.
xcoll_failure read_verdict(const shm::Segment& segment);

}  // namespace xcoll::engine
