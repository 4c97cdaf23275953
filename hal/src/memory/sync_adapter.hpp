// sync_adapter.hpp: what memory/ needs of sync/, in one place.
#pragma once

#include "core/context_state.hpp"
#include "sync/stream_state.hpp"
#include "sync/timeline.hpp"
#include "xhal/event.h"

namespace xhal {

// As xhal_event_record and xhal_stream_wait_event of a stream that is not captured.
xhal_status record_event(StreamState& side, uint32_t flags, xhal_event* event);
xhal_status wait_event(StreamState& side, const xhal_event& event);

// XHAL_OK, NOT_READY or the failure's status; leaves the thread's error record alone.
inline xhal_status poll_event(const xhal_event& event) noexcept {
  return event.timeline == nullptr ? XHAL_OK : Timeline::of(event.timeline)->poll(event.value);
}

inline bool is_captured(const StreamState& side) {
  return side.capture.load(std::memory_order_acquire) != nullptr;
}

}  // namespace xhal
