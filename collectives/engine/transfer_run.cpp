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

Advance TransferRun::advance(const Fabric& fabric, const Operation& operation, Channels& channels) {
  const bool sending = operation.kind == XCOLL_SEND;
  if (!begun_) {
    message_ = ++(sending ? channels.sends : channels.recvs)[static_cast<size_t>(operation.peer)];
    begun_ = true;
  }
  return sending ? send(fabric, operation, channels) : receive(fabric, operation, channels);
}

Advance TransferRun::send(const Fabric& fabric, const Operation& operation, Channels& channels) {
  const auto peer = static_cast<uint32_t>(operation.peer);
  uint64_t& next = channels.send_pieces[peer];
  const auto& taken = fabric.segment.taken_counter(fabric.rank, peer).value;
  const uint64_t bytes = operation.send_bytes();
  bool moved = false;
  while (bytes_done_ < bytes || !finished_first_piece_) {
    if (next - taken.load() >= shm::kSlots) return moved ? Advance::kMoved : Advance::kBlocked;
    shm::Piece& piece = fabric.segment.piece(fabric.rank, peer, next);
    piece.message = message_;
    piece.fingerprint = fingerprint_of(operation, message_);
    piece.count = operation.count;
    piece.dtype = operation.type;
    const uint64_t length = std::min(fabric.cell_bytes(), bytes - bytes_done_);
    if (length > 0) std::memcpy(&piece + 1, operation.send + bytes_done_, length);
    bytes_done_ += length;
    finished_first_piece_ = true;
    fabric.segment.sent_counter(fabric.rank, peer).value.exchange(++next);
    shm::ring_if_sleeping(fabric.segment, peer);
    moved = true;
  }
  return Advance::kDone;
}

Advance TransferRun::receive(const Fabric& fabric, const Operation& operation, Channels& channels) {
  const auto peer = static_cast<uint32_t>(operation.peer);
  uint64_t& next = channels.recv_pieces[peer];
  const auto& sent = fabric.segment.sent_counter(peer, fabric.rank).value;
  const uint64_t bytes = operation.recv_bytes();
  bool moved = false;
  while (bytes_done_ < bytes || !finished_first_piece_) {
    if (sent.load() <= next) return moved ? Advance::kMoved : Advance::kBlocked;
    const shm::Piece& piece = fabric.segment.piece(peer, fabric.rank, next);
    if (piece.fingerprint != fingerprint_of(operation, message_)) return Advance::kMismatch;
    const uint64_t length = std::min(fabric.cell_bytes(), bytes - bytes_done_);
    if (length > 0) std::memcpy(operation.recv + bytes_done_, &piece + 1, length);
    bytes_done_ += length;
    finished_first_piece_ = true;
    fabric.segment.taken_counter(peer, fabric.rank).value.exchange(++next);
    shm::ring_if_sleeping(fabric.segment, peer);
    moved = true;
  }
  return Advance::kDone;
}

}  // namespace xcoll::engine
