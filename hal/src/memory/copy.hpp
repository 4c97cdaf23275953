// copy.hpp: a copy between any two addresses: native, through pinned memory, or across plugins.
#pragma once

#include "sync/stream_state.hpp"
#include "xhal/event.h"

namespace xhal {

xhal_status copy(StreamState& side, uint64_t dst, uint64_t src, uint64_t size_bytes);

// stream.cpp: events on libxhal's own parts.
xhal_status record_event(StreamState& side, uint32_t flags, xhal_event* event);
xhal_status wait_event(StreamState& side, const xhal_event& event);

}  // namespace xhal
