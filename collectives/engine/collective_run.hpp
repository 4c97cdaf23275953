// SPDX-License-Identifier: Apache-2.0
// collective_run.hpp: one collective under way: executes a schedule as far as it goes without
// waiting, and continues there the next time.
#pragma once

#include <cstdint>

#include "engine/operation.hpp"
#include "engine/rank_view.hpp"

namespace xcoll::engine {

class CollectiveRun {
 public:
  // `polls`: how often a step looks at a counter before it gives up for this attempt.
  Advance advance(const RankView& view, const Operation& operation, uint64_t sequence,
                  uint32_t polls);

  // The rank whose step was missing at the last attempt.
  uint32_t blocked_on() const { return blocked_on_; }
  bool entered() const { return phase_ != Phase::kBefore; }

 private:
  enum class Phase : uint8_t { kBefore, kEnter, kLoop };

  void post(const RankView& view, const Operation& operation, uint64_t sequence);
  Advance enter(const RankView& view, const Operation& operation, uint64_t sequence,
                uint32_t polls);
  Advance loop(const RankView& view, const Operation& operation, uint64_t sequence, uint32_t polls);
  bool plan_all_to_all_v(const RankView& view, const Operation& operation, uint64_t sequence);
  void plan_pieces(const RankView& view, const Operation& operation, uint64_t largest_block);

  Phase phase_ = Phase::kBefore;
  const schedule::Schedule* schedule_ = nullptr;
  uint32_t next_entry_ = 0;  // kEnter: ranks below it have entered and agree
  uint32_t next_step_ = 0;   // kLoop
  uint64_t iteration_ = 0;
  uint64_t iterations_ = 0;
  uint64_t pieces_ = 0;
  uint64_t piece_elements_ = 0;  // 0: not in pieces
  uint32_t blocked_on_ = 0;
};

}  // namespace xcoll::engine
