// SPDX-License-Identifier: Apache-2.0
// transfer_run.hpp: one send or receive under way, through the ring of its pair of ranks.
//
// A ring keeps the order of sending, a receive names a tag. A message at the head of the ring whose
// tag nobody has asked for, while a receive waits for another one, is put aside into memory of the
// receiver; a receive looks there first, so that messages of one tag keep their order.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/operation.hpp"
#include "engine/rank_view.hpp"

namespace xcoll::engine {

// What the sender says of a message.
struct MessageInfo {
  uint64_t count = 0;
  uint64_t bytes = 0;
  int32_t type = 0;
  int32_t tag = 0;
};

// A message that was put aside, or is being.
struct EarlyMessage {
  MessageInfo info;
  std::unique_ptr<std::byte[]> data;
  uint64_t bytes_done = 0;
  bool complete = false;
};

// How far each channel of this rank has come. A channel is an ordered pair of ranks.
struct Channels {
  explicit Channels(uint32_t ranks)
      : send_pieces(ranks), recv_pieces(ranks), receiving(ranks), early(ranks) {}
  std::vector<uint64_t> send_pieces,
      recv_pieces;                 // put into, taken out of the ring to / from a rank
  std::vector<uint8_t> receiving;  // 1: the message at the head is being received into its place
  std::vector<std::vector<EarlyMessage>> early;  // by source, oldest first; only the last may be
                                                 // incomplete, and then it is the ring's head
  std::vector<uint32_t> unclaimed;  // sources with a message at the head that met no receive
};

// Goes on with putting aside the message at the head of the ring from `source`, or begins to.
// True when something was moved. Throws bad_alloc.
bool put_aside(const RankView& view, Channels& channels, uint32_t source);

// The engine advances the oldest send to a rank, and the oldest receive of a tag from a rank.
class TransferRun {
 public:
  Advance advance(const RankView& view, const Operation& operation, Channels& channels);

  // After kMismatch: what the sender sent.
  const MessageInfo& found() const { return found_; }

 private:
  Advance send(const RankView& view, const Operation& operation, Channels& channels);
  Advance receive(const RankView& view, const Operation& operation, Channels& channels);
  Advance begin_receive(const RankView& view, const Operation& operation, Channels& channels);

  bool begun_ = false;  // of a receive: the message at the head is ours
  uint64_t bytes_done_ = 0;
  bool finished_first_piece_ = false;  // an empty message still has one piece
  MessageInfo found_;
};

}  // namespace xcoll::engine
