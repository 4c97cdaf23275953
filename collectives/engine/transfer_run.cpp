// SPDX-License-Identifier: Apache-2.0
#include "engine/transfer_run.hpp"

#include <algorithm>
#include <cstring>

namespace xcoll::engine {
namespace {

// Type and count only: the kinds differ by nature, and the order is that of the ring.
uint64_t fingerprint_of(const Operation& operation, uint64_t message) {
  return fingerprint_at((operation.count << 8) | operation.type, message);
}

}  // namespace

Advance TransferRun::advance(const RankView& view, const Operation& operation, Channels& channels) {
  const bool sending = operation.kind == XCOLL_SEND;
  if (!begun_) {
    message_ = ++(sending ? channels.sends : channels.recvs)[static_cast<size_t>(operation.peer)];
    begun_ = true;
  }
  return sending ? send(view, operation, channels) : receive(view, operation, channels);
}

Advance TransferRun::send(const RankView& view, const Operation& operation, Channels& channels) {
  const auto peer = static_cast<uint32_t>(operation.peer);
  uint64_t& next = channels.send_pieces[peer];
  const auto& taken = view.segment.taken_counter(view.rank, peer).value;
  const uint64_t bytes = operation.send_bytes();
  bool moved = false;
  while (bytes_done_ < bytes || !finished_first_piece_) {
    if (next - taken.load() >= shm::kSlots) return moved ? Advance::kMoved : Advance::kBlocked;
    shm::Piece& piece = view.segment.piece(view.rank, peer, next);
    piece.message = message_;
    piece.fingerprint = fingerprint_of(operation, message_);
    piece.count = operation.count;
    piece.dtype = operation.type;
    const uint64_t length = std::min(view.cell_bytes(), bytes - bytes_done_);
    if (length > 0) std::memcpy(&piece + 1, operation.send + bytes_done_, length);
    bytes_done_ += length;
    finished_first_piece_ = true;
    view.segment.sent_counter(view.rank, peer).value.exchange(++next);
    shm::ring_if_sleeping(view.segment, peer);
    moved = true;
  }
  return Advance::kDone;
}

Advance TransferRun::receive(const RankView& view, const Operation& operation, Channels& channels) {
  const auto peer = static_cast<uint32_t>(operation.peer);
  uint64_t& next = channels.recv_pieces[peer];
  const auto& sent = view.segment.sent_counter(peer, view.rank).value;
  const uint64_t bytes = operation.recv_bytes();
  bool moved = false;
  while (bytes_done_ < bytes || !finished_first_piece_) {
    if (sent.load() <= next) return moved ? Advance::kMoved : Advance::kBlocked;
    const shm::Piece& piece = view.segment.piece(peer, view.rank, next);
    if (piece.fingerprint != fingerprint_of(operation, message_)) return Advance::kMismatch;
    const uint64_t length = std::min(view.cell_bytes(), bytes - bytes_done_);
    if (length > 0) std::memcpy(operation.recv + bytes_done_, &piece + 1, length);
    bytes_done_ += length;
    finished_first_piece_ = true;
    view.segment.taken_counter(peer, view.rank).value.exchange(++next);
    shm::ring_if_sleeping(view.segment, peer);
    moved = true;
  }
  return Advance::kDone;
}

}  // namespace xcoll::engine
