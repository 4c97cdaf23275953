// SPDX-License-Identifier: Apache-2.0
// bridge.cpp: copies between devices that do not reach each other: a helper stream of the far
// device and this stream take turns on staging memory that both know, and events put them in order.
#include <algorithm>

#include "core/device_record.hpp"
#include "memory/copy.hpp"
#include "memory/turns.hpp"

namespace xhal {
namespace {

constexpr const char* kOp = "xhal_stream_copy";
constexpr uint32_t kPieces = 2;

// From the far device's memory: the helper fills pieces, this stream empties them.
// To it: the other way round. Addresses of pieces are the host's: both streams know them by that.
xhal_status cross(StreamState& first, StreamState& second, Turns& turns, uint64_t dst, uint64_t src,
                  uint64_t size) {
  xhal_event emptied[kPieces] = {};
  uint64_t done = 0;
  for (uint32_t turn = 0; done < size; ++turn) {
    auto& piece = *turns.piece[turn % turns.count];
    auto& empty = emptied[turn % turns.count];
    const auto middle = reinterpret_cast<uint64_t>(piece.host);
    const uint64_t part = std::min(piece.size, size - done);
    xhal_status s = turn >= turns.count ? wait_event(first, empty) : XHAL_OK;
    if (s == XHAL_OK) s = copy(first, middle, src + done, part);
    if (s == XHAL_OK) s = order(first, second);
    if (s == XHAL_OK) s = copy(second, dst + done, middle, part);
    done += part;
    if (s == XHAL_OK && done < size) s = record_event(second, 0, &empty);
    if (s != XHAL_OK) return s;
  }
  return XHAL_OK;
}

}  // namespace

xhal_status bridge(StreamState& side, const End& dst, const End& src, uint64_t size) {
  if (is_captured(side)) {
    return fail(XHAL_ERR_CAPTURE, kOp,
                "{}: a copy between devices that do not reach each other cannot be captured", kOp);
  }
  const bool from_far = src.place == Place::foreign;
  const auto& range = *(from_far ? src : dst).range;
  auto* context =
      range.context != nullptr ? range.context : private_of(range.device)->device->context;
  Turns turns;
  if (const auto s = turns.take_helper_of(*state_of(context)); s != XHAL_OK) return s;
  auto& helper = turns.helper_side();
  if (const auto s = turns.take_pieces(size, kPieces, side); s != XHAL_OK) return s;
  xhal_status s = XHAL_OK;
  if (from_far) {
    s = order(side, helper);  // after what this stream has got before
    if (s == XHAL_OK) s = cross(helper, side, turns, dst.given, src.given, size);
  } else {
    s = cross(side, helper, turns, dst.given, src.given, size);
    if (s == XHAL_OK) s = order(helper, side);
  }
  // When this stream gets there, both are done with the pieces.
  for (uint32_t i = 0; i < turns.count && s == XHAL_OK; ++i)
    s = host_copy(side, turns.piece[i], nullptr, nullptr, 0);
  return s == XHAL_OK ? s : turns.abandon(s);
}

}  // namespace xhal
