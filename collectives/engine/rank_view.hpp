// SPDX-License-Identifier: Apache-2.0
// rank_view.hpp: what the runs of operations work on: the shared memory as seen by one rank.
#pragma once

#include <cstdint>

#include "schedule/cache.hpp"
#include "transport/shm/doorbell.hpp"
#include "transport/shm/segment.hpp"

namespace xcoll::engine {

struct RankView {
  const shm::Segment& segment;
  uint32_t rank;
  schedule::Cache& schedules;

  uint32_t ranks() const { return segment.ranks(); }
  uint64_t cell_bytes() const { return segment.layout().cell_bytes; }
};

// What one attempt to make progress came to.
enum class Advance {
  kDone,
  kMoved,     // did something, then had to wait
  kBlocked,   // did nothing: what it waits for has not come
  kMismatch,  // a peer does something else
};

}  // namespace xcoll::engine
