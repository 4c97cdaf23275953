// SPDX-License-Identifier: Apache-2.0
// capture.hpp: captures under way: which streams are in them, and which pool they allocate from.
#pragma once

#include <string>
#include <vector>

#include "sync/stream_state.hpp"

namespace xhal {

struct Capture {
  uint64_t id;  // never used again in this process
  StreamState* origin;
  xhal_pool* pool;
  std::vector<StreamRef> streams;
  std::string refused;  // why libxhal refused a submission; then there will be no graph
};

// The capture's id when the stream is captured with this pool, else 0.
uint64_t capture_of(const StreamState& stream, const xhal_pool* pool) noexcept;
inline bool is_captured(const StreamState& stream) noexcept {
  return stream.capture.load(std::memory_order_acquire) != nullptr;
}

// A number that no capture of this process has had.
uint64_t next_capture() noexcept;
xhal_status begin_capture(StreamState& stream, xhal_pool* pool, uint64_t id);
// `id` and `pool` are set when a capture has ended, also when it failed (then there is no graph).
xhal_status end_capture(StreamState& stream, xhal_graph** graph, uint64_t* id, xhal_pool** pool);
// `stream` waits for an event that was recorded in a capture, and so joins it.
xhal_status join_capture(StreamState& stream, const xhal_event& event);

}  // namespace xhal
