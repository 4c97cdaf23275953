// SPDX-License-Identifier: Apache-2.0
// diagnosis.hpp: finds out who is to blame and says so.
#pragma once

#include <string>

#include "engine/operation.hpp"
#include "engine/rank_view.hpp"
#include "engine/transfer_run.hpp"
#include "transport/shm/processes.hpp"
#include "xcoll/comm.h"

namespace xcoll::engine {

// The operation in whose course something failed.
struct Scene {
  const Operation& operation;
  uint64_t sequence;    // of a collective; 0 for a transfer
  uint32_t blocked_on;  // the rank whose step is missing
};

class Diagnosis {
 public:
  Diagnosis(const shm::Segment& segment, const shm::Processes& processes, uint32_t rank)
      : segment_(segment), processes_(processes), rank_(rank) {}

  // A rank that this operation needs and that has ended or left without doing its part; -1: none.
  int32_t find_lost(const Scene& scene) const;
  // Any rank that has ended, for a look from outside of an operation; -1: none.
  int32_t find_dead() const;

  xcoll_failure lost(uint32_t culprit, const Scene* scene) const;
  xcoll_failure timeout(const Scene& scene, uint64_t waited_ns) const;
  // The operation has not begun: `first`, which is queued before it, waits for another rank.
  xcoll_failure timeout_behind(const Scene& scene, uint64_t waited_ns, const Scene& first) const;
  // The operation has not begun, because its own stream has not come to it or (not null) that of
  // `first`, which is queued before it.
  xcoll_failure timeout_of_stream(const Scene& scene, uint64_t waited_ns, const Scene* first) const;
  xcoll_failure mismatch(const Scene& scene) const;
  xcoll_failure transfer_mismatch(const Scene& scene, const MessageInfo& sent) const;
  xcoll_failure aborted(const char* reason) const;
  xcoll_failure device_failed(const Scene* scene, const std::string& why) const;

  // This rank cannot go on. Allocates nothing.
  xcoll_failure rank_failed(const char* why) const noexcept;

  xcoll_rank_state state_of(uint32_t rank, uint64_t sequence) const;
  uint64_t entered(uint32_t rank) const;  // the last collective it has entered

 private:
  bool dead(uint32_t rank) const { return !processes_.alive(segment_.info(rank)); }
  bool left(uint32_t rank) const { return segment_.board(rank).left.load() != 0; }
  uint64_t finished(uint32_t rank) const { return segment_.board(rank).finished.load(); }

  uint32_t culprit_of_timeout(const Scene& scene) const;
  xcoll_failure blame(xcoll_status status, int32_t culprit, uint64_t sequence) const noexcept;
  xcoll_failure start(xcoll_status status, int32_t culprit, uint64_t sequence) const;
  std::string who(uint32_t rank) const;
  std::string state_text(uint32_t rank, xcoll_rank_state state) const;

  const shm::Segment& segment_;
  const shm::Processes& processes_;
  uint32_t rank_;
};

// "all-reduce #1842 (f32 x 1048576, sum)", "recv from rank 1 (f32 x 8)"
std::string describe(const Scene& scene);

}  // namespace xcoll::engine
