// SPDX-License-Identifier: Apache-2.0
// bounce.cpp: copies of host memory that the device does not reach, through staging memory.
//
// Everything runs in stream order: the program's memory is read and written when the stream has got
// there, not before. Two pieces take turns; in a large copy the host's part runs on a helper
// stream, so that the host fills one piece while the device empties the other.
#include <algorithm>
#include <cstring>

#include "core/device_record.hpp"
#include "memory/copy.hpp"
#include "memory/turns.hpp"

namespace xhal {
namespace {

constexpr const char* kOp = "xhal_stream_copy";
constexpr uint64_t kPipelinedBytes = 8 << 20;  // below, two streams cost more than they save

struct HostStep {
  StreamRef stream;
  TimelinePin timeline;
  Piece* piece;
  void* to;
  const void* from;
  uint64_t size;
};

// The program may free its memory as soon as it can see that the stream has failed or its device is
// lost, and the plugin may run this a moment later. Both wait for those who have made themselves
// known; who does so after them keeps away, and fails the stream itself: otherwise the device would
// go on to signal that the copy is done.
void touch_host_memory(const HostStep& step) {
  auto& device = *step.stream->device;
  device.at_host_memory.fetch_add(1, std::memory_order_seq_cst);
  step.stream->at_host_memory.fetch_add(1, std::memory_order_seq_cst);
  const bool losing = device.losing.load(std::memory_order_seq_cst);
  if (!losing && !step.timeline->failed()) std::memcpy(step.to, step.from, step.size);
  step.stream->at_host_memory.fetch_sub(1, std::memory_order_seq_cst);
  device.at_host_memory.fetch_sub(1, std::memory_order_seq_cst);
  if (losing) step.timeline->fail(device.lost_error);
}

void run_host_step(void* user, xhal_status state) {
  const std::unique_ptr<HostStep> step(static_cast<HostStep*>(user));
  if (state == XHAL_OK && step->size > 0) touch_host_memory(*step);
  if (step->piece == nullptr) return;
  if (state != XHAL_OK) step->piece->unsafe.store(true, std::memory_order_relaxed);
  step->piece->drop();
}

uint8_t* host_pointer(const End& end) { return reinterpret_cast<uint8_t*>(end.given); }

// Host memory to the device. `host` is the stream that the host's part runs on.
xhal_status upload(StreamState& side, StreamState& host, Turns& turns, uint64_t dst,
                   const uint8_t* from, uint64_t size) {
  const bool apart = &host != &side;
  xhal_event emptied[Turns::kMostPieces] = {};
  if (apart) {
    if (const auto s = order(side, host); s != XHAL_OK) return s;
  }
  uint64_t done = 0;
  for (uint32_t turn = 0; done < size; ++turn) {
    auto& piece = *turns.piece[turn % turns.count];
    auto& empty = emptied[turn % turns.count];
    const uint64_t part = std::min(piece.size, size - done);
    xhal_status s = apart && turn >= turns.count ? wait_event(host, empty) : XHAL_OK;
    if (s == XHAL_OK) s = host_copy(host, &piece, piece.host, from + done, part);
    if (s == XHAL_OK && apart) s = order(host, side);
    if (s == XHAL_OK) s = native_copy(side, dst + done, piece.seen, part);
    done += part;
    if (s == XHAL_OK && apart && done < size) s = record_event(side, 0, &empty);
    if (s != XHAL_OK) return turns.abandon(s);
  }
  for (uint32_t i = 0; i < turns.count; ++i) {
    if (const auto s = host_copy(side, turns.piece[i], nullptr, nullptr, 0); s != XHAL_OK)
      return turns.abandon(s);
  }
  return XHAL_OK;
}

xhal_status download(StreamState& side, StreamState& host, Turns& turns, uint8_t* to, uint64_t src,
                     uint64_t size) {
  const bool apart = &host != &side;
  xhal_event emptied[Turns::kMostPieces] = {};
  uint64_t done = 0;
  for (uint32_t turn = 0; done < size; ++turn) {
    auto& piece = *turns.piece[turn % turns.count];
    auto& empty = emptied[turn % turns.count];
    const uint64_t part = std::min(piece.size, size - done);
    xhal_status s = apart && turn >= turns.count ? wait_event(side, empty) : XHAL_OK;
    if (s == XHAL_OK) s = native_copy(side, piece.seen, src + done, part);
    if (s == XHAL_OK && apart) s = order(side, host);
    if (s == XHAL_OK) s = host_copy(host, &piece, to + done, piece.host, part);
    if (s == XHAL_OK && apart) s = record_event(host, 0, &empty);
    if (s != XHAL_OK) return turns.abandon(s);
    done += part;
  }
  return apart ? order(host, side) : XHAL_OK;
}

}  // namespace

xhal_status host_copy(StreamState& side, Piece* piece, void* to, const void* from, uint64_t size) {
  auto* step =
      new HostStep{StreamRef(&side), TimelinePin(*side.timeline.load()), piece, to, from, size};
  if (piece != nullptr) piece->hold();
  // What only returns the piece need not hold the stream up.
  const uint32_t flags = size == 0 ? XHAL_HOST_CALL_NON_BLOCKING : 0;
  const auto status = load_slot(dispatch_of(side.handle)->stream_host_call)(
      side.handle, run_host_step, step, flags);
  if (status == XHAL_OK) return XHAL_OK;
  if (piece != nullptr) piece->drop();
  delete step;
  return status;
}

xhal_status bounce(StreamState& side, const End& dst, const End& src, uint64_t size) {
  if (is_captured(side)) {
    return fail(XHAL_ERR_CAPTURE, kOp,
                "{}: host memory that is not pinned cannot be captured in a copy on {}: its bounce "
                "buffer would not outlive the call.\n  Allocate it with xhal_host_alloc, or "
                "register it with xhal_host_register before the capture.",
                kOp, side.device->id());
  }
  if (dst.place != Place::here && src.place != Place::here)
    return host_copy(side, nullptr, host_pointer(dst), host_pointer(src), size);
  const bool large = size >= kPipelinedBytes;
  Turns turns;
  if (large) {
    if (const auto s = turns.take_helper_of(*side.context); s != XHAL_OK) return s;
  }
  StreamState& host = large ? turns.helper_side() : side;
  if (const auto s = turns.take_pieces(size, large ? Turns::kMostPieces : 2, side); s != XHAL_OK)
    return s;
  if (src.place == Place::host)
    return upload(side, host, turns, dst.address, host_pointer(src), size);
  return download(side, host, turns, host_pointer(dst), src.address, size);
}

}  // namespace xhal
