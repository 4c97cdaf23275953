// SPDX-License-Identifier: Apache-2.0
// rendezvous.hpp: the ranks of a new communicator find each other.
//
// Rank 0 listens on the abstract unix socket that the id names; the others say who they are. When
// all have come, rank 0 sends each the shared memory and a pidfd of every process, waits until
// all have mapped it, and lets all go. Any failure on the way is told to all, with the names of
// those who did not come. The sockets are closed at the end: from then on everything goes through
// the shared memory.
#pragma once

#include <cstdint>

#include "bootstrap/unique_id.hpp"
#include "transport/shm/processes.hpp"
#include "transport/shm/segment.hpp"

namespace xcoll::bootstrap {

struct Membership {
  shm::Segment segment;
  shm::Processes processes;
};

// Throws TIMEOUT, RANK_FAILED, INVALID_ARGUMENT, UNSUPPORTED or SYSTEM. `deadline_ns`
// is on now_ns().
Membership meet(const IdBody& id, uint32_t ranks, uint32_t rank, uint64_t deadline_ns);

}  // namespace xcoll::bootstrap
