// SPDX-License-Identifier: Apache-2.0
// transfer_run.hpp: one send or receive under way, through the ring of its pair of ranks.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/operation.hpp"
#include "engine/rank_view.hpp"

namespace xcoll::engine {

// How far each channel of this rank has come. A channel is an ordered pair of ranks.
struct Channels {
  explicit Channels(uint32_t ranks)
      : send_pieces(ranks), recv_pieces(ranks), sends(ranks), recvs(ranks) {}
  std::vector<uint64_t> send_pieces,
      recv_pieces;                     // pieces put into, taken out of the ring to / from a rank
  std::vector<uint64_t> sends, recvs;  // messages begun
};

// Only the oldest run of a channel may advance: that is the engine's business.
class TransferRun {
 public:
  Advance advance(const RankView& view, const Operation& operation, Channels& channels);

 private:
  Advance send(const RankView& view, const Operation& operation, Channels& channels);
  Advance receive(const RankView& view, const Operation& operation, Channels& channels);

  bool begun_ = false;
  uint64_t message_ = 0;
  uint64_t bytes_done_ = 0;
  bool finished_first_piece_ = false;  // an empty message still has one piece
};

}  // namespace xcoll::engine
