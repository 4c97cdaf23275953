// SPDX-License-Identifier: Apache-2.0
#include "engine/transfer_run.hpp"

#include <algorithm>
#include <cstring>

namespace xcoll::engine {
namespace {

const shm::Piece* head_of(const RankView& view, const Channels& channels, uint32_t source) {
  const uint64_t next = channels.recv_pieces[source];
  if (view.segment.sent_counter(source, view.rank).value.load() <= next) return nullptr;
  return &view.segment.piece(source, view.rank, next);
}

MessageInfo info_of(const shm::Piece& piece) {
  return {piece.count, piece.bytes, piece.type, piece.tag};
}

bool matches(const Operation& operation, const MessageInfo& message) {
  return message.count == operation.count && message.type == operation.type;
}

// Copies the piece at the head of the ring to `to` and frees its slot.
void take_piece(const RankView& view, Channels& channels, uint32_t source, std::byte* to,
                uint64_t bytes) {
  uint64_t& next = channels.recv_pieces[source];
  if (bytes > 0) std::memcpy(to, &view.segment.piece(source, view.rank, next) + 1, bytes);
  view.segment.taken_counter(source, view.rank).value.exchange(++next);
  shm::ring_if_sleeping(view.segment, source);
}

}  // namespace

bool put_aside(const RankView& view, Channels& channels, uint32_t source) {
  std::vector<EarlyMessage>& early = channels.early[source];
  bool moved = false;
  while (const shm::Piece* head = head_of(view, channels, source)) {
    if (early.empty() || early.back().complete) {
      if (moved) return true;  // the next message may be one that somebody waits for
      EarlyMessage fresh;
      fresh.info = info_of(*head);
      fresh.data = std::make_unique_for_overwrite<std::byte[]>(head->bytes);
      early.push_back(std::move(fresh));
    }
    EarlyMessage& message = early.back();
    const uint64_t length = std::min(view.cell_bytes(), message.info.bytes - message.bytes_done);
    take_piece(view, channels, source, message.data.get() + message.bytes_done, length);
    message.bytes_done += length;
    message.complete = message.bytes_done == message.info.bytes;
    moved = true;
  }
  return moved;
}

Advance TransferRun::advance(const RankView& view, const Operation& operation, Channels& channels) {
  return operation.kind == XCOLL_SEND ? send(view, operation, channels)
                                      : receive(view, operation, channels);
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
    piece.count = operation.count;
    piece.bytes = bytes;
    piece.type = operation.type;
    piece.tag = operation.tag;
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

// kDone: the whole message came from memory; kMoved with begun_: its first piece is at the head.
Advance TransferRun::begin_receive(const RankView& view, const Operation& operation,
                                   Channels& channels) {
  const auto source = static_cast<uint32_t>(operation.peer);
  std::vector<EarlyMessage>& early = channels.early[source];
  bool moved = false;
  if (!early.empty()) {
    if (!early.back().complete) moved = put_aside(view, channels, source);
    const auto message = std::ranges::find_if(
        early, [&](const EarlyMessage& other) { return other.info.tag == operation.tag; });
    const Advance not_yet = moved ? Advance::kMoved : Advance::kBlocked;
    if (message == early.end()) {
      if (!early.back().complete) return not_yet;
    } else {
      if (!matches(operation, message->info)) {
        found_ = message->info;
        return Advance::kMismatch;
      }
      if (!message->complete) return not_yet;
      if (message->info.bytes > 0) {
        std::memcpy(operation.recv, message->data.get(), message->info.bytes);
      }
      early.erase(message);
      return Advance::kDone;
    }
  }
  const Advance not_yet = moved ? Advance::kMoved : Advance::kBlocked;
  if (channels.receiving[source] != 0) return not_yet;
  const shm::Piece* head = head_of(view, channels, source);
  if (!head) return not_yet;
  if (head->tag != operation.tag) {
    channels.unclaimed.push_back(source);
    return not_yet;
  }
  if (!matches(operation, info_of(*head))) {
    found_ = info_of(*head);
    return Advance::kMismatch;
  }
  channels.receiving[source] = 1;
  begun_ = true;
  return Advance::kMoved;
}

Advance TransferRun::receive(const RankView& view, const Operation& operation, Channels& channels) {
  const auto source = static_cast<uint32_t>(operation.peer);
  bool moved = false;
  if (!begun_) {
    const Advance begun = begin_receive(view, operation, channels);
    if (!begun_) return begun;
    moved = true;
  }
  const uint64_t bytes = operation.recv_bytes();
  while (bytes_done_ < bytes || !finished_first_piece_) {
    if (!head_of(view, channels, source)) return moved ? Advance::kMoved : Advance::kBlocked;
    const uint64_t length = std::min(view.cell_bytes(), bytes - bytes_done_);
    take_piece(view, channels, source, operation.recv + bytes_done_, length);
    bytes_done_ += length;
    finished_first_piece_ = true;
    moved = true;
  }
  channels.receiving[source] = 0;
  return Advance::kDone;
}

}  // namespace xcoll::engine
