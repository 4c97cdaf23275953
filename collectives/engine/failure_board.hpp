// SPDX-License-Identifier: Apache-2.0
// failure_board.hpp: the one sticky error on a communicator. It lies in the shared memory; the
// first rank to publish wins, and everybody reads the same.
#pragma once

#include <string>

#include "transport/shm/segment.hpp"

namespace xcoll::engine {

inline bool has_failed(const shm::Segment& segment) {
  return segment.header().failed_by.load() != 0;
}

// Publishes as rank `failure.reporter` and wakes everybody; false when another sticky error was
// first. On return there is one in any case. Allocates nothing.
bool publish_failure(const shm::Segment& segment, const xcoll_failure& failure);

// The sticky error; status XCOLL_OK when there is none.
xcoll_failure read_failure(const shm::Segment& segment);

}  // namespace xcoll::engine
